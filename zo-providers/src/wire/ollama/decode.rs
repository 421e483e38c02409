//! Streamed and whole answers of `/api/chat`.
//!
//! An answer is a row of JSON objects, the last of which says `"done": true`; an answer that comes whole is that one object.
//! Tool calls come whole, often several in one line, as a rule before the last one. Older servers give them no id.

use super::FAMILY;
use crate::wire::{
    calls::{Function, arguments},
    decode::{Codec, Framing, cut, unreadable},
    fault,
    lenient::{Count, List, Obj, Str},
    ndjson::Lines,
    parts::{Out, Parts, Prose},
    turns::alias,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{borrow::Cow, collections::HashSet};
use zo_traits::{Error, ErrorKind, FinishReason, PartKind, Replay, Result, Usage};

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    model: Str<'a>,
    #[serde(borrow, default)]
    created_at: Str<'a>,
    #[serde(borrow, default)]
    message: Obj<Said<'a>>,
    #[serde(borrow, default)]
    done: Option<&'a RawValue>,
    #[serde(borrow, default)]
    done_reason: Str<'a>,
    #[serde(default)]
    prompt_eval_count: Count,
    #[serde(default)]
    eval_count: Count,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    content: Str<'a>,
    #[serde(borrow, default)]
    thinking: Str<'a>,
    #[serde(borrow, default)]
    tool_calls: List<Obj<Call<'a>>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    id: Str<'a>,
    #[serde(borrow, default)]
    function: Obj<Function<'a>>,
}

impl Line<'_> {
    fn is_done(&self) -> bool {
        self.done.is_some_and(|done| done.get() == "true")
    }
}

fn parse(data: &str) -> Result<Line<'_>> {
    let line: Obj<Line<'_>> = serde_json::from_str(data).map_err(|e| unreadable("a line", data, &e))?;
    line.0.ok_or_else(|| corrupt("a line of the answer is no object"))
}

fn corrupt(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "wire.decode", message)
}

/// Decodes one answer of `/api/chat`.
#[derive(Debug, Default)]
pub struct OllamaChat {
    parts: Parts,
    /// Messages before this answer: what keeps minted ids of a run apart.
    turn: usize,
    /// When the answer began, in the server's words.
    created: String,
    /// Ids of the tool calls so far.
    ids: HashSet<String>,
    calls: usize,
}

/// Tool calls of one answer beyond which it is refused. Far above what any model does.
const MAX_CALLS: usize = 1024;

/// Longest id that every other API takes back.
const MAX_ID: usize = 64;

impl OllamaChat {
    /// A decoder for one answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how many messages of the conversation stand before this answer. Ids that are minted for tool calls hold that
    /// number, so that two answers of one run never share an id, even from a server whose clock stands still.
    #[must_use]
    pub fn turn(mut self, messages: usize) -> Self {
        self.turn = messages;
        self
    }

    /// Takes one object of the answer.
    fn line(&mut self, line: &Line<'_>, data: &str, out: &mut Out) -> Result<()> {
        if line.error.is_some_and(|e| !matches!(e.get(), "null" | "{}" | "\"\"" | "false")) {
            return Err(fault::classify_inner(data).into_error("provider.stream"));
        }
        let done = line.is_done();
        if line.message.0.is_none() && !done {
            return Err(corrupt("a line of the answer has neither a message nor an end"));
        }
        if !self.parts.started() {
            self.parts.start(None, line.model.non_empty(), out);
            line.created_at.as_str().clone_into(&mut self.created);
        }
        if let Some(said) = &line.message.0 {
            self.parts.say(Prose::Reasoning, said.thinking.as_str(), replay, out);
            self.parts.say(Prose::Text, said.content.as_str(), replay, out);
            for call in said.tool_calls.0.iter().filter_map(|c| c.0.as_ref()) {
                self.call(call, out)?;
            }
        }
        if done {
            self.parts.hush(replay, out);
            // A prompt that was in the cache may have no count.
            let usage = match (line.prompt_eval_count.0, line.eval_count.0) {
                (None, None) => None,
                (input, output) => Some(Usage::new(input.unwrap_or(0), output.unwrap_or(0))),
            };
            self.parts.finish(usage, self.reason(line.done_reason.as_str()), out);
        }
        Ok(())
    }

    fn call(&mut self, call: &Call<'_>, out: &mut Out) -> Result<()> {
        let (name, arguments) = match &call.function.0 {
            Some(f) => (f.name.as_str(), f.arguments.map_or(Ok(Cow::Borrowed("")), arguments)?),
            None => ("", Cow::Borrowed("")),
        };
        if name.is_empty() && call.id.is_empty() && arguments.is_empty() {
            return Ok(());
        }
        if self.calls >= MAX_CALLS {
            return Err(corrupt(format_args!("more than {MAX_CALLS} tool calls in one answer")));
        }
        let id = self.id(call.id.as_str(), name, &arguments);
        self.calls += 1;
        self.parts.hush(replay, out);
        let part = self.parts.open(PartKind::ToolCall { id, name: name.to_owned() }, out);
        self.parts.delta(part, &arguments, out);
        self.parts.close(part, None, out);
        Ok(())
    }

    /// The server's id if it is one; else an id that follows from the answer, so that the same bytes give the same.
    fn id(&mut self, given: &str, name: &str, arguments: &str) -> String {
        let fine = (1..=MAX_ID).contains(&given.len()) && given.bytes().all(|b| b.is_ascii_graphic());
        if fine && self.ids.insert(given.to_owned()) {
            return given.to_owned();
        }
        let seed = alias(&format!("{}\n{name}\n{arguments}", self.created), 12);
        // The server may have given the very id that is minted: then another one.
        let mut n = self.calls;
        loop {
            let id = format!("call_{}_{n}_{seed}", self.turn);
            if self.ids.insert(id.clone()) {
                return id;
            }
            n += 1;
        }
    }

    fn reason(&self, said: &str) -> FinishReason {
        match said {
            // It says "stop" although it waits for tool results; older servers say nothing.
            "stop" | "" if self.calls > 0 => FinishReason::ToolCalls,
            "stop" | "" => FinishReason::Stop,
            "length" => FinishReason::Length,
            // The model was loaded or unloaded, which is the answer to a request without messages.
            other => FinishReason::from(other),
        }
    }
}

impl Codec for OllamaChat {
    fn framing(&self) -> Framing {
        Framing::Lines(Lines::new())
    }

    fn event(&mut self, _name: &str, data: &str, out: &mut Out) -> Result<()> {
        if data.trim().is_empty() {
            return Ok(());
        }
        self.line(&parse(data)?, data, out)
    }

    /// A server that was asked for the whole answer and sends it in pieces all the same is understood, too.
    fn whole(&mut self, body: &str, out: &mut Out) -> Result<()> {
        let texts = serde_json::Deserializer::from_str(body).into_iter::<&RawValue>();
        let texts: Vec<&RawValue> =
            texts.collect::<Result<_, _>>().map_err(|e| unreadable("the answer", body, &e))?;
        for (at, text) in (1..).zip(&texts) {
            let line = parse(text.get())?;
            if line.is_done() && at < texts.len() {
                return Err(corrupt("something follows the end of the answer"));
            }
            self.line(&line, text.get(), out)?;
        }
        self.end(out)
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

fn replay(closed: Prose) -> Option<Replay> {
    // Nothing but the mark: the text itself is what goes back.
    (closed == Prose::Reasoning).then(|| Replay::new(FAMILY, Value::Object(serde_json::Map::new())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decoder;
    use serde_json::json;
    use zo_traits::{Accumulator, Part, Response};

    fn fold(events: Out) -> Result<Response> {
        let mut acc = Accumulator::default();
        events.into_iter().try_for_each(|e| acc.push(e))?;
        acc.finish()
    }

    fn streamed(codec: OllamaChat, body: &str) -> Result<Response> {
        let (mut decoder, mut out) = (Decoder::new(codec), Out::new());
        body.as_bytes().chunks(1).try_for_each(|piece| decoder.feed(piece, &mut out))?;
        decoder.finish(&mut out)?;
        assert!(decoder.is_finished(), "no error, and no end");
        fold(out)
    }

    fn whole(body: &str) -> Result<Response> {
        let (mut codec, mut out) = (OllamaChat::new(), Out::new());
        codec.whole(body, &mut out)?;
        assert!(codec.is_finished(), "no error, and no end");
        fold(out)
    }

    const STREAM: &str = concat!(
        r#"{"model":"m","created_at":"t1","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"t2","message":{"role":"assistant","content":"","thinking":"m"},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"t3","message":{"role":"assistant","content":"a\u0301 b"},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"t4","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"x":1}}},{"id":"call_7","function":{"name":"g","arguments":{}}},{"function":{"name":"f","arguments":{"x":1}}}]},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"t5","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":11,"eval_count":7}"#,
        "\n"
    );

    #[test]
    fn a_stream_says_it_all() {
        let r = streamed(OllamaChat::new().turn(3), STREAM).unwrap();
        let [Part::Reasoning(hm), Part::Text(text), Part::ToolCall(a), Part::ToolCall(g), Part::ToolCall(b)] =
            &r.message.parts[..]
        else {
            panic!("{r:?}")
        };
        assert_eq!((hm.text.as_str(), text.text.as_str()), ("hmm", "a\u{301} b"));
        assert_eq!(hm.replay, Some(Replay::new(FAMILY, json!({}))));
        assert_eq!((&a.args, g.id.as_str(), &g.args), (&json!({"x": 1}), "call_7", &json!({})));
        assert!(a.id.starts_with("call_3_0_") && b.id.starts_with("call_3_2_"), "{} {}", a.id, b.id);
        assert_eq!((r.finish, r.usage), (FinishReason::ToolCalls, Usage::new(11, 7)));
        assert_eq!(r.model.as_deref(), Some("m"));
        assert_eq!(
            streamed(OllamaChat::new().turn(3), STREAM).unwrap().message,
            r.message,
            "the same bytes, the same ids"
        );
        assert_ne!(streamed(OllamaChat::new().turn(5), STREAM).unwrap().message.parts[2], r.message.parts[2]);
    }

    #[test]
    fn ids_are_apart_whatever_the_server_gives() {
        let call = |id: &str| json!({"id": id, "function": {"name": "f", "arguments": {}}});
        let minted =
            whole(&json!({"message": {"tool_calls": [call("")]}, "done": true}).to_string()).unwrap();
        let minted = minted.message.tool_calls().next().unwrap().id.clone();
        let taken = minted.replacen("call_0_0", "call_0_1", 1);
        let calls = json!([
            call("a"),
            call("a"),
            call("a b"),
            call(&"x".repeat(65)),
            call("ä"),
            call(&taken),
            call("")
        ]);
        let r = whole(&json!({"message": {"tool_calls": calls}, "done": true}).to_string()).unwrap();
        let ids: Vec<_> = r.message.tool_calls().map(|c| c.id.as_str()).collect();
        assert_eq!(ids[0], "a");
        assert!(ids.iter().all(|id| id.is_ascii() && id.len() <= 64 && !id.contains(' ')), "{ids:?}");
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 7, "{ids:?}");
    }

    #[test]
    fn every_cut_before_the_end_is_corrupt() {
        let end = STREAM.trim_end().len();
        for at in (0..end).filter(|at| STREAM.is_char_boundary(*at)) {
            assert_eq!(
                streamed(OllamaChat::new(), &STREAM[..at]).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "at {at}"
            );
            assert_eq!(whole(&STREAM[..at]).unwrap_err().kind(), ErrorKind::Corrupt, "whole, at {at}");
        }
        assert!(streamed(OllamaChat::new(), &STREAM[..end]).is_ok(), "the last line needs no LF");
        assert_eq!(
            whole(STREAM).unwrap().message.to_text(),
            "a\u{301} b",
            "in pieces, though asked for whole"
        );
        for more in ["{}", "x", "{\"done\":true}"] {
            let (mut codec, mut out) = (OllamaChat::new(), Out::new());
            assert_eq!(
                codec.whole(&format!("{STREAM}{more}"), &mut out).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
            assert!(fold(out).is_err(), "no end was said before the error: {more}");
        }
        assert!(whole(r#"{"message":{"content":"x"},"done":false}"#).is_err());
        assert!(whole(r#"{"message":{"content":"x"}}"#).is_err(), "nobody said that it is done");
        assert!(whole(r#"["m","t",{"content":"x"},true]"#).is_err(), "no object");
        assert!(whole("{}").is_err() && whole("").is_err() && whole("[]").is_err());
    }

    #[test]
    fn reasons() {
        let of = |reason: Value, message: Value| {
            whole(&json!({"message": message, "done": true, "done_reason": reason}).to_string())
                .unwrap()
                .finish
        };
        let call = json!({"tool_calls": [{"function": {"name": "f"}}]});
        assert_eq!(of(json!("stop"), json!({"content": "x"})), FinishReason::Stop);
        assert_eq!(of(Value::Null, json!({"content": "x"})), FinishReason::Stop);
        assert_eq!(of(json!("stop"), call.clone()), FinishReason::ToolCalls);
        assert_eq!(of(json!("length"), call), FinishReason::Length, "a cut call must not run");
        assert_eq!(of(json!("load"), json!({"role": "assistant"})), FinishReason::Other("load".into()));
        assert_eq!(of(json!("unload"), json!({})), FinishReason::Other("unload".into()));
    }

    #[test]
    fn odd_fields_lose_nothing() {
        let r = whole(
            r#"{"model":null,"created_at":5,"message":{"content":null,"thinking":false,"tool_calls":[null,7,{},
            {"function":{"name":"f","arguments":"{\"a\":1}"}},{"function":{"name":"f","arguments":"{\"a\":"}},
            {"function":{"name":"f","arguments":null}}]},"done":true,"prompt_eval_count":"3","logprobs":[1]}"#,
        )
        .unwrap();
        let args: Vec<_> = r.message.tool_calls().map(|c| c.args.clone()).collect();
        assert_eq!(args, [json!({"a": 1}), json!("{\"a\":"), json!({})], "what is no JSON is no `{{}}`");
        assert_eq!(r.usage.input, 3);
    }

    #[test]
    fn errors_inside() {
        let hello = r#"{"message":{"content":"Hel"},"done":false}"#;
        let stream =
            format!("{hello}\n{}\n", r#"{"error":"an error was encountered while running the model"}"#);
        let e = streamed(OllamaChat::new(), &stream).unwrap_err();
        assert!(e.kind() == ErrorKind::Unavailable && e.message().contains("was encountered"), "{e}");
        assert_eq!(
            whole(r#"{"error":"model requires more system memory"}"#).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
        assert!(
            streamed(OllamaChat::new(), &format!("{hello}\n{{\"x\":1}}\n")).unwrap_err().kind()
                == ErrorKind::Corrupt
        );
        let many = vec![json!({"function": {"name": "f", "arguments": {}}}); MAX_CALLS + 1];
        let many = json!({"message": {"tool_calls": many}, "done": true}).to_string();
        assert_eq!(whole(&many).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
