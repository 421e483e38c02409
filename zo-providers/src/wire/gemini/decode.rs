//! Streamed and whole answers of `generateContent`.
//!
//! A stream is a row of answers, each with what is new; a whole answer is a stream of one. Read here: events and whole bodies
//! that are one answer, and the JSON array of answers that the API sends when it was not asked for events.
//!
//! The wire has no end of its own but a `finishReason`, and that may come more than once: after a first one the API may go on
//! with what its own tools gave. So nothing is over before the bytes are, and what comes behind a reason wants another.

use super::{FAMILY, SIGNATURE, partial::Args};
use crate::wire::{
    decode::{Codec, cut, unreadable},
    fault,
    lenient::{Count, List, Obj, Str},
    parts::{Out, Parts, Prose},
    turns::alias,
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use std::collections::HashSet;
use zo_traits::{Error, ErrorKind, FinishReason, PartKind, Replay, Result, Usage};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(borrow, default)]
    response_id: Str<'a>,
    #[serde(borrow, default)]
    model_version: Str<'a>,
    #[serde(borrow, default)]
    candidates: List<Obj<Candidate<'a>>>,
    #[serde(borrow, default)]
    prompt_feedback: Obj<Feedback<'a>>,
    #[serde(default)]
    usage_metadata: Obj<Counts>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(borrow, default)]
    content: Obj<Content<'a>>,
    #[serde(borrow, default)]
    finish_reason: Str<'a>,
    #[serde(default)]
    index: Count,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: List<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback<'a> {
    #[serde(borrow, default)]
    block_reason: Str<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece<'a> {
    #[serde(borrow, default)]
    text: Option<Str<'a>>,
    /// `true` for reasoning.
    #[serde(borrow, default)]
    thought: Str<'a>,
    #[serde(borrow, default)]
    thought_signature: Str<'a>,
    #[serde(borrow, default)]
    function_call: Obj<Call<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call<'a> {
    #[serde(borrow, default)]
    id: Str<'a>,
    #[serde(borrow, default)]
    name: Str<'a>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    #[serde(borrow, default)]
    partial_args: List<&'a RawValue>,
    /// `true` where the call goes on in a later part.
    #[serde(borrow, default)]
    will_continue: Str<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    #[serde(default)]
    prompt_token_count: Count,
    #[serde(default)]
    tool_use_prompt_token_count: Count,
    #[serde(default)]
    cached_content_token_count: Count,
    #[serde(default)]
    candidates_token_count: Count,
    #[serde(default)]
    thoughts_token_count: Count,
}

/// Counts so far: later answers replace what they mention.
#[derive(Debug, Default)]
struct Totals {
    any: bool,
    prompt: u64,
    tools: u64,
    cached: u64,
    said: u64,
    thought: u64,
}

impl Totals {
    fn take(&mut self, counts: &Counts) {
        self.any = true;
        for (total, count) in [
            (&mut self.prompt, counts.prompt_token_count),
            (&mut self.tools, counts.tool_use_prompt_token_count),
            (&mut self.cached, counts.cached_content_token_count),
            (&mut self.said, counts.candidates_token_count),
            (&mut self.thought, counts.thoughts_token_count),
        ] {
            *total = count.0.unwrap_or(*total);
        }
    }

    fn usage(&self) -> Option<Usage> {
        // What the API's own tools put before the model counts as prompt, but beside it.
        let mut usage =
            Usage::new(self.prompt.saturating_add(self.tools), self.said.saturating_add(self.thought));
        (usage.cache_read, usage.reasoning) = (self.cached, self.thought);
        self.any.then_some(usage)
    }
}

/// A call whose arguments are being received.
#[derive(Debug)]
struct Open {
    part: u32,
    args: Args,
    replay: Option<Replay>,
}

/// Decodes one answer of `generateContent`, streamed or whole.
#[derive(Debug, Default)]
pub struct Generate {
    parts: Parts,
    answer_id: String,
    /// Ids that calls of this answer have.
    ids: HashSet<String>,
    /// Ids minted so far.
    minted: usize,
    open: Option<Open>,
    /// Code was written that the API runs, and its output has not come.
    runs: bool,
    finish: Option<FinishReason>,
    /// The prompt itself was refused.
    blocked: bool,
    totals: Totals,
}

impl Generate {
    /// A decoder for one answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one answer, or a list of them.
    fn read(&mut self, data: &str, out: &mut Out) -> Result<()> {
        if !data.starts_with('[') {
            return self.chunk(data, out);
        }
        let all: List<&RawValue> =
            serde_json::from_str(data).map_err(|e| unreadable("a list of answers", data, &e))?;
        all.0.into_iter().try_for_each(|raw| self.chunk(raw.get(), out))
    }

    fn chunk(&mut self, data: &str, out: &mut Out) -> Result<()> {
        let chunk: Chunk<'_> = serde_json::from_str(data).map_err(|e| unreadable("an answer", data, &e))?;
        if chunk.error.is_some_and(|e| !matches!(e.get(), "null" | "{}" | "\"\"" | "false")) {
            return Err(fault::classify_inner(data).into_error("provider.stream"));
        }
        if !self.parts.started() {
            self.parts.start(chunk.response_id.non_empty(), chunk.model_version.non_empty(), out);
            chunk.response_id.as_str().clone_into(&mut self.answer_id);
        }
        if let Some(counts) = &chunk.usage_metadata.0 {
            self.totals.take(counts);
        }
        let blocked = chunk.prompt_feedback.0.as_ref().and_then(|f| f.block_reason.non_empty());
        self.blocked |= blocked.is_some_and(|reason| reason != "BLOCK_REASON_UNSPECIFIED");
        // One answer was asked for; a second candidate is not ours.
        let first = chunk.candidates.0.into_iter().filter_map(|c| c.0).find(|c| c.index.0.unwrap_or(0) == 0);
        let Some(candidate) = first else { return Ok(()) };
        for raw in candidate.content.0.map(|c| c.parts.0).unwrap_or_default() {
            self.piece(raw.get(), out)?;
        }
        if let Some(reason) = finish_reason(candidate.finish_reason.as_str()) {
            self.finish = Some(reason);
        }
        Ok(())
    }

    fn piece(&mut self, raw: &str, out: &mut Out) -> Result<()> {
        if !raw.starts_with('{') {
            return Ok(());
        }
        let piece: Piece<'_> = serde_json::from_str(raw).map_err(|e| unreadable("a part", raw, &e))?;
        let signature = piece.thought_signature.non_empty();
        let replay = signature.map(|s| Replay::new(FAMILY, serde_json::json!({ SIGNATURE: s })));
        if let Some(call) = piece.function_call.0 {
            self.finish = None;
            self.call(&call, replay, out);
            return Ok(());
        }
        if let Some(text) = &piece.text {
            let prose = if piece.thought.as_str() == "true" { Prose::Reasoning } else { Prose::Text };
            self.say(prose, text.as_str(), replay, out);
            return Ok(());
        }
        let block: Map<String, Value> =
            serde_json::from_str(raw).map_err(|e| unreadable("a part", raw, &e))?;
        let holds = |key: &str| block.get(key).is_some_and(|v| !v.is_null());
        if holds("executableCode") || holds("codeExecutionResult") {
            self.runs = holds("executableCode");
        }
        let beside = ["text", "thought", SIGNATURE, "functionCall"];
        if block.iter().any(|(key, value)| !value.is_null() && !beside.contains(&key.as_str())) {
            self.finish = None;
            self.parts.hush(|_| None, out);
            self.parts.opaque(Replay::new(FAMILY, Value::Object(block)), out);
        } else {
            // A signature with nothing to it, or nothing at all.
            self.say(Prose::Text, "", replay, out);
        }
        Ok(())
    }

    /// Adds running text. A piece that is signed is a part of its own, even an empty one.
    fn say(&mut self, prose: Prose, text: &str, replay: Option<Replay>, out: &mut Out) {
        if !text.is_empty() {
            self.finish = None;
        }
        if replay.is_none() {
            return self.parts.say(prose, text, |_| None, out);
        }
        self.parts.hush(|_| None, out);
        let kind = if prose == Prose::Reasoning { PartKind::Reasoning } else { PartKind::Text };
        let part = self.parts.open(kind, out);
        self.parts.delta(part, text, out);
        self.parts.close(part, replay, out);
    }

    fn call(&mut self, call: &Call<'_>, replay: Option<Replay>, out: &mut Out) {
        let whole = call.will_continue.as_str() != "true";
        let (args, pieces) = (call.args.map(RawValue::get), &call.partial_args.0);
        if call.name.is_empty() {
            if let Some(mut open) = self.open.take() {
                pieces.iter().for_each(|piece| open.args.add(piece.get()));
                open.replay = open.replay.or(replay);
                return if whole { self.close(open, true, out) } else { self.open = Some(open) };
            }
            // The end of a call that is over already.
            if call.id.is_empty() && args.is_none() && pieces.is_empty() {
                return;
            }
        }
        if let Some(unfinished) = self.open.take() {
            self.close(unfinished, false, out);
        }
        self.parts.hush(|_| None, out);
        let kind = PartKind::ToolCall { id: self.id(call.id.as_str()), name: call.name.as_str().to_owned() };
        let part = self.parts.open(kind, out);
        if whole && pieces.is_empty() {
            self.parts.delta(part, args.unwrap_or_default(), out);
            return self.parts.close(part, replay, out);
        }
        let mut open = Open { part, args: Args::new(args), replay };
        pieces.iter().for_each(|piece| open.args.add(piece.get()));
        if whole { self.close(open, true, out) } else { self.open = Some(open) }
    }

    fn close(&mut self, call: Open, whole: bool, out: &mut Out) {
        self.parts.delta(call.part, &call.args.finish(whole), out);
        self.parts.close(call.part, call.replay, out);
    }

    /// The id of the next call: the server's, or one made up where it gave none, or one that another call has. The same
    /// answer gives the same ids.
    fn id(&mut self, id: &str) -> String {
        if !id.is_empty() && self.ids.insert(id.to_owned()) {
            return id.to_owned();
        }
        let answer = match self.answer_id.len() {
            0..=40 => self.answer_id.clone(),
            _ => alias(&self.answer_id, 20),
        };
        loop {
            let id = format!("call_{}{}{answer}", self.minted, if answer.is_empty() { "" } else { "_" });
            self.minted += 1;
            if self.ids.insert(id.clone()) {
                return id;
            }
        }
    }

    fn complete(&mut self, out: &mut Out) {
        if let Some(unfinished) = self.open.take() {
            self.close(unfinished, false, out);
        }
        self.parts.hush(|_| None, out);
        let reason = match self.finish.take() {
            // The API says the same whether the model is done or waits for results.
            Some(FinishReason::Stop) if !self.ids.is_empty() => FinishReason::ToolCalls,
            Some(reason) => reason,
            // Only a prompt that was refused comes here without.
            None => FinishReason::ContentFilter,
        };
        self.parts.finish(self.totals.usage(), reason, out);
    }
}

impl Codec for Generate {
    fn event(&mut self, name: &str, data: &str, out: &mut Out) -> Result<()> {
        let data = data.trim();
        // The API says no such thing, gateways to it do.
        if data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        if name == "error" {
            return Err(fault::classify_inner(data).into_error("provider.stream"));
        }
        self.read(data, out)
    }

    fn whole(&mut self, body: &str, out: &mut Out) -> Result<()> {
        self.read(body.trim(), out)?;
        if self.finish.is_some() || self.blocked {
            self.complete(out);
            return Ok(());
        }
        // "If empty, the model has not stopped generating tokens", says the API.
        Err(Error::new(ErrorKind::Corrupt, "wire.decode", "the answer has no candidate that is finished"))
    }

    fn end(&mut self, out: &mut Out) -> Result<()> {
        if self.parts.finished() {
            return Ok(());
        }
        // "STOP" before the output of the API's own code has come is one of those that others follow.
        let stopped = self.finish.as_ref().is_some_and(|f| !(self.runs && *f == FinishReason::Stop));
        if !stopped && !self.blocked {
            return Err(cut());
        }
        self.complete(out);
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.parts.finished()
    }

    fn may_end(&self) -> bool {
        // Older models, and gateways to other wires, say "STOP" in every answer of the row, the first and empty one too.
        false
    }
}

fn finish_reason(reason: &str) -> Option<FinishReason> {
    Some(match reason {
        // Documented as the default, and as unused.
        "" | "FINISH_REASON_UNSPECIFIED" => return None,
        "STOP" => FinishReason::Stop,
        "MAX_TOKENS" => FinishReason::Length,
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => FinishReason::ContentFilter,
        // Kept as it is, MALFORMED_FUNCTION_CALL among them: the model wrote a call that the API could not read.
        other => FinishReason::from(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decoder;
    use serde_json::json;
    use std::collections::VecDeque;
    use zo_traits::{Accumulator, Part, Response};

    fn fold(events: VecDeque<zo_traits::StreamEvent>, result: Result<()>) -> Result<Response> {
        let mut acc = Accumulator::default();
        events.into_iter().for_each(|e| acc.push(e).unwrap());
        result.and_then(|()| acc.finish())
    }

    fn streamed(chunks: &[Value]) -> Result<Response> {
        let (mut decoder, mut out) = (Decoder::new(Generate::new()), VecDeque::new());
        let body: String = chunks.iter().map(|c| format!("data: {c}\r\n\r\n")).collect();
        let result = decoder.feed(body.as_bytes(), &mut out).and_then(|()| decoder.finish(&mut out));
        fold(out, result)
    }

    fn whole(body: &Value) -> Result<Response> {
        let (mut decoder, mut out) = (Decoder::new(Generate::new()), VecDeque::new());
        let result = decoder.whole(body.to_string().as_bytes(), &mut out);
        fold(out, result)
    }

    fn chunk(parts: Value, finish: &str) -> Value {
        json!({"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": finish, "index": 0}],
            "responseId": "r", "modelVersion": "gemini-3"})
    }

    fn args(r: &Response) -> Vec<(&str, &str, &Value)> {
        r.message.tool_calls().map(|c| (c.id.as_str(), c.name.as_str(), &c.args)).collect()
    }

    #[test]
    fn a_signature_stays_with_its_part() {
        let parts = json!([
            {"text": "hm", "thought": true},
            {"text": "so", "thoughtSignature": "c2ln"},
            {"text": "me"}, {"text": "thing"},
            {"text": "", "thoughtSignature": "ZW1wdHk="},
            {"thoughtSignature": "YmFyZQ=="},
            {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "Y2FsbA=="},
            {"functionCall": {"name": "f", "id": "x"}},
        ]);
        let r = whole(&chunk(parts, "STOP")).unwrap();
        let got: Vec<_> = r
            .message
            .parts
            .iter()
            .map(|p| {
                let (text, replay) = match p {
                    Part::Text(t) | Part::Reasoning(t) => (t.text.as_str(), &t.replay),
                    Part::ToolCall(c) => (c.name.as_str(), &c.replay),
                    other => panic!("{other:?}"),
                };
                let signature = replay.as_ref().map(|r| r.data[SIGNATURE].as_str().unwrap());
                (text, signature)
            })
            .collect();
        assert_eq!(
            got,
            [
                ("hm", None),
                ("so", Some("c2ln")),
                ("mething", None),
                ("", Some("ZW1wdHk=")),
                ("", Some("YmFyZQ==")),
                ("f", Some("Y2FsbA==")),
                ("f", None),
            ]
        );
        assert_eq!(args(&r), [("call_0_r", "f", &json!({"a": 1})), ("x", "f", &json!({}))]);
        assert_eq!((r.finish, r.model.as_deref()), (FinishReason::ToolCalls, Some("gemini-3")));
    }

    #[test]
    fn ids_are_unique_whatever_the_server_says() {
        let call = |id: &str| json!({"functionCall": {"name": "f", "id": id}});
        let r = whole(&chunk(json!([call("a"), call("call_0_r"), call("a"), call(""), call("a")]), "STOP"))
            .unwrap();
        let ids: Vec<_> = r.message.tool_calls().map(|c| c.id.as_str()).collect();
        assert_eq!(ids, ["a", "call_0_r", "call_1_r", "call_2_r", "call_3_r"]);
        let mut long = chunk(json!([call("")]), "STOP");
        long["responseId"] = "r".repeat(100_000).into();
        assert!(whole(&long).unwrap().message.tool_calls().next().unwrap().id.len() < 64);
    }

    #[test]
    fn what_comes_behind_a_reason_wants_another() {
        let text = |t: &str| json!([{"text": t}]);
        let code = json!([{"executableCode": {"code": "1", "language": "PYTHON"}}]);
        let ran = json!([{"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}]);
        let all = [
            chunk(text("a"), ""),
            chunk(code, "STOP"),
            chunk(ran, ""),
            chunk(text("b"), ""),
            chunk(text(""), "STOP"),
        ];
        let r = streamed(&all).unwrap();
        assert_eq!((r.message.to_text().as_str(), r.message.parts.len()), ("ab", 4));
        for n in 0..all.len() {
            assert_eq!(streamed(&all[..n]).unwrap_err().kind(), ErrorKind::Corrupt, "cut behind {n}");
        }
        let counts = json!({"usageMetadata": {"promptTokenCount": 3}});
        let r = streamed(&[chunk(text("a"), "MAX_TOKENS"), counts]).unwrap();
        assert_eq!((r.finish, r.usage.input), (FinishReason::Length, 3));
        assert!(streamed(&[chunk(text("a"), "STOP"), chunk(text("b"), "")]).is_err());
        assert!(streamed(&[chunk(text("a"), "FINISH_REASON_UNSPECIFIED")]).is_err());
        assert!(
            whole(&chunk(text("a"), "")).is_err() && whole(&json!({})).is_err() && whole(&json!([])).is_err()
        );
    }

    #[test]
    fn reasons_are_told_apart() {
        for (raw, reason) in [
            ("STOP", FinishReason::Stop),
            ("MAX_TOKENS", FinishReason::Length),
            ("SAFETY", FinishReason::ContentFilter),
            ("RECITATION", FinishReason::ContentFilter),
            ("MALFORMED_FUNCTION_CALL", FinishReason::Other("MALFORMED_FUNCTION_CALL".into())),
            ("SOMETHING_NEW", FinishReason::Other("SOMETHING_NEW".into())),
        ] {
            assert_eq!(whole(&json!({"candidates": [{"finishReason": raw}]})).unwrap().finish, reason);
        }
        let blocked =
            json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}});
        for r in [whole(&blocked).unwrap(), streamed(&[blocked]).unwrap()] {
            assert_eq!((r.finish, r.usage.input, r.message.parts.len()), (FinishReason::ContentFilter, 9, 0));
        }
    }

    #[test]
    fn counts_add_up() {
        let early = json!({"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1, "thoughtsTokenCount": 7}});
        let mut last = chunk(json!([{"text": "x"}]), "STOP");
        last["usageMetadata"] = json!({"promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 3,
            "toolUsePromptTokenCount": 100, "totalTokenCount": 120});
        let usage = streamed(&[early, last]).unwrap().usage;
        let mut want = Usage::new(110, 10);
        (want.cache_read, want.reasoning) = (4, 7);
        assert_eq!(usage, want);
    }

    #[test]
    fn arguments_may_come_in_pieces() {
        let part = |call: Value| chunk(json!([{"functionCall": call}]), "");
        let piece = |path: &str, text: &str| json!([{"jsonPath": path, "stringValue": text}]);
        let end = chunk(json!([{"text": ""}]), "STOP");
        let r = streamed(&[
            part(json!({"name": "f", "willContinue": true})),
            part(json!({"partialArgs": piece("$.a", "x"), "willContinue": true})),
            part(json!({"partialArgs": piece("$.a", "y"), "willContinue": true})),
            part(json!({})),
            part(json!({})),
            part(json!({"name": "g", "args": {"b": 1}, "partialArgs": piece("$.c", "z")})),
            part(json!({"name": "h", "willContinue": true})),
            part(json!({})),
            end.clone(),
        ])
        .unwrap();
        let got = args(&r);
        assert_eq!(got[0], ("call_0_r", "f", &json!({"a": "xy"})));
        assert_eq!(got[1], ("call_1_r", "g", &json!({"b": 1, "c": "z"})));
        assert_eq!(got[2], ("call_2_r", "h", &json!({})));
        // Never finished, by itself or by the next one: not to be run.
        for next in [end.clone(), part(json!({"name": "g"}))] {
            let open = part(json!({"name": "f", "args": {"a": 1}, "willContinue": true}));
            let r = streamed(&[open, next, end.clone()]).unwrap();
            assert!(args(&r)[0].2.is_string(), "{:?}", args(&r));
        }
        let r = streamed(&[part(json!({"partialArgs": piece("$.a", "x")})), end]).unwrap();
        assert_eq!(args(&r)[0].1, "", "a call without a name is no call of any tool");
    }

    #[test]
    fn what_has_no_word_is_kept_whole() {
        let parts = json!([
            {"toolCall": {"id": "t", "toolType": "GOOGLE_SEARCH_WEB"}, "thoughtSignature": "c2ln"},
            {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
            {"brandNew": {"deep": [1, null]}, "text": null},
            {"text": null}, {}, null, 5, "x", [],
        ]);
        let r = whole(&chunk(parts.clone(), "STOP")).unwrap();
        let kept: Vec<_> = r
            .message
            .parts
            .iter()
            .map(|p| if let Part::Opaque(r) = p { r.data.clone() } else { panic!("{p:?}") })
            .collect();
        assert_eq!(kept, parts.as_array().unwrap()[..3]);
    }

    #[test]
    fn errors_inside_an_answer_are_errors() {
        let error = json!({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}});
        for body in
            [error.clone(), json!([error.clone()]), json!([chunk(json!([{"text": "a"}]), "STOP"), error])]
        {
            assert_eq!(whole(&body).unwrap_err().kind(), ErrorKind::Unavailable);
            assert_eq!(streamed(&[body]).unwrap_err().kind(), ErrorKind::Unavailable);
        }
        let list = json!([chunk(json!([{"text": "a"}]), ""), chunk(json!([{"text": "b"}]), "STOP")]);
        assert_eq!(whole(&list).unwrap().message.to_text(), "ab");
        assert_eq!(streamed(&[json!("text")]).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn the_second_candidate_is_not_ours() {
        let candidate = |n: u32, t: &str| json!({"content": {"parts": [{"text": t}]}, "finishReason": "STOP", "index": n});
        let r = whole(&json!({"candidates": [candidate(1, "b"), candidate(0, "a")]})).unwrap();
        assert_eq!(r.message.to_text(), "a");
        assert!(whole(&json!({"candidates": [candidate(1, "b")]})).is_err());
    }
}
