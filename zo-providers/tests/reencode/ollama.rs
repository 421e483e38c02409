//! Recorded requests to Ollama's `/api/chat`, made into requests of ours and held against what the encoder makes of them.
//!
//! What differs by design, and is taken off before the two are compared:
//!
//! * ours has `options.num_ctx`, `truncate` and `shift`, which say that nothing may be forgotten silently;
//! * ours has ids on calls and results, which newer servers go by; theirs may have a call's `type` and `index`;
//! * `stream` is always said; empty `options`, `tools`, `format`, `think` and texts stand for nothing;
//! * leading system messages are one, and users' messages that follow each other are one; a system message behind them is a
//!   marked part of the user's turn;
//! * thoughts go back only between a question and the next in which tools were called;
//! * a level of thinking is yes or no, except for `gpt-oss`, which knows only levels;
//! * a schema beside tools is asked for in words;
//! * pictures of a tool stand in a user's message behind it, with words that say so.

#![allow(unreachable_pub)]

use serde_json::{Map, Value, json};
use std::{collections::VecDeque, sync::Arc};
use zo_traits::{
    Effort, Media, MediaSource, Message, Part, Replay, Request, Role, Text, ToolCall, ToolResult, ToolSpec,
    ToolStatus,
};

/// The request that a recorded body stands for. `None` when it has something that a [`Request`] has no word for.
pub fn request_of(body: &Value) -> Option<Request> {
    let mut request = Request::new(body["model"].as_str()?, messages(body["messages"].as_array()?)?);
    for (key, value) in body.as_object()? {
        match (key.as_str(), value) {
            ("model" | "messages", _) | (_, Value::Null) => {}
            ("stream", stream) => request.whole = stream == &json!(false),
            ("tools", tools) => {
                request = request.tools(tools.as_array()?.iter().map(tool).collect::<Option<Vec<_>>>()?);
            }
            ("format", schema @ Value::Object(_)) => request.output_schema = Some(Arc::new(schema.clone())),
            ("format", Value::String(text)) if text.is_empty() => {}
            ("think", think) => request.effort = Some(effort(think)?),
            ("options", Value::Object(options)) => {
                let rest = parameters(options, &mut request);
                if !rest.is_empty() {
                    request.extra.insert("options".into(), rest.into());
                }
            }
            (_, value) => drop(request.extra.insert(key.clone(), value.clone())),
        }
    }
    Some(request)
}

/// Options that a request has words for; gives back the others.
fn parameters(options: &Map<String, Value>, request: &mut Request) -> Map<String, Value> {
    let mut rest = options.clone();
    let float = |v: &Value| v.as_f64().map(|n| n as f32);
    let count = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    let texts =
        |v: &Value| v.as_array()?.iter().map(|t| t.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    for (key, value) in options {
        let known = match key.as_str() {
            "temperature" => (request.temperature = float(value), request.temperature.is_some()).1,
            "top_p" => (request.top_p = float(value), request.top_p.is_some()).1,
            "num_predict" => (request.max_tokens = count(value), request.max_tokens.is_some()).1,
            "stop" => texts(value).map(|t| request.stop = t).is_some(),
            _ => false,
        };
        if known {
            rest.remove(key);
        }
    }
    rest
}

fn effort(think: &Value) -> Option<Effort> {
    Some(match think {
        Value::Bool(false) => Effort::Minimal,
        Value::Bool(true) => Effort::Medium,
        Value::String(level) => Effort::from(level.as_str()),
        _ => return None,
    })
}

fn tool(tool: &Value) -> Option<ToolSpec> {
    let function = &tool["function"];
    let schema = match &function["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}}),
        schema => schema.clone(),
    };
    Some(ToolSpec::new(
        function["name"].as_str()?,
        function["description"].as_str().unwrap_or_default(),
        schema,
    ))
}

fn messages(recorded: &[Value]) -> Option<Vec<Message>> {
    let mut out: Vec<Message> = Vec::new();
    let (mut open, mut n) = (VecDeque::<ToolCall>::new(), 0);
    for message in recorded {
        let content = message["content"].as_str().unwrap_or_default();
        let text = (!content.is_empty()).then(|| Part::text(content));
        let images: Vec<Media> =
            message["images"].as_array().into_iter().flatten().map(image).collect::<Option<_>>()?;
        match message["role"].as_str()? {
            "system" => out.push(Message { role: Role::System, parts: text.into_iter().collect() }),
            "user" => {
                let parts = text.into_iter().chain(images.into_iter().map(Part::Media)).collect();
                out.push(Message { role: Role::User, parts });
            }
            "assistant" => {
                let thinking = message["thinking"].as_str().filter(|t| !t.is_empty()).map(|t| {
                    Part::Reasoning(Text { text: t.into(), replay: Some(Replay::new("ollama", json!({}))) })
                });
                let mut parts: Vec<Part> = thinking.into_iter().chain(text).collect();
                open.clear();
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    let id = call["id"].as_str().map_or_else(|| format!("call_{n}"), str::to_owned);
                    let args = call["function"]["arguments"].clone();
                    let call = ToolCall::new(id, call["function"]["name"].as_str()?, args);
                    open.push_back(call.clone());
                    parts.push(Part::ToolCall(call));
                    n += 1;
                }
                out.push(Message { role: Role::Assistant, parts });
            }
            "tool" => {
                // By id, by name, by order: whatever is said.
                let by = |key: &str, of: &dyn Fn(&ToolCall) -> String| {
                    message[key].as_str().and_then(|wanted| open.iter().position(|call| of(call) == wanted))
                };
                let at =
                    by("tool_call_id", &|c| c.id.clone()).or_else(|| by("tool_name", &|c| c.name.clone()));
                let call = open.remove(at.unwrap_or(0))?;
                let mut result = ToolResult::new(&call, ToolStatus::Ok, content);
                result.media = images;
                let result = Part::ToolResult(result);
                match out.last_mut() {
                    Some(Message { role: Role::Tool, parts }) => parts.push(result),
                    _ => out.push(Message { role: Role::Tool, parts: vec![result] }),
                }
            }
            _ => return None,
        }
    }
    Some(out)
}

fn image(data: &Value) -> Option<Media> {
    let source = MediaSource::Base64(data.as_str()?.to_owned());
    Some(Media { media_type: "image/png".into(), source, name: None })
}

/// Does `ours` ask for the same as `recorded`, but for what the head of this file lists?
///
/// # Errors
/// What differs.
pub fn equivalent(recorded: &Value, ours: &Value) -> Result<(), String> {
    let (mut theirs, mut mine) = (recorded.clone(), ours.clone());
    if ours["stream"].as_bool().is_none() {
        return Err("ours does not say whether to stream".into());
    }
    if recorded["options"].get("num_ctx").is_none_or(Value::is_null)
        && ours["options"]["num_ctx"].as_u64() < Some(8192)
    {
        return Err("ours asks for no window".into());
    }
    words_for_schema(&mut theirs, &mut mine)?;
    let with_levels = recorded["model"].as_str().is_some_and(|m| m.to_lowercase().contains("gpt-oss"));
    for body in [&mut theirs, &mut mine] {
        plain(body, recorded, with_levels);
    }
    let keys = |body: &Value| body.as_object().into_iter().flat_map(Map::keys).cloned().collect::<Vec<_>>();
    for key in keys(&theirs).into_iter().chain(keys(&mine)) {
        let (theirs, mine) = (&theirs[&key], &mine[&key]);
        if key == "messages" {
            let (theirs, mine) = (theirs.as_array(), mine.as_array());
            for (n, (theirs, mine)) in
                theirs.into_iter().flatten().zip(mine.into_iter().flatten()).enumerate()
            {
                if theirs != mine {
                    return Err(format!("message {n}: {theirs} became {mine}"));
                }
            }
        }
        if theirs != mine {
            return Err(format!("{key}: {theirs} became {mine}"));
        }
    }
    Ok(())
}

/// Beside tools a schema is words of the system, at its end.
fn words_for_schema(theirs: &mut Value, mine: &mut Value) -> Result<(), String> {
    let tools = theirs["tools"].as_array().is_some_and(|t| !t.is_empty());
    let Some(schema) = theirs["format"].as_object().filter(|_| tools) else { return Ok(()) };
    let schema = Value::Object(schema.clone()).to_string();
    let system = mine["messages"][0]["content"].as_str().unwrap_or_default();
    let (rest, words) =
        system.rsplit_once("Unless you call a tool, ").ok_or("the schema is not asked for")?;
    if !words.ends_with(&schema) {
        return Err(format!("another schema is asked for: {words}"));
    }
    match rest.trim_end().to_owned() {
        rest if rest.is_empty() => drop(mine["messages"].as_array_mut().map(|m| m.remove(0))),
        rest => mine["messages"][0]["content"] = rest.into(),
    }
    theirs["format"] = Value::Null;
    Ok(())
}

/// A body without what may differ.
fn plain(body: &mut Value, recorded: &Value, with_levels: bool) {
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    body["messages"] = plain_messages(messages).into();
    let had = |key: &str| recorded.get(key).is_some();
    let Some(map) = body.as_object_mut() else { return };
    for key in ["truncate", "shift"] {
        if !had(key) {
            map.remove(key);
        }
    }
    map.entry("stream").or_insert(json!(true));
    if let Some(think) = map.get_mut("think") {
        *think = match &*think {
            Value::Null => Value::Null,
            // The level that yes and no stand for.
            Value::Bool(yes) if with_levels => json!(if *yes { "medium" } else { "low" }),
            Value::String(level) if with_levels && level == "max" => json!("high"),
            Value::String(level) if with_levels && level == "minimal" => json!("low"),
            other if with_levels => other.clone(),
            other => {
                json!(!matches!(other.as_str(), Some("none" | "off" | "minimal")) && *other != json!(false))
            }
        };
    }
    if let Some(Value::Object(options)) = map.get_mut("options") {
        if recorded["options"].get("num_ctx").is_none_or(Value::is_null) {
            options.remove("num_ctx");
        }
        options.retain(|_, v| !v.is_null() && *v != json!([]));
        for value in options.values_mut().filter(|v| v.is_number()) {
            // 0.7 as 32 bits and as 64.
            *value = json!(value.as_f64().map(|n| n as f32));
        }
    }
    if let Some(Value::Array(tools)) = map.get_mut("tools") {
        for tool in tools {
            let spec = &mut tool["function"];
            if spec["description"].as_str().is_none_or(str::is_empty) {
                spec.as_object_mut().map(|s| s.remove("description"));
            }
            if spec["parameters"].is_null() {
                spec["parameters"] = json!({"type": "object", "properties": {}});
            }
            tool["type"] = "function".into();
        }
    }
    map.retain(|_, v| !v.is_null() && *v != json!({}) && *v != json!([]) && *v != json!(""));
}

fn plain_messages(messages: Vec<Value>) -> Vec<Value> {
    let lead = messages.iter().take_while(|m| m["role"] == "system").count();
    let mut out: Vec<Value> = Vec::new();
    for (n, mut message) in messages.into_iter().enumerate() {
        let content = message["content"].as_str().unwrap_or_default().to_owned();
        let content = if content.trim().is_empty() { String::new() } else { content };
        // The words that go with the picture of a tool.
        let about = |line: &&str| !line.starts_with("A picture is part of the result of ");
        let content = content.split("\n\n").filter(about).collect::<Vec<_>>().join("\n\n");
        message["content"] = content.into();
        if n >= lead && message["role"] == "system" {
            let marked = format!("<system>\n{}\n</system>", message["content"].as_str().unwrap_or_default());
            message = json!({"role": "user", "content": marked});
        }
        let pictures = match message["role"] == "tool" {
            true => message.as_object_mut().and_then(|m| m.remove("images")),
            false => None,
        };
        if let Some(map) = message.as_object_mut() {
            map.remove("tool_call_id");
            map.retain(|_, v| !v.is_null() && *v != json!([]) && *v != json!(""));
            map.entry("content").or_insert(json!(""));
        }
        for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
            let function = &call["function"];
            *call = json!({"function": {"name": function["name"], "arguments": function["arguments"]}});
        }
        if message["tool_calls"].is_null() {
            message.as_object_mut().map(|m| m.remove("tool_calls"));
        }
        push(&mut out, message);
        if let Some(pictures) = pictures {
            push(&mut out, json!({"role": "user", "content": "", "images": pictures}));
        }
    }
    // Results have names, though order may have been enough.
    let mut open = VecDeque::new();
    for message in &mut out {
        match message["role"].as_str() {
            Some("assistant") => {
                let calls = message["tool_calls"].as_array().into_iter().flatten();
                open = calls.map(|c| c["function"]["name"].clone()).collect();
            }
            Some("tool") if message["tool_name"].is_null() => {
                message["tool_name"] = open.pop_front().unwrap_or_default()
            }
            Some("tool") => {
                drop(open.iter().position(|o| *o == message["tool_name"]).and_then(|at| open.remove(at)))
            }
            _ => {}
        }
    }
    // Thoughts outside of work with tools do not go back.
    for span in out.chunk_by_mut(|_, next| next["role"] != "user") {
        if !span.iter().any(|m| m["tool_calls"].is_array()) {
            for message in span {
                message.as_object_mut().map(|m| m.remove("thinking"));
            }
        }
    }
    out.retain(|m| {
        m["role"] == "tool"
            || m["tool_calls"].is_array()
            || m["images"].is_array()
            || m["content"] != json!("")
    });
    out
}

/// Joins what follows what the same speaker said.
fn push(out: &mut Vec<Value>, message: Value) {
    let Some(last) = out.last_mut().filter(|l| l["role"] == message["role"] && message["role"] != "tool")
    else {
        return out.push(message);
    };
    let between = if message["role"] == "assistant" { "" } else { "\n\n" };
    let texts = [&*last, &message].map(|m| m["content"].as_str().unwrap_or_default().to_owned());
    let between = if texts.iter().any(String::is_empty) { "" } else { between };
    last["content"] = texts.join(between).into();
    for key in ["images", "tool_calls"] {
        let more = message[key].as_array().cloned().unwrap_or_default();
        if !more.is_empty() {
            let all = last[key].as_array().cloned().unwrap_or_default();
            last[key] = all.into_iter().chain(more).collect();
        }
    }
    if let Some(more) = message["thinking"].as_str() {
        last["thinking"] = (last["thinking"].as_str().unwrap_or_default().to_owned() + more).into();
    }
}
