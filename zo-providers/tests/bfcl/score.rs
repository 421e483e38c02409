//! Scores the offline provider on the Berkeley Function Calling Leaderboard (v4, Apache-2.0).
//!
//! The corpus is read from the folder named by `ZO_CORPUS`, else from `../shared/corpus` beside the workspace. A call is
//! right when its function is, and each of its arguments is one of the accepted values; an argument that was left out
//! must be one that may be. Texts are compared as the leaderboard compares them.
//!
//! Shared by the test of this name and by the bench `offline_quality`, so that both count alike.

use serde_json::{Map, Value, json};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
// Each of the two has these words from where it may.
use super::{Message, Offline, Request, Role, ToolSpec};

/// The folder of the corpus, if there is one.
pub(crate) fn corpus() -> Option<PathBuf> {
    let root = std::env::var_os("ZO_CORPUS")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"));
    let dir = root.join("bfcl");
    dir.is_dir().then_some(dir)
}

/// One question, its functions and its accepted answers.
pub(crate) struct Case {
    /// The leaderboard's name for it.
    pub(crate) id: String,
    /// The question with its functions as tools.
    pub(crate) request: Request,
    /// Accepted values: per call, function name to argument to values. Empty where no function fits.
    pub(crate) truth: Vec<Value>,
    functions: Value,
}

impl Case {
    /// What the user asked.
    pub(crate) fn asked(&self) -> String {
        self.request.messages.iter().rfind(|m| m.role == Role::User).map(Message::to_text).unwrap_or_default()
    }
}

/// The cases of `<name>.jsonl`; none without a corpus or without that file.
pub(crate) fn cases(name: &str) -> Vec<Case> {
    let Some(dir) = corpus() else { return Vec::new() };
    let Ok(text) = std::fs::read_to_string(dir.join(format!("{name}.jsonl"))) else { return Vec::new() };
    text.lines().filter(|line| !line.trim().is_empty()).map(case).collect()
}

fn case(line: &str) -> Case {
    let row: Value = serde_json::from_str(line).unwrap();
    let messages = row["question"][0].as_array().unwrap().iter().map(|m| {
        let role = match m["role"].as_str().unwrap() {
            "system" => Role::System,
            "assistant" => Role::Assistant,
            _ => Role::User,
        };
        Message::text(role, m["content"].as_str().unwrap_or(""))
    });
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

/// Is a call the one that `truth` describes? Required arguments must be there.
fn right(name: &str, args: &Value, truth: &Value, functions: &Value) -> bool {
    let Some((wanted_name, wanted)) = truth.as_object().and_then(|o| o.iter().next()) else { return false };
    let function = functions.as_array().unwrap().iter().find(|f| f["name"] == *wanted_name);
    let required = function.and_then(|f| f["parameters"]["required"].as_array()).cloned().unwrap_or_default();
    name == wanted_name
        && object(args, wanted)
        && required.iter().all(|r| args.get(r.as_str().unwrap_or("")).is_some())
}

/// What came of one case.
pub(crate) struct Verdict {
    /// Called a function that was to be called and no other, or asked for its missing arguments.
    pub(crate) tool: bool,
    /// All calls are right, and none is missing.
    pub(crate) whole: bool,
    /// No call was made.
    pub(crate) silent: bool,
    /// How sure the provider was of its best tool, 0 to 1.
    pub(crate) confidence: f32,
    /// What it did, in words.
    pub(crate) did: String,
    /// CPU and waiting of the one decision.
    pub(crate) took: Duration,
}

/// Decides one case and judges it.
pub(crate) fn judge(case: &Case) -> Verdict {
    let started = Instant::now();
    let decision = Offline::new().choose(&case.request);
    let took = started.elapsed();
    let names: Vec<&String> =
        case.truth.iter().filter_map(|t| t.as_object().and_then(|o| o.keys().next())).collect();
    let tool = if decision.calls.is_empty() {
        !decision.missing.is_empty()
            && decision.tool.as_ref().is_some_and(|t| names.iter().all(|n| *n == t))
            && !names.is_empty()
    } else {
        decision.calls.iter().all(|(name, _)| names.contains(&name))
    };
    let mut left: Vec<&Value> = case.truth.iter().collect();
    let whole = !left.is_empty()
        && decision.calls.len() == left.len()
        && decision.calls.iter().all(|(name, args)| {
            let args = Value::Object(args.clone());
            match left.iter().position(|t| right(name, &args, t, &case.functions)) {
                Some(at) => {
                    left.remove(at);
                    true
                }
                None => false,
            }
        });
    let did = if decision.calls.is_empty() {
        format!("no call; best {:?}, missing {:?}", decision.tool, decision.missing)
    } else {
        let calls: Vec<String> =
            decision.calls.iter().map(|(name, args)| format!("{name}{}", json!(args))).collect();
        calls.join(" ; ")
    };
    Verdict {
        tool,
        whole,
        silent: decision.calls.is_empty(),
        confidence: decision.confidence,
        did: format!("[{:.2}] {did}", decision.confidence),
        took,
    }
}

/// Totals of a set, or of a part of one.
#[derive(Default, Clone, Copy)]
pub(crate) struct Score {
    /// All.
    pub(crate) cases: usize,
    /// With the right function.
    pub(crate) tool: usize,
    /// With the right function and arguments.
    pub(crate) whole: usize,
    /// Without a call.
    pub(crate) silent: usize,
}

impl Score {
    /// Counts one more.
    pub(crate) fn add(&mut self, verdict: &Verdict) {
        self.cases += 1;
        self.tool += usize::from(verdict.tool);
        self.whole += usize::from(verdict.whole);
        self.silent += usize::from(verdict.silent);
    }

    /// `n` of all, in percent.
    pub(crate) fn percent(self, n: usize) -> f64 {
        100.0 * n as f64 / self.cases.max(1) as f64
    }
}

/// Area under the ROC curve: the chance that a `positive` has a higher confidence than a `negative`.
pub(crate) fn auc(positive: &[f32], negative: &[f32]) -> f64 {
    let mut all: Vec<(f32, bool)> =
        positive.iter().map(|c| (*c, true)).chain(negative.iter().map(|c| (*c, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins, mut at) = (0.0f64, 0.0f64, 0);
    while at < all.len() {
        // Equal values count half.
        let same = all[at..].iter().take_while(|c| c.0 == all[at].0).count();
        let up = all[at..at + same].iter().filter(|c| c.1).count() as f64;
        let down = same as f64 - up;
        wins += up * (below + down / 2.0);
        below += down;
        at += same;
    }
    wins / (positive.len().max(1) as f64 * negative.len().max(1) as f64)
}
