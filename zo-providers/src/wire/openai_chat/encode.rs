//! Bodies of chat completions.

use crate::{
    dialect::{Dialect, EffortField, SchemaField, TokensField},
    wire::{
        media::{Shown, Source, is_picture, refused, shown},
        openai::{generation, is_reasoning_model, is_strict},
        turns::{
            BEGINS, GO_ON, Said, Turn, alias, alternate, args_object, blank, check_choice, marked_system,
            media_note, merge_extra, offered, result_text, turns, with_tools,
        },
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use zo_traits::{
    Effort, Error, ErrorKind, Media, Part, Request, Result, Role, ToolChoice, ToolResult, ToolSpec,
};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Out<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Value>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<Value>,
}

#[derive(Serialize)]
struct Out<'a> {
    role: &'static str,
    /// `null` beside tool calls: some servers refuse a message without the field.
    content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasoning_details: Vec<&'a Value>,
}

impl<'a> Out<'a> {
    fn new(role: &'static str, content: Option<Content<'a>>) -> Self {
        Self {
            role,
            content,
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            reasoning_details: Vec::new(),
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<Piece<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: Url<'a> },
    InputAudio { input_audio: Audio<'a> },
    File { file: File<'a> },
}

#[derive(Serialize)]
struct Url<'a> {
    url: Cow<'a, str>,
}

#[derive(Serialize)]
struct Audio<'a> {
    data: Cow<'a, str>,
    format: &'a str,
}

#[derive(Serialize)]
struct File<'a> {
    filename: &'a str,
    file_data: String,
}

#[derive(Serialize)]
struct Call<'a> {
    id: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: String,
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: &'a Value,
}

/// The body of a completion of `request` by `model`, for `dialect`; `family` names the replay data that may go back.
///
/// OpenAI's models from `gpt-5.4` on call functions over this wire only when they do not reason: with tools on offer they are
/// sent `reasoning_effort: "none"`, whatever the request's effort ([`Request::extra`] wins, as ever).
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a file in the user's newest message that the provider has no place for (of one in an older
/// message, of a picture, and of one in a result, the model is told); [`ErrorKind::Invalid`] for a conversation in which nobody
/// says anything, and for a choice of a tool that is not on offer.
pub fn encode(request: &Request, model: &str, dialect: &Dialect, family: &str) -> Result<Vec<u8>> {
    check_choice(request, "openai.encode")?;
    let openai = dialect.effort == EffortField::ReasoningModels;
    let reasons = is_reasoning_model(model);
    let schema = request.output_schema.as_deref();
    // With tools beside it, the field for a schema may not be there; or there is none.
    let alone = dialect.schema_alone && schema.is_some();
    let crowded = alone && !request.tools.is_empty();
    let ask = schema.filter(|_| crowded || dialect.schema == SchemaField::JsonObject).map(|schema| {
        format!("Answer with one JSON object that obeys this JSON Schema, and nothing else:\n{schema}")
    });
    let stream = (!alone || crowded) && !request.whole;
    let messages = messages(request, dialect, family, ask)?;
    if messages.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "openai.encode",
            "the request has no message with content",
        ));
    }
    let response_format = schema.filter(|_| !crowded).map(|schema| match dialect.schema {
        SchemaField::JsonSchema => {
            let mut spec = json!({ "name": "answer", "schema": schema });
            if let (true, Some(spec)) = (is_strict(schema), spec.as_object_mut()) {
                spec.insert("strict".into(), Value::Bool(true));
            }
            json!({ "type": "json_schema", "json_schema": spec })
        }
        SchemaField::JsonObject => json!({ "type": "json_object" }),
    });
    let effort = request.effort.as_ref().map(Effort::as_str);
    let reasoning_effort = match dialect.effort {
        EffortField::ReasoningEffort => effort,
        EffortField::KnownModels => effort
            .filter(|_| crate::models::known(&dialect.id, model).is_some_and(|m| m.capabilities.reasoning)),
        EffortField::ReasoningModels if reasons => openai_effort(request, model),
        EffortField::ReasoningModels | EffortField::None | EffortField::Reasoning => None,
    };
    let (max_tokens, max_completion_tokens) = match dialect.tokens {
        TokensField::MaxTokens => (request.max_tokens, None),
        TokensField::MaxCompletionTokens => (None, request.max_tokens),
    };
    // OpenAI's reasoning models refuse sampling parameters and stop texts; they have none to set.
    let sampled = !(openai && reasons);
    let body = Body {
        model,
        messages,
        tools: offered(request, dialect).map(tool).collect(),
        tool_choice: if request.tools.is_empty() { None } else { tool_choice(&request.tool_choice, dialect) },
        temperature: request.temperature.filter(|_| sampled),
        top_p: request.top_p.filter(|_| sampled),
        max_tokens,
        max_completion_tokens,
        stop: if sampled { &request.stop } else { &[] },
        response_format,
        reasoning_effort,
        reasoning: effort
            .filter(|_| dialect.effort == EffortField::Reasoning)
            .map(|effort| json!({ "effort": effort })),
        stream,
        stream_options: (stream && dialect.stream_usage).then(|| json!({ "include_usage": true })),
    };
    merge_extra(&body, &request.extra)
        .map_err(|e| Error::new(ErrorKind::Invalid, "openai.encode", format_args!("no JSON: {e}")))
}

fn messages<'a>(
    request: &'a Request,
    dialect: &Dialect,
    family: &str,
    ask: Option<String>,
) -> Result<Vec<Out<'a>>> {
    let (system, turns) = turns(&request.messages);
    // What another provider paused at is no end of a turn, but the end of what can be sent of it.
    let paused = matches!(turns.last(), Some(Turn::Model(parts)) if parts.iter().any(|p| matches!(p, Part::Opaque(_))));
    let turns = alternate(turns);
    let mut out = Vec::with_capacity(request.messages.len() + 1);
    // One system message: many templates take no second one.
    let told = !system.is_empty();
    let lead: Vec<&str> = system.into_iter().chain(ask.as_deref()).collect();
    let lead = (!lead.is_empty()).then(|| lead.join("\n\n"));
    let lead = lead.map(|text| Out::new("system", Some(Content::Text(text.into()))));
    let reasoned = if dialect.replay_reasoning { with_tools(&turns) } else { Vec::new() };
    for (at, turn) in turns.into_iter().enumerate() {
        match turn {
            Turn::Model(parts) => {
                let reasoning = reasoned.get(at).is_some_and(|r| *r);
                out.extend(model_turn(&parts, dialect, family, reasoning));
            }
            Turn::Host { results, said } => host_turn(&results, &said, dialect, &mut out)?,
        }
    }
    if dialect.strict_turns && out.first().is_some_and(|m: &Out<'_>| m.role == "assistant") {
        out.insert(0, Out::new("user", Some(Content::Text(BEGINS.into()))));
    }
    if (dialect.strict_turns || paused) && out.last().is_some_and(|m| m.role == "assistant") {
        out.push(Out::new("user", Some(Content::Text(GO_ON.into()))));
    }
    if told || !out.is_empty() {
        out.splice(0..0, lead);
    }
    Ok(out)
}

fn model_turn<'a>(parts: &[&'a Part], dialect: &Dialect, family: &str, reasoning: bool) -> Option<Out<'a>> {
    let mut out = Out::new("assistant", None);
    let (mut text, mut thoughts) = (Cow::Borrowed(""), String::new());
    for part in parts {
        match part {
            Part::Text(t) | Part::Refusal(t) => match text.is_empty() {
                true => text = Cow::Borrowed(&t.text),
                false => text.to_mut().push_str(&t.text),
            },
            Part::Reasoning(t) if reasoning && t.replay.as_ref().is_some_and(|r| r.provider == family) => {
                thoughts.push_str(&t.text);
            }
            Part::ToolCall(call) => out.tool_calls.push(Call {
                id: wire_id(&call.id, dialect),
                kind: "function",
                function: Function { name: &call.name, arguments: args_object(&call.args).to_string() },
            }),
            // The one field that a server of this wire wants back. Messages that became one: their lists become one, too.
            Part::Opaque(replay) if replay.provider == family && dialect.replay_details => {
                let details = replay.data.get("reasoning_details").and_then(Value::as_array);
                out.reasoning_details.extend(details.into_iter().flatten());
            }
            _ => {}
        }
    }
    out.content = (!blank(&text)).then_some(Content::Text(text));
    // Empty where there was none: the field itself is asked for.
    out.reasoning_content = reasoning.then_some(thoughts);
    (out.content.is_some() || !out.tool_calls.is_empty()).then_some(out)
}

fn host_turn<'a>(
    results: &[&'a ToolResult],
    said: &[Said<'a>],
    dialect: &Dialect,
    out: &mut Vec<Out<'a>>,
) -> Result<()> {
    let mut shown: Vec<Piece<'a>> = Vec::new();
    for result in results {
        let mut text = result_text(result);
        for media in &result.media {
            // A tool message takes text only: pictures follow in a message of their own.
            match piece(media, dialect) {
                Some(piece) => {
                    shown.push(Piece::Text {
                        text: format!("Result of {} ({}):", result.name, result.id).into(),
                    });
                    shown.push(piece);
                }
                None => text = Cow::Owned(format!("{text}\n{}", media_note(media))),
            }
        }
        let mut message = Out::new("tool", Some(Content::Text(text)));
        message.tool_call_id = Some(wire_id(&result.id, dialect));
        out.push(message);
    }
    let mut users: Vec<Vec<Piece<'a>>> = Vec::new();
    if !shown.is_empty() {
        users.push(shown);
    }
    let mut after_system = false;
    for Said { role, parts, asked } in said {
        let system = **role == Role::System;
        if system && dialect.mid_system && !dialect.strict_turns {
            for text in parts.iter().filter_map(|p| p.as_text()).filter(|t| !blank(t)) {
                flush(&mut users, out);
                out.push(Out::new("system", Some(Content::Text(text.into()))));
            }
            continue;
        }
        let mut pieces = Vec::new();
        for part in parts {
            match part {
                Part::Text(t) | Part::Refusal(t) if blank(&t.text) => {}
                Part::Text(t) | Part::Refusal(t) => pieces.push(Piece::Text {
                    text: if system { marked_system(&t.text).into() } else { Cow::Borrowed(&t.text) },
                }),
                Part::Media(media) => pieces.push(match piece(media, dialect) {
                    Some(piece) => piece,
                    None if *asked && !is_picture(media) => {
                        return Err(refused(media, "openai.encode", &dialect.id));
                    }
                    None => Piece::Text { text: media_note(media).into() },
                }),
                _ => {}
            }
        }
        match users.last_mut() {
            _ if pieces.is_empty() => {}
            Some(last) if dialect.strict_turns || system || after_system => {
                last.push(Piece::Text { text: "\n\n".into() });
                last.append(&mut pieces);
                after_system = system;
            }
            _ => {
                users.push(pieces);
                after_system = system;
            }
        }
    }
    if dialect.strict_turns && !results.is_empty() && !users.is_empty() {
        // Strict templates let nobody but the assistant follow a tool.
        out.push(Out::new("assistant", Some(Content::Text("(continued)".into()))));
    }
    flush(&mut users, out);
    Ok(())
}

fn flush<'a>(users: &mut Vec<Vec<Piece<'a>>>, out: &mut Vec<Out<'a>>) {
    for mut pieces in users.drain(..) {
        // Text alone goes as one string, which every server takes; many take nothing else.
        let content = if pieces.iter().all(|p| matches!(p, Piece::Text { .. })) {
            let mut texts =
                pieces.drain(..).filter_map(|p| if let Piece::Text { text } = p { Some(text) } else { None });
            let first = texts.next().unwrap_or_default();
            Content::Text(texts.fold(first, |mut all, next| {
                all.to_mut().push_str(&next);
                all
            }))
        } else {
            pieces.retain(|p| !matches!(p, Piece::Text { text } if blank(text)));
            Content::Parts(pieces)
        };
        out.push(Out::new("user", Some(content)));
    }
}

fn piece<'a>(media: &'a Media, dialect: &Dialect) -> Option<Piece<'a>> {
    let Shown { kind, source } = shown(media)?;
    if dialect.media.as_ref().is_some_and(|taken| taken.iter().all(|t| *t != *kind)) {
        return None;
    }
    let url = |data: &str| format!("data:{kind};base64,{data}");
    Some(match (&*kind, source) {
        // No picture but a text that describes one.
        ("image/svg+xml", _) => return None,
        (kind, source) if kind.starts_with("image/") => {
            let url = match source {
                Source::Link(url) => Cow::Borrowed(url),
                Source::Bytes(data) => Cow::Owned(url(&data)),
            };
            Piece::ImageUrl { image_url: Url { url } }
        }
        ("audio/wav", Source::Bytes(data)) => {
            Piece::InputAudio { input_audio: Audio { data, format: "wav" } }
        }
        ("audio/mpeg", Source::Bytes(data)) => {
            Piece::InputAudio { input_audio: Audio { data, format: "mp3" } }
        }
        ("application/pdf", Source::Bytes(data)) => {
            let filename = media.name.as_deref().filter(|name| !blank(name)).unwrap_or("file.pdf");
            Piece::File { file: File { filename, file_data: url(&data) } }
        }
        _ => return None,
    })
}

fn tool(spec: &ToolSpec) -> Tool<'_> {
    Tool {
        kind: "function",
        function: Spec { name: &spec.name, description: &spec.description, parameters: &spec.input },
    }
}

fn tool_choice(choice: &ToolChoice, dialect: &Dialect) -> Option<Value> {
    match choice {
        ToolChoice::None => Some("none".into()),
        ToolChoice::Required => Some(dialect.required.as_str().into()),
        ToolChoice::Tool(_) if !dialect.tool_by_name => Some(dialect.required.as_str().into()),
        ToolChoice::Tool(name) => Some(json!({ "type": "function", "function": { "name": name } })),
        _ => None,
    }
}

/// OpenAI refuses ids of more than 40 characters, Mistral all but nine letters or digits. Another provider's id may be
/// anything; call and result get the same stand-in.
fn wire_id<'a>(id: &'a str, dialect: &Dialect) -> Cow<'a, str> {
    let fits = if dialect.short_ids {
        id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric())
    } else {
        !id.is_empty() && id.len() <= 40
    };
    match (fits, dialect.short_ids) {
        (true, _) => Cow::Borrowed(id),
        (false, true) => Cow::Owned(alias(id, 9)),
        (false, false) => Cow::Owned(format!("call_{}", alias(id, 20))),
    }
}

/// How one of OpenAI's reasoning models is told to think.
fn openai_effort<'a>(request: &'a Request, model: &str) -> Option<&'a str> {
    let generation = generation(model);
    if generation.is_some_and(|g| g >= (5, 4)) && !request.tools.is_empty() {
        return Some("none");
    }
    match request.effort.as_ref()? {
        // Only plain gpt-5 knows "minimal".
        Effort::Minimal if generation != Some((5, 0)) => Some("low"),
        effort => Some(effort.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use zo_traits::{MediaSource, Message, Replay, Text, ToolCall, ToolStatus};

    fn body(request: &Request, dialect: &str) -> Value {
        let dialect = Dialect::named(dialect).unwrap();
        serde_json::from_slice(&encode(request, "m", dialect, &dialect.id).unwrap()).unwrap()
    }

    fn call(id: &str) -> ToolCall {
        ToolCall::new(id, "f", json!({"a": 1}))
    }

    fn talk() -> Request {
        let calls = [call("c1"), call("c2")];
        let mut results: Vec<_> = calls.iter().map(|c| ToolResult::new(c, ToolStatus::Ok, "fine")).collect();
        results[1].content.clear();
        let reasoning = Text { text: "hm".into(), replay: Some(Replay::new("deepseek", json!({}))) };
        let mut parts = vec![Part::Reasoning(reasoning), Part::text("on it")];
        parts.extend(calls.map(Part::ToolCall));
        parts.push(Part::Opaque(Replay::new("openrouter", json!({"reasoning_details": [1]}))));
        Request::new(
            "",
            [
                Message::system("be brief"),
                Message::user("go"),
                Message { role: Role::Assistant, parts },
                Message::tool_results(results),
                Message::system("note"),
                Message::user(""),
            ],
        )
    }

    #[test]
    fn a_conversation_in_order() {
        assert_eq!(
            body(&talk(), "openai")["messages"],
            json!([
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": "on it", "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                    {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                ]},
                {"role": "tool", "content": "fine", "tool_call_id": "c1"},
                {"role": "tool", "content": "(no output)", "tool_call_id": "c2"},
                {"role": "system", "content": "note"},
            ])
        );
    }

    #[test]
    fn replay_goes_to_its_own_family_only() {
        assert_eq!(body(&talk(), "deepseek")["messages"][2]["reasoning_content"], "hm");
        assert_eq!(body(&talk(), "openrouter")["messages"][2]["reasoning_details"], json!([1]));
        let plain = body(&talk(), "openai")["messages"][2].clone();
        assert!(plain.get("reasoning_content").is_none() && plain.get("reasoning_details").is_none());
        // Of work with tools it goes back for good; "" where there was none; not for plain answers.
        let mut later = talk();
        later.messages.push(Message { role: Role::Assistant, parts: vec![Part::text("done")] });
        later.messages.push(Message::user("next question"));
        later.messages.push(Message::assistant("plain"));
        later.messages.push(Message::user("and?"));
        let sent = body(&later, "deepseek")["messages"].clone();
        assert_eq!(sent[2]["reasoning_content"], "hm");
        let said = |text: &str| {
            sent.as_array()
                .unwrap()
                .iter()
                .find(|m| m["content"] == text)
                .unwrap()
                .get("reasoning_content")
                .cloned()
        };
        assert_eq!((said("done"), said("plain")), (Some(json!("")), None));
    }

    #[test]
    fn replayed_lists_of_merged_messages_are_joined() {
        let part = |n: u32| {
            let details = Part::Opaque(Replay::new("openrouter", json!({"reasoning_details": [n]})));
            Message { role: Role::Assistant, parts: vec![Part::text("x"), details] }
        };
        let r = Request::new("", [Message::user("go"), part(1), part(2)]);
        assert_eq!(body(&r, "openrouter")["messages"][1]["reasoning_details"], json!([1, 2]));
    }

    #[test]
    fn system_text_behind_the_user_goes_into_his_turn() {
        let r = Request::new(
            "",
            [
                Message::system("a"),
                Message::system("b"),
                Message::user("q"),
                Message::system("fact"),
                Message::assistant("ok"),
                Message::system("note"),
                Message::user("more"),
                Message::user("still more"),
            ],
        );
        for row in crate::DIALECTS.iter().filter(|d| d.family == crate::Family::Chat && !d.mid_system) {
            let m = body(&r, &row.id)["messages"].clone();
            assert_eq!(m[0], json!({"role": "system", "content": "a\n\nb"}), "{}", row.id);
            assert_eq!(
                m[1],
                json!({"role": "user", "content": "q\n\n<system>\nfact\n</system>"}),
                "{}",
                row.id
            );
            let last = m[3]["content"].as_str().unwrap();
            assert!(last.starts_with("<system>\nnote\n</system>\n\nmore"), "{}: {last}", row.id);
            assert!(m.as_array().unwrap().iter().skip(1).all(|m| m["role"] != "system"), "{}: {m}", row.id);
        }
        let m = body(&r, "openai")["messages"].clone();
        assert_eq!(
            (&m[0]["content"], &m[2]),
            (&json!("a\n\nb"), &json!({"role": "system", "content": "fact"}))
        );
        let mut schema = r.clone();
        schema.output_schema = Some(Arc::new(json!({"type": "object"})));
        let m = body(&schema, "deepseek")["messages"].clone();
        assert!(m[0]["content"].as_str().unwrap().contains("JSON Schema") && m[1]["role"] == "user", "{m}");
    }

    #[test]
    fn what_openai_models_refuse_is_not_sent() {
        let row = Dialect::named("openai").unwrap();
        let of = |r: &Request, model: &str| -> Value {
            serde_json::from_slice(&encode(r, model, row, "openai").unwrap()).unwrap()
        };
        let mut r = Request::new("", [Message::user("x")]);
        r.effort = Some(Effort::Minimal);
        r.stop = vec!["END".into()];
        for (model, effort) in
            [("gpt-5-mini", "minimal"), ("gpt-5.1", "low"), ("o3-mini", "low"), ("openai/gpt-5.4", "low")]
        {
            let b = of(&r, model);
            assert_eq!(b["reasoning_effort"], effort, "{model}");
            assert!(b.get("stop").is_none(), "{model}");
        }
        assert_eq!(of(&r, "gpt-4.1")["stop"], json!(["END"]));
        r.tools = vec![ToolSpec::new("f", "", json!({"type": "object"}))].into();
        r.effort = Some(Effort::High);
        assert_eq!(of(&r, "gpt-5.4-mini")["reasoning_effort"], "none");
        assert_eq!(of(&r, "gpt-5.3")["reasoning_effort"], "high");
        r.effort = None;
        assert_eq!(of(&r, "gpt-5.10")["reasoning_effort"], "none");
        assert!(of(&r, "gpt-5.2").get("reasoning_effort").is_none());
        r.tool_choice = ToolChoice::Tool("g".into());
        assert_eq!(encode(&r, "m", row, "openai").unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn groq_takes_a_schema_alone() {
        let mut r = Request::new("", [Message::user("x")]);
        assert_eq!(body(&r, "groq")["stream"], true);
        r.output_schema = Some(Arc::new(json!({"type": "object"})));
        let b = body(&r, "groq");
        assert_eq!((&b["stream"], &b["response_format"]["type"]), (&json!(false), &json!("json_schema")));
        assert!(b.get("stream_options").is_none());
        r.tools = vec![ToolSpec::new("f", "", json!({"type": "object"}))].into();
        let b = body(&r, "groq");
        assert!(b["stream"] == true && b.get("response_format").is_none(), "{b}");
        assert!(b["messages"][0]["content"].as_str().unwrap().contains("JSON Schema"), "{b}");
        let b = body(&r, "together");
        assert!(b["stream"] == true && b["response_format"]["type"] == "json_schema", "{b}");
    }

    #[test]
    fn a_message_of_calls_alone_has_null_for_content() {
        let c = call("c1");
        let said = Message { role: Role::Assistant, parts: vec![Part::ToolCall(c.clone())] };
        let r = Request::new("", [said, Message::tool_results([ToolResult::new(&c, ToolStatus::Ok, "1")])]);
        assert_eq!(body(&r, "groq")["messages"][0].get("content"), Some(&Value::Null));
    }

    #[test]
    fn strict_turns_keep_system_text_in_front_and_roles_apart() {
        let m = body(&talk(), "mistral")["messages"].clone();
        assert_eq!(
            m[5],
            json!({"role": "assistant", "content": "(continued)"}),
            "no user right behind a tool"
        );
        assert_eq!(m[6], json!({"role": "user", "content": "<system>\nnote\n</system>"}));
        let id = m[3]["tool_call_id"].as_str().unwrap();
        assert_eq!(id.len(), 9);
        assert_eq!(m[2]["tool_calls"][0]["id"], id);
    }

    #[test]
    fn odd_arguments_and_long_ids_never_brick_a_conversation() {
        let mut odd = call(&"x".repeat(80));
        odd.args = Value::String("{\"a\":".into());
        let r = Request::new(
            "",
            [
                Message { role: Role::Assistant, parts: vec![Part::ToolCall(odd.clone())] },
                Message::tool_results([ToolResult::new(&odd, ToolStatus::Error, "not JSON")]),
            ],
        );
        let b = body(&r, "openai");
        let sent = &b["messages"][0]["tool_calls"][0];
        let args: Value = serde_json::from_str(sent["function"]["arguments"].as_str().unwrap()).unwrap();
        assert_eq!(args, json!({"invalid_arguments": "{\"a\":"}));
        assert!(sent["id"].as_str().unwrap().len() <= 40);
        assert_eq!(sent["id"], b["messages"][1]["tool_call_id"]);
    }

    #[test]
    fn parameters_follow_the_dialect() {
        let mut r = Request::new("", [Message::user("x")]);
        r.tools = vec![ToolSpec::new("f", "", json!({"type": "object"}))].into();
        r.tool_choice = ToolChoice::Required;
        (r.max_tokens, r.temperature, r.effort) = (Some(7), Some(0.7), Some(Effort::Low));
        r.output_schema =
            Some(Arc::new(json!({"type": "object", "properties": {"a": {}}, "required": ["a"],
            "additionalProperties": false})));
        let openai = body(&r, "openai");
        assert_eq!(openai["max_completion_tokens"], 7);
        assert_eq!(openai["temperature"], json!(0.7));
        assert_eq!(openai["tool_choice"], "required");
        assert_eq!(openai["response_format"]["json_schema"]["strict"], true);
        assert_eq!(openai["stream_options"]["include_usage"], true);
        assert!(openai.get("reasoning_effort").is_none(), "not for a model that does not reason");
        let row = Dialect::named("openai").unwrap();
        let o3: Value = serde_json::from_slice(&encode(&r, "o3-mini", row, "openai").unwrap()).unwrap();
        assert_eq!(o3["reasoning_effort"], "low");
        assert!(o3.get("temperature").is_none());
        let mistral = body(&r, "mistral");
        assert_eq!((&mistral["max_tokens"], &mistral["tool_choice"]), (&json!(7), &json!("any")));
        assert!(mistral.get("stream_options").is_none());
        let deepseek = body(&r, "deepseek");
        assert_eq!(deepseek["response_format"], json!({"type": "json_object"}));
        assert!(deepseek["messages"][0]["content"].as_str().unwrap().contains("additionalProperties"));
        assert_eq!(body(&r, "openrouter")["reasoning"]["effort"], "low");
        r = r.tools([ToolSpec::new("g", "", json!({"type": "object"}))]);
        r.tool_choice = ToolChoice::Tool("g".into());
        assert_eq!(body(&r, "openai")["tool_choice"]["function"]["name"], "g");
        let local = body(&r, "llamacpp");
        assert_eq!(
            (&local["tool_choice"], local["tools"].as_array().unwrap().len()),
            (&json!("required"), 1)
        );
    }

    #[test]
    fn extra_wins_and_the_bytes_are_stable() {
        let mut r = talk();
        let row = Dialect::named("openai").unwrap();
        let once = encode(&r, "m", row, "openai").unwrap();
        assert_eq!(once, encode(&r.clone(), "m", row, "openai").unwrap());
        assert!(once.starts_with(b"{\"model\":\"m\",\"messages\":["));
        r.extra.insert("model".into(), "other".into());
        r.extra.insert("seed".into(), 7.into());
        let b = body(&r, "openai");
        assert_eq!((&b["model"], &b["seed"]), (&json!("other"), &json!(7)));
    }

    #[test]
    fn media() {
        let media = |kind: &str| {
            Part::Media(Media {
                media_type: kind.into(),
                source: MediaSource::Base64("QUJD".into()),
                name: None,
            })
        };
        let of = |part: Part| {
            Request::new("", [Message { role: Role::User, parts: vec![Part::text("see"), part] }])
        };
        let b = body(&of(media("image/png")), "openai");
        assert_eq!(b["messages"][0]["content"][1]["image_url"]["url"], "data:image/png;base64,QUJD");
        let e = encode(&of(media("video/mp4")), "m", &Dialect::default(), "x").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        let mut r = talk();
        if let Part::ToolResult(result) = &mut r.messages[3].parts[0] {
            result.media.push(Media {
                media_type: "image/png".into(),
                source: MediaSource::Url("https://x/y.png".into()),
                name: None,
            });
        }
        let m = body(&r, "openai")["messages"].clone();
        assert_eq!(m[5]["role"], "user", "pictures of a result follow all results: {m}");
        assert_eq!(m[5]["content"][1]["image_url"]["url"], "https://x/y.png");
    }

    #[test]
    fn nothing_to_say_is_an_error() {
        let e = encode(&Request::new("", [Message::user("  ")]), "m", &Dialect::default(), "x").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid);
    }
}
