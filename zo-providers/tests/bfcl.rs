//! The offline provider against the Berkeley Function Calling Leaderboard (v4, Apache-2.0).
//!
//! The corpus is read from the folder named by `ZO_CORPUS`, else from `../shared/corpus` beside the workspace. Every
//! second case was used to tune rules; the others are reported apart. A call is right when its function is, and each of
//! its arguments is one of the accepted values; an argument that was left out must be one that may be.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::{Map, Value, json};
use std::path::PathBuf;
use zo_providers::Offline;
use zo_traits::{Cx, Message, ProviderExt, Request, Role, ToolCall, ToolSpec};

fn corpus() -> Option<PathBuf> {
    let root = std::env::var_os("ZO_CORPUS")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"));
    let dir = root.join("bfcl");
    dir.is_dir().then_some(dir)
}

/// The leaderboard's own type names, as JSON Schema.
fn schema(node: &Value) -> Value {
    let Some(object) = node.as_object() else { return node.clone() };
    let mut out = Map::new();
    for (key, value) in object {
        match (key.as_str(), value) {
            ("type", Value::String(t)) => {
                let name = match t.as_str() {
                    "dict" => "object",
                    "float" => "number",
                    "tuple" => "array",
                    "any" => continue,
                    other => other,
                };
                out.insert("type".into(), json!(name));
            }
            ("properties", Value::Object(properties)) => {
                let properties: Map<String, Value> =
                    properties.iter().map(|(k, v)| (k.clone(), schema(v))).collect();
                out.insert("properties".into(), Value::Object(properties));
            }
            ("items", items) => {
                out.insert("items".into(), schema(items));
            }
            // Sample answers and other annotations that are no schema.
            ("optional" | "response" | "minItems" | "maxItems", _) => {}
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(out)
}

struct Case {
    id: String,
    request: Request,
    /// Accepted values: per call, function name to argument to values.
    truth: Vec<Value>,
    functions: Value,
}

fn cases(name: &str) -> Vec<Case> {
    let Some(dir) = corpus() else { return Vec::new() };
    let text = std::fs::read_to_string(dir.join(format!("{name}.jsonl"))).unwrap();
    text.lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            let messages: Vec<Message> = row["question"][0]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| {
                    let role = match m["role"].as_str().unwrap() {
                        "system" => Role::System,
                        "assistant" => Role::Assistant,
                        _ => Role::User,
                    };
                    Message::text(role, m["content"].as_str().unwrap_or(""))
                })
                .collect();
            let tools = row["function"].as_array().unwrap().iter().map(|f| {
                let input = schema(&f["parameters"]);
                ToolSpec::new(f["name"].as_str().unwrap(), f["description"].as_str().unwrap(), input)
            });
            Case {
                id: row["id"].as_str().unwrap().to_owned(),
                request: Request::new("", messages).tools(tools),
                truth: row["ground_truth"].as_array().cloned().unwrap_or_default(),
                functions: row["function"].clone(),
            }
        })
        .collect()
}

/// The leaderboard compares texts without case, spaces and some punctuation.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !" ,./-_*^".contains(*c)).collect::<String>().to_lowercase().replace('\'', "\"")
}

fn equal(given: &Value, wanted: &Value) -> bool {
    match (given, wanted) {
        (Value::String(a), Value::String(b)) => plain(a) == plain(b),
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(x, y)| match y {
                    Value::Object(_) => object(x, y),
                    _ => equal(x, y),
                })
        }
        (Value::Object(_), Value::Object(_)) => object(given, wanted),
        (a, b) => a == b,
    }
}

/// An object whose wanted values are lists of accepted values.
fn object(given: &Value, wanted: &Value) -> bool {
    let (Some(given), Some(wanted)) = (given.as_object(), wanted.as_object()) else { return false };
    given.iter().all(|(name, value)| {
        wanted.get(name).is_some_and(|accepted| match accepted {
            Value::Array(accepted) => accepted.iter().any(|w| equal(value, w)),
            other => equal(value, other),
        })
    }) && wanted.iter().all(|(name, accepted)| {
        given.contains_key(name) || accepted.as_array().is_some_and(|a| a.iter().any(|w| w == ""))
    })
}

/// Is `call` the one that `truth` describes? Required arguments must be there.
fn right(call: &ToolCall, truth: &Value, functions: &Value) -> bool {
    let Some((name, wanted)) = truth.as_object().and_then(|o| o.iter().next()) else { return false };
    let function = functions.as_array().unwrap().iter().find(|f| f["name"] == *name);
    let required = function.and_then(|f| f["parameters"]["required"].as_array()).cloned().unwrap_or_default();
    call.name == *name
        && object(&call.args, wanted)
        && required.iter().all(|r| call.args.get(r.as_str().unwrap_or("")).is_some())
}

#[derive(Default, Clone, Copy)]
struct Score {
    cases: usize,
    /// Of the wrong ones: no call and no question, a question, another number of calls.
    lost: [usize; 3],
    /// Chose the function (called it, or asked for its arguments by its name).
    chose: usize,
    whole: usize,
    silent: usize,
}

impl Score {
    fn percent(self, n: usize) -> f64 {
        100.0 * n as f64 / self.cases.max(1) as f64
    }
}

/// Runs a file; returns the tuned half and the other.
fn run(name: &str) -> [Score; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let show = std::env::var("ZO_BFCL_SHOW").is_ok_and(|s| s == name);
    let mut out = [Score::default(); 2];
    for (i, case) in cases(name).into_iter().enumerate() {
        let answer = runtime.block_on(Offline::new().complete(&Cx::default(), &case.request)).unwrap();
        let calls: Vec<&ToolCall> = answer.message.tool_calls().collect();
        let said = answer.message.to_text();
        let score = &mut out[i % 2];
        score.cases += 1;
        score.silent += usize::from(calls.is_empty());
        if case.truth.is_empty() {
            if show && i % 2 == 0 && !calls.is_empty() {
                let asked = case.request.messages.iter().rfind(|m| m.role == Role::User).unwrap().to_text();
                println!("-- {} {asked}\n   {calls:?}", case.id);
            }
            continue;
        }
        let names: Vec<&String> =
            case.truth.iter().map(|t| t.as_object().unwrap().keys().next().unwrap()).collect();
        let asks = |n: &String| said.starts_with(&format!("I would use `{n}`"));
        let chose = if calls.is_empty() {
            names.iter().all(|n| asks(n))
        } else {
            calls.iter().all(|c| names.contains(&&c.name))
        };
        let mut left: Vec<&Value> = case.truth.iter().collect();
        let whole = calls.len() == left.len()
            && calls.iter().all(|call| match left.iter().position(|t| right(call, t, &case.functions)) {
                Some(at) => {
                    left.remove(at);
                    true
                }
                None => false,
            });
        score.chose += usize::from(chose);
        score.whole += usize::from(whole);
        if !whole && calls.len() != case.truth.len() {
            score.lost[if !calls.is_empty() { 2 } else { usize::from(said.starts_with("I would use")) }] += 1;
        }
        if show && i % 2 == 0 && !whole {
            let asked = case.request.messages.iter().rfind(|m| m.role == Role::User).unwrap().to_text();
            println!("-- {} {}{asked}", case.id, if chose { "" } else { "WRONG TOOL " });
            let called: Vec<String> = calls.iter().map(|c| format!("{}{}", c.name, c.args)).collect();
            println!(
                "   got  {}\n   want {}",
                if called.is_empty() { said } else { called.join(" ; ") },
                json!(case.truth)
            );
        }
    }
    for (half, score) in ["tuned", "kept aside"].iter().zip(out) {
        if score.cases == 0 {
            continue;
        }
        if name.contains("irrelevance") {
            println!(
                "bfcl {name} ({half}): {} passed, {} failed ({:.1} % no call)",
                score.silent,
                score.cases - score.silent,
                score.percent(score.silent)
            );
        } else {
            println!(
                "bfcl {name} ({half}): {} passed, {} failed ({:.1} % whole call, {:.1} % tool choice; {} silent, {} asked, {} other count)",
                score.whole,
                score.cases - score.whole,
                score.percent(score.whole),
                score.percent(score.chose),
                score.lost[0],
                score.lost[1],
                score.lost[2],
            );
        }
    }
    out
}

/// Floors in percent: whole calls and choice, or silence, over both halves.
fn floors(name: &str, whole: f64, chose: f64) {
    if corpus().is_none() {
        println!("bfcl {name}: skipped, there is no corpus (set ZO_CORPUS)");
        return;
    }
    for score in run(name) {
        let got = if name.contains("irrelevance") { score.silent } else { score.whole };
        assert!(score.percent(got) >= whole, "{name}: {:.1} % < {whole} %", score.percent(got));
        assert!(
            score.percent(score.chose) >= chose,
            "{name} choice: {:.1} % < {chose} %",
            score.percent(score.chose)
        );
    }
}

#[test]
fn simple_python() {
    floors("simple_python", 51.0, 94.0);
}

#[test]
fn multiple() {
    floors("multiple", 66.0, 95.0);
}

#[test]
fn parallel() {
    floors("parallel", 6.0, 97.0);
}

#[test]
fn live_simple() {
    floors("live_simple", 29.0, 79.0);
}

#[test]
fn live_multiple() {
    floors("live_multiple", 43.0, 85.0);
}

#[test]
fn irrelevance() {
    floors("irrelevance", 77.0, 0.0);
}

#[test]
fn live_irrelevance() {
    floors("live_irrelevance", 85.0, 0.0);
}
