//! What is on record of a run: a header, and entries that follow each other.
//!
//! Both are JSON. A later release reads what an earlier one wrote: new fields have defaults, and the meaning of an entry
//! never changes; a new meaning is a new entry. An entry of a later release is an error that says so.

use crate::{LoopPolicy, Machine, Permissions, RunId, Step, context::record::Compaction};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{borrow::Cow, collections::HashMap, sync::Arc};
use zo_traits::{
    Effect, Error, ErrorKind, Limits, Message, Response, Result, Scope, Timestamp, ToolCall, ToolResult,
    ToolStatus,
};

/// What a run was asked, under which circumstances. What a run may do and spend is part of it: it does not change when the
/// run is resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) run: RunId,
    pub(crate) conversation: String,
    pub(crate) scope: Scope,
    pub(crate) model: String,
    pub(crate) started: Timestamp,
    pub(crate) max_steps: u32,
    /// The part of the conversation that the model sees before the opening: `[from, base)`.
    pub(crate) from: u64,
    pub(crate) base: u64,
    /// The user's message.
    pub(crate) opening: Vec<Message>,
    /// Recalled facts. They belong to the run and not to the conversation: they are of one scope, and may be forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) facts: Option<Message>,
    /// Which summary stands for what came before `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compaction: Option<u64>,
    /// Whom the agent speaks as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) persona: Option<String>,
    /// Digest of the system text and the tools on offer, see [`Setup`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) setup: Option<String>,
    /// Every one of these must allow a call: the run's own, and those of the runs above it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) permissions: Vec<Permissions>,
    #[serde(default)]
    pub(crate) limits: Limits,
    /// The ledgers that it spends from, its own first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ledgers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<RunId>,
    /// How many runs are above it.
    #[serde(default)]
    pub(crate) depth: u32,
    /// Runs of before there was a policy go on without one.
    #[serde(default = "no_loop_policy")]
    pub(crate) loops: LoopPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output_schema: Option<Arc<Value>>,
    /// The provider takes the schema as it is; else it is told to the model in words.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) schema_native: bool,
    /// The run and the step that it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forked: Option<(RunId, u32)>,
}

fn no_loop_policy() -> LoopPolicy {
    LoopPolicy::OFF
}

impl Header {
    pub(crate) fn input(&self) -> String {
        self.opening.last().map(Message::to_text).unwrap_or_default()
    }

    /// The ledger that is this run's alone, if it has one.
    pub(crate) fn own_ledger(&self) -> Option<&str> {
        self.ledgers.first().map(String::as_str).filter(|id| *id == self.run.as_str())
    }

    pub(crate) fn machine(&self, history: &[Message]) -> Machine {
        Machine::new(self.opening.clone(), history, self.max_steps).with_loop_policy(self.loops)
    }
}

/// A tool call that is about to be begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) id: String,
    pub(crate) effect: Effect,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(crate) enum Entry<'a> {
    /// The model answered, and these of its calls are begun at once.
    Model {
        answer: Cow<'a, Response>,
        #[serde(default)]
        claims: Vec<Claim>,
        /// How many of the messages said so far it had heard.
        #[serde(default)]
        heard: u32,
        /// Price, in millionths of a US dollar.
        #[serde(default)]
        microusd: u64,
        /// Digest of the request, for a replay to compare.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<String>,
    },
    /// These calls, which had to wait, are begun.
    Claimed { claim: Claim },
    /// A message for the running conversation.
    Said {
        message: Cow<'a, Message>,
        /// It sends an answer back that does not have the form that was asked for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        repair: bool,
    },
    /// The beginning of what the model sees is now a summary.
    Compacted {
        compaction: Cow<'a, Compaction>,
        /// Price of the summary, in millionths of a US dollar.
        #[serde(default)]
        microusd: u64,
    },
    /// Tool results were cut down in what the model sees: those of the conversation before the run, and of so many of the
    /// run's messages.
    Shortened { own: u32 },
    /// The run stopped with nothing in flight that could have been paid for.
    Stopped,
    /// This call needs a decision.
    Asked { call: String },
    /// The run was taken up again; the model may have been paid for an answer that was lost.
    Resumed { setup: Option<String> },
    /// The run's messages are about to be appended to a conversation kept elsewhere, at this position.
    Appending { at: u64 },
    /// A call ended.
    Tool { result: Cow<'a, ToolResult> },
    /// The run ended.
    End { outcome: End },
}

impl Entry<'_> {
    /// Its kind, as in its JSON.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Model { .. } => "model",
            Self::Claimed { .. } => "claimed",
            Self::Said { .. } => "said",
            Self::Compacted { .. } => "compacted",
            Self::Shortened { .. } => "shortened",
            Self::Stopped => "stopped",
            Self::Asked { .. } => "asked",
            Self::Resumed { .. } => "resumed",
            Self::Appending { .. } => "appending",
            Self::Tool { .. } => "tool",
            Self::End { .. } => "end",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    Done,
    Cancelled,
    Failed {
        kind: ErrorKind,
        message: String,
    },
    /// The conversation went on without it, or the host gave it up.
    Abandoned,
}

/// What a request holds beside its messages: the same for many runs, so that it is kept once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) system: Option<Arc<str>>,
    pub(crate) tools: Arc<[zo_traits::ToolSpec]>,
}

/// A run as its entries tell it.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) header: Header,
    pub(crate) machine: Machine,
    /// Number of the next entry.
    pub(crate) next: u32,
    /// Calls that were begun and have no result.
    pub(crate) in_flight: HashMap<String, Effect>,
    /// Messages for the running conversation, and how many of them the model has heard.
    pub(crate) said: Vec<Message>,
    pub(crate) heard: usize,
    /// How often an answer was sent back.
    pub(crate) repairs: u32,
    pub(crate) compaction: Option<Compaction>,
    pub(crate) shortened: Option<u32>,
    /// Nothing was in flight when it stopped.
    pub(crate) stopped: bool,
    pub(crate) microusd: u64,
    /// Where its messages were about to be appended.
    pub(crate) appending: Option<u64>,
    pub(crate) ended: Option<End>,
}

impl Recorded {
    pub(crate) fn new(header: Header) -> Self {
        Self {
            machine: header.machine(&[]),
            header,
            next: 0,
            in_flight: HashMap::new(),
            said: Vec::new(),
            heard: 0,
            repairs: 0,
            compaction: None,
            shortened: None,
            stopped: false,
            microusd: 0,
            appending: None,
            ended: None,
        }
    }

    /// Takes up one more entry.
    ///
    /// # Errors
    /// `Corrupt` when it does not follow from those before it.
    pub(crate) fn apply(&mut self, entry: Entry<'_>) -> Result<()> {
        self.stopped = matches!(entry, Entry::Stopped);
        match entry {
            Entry::Model { answer, claims, heard, microusd, .. } => {
                self.hear(heard)?;
                self.machine.model(answer.into_owned()).map_err(out_of_order)?;
                self.in_flight.extend(claims.into_iter().map(|c| (c.id, c.effect)));
                self.microusd = self.microusd.saturating_add(microusd);
            }
            Entry::Claimed { claim } => drop(self.in_flight.insert(claim.id, claim.effect)),
            Entry::Said { message, repair } => {
                self.said.push(message.into_owned());
                self.repairs += u32::from(repair);
            }
            Entry::Shortened { own } => self.shortened = Some(own),
            Entry::Stopped => {}
            Entry::Compacted { compaction, microusd } => {
                self.microusd = self.microusd.saturating_add(microusd);
                let mut compaction = compaction.into_owned();
                // A fork has a conversation of its own.
                compaction.conversation.clone_from(&self.header.conversation);
                self.compaction = Some(compaction);
            }
            Entry::Asked { .. } => {}
            Entry::Resumed { setup } => {
                if setup.is_some() {
                    self.header.setup = setup;
                }
            }
            Entry::Tool { result } => {
                self.in_flight.remove(&result.id);
                self.machine.tool(result.into_owned()).map_err(out_of_order)?;
            }
            Entry::Appending { at } => self.appending = Some(at),
            Entry::End { outcome } => self.ended = Some(outcome),
        }
        Ok(())
    }

    /// The model heard so many of the messages that were said to the run.
    pub(crate) fn hear(&mut self, heard: u32) -> Result<()> {
        let heard = usize::try_from(heard).unwrap_or(usize::MAX).min(self.said.len()).max(self.heard);
        for message in self.said.get(self.heard..heard).unwrap_or_default() {
            self.machine.say(message.clone()).map_err(out_of_order)?;
        }
        self.heard = heard;
        Ok(())
    }

    /// Calls in flight that must not be repeated.
    pub(crate) fn unknown(&self) -> Vec<ToolCall> {
        let Step::Tools(open) = self.machine.step() else { return Vec::new() };
        open.into_iter().filter(|c| self.in_flight.get(&c.id).is_some_and(|e| !e.may_repeat())).collect()
    }

    /// The messages of the run if it ends here: begun calls that must not be repeated have an unknown outcome, all other
    /// open ones were not run; what was said and not heard comes last.
    pub(crate) fn close(&mut self, why: &str) -> Vec<Message> {
        for call in self.unknown() {
            // The call is open, so the machine takes the result.
            let _ = self.machine.tool(unknown_outcome(&call));
        }
        self.machine.close(&ToolStatus::Cancelled, why);
        let mut messages = self.machine.messages().to_vec();
        messages.extend(self.said.iter().skip(self.heard).cloned());
        messages
    }
}

/// What the model is told of a call that was in flight at a crash and must not be repeated.
pub(crate) fn unknown_outcome(call: &ToolCall) -> ToolResult {
    ToolResult::new(
        call,
        ToolStatus::Unknown,
        "outcome unknown: this call was begun and then interrupted. It may or may not have taken effect. It was not \
         repeated; check before doing it again.",
    )
}

pub(crate) fn out_of_order(e: Error) -> Error {
    Error::new(ErrorKind::Corrupt, "journal.read", "the entries of a run do not follow from each other")
        .with_source(e)
}
