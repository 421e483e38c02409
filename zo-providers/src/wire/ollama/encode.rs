//! Bodies of `/api/chat`.

use super::FAMILY;
use crate::wire::{
    media::{Source, is_picture, refused, shown},
    turns::{
        BEGINS, GO_ON, Said, Turn, alternate, args_object, blank, check_choice, marked_system, media_note,
        merge_extra, result_text, turns, with_tools,
    },
};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use std::{borrow::Cow, io};
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
    format: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    think: Option<Think>,
    options: Box<RawValue>,
    truncate: bool,
    shift: bool,
    stream: bool,
}

#[derive(Serialize)]
struct Out<'a> {
    role: &'static str,
    content: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
    /// Some templates go by this, some by the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

impl<'a> Out<'a> {
    fn new(role: &'static str, content: impl Into<Cow<'a, str>>) -> Self {
        Self {
            role,
            content: content.into(),
            thinking: None,
            images: Vec::new(),
            tool_calls: Vec::new(),
            tool_name: None,
            tool_call_id: None,
        }
    }
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: Cow<'a, Value>,
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
    parameters: Cow<'a, Value>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Think {
    Whether(bool),
    Level(&'static str),
}

#[derive(Serialize)]
struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    num_ctx: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_predict: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
}

/// The body of an answer to `request` by `model`.
///
/// * **Context.** A server runs a model with a window of its own choice, often 4,096 tokens, and silently drops what does not
///   fit. So the window is asked for, as `options.num_ctx`: the smallest power of two, from 8,192 on, that holds an estimate
///   of the request and the longest answer (4,096 tokens if no limit is set). Powers of two, because another window loads the
///   model anew: a conversation that grows to sixteen times its length does so four times. A window beyond the model's is
///   cut down by the server. `truncate` and `shift` are off, so that what does not fit is an error or a cut answer, and no
///   forgotten beginning. A model in Ollama's cloud has its whole window and is asked for none. An entry `num_ctx` in
///   `options` of [`Request::extra`] wins; `null` leaves the choice to the server.
/// * **Options.** The entries of `options` in [`Request::extra`] are put over those of the request one by one; other fields
///   of it take the place of ours whole.
/// * **Thinking.** Without an effort the server decides. Models named `gpt-oss` take a level, all others yes or no, and
///   [`Effort::Minimal`] is no. A model that cannot think refuses yes. Thoughts go back where tools were called, as the
///   templates want them.
/// * **Tools.** The API cannot demand a call: under [`ToolChoice::Required`] and [`ToolChoice::Tool`] the model is told in
///   words. Under [`ToolChoice::None`] no tool is offered.
/// * **Output schema.** It is `format`, which binds the model from its first word. With tools on offer it could call none, so
///   there the schema is asked for in words.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a file in the user's newest message that is no picture (of one in an older message, of a
/// picture that cannot be sent, and of one in a result, the model is told); [`ErrorKind::Invalid`] for a conversation in which
/// nobody says anything, and for a choice of a tool that is not on offer.
pub fn encode(request: &Request, model: &str) -> Result<Vec<u8>> {
    check_choice(request, OP)?;
    let tools: Vec<Tool<'_>> = request
        .tools
        .iter()
        .filter(|spec| match &request.tool_choice {
            ToolChoice::None => false,
            ToolChoice::Tool(name) => *name == spec.name,
            _ => true,
        })
        .map(tool)
        .collect();
    let schema = request.output_schema.as_deref();
    let mut asks = Vec::new();
    match &request.tool_choice {
        ToolChoice::Required if !tools.is_empty() => {
            asks.push("Answer by calling at least one of the tools.".to_owned());
        }
        ToolChoice::Tool(name) => asks.push(format!("Answer by calling the tool {name}.")),
        _ => {}
    }
    if let Some(schema) = schema.filter(|_| !tools.is_empty()) {
        asks.push(format!(
            "Unless you call a tool, answer with one JSON object that obeys this JSON Schema, and nothing else:\n{schema}"
        ));
    }
    let messages = messages(request, &asks)?;
    if messages.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, OP, "the request has no message with content"));
    }
    let json = |e: serde_json::Error| Error::new(ErrorKind::Invalid, OP, format_args!("no JSON: {e}"));
    let mut extra = Cow::Borrowed(&request.extra);
    let own = match request.extra.get("options") {
        Some(Value::Object(own)) => {
            extra.to_mut().remove("options");
            Cow::Borrowed(own)
        }
        _ => Cow::Owned(Map::new()),
    };
    let longest = match own.get("num_predict") {
        // Below zero: without end.
        Some(n) => n.as_u64(),
        None => request.max_tokens.map(u64::from),
    };
    let options = Options {
        num_ctx: (!own.contains_key("num_ctx") && !in_the_cloud(model))
            .then(|| window(estimate(&messages, &tools), longest)),
        num_predict: request.max_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        stop: &request.stop,
    };
    let mut own = own.into_owned();
    own.retain(|key, value| key != "num_ctx" || !value.is_null());
    let options = merge_extra(&options, &own).map_err(json)?;
    let options = serde_json::from_slice::<Box<RawValue>>(&options).map_err(json)?;
    let body = Body {
        model,
        messages,
        format: schema.filter(|_| tools.is_empty()),
        tools,
        think: request.effort.as_ref().map(|effort| think(effort, model)),
        options,
        truncate: false,
        shift: false,
        stream: !request.whole,
    };
    merge_extra(&body, &extra).map_err(json)
}

const OP: &str = "ollama.encode";

/// The smallest window ever asked for, in tokens.
const MIN_WINDOW: u64 = 8_192;
/// The largest: no model of the library has more.
const MAX_WINDOW: u64 = 1 << 20;
/// Room for an answer without a limit, in tokens.
const ANSWER: u64 = 4_096;
/// Tokens of a picture. Models differ from 256 to a few thousand.
const PICTURE: u64 = 2_048;
/// Tokens that a template puts around a message, a call or a tool.
const FRAME: u64 = 16;

/// The window for a request of so many tokens and the longest answer.
fn window(request: u64, answer: Option<u64>) -> u64 {
    request.saturating_add(answer.unwrap_or(ANSWER)).clamp(MIN_WINDOW, MAX_WINDOW).next_power_of_two()
}

/// Tokens of a prompt, rather too many than too few.
fn estimate(messages: &[Out<'_>], tools: &[Tool<'_>]) -> u64 {
    let mut scale = Scale::default();
    let mut tokens = 0u64;
    for message in messages {
        let pictures = u64::try_from(message.images.len()).unwrap_or(u64::MAX);
        tokens = tokens.saturating_add(FRAME).saturating_add(PICTURE.saturating_mul(pictures));
        let texts = [Some(&*message.content), message.thinking.as_deref(), message.tool_name];
        texts.into_iter().flatten().for_each(|text| scale.weigh(text.as_bytes()));
        for call in &message.tool_calls {
            tokens = tokens.saturating_add(FRAME);
            scale.json(&call.function);
        }
    }
    for tool in tools {
        tokens = tokens.saturating_add(FRAME);
        scale.json(tool);
    }
    tokens.saturating_add(scale.tokens())
}

/// Weighs text in sixths of a token. Words have more than three letters a token, but ids and base64 fewer; digits are often a
/// token each; a character beyond ASCII takes two or three bytes and about one token.
#[derive(Default)]
struct Scale(u64);

impl Scale {
    fn weigh(&mut self, text: &[u8]) {
        let sixths = text.iter().map(|b| match b {
            b'0'..=b'9' => 6,
            b if b.is_ascii_alphabetic() || b.is_ascii_whitespace() => 2,
            _ => 3u64,
        });
        self.0 = self.0.saturating_add(sixths.sum());
    }

    fn json(&mut self, value: &impl Serialize) {
        // What cannot be written here cannot be written into the body, and is told of there.
        let _ = serde_json::to_writer(self, value);
    }

    fn tokens(&self) -> u64 {
        self.0.div_ceil(6)
    }
}

impl io::Write for Scale {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.weigh(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `kimi-k2:1t-cloud`, `glm-4.6:cloud`.
fn in_the_cloud(model: &str) -> bool {
    model.rsplit_once(':').is_some_and(|(_, tag)| tag == "cloud" || tag.ends_with("-cloud"))
}

fn think(effort: &Effort, model: &str) -> Think {
    let name = model.rsplit('/').next().unwrap_or(model);
    let named = |start: &str| name.get(..start.len()).is_some_and(|s| s.eq_ignore_ascii_case(start));
    if !named("gpt-oss") {
        return Think::Whether(!matches!(effort.as_str(), "minimal" | "none" | "off"));
    }
    Think::Level(match effort.as_str() {
        "minimal" | "none" | "off" | "low" => "low",
        "high" | "xhigh" | "max" => "high",
        _ => "medium",
    })
}

fn tool(spec: &ToolSpec) -> Tool<'_> {
    Tool {
        kind: "function",
        function: Spec {
            name: &spec.name,
            description: &spec.description,
            parameters: parameters(&spec.input),
        },
    }
}

/// A schema as the server can read it: of a property, and of what it may be any of, an object. That is a fixed structure there,
/// and `true`, which generators write for "anything", fails the request.
fn parameters(schema: &Value) -> Cow<'_, Value> {
    if !has_booleans(schema) {
        return Cow::Borrowed(schema);
    }
    let mut schema = schema.clone();
    no_booleans(&mut schema);
    Cow::Owned(schema)
}

/// The schemas directly inside a schema that the server reads into its structure.
fn has_booleans(schema: &Value) -> bool {
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let any_of = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    properties.chain(any_of).any(|inner| inner.is_boolean() || has_booleans(inner))
}

fn no_booleans(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for (key, inner) in map {
        let schemas: Vec<&mut Value> = match (key.as_str(), inner) {
            ("properties", Value::Object(properties)) => properties.values_mut().collect(),
            ("anyOf", Value::Array(any_of)) => any_of.iter_mut().collect(),
            _ => continue,
        };
        for schema in schemas {
            match schema {
                Value::Bool(true) => *schema = serde_json::json!({}),
                Value::Bool(false) => *schema = serde_json::json!({ "not": {} }),
                other => no_booleans(other),
            }
        }
    }
}

fn messages<'a>(request: &'a Request, asks: &[String]) -> Result<Vec<Out<'a>>> {
    let (system, turns) = turns(&request.messages);
    // What another provider paused at is no end of a turn, but the end of what can be sent of it.
    let paused = matches!(turns.last(), Some(Turn::Model(parts)) if parts.iter().any(|p| matches!(p, Part::Opaque(_))));
    let turns = alternate(turns);
    let told = !system.is_empty();
    let thoughtful = with_tools(&turns);
    let mut out = Vec::with_capacity(request.messages.len() + 2);
    for (turn, thoughtful) in turns.into_iter().zip(thoughtful) {
        match turn {
            Turn::Model(parts) => out.push(model_turn(&parts, thoughtful)),
            Turn::Host { results, said } => host_turn(&results, &said, &mut out)?,
        }
    }
    // Many templates want the user to begin, and one system message.
    if out.first().is_some_and(|m: &Out<'_>| m.role == "assistant") {
        out.insert(0, Out::new("user", BEGINS));
    }
    if paused && out.last().is_some_and(|m| m.role == "assistant") {
        out.push(Out::new("user", GO_ON));
    }
    let lead: Vec<&str> = system.into_iter().chain(asks.iter().map(String::as_str)).collect();
    if !lead.is_empty() && (told || !out.is_empty()) {
        out.insert(0, Out::new("system", lead.join("\n\n")));
    }
    Ok(out)
}

fn model_turn<'a>(parts: &[&'a Part], thoughtful: bool) -> Out<'a> {
    let mut out = Out::new("assistant", "");
    let mut thoughts = String::new();
    for part in parts {
        match part {
            Part::Text(t) | Part::Refusal(t) => match out.content.is_empty() {
                true => out.content = Cow::Borrowed(&t.text),
                false => out.content.to_mut().push_str(&t.text),
            },
            Part::Reasoning(t) if thoughtful && t.replay.as_ref().is_some_and(|r| r.provider == FAMILY) => {
                thoughts.push_str(&t.text);
            }
            Part::ToolCall(call) => out.tool_calls.push(Call {
                id: &call.id,
                function: Function { name: &call.name, arguments: args_object(&call.args) },
            }),
            _ => {}
        }
    }
    if blank(&out.content) {
        out.content = Cow::Borrowed("");
    }
    out.thinking = (!blank(&thoughts)).then_some(thoughts);
    out
}

fn host_turn<'a>(results: &[&'a ToolResult], said: &[Said<'a>], out: &mut Vec<Out<'a>>) -> Result<()> {
    let mut texts: Vec<Cow<'a, str>> = Vec::new();
    let mut images = Vec::new();
    for result in results {
        let mut text = result_text(result);
        for media in &result.media {
            // Templates show no pictures of a tool: they follow in a message of the user.
            match picture(media) {
                Some(image) => {
                    texts.push(
                        format!("A picture is part of the result of {} ({}).", result.name, result.id).into(),
                    );
                    images.push(image);
                }
                None => text = Cow::Owned(format!("{text}\n{}", media_note(media))),
            }
        }
        let mut message = Out::new("tool", text);
        message.tool_name = Some(&result.name);
        message.tool_call_id = Some(&result.id);
        out.push(message);
    }
    for Said { role, parts, asked } in said {
        let mut line: Cow<'a, str> = Cow::Borrowed("");
        for part in parts {
            match part {
                Part::Text(t) | Part::Refusal(t) if blank(&t.text) => {}
                Part::Text(t) | Part::Refusal(t) => {
                    let text = if **role == Role::System {
                        marked_system(&t.text).into()
                    } else {
                        Cow::Borrowed(&*t.text)
                    };
                    match line.is_empty() {
                        true => line = text,
                        false => line.to_mut().push_str(&text),
                    }
                }
                Part::Media(media) => match picture(media) {
                    Some(image) => images.push(image),
                    None if *asked && !is_picture(media) => return Err(refused(media, OP, "Ollama")),
                    None => {
                        let between = if line.is_empty() { "" } else { "\n" };
                        line.to_mut().push_str(between);
                        line.to_mut().push_str(&media_note(media));
                    }
                },
                _ => {}
            }
        }
        if !line.is_empty() {
            texts.push(line);
        }
    }
    if texts.is_empty() && images.is_empty() {
        return Ok(());
    }
    // One message, since many templates want the speakers to take turns.
    let mut texts = texts.into_iter();
    let first = texts.next().unwrap_or_default();
    let content = texts.fold(first, |mut all, next| {
        all.to_mut().push_str("\n\n");
        all.to_mut().push_str(&next);
        all
    });
    let mut message = Out::new("user", content);
    message.images = images;
    out.push(message);
    Ok(())
}

/// Base64 of a picture that every version of the server can read. It follows no links.
fn picture(media: &Media) -> Option<Cow<'_, str>> {
    let shown = shown(media)?;
    match (&*shown.kind, shown.source) {
        ("image/png" | "image/jpeg" | "image/webp", Source::Bytes(data)) => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;
    use zo_testkit::rules::ollama::check_body;
    use zo_traits::{MediaSource, Message, Replay, Text, ToolCall, ToolStatus};

    fn body_of(request: &Request, model: &str) -> Value {
        let bytes = encode(request, model).unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(body.to_string().len(), bytes.len(), "a key comes twice");
        assert_eq!(check_body(&body), Ok(()), "{body}");
        body
    }

    fn body(request: &Request) -> Value {
        body_of(request, "m")
    }

    fn thought(text: &str, family: &str) -> Part {
        Part::Reasoning(Text { text: text.into(), replay: Some(Replay::new(family, json!({}))) })
    }

    fn talk() -> Request {
        let calls = [ToolCall::new("c1", "f", json!({"a": 1})), ToolCall::new("c2", "g", json!("{\"a\":"))];
        let mut results: Vec<_> = calls.iter().map(|c| ToolResult::new(c, ToolStatus::Ok, "fine")).collect();
        results[1].content.clear();
        let mut parts = vec![thought("hm", FAMILY), thought("no", "deepseek"), Part::text("on it")];
        parts.extend(calls.map(Part::ToolCall));
        Request::new(
            "",
            [
                Message::system("be brief"),
                Message::system("be kind"),
                Message::user("go"),
                Message { role: Role::Assistant, parts },
                Message::tool_results(results),
                Message { role: Role::Assistant, parts: vec![thought("aha", FAMILY), Part::text("done")] },
                Message::user("and?"),
                Message {
                    role: Role::Assistant,
                    parts: vec![thought("plain", FAMILY), Part::text("no more")],
                },
                Message::system("a fact"),
                Message::user("thanks"),
            ],
        )
    }

    #[test]
    fn a_conversation_in_order() {
        assert_eq!(
            body(&talk())["messages"],
            json!([
                {"role": "system", "content": "be brief\n\nbe kind"},
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": "on it", "thinking": "hm", "tool_calls": [
                    {"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}},
                    {"id": "c2", "function": {"name": "g", "arguments": {"invalid_arguments": "{\"a\":"}}},
                ]},
                {"role": "tool", "content": "fine", "tool_name": "f", "tool_call_id": "c1"},
                {"role": "tool", "content": "(no output)", "tool_name": "g", "tool_call_id": "c2"},
                {"role": "assistant", "content": "done", "thinking": "aha"},
                {"role": "user", "content": "and?"},
                {"role": "assistant", "content": "no more"},
                {"role": "user", "content": "<system>\na fact\n</system>\n\nthanks"},
            ])
        );
    }

    #[test]
    fn what_was_sent_once_is_sent_the_same_again() {
        let whole = body(&talk())["messages"].clone();
        for (until, sent) in [(3, 2), (5, 5), (7, 7)] {
            let mut earlier = talk();
            earlier.messages.truncate(until);
            let earlier = body(&earlier)["messages"].clone();
            assert_eq!(earlier.as_array().unwrap()[..], whole.as_array().unwrap()[..sent]);
        }
    }

    #[test]
    fn parameters_of_a_request() {
        let mut r = Request::new("", [Message::user("x")]);
        let plain = body(&r);
        assert_eq!(plain["options"], json!({"num_ctx": 8192}));
        assert_eq!(
            (&plain["stream"], &plain["truncate"], &plain["shift"]),
            (&json!(true), &json!(false), &json!(false))
        );
        assert!(
            plain.get("think").is_none() && plain.get("format").is_none() && plain.get("tools").is_none()
        );
        (r.max_tokens, r.temperature, r.top_p, r.whole) = (Some(7), Some(0.7), Some(0.9), true);
        r.stop = vec!["END".into()];
        r.output_schema = Some(Arc::new(json!({"type": "object"})));
        let b = body(&r);
        assert_eq!(
            b["options"],
            json!({"num_ctx": 8192, "num_predict": 7, "temperature": 0.7, "top_p": 0.9, "stop": ["END"]})
        );
        assert_eq!((&b["stream"], &b["format"]), (&json!(false), &json!({"type": "object"})));
        r.extra = json!({"keep_alive": "1h", "options": {"num_ctx": 2048, "seed": 7, "temperature": 0}})
            .as_object()
            .unwrap()
            .clone();
        let b = body(&r);
        assert_eq!(b["keep_alive"], "1h");
        assert_eq!(
            b["options"],
            json!({"num_ctx": 2048, "num_predict": 7, "temperature": 0, "top_p": 0.9, "seed": 7, "stop": ["END"]})
        );
        r.extra.insert("options".into(), json!({"num_ctx": null}));
        assert!(body(&r)["options"].get("num_ctx").is_none(), "left to the server");
        r.extra.insert("options".into(), json!(null));
        assert_eq!(body(&r)["options"], json!(null), "no object: it takes the place of ours");
        r.extra = json!({"model": "n", "think": "max"}).as_object().unwrap().clone();
        assert_eq!((&body(&r)["model"], &body(&r)["think"]), (&json!("n"), &json!("max")));
        assert_eq!(encode(&r, "m").unwrap(), encode(&r.clone(), "m").unwrap());
    }

    #[test]
    fn how_hard_to_think() {
        let of = |effort: Effort, model: &str| {
            let mut r = Request::new("", [Message::user("x")]);
            r.effort = Some(effort);
            body_of(&r, model)["think"].clone()
        };
        assert_eq!(of(Effort::Minimal, "qwen3:4b"), json!(false));
        assert_eq!(of(Effort::Low, "qwen3:4b"), json!(true));
        assert_eq!(of(Effort::High, "hf.co/x/qwen3"), json!(true));
        assert_eq!(of(Effort::Other("none".into()), "qwen3"), json!(false));
        for (effort, level) in [
            (Effort::Minimal, "low"),
            (Effort::Low, "low"),
            (Effort::Medium, "medium"),
            (Effort::High, "high"),
            (Effort::Other("max".into()), "high"),
        ] {
            assert_eq!(of(effort.clone(), "gpt-oss:20b"), json!(level));
            assert_eq!(of(effort, "hf.co/unsloth/GPT-OSS-20b-GGUF:Q4"), json!(level));
        }
    }

    #[test]
    fn the_window_holds_the_request_and_is_steady() {
        let ctx = |text: &str, max: Option<u32>| {
            let mut r = Request::new("", [Message::user(text)]);
            r.max_tokens = max;
            body(&r)["options"]["num_ctx"].as_u64().unwrap()
        };
        assert_eq!((ctx("x", None), ctx("x", Some(8_100)), ctx("x", Some(8_200))), (8_192, 8_192, 16_384));
        assert_eq!(ctx(&"word ".repeat(10_000), None), 32_768, "10,000 tokens or so");
        assert!(ctx(&"7".repeat(20_000), Some(10)) >= 20_000, "digits are tokens");
        assert!(ctx(&"語".repeat(20_000), Some(10)) >= 20_000);
        assert_eq!(ctx(&"x".repeat(20_000_000), Some(u32::MAX)), MAX_WINDOW);
        // A conversation that grows turn by turn changes its window a few times only.
        let mut r = Request::new("", [Message::user("go")]);
        let mut seen = Vec::new();
        for _ in 0..200 {
            r.messages.push(Message::assistant("some words of an answer, ".repeat(20)));
            r.messages.push(Message::user("a question of the user. ".repeat(20)));
            seen.push(body(&r)["options"]["num_ctx"].as_u64().unwrap());
        }
        assert!(seen.is_sorted(), "{seen:?}");
        seen.dedup();
        assert!(seen.len() <= 5, "{seen:?}");
        // Tools, calls and pictures weigh, too.
        let mut r = Request::new("", [Message::user("go")]);
        r.tools = vec![ToolSpec::new("f", "d".repeat(60_000), json!({"type": "object"}))].into();
        assert_eq!(body(&r)["options"]["num_ctx"], 32_768);
        let r = Request::new(
            "",
            [Message { role: Role::User, parts: (0..8).map(|_| image("image/png")).collect() }],
        );
        assert_eq!(body(&r)["options"]["num_ctx"], 32_768);
        for cloud in ["gpt-oss:120b-cloud", "glm-4.6:cloud"] {
            assert_eq!(body_of(&r, cloud)["options"], json!({}));
        }
        let mut r = Request::new("", [Message::user("go")]);
        r.extra.insert("options".into(), json!({"num_predict": 20_000}));
        assert_eq!(body(&r)["options"]["num_ctx"], 32_768);
    }

    #[test]
    fn tools_and_choice() {
        let schema = json!({"type": "object", "properties": {"a": true, "b": {"anyOf": [{"type": "string"}, false]},
            "c": {"type": "object", "properties": {"properties": {"enum": [true]}, "d": true}}}});
        let mut r = Request::new("", [Message::user("x")]);
        r.tools =
            vec![ToolSpec::new("f", "does f", schema), ToolSpec::new("g", "", json!({"type": "object"}))]
                .into();
        let b = body(&r);
        assert_eq!(
            b["tools"][0]["function"],
            json!({"name": "f", "description": "does f", "parameters": {"type": "object", "properties": {
                "a": {}, "b": {"anyOf": [{"type": "string"}, {"not": {}}]},
                "c": {"type": "object", "properties": {"properties": {"enum": [true]}, "d": {}}}}}})
        );
        assert_eq!(
            b["tools"][1],
            json!({"type": "function", "function": {"name": "g", "parameters": {"type": "object"}}})
        );
        r.tool_choice = ToolChoice::None;
        assert!(body(&r).get("tools").is_none());
        r.tool_choice = ToolChoice::Required;
        assert_eq!(
            body(&r)["messages"][0],
            json!({"role": "system", "content": "Answer by calling at least one of the tools."})
        );
        r.tool_choice = ToolChoice::Tool("g".into());
        let b = body(&r);
        assert_eq!(
            (b["tools"].as_array().unwrap().len(), &b["tools"][0]["function"]["name"]),
            (1, &json!("g"))
        );
        assert!(b["messages"][0]["content"].as_str().unwrap().contains("the tool g"));
        r.output_schema = Some(Arc::new(json!({"type": "object", "title": "T"})));
        r.tool_choice = ToolChoice::Auto;
        let b = body(&r);
        assert!(
            b.get("format").is_none()
                && b["messages"][0]["content"].as_str().unwrap().contains("\"title\":\"T\"")
        );
        r.tool_choice = ToolChoice::Tool("h".into());
        assert_eq!(encode(&r, "m").unwrap_err().kind(), ErrorKind::Invalid);
    }

    fn image(kind: &str) -> Part {
        file(kind, MediaSource::Base64("QUJD".into()))
    }

    fn file(kind: &str, source: MediaSource) -> Part {
        Part::Media(Media { media_type: kind.into(), source, name: Some("a.b".into()) })
    }

    #[test]
    fn pictures_and_other_files() {
        let of = |part: Part| {
            Request::new("", [Message { role: Role::User, parts: vec![Part::text("see"), part] }])
        };
        for kind in ["image/png", "image/jpg", "IMAGE/WEBP; q=1"] {
            assert_eq!(
                body(&of(image(kind)))["messages"][0],
                json!({"role": "user", "content": "see", "images": ["QUJD"]})
            );
        }
        let url = file("image/png", MediaSource::Url("data:image/png;base64,QUJD".into()));
        assert_eq!(body(&of(url))["messages"][0]["images"], json!(["QUJD"]));
        let link = file("image/png", MediaSource::Url("https://x/y.png".into()));
        assert_eq!(body(&of(link))["messages"][0]["content"], "see\n[image/png a.b is not shown]");
        let e = encode(&of(image("application/pdf")), "m").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        let mut older = of(image("application/pdf"));
        older.messages.extend([Message::assistant("no"), Message::user("well")]);
        assert!(body(&older)["messages"][0]["content"].as_str().unwrap().contains("is not shown"));
        let alone = Request::new("", [Message { role: Role::User, parts: vec![image("image/png")] }]);
        assert_eq!(body(&alone)["messages"][0], json!({"role": "user", "content": "", "images": ["QUJD"]}));
        let mut r = talk();
        let png =
            Media { media_type: "image/png".into(), source: MediaSource::Base64("QUJD".into()), name: None };
        if let Part::ToolResult(result) = &mut r.messages[4].parts[0] {
            result.media = vec![
                png,
                Media { media_type: "video/mp4".into(), source: MediaSource::Url("x".into()), name: None },
            ];
        }
        let m = body(&r)["messages"].clone();
        assert_eq!(m[3]["content"], "fine\n[video/mp4 file is not shown]");
        assert_eq!(
            (&m[5]["role"], &m[5]["images"]),
            (&json!("user"), &json!(["QUJD"])),
            "behind all results"
        );
    }

    #[test]
    fn odd_conversations() {
        let e = encode(&Request::new("", [Message::user("  ")]), "m").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid);
        assert_eq!(encode(&Request::new("", []), "m").unwrap_err().kind(), ErrorKind::Invalid);
        let begun = Request::new("", [Message::assistant("hi"), Message::user("x")]);
        assert_eq!(body(&begun)["messages"][0], json!({"role": "user", "content": BEGINS}));
        let paused = Message {
            role: Role::Assistant,
            parts: vec![Part::text("wait"), Part::Opaque(Replay::new("anthropic", json!({})))],
        };
        let paused = Request::new("", [Message::user("x"), paused]);
        assert_eq!(body(&paused)["messages"][2]["content"], GO_ON);
        let split = Request::new(
            "",
            [
                Message::user("a"),
                Message::user("b"),
                Message::assistant("c"),
                Message::assistant("d"),
                Message::user("e"),
            ],
        );
        assert_eq!(body(&split)["messages"][0]["content"], "a\n\nb");
        assert_eq!(body(&split)["messages"][1]["content"], "cd");
    }
}
