//! What the targets of the wires share: an answer decoded in several ways, which must agree.

use std::collections::VecDeque;
use zo_providers::wire::{Codec, Decoder};
use zo_traits::{Accumulator, ErrorKind, StreamEvent};

type Outcome = (Vec<StreamEvent>, Result<(), ErrorKind>);

/// Cuts `bytes` into pieces whose lengths follow from `seed`: all at once, one by one, or mixed.
pub fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (bytes, u32::from(seed));
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = match seed {
            0 => rest.len(),
            1 => 1,
            _ => 1 + (state >> 24) as usize % usize::from(seed),
        };
        let (piece, tail) = rest.split_at(len.min(rest.len()));
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

fn streamed<C: Codec>(codec: C, body: &[u8], seed: u8) -> Outcome {
    let (mut decoder, mut out) = (Decoder::new(codec), VecDeque::new());
    let fed = pieces(body, seed).try_for_each(|piece| decoder.feed(piece, &mut out));
    let result = fed.and_then(|()| decoder.finish(&mut out)).map_err(|e| e.kind());
    assert!(result.is_err() || decoder.is_finished());
    (out.into(), result)
}

fn whole<C: Codec>(codec: C, body: &[u8]) -> Outcome {
    let (mut decoder, mut out) = (Decoder::new(codec), VecDeque::new());
    let result = decoder.whole(body, &mut out).map_err(|e| e.kind());
    (out.into(), result)
}

/// Events obey the grammar up to where they end, and an answer is whole exactly when the decoder said so.
fn obeys(body: &[u8], (events, result): &Outcome) {
    let mut fold = Accumulator::default();
    for event in events {
        assert!(!matches!(result, Err(ErrorKind::Cancelled | ErrorKind::Other(_))), "{result:?}");
        if let Err(e) = fold.push(event.clone()) {
            panic!("{e}: {event:?} in {events:?}");
        }
    }
    assert_eq!(fold.is_finished(), result.is_ok(), "{result:?} after {events:?}");
    assert_eq!(fold.finish().is_ok(), result.is_ok());
    let said = |e: &StreamEvent| if let StreamEvent::Delta { text, .. } = e { text.len() } else { 0 };
    let said: usize = events.iter().map(said).sum();
    assert!(said <= 8 * body.len() + 64, "{said} bytes out of {}", body.len());
}

/// Does it begin as a JSON text does?
fn is_json(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    matches!(text.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Decodes `body` as a stream and as one JSON text, whole and cut. The first two bytes say how it is cut.
///
/// `ends` are texts of which an answer that is complete holds at least one; without any of them a stream was cut.
pub fn answer<C: Codec>(data: &[u8], ends: &[&str], codec: impl Fn(u8) -> C) {
    let Some((&[mode, at], body)) = data.split_first_chunk() else { return };
    let all = streamed(codec(mode), body, 0);
    obeys(body, &all);
    for seed in [1, 2 + mode % 32] {
        assert_eq!(streamed(codec(mode), body, seed), all, "cut into pieces");
    }
    let has = |text: &[u8], wanted: &str| text.windows(wanted.len()).any(|w| w == wanted.as_bytes());
    let (cut, _) = body.split_at(body.len() * usize::from(at) / 256);
    for text in [body, cut] {
        let outcome = streamed(codec(mode), text, 3);
        obeys(text, &outcome);
        // With a backslash the words may be there in another spelling. One JSON text is judged as such: half of it is none.
        let may_be_whole = text.contains(&b'\\') || is_json(text) || ends.iter().any(|end| has(text, end));
        assert!(may_be_whole || outcome.1.is_err(), "an answer without an end was taken for whole");
    }
    let one = whole(codec(mode), body);
    obeys(body, &one);
    let short = whole(codec(mode), cut);
    obeys(cut, &short);
    // (A stream is understood here, too, and may be whole before its last byte.)
    if cut.len() < body.trim_ascii_end().len() && one.1.is_ok() && is_json(body) {
        assert!(short.1.is_err(), "half a body was taken for whole");
    }
}
