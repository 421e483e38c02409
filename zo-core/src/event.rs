//! What a run tells its host while it goes, and what it leaves.

use crate::{Approval, Machine, Step};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use zo_traits::{
    Error, ErrorKind, FinishReason, Message, Timestamp, ToolCall, ToolOutput, ToolResult, Usage,
};

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

/// How far a listener has followed a run: give it to [`attach`](crate::Zo::attach) to go on from there. As text it fits the
/// `Last-Event-ID` of a server-sent event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    /// The journal entry that comes next; what lies before it was seen whole.
    pub(crate) entry: u32,
    /// Bytes of text of the coming answer that were seen.
    pub(crate) text: u64,
    /// Bytes of reasoning of the coming answer that were seen.
    pub(crate) reasoning: u64,
}

impl Cursor {
    /// From the beginning of the run.
    pub fn start() -> Self {
        Self::default()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.entry, self.text, self.reasoning)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::new(ErrorKind::Invalid, "cursor.parse", "not a cursor: three numbers with dots between")
        };
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or_else(bad);
        let (entry, said, thought) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self {
            entry: entry.parse().map_err(|_| bad())?,
            text: said.parse().map_err(|_| bad())?,
            reasoning: thought.parse().map_err(|_| bad())?,
        })
    }
}

impl TryFrom<String> for Cursor {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
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
        /// The output as the skill gave it: whole text, media, data for the host. Empty when the call failed, and when the
        /// event comes from the journal.
        output: ToolOutput,
    },
    /// A message was [said](crate::Zo::say) to the running conversation. The model hears it at its next turn.
    Said(Message),
    /// A call waits for a decision: [`approve`](crate::Zo::approve) or [`deny`](crate::Zo::deny) it.
    Approval(Approval),
    /// The older part of the conversation is now a summary, as the model sees it. The transcript stays whole.
    Compacted {
        /// How many messages the summary stands for.
        messages: u64,
        /// Estimated tokens before.
        before: u64,
        /// Estimated tokens after.
        after: u64,
    },
    /// The provider is at its limit; the model is asked again after this time.
    Waiting {
        /// How long.
        wait: std::time::Duration,
        /// What the provider said.
        why: Error,
    },
    /// Token counts of the run so far, after each answer of the model.
    Usage(Usage),
    /// Something went wrong that the run can do without, e.g. memories could not be recalled.
    Warning(Error),
    /// This listener was too slow and missed fragments. What is on record of them follows.
    Gap,
    /// The run is over, or [parked](Reply::is_parked). Always the last event.
    Done(Reply),
}

/// The finish reason of a run that waits for [approvals](crate::Zo::approvals).
pub const PARKED: &str = "parked";

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
    /// Why it ended. [`FinishReason::Other`] with [`STEP_LIMIT`](crate::STEP_LIMIT) when it used up its steps, with
    /// [`LOOP`](crate::LOOP) when it went round in circles, with [`PARKED`] when it waits for approvals.
    pub finish: FinishReason,
    /// Token counts of all its answers together.
    pub usage: Usage,
    /// What its answers cost by the price table, in millionths of a US dollar; 0 where the price is not known.
    #[serde(default)]
    pub microusd: u64,
    /// How often the model was asked.
    pub steps: u32,
    /// The calls that wait for a decision; then the run is parked, and goes on with [`resume`](crate::Zo::resume).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
}

impl Reply {
    /// What a run leaves that has come so far.
    pub(crate) fn of(run: &RunId, machine: &Machine, microusd: u64, approvals: Vec<Approval>) -> Self {
        let finish = match machine.step() {
            Step::Done(reason) => reason,
            _ if !approvals.is_empty() => FinishReason::Other(PARKED.into()),
            _ => FinishReason::Other("interrupted".into()),
        };
        Self {
            run: run.clone(),
            text: machine.final_text().to_owned(),
            messages: machine.messages().to_vec(),
            finish,
            usage: machine.usage(),
            microusd,
            steps: machine.steps(),
            approvals,
        }
    }

    /// Does it wait for approvals rather than being over?
    pub fn is_parked(&self) -> bool {
        !self.approvals.is_empty()
    }
}

/// A run that was interrupted or parked and can be resumed.
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
    /// Tool calls that were in flight and must not be repeated: whether they happened is not known. A host that knows tells
    /// by [`supply`](crate::Zo::supply) before it resumes the run.
    pub unknown: Vec<ToolCall>,
    /// Calls that wait for a decision.
    pub approvals: Vec<Approval>,
    /// The run whose sub-agent it is. It is resumed by its parent.
    pub parent: Option<RunId>,
    /// Its record cannot be read: it can only be [abandoned](crate::Zo::abandon).
    pub damaged: Option<Error>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_as_text_and_json() {
        let c = Cursor { entry: 7, text: 340, reasoning: 1 };
        assert_eq!(c.to_string(), "7.340.1");
        assert_eq!("7.340.1".parse::<Cursor>().unwrap(), c);
        assert_eq!(serde_json::from_str::<Cursor>(&serde_json::to_string(&c).unwrap()).unwrap(), c);
        for bad in ["", "1", "1.2", "1.2.3.4", "a.b.c", "-1.0.0", "99999999999.0.0"] {
            assert_eq!(bad.parse::<Cursor>().unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
    }
}
