//! What a model client costs over loopback: zo's provider beside a loop written by hand on reqwest and, with the feature
//! `peers`, beside genai and rig, which are given the same HTTP client. All sides run in turns in one process, on one thread;
//! the server is another process.
//!
//! `cargo run --release -p zo-benches [--features peers] --bin provider_cost [part [side [rounds]]]`; parts are `once`, `stream`, `turn`,
//! `first`, `many` and `held`, a side by itself is for profiling.
//!
//! Each ratio is the median of the ratios of the rounds: what else the machine does meets all sides of a round alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[cfg(feature = "peers")]
#[path = "provider_cost/peers.rs"]
mod peers;
#[path = "provider_cost/raw.rs"]
mod raw;
#[path = "provider_cost/zo.rs"]
mod zo;

use futures_util::StreamExt;
use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use zo_benches::{
    MockServer, Pace, cpu,
    heap::{self, Counting},
    median, micros, percentile, rss_kib,
};
use zo_core::{BoxStream, Result, StreamEvent, Zo};

const QUESTION: &str = "What is 17 plus 23?";
const SCHEMA: &str =
    r#"{"type":"object","required":["a","b"],"properties":{"a":{"type":"integer"},"b":{"type":"integer"}}}"#;

/// Streams at the same time.
const AT_ONCE: usize = 1_000;
/// Side and base URL for the process that measures its own memory.
const HELD: &str = "ZO_BENCH_HELD";

/// What the tool does.
fn add(a: i64, b: i64) -> String {
    (a + b).to_string()
}

/// What every side but zo's, which makes its own, sends with.
fn http_client() -> reqwest::Client {
    // The same TLS as zo's, though the mock speaks plain HTTP: without one no client can be built.
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

enum Client {
    Raw(raw::Raw),
    Zo(Box<zo::Model>),
    Agent(Zo, AtomicUsize),
    #[cfg(feature = "peers")]
    Genai(Box<peers::Genai>),
    #[cfg(feature = "peers")]
    Rig(Box<peers::Rig>),
    #[cfg(feature = "peers")]
    RigAgent(Box<rig::Agent>),
}

/// An answer that is being read.
enum Opened {
    Raw(Box<raw::Reading>),
    Zo(BoxStream<Result<StreamEvent>>),
    #[cfg(feature = "peers")]
    Genai(Box<genai::chat::ChatStream>),
    #[cfg(feature = "peers")]
    Rig(Box<rig::streaming::CompletionStream>),
}

/// The clients, by the places that they have in every table.
#[cfg(not(feature = "peers"))]
const CLIENTS: [&str; 2] = ["raw reqwest", "zo"];
#[cfg(feature = "peers")]
const CLIENTS: [&str; 4] = ["raw reqwest", "zo", "genai", "rig"];

fn client(place: usize, base: &str) -> Client {
    match place {
        0 => Client::Raw(raw::Raw::new(base)),
        1 => Client::Zo(Box::new(zo::Model::new(base))),
        #[cfg(feature = "peers")]
        2 => Client::Genai(Box::new(peers::Genai::new(base))),
        #[cfg(feature = "peers")]
        3 => Client::Rig(Box::new(peers::Rig::new(base))),
        _ => panic!("no such side"),
    }
}

impl Client {
    async fn once(&self) {
        let text = match self {
            Self::Raw(raw) => raw.once().await,
            Self::Zo(zo) => zo.once().await,
            #[cfg(feature = "peers")]
            Self::Genai(genai) => genai.once().await,
            #[cfg(feature = "peers")]
            Self::Rig(rig) => rig.once().await,
            _ => panic!("an agent"),
        };
        assert_eq!(text, "The sum of 17 and 23 is 40.");
    }

    async fn open(&self) -> Opened {
        match self {
            Self::Raw(raw) => Opened::Raw(Box::new(raw.open().await)),
            Self::Zo(zo) => Opened::Zo(zo.open().await),
            #[cfg(feature = "peers")]
            Self::Genai(genai) => Opened::Genai(Box::new(genai.open().await)),
            #[cfg(feature = "peers")]
            Self::Rig(rig) => Opened::Rig(Box::new(rig.open())),
            _ => panic!("an agent"),
        }
    }

    async fn stream(&self, chunks: usize) {
        let (mut opened, mut text) = (self.open().await, String::new());
        while opened.more(&mut text).await {}
        check(&text, chunks);
    }

    async fn turn(&self, stream: bool, chunks: usize) {
        let text = match self {
            Self::Raw(raw) => raw.turn(stream).await,
            Self::Zo(zo) => zo.turn(stream).await,
            Self::Agent(zo, runs) => {
                zo::run(zo, runs.fetch_add(1, Ordering::Relaxed).to_string(), stream).await
            }
            #[cfg(feature = "peers")]
            Self::Genai(genai) => genai.turn(stream).await,
            #[cfg(feature = "peers")]
            Self::Rig(rig) => rig.turn(stream).await,
            #[cfg(feature = "peers")]
            Self::RigAgent(agent) => peers::rig_run(agent, stream).await,
        };
        if stream { check(&text, chunks) } else { assert_eq!(text, "The sum of 17 and 23 is 40.") }
    }
}

/// The text of a scripted stream is numbers from 40 on.
fn check(text: &str, chunks: usize) {
    assert!(text.ends_with(&format!(" {}", 39 + chunks)) && text.starts_with(" 40"), "{text}");
    assert_eq!(text.split(' ').count(), chunks + 1);
}

impl Opened {
    /// Appends what comes next to `text`; false at the end.
    async fn more(&mut self, text: &mut String) -> bool {
        match self {
            Self::Raw(reading) => reading.more(text).await,
            Self::Zo(events) => {
                while let Some(event) = events.next().await {
                    if let StreamEvent::Delta { text: words, .. } = event.unwrap() {
                        text.push_str(&words);
                        return true;
                    }
                }
                false
            }
            #[cfg(feature = "peers")]
            Self::Genai(stream) => peers::genai_more(stream, text).await,
            #[cfg(feature = "peers")]
            Self::Rig(stream) => peers::rig_more(stream, text).await,
        }
    }
}

struct Side {
    name: &'static str,
    client: Client,
    /// Of each round.
    took: Vec<Duration>,
}

/// What to leave out.
struct Only {
    part: Option<String>,
    side: Option<String>,
    rounds: usize,
}

impl Only {
    fn part(&self, name: &str) -> bool {
        self.part.as_ref().is_none_or(|p| p == name)
    }

    fn side(&self, name: &str) -> bool {
        self.side.as_ref().is_none_or(|s| s == name)
    }

    fn clients(&self, base: &str) -> Vec<Side> {
        let all = CLIENTS.iter().enumerate().filter(|(_, name)| self.side(name));
        all.map(|(at, name)| Side { name, client: client(at, base), took: Vec::new() }).collect()
    }

    async fn with_agents(&self, base: &str) -> Vec<Side> {
        let mut sides = self.clients(base);
        let mut also = |name, client| {
            if self.side(name) {
                sides.push(Side { name, client, took: Vec::new() });
            }
        };
        also("zo, its agent", Client::Agent(zo::agent(base).await, AtomicUsize::new(0)));
        #[cfg(feature = "peers")]
        also("rig, its agent", Client::RigAgent(Box::new(peers::rig_agent(base))));
        sides
    }
}

/// CPU of one `work`, by rounds in which the sides take turns. The first round warms up.
async fn measure(rounds: usize, sides: &mut [Side], per_round: usize, work: impl AsyncFn(usize, &Client)) {
    for round in 0..=rounds {
        for (at, side) in sides.iter_mut().enumerate() {
            // What the side before left in the caches is not this one's.
            for _ in 0..per_round.div_ceil(10) {
                work(at, &side.client).await;
            }
            let then = cpu();
            for _ in 0..per_round {
                work(at, &side.client).await;
            }
            if round > 0 {
                side.took.push((cpu() - then) / u32::try_from(per_round).unwrap());
            }
        }
    }
}

/// Median of `side`, and of its ratio to the first side, round by round.
fn beside(first: &[Duration], side: &[Duration]) -> (f64, f64) {
    let ratios = side.iter().zip(first).map(|(s, f)| (s.as_secs_f64() / f.as_secs_f64() * 1e4) as u64);
    (micros(median(side)), median(&ratios.collect::<Vec<_>>()) as f64 / 1e4)
}

fn show(sides: &[Side]) {
    for side in sides {
        let (us, ratio) = beside(&sides[0].took, &side.took);
        println!("{:16} {us:9.2} us CPU  {ratio:5.2} x raw", side.name);
    }
}

fn main() {
    if let Ok(held) = std::env::var(HELD) {
        return hold(&held);
    }
    let server = MockServer::start();
    let mut args = std::env::args().skip(1);
    let only = Only {
        part: args.next().filter(|p| p != "all"),
        side: args.next().filter(|s| s != "all"),
        rounds: args.next().map_or(45, |n| n.parse().unwrap()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let base = format!("http://{}/v1", server.addr);
        if only.part("once") {
            println!("one-shot, one connection");
            let mut sides = only.clients(&server.scripted(0, Pace::Whole));
            measure(only.rounds, &mut sides, 300, async |_, client| client.once().await).await;
            show(&sides);
        }
        if only.part("stream") {
            streams(&server, &only).await;
        }
        if only.part("turn") {
            println!("\nagent turn: 2 model calls and a tool, not streamed");
            let mut sides = only.with_agents(&base).await;
            measure(only.rounds, &mut sides, 150, async |_, client| client.turn(false, 0).await).await;
            show(&sides);
            println!("\nagent turn, streamed: a tool call in 5 chunks, then 50 chunks of text");
            let mut sides = only.with_agents(&server.scripted(50, Pace::Each)).await;
            measure(only.rounds, &mut sides, 100, async |_, client| client.turn(true, 50).await).await;
            show(&sides);
            println!("\nagent turn, streamed, all chunks of an answer at once");
            let mut sides = only.with_agents(&server.scripted(50, Pace::Whole)).await;
            measure(only.rounds, &mut sides, 100, async |_, client| client.turn(true, 50).await).await;
            show(&sides);
        }
        if only.part("first") {
            first(&server, &only).await;
        }
        if only.part("many") {
            many(&server, &only).await;
        }
        if only.part("held") {
            held(&server, &only);
        }
    });
}

async fn streams(server: &MockServer, only: &Only) {
    for (how, pace, per_round) in [
        ("written at once", Pace::Whole, 50),
        ("each chunk written by itself, one after the other", Pace::Each, 50),
        ("each chunk written by itself, a pause after each", Pace::Paused(Duration::from_micros(20)), 1),
    ] {
        println!("\nstream, {how}");
        let mut short = only.clients(&server.scripted(50, pace));
        let clients = short.len();
        short.extend(only.clients(&server.scripted(200, pace)));
        measure(only.rounds, &mut short, per_round, async |at, client| {
            client.stream(if at < clients { 50 } else { 200 }).await
        })
        .await;
        let long = short.split_off(clients);
        let slopes = |at: usize| -> Vec<Duration> {
            let pairs = long[at].took.iter().zip(&short[at].took);
            pairs.map(|(l, s)| l.saturating_sub(*s) / 150).collect()
        };
        for at in 0..long.len() {
            let (us, ratio) = beside(&long[0].took, &long[at].took);
            let (us_short, ratio_short) = beside(&short[0].took, &short[at].took);
            let chunk = slopes(at);
            println!(
                "{:16} 200 chunks {us:8.1} us CPU {ratio:5.2} x raw   50 chunks {us_short:7.1} us {ratio_short:5.2} x   a chunk {:6.3} us {:5.2} x",
                long[at].name,
                micros(median(&chunk)),
                median(&chunk).as_secs_f64() / median(&slopes(0)).as_secs_f64(),
            );
        }
    }
}

/// Time from the call to the first text, the sides in turns call by call.
async fn first(server: &MockServer, only: &Only) {
    println!("\nfirst text on a warm connection, us of wall time");
    let mut sides = only.clients(&server.scripted(4, Pace::Each));
    for _ in 0..100 * only.rounds {
        for side in &mut sides {
            let (then, mut text) = (Instant::now(), String::new());
            let mut opened = side.client.open().await;
            while text.is_empty() && opened.more(&mut text).await {}
            side.took.push(then.elapsed());
            while opened.more(&mut text).await {}
        }
    }
    for side in &sides {
        let of = |p| micros(percentile(&side.took, p));
        let over = |p| of(p) - micros(percentile(&sides[0].took, p));
        println!(
            "{:16} p50 {:6.1} p90 {:6.1}; over raw p50 {:+6.1} p90 {:+6.1}",
            side.name,
            of(50),
            of(90),
            over(50),
            over(90)
        );
    }
}

/// Opens so many streams and reads each for so many chunks of text.
async fn open_all(client: &Client, streams: usize, until: usize) -> Vec<Opened> {
    let mut all = Vec::with_capacity(streams);
    let mut text = String::new();
    for _ in 0..streams {
        let mut opened = client.open().await;
        text.clear();
        while text.split(' ').count() <= until && opened.more(&mut text).await {}
        all.push(opened);
    }
    all
}

async fn many(server: &MockServer, only: &Only) {
    println!("\n{AT_ONCE} streams of 50 chunks at once, the server pausing after each chunk");
    let base = server.scripted(50, Pace::Paused(Duration::from_millis(2)));
    let mut sides = Vec::new();
    for (at, name) in CLIENTS.iter().enumerate().filter(|(_, name)| only.side(name)) {
        let client = Arc::new(client(at, &base));
        // A connection for each stream, one after the other: a thousand at once are more than a listener's queue takes.
        for mut opened in open_all(&client, AT_ONCE, 1).await {
            while opened.more(&mut String::new()).await {}
        }
        sides.push((name, client, Vec::<Duration>::new(), Vec::<Duration>::new()));
    }
    for round in 0..=only.rounds.div_ceil(9) {
        for (_, client, walls, cpus) in &mut sides {
            let (cpu_then, then) = (cpu(), Instant::now());
            for _ in 0..3 {
                all_at_once(client).await;
            }
            let (cpu, wall) = (cpu() - cpu_then, then.elapsed());
            if round > 0 {
                let n = u32::try_from(3 * AT_ONCE).unwrap();
                walls.push(wall / n);
                cpus.push(cpu / n);
            }
        }
    }
    for (name, _, wall, cpu) in &sides {
        let (wall_us, wall_ratio) = beside(&sides[0].2, wall);
        let (cpu_us, cpu_ratio) = beside(&sides[0].3, cpu);
        println!(
            "{name:16} {:6.0} streams/s {:5.2} x raw   {cpu_us:7.1} us CPU a stream {cpu_ratio:5.2} x raw",
            1e6 / wall_us,
            1.0 / wall_ratio
        );
    }
}

async fn all_at_once(client: &Arc<Client>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let client = client.clone();
        tasks.spawn(async move { client.stream(50).await });
    }
    tasks.join_all().await;
}

/// Memory with many streams open in the middle of their answers, each side in a process of its own.
fn held(server: &MockServer, only: &Only) {
    println!("\n{AT_ONCE} streams held open after 25 chunks, bytes a stream");
    let base = server.scripted(25, Pace::Held);
    let mut raw = None;
    for (at, name) in CLIENTS.iter().enumerate().filter(|(_, name)| only.side(name)) {
        let me = std::env::current_exe().unwrap();
        let out = Command::new(me).env(HELD, format!("{at} {base}")).output().unwrap();
        let out = String::from_utf8(out.stdout).unwrap();
        let mut words = out.split_whitespace().map(|w| w.parse::<i64>().unwrap());
        let (heap, rss) = (words.next().unwrap(), words.next().unwrap());
        let (raw_heap, raw_rss) = *raw.get_or_insert((heap, rss));
        println!(
            "{name:16} heap {heap:6} ({:+6} over raw), resident {rss:6} ({:+6} over raw)",
            heap - raw_heap,
            rss - raw_rss
        );
        let blocks: Vec<(i64, i64)> = words.clone().step_by(2).zip(words.skip(1).step_by(2)).collect();
        let blocks: Vec<String> = blocks.iter().map(|(n, size)| format!("{n} x {size}")).collect();
        println!("{:16} blocks a stream: {}", "", blocks.join(", "));
    }
}

fn hold(held: &str) {
    heap::count_from_now();
    let (place, base) = held.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = client(place.parse().unwrap(), base);
        // What is there once is not the streams'.
        let warm = open_all(&client, 50, 25).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let sizes = heap::blocks();
        let (bytes, rss) = (heap::live(), rss_kib());
        let all = open_all(&client, AT_ONCE, 25).await;
        // Every connection at its rest.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let n = AT_ONCE as i64;
        let now = (heap::live(), rss_kib());
        print!("{} {}", (now.0 - bytes) / n, (now.1 - rss) as i64 * 1024 / n);
        let mut blocks: Vec<(i64, usize)> = heap::grown(&sizes)
            .into_iter()
            .map(|(count, size)| ((count + n / 2) / n, size))
            .filter(|(count, _)| *count > 0)
            .collect();
        blocks.sort_by_key(|(count, size)| -(count * *size as i64));
        for (count, size) in blocks.iter().take(10) {
            print!(" {count} {size}");
        }
        drop((all, warm));
    });
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
