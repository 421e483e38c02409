//! The calculator as a skill.

use super::arithmetic;
use crate::{FnSkill, skill_fn};
use schemars::JsonSchema;
use serde::Deserialize;
use zo_traits::{Effect, Error, ErrorKind};

#[derive(Deserialize, JsonSchema)]
struct Calculate {
    /// What to work out, e.g. "(3 + 4) * 2^10", "15% of 80" or "17 times 23".
    expression: String,
}

/// A calculator: one pure tool `calculate` that works out an expression in symbols or in English words.
///
/// Whole numbers and decimals are exact up to 38 digits, so `0.1 + 0.2` is `0.3`; beyond that and for roots, logarithms
/// and angles (in radians) it counts in `f64`.
///
/// ```
/// use zo_skills::{Skill, ToolCall, calculator};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let call = ToolCall::new("1", "calculate", serde_json::json!({"expression": "17 times 23"}));
/// assert_eq!(calculator().call(&Default::default(), &call).await?.text, "391");
/// # Ok::<(), zo_skills::Error>(()) }).unwrap();
/// ```
pub fn calculator() -> FnSkill {
    let about = "Works out an arithmetic expression exactly. Knows + - * / % ^, parentheses, percent, pi, e, sqrt, abs, \
                 round, floor, ceil, min, max, ln, log, sin, cos, tan, and words such as \"plus\", \"divided by\", \
                 \"squared\", \"square root of\".";
    skill_fn("calculator", about, |_cx, Calculate { expression }| async move {
        arithmetic::evaluate(&expression).map_err(|e| {
            Error::new(ErrorKind::Invalid, "calculator", &e)
                .with_model_text(format!("cannot work that out: {e}"))
        })
    })
    .tool("calculate")
    .effect(Effect::Pure)
    .triggers([
        "calculate",
        "arithmetic",
        "compute",
        "math",
        "plus",
        "minus",
        "times",
        "divided by",
        "percent",
    ])
}
