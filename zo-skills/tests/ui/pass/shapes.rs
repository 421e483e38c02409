//! Every shape of function that is a skill.
#![deny(warnings)]
#![deny(missing_docs)]

use std::collections::BTreeMap;
use zo_skills::{Cx, Json, Result, Skill, ToolOutput, skill};

/// A type of the user's own, with docs on its fields.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Point {
    /// Across.
    pub x: f64,
    /// Up.
    pub y: f64,
}

/// Sync, plain.
#[skill(crate = zo_skills)]
fn length(p: Point) -> f64 {
    p.x.hypot(p.y)
}

#[skill(crate = zo_skills)]
/// The attribute may stand above the comment.
pub async fn below(cx: &Cx, mut list: Vec<Point>, map: BTreeMap<String, u8>) -> Result<ToolOutput> {
    cx.check("below")?;
    list.clear();
    Ok(ToolOutput::text(format!("{} {}", list.len(), map.len())))
}

/// Returns any serializable value.
#[skill(crate = zo_skills)]
async fn json() -> Json<Vec<u8>> {
    Json(vec![1])
}

/// With attributes of the function and of a parameter.
#[skill(crate = zo_skills)]
#[allow(unused_variables)]
#[inline]
#[cfg(not(any()))]
async fn attributes(#[serde(default)] #[schemars(length(max = 3))] tags: Vec<String>, #[allow(unused)] n: u8) {}

/// Unit and implicit return.
#[skill(triggers(), crate = zo_skills,)]
fn unit() {}

/// An opaque result.
#[skill(crate = zo_skills)]
fn opaque() -> impl Into<ToolOutput> {
    "text"
}

/// A static text.
#[skill(crate = zo_skills)]
fn text() -> &'static str {
    "text"
}

fn main() {
    let all: Vec<Box<dyn Skill>> = vec![
        Box::new(length()),
        Box::new(below()),
        Box::new(json()),
        Box::new(attributes()),
        Box::new(unit()),
        Box::new(opaque()),
        Box::new(text()),
    ];
    assert_eq!(all.len(), 7);
}
