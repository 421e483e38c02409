//! Recorded requests of `generateContent`, turned into [`Request`]s, and held against what we make of these.
//!
//! Our body is equivalent, not equal. By design:
//! * Calls and responses have ids, ours where they had none; a response is `{"output": text}` or `{"error": text}`.
//! * Functions are declared by `parametersJsonSchema`; an OpenAPI schema is the same but for its types in capitals.
//! * Names are in lowerCamelCase, as the API documents them; it reads snake_case, too.
//! * The system instruction has no role, and blank texts are left out.
//! * `null`, empty objects and empty lists, an empty description and `thought: false` are not said.
//! * Texts of the same speaker that follow each other are in one content, except behind responses.
//! * Functions stand before Gemini's own tools.
//! * Up to Gemini 2.5 a schema beside tools is asked for in words.

use serde_json::{Map, Value, json};
use std::{collections::VecDeque, sync::Arc};
use zo_traits::{
    Media, MediaSource, Message, Part, Replay, Request, Role, Text, ToolCall, ToolChoice, ToolResult,
    ToolSpec, ToolStatus,
};

/// The family under which replay data is given.
pub const FAMILY: &str = "gemini";

/// A recorded body in our words. What has no word of ours goes into [`Request::extra`]; `None` for what has no place there
/// either, and for a conversation in which nobody says anything.
pub fn request_of(body: &Value) -> Option<Request> {
    let mut rest = canonical(body).as_object()?.clone();
    let mut messages = Vec::new();
    if let Some(system) = rest.remove("systemInstruction") {
        for part in system["parts"].as_array()? {
            messages.push(Message::system(part["text"].as_str()?));
        }
    }
    let mut asked: VecDeque<ToolCall> = VecDeque::new();
    let mut minted = 0;
    for content in rest.remove("contents")?.as_array()? {
        let model = content["role"] == "model";
        let (mut parts, mut results) = (Vec::new(), Vec::new());
        for part in content["parts"].as_array()? {
            if let Some(response) = part.get("functionResponse") {
                results.push(result(response, &mut asked)?);
                continue;
            }
            let part = if model { model_part(part, &mut minted)? } else { user_part(part)? };
            if let Part::ToolCall(call) = &part {
                asked.push_back(call.clone());
            }
            parts.push(part);
        }
        if !results.is_empty() {
            messages.push(Message::tool_results(results));
        }
        if !parts.is_empty() {
            messages.push(Message { role: if model { Role::Assistant } else { Role::User }, parts });
        }
    }
    if messages.iter().all(|m| m.role == Role::System) {
        return None;
    }
    let mut request = Request::new("", messages);
    let mut extra = Map::new();
    tools(rest.remove("tools"), &mut request, &mut extra)?;
    choice(rest.remove("toolConfig"), &mut request, &mut extra)?;
    generation(rest.remove("generationConfig"), &mut request, &mut extra)?;
    rest.remove("model");
    extra.extend(rest);
    request.extra = extra;
    Some(request)
}

fn replay(part: &Value) -> Option<Replay> {
    let signature = part.get("thoughtSignature")?;
    Some(Replay::new(FAMILY, json!({ "thoughtSignature": signature })))
}

fn model_part(part: &Value, minted: &mut usize) -> Option<Part> {
    if let Some(call) = part.get("functionCall") {
        *minted += 1;
        let id = call["id"].as_str().map_or_else(|| format!("minted_{minted}"), str::to_owned);
        let args = call.get("args").cloned().unwrap_or_else(|| json!({}));
        let name = call["name"].as_str()?.to_owned();
        return Some(Part::ToolCall(ToolCall { id, name, args, replay: replay(part) }));
    }
    let Some(text) = part["text"].as_str() else {
        return Some(Part::Opaque(Replay::new(FAMILY, part.clone())));
    };
    Some(if part["thought"] == true {
        // Thoughts go back only as their own provider's.
        let replay = replay(part).unwrap_or_else(|| Replay::new(FAMILY, json!({})));
        Part::Reasoning(Text { text: text.to_owned(), replay: Some(replay) })
    } else {
        Part::Text(Text { text: text.to_owned(), replay: replay(part) })
    })
}

fn user_part(part: &Value) -> Option<Part> {
    if let Some(text) = part["text"].as_str() {
        return Some(Part::text(text));
    }
    let (file, source) = match (&part["inlineData"], &part["fileData"]) {
        (file @ Value::Object(_), _) => (file, MediaSource::Base64(file["data"].as_str()?.to_owned())),
        (_, file @ Value::Object(_)) => (file, MediaSource::Url(file["fileUri"].as_str()?.to_owned())),
        _ => return None,
    };
    Some(Part::Media(Media { media_type: file["mimeType"].as_str()?.to_owned(), source, name: None }))
}

/// A response to the call of its id, else to the oldest of its name.
fn result(response: &Value, asked: &mut VecDeque<ToolCall>) -> Option<ToolResult> {
    let name = response["name"].as_str()?;
    let id = response["id"].as_str();
    let at = asked.iter().position(|c| id.map_or(c.name == name, |id| c.id == id))?;
    let call = asked.remove(at)?;
    let status = if response["error"] == true { ToolStatus::Error } else { ToolStatus::Ok };
    let mut result = ToolResult::new(&call, status, response["text"].as_str()?);
    for part in response["parts"].as_array().into_iter().flatten() {
        match user_part(part)? {
            Part::Media(file) => result.media.push(file),
            _ => return None,
        }
    }
    Some(result)
}

fn tools(tools: Option<Value>, request: &mut Request, extra: &mut Map<String, Value>) -> Option<()> {
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for mut tool in tools.as_ref().and_then(Value::as_array).cloned().unwrap_or_default() {
        if let Some(Value::Array(functions)) = tool.as_object_mut()?.remove("functionDeclarations") {
            for function in functions {
                let schema = function.get("parametersJsonSchema").cloned();
                let schema = schema.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
                let description = function["description"].as_str().unwrap_or_default();
                ours.push(ToolSpec::new(function["name"].as_str()?, description, schema));
            }
        }
        if tool.as_object().is_some_and(|t| !t.is_empty()) {
            others.push(tool);
        }
    }
    request.tools = ours.into();
    if !others.is_empty() {
        extra.insert("tools".into(), others.into());
    }
    Some(())
}

fn choice(config: Option<Value>, request: &mut Request, extra: &mut Map<String, Value>) -> Option<()> {
    let Some(Value::Object(mut config)) = config else { return Some(()) };
    if let Some(calling) = config.remove("functionCallingConfig") {
        let allowed = calling["allowedFunctionNames"].as_array().map_or(&[][..], Vec::as_slice);
        request.tool_choice = match (calling["mode"].as_str(), allowed) {
            _ if request.tools.is_empty() => ToolChoice::Auto,
            (None | Some("AUTO"), []) => ToolChoice::Auto,
            (Some("NONE"), []) => ToolChoice::None,
            (Some("ANY"), []) => ToolChoice::Required,
            (Some("ANY"), [one]) => ToolChoice::Tool(one.as_str()?.to_owned()),
            _ => ToolChoice::Auto,
        };
        if request.tool_choice == ToolChoice::Auto {
            config.insert("functionCallingConfig".into(), calling);
        }
    }
    if !config.is_empty() {
        extra.insert("toolConfig".into(), config.into());
    }
    Some(())
}

fn generation(config: Option<Value>, request: &mut Request, extra: &mut Map<String, Value>) -> Option<()> {
    let Some(Value::Object(mut config)) = config else { return Some(()) };
    let float = |v: Value| v.as_f64().map(|f| f as f32);
    if let Some(t) = config.remove("temperature") {
        request.temperature = Some(float(t)?);
    }
    if let Some(p) = config.remove("topP") {
        request.top_p = Some(float(p)?);
    }
    if let Some(n) = config.remove("maxOutputTokens") {
        request.max_tokens = Some(u32::try_from(n.as_u64()?).ok()?);
    }
    for stop in config.remove("stopSequences").as_ref().and_then(Value::as_array).into_iter().flatten() {
        request.stop.push(stop.as_str()?.to_owned());
    }
    let json = config.get("responseMimeType").is_some_and(|t| t == "application/json");
    if let (true, Some(schema)) = (json, config.get("responseJsonSchema").cloned()) {
        request.output_schema = Some(Arc::new(schema));
        config.remove("responseMimeType");
        config.remove("responseJsonSchema");
    }
    if !config.is_empty() {
        extra.insert("generationConfig".into(), config.into());
    }
    Some(())
}

/// Do the two bodies ask for the same?
///
/// # Errors
/// Where they first differ.
pub fn equivalent(recorded: &Value, ours: &Value) -> Result<(), String> {
    let (mut recorded, mut ours) = (canonical(recorded), canonical(ours));
    let named = |body: &Value| {
        let all = body["contents"].as_array().into_iter().flatten();
        let parts = all.flat_map(|c| c["parts"].as_array().into_iter().flatten());
        let calls = parts.filter_map(|p| p.get("functionCall").or(p.get("functionResponse")));
        calls.map(|c| c.get("id").is_some()).collect::<Vec<_>>()
    };
    // An id that we added has nothing to be held against.
    let known = named(&recorded);
    let mut at = 0;
    for part in ours["contents"]
        .as_array_mut()
        .into_iter()
        .flatten()
        .flat_map(|c| c["parts"].as_array_mut().into_iter().flatten())
    {
        let key = if part.get("functionCall").is_some() { "functionCall" } else { "functionResponse" };
        if let Some(Value::Object(call)) = part.get_mut(key) {
            if known.get(at) == Some(&false) {
                call.remove("id");
            }
            at += 1;
        }
    }
    // The schema of an answer, in words or in its field.
    if recorded["generationConfig"].get("responseJsonSchema").is_some()
        && ours["generationConfig"].get("responseJsonSchema").is_none()
    {
        let schema = recorded["generationConfig"]["responseJsonSchema"].to_string();
        let asked = ours["systemInstruction"]["parts"].as_array_mut().and_then(Vec::pop);
        if !asked.is_some_and(|p| p["text"].as_str().is_some_and(|t| t.contains(&schema))) {
            return Err("the schema of the answer is asked for nowhere".into());
        }
        if let Value::Object(config) = &mut recorded["generationConfig"] {
            config.remove("responseJsonSchema");
            config.remove("responseMimeType");
        }
        (recorded, ours) = (pruned(recorded), pruned(ours));
    }
    differ(&recorded, &ours, "")
}

fn differ(a: &Value, b: &Value, at: &str) -> Result<(), String> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for key in x.keys().chain(y.keys()) {
                let null = Value::Null;
                differ(x.get(key).unwrap_or(&null), y.get(key).unwrap_or(&null), &format!("{at}/{key}"))?;
            }
            Ok(())
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).enumerate().try_for_each(|(n, (x, y))| differ(x, y, &format!("{at}/{n}")))
        }
        (Value::Number(x), Value::Number(y)) if x.as_f64() == y.as_f64() => Ok(()),
        (a, b) if a == b => Ok(()),
        (a, b) => Err(format!("{at}: recorded {a:.300}, ours {b:.300}")),
    }
}

/// A body without the liberties that the API leaves.
fn canonical(body: &Value) -> Value {
    let mut body = pruned(camel(body));
    let Some(fields) = body.as_object_mut() else { return body };
    if let Some(Value::Object(system)) = fields.get_mut("systemInstruction") {
        system.remove("role");
    }
    for tool in fields.get_mut("tools").and_then(Value::as_array_mut).into_iter().flatten() {
        for function in
            tool.get_mut("functionDeclarations").and_then(Value::as_array_mut).into_iter().flatten()
        {
            let Some(function) = function.as_object_mut() else { continue };
            if let Some(schema) = function.remove("parameters") {
                function.insert("parametersJsonSchema".into(), small(schema));
            }
        }
    }
    if let Some(tools) = fields.get_mut("tools").and_then(Value::as_array_mut) {
        // Ours come first.
        tools.sort_by_key(|tool| tool.get("functionDeclarations").is_none());
    }
    let mut contents: Vec<Value> = Vec::new();
    for mut content in fields.get("contents").and_then(Value::as_array).cloned().unwrap_or_default() {
        let role = content["role"].as_str().unwrap_or("user").to_owned();
        let Some(Value::Array(mut parts)) = content.get_mut("parts").map(Value::take) else { continue };
        for part in &mut parts {
            if let Some(Value::Object(response)) = part.get_mut("functionResponse") {
                let told = response.remove("response").unwrap_or_default();
                let (text, error) = words(&told);
                response.insert("text".into(), text.into());
                if error {
                    response.insert("error".into(), true.into());
                }
            }
        }
        match contents.last_mut() {
            Some(last) if last["role"] == role.as_str() => {
                if let Some(all) = last["parts"].as_array_mut() {
                    all.append(&mut parts);
                }
            }
            _ => contents.push(json!({ "role": role, "parts": parts })),
        }
    }
    fields.insert("contents".into(), contents.into());
    body
}

/// What a response says, and whether it is an error. The words of a lone field stand for the whole, as they do for the model.
fn words(response: &Value) -> (String, bool) {
    let fields = response.as_object();
    if let (Some(fields), 1) = (fields, fields.map_or(0, Map::len))
        && let Some((key, value)) = fields.iter().next()
        && ["output", "error", "result", "return_value"].contains(&key.as_str())
    {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return (text, key == "error");
    }
    match fields {
        None => ("(no output)".into(), false),
        Some(fields) if fields.is_empty() => ("(no output)".into(), false),
        Some(_) => (response.to_string(), false),
    }
}

/// Keys in lowerCamelCase, wherever they are the API's: not in arguments, schemas and responses.
fn camel(value: &Value) -> Value {
    let renamed = |key: &str| {
        let mut words = key.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |all, word| {
            let (head, tail) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
            all + &head.to_uppercase() + tail
        })
    };
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| {
                    let key = renamed(key);
                    let own = [
                        "args",
                        "response",
                        "parameters",
                        "parametersJsonSchema",
                        "responseJsonSchema",
                        "labels",
                    ];
                    let value = if own.contains(&key.as_str()) { value.clone() } else { camel(value) };
                    (key, value)
                })
                .collect(),
        ),
        Value::Array(items) => items.iter().map(camel).collect(),
        other => other.clone(),
    }
}

/// Without what says nothing: nulls, empty objects and lists, defaults, blank texts without a signature.
fn pruned(value: Value) -> Value {
    const KEPT: &[&str] = &["args", "response", "parameters", "parametersJsonSchema", "responseJsonSchema"];
    const MARKS: &[&str] =
        &["googleSearch", "codeExecution", "urlContext", "executableCode", "codeExecutionResult"];
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| {
                let value = if KEPT.contains(&key.as_str()) { value } else { pruned(value) };
                (key, value)
            })
            .filter(|(key, value)| match value {
                Value::Null => false,
                Value::Object(map) => {
                    !map.is_empty() || KEPT.contains(&key.as_str()) || MARKS.contains(&key.as_str())
                }
                Value::Array(items) => !items.is_empty(),
                Value::Bool(false) => key != "thought",
                Value::String(text) => !(text.is_empty() && key == "description"),
                Value::Bool(true) | Value::Number(_) => true,
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => {
            let says = |v: &Value| match v {
                Value::Object(map) if map.contains_key("text") => {
                    let blank = v["text"].as_str().is_some_and(|t| t.trim().is_empty());
                    !blank || map.contains_key("thoughtSignature")
                }
                Value::Object(map) => !map.is_empty(),
                other => !other.is_null(),
            };
            items.into_iter().map(pruned).filter(says).collect()
        }
        other => other,
    }
}

/// An OpenAPI schema as JSON Schema.
fn small(schema: Value) -> Value {
    match schema {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| match value {
                Value::String(kind) if key == "type" => (key, kind.to_lowercase().into()),
                value => (key, small(value)),
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(small).collect(),
        other => other,
    }
}
