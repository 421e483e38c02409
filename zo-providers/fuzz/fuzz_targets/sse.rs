//! Any bytes as server-sent events: the events are those of the specification, however the bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zo_providers::wire::sse::Sse;
use zo_providers_fuzz::pieces;

type Events = Vec<(String, String)>;

fn decode(bytes: &[u8], seed: u8, limit: usize) -> (Events, bool) {
    let (mut sse, mut out) = (Sse::with_limit(limit), Events::new());
    let mut sink = |name: &str, data: &str| {
        out.push((name.to_owned(), data.to_owned()));
        Ok(())
    };
    let fed = pieces(bytes, seed).try_for_each(|piece| sse.feed(piece, &mut sink));
    let whole = fed.and_then(|()| sse.finish(&mut sink)).is_ok();
    (out, whole)
}

/// WHATWG HTML, section 9.2.6, written down once more: all at once, without care for time or memory. An event that is still
/// open at the end counts.
fn reference(bytes: &[u8]) -> Events {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut lines = vec![Vec::new()];
    let mut after_cr = false;
    for byte in bytes {
        match byte {
            b'\n' if after_cr => {}
            b'\n' | b'\r' => lines.push(Vec::new()),
            other => lines.last_mut().expect("a line").push(*other),
        }
        after_cr = *byte == b'\r';
    }
    // The last line never ended; if it is empty, that alone does not end an event. The end of the bytes does.
    lines.push(Vec::new());
    let (mut out, mut data, mut name): (Events, Option<Vec<u8>>, _) = (Events::new(), None, Vec::new());
    for line in lines {
        if line.is_empty() {
            if let Some(data) = data.take() {
                let name = String::from_utf8_lossy(if name.is_empty() { b"message" } else { &name });
                out.push((name.into_owned(), String::from_utf8_lossy(&data).into_owned()));
            }
            name.clear();
            continue;
        }
        let at = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let value = line.get(at + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..at] {
            b"event" => name = value.to_vec(),
            b"data" => match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            },
            _ => {}
        }
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((&[seed, small], bytes)) = data.split_first_chunk() else { return };
    let seeds = [0, 1, 2 + seed % 64];
    let expected = reference(bytes);
    for seed in seeds {
        assert_eq!(decode(bytes, seed, 1 << 20), (expected.clone(), true), "in pieces of {seed}");
    }
    let limit = usize::from(small);
    let first = decode(bytes, 0, limit);
    for seed in seeds {
        assert_eq!(decode(bytes, seed, limit), first, "in pieces of {seed}, at most {limit} bytes");
    }
    assert!(first.0.iter().all(|(name, data)| name.len().min(data.len()) <= 3 * limit.max(7)));
    assert!(first.0.iter().all(|(_, data)| data.len() <= 3 * limit), "larger than the limit");
    assert!(expected.starts_with(&first.0), "a limit ends a stream and changes nothing before");
});
