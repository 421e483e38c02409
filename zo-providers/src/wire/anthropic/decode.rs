//! Streamed and whole answers of the Messages API.
//!
//! Unknown events are skipped, unknown blocks and deltas kept: the API adds them without notice.

use super::FAMILY;
use crate::wire::{
    decode::{Codec, cut, unreadable},
    fault,
    lenient::{Count, List, Obj, Str},
    parts::{Out, Parts},
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use std::collections::BTreeMap;
use zo_traits::{Error, ErrorKind, FinishReason, PartKind, Replay, Result, Usage};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Str<'a>,
    #[serde(default)]
    index: Count,
    #[serde(borrow, default)]
    message: Obj<Start<'a>>,
    #[serde(borrow, default)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Obj<Delta<'a>>,
    #[serde(default)]
    usage: Obj<Counts>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(borrow, default)]
    id: Str<'a>,
    #[serde(borrow, default)]
    model: Str<'a>,
    #[serde(default)]
    usage: Obj<Counts>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    text: Str<'a>,
    #[serde(borrow, default)]
    partial_json: Str<'a>,
    #[serde(borrow, default)]
    thinking: Str<'a>,
    #[serde(borrow, default)]
    signature: Str<'a>,
    #[serde(borrow, default)]
    citation: Option<&'a RawValue>,
    #[serde(borrow, default)]
    stop_reason: Str<'a>,
}

#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow, default)]
    id: Str<'a>,
    #[serde(borrow, default)]
    model: Str<'a>,
    #[serde(borrow, default)]
    content: Option<List<&'a RawValue>>,
    #[serde(borrow, default)]
    stop_reason: Str<'a>,
    #[serde(default)]
    usage: Obj<Counts>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    cache_read_input_tokens: Count,
    #[serde(default)]
    cache_creation_input_tokens: Count,
    #[serde(default)]
    output_tokens_details: Obj<OutputDetails>,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default)]
    thinking_tokens: Count,
}

/// Counts so far: later events replace what they mention.
#[derive(Debug, Default)]
struct Totals {
    fresh: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
    reasoning: u64,
}

impl Totals {
    fn take(&mut self, counts: &Counts) {
        let reasoning = counts.output_tokens_details.0.as_ref().and_then(|d| d.thinking_tokens.0);
        for (total, count) in [
            (&mut self.fresh, counts.input_tokens.0),
            (&mut self.output, counts.output_tokens.0),
            (&mut self.cache_read, counts.cache_read_input_tokens.0),
            (&mut self.cache_write, counts.cache_creation_input_tokens.0),
            (&mut self.reasoning, reasoning),
        ] {
            *total = count.unwrap_or(*total);
        }
    }

    fn usage(&self) -> Usage {
        // Anthropic's input_tokens are those that no cache had to do with.
        let input = self.fresh.saturating_add(self.cache_read).saturating_add(self.cache_write);
        let mut usage = Usage::new(input, self.output);
        (usage.cache_read, usage.cache_write, usage.reasoning) =
            (self.cache_read, self.cache_write, self.reasoning);
        usage
    }
}

#[derive(Debug)]
enum Block {
    Text {
        part: u32,
        citations: Vec<Value>,
    },
    Thinking {
        part: u32,
        signature: String,
    },
    /// `input` is what the start of the block held, for the case that no delta follows; `rest` its further fields.
    Tool {
        part: u32,
        any: bool,
        input: Option<Value>,
        rest: Map<String, Value>,
    },
    /// Anything else, put together as it comes; `json` are the pieces of its `input`.
    Kept {
        block: Map<String, Value>,
        json: String,
    },
}

/// Decodes one answer of the Messages API.
#[derive(Debug, Default)]
pub struct Messages {
    parts: Parts,
    blocks: BTreeMap<u64, Block>,
    totals: Totals,
    stop: Option<FinishReason>,
}

impl Messages {
    /// A decoder for one answer.
    pub fn new() -> Self {
        Self::default()
    }

    fn open(&mut self, index: u64, raw: &str, out: &mut Out) -> Result<()> {
        // A block that was never closed is closed by its successor.
        self.close(index, out);
        let mut block: Map<String, Value> =
            serde_json::from_str(raw).map_err(|e| unreadable("a content block", raw, &e))?;
        let text = |block: &Map<String, Value>, key: &str| {
            block.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let block = match block.get("type").and_then(Value::as_str) {
            Some("text") => {
                let part = self.parts.open(PartKind::Text, out);
                self.parts.delta(part, &text(&block, "text"), out);
                let citations = match block.remove("citations") {
                    Some(Value::Array(all)) => all,
                    _ => Vec::new(),
                };
                Block::Text { part, citations }
            }
            Some("thinking") => {
                let part = self.parts.open(PartKind::Reasoning, out);
                self.parts.delta(part, &text(&block, "thinking"), out);
                Block::Thinking { part, signature: text(&block, "signature") }
            }
            Some("tool_use") => {
                let kind = PartKind::ToolCall { id: text(&block, "id"), name: text(&block, "name") };
                let part = self.parts.open(kind, out);
                let input = block.remove("input");
                for key in ["type", "id", "name"] {
                    block.remove(key);
                }
                Block::Tool { part, any: false, input, rest: block }
            }
            _ => Block::Kept { block, json: String::new() },
        };
        self.blocks.insert(index, block);
        Ok(())
    }

    fn delta(&mut self, index: u64, delta: &Delta<'_>, data: &str, out: &mut Out) -> Result<()> {
        match self.blocks.get_mut(&index) {
            Some(Block::Text { part, citations }) => {
                self.parts.delta(*part, delta.text.as_str(), out);
                if let Some(citation) = delta.citation.and_then(|raw| serde_json::from_str(raw.get()).ok()) {
                    citations.push(citation);
                }
            }
            Some(Block::Thinking { part, signature }) => {
                self.parts.delta(*part, delta.thinking.as_str(), out);
                signature.push_str(delta.signature.as_str());
            }
            Some(Block::Tool { part, any, .. }) => {
                *any |= !delta.partial_json.is_empty();
                self.parts.delta(*part, delta.partial_json.as_str(), out);
            }
            Some(Block::Kept { block, json }) => {
                json.push_str(delta.partial_json.as_str());
                keep(block, data)?;
            }
            // A delta of no block: nothing it could belong to.
            None => {}
        }
        Ok(())
    }

    fn close(&mut self, index: u64, out: &mut Out) {
        let Some(block) = self.blocks.remove(&index) else { return };
        match block {
            Block::Text { part, citations } => {
                let replay = (!citations.is_empty())
                    .then(|| Replay::new(FAMILY, serde_json::json!({ "citations": citations })));
                self.parts.close(part, replay, out);
            }
            Block::Thinking { part, signature } => {
                let replay = Replay::new(FAMILY, serde_json::json!({ "signature": signature }));
                self.parts.close(part, Some(replay), out);
            }
            Block::Tool { part, any, input, rest } => {
                if let (false, Some(input)) = (any, input.filter(|i| !i.is_null())) {
                    self.parts.delta(part, &input.to_string(), out);
                }
                let replay = (!rest.is_empty()).then(|| Replay::new(FAMILY, Value::Object(rest)));
                self.parts.close(part, replay, out);
            }
            Block::Kept { mut block, json } => {
                if !json.is_empty() {
                    let input = serde_json::from_str(&json).unwrap_or(Value::String(json));
                    block.insert("input".into(), input);
                }
                self.parts.opaque(Replay::new(FAMILY, Value::Object(block)), out);
            }
        }
    }

    fn complete(&mut self, reason: FinishReason, out: &mut Out) {
        while let Some(index) = self.blocks.keys().next().copied() {
            self.close(index, out);
        }
        self.parts.finish(Some(self.totals.usage()), reason, out);
    }
}

impl Codec for Messages {
    fn event(&mut self, name: &str, data: &str, out: &mut Out) -> Result<()> {
        let data = data.trim();
        if data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        let event: Event<'_> = serde_json::from_str(data).map_err(|e| unreadable("an event", data, &e))?;
        let index = event.index.0.unwrap_or(0);
        match event.kind.non_empty().unwrap_or(name) {
            "message_start" => {
                if let Some(start) = event.message.0 {
                    self.parts.start(start.id.non_empty(), start.model.non_empty(), out);
                    if let Some(counts) = &start.usage.0 {
                        self.totals.take(counts);
                    }
                }
            }
            "content_block_start" => {
                self.parts.start(None, None, out);
                if let Some(raw) = event.content_block {
                    self.open(index, raw.get(), out)?;
                }
            }
            "content_block_delta" => {
                if let Some(delta) = &event.delta.0 {
                    self.delta(index, delta, data, out)?;
                }
            }
            "content_block_stop" => self.close(index, out),
            "message_delta" => {
                if let Some(reason) = event.delta.0.as_ref().and_then(|d| d.stop_reason.non_empty()) {
                    self.stop = Some(stop_reason(reason));
                }
                if let Some(counts) = &event.usage.0 {
                    self.totals.take(counts);
                }
            }
            "message_stop" => match self.stop.take() {
                Some(reason) => self.complete(reason, out),
                None => return Err(cut()),
            },
            "error" => return Err(fault::classify_inner(data).into_error("provider.stream")),
            // `ping`, and what the API will think of next.
            _ => {}
        }
        Ok(())
    }

    fn whole(&mut self, body: &str, out: &mut Out) -> Result<()> {
        let whole: Whole<'_> = serde_json::from_str(body).map_err(|e| unreadable("an answer", body, &e))?;
        if whole.kind.as_str() == "error" || whole.error.is_some_and(|e| e.get() != "null") {
            return Err(fault::classify_inner(body).into_error("provider.stream"));
        }
        let (Some(content), Some(reason)) = (whole.content, whole.stop_reason.non_empty()) else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "wire.decode",
                "the answer is no message: it has no content or no stop_reason",
            ));
        };
        self.parts.start(whole.id.non_empty(), whole.model.non_empty(), out);
        for raw in content.0 {
            self.open(0, raw.get(), out)?;
            self.close(0, out);
        }
        if let Some(counts) = &whole.usage.0 {
            self.totals.take(counts);
        }
        self.complete(stop_reason(reason), out);
        Ok(())
    }

    fn end(&mut self, _: &mut Out) -> Result<()> {
        if self.parts.finished() { Ok(()) } else { Err(cut()) }
    }

    fn is_finished(&self) -> bool {
        self.parts.finished()
    }

    fn may_end(&self) -> bool {
        self.parts.finished()
    }
}

/// Adds a delta to a block that is kept: text grows, everything else is replaced.
fn keep(block: &mut Map<String, Value>, data: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Raw {
        #[serde(default)]
        delta: Obj<Map<String, Value>>,
    }
    let raw: Raw = serde_json::from_str(data).map_err(|e| unreadable("a delta", data, &e))?;
    for (key, value) in raw.delta.0.unwrap_or_default() {
        match (block.get_mut(&key), value) {
            _ if matches!(key.as_str(), "type" | "partial_json") => {}
            (Some(Value::String(old)), Value::String(new)) => old.push_str(&new),
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
            (_, value) => {
                block.insert(key, value);
            }
        }
    }
    Ok(())
}

fn stop_reason(reason: &str) -> FinishReason {
    match reason {
        "end_turn" | "stop_sequence" => FinishReason::Stop,
        "tool_use" => FinishReason::ToolCalls,
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        // Both want the conversation sent again as it stands.
        "pause_turn" | "compaction" => FinishReason::Pause,
        "refusal" => FinishReason::Refusal,
        other => FinishReason::from(other),
    }
}
