//! Framework time of the agent loop, with a provider that answers at once: what zo itself costs; and with a durable journal,
//! what a round trip of a tool takes beside the syncs that it has to wait for.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redb::backends::FileBackend;
use serde_json::json;
use std::{
    fs::OpenOptions,
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use zo_benches::{median, micros, percentile, syncs};
use zo_core::{
    Effect, Role, Zo,
    store::{Options, StorageBackend, Store},
};
use zo_testkit::{Scripted, Turn, tool};

/// Tool round trips in one run.
const TRIPS: u64 = 16;

fn round_trips(c: &mut Criterion) {
    let mut group = c.benchmark_group("agent");
    let current = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let multi =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Asked from outside the runtime's workers, each tool is a hop to another thread and back.
    for (name, runtime, inside) in [
        ("current_thread", current(), false),
        ("multi_thread_in_a_task", multi(), true),
        ("multi_thread_from_outside", multi(), false),
    ] {
        let model = Scripted::by_unrecorded(|r| {
            // Other arguments each time, as equal ones would be a loop.
            match r.messages.iter().filter(|m| m.role == Role::Tool).count() as u64 {
                TRIPS => Turn::text("done"),
                n => Turn::calls([("call", "add", json!({"a": n, "b": 2}))]),
            }
        });
        let schema = json!({"type": "object", "required": ["a", "b"],
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}});
        let add = tool("add", |_, call| async move {
            Ok((call.args["a"].as_i64().unwrap() + call.args["b"].as_i64().unwrap()).into())
        });
        let zo = runtime.block_on(async {
            Zo::builder()
                .provider(model)
                .recall_limit(0)
                .memory_tools(false)
                .skill(add.schema(schema).effect(Effect::Pure))
                .build()
                .await
                .unwrap()
        });
        let mut n = 0u64;
        group.throughput(Throughput::Elements(TRIPS));
        group.bench_function(format!("tool_round_trip/{name}"), |b| {
            b.to_async(&runtime).iter(|| {
                n += 1;
                let (zo, conversation) = (zo.clone(), n.to_string());
                let work = async move {
                    zo.ask(&conversation, "go").await.unwrap();
                    zo.transcript().unwrap().delete(&zo_core::Cx::default(), &conversation).await.unwrap();
                };
                async move { if inside { tokio::spawn(work).await.unwrap() } else { work.await } }
            });
        });
    }
    group.finish();
}

/// Runs of [`TRIPS`] round trips in one measured pass, and passes.
const RUNS: usize = 40;
const PASSES: usize = 5;

/// When a sync began and ended.
type Syncs = Arc<Mutex<Vec<(Instant, Instant)>>>;

/// A file that remembers its syncs.
#[derive(Debug)]
struct Watched {
    file: FileBackend,
    syncs: Syncs,
}

impl Watched {
    fn create(path: &Path, syncs: &Syncs) -> Self {
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path).unwrap();
        Self { file: FileBackend::new(file).unwrap(), syncs: syncs.clone() }
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        let then = Instant::now();
        let done = self.file.sync_data();
        self.syncs.lock().unwrap().push((then, Instant::now()));
        done
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// One agent whose round trips are timed: from one question to the model to the next.
struct Timed {
    name: &'static str,
    zo: Zo,
    asked: Arc<Mutex<Vec<Instant>>>,
    syncs: Syncs,
    /// Syncs that a round trip has to wait for.
    waits: u32,
    trips: Vec<Duration>,
    /// The same less the time in which the disk was syncing, where it is waited for.
    beside: Vec<Duration>,
    synced: Vec<Duration>,
}

impl Timed {
    async fn new(name: &'static str, dir: Option<&Path>, effect: Effect, waits: u32) -> Self {
        let (asked, syncs) = (Arc::new(Mutex::new(Vec::new())), Syncs::default());
        let times = asked.clone();
        let counter = AtomicU64::new(0);
        let model = Scripted::by_unrecorded(move |_| {
            times.lock().unwrap().push(Instant::now());
            match counter.fetch_add(1, Ordering::Relaxed) % (TRIPS + 1) {
                TRIPS => Turn::text("done"),
                n => Turn::calls([("call", "add", json!({"a": n, "b": 2}))]),
            }
        });
        let add = tool("add", |_, call| async move {
            Ok((call.args["a"].as_i64().unwrap() + call.args["b"].as_i64().unwrap()).into())
        });
        let mut builder =
            Zo::builder().provider(model).recall_limit(0).memory_tools(false).skill(add.effect(effect));
        if let Some(dir) = dir {
            let file = Watched::create(&dir.join(name), &syncs);
            builder = builder.store(Store::open_with_backend(file, Options::default()).unwrap());
        }
        let zo = builder.build().await.unwrap();
        Self { name, zo, asked, syncs, waits, trips: Vec::new(), beside: Vec::new(), synced: Vec::new() }
    }

    async fn pass(&mut self, pass: usize) {
        self.syncs.lock().unwrap().clear();
        for run in 0..RUNS {
            self.asked.lock().unwrap().clear();
            let zo = self.zo.clone();
            tokio::spawn(async move { zo.ask(format!("{pass}/{run}"), "go").await.unwrap() }).await.unwrap();
            let asked = self.asked.lock().unwrap();
            let syncs = std::mem::take(&mut *self.syncs.lock().unwrap());
            for (from, to) in asked.windows(2).map(|w| (w[0], w[1])) {
                let within = |(began, ended): &(Instant, Instant)| {
                    (*ended).min(to).saturating_duration_since((*began).max(from))
                };
                let disk: Duration = syncs.iter().map(within).sum();
                self.trips.push(to - from);
                self.beside.push(if self.waits > 0 { (to - from).saturating_sub(disk) } else { to - from });
            }
            self.synced.extend(syncs.iter().map(|(began, ended)| *ended - *began));
        }
    }

    fn print(&self, device: Duration) {
        let sync = if self.synced.is_empty() { Duration::ZERO } else { median(&self.synced) };
        println!(
            "{:18} p50 {:7.1} us, p99 {:7.1}; less {} sync of its own: p50 {:6.1}, p99 {:7.1}; less {} of 4 KiB: {:7.1}; \
             {:.2} syncs a trip of {:.1} us",
            self.name,
            micros(median(&self.trips)),
            micros(percentile(&self.trips, 99)),
            self.waits,
            micros(median(&self.beside)),
            micros(percentile(&self.beside, 99)),
            self.waits,
            micros(median(&self.trips)) - f64::from(self.waits) * micros(device),
            self.synced.len() as f64 / self.trips.len() as f64,
            micros(sync),
        );
    }
}

fn durable(_: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let current = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let multi = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, runtime) in [("one thread", current), ("two threads", multi)] {
        let sub = dir.path().join(name);
        std::fs::create_dir(&sub).unwrap();
        runtime.block_on(async {
            let mut all = [
                Timed::new("no file", None, Effect::Pure, 0).await,
                Timed::new("file, Pure", Some(&sub), Effect::Pure, 0).await,
                Timed::new("file, Idempotent", Some(&sub), Effect::Idempotent, 1).await,
                Timed::new("file, AtMostOnce", Some(&sub), Effect::AtMostOnce, 1).await,
            ];
            let mut device = Vec::new();
            for pass in 0..PASSES {
                device.extend(syncs(&sub));
                for timed in &mut all {
                    timed.pass(pass).await;
                }
            }
            println!(
                "\ntool round trip, {name}; 4 KiB and fdatasync on this disk: p50 {:.1} us, p99 {:.1} us",
                micros(median(&device)),
                micros(percentile(&device, 99))
            );
            all.iter().for_each(|timed| timed.print(median(&device)));
        });
    }
}

criterion_group!(benches, round_trips, durable);
criterion_main!(benches);
