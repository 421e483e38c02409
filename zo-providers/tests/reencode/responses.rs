//! Recorded requests of the Responses API, turned into [`Request`]s, and held against what we make of these.
//!
//! Our body is equivalent, not equal. By design:
//! * `store: false` is added, and `include` where the model reasons; `stream` is always said.
//! * Instructions, and system messages before everything else, are one text in `instructions`.
//! * Content that is text alone is one string.
//! * Ids and statuses of messages, calls and outputs stay home, and reasoning without encrypted or open content.
//! * Arguments are printed anew; an empty message of the assistant's is left out.
//! * Functions say `strict: false` where the recorded ones say nothing.
//! * The schema of an answer is called `answer`; less than 16 tokens are asked for as 16.
//! * `null`, `tool_choice: "auto"` and empty lists are not said.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

use serde_json::{Map, Value, json};
use zo_traits::{
    Effort, Media, MediaSource, Message, Part, Replay, Request, Role, Text, ToolCall, ToolChoice, ToolResult,
    ToolSpec, ToolStatus,
};

/// The family under which replay data is given.
pub const FAMILY: &str = "openai-responses";

/// A recorded body in our words. What has no word of ours goes into [`Request::extra`]; `None` for what has no place there
/// either.
pub fn request_of(body: &Value) -> Option<Request> {
    let mut rest = body.as_object()?.clone();
    let mut take = |key: &str| rest.remove(key).filter(|v| !v.is_null());
    let mut request = Request::new(take("model")?.as_str()?, []);
    request.whole = take("stream") != Some(Value::Bool(true));
    if let Some(text) = take("instructions").as_ref().and_then(Value::as_str).filter(|t| !t.trim().is_empty())
    {
        request.messages.push(Message::system(text));
    }
    match take("input")? {
        Value::String(text) => request.messages.push(Message::user(text)),
        Value::Array(items) => messages(&items, &mut request.messages)?,
        _ => return None,
    }
    let mut extra = Map::new();
    if let Some(tools) = take("tools") {
        match tools.as_array()?.iter().map(tool).collect::<Option<Vec<_>>>() {
            Some(tools) => request = request.tools(tools),
            None => drop(extra.insert("tools".into(), tools)),
        }
    }
    if let Some(choice) = take("tool_choice") {
        let named = choice["name"].as_str().filter(|n| request.tools.iter().any(|t| t.name == *n));
        request.tool_choice = match (choice.as_str(), named) {
            (Some("auto"), _) => ToolChoice::Auto,
            (Some("none"), _) if extra.is_empty() => ToolChoice::None,
            (Some("required"), _) if extra.is_empty() => ToolChoice::Required,
            (_, Some(name)) if choice["type"] == "function" => ToolChoice::Tool(name.into()),
            _ => {
                extra.insert("tool_choice".into(), choice);
                ToolChoice::Auto
            }
        };
    }
    let float = |v: Value| v.as_f64().map(|f| f as f32);
    request.temperature = take("temperature").and_then(float);
    request.top_p = take("top_p").and_then(float);
    request.max_tokens = take("max_output_tokens").and_then(|v| v.as_u64()).map(|n| n as u32);
    if let Some(text) = take("text") {
        match text.as_object() {
            Some(map) if map.len() == 1 && text["format"]["type"] == "json_schema" => {
                request.output_schema = Some(text["format"]["schema"].clone().into());
            }
            _ => drop(extra.insert("text".into(), text)),
        }
    }
    if let Some(reasoning) = take("reasoning") {
        match (reasoning.as_object().map(Map::len), reasoning["effort"].as_str()) {
            (Some(1), Some(effort)) => request.effort = Some(Effort::from(effort)),
            _ => drop(extra.insert("reasoning".into(), reasoning)),
        }
    }
    if take("store") == Some(Value::Bool(true)) {
        extra.insert("store".into(), true.into());
    }
    rest.retain(|_, value| !value.is_null());
    extra.append(&mut rest);
    request.extra = extra;
    Some(request)
}

fn messages(items: &[Value], out: &mut Vec<Message>) -> Option<()> {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut add = |role: Role, parts: Vec<Part>, joins: bool| match out.last_mut() {
        Some(last) if joins && last.role == role => last.parts.extend(parts),
        _ => out.push(Message { role, parts }),
    };
    for item in items {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let own = || Some(Replay::new(FAMILY, item.clone()));
        match (text("type").as_str(), text("role").as_str()) {
            ("" | "message", "assistant") => add(Role::Assistant, said(item)?, true),
            ("" | "message", "system" | "developer") => add(Role::System, asked(&item["content"])?, false),
            ("" | "message", _) => add(Role::User, asked(&item["content"])?, false),
            ("function_call", _) => {
                let args = text("arguments");
                let args = serde_json::from_str(&args).unwrap_or(Value::String(args));
                let mut call = ToolCall::new(text("call_id"), text("name"), args);
                call.replay = own();
                names.push((call.id.clone(), call.name.clone()));
                add(Role::Assistant, vec![Part::ToolCall(call)], true);
            }
            ("function_call_output", _) => {
                let id = text("call_id");
                let name = names.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone());
                let mut result = ToolResult {
                    id,
                    name: name.unwrap_or_default(),
                    status: ToolStatus::Ok,
                    content: String::new(),
                    media: Vec::new(),
                };
                for part in asked(&item["output"])? {
                    match part {
                        Part::Text(t) => result.content.push_str(&t.text),
                        Part::Media(media) => result.media.push(media),
                        _ => return None,
                    }
                }
                add(Role::Tool, vec![Part::ToolResult(result)], true);
            }
            ("reasoning", _) => {
                add(
                    Role::Assistant,
                    vec![Part::Reasoning(Text { text: String::new(), replay: own() })],
                    true,
                );
            }
            ("item_reference", _) => return None,
            _ => add(Role::Assistant, vec![Part::Opaque(own()?)], true),
        }
    }
    Some(())
}

/// Content of the assistant's, with what the decoder keeps of its message.
fn said(item: &Value) -> Option<Vec<Part>> {
    let mut about = item.as_object()?.clone();
    for key in ["type", "role", "content"] {
        about.remove(key);
    }
    let text = |text: &Value, annotations: &Value| {
        let mut data = json!({"item": about});
        if annotations.as_array().is_some_and(|a| !a.is_empty()) {
            data["annotations"] = annotations.clone();
        }
        let replay = (!about.is_empty()).then(|| Replay::new(FAMILY, data));
        Some(Text { text: text.as_str()?.to_owned(), replay })
    };
    match &item["content"] {
        Value::Array(parts) => parts
            .iter()
            .map(|p| match p["type"].as_str()? {
                "output_text" => Some(Part::Text(text(&p["text"], &p["annotations"])?)),
                "refusal" => Some(Part::Refusal(text(&p["refusal"], &Value::Null)?)),
                _ => None,
            })
            .collect(),
        content => Some(vec![Part::Text(text(content, &Value::Null)?)]),
    }
}

/// Content of everybody else's.
fn asked(content: &Value) -> Option<Vec<Part>> {
    let file = |kind: &str, url: &str| {
        let media_type = url.strip_prefix("data:").and_then(|d| d.split(';').next()).unwrap_or(kind);
        let source = match url.split_once(";base64,") {
            Some((_, data)) => MediaSource::Base64(data.into()),
            None => MediaSource::Url(url.into()),
        };
        Media { media_type: media_type.into(), source, name: None }
    };
    match content {
        Value::String(text) => Some(vec![Part::text(text)]),
        Value::Array(parts) => parts
            .iter()
            .map(|p| match p["type"].as_str()? {
                "input_text" => Some(Part::text(p["text"].as_str()?)),
                "input_image" => Some(Part::Media(file("image/png", p["image_url"].as_str()?))),
                "input_file" => {
                    let url = p["file_data"].as_str().or_else(|| p["file_url"].as_str())?;
                    let mut media = file("application/pdf", url);
                    media.name = p["filename"].as_str().map(str::to_owned);
                    Some(Part::Media(media))
                }
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

fn tool(tool: &Value) -> Option<ToolSpec> {
    let known = ["type", "name", "description", "parameters", "strict"];
    let plain = tool["type"] == "function"
        && tool["strict"] != true
        && tool["parameters"].is_object()
        && tool.as_object()?.iter().all(|(k, v)| known.contains(&k.as_str()) || v.is_null());
    let description = tool["description"].as_str().unwrap_or_default();
    plain.then(|| {
        ToolSpec::new(tool["name"].as_str().unwrap_or_default(), description, tool["parameters"].clone())
    })
}

/// Do both bodies ask the same?
///
/// # Errors
/// The first field that differs, with both values.
pub fn equivalent(recorded: &Value, ours: &Value) -> Result<(), String> {
    let (a, b) = (plain(recorded), plain(ours));
    let keys = a.keys().chain(b.keys());
    for key in keys {
        let (a, b) = (a.get(key), b.get(key));
        if a != b {
            let show = |v: Option<&Value>| v.map_or("nothing".to_owned(), |v| v.to_string());
            return Err(format!("{key}: recorded {}, ours {}", show(a), show(b)));
        }
    }
    Ok(())
}

/// A body without what may differ.
fn plain(body: &Value) -> Map<String, Value> {
    let mut out = body.as_object().cloned().unwrap_or_default();
    let items = match out.remove("input") {
        Some(Value::String(text)) => vec![json!({"role": "user", "content": text})],
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let is_system = |i: &Value| matches!(i["role"].as_str(), Some("system" | "developer"));
    let lead = items.iter().take_while(|i| is_system(i)).count();
    let mut told: Vec<String> =
        out.remove("instructions").as_ref().and_then(Value::as_str).map(str::to_owned).into_iter().collect();
    told.extend(items[..lead].iter().map(|i| text_of(&i["content"])));
    told.retain(|t| !t.trim().is_empty());
    out.insert("instructions".into(), told.join("\n\n").into());
    out.insert("input".into(), items[lead..].iter().filter_map(item).collect());
    for key in ["store", "include"] {
        out.remove(key);
    }
    out.entry("stream").or_insert(Value::Bool(false));
    if out.get("tool_choice").is_some_and(|c| c == "auto") {
        out.remove("tool_choice");
    }
    if let Some(format) = out.get_mut("text").and_then(|t| t.get_mut("format")).and_then(Value::as_object_mut)
    {
        for key in ["name", "description"] {
            format.remove(key);
        }
        format.entry("strict").or_insert(Value::Bool(false));
    }
    if let Some(n) = out.get_mut("max_output_tokens").filter(|n| n.as_u64().is_some_and(|n| n < 16)) {
        *n = 16.into();
    }
    if let Some(Value::Array(tools)) = out.get_mut("tools") {
        for tool in tools.iter_mut().filter_map(Value::as_object_mut) {
            if tool.get("type").is_some_and(|t| t == "function") {
                tool.entry("strict").or_insert(Value::Bool(false));
                tool.retain(|k, v| !(v.is_null() || k == "description" && v == ""));
            }
        }
    }
    // A sampling parameter went through 32 bits.
    for key in ["temperature", "top_p"] {
        if let Some(n) = out.get(key).and_then(Value::as_f64) {
            out.insert(key.into(), json!((n * 1e4).round()));
        }
    }
    out.retain(|_, v| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()));
    out
}

fn item(item: &Value) -> Option<Value> {
    let mut out = item.as_object()?.clone();
    match (item["type"].as_str(), item["role"].as_str()) {
        (None | Some("message"), Some(role)) => {
            let content = pieces(&item["content"]);
            if role == "assistant" && content.iter().all(|p| p == "") {
                return None;
            }
            out.remove("type");
            out.insert("content".into(), content.into());
        }
        (Some("function_call"), _) => {
            let args = item["arguments"].as_str().unwrap_or_default();
            out.insert("arguments".into(), serde_json::from_str(args).unwrap_or_else(|_| args.into()));
        }
        (Some("function_call_output"), _) => {
            drop(out.insert("output".into(), pieces(&item["output"]).into()))
        }
        (Some("reasoning"), _) => {
            let sealed = item["encrypted_content"].as_str().is_some_and(|t| !t.is_empty());
            let open = item["content"].as_array().is_some_and(|c| !c.is_empty());
            return (sealed || open).then(|| item.clone());
        }
        _ => return Some(item.clone()),
    }
    for key in ["id", "status"] {
        out.remove(key);
    }
    out.retain(|_, v| !v.is_null());
    Some(Value::Object(out))
}

/// Content as a list in which text stands for itself, joined where it is alone.
fn pieces(content: &Value) -> Vec<Value> {
    let Value::Array(parts) = content else { return vec![text_of(content).into()] };
    let bare = |p: &Value| {
        let known = ["type", "text", "annotations", "logprobs", "detail"];
        p["text"].is_string()
            && p["annotations"].as_array().is_none_or(Vec::is_empty)
            && p.as_object().is_some_and(|p| p.keys().all(|k| known.contains(&k.as_str())))
    };
    if parts.iter().all(bare) {
        return vec![text_of(content).into()];
    }
    let without_detail = |p: &Value| {
        let mut p = p.clone();
        if let Some(p) = p.as_object_mut() {
            p.retain(|k, v| !(k == "detail" || k == "logprobs" || v.is_null()));
        }
        p
    };
    parts.iter().map(without_detail).collect()
}

fn text_of(content: &Value) -> String {
    match content {
        Value::Array(parts) => parts.iter().filter_map(|p| p["text"].as_str()).collect(),
        text => text.as_str().unwrap_or_default().to_owned(),
    }
}
