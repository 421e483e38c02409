//! Bodies of the Responses API.
//!
//! What goes back of an answer is what a server can use that remembers nothing (`store: false`): reasoning by its encrypted or
//! open content, items of the provider's own tools as they came. The ids of messages and calls stay home, since a server looks
//! up what it is given an id of; so does reasoning that is nothing but an id and a summary. Who has the server store answers
//! after all (`extra: {"store": true}`) gets the ids sent, too.

use crate::{
    dialect::{Dialect, EffortField, SchemaField},
    wire::{
        fault,
        media::{Shown, Source, is_picture, refused, shown},
        openai::{generation, is_reasoning_model, is_strict},
        turns::{
            GO_ON, Said, Turn, alias, args_object, blank, check_choice, marked_system, media_note,
            merge_extra, offered, result_text, turns,
        },
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};
use zo_traits::{
    Effort, Error, ErrorKind, Media, Part, Replay, Request, Result, Role, ToolCall, ToolChoice, ToolResult,
    ToolSpec,
};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<String>,
    input: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    include: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Message {
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        kind: Option<&'static str>,
        role: &'static str,
        content: Content<'a>,
        #[serde(flatten)]
        rest: BTreeMap<&'a str, &'a Value>,
    },
    Call {
        #[serde(rename = "type")]
        kind: &'static str,
        call_id: Cow<'a, str>,
        name: &'a str,
        arguments: String,
        #[serde(flatten)]
        rest: BTreeMap<&'a str, &'a Value>,
    },
    Output {
        #[serde(rename = "type")]
        kind: &'static str,
        call_id: Cow<'a, str>,
        output: Content<'a>,
    },
    Verbatim(&'a Value),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(Cow<'a, str>),
    Pieces(Vec<Piece<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece<'a> {
    InputText {
        text: Cow<'a, str>,
    },
    OutputText {
        text: Cow<'a, str>,
        annotations: &'a [Value],
    },
    Refusal {
        refusal: &'a str,
    },
    InputImage {
        image_url: Cow<'a, str>,
    },
    InputFile {
        #[serde(skip_serializing_if = "Option::is_none")]
        filename: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_data: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file_url: Option<&'a str>,
    },
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: &'a Value,
    /// Said, since the API is strict where nothing is said, and then makes every optional argument a required one.
    strict: bool,
}

/// The shortest answer that OpenAI lets one ask for, in tokens.
const MIN_TOKENS: u32 = 16;

/// The body of a response to `request` by `model`, for `dialect`; `family` names the replay data that may go back.
///
/// The wire has no stop texts: [`Request::stop`] is left out. OpenAI's least answer is 16 tokens long; less is asked for as
/// that. A host that has the server's own tools answered by itself (`extra.tools`) puts their outputs and approvals into a
/// user message as [`Part::Opaque`] of `family`; calls of such tools that nobody answered are left out.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a file in the user's newest message that the wire has no place for (of one in an older
/// message, of a picture, and of one in a result, the model is told); [`ErrorKind::Invalid`] for a conversation in which nobody
/// says anything, and for a choice of a tool that is not on offer.
pub fn encode(request: &Request, model: &str, dialect: &Dialect, family: &str) -> Result<Vec<u8>> {
    let body = body(request, model, dialect, family)?;
    merge_extra(&body, &request.extra).map_err(|e| invalid(format_args!("no JSON: {e}")))
}

/// What of a body the input tokens are counted from, of which the API takes nothing more.
const COUNTED: &[&str] = &[
    "model",
    "instructions",
    "input",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "truncation",
    "conversation",
    "previous_response_id",
];

/// The body of a question to `/responses/input_tokens`: how long is the prompt that [`encode`] would send?
///
/// # Errors
/// As [`encode`].
pub fn count_body(request: &Request, model: &str, dialect: &Dialect, family: &str) -> Result<Vec<u8>> {
    let body = Body {
        temperature: None,
        top_p: None,
        max_output_tokens: None,
        include: &[],
        store: None,
        stream: None,
        ..body(request, model, dialect, family)?
    };
    let mut extra = request.extra.clone();
    extra.retain(|key, _| COUNTED.contains(&key.as_str()));
    merge_extra(&body, &extra).map_err(|e| invalid(format_args!("no JSON: {e}")))
}

/// Reads the answer to [`count_body`].
///
/// # Errors
/// What the server reports, classified; [`ErrorKind::Corrupt`] for an answer without a count.
pub fn counted(body: &[u8]) -> Result<u64> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    if answer.get("error").is_some_and(|e| !e.is_null()) {
        return Err(fault::classify_inner(&answer.to_string()).into_error("provider.count_tokens"));
    }
    answer.get("input_tokens").and_then(Value::as_u64).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "provider.count_tokens", "the answer holds no count of input tokens")
    })
}

fn invalid(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, OP, message)
}

const OP: &str = "openai.encode";

fn body<'a>(request: &'a Request, model: &'a str, dialect: &Dialect, family: &str) -> Result<Body<'a>> {
    check_choice(request, OP)?;
    let openai = dialect.effort == EffortField::ReasoningModels;
    let reasons = is_reasoning_model(model);
    let schema = request.output_schema.as_deref();
    // With tools beside it, the field for a schema may not be there; or there is none.
    let alone = dialect.schema_alone && schema.is_some();
    let crowded = alone && !request.tools.is_empty();
    let ask = schema.filter(|_| crowded || dialect.schema == SchemaField::JsonObject).map(|schema| {
        format!("Answer with one JSON object that obeys this JSON Schema, and nothing else:\n{schema}")
    });
    let format = schema.filter(|_| !crowded).map(|schema| match dialect.schema {
        SchemaField::JsonObject => json!({ "type": "json_object" }),
        SchemaField::JsonSchema => {
            json!({ "type": "json_schema", "name": "answer", "schema": schema, "strict": is_strict(schema) })
        }
    });
    let effort = match dialect.effort {
        EffortField::None => None,
        EffortField::ReasoningModels => effort(request, model).filter(|_| reasons),
        EffortField::KnownModels
            if !crate::models::known(&dialect.id, model).is_some_and(|m| m.capabilities.reasoning) =>
        {
            None
        }
        EffortField::ReasoningEffort | EffortField::Reasoning | EffortField::KnownModels => {
            request.effort.as_ref().map(Effort::as_str)
        }
    };
    let (instructions, input) = input(request, dialect, family, ask)?;
    if input.is_empty() {
        return Err(invalid("the request has no message with content"));
    }
    // OpenAI's reasoning models refuse sampling parameters; they have none to set.
    let sampled = !(openai && reasons);
    Ok(Body {
        model,
        instructions,
        input,
        tools: offered(request, dialect).map(tool).collect(),
        tool_choice: if request.tools.is_empty() { None } else { tool_choice(&request.tool_choice, dialect) },
        temperature: request.temperature.filter(|_| sampled),
        top_p: request.top_p.filter(|_| sampled),
        max_output_tokens: request.max_tokens.map(|n| if openai { n.max(MIN_TOKENS) } else { n }),
        text: format.map(|format| json!({ "format": format })),
        reasoning: effort.map(|effort| json!({ "effort": effort })),
        // Models that have none refuse to be asked.
        include: if reasons { &["reasoning.encrypted_content"] } else { &[] },
        store: Some(false),
        stream: Some(!(request.whole || alone && !crowded)),
    })
}

/// The instructions, and the items of the conversation.
fn input<'a>(
    request: &'a Request,
    dialect: &Dialect,
    family: &str,
    ask: Option<String>,
) -> Result<(Option<String>, Vec<Item<'a>>)> {
    let (system, turns) = turns(&request.messages);
    let own = Own { family, stored: request.extra.get("store") == Some(&Value::Bool(true)) };
    let broken = own.broken(&turns);
    let (mut items, mut own_last) = (Vec::with_capacity(request.messages.len()), false);
    for (at, turn) in turns.iter().enumerate() {
        match turn {
            Turn::Model(parts) => {
                let whole = parts.iter().enumerate().filter(|(n, _)| !broken.contains(&(at, *n)));
                let before = items.len();
                own_last = own.turn(whole.map(|(_, part)| *part), &mut items);
                // The API refuses reasoning that led to nothing, as that of an answer which was cut.
                while items.len() > before && items.last().is_some_and(Item::is_reasoning) {
                    items.pop();
                }
            }
            Turn::Host { results, said } => {
                items.extend(results.iter().map(|result| output(result, dialect)));
                let parts = said.iter().flat_map(|s| &s.parts).enumerate();
                items.extend(parts.filter(|(n, _)| !broken.contains(&(at, *n))).filter_map(|(_, part)| {
                    own.opaque(part).filter(|data| is_reply(data)).map(Item::Verbatim)
                }));
                host_says(said, dialect, &mut items)?;
            }
        }
    }
    // A server goes on by itself only with what its own tools left; to a model that paused elsewhere it must be said.
    if let (Some(Turn::Model(parts)), Some(Item::Message { role: "assistant", .. })) =
        (turns.last(), items.last())
        && !own_last
        && parts.iter().any(|p| matches!(p, Part::Opaque(_)))
    {
        items.push(Item::says("user", Content::Text(GO_ON.into())));
    }
    let told = !system.is_empty();
    let lead: Vec<&str> = system.into_iter().chain(ask.as_deref()).collect();
    let lead = (!lead.is_empty()).then(|| lead.join("\n\n"));
    // An answer to instructions alone: the API wants an item.
    Ok(match lead {
        Some(lead) if told && items.is_empty() => {
            (None, vec![Item::says("system", Content::Text(lead.into()))])
        }
        lead => (lead, items),
    })
}

impl<'a> Item<'a> {
    fn says(role: &'static str, content: Content<'a>) -> Self {
        Self::Message { kind: None, role, content, rest: BTreeMap::new() }
    }

    fn is_reasoning(&self) -> bool {
        matches!(self, Self::Verbatim(item) if text_of(item, "type") == "reasoning")
    }
}

/// Finds what this provider wants back.
struct Own<'f> {
    family: &'f str,
    /// The server keeps answers, and knows their items by id.
    stored: bool,
}

impl Own<'_> {
    fn data<'a>(&self, replay: Option<&'a Replay>) -> Option<&'a Value> {
        replay.filter(|r| r.provider == self.family).map(|r| &r.data)
    }

    /// An item of the provider's own.
    fn opaque<'a>(&self, part: &'a Part) -> Option<&'a Value> {
        let Part::Opaque(replay) = part else { return None };
        self.data(Some(replay)).filter(|data| match text_of(data, "type") {
            "reasoning" => self.can_follow(data),
            // What the wire has parts for comes as these.
            "" | "message" | "function_call" | "function_call_output" | "item_reference" => false,
            kind => !kind.starts_with("input_") && !kind.starts_with("output_"),
        })
    }

    /// Is there something in reasoning that a server can read?
    fn can_follow(&self, item: &Value) -> bool {
        let list = |key: &str| item.get(key).and_then(Value::as_array);
        let open = || list("content").is_some_and(|all| all.iter().any(|t| !blank(text_of(t, "text"))));
        let known = self.stored && !text_of(item, "id").is_empty();
        text_of(item, "type") == "reasoning"
            && list("summary").is_some()
            && (known || !text_of(item, "encrypted_content").is_empty() || open())
    }

    /// Fields of an item that go back beside those of the part. `status` says nothing of an item that is done.
    fn rest<'a>(&self, item: Option<&'a Value>, taken: &[&str]) -> BTreeMap<&'a str, &'a Value> {
        let fields = item.and_then(Value::as_object).into_iter().flatten();
        fields
            .map(|(key, value)| (key.as_str(), value))
            .filter(|(key, value)| match *key {
                "id" | "status" => self.stored && value.as_str().is_some_and(|v| (1..=64).contains(&v.len())),
                key => !taken.contains(&key) && !value.is_null(),
            })
            .collect()
    }

    /// The items of a turn of the model's; says whether the provider's own are among them.
    fn turn<'a>(&self, parts: impl Iterator<Item = &'a Part>, out: &mut Vec<Item<'a>>) -> bool {
        let (start, mut any) = (out.len(), false);
        // The message that text goes on with: that of the same id, or of none.
        let mut said: Option<Option<&str>> = None;
        for part in parts {
            let before = said.take();
            match part {
                Part::Text(t) | Part::Refusal(t) if blank(&t.text) => said = before,
                Part::Text(t) | Part::Refusal(t) => {
                    let data = self.data(t.replay.as_ref());
                    let item = data.and_then(|d| d.get("item")).filter(|i| i.is_object());
                    let id = item.map(|item| text_of(item, "id"));
                    let piece = match (part, item) {
                        (Part::Refusal(t), Some(_)) => Piece::Refusal { refusal: &t.text },
                        _ => Piece::OutputText {
                            text: Cow::Borrowed(&t.text),
                            annotations: data
                                .and_then(|d| d.get("annotations"))
                                .and_then(Value::as_array)
                                .map_or(&[], Vec::as_slice),
                        },
                    };
                    match out.last_mut() {
                        Some(Item::Message { content: Content::Pieces(pieces), .. })
                            if before == Some(id) && id != Some("") =>
                        {
                            pieces.push(piece);
                        }
                        _ => out.push(Item::Message {
                            kind: Some("message"),
                            role: "assistant",
                            content: Content::Pieces(vec![piece]),
                            rest: self.rest(item, &["type", "role", "content"]),
                        }),
                    }
                    said = Some(id);
                }
                Part::Reasoning(t) => {
                    let item = self.data(t.replay.as_ref()).filter(|item| self.can_follow(item));
                    out.extend(item.map(Item::Verbatim));
                }
                Part::ToolCall(call) => out.push(self.call(call)),
                part => {
                    if let Some(data) = self.opaque(part) {
                        any = true;
                        out.push(Item::Verbatim(data));
                    }
                }
            }
        }
        out.iter_mut().skip(start).for_each(Item::simplify);
        any
    }

    fn call<'a>(&self, call: &'a ToolCall) -> Item<'a> {
        let item = self.data(call.replay.as_ref());
        Item::Call {
            kind: "function_call",
            call_id: wire_id(&call.id),
            name: &call.name,
            arguments: args_object(&call.args).to_string(),
            rest: self.rest(item, &["type", "role", "content", "call_id", "name", "arguments"]),
        }
    }

    /// Places (turn, part) of items that the API refuses: a call without its output, an output or an approval of nothing, as
    /// when an answer was cut, and an item that comes twice.
    fn broken(&self, turns: &[Turn<'_>]) -> HashSet<(usize, usize)> {
        let (mut out, mut ids, mut asked) = (HashSet::new(), HashSet::new(), HashSet::new());
        let (mut known, mut open) = (HashSet::new(), HashMap::new());
        for (at, turn) in turns.iter().enumerate() {
            let (parts, host): (Vec<&Part>, bool) = match turn {
                Turn::Model(parts) => (parts.clone(), false),
                Turn::Host { said, .. } => {
                    (said.iter().flat_map(|s| s.parts.iter().copied()).collect(), true)
                }
            };
            for (n, part) in parts.into_iter().enumerate() {
                let Some(data) = self.opaque(part).filter(|data| !host || is_reply(data)) else { continue };
                let (kind, id, call) = (text_of(data, "type"), text_of(data, "id"), text_of(data, "call_id"));
                let mut fine = id.is_empty() || ids.insert(id);
                if kind == "mcp_approval_request" {
                    asked.insert(id);
                } else if kind == "mcp_approval_response" {
                    fine &= asked.remove(text_of(data, "approval_request_id"));
                } else if kind.ends_with("_output") && !call.is_empty() {
                    // Of a program the output comes much later, and it may not come at all.
                    fine &= open.remove(call).is_some() || kind == "program_output" && known.contains(call);
                } else if !call.is_empty() {
                    fine &= known.insert(call);
                    if fine && kind.ends_with("_call") && text_of(data, "execution") != "server" {
                        open.insert(call, (at, n));
                    }
                }
                if !fine {
                    out.insert((at, n));
                }
            }
        }
        out.extend(open.into_values());
        out
    }
}

impl Item<'_> {
    /// Text alone goes as one string, which every server takes. A message with an id is one of the server's own making, whose
    /// content is a list.
    fn simplify(&mut self) {
        let Self::Message { content, rest, .. } = self else { return };
        let Content::Pieces(pieces) = content else { return };
        let plain = |p: &Piece<'_>| match p {
            Piece::InputText { .. } => true,
            Piece::OutputText { annotations, .. } => annotations.is_empty(),
            _ => false,
        };
        if rest.contains_key("id") || !pieces.iter().all(plain) {
            return;
        }
        let mut text = Cow::Borrowed("");
        for piece in pieces.drain(..) {
            if let Piece::InputText { text: more } | Piece::OutputText { text: more, .. } = piece {
                match text.is_empty() {
                    true => text = more,
                    false => text.to_mut().push_str(&more),
                }
            }
        }
        *content = Content::Text(text);
    }
}

fn text_of<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// An item with which a host answers one of the provider's.
fn is_reply(item: &Value) -> bool {
    let kind = text_of(item, "type");
    kind == "mcp_approval_response" || kind.ends_with("_output") && !text_of(item, "call_id").is_empty()
}

fn output<'a>(result: &'a ToolResult, dialect: &Dialect) -> Item<'a> {
    let mut text = result_text(result);
    let mut shown = Vec::new();
    for media in &result.media {
        match piece(media, dialect) {
            Some(piece) => shown.push(piece),
            None => text = Cow::Owned(format!("{text}\n{}", media_note(media))),
        }
    }
    let content = if shown.is_empty() {
        Content::Text(text)
    } else {
        shown.insert(0, Piece::InputText { text });
        Content::Pieces(shown)
    };
    Item::Output { kind: "function_call_output", call_id: wire_id(&result.id), output: content }
}

fn host_says<'a>(said: &[Said<'a>], dialect: &Dialect, out: &mut Vec<Item<'a>>) -> Result<()> {
    let start = out.len();
    let mut after_system = false;
    for Said { role, parts, asked } in said {
        let system = **role == Role::System;
        if system && dialect.mid_system {
            let texts = parts.iter().filter_map(|p| p.as_text()).filter(|t| !blank(t));
            out.extend(texts.map(|text| Item::says("system", Content::Text(text.into()))));
            continue;
        }
        let mut pieces = Vec::new();
        for part in parts {
            match part {
                Part::Text(t) | Part::Refusal(t) if blank(&t.text) => {}
                Part::Text(t) | Part::Refusal(t) => pieces.push(Piece::InputText {
                    text: if system { marked_system(&t.text).into() } else { Cow::Borrowed(&t.text) },
                }),
                Part::Media(media) => pieces.push(match piece(media, dialect) {
                    Some(piece) => piece,
                    None if *asked && !is_picture(media) => return Err(refused(media, OP, &dialect.id)),
                    None => Piece::InputText { text: media_note(media).into() },
                }),
                _ => {}
            }
        }
        if pieces.is_empty() {
            continue;
        }
        // Marked text is part of what the user says.
        let joins = (system || after_system) && out.len() > start;
        match out.last_mut() {
            Some(Item::Message { role: "user", content: Content::Pieces(last), .. }) if joins => {
                if let Some(Piece::InputText { text }) = last.last_mut() {
                    text.to_mut().push_str("\n\n");
                }
                last.append(&mut pieces);
            }
            _ => out.push(Item::says("user", Content::Pieces(pieces))),
        }
        after_system = system;
    }
    out.iter_mut().skip(start).for_each(Item::simplify);
    Ok(())
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
        (kind, source) if kind.starts_with("image/") => Piece::InputImage {
            image_url: match source {
                Source::Link(url) => Cow::Borrowed(url),
                Source::Bytes(data) => Cow::Owned(url(&data)),
            },
        },
        ("application/pdf", Source::Link(url)) => {
            Piece::InputFile { filename: None, file_data: None, file_url: Some(url) }
        }
        ("application/pdf", Source::Bytes(data)) => Piece::InputFile {
            filename: Some(media.name.as_deref().filter(|name| !blank(name)).unwrap_or("file.pdf")),
            file_data: Some(url(&data)),
            file_url: None,
        },
        _ => return None,
    })
}

fn tool(spec: &ToolSpec) -> Tool<'_> {
    Tool {
        kind: "function",
        name: &spec.name,
        description: &spec.description,
        parameters: &spec.input,
        strict: false,
    }
}

fn tool_choice(choice: &ToolChoice, dialect: &Dialect) -> Option<Value> {
    match choice {
        ToolChoice::None => Some("none".into()),
        ToolChoice::Required => Some("required".into()),
        ToolChoice::Tool(_) if !dialect.tool_by_name => Some("required".into()),
        ToolChoice::Tool(name) => Some(json!({ "type": "function", "name": name })),
        _ => None,
    }
}

/// The API refuses ids of more than 64 characters. Another provider's id may be anything; call and result get the same
/// stand-in.
fn wire_id(id: &str) -> Cow<'_, str> {
    if (1..=64).contains(&id.len()) {
        Cow::Borrowed(id)
    } else {
        Cow::Owned(format!("call_{}", alias(id, 20)))
    }
}

/// How one of OpenAI's reasoning models is told to think. Only plain gpt-5 knows "minimal".
fn effort<'a>(request: &'a Request, model: &str) -> Option<&'a str> {
    match request.effort.as_ref()? {
        Effort::Minimal if generation(model) != Some((5, 0)) => Some("low"),
        effort => Some(effort.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Codec, openai_responses::Responses};
    use std::{collections::VecDeque, sync::Arc};
    use zo_testkit::rules::openai_responses::check_body;
    use zo_traits::{Accumulator, MediaSource, Message, Text, ToolStatus};

    const FAMILY: &str = "openai-responses";

    fn row() -> &'static Dialect {
        Dialect::named(FAMILY).unwrap()
    }

    fn body_of(request: &Request, model: &str) -> Value {
        let bytes = encode(request, model, row(), FAMILY).unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(check_body(&body), Ok(()), "{body}");
        assert_eq!(body.to_string().len(), bytes.len(), "a key comes twice: {body}");
        body
    }

    fn sent(request: &Request) -> Value {
        body_of(request, "gpt-5-mini")["input"].clone()
    }

    fn model(parts: impl IntoIterator<Item = Part>) -> Message {
        Message { role: Role::Assistant, parts: parts.into_iter().collect() }
    }

    fn own(data: Value) -> Part {
        Part::Opaque(Replay::new(FAMILY, data))
    }

    fn text(text: &str, data: Value) -> Part {
        Part::Text(Text { text: text.into(), replay: Some(Replay::new(FAMILY, data)) })
    }

    fn thought(data: Value) -> Part {
        Part::Reasoning(Text { text: "hm".into(), replay: Some(Replay::new(FAMILY, data)) })
    }

    fn call(id: &str) -> ToolCall {
        ToolCall::new(id, "f", json!({"a": 1}))
    }

    /// The model says `parts`, and the user goes on.
    fn after(parts: impl IntoIterator<Item = Part>) -> Vec<Value> {
        let r = Request::new("", [Message::user("a"), model(parts), Message::user("b")]);
        let items = sent(&r).as_array().unwrap().clone();
        items[1..items.len() - 1].to_vec()
    }

    #[test]
    fn a_conversation_in_order() {
        let calls = [call("c1"), call(&"x".repeat(80))];
        let results = [
            ToolResult::new(&calls[0], ToolStatus::Ok, ""),
            ToolResult::new(&calls[1], ToolStatus::Error, "no"),
        ];
        let mut parts = vec![Part::text("on "), Part::text("it")];
        parts.extend(calls.map(Part::ToolCall));
        let r = Request::new(
            "",
            [
                Message::system("be brief"),
                Message::system("be kind"),
                Message::user("go"),
                model(parts),
                Message::user("hurry"),
                Message::tool_results(results),
                Message::system("note"),
                Message::user(" "),
            ],
        );
        let b = body_of(&r, "gpt-4.1");
        let long = b["input"][3]["call_id"].clone();
        assert!(long.as_str().unwrap().len() <= 64);
        let args = "{\"a\":1}";
        assert_eq!(
            b,
            json!({
                "model": "gpt-4.1",
                "instructions": "be brief\n\nbe kind",
                "input": [
                    {"role": "user", "content": "go"},
                    {"type": "message", "role": "assistant", "content": "on it"},
                    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": args},
                    {"type": "function_call", "call_id": long, "name": "f", "arguments": args},
                    {"type": "function_call_output", "call_id": "c1", "output": "(no output)"},
                    {"type": "function_call_output", "call_id": long, "output": "no"},
                    {"role": "user", "content": "hurry"},
                    {"role": "system", "content": "note"},
                ],
                "store": false,
                "stream": true,
            })
        );
        let plain = encode(&r, "m", &Dialect::default(), FAMILY).unwrap();
        let plain: Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(plain["input"][6]["content"], "hurry\n\n<system>\nnote\n</system>");
        assert_eq!(plain["input"].as_array().unwrap().len(), 7);
    }

    #[test]
    fn what_came_goes_back_as_it_came() {
        let output = json!([
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a"}], "encrypted_content": "x"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"deep": [1, 2.5, null]}},
            {"type": "brand_new", "deep": {"er": true}},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "phase": "commentary",
                "content": [
                    {"type": "output_text", "text": "so", "annotations": [{"type": "url_citation", "url": "u"}]},
                    {"type": "refusal", "refusal": "no"},
                ]},
            {"type": "message", "id": "msg_2", "role": "assistant", "status": "completed", "phase": "final_answer",
                "content": [{"type": "output_text", "text": "plain", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{\"a\":1}",
                "namespace": "n", "status": "completed"},
        ]);
        let (mut codec, mut events, mut acc) =
            (Responses::new(FAMILY), VecDeque::new(), Accumulator::default());
        let answer = json!({"id": "r", "status": "completed", "output": output});
        codec.whole(&answer.to_string(), &mut events).unwrap();
        events.into_iter().for_each(|e| acc.push(e).unwrap());
        let message = acc.finish().unwrap().message;
        let calls: Vec<_> = message.tool_calls().cloned().collect();
        let results = calls.iter().map(|c| ToolResult::new(c, ToolStatus::Ok, "1"));
        let mut r = Request::new("", [Message::user("go"), message.clone(), Message::tool_results(results)]);
        let input = sent(&r);
        // Without what makes a server that stored nothing look for something.
        let mut want = output.as_array().unwrap().clone();
        for item in want.iter_mut().skip(3).filter_map(Value::as_object_mut) {
            item.remove("id");
            item.remove("status");
        }
        want[4]["content"] = "plain".into();
        assert_eq!(input.as_array().unwrap()[1..7], want);
        r.extra.insert("store".into(), true.into());
        assert_eq!(sent(&r).as_array().unwrap()[1..7], *output.as_array().unwrap());
        // To another provider of this wire nothing goes but words and calls.
        let bytes = encode(&r, "gpt-5", row(), "other").unwrap();
        let other: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(check_body(&other), Ok(()));
        assert_eq!(
            other["input"][1],
            json!({"type": "message", "role": "assistant", "content": "sonoplain"})
        );
        assert_eq!(other["input"].as_array().unwrap().len(), 4);
        assert!(!String::from_utf8(bytes).unwrap().contains("namespace"));
    }

    #[test]
    fn only_reasoning_that_can_be_read_goes_back() {
        let sealed = json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"});
        let open = json!({"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]});
        let bare =
            json!({"type": "reasoning", "id": "rs_3", "summary": [{"type": "summary_text", "text": "hm"}]});
        let said = || Part::text("so");
        let so = json!({"type": "message", "role": "assistant", "content": "so"});
        assert_eq!(
            after([thought(sealed.clone()), thought(open.clone()), said()]),
            [sealed.clone(), open, so.clone()]
        );
        for odd in
            [bare, Value::Null, json!({}), json!({"type": "reasoning", "encrypted_content": "x"}), json!([1])]
        {
            assert_eq!(after([thought(odd.clone()), said()]), std::slice::from_ref(&so), "{odd}");
        }
        assert_eq!(after([Part::Reasoning(Text::new("hm")), said()]), std::slice::from_ref(&so));
        // It leads to nothing: the answer was cut.
        assert_eq!(after([said(), thought(sealed.clone())]), [so]);
        assert_eq!(after([thought(sealed.clone()), Part::text(" ")]), Vec::<Value>::new());
        let dangling = json!({"type": "custom_tool_call", "call_id": "c", "name": "n", "input": ""});
        assert_eq!(after([thought(sealed), own(dangling)]), Vec::<Value>::new());
    }

    #[test]
    fn calls_of_the_providers_tools_go_with_their_outputs_or_not_at_all() {
        let shell = json!({"type": "shell_call", "id": "sh", "call_id": "c", "action": {}});
        let output = json!({"type": "shell_call_output", "id": "sho", "call_id": "c", "output": []});
        let hosted = json!({"type": "tool_search_call", "id": "ts", "call_id": null, "execution": "server"});
        let program = json!({"type": "program", "id": "p", "call_id": "pc", "code": ""});
        let all = |items: &[&Value]| after(items.iter().map(|item| own((*item).clone())));
        assert_eq!(
            all(&[&shell, &output, &hosted, &program]),
            [&shell, &output, &hosted, &program].map(Clone::clone)
        );
        assert_eq!(all(&[&shell]), Vec::<Value>::new());
        assert_eq!(all(&[&output, &shell]), Vec::<Value>::new());
        assert_eq!(all(&[&hosted, &hosted]), std::slice::from_ref(&hosted), "an id comes once");
        for odd in [
            Value::Null,
            json!("x"),
            json!({}),
            json!({"type": 5}),
            json!({"type": "message", "role": "user", "content": "x"}),
            json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}),
            json!({"type": "function_call_output", "call_id": "c", "output": "1"}),
            json!({"type": "item_reference", "id": "x"}),
            json!({"type": "mcp_approval_response", "approval_request_id": "x", "approve": true}),
        ] {
            assert_eq!(all(&[&odd]), Vec::<Value>::new(), "{odd}");
        }
        // The host answers by itself.
        let ask = json!({"type": "mcp_approval_request", "id": "ar", "name": "n", "arguments": "{}"});
        let yes = json!({"type": "mcp_approval_response", "approval_request_id": "ar", "approve": true});
        let reply = Message {
            role: Role::User,
            parts: vec![own(output.clone()), own(yes.clone()), own(yes.clone())],
        };
        let r = Request::new("", [Message::user("a"), model([own(shell.clone()), own(ask.clone())]), reply]);
        assert_eq!(sent(&r).as_array().unwrap()[1..], [shell, ask, output, yes]);
    }

    #[test]
    fn a_model_that_paused_elsewhere_is_told_to_go_on() {
        let foreign = Part::Opaque(Replay::new("gemini", json!({"executableCode": {}})));
        let of = |parts: Vec<Part>| sent(&Request::new("", [Message::user("a"), model(parts)]));
        assert_eq!(of(vec![Part::text("so"), foreign.clone()])[2], json!({"role": "user", "content": GO_ON}));
        assert_eq!(of(vec![foreign]).as_array().unwrap().len(), 1);
        let search = json!({"type": "web_search_call", "id": "ws", "status": "completed"});
        assert_eq!(of(vec![own(search), Part::text("so")]).as_array().unwrap().len(), 3);
    }

    #[test]
    fn replayed_fields_never_take_the_place_of_ours() {
        let hostile = json!({"type": "message", "role": "user", "content": 1, "call_id": "x", "name": "y", "arguments": "z",
            "id": 7, "status": "s", "caller": {"type": "program"}});
        let mut c = call("c1");
        c.replay = Some(Replay::new(FAMILY, hostile.clone()));
        let r = Request::new(
            "",
            [
                Message::user("a"),
                model([text("t", json!({"item": hostile, "annotations": 5})), Part::ToolCall(c.clone())]),
                Message::tool_results([ToolResult::new(&c, ToolStatus::Ok, "1")]),
            ],
        );
        let items = sent(&r);
        assert_eq!((&items[1]["role"], &items[1]["content"]), (&json!("assistant"), &json!("t")));
        assert_eq!(
            items[2],
            json!({"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}",
                "caller": {"type": "program"}})
        );
    }

    #[test]
    fn parameters_follow_model_and_dialect() {
        let mut r = Request::new("", [Message::user("x")]);
        r.tools = vec![ToolSpec::new("f", "d", json!({"type": "object"}))].into();
        (r.max_tokens, r.temperature, r.effort) = (Some(7), Some(0.5), Some(Effort::Minimal));
        r.tool_choice = ToolChoice::Tool("f".into());
        r.stop = vec!["END".into()];
        let closed = json!({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": false});
        r.output_schema = Some(Arc::new(closed.clone()));
        let b = body_of(&r, "gpt-5-mini");
        assert_eq!(
            b["tools"],
            json!([{"type": "function", "name": "f", "description": "d",
            "parameters": {"type": "object"}, "strict": false}])
        );
        assert_eq!(b["tool_choice"], json!({"type": "function", "name": "f"}));
        assert_eq!(
            b["text"],
            json!({"format": {"type": "json_schema", "name": "answer", "schema": closed, "strict": true}})
        );
        assert_eq!((&b["max_output_tokens"], &b["reasoning"]), (&json!(16), &json!({"effort": "minimal"})));
        assert_eq!(b["include"], json!(["reasoning.encrypted_content"]));
        assert!(b.get("temperature").is_none() && b.get("stop").is_none());
        assert_eq!(body_of(&r, "gpt-5.4")["reasoning"]["effort"], "low", "with tools, too");
        let b = body_of(&r, "gpt-4.1");
        assert!(b.get("reasoning").is_none() && b.get("include").is_none());
        assert_eq!(b["temperature"], 0.5);
        r.output_schema = Some(Arc::new(json!({"type": "object"})));
        r.whole = true;
        let b = body_of(&r, "gpt-4.1");
        assert_eq!((&b["text"]["format"]["strict"], &b["stream"]), (&json!(false), &json!(false)));
        for (choice, want) in [(ToolChoice::None, json!("none")), (ToolChoice::Required, json!("required"))] {
            r.tool_choice = choice;
            assert_eq!(body_of(&r, "gpt-4.1")["tool_choice"], want);
        }
        r.tool_choice = ToolChoice::Tool("g".into());
        assert_eq!(encode(&r, "m", row(), FAMILY).unwrap_err().kind(), ErrorKind::Invalid);
        let mut local = Dialect::default();
        (local.tool_by_name, local.schema, local.effort) =
            (false, SchemaField::JsonObject, EffortField::Reasoning);
        r = r.tools([ToolSpec::new("g", "", json!({"type": "object"}))]);
        let b: Value = serde_json::from_slice(&encode(&r, "m", &local, FAMILY).unwrap()).unwrap();
        assert_eq!((&b["tool_choice"], b["tools"].as_array().unwrap().len()), (&json!("required"), 1));
        assert_eq!((&b["max_output_tokens"], &b["reasoning"]["effort"]), (&json!(7), &json!("minimal")));
        assert_eq!(b["text"], json!({"format": {"type": "json_object"}}));
        assert!(b["instructions"].as_str().unwrap().contains("JSON Schema"));
    }

    #[test]
    fn media_go_with_words_and_with_results() {
        let file = |kind: &str, source: MediaSource| Media { media_type: kind.into(), source, name: None };
        let bytes = |kind: &str| file(kind, MediaSource::Base64("QUJD".into()));
        let link = |kind: &str| file(kind, MediaSource::Url("https://x/y".into()));
        let asks =
            |media: Media| Message { role: Role::User, parts: vec![Part::text("see"), Part::Media(media)] };
        let of = |media: Media| sent(&Request::new("", [asks(media)]))[0]["content"].clone();
        assert_eq!(
            of(bytes("image/png")),
            json!([{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:image/png;base64,QUJD"}])
        );
        assert_eq!(of(link("image/png"))[1]["image_url"], "https://x/y");
        assert_eq!(of(link("application/pdf"))[1], json!({"type": "input_file", "file_url": "https://x/y"}));
        assert_eq!(
            of(bytes("application/pdf"))[1],
            json!({"type": "input_file", "filename": "file.pdf", "file_data": "data:application/pdf;base64,QUJD"})
        );
        for kind in ["audio/wav", "video/mp4", "text/plain", ""] {
            let mut r = Request::new("", [asks(bytes(kind))]);
            assert_eq!(encode(&r, "m", row(), FAMILY).unwrap_err().kind(), ErrorKind::Unsupported, "{kind}");
            r.messages.push(Message::user("and now?"));
            assert!(sent(&r)[0]["content"].as_str().unwrap().contains("is not shown"), "{kind}");
        }
        let mut result = ToolResult::new(&call("c"), ToolStatus::Ok, "1");
        result.media = vec![bytes("image/png"), bytes("video/mp4")];
        let r = Request::new(
            "",
            [Message::user("a"), model([Part::ToolCall(call("c"))]), Message::tool_results([result])],
        );
        assert_eq!(
            sent(&r)[2]["output"],
            json!([
                {"type": "input_text", "text": "1\n[video/mp4 file is not shown]"},
                {"type": "input_image", "image_url": "data:image/png;base64,QUJD"},
            ])
        );
    }

    #[test]
    fn tokens_are_counted_of_the_same_prompt() {
        let mut r = Request::new("", [Message::system("s"), Message::user("x")]);
        r.tools = vec![ToolSpec::new("f", "", json!({"type": "object"}))].into();
        (r.max_tokens, r.temperature) = (Some(50), Some(0.5));
        r.extra.insert("truncation".into(), "auto".into());
        r.extra.insert("store".into(), true.into());
        let counted_of: Value =
            serde_json::from_slice(&count_body(&r, "gpt-4.1", row(), FAMILY).unwrap()).unwrap();
        let mut want = body_of(&r, "gpt-4.1");
        for key in ["max_output_tokens", "temperature", "store", "stream"] {
            want.as_object_mut().unwrap().remove(key).unwrap();
        }
        assert_eq!(counted_of, want);
        assert_eq!(counted(br#"{"object":"response.input_tokens","input_tokens":123}"#).unwrap(), 123);
        for bad in [&b""[..], b"[]", b"{\"input_tokens\":-1}", b"{\"input_tokens\":\"x\"}"] {
            assert_eq!(counted(bad).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        let e = counted(br#"{"error":{"code":"insufficient_quota","message":"m"}}"#).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Exhausted);
    }

    #[test]
    fn extra_wins_and_the_bytes_are_stable() {
        let mut r = Request::new("", [Message::system("alone")]);
        assert_eq!(sent(&r), json!([{"role": "system", "content": "alone"}]));
        r.messages.push(Message::user("x"));
        let once = encode(&r, "m", row(), FAMILY).unwrap();
        assert_eq!(once, encode(&r.clone(), "m", row(), FAMILY).unwrap());
        r.extra.insert("model".into(), "other".into());
        r.extra.insert("service_tier".into(), "flex".into());
        let b = body_of(&r, "m");
        assert_eq!((&b["model"], &b["service_tier"]), (&json!("other"), &json!("flex")));
        let e = encode(&Request::new("", [Message::user("  ")]), "m", row(), FAMILY).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid);
    }
}
