//! What providers demand of a request, as checks that fail.
//!
//! * [`check`]: the rules that all providers share, over the messages of a [`Request`](zo_traits::Request). An encoder cannot
//!   mend a request that breaks one of these without making something up.
//! * One module per wire, over the JSON that is sent there: `check_body`. Each has its `RULES`, a name and the source of each.
//!
//! A rule is stated as the provider documents it, or as its error message says; where only some servers behind a wire
//! insist, the rule is that of the strictest. A body that a provider took must pass: that is tested with recorded ones.
//! Unknown fields and unknown kinds of content are let through, since the wires grow.

pub mod anthropic;
pub mod gemini;
pub mod ollama;
pub mod openai_chat;
pub mod openai_responses;
mod request;
pub mod strict_template;

pub use request::{RULES, check};

use serde_json::Value;
use std::fmt;

/// A demand that providers make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Name, in kebab-case.
    pub name: &'static str,
    /// The demand, in words.
    pub says: &'static str,
    /// Who says so: an address, or an error message.
    pub source: &'static str,
}

/// A demand that was not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Name of the [`Rule`].
    pub rule: &'static str,
    /// Where: a JSON Pointer (RFC 6901) into the body or the request.
    pub at: String,
    /// What is there.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.rule, self.at, self.what)
    }
}

/// Collects violations.
#[derive(Debug, Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, rule: &'static str, at: impl fmt::Display, what: impl fmt::Display) {
        let what = what.to_string();
        let what =
            if what.len() > 200 { what.chars().take(200).chain("...".chars()).collect() } else { what };
        self.0.push(Violation { rule, at: at.to_string(), what });
    }

    /// A violation unless `fine`.
    fn must(&mut self, fine: bool, rule: &'static str, at: impl fmt::Display, what: impl fmt::Display) {
        if !fine {
            self.add(rule, at, what);
        }
    }

    fn done(self) -> Result<(), Vec<Violation>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

fn blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// `[a-zA-Z0-9_-]{1,max}`.
fn plain(name: &str, max: usize) -> bool {
    (1..=max).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// The items of an array; none for anything else.
fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

/// A number within bounds, or absent.
fn within(value: &Value, low: f64, high: f64) -> bool {
    value.is_null() || value.as_f64().is_some_and(|n| (low..=high).contains(&n))
}

/// A whole number of at least 1, or absent.
fn positive(value: &Value) -> bool {
    value.is_null() || value.as_u64().is_some_and(|n| n >= 1)
}

/// An object schema: of type object, or of no type and therefore of any.
fn object_schema(schema: &Value) -> bool {
    schema.as_object().is_some_and(|s| s.get("type").is_some_and(|t| t == "object"))
        && (schema["properties"].is_null() || schema["properties"].is_object())
        && (schema["required"].is_null() || schema["required"].is_array())
}

/// Tests that every rule of a wire can fail.
#[cfg(test)]
pub(crate) fn each_can_fail(
    rules: &[Rule],
    check: impl Fn(&Value) -> Result<(), Vec<Violation>>,
    good: &Value,
    bad: &[(&str, Value)],
) {
    assert_eq!(check(good), Ok(()), "the good body");
    for (rule, body) in bad {
        let found = check(body).expect_err(rule);
        assert!(found.iter().any(|v| v.rule == *rule), "{rule}: {found:?}");
        for violation in found {
            assert!(rules.iter().any(|r| r.name == violation.rule), "{violation} is on no list");
        }
    }
    for rule in rules {
        assert!(bad.iter().any(|(name, _)| *name == rule.name), "{} has no body that breaks it", rule.name);
        assert!(!rule.says.is_empty() && !rule.source.is_empty());
    }
}

/// `good` with the value at a JSON Pointer replaced; `null` takes it out.
#[cfg(test)]
pub(crate) fn but(good: &Value, at: &str, value: Value) -> Value {
    let mut body = good.clone();
    match body.pointer_mut(at) {
        Some(place) => *place = value,
        None => {
            let (parent, key) = at.rsplit_once('/').unwrap();
            let parent = body.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {at}"));
            parent.as_object_mut().unwrap().insert(key.into(), value);
        }
    }
    body
}

/// Runs a check over the recorded requests of a wire that a provider answered with 200, and prints how it went. `lenient` are
/// those that their server took although others of the wire do not: part of the file's name, the rule, and why it stays.
#[cfg(test)]
pub(crate) fn recorded(
    wire: &str,
    lenient: &[(&str, &str, &str)],
    check: impl Fn(&Value, &str) -> Result<(), Vec<Violation>>,
) {
    let root = std::env::var("ZO_CORPUS").map_or_else(
        |_| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        std::path::PathBuf::from,
    );
    let folder = root.join("providers");
    let Ok(manifest) = std::fs::read_to_string(folder.join("manifest.jsonl")) else {
        println!("skipped: no corpus of recorded requests at {}", folder.display());
        return;
    };
    let (mut passed, mut failed, mut excused) = (0, Vec::new(), std::collections::HashSet::new());
    for line in manifest.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (Some(file), true) = (case["req"].as_str(), case["wire"] == wire && case["status"] == 200) else {
            continue;
        };
        let body = std::fs::read_to_string(folder.join(file)).unwrap();
        match check(&serde_json::from_str(&body).unwrap(), text_of(&case, "provider")) {
            Ok(()) => passed += 1,
            Err(found) => {
                let known = |v: &Violation| lenient.iter().find(|l| file.contains(l.0) && v.rule == l.1);
                excused.extend(found.iter().filter_map(known).map(|l| (l.0, l.1)));
                failed.extend(found.iter().filter(|v| known(v).is_none()).map(|v| format!("{file}: {v}")));
            }
        }
    }
    println!("{wire}: {passed} passed, {} failed, {} known to be lenient", failed.len(), lenient.len());
    assert!(failed.is_empty() && passed > 0, "{wire}: {passed} passed, failed:\n{}", failed.join("\n"));
    assert_eq!(excused.len(), lenient.len(), "a lenient one passes or is gone: only {excused:?} are left");
}
