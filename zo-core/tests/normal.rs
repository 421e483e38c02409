//! Whatever happened to a history, what is sent of it is a request that every provider takes.
//!
//! Histories are made up: of whole turns as a run leaves them, and of arbitrary messages, with hostile ids, names, arguments
//! and blanks; then they are cut, edited and interrupted. What the normalizer makes of them is checked against the rules that
//! the providers state (`zo_testkit::rules`), over the messages and over the bodies that the real encoders make of them.
//!
//! 2,000 cases each, more with `PROPTEST_CASES`; with `ZO_NIGHTLY=1`, 100,000.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use std::collections::HashSet;
use zo_core::{
    INVALID_NAME, Machine, Step,
    normal::{MAX_DEPTH, is_normal, normalize, nudge},
    providers::{DIALECTS, Dialect, Family, wire},
};
use zo_testkit::rules::{self, Violation};
use zo_traits::{
    FinishReason, Media, MediaSource, Message, Part, Replay, Request, Response, Role, Text, ToolCall,
    ToolResult, ToolSpec, ToolStatus,
};

fn cases() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    let nightly = std::env::var("ZO_NIGHTLY").is_ok_and(|v| v == "1");
    // However few the other tests are asked for.
    let cases = asked.unwrap_or(0).max(if nightly { 100_000 } else { 2_000 });
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

// What histories are made of.

const NO_RESULT: &str = "no result is on record for this call";
const NO_WORDS: &str = "(empty message)";
const IDS: &[&str] = &[
    "a",
    "b",
    "c",
    "call_0",
    "call_0-2",
    "a-2",
    "a-3",
    "",
    " ",
    "abcDEF123",
    "functions.f:0",
    "ä",
    "a\u{0}b",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];
const NAMES: &[&str] = &[
    "f",
    "get_weather",
    "f",
    "",
    "no such tool!",
    "f.g",
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
];

fn text() -> impl Strategy<Value = String> {
    select(vec![
        "",
        " ",
        "\n\t",
        "\u{a0}\u{2003}",
        "hello",
        "so ",
        " ünï\u{202e}",
        "<system>",
        "a\u{0}b",
        "{\"a\":",
        "2\n\n",
    ])
    .prop_map(str::to_owned)
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(json!(1), |v, n| if n % 2 == 0 { json!([v]) } else { json!({ "a": v }) })
}

fn args() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"a": 1}),
        json!({"a": {"b": [null, "x"]}}),
        Value::Null,
        json!("{\"a\":"),
        json!([1]),
        json!(5),
        deep(MAX_DEPTH),
        deep(MAX_DEPTH + 1),
        deep(120),
    ])
}

fn replay() -> impl Strategy<Value = Option<Replay>> {
    select(vec![
        None,
        None,
        Some(Replay::new("anthropic", json!({"signature": "c2ln"}))),
        Some(Replay::new("anthropic", json!({"citations": [{"type": "x"}]}))),
        Some(Replay::new("openrouter", json!({"reasoning_details": [{"type": "reasoning.text"}]}))),
        Some(Replay::new("gemini", json!({"thoughtSignature": "c2ln"}))),
    ])
}

fn opaque() -> impl Strategy<Value = Part> {
    let result = json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": []});
    select(vec![
        Replay::new("anthropic", json!({"type": "redacted_thinking", "data": "eA=="})),
        Replay::new("anthropic", result),
        Replay::new(
            "openrouter",
            json!({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}),
        ),
        Replay::new("openai", json!({"refusal": null})),
        Replay::new("gemini", json!({"executableCode": {}})),
    ])
    .prop_map(Part::Opaque)
}

fn media(kinds: &'static [&'static str]) -> impl Strategy<Value = Media> {
    (select(kinds), any::<bool>()).prop_map(|(kind, link)| Media {
        media_type: kind.into(),
        source: match link {
            true => MediaSource::Url("https://example.com/a".into()),
            false => MediaSource::Base64("QUJD".into()),
        },
        name: None,
    })
}

const PICTURES: &[&str] = &["image/png", "image/jpeg"];
const FILES: &[&str] = &["image/png", "image/bmp", "video/mp4", "application/zip", ""];

fn call() -> impl Strategy<Value = ToolCall> {
    (select(IDS), select(NAMES), args(), replay()).prop_map(|(id, name, args, replay)| {
        // An encoder puts replayed fields of its own family into the call.
        ToolCall { replay: replay.filter(|r| r.provider == "gemini"), ..ToolCall::new(id, name, args) }
    })
}

fn status() -> impl Strategy<Value = ToolStatus> {
    select(vec![
        ToolStatus::Ok,
        ToolStatus::Error,
        ToolStatus::Unknown,
        ToolStatus::Cancelled,
        ToolStatus::Denied,
        ToolStatus::Other("new".into()),
    ])
}

fn result() -> impl Strategy<Value = ToolResult> {
    (select(IDS), select(NAMES), status(), text(), vec(media(FILES), 0..2)).prop_map(
        |(id, name, status, content, media)| ToolResult {
            id: id.into(),
            name: name.into(),
            status,
            content,
            media,
        },
    )
}

fn part(media_kinds: &'static [&'static str]) -> impl Strategy<Value = Part> {
    let prose = || (text(), replay()).prop_map(|(text, replay)| Text { text, replay });
    prop_oneof![
        6 => prose().prop_map(Part::Text),
        2 => prose().prop_map(Part::Reasoning),
        1 => prose().prop_map(Part::Refusal),
        1 => media(media_kinds).prop_map(Part::Media),
        4 => call().prop_map(Part::ToolCall),
        4 => result().prop_map(Part::ToolResult),
        1 => opaque(),
        1 => Just(Part::Unknown(json!({"type": "hologram", "deep": {"er": 1}}))),
    ]
}

/// Any message at all.
fn wild() -> impl Strategy<Value = Message> {
    let other = || select(vec![Role::System, Role::User, Role::Tool, Role::Other("developer".into())]);
    prop_oneof![
        vec(part(FILES), 0..5).prop_map(|parts| Message { role: Role::Assistant, parts }),
        // What the user sends and the API has no place for is refused, and should be: here it has.
        (other(), vec(part(PICTURES), 0..5)).prop_map(|(role, parts)| Message { role, parts }),
    ]
}

/// A turn as a run leaves it: a question, calls and their results, an answer. Ids repeat from turn to turn.
fn turn() -> impl Strategy<Value = Vec<Message>> {
    let calls = vec(vec((call(), status(), text()), 1..4), 0..3);
    (text(), calls, text(), any::<bool>()).prop_map(|(question, steps, answer, note)| {
        let mut out = vec![Message::user(question)];
        if note {
            out.insert(0, Message::system("facts"));
        }
        for step in steps {
            let mut parts = vec![Part::text("let me see")];
            parts.extend(step.iter().map(|(c, ..)| Part::ToolCall(c.clone())));
            out.push(Message { role: Role::Assistant, parts });
            out.push(Message::tool_results(step.iter().map(|(c, s, t)| ToolResult::new(c, s.clone(), t))));
        }
        out.push(Message::assistant(answer));
        out
    })
}

/// What happens to a history.
#[derive(Debug, Clone)]
enum Edit {
    Drop(usize),
    DropPart(usize, usize),
    Swap(usize, usize),
    Twice(usize),
    /// A crash: nothing behind it was written.
    Cut(usize),
    /// A compaction, or a window: nothing before it is left.
    Forget(usize),
    /// A run is cancelled between a call and its result.
    Interrupt(usize),
    Insert(usize, Message),
    Role(usize, Role),
    /// A result is cut down to nothing.
    Truncate(usize),
    /// Results come one by one, the last first.
    Scatter(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let n = || any::<usize>();
    let role = select(vec![Role::System, Role::User, Role::Assistant, Role::Tool]);
    prop_oneof![
        n().prop_map(Edit::Drop),
        (n(), n()).prop_map(|(a, b)| Edit::DropPart(a, b)),
        (n(), n()).prop_map(|(a, b)| Edit::Swap(a, b)),
        n().prop_map(Edit::Twice),
        n().prop_map(Edit::Cut),
        n().prop_map(Edit::Forget),
        n().prop_map(Edit::Interrupt),
        (n(), wild()).prop_map(|(a, m)| Edit::Insert(a, m)),
        (n(), role).prop_map(|(a, r)| Edit::Role(a, r)),
        n().prop_map(Edit::Truncate),
        n().prop_map(Edit::Scatter),
    ]
}

fn apply(m: &mut Vec<Message>, edit: Edit) {
    if m.is_empty() {
        return;
    }
    let len = m.len();
    match edit {
        Edit::Drop(i) => drop(m.remove(i % len)),
        Edit::DropPart(i, n) => {
            let parts = &mut m[i % len].parts;
            if !parts.is_empty() {
                parts.remove(n % parts.len());
            }
        }
        Edit::Swap(i, j) => m.swap(i % len, j % len),
        Edit::Twice(i) => m.insert(i % len, m[i % len].clone()),
        Edit::Cut(i) => m.truncate(i % len),
        Edit::Forget(i) => drop(m.drain(..i % len)),
        Edit::Interrupt(i) => {
            if let Some(at) = (0..len).map(|n| (i + n) % len).find(|n| m[*n].role == Role::Tool) {
                m[at] = Message::user("stop, do this instead");
            }
        }
        Edit::Insert(i, message) => m.insert(i % len, message),
        // Files that the user cannot send stay the assistant's.
        Edit::Role(i, role) => {
            if !m[i % len].parts.iter().any(|p| matches!(p, Part::Media(_))) {
                m[i % len].role = role;
            }
        }
        Edit::Truncate(i) => {
            for part in &mut m[i % len].parts {
                if let Part::ToolResult(r) = part {
                    (r.content, r.media) = (String::new(), Vec::new());
                }
            }
        }
        Edit::Scatter(i) => {
            let one = |p| Message { role: Role::Tool, parts: vec![p] };
            if let Some(at) = (0..len).map(|n| (i + n) % len).find(|n| m[*n].role == Role::Tool) {
                let scattered: Vec<_> = m.remove(at).parts.into_iter().rev().map(one).collect();
                m.splice(at..at, scattered);
            }
        }
    }
}

/// A history to which things happened. Every result that is not blank ends in a number of its own.
fn history() -> impl Strategy<Value = Vec<Message>> {
    let piece = prop_oneof![3 => turn(), 2 => wild().prop_map(|m| vec![m])];
    (vec(piece, 0..7), vec(edit(), 0..5)).prop_map(|(pieces, edits)| {
        let mut messages: Vec<Message> = pieces.concat();
        edits.into_iter().for_each(|e| apply(&mut messages, e));
        for (n, part) in messages.iter_mut().flat_map(|m| &mut m.parts).enumerate() {
            if let Part::ToolResult(r) = part
                && !r.content.trim().is_empty()
            {
                r.content = format!("{} #{n}", r.content);
            }
        }
        messages
    })
}

// What is checked.

fn json_of(messages: &[Message]) -> String {
    serde_json::to_string(messages).unwrap()
}

fn request(messages: Vec<Message>) -> Request {
    let mut messages = messages;
    messages.extend(nudge(&messages));
    let tool = |name| ToolSpec::new(name, "a tool", json!({"type": "object", "properties": {}}));
    Request::new("", messages).tools([tool("f"), tool("get_weather")])
}

/// The body for `row`, checked against all the rules that its servers state.
fn check_wire(request: &Request, row: &Dialect) -> Result<(), Vec<Violation>> {
    let parse = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    let model = match row.family {
        Family::Anthropic => "claude-sonnet-4-5",
        Family::Responses => "gpt-5-mini",
        Family::Gemini => "gemini-2.5-flash",
        _ => "m",
    };
    let body = parse(wire::encode(request, model, row).unwrap());
    match row.family {
        Family::Anthropic => return rules::anthropic::check_body(&body),
        Family::Responses => return rules::openai_responses::check_body(&body),
        Family::Gemini => return rules::gemini::check_body(&body),
        Family::Ollama => return rules::ollama::check_body(&body),
        Family::Zo => return Ok(()),
        _ => {}
    }
    let strict = match (row.strict_turns, row.short_ids) {
        (true, true) => rules::strict_template::check_mistral_body(&body),
        (true, false) => rules::strict_template::check_body(&body),
        _ => Ok(()),
    };
    rules::openai_chat::check_body(&body).and(strict)
}

/// What the user and the host said, in order.
fn said(messages: &[Message]) -> Vec<String> {
    let mut out = Vec::new();
    for m in messages.iter().filter(|m| m.role != Role::Assistant) {
        let who = if m.role == Role::System { "host" } else { "user" };
        let text = |p: &Part| match p {
            Part::Text(t) | Part::Refusal(t) if !t.text.trim().is_empty() && t.text != NO_WORDS => {
                Some(format!("{who}: {}", t.text))
            }
            Part::Media(media) if who == "user" => Some(format!("user: {media:?}")),
            _ => None,
        };
        out.extend(m.parts.iter().filter_map(text));
        // The host's pictures are shown as the user's, behind its words.
        if who == "host" {
            let picture = |p: &Part| if let Part::Media(m) = p { Some(format!("user: {m:?}")) } else { None };
            out.extend(m.parts.iter().filter_map(picture));
        }
    }
    out
}

/// What the model said and did, in order, once the user had begun.
fn done(messages: &[Message]) -> Vec<String> {
    let begins = |m: &Message| match m.role {
        Role::System => m.parts.iter().any(|p| matches!(p, Part::Media(_))),
        Role::Assistant => false,
        Role::Tool => m.parts.iter().any(|p| match p {
            Part::Text(t) | Part::Refusal(t) => !t.text.trim().is_empty(),
            other => matches!(other, Part::Media(_)),
        }),
        _ => {
            m.parts.iter().any(|p| !matches!(p, Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_)))
        }
    };
    let mut begun = false;
    let mut out = Vec::new();
    for m in messages {
        begun |= begins(m);
        if begun && m.role == Role::Assistant {
            out.extend(m.parts.iter().filter_map(|p| match p {
                Part::Text(t) | Part::Refusal(t) if !t.text.trim().is_empty() => Some(t.text.clone()),
                Part::ToolCall(c) if good(&c.name) => Some(format!("call of {}", c.name)),
                Part::ToolCall(_) => Some(format!("call of {INVALID_NAME}")),
                Part::Opaque(r) => Some(format!("opaque {r:?}")),
                _ => None,
            }));
        }
    }
    out.retain(|t| !t.starts_with('['));
    out
}

fn good(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

proptest! {
    #![proptest_config(cases())]

    /// Normal, whole, stable; and the rules over the messages hold.
    #[test]
    fn any_history_becomes_normal(history in history(), more in history()) {
        let normal = normalize(history.clone());
        prop_assert!(is_normal(&normal), "{normal:#?}");
        let again = normalize(normal.clone());
        prop_assert_eq!(json_of(&again), json_of(&normal));
        if is_normal(&history) {
            prop_assert_eq!(json_of(&normal), json_of(&history));
        }
        prop_assert_eq!(said(&normal), said(&history), "nothing that was said is lost, added or moved");
        prop_assert_eq!(done(&normal), done(&history), "nor what the model did");

        // Results are those on record, each once, or stand-ins.
        let on_record: HashSet<_> = history.iter().flat_map(Message::results).map(|r| &r.content).collect();
        let mut used = HashSet::new();
        for r in normal.iter().flat_map(Message::results) {
            if r.content.contains('#') {
                prop_assert!(on_record.contains(&r.content) && used.insert(&r.content), "{r:?}");
            } else {
                prop_assert!(r.content == NO_RESULT || r.content.starts_with('(') || !r.media.is_empty(), "{r:?}");
            }
        }

        // What was sent stays as it was sent.
        let longer = normalize(normal.iter().cloned().chain(more).collect());
        prop_assert!(is_normal(&longer));
        prop_assert_eq!(json_of(&longer[..normal.len()]), json_of(&normal));

        // Any cut of it is mended, too.
        for at in 0..normal.len() {
            let sent = request(normalize(normal[at..].to_vec()));
            prop_assert_eq!(rules::check(&sent), Ok(()));
        }
        let sent = request(normal);
        prop_assert_eq!(rules::check(&sent), Ok(()), "{:#?}", sent.messages);
    }

    /// The bodies that the wires make of it obey the rules of each provider.
    #[test]
    fn any_history_is_a_request_that_each_wire_takes(history in history()) {
        let sent = request(normalize(history));
        for row in DIALECTS.iter() {
            let checked = check_wire(&sent, row);
            prop_assert_eq!(checked, Ok(()), "{}: {:#?}", row.id, sent.messages);
        }
    }
}

// A run.

#[derive(Debug, Clone)]
enum Do {
    Answer(Vec<Part>, u8),
    Result(usize, String),
    /// The process dies; the machine is read back.
    Reload,
}

fn finish(n: u8) -> FinishReason {
    match n % 6 {
        0 => FinishReason::Stop,
        1 | 2 => FinishReason::ToolCalls,
        3 => FinishReason::Length,
        4 => FinishReason::Pause,
        _ => FinishReason::Refusal,
    }
}

fn run(script: &[Do], max: u32, history: &[Message]) -> Machine {
    let mut m = Machine::new(vec![Message::system("facts"), Message::user("go")], history, max);
    for action in script {
        match action {
            Do::Answer(parts, n) => {
                let message = Message { role: Role::Assistant, parts: parts.clone() };
                let _ = m.model(Response::new(message, finish(*n)));
            }
            Do::Result(n, text) => {
                if let Step::Tools(open) = m.step() {
                    let call = &open[n % open.len()];
                    m.tool(ToolResult::new(call, ToolStatus::Ok, text)).unwrap();
                }
            }
            Do::Reload => m = serde_json::from_str(&serde_json::to_string(&m).unwrap()).unwrap(),
        }
    }
    m
}

/// What a model may answer that is of good will, but for the ids and names that it makes up.
fn fair() -> impl Strategy<Value = Vec<Part>> {
    let ids = select(vec!["", "a", "b", "call_0", "call_0-2", "functions.f:0"]);
    let call = (ids, select(NAMES), select(vec![json!({"a": 1}), json!("{\"a\":")]))
        .prop_map(|(id, name, args)| Part::ToolCall(ToolCall::new(id, name, args)));
    vec(prop_oneof![Just(Part::text("words ")), Just(Part::Reasoning(Text::new("hm"))), call], 0..5).prop_map(
        |mut parts| {
            // Thoughts alone are kept by the machine, and left out of requests.
            if parts.iter().all(|p| matches!(p, Part::Reasoning(_))) {
                parts.clear();
            }
            parts
        },
    )
}

fn script(answer: impl Strategy<Value = Vec<Part>>) -> impl Strategy<Value = Vec<Do>> {
    vec(
        prop_oneof![
            3 => (answer, any::<u8>()).prop_map(|(parts, n)| Do::Answer(parts, n)),
            4 => (any::<usize>(), select(vec!["1", "two", "{}"])).prop_map(|(n, t)| Do::Result(n, t.into())),
            1 => Just(Do::Reload),
        ],
        0..30,
    )
}

proptest! {
    #![proptest_config(cases())]

    /// Wherever a run is closed, what it leaves is normal as it is: the normalizer need not touch it.
    #[test]
    fn a_run_leaves_normal_messages(
        first in script(fair()), second in script(fair()), max in 1u32..9, cut in any::<usize>(),
    ) {
        let close = |mut m: Machine| {
            m.close(&ToolStatus::Cancelled, "cancelled");
            m.into_messages()
        };
        let mut history = close(run(&first, max, &[]));
        prop_assert!(is_normal(&history), "{history:#?}");
        history.extend(close(run(&second, max, &history)));
        prop_assert!(is_normal(&history), "{history:#?}");

        // A crash: the journal ends anywhere, in the middle of calls too, and the next run goes on from there.
        history.truncate(cut % (history.len() + 1));
        let mended = normalize(history.clone());
        prop_assert!(history.len() <= mended.len() && mended.len() <= history.len() + 1);
        prop_assert_eq!(json_of(&mended[..history.len()]), json_of(&history), "only ever the end is completed");
        let mut next = mended;
        next.push(Message::user("go on"));
        prop_assert!(is_normal(&next));
    }

    /// Whatever a model answers, the request after it is one that the wires take, and it says all that happened.
    #[test]
    fn a_run_with_a_hostile_model_goes_on(script in script(vec(part(FILES), 0..5)), max in 1u32..9) {
        let mut m = run(&script, max, &[]);
        m.close(&ToolStatus::Cancelled, "cancelled");
        let left = m.into_messages();
        let normal = normalize(left.clone());
        prop_assert!(is_normal(&normal));
        prop_assert_eq!(done(&normal), done(&left));
        let heard = |m: &[Message]| -> Vec<String> {
            let of_tools = m.iter().filter(|m| m.role == Role::Tool).flat_map(Message::results);
            of_tools.map(|r| r.content.clone()).collect()
        };
        prop_assert_eq!(heard(&normal), heard(&left), "no result is lost, made up, or moved");
        let sent = request(normal);
        prop_assert_eq!(rules::check(&sent), Ok(()));
        for row in ["anthropic", "openai", "mistral", "llamacpp"] {
            prop_assert_eq!(check_wire(&sent, Dialect::named(row).unwrap()), Ok(()), "{}", row);
        }
    }
}
