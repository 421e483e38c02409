//! Skills of zo: closures, the `#[skill]` attribute, `SKILL.md` folders.
//!
//! | you have | you write | you get |
//! |---|---|---|
//! | a closure | [`skill_fn`] | [`FnSkill`] with one tool |
//! | a function | [`#[skill]`](macro@skill) | a function that makes a [`FnSkill`] |
//! | folders with a `SKILL.md` | [`load_skills`] | a [`SkillFolder`] each, and a [`Problem`] for each that is beyond repair |
#![cfg_attr(feature = "builtin", doc = "| a sum | [`calculator`] | exact arithmetic, also in words |")]
//!
//! Every one of them is a [`Skill`]; anything else that implements the trait stands beside them.
//!
//! # Example
//! ```
//! use zo_skills::{Effect, Skill, ToolCall, skill_fn};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Repeat {
//!     /// What to say.
//!     text: String,
//!     /// How often.
//!     times: u8,
//! }
//!
//! let echo = skill_fn("echo", "Says a text several times.", |_cx, Repeat { text, times }| async move {
//!     Ok(text.repeat(times.into()))
//! })
//! .effect(Effect::Pure)
//! .trigger("repeat");
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let call = ToolCall::new("1", "echo", serde_json::json!({"text": "ho", "times": 3}));
//! assert_eq!(echo.call(&Default::default(), &call).await?.text, "hohoho");
//! # Ok::<(), zo_skills::Error>(()) }).unwrap();
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "builtin")]
mod builtin;
mod fn_skill;
mod folder;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod output;
mod schema;

#[cfg(feature = "builtin")]
pub use builtin::calculator;
pub use fn_skill::{FnSkill, skill_fn};
pub use folder::{Loaded, Problem, Rule, SkillFolder, load_skills};
pub use output::{IntoToolResult, Json};
/// # Example
/// ```
/// use zo_skills::{Cx, Error, ErrorKind, Result, skill};
///
/// /// Divides two numbers.
/// #[skill(effect = "pure", triggers("divide", "quotient"), crate = zo_skills)]
/// async fn divide(
///     /// What to divide.
///     a: f64,
///     /// By what; 1 when left out.
///     b: Option<f64>,
/// ) -> Result<f64> {
///     match b.unwrap_or(1.0) {
///         0.0 => Err(Error::new(ErrorKind::Invalid, "divide", "by zero").with_model_text("b must not be 0")),
///         b => Ok(a / b),
///     }
/// }
///
/// # use zo_skills::{Skill, ToolCall};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let skill = divide();
/// let call = ToolCall::new("1", "divide", serde_json::json!({"a": 6, "b": 4}));
/// assert_eq!(skill.call(&Cx::default(), &call).await?.text, "1.5");
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
///
pub use zo_skills_macros::skill;
pub use zo_traits::{
    Cx, Effect, Error, ErrorKind, Result, Skill, SkillManifest, ToolCall, ToolOutput, ToolSpec, Touch,
};

pub use schema::schema_of;
pub use schemars;

/// For the code that [`#[skill]`](macro@skill) writes. Not for people.
#[doc(hidden)]
pub mod __private {
    pub use crate::output::{IntoToolResult, kind};
    pub use schemars;
    pub use serde;
}
