//! The peers: genai and rig, each as its documentation says, on the same HTTP client as the others.

use super::{QUESTION, SCHEMA, add};
use futures_util::StreamExt;
use genai::{
    ModelIden, ServiceTarget,
    adapter::AdapterKind,
    chat::{
        ChatMessage, ChatOptions, ChatRequest, ChatStream, ChatStreamEvent, Tool, ToolCall, ToolResponse,
    },
    resolver::{AuthData, Endpoint},
};
use rig::{
    agent::MultiTurnStreamItem,
    completion::{CompletionRequest, ToolDefinition},
    driver::Model,
    message::{AssistantContent, Message, ToolName, ToolResultContent},
    providers::openai::{OpenAIConfig, wire::Chat},
    streaming::{CompletionStream, Item, StreamEvent},
    tool::ToolContext,
};

fn schema() -> serde_json::Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// genai.
pub(crate) struct Genai {
    client: genai::Client,
    target: ServiceTarget,
    tool: Tool,
    options: ChatOptions,
}

impl Genai {
    pub(crate) fn new(base: &str) -> Self {
        Self {
            client: genai::Client::builder().with_reqwest(super::http_client()).build().unwrap(),
            target: ServiceTarget {
                endpoint: Endpoint::from_owned(format!("{base}/")),
                auth: AuthData::from_single("none"),
                model: ModelIden::new(AdapterKind::OpenAI, "mock"),
            },
            tool: Tool::new("add").with_description("Adds two numbers").with_schema(schema()),
            options: ChatOptions::default().with_capture_usage(true),
        }
    }

    fn request() -> ChatRequest {
        ChatRequest::new(vec![ChatMessage::user(QUESTION)])
    }

    pub(crate) async fn once(&self) -> String {
        let answer = self.client.exec_chat(self.target.clone(), Self::request(), Some(&self.options));
        answer.await.unwrap().into_first_text().unwrap()
    }

    pub(crate) async fn open(&self) -> ChatStream {
        let answer = self.client.exec_chat_stream(self.target.clone(), Self::request(), Some(&self.options));
        answer.await.unwrap().stream
    }

    pub(crate) async fn turn(&self, stream: bool) -> String {
        let mut request = Self::request().with_tools([self.tool.clone()]);
        let options = self.options.clone().with_capture_tool_calls(true);
        loop {
            let (text, calls) = if stream {
                let answer =
                    self.client.exec_chat_stream(self.target.clone(), request.clone(), Some(&options));
                let (mut events, mut text, mut calls) =
                    (answer.await.unwrap().stream, String::new(), Vec::new());
                while let Some(event) = events.next().await {
                    match event.unwrap() {
                        ChatStreamEvent::Chunk(chunk) => text.push_str(&chunk.content),
                        ChatStreamEvent::End(end) => {
                            calls = end.captured_into_tool_calls().unwrap_or_default()
                        }
                        _ => {}
                    }
                }
                (text, calls)
            } else {
                let answer = self.client.exec_chat(self.target.clone(), request.clone(), Some(&options));
                let answer = answer.await.unwrap();
                (answer.first_text().unwrap_or_default().to_owned(), answer.into_tool_calls())
            };
            if calls.is_empty() {
                return text;
            }
            let results: Vec<ToolResponse> = calls.iter().map(genai_result).collect();
            request = request.append_message(calls);
            for result in results {
                request = request.append_message(result);
            }
        }
    }
}

fn genai_result(call: &ToolCall) -> ToolResponse {
    let args = &call.fn_arguments;
    ToolResponse::new(call.call_id.clone(), add(args["a"].as_i64().unwrap(), args["b"].as_i64().unwrap()))
}

/// The next text of a stream; false at the end.
pub(crate) async fn genai_more(stream: &mut ChatStream, text: &mut String) -> bool {
    while let Some(event) = stream.next().await {
        if let ChatStreamEvent::Chunk(chunk) = event.unwrap() {
            text.push_str(&chunk.content);
            return true;
        }
    }
    false
}

/// rig: the model by itself.
pub(crate) struct Rig {
    model: Model<Chat>,
    tool: ToolDefinition,
}

impl Rig {
    pub(crate) fn new(base: &str) -> Self {
        let http = rig::http_client::ReqwestClient::from(super::http_client());
        Self {
            model: OpenAIConfig::new("none").with_base_url(base).connect(http).chat("mock"),
            tool: ToolDefinition::new(ToolName::new("add").unwrap(), "Adds two numbers", schema()),
        }
    }

    pub(crate) async fn once(&self) -> String {
        self.model.call(QUESTION).await.unwrap().text()
    }

    pub(crate) fn open(&self) -> CompletionStream {
        self.model.stream(QUESTION).unwrap()
    }

    pub(crate) async fn turn(&self, stream: bool) -> String {
        let mut history = vec![Message::user(QUESTION)];
        loop {
            let request = CompletionRequest::from(history.clone()).tool(self.tool.clone());
            let answer = if stream {
                let mut events = self.model.stream(request).unwrap();
                let mut text = String::new();
                while rig_more(&mut events, &mut text).await {}
                events.finish().await.unwrap()
            } else {
                self.model.call(request).await.unwrap()
            };
            let results = answer.choice.iter().filter_map(|part| match part {
                AssistantContent::ToolCall(call) => {
                    let args = &call.function.arguments;
                    let sum = add(args["a"].as_i64().unwrap(), args["b"].as_i64().unwrap());
                    Some(call.result(vec![ToolResultContent::text(sum)]))
                }
                _ => None,
            });
            let results: Vec<_> = results.collect();
            if results.is_empty() {
                return answer.text();
            }
            history.extend(answer.message());
            history.push(Message::tool_results(results));
        }
    }
}

/// The next text of a stream; false at the end.
pub(crate) async fn rig_more(stream: &mut CompletionStream, text: &mut String) -> bool {
    while let Some(item) = stream.next().await {
        if let Item::Event(StreamEvent::Text { text: words, .. }) = item.unwrap() {
            text.push_str(&words);
            return true;
        }
    }
    false
}

/// rig's own agent.
pub(crate) fn rig_agent(base: &str) -> rig::Agent {
    rig::AgentBuilder::new(Rig::new(base).model).tool(Add).default_max_turns(4).build()
}

/// A run of rig's agent, its words watched as they come if `stream`.
pub(crate) async fn rig_run(agent: &rig::Agent, stream: bool) -> String {
    if !stream {
        return agent.prompt(QUESTION).await.unwrap().output().to_owned();
    }
    let (mut items, mut text) = (agent.prompt(QUESTION).stream(), String::new());
    while let Some(item) = items.next().await {
        if let MultiTurnStreamItem::StreamAssistantItem(Item::Event(StreamEvent::Text {
            text: words, ..
        })) = item.unwrap()
        {
            text.push_str(&words);
        }
    }
    text
}

struct Add;

#[derive(serde::Deserialize)]
struct Args {
    a: i64,
    b: i64,
}

impl rig::tool::Tool for Add {
    const NAME: &'static str = "add";
    type Args = Args;
    type Output = String;
    type Error = std::convert::Infallible;

    fn description(&self) -> String {
        "Adds two numbers".into()
    }

    fn parameters(&self) -> serde_json::Value {
        schema()
    }

    async fn call(&self, _: &mut ToolContext, args: Args) -> Result<String, Self::Error> {
        Ok(add(args.a, args.b))
    }
}
