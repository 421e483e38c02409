//! CPU of one agent run with one tool call (two model calls) over a loopback mock server, beside a loop written by hand with
//! reqwest and serde_json: one run after the other, and many at once, which share the commits of their journals. All sides run
//! in turns in one process, on one thread beside the store's own; the server is another process.
//!
//! `cargo run --release -p zo-benches --bin cpu_per_run [runs [side]]`; a side by itself (0 to 4) is for profiling.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use zo_benches::{MockServer, cpu, cpu_ticks, median, micros, rss_kib};
use zo_core::{Effect, Zo, providers::Remote};

const ROUNDS: usize = 10;
/// Runs at the same time in the second half.
const AT_ONCE: usize = 64;

fn main() {
    let server = MockServer::start();
    let mut args = std::env::args().skip(1).map(|n| n.parse().expect("a number"));
    let (runs, only): (usize, Option<usize>) = (args.next().unwrap_or(500), args.next());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let base = format!("http://{}/v1", server.addr);
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| Some(dir.path().join(name));
        let all = [
            Side::new(
                "raw reqwest, streamed",
                Does::Raw { client: client(), base: base.clone(), stream: true },
            ),
            Side::new(
                "raw reqwest, one JSON body",
                Does::Raw { client: client(), base: base.clone(), stream: false },
            ),
            Side::new("zo", Does::Zo(agent(&base, None, Effect::Pure).await)),
            Side::new("zo, file, Pure tool", Does::Zo(agent(&base, file("pure"), Effect::Pure).await)),
            Side::new(
                "zo, file, AtMostOnce tool",
                Does::Zo(agent(&base, file("once"), Effect::AtMostOnce).await),
            ),
        ];
        println!("one run = 2 model calls + 1 tool; {ROUNDS} rounds of {runs} runs a side; raw = 1");
        for at_once in [1, AT_ONCE] {
            let mut sides = all.each_ref().map(|s| Side::new(s.name, s.does.clone()));
            for round in 0..=ROUNDS {
                for (_, side) in sides.iter_mut().enumerate().filter(|(at, _)| only.is_none_or(|o| o == *at))
                {
                    // The first round warms up.
                    side.round(&format!("{at_once}/{round}"), runs, at_once, round > 0).await;
                }
            }
            println!(
                "\n{at_once} at a time, us a run (median of the rounds)            x raw streamed  x raw JSON"
            );
            let [streamed, json] = [sides[0].cpu(), sides[1].cpu()].map(|d| d.as_secs_f64());
            for side in sides.iter().filter(|s| !s.cpu.is_empty()) {
                let cpu = side.cpu();
                let system = side.ticks.1 as f64 / (side.ticks.0 + side.ticks.1).max(1) as f64;
                println!(
                    "{:28} {:7.1} CPU = {:6.1} user + {:6.1} sys, {:7.1} wall  {:5.2}  {:5.2}",
                    side.name,
                    micros(cpu),
                    micros(cpu) * (1.0 - system),
                    micros(cpu) * system,
                    micros(median(&side.wall)),
                    cpu.as_secs_f64() / streamed,
                    cpu.as_secs_f64() / json,
                );
            }
        }
        println!("\nRSS {} KiB", rss_kib());
    });
}

#[derive(Clone)]
enum Does {
    Raw { client: reqwest::Client, base: String, stream: bool },
    Zo(Zo),
}

impl Does {
    async fn run(&self, conversation: String) {
        let text = match self {
            Self::Raw { client, base, stream } => raw(client, base, *stream).await,
            Self::Zo(zo) => zo.ask(conversation, "What is 17 plus 23?").await.unwrap().text,
        };
        assert!(text.contains("40"), "{text}");
    }
}

struct Side {
    name: &'static str,
    does: Does,
    cpu: Vec<Duration>,
    wall: Vec<Duration>,
    /// Of all its rounds, user and system.
    ticks: (u64, u64),
}

impl Side {
    fn new(name: &'static str, does: Does) -> Self {
        Self { name, does, cpu: Vec::new(), wall: Vec::new(), ticks: (0, 0) }
    }

    async fn round(&mut self, name: &str, runs: usize, at_once: usize, counts: bool) {
        let (cpu_then, ticks_then, then) = (cpu(), cpu_ticks(), Instant::now());
        if at_once == 1 {
            for i in 0..runs {
                self.does.run(format!("{name}/{i}")).await;
            }
        } else {
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..at_once {
                let (does, name) = (self.does.clone(), name.to_owned());
                tasks.spawn(async move {
                    for i in (task..runs).step_by(at_once) {
                        does.run(format!("{name}/{i}")).await;
                    }
                });
            }
            tasks.join_all().await;
        }
        if counts {
            let runs = u32::try_from(runs).unwrap();
            self.wall.push(then.elapsed() / runs);
            self.cpu.push((cpu() - cpu_then) / runs);
            let ticks = cpu_ticks();
            self.ticks.0 += ticks.0 - ticks_then.0;
            self.ticks.1 += ticks.1 - ticks_then.1;
        }
    }

    fn cpu(&self) -> Duration {
        if self.cpu.is_empty() { Duration::ZERO } else { median(&self.cpu) }
    }
}

fn client() -> reqwest::Client {
    // The same TLS as zo's, though the mock speaks plain HTTP: without one no client can be built.
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap()
}

fn schema() -> Value {
    json!({"type": "object", "required": ["a", "b"],
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}})
}

async fn agent(base: &str, file: Option<std::path::PathBuf>, effect: Effect) -> Zo {
    let add = zo_testkit::tool("add", |_, call| async move {
        Ok((call.args["a"].as_i64().unwrap() + call.args["b"].as_i64().unwrap()).into())
    });
    let mut builder = Zo::builder()
        .provider(Remote::compatible("mock", base, None).default_model("mock"))
        .memory_tools(false)
        .recall_limit(0)
        .skill(add.schema(schema()).effect(effect));
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
