//! Any bytes as an answer of Gemini's `generateContent`, or of its lists, counts and embeddings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zo_providers::wire::gemini::{Generate, counted, embeddings, models};
use zo_providers_fuzz::answer;
use zo_traits::ErrorKind;

fuzz_target!(|data: &[u8]| {
    answer(data, &["finishReason", "blockReason"], |_| Generate::new());
    let body = data.get(2..).unwrap_or_default();
    match embeddings(body) {
        Ok(all) => assert!(all.iter().flatten().all(|n| n.is_finite()) && all.iter().all(|v| !v.is_empty())),
        Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt),
    }
    for kind in [models(body).err(), counted(body).err()].into_iter().flatten().map(|e| e.kind()) {
        assert_eq!(kind, ErrorKind::Corrupt);
    }
});
