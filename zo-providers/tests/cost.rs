//! What the decoder costs. Prints; asserts only what no machine should miss.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::VecDeque, time::Instant};
use zo_providers::wire::{Codec, Decoder, anthropic::Messages, openai_chat::Chat};

/// Best time per event, in nanoseconds, to decode `event` many times over.
fn per_event<C: Codec>(make: impl Fn() -> C, head: &str, event: &str) -> f64 {
    const N: u32 = 2_000;
    let body = head.to_owned() + &event.repeat(N as usize);
    let once = || {
        let (mut decoder, mut out) = (Decoder::new(make()), VecDeque::new());
        let began = Instant::now();
        for piece in body.as_bytes().chunks(event.len()) {
            decoder.feed(piece, &mut out).unwrap();
            out.clear();
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(N)
    };
    (0..20).map(|_| once()).fold(f64::INFINITY, f64::min)
}

#[test]
fn per_chunk() {
    let chat = "data: {\"id\":\"chatcmpl-123\",\"object\":\"chat.completion.chunk\",\"created\":1694268190,\"model\":\"gpt-5-mini\",\
        \"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" hello\"},\"logprobs\":null,\
        \"finish_reason\":null}]}\n\n";
    let start = "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    let message = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\
        \"text\":\" hello\"}}\n\n";
    let a = per_event(|| Chat::new("x"), "", chat);
    let b = per_event(Messages::new, start, message);
    println!(
        "per chunk: chat completions {a:.0} ns, messages {b:.0} ns{}",
        if cfg!(debug_assertions) { " (debug build)" } else { "" }
    );
    assert!(a < 1e6 && b < 1e6);
}
