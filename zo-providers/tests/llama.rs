//! A real llama.cpp server with a real, small model: `scripts/llama-server` starts one.
//!
//! Runs when `ZO_LLAMA_URL` names its address (`http://127.0.0.1:PORT/v1`), else says that it was skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    future::poll_fn,
    time::{Duration, Instant},
};
use zo_providers::Remote;
use zo_traits::{
    Accumulator, Cx, ErrorKind, FinishReason, Message, Provider, ProviderExt, Request, StreamEvent,
    ToolChoice, ToolResult, ToolSpec, ToolStatus,
};

fn server() -> Option<Remote> {
    let Ok(url) = std::env::var("ZO_LLAMA_URL") else {
        println!("SKIPPED: ZO_LLAMA_URL is not set; scripts/llama-server prints an address for it");
        return None;
    };
    Some(Remote::compatible("llamacpp", &url, None))
}

fn cx() -> Cx {
    Cx::new("llama").with_timeout(Duration::from_secs(120))
}

fn request(text: &str) -> Request {
    let mut r = Request::new("", [Message::system("Be brief."), Message::user(text)]);
    (r.max_tokens, r.temperature) = (Some(24), Some(0.0));
    r
}

#[tokio::test]
async fn it_streams_and_counts() {
    let Some(llama) = server() else { return };
    let mut stream = llama.stream(&cx(), &request("Name three colours.")).await.unwrap();
    let (mut acc, mut deltas) = (Accumulator::default(), 0);
    while let Some(event) = poll_fn(|task| stream.as_mut().poll_next(task)).await {
        let event = event.unwrap();
        deltas += usize::from(matches!(event, StreamEvent::Delta { .. }));
        acc.push(event).unwrap();
    }
    let answer = acc.finish().unwrap();
    assert!(deltas > 3, "it came in pieces: {deltas}");
    assert!(!answer.message.to_text().trim().is_empty());
    assert!(answer.usage.input > 10 && (1..=24).contains(&answer.usage.output), "{:?}", answer.usage);
    assert!(matches!(answer.finish, FinishReason::Stop | FinishReason::Length), "{:?}", answer.finish);
    let models = llama.models(&cx()).await.unwrap();
    assert_eq!(models[0].id, "smollm2-135m");
}

#[tokio::test]
async fn it_calls_a_tool_and_reads_the_result() {
    let Some(llama) = server() else { return };
    let schema = serde_json::json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"], "additionalProperties": false});
    let mut ask = request("What is the weather in Paris?").tools([ToolSpec::new(
        "get_weather",
        "The weather of a city.",
        schema,
    )]);
    // The examples in the server's template work only right before the question.
    ask.messages.remove(0);
    (ask.tool_choice, ask.max_tokens) = (ToolChoice::Required, Some(96));
    let answer = llama.complete(&cx(), &ask).await.unwrap();
    let call = answer.message.tool_calls().next().expect("a call").clone();
    assert_eq!((call.name.as_str(), &answer.finish), ("get_weather", &FinishReason::ToolCalls));
    assert!(call.args["city"].is_string() && !call.id.is_empty(), "{call:?}");
    ask.tool_choice = ToolChoice::None;
    ask.messages.push(answer.message);
    ask.messages.push(Message::tool_results([ToolResult::new(&call, ToolStatus::Ok, "Sunny, 21 degrees.")]));
    let after = llama.complete(&cx(), &ask).await.unwrap();
    assert!(!after.message.to_text().is_empty(), "{after:?}");
}

#[tokio::test]
async fn it_obeys_a_schema() {
    let Some(llama) = server() else { return };
    let mut ask = request("Give a person: Ada, 36.");
    ask.max_tokens = Some(64);
    ask.output_schema = Some(
        serde_json::json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150}}, "required": ["name", "age"], "additionalProperties": false})
        .into(),
    );
    let text = llama.complete(&cx(), &ask).await.unwrap().message.to_text();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(value["name"].is_string() && value["age"].is_u64(), "{value}");
}

#[tokio::test]
async fn cancelling_in_the_middle_ends_it_and_frees_the_server() {
    let Some(llama) = server() else { return };
    let cx = cx();
    let mut long = request("Count from one to a thousand, in words, with commas.");
    long.max_tokens = Some(1500);
    let mut stream = llama.stream(&cx, &long).await.unwrap();
    for _ in 0..5 {
        poll_fn(|task| stream.as_mut().poll_next(task)).await.unwrap().unwrap();
    }
    let began = Instant::now();
    cx.cancel().cancel();
    let mut last = None;
    while let Some(item) = poll_fn(|task| stream.as_mut().poll_next(task)).await {
        last = Some(item);
    }
    assert_eq!(last.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(began.elapsed() < Duration::from_secs(1));
    // Its one slot is free again.
    let next = llama.complete(&self::cx(), &request("Say hi.")).await.unwrap();
    assert!(next.usage.output > 0);
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_said_to_be() {
    let Some(llama) = server() else { return };
    let e = llama.complete(&cx(), &request(&"many words ".repeat(3000))).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ContextOverflow, "{e}");
    assert!(!e.is_retryable());
}
