//! What a run tells its host while it goes, and what it leaves.

use serde::{Deserialize, Serialize};
use std::fmt;
use zo_traits::{Error, FinishReason, Message, Timestamp, ToolCall, ToolOutput, ToolResult, Usage};

/// Names a run. Time-ordered and unique; text and JSON form are the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// A new id for a run that starts at `now`: 48 bits of time, 80 bits of chance, in hexadecimal.
    pub(crate) fn new(now: Timestamp) -> Self {
        use std::hash::{BuildHasher, RandomState};
        // `RandomState` is seeded by the operating system: the one source of chance in the standard library.
        let (a, b) = (RandomState::new().hash_one(now), RandomState::new().hash_one(std::process::id()));
        Self(format!("{:012x}{:04x}{:016x}", now.0 & 0xffff_ffff_ffff, a & 0xffff, b))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RunId {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId({})", self.0)
    }
}

/// Progress of a run. With a file, what an event reports is durable before the event is seen, but for the fragments of text,
/// which become durable with the whole answer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RunEvent {
    /// The run is on record.
    Started(RunId),
    /// The model's next words for the user.
    Text(String),
    /// The model's next words to itself.
    Reasoning(String),
    /// A tool is about to run.
    ToolStarted(ToolCall),
    /// A tool ended.
    ToolFinished {
        /// What the model will read.
        result: ToolResult,
        /// The output as the skill gave it: whole text, media, data for the host. Empty when the call failed.
        output: ToolOutput,
    },
    /// Token counts of the run so far, after each answer of the model.
    Usage(Usage),
    /// Something went wrong that the run can do without, e.g. memories could not be recalled.
    Warning(Error),
    /// The run is over. Always the last event.
    Done(Reply),
}

/// What a run leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reply {
    /// The run.
    pub run: RunId,
    /// The answer.
    pub text: String,
    /// The messages of the run: what was asked, the model's messages and the tools' results.
    pub messages: Vec<Message>,
    /// Why it ended. [`FinishReason::Other`] with [`STEP_LIMIT`](crate::STEP_LIMIT) when it used up its steps.
    pub finish: FinishReason,
    /// Token counts of all its answers together.
    pub usage: Usage,
    /// How often the model was asked.
    pub steps: u32,
}

/// A run that was interrupted and can be resumed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Unfinished {
    /// The run.
    pub run: RunId,
    /// Its conversation.
    pub conversation: String,
    /// What was asked.
    pub input: String,
    /// When.
    pub started: Timestamp,
    /// How often the model had answered.
    pub steps: u32,
    /// Tool calls that were in flight and must not be repeated: whether they happened is not known.
    pub unknown: Vec<ToolCall>,
    /// Its record cannot be read: it can only be [abandoned](crate::Zo::abandon).
    pub damaged: Option<Error>,
}
