//! Bodies of the Messages API.

use super::{
    FAMILY,
    model::{Thinking, max_output, thinking, version},
};
use crate::wire::turns::{
    Turn, alias, args_object, blank, check_choice, marked_system, media_note, merge_extra, result_text, turns,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use zo_traits::{
    Effort, Error, ErrorKind, Media, MediaSource, Part, Request, Result, Role, ToolCall, ToolChoice,
    ToolResult,
};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Block<'a>>,
    messages: Vec<Out<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    output_config: Map<String, Value>,
    stream: bool,
}

#[derive(Serialize)]
struct Out<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text {
        text: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        citations: Option<&'a Value>,
    },
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: &'a str,
        input: Cow<'a, Value>,
        #[serde(flatten)]
        rest: Option<&'a Map<String, Value>>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        content: Vec<Block<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
    Image {
        source: Source<'a>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
    },
    #[serde(untagged)]
    Verbatim(&'a Value),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Url { url: &'a str },
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    input_schema: &'a Value,
}

/// Longest answer when the caller sets none; the API insists on one. Models of which less is known get less.
const MAX_TOKENS: u32 = 16_384;

/// The body of a streamed answer to `request` by `model`.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for media that the API has no place for; [`ErrorKind::Invalid`] for a conversation in which
/// nobody says anything, and for a choice of a tool that is not on offer.
pub fn encode(request: &Request, model: &str) -> Result<Vec<u8>> {
    check_choice(request, "anthropic.encode")?;
    let (system, turns) = turns(&request.messages);
    let mut messages = Vec::with_capacity(turns.len() + 1);
    for turn in &turns {
        let out = match turn {
            Turn::Model(parts) => Out { role: "assistant", content: model_turn(parts) },
            Turn::Host { results, said } => Out { role: "user", content: host_turn(results, said)? },
        };
        push(&mut messages, out);
    }
    if messages.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "anthropic.encode",
            "the request has no message with content",
        ));
    }
    // The API wants the human to begin.
    if messages.first().is_some_and(|m: &Out<'_>| m.role == "assistant") {
        let content = vec![Block::text("(The conversation begins with the assistant.)")];
        messages.insert(0, Out { role: "user", content });
    }
    // It refuses an assistant's last words that end in white space.
    if let Some(Out { role: "assistant", content }) = messages.last_mut()
        && let Some(Block::Text { text, .. }) = content.last_mut()
    {
        *text = Cow::Owned(text.trim_end().to_owned());
    }

    let choice = if request.tools.is_empty() { None } else { tool_choice(&request.tool_choice) };
    let known = max_output(model).map_or(MAX_TOKENS, |most| most.min(MAX_TOKENS));
    let mut max_tokens = request.max_tokens.unwrap_or(known);
    let mut output_config = Map::new();
    if let Some(schema) = &request.output_schema {
        output_config.insert("format".into(), json!({ "type": "json_schema", "schema": schema }));
    }
    // Neither a forced tool nor an unfinished turn that began without thinking goes together with thinking.
    let may_think = !matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Tool(_))
        && !in_thoughtless_turn(&turns);
    let thinking = match (&request.effort, thinking(model)) {
        (None, _) | (_, Thinking::Never) => None,
        (Some(effort), Thinking::Adaptive) => {
            let spelled = if *effort == Effort::Minimal { "low" } else { effort.as_str() };
            output_config.insert("effort".into(), spelled.into());
            (may_think && *effort != Effort::Minimal).then(|| json!({ "type": "adaptive" }))
        }
        (Some(effort), Thinking::Budget) => budget(effort).filter(|_| may_think).map(|budget| {
            // The answer comes on top of the thinking, within one limit.
            let most = max_output(model).unwrap_or(u32::MAX);
            max_tokens = max_tokens.saturating_add(budget).min(most);
            json!({ "type": "enabled", "budget_tokens": budget.min(max_tokens.saturating_sub(1)) })
        }),
    };
    // Thinking leaves no choice of sampling, nor do the newest models; older ones take one of the two.
    let since = |from: (u32, u32)| version(model).is_some_and(|v| v >= from);
    let sampled = thinking.is_none() && !since((4, 7));
    let temperature = request.temperature.filter(|_| sampled);
    let top_p = request.top_p.filter(|_| sampled && !(temperature.is_some() && since((4, 1))));
    let body = Body {
        model,
        max_tokens,
        system: system.into_iter().map(Block::text).collect(),
        messages,
        tools: request
            .tools
            .iter()
            .map(|t| Tool { name: &t.name, description: &t.description, input_schema: &t.input })
            .collect(),
        tool_choice: choice,
        temperature,
        top_p,
        stop_sequences: &request.stop,
        thinking,
        output_config,
        stream: true,
    };
    merge_extra(&body, &request.extra)
        .map_err(|e| Error::new(ErrorKind::Invalid, "anthropic.encode", format_args!("no JSON: {e}")))
}

impl<'a> Block<'a> {
    fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text { text: text.into(), citations: None }
    }

    fn is_thought(&self) -> bool {
        match self {
            Self::Thinking { .. } => true,
            Self::Verbatim(value) => {
                value.get("type").is_some_and(|t| t == "thinking" || t == "redacted_thinking")
            }
            _ => false,
        }
    }
}

/// Adds a turn, unless it is empty; one of the same role as the last is merged into it.
fn push<'a>(messages: &mut Vec<Out<'a>>, mut out: Out<'a>) {
    match messages.last_mut() {
        _ if out.content.is_empty() => {}
        Some(last) if last.role == out.role => last.content.append(&mut out.content),
        _ => messages.push(out),
    }
}

fn model_turn<'a>(parts: &[&'a Part]) -> Vec<Block<'a>> {
    let mut out: Vec<Block<'a>> = parts
        .iter()
        .filter_map(|part| {
            Some(match part {
                Part::Text(t) | Part::Refusal(t) if blank(&t.text) => return None,
                Part::Text(t) | Part::Refusal(t) => {
                    let own = t.replay.as_ref().filter(|r| r.provider == FAMILY);
                    Block::Text {
                        text: Cow::Borrowed(&t.text),
                        citations: own.and_then(|r| r.data.get("citations")),
                    }
                }
                Part::Reasoning(t) => {
                    let own = t.replay.as_ref().filter(|r| r.provider == FAMILY)?;
                    // The API checks the signature: without one there is nothing to send back.
                    let signature = own.data.get("signature")?.as_str().filter(|s| !s.is_empty())?;
                    Block::Thinking { thinking: &t.text, signature }
                }
                Part::ToolCall(call) => tool_use(call),
                Part::Opaque(replay) if replay.provider == FAMILY => Block::Verbatim(&replay.data),
                _ => return None,
            })
        })
        .collect();
    // The API refuses a turn that ends in thoughts, as one does that was cut.
    while out.last().is_some_and(Block::is_thought) {
        out.pop();
    }
    out
}

fn tool_use(call: &ToolCall) -> Block<'_> {
    Block::ToolUse {
        id: wire_id(&call.id),
        name: &call.name,
        input: args_object(&call.args),
        rest: call.replay.as_ref().filter(|r| r.provider == FAMILY).and_then(|r| r.data.as_object()),
    }
}

fn host_turn<'a>(results: &[&'a ToolResult], said: &[(&'a Role, Vec<&'a Part>)]) -> Result<Vec<Block<'a>>> {
    let mut out: Vec<Block<'a>> = results
        .iter()
        .map(|result| {
            let mut content = vec![Block::text(result_text(result))];
            content
                .extend(result.media.iter().map(|m| media(m).unwrap_or_else(|_| Block::text(media_note(m)))));
            Block::ToolResult { tool_use_id: wire_id(&result.id), content, is_error: result.is_error() }
        })
        .collect();
    for (role, parts) in said {
        for part in parts {
            match part {
                Part::Text(t) | Part::Refusal(t) if blank(&t.text) => {}
                Part::Text(t) | Part::Refusal(t) => out.push(if **role == Role::System {
                    Block::text(marked_system(&t.text))
                } else {
                    Block::text(&*t.text)
                }),
                // A picture of a kind that is not taken is told of, like one in a result.
                Part::Media(m) if m.media_type.starts_with("image/") => {
                    out.push(media(m).unwrap_or_else(|_| Block::text(media_note(m))));
                }
                Part::Media(m) => out.push(media(m)?),
                _ => {}
            }
        }
    }
    Ok(out)
}

fn media(media: &Media) -> Result<Block<'_>> {
    let refuse = || {
        Error::new(
            ErrorKind::Unsupported,
            "anthropic.encode",
            format_args!("the Messages API takes no {} here", media.media_type),
        )
    };
    // A common misspelling.
    let kind = if media.media_type == "image/jpg" { "image/jpeg" } else { &media.media_type };
    let source = match &media.source {
        MediaSource::Base64(data) => Source::Base64 { media_type: kind, data },
        MediaSource::Url(url) => Source::Url { url },
        _ => return Err(refuse()),
    };
    match kind {
        "image/jpeg" | "image/png" | "image/gif" | "image/webp" => Ok(Block::Image { source }),
        "application/pdf" => Ok(Block::Document { source, title: media.name.as_deref() }),
        _ => Err(refuse()),
    }
}

fn tool_choice(choice: &ToolChoice) -> Option<Value> {
    match choice {
        ToolChoice::None => Some(json!({ "type": "none" })),
        ToolChoice::Required => Some(json!({ "type": "any" })),
        ToolChoice::Tool(name) => Some(json!({ "type": "tool", "name": name })),
        _ => None,
    }
}

fn budget(effort: &Effort) -> Option<u32> {
    match effort {
        Effort::Minimal => None,
        Effort::Low => Some(2048),
        Effort::High => Some(24_576),
        _ => Some(8192),
    }
}

/// Is the model in the middle of a turn (its tool results are being sent) that holds no thinking? The API does not let
/// thinking begin there.
fn in_thoughtless_turn(turns: &[Turn<'_>]) -> bool {
    let [.., Turn::Model(parts), Turn::Host { results, .. }] = turns else { return false };
    !results.is_empty()
        && !parts.iter().any(|p| match p {
            Part::Reasoning(t) => t.replay.as_ref().is_some_and(|r| r.provider == FAMILY),
            Part::Opaque(r) => {
                r.provider == FAMILY && r.data.get("type").is_some_and(|t| t == "redacted_thinking")
            }
            _ => false,
        })
}

/// The API takes ids of letters, digits, `_` and `-`. Another provider's id may be anything; call and result get the same
/// stand-in.
fn wire_id(id: &str) -> Cow<'_, str> {
    let fits = (1..=64).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if fits { Cow::Borrowed(id) } else { Cow::Owned(format!("toolu_{}", alias(id, 20))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Codec, anthropic::Messages};
    use std::collections::VecDeque;
    use zo_traits::{Accumulator, Message, Replay, Text, ToolSpec, ToolStatus};

    fn body(request: &Request) -> Value {
        serde_json::from_slice(&encode(request, "claude-sonnet-4-6").unwrap()).unwrap()
    }

    fn call(id: &str) -> ToolCall {
        ToolCall::new(id, "f", json!({"a": 1}))
    }

    #[test]
    fn results_come_first_in_one_user_turn() {
        let calls = [call("c1"), call("functions.f:0")];
        let mut parts = vec![Part::text("on it")];
        parts.extend(calls.clone().map(Part::ToolCall));
        let r = Request::new(
            "",
            [
                Message::system("be brief"),
                Message::user("go"),
                Message { role: Role::Assistant, parts },
                Message::tool_results([ToolResult::new(&calls[0], ToolStatus::Ok, "")]),
                Message::user("hurry"),
                Message::system("note"),
                Message::tool_results([ToolResult::new(&calls[1], ToolStatus::Error, "no")]),
                Message::user("  "),
            ],
        );
        let b = body(&r);
        assert_eq!(b["system"], json!([{"type": "text", "text": "be brief"}]));
        assert_eq!(b["max_tokens"], 16_384);
        let m = &b["messages"];
        assert_eq!(m.as_array().unwrap().len(), 3);
        assert_eq!(
            m[2]["content"],
            json!([
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "(no output)"}]},
                {"type": "tool_result", "tool_use_id": m[1]["content"][2]["id"], "is_error": true,
                    "content": [{"type": "text", "text": "no"}]},
                {"type": "text", "text": "hurry"},
                {"type": "text", "text": "<system>\nnote\n</system>"},
            ])
        );
    }

    #[test]
    fn what_came_goes_back_as_it_came() {
        let answer = json!({
            "type": "message", "id": "m", "model": "c", "stop_reason": "tool_use", "usage": {},
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"a": [1, 2.5, null]}]},
                {"type": "text", "text": "so", "citations": [{"type": "x", "n": 1}]},
                {"type": "brand_new", "deep": {"er": true}},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}},
            ],
        });
        let (mut codec, mut events, mut acc) = (Messages::new(), VecDeque::new(), Accumulator::default());
        codec.whole(&answer.to_string(), &mut events).unwrap();
        events.into_iter().for_each(|e| acc.push(e).unwrap());
        let message = acc.finish().unwrap().message;
        let calls: Vec<_> = message.tool_calls().cloned().collect();
        let r = Request::new(
            "",
            [
                Message::user("go"),
                message,
                Message::tool_results(calls.iter().map(|c| ToolResult::new(c, ToolStatus::Ok, "1"))),
            ],
        );
        assert_eq!(body(&r)["messages"][1]["content"], answer["content"]);
    }

    #[test]
    fn others_replay_data_stays_home() {
        let foreign = Replay::new("openai", json!({"signature": "x", "citations": [1]}));
        let r = Request::new(
            "",
            [Message {
                role: Role::Assistant,
                parts: vec![
                    Part::Reasoning(Text { text: "hm".into(), replay: Some(foreign.clone()) }),
                    Part::Reasoning(Text::new("hm")),
                    Part::Opaque(foreign.clone()),
                    Part::Text(Text { text: "hello ".into(), replay: Some(foreign) }),
                    Part::Unknown(json!({"type": "odd"})),
                ],
            }],
        );
        let m = body(&r)["messages"].clone();
        assert_eq!(m[0]["role"], "user");
        assert_eq!(
            m[1]["content"],
            json!([{"type": "text", "text": "hello"}]),
            "and no white space at the very end"
        );
    }

    #[test]
    fn a_turn_never_ends_in_thoughts() {
        let own = |data: Value| Replay::new(FAMILY, data);
        let thought =
            || Part::Reasoning(Text { text: "hm".into(), replay: Some(own(json!({"signature": "s"}))) });
        let hidden = || Part::Opaque(own(json!({"type": "redacted_thinking", "data": "x"})));
        let parts = vec![thought(), Part::text("so"), thought(), hidden()];
        let alone = Message { role: Role::Assistant, parts: vec![thought(), hidden()] };
        let r = Request::new(
            "",
            [
                Message::user("a"),
                Message { role: Role::Assistant, parts },
                Message::user("b"),
                alone,
                Message::user("c"),
            ],
        );
        let m = body(&r)["messages"].clone();
        let kinds: Vec<_> = m[1]["content"].as_array().unwrap().iter().map(|b| b["type"].clone()).collect();
        assert_eq!(kinds, ["thinking", "text"]);
        assert_eq!(m.as_array().unwrap().len(), 3, "nothing is left of thoughts alone: {m}");
    }

    #[test]
    fn pictures_of_other_kinds_are_told_of() {
        let picture = |kind: &str| Media {
            media_type: kind.into(),
            source: MediaSource::Base64("QUJD".into()),
            name: None,
        };
        let mut result = ToolResult::new(&call("c"), ToolStatus::Ok, "1");
        result.media = vec![picture("image/svg+xml")];
        let user = ["image/bmp", "image/jpg"].map(|kind| Part::Media(picture(kind)));
        let r = Request::new(
            "",
            [
                Message { role: Role::Assistant, parts: vec![Part::ToolCall(call("c"))] },
                Message::tool_results([result]),
                Message { role: Role::User, parts: user.to_vec() },
            ],
        );
        let m = body(&r)["messages"][2]["content"].clone();
        assert_eq!(m[0]["content"][1], json!({"type": "text", "text": "[image/svg+xml file is not shown]"}));
        assert_eq!(m[1], json!({"type": "text", "text": "[image/bmp file is not shown]"}));
        assert_eq!(m[2]["source"]["media_type"], "image/jpeg");
    }

    #[test]
    fn sampling_is_sent_only_to_models_that_take_it() {
        let mut r = Request::new("", [Message::user("x")]);
        (r.temperature, r.top_p) = (Some(0.5), Some(0.5));
        for (model, temperature, top_p) in [
            ("claude-3-5-haiku-latest", true, true),
            ("claude-sonnet-4-20250514", true, true),
            ("claude-opus-4-1", true, false),
            ("claude-sonnet-4-6", true, false),
            ("claude-opus-4-7", false, false),
            ("claude-opus-5", false, false),
        ] {
            let b: Value = serde_json::from_slice(&encode(&r, model).unwrap()).unwrap();
            assert_eq!(
                (b.get("temperature").is_some(), b.get("top_p").is_some()),
                (temperature, top_p),
                "{model}"
            );
        }
        r.temperature = None;
        assert_eq!(body(&r)["top_p"], 0.5);
        r.tool_choice = ToolChoice::Tool("f".into());
        assert_eq!(encode(&r, "m").unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn thinking_is_asked_for_only_where_it_is_allowed() {
        let mut r = Request::new("", [Message::user("x")]);
        (r.effort, r.temperature) = (Some(Effort::High), Some(0.2));
        let b = body(&r);
        assert_eq!(
            (&b["thinking"]["type"], &b["output_config"]["effort"]),
            (&json!("adaptive"), &json!("high"))
        );
        assert!(b.get("temperature").is_none());
        let of = |r: &Request, model: &str| -> Value {
            serde_json::from_slice(&encode(r, model).unwrap()).unwrap()
        };
        let b = of(&r, "claude-sonnet-4-5");
        assert_eq!(b["thinking"]["budget_tokens"], 24_576);
        assert!(b["max_tokens"].as_u64().unwrap() > 24_576);
        assert!(of(&r, "claude-3-5-haiku-latest").get("thinking").is_none());
        r.tools = vec![ToolSpec::new("f", "", json!({"type": "object"}))];
        r.tool_choice = ToolChoice::Tool("f".into());
        let b = of(&r, "claude-sonnet-4-5");
        assert!(b.get("thinking").is_none());
        assert_eq!(b["tool_choice"], json!({"type": "tool", "name": "f"}));
        r.tool_choice = ToolChoice::Auto;
        r.messages.push(Message { role: Role::Assistant, parts: vec![Part::ToolCall(call("c"))] });
        r.messages.push(Message::tool_results([ToolResult::new(&call("c"), ToolStatus::Ok, "1")]));
        assert!(of(&r, "claude-sonnet-4-5").get("thinking").is_none(), "the turn began without");
    }
}
