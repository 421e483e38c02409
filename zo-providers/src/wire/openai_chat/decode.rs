//! Chunks, and whole completions, of chat completions.
//!
//! A whole completion is read as one chunk whose `message` is the delta, so the two cannot differ.
//!
//! Read here, each seen in a recorded answer: tool calls without `index` (Mistral), an index used again for another call
//! (Cerebras), id or name repeated in every chunk, `arguments` that are `null` or an object, reasoning under three names and
//! in content parts, token counts in the last chunk, beside the last content, or under `x_groq`, errors in the middle of a
//! stream, `finish_reason` that stays `null` or empty to the end, a missing `[DONE]`.

use crate::wire::{
    calls::{Function, arguments, mint},
    decode::{Codec, cut, unreadable},
    fault,
    lenient::{Count, List, Obj, Str},
    parts::{Out, Parts, Prose},
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::borrow::Cow;
use zo_traits::{Error, ErrorKind, FinishReason, PartKind, Replay, Result, Usage};

#[derive(Deserialize, Default)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    id: Str<'a>,
    #[serde(borrow, default)]
    model: Str<'a>,
    #[serde(borrow, default)]
    choices: List<Obj<Choice<'a>>>,
    /// Boxed, as what follows: seldom there, and a chunk is moved about.
    #[serde(default)]
    usage: Obj<Box<Counts>>,
    #[serde(default)]
    x_groq: Obj<Box<Groq>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    /// vLLM's flat errors say `"object": "error"`.
    #[serde(borrow, default)]
    object: Str<'a>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Obj<Box<Delta<'a>>>,
    #[serde(borrow, default)]
    message: Obj<Box<Delta<'a>>>,
    #[serde(borrow, default)]
    finish_reason: Str<'a>,
    #[serde(default)]
    index: Count,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Content<'a>,
    #[serde(borrow, default)]
    reasoning_content: Str<'a>,
    #[serde(borrow, default)]
    reasoning: Str<'a>,
    #[serde(borrow, default)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Str<'a>,
    #[serde(borrow, default)]
    tool_calls: List<Obj<CallDelta<'a>>>,
}

#[derive(Deserialize)]
struct CallDelta<'a> {
    #[serde(default)]
    index: Count,
    #[serde(borrow, default)]
    id: Str<'a>,
    #[serde(borrow, default)]
    function: Obj<Function<'a>>,
}

/// `content`: text, or a list of parts.
#[derive(Default)]
enum Content<'a> {
    #[default]
    None,
    Text(Cow<'a, str>),
    Parts(Vec<ContentPart<'a>>),
}

#[derive(Deserialize)]
struct ContentPart<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow, default)]
    text: Str<'a>,
    #[serde(borrow, default)]
    refusal: Str<'a>,
    #[serde(borrow, default)]
    thinking: Thinking<'a>,
}

/// Mistral's `thinking`: a list of text parts; plain text from others.
#[derive(Default)]
struct Thinking<'a>(Vec<Cow<'a, str>>);

#[derive(Deserialize)]
struct TextPart<'a> {
    #[serde(borrow, default)]
    text: Str<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use crate::wire::lenient::{TextOrList, text_or_list};
        Ok(match text_or_list(d)? {
            TextOrList::Text(t) if t.is_empty() => Self::None,
            TextOrList::Text(t) => Self::Text(t),
            TextOrList::List(parts) => {
                Self::Parts(parts.into_iter().filter_map(|p: Obj<ContentPart<'a>>| p.0).collect())
            }
            TextOrList::Neither => Self::None,
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Thinking<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use crate::wire::lenient::{TextOrList, text_or_list};
        Ok(Self(match text_or_list(d)? {
            TextOrList::Text(t) => vec![t],
            TextOrList::List(parts) => {
                parts.into_iter().filter_map(|p: Obj<TextPart<'a>>| p.0).map(|p| p.text.0).collect()
            }
            TextOrList::Neither => Vec::new(),
        }))
    }
}

#[derive(Deserialize)]
struct Groq {
    #[serde(default)]
    usage: Obj<Box<Counts>>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    completion_tokens: Count,
    #[serde(default)]
    prompt_tokens_details: Obj<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Obj<CompletionDetails>,
    /// DeepSeek.
    #[serde(default)]
    prompt_cache_hit_tokens: Count,
    /// Moonshot.
    #[serde(default)]
    cached_tokens: Count,
    /// Gateways to Anthropic.
    #[serde(default)]
    cache_read_input_tokens: Count,
    #[serde(default)]
    cache_creation_input_tokens: Count,
    #[serde(default)]
    reasoning_tokens: Count,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Count,
    #[serde(default)]
    cache_write_tokens: Count,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

impl Counts {
    fn usage(&self) -> Usage {
        let (prompt, completion) =
            (self.prompt_tokens_details.0.as_ref(), self.completion_tokens_details.0.as_ref());
        // A gateway may state the same count twice, once as 0.
        let first = |counts: [Option<Count>; 4]| {
            counts.into_iter().flatten().filter_map(|c| c.0).find(|n| *n > 0).unwrap_or(0)
        };
        let mut usage = Usage::new(self.prompt_tokens.0.unwrap_or(0), self.completion_tokens.0.unwrap_or(0));
        usage.cache_read = first([
            prompt.map(|p| p.cached_tokens),
            Some(self.prompt_cache_hit_tokens),
            Some(self.cached_tokens),
            Some(self.cache_read_input_tokens),
        ]);
        usage.cache_write =
            first([prompt.map(|p| p.cache_write_tokens), Some(self.cache_creation_input_tokens), None, None]);
        usage.reasoning =
            first([completion.map(|c| c.reasoning_tokens), Some(self.reasoning_tokens), None, None]);
        usage
    }
}

/// A tool call that is being received.
#[derive(Debug)]
struct Call {
    /// The server's `index`, if it gave one.
    key: Option<u64>,
    id: String,
    name: String,
    /// Set once the name is known and the part is open.
    part: Option<u32>,
    /// All arguments so far.
    args: String,
}

impl Call {
    /// Are its arguments a whole JSON text?
    fn is_whole(&self) -> bool {
        serde_json::from_str::<serde::de::IgnoredAny>(&self.args).is_ok()
    }
}

/// Decodes one answer of chat completions.
#[derive(Debug)]
pub struct Chat {
    family: Cow<'static, str>,
    keep_reasoning: bool,
    keep_details: bool,
    parts: Parts,
    calls: Vec<Call>,
    details: Details,
    answer_id: String,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    any: bool,
}

/// Tool calls of one answer beyond which it is refused. Far above what any model does; it bounds the search for a call.
const MAX_CALLS: usize = 1024;

impl Chat {
    /// A decoder whose replay data is marked as `family`'s.
    pub fn new(family: impl Into<Cow<'static, str>>) -> Self {
        Self {
            family: family.into(),
            keep_reasoning: false,
            keep_details: false,
            parts: Parts::default(),
            calls: Vec::new(),
            details: Details::default(),
            answer_id: String::new(),
            finish: None,
            usage: None,
            any: false,
        }
    }

    /// Marks reasoning as something that this provider wants back.
    #[must_use]
    pub fn keep_reasoning(mut self, keep: bool) -> Self {
        self.keep_reasoning = keep;
        self
    }

    /// Keeps `reasoning_details` for sending back.
    #[must_use]
    pub fn keep_details(mut self, keep: bool) -> Self {
        self.keep_details = keep;
        self
    }

    /// Takes one chunk; says whether it had a choice.
    fn chunk(&mut self, data: &str, whole: bool, out: &mut Out) -> Result<bool> {
        let chunk: Chunk<'_> = serde_json::from_str(data).map_err(|e| unreadable("a chunk", data, &e))?;
        if chunk.error.is_some_and(|e| !matches!(e.get(), "null" | "{}" | "\"\"" | "false"))
            || chunk.object.as_str() == "error"
        {
            return Err(fault::classify_inner(data).into_error("provider.stream"));
        }
        self.any = true;
        if !self.parts.started() {
            self.parts.start(chunk.id.non_empty(), chunk.model.non_empty(), out);
            self.answer_id = chunk.id.as_str().to_owned();
        }
        if let Some(counts) = chunk.usage.0.or(chunk.x_groq.0.and_then(|g| g.usage.0)) {
            self.usage = Some(counts.usage());
        }
        let mut any = false;
        // One answer was asked for; a second choice is not ours.
        let choices = chunk.choices.0.into_iter().filter_map(|c| c.0);
        for choice in choices.filter(|c| c.index.0.unwrap_or(0) == 0) {
            any = true;
            let delta =
                if whole { choice.message.0.or(choice.delta.0) } else { choice.delta.0.or(choice.message.0) };
            if let Some(delta) = delta {
                self.delta(*delta, out)?;
            }
            match choice.finish_reason.as_str() {
                "" => {}
                "error" => return Err(failed("the provider stopped with an error that it does not explain")),
                "insufficient_system_resource" => return Err(failed("the provider ran out of resources")),
                reason => self.finish = Some(finish_reason(reason)),
            }
        }
        Ok(any)
    }

    fn delta(&mut self, delta: Delta<'_>, out: &mut Out) -> Result<()> {
        // Some send the same reasoning under both names.
        let reasoning =
            if delta.reasoning_content.is_empty() { &delta.reasoning } else { &delta.reasoning_content };
        self.say(Prose::Reasoning, reasoning.as_str(), out);
        if let (true, Some(details)) = (self.keep_details, delta.reasoning_details) {
            self.details.add(details.get());
        }
        match &delta.content {
            Content::None => {}
            Content::Text(text) => self.say(Prose::Text, text, out),
            Content::Parts(parts) => {
                for part in parts {
                    for thought in &part.thinking.0 {
                        self.say(Prose::Reasoning, thought, out);
                    }
                    self.say(Prose::Refusal, part.refusal.as_str(), out);
                    let prose = if part.kind.as_str() == "thinking" { Prose::Reasoning } else { Prose::Text };
                    self.say(prose, part.text.as_str(), out);
                }
            }
        }
        self.say(Prose::Refusal, delta.refusal.as_str(), out);
        for call in delta.tool_calls.0.into_iter().filter_map(|c| c.0) {
            self.call(&call, out)?;
        }
        Ok(())
    }

    fn say(&mut self, prose: Prose, text: &str, out: &mut Out) {
        let (keep, family) = (self.keep_reasoning, &self.family);
        self.parts.say(prose, text, |closed| replay(keep, family, closed), out);
    }

    fn call(&mut self, delta: &CallDelta<'_>, out: &mut Out) -> Result<()> {
        let (name, arguments) = match &delta.function.0 {
            Some(f) => (f.name.as_str(), f.arguments.map_or(Ok(Cow::Borrowed("")), arguments)?),
            None => ("", Cow::Borrowed("")),
        };
        let id = delta.id.as_str();
        let at = match self.find(delta.index.0, id, name) {
            Some(at) => at,
            None if id.is_empty() && name.is_empty() && arguments.is_empty() => return Ok(()),
            None => {
                if self.calls.len() >= MAX_CALLS {
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        "wire.decode",
                        format_args!("more than {MAX_CALLS} tool calls in one answer"),
                    ));
                }
                self.calls.push(Call {
                    key: delta.index.0,
                    id: id.to_owned(),
                    name: String::new(),
                    part: None,
                    args: String::new(),
                });
                self.calls.len() - 1
            }
        };
        let Self { calls, parts, answer_id, keep_reasoning, family, .. } = self;
        let Some(call) = calls.get_mut(at) else { return Ok(()) };
        call.args.push_str(&arguments);
        match call.part {
            Some(part) => parts.delta(part, &arguments, out),
            None if name.is_empty() => {
                if call.id.is_empty() {
                    id.clone_into(&mut call.id);
                }
            }
            None => {
                if call.id.is_empty() {
                    call.id = if id.is_empty() { mint(answer_id, at) } else { id.to_owned() };
                }
                parts.hush(|closed| replay(*keep_reasoning, family, closed), out);
                let part = parts.open(PartKind::ToolCall { id: call.id.clone(), name: name.to_owned() }, out);
                call.part = Some(part);
                name.clone_into(&mut call.name);
                parts.delta(part, &call.args, out);
            }
        }
        Ok(())
    }

    /// The call that a fragment goes on with, if it starts none.
    fn find(&self, key: Option<u64>, id: &str, name: &str) -> Option<usize> {
        let newest = |wanted: &dyn Fn(&Call) -> bool| self.calls.iter().rposition(wanted);
        match key {
            Some(_) => newest(&|c| c.key == key).filter(|at| {
                let Some(known) = self.calls.get(*at) else { return false };
                let same = |old: &str, new: &str| old.is_empty() || new.is_empty() || old == new;
                // An index is used again for another call: a new id that comes with a name, or another name without an id.
                if id.is_empty() { same(&known.name, name) } else { name.is_empty() || same(&known.id, id) }
            }),
            None if !id.is_empty() => newest(&|c| c.id == id),
            None if !name.is_empty() => None,
            None => self.calls.len().checked_sub(1),
        }
    }

    fn complete(&mut self, out: &mut Out) {
        let (keep, family) = (self.keep_reasoning, self.family.clone());
        self.parts.hush(|closed| replay(keep, &family, closed), out);
        for (at, call) in self.calls.iter_mut().enumerate() {
            let part = match call.part {
                Some(part) => part,
                None => {
                    // Never named: the agent tells the model that there is no such tool.
                    let id = if call.id.is_empty() { mint(&self.answer_id, at) } else { call.id.clone() };
                    let part = self.parts.open(PartKind::ToolCall { id, name: String::new() }, out);
                    self.parts.delta(part, &call.args, out);
                    part
                }
            };
            self.parts.close(part, None, out);
        }
        if let Some(details) = self.details.take() {
            let data = serde_json::json!({ "reasoning_details": details });
            self.parts.opaque(Replay::new(family.as_ref(), data), out);
        }
        let reason = match self.finish.take() {
            // Some say "stop", or nothing, although they wait for tool results.
            Some(FinishReason::Stop) | None if !self.calls.is_empty() => FinishReason::ToolCalls,
            Some(reason) => reason,
            None => FinishReason::Stop,
        };
        self.parts.finish(self.usage, reason, out);
    }
}

impl Codec for Chat {
    fn event(&mut self, name: &str, data: &str, out: &mut Out) -> Result<()> {
        let data = data.trim();
        if data.is_empty() {
            return Ok(());
        }
        if data == "[DONE]" {
            // The server says that it is done, even if it never said why. But an answer without a single chunk is none.
            if !self.any {
                return Err(failed("the provider says that it is done, without an answer"));
            }
            // Nor does it vouch for a tool call that stops before its arguments do: nobody wrote `{}`.
            if self.finish.is_none() && !self.calls.iter().all(Call::is_whole) {
                return Err(cut());
            }
            self.complete(out);
            return Ok(());
        }
        if name == "error" {
            return Err(fault::classify_inner(data).into_error("provider.stream"));
        }
        self.chunk(data, false, out).map(|_| ())
    }

    fn whole(&mut self, body: &str, out: &mut Out) -> Result<()> {
        // A whole body ends with itself; but without a choice it is no completion.
        if self.chunk(body, true, out)? {
            self.complete(out);
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            "wire.decode",
            "the answer is no chat completion: it has no choices",
        ))
    }

    fn end(&mut self, out: &mut Out) -> Result<()> {
        if self.parts.finished() {
            return Ok(());
        }
        if self.finish.is_none() {
            return Err(cut());
        }
        self.complete(out);
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.parts.finished()
    }

    fn may_end(&self) -> bool {
        self.finish.is_some()
    }
}

fn failed(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "provider.stream", message)
}

fn finish_reason(reason: &str) -> FinishReason {
    match reason {
        "stop" | "eos" | "end_turn" | "stop_sequence" => FinishReason::Stop,
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "length" | "max_tokens" | "model_length" => FinishReason::Length,
        "content_filter" => FinishReason::ContentFilter,
        other => FinishReason::from(other),
    }
}

fn replay(keep: bool, family: &str, closed: Prose) -> Option<Replay> {
    // Nothing but the mark: the text itself is what goes back.
    (keep && closed == Prose::Reasoning).then(|| Replay::new(family, Value::Object(serde_json::Map::new())))
}

/// OpenRouter's `reasoning_details`, whose pieces are put together by type and index.
#[derive(Debug, Default)]
struct Details(Vec<serde_json::Map<String, Value>>);

impl Details {
    fn add(&mut self, raw: &str) {
        let Ok(items) = serde_json::from_str::<List<Obj<serde_json::Map<String, Value>>>>(raw) else {
            return;
        };
        for item in items.0.into_iter().filter_map(|i| i.0) {
            // Only the last piece can go on: pieces come in order, and a look back over all would be quadratic.
            match self.0.last_mut() {
                Some(last)
                    if last.get("type") == item.get("type")
                        && last.get("index") == item.get("index")
                        && item.contains_key("index") =>
                {
                    for (key, value) in item {
                        match (last.get_mut(&key), value) {
                            (Some(Value::String(old)), Value::String(new))
                                if matches!(key.as_str(), "text" | "summary" | "data") =>
                            {
                                old.push_str(&new);
                            }
                            (_, Value::Null) => {}
                            (_, value) => {
                                last.insert(key, value);
                            }
                        }
                    }
                }
                _ => self.0.push(item),
            }
        }
    }

    fn take(&mut self) -> Option<Vec<serde_json::Map<String, Value>>> {
        if self.0.is_empty() { None } else { Some(std::mem::take(&mut self.0)) }
    }
}
