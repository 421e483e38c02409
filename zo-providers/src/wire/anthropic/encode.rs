//! Bodies of the Messages API.

use super::{
    FAMILY,
    model::{Thinking, can_be_forced, max_output, thinking, version},
};
use crate::wire::{
    media::{self, Shown, shown},
    turns::{
        BEGINS, GO_ON, Said, Turn, alias, args_object, blank, check_choice, marked_system, media_note,
        merge_extra, result_text, turns,
    },
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};
use zo_traits::{
    Effort, Error, ErrorKind, Media, Part, Request, Result, Role, ToolCall, ToolChoice, ToolResult,
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
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
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
        rest: BTreeMap<&'a str, &'a Value>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        content: Vec<Block<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Image {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    #[serde(untagged)]
    Verbatim(&'a Value),
}

/// The prompt up to here is worth keeping: for five minutes, the API's default.
#[derive(Serialize)]
#[serde(tag = "type", rename = "ephemeral")]
struct CacheControl {}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: Cow<'a, str>, data: Cow<'a, str> },
    Url { url: &'a str },
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    input_schema: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

/// Longest answer when the caller sets none; the API insists on one. Models of which less is known get less.
const MAX_TOKENS: u32 = 16_384;

/// The body of an answer to `request` by `model`, streamed unless the request wants it [whole](Request::whole).
///
/// A conversation, and a request with tools, will be sent again with more at its end: the API is told to keep the prompt up
/// to the tools, the system text, and the two newest turns of the user. The second last is where the prompt was kept the
/// time before. A first question without tools is not kept, since that would cost a quarter more for nothing. Nor does it add
/// marks where [`Request::extra`] holds some: four are the most, and one of a longer time may not follow a shorter one's.
///
/// Models that refuse a demand for a tool ([`ToolChoice::Required`], [`ToolChoice::Tool`]) are told in words.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a file in the user's newest message that the API has no place for (of one in an older message,
/// of a picture, and of one in a result, the model is told); [`ErrorKind::Invalid`] for a conversation in which nobody says
/// anything, and for a choice of a tool that is not on offer.
pub fn encode(request: &Request, model: &str) -> Result<Vec<u8>> {
    check_choice(request, "anthropic.encode")?;
    let (system, turns) = turns(&request.messages);
    let mut messages = Vec::with_capacity(turns.len() + 1);
    let broken = unpaired(&turns);
    for (at, turn) in turns.iter().enumerate() {
        let out = match turn {
            Turn::Model(parts) => {
                let whole = |n: &usize| !broken.contains(&(at, *n));
                let parts = parts.iter().enumerate().filter(|(n, _)| whole(n)).map(|(_, part)| *part);
                Out { role: "assistant", content: model_turn(parts) }
            }
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
        let content = vec![Block::text(BEGINS)];
        messages.insert(0, Out { role: "user", content });
    }
    // It refuses an assistant's last words that end in white space.
    if let Some(Out { role: "assistant", content }) = messages.last_mut()
        && let Some(Block::Text { text, .. }) = content.last_mut()
    {
        *text = Cow::Owned(text.trim_end().to_owned());
    }
    // It goes on by itself only with what its own tools left; to a model that paused elsewhere it must be said.
    let paused = |parts: &[&Part]| parts.iter().any(|p| matches!(p, Part::Opaque(_)));
    if let (Some(Turn::Model(parts)), Some(Out { role: "assistant", content })) =
        (turns.last(), messages.last())
        && paused(parts)
        && !content.iter().any(|b| matches!(b, Block::Verbatim(_)) && !b.is_thought())
    {
        messages.push(Out { role: "user", content: vec![Block::text(GO_ON)] });
    }

    let forced = match &request.tool_choice {
        ToolChoice::Required => Some("Answer by calling at least one of the tools.".to_owned()),
        ToolChoice::Tool(name) => Some(format!("Answer by calling the tool {name}.")),
        _ => None,
    };
    let choice = match forced.filter(|_| !request.tools.is_empty() && !can_be_forced(model)) {
        _ if request.tools.is_empty() => None,
        // At the end, since thoughts hold only as long as nothing before them changes.
        Some(ask) => {
            push(&mut messages, Out { role: "user", content: vec![Block::text(marked_system(&ask))] });
            None
        }
        None => tool_choice(&request.tool_choice),
    };
    let known = max_output(model).map_or(MAX_TOKENS, |most| most.min(MAX_TOKENS));
    let mut max_tokens = request.max_tokens.unwrap_or(known);
    let mut output_config = Map::new();
    if let Some(schema) = &request.output_schema {
        output_config.insert("format".into(), json!({ "type": "json_schema", "schema": schema }));
    }
    // Neither a forced tool nor an unfinished turn that began without thinking goes together with thinking.
    let may_think = !matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Tool(_))
        && !in_thoughtless_turn(&messages);
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
    let mut system: Vec<_> = system.into_iter().map(Block::text).collect();
    let mut tools: Vec<_> = request
        .tools
        .iter()
        .map(|t| Tool {
            name: &t.name,
            description: &t.description,
            input_schema: &t.input,
            cache_control: None,
        })
        .collect();
    if (!tools.is_empty() || messages.iter().any(|m| m.role == "assistant")) && !marks(&request.extra) {
        if let Some(tool) = tools.last_mut() {
            tool.cache_control = Some(CacheControl {});
        }
        system.last_mut().map(Block::cache);
        let users = messages.iter_mut().rev().filter(|m| m.role == "user");
        users.take(2).filter_map(|m| m.content.last_mut()).for_each(Block::cache);
    }
    let body = Body {
        model,
        max_tokens,
        system,
        messages,
        tools,
        tool_choice: choice,
        temperature,
        top_p,
        stop_sequences: &request.stop,
        thinking,
        output_config,
        stream: !request.whole,
    };
    merge_extra(&body, &request.extra)
        .map_err(|e| Error::new(ErrorKind::Invalid, "anthropic.encode", format_args!("no JSON: {e}")))
}

/// Does the API refuse thoughts that were sent back? They hold for the very conversation, model and account that they came from:
/// a prompt that changed, or a history that was shortened, makes them worthless.
pub(crate) fn refuses_thoughts(e: &Error) -> bool {
    let says = |word: &str| e.message().contains(word);
    e.kind() == ErrorKind::Invalid && says("signature") && says("thinking")
}

/// The request without the model's thoughts; `None` where there are none.
pub(crate) fn without_thoughts(request: &Request) -> Option<Request> {
    let thought = |part: &Part| match part {
        Part::Reasoning(_) => true,
        Part::Opaque(replay) => text_of(&replay.data, "type").ends_with("thinking"),
        _ => false,
    };
    if !request.messages.iter().flat_map(|m| &m.parts).any(thought) {
        return None;
    }
    let mut bare = request.clone();
    bare.messages.iter_mut().for_each(|m| m.parts.retain(|part| !thought(part)));
    Some(bare)
}

/// The body that asks how many tokens the prompt of `request` has.
///
/// # Errors
/// As [`encode`].
pub fn count_body(request: &Request, model: &str) -> Result<Vec<u8>> {
    let unreadable =
        |e| Error::new(ErrorKind::Invalid, "anthropic.encode", format_args!("cannot be counted: {e}"));
    let bytes = encode(request, model)?;
    let mut body: BTreeMap<&str, &serde_json::value::RawValue> =
        serde_json::from_slice(&bytes).map_err(unreadable)?;
    body.retain(|key, _| ["model", "messages", "system", "tools", "tool_choice", "thinking"].contains(key));
    serde_json::to_vec(&body).map_err(unreadable)
}

/// Reads the answer to [`count_body`].
///
/// # Errors
/// [`ErrorKind::Corrupt`] when it holds no count.
pub fn counted(body: &[u8]) -> Result<u64> {
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    answer.and_then(|a| a.get("input_tokens")?.as_u64()).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "anthropic.count", "the answer holds no count of tokens")
    })
}

/// Do the caller's own fields say what is to be kept?
fn marks(extra: &Map<String, Value>) -> bool {
    fn marked(value: &Value) -> bool {
        match value {
            Value::Object(map) => map.contains_key("cache_control") || map.values().any(marked),
            Value::Array(all) => all.iter().any(marked),
            _ => false,
        }
    }
    extra.contains_key("cache_control")
        || ["tools", "system", "messages"].iter().any(|key| extra.get(*key).is_some_and(marked))
}

impl<'a> Block<'a> {
    fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text { text: text.into(), citations: None, cache_control: None }
    }

    /// Marks the end of what is worth keeping.
    fn cache(&mut self) {
        if let Self::Text { cache_control, .. }
        | Self::ToolResult { cache_control, .. }
        | Self::Image { cache_control, .. }
        | Self::Document { cache_control, .. } = self
        {
            *cache_control = Some(CacheControl {});
        }
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

fn model_turn<'a>(parts: impl Iterator<Item = &'a Part>) -> Vec<Block<'a>> {
    let mut out: Vec<Block<'a>> = parts
        .filter_map(|part| {
            Some(match part {
                Part::Text(t) | Part::Refusal(t) if blank(&t.text) => return None,
                Part::Text(t) | Part::Refusal(t) => {
                    let own = t.replay.as_ref().filter(|r| r.provider == FAMILY);
                    Block::Text {
                        text: Cow::Borrowed(&t.text),
                        citations: own
                            .and_then(|r| r.data.get("citations"))
                            .filter(|c| c.as_array().is_some_and(|all| !all.is_empty())),
                        cache_control: None,
                    }
                }
                Part::Reasoning(t) => {
                    let own = t.replay.as_ref().filter(|r| r.provider == FAMILY)?;
                    // The API checks the signature: without one there is nothing to send back.
                    let signature = own.data.get("signature")?.as_str().filter(|s| !s.is_empty())?;
                    Block::Thinking { thinking: &t.text, signature }
                }
                Part::ToolCall(call) => tool_use(call),
                Part::Opaque(replay) if replay.provider == FAMILY && is_whole(&replay.data) => {
                    Block::Verbatim(&replay.data)
                }
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
        rest: call
            .replay
            .as_ref()
            .filter(|r| r.provider == FAMILY)
            .and_then(|r| r.data.as_object())
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value))
            .filter(|(key, _)| !matches!(*key, "type" | "id" | "name" | "input"))
            .collect(),
    }
}

fn text_of<'a>(block: &'a Value, key: &str) -> &'a str {
    block.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Can it go back as it is? What the wire has parts for comes as these, never as a block of its provider's own.
fn is_whole(block: &Value) -> bool {
    match text_of(block, "type") {
        "" | "text" | "image" | "document" | "tool_use" | "tool_result" => false,
        "thinking" => {
            block.get("thinking").is_some_and(Value::is_string) && !text_of(block, "signature").is_empty()
        }
        "redacted_thinking" => !text_of(block, "data").is_empty(),
        kind if kind.ends_with("tool_use") => !text_of(block, "id").is_empty(),
        _ => true,
    }
}

/// Places (turn, part) of calls and results of the provider's own tools that lack their counterpart, as when an answer was
/// cut: the API refuses the one without the other. A call may wait for its result as long as the model's turn lasts.
fn unpaired(turns: &[Turn<'_>]) -> HashSet<(usize, usize)> {
    let (mut out, mut known, mut open) = (HashSet::new(), HashSet::new(), HashMap::new());
    for (at, turn) in turns.iter().enumerate() {
        match turn {
            Turn::Host { results, .. } if results.is_empty() => {
                out.extend(open.drain().map(|(_, place)| place))
            }
            Turn::Host { .. } => {}
            Turn::Model(parts) => {
                for (n, part) in parts.iter().enumerate() {
                    let Part::Opaque(replay) = part else { continue };
                    if replay.provider != FAMILY {
                        continue;
                    }
                    let (id, answers) = (text_of(&replay.data, "id"), text_of(&replay.data, "tool_use_id"));
                    let fine = if !answers.is_empty() {
                        open.remove(answers).is_some()
                    } else if text_of(&replay.data, "type").ends_with("tool_use") {
                        let new = known.insert(id);
                        if new {
                            open.insert(id, (at, n));
                        }
                        new
                    } else {
                        true
                    };
                    if !fine {
                        out.insert((at, n));
                    }
                }
            }
        }
    }
    out
}

fn host_turn<'a>(results: &[&'a ToolResult], said: &[Said<'a>]) -> Result<Vec<Block<'a>>> {
    let mut out: Vec<Block<'a>> = results
        .iter()
        .map(|result| {
            let mut content = vec![Block::text(result_text(result))];
            content.extend(result.media.iter().map(media_or_note));
            let (tool_use_id, is_error) = (wire_id(&result.id), result.is_error());
            Block::ToolResult { tool_use_id, content, is_error, cache_control: None }
        })
        .collect();
    for Said { role, parts, asked } in said {
        for part in parts {
            match part {
                Part::Text(t) | Part::Refusal(t) if blank(&t.text) => {}
                Part::Text(t) | Part::Refusal(t) => out.push(if **role == Role::System {
                    Block::text(marked_system(&t.text))
                } else {
                    Block::text(&*t.text)
                }),
                Part::Media(m) if !asked || media::is_picture(m) => out.push(media_or_note(m)),
                Part::Media(m) => out
                    .push(media(m).ok_or_else(|| media::refused(m, "anthropic.encode", "the Messages API"))?),
                _ => {}
            }
        }
    }
    Ok(out)
}

/// Longest title of a document, in characters.
const MAX_TITLE: usize = 500;

fn media(media: &Media) -> Option<Block<'_>> {
    let Shown { kind, source } = shown(media)?;
    let document = match &*kind {
        "image/jpeg" | "image/png" | "image/gif" | "image/webp" => false,
        "application/pdf" => true,
        _ => return None,
    };
    let source = match source {
        // Its servers follow no other links.
        media::Source::Link(url) if media::starts(url, "https:") => Source::Url { url },
        media::Source::Link(_) => return None,
        media::Source::Bytes(data) => Source::Base64 { media_type: kind, data },
    };
    Some(match document {
        true => {
            let title = media.name.as_deref().filter(|name| !blank(name));
            let title = title.map(|name| name.chars().take(MAX_TITLE).collect());
            Block::Document { source, title, cache_control: None }
        }
        false => Block::Image { source, cache_control: None },
    })
}

fn media_or_note(file: &Media) -> Block<'_> {
    media(file).unwrap_or_else(|| Block::text(media_note(file)))
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

/// Is the model in the middle of a turn (its tool results are being sent) that holds no thinking? The API does not let thinking
/// begin there.
fn in_thoughtless_turn(messages: &[Out<'_>]) -> bool {
    let [.., Out { role: "assistant", content }, Out { role: "user", content: results }] = messages else {
        return false;
    };
    matches!(results.first(), Some(Block::ToolResult { .. })) && !content.iter().any(Block::is_thought)
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
    use zo_traits::{Accumulator, MediaSource, Message, Replay, Text, ToolSpec, ToolStatus};

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
        let kept = json!({"type": "ephemeral"});
        assert_eq!(b["system"], json!([{"type": "text", "text": "be brief", "cache_control": kept}]));
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
                {"type": "text", "text": "<system>\nnote\n</system>", "cache_control": kept},
            ])
        );
    }

    #[test]
    fn the_prompt_is_kept_where_it_will_be_sent_again() {
        let marks = |r: &Request| {
            let b = body(r);
            let marked = |v: &Value| v["cache_control"]["type"] == "ephemeral";
            let last = |v: &Value| v.as_array().and_then(|all| all.last().map(marked)).unwrap_or_default();
            let turns: Vec<bool> =
                b["messages"].as_array().unwrap().iter().map(|m| last(&m["content"])).collect();
            (last(&b["tools"]), last(&b["system"]), turns, b.to_string().matches("ephemeral").count())
        };
        let mut r = Request::new("", [Message::system("be brief"), Message::user("a")]);
        assert_eq!(marks(&r), (false, false, vec![false], 0), "asked once, it would cost more");
        r.tools = vec![ToolSpec::new("f", "", json!({"type": "object"}))].into();
        assert_eq!(marks(&r), (true, true, vec![true], 3));
        for text in ["b", "c"] {
            r.messages.extend([Message::assistant("x"), Message::user(text)]);
        }
        // Where the turn before ended is found again; the limit of the API is four.
        assert_eq!(marks(&r), (true, true, vec![false, false, true, false, true], 4));
        assert_eq!(
            serde_json::from_slice::<Value>(&count_body(&r, "m").unwrap()).unwrap()["max_tokens"],
            Value::Null
        );
        // Who marks himself may have used up the four, and longer times must come first.
        let hour = json!({"type": "ephemeral", "ttl": "1h"});
        for (key, value) in [
            ("system", json!([{"type": "text", "text": "x", "cache_control": hour}])),
            ("tools", json!([{"name": "g", "input_schema": {"type": "object"}, "cache_control": hour}])),
            ("cache_control", hour.clone()),
        ] {
            let mut r = r.clone();
            r.extra.insert(key.into(), value);
            assert_eq!(body(&r).to_string().matches("ephemeral").count(), 1, "{key}");
        }
        r.extra.insert("system".into(), json!("x"));
        assert_eq!(body(&r).to_string().matches("ephemeral").count(), 3);
        r.extra.clear();
        assert_eq!(counted(br#"{"input_tokens": 7}"#).unwrap(), 7);
        assert_eq!(counted(b"{}").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn what_may_not_be_demanded_is_asked_for() {
        let mut r = Request::new("", [Message::user("a")]);
        r.tools = vec![ToolSpec::new("f", "", json!({"type": "object"}))].into();
        r.tool_choice = ToolChoice::Tool("f".into());
        let of = |model: &str| -> Value { serde_json::from_slice(&encode(&r, model).unwrap()).unwrap() };
        assert_eq!(of("claude-opus-5")["tool_choice"], json!({"type": "tool", "name": "f"}));
        let b = of("claude-opus-5-5");
        assert!(b.get("tool_choice").is_none(), "{b}");
        assert_eq!(
            b["messages"][0]["content"][1]["text"],
            "<system>\nAnswer by calling the tool f.\n</system>"
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
        r.tools = vec![ToolSpec::new("f", "", json!({"type": "object"}))].into();
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
