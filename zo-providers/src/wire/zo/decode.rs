//! Streamed and whole answers of `/zo/ask`, and the list of models.
//!
//! An answer streams as events `FrontendModelResponse` and ends with `End`; `Error` says what went wrong. Other events tell of
//! the agent's work and are skipped.

use super::{CONVERSATION, FAMILY};
use crate::wire::{
    decode::{Codec, cut, unreadable},
    fault,
    lenient::{Count, List, Obj, Str},
    parts::{Out, Parts, Prose},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::borrow::Cow;
use zo_traits::{Error, ErrorKind, FinishReason, ModelInfo, Replay, Result};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    content: Str<'a>,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(borrow, default)]
    conversation_id: Str<'a>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Decodes one answer of `/zo/ask`.
#[derive(Debug)]
pub struct Ask {
    parts: Parts,
    conversation: Option<String>,
    structured: bool,
    /// What was streamed so far: the end may repeat it.
    said: String,
}

/// Longest answer, in bytes. It is kept, to be held against what the end says.
const MAX_ANSWER: usize = 16 << 20;

impl Ask {
    /// A decoder for one answer in `conversation`, which is what the header `x-conversation-id` says.
    pub fn new(conversation: Option<String>) -> Self {
        let conversation = conversation.filter(|id| !id.trim().is_empty());
        Self { parts: Parts::default(), conversation, structured: false, said: String::new() }
    }

    /// Says that the request had an output schema: then the output at the end is the answer, and what is streamed before it are
    /// words on the way there, which become reasoning.
    #[must_use]
    pub fn structured(mut self, structured: bool) -> Self {
        self.structured = structured;
        self
    }

    fn start(&mut self, id: &str, out: &mut Out) {
        if !id.is_empty() && !self.parts.started() {
            self.conversation = Some(id.to_owned());
        }
        self.parts.start(self.conversation.as_deref(), None, out);
    }

    fn say(&mut self, prose: Prose, text: &str, out: &mut Out) {
        let conversation = self.conversation.as_deref();
        self.parts.say(prose, text, |closed| replay(conversation, closed), out);
    }

    fn complete(&mut self, output: Option<&RawValue>, out: &mut Out) -> Result<()> {
        let output = match output {
            Some(raw) => answer(raw)?,
            None => Cow::Borrowed(""),
        };
        let said = std::mem::take(&mut self.said);
        let text = match (self.structured, &*output) {
            // Nothing came but the words: so they are the answer.
            (true, "") => &*said,
            (true, output) => output,
            // Not asked for and there all the same: it counts unless it was said before.
            (false, output) if same(&said, output) => "",
            (false, output) => output,
        };
        if !self.structured && !said.is_empty() && !text.is_empty() {
            // A part of its own, so that it can be read as JSON.
            let conversation = self.conversation.as_deref();
            self.parts.hush(|closed| replay(conversation, closed), out);
        }
        self.say(Prose::Text, text, out);
        let conversation = self.conversation.as_deref();
        self.parts.hush(|closed| replay(conversation, closed), out);
        if said.is_empty()
            && text.is_empty()
            && let Some(replay) = replay(conversation, Prose::Text)
        {
            // No text to keep the id with.
            self.parts.opaque(replay, out);
        }
        self.parts.finish(None, FinishReason::Stop, out);
        Ok(())
    }
}

impl Codec for Ask {
    fn event(&mut self, name: &str, data: &str, out: &mut Out) -> Result<()> {
        match name {
            "Error" => return Err(fault::classify_inner(data).into_error("provider.stream")),
            "FrontendModelResponse" | "End" => {}
            _ => return Ok(()),
        }
        let event: Obj<Event<'_>> =
            serde_json::from_str(data).map_err(|e| unreadable("an event", data, &e))?;
        let event = event.0.ok_or_else(|| corrupt("an event is no object"))?;
        self.start(event.conversation_id.as_str(), out);
        if name == "End" {
            return self.complete(event.output, out);
        }
        let text = event.content.as_str();
        if self.said.len().saturating_add(text.len()) > MAX_ANSWER {
            return Err(corrupt(format_args!("the answer is longer than {MAX_ANSWER} bytes")));
        }
        self.said.push_str(text);
        self.say(if self.structured { Prose::Reasoning } else { Prose::Text }, text, out);
        Ok(())
    }

    fn whole(&mut self, body: &str, out: &mut Out) -> Result<()> {
        let answer: Obj<Event<'_>> =
            serde_json::from_str(body).map_err(|e| unreadable("the answer", body, &e))?;
        let answer = answer.0.ok_or_else(|| corrupt("the answer is no object"))?;
        match answer.output {
            Some(output) => {
                self.start(answer.conversation_id.as_str(), out);
                self.complete(Some(output), out)
            }
            None if answer.error.is_some() => Err(fault::classify_inner(body).into_error("provider.stream")),
            None => Err(corrupt("the answer has no output")),
        }
    }

    fn end(&mut self, _out: &mut Out) -> Result<()> {
        if self.parts.finished() { Ok(()) } else { Err(cut()) }
    }

    fn is_finished(&self) -> bool {
        self.parts.finished()
    }

    fn may_end(&self) -> bool {
        self.parts.finished()
    }
}

fn replay(conversation: Option<&str>, closed: Prose) -> Option<Replay> {
    let id = conversation.filter(|_| closed == Prose::Text)?;
    Some(Replay::new(FAMILY, json!({ CONVERSATION: id })))
}

/// The output as text: text as it is, anything else as JSON.
fn answer(raw: &RawValue) -> Result<Cow<'_, str>> {
    match raw.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str::<Str<'_>>(raw.get())
            .map(|s| s.0)
            .map_err(|e| unreadable("the output", raw.get(), &e)),
        _ => Ok(Cow::Borrowed(raw.get())),
    }
}

/// Was the output said before? As text, or as the same JSON in another spelling.
fn same(said: &str, output: &str) -> bool {
    let json = |text: &str| serde_json::from_str::<Value>(text).ok();
    said.trim() == output.trim() || json(output).is_some_and(|output| json(said) == Some(output))
}

fn corrupt(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "wire.decode", message)
}

#[derive(Deserialize)]
struct Models<'a> {
    #[serde(borrow)]
    models: Option<List<Obj<Model<'a>>>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow, default)]
    model_name: Str<'a>,
    #[serde(borrow, default)]
    label: Str<'a>,
    #[serde(default)]
    context_window: Count,
    #[serde(default)]
    is_byok: Option<Value>,
}

/// Reads the answer of `GET /models/available`. One that runs on the user's own key says so in its name.
///
/// # Errors
/// What the server reports, classified; [`ErrorKind::Corrupt`] for what is no such list.
pub fn models(body: &[u8]) -> Result<Vec<ModelInfo>> {
    let body = String::from_utf8_lossy(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body));
    let list: Obj<Models<'_>> =
        serde_json::from_str(&body).map_err(|e| unreadable("the list of models", &body, &e))?;
    let none = || Error::new(ErrorKind::Corrupt, "zo.models", "the answer holds no list of models");
    let list = list.0.ok_or_else(none)?;
    let Some(models) = list.models else {
        return Err(match list.error {
            Some(_) => fault::classify_inner(&body).into_error("zo.models"),
            None => none(),
        });
    };
    let info = |model: Model<'_>| {
        let id = model.model_name.non_empty()?;
        let mut info = ModelInfo::new(id);
        let own = if model.is_byok == Some(Value::Bool(true)) { " (own key)" } else { "" };
        info.name = model.label.non_empty().map(|label| format!("{label}{own}"));
        // The agent behind the model takes none of the host's tools.
        info.capabilities.structured = true;
        info.capabilities.context_window = model.context_window.0.and_then(|n| u32::try_from(n).ok());
        Some(info)
    };
    Ok(models.0.into_iter().filter_map(|m| m.0).filter_map(info).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decoder;
    use zo_traits::{Accumulator, Part, Response, Text};

    fn fold(events: Out) -> Result<Response> {
        let mut acc = Accumulator::default();
        events.into_iter().try_for_each(|e| acc.push(e))?;
        acc.finish()
    }

    fn streamed(codec: Ask, body: &str) -> Result<Response> {
        let (mut decoder, mut out) = (Decoder::new(codec), Out::new());
        body.as_bytes().chunks(1).try_for_each(|piece| decoder.feed(piece, &mut out))?;
        decoder.finish(&mut out)?;
        fold(out)
    }

    fn whole(codec: Ask, body: &str) -> Result<Response> {
        let (mut decoder, mut out) = (Decoder::new(codec), Out::new());
        decoder.whole(body.as_bytes(), &mut out)?;
        fold(out)
    }

    fn ask() -> Ask {
        Ask::new(Some("con_1".into()))
    }

    fn text(text: &str, id: &str) -> Part {
        Part::Text(Text {
            text: text.into(),
            replay: Some(Replay::new("zo", json!({"conversation_id": id}))),
        })
    }

    const STREAM: &str = "event: Status\ndata: not JSON\n\nevent: FrontendModelResponse\ndata: {\"content\":\"Hel\"}\n\n\
        event: FrontendModelResponse\ndata: {\"content\":\"lo\",\"more\":[1]}\n\nevent: ToolCall\ndata: {}\n\n\
        event: End\ndata: {}\n\n";

    #[test]
    fn a_stream() {
        let r = streamed(ask(), STREAM).unwrap();
        assert_eq!(r.message.parts, [text("Hello", "con_1")]);
        assert_eq!((r.finish, r.id.as_deref()), (FinishReason::Stop, Some("con_1")));
        let r = streamed(Ask::new(None), STREAM).unwrap();
        assert_eq!((r.message.parts, r.id), (vec![Part::text("Hello")], None));
    }

    #[test]
    fn every_cut_before_the_end_is_corrupt() {
        let end = STREAM.trim_end().len();
        for at in 0..end {
            assert_eq!(streamed(ask(), &STREAM[..at]).unwrap_err().kind(), ErrorKind::Corrupt, "at {at}");
        }
        assert!(streamed(ask(), &STREAM[..end]).is_ok());
    }

    #[test]
    fn a_whole_answer() {
        let r = whole(Ask::new(None), r#"{"output":"hi","conversation_id":"c9"}"#).unwrap();
        assert_eq!((r.message.parts, r.id.as_deref()), (vec![text("hi", "c9")], Some("c9")));
        let r = whole(ask(), r#"{"output":{"a": 1},"conversation_id":null}"#).unwrap();
        assert_eq!(r.message.parts, [text(r#"{"a": 1}"#, "con_1")]);
        let r = whole(ask(), r#"{"output":""}"#).unwrap();
        let id = Replay::new("zo", json!({"conversation_id": "con_1"}));
        assert_eq!(r.message.parts, [Part::Opaque(id)], "an answer without words keeps the id");
        assert!(whole(Ask::new(None), r#"{"output":""}"#).unwrap().message.parts.is_empty());
        for body in ["", "{}", "[]", r#"["x","y"]"#, r#"{"output":null}"#, r#"{"output":"x""#] {
            assert_eq!(whole(ask(), body).unwrap_err().kind(), ErrorKind::Corrupt, "{body}");
        }
        let e = whole(ask(), r#"{"error":{"type":"rate_limit_error","message":"slow"}}"#).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::RateLimited);
    }

    #[test]
    fn the_output_at_the_end() {
        let stream = |said: &str, end: &str| {
            let said = if said.is_empty() {
                String::new()
            } else {
                format!("event: FrontendModelResponse\ndata: {}\n\n", json!({"content": said}))
            };
            format!("{said}event: End\ndata: {end}\n\n")
        };
        let said = |codec: Ask, text: &str, end: &str| streamed(codec, &stream(text, end)).unwrap().message;
        let object = r#"{"output":{"a":1}}"#;
        assert_eq!(said(ask(), "", object).parts, [text(r#"{"a":1}"#, "con_1")]);
        assert_eq!(said(ask(), "{ \"a\": 1 }", object).parts, [text("{ \"a\": 1 }", "con_1")], "said before");
        assert_eq!(said(ask(), "x", r#"{"output":"x"}"#).parts.len(), 1);
        assert_eq!(said(ask(), "Look:", object).parts, [text("Look:", "con_1"), text(r#"{"a":1}"#, "con_1")]);
        let m = said(ask().structured(true), "thinking", object);
        assert_eq!(m.parts, [Part::Reasoning(Text::new("thinking")), text(r#"{"a":1}"#, "con_1")]);
        let m = said(ask().structured(true), "{\"a\":1}", "{}");
        assert_eq!(m.to_text(), "{\"a\":1}", "no output: what was said is the answer");
        let id = Replay::new("zo", json!({"conversation_id": "con_1"}));
        assert_eq!(said(ask(), "", r#"{"output":null}"#).parts, [Part::Opaque(id)]);
    }

    #[test]
    fn errors_inside() {
        let of = |data: &str| {
            let text = format!(
                "event: FrontendModelResponse\ndata: {{\"content\":\"x\"}}\n\nevent: Error\ndata: {data}\n\n"
            );
            streamed(ask(), &text).unwrap_err()
        };
        let e = of(r#"{"message":"the model failed"}"#);
        assert!(e.kind() == ErrorKind::Unavailable && e.message().contains("the model failed"), "{e}");
        assert_eq!(of(r#"{"message":"x","code":"rate_limit_exceeded"}"#).kind(), ErrorKind::RateLimited);
        assert_eq!(of("plain words").kind(), ErrorKind::Unavailable);
        let broken =
            streamed(ask(), "event: FrontendModelResponse\ndata: {\"content\":\n\nevent: End\ndata: {}\n\n");
        assert_eq!(broken.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn an_answer_without_end_is_refused() {
        let (mut ask, mut out) = (ask(), Out::new());
        let data = json!({"content": "x".repeat(1 << 20)}).to_string();
        let e = (0..20).find_map(|_| {
            out.clear();
            ask.event("FrontendModelResponse", &data, &mut out).err()
        });
        assert_eq!(e.unwrap().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn the_list() {
        let body = json!({"models": [
            {"model_name": "anthropic:claude-haiku-4-5", "label": "Claude Haiku 4.5", "vendor": "Anthropic", "description": null,
             "type": "fast", "context_window": 200_000, "is_byok": false},
            {"model_name": "byok:1", "label": "Mine", "context_window": null, "is_byok": true},
            {"label": "nameless"}, 7,
        ]});
        let list = models(body.to_string().as_bytes()).unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].name.as_deref(), Some("Claude Haiku 4.5"));
        assert_eq!(list[0].capabilities.context_window, Some(200_000));
        assert!(list[0].capabilities.structured && !list[0].capabilities.tools);
        assert_eq!((list[1].id.as_str(), list[1].name.as_deref()), ("byok:1", Some("Mine (own key)")));
        assert!(models(b"{}").is_err() && models(b"").is_err());
        assert_eq!(models(br#"{"error":{"code":"forbidden"}}"#).unwrap_err().kind(), ErrorKind::Denied);
    }
}
