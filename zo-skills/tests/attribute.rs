//! What `#[skill]` makes of a function.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use std::time::Duration;
use zo_skills::{
    Cx, Effect, Error, ErrorKind, FnSkill, Json, Result, Skill, ToolCall, ToolOutput, Touch, skill,
};

async fn run(skill: &FnSkill, args: Value) -> Result<ToolOutput> {
    let name = skill.tools()[0].name.clone();
    skill.call(&Cx::new("run-7"), &ToolCall::new("c", name, args)).await
}

async fn text(skill: FnSkill, args: Value) -> String {
    run(&skill, args).await.unwrap().text
}

/// Adds two integers.
///
/// Wraps nowhere.
#[skill(crate = zo_skills)]
async fn add(
    cx: Cx,
    /// the first
    a: i64,
    /// the second,
    /// or so
    b: i64,
) -> Result<String> {
    cx.check("add")?;
    Ok((a + b).to_string())
}

#[tokio::test]
async fn docs_become_descriptions() {
    let skill = add();
    assert_eq!(skill.manifest().name, "add");
    assert_eq!(skill.manifest().description, "Adds two integers.\n\nWraps nowhere.");
    let tool = skill.tools()[0].clone();
    assert_eq!(tool.effect, Effect::AtMostOnce);
    assert_eq!(
        *tool.input,
        json!({
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "the first"},
                "b": {"type": "integer", "description": "the second,\nor so"},
            },
            "required": ["a", "b"],
        })
    );
    assert_eq!(text(skill, json!({"a": 2, "b": 40})).await, "42");
    let e = run(&add(), json!({"a": 2})).await.unwrap_err();
    assert!(e.model_text().contains("missing field `b`"), "{}", e.model_text());
}

/** Greets. */
#[skill(
    name = "say-hello",
    effect = "idempotent",
    triggers("hello", "good day"),
    version = "2.1.0",
    serial,
    crate = zo_skills,
)]
pub(crate) fn greet(cx: &Cx, mut name: String, #[serde(default = "excited")] loud: bool) -> String {
    name.insert_str(0, "hi ");
    if loud { format!("{}! {}", name.to_uppercase(), cx.run()) } else { name }
}

/// Moves money.
#[skill(
    writes("account", arg = "from"),
    writes("account", arg = "/to/id"),
    reads("file", path = "receipt",),
    reads("clock"),
    scopes("money:send", "files:read"),
    timeout = "5m",
    max_parallel = 3,
    crate = zo_skills,
)]
async fn pay(from: String, to: Payee, receipt: Option<String>) -> String {
    format!("{from} {} {receipt:?}", to.id)
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Payee {
    id: u64,
}

/// Renamed.
#[skill(writes("file", path = "where-to"), timeout = 20, crate = zo_skills)]
fn save(#[serde(rename = "where-to")] to: String, r#type: u8) -> String {
    format!("{to} {}", r#type)
}

/// Raw.
#[skill(reads("kind", arg = "type"), timeout = "1500ms", crate = zo_skills)]
fn raw(r#type: u32) -> u32 {
    r#type
}

#[tokio::test]
async fn touches_scopes_and_limits() {
    let tool = pay().tools()[0].clone();
    assert_eq!(
        tool.touches,
        [
            Touch::writes("account").arg("from"),
            Touch::writes("account").arg("/to/id"),
            Touch::reads("file").path("receipt"),
            Touch::reads("clock"),
        ]
    );
    assert_eq!(tool.scopes, ["money:send", "files:read"]);
    assert_eq!((tool.timeout, tool.max_parallel), (Some(Duration::from_secs(300)), Some(3)));
    let args = json!({"from": "a", "to": {"id": 7}});
    assert_eq!(text(pay(), args).await, "a 7 None");
    let tool = save().tools()[0].clone();
    assert_eq!(tool.touches, [Touch::writes("file").path("where-to")]);
    assert_eq!(tool.timeout, Some(Duration::from_secs(20)));
    let tool = raw().tools()[0].clone();
    assert_eq!(tool.touches, [Touch::reads("kind").arg("type")]);
    assert_eq!(tool.timeout, Some(Duration::from_millis(1_500)));
    let plain = add().tools()[0].clone();
    assert!(plain.touches.is_empty() && plain.scopes.is_empty());
    assert_eq!((plain.timeout, plain.max_parallel), (None, None));
}

fn excited() -> bool {
    true
}

#[tokio::test]
async fn options_and_a_plain_function() {
    let skill = greet();
    assert_eq!(skill.manifest().version, "2.1.0");
    assert_eq!(skill.manifest().triggers, ["hello", "good day"]);
    let tool = skill.tools()[0].clone();
    assert_eq!((tool.name.as_str(), tool.effect, tool.serial), ("say-hello", Effect::Idempotent, true));
    assert_eq!(tool.description, "Greets.\nTriggers: hello, good day");
    assert_eq!(tool.input["required"], json!(["name"]));
    assert_eq!(text(greet(), json!({"name": "bob"})).await, "HI BOB! run-7");
    assert_eq!(text(greet(), json!({"name": "bob", "loud": false})).await, "hi bob");
}

/// Counts down.
#[skill(crate = zo_skills)]
fn countdown(from: u32) -> u32 {
    if from == 0 { 0 } else { countdown(from - 1) }
}

/// Nothing at all.
#[skill(crate = zo_skills)]
async fn nothing() {}

/// Divides, with an error of its own.
#[skill(crate = zo_skills)]
async fn divide(a: f64, b: Option<f64>) -> std::result::Result<Json<Vec<f64>>, Oops> {
    match b {
        Some(0.0) => Err(Oops),
        b => Ok(Json(vec![a / b.unwrap_or(1.0)])),
    }
}

struct Oops;

impl From<Oops> for Error {
    fn from(_: Oops) -> Self {
        Self::new(ErrorKind::Invalid, "divide", "by zero")
    }
}

#[tokio::test]
async fn returns_and_options() {
    assert_eq!(text(countdown(), json!({"from": 5})).await, "0");
    assert_eq!(text(nothing(), json!({})).await, "done");
    assert_eq!(text(nothing(), Value::Null).await, "done");
    assert_eq!(divide().tools()[0].input["required"], json!(["a"]));
    assert_eq!(text(divide(), json!({"a": 3})).await, "[3.0]");
    assert_eq!(text(divide(), json!({"a": 3, "b": null})).await, "[3.0]");
    assert_eq!(run(&divide(), json!({"a": 3, "b": 0})).await.unwrap_err().message(), "by zero");
}

/// Names that are words of the language.
#[skill(crate = zo_skills)]
async fn r#match(r#type: String, #[schemars(range(min = 1, max = 9))] r#in: u8) -> String {
    format!("{type} {in}", r#type = r#type, r#in = r#in)
}

#[tokio::test]
async fn raw_names_lose_their_mark() {
    let tool = r#match().tools()[0].clone();
    assert_eq!(tool.name, "match");
    assert_eq!(tool.input["properties"]["in"], json!({"type": "integer", "minimum": 1, "maximum": 9}));
    assert_eq!(text(r#match(), json!({"type": "t", "in": 2})).await, "t 2");
}
