//! Recorded requests of the Messages API, turned into [`Request`]s, and held against what we make of these.
//!
//! Our body is equivalent, not equal. By design:
//! * `stream` is always said; `null`, empty lists, `tool_choice: auto`, `is_error: false` and empty descriptions are not.
//! * Content is a list of blocks, the system text too; blank texts are left out, results of tools come first, and messages of
//!   one speaker are one.
//! * Text of a result is one block.
//! * Blocks and tools are marked where the prompt is worth keeping.
//! * Thoughts at the end of a turn, and white space at the end of the conversation, are cut off.
//! * The newest models are sent no sampling parameters, and others from 4.1 on only one of the two.

use super::differ;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use zo_traits::{
    Media, MediaSource, Message, Part, Replay, Request, Role, Text, ToolCall, ToolChoice, ToolResult,
    ToolSpec, ToolStatus,
};

/// The family under which replay data is given.
pub const FAMILY: &str = "anthropic";

/// A recorded body in our words. What has no word of ours goes into [`Request::extra`].
///
/// # Errors
/// What has no place there either.
pub fn request_of(body: &Value) -> Result<Request, String> {
    let mut rest = body.as_object().ok_or("no object")?.clone();
    rest.retain(|_, value| !value.is_null());
    let mut take = |key: &str| rest.remove(key);
    let model = take("model").unwrap_or_default();
    let mut request = Request::new(model.as_str().ok_or("no model")?, []);
    request.whole = take("stream") != Some(Value::Bool(true));
    let system = blocks(&take("system").unwrap_or_default());
    let system =
        system.iter().map(|block| Part::text(block["text"].as_str().unwrap_or_default())).collect::<Vec<_>>();
    if !system.is_empty() {
        request.messages.push(Message { role: Role::System, parts: system });
    }
    for message in take("messages").as_ref().and_then(Value::as_array).into_iter().flatten() {
        self::message(message, &mut request.messages)?;
    }
    let mut extra = Map::new();
    if let Some(tools) = take("tools") {
        match tools.as_array().map(|all| all.iter().map(tool).collect::<Option<Vec<_>>>()) {
            Some(Some(tools)) => request = request.tools(tools),
            _ => drop(extra.insert("tools".into(), tools)),
        }
    }
    if let Some(choice) = take("tool_choice") {
        let alone = choice["disable_parallel_tool_use"] != true;
        let offered = alone && !request.tools.is_empty();
        request.tool_choice = match (choice["type"].as_str(), choice["name"].as_str()) {
            (Some("auto"), _) if alone => ToolChoice::Auto,
            (Some("none"), _) if offered => ToolChoice::None,
            (Some("any"), _) if offered => ToolChoice::Required,
            (Some("tool"), Some(name)) if offered => ToolChoice::Tool(name.into()),
            _ => {
                extra.insert("tool_choice".into(), choice);
                ToolChoice::Auto
            }
        };
    }
    let float = |v: Value| v.as_f64().map(|f| f as f32);
    request.temperature = take("temperature").and_then(float);
    request.top_p = take("top_p").and_then(float);
    request.max_tokens = take("max_tokens").and_then(|n| n.as_u64()).map(|n| n as u32);
    for stop in take("stop_sequences").as_ref().and_then(Value::as_array).into_iter().flatten() {
        request.stop.push(stop.as_str().unwrap_or_default().to_owned());
    }
    if let Some(config) = take("output_config") {
        match (config.as_object().map(Map::len), config["format"].get("schema")) {
            (Some(1), Some(schema)) => request.output_schema = Some(Arc::new(schema.clone())),
            _ => drop(extra.insert("output_config".into(), config)),
        }
    }
    extra.extend(rest);
    request.extra = extra;
    Ok(request)
}

/// Content as a list of blocks.
fn blocks(content: &Value) -> Vec<Value> {
    match content {
        Value::Array(blocks) => blocks.clone(),
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        _ => Vec::new(),
    }
}

fn message(message: &Value, out: &mut Vec<Message>) -> Result<(), String> {
    let (mut parts, mut results) = (Vec::new(), Vec::new());
    let assistant = message["role"] == "assistant";
    for block in blocks(&message["content"]) {
        let text = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
        let own = |data: Value| Some(Replay::new(FAMILY, data));
        parts.push(match block["type"].as_str().unwrap_or_default() {
            "text" => {
                let replay = block.get("citations").filter(|c| c.is_array());
                let replay = replay.and_then(|citations| own(json!({ "citations": citations })));
                Part::Text(Text { text: text("text"), replay })
            }
            "thinking" => {
                let replay = own(json!({ "signature": block["signature"] }));
                Part::Reasoning(Text { text: text("thinking"), replay })
            }
            "tool_use" => {
                let mut call = ToolCall::new(text("id"), text("name"), block["input"].clone());
                let mut more = block.as_object().cloned().unwrap_or_default();
                more.retain(|key, _| {
                    !["type", "id", "name", "input", "cache_control"].contains(&key.as_str())
                });
                call.replay = (!more.is_empty()).then(|| Replay::new(FAMILY, more));
                Part::ToolCall(call)
            }
            "tool_result" => {
                results.push(result(&block, out)?);
                continue;
            }
            "image" | "document" => Part::Media(media(&block)?),
            _ if assistant => Part::Opaque(Replay::new(FAMILY, block.clone())),
            other => return Err(format!("no word for a user's {other}")),
        });
    }
    if !results.is_empty() {
        out.push(Message::tool_results(results));
    }
    if !parts.is_empty() {
        out.push(Message { role: if assistant { Role::Assistant } else { Role::User }, parts });
    }
    Ok(())
}

fn result(block: &Value, said: &[Message]) -> Result<ToolResult, String> {
    let id = block["tool_use_id"].as_str().unwrap_or_default();
    let call = said.iter().flat_map(Message::tool_calls).find(|call| call.id == id);
    let status = if block["is_error"] == true { ToolStatus::Error } else { ToolStatus::Ok };
    let mut result = ToolResult::new(call.ok_or("a result without a call")?, status, "");
    for block in blocks(&block["content"]) {
        match block["text"].as_str() {
            Some(text) => result.content.push_str(text),
            None => result.media.push(media(&block)?),
        }
    }
    Ok(result)
}

fn media(block: &Value) -> Result<Media, String> {
    let source = &block["source"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let guess = if block["type"] == "document" { "application/pdf" } else { "image/png" };
    let (media_type, source) = match source["type"].as_str() {
        Some("base64") => (text(&source["media_type"]), MediaSource::Base64(text(&source["data"]))),
        Some("url") => (guess.to_owned(), MediaSource::Url(text(&source["url"]))),
        _ => return Err(format!("no word for {source:.200}")),
    };
    if let Some(key) =
        ["citations", "context"].iter().find(|key| block[**key].is_object() || block[**key].is_string())
    {
        return Err(format!("no word for the {key} of a document"));
    }
    Ok(Media { media_type, source, name: block["title"].as_str().map(str::to_owned) })
}

/// A tool that has nothing of which we have no word.
fn tool(tool: &Value) -> Option<ToolSpec> {
    let known = ["name", "description", "input_schema", "type", "strict", "cache_control"];
    let plain = tool.as_object()?.iter().all(|(key, value)| known.contains(&key.as_str()) || value.is_null());
    if !plain || tool["strict"] == true || tool.get("type").is_some_and(|t| t != "custom") {
        return None;
    }
    let description = tool["description"].as_str().unwrap_or_default();
    Some(ToolSpec::new(tool["name"].as_str()?, description, tool.get("input_schema")?.clone()))
}

/// Do both bodies ask the same?
///
/// # Errors
/// Where they first differ.
pub fn equivalent(recorded: &Value, ours: &Value) -> Result<(), String> {
    let (mut theirs, mine) = (plain(recorded), plain(ours));
    let model = recorded["model"].as_str().unwrap_or_default();
    if let Some(map) = theirs.as_object_mut() {
        let since = |from: (u32, u32)| version(model).is_some_and(|v| v >= from);
        if since((4, 7)) {
            map.retain(|key, _| key != "temperature" && key != "top_p");
        } else if since((4, 1)) && map.contains_key("temperature") {
            map.remove("top_p");
        }
    }
    differ(&theirs, &mine, "")
}

fn version(model: &str) -> Option<(u32, u32)> {
    let numbers = model.split(['-', '.']).filter_map(|word| word.parse::<u32>().ok()).filter(|n| *n < 100);
    let numbers: Vec<u32> = numbers.take(2).collect();
    Some((*numbers.first()?, numbers.get(1).copied().unwrap_or(0)))
}

/// A body without what may differ.
fn plain(body: &Value) -> Value {
    let mut out = unmarked(body).as_object().cloned().unwrap_or_default();
    let system = out.remove("system").unwrap_or_default();
    out.insert("system".into(), texts(&blocks(&system)).into());
    let mut messages: Vec<Value> = Vec::new();
    for message in out.get("messages").and_then(Value::as_array).cloned().unwrap_or_default() {
        let mut content: Vec<Value> = texts(&blocks(&message["content"])).into_iter().map(block).collect();
        match messages.last_mut() {
            Some(last) if last["role"] == message["role"] => {
                if let Some(all) = last["content"].as_array_mut() {
                    all.append(&mut content);
                }
            }
            _ => messages.push(json!({"role": message["role"], "content": content})),
        }
    }
    let end = messages.len().saturating_sub(1);
    for (n, message) in messages.iter_mut().enumerate() {
        let assistant = message["role"] == "assistant";
        let Some(content) = message["content"].as_array_mut() else { continue };
        content.sort_by_key(|block| block["type"] != "tool_result");
        let thought = |b: &Value| b["type"] == "thinking" || b["type"] == "redacted_thinking";
        while assistant && content.last().is_some_and(thought) {
            content.pop();
        }
        if let (true, Some(Value::Object(last))) = (assistant && n == end, content.last_mut())
            && let Some(text) = last.get("text").and_then(Value::as_str).map(|t| t.trim_end().to_owned())
        {
            last.insert("text".into(), text.into());
        }
    }
    messages.retain(|m| m["content"].as_array().is_some_and(|c| !c.is_empty()));
    out.insert("messages".into(), messages.into());
    out.entry("stream").or_insert(false.into());
    if out.get("tool_choice").is_some_and(|choice| choice["type"] == "auto") {
        out.remove("tool_choice");
    }
    for tool in out.get_mut("tools").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(tool) = tool.as_object_mut() {
            tool.retain(|key, v| !(key == "description" && v == "" || key == "type" && v == "custom"));
        }
    }
    for key in ["temperature", "top_p"] {
        // A sampling parameter went through 32 bits.
        if let Some(n) = out.get(key).and_then(Value::as_f64) {
            out.insert(key.into(), json!(n as f32));
        }
    }
    out.retain(|_, v| !v.is_null() && *v != json!([]));
    Value::Object(out)
}

fn texts(blocks: &[Value]) -> Vec<Value> {
    let blank = |b: &Value| b["type"] == "text" && b["text"].as_str().is_none_or(|t| t.trim().is_empty());
    blocks.iter().filter(|b| !blank(b)).cloned().collect()
}

fn block(mut block: Value) -> Value {
    if block["type"] == "tool_result" {
        let content = blocks(&block["content"]);
        let text: String = content.iter().filter_map(|b| b["text"].as_str()).collect();
        let text = if text.trim().is_empty() { "(no output)".to_owned() } else { text };
        let files = content.into_iter().filter(|b| b["type"] != "text");
        block["content"] = [json!({"type": "text", "text": text})].into_iter().chain(files).collect();
        if let (false, Some(map)) = (block["is_error"] == true, block.as_object_mut()) {
            map.remove("is_error");
        }
    }
    block
}

/// Without `cache_control`, wherever it may stand, and without nulls.
fn unmarked(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                let own = matches!(key.as_str(), "input" | "input_schema" | "schema");
                if own {
                    out.insert(key.clone(), value.clone());
                } else if key != "cache_control" && !value.is_null() {
                    out.insert(key.clone(), unmarked(value));
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => items.iter().map(unmarked).collect(),
        other => other.clone(),
    }
}
