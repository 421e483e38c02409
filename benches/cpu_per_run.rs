//! CPU of one agent run with one tool call (two model calls) over a loopback mock server, beside a loop written by hand with
//! reqwest and serde_json. Both sides run interleaved in one process on one thread; the server is another process.
//!
//! `cargo run --release -p zo-benches --bin cpu_per_run [runs [side]]`; a side by itself (0 to 3) is for profiling.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use zo_benches::{MockServer, cpu, rss_kib};
use zo_core::{Effect, Zo, providers::OpenAi};

const ROUNDS: usize = 10;

fn main() {
    let server = MockServer::start();
    let runs: usize = std::env::args().nth(1).map_or(500, |n| n.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let base = format!("http://{}/v1", server.addr);
        // The same TLS as zo's, though the mock speaks plain HTTP: without one no client can be built.
        let tls =
            rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        let plain = agent(&base, None).await;
        let dir = tempfile::tempdir().unwrap();
        let durable = agent(&base, Some(dir.path().join("bench.zo"))).await;

        let mut sides = [
            Side::new("raw reqwest, one JSON body"),
            Side::new("raw reqwest, streamed"),
            Side::new("zo"),
            Side::new("zo with its journal in a file"),
        ];
        let only: Option<usize> = std::env::args().nth(2).map(|n| n.parse().unwrap());
        for round in 0..=ROUNDS {
            for (at, side) in sides.iter_mut().enumerate().filter(|(at, _)| only.is_none_or(|o| o == *at)) {
                let (cpu_then, then) = (cpu(), Instant::now());
                for i in 0..runs {
                    let text = match at {
                        0 => raw(&client, &base, false).await,
                        1 => raw(&client, &base, true).await,
                        2 => plain.ask(format!("{round}/{i}"), "What is 17 plus 23?").await.unwrap().text,
                        _ => durable.ask(format!("{round}/{i}"), "What is 17 plus 23?").await.unwrap().text,
                    };
                    assert!(text.contains("40"), "{text}");
                }
                // The first round warms up.
                if round > 0 {
                    side.add(
                        (cpu() - cpu_then) / u32::try_from(runs).unwrap(),
                        then.elapsed() / u32::try_from(runs).unwrap(),
                    );
                }
            }
        }
        if let Some(side) = only.and_then(|at| sides.get(at)) {
            return println!(
                "{}: {:.1} us CPU, {:.1} us wall",
                side.name,
                micros(side.cpu()),
                micros(side.wall())
            );
        }
        let [json_cpu, stream_cpu] = [sides[0].cpu(), sides[1].cpu()];
        println!(
            "one run = 2 model calls + 1 tool; median of {ROUNDS} rounds of {runs} runs; RSS {} KiB",
            rss_kib()
        );
        for side in &sides {
            let cpu = side.cpu();
            println!(
                "{:32} {:7.1} us CPU  {:7.1} us wall  {:.2}x raw streamed  {:.2}x raw JSON",
                side.name,
                micros(cpu),
                micros(side.wall()),
                cpu.as_secs_f64() / stream_cpu.as_secs_f64(),
                cpu.as_secs_f64() / json_cpu.as_secs_f64(),
            );
        }
    });
}

struct Side {
    name: &'static str,
    cpu: Vec<Duration>,
    wall: Vec<Duration>,
}

impl Side {
    fn new(name: &'static str) -> Self {
        Self { name, cpu: Vec::new(), wall: Vec::new() }
    }
    fn add(&mut self, cpu: Duration, wall: Duration) {
        self.cpu.push(cpu);
        self.wall.push(wall);
    }
    fn cpu(&self) -> Duration {
        median(&self.cpu)
    }
    fn wall(&self) -> Duration {
        median(&self.wall)
    }
}

fn median(all: &[Duration]) -> Duration {
    let mut all = all.to_vec();
    all.sort();
    all[all.len() / 2]
}

fn micros(d: Duration) -> f64 {
    d.as_secs_f64() * 1e6
}

fn schema() -> Value {
    json!({"type": "object", "required": ["a", "b"],
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}})
}

async fn agent(base: &str, file: Option<std::path::PathBuf>) -> Zo {
    let add = zo_testkit::tool("add", |_, call| async move {
        Ok((call.args["a"].as_i64().unwrap() + call.args["b"].as_i64().unwrap()).into())
    });
    let mut builder = Zo::builder()
        .provider(OpenAi::compatible("mock", base, None).default_model("mock"))
        .memory_tools(false)
        .recall_limit(0)
        .skill(add.schema(schema()).effect(Effect::Pure));
    if let Some(file) = file {
        builder = builder.file(file);
    }
    builder.build().await.unwrap()
}

/// The loop that one writes by hand: send, parse, run the tool, send again.
async fn raw(client: &reqwest::Client, base: &str, stream: bool) -> String {
    let url = format!("{base}/chat/completions");
    let tools = json!([{"type": "function", "function": {"name": "add", "description": "The tool add of a test", "parameters": schema()}}]);
    let mut messages = vec![json!({"role": "user", "content": "What is 17 plus 23?"})];
    loop {
        let mut body = json!({"model": "mock", "messages": messages, "tools": tools});
        if stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        let request = client
            .post(&url)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&body).unwrap());
        let response = request.send().await.unwrap().error_for_status().unwrap();
        let message = if stream { read_stream(response).await } else { read_json(response).await };
        let Some(calls) = message["tool_calls"].as_array().cloned() else {
            return message["content"].as_str().unwrap().to_owned();
        };
        messages.push(message);
        for call in calls {
            let args: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
            let sum = args["a"].as_i64().unwrap() + args["b"].as_i64().unwrap();
            messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": sum.to_string()}));
        }
    }
}

async fn read_json(response: reqwest::Response) -> Value {
    let bytes = response.bytes().await.unwrap();
    let mut body: Value = serde_json::from_slice(&bytes).unwrap();
    body["choices"][0]["message"].take()
}

/// Server-sent events, read the short way: good enough for a server that one knows.
async fn read_stream(mut response: reqwest::Response) -> Value {
    let mut buffer = Vec::new();
    let (mut content, mut calls): (String, Vec<Value>) = (String::new(), Vec::new());
    while let Some(chunk) = response.chunk().await.unwrap() {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.windows(2).position(|w| w == b"\n\n") {
            let frame: Vec<u8> = buffer.drain(..end + 2).collect();
            let data = frame.strip_prefix(b"data: ").unwrap();
            if data.starts_with(b"[DONE]") {
                continue;
            }
            let event: Value = serde_json::from_slice(data).unwrap();
            let delta = &event["choices"][0]["delta"];
            if let Some(text) = delta["content"].as_str() {
                content.push_str(text);
            }
            for call in delta["tool_calls"].as_array().into_iter().flatten() {
                let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
                if calls.len() <= index {
                    calls.push(call.clone());
                } else {
                    let more = call["function"]["arguments"].as_str().unwrap_or_default();
                    let so_far = calls[index]["function"]["arguments"].as_str().unwrap_or_default();
                    calls[index]["function"]["arguments"] = json!(format!("{so_far}{more}"));
                }
            }
        }
    }
    if calls.is_empty() {
        json!({"role": "assistant", "content": content})
    } else {
        json!({"role": "assistant", "content": null, "tool_calls": calls})
    }
}
