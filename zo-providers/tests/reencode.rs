//! Recorded requests, said in our words and encoded again; and recorded answers, taken into a conversation and sent back.
//!
//! The data is no part of this repository: it is looked for in `$ZO_CORPUS`, else beside the workspace. What each wire may say
//! otherwise than the recorded body did is listed at the head of its module.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, unreachable_pub)]

mod common;
#[path = "common/tally.rs"]
mod tally;

#[path = "reencode/anthropic.rs"]
mod anthropic;
#[path = "reencode/chat.rs"]
mod chat;
#[path = "reencode/echo.rs"]
mod echo;
#[path = "reencode/gemini.rs"]
mod gemini;
#[path = "reencode/ollama.rs"]
mod ollama;
#[path = "reencode/responses.rs"]
mod responses;

use common::corpus;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::Path};
use tally::Tally;
use zo_providers::{
    Dialect, EffortField, Family,
    wire::{embed, encode},
};
use zo_testkit::rules;
use zo_traits::Request;

/// A line of the manifest: a recorded request, and the answer to it.
struct Case {
    id: String,
    wire: String,
    provider: String,
    kind: String,
    status: u64,
    asked: Option<Value>,
    answer: Vec<u8>,
}

fn cases(root: &Path) -> Vec<Case> {
    let lines = std::fs::read_to_string(root.join("manifest.jsonl")).unwrap();
    let read = |file: &str| std::fs::read(root.join(file)).unwrap();
    lines
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let v: Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| v[key].as_str().unwrap_or_default().to_owned();
            Case {
                id: text("id"),
                wire: text("wire"),
                provider: text("provider"),
                kind: text("kind"),
                status: v["status"].as_u64().unwrap_or(200),
                asked: v["req"].as_str().map(|file| serde_json::from_slice(&read(file)).unwrap()),
                answer: read(&text("file")),
            }
        })
        .collect()
}

/// The row of a provider that speaks `wire`; plain chat completions for one that is not built in.
fn row(wire: &str, provider: &str, model: &str) -> Option<Dialect> {
    let named = |id: &str| Dialect::named(id).cloned();
    let mut row = match wire {
        "openai.chat" => named(provider).filter(|row| row.family == Family::Chat).unwrap_or_default(),
        "openai.responses" => named("openai-responses")?,
        "anthropic.messages" => named("anthropic")?,
        "gemini.generate" => named("gemini")?,
        "ollama.chat" => named("ollama")?,
        "zo.ask" => named("zo")?,
        _ => return None,
    };
    if row.family == Family::Chat {
        row.id = provider.to_owned();
    }
    let openai = model.starts_with("gpt-") || model.starts_with('o');
    if row.family == Family::Responses && !openai {
        row.effort = EffortField::Reasoning;
    }
    Some(row)
}

type Check = fn(&Value) -> Result<(), Vec<rules::Violation>>;

/// What the API of `row` would refuse in a body.
fn violations(row: &Dialect, body: &Value) -> Vec<rules::Violation> {
    let checks: &[Check] = match (row.family, &*row.id) {
        (Family::Chat, "mistral") => {
            &[rules::openai_chat::check_body, rules::strict_template::check_mistral_body]
        }
        (Family::Chat, _) if row.strict_turns => {
            &[rules::openai_chat::check_body, rules::strict_template::check_body]
        }
        (Family::Chat, _) => &[rules::openai_chat::check_body],
        (Family::Responses, _) => &[rules::openai_responses::check_body],
        (Family::Anthropic, _) => &[rules::anthropic::check_body],
        (Family::Gemini, _) => &[rules::gemini::check_body],
        (Family::Ollama, _) => &[rules::ollama::check_body],
        _ => &[zo_rules],
    };
    checks.iter().filter_map(|check| check(body).err()).flatten().collect()
}

/// There is little that Zo can refuse.
fn zo_rules(body: &Value) -> Result<(), Vec<rules::Violation>> {
    match body["input"].as_str() {
        Some(input) if !input.trim().is_empty() => Ok(()),
        _ => Err(vec![rules::Violation {
            rule: "input",
            at: "/input".into(),
            what: body["input"].to_string(),
        }]),
    }
}

/// Where two values first differ. Numbers are compared as such.
fn differ(recorded: &Value, ours: &Value, at: &str) -> Result<(), String> {
    match (recorded, ours) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).try_for_each(|key| {
            differ(
                a.get(key).unwrap_or(&Value::Null),
                b.get(key).unwrap_or(&Value::Null),
                &format!("{at}/{key}"),
            )
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().try_for_each(|(n, (a, b))| differ(a, b, &format!("{at}/{n}")))
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => Ok(()),
        (a, b) if a == b => Ok(()),
        (a, b) => Err(format!("{at}: recorded {a:.300}, ours {b:.300}")),
    }
}

fn json_of(body: zo_traits::Result<Vec<u8>>) -> Result<Value, String> {
    let bytes = body.map_err(|e| format!("not encoded: {e}"))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| format!("no JSON: {e}"))?;
    // A parser keeps the last of two fields of one name, and says nothing.
    match value.to_string().len() == bytes.len() {
        true => Ok(value),
        false => Err("a field is there twice".into()),
    }
}

/// The model that Gemini's bodies do not name; the answer does.
fn gemini_model(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let named = text.split("\"modelVersion\"").nth(1).and_then(|rest| rest.split('"').nth(1));
    named.unwrap_or("gemini-2.5-flash").to_owned()
}

/// A recorded request in our words, and what we make of these.
struct Again {
    row: Dialect,
    request: Request,
    ours: Value,
}

/// Says a recorded body in our words, and encodes these.
fn again(case: &Case, asked: &Value) -> Result<Again, String> {
    let model = match case.wire.as_str() {
        "gemini.generate" => gemini_model(&case.answer),
        _ => asked["model"].as_str().unwrap_or_default().to_owned(),
    };
    let row = row(&case.wire, &case.provider, &model).ok_or("a wire without a row")?;
    let request = match row.family {
        Family::Chat => chat::request_of(asked, &row)?,
        Family::Anthropic => anthropic::request_of(asked)?,
        Family::Responses => responses::request_of(asked).ok_or("cannot be said in our words")?,
        Family::Gemini => gemini::request_of(asked).ok_or("cannot be said in our words")?,
        _ => ollama::request_of(asked).ok_or("cannot be said in our words")?,
    };
    let ours = json_of(encode(&request, &model, &row))?;
    Ok(Again { row, request, ours })
}

/// Do both bodies ask the same of the provider of `row`?
fn equivalent(asked: &Value, ours: &Value, row: &Dialect) -> Result<(), String> {
    match row.family {
        Family::Chat => chat::equivalent(asked, ours, row),
        Family::Anthropic => anthropic::equivalent(asked, ours),
        Family::Responses => responses::equivalent(asked, ours),
        Family::Gemini => gemini::equivalent(asked, ours),
        _ => ollama::equivalent(asked, ours),
    }
}

/// What is wrong with our body.
fn wrong(asked: &Value, made: &Again) -> Result<(), String> {
    equivalent(asked, &made.ours, &made.row)?;
    // What the recorded body did wrong on purpose, ours does, too.
    let meant: Vec<_> = violations(&made.row, asked).into_iter().map(|v| v.rule).collect();
    match violations(&made.row, &made.ours).into_iter().find(|v| !meant.contains(&v.rule)) {
        Some(violation) => Err(violation.to_string()),
        None => Ok(()),
    }
}

/// As [`again`], for embeddings. Vectors are always asked for in base64.
fn embeddings(asked: &Value) -> Result<(), String> {
    let inputs = match &asked["input"] {
        Value::String(one) => vec![one.as_str()],
        all => all.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
    };
    let field = ["dimensions", "output_dimension"].into_iter().find(|field| asked[*field].is_u64());
    let dimensions = field.and_then(|field| asked[field].as_u64()).map(|n| n as u32);
    let model = asked["model"].as_str().unwrap_or_default();
    let body = embed::openai_body(model, &inputs, dimensions, field.unwrap_or("dimensions"));
    let mut ours = json_of(body)?;
    let mut theirs = asked.as_object().cloned().unwrap_or_else(Map::new);
    theirs.insert("input".into(), json!(inputs));
    for body in [ours.as_object_mut(), Some(&mut theirs)].into_iter().flatten() {
        body.remove("encoding_format");
    }
    differ(&Value::Object(theirs), &ours, "")
}

#[test]
fn recorded_requests_are_encoded_again() {
    let Some(root) = corpus("providers") else { return };
    let (mut tally, mut extra) = (Tally::default(), BTreeMap::<String, usize>::new());
    for case in cases(&root) {
        let Some(asked) = &case.asked else { continue };
        let outcome = match case.wire.as_str() {
            "openai.embeddings" => embeddings(asked),
            wire if row(wire, "", "").is_some() => again(&case, asked).and_then(|made| {
                for key in made.request.extra.keys() {
                    *extra.entry(format!("{wire} {key}")).or_default() += 1;
                }
                wrong(asked, &made)
            }),
            wire => {
                println!("skipped: {} is of {wire}", case.id);
                continue;
            }
        };
        tally.add(&case.wire, &format!("reencode/{}", case.id), outcome.err().into_iter().collect());
    }
    println!("fields of the API's own, in `Request::extra`: {extra:?}");
    tally.judge();
}

/// Every string, number and truth value in a body, by its JSON Pointer, with another in its place.
fn changes(value: &Value, at: &str, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Null => {}
        Value::Bool(b) => out.push((at.to_owned(), json!(!b))),
        Value::Number(n) => out.push((at.to_owned(), json!(n.as_f64().unwrap() + 1.0))),
        Value::String(text) => out.push((at.to_owned(), json!(format!("{text} or not")))),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, v)| changes(v, &format!("{at}/{n}"), out))
        }
        Value::Object(map) => map.iter().for_each(|(key, v)| {
            changes(v, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
        }),
    }
}

/// Where the comparisons do not look, since the recorded bodies have nothing of the kind: marks, ids of ours, and words that can
/// be no others, which the rules of each API check.
const OVERLOOKED: &[&str] = &[
    "/cache_control/type",
    "/functionCall/id",
    "/functionResponse/id",
    "/tool_call_id",
    "/tool_calls/*/id",
    "/tool_calls/*/type",
    "/tools/*/type",
    "/truncate",
    "/shift",
    "/num_ctx",
    "/json_schema/name",
    "/text/format/name",
    "/include_usage",
    "/include/*",
    "/store",
];

/// A body of ours that says anything else than it does is not taken for the same: what the comparisons overlook is listed.
#[test]
fn a_changed_body_is_not_taken_for_the_same() {
    let Some(root) = corpus("providers") else { return };
    let (mut seen, mut overlooked) = (0, BTreeMap::<String, usize>::new());
    for case in cases(&root).iter().filter(|c| row(&c.wire, "", "").is_some()) {
        let Some(asked) = &case.asked else { continue };
        let Ok(made) = again(case, asked) else { continue };
        let mut all = Vec::new();
        changes(&made.ours, "", &mut all);
        let step = all.len().div_ceil(150);
        for (at, value) in all.into_iter().step_by(step.max(1)) {
            let mut other = made.ours.clone();
            *other.pointer_mut(&at).unwrap() = value;
            if equivalent(asked, &other, &made.row).is_err() {
                seen += 1;
            } else {
                let place = at.split('/').map(|key| if key.parse::<u32>().is_ok() { "*" } else { key });
                *overlooked
                    .entry(format!("{} {}", case.wire, place.collect::<Vec<_>>().join("/")))
                    .or_default() += 1;
            }
        }
    }
    println!("{seen} changes were seen, {} were not", overlooked.values().sum::<usize>());
    for (place, n) in &overlooked {
        println!("  {place}: {n}");
    }
    let known = |place: &&String| OVERLOOKED.iter().any(|end| place.ends_with(end));
    let new: Vec<_> = overlooked.keys().filter(|place| !known(place)).collect();
    assert!(seen > 0 && new.is_empty(), "changed, and not seen: {new:?}");
}

#[test]
fn recorded_answers_go_back_as_history() {
    let Some(root) = corpus("providers") else { return };
    let mut tally = Tally::default();
    for case in cases(&root).iter().filter(|c| row(&c.wire, &c.provider, "").is_some() && c.status == 200) {
        echo::check(case, &mut tally);
    }
    tally.judge();
}
