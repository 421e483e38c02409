//! Bodies of `generateContent`, `streamGenerateContent` and `countTokens`.

use super::{
    FAMILY, SIGNATURE,
    model::{Thinking, media_in_responses, resource, schema_beside_tools, thinking, version},
};
use crate::wire::{
    media::{self, Shown, shown},
    turns::{
        BEGINS, GO_ON, Said, Turn, args_object, blank, check_choice, marked_system, media_note, merge_extra,
        result_text, turns,
    },
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};
use zo_traits::{
    Effort, Error, ErrorKind, Media, MediaSource, Part, Replay, Request, Result, Role, ToolChoice, ToolResult,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    /// Only where the path does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Cow<'a, str>>,
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<System<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tools<'a>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    tool_config: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    generation_config: Map<String, Value>,
}

#[derive(Serialize)]
struct System<'a> {
    parts: Vec<Piece<'a>>,
}

#[derive(Serialize)]
struct Content<'a> {
    role: &'static str,
    parts: Vec<Piece<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Piece<'a> {
    #[serde(rename_all = "camelCase")]
    Text {
        text: Cow<'a, str>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        thought: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        thought_signature: Option<&'a str>,
    },
    #[serde(rename_all = "camelCase")]
    Call {
        function_call: Call<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        thought_signature: Option<&'a str>,
    },
    #[serde(rename_all = "camelCase")]
    Response {
        function_response: Response<'a>,
    },
    #[serde(rename_all = "camelCase")]
    Inline {
        inline_data: Blob<'a>,
    },
    #[serde(rename_all = "camelCase")]
    File {
        file_data: File<'a>,
    },
    Verbatim(&'a Value),
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    name: Cow<'a, str>,
    args: Cow<'a, Value>,
}

#[derive(Serialize)]
struct Response<'a> {
    id: &'a str,
    name: Cow<'a, str>,
    response: Told<'a>,
    /// Files, for models that take them here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Piece<'a>>,
}

/// The two keys that the API gives a meaning to.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Told<'a> {
    Output(Cow<'a, str>),
    Error(Cow<'a, str>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    mime_type: Cow<'a, str>,
    data: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    mime_type: Cow<'a, str>,
    file_uri: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Tools<'a> {
    #[serde(rename_all = "camelCase")]
    Ours {
        function_declarations: Vec<Declared<'a>>,
    },
    Callers(&'a Value),
}

/// A function on offer. The schema goes as `parametersJsonSchema`, which takes JSON Schema as it is. The older `parameters`
/// is OpenAPI's dialect, and the API refuses the whole request over an `additionalProperties`, a `$ref` or a list of types
/// there: what would have to be left out of a tool's schema is what the tool insists on.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Declared<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters_json_schema: &'a Value,
}

/// Stands for the signature of a call that Gemini did not make, or made without one, where it would refuse the conversation
/// for the lack of it (<https://ai.google.dev/gemini-api/docs/thought-signatures>, frequently asked questions).
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Longest answer of the models that think by a budget, in tokens, thoughts included.
const MAX_OUTPUT: u32 = 65_536;

const OP: &str = "gemini.encode";

/// The body of a `POST /models/{model}:streamGenerateContent?alt=sse` for `request`, or of one to `:generateContent` where the
/// answer is wanted whole.
///
/// [`Request::extra`] wins field by field, inside `generationConfig` and `toolConfig` too. Its `tools` come behind those of the
/// request, since Gemini's own tools are entries of the same list.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a file in the user's newest message that the API has no place for (of one in an older message,
/// of a picture, and of one in a result, the model is told); [`ErrorKind::Invalid`] for a conversation in which nobody says
/// anything, for a choice of a tool that is not on offer, and for a tool's name that begins with a digit or a hyphen.
pub fn encode(request: &Request, model: &str) -> Result<Vec<u8>> {
    write(request, model, None)
}

/// The body of a `POST /models/{model}:countTokens`, which counts all of `request`: system text and tools, too.
///
/// # Errors
/// As [`encode`].
pub fn count_body(request: &Request, model: &str) -> Result<Vec<u8>> {
    let inner = write(request, model, Some(resource(model)))?;
    Ok([b"{\"generateContentRequest\":".as_slice(), &inner, b"}"].concat())
}

fn write(request: &Request, model: &str, named: Option<Cow<'_, str>>) -> Result<Vec<u8>> {
    check_choice(request, OP)?;
    if let Some(tool) = request.tools.iter().find(|t| wire_name(&t.name) != t.name) {
        let name = &tool.name;
        return Err(invalid(format_args!(
            "Gemini takes no tool named {name:?}: names begin with a letter or an underscore, go on with letters, digits and \
             _ . : -, and have 64 characters at most"
        )));
    }
    let (mut system, turns) = turns(&request.messages);
    let contents = contents(&turns, model)?;
    if contents.is_empty() {
        return Err(invalid("the request has no message with content"));
    }
    let mut extra = request.extra.clone();
    let mut fields = |key: &str| match extra.remove(key) {
        Some(Value::Object(map)) => map,
        Some(other) => {
            extra.insert(key.into(), other);
            Map::new()
        }
        None => Map::new(),
    };
    let (own_config, own_tool_config) = (fields("generationConfig"), fields("toolConfig"));
    let own_tools = match extra.remove("tools") {
        Some(Value::Array(tools)) => tools,
        Some(other) => {
            extra.insert("tools".into(), other);
            Vec::new()
        }
        None => Vec::new(),
    };
    let mut tools = Vec::new();
    if !request.tools.is_empty() {
        let function_declarations = request.tools.iter().map(Declared::new).collect();
        tools.push(Tools::Ours { function_declarations });
    }
    tools.extend(own_tools.iter().map(Tools::Callers));

    let mut tool_config = Map::new();
    if let Some(calling) = calling(&request.tool_choice).filter(|_| !request.tools.is_empty()) {
        tool_config.insert("functionCallingConfig".into(), calling);
    }
    tool_config.extend(own_tool_config);

    let schema = request.output_schema.as_deref();
    let beside = request.tools.is_empty() || schema_beside_tools(model);
    let ask = schema.filter(|_| !beside).map(|schema| {
        format!("Answer with one JSON object that obeys this JSON Schema, and nothing else:\n{schema}")
    });
    system.extend(ask.as_deref());
    let mut generation_config = generation(request, model, schema.filter(|_| beside));
    generation_config.extend(own_config);

    let body = Body {
        model: named,
        contents,
        system_instruction: (!system.is_empty())
            .then(|| System { parts: system.into_iter().map(Piece::text).collect() }),
        tools,
        tool_config,
        generation_config,
    };
    merge_extra(&body, &extra).map_err(|e| invalid(format_args!("no JSON: {e}")))
}

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, OP, why)
}

impl<'a> Declared<'a> {
    fn new(tool: &'a zo_traits::ToolSpec) -> Self {
        Self { name: &tool.name, description: &tool.description, parameters_json_schema: &tool.input }
    }
}

fn calling(choice: &ToolChoice) -> Option<Value> {
    match choice {
        ToolChoice::None => Some(json!({ "mode": "NONE" })),
        ToolChoice::Required => Some(json!({ "mode": "ANY" })),
        ToolChoice::Tool(name) => Some(json!({ "mode": "ANY", "allowedFunctionNames": [name] })),
        _ => None,
    }
}

fn generation(request: &Request, model: &str, schema: Option<&Value>) -> Map<String, Value> {
    let mut max_tokens = request.max_tokens;
    let thoughts = request.effort.as_ref().and_then(|effort| match thinking(model) {
        Thinking::Never => None,
        Thinking::Budget => {
            let budget = budget(effort, model);
            // The answer comes on top of the thinking, within one limit.
            max_tokens = max_tokens.map(|n| n.saturating_add(budget).min(MAX_OUTPUT.max(n)));
            Some(json!({ "thinkingBudget": budget, "includeThoughts": budget > 0 && *effort != Effort::Minimal }))
        }
        Thinking::Level => Some(json!({
            "thinkingLevel": level(effort, model),
            "includeThoughts": *effort != Effort::Minimal,
        })),
    });
    let fields = [
        ("temperature", request.temperature.map(number)),
        ("topP", request.top_p.map(number)),
        ("maxOutputTokens", max_tokens.map(Value::from)),
        ("stopSequences", (!request.stop.is_empty()).then(|| Value::from(request.stop.as_slice()))),
        ("responseMimeType", schema.map(|_| "application/json".into())),
        ("responseJsonSchema", schema.cloned()),
        ("thinkingConfig", thoughts),
    ];
    fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// A number as it was written: 0.7, not the double that is nearest to the float 0.7.
fn number(n: f32) -> Value {
    n.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// Tokens to think with. All models of this kind take these; Pro cannot be kept from thinking altogether.
fn budget(effort: &Effort, model: &str) -> u32 {
    match effort {
        Effort::Minimal if model.contains("pro") => 128,
        Effort::Minimal => 0,
        Effort::Low => 2048,
        Effort::High => 24_576,
        _ => 8192,
    }
}

/// Pro has no "minimal", nor has Flash from 3.7 on, and the first Pro has no "medium". All know "low".
fn level(effort: &Effort, model: &str) -> &'static str {
    let pro = model.contains("-pro");
    match effort {
        Effort::Minimal if !pro && version(model).is_some_and(|v| v < (3, 7)) => "minimal",
        Effort::Minimal | Effort::Low => "low",
        Effort::High => "high",
        _ if pro && model.contains("gemini-3-pro") => "high",
        _ => "medium",
    }
}

fn contents<'a>(turns: &[Turn<'a>], model: &str) -> Result<Vec<Content<'a>>> {
    let broken = unpaired(turns);
    let mut out: Vec<Content<'a>> = Vec::with_capacity(turns.len() + 2);
    let mut names: HashMap<&str, &str> = HashMap::new();
    for (at, turn) in turns.iter().enumerate() {
        match turn {
            Turn::Model(parts) => {
                let whole = |n: &usize| !broken.contains(&(at, *n));
                let parts: Vec<&'a Part> =
                    parts.iter().enumerate().filter(|(n, _)| whole(n)).map(|(_, part)| *part).collect();
                for part in &parts {
                    if let Part::ToolCall(call) = part {
                        names.insert(&call.id, &call.name);
                    }
                }
                let parts = model_turn(&parts, model);
                if out.is_empty() && !parts.is_empty() {
                    out.push(Content { role: "user", parts: vec![Piece::text(BEGINS)] });
                }
                push(&mut out, "model", parts);
            }
            Turn::Host { results, said } => {
                // What is said goes into a content of its own: the one behind calls holds their responses and nothing else.
                let (responses, mut parts) = responses(results, &names, model);
                if !responses.is_empty() {
                    out.push(Content { role: "user", parts: responses });
                }
                host_turn(said, &mut parts)?;
                push(&mut out, "user", parts);
            }
        }
    }
    // The API goes on only behind the user.
    if out.last().is_some_and(|c| c.role == "model") {
        out.push(Content { role: "user", parts: vec![Piece::text(GO_ON)] });
    }
    Ok(out)
}

/// Adds a turn, unless it is empty; one of the same role as the last is merged into it.
fn push<'a>(contents: &mut Vec<Content<'a>>, role: &'static str, mut parts: Vec<Piece<'a>>) {
    let responds = |c: &Content<'_>| matches!(c.parts.first(), Some(Piece::Response { .. }));
    match contents.last_mut() {
        _ if parts.is_empty() => {}
        Some(last) if last.role == role && !responds(last) => last.parts.append(&mut parts),
        _ => contents.push(Content { role, parts }),
    }
}

impl<'a> Piece<'a> {
    fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text { text: text.into(), thought: false, thought_signature: None }
    }
}

/// The signature that a part of this wire came with.
fn signature(replay: &Option<Replay>) -> Option<&str> {
    let own = replay.as_ref().filter(|r| r.provider == FAMILY)?;
    own.data.get(SIGNATURE)?.as_str().filter(|s| is_signature(s))
}

/// Bytes in JSON are base64, of either alphabet; the API refuses the whole request over anything else.
fn is_signature(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    !digits.is_empty()
        && text.len() - digits.len() <= 2
        && digits.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'))
}

fn model_turn<'a>(parts: &[&'a Part], model: &str) -> Vec<Piece<'a>> {
    // Of parallel calls the first one has the signature.
    let mut lacks = thinking(model) == Thinking::Level;
    let out: Vec<Piece<'a>> = parts
        .iter()
        .filter_map(|part| {
            Some(match part {
                Part::Text(t) | Part::Refusal(t) => {
                    let signature = signature(&t.replay);
                    if blank(&t.text) && signature.is_none() {
                        return None;
                    }
                    Piece::Text { text: Cow::Borrowed(&t.text), thought: false, thought_signature: signature }
                }
                Part::Reasoning(t) => {
                    t.replay.as_ref().filter(|r| r.provider == FAMILY)?;
                    let signature = signature(&t.replay);
                    if blank(&t.text) && signature.is_none() {
                        return None;
                    }
                    Piece::Text { text: Cow::Borrowed(&t.text), thought: true, thought_signature: signature }
                }
                Part::ToolCall(call) => {
                    let dummy = std::mem::take(&mut lacks).then_some(NO_SIGNATURE);
                    let name = wire_name(&call.name);
                    Piece::Call {
                        function_call: Call { id: &call.id, name, args: args_object(&call.args) },
                        thought_signature: signature(&call.replay).or(dummy),
                    }
                }
                Part::Opaque(replay) if replay.provider == FAMILY && is_whole(&replay.data) => {
                    Piece::Verbatim(&replay.data)
                }
                _ => return None,
            })
        })
        .collect();
    // Thoughts alone say nothing.
    if out.iter().all(|p| matches!(p, Piece::Text { thought: true, .. })) { Vec::new() } else { out }
}

/// Can it go back as it is? What the wire has parts for comes as these, never as a block of its provider's own.
fn is_whole(block: &Value) -> bool {
    let Some(block) = block.as_object() else { return false };
    let beside = ["thought", SIGNATURE, "partMetadata", "videoMetadata", "mediaResolution"];
    let mut data = block.iter().filter(|(key, value)| !value.is_null() && !beside.contains(&key.as_str()));
    let (Some((kind, value)), None) = (data.next(), data.next()) else { return false };
    let has = |key: &str| value.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    let fine = match kind.as_str() {
        "text" | "functionCall" | "functionResponse" => false,
        "inlineData" => has("mimeType") && has("data"),
        "fileData" => has("fileUri"),
        _ => value.is_object(),
    };
    fine && block.get(SIGNATURE).is_none_or(|s| s.as_str().is_some_and(is_signature))
        && block.get("thought").is_none_or(Value::is_boolean)
}

/// Places (turn, part) of calls and results of the provider's own tools that lack their counterpart, as when an answer was
/// cut. A call may wait for its result as long as the model's turn lasts.
fn unpaired(turns: &[Turn<'_>]) -> HashSet<(usize, usize)> {
    const PAIRS: [(&str, &str); 2] =
        [("executableCode", "codeExecutionResult"), ("toolCall", "toolResponse")];
    let mut out = HashSet::new();
    let mut open: HashMap<(&str, &str), (usize, usize)> = HashMap::new();
    for (at, turn) in turns.iter().enumerate() {
        let parts = match turn {
            Turn::Model(parts) => parts,
            Turn::Host { results, .. } => {
                if results.is_empty() {
                    out.extend(open.drain().map(|(_, place)| place));
                }
                continue;
            }
        };
        for (n, part) in parts.iter().enumerate() {
            let Part::Opaque(replay) = part else { continue };
            if replay.provider != FAMILY || !is_whole(&replay.data) {
                continue;
            }
            for (call, result) in PAIRS {
                if let Some(block) = replay.data.get(call).filter(|b| !b.is_null()) {
                    // A second one under the same id takes the place of the first.
                    out.extend(open.insert((call, id_of(block)), (at, n)));
                } else if let Some(block) = replay.data.get(result).filter(|b| !b.is_null())
                    && open.remove(&(call, id_of(block))).is_none()
                {
                    out.insert((at, n));
                }
            }
        }
    }
    // At the very end, too: the user goes on.
    out.extend(open.into_values());
    out
}

/// The id of a block; empty where the API gives none, as with code up to Gemini 2.5.
fn id_of(block: &Value) -> &str {
    block.get("id").and_then(Value::as_str).unwrap_or_default()
}

/// The responses to calls, and the files of those that cannot hold them.
fn responses<'a>(
    results: &[&'a ToolResult],
    names: &HashMap<&'a str, &'a str>,
    model: &str,
) -> (Vec<Piece<'a>>, Vec<Piece<'a>>) {
    let (mut out, mut shown) = (Vec::with_capacity(results.len()), Vec::new());
    for result in results {
        let name = names.get(result.id.as_str()).copied().unwrap_or(&result.name);
        let (mut text, mut inside) = (result_text(result), Vec::new());
        for file in &result.media {
            match media(file) {
                Some(piece @ Piece::Inline { .. }) if media_in_responses(model) && fits_inside(&piece) => {
                    inside.push(piece);
                }
                Some(piece) => {
                    shown.push(Piece::text(format!("Result of {name} ({}):", result.id)));
                    shown.push(piece);
                }
                None => text = Cow::Owned(format!("{text}\n{}", media_note(file))),
            }
        }
        let response = if result.is_error() { Told::Error(text) } else { Told::Output(text) };
        let response = Response { id: &result.id, name: wire_name(name), response, parts: inside };
        out.push(Piece::Response { function_response: response });
    }
    (out, shown)
}

/// What a response may hold: pictures and documents, as bytes.
fn fits_inside(piece: &Piece<'_>) -> bool {
    let Piece::Inline { inline_data } = piece else { return false };
    matches!(
        &*inline_data.mime_type,
        "image/png" | "image/jpeg" | "image/webp" | "application/pdf" | "text/plain"
    )
}

fn host_turn<'a>(said: &[Said<'a>], out: &mut Vec<Piece<'a>>) -> Result<()> {
    for Said { role, parts, asked } in said {
        for part in parts {
            match part {
                Part::Text(t) | Part::Refusal(t) if blank(&t.text) => {}
                Part::Text(t) | Part::Refusal(t) => out.push(if **role == Role::System {
                    Piece::text(marked_system(&t.text))
                } else {
                    Piece::text(&*t.text)
                }),
                Part::Media(file) => out.push(match media(file) {
                    Some(piece) => piece,
                    None if *asked && !media::is_picture(file) => {
                        return Err(media::refused(file, OP, "Gemini"));
                    }
                    None => Piece::text(media_note(file)),
                }),
                _ => {}
            }
        }
    }
    Ok(())
}

fn media(file: &Media) -> Option<Piece<'_>> {
    // Files in Google's own storage, which no other provider can follow.
    if let MediaSource::Url(url) = &file.source
        && media::starts(url, "gs://")
    {
        let mime_type = file.media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let file_data = File { file_uri: url, mime_type: mime_type.into() };
        return takes(&file_data.mime_type).then_some(Piece::File { file_data });
    }
    let Shown { kind, source } = shown(file)?;
    if !takes(&kind) {
        return None;
    }
    Some(match source {
        media::Source::Bytes(data) => Piece::Inline { inline_data: Blob { mime_type: kind, data } },
        media::Source::Link(url) if media::starts(url, "https:") => {
            Piece::File { file_data: File { mime_type: kind, file_uri: url } }
        }
        media::Source::Link(_) => return None,
    })
}

/// Media types that the API documents as input (<https://ai.google.dev/gemini-api/docs/file-input-methods>).
fn takes(kind: &str) -> bool {
    let Some((family, kind)) = kind.split_once('/') else { return false };
    match family {
        "image" => matches!(kind, "png" | "jpeg" | "webp" | "heic" | "heif"),
        "audio" => matches!(
            kind,
            "wav"
                | "mpeg"
                | "mpga"
                | "aiff"
                | "aac"
                | "ogg"
                | "opus"
                | "flac"
                | "m4a"
                | "mp4"
                | "pcm"
                | "webm"
        ),
        "video" => matches!(
            kind,
            "mp4"
                | "mpeg"
                | "mpg"
                | "mpegps"
                | "mov"
                | "quicktime"
                | "avi"
                | "x-flv"
                | "webm"
                | "wmv"
                | "3gpp"
        ),
        "text" => {
            matches!(kind, "plain" | "html" | "css" | "csv" | "xml" | "rtf" | "markdown" | "javascript")
        }
        "application" => kind == "pdf",
        _ => false,
    }
}

/// A function's name as the API takes it. The names of tools are fine as they are, or an error; in a history that others
/// wrote there may be anything.
fn wire_name(name: &str) -> Cow<'_, str> {
    let begins = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let goes_on = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    if name.len() <= 64 && name.bytes().next().is_some_and(begins) && name.bytes().all(goes_on) {
        return Cow::Borrowed(name);
    }
    let plain = |c: char| if u8::try_from(c).is_ok_and(goes_on) { c } else { '_' };
    Cow::Owned(std::iter::once('_').chain(name.chars().map(plain)).take(64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Codec, gemini::Generate};
    use std::collections::VecDeque;
    use zo_traits::{Accumulator, Message, Text, ToolCall, ToolSpec, ToolStatus};

    fn of(request: &Request, model: &str) -> Value {
        serde_json::from_slice(&encode(request, model).unwrap()).unwrap()
    }

    fn body(request: &Request) -> Value {
        of(request, "gemini-3-flash-preview")
    }

    fn call(id: &str) -> ToolCall {
        ToolCall::new(id, "f", json!({"a": 1}))
    }

    fn model(parts: impl IntoIterator<Item = Part>) -> Message {
        Message { role: Role::Assistant, parts: parts.into_iter().collect() }
    }

    fn file(kind: &str, source: MediaSource) -> Media {
        Media { media_type: kind.into(), source, name: None }
    }

    fn bytes(kind: &str) -> Media {
        file(kind, MediaSource::Base64("QUJD".into()))
    }

    fn tool(name: &str) -> ToolSpec {
        ToolSpec::new(name, "", json!({"type": "object", "additionalProperties": false}))
    }

    #[test]
    fn responses_stand_alone_behind_their_calls() {
        let calls = [call("c1"), call("c2")];
        let r = Request::new(
            "",
            [
                Message::system("be brief"),
                Message::user("go"),
                model([Part::text("on it")].into_iter().chain(calls.clone().map(Part::ToolCall))),
                Message::tool_results([ToolResult::new(&calls[0], ToolStatus::Ok, "")]),
                Message::user("hurry"),
                Message::system("note"),
                Message::tool_results([ToolResult::new(&calls[1], ToolStatus::Error, "no")]),
                Message::user("  "),
            ],
        );
        let b = of(&r, "gemini-2.5-flash");
        let call = |id: &str| json!({"functionCall": {"id": id, "name": "f", "args": {"a": 1}}});
        assert_eq!(
            b,
            json!({
                "systemInstruction": {"parts": [{"text": "be brief"}]},
                "contents": [
                    {"role": "user", "parts": [{"text": "go"}]},
                    {"role": "model", "parts": [{"text": "on it"}, call("c1"), call("c2")]},
                    {"role": "user", "parts": [
                        {"functionResponse": {"id": "c1", "name": "f", "response": {"output": "(no output)"}}},
                        {"functionResponse": {"id": "c2", "name": "f", "response": {"error": "no"}}},
                    ]},
                    {"role": "user", "parts": [{"text": "hurry"}, {"text": "<system>\nnote\n</system>"}]},
                ],
            })
        );
    }

    #[test]
    fn what_came_goes_back_as_it_came() {
        let parts = json!([
            {"toolCall": {"id": "t", "toolType": "X"}, "thoughtSignature": "YQ=="},
            {"toolResponse": {"id": "t", "response": {"deep": [1, 2.5, null]}}, "thoughtSignature": "Yg=="},
            {"text": "hm", "thought": true, "thoughtSignature": "Yw=="},
            {"executableCode": {"code": "1", "language": "PYTHON"}},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
            {"text": "so"},
            {"text": "", "thoughtSignature": "ZA=="},
            {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
            {"brandNew": {"deep": {"er": true}}},
            {"functionCall": {"id": "x", "name": "f", "args": {"a": 1}}, "thoughtSignature": "ZQ=="},
            {"functionCall": {"id": "y", "name": "g", "args": {}}},
        ]);
        let answer = json!({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]});
        let (mut codec, mut events, mut acc) = (Generate::new(), VecDeque::new(), Accumulator::default());
        codec.whole(&answer.to_string(), &mut events).unwrap();
        events.into_iter().for_each(|e| acc.push(e).unwrap());
        let message = acc.finish().unwrap().message;
        let calls: Vec<_> = message.tool_calls().cloned().collect();
        let results = Message::tool_results(calls.iter().map(|c| ToolResult::new(c, ToolStatus::Ok, "1")));
        let r = Request::new("", [Message::user("go"), message, results]);
        for model in ["gemini-3-flash-preview", "gemini-2.5-flash"] {
            assert_eq!(of(&r, model)["contents"][1]["parts"], parts, "{model}");
        }
    }

    #[test]
    fn calls_of_others_get_the_signature_that_skips_the_check() {
        let foreign = |id: &str| {
            let replay = Some(Replay::new("anthropic", json!({SIGNATURE: "eA==", "signature": "x"})));
            Part::ToolCall(ToolCall { replay, ..call(id) })
        };
        let own = |id: &str, data: Value| {
            Part::ToolCall(ToolCall { replay: Some(Replay::new(FAMILY, data)), ..call(id) })
        };
        let signatures = |parts: Vec<Part>, model_id: &str| -> Vec<Value> {
            let asked = model(parts);
            let calls: Vec<_> = asked.tool_calls().cloned().collect();
            let results =
                Message::tool_results(calls.iter().map(|c| ToolResult::new(c, ToolStatus::Ok, "1")));
            let b = of(&Request::new("", [Message::user("go"), asked, results]), model_id);
            let parts = b["contents"][1]["parts"].as_array().unwrap();
            parts.iter().map(|p| p[SIGNATURE].clone()).collect()
        };
        let (skip, none) = (json!(NO_SIGNATURE), Value::Null);
        for m in ["gemini-3-pro-preview", "models/gemini-3.1-flash", "gemini-flash-latest"] {
            assert_eq!(signatures(vec![foreign("a"), foreign("b")], m), [skip.clone(), none.clone()], "{m}");
        }
        for m in ["gemini-2.5-pro", "gemini-2.0-flash", "gemma-3-27b-it"] {
            assert_eq!(signatures(vec![foreign("a")], m), vec![Value::Null], "{m}");
        }
        let signed = || own("a", json!({SIGNATURE: "c2ln"}));
        assert_eq!(signatures(vec![signed(), foreign("b")], "gemini-3-pro"), [json!("c2ln"), none.clone()]);
        for bad in [
            json!({}),
            json!({SIGNATURE: ""}),
            json!({SIGNATURE: 5}),
            json!({SIGNATURE: "no base64!"}),
            none.clone(),
        ] {
            assert_eq!(signatures(vec![own("a", bad.clone())], "gemini-3-pro"), vec![skip.clone()], "{bad}");
        }
    }

    #[test]
    fn others_replay_data_stays_home() {
        let foreign = Replay::new("openai", json!({SIGNATURE: "eA=="}));
        let r = Request::new(
            "",
            [
                model([
                    Part::Reasoning(Text { text: "hm".into(), replay: Some(foreign.clone()) }),
                    Part::Reasoning(Text::new("hm")),
                    Part::Opaque(Replay::new("openai", json!({"toolCall": {}}))),
                    Part::Text(Text { text: "hello ".into(), replay: Some(foreign.clone()) }),
                    Part::Text(Text { text: " ".into(), replay: Some(foreign) }),
                    Part::Unknown(json!({"text": "odd"})),
                ]),
                Message::user("b"),
                model([Part::Reasoning(Text {
                    text: "hm".into(),
                    replay: Some(Replay::new(FAMILY, json!({}))),
                })]),
                Message::user("c"),
            ],
        );
        let c = body(&r)["contents"].clone();
        assert_eq!(c[1], json!({"role": "model", "parts": [{"text": "hello "}]}));
        assert_eq!(
            c[2],
            json!({"role": "user", "parts": [{"text": "b"}, {"text": "c"}]}),
            "thoughts alone are nothing"
        );
        assert_eq!((&c[0]["parts"][0]["text"], c.as_array().unwrap().len()), (&json!(BEGINS), 3));
    }

    #[test]
    fn broken_blocks_of_its_own_are_left_out() {
        let own = |data: Value| Part::Opaque(Replay::new(FAMILY, data));
        let kept = |parts: Vec<Part>| -> usize {
            let parts = [Part::text("so")].into_iter().chain(parts);
            let b = body(&Request::new("", [Message::user("a"), model(parts), Message::user("b")]));
            b["contents"][1]["parts"].as_array().unwrap().len() - 1
        };
        for data in [
            Value::Null,
            json!("x"),
            json!([]),
            json!({}),
            json!({"text": "x"}),
            json!({"functionCall": {"name": "f"}}),
            json!({"functionResponse": {"name": "f", "response": {}}}),
            json!({"inlineData": {"mimeType": "image/png"}}),
            json!({"fileData": {}}),
            json!({"thoughtSignature": "eA=="}),
            json!({"toolCall": {}, "toolResponse": {}}),
            json!({"brandNew": {}, "thoughtSignature": 5}),
            json!({"brandNew": {}, "thought": "yes"}),
            json!({"brandNew": "x"}),
            json!({"executableCode": {}}),
            json!({"codeExecutionResult": {}}),
            json!({"toolResponse": {"id": "x"}}),
        ] {
            assert_eq!(kept(vec![own(data.clone())]), 0, "{data}");
        }
        let call = |id: &str| own(json!({"toolCall": {"id": id}}));
        let result = |id: &str| own(json!({"toolResponse": {"id": id}}));
        assert_eq!(kept(vec![call("a"), result("b")]), 0);
        assert_eq!(kept(vec![call("a"), call("b"), result("b"), result("a"), call("c")]), 4);
        let code = || own(json!({"executableCode": {"code": "1"}}));
        let ran = || own(json!({"codeExecutionResult": {"outcome": "OUTCOME_OK"}}));
        assert_eq!(kept(vec![code(), ran(), code(), code(), ran(), ran()]), 4);
    }

    #[test]
    fn files_in_results_go_where_the_model_takes_them() {
        let of = |model_id: &str, media: Vec<Media>| {
            let mut result = ToolResult::new(&call("c"), ToolStatus::Ok, "1");
            result.media = media;
            let asked = model([Part::ToolCall(call("c"))]);
            of(&Request::new("", [Message::user("a"), asked, Message::tool_results([result])]), model_id)["contents"].clone()
        };
        let blob = json!({"inlineData": {"mimeType": "image/png", "data": "QUJD"}});
        let c = of("gemini-3-flash", vec![bytes("image/png")]);
        assert_eq!(c[2]["parts"][0]["functionResponse"]["parts"], json!([blob]));
        assert_eq!(c[3], Value::Null);
        let c = of("gemini-2.5-flash", vec![bytes("image/png"), bytes("image/bmp")]);
        let note = "1\n[image/bmp file is not shown]";
        assert_eq!(
            c[2]["parts"],
            json!([{"functionResponse": {"id": "c", "name": "f", "response": {"output": note}}}])
        );
        assert_eq!(c[3], json!({"role": "user", "parts": [{"text": "Result of f (c):"}, blob]}));
    }

    #[test]
    fn files_go_as_bytes_or_links_or_not_at_all() {
        let url = |u: &str| MediaSource::Url(u.into());
        let shown = |m: Media| {
            let asks = Message { role: Role::User, parts: vec![Part::text("see"), Part::Media(m)] };
            let b = body(&Request::new("", [asks, Message::assistant("nice"), Message::user("now?")]));
            b["contents"][0]["parts"][1].clone()
        };
        let link = json!({"fileData": {"mimeType": "application/pdf", "fileUri": "https://a/b"}});
        assert_eq!(shown(file("application/pdf", url("https://a/b"))), link);
        let link = json!({"fileData": {"mimeType": "video/mp4", "fileUri": "gs://a/b"}});
        assert_eq!(shown(file("Video/MP4; codecs=x", url("gs://a/b"))), link);
        assert_eq!(shown(bytes("audio/mp3"))["inlineData"]["mimeType"], "audio/mpeg");
        for bad in [
            bytes("application/zip"),
            bytes("image/gif"),
            bytes(""),
            file("application/pdf", url("http://a/b")),
            file("", url("gs://a/b")),
            file("image/png", url("file:///etc/passwd")),
        ] {
            assert!(shown(bad.clone())["text"].is_string(), "{bad:?}");
        }
        let asks = |m: Media| Request::new("", [Message { role: Role::User, parts: vec![Part::Media(m)] }]);
        assert_eq!(encode(&asks(bytes("application/zip")), "m").unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(encode(&asks(bytes("image/bmp")), "m").is_ok());
    }

    #[test]
    fn tools_and_choice() {
        let mut r = Request::new("", [Message::user("x")]).tools([tool("f"), tool("g.h")]);
        let b = body(&r);
        assert_eq!(b.get("toolConfig"), None);
        let schema = json!({"type": "object", "additionalProperties": false});
        assert_eq!(
            b["tools"][0]["functionDeclarations"][0],
            json!({"name": "f", "parametersJsonSchema": schema})
        );
        for (choice, config) in [
            (ToolChoice::None, json!({"mode": "NONE"})),
            (ToolChoice::Required, json!({"mode": "ANY"})),
            (ToolChoice::Tool("f".into()), json!({"mode": "ANY", "allowedFunctionNames": ["f"]})),
        ] {
            r.tool_choice = choice;
            assert_eq!(body(&r)["toolConfig"]["functionCallingConfig"], config);
        }
        r.tool_choice = ToolChoice::Tool("nope".into());
        assert_eq!(encode(&r, "m").unwrap_err().kind(), ErrorKind::Invalid);
        for name in ["3d", "-x", "", "a b", &"x".repeat(65)] {
            let r = Request::new("", [Message::user("x")]).tools([tool(name)]);
            assert_eq!(encode(&r, "m").unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        }
        let odd = ToolCall::new("c", "no such töol", Value::Null);
        let result = ToolResult::new(&odd, ToolStatus::Error, "no");
        let r = Request::new(
            "",
            [Message::user("x"), model([Part::ToolCall(odd)]), Message::tool_results([result])],
        );
        let c = body(&r)["contents"].clone();
        assert_eq!(c[1]["parts"][0]["functionCall"]["name"], "_no_such_t_ol");
        assert_eq!(c[2]["parts"][0]["functionResponse"]["name"], "_no_such_t_ol");
    }

    #[test]
    fn thinking_is_asked_for_as_the_generation_takes_it() {
        let config = |model: &str, effort: Effort| {
            let mut r = Request::new("", [Message::user("x")]);
            (r.effort, r.max_tokens) = (Some(effort), Some(1000));
            of(&r, model)["generationConfig"].clone()
        };
        assert_eq!(config("gemini-2.0-flash", Effort::High), json!({"maxOutputTokens": 1000}));
        let c = config("gemini-2.5-flash", Effort::High);
        assert_eq!(c["thinkingConfig"], json!({"thinkingBudget": 24_576, "includeThoughts": true}));
        assert_eq!(c["maxOutputTokens"], 25_576, "thoughts count, too");
        let off = json!({"thinkingBudget": 0, "includeThoughts": false});
        assert_eq!(config("gemini-2.5-flash", Effort::Minimal)["thinkingConfig"], off);
        assert_eq!(config("gemini-2.5-pro", Effort::Minimal)["thinkingConfig"]["thinkingBudget"], 128);
        for (model, effort, level) in [
            ("gemini-3-flash-preview", Effort::Minimal, "minimal"),
            ("gemini-3.5-flash", Effort::Minimal, "minimal"),
            ("gemini-3.7-flash", Effort::Minimal, "low"),
            ("gemini-flash-latest", Effort::Minimal, "low"),
            ("gemini-3-flash-preview", Effort::Medium, "medium"),
            ("gemini-3-pro-preview", Effort::Minimal, "low"),
            ("gemini-3-pro-preview", Effort::Medium, "high"),
            ("gemini-3.1-pro-preview", Effort::Medium, "medium"),
            ("gemini-flash-latest", Effort::High, "high"),
        ] {
            let c = config(model, effort.clone());
            assert_eq!(c["thinkingConfig"]["thinkingLevel"], level, "{model} {effort}");
            assert_eq!(
                (c["thinkingConfig"].get("thinkingBudget"), &c["maxOutputTokens"]),
                (None, &json!(1000))
            );
        }
    }

    #[test]
    fn a_schema_beside_tools_goes_into_words_where_it_must() {
        let mut r = Request::new("", [Message::system("s"), Message::user("x")]);
        r.output_schema = Some(std::sync::Arc::new(json!({"type": "object"})));
        let field = json!({"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}});
        assert_eq!(of(&r, "gemini-2.5-flash")["generationConfig"], field);
        r.tools = vec![tool("f")].into();
        assert_eq!(of(&r, "gemini-3-flash")["generationConfig"], field);
        let b = of(&r, "gemini-2.5-flash");
        assert_eq!(b.get("generationConfig"), None);
        assert!(
            b["systemInstruction"]["parts"][1]["text"].as_str().unwrap().ends_with("{\"type\":\"object\"}")
        );
    }

    #[test]
    fn fields_of_the_caller_win_one_by_one() {
        let mut r = Request::new("", [Message::user("x")]).tools([tool("f")]);
        (r.temperature, r.top_p, r.stop) = (Some(0.7), Some(0.1), vec!["END".into()]);
        r.tool_choice = ToolChoice::Required;
        let extra = json!({
            "generationConfig": {"topK": 40, "topP": 0.9, "thinkingConfig": {"thinkingBudget": 0}},
            "toolConfig": {"includeServerSideToolInvocations": true},
            "tools": [{"googleSearch": {}}],
            "cachedContent": "cachedContents/x",
        });
        r.extra = extra.as_object().unwrap().clone();
        let text = String::from_utf8(encode(&r, "gemini-2.5-flash").unwrap()).unwrap();
        assert!(text.contains("\"temperature\":0.7,"), "{text}");
        let b: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            b["generationConfig"],
            json!({"temperature": 0.7, "topP": 0.9, "topK": 40, "stopSequences": ["END"], "thinkingConfig": {"thinkingBudget": 0}})
        );
        assert_eq!(
            b["toolConfig"],
            json!({"functionCallingConfig": {"mode": "ANY"}, "includeServerSideToolInvocations": true})
        );
        assert_eq!((b["tools"].as_array().unwrap().len(), &b["tools"][1]), (2, &json!({"googleSearch": {}})));
        assert_eq!(b["cachedContent"], "cachedContents/x");
        r.extra =
            json!({"tools": null, "generationConfig": null, "contents": []}).as_object().unwrap().clone();
        let b = of(&r, "gemini-2.5-flash");
        assert_eq!(
            (&b["tools"], &b["generationConfig"], &b["contents"]),
            (&Value::Null, &Value::Null, &json!([]))
        );
    }

    #[test]
    fn tokens_are_counted_over_the_whole_request() {
        let r = Request::new("", [Message::system("s"), Message::user("x")]).tools([tool("f")]);
        let b: Value = serde_json::from_slice(&count_body(&r, "gemini-2.5-flash").unwrap()).unwrap();
        let mut inner = of(&r, "gemini-2.5-flash");
        inner["model"] = "models/gemini-2.5-flash".into();
        assert_eq!(b, json!({"generateContentRequest": inner}));
        assert_eq!(
            encode(&Request::new("", [Message::system("s")]), "m").unwrap_err().kind(),
            ErrorKind::Invalid
        );
        assert_eq!(count_body(&Request::new("", []), "m").unwrap_err().kind(), ErrorKind::Invalid);
    }
}
