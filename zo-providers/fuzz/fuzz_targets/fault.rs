//! Any status, headers and body as a failure: it has a class, says little, and asks for no wait that nobody would wait.
//!
//! Input: two bytes for the status, lines `name: value` up to an empty one, and the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use zo_providers::wire::fault::{Fault, classify, classify_inner};
use zo_traits::Timestamp;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn sane(fault: Fault) {
    assert!(fault.message.chars().count() <= 401, "{} bytes of message", fault.message.len());
    assert!(!fault.message.contains(['\n', '\r']), "one line: {:?}", fault.message);
    assert!(
        fault.code.as_ref().is_none_or(|c| c.len() <= 2_000),
        "a code of {:?} bytes",
        fault.code.map(|c| c.len())
    );
    assert!(fault.retry_after.is_none_or(|wait| wait <= Duration::from_secs(86_400)));
    assert!(fault.retryable || fault.retry_after.is_none(), "a wait without a retry: {fault:?}");
    let (kind, wait) = (fault.kind(), fault.retry_after);
    let error = fault.into_error("provider.stream");
    assert_eq!((error.kind(), error.retry_after()), (kind, wait));
    assert!(error.to_string().len() <= 8_000 && error.model_text().len() <= 8_000);
}

fuzz_target!(|data: &[u8]| {
    let Some((status, rest)) = data.split_first_chunk() else { return };
    let text = String::from_utf8_lossy(rest);
    let (head, body) = text.split_once("\n\n").unwrap_or(("", &text));
    let headers: Vec<(String, &str)> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
        .collect();
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
    let status = u16::from_be_bytes(*status);
    let fault = classify(status, header, body, NOW);
    assert_eq!(classify(status, header, body, NOW), fault);
    assert!(!fault.message.is_empty());
    sane(fault);
    sane(classify(400 + status % 200, header, body, NOW));
    sane(classify_inner(body));
});
