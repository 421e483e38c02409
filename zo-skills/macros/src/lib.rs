//! The `#[skill]` attribute of `zo-skills`.
//!
//! Promise: what it accepts compiles wherever the function alone would have, whatever names the surrounding code has
//! taken; what it refuses is refused with a sentence that says what to write instead.
#![forbid(unsafe_code)]

mod doc;
mod expand;
mod function;
mod options;

use proc_macro::TokenStream;

/// Turns a documented function into a skill with one tool.
///
/// The function `name` is replaced by a function `name() -> FnSkill` of the same visibility, so a host writes
/// `.skill(add())`. Its doc comment is what the model reads to choose the tool, and must not be missing. The parameters
/// are the tool's arguments; doc comments on them are optional and become their descriptions.
///
/// # The function
/// * `async` or not. A function that blocks for long should be `async` and use the runtime's blocking threads.
/// * Its first parameter may be the context: `cx: Cx` or `cx: &Cx`. It is recognised by the type's name.
/// * Every other parameter is owned and implements `serde::Deserialize` and `schemars::JsonSchema`; `Option<T>` may be
///   left out by the model. `#[serde(..)]` and `#[schemars(..)]` on a parameter mean what they mean on a field.
/// * It returns `T` or `Result<T, E>`, where `T` is text, a number, `bool`, `()`, `serde_json::Value`, `ToolOutput` or
///   `Json<S>`, and `E: Into<zo Error>`.
/// * It calls itself, should it recurse, by its own name and with its own parameters.
///
/// # Options
/// | option | meaning |
/// |---|---|
/// | `name = "..."` | name of skill and tool, `[a-zA-Z0-9_-]{1,64}`; the function's name by default |
/// | `effect = "..."` | `pure`, `idempotent` or `at_most_once` (the default, because it is the safe assumption) |
/// | `triggers("...", ..)` | words and phrases that call for the skill |
/// | `version = "..."` | semantic version |
/// | `serial` | the tool runs alone, never beside another call of the same turn |
/// | `writes("kind", ..)` | it changes a thing of this kind, see below; may be given several times |
/// | `reads("kind", ..)` | it reads a thing of this kind; may be given several times |
/// | `scopes("...", ..)` | permission scopes that it needs, all of them, e.g. `files:write` |
/// | `timeout = "30s"` | longest time for one call instead of the agent's: `ms`, `s`, `m`, `h`, or a number of seconds |
/// | `max_parallel = 2` | most calls of it at the same time, in the whole agent |
/// | `crate = path` | where `zo-skills` is found; `::zo_core::skills` by default, `zo_skills` without `zo-core` |
///
/// # What it touches
/// Calls of one turn run at the same time, except that those which touch the same thing, one of them writing, run one
/// after another in the order in which the model made them.
///
/// | written | touches |
/// |---|---|
/// | `writes("file", path = "to")` | the file or folder, with all that is in it, whose path is the argument `to` |
/// | `reads("account", arg = "from")` | the one account that the argument `from` names |
/// | `writes("account", arg = "/to/id")` | the same, with a JSON Pointer into the argument `to` |
/// | `writes("canvas")` | everything of this kind |
#[proc_macro_attribute]
pub fn skill(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(options.into(), item.into()).into()
}
