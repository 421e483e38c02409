//! Many agents in one process: what each of ten thousand holds while it waits for its model, and how fast ten thousand short
//! ones are done.
//!
//! `cargo run --release -p zo-benches --bin agents_memory [agents]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use zo_benches::{
    cpu,
    heap::{self, Counting},
    micros, rss_kib,
};
use zo_core::{Ask, Cx, Effect, Zo};
use zo_testkit::{Scripted, Turn, tool};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is alive: bytes of heap, and KiB resident.
fn alive() -> (i64, i64) {
    (heap::live(), i64::try_from(rss_kib()).unwrap())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    heap::count_from_now();
    let agents: usize = std::env::args().nth(1).map_or(10_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| Some(dir.path().join(name));
    println!("{agents} agents, each with its question asked and no answer yet:");
    idle("no file, all at the model", agents, None, agents).await;
    idle("no file, 64 at the model, the others in line", agents, None, 64).await;
    idle("file, all at the model", agents, file("idle"), agents).await;
    println!("{agents} short agents, 1,000 at once:");
    for (name, file, models) in [
        ("no file, 64 model calls at once", None, 64),
        ("no file, 1,000 model calls at once", None, 1_000),
        ("file, 64 model calls at once", file("short-64"), 64),
        ("file, 1,000 model calls at once", file("short-1000"), 1_000),
    ] {
        short(name, agents, file, models).await;
    }
}

async fn agent(file: Option<std::path::PathBuf>, models: usize, model: Scripted) -> Zo {
    let look = tool("look", |_, _| async { Ok("blue".into()) }).effect(Effect::Pure);
    let mut builder = Zo::builder().provider(model).max_parallel_models(models).skill(look);
    if let Some(file) = file {
        builder = builder.file(file);
    }
    builder.build().await.unwrap()
}

async fn idle(name: &str, agents: usize, file: Option<std::path::PathBuf>, models: usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = asked.clone();
    let model = Scripted::by_unrecorded(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        Turn::Hang
    });
    let zo = agent(file, models, model).await;
    let cx = Cx::new("");
    let ask = |i: usize| Ask::new(format!("conversation/{i}"), "What is the colour of the sky today?");
    // What is there once, such as caches and tables, is not the agents'.
    let mut all = Vec::with_capacity(agents + 100);
    for i in 0..100 {
        all.push(zo.spawn(&cx, ask(i)).await.unwrap());
    }
    settle(&zo).await;
    let sizes = heap::blocks();
    let ((bytes, rss), start) = (alive(), Instant::now());
    for i in 0..agents {
        all.push(zo.spawn(&cx, ask(100 + i)).await.unwrap());
    }
    settle(&zo).await;
    assert!(asked.load(Ordering::Relaxed) >= models.min(agents), "all wait for the model");
    let (took, now) = (start.elapsed(), alive());
    println!(
        "  {name}: {:.0} bytes of heap an agent, {:.0} bytes resident; started in {:.1} us each",
        (now.0 - bytes) as f64 / agents as f64,
        (now.1 - rss) as f64 * 1024.0 / agents as f64,
        micros(took) / agents as f64,
    );
    let mut parts = heap::grown(&sizes);
    parts.retain(|(n, _)| *n * 2 > agents as i64);
    parts.sort_by_key(|(n, size)| -(*n * *size as i64));
    let shown: Vec<String> =
        parts.iter().take(12).map(|(n, size)| format!("{:.1} x {size}", *n as f64 / agents as f64)).collect();
    println!("    largest blocks an agent: {}", shown.join(", "));
    drop((all, zo));
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Lets every task come to its rest and every write to the disk.
async fn settle(zo: &Zo) {
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if let Some(store) = zo.store() {
            store.write(|_| Ok(())).await.unwrap();
        }
    }
}

async fn short(name: &str, agents: usize, file: Option<std::path::PathBuf>, models: usize) {
    let zo = agent(file, models, Scripted::by_unrecorded(|_| Turn::text("Blue."))).await;
    let ask = |i: usize| Ask::new(format!("conversation/{i}"), "What is the colour of the sky today?");
    let (start, cpu_then) = (Instant::now(), cpu());
    let mut runs = zo.spawn_all(&Cx::new(""), (0..agents).map(ask), 1_000);
    while let Some((_, reply)) = runs.next().await {
        assert_eq!(reply.unwrap().text, "Blue.");
    }
    let n = u32::try_from(agents).unwrap();
    println!(
        "  {name}: {:.0} agents a second, {:.1} us of CPU each",
        agents as f64 / start.elapsed().as_secs_f64(),
        micros((cpu() - cpu_then) / n),
    );
}
