//! Recorded requests for chat completions, turned into [`Request`]s, and held against what we make of these.
//!
//! Our body is equivalent, not equal. By design:
//! * `stream` is always said, and so is `stream_options` where the server counts tokens only then; with a schema, a server that
//!   takes one only in an answer that comes whole is asked for that.
//! * The longest answer is asked for under the name that the provider wants.
//! * `null`, `tool_choice: "auto"`, empty lists and empty descriptions are not said; `type: "function"` always is.
//! * Arguments are printed anew. Content that is text alone is one string. Messages without content are left out.
//! * System messages before everything else are one. Others are marked parts of the user's turn, except where the server is
//!   known to take them.
//! * Where templates insist on turns, the user's messages are one, and words of ours stand where a speaker is missing.
//! * Ids are nine letters or digits where only these are taken.
//! * Thoughts go back only to a server that wants them, and of work with tools only; `reasoning_details` to those that want them.
//! * A tool that must be called is the only one on offer, where it cannot be called by its name.
//! * The schema of an answer is called `answer`, and is strict where it obeys the rules of that; where there is no field for
//!   it, it is asked for in words.
//! * OpenAI's reasoning models are sent no sampling parameters and no stop texts, and the newest of them do not think beside
//!   tools.

use super::differ;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use zo_providers::{Dialect, EffortField, SchemaField};
use zo_traits::{
    Effort, Media, MediaSource, Message, Part, Replay, Request, Role, Text, ToolCall, ToolChoice, ToolResult,
    ToolSpec, ToolStatus,
};

/// A recorded body in our words. What has no word of ours goes into [`Request::extra`].
///
/// # Errors
/// What has no place there either.
pub fn request_of(body: &Value, row: &Dialect) -> Result<Request, String> {
    let mut rest = body.as_object().ok_or("no object")?.clone();
    rest.retain(|_, value| !value.is_null());
    let mut take = |key: &str| rest.remove(key);
    let model = take("model").unwrap_or_default();
    let mut request = Request::new(model.as_str().ok_or("no model")?, []);
    request.whole = take("stream") != Some(Value::Bool(true));
    if let Some(Value::Array(all)) = take("messages") {
        for message in &all {
            self::message(message, row, &mut request.messages)?;
        }
    }
    let mut extra = Map::new();
    if let Some(tools) = take("tools") {
        match tools.as_array().map(|all| all.iter().map(tool).collect::<Option<Vec<_>>>()) {
            Some(Some(tools)) => request = request.tools(tools),
            _ => drop(extra.insert("tools".into(), tools)),
        }
    }
    if let Some(choice) = take("tool_choice") {
        let named = choice["function"]["name"].as_str();
        let named = named.filter(|n| request.tools.iter().any(|t| t.name == *n));
        request.tool_choice = match (choice.as_str(), named) {
            (Some("auto"), _) => ToolChoice::Auto,
            (Some("none"), _) if !request.tools.is_empty() => ToolChoice::None,
            (Some("required" | "any"), _) if !request.tools.is_empty() => ToolChoice::Required,
            (_, Some(name)) => ToolChoice::Tool(name.into()),
            _ => {
                extra.insert("tool_choice".into(), choice);
                ToolChoice::Auto
            }
        };
    }
    let float = |v: Value| v.as_f64().map(|f| f as f32);
    request.temperature = take("temperature").and_then(float);
    request.top_p = take("top_p").and_then(float);
    let most = take("max_tokens").or_else(|| take("max_completion_tokens"));
    request.max_tokens = most.and_then(|n| n.as_u64()).map(|n| n as u32);
    request.stop = match take("stop") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    if let Some(format) = take("response_format") {
        match format["json_schema"].get("schema") {
            Some(schema) => request.output_schema = Some(Arc::new(schema.clone())),
            None => drop(extra.insert("response_format".into(), format)),
        }
    }
    let asked = match row.effort {
        EffortField::Reasoning => rest
            .get("reasoning")
            .filter(|r| r.as_object().is_some_and(|r| r.len() == 1))
            .map(|r| &r["effort"]),
        EffortField::ReasoningEffort | EffortField::ReasoningModels => rest.get("reasoning_effort"),
        _ => None,
    };
    if let Some(effort) = asked.and_then(Value::as_str) {
        request.effort = Some(Effort::from(effort));
        rest.retain(|key, _| !matches!(key.as_str(), "reasoning" | "reasoning_effort"));
    }
    if let Some(options) = rest.get_mut("stream_options").and_then(Value::as_object_mut) {
        options.remove("include_usage");
    }
    rest.retain(|_, value| *value != json!({}));
    extra.extend(rest);
    request.extra = extra;
    Ok(request)
}

fn message(message: &Value, row: &Dialect, out: &mut Vec<Message>) -> Result<(), String> {
    let known: &[&str] = match message["role"].as_str().unwrap_or_default() {
        "assistant" => &["tool_calls", "reasoning", "reasoning_content", "reasoning_details", "refusal"],
        "tool" => &["tool_call_id", "name"],
        _ => &[],
    };
    for (key, value) in message.as_object().into_iter().flatten() {
        let says_nothing = value.is_null() || *value == false || *value == json!([]) || *value == "";
        if !says_nothing && !["role", "content"].contains(&key.as_str()) && !known.contains(&key.as_str()) {
            return Err(format!("no word for a message's {key}"));
        }
    }
    let mut parts = content(&message["content"])?;
    let role = match message["role"].as_str().unwrap_or_default() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => {
            let thoughts = ["reasoning_content", "reasoning"].iter().find_map(|key| message[*key].as_str());
            if let Some(text) = thoughts {
                let replay = Some(Replay::new(row.id.clone(), json!({})));
                parts.insert(0, Part::Reasoning(Text { text: text.to_owned(), replay }));
            }
            if let Some(text) = message["refusal"].as_str() {
                parts.push(Part::Refusal(Text::new(text)));
            }
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                let (id, function) = (call["id"].as_str(), &call["function"]);
                let args = function["arguments"].as_str().unwrap_or_default();
                let args: Value = serde_json::from_str(args).unwrap_or_else(|_| args.into());
                let name = function["name"].as_str().unwrap_or_default();
                parts.push(Part::ToolCall(ToolCall::new(id.unwrap_or_default(), name, args)));
            }
            if let Some(details) = message.get("reasoning_details").filter(|d| d.is_array()) {
                let data = json!({ "reasoning_details": details });
                parts.push(Part::Opaque(Replay::new(row.id.clone(), data)));
            }
            Role::Assistant
        }
        "tool" => {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let call = out.iter().flat_map(Message::tool_calls).filter(|c| c.id == id).last();
            let text: String = parts.iter().filter_map(Part::as_text).collect();
            let result = ToolResult::new(call.ok_or("a result without a call")?, ToolStatus::Ok, text);
            if let Some(Message { role: Role::Tool, parts }) = out.last_mut() {
                parts.push(Part::ToolResult(result));
                return Ok(());
            }
            parts = vec![Part::ToolResult(result)];
            Role::Tool
        }
        other => return Err(format!("no word for the role {other:?}")),
    };
    out.push(Message { role, parts });
    Ok(())
}

fn content(content: &Value) -> Result<Vec<Part>, String> {
    let parts = match content {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) => return Ok(vec![Part::text(text)]),
        other => other.as_array().ok_or("content of no known kind")?,
    };
    parts.iter().map(part).collect()
}

fn part(part: &Value) -> Result<Part, String> {
    let kind = part["type"].as_str().unwrap_or_default();
    for (key, value) in part.as_object().into_iter().flatten() {
        if !value.is_null() && key != "type" && key != kind {
            return Err(format!("no word for {key} beside {kind}"));
        }
    }
    let inside = &part[kind];
    let own = |key: &str| inside[key].as_str().unwrap_or_default().to_owned();
    let media = |media_type: &str, url: String, name: Option<&str>| {
        let typed = url.strip_prefix("data:").and_then(|d| d.split(';').next());
        let media_type = typed.unwrap_or(media_type).to_owned();
        let source = match url.split_once(";base64,") {
            Some((_, data)) => MediaSource::Base64(data.to_owned()),
            None => MediaSource::Url(url),
        };
        Part::Media(Media { media_type, source, name: name.map(str::to_owned) })
    };
    match kind {
        "text" => Ok(Part::text(inside.as_str().unwrap_or_default())),
        "image_url" if matches!(inside["detail"].as_str(), None | Some("auto")) => {
            Ok(media("image/png", inside.as_str().map_or_else(|| own("url"), str::to_owned), None))
        }
        "file" if inside["file_data"].is_string() => {
            Ok(media("application/pdf", own("file_data"), inside["filename"].as_str()))
        }
        "input_audio" => {
            let media_type = if own("format") == "mp3" { "audio/mpeg" } else { "audio/wav" }.to_owned();
            Ok(Part::Media(Media { media_type, source: MediaSource::Base64(own("data")), name: None }))
        }
        _ => Err(format!("no word for {part:.200}")),
    }
}

/// A tool that has nothing of which we have no word.
fn tool(tool: &Value) -> Option<ToolSpec> {
    let spec = &tool["function"];
    let known = ["name", "description", "parameters", "strict"];
    let plain = spec.as_object()?.iter().all(|(key, value)| known.contains(&key.as_str()) || value.is_null());
    let outside = tool.as_object()?.keys().all(|key| key == "type" || key == "function");
    if !plain || !outside || spec["strict"] == true {
        return None;
    }
    let schema = match &spec["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}}),
        schema => schema.clone(),
    };
    Some(ToolSpec::new(spec["name"].as_str()?, spec["description"].as_str().unwrap_or_default(), schema))
}

/// Do both bodies ask the same?
///
/// # Errors
/// Where they first differ.
pub fn equivalent(recorded: &Value, ours: &Value, row: &Dialect) -> Result<(), String> {
    let (mut theirs, mut mine) = (recorded.clone(), ours.clone());
    words_for_schema(&mut theirs, &mut mine, row)?;
    let model = recorded["model"].as_str().unwrap_or_default();
    if row.effort == EffortField::ReasoningModels && reasons(model) {
        let map = theirs.as_object_mut().ok_or("no object")?;
        map.retain(|key, _| !["temperature", "top_p", "stop"].contains(&key.as_str()));
        if mine["reasoning_effort"] == "none" && map.contains_key("tools") {
            map.insert("reasoning_effort".into(), "none".into());
        }
    }
    if let (false, Some(name)) = (row.tool_by_name, recorded["tool_choice"]["function"]["name"].as_str()) {
        let all = theirs["tools"].as_array().cloned().unwrap_or_default();
        theirs["tools"] = all.into_iter().filter(|tool| tool["function"]["name"] == name).collect();
        theirs["tool_choice"] = "required".into();
    }
    let ends =
        |body: &Value, at: &dyn Fn(&[Value]) -> bool| body["messages"].as_array().is_some_and(|m| at(m));
    let assistant_begins =
        ends(recorded, &|m| m.iter().find(|m| !is_system(m)).is_some_and(|m| m["role"] == "assistant"));
    let assistant_ends = ends(recorded, &|m| m.last().is_some_and(|m| m["role"] == "assistant"));
    if let Some(messages) = mine["messages"].as_array_mut() {
        let mut without = |role: &str, words: &str| {
            messages.retain(|m| m["role"] != role || m["content"] != words);
        };
        if row.strict_turns {
            without("assistant", "(continued)");
        }
        if assistant_begins {
            without("user", "(The conversation begins with the assistant.)");
        }
        if assistant_ends {
            without("user", "(continue)");
        }
    }
    let strictly = mine["response_format"]["json_schema"]["strict"] == true;
    differ(&plain(&theirs, row, strictly), &plain(&mine, row, strictly), "")
}

/// Where the schema of an answer is words at the end of the system text, takes it out on both sides.
fn words_for_schema(theirs: &mut Value, mine: &mut Value, row: &Dialect) -> Result<(), String> {
    let Some(schema) = theirs["response_format"]["json_schema"].get("schema").cloned() else { return Ok(()) };
    let tools = theirs["tools"].as_array().is_some_and(|t| !t.is_empty());
    let crowded = row.schema_alone && tools;
    if row.schema_alone && !tools {
        theirs["stream"] = false.into();
    }
    if !crowded && row.schema != SchemaField::JsonObject {
        return Ok(());
    }
    let system = mine["messages"][0]["content"].as_str().unwrap_or_default();
    let (rest, words) =
        system.rsplit_once("Answer with one JSON object").ok_or("the schema is asked for nowhere")?;
    if !words.ends_with(&schema.to_string()) {
        return Err(format!("another schema is asked for: {words}"));
    }
    match rest.trim_end().to_owned() {
        rest if rest.is_empty() => drop(mine["messages"].as_array_mut().map(|m| m.remove(0))),
        rest => mine["messages"][0]["content"] = rest.into(),
    }
    theirs["response_format"] = if crowded { Value::Null } else { json!({"type": "json_object"}) };
    Ok(())
}

/// OpenAI's reasoning models, by name.
fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let digit = |rest: &str, from: char| rest.starts_with(|c: char| c.is_ascii_digit() && c >= from);
    let o_series = name.strip_prefix('o').is_some_and(|rest| digit(rest, '0'));
    o_series || name.strip_prefix("gpt-").is_some_and(|rest| digit(rest, '5')) && !name.contains("chat")
}

fn is_system(message: &Value) -> bool {
    message["role"] == "system" || message["role"] == "developer"
}

/// A body without what may differ.
fn plain(body: &Value, row: &Dialect, strictly: bool) -> Value {
    let mut out = body.as_object().cloned().unwrap_or_default();
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    out.insert("messages".into(), plain_messages(messages, row).into());
    out.entry("stream").or_insert(false.into());
    if let Some(options) = out.get_mut("stream_options").and_then(Value::as_object_mut) {
        options.remove("include_usage");
    }
    if let Some(most) = out.remove("max_completion_tokens") {
        out.insert("max_tokens".into(), most);
    }
    match out.get("tool_choice").and_then(Value::as_str) {
        Some("auto") => drop(out.remove("tool_choice")),
        Some("any") => drop(out.insert("tool_choice".into(), "required".into())),
        _ => {}
    }
    if let Some(one @ Value::String(_)) = out.get("stop").cloned() {
        out.insert("stop".into(), json!([one]));
    }
    for tool in out.get_mut("tools").and_then(Value::as_array_mut).into_iter().flatten() {
        tool["type"] = "function".into();
        if let Some(spec) = tool["function"].as_object_mut() {
            spec.retain(|key, v| {
                !(v.is_null() || key == "description" && v == "" || key == "strict" && *v == false)
            });
            spec.entry("parameters").or_insert(json!({"type": "object", "properties": {}}));
        }
    }
    if let Some(spec) =
        out.get_mut("response_format").and_then(|f| f.get_mut("json_schema")).and_then(Value::as_object_mut)
    {
        spec.insert("name".into(), "answer".into());
        spec.remove("description");
        if strictly {
            spec.insert("strict".into(), true.into());
        }
    }
    for key in ["temperature", "top_p"] {
        // A sampling parameter went through 32 bits.
        if let Some(n) = out.get(key).and_then(Value::as_f64) {
            out.insert(key.into(), json!(n as f32));
        }
    }
    out.retain(|_, v| !v.is_null() && *v != json!([]) && *v != json!({}));
    Value::Object(out)
}

fn plain_messages(messages: &[Value], row: &Dialect) -> Vec<Value> {
    let lead = messages.iter().take_while(|m| is_system(m)).count();
    let (system, rest) = messages.split_at(lead);
    let texts: Vec<String> = system
        .iter()
        .flat_map(|m| match &m["content"] {
            Value::Array(parts) => {
                parts.iter().filter_map(|p| p["text"].as_str()).map(str::to_owned).collect()
            }
            text => vec![text.as_str().unwrap_or_default().to_owned()],
        })
        .filter(|text| !text.trim().is_empty())
        .collect();
    let mut out: Vec<Value> = Vec::new();
    if !texts.is_empty() {
        out.push(json!({"role": "system", "content": texts.join("\n\n")}));
    }
    let mut names: Vec<String> = Vec::new();
    let mut was_marked = false;
    for message in rest {
        let mut plain = plain_message(message, row, &mut names);
        let marked = is_system(message) && (row.strict_turns || !row.mid_system);
        if marked {
            let text = plain["content"].as_str().unwrap_or_default();
            plain = json!({"role": "user", "content": format!("<system>\n{text}\n</system>")});
        }
        let hollow = plain["content"].is_null() && plain["tool_calls"].is_null();
        let joins = row.strict_turns || marked || was_marked;
        match out.last_mut() {
            _ if hollow => {}
            Some(last) if last["role"] == "user" && plain["role"] == "user" && joins => join(last, &plain),
            _ => out.push(plain),
        }
        was_marked = marked;
    }
    // Thoughts outside of work with tools do not go back.
    for span in out.chunk_by_mut(|_, next| next["role"] != "user") {
        if !row.replay_reasoning || !span.iter().any(|m| m["tool_calls"].is_array()) {
            for message in span {
                message.as_object_mut().map(|m| m.remove("reasoning_content"));
            }
        }
    }
    out
}

fn plain_message(message: &Value, row: &Dialect, names: &mut Vec<String>) -> Value {
    let mut out = Map::new();
    let role = if message["role"] == "developer" { "system" } else { message["role"].as_str().unwrap_or("") };
    out.insert("role".into(), role.into());
    let pieces = pieces(&message["content"]);
    let text: Option<String> = pieces.iter().map(|p| p["text"].as_str()).collect();
    out.insert(
        "content".into(),
        match text {
            Some(text) if text.trim().is_empty() && role == "tool" => "(no output)".into(),
            Some(text) if text.trim().is_empty() => Value::Null,
            Some(text) => text.into(),
            None => pieces.into(),
        },
    );
    if let Some(refusal) = message["refusal"].as_str() {
        out.insert("content".into(), refusal.into());
    }
    // Ids that are too long, or of other letters, stand for their place.
    let mut id = |id: &Value| -> Value {
        let id = id.as_str().unwrap_or_default();
        let fits = !row.short_ids && (1..=40).contains(&id.len());
        if fits {
            return id.into();
        }
        let known = names.iter().position(|name| name == id);
        known.unwrap_or_else(|| (names.push(id.to_owned()), names.len() - 1).1).into()
    };
    let calls: Vec<Value> = message["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| {
            let args = call["function"]["arguments"].as_str().unwrap_or_default();
            let args: Value = serde_json::from_str(args).unwrap_or_else(|_| args.into());
            json!({"id": id(&call["id"]), "name": call["function"]["name"], "arguments": args})
        })
        .collect();
    if !calls.is_empty() {
        out.insert("tool_calls".into(), calls.into());
    }
    if role == "tool" {
        let id = id(&message["tool_call_id"]);
        out.insert("tool_call_id".into(), id);
    }
    let thoughts = message["reasoning_content"].as_str().or(message["reasoning"].as_str());
    if let Some(text) = thoughts.filter(|t| !t.is_empty()) {
        out.insert("reasoning_content".into(), text.into());
    }
    if let (true, Some(details)) = (row.replay_details, message.get("reasoning_details")) {
        out.insert("reasoning_details".into(), details.clone());
    }
    out.retain(|_, v| !v.is_null());
    Value::Object(out)
}

/// Content as a list of parts, without nulls and blank texts.
fn pieces(content: &Value) -> Vec<Value> {
    let all = match content {
        Value::Array(parts) => parts.clone(),
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        _ => Vec::new(),
    };
    let mut out = Vec::new();
    for mut part in all {
        if let Some(map) = part.as_object_mut() {
            map.retain(|_, v| !v.is_null());
        }
        if let Some(url @ Value::String(_)) = part.get("image_url").cloned() {
            part["image_url"] = json!({ "url": url });
        }
        if let Some(image) = part.get_mut("image_url").and_then(Value::as_object_mut) {
            image.retain(|key, v| !(v.is_null() || key == "detail" && v == "auto"));
        }
        if part["text"].as_str().is_none_or(|t| !t.trim().is_empty()) {
            out.push(part);
        }
    }
    out
}

/// One message of two of the user's.
fn join(last: &mut Value, more: &Value) {
    let (a, b) = (last["content"].clone(), more["content"].clone());
    last["content"] = match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) => format!("{a}\n\n{b}").into(),
        _ => pieces(&a).into_iter().chain(pieces(&b)).collect(),
    };
}
