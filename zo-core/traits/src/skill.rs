//! Skills: named bundles of instructions and callable tools.

use crate::{Cx, Media, Result, ToolCall, wire_enum};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{fmt::Debug, sync::Arc, time::Duration};

/// A named bundle of instructions and callable tools.
///
/// A closure is a skill with one tool; a `SKILL.md` folder is a skill with instructions; an MCP server is a skill with
/// many tools.
///
/// # What an implementation owes
/// * [`tools`](Skill::tools) is cheap and does no I/O.
/// * [`call`](Skill::call) may be called many times at once. The caller has checked that the tool exists and that the
///   arguments obey its schema, catches a panic and drops a call that outlives its time.
/// * The effect class of each tool is honest: it decides what may be repeated after a crash.
///
/// # Cancel safety
/// `call` may be dropped at any await point; whatever it started must then end or be harmless.
#[async_trait]
pub trait Skill: Send + Sync + Debug + 'static {
    /// Name, description, triggers: what the model chooses by.
    fn manifest(&self) -> &SkillManifest;

    /// Snapshot of the tools on offer. May differ between calls (MCP, hot reload).
    fn tools(&self) -> Arc<[ToolSpec]>;

    /// Instructions in Markdown, disclosed to the model only when it activates the skill. Empty when there are none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) and others when they cannot be read.
    async fn instructions(&self, _cx: &Cx) -> Result<String> {
        Ok(String::new())
    }

    /// Runs one tool.
    ///
    /// # Errors
    /// Any; the model reads [`Error::model_text`](crate::Error::model_text) and may try something else.
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a tool that this skill does not have.
    async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput>;
}

/// Identity card of a skill.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SkillManifest {
    /// Name in kebab-case, unique among the skills of an agent.
    pub name: String,
    /// What it does and when to use it: one paragraph, the text that the model selects on.
    pub description: String,
    /// Semantic version; empty when not stated.
    pub version: String,
    /// Words and phrases that call for this skill.
    pub triggers: Vec<String>,
    /// Has [`instructions`](Skill::instructions) to disclose.
    pub has_instructions: bool,
    /// Whatever else its author wrote down.
    pub metadata: Map<String, Value>,
}

impl SkillManifest {
    /// A manifest with a name and a description.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self { name: name.into(), description: description.into(), ..Self::default() }
    }
}

/// A tool as it is advertised to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolSpec {
    /// Name, unique in a request: `[a-zA-Z0-9_-]{1,64}`, the strictest rule among the providers.
    pub name: String,
    /// When and how to use it.
    pub description: String,
    /// JSON Schema (2020-12) of the arguments, an object schema. Shared, never deep-cloned per turn.
    pub input: Arc<Value>,
    /// What may be done with a call whose outcome was lost.
    #[serde(default)]
    pub effect: Effect,
    /// Runs alone, never beside another tool call of the same turn.
    #[serde(default)]
    pub serial: bool,
    /// What it touches. Calls of one turn that touch the same thing, one of them writing, run one after another in call
    /// order; all others run at the same time. Empty: it is in nobody's way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<Touch>,
    /// Permission scopes that it needs, all of them, e.g. `files:write`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Longest time for one call, where the agent's own limit does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Most calls of this tool at the same time, in the whole agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
}

/// Something that a tool reads or writes: a file, an account, a whole skill.
///
/// ```
/// # use zo_traits::{ToolSpec, Touch};
/// # use serde_json::json;
/// let edit = ToolSpec::new("edit", "Edit a file", json!({"type": "object"})).touch(Touch::writes("file").path("path"));
/// let pay = ToolSpec::new("pay", "Pay a bill", json!({"type": "object"})).touch(Touch::writes("account").arg("from"));
/// let draw = ToolSpec::new("draw", "Draw on the canvas", json!({"type": "object"})).touch(Touch::writes("canvas"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Touch {
    /// What kind of thing; only things of one kind can be the same.
    pub what: String,
    /// The argument that names the thing, as a field name or a JSON Pointer (RFC 6901). A call without it, and a tool
    /// without this, touches everything of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arg: Option<String>,
    /// The argument is a path: a folder is the same thing as whatever is in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path: bool,
    /// It is changed. Several calls may read the same thing at the same time.
    pub write: bool,
}

impl Touch {
    /// Reads everything of a kind.
    pub fn reads(what: impl Into<String>) -> Self {
        Self { what: what.into(), arg: None, path: false, write: false }
    }

    /// Changes everything of a kind.
    pub fn writes(what: impl Into<String>) -> Self {
        Self { write: true, ..Self::reads(what) }
    }

    /// Only the one thing that this argument names, compared as it is written.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.arg = Some(arg.into());
        self
    }

    /// Only the file or folder that this argument names.
    #[must_use]
    pub fn path(self, arg: impl Into<String>) -> Self {
        Self { path: true, ..self.arg(arg) }
    }
}

impl ToolSpec {
    /// A tool that may be repeated by nobody ([`Effect::AtMostOnce`]) and runs beside others.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        input: impl Into<Arc<Value>>,
    ) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            input: input.into(),
            effect: Effect::default(),
            serial: false,
            touches: Vec::new(),
            scopes: Vec::new(),
            timeout: None,
            max_parallel: None,
        }
    }

    /// States one more thing that it touches.
    #[must_use]
    pub fn touch(mut self, touch: Touch) -> Self {
        self.touches.push(touch);
        self
    }

    /// States one more permission scope that it needs.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scopes.push(scope.into());
        self
    }

    /// States the longest time for one call.
    #[must_use]
    pub fn timeout(mut self, d: Duration) -> Self {
        self.timeout = Some(d);
        self
    }

    /// States how many calls of it may run at the same time.
    #[must_use]
    pub fn max_parallel(mut self, n: u32) -> Self {
        self.max_parallel = Some(n);
        self
    }

    /// States the effect class.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }
}

wire_enum! {
    /// What a call of a tool does to the world, and so what may be done when its outcome was lost in a crash.
    #[derive(Default)]
    pub enum Effect {
        /// Changes nothing: may be run again at will.
        Pure = "pure",
        /// Changes something, and doing it again with the same [idempotency key](crate::Cx::idempotency_key) changes
        /// nothing more: is run again with that key.
        Idempotent = "idempotent",
        /// Must not be repeated (sends a mail, moves money). If in flight at a crash, its outcome is reported as
        /// unknown. The default, because it is the safe assumption; an effect that this version does not know is
        /// treated like it.
        #[default]
        AtMostOnce = "at_most_once",
    }
}

impl Effect {
    /// May a call whose outcome was lost be run again?
    pub fn may_repeat(&self) -> bool {
        matches!(self, Self::Pure | Self::Idempotent)
    }
}

/// What a tool returns: text and media for the model, data for the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ToolOutput {
    /// Shown to the model.
    pub text: String,
    /// Shown to the model where its provider can take it.
    pub media: Vec<Media>,
    /// Structured copy for the host; the model never sees it.
    pub data: Option<Value>,
}

impl ToolOutput {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Text, and a structured copy for the host.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Value>) -> Self {
        self.data = Some(data.into());
        self
    }
}

impl From<String> for ToolOutput {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<&str> for ToolOutput {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<()> for ToolOutput {
    fn from((): ()) -> Self {
        Self::text("done")
    }
}

impl From<Value> for ToolOutput {
    /// The JSON as text for the model and as data for the host.
    fn from(value: Value) -> Self {
        Self { text: value.to_string(), media: Vec::new(), data: Some(value) }
    }
}

macro_rules! from_number {
    ($($t:ty)*) => {$(
        impl From<$t> for ToolOutput {
            fn from(n: $t) -> Self {
                Self::text(n.to_string())
            }
        }
    )*};
}
from_number!(i32 i64 u32 u64 usize f64 bool);
