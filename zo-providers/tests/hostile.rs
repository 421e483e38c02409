//! Whatever bytes come, in whatever pieces: no panic, no broken grammar, the same outcome for every split.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde_json::Value;
use std::{collections::VecDeque, time::Instant};
use zo_providers::wire::{
    Codec, Decoder,
    anthropic::Messages,
    embed::{ollama_embeddings, openai_embeddings},
    fault::{classify, classify_inner},
    gemini::{self, Generate},
    ndjson::{self, Lines},
    ollama::{self, OllamaChat},
    openai_chat::Chat,
    openai_responses::Responses,
    sse,
    zo::{self, Ask},
};
use zo_traits::{Accumulator, ErrorKind, Message, Response, StreamEvent, Timestamp};

type Outcome = Result<Response, (ErrorKind, Message)>;

/// The kind of an error, and the bytes until it came.
type Refused = Option<(ErrorKind, usize)>;

/// A decoder of each wire.
struct Wire {
    name: &'static str,
    /// Decodes a stream that comes in pieces of so many bytes.
    run: fn(&[u8], usize) -> Outcome,
    /// Decodes a body that comes whole.
    whole: fn(&[u8]) -> Option<Response>,
    /// The kind of the error that ends an endless stream, and the bytes until then.
    endless: fn(&[u8], &[u8]) -> Refused,
}

macro_rules! wire {
    ($name:literal, $codec:expr) => {
        Wire {
            name: $name,
            run: |body, size| run($codec, body.chunks(size)),
            whole: |body| whole($codec, body),
            endless: |start, piece| endless($codec, start, piece),
        }
    };
}

const WIRES: &[Wire] = &[
    wire!("chat", Chat::new("x").keep_reasoning(true).keep_details(true)),
    wire!("anthropic", Messages::new()),
    wire!("responses", Responses::new("x")),
    wire!("gemini", Generate::new()),
    wire!("ollama", OllamaChat::new()),
    wire!("zo", Ask::new(None)),
    wire!("zo structured", Ask::new(Some("con_1".into())).structured(true)),
];

type Read = fn(&[u8]) -> zo_traits::Result<()>;

/// Readers of bodies that are no answers of a model: vectors, lists of models, counts.
const READERS: &[(&str, Read)] = &[
    ("openai embeddings", |body| openai_embeddings(body).map(drop)),
    ("ollama embeddings", |body| ollama_embeddings(body).map(drop)),
    ("gemini embeddings", |body| gemini::embeddings(body).map(drop)),
    ("gemini models", |body| gemini::models(body).map(drop)),
    ("gemini count", |body| gemini::counted(body).map(drop)),
    ("ollama models", |body| ollama::models(body).map(drop)),
    ("ollama model", |body| ollama::shown(body).map(drop)),
    ("zo models", |body| zo::models(body).map(drop)),
];

/// The answer, or the kind of the error and what came before it. Panics when the grammar is broken.
fn run<'p, C: Codec>(codec: C, pieces: impl Iterator<Item = &'p [u8]>) -> Outcome {
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

/// What a body that came whole says, if it can be read.
fn whole<C: Codec>(codec: C, body: &[u8]) -> Option<Response> {
    let (mut decoder, mut out, mut acc) = (Decoder::new(codec), VecDeque::new(), Accumulator::default());
    let done = decoder.whole(body, &mut out);
    out.into_iter().for_each(|e| acc.push(e).unwrap());
    assert_eq!(done.is_ok(), acc.is_finished());
    done.is_ok().then(|| acc.finish().expect("finished"))
}

/// Feeds `start` and then `piece` for a gigabyte; the events are thrown away. The error, and the bytes until it came.
fn endless<C: Codec>(codec: C, start: &[u8], piece: &[u8]) -> Refused {
    let (mut decoder, mut out, mut fed) = (Decoder::new(codec), VecDeque::new(), 0);
    for bytes in std::iter::once(start).chain(std::iter::repeat_n(piece, (1 << 30) / piece.len())) {
        fed += bytes.len();
        if let Err(e) = decoder.feed(bytes, &mut out) {
            return Some((e.kind(), fed));
        }
        out.clear();
    }
    None
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
        "candidates",
        "parts",
        "functionCall",
        "partialArgs",
        "willContinue",
        "jsonPath",
        "args",
        "thought",
        "thoughtSignature",
        "finishReason",
        "promptFeedback",
        "usageMetadata",
        "done",
        "done_reason",
        "prompt_eval_count",
        "item",
        "output_index",
        "content_index",
        "summary",
        "response",
        "output",
        "status",
        "call_id",
        "conversation_id",
        "data",
        "embedding",
        "embeddings",
        "models",
        "values",
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

/// Events of a response, by their names.
const RESPONSES: &[&str] = &[
    "created",
    "output_item.added",
    "output_item.done",
    "content_part.added",
    "output_text.delta",
    "refusal.delta",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "reasoning_summary_text.delta",
    "reasoning_text.delta",
    "completed",
    "incomplete",
    "failed",
];

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
        value().prop_map(|v| format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{v},{v}]}}}}]}}\n\n")),
        value().prop_map(|v| format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"functionCall\":{v}}}]}}}}]}}\n\n")),
        (value(), prop::sample::select(vec!["$.a", "$.a[0]", "$[", "$['a'].b"])).prop_map(|(v, path)| format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"functionCall\":{{\"name\":\"f\",\"willContinue\":true,\"partialArgs\":[{{\"jsonPath\":\"{path}\",\"stringValue\":{v}}}]}}}}]}}}}]}}\n\n")),
        Just("data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n".to_owned()),
        (value(), prop::sample::select(RESPONSES.to_vec()), 0u8..3).prop_map(|(v, kind, at)| format!(
            "data: {{\"type\":\"response.{kind}\",\"output_index\":{at},\"item\":{v},\"delta\":\"x\",\"arguments\":\"x\",\"response\":{v}}}\n\n")),
        (prop::sample::select(RESPONSES.to_vec()), prop::sample::select(vec!["message", "reasoning", "function_call", "odd"]), 0u8..3)
            .prop_map(|(kind, item, at)| format!(
            "data: {{\"type\":\"response.{kind}\",\"output_index\":{at},\"delta\":\"x\",\"item\":{{\"type\":\"{item}\",\"name\":\"f\",\"arguments\":\"x\"}}}}\n\n")),
        Just("data: {\"type\":\"response.completed\",\"response\":{}}\n\n".to_owned()),
        value().prop_map(|v| format!("{v}\n")),
        value().prop_map(|v| format!("{{\"message\":{v},\"done\":false}}\n")),
        value().prop_map(|v| format!("{{\"message\":{{\"content\":\"x\",\"thinking\":{v},\"tool_calls\":[{{\"function\":{{\"name\":\"f\",\"arguments\":{v}}}}}]}}}}\n")),
        Just("{\"done\":true,\"done_reason\":\"stop\"}\n".to_owned()),
        value().prop_map(|v| format!("event: FrontendModelResponse\ndata: {{\"content\":{v}}}\n\n")),
        Just("event: FrontendModelResponse\ndata: {\"content\":\"x\"}\n\n".to_owned()),
        value().prop_map(|v| format!("event: End\ndata: {{\"output\":{v}}}\n\n")),
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
        for wire in WIRES {
            prop_assert_eq!((wire.run)(bytes, size), (wire.run)(bytes, usize::MAX), "{}", wire.name);
        }
    }

    #[test]
    fn any_body(v in value(), junk in prop::collection::vec(any::<u8>(), 0..40)) {
        for body in [v.as_bytes(), &junk[..]] {
            for wire in WIRES {
                (wire.whole)(body);
            }
            for (_, read) in READERS {
                let _ = read(body);
            }
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
    type Make = (&'static str, &'static str, &'static dyn Fn(usize) -> String);
    fn events(n: usize, one: impl Fn(usize) -> String) -> String {
        (0..n).map(|i| format!("data: {}\n\n", one(i))).collect()
    }
    fn item(n: usize, kind: &str, begin: &str, one: impl Fn(usize) -> String) -> String {
        let begin = format!(
            "data: {{\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{begin}}}\n\n"
        );
        let one =
            |i| format!("{{\"type\":\"response.{kind}\",\"output_index\":0,\"delta\":\"x\"{}}}", one(i));
        begin + &events(n, one)
    }
    fn parts(n: usize, one: impl Fn(usize) -> String) -> String {
        events(n, |i| format!("{{\"candidates\":[{{\"content\":{{\"parts\":[{}]}}}}]}}", one(i)))
    }
    fn partial(path: &str) -> String {
        format!(
            "{{\"functionCall\":{{\"name\":\"f\",\"willContinue\":true,\"partialArgs\":[{{\"jsonPath\":\"{path}\",\"stringValue\":\"x\",\"willContinue\":true}}]}}}}"
        )
    }
    let makes: &[Make] = &[
        ("chat", "calls", &|n| {
            events(n, |i| {
                format!(
                    "{{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":{},\"function\":{{\"arguments\":\"x\"}}}}]}}}}]}}",
                    i % 1000
                )
            })
        }),
        ("chat", "details", &|n| {
            let one = r#"{"choices":[{"delta":{"reasoning_details":[{"type":"t","index":0,"text":"x"}]}}]}"#;
            events(n, |_| one.into())
        }),
        ("chat", "text", &|n| events(n, |_| r#"{"choices":[{"delta":{"content":"x"}}]}"#.into())),
        ("chat", "data lines", &|n| "data: x\n".repeat(n)),
        ("anthropic", "kept blocks", &|n| {
            r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"odd","text":""}}"#
                .to_owned()
                + "\n\n"
                + &events(n, |_| {
                    r#"{"type":"content_block_delta","index":0,"delta":{"text":"x","partial_json":"1"}}"#
                        .into()
                })
        }),
        ("responses", "text", &|n| item(n, "output_text.delta", r#"{"type":"message"}"#, |_| String::new())),
        ("responses", "pieces", &|n| {
            item(n, "output_text.delta", r#"{"type":"message"}"#, |i| format!(",\"content_index\":{i}"))
        }),
        ("responses", "summaries", &|n| {
            let at = |i: usize| format!(",\"summary_index\":{i}");
            item(n, "reasoning_summary_text.delta", r#"{"type":"reasoning"}"#, at)
        }),
        ("responses", "arguments", &|n| {
            let call = r#"{"type":"function_call","call_id":"c","name":"f"}"#;
            item(n, "function_call_arguments.delta", call, |_| String::new())
        }),
        ("responses", "items", &|n| {
            events(n, |i| {
                format!(
                    "{{\"type\":\"response.output_item.added\",\"output_index\":{i},\"item\":{{\"type\":\"odd\"}}}}"
                )
            })
        }),
        ("responses", "items at one place", &|n| {
            item(n, "output_item.added", r#"{"type":"odd"}"#, |_| {
                r#","item":{"type":"function_call","name":"f"}"#.into()
            })
        }),
        ("gemini", "text", &|n| parts(n, |_| r#"{"text":"x"}"#.into())),
        ("gemini", "signatures", &|n| parts(n, |_| r#"{"text":"x","thoughtSignature":"c2ln"}"#.into())),
        ("gemini", "calls", &|n| {
            parts(n, |i| format!("{{\"functionCall\":{{\"name\":\"f\",\"id\":\"{i}\"}}}}"))
        }),
        ("gemini", "partial text", &|n| parts(n, |_| partial("$.a"))),
        ("gemini", "partial fields", &|n| parts(n, |i| partial(&format!("$.a{i}")))),
        ("gemini", "partial items", &|n| parts(n, |i| partial(&format!("$.a[{i}]")))),
        ("gemini", "blocks", &|n| parts(n, |_| r#"{"odd":{"a":[1]}}"#.into())),
        ("ollama", "text", &|n| "{\"message\":{\"content\":\"x\"}}\n".repeat(n)),
        ("ollama", "thoughts and text", &|n| {
            "{\"message\":{\"thinking\":\"x\"}}\n{\"message\":{\"content\":\"x\"}}\n".repeat(n / 2)
        }),
        ("ollama", "one line", &|n| {
            format!("{{\"message\":{{\"images\":[{}1],\"content\":\"x\"}}}}\n", "{\"a\":[1]},".repeat(n))
        }),
        ("zo", "text", &|n| "event: FrontendModelResponse\ndata: {\"content\":\"x\"}\n\n".repeat(n)),
        ("zo structured", "text", &|n| {
            "event: FrontendModelResponse\ndata: {\"content\":\"x\"}\n\n".repeat(n)
        }),
        ("openai embeddings", "numbers", &|n| {
            let at = |i| format!("{{\"index\":{},\"embedding\":[0.5,1e-3,-2]}}", n - 1 - i);
            format!("{{\"data\":[{}]}}", (0..n).map(at).collect::<Vec<_>>().join(","))
        }),
        ("openai embeddings", "base64", &|n| {
            format!("{{\"data\":[{{\"embedding\":\"{}\"}}]}}", "AACAPwAAgD8AAIA/".repeat(n))
        }),
        ("ollama embeddings", "one vector", &|n| format!("{{\"embeddings\":[[{}1]]}}", "0.25,".repeat(n))),
        ("gemini embeddings", "vectors", &|n| {
            format!("{{\"embeddings\":[{}]}}", vec!["{\"values\":[1,2]}"; n].join(","))
        }),
    ];
    for (wire, what, make) in makes {
        let decoder = WIRES.iter().find(|w| w.name == *wire);
        let reader = READERS.iter().find(|(name, _)| name == wire);
        let time = |body: &str| {
            let began = Instant::now();
            match (decoder, reader) {
                (Some(wire), _) => drop((wire.run)(body.as_bytes(), 7)),
                (_, Some((_, read))) => read(body.as_bytes()).unwrap(),
                _ => panic!("nothing is called {wire}"),
            }
            began.elapsed().as_secs_f64()
        };
        let (small, large) = (make(1_000), make(8_000));
        time(&small);
        let best = |body: &str| (0..3).map(|_| time(body)).fold(f64::INFINITY, f64::min);
        let (a, b) = (best(&small), best(&large));
        println!("{wire}, {what}: {a:.4} s for 1 000, {b:.4} s for 8 000");
        // Eight times the bytes: eight times as long, with room for a busy machine; a quadratic decoder takes 64 times.
        assert!(b < a * 30.0 + 0.05, "{wire}, {what}: {a:.4} s for 1 000, {b:.4} s for 8 000");
    }
}

#[test]
fn too_many_calls_are_refused() {
    let calls: String = (0..2000)
        .map(|i| format!("data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"id\":\"{i}\",\"function\":{{\"name\":\"f\"}}}}]}}}}]}}\n\n"))
        .collect();
    assert_eq!(run(Chat::new("x"), [calls.as_bytes()].into_iter()).unwrap_err().0, ErrorKind::Corrupt);
}

/// Levels of lists and objects, however many.
fn depth(value: &Value) -> usize {
    let (mut level, mut deep) = (vec![value], 0);
    while !level.is_empty() {
        deep += 1;
        level = level
            .into_iter()
            .flat_map(|v| match v {
                Value::Array(items) => items.iter().collect::<Vec<_>>(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            })
            .collect();
    }
    deep
}

/// JSON 100,000 levels deep, wherever a wire lets one put a value: an error where it is to be kept as a value. Arguments and
/// structured answers are text until somebody parses them, and what nobody reads is skipped; neither overflows a stack.
#[test]
fn too_deep_json_is_never_a_value() {
    let lists = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let error = true;
    let places = [
        ("chat", error, "@"),
        ("anthropic", error, "@"),
        ("anthropic", error, r#"{"type":"content_block_start","content_block":@}"#),
        ("anthropic", error, r#"{"type":"content_block_start","content_block":{"type":"odd","a":@}}"#),
        ("chat", !error, r#"{"choices":[{"delta":{"reasoning_details":[@]},"finish_reason":"stop"}]}"#),
        ("responses", error, r#"{"type":"response.output_item.added","output_index":0,"item":@}"#),
        (
            "responses",
            error,
            r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"odd","a":@}}"#,
        ),
        ("responses", error, r#"{"type":"response.completed","response":{"output":[{"type":"odd","a":@}]}}"#),
        ("gemini", error, r#"{"candidates":[{"content":{"parts":[{"odd":@}]},"finishReason":"STOP"}]}"#),
        (
            "gemini",
            !error,
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":@}}]},"finishReason":"STOP"}]}"#,
        ),
        (
            "ollama",
            !error,
            r#"{"message":{"tool_calls":[{"function":{"name":"f","arguments":@}}]},"done":true}"#,
        ),
        ("zo", !error, r#"{"output":@}"#),
        ("zo structured", !error, r#"{"output":@}"#),
        ("any", !error, "@"),
    ];
    for (place, must_fail, around) in places {
        for deep in [&lists, &objects] {
            let body = around.replace('@', deep);
            for wire in WIRES.iter().filter(|w| place == "any" || place == w.name) {
                let stream = match wire.name {
                    "ollama" => format!("{body}\n"),
                    "zo" | "zo structured" => format!("event: End\ndata: {body}\n\n"),
                    _ => format!("data: {body}\n\n"),
                };
                for answer in [
                    (wire.run)(stream.as_bytes(), usize::MAX).ok(),
                    (wire.run)(stream.as_bytes(), 61).ok(),
                    // A streamed piece is no whole answer of these; nobody looks at what is in it.
                    (wire.whole)(body.as_bytes()).filter(|_| wire.name != "chat"),
                ]
                .into_iter()
                .flatten()
                {
                    assert!(!must_fail, "{}: {around} was taken", wire.name);
                    let message = serde_json::to_value(&answer.message).unwrap();
                    assert!(depth(&message) < 200, "{}: {around}", wire.name);
                    let is_text = |call: &zo_traits::ToolCall| call.args.is_string();
                    assert!(answer.message.tool_calls().all(is_text), "{}: {around}", wire.name);
                }
            }
            for (name, read) in READERS.iter().filter(|_| place == "any") {
                for around in ["@", r#"{"data":@}"#, r#"{"data":[{"embedding":@}]}"#, r#"{"embeddings":[@]}"#]
                {
                    let done = read(around.replace('@', deep).as_bytes());
                    assert!(done.is_err() || !name.contains("embeddings"), "{name}: {around}");
                }
            }
        }
    }
}

/// A line of a gigabyte is refused as soon as it is longer than any line may be; the rest is never held.
#[test]
fn a_line_without_an_end_is_refused() {
    let piece = vec![b'x'; 1 << 20];
    let starts: &[&str] = &[
        "",
        "data: ",
        "event: ",
        ": ",
        "data: {\"choices\":[{\"delta\":{\"content\":\"",
        "{\"message\":{\"content\":\"",
    ];
    for wire in WIRES {
        for start in starts {
            let (kind, fed) = (wire.endless)(start.as_bytes(), &piece).expect("a gigabyte was taken");
            assert_eq!(kind, ErrorKind::Corrupt, "{}: {start}", wire.name);
            assert!(fed <= sse::MAX_EVENT.max(ndjson::MAX_LINE) + (2 << 20), "{}: {fed} bytes", wire.name);
        }
        // Lines that each are short, of one event that does not end.
        if wire.name != "ollama" {
            let lines = "data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".repeat(1 << 14);
            let (kind, fed) = (wire.endless)(b"", lines.as_bytes()).expect("a gigabyte was taken");
            assert!(kind == ErrorKind::Corrupt && fed <= sse::MAX_EVENT * 2, "{}: {fed} bytes", wire.name);
        }
    }
    // In one piece it is not even copied.
    let long = vec![b'x'; ndjson::MAX_LINE + 1];
    let e = Lines::new().feed(&long, |_, _| Ok(())).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
}
