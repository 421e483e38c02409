//! A model in this process, on files that this test writes: one with random weights, which is enough for all that must hold of
//! whatever a model says, and some whose next token follows from the last, which say what the test wants.
//!
//! A real, small model joins in when `ZO_GGUF` names its file (`scripts/gguf-model` fetches one).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    future::poll_fn,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};
use zo_providers::Local;
use zo_testkit::laws::provider::Subject;
use zo_traits::{
    Accumulator, BoxStream, Cx, ErrorKind, FinishReason, Media, MediaSource, Message, Part, Provider,
    ProviderExt, Request, Response, Result, Role, StreamEvent, ToolChoice, ToolResult, ToolSpec, ToolStatus,
};

/// Writes GGUF files, version 3.
mod gguf {
    pub(super) fn text(out: &mut Vec<u8>, s: &str) {
        out.extend((s.len() as u64).to_le_bytes());
        out.extend(s.as_bytes());
    }

    pub(super) enum Meta {
        U32(u32),
        F32(f32),
        Text(String),
        Texts(Vec<String>),
        Ints(Vec<i32>),
    }

    pub(super) fn file(meta: &[(&str, Meta)], tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((tensors.len() as u64).to_le_bytes());
        out.extend((meta.len() as u64).to_le_bytes());
        for (key, value) in meta {
            text(&mut out, key);
            let list = |out: &mut Vec<u8>, kind: u32, len: usize| {
                out.extend(9u32.to_le_bytes());
                out.extend(kind.to_le_bytes());
                out.extend((len as u64).to_le_bytes());
            };
            match value {
                Meta::U32(v) => [4u32.to_le_bytes(), v.to_le_bytes()].iter().for_each(|b| out.extend(b)),
                Meta::F32(v) => [6u32.to_le_bytes(), v.to_le_bytes()].iter().for_each(|b| out.extend(b)),
                Meta::Text(v) => {
                    out.extend(8u32.to_le_bytes());
                    text(&mut out, v);
                }
                Meta::Texts(v) => {
                    list(&mut out, 8, v.len());
                    v.iter().for_each(|s| text(&mut out, s));
                }
                Meta::Ints(v) => {
                    list(&mut out, 5, v.len());
                    v.iter().for_each(|n| out.extend(n.to_le_bytes()));
                }
            }
        }
        let mut offset = 0u64;
        for (name, dims, values) in tensors {
            text(&mut out, name);
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().rev().for_each(|d| out.extend((*d as u64).to_le_bytes()));
            out.extend(0u32.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (values.len() as u64 * 4).next_multiple_of(32);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        for (_, _, values) in tensors {
            values.iter().for_each(|v| out.extend(v.to_le_bytes()));
            out.resize(out.len().next_multiple_of(32), 0);
        }
        out
    }
}
use gguf::Meta;

const MARKS: [(&str, i32); 9] = [
    ("<|im_start|>", 3),
    ("<|im_end|>", 3),
    ("<tool_call>", 4),
    ("</tool_call>", 4),
    ("<think>", 4),
    ("</think>", 4),
    ("Hi", 1),
    ("there", 1),
    ("Ġyou", 1),
];

/// One token for each byte, as GPT-2 spells them, and some more.
fn vocabulary() -> Vec<String> {
    let plain = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut moved = '\u{100}'..;
    let byte = |b| if plain(b) { char::from(b) } else { moved.next().unwrap() };
    (0..=255).map(byte).map(String::from).chain(MARKS.iter().map(|m| m.0.to_owned())).collect()
}

struct Sizes {
    width: usize,
    heads: usize,
    kv_heads: usize,
    hidden: usize,
    layers: usize,
}

fn meta(s: &Sizes, family: &str, context: u32) -> Vec<(&'static str, Meta)> {
    let key = |name: &str| -> &'static str { format!("{family}.{name}").leak() };
    let kinds = (0..256).map(|_| 1).chain(MARKS.iter().map(|m| m.1)).collect();
    vec![
        ("general.architecture", Meta::Text(family.into())),
        (key("block_count"), Meta::U32(s.layers as u32)),
        (key("context_length"), Meta::U32(context)),
        (key("embedding_length"), Meta::U32(s.width as u32)),
        (key("feed_forward_length"), Meta::U32(s.hidden as u32)),
        (key("attention.head_count"), Meta::U32(s.heads as u32)),
        (key("attention.head_count_kv"), Meta::U32(s.kv_heads as u32)),
        (key("attention.layer_norm_rms_epsilon"), Meta::F32(1e-5)),
        ("tokenizer.ggml.model", Meta::Text("gpt2".into())),
        ("tokenizer.ggml.pre", Meta::Text("gpt-2".into())),
        ("tokenizer.ggml.tokens", Meta::Texts(vocabulary())),
        ("tokenizer.ggml.token_type", Meta::Ints(kinds)),
        ("tokenizer.ggml.merges", Meta::Texts(vec!["H i".into()])),
        ("tokenizer.ggml.eos_token_id", Meta::U32(257)),
    ]
}

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn tensors(s: &Sizes, mut fill: impl FnMut(&str, usize) -> Vec<f32>) -> Tensors {
    let (kv, vocabulary) = (s.width / s.heads * s.kv_heads, vocabulary().len());
    let mut names = vec![("token_embd.weight".to_owned(), vec![vocabulary, s.width])];
    for n in 0..s.layers {
        for (part, dims) in [
            ("attn_norm", vec![s.width]),
            ("attn_q", vec![s.width, s.width]),
            ("attn_k", vec![kv, s.width]),
            ("attn_v", vec![kv, s.width]),
            ("attn_output", vec![s.width, s.width]),
            ("ffn_norm", vec![s.width]),
            ("ffn_gate", vec![s.hidden, s.width]),
            ("ffn_up", vec![s.hidden, s.width]),
            ("ffn_down", vec![s.width, s.hidden]),
        ] {
            names.push((format!("blk.{n}.{part}.weight"), dims));
        }
    }
    names.push(("output_norm.weight".into(), vec![s.width]));
    names.push(("output.weight".into(), vec![vocabulary, s.width]));
    let fill = |(name, dims): (String, Vec<usize>)| {
        let values = fill(&name, dims.iter().product());
        (name, dims, values)
    };
    names.into_iter().map(fill).collect()
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(format!("{name}.gguf"));
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Random weights: it says anything.
fn random_bytes(family: &str, context: u32) -> Vec<u8> {
    let sizes = Sizes { width: 64, heads: 4, kv_heads: 2, hidden: 96, layers: 2 };
    let mut state = 1u64;
    let all = tensors(&sizes, |name, len| {
        if name.contains("norm") {
            return vec![1.0; len];
        }
        let mut one = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..len).map(|_| one() * 0.3).collect()
    });
    gguf::file(&meta(&sizes, family, context), &all)
}

fn random() -> Local {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    let file = FILE.get_or_init(|| written("random", &random_bytes("llama", 4096)));
    Local::open(file).unwrap().threads(1)
}

/// A model whose next token follows from the last: the layers add nothing, each token is an axis, and the row of a token in the
/// output is the axis of the one before it.
fn chain(name: &str, links: &[(&str, &str)]) -> Local {
    chain_with(name, links, None)
}

fn chain_with(name: &str, links: &[(&str, &str)], template: Option<&str>) -> Local {
    let words = vocabulary();
    let width = words.len().next_multiple_of(2);
    let sizes = Sizes { width, heads: 1, kv_heads: 1, hidden: 32, layers: 1 };
    let token = |t: &str| words.iter().position(|w| w == t).unwrap_or_else(|| panic!("no token {t}"));
    let all = tensors(&sizes, |name, len| {
        let mut values = vec![0.0; len];
        match name {
            "token_embd.weight" => (0..words.len()).for_each(|t| values[t * width + t] = 1.0),
            "output.weight" => {
                links.iter().for_each(|(last, next)| values[token(next) * width + token(last)] = 1.0);
            }
            n if n.contains("norm") => values.fill(1.0),
            _ => {}
        }
        values
    });
    let mut meta = meta(&sizes, "llama", 4096);
    meta.extend(template.map(|t| ("tokenizer.chat_template", Meta::Text(t.into()))));
    Local::open(written(name, &gguf::file(&meta, &all))).unwrap().threads(1)
}

fn cx() -> Cx {
    Cx::new("local").with_timeout(Duration::from_secs(300))
}

fn ask(text: &str, max_tokens: u32) -> Request {
    let mut r = Request::new("", [Message::system("Be brief."), Message::user(text)]);
    r.max_tokens = Some(max_tokens);
    r
}

async fn next(stream: &mut BoxStream<Result<StreamEvent>>) -> Option<Result<StreamEvent>> {
    poll_fn(|task| stream.as_mut().poll_next(task)).await
}

fn tools() -> Vec<ToolSpec> {
    let weather = json!({"type": "object", "properties": {
        "city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["C", "F"]}}, "required": ["city", "days"], "additionalProperties": false});
    let mail = json!({"type": "object", "properties": {
        "to": {"type": "array", "items": {"$ref": "#/$defs/person"}, "minItems": 1, "maxItems": 2},
        "urgent": {"type": "boolean"}}, "required": ["to", "urgent"],
        "$defs": {"person": {"type": "string", "pattern": "^[a-z]{1,8}$"}}});
    let stop = json!({"type": "object", "properties": {}});
    vec![
        ToolSpec::new("get_weather", "The weather of a city.", weather),
        ToolSpec::new("send_mail", "Sends a mail.", mail),
        ToolSpec::new("stop", "Ends it.", stop),
    ]
}

/// Checks the arguments by hand, not by the code that made them.
fn check_call(name: &str, args: &Value) {
    let fields: BTreeSet<_> = args.as_object().unwrap_or_else(|| panic!("{name} {args}")).keys().collect();
    match name {
        "get_weather" => {
            assert!(args["city"].as_str().unwrap().chars().count() <= 12, "{args}");
            assert!((1..=7).contains(&args["days"].as_i64().unwrap()), "{args}");
            assert!(args.get("unit").is_none_or(|u| u == "C" || u == "F"), "{args}");
            assert!(fields.len() <= 3, "{args}");
        }
        "send_mail" => {
            let to = args["to"].as_array().unwrap();
            let person = |p: &Value| {
                let p = p.as_str().unwrap();
                (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_lowercase())
            };
            assert!(
                (1..=2).contains(&to.len()) && to.iter().all(person) && args["urgent"].is_boolean(),
                "{args}"
            );
            assert_eq!(fields.len(), 2, "{args}");
        }
        "stop" => assert!(fields.is_empty(), "{args}"),
        other => panic!("{other} is not on offer"),
    }
}

/// Twenty prompts, each with calls that obey their schemas; returns how many calls there were.
async fn calls_are_valid(model: &Local, temperature: f32) -> usize {
    let (mut calls, mut ids, mut names) = (0, BTreeSet::new(), BTreeSet::new());
    for n in 0..20 {
        let mut r = ask(&format!("Question {n}: what is the weather in Oslo, and mail it to ann?"), 400)
            .tools(tools());
        r.tool_choice = ToolChoice::Required;
        r.temperature = Some(temperature);
        r.extra.insert("seed".into(), n.into());
        let answer = model.complete(&cx(), &r).await.unwrap();
        assert_eq!(answer.finish, FinishReason::ToolCalls, "{answer:?}");
        assert!(answer.message.tool_calls().count() >= 1 && answer.message.to_text().is_empty());
        for call in answer.message.tool_calls() {
            check_call(&call.name, &call.args);
            assert!(ids.insert(call.id.clone()), "two calls share the id {}", call.id);
            names.insert(call.name.clone());
            calls += 1;
        }
    }
    println!("{calls} calls of {names:?}");
    calls
}

mod laws {
    use super::*;
    zo_testkit::provider_laws!(async { Subject::new(random(), ask("hello", 12)) });
}

mod laws_of_calls {
    use super::*;
    zo_testkit::provider_laws!(async {
        let mut r = ask("hello", 300).tools(tools());
        r.tool_choice = ToolChoice::Required;
        Subject::new(random(), r)
    });
}

mod laws_of_a_long_answer {
    use super::*;

    /// It never ends, and takes longer than the laws wait: the end has the lowest score of all.
    fn endless() -> Local {
        static FILE: OnceLock<PathBuf> = OnceLock::new();
        let file = FILE.get_or_init(|| {
            let sizes = Sizes { width: 256, heads: 4, kv_heads: 4, hidden: 256, layers: 12 };
            let all = tensors(&sizes, |name, len| {
                let mut values = vec![if name.contains("norm") { 1.0 } else { 0.01 }; len];
                if name == "output.weight" {
                    values[257 * 256..258 * 256].fill(-1.0);
                }
                values
            });
            written("endless", &gguf::file(&meta(&sizes, "llama", 100_000), &all))
        });
        Local::open(file).unwrap().threads(1).context(100_000)
    }

    zo_testkit::hanging_provider_laws!(async {
        let model = endless();
        model.warm(&cx()).await.unwrap();
        Subject::new(model, ask("hello", 90_000))
    });
}

#[tokio::test]
async fn calls_obey_their_schemas() {
    assert!(calls_are_valid(&random(), 1.0).await >= 20);
}

#[tokio::test]
async fn one_tool_can_be_demanded() {
    let model = random();
    let mut r = ask("hello", 300).tools(tools());
    r.tool_choice = ToolChoice::Tool("send_mail".into());
    let answer = model.complete(&cx(), &r).await.unwrap();
    let calls: Vec<_> = answer.message.tool_calls().collect();
    assert_eq!((calls.len(), calls[0].name.as_str()), (1, "send_mail"));
    check_call("send_mail", &calls[0].args);
    r.tool_choice = ToolChoice::Tool("no_such".into());
    assert_eq!(model.complete(&cx(), &r).await.unwrap_err().kind(), ErrorKind::Invalid);
    let mut none = ask("hello", 9);
    none.tool_choice = ToolChoice::Required;
    assert_eq!(model.complete(&cx(), &none).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_answer_obeys_its_schema() {
    let model = random();
    for seed in 0..10 {
        let mut r = ask("a person", 300);
        r.output_schema = Some(
            json!({"type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 9},
                "age": {"type": "integer", "minimum": 0, "maximum": 150}}, "required": ["name", "age"], "additionalProperties": false})
            .into(),
        );
        (r.temperature, r.top_p) = (Some(1.0), Some(0.9));
        r.extra.insert("seed".into(), seed.into());
        let answer = model.complete(&cx(), &r).await.unwrap();
        let value: Value = serde_json::from_str(&answer.message.to_text()).unwrap();
        assert_eq!((answer.finish, value.as_object().unwrap().len()), (FinishReason::Stop, 2));
        assert!((1..=9).contains(&value["name"].as_str().unwrap().chars().count()), "{value}");
        assert!(value["age"].as_u64().unwrap() <= 150, "{value}");
    }
    for schema in [
        json!({"type": "nothing"}),
        json!(false),
        json!({"type": "string", "contentSchema": {}, "$dynamicRef": "#x"}),
    ] {
        let mut r = ask("x", 50);
        r.output_schema = Some(schema.into());
        let e = model.complete(&cx(), &r).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
    }
}

#[tokio::test]
async fn what_is_cut_says_so() {
    let model = random();
    let mut r = ask("hello", 300).tools(tools());
    r.tool_choice = ToolChoice::Tool("send_mail".into());
    let whole = model.complete(&cx(), &r).await.unwrap();
    // Whatever the limit: cut, or the same call.
    for most in 1..=whole.usage.output as u32 + 2 {
        r.max_tokens = Some(most);
        let answer = model.complete(&cx(), &r).await.unwrap();
        assert!(answer.usage.output <= u64::from(most));
        match answer.finish {
            FinishReason::Length => {}
            FinishReason::ToolCalls => assert_eq!(answer.message, whole.message),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(model.complete(&cx(), &ask("hello", 3)).await.unwrap().finish, FinishReason::Length);
}

#[tokio::test]
async fn it_says_what_the_weights_say() {
    let model = chain("hi", &[("Ċ", "Hi"), ("Hi", "Ġyou"), ("Ġyou", "!"), ("!", "<|im_end|>")]);
    let answer = model.complete(&cx(), &ask("hello", 50)).await.unwrap();
    assert_eq!((answer.message.to_text().as_str(), &answer.finish), ("Hi you!", &FinishReason::Stop));
    assert_eq!(answer.usage.output, 4, "three words and the end");
    assert_eq!(answer.usage.input, model.count_tokens(&cx(), &ask("hello", 50)).await.unwrap());
    let mut r = ask("hello", 50);
    r.stop = vec!["yo".into(), "u!".into()];
    let answer = model.complete(&cx(), &r).await.unwrap();
    assert_eq!((answer.message.to_text().as_str(), answer.finish), ("Hi ", FinishReason::Stop));
    r.stop = vec!["i you?".into()];
    assert_eq!(
        model.complete(&cx(), &r).await.unwrap().message.to_text(),
        "Hi you!",
        "held back, then shown"
    );
}

#[tokio::test]
async fn it_may_call_or_answer() {
    let links = [("Ċ", "Hi"), ("Hi", "Ġyou"), ("Ġyou", "<tool_call>"), ("</tool_call>", "<|im_end|>")];
    let model = chain("calls", &links);
    let tool = || tools().into_iter().filter(|t| t.name == "stop");
    let answer = model.complete(&cx(), &ask("hello", 80).tools(tool())).await.unwrap();
    assert_eq!((answer.message.to_text().as_str(), &answer.finish), ("Hi you", &FinishReason::ToolCalls));
    let call = answer.message.tool_calls().next().unwrap();
    assert_eq!((call.name.as_str(), &call.args), ("stop", &json!({})));
    let mut never = ask("hello", 8).tools(tool());
    never.tool_choice = ToolChoice::None;
    let answer = model.complete(&cx(), &never).await.unwrap();
    assert_eq!(answer.message.tool_calls().count(), 0);
    assert!(answer.message.to_text().starts_with("Hi you<tool_call>"), "words like others: {answer:?}");
    // A second call, and as many as are let.
    let model = chain("more", &[("Ċ", "<tool_call>"), ("</tool_call>", "Ċ")]);
    let mut many = ask("hello", 450).tools(tool());
    let answer = model.complete(&cx(), &many).await.unwrap();
    assert!(answer.message.tool_calls().count() > 3, "{answer:?}");
    many.extra.insert("parallel_tool_calls".into(), false.into());
    assert_eq!(model.complete(&cx(), &many).await.unwrap().message.tool_calls().count(), 1);
}

#[tokio::test]
async fn the_template_of_the_file_is_used() {
    let count = async |name: &str, template: &str, request: &Request| {
        chain_with(name, &[("Ċ", "<|im_end|>")], Some(template)).count_tokens(&cx(), request).await
    };
    let plain = "{% for m in messages %}[{{ m.role }}]{{ m.content.strip() }};{% endfor %}";
    let said = count("plain", plain, &ask("hello", 1)).await.unwrap();
    assert_eq!(said as usize, "[system]Be brief.;[user]hello;".len());
    let strict = format!(
        "{{% if messages[0].role == 'system' %}}{{{{ raise_exception('none') }}}}{{% endif %}}{plain}"
    );
    let said = count("strict", &strict, &ask("hello", 1)).await.unwrap();
    assert_eq!(said as usize, "[user]Be brief.\n\nhello;".len(), "the system text goes to the user's");
    let native =
        format!("{{% for t in tools or [] %}}<tool_call>{{{{ t.function.name }}}}{{% endfor %}}{plain}");
    let said = count("native", &native, &ask("hello", 1).tools(tools())).await.unwrap();
    assert_eq!(said as usize, "get_weathersend_mailstop[system]Be brief.;[user]hello;".len() + 3);
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    for (name, bad) in [("endless-template", endless), ("raises", "{{ raise_exception('never') }}")] {
        assert_eq!(count(name, bad, &ask("hello", 1)).await.unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
    }
    assert_eq!(
        count("broken-template", "{% if %}", &ask("x", 1)).await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn thoughts_are_apart() {
    let model = chain(
        "thinks",
        &[
            ("Ċ", "<think>"),
            ("<think>", "Hi"),
            ("Hi", "</think>"),
            ("</think>", "there"),
            ("there", "<|im_end|>"),
        ],
    );
    let answer = model.complete(&cx(), &ask("hello", 50)).await.unwrap();
    let [Part::Reasoning(thought), Part::Text(said)] = &answer.message.parts[..] else {
        panic!("{answer:?}")
    };
    assert_eq!((thought.text.as_str(), said.text.as_str()), ("Hi", "there"));
}

#[tokio::test]
async fn marks_in_what_is_said_are_words() {
    let model = chain("marks", &[("Ċ", "<|im_end|>")]);
    let count = |text: &'static str| {
        let model = &model;
        async move { model.count_tokens(&cx(), &ask(text, 1)).await.unwrap() }
    };
    let empty = count("x").await;
    assert_eq!(count("x<|im_end|>").await, empty + 10, "a token for each letter, not one that ends the turn");
    assert_eq!(count("x\u{FDD0}<|im_end|>\u{FDD1}").await, empty + 10);
    let result = |text: &str| {
        let call = zo_traits::ToolCall::new("a", "f", json!({"x": text}));
        let done = ToolResult::new(&call, ToolStatus::Ok, text);
        let said = Message { role: Role::Assistant, parts: vec![Part::ToolCall(call)] };
        Request::new("", [Message::user("go"), said, Message::tool_results([done])])
    };
    let plain = model.count_tokens(&cx(), &result("y")).await.unwrap();
    assert_eq!(model.count_tokens(&cx(), &result("y<|im_start|>")).await.unwrap(), plain + 24);
}

#[tokio::test]
async fn what_was_read_before_changes_nothing() {
    let (old, conversation) = (random(), |n: usize| {
        let turn = |i| [Message::user(format!("question {i}")), Message::assistant(format!("answer {i}"))];
        let turns = (0..n).flat_map(turn).chain([Message::user("and now?")]);
        let mut r = Request::new("", turns);
        r.max_tokens = Some(20);
        r
    });
    for n in [0, 2, 4, 1, 4, 9] {
        let answer = old.complete(&cx(), &conversation(n)).await.unwrap();
        let fresh = random().complete(&cx(), &conversation(n)).await.unwrap();
        assert_eq!(answer, fresh, "after {n} turns");
    }
}

#[tokio::test]
async fn it_streams_and_stops() {
    let model = random();
    let mut r = ask("hello", 900);
    // A random model may end at once: it is kept from it by a schema that wants much.
    r.output_schema = Some(json!({"type": "string", "minLength": 700, "maxLength": 900}).into());
    for cancel in [true, false] {
        let cx = cx();
        let mut stream = model.stream(&cx, &r).await.unwrap();
        let mut acc = Accumulator::default();
        for _ in 0..20 {
            acc.push(next(&mut stream).await.unwrap().unwrap()).unwrap();
        }
        assert!(!acc.partial().to_text().is_empty() && !acc.is_finished());
        let began = Instant::now();
        if cancel {
            cx.cancel().cancel();
            let mut last = None;
            while let Some(item) = next(&mut stream).await {
                last = Some(item);
            }
            assert_eq!(last.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        }
        drop(stream);
        // The one thread is free for the next at once.
        model.complete(&self::cx(), &ask("hi", 1)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_get_their_own() {
    let model = std::sync::Arc::new(random());
    let alone: Vec<_> =
        [random().complete(&cx(), &ask("one", 30)).await, random().complete(&cx(), &ask("two", 30)).await]
            .into();
    let at_once = ["one", "two"].map(|text| {
        let model = model.clone();
        tokio::spawn(async move { model.complete(&cx(), &ask(text, 30)).await })
    });
    for (alone, task) in alone.into_iter().zip(at_once) {
        assert_eq!(alone.unwrap(), task.await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn what_is_too_long_is_said_to_be() {
    let model = random().context(200);
    for text in ["many words ".repeat(30), "x".repeat(5_000_000)] {
        let e = model.complete(&cx(), &ask(&text, 5)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ContextOverflow, "{e}");
    }
    let mut fills = ask("hello", 10_000);
    fills.output_schema = Some(json!({"type": "string", "minLength": 5000}).into());
    let answer = model.complete(&cx(), &fills).await.unwrap();
    assert_eq!((answer.usage.total(), answer.finish), (200, FinishReason::Length));
    assert_eq!(model.capabilities("").context_window, Some(200));
}

#[tokio::test]
async fn other_families_run() {
    for family in ["qwen2", "llama"] {
        let model = Local::open(written(family, &random_bytes(family, 256))).unwrap();
        assert!(model.complete(&cx(), &ask("hello", 8)).await.unwrap().usage.output > 0);
        assert_eq!(model.models(&cx()).await.unwrap()[0].id, family);
    }
    let e = Local::open(written("other", &random_bytes("mamba", 256))).unwrap_err();
    assert!(e.kind() == ErrorKind::Unsupported && e.message().contains("qwen2"), "{e}");
}

#[tokio::test]
async fn pictures_are_refused_in_words() {
    let picture =
        Media { media_type: "image/png".into(), source: MediaSource::Base64("AA==".into()), name: None };
    let mut r = ask("look", 5);
    r.messages.push(Message { role: Role::User, parts: vec![Part::Media(picture)] });
    let e = random().complete(&cx(), &r).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unsupported && e.message().contains("image/png"), "{e}");
}

async fn tried(path: &Path) -> Result<Response> {
    let model = Local::open(path)?.threads(1);
    model.complete(&cx(), &ask("hello", 2)).await
}

#[tokio::test]
async fn a_broken_file_is_an_error() {
    let good = random_bytes("llama", 256);
    assert_eq!(Local::open(folder().join("none.gguf")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(Local::open(folder()).unwrap_err().kind(), ErrorKind::Invalid);
    for bytes in [
        &b""[..],
        b"GG",
        b"not a model",
        &good[..4],
        &good[..24],
        &good[..good.len() / 2],
        &good[..good.len() - 100],
    ] {
        let e = tried(&written("broken", bytes)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{} bytes: {e}", bytes.len());
    }
    // Any byte of the head changed in any way: an error of ours or an answer, never a panic or a hang.
    let head = good.len().min(7000);
    let (mut failed, mut worked) = (0, 0);
    for n in 0..150usize {
        let mut bytes = good.clone();
        let at = 4 + n * 6151 % (head - 4);
        bytes[at] = [0xFF, 0x00, 0x80, bytes[at].wrapping_add(1)][n % 4];
        match tried(&written("flipped", &bytes)).await {
            Ok(_) => worked += 1,
            Err(e) => {
                assert!(
                    matches!(
                        e.kind(),
                        ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::ContextOverflow
                    ),
                    "byte {at}: {e:?}"
                );
                failed += 1;
            }
        }
    }
    assert!(failed > 10 && worked > 10, "{failed} failed, {worked} worked");
}

fn real() -> Option<Local> {
    let Ok(path) = std::env::var("ZO_GGUF") else {
        println!("SKIPPED: ZO_GGUF is not set; scripts/gguf-model prints a path for it");
        return None;
    };
    Some(Local::open(path).unwrap().context(2048))
}

#[tokio::test]
async fn a_real_model_answers() {
    let Some(model) = real() else { return };
    let answer = model.complete(&cx(), &ask("What is the capital of France?", 40)).await.unwrap();
    println!("{answer:?}");
    assert!(answer.message.to_text().contains("Paris"), "{answer:?}");
    assert!(answer.usage.input > 20 && answer.usage.output > 1);
    let turns = [
        Message::user("What is the capital of France?"),
        Message::assistant("The capital of France is Paris."),
        Message::user("And what is the capital of Italy?"),
    ];
    let mut r = Request::new("", turns);
    r.max_tokens = Some(30);
    let answer = model.complete(&cx(), &r).await.unwrap();
    assert!(answer.message.to_text().contains("Rome"), "{answer:?}");
}

#[tokio::test]
async fn a_real_model_calls_tools() {
    let Some(model) = real() else { return };
    calls_are_valid(&model, 0.0).await;
    let mut r = ask("Ada is 36 years old.", 60);
    r.output_schema = Some(
        json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150}}, "required": ["name", "age"], "additionalProperties": false})
        .into(),
    );
    let text = model.complete(&cx(), &r).await.unwrap().message.to_text();
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(value["name"].is_string() && value["age"].is_u64(), "{value}");
    println!("{value}");
}
