//! Streamed and whole answers of the Responses API.
//!
//! A whole answer is read as its finished items followed by its end, which is what a stream comes down to. What an item says
//! when it is done counts; its deltas are what it said so far. Where a stream leaves the end of an item out, the list in the
//! last event makes up for it, and where that list is empty (as ChatGPT's is), the items of the stream are the answer.
//!
//! Items are told apart by their place in the answer: there are proxies that give an item another id with every event.
//! Unknown events are skipped, unknown items kept.

use crate::wire::{
    calls::mint,
    decode::{Codec, cut, unreadable},
    fault,
    lenient::{Count, List, Obj, Str},
    parts::{Out, Parts},
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};
use zo_traits::{Error, ErrorKind, FinishReason, PartKind, Replay, Result, Usage};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Str<'a>,
    #[serde(default)]
    output_index: Count,
    #[serde(default)]
    content_index: Count,
    #[serde(default)]
    summary_index: Count,
    #[serde(borrow, default)]
    delta: Str<'a>,
    #[serde(borrow, default)]
    arguments: Str<'a>,
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Obj<Answer<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// The answer as a whole, as it stands in some events and is a body of its own.
#[derive(Deserialize, Default)]
struct Answer<'a> {
    #[serde(borrow, default)]
    id: Str<'a>,
    #[serde(borrow, default)]
    model: Str<'a>,
    #[serde(borrow, default)]
    status: Str<'a>,
    #[serde(borrow, default)]
    output: Option<List<&'a RawValue>>,
    #[serde(default)]
    usage: Obj<Counts>,
    #[serde(borrow, default)]
    incomplete_details: Obj<Incomplete<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(borrow, default)]
    reason: Str<'a>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    input_tokens_details: Obj<InputDetails>,
    #[serde(default)]
    output_tokens_details: Obj<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    #[serde(default)]
    cached_tokens: Count,
    #[serde(default)]
    cache_write_tokens: Count,
}

#[derive(Deserialize)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Count,
}

impl Counts {
    fn usage(&self) -> Usage {
        let count = |c: Count| c.0.unwrap_or(0);
        let mut usage = Usage::new(count(self.input_tokens), count(self.output_tokens));
        if let Some(details) = &self.input_tokens_details.0 {
            (usage.cache_read, usage.cache_write) =
                (count(details.cached_tokens), count(details.cache_write_tokens));
        }
        usage.reasoning = self.output_tokens_details.0.as_ref().map_or(0, |d| count(d.reasoning_tokens));
        usage
    }
}

/// An item that has begun.
#[derive(Debug)]
struct Item {
    /// As it began, for the case that its end never comes.
    start: Map<String, Value>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Its pieces, by their place in its content.
    Message(BTreeMap<u64, Piece>),
    /// Its pieces; the part that opened with it and waits for the first of them.
    Reasoning(BTreeMap<Thought, Piece>, Option<u32>),
    /// The part, once the name is known; all arguments so far; whether these are all.
    Call { part: Option<u32>, args: String, whole: bool },
    /// Anything else.
    Kept(u32),
}

/// Places of reasoning text: summaries, then reasoning in full.
type Thought = (bool, u64);

/// A part that takes text, and a fingerprint of what it took.
#[derive(Debug)]
struct Piece {
    part: u32,
    refusal: bool,
    told: usize,
    hash: u64,
}

impl Piece {
    fn new(part: u32, refusal: bool) -> Self {
        Self { part, refusal, told: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }

    fn say(&mut self, text: &str, parts: &mut Parts, out: &mut Out) {
        parts.delta(self.part, text, out);
        self.told += text.len();
        self.hash = fnv(self.hash, text);
    }

    /// What is left to say of the final text. Nothing, if it does not begin with what was said: that cannot be unsaid.
    fn rest<'t>(&self, text: &'t str) -> &'t str {
        match text.split_at_checked(self.told) {
            Some((said, rest)) if fnv(Self::new(0, false).hash, said) == self.hash => rest,
            _ => "",
        }
    }
}

/// FNV-1a.
fn fnv(hash: u64, text: &str) -> u64 {
    text.bytes().fold(hash, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Longest id of a message that is kept with each of its pieces, in bytes. There are proxies with very long ones.
const MAX_ID: usize = 1024;

/// Decodes one answer of the Responses API.
#[derive(Debug)]
pub struct Responses {
    family: Cow<'static, str>,
    parts: Parts,
    answer_id: String,
    open: BTreeMap<u64, Item>,
    /// Places whose item is done, with its type and id.
    done: HashMap<u64, (String, String)>,
    newest: u64,
    calls: bool,
}

impl Responses {
    /// A decoder whose replay data is marked as `family`'s.
    pub fn new(family: impl Into<Cow<'static, str>>) -> Self {
        Self {
            family: family.into(),
            parts: Parts::default(),
            answer_id: String::new(),
            open: BTreeMap::new(),
            done: HashMap::new(),
            newest: 0,
            calls: false,
        }
    }

    fn replay(&self, data: Map<String, Value>) -> Replay {
        Replay::new(self.family.as_ref(), Value::Object(data))
    }

    fn start(&mut self, answer: &Answer<'_>, out: &mut Out) {
        if !self.parts.started() {
            answer.id.as_str().clone_into(&mut self.answer_id);
            self.parts.start(answer.id.non_empty(), answer.model.non_empty(), out);
        }
    }

    fn part(&mut self, kind: PartKind, out: &mut Out) -> u32 {
        self.parts.start(None, None, out);
        self.parts.open(kind, out)
    }

    /// The place that an item without one takes.
    fn next(&self) -> u64 {
        if self.open.is_empty() && self.done.is_empty() { 0 } else { self.newest.saturating_add(1) }
    }

    /// An item begins. One that is still open at its place will not end any more.
    fn begin(&mut self, index: u64, start: Map<String, Value>, out: &mut Out) -> Result<()> {
        if let Some(item) = self.open.remove(&index) {
            self.abandon(index, item, out)?;
        }
        self.newest = index;
        let body = match text_of(&start, "type") {
            "message" => Body::Message(BTreeMap::new()),
            "reasoning" => Body::Reasoning(BTreeMap::new(), Some(self.part(PartKind::Reasoning, out))),
            "function_call" => {
                let part = self.call(index, &start, false, out);
                Body::Call { part, args: String::new(), whole: false }
            }
            _ => Body::Kept(self.part(PartKind::Opaque, out)),
        };
        self.open.insert(index, Item { start, body });
        Ok(())
    }

    /// Opens the part of a call, if its name is known or `anyhow`.
    fn call(&mut self, index: u64, item: &Map<String, Value>, anyhow: bool, out: &mut Out) -> Option<u32> {
        let name = text_of(item, "name").to_owned();
        if name.is_empty() && !anyhow {
            return None;
        }
        self.calls = true;
        let id = ["call_id", "id"].into_iter().map(|key| text_of(item, key)).find(|id| !id.is_empty());
        let id = id.map_or_else(|| mint(&self.answer_id, index), str::to_owned);
        Some(self.part(PartKind::ToolCall { id, name }, out))
    }

    /// The place of an event that brings text for an item of type `kind`. A stream may leave out that the item begins.
    fn place(&mut self, event: &Event<'_>, kind: &str, out: &mut Out) -> Result<u64> {
        let index = event.output_index.0.unwrap_or(self.newest);
        if !self.open.contains_key(&index) && !self.done.contains_key(&index) {
            self.begin(index, Map::from_iter([("type".to_owned(), Value::from(kind))]), out)?;
        }
        Ok(index)
    }

    fn prose(&mut self, event: &Event<'_>, refusal: bool, out: &mut Out) -> Result<()> {
        let index = self.place(event, "message", out)?;
        self.parts.start(None, None, out);
        let Self { parts, open, .. } = self;
        if let Some(Item { body: Body::Message(pieces), .. }) = open.get_mut(&index) {
            let piece = pieces
                .entry(event.content_index.0.unwrap_or(0))
                .or_insert_with(|| Piece::new(parts.open(prose(refusal), out), refusal));
            if piece.refusal == refusal {
                piece.say(event.delta.as_str(), parts, out);
            }
        }
        Ok(())
    }

    fn thought(&mut self, event: &Event<'_>, at: Thought, out: &mut Out) -> Result<()> {
        let index = self.place(event, "reasoning", out)?;
        let Self { parts, open, .. } = self;
        if let Some(Item { body: Body::Reasoning(pieces, first), .. }) = open.get_mut(&index) {
            let open = || first.take().unwrap_or_else(|| parts.open(PartKind::Reasoning, out));
            let part = pieces.get(&at).map_or_else(open, |p| p.part);
            pieces.entry(at).or_insert_with(|| Piece::new(part, false)).say(event.delta.as_str(), parts, out);
        }
        Ok(())
    }

    fn arguments(&mut self, event: &Event<'_>, all: bool, out: &mut Out) -> Result<()> {
        let index = self.place(event, "function_call", out)?;
        let Self { parts, open, .. } = self;
        if let Some(Item { body: Body::Call { part, args, whole: whole @ false }, .. }) = open.get_mut(&index)
        {
            let more = if all { left(args, event.arguments.as_str())? } else { event.delta.as_str() };
            *whole |= all;
            args.push_str(more);
            if let Some(part) = part {
                parts.delta(*part, more, out);
            }
        }
        Ok(())
    }

    /// The item at `index` is done, and this is all of it.
    fn end_item(&mut self, index: u64, last: Map<String, Value>, out: &mut Out) -> Result<()> {
        let kind = text_of(&last, "type");
        let name = (kind.to_owned(), text_of(&last, "id").to_owned());
        if self.open.get(&index).is_none_or(|item| text_of(&item.start, "type") != kind) {
            // Said twice.
            if !self.open.contains_key(&index) && self.done.get(&index) == Some(&name) {
                return Ok(());
            }
            let start = ["type", "id", "call_id", "name"]
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), last.get(*key)?.clone())))
                .collect();
            self.begin(index, start, out)?;
        }
        if let Some(item) = self.open.remove(&index) {
            self.close(index, item.body, last, true, out)?;
        }
        self.done.insert(index, name);
        Ok(())
    }

    /// The end of an item never came.
    fn abandon(&mut self, index: u64, item: Item, out: &mut Out) -> Result<()> {
        let name = (text_of(&item.start, "type").to_owned(), text_of(&item.start, "id").to_owned());
        self.done.insert(index, name);
        self.close(index, item.body, item.start, false, out)
    }

    /// Closes what is open of an item. `item` is all of it if it is `done`, else its beginning.
    fn close(
        &mut self,
        index: u64,
        body: Body,
        mut item: Map<String, Value>,
        done: bool,
        out: &mut Out,
    ) -> Result<()> {
        match body {
            Body::Kept(part) => {
                let replay = self.replay(item);
                self.parts.close(part, Some(replay), out);
            }
            Body::Call { part, mut args, whole } => {
                let all = match item.remove("arguments") {
                    Some(Value::String(text)) => text,
                    Some(Value::Null) | None => String::new(),
                    Some(other) => other.to_string(),
                };
                let more =
                    if done || args.is_empty() { left(&args, &all)?.to_owned() } else { String::new() };
                args.push_str(&more);
                let part = match part {
                    Some(part) => {
                        self.parts.delta(part, &more, out);
                        part
                    }
                    None => {
                        let part = self.call(index, &item, true, out).unwrap_or_default();
                        self.parts.delta(part, &args, out);
                        part
                    }
                };
                // Cut before the arguments began: nobody wrote `{}`.
                let cut = !(whole || done) || text_of(&item, "status") == "incomplete";
                if cut && args.trim().is_empty() {
                    self.parts.delta(part, "null", out);
                }
                for key in ["type", "call_id", "name"] {
                    item.remove(key);
                }
                let replay = (!item.is_empty()).then(|| self.replay(item));
                self.parts.close(part, replay, out);
            }
            Body::Reasoning(mut pieces, mut first) => {
                let texts = [(false, "summary"), (true, "content")].map(|(full, key)| {
                    let texts = items_of(&item, key).iter().enumerate();
                    texts.map(|(n, text)| ((full, n as u64), text_in(text, "text"))).collect::<Vec<_>>()
                });
                for (at, text) in texts.iter().flatten().filter(|(_, text)| !text.is_empty()) {
                    let piece = match pieces.remove(at) {
                        Some(piece) => pieces.entry(*at).or_insert(piece),
                        None => {
                            let part =
                                first.take().unwrap_or_else(|| self.parts.open(PartKind::Reasoning, out));
                            pieces.entry(*at).or_insert(Piece::new(part, false))
                        }
                    };
                    let rest = piece.rest(text);
                    piece.say(rest, &mut self.parts, out);
                }
                // One part carries the item; the others are its further texts.
                let mut replay = (item.len() > 1).then(|| self.replay(item));
                let mut parts: Vec<u32> = first.into_iter().chain(pieces.values().map(|p| p.part)).collect();
                parts.sort_unstable();
                for part in parts {
                    self.parts.close(part, replay.take(), out);
                }
            }
            Body::Message(pieces) => self.close_message(pieces, item, out),
        }
        Ok(())
    }

    fn close_message(
        &mut self,
        mut pieces: BTreeMap<u64, Piece>,
        mut item: Map<String, Value>,
        out: &mut Out,
    ) {
        let content = match item.remove("content") {
            Some(Value::Array(all)) => all,
            _ => Vec::new(),
        };
        for key in ["type", "role"] {
            item.remove(key);
        }
        // The first piece carries the message, the others its id: it must not grow with their number.
        let id = item.get("id").filter(|id| id.as_str().is_some_and(|id| id.len() <= MAX_ID)).cloned();
        let mut first = Some(item);
        let mut about = |annotations: Option<Value>| {
            let rest = || id.iter().map(|id| ("id".to_owned(), id.clone())).collect();
            let item = first.take().unwrap_or_else(rest);
            let mut data = Map::from_iter([("item".to_owned(), Value::Object(item))]);
            if let Some(all) = annotations.filter(|a| a.as_array().is_some_and(|all| !all.is_empty())) {
                data.insert("annotations".to_owned(), all);
            }
            data
        };
        for (n, mut content) in content.into_iter().enumerate() {
            let (key, refusal) = match text_in(&content, "type") {
                "output_text" | "text" => ("text", false),
                "refusal" => ("refusal", true),
                _ => {
                    // Of a kind that this version does not know.
                    let mut data = about(None);
                    data.insert("type".to_owned(), "message".into());
                    data.insert("content".to_owned(), Value::Array(vec![content]));
                    let part = self.part(PartKind::Opaque, out);
                    let replay = self.replay(data);
                    self.parts.close(part, Some(replay), out);
                    continue;
                }
            };
            let text = text_in(&content, key);
            let piece = match pieces.remove(&(n as u64)) {
                Some(piece) if piece.refusal == refusal => Some(piece),
                Some(piece) => {
                    let replay = self.replay(about(None));
                    self.parts.close(piece.part, Some(replay), out);
                    None
                }
                None => None,
            };
            let mut piece = match piece {
                Some(piece) => piece,
                None if text.is_empty() => continue,
                None => Piece::new(self.part(prose(refusal), out), refusal),
            };
            let rest = piece.rest(text);
            piece.say(rest, &mut self.parts, out);
            let replay = self.replay(about(content.get_mut("annotations").map(Value::take)));
            self.parts.close(piece.part, Some(replay), out);
        }
        for piece in pieces.into_values() {
            let replay = self.replay(about(None));
            self.parts.close(piece.part, Some(replay), out);
        }
    }

    /// The end of the answer, which is `status` unless it says otherwise itself.
    fn complete(&mut self, answer: &Answer<'_>, status: &str, out: &mut Out) -> Result<()> {
        self.start(answer, out);
        if let Some(error) = answer.error.filter(|e| is_error(e)) {
            return Err(fault::classify_inner(error.get()).into_error("provider.stream"));
        }
        let status = answer.status.non_empty().unwrap_or(status);
        self.make_up(answer.output.as_ref().map_or(&[], |list| &list.0), out)?;
        let reason = match status {
            "completed" if self.calls => FinishReason::ToolCalls,
            "completed" => FinishReason::Stop,
            "incomplete" => {
                let details = answer.incomplete_details.0.as_ref();
                match details.map_or("", |d| d.reason.as_str()) {
                    "max_output_tokens" | "max_tokens" | "" => FinishReason::Length,
                    "content_filter" => FinishReason::ContentFilter,
                    other => FinishReason::from(other),
                }
            }
            "failed" | "cancelled" => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "provider.stream",
                    format_args!("the response has {status}, without saying why"),
                ));
            }
            // Still at work, in the background.
            _ => return Err(cut()),
        };
        self.parts.finish(answer.usage.0.as_ref().map(Counts::usage), reason, out);
        Ok(())
    }

    /// Ends every item, with what the list at the end of the answer says of it.
    fn make_up(&mut self, output: &[&RawValue], out: &mut Out) -> Result<()> {
        if !self.open.is_empty() || output.len() > self.done.len() {
            let mut known: HashSet<String> = self.done.values().map(|(_, id)| id.clone()).collect();
            let mut places: HashMap<String, u64> = HashMap::new();
            for (index, item) in &self.open {
                let id = text_of(&item.start, "id");
                if !id.is_empty() {
                    places.insert(id.to_owned(), *index);
                }
            }
            let missing = output.len() > self.done.len() + self.open.len();
            for (n, raw) in output.iter().enumerate() {
                let item = object(raw)?;
                let (kind, id) = (text_of(&item, "type"), text_of(&item, "id").to_owned());
                let same = |index: &u64| {
                    self.open.get(index).is_some_and(|open| text_of(&open.start, "type") == kind)
                };
                let by_id = places.get(&id).copied();
                let new = id.is_empty() || !known.contains(&id);
                let n = n as u64;
                if let Some(index) = by_id.or(Some(n).filter(|_| new)).filter(same) {
                    known.insert(id);
                    self.end_item(index, item, out)?;
                } else if missing && new && !self.done.contains_key(&n) {
                    known.insert(id);
                    self.end_item(n, item, out)?;
                }
            }
        }
        while let Some((index, item)) = self.open.pop_first() {
            self.abandon(index, item, out)?;
        }
        Ok(())
    }
}

impl Codec for Responses {
    fn event(&mut self, name: &str, data: &str, out: &mut Out) -> Result<()> {
        let data = data.trim();
        if data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        let event: Event<'_> = serde_json::from_str(data).map_err(|e| unreadable("an event", data, &e))?;
        let kind = event.kind.non_empty().unwrap_or(name);
        let nameless = !kind.starts_with("response.");
        if kind == "error" || nameless && event.error.is_some_and(is_error) {
            return Err(fault::classify_inner(data).into_error("provider.stream"));
        }
        let index = |next: u64| event.output_index.0.unwrap_or(next);
        match kind {
            "response.output_text.delta" => self.prose(&event, false, out)?,
            "response.refusal.delta" => self.prose(&event, true, out)?,
            "response.reasoning_summary_text.delta" => {
                self.thought(&event, (false, event.summary_index.0.unwrap_or(0)), out)?;
            }
            "response.reasoning_text.delta" => {
                self.thought(&event, (true, event.content_index.0.unwrap_or(0)), out)?;
            }
            "response.function_call_arguments.delta" => self.arguments(&event, false, out)?,
            "response.function_call_arguments.done" => self.arguments(&event, true, out)?,
            "response.output_item.added" => {
                if let Some(raw) = event.item {
                    self.begin(index(self.next()), object(raw)?, out)?;
                }
            }
            "response.output_item.done" => {
                if let Some(raw) = event.item {
                    let next = if self.open.contains_key(&self.newest) { self.newest } else { self.next() };
                    self.end_item(index(next), object(raw)?, out)?;
                }
            }
            "response.created" | "response.in_progress" => {
                if let Some(answer) = &event.response.0 {
                    self.start(answer, out);
                }
            }
            "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
                let status = kind.trim_start_matches("response.");
                self.complete(&event.response.0.unwrap_or_default(), status, out)?;
            }
            // What the API tells beside the items, and what it will think of next.
            _ => {}
        }
        Ok(())
    }

    fn whole(&mut self, body: &str, out: &mut Out) -> Result<()> {
        let answer: Answer<'_> = serde_json::from_str(body).map_err(|e| unreadable("an answer", body, &e))?;
        let Some(output) = &answer.output else {
            if answer.error.is_some_and(is_error) {
                return Err(fault::classify_inner(body).into_error("provider.stream"));
            }
            return Err(Error::new(
                ErrorKind::Corrupt,
                "wire.decode",
                "the answer is no response: it has no output",
            ));
        };
        self.start(&answer, out);
        for (n, raw) in output.0.iter().enumerate() {
            self.end_item(n as u64, object(raw)?, out)?;
        }
        self.complete(&answer, "", out)
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

fn prose(refusal: bool) -> PartKind {
    if refusal { PartKind::Refusal } else { PartKind::Text }
}

/// An item. Anything that is no object is one without fields.
fn object(raw: &RawValue) -> Result<Map<String, Value>> {
    let object: Obj<Map<String, Value>> =
        serde_json::from_str(raw.get()).map_err(|e| unreadable("an item", raw.get(), &e))?;
    Ok(object.0.unwrap_or_default())
}

fn text_of<'m>(map: &'m Map<String, Value>, key: &str) -> &'m str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn text_in<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn items_of<'m>(map: &'m Map<String, Value>, key: &str) -> &'m [Value] {
    map.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_error(raw: &RawValue) -> bool {
    !matches!(raw.get(), "null" | "{}" | "\"\"" | "false")
}

/// What is left of arguments behind the pieces that came.
fn left<'a>(pieces: &str, all: &'a str) -> Result<&'a str> {
    if let Some(rest) = all.strip_prefix(pieces) {
        return Ok(rest);
    }
    let read = |text| serde_json::from_str::<Value>(text).ok();
    if all.trim().is_empty() || read(pieces).is_some_and(|value| Some(value) == read(all)) {
        return Ok("");
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        "wire.decode",
        "the arguments of a tool call are others at its end than in its pieces",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::VecDeque;
    use zo_traits::{Accumulator, Part, Response};

    fn codec() -> Responses {
        Responses::new("f")
    }

    fn fold(result: Result<()>, out: Out) -> Result<Response> {
        let mut acc = Accumulator::default();
        out.into_iter().for_each(|e| acc.push(e).unwrap());
        result.and_then(|()| acc.finish())
    }

    fn stream(events: &[Value]) -> Result<Response> {
        let (mut codec, mut out) = (codec(), VecDeque::new());
        let result = events.iter().try_for_each(|e| codec.event("message", &e.to_string(), &mut out));
        let result = result.and_then(|()| codec.end(&mut out));
        fold(result, out)
    }

    fn whole(body: &Value) -> Result<Response> {
        let mut out = VecDeque::new();
        let result = codec().whole(&body.to_string(), &mut out);
        fold(result, out)
    }

    fn added(index: u64, item: Value) -> Value {
        json!({"type": "response.output_item.added", "output_index": index, "item": item})
    }

    fn done(index: u64, item: Value) -> Value {
        json!({"type": "response.output_item.done", "output_index": index, "item": item})
    }

    fn delta(kind: &str, index: u64, at: u64, text: &str) -> Value {
        json!({"type": format!("response.{kind}.delta"), "output_index": index, "content_index": at,
            "summary_index": at, "delta": text})
    }

    fn completed(output: Value) -> Value {
        json!({"type": "response.completed", "response": {"status": "completed", "output": output}})
    }

    fn message(id: &str, text: &str) -> Value {
        json!({"type": "message", "id": id, "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}]})
    }

    fn call(id: &str, arguments: &str) -> Value {
        json!({"type": "function_call", "id": id, "call_id": format!("call_{id}"), "name": "f", "arguments": arguments})
    }

    fn texts(response: &Response) -> Vec<(&'static str, String)> {
        let text = |part: &Part| match part {
            Part::Text(t) => ("text", t.text.clone()),
            Part::Reasoning(t) => ("reasoning", t.text.clone()),
            Part::Refusal(t) => ("refusal", t.text.clone()),
            Part::ToolCall(c) => ("call", c.args.to_string()),
            Part::Opaque(r) => ("opaque", r.data["type"].as_str().unwrap().to_owned()),
            other => panic!("{other:?}"),
        };
        response.message.parts.iter().map(text).collect()
    }

    fn told(parts: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        parts.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect()
    }

    #[test]
    fn items_may_interleave() {
        let reasoning = json!({"type": "reasoning", "id": "rs", "encrypted_content": "x", "status": null,
            "summary": [{"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}]});
        let mut two = message("m", "hello");
        two["content"].as_array_mut().unwrap().push(json!({"type": "refusal", "refusal": "no"}));
        let search = json!({"type": "web_search_call", "id": "ws", "action": {"deep": [1, null]}});
        let answer = stream(&[
            json!({"type": "response.created", "response": {"id": "r", "model": "m"}}),
            added(0, json!({"type": "reasoning", "id": "rs", "summary": []})),
            added(1, json!({"type": "web_search_call", "id": "ws"})),
            added(2, json!({"type": "message", "id": "m", "content": []})),
            added(3, call("a", "")),
            delta("output_text", 2, 0, "hel"),
            delta("function_call_arguments", 3, 0, "{\"a\""),
            delta("reasoning_summary_text", 0, 0, "on"),
            delta("refusal", 2, 1, "n"),
            delta("output_text", 2, 0, "lo"),
            done(3, call("a", "{\"a\":1}")),
            delta("reasoning_summary_text", 0, 1, "two"),
            done(2, two.clone()),
            done(1, search.clone()),
            done(0, reasoning.clone()),
            json!({"type": "response.brand.new", "delta": {"odd": 1}}),
            completed(json!([])),
        ])
        .unwrap();
        assert_eq!(
            texts(&answer),
            told(&[
                ("reasoning", "one"),
                ("opaque", "web_search_call"),
                ("call", "{\"a\":1}"),
                ("text", "hello"),
                ("refusal", "no"),
                ("reasoning", "two")
            ])
        );
        assert_eq!((answer.id.as_deref(), answer.finish), (Some("r"), FinishReason::ToolCalls));
        let Part::Reasoning(first) = &answer.message.parts[0] else { panic!() };
        assert_eq!(first.replay, Some(Replay::new("f", reasoning.clone())));
        assert!(matches!(&answer.message.parts[5], Part::Reasoning(t) if t.replay.is_none()), "said once");
        // The same, whole: in the order of the items.
        let body = json!({"status": "completed", "id": "r", "output": [reasoning, search, two, call("a", "{\"a\":1}")]});
        assert_eq!(
            texts(&whole(&body).unwrap()),
            told(&[
                ("reasoning", "one"),
                ("reasoning", "two"),
                ("opaque", "web_search_call"),
                ("text", "hello"),
                ("refusal", "no"),
                ("call", "{\"a\":1}")
            ])
        );
    }

    #[test]
    fn the_list_at_the_end_makes_up_for_what_never_ended_and_doubles_nothing() {
        let search = json!({"type": "web_search_call", "id": "ws", "status": "completed"});
        let want = told(&[("opaque", "web_search_call"), ("text", "hello")]);
        let begun = added(0, json!({"type": "web_search_call", "id": "ws"}));
        let answer = stream(&[
            begun.clone(),
            delta("output_text", 1, 0, "hel"),
            completed(json!([search, message("m", "hello")])),
        ])
        .unwrap();
        assert_eq!(texts(&answer), want);
        assert!(matches!(&answer.message.parts[0], Part::Opaque(r) if r.data == search));
        // Nothing of it streamed at all; or every event with another id; or the list empty.
        let all = completed(json!([search, message("m", "hello")]));
        assert_eq!(texts(&stream(std::slice::from_ref(&all)).unwrap()), want);
        let rotated = [
            added(0, json!({"type": "web_search_call", "id": "1"})),
            done(0, json!({"type": "web_search_call", "id": "2"})),
            added(1, json!({"type": "message", "id": "3"})),
            delta("output_text", 1, 0, "hello"),
            done(1, message("4", "hello")),
            all,
        ];
        assert_eq!(texts(&stream(&rotated).unwrap()), want);
        let empty = [begun, done(0, search), done(1, message("m", "hello")), completed(json!([]))];
        assert_eq!(texts(&stream(&empty).unwrap()), want);
        // A place left free, an end said twice, one item that came with the end alone.
        let gap = [
            done(0, message("a", "A")),
            done(0, message("a", "A")),
            done(2, message("c", "C")),
            completed(json!([message("a", "A"), message("b", "B"), message("c", "C")])),
        ];
        assert_eq!(texts(&stream(&gap).unwrap()), told(&[("text", "A"), ("text", "C"), ("text", "B")]));
        let far = [
            done(0, message("a", "A")),
            done(5, message("c", "C")),
            completed(json!([message("a", "A"), message("c", "C"), message("b", "B")])),
        ];
        assert_eq!(texts(&stream(&far).unwrap()), told(&[("text", "A"), ("text", "C"), ("text", "B")]));
    }

    #[test]
    fn events_may_lack_places_and_beginnings() {
        let answer = stream(&[
            json!({"type": "response.output_text.delta", "delta": "hi"}),
            json!({"type": "response.output_item.done", "item": message("m", "hi")}),
            json!({"type": "response.output_item.added", "item": call("a", "")}),
            json!({"type": "response.function_call_arguments.delta", "delta": "{}"}),
            json!({"type": "response.output_item.done", "item": call("a", "{}")}),
            json!({"type": "response.output_item.done", "item": call("b", "{}")}),
            completed(Value::Null),
        ])
        .unwrap();
        assert_eq!(texts(&answer), told(&[("text", "hi"), ("call", "{}"), ("call", "{}")]));
        // A call whose name comes at its end, and whose id never does.
        let answer = stream(&[
            json!({"type": "response.created", "response": {"id": "r"}}),
            delta("function_call_arguments", 0, 0, "{\"a\":"),
            done(0, json!({"type": "function_call", "name": "g", "arguments": "{\"a\":1}"})),
            completed(Value::Null),
        ])
        .unwrap();
        let calls: Vec<_> = answer.message.tool_calls().collect();
        assert_eq!((calls[0].name.as_str(), calls[0].id.as_str()), ("g", "call_0_r"));
        assert_eq!(calls[0].args, json!({"a": 1}));
    }

    #[test]
    fn what_is_done_completes_what_was_said_and_never_repeats_it() {
        let of = |said: &str| {
            texts(
                &stream(&[
                    delta("output_text", 0, 0, said),
                    done(0, message("m", "hello")),
                    completed(json!([])),
                ])
                .unwrap(),
            )
        };
        assert_eq!(of("hel"), told(&[("text", "hello")]));
        assert_eq!(of("hello"), told(&[("text", "hello")]));
        assert_eq!(of("help"), told(&[("text", "help")]), "what was said cannot be unsaid");
        assert_eq!(of("hello, you"), told(&[("text", "hello, you")]));
    }

    #[test]
    fn arguments_are_those_of_the_end() {
        let of = |said: &str, all: &str| {
            stream(&[
                added(0, call("a", "")),
                delta("function_call_arguments", 0, 0, said),
                done(0, call("a", all)),
                completed(json!([])),
            ])
            .map(|r| texts(&r)[0].1.clone())
        };
        assert_eq!(of("", "{\"a\":1}").unwrap(), "{\"a\":1}");
        assert_eq!(of("{\"a\": 1}", "{\"a\":1}").unwrap(), "{\"a\":1}", "spelt otherwise");
        assert_eq!(of("", "").unwrap(), "{}");
        assert_eq!(of("{\"a\":1}", "{\"a\":2}").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_cut_call_has_no_arguments_that_nobody_wrote() {
        let incomplete = json!({"type": "response.incomplete", "response": {"status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"}, "output": []}});
        let mut cut = call("a", "");
        cut["status"] = "incomplete".into();
        for events in [
            vec![added(0, call("a", "")), incomplete.clone()],
            vec![added(0, call("a", "")), done(0, cut), incomplete.clone()],
            vec![
                added(0, call("a", "")),
                delta("function_call_arguments", 0, 0, "{\"a\":"),
                incomplete.clone(),
            ],
            vec![added(0, call("a", "")), completed(json!([]))],
        ] {
            let answer = stream(&events).unwrap();
            assert!(!answer.message.tool_calls().next().unwrap().args.is_object(), "{answer:?}");
        }
        assert_eq!(stream(&[added(0, call("a", "")), incomplete]).unwrap().finish, FinishReason::Length);
    }

    #[test]
    fn replay_data_does_not_grow_with_the_pieces_of_a_message() {
        let mut many = message("m", "x");
        many["big"] = "y".repeat(100_000).into();
        many["content"] = vec![json!({"type": "output_text", "text": "x"}); 1_000].into();
        let answer = whole(&json!({"status": "completed", "output": [many]})).unwrap();
        assert!(serde_json::to_string(&answer.message).unwrap().len() < 300_000);
        assert_eq!(answer.message.parts.len(), 1_000);
    }

    #[test]
    fn how_an_answer_ends() {
        let end = |kind: &str, response: Value| {
            stream(&[json!({"type": format!("response.{kind}"), "response": response})])
        };
        let cut = |reason: &str| {
            end("incomplete", json!({"incomplete_details": {"reason": reason}})).unwrap().finish
        };
        assert_eq!(cut("max_output_tokens"), FinishReason::Length);
        assert_eq!(cut("content_filter"), FinishReason::ContentFilter);
        assert_eq!(cut("bored"), FinishReason::from("bored"));
        assert_eq!(end("incomplete", Value::Null).unwrap().finish, FinishReason::Length);
        let usage = json!({"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 2}});
        let answer = end("completed", json!({"usage": usage})).unwrap();
        let mut want = Usage::new(9, 5);
        (want.cache_read, want.reasoning) = (4, 2);
        assert_eq!((answer.finish, answer.usage), (FinishReason::Stop, want));
        let kind = |r: Result<Response>| r.unwrap_err().kind();
        assert_eq!(kind(stream(&[])), ErrorKind::Corrupt);
        let mut out = VecDeque::new();
        let mut cut = codec();
        cut.event("", &done(0, message("m", "x")).to_string(), &mut out).unwrap();
        assert!(!cut.may_end() && cut.end(&mut out).is_err(), "nothing but its end ends a stream");
        assert_eq!(kind(stream(&[done(0, message("m", "x"))])), ErrorKind::Corrupt);
        for status in ["queued", "in_progress", "", "odd"] {
            assert_eq!(
                kind(whole(&json!({"status": status, "output": [message("m", "x")]}))),
                ErrorKind::Corrupt
            );
        }
        assert_eq!(kind(whole(&json!({"choices": []}))), ErrorKind::Corrupt);
        assert_eq!(kind(end("failed", Value::Null)), ErrorKind::Unavailable);
        assert_eq!(kind(end("cancelled", json!({}))), ErrorKind::Unavailable);
    }

    #[test]
    fn errors_are_told_apart() {
        let inner = |code: &str| json!({"code": code, "message": "m"});
        for (code, want) in [
            ("insufficient_quota", ErrorKind::Exhausted),
            ("rate_limit_exceeded", ErrorKind::RateLimited),
            ("context_length_exceeded", ErrorKind::ContextOverflow),
            ("server_error", ErrorKind::Unavailable),
        ] {
            let mut flat = inner(code);
            flat["type"] = "error".into();
            for event in [
                flat,
                json!({"type": "error", "error": inner(code)}),
                json!({"error": inner(code)}),
                json!({"type": "response.failed", "response": {"status": "failed", "error": inner(code)}}),
            ] {
                assert_eq!(stream(std::slice::from_ref(&event)).unwrap_err().kind(), want, "{event}");
            }
            assert_eq!(whole(&json!({"error": inner(code)})).unwrap_err().kind(), want);
            let failed = json!({"status": "failed", "output": [], "error": inner(code)});
            assert_eq!(whole(&failed).unwrap_err().kind(), want);
        }
    }

    #[test]
    fn content_of_an_unknown_kind_is_kept() {
        let mut odd = message("m", "hi");
        odd["content"].as_array_mut().unwrap().push(json!({"type": "output_hologram", "x": 1}));
        odd["phase"] = "final_answer".into();
        let answer = whole(&json!({"status": "completed", "output": [odd, {"type": "new"}, 5]})).unwrap();
        let data = |n: usize| match &answer.message.parts[n] {
            Part::Text(t) => t.replay.clone().unwrap().data,
            Part::Opaque(r) => r.data.clone(),
            other => panic!("{other:?}"),
        };
        let item = json!({"id": "m", "status": "completed", "phase": "final_answer"});
        assert_eq!(data(0), json!({"item": item}));
        assert_eq!(
            data(1),
            json!({"type": "message", "item": {"id": "m"}, "content": [{"type": "output_hologram", "x": 1}]})
        );
        assert_eq!((data(2), data(3)), (json!({"type": "new"}), json!({})));
    }
}
