//! What one would write by hand for this one server: typed structs that borrow from the bytes, lines split in place, nothing
//! checked that need not be. The yardstick of the other clients.

use super::{QUESTION, SCHEMA, add};
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The loop written by hand.
#[derive(Debug)]
pub(crate) struct Raw {
    client: reqwest::Client,
    url: Url,
    tools: Box<RawValue>,
}

/// An answer that is being read.
#[derive(Debug)]
pub(crate) struct Reading {
    response: reqwest::Response,
    /// The line that has begun and not ended.
    line: Vec<u8>,
    calls: Vec<Call>,
}

#[derive(Debug, Default, Clone, Serialize)]
struct Call {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Debug, Default, Clone, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [Said<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Said<'a> {
    role: &'a str,
    content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "<[Call]>::is_empty")]
    tool_calls: Vec<Call>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

/// Both a whole completion and a chunk of a streamed one.
#[derive(Deserialize)]
struct Completion<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, alias = "message")]
    delta: Delta<'a>,
    #[serde(borrow, default)]
    finish_reason: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Str<'a>>,
    #[serde(borrow, default)]
    tool_calls: Vec<CallDelta<'a>>,
}

#[derive(Deserialize)]
struct CallDelta<'a> {
    #[serde(default)]
    index: usize,
    #[serde(borrow, default)]
    id: Option<Str<'a>>,
    #[serde(borrow)]
    function: FunctionDelta<'a>,
}

#[derive(Deserialize)]
struct FunctionDelta<'a> {
    #[serde(borrow, default)]
    name: Option<Str<'a>>,
    #[serde(borrow, default)]
    arguments: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Counts {
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// Borrows where it can, also inside of an `Option`.
#[derive(Deserialize)]
#[serde(transparent)]
struct Str<'a>(#[serde(borrow)] Cow<'a, str>);

/// The arguments of the tool.
#[derive(Deserialize)]
struct Args {
    a: i64,
    b: i64,
}

impl Raw {
    pub(crate) fn new(base: &str) -> Self {
        let tools = format!(
            r#"[{{"type":"function","function":{{"name":"add","description":"Adds two numbers","parameters":{SCHEMA}}}}}]"#
        );
        Self {
            client: super::http_client(),
            url: Url::parse(&format!("{base}/chat/completions")).unwrap(),
            tools: RawValue::from_string(tools).unwrap(),
        }
    }

    async fn send(&self, messages: &[Said<'_>], tools: bool, stream: bool) -> reqwest::Response {
        let body = Body {
            model: "mock",
            messages,
            tools: tools.then_some(&self.tools),
            stream: stream.then_some(true),
            stream_options: stream.then_some(StreamOptions { include_usage: true }),
        };
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(serde_json::to_vec(&body).unwrap());
        request.send().await.unwrap().error_for_status().unwrap()
    }

    pub(crate) async fn once(&self) -> String {
        whole(self.send(&[question()], false, false).await).await.0
    }

    pub(crate) async fn open(&self) -> Reading {
        Reading::new(self.send(&[question()], false, true).await)
    }

    pub(crate) async fn turn(&self, stream: bool) -> String {
        let mut messages = vec![question()];
        loop {
            let response = self.send(&messages, true, stream).await;
            let (text, calls) = if stream {
                let (mut reading, mut text) = (Reading::new(response), String::new());
                while reading.more(&mut text).await {}
                (text, reading.calls)
            } else {
                whole(response).await
            };
            if calls.is_empty() {
                return text;
            }
            let results = calls.iter().map(|call| {
                let args: Args = serde_json::from_str(&call.function.arguments).unwrap();
                let content = Some(add(args.a, args.b).into());
                Said { role: "tool", content, tool_calls: Vec::new(), tool_call_id: Some(call.id.clone()) }
            });
            let results: Vec<_> = results.collect();
            messages.push(Said { role: "assistant", content: None, tool_calls: calls, tool_call_id: None });
            messages.extend(results);
        }
    }
}

fn question() -> Said<'static> {
    Said { role: "user", content: Some(QUESTION.into()), tool_calls: Vec::new(), tool_call_id: None }
}

async fn whole(response: reqwest::Response) -> (String, Vec<Call>) {
    let bytes = response.bytes().await.unwrap();
    let (mut text, mut calls) = (String::new(), Vec::new());
    take(&bytes, &mut text, &mut calls);
    (text, calls)
}

impl Reading {
    fn new(response: reqwest::Response) -> Self {
        Self { response, line: Vec::new(), calls: Vec::new() }
    }

    /// Appends the text of the next bytes to `text`; false at the end.
    pub(crate) async fn more(&mut self, text: &mut String) -> bool {
        let Some(bytes) = self.response.chunk().await.unwrap() else { return false };
        let mut rest = &bytes[..];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.line.is_empty() {
                event(line, text, &mut self.calls);
            } else {
                self.line.extend_from_slice(line);
                event(&self.line, text, &mut self.calls);
                self.line.clear();
            }
        }
        self.line.extend_from_slice(rest);
        true
    }
}

fn event(line: &[u8], text: &mut String, calls: &mut Vec<Call>) {
    if let Some(data) = line.strip_prefix(b"data: ")
        && data != b"[DONE]"
    {
        take(data, text, calls);
    }
}

fn take(data: &[u8], text: &mut String, calls: &mut Vec<Call>) {
    let completion: Completion<'_> = serde_json::from_slice(data).unwrap();
    if let Some(usage) = completion.usage {
        std::hint::black_box(usage.prompt_tokens + usage.completion_tokens);
    }
    for choice in completion.choices {
        std::hint::black_box(choice.finish_reason.is_some());
        if let Some(content) = choice.delta.content {
            text.push_str(&content.0);
        }
        for delta in choice.delta.tool_calls {
            while calls.len() <= delta.index {
                calls.push(Call { r#type: "function", ..Call::default() });
            }
            let call = &mut calls[delta.index];
            if let Some(id) = delta.id {
                call.id = id.0.into_owned();
            }
            if let Some(name) = delta.function.name {
                call.function.name = name.0.into_owned();
            }
            if let Some(arguments) = delta.function.arguments {
                call.function.arguments.push_str(&arguments.0);
            }
        }
    }
}
