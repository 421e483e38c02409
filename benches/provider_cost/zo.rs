//! zo: the provider by itself, and the whole agent without a file.

use super::{QUESTION, SCHEMA, add};
use std::sync::Arc;
use zo_core::{
    BoxStream, Cx, Effect, Message, Provider, ProviderExt, Request, Result, RunEvent, StreamEvent,
    ToolResult, ToolSpec, ToolStatus, Zo, providers::Remote,
};

/// A provider, and a tool to offer.
#[derive(Debug)]
pub(crate) struct Model {
    remote: Remote,
    cx: Cx,
    tools: Arc<[ToolSpec]>,
}

impl Model {
    pub(crate) fn new(base: &str) -> Self {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        Self {
            remote: Remote::compatible("mock", base, None),
            cx: Cx::new(""),
            tools: [ToolSpec::new("add", "Adds two numbers", schema)].into(),
        }
    }

    fn request(stream: bool) -> Request {
        let mut request = Request::new("mock", [Message::user(QUESTION)]);
        request.whole = !stream;
        request
    }

    pub(crate) async fn once(&self) -> String {
        self.remote.complete(&self.cx, &Self::request(false)).await.unwrap().message.to_text()
    }

    pub(crate) async fn open(&self) -> BoxStream<Result<StreamEvent>> {
        self.remote.stream(&self.cx, &Self::request(true)).await.unwrap()
    }

    pub(crate) async fn turn(&self, stream: bool) -> String {
        let mut request = Self::request(stream);
        request.tools = self.tools.clone();
        loop {
            let message = self.remote.complete(&self.cx, &request).await.unwrap().message;
            let results: Vec<_> = message
                .tool_calls()
                .map(|call| {
                    let sum = add(call.args["a"].as_i64().unwrap(), call.args["b"].as_i64().unwrap());
                    ToolResult::new(call, ToolStatus::Ok, sum)
                })
                .collect();
            if results.is_empty() {
                return message.to_text();
            }
            request.messages.push(message);
            request.messages.push(Message::tool_results(results));
        }
    }
}

/// The agent with everything that it does without a file.
pub(crate) async fn agent(base: &str) -> Zo {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let tool = zo_testkit::tool("add", |_, call| async move {
        Ok(add(call.args["a"].as_i64().unwrap(), call.args["b"].as_i64().unwrap()).into())
    });
    Zo::builder()
        .provider(Remote::compatible("mock", base, None).default_model("mock"))
        .memory_tools(false)
        .recall_limit(0)
        .skill(tool.schema(schema).effect(Effect::Pure))
        .build()
        .await
        .unwrap()
}

/// A run of the agent, its words watched as they come if `stream`.
pub(crate) async fn run(zo: &Zo, conversation: String, stream: bool) -> String {
    if !stream {
        return zo.ask(conversation, QUESTION).await.unwrap().text;
    }
    let (mut events, mut text) = (zo.stream(conversation, QUESTION), String::new());
    while let Some(event) = events.next().await {
        if let RunEvent::Text(words) = event.unwrap() {
            text.push_str(&words);
        }
    }
    text
}
