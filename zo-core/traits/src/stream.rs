//! The events of a streamed answer, their grammar, and the one strict fold that checks it for every provider.

use crate::{
    BoxStream, Cx, Error, ErrorKind, Message, Part, Replay, Result, Role, Text, ToolCall, Usage, wire_enum,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, future::poll_fn};

/// One event of a streamed answer.
///
/// Grammar: `Start? (PartStart Delta* PartEnd)* Usage? Finish`, where parts may interleave (each delta names its part by
/// `index`), `Usage` may stand anywhere after `Start` and repeat (the last one counts), and nothing follows `Finish`.
/// [`Accumulator`] enforces it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StreamEvent {
    /// What the provider says about the answer as a whole.
    Start {
        /// The provider's id of the answer.
        id: Option<String>,
        /// The model that really answers.
        model: Option<String>,
    },
    /// Opens part `index`. The parts of the folded message are in the order of their starts.
    PartStart {
        /// Key of the part, used once in a stream.
        index: u32,
        /// What it is.
        kind: PartKind,
    },
    /// Appends to part `index`: text, or raw JSON text of a tool call's arguments.
    Delta {
        /// Key of the part.
        index: u32,
        /// The fragment.
        text: String,
    },
    /// Closes part `index`.
    PartEnd {
        /// Key of the part.
        index: u32,
        /// Opaque data to keep with it.
        replay: Option<Replay>,
    },
    /// Token counts so far, cumulative.
    Usage(Usage),
    /// The answer is complete.
    Finish(FinishReason),
}

/// Kind of a streamed part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PartKind {
    /// Text for the user.
    Text,
    /// Reasoning.
    Reasoning,
    /// A refusal in words.
    Refusal,
    /// A tool call; its deltas are the JSON text of the arguments.
    ToolCall {
        /// Correlation id.
        id: String,
        /// Tool name.
        name: String,
    },
    /// A block that only this provider understands. It takes no delta; its `PartEnd` carries the block.
    Opaque,
}

wire_enum! {
    /// Why the model stopped.
    pub enum FinishReason {
        /// It was done.
        Stop = "stop",
        /// It waits for tool results.
        ToolCalls = "tool_calls",
        /// It ran into a length limit: the answer is cut, and a tool call in it must not be run.
        Length = "length",
        /// A filter blocked it.
        ContentFilter = "content_filter",
        /// It declined.
        Refusal = "refusal",
        /// It paused a long turn; send the conversation again to go on.
        Pause = "pause",
    }
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Response {
    /// The model's message.
    pub message: Message,
    /// Why it ended.
    pub finish: FinishReason,
    /// Token counts.
    #[serde(default)]
    pub usage: Usage,
    /// The provider's id of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The model that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl Response {
    /// An answer without id, model and counts.
    pub fn new(message: Message, finish: FinishReason) -> Self {
        Self { message, finish, usage: Usage::default(), id: None, model: None }
    }

    /// The answer as a stream of events that folds back into it: for caches, cassettes and scripted providers.
    pub fn into_events(self) -> Vec<StreamEvent> {
        let mut out = Vec::with_capacity(self.message.parts.len() * 3 + 3);
        out.push(StreamEvent::Start { id: self.id, model: self.model });
        for (index, part) in (0u32..).zip(self.message.parts) {
            let (kind, text, replay) = match part {
                Part::Text(t) => (PartKind::Text, t.text, t.replay),
                Part::Reasoning(t) => (PartKind::Reasoning, t.text, t.replay),
                Part::Refusal(t) => (PartKind::Refusal, t.text, t.replay),
                Part::ToolCall(c) => {
                    let args = match c.args {
                        // Text that was not JSON stays as it was; it folds back into the same string.
                        Value::String(raw)
                            if !raw.trim().is_empty() && serde_json::from_str::<Value>(&raw).is_err() =>
                        {
                            raw
                        }
                        args => args.to_string(),
                    };
                    (PartKind::ToolCall { id: c.id, name: c.name }, args, c.replay)
                }
                Part::Opaque(r) => (PartKind::Opaque, String::new(), Some(r)),
                Part::Media(_) | Part::ToolResult(_) | Part::Unknown(_) => continue,
            };
            out.push(StreamEvent::PartStart { index, kind });
            if !text.is_empty() {
                out.push(StreamEvent::Delta { index, text });
            }
            out.push(StreamEvent::PartEnd { index, replay });
        }
        out.push(StreamEvent::Usage(self.usage));
        out.push(StreamEvent::Finish(self.finish));
        out
    }
}

/// Strict fold of the stream grammar into a [`Response`]; the one judge for every provider.
///
/// ```
/// use zo_traits::{Accumulator, FinishReason, PartKind, StreamEvent};
/// let mut acc = Accumulator::default();
/// acc.push(StreamEvent::PartStart { index: 0, kind: PartKind::Text })?;
/// acc.push(StreamEvent::Delta { index: 0, text: "hi".into() })?;
/// acc.push(StreamEvent::PartEnd { index: 0, replay: None })?;
/// assert!(acc.clone().finish().is_err(), "cut before Finish is never a success");
/// acc.push(StreamEvent::Finish(FinishReason::Stop))?;
/// assert_eq!(acc.finish()?.message.to_text(), "hi");
/// # Ok::<(), zo_traits::Error>(())
/// ```
#[derive(Debug, Default, Clone)]
pub struct Accumulator {
    /// Parts in order of their starts; `None` while open.
    parts: Vec<Option<Part>>,
    /// Open parts by index: position in `parts`, kind, text so far.
    open: BTreeMap<u32, (usize, PartKind, String)>,
    seen: std::collections::BTreeSet<u32>,
    started: bool,
    usage: Usage,
    id: Option<String>,
    model: Option<String>,
    finish: Option<FinishReason>,
}

impl Accumulator {
    /// Takes the next event.
    ///
    /// Tool arguments that are not JSON do not fail the stream: they are kept as a JSON string, so that the agent can
    /// show the model its mistake, and no tool ever runs with invented arguments. Empty arguments are `{}`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] on a break of the grammar. The accumulator is then of no further use.
    pub fn push(&mut self, event: StreamEvent) -> Result<()> {
        if self.finish.is_some() {
            return Err(corrupt("an event follows the end of the answer"));
        }
        match event {
            StreamEvent::Start { id, model } => {
                if self.started || !self.parts.is_empty() {
                    return Err(corrupt("the answer starts twice"));
                }
                self.started = true;
                (self.id, self.model) = (id, model);
            }
            StreamEvent::PartStart { index, kind } => {
                if !self.seen.insert(index) {
                    return Err(corrupt(format_args!("part {index} opened twice")));
                }
                self.open.insert(index, (self.parts.len(), kind, String::new()));
                self.parts.push(None);
            }
            StreamEvent::Delta { index, text } => match self.open.get_mut(&index) {
                Some((_, PartKind::Opaque, _)) => {
                    return Err(corrupt(format_args!("opaque part {index} takes no text")));
                }
                Some((_, _, so_far)) => so_far.push_str(&text),
                None => return Err(corrupt(format_args!("text for part {index}, which is not open"))),
            },
            StreamEvent::PartEnd { index, replay } => {
                let Some((at, kind, text)) = self.open.remove(&index) else {
                    return Err(corrupt(format_args!("end of part {index}, which is not open")));
                };
                let part = match kind {
                    PartKind::Text => Part::Text(Text { text, replay }),
                    PartKind::Reasoning => Part::Reasoning(Text { text, replay }),
                    PartKind::Refusal => Part::Refusal(Text { text, replay }),
                    PartKind::ToolCall { id, name } => {
                        Part::ToolCall(ToolCall { id, name, args: parse_args(text), replay })
                    }
                    PartKind::Opaque => Part::Opaque(
                        replay
                            .ok_or_else(|| corrupt(format_args!("opaque part {index} without its block")))?,
                    ),
                };
                if let Some(slot) = self.parts.get_mut(at) {
                    *slot = Some(part);
                }
            }
            StreamEvent::Usage(usage) => self.usage = usage,
            StreamEvent::Finish(reason) => {
                if let Some(index) = self.open.keys().next() {
                    return Err(corrupt(format_args!("the answer ends while part {index} is open")));
                }
                self.finish = Some(reason);
            }
        }
        Ok(())
    }

    /// What the open part `index` is.
    pub fn kind(&self, index: u32) -> Option<&PartKind> {
        self.open.get(&index).map(|(_, kind, _)| kind)
    }

    /// Has the answer ended?
    pub fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// What has come so far, for showing or keeping a partial answer: closed parts, and open text parts up to here.
    /// Open tool calls are left out, since their arguments are incomplete.
    pub fn partial(&self) -> Message {
        let mut parts = self.parts.clone();
        for (at, kind, text) in self.open.values() {
            let part = match kind {
                PartKind::Text => Part::text(text),
                PartKind::Reasoning => Part::Reasoning(Text::new(text)),
                PartKind::Refusal => Part::Refusal(Text::new(text)),
                PartKind::ToolCall { .. } | PartKind::Opaque => continue,
            };
            if let Some(slot) = parts.get_mut(*at) {
                *slot = Some(part);
            }
        }
        Message { role: Role::Assistant, parts: parts.into_iter().flatten().collect() }
    }

    /// Token counts so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The whole answer.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the stream was cut.
    pub fn finish(self) -> Result<Response> {
        let finish = self.finish.ok_or_else(|| corrupt("the answer was cut before its end"))?;
        Ok(Response {
            message: Message { role: Role::Assistant, parts: self.parts.into_iter().flatten().collect() },
            finish,
            usage: self.usage,
            id: self.id,
            model: self.model,
        })
    }
}

/// Folds a whole stream, racing it against `cx`.
///
/// # Errors
/// What the stream reports; [`ErrorKind::Corrupt`] when it breaks the grammar or is cut.
pub(crate) async fn fold(cx: &Cx, mut events: BoxStream<Result<StreamEvent>>) -> Result<Response> {
    cx.race("provider.complete", async move {
        let mut acc = Accumulator::default();
        while let Some(event) = poll_fn(|task| events.as_mut().poll_next(task)).await {
            acc.push(event?)?;
        }
        acc.finish()
    })
    .await?
}

fn parse_args(text: String) -> Value {
    if text.trim().is_empty() {
        return Value::Object(serde_json::Map::new());
    }
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

fn corrupt(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "stream", message)
}
