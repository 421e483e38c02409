//! Whatever bytes come, in whatever pieces: no panic, no broken grammar, the same outcome for every split.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use std::{collections::VecDeque, time::Instant};
use zo_providers::wire::{
    Codec, Decoder,
    anthropic::Messages,
    fault::{classify, classify_inner},
    openai_chat::Chat,
};
use zo_traits::{Accumulator, ErrorKind, Message, Response, StreamEvent, Timestamp};

/// The answer, or the kind of the error and what came before it. Panics when the grammar is broken.
fn run<'p, C: Codec>(
    codec: C,
    pieces: impl Iterator<Item = &'p [u8]>,
) -> Result<Response, (ErrorKind, Message)> {
    let (mut decoder, mut out, mut acc) = (Decoder::new(codec), VecDeque::new(), Accumulator::default());
    let take = |out: &mut VecDeque<StreamEvent>, acc: &mut Accumulator| {
        out.drain(..).for_each(|e| acc.push(e.clone()).unwrap_or_else(|why| panic!("{e:?}: {why}")));
    };
    for piece in pieces {
        let fed = decoder.feed(piece, &mut out);
        take(&mut out, &mut acc);
        if let Err(e) = fed {
            return Err((e.kind(), acc.partial()));
        }
    }
    let ended = decoder.finish(&mut out);
    take(&mut out, &mut acc);
    match ended {
        Err(e) => Err((e.kind(), acc.partial())),
        Ok(()) => Ok(acc.finish().expect("a decoder that ends without an error has finished")),
    }
}

fn whole<C: Codec>(codec: C, body: &[u8]) {
    let (mut decoder, mut out, mut acc) = (Decoder::new(codec), VecDeque::new(), Accumulator::default());
    let done = decoder.whole(body, &mut out);
    out.into_iter().for_each(|e| acc.push(e).unwrap());
    assert_eq!(done.is_ok(), acc.is_finished());
}

/// JSON values as hostile servers make them: the right keys with the wrong things in them.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "null",
        "true",
        "0",
        "-1",
        "1e99",
        "18446744073709551615",
        "\"\"",
        "\"x\"",
        "\"stop\"",
        "\"tool_use\"",
        "\"text\"",
        "\"a\\u0000\\ud83d\\ude00b\"",
        "\"\\ud800\"",
        "[]",
        "{}",
        "\"{\\\"a\\\":1}\"",
        "\"length\"",
        "\"thinking\"",
    ])
    .prop_map(str::to_owned);
    let key = prop::sample::select(vec![
        "id",
        "model",
        "choices",
        "delta",
        "message",
        "content",
        "role",
        "reasoning",
        "reasoning_content",
        "refusal",
        "reasoning_details",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "index",
        "finish_reason",
        "usage",
        "prompt_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "error",
        "type",
        "content_block",
        "text",
        "thinking",
        "signature",
        "partial_json",
        "input",
        "stop_reason",
        "input_tokens",
        "citation",
        "x_groq",
        "object",
    ]);
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|v| format!("[{}]", v.join(","))),
            prop::collection::btree_map(key.clone(), inner, 0..6).prop_map(|m| {
                let fields: Vec<_> = m.into_iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        value().prop_map(|v| format!("data: {v}\n\n")),
        value().prop_map(|v| format!("data: {{\"choices\":[{{\"delta\":{v}}}]}}\n\n")),
        value().prop_map(|v| format!("data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{v},{{\"function\":{v}}}]}}}}]}}\n\n")),
        (0u8..4, value()).prop_map(|(i, v)| format!("data: {{\"type\":\"content_block_start\",\"index\":{i},\"content_block\":{v}}}\n\n")),
        (0u8..4, prop::sample::select(vec!["text", "thinking", "tool_use", "odd"])).prop_map(|(i, t)| format!(
            "data: {{\"type\":\"content_block_start\",\"index\":{i},\"content_block\":{{\"type\":\"{t}\"}}}}\n\n")),
        (0u8..4, value()).prop_map(|(i, v)| format!("data: {{\"type\":\"content_block_delta\",\"index\":{i},\"delta\":{v}}}\n\n")),
        (0u8..4).prop_map(|i| format!("data: {{\"type\":\"content_block_stop\",\"index\":{i}}}\n\n")),
        value().prop_map(|v| format!("data: {{\"type\":\"message_start\",\"message\":{v}}}\n\n")),
        value().prop_map(|v| format!("data: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":{v}}},\"usage\":{v}}}\n\n")),
        Just("data: {\"type\":\"message_stop\"}\n\n".to_owned()),
        Just("data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n".to_owned()),
        Just("data: [DONE]\n\n".to_owned()),
        Just(": ping\n\n".to_owned()),
        "[a-z:\\n\\r {}\\[\\]\"]{0,20}".prop_map(|s| s),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_stream_in_any_pieces(lines in prop::collection::vec(line(), 0..12), size in 1usize..40, cut in 0usize..400) {
        let text = lines.concat();
        let bytes = &text.as_bytes()[..text.len() - cut.min(text.len()) / 8];
        let anthropic = run(Messages::new(), bytes.chunks(size));
        prop_assert_eq!(&anthropic, &run(Messages::new(), std::iter::once(bytes)));
        let chat = || Chat::new("x").keep_reasoning(true).keep_details(true);
        let openai = run(chat(), bytes.chunks(size));
        prop_assert_eq!(&openai, &run(chat(), std::iter::once(bytes)));
    }

    #[test]
    fn any_body(v in value(), junk in prop::collection::vec(any::<u8>(), 0..40)) {
        for body in [v.as_bytes(), &junk[..]] {
            whole(Messages::new(), body);
            whole(Chat::new("x").keep_details(true), body);
            let text = String::from_utf8_lossy(body);
            classify_inner(&text);
            for status in [200, 400, 429, 503] {
                let fault = classify(status, |_| Some("17"), &text, Timestamp(0));
                prop_assert!(fault.message.len() < 2000);
            }
        }
        let text = String::from_utf8_lossy(&junk).into_owned();
        classify(429, |_| Some(&text), "", Timestamp(0));
    }
}

/// Twice the bytes must not take four times as long.
#[test]
fn time_is_linear_in_the_bytes() {
    let many_calls = |n: usize| -> String {
        let one = |i: usize| {
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":{i},\"function\":{{\"arguments\":\"x\"}}}}]}}}}]}}\n\n"
            )
        };
        (0..n).map(|i| one(i % 1000)).collect()
    };
    let details = |n: usize| -> String {
        "data: {\"choices\":[{\"delta\":{\"reasoning_details\":[{\"type\":\"t\",\"index\":0,\"text\":\"x\"}]}}]}\n\n".repeat(n)
    };
    let text = |n: usize| "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n".repeat(n);
    let data_lines = |n: usize| "data: x\n".repeat(n);
    let kept = |n: usize| {
        "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"odd\",\"text\":\"\"}}\n\n".to_owned()
            + &"data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"text\":\"x\",\"partial_json\":\"1\"}}\n\n".repeat(n)
    };
    let time = |body: &str| {
        let began = Instant::now();
        let _ = run(Chat::new("x").keep_details(true), body.as_bytes().chunks(7));
        let _ = run(Messages::new(), body.as_bytes().chunks(7));
        began.elapsed().as_secs_f64()
    };
    for (what, make) in [
        ("calls", &many_calls as &dyn Fn(usize) -> String),
        ("details", &details),
        ("text", &text),
        ("data lines", &data_lines),
        ("kept blocks", &kept),
    ] {
        let (small, large) = (make(2_000), make(16_000));
        time(&small);
        let best = |body: &str| (0..3).map(|_| time(body)).fold(f64::INFINITY, f64::min);
        let (a, b) = (best(&small), best(&large));
        // Eight times the bytes: eight times as long, with room for a busy machine; a quadratic decoder takes 64 times.
        assert!(b < a * 30.0 + 0.05, "{what}: {a:.4} s for 2 000, {b:.4} s for 16 000");
    }
}

#[test]
fn too_many_calls_and_too_deep_json_are_refused() {
    let calls: String = (0..2000)
        .map(|i| format!("data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"id\":\"{i}\",\"function\":{{\"name\":\"f\"}}}}]}}}}]}}\n\n"))
        .collect();
    assert_eq!(run(Chat::new("x"), [calls.as_bytes()].into_iter()).unwrap_err().0, ErrorKind::Corrupt);
    let deep = format!("data: {}{}\n\n", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(run(Chat::new("x"), [deep.as_bytes()].into_iter()).unwrap_err().0, ErrorKind::Corrupt);
    let deep = format!(
        "data: {{\"type\":\"content_block_start\",\"content_block\":{}1{}}}\n\n",
        "{\"a\":".repeat(100_000),
        "}".repeat(100_000)
    );
    assert_eq!(run(Messages::new(), [deep.as_bytes()].into_iter()).unwrap_err().0, ErrorKind::Corrupt);
}
