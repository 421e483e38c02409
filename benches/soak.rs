//! Memory and file over very many turns: 64 conversations at the same time, a tool call a turn, with everything on (file,
//! journal, recall, tools). Each conversation makes room for a new one after 50 turns. Twice: old conversations stay, and the
//! file grows with what was said; or they are deleted, and it must stop growing.
//!
//! `cargo run --release -p zo-benches --bin soak [turns [keep|delete]]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::json;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use zo_benches::{cpu, micros, rss_kib, slope};
use zo_core::{Effect, Role, Zo};
use zo_testkit::{Scripted, Turn, tool};

/// Conversations at the same time.
const AT_ONCE: u64 = 64;
/// Turns of one conversation.
const TURNS: u64 = 50;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let turns: u64 = std::env::args().nth(1).map_or(100_000, |n| n.parse().unwrap());
    let only = std::env::args().nth(2);
    let dir = tempfile::tempdir().unwrap();
    for (name, delete) in [("keep", false), ("delete", true)] {
        if only.as_ref().is_none_or(|o| o == name) {
            soak(&dir.path().join(name), name, turns, delete).await;
        }
    }
}

async fn soak(file: &Path, name: &str, turns: u64, delete: bool) {
    let model = Scripted::by_unrecorded(|r| match r.messages.last() {
        Some(m) if m.role == Role::Tool => Turn::text("The tool said what it said."),
        _ => Turn::calls([("call", "look", json!({"at": "the sky"}))]),
    });
    let zo = Zo::builder()
        .provider(model)
        .file(file)
        .skill(tool("look", |_, _| async { Ok("blue".into()) }).effect(Effect::Pure))
        .build()
        .await
        .unwrap();
    println!("{name}: {turns} turns, {AT_ONCE} conversations at a time, a new one every {TURNS} turns");
    let (done, start, cpu_then) = (Arc::new(AtomicU64::new(0)), Instant::now(), cpu());
    let mut tasks = tokio::task::JoinSet::new();
    for slot in 0..AT_ONCE {
        let (zo, done) = (zo.clone(), done.clone());
        tasks.spawn(async move {
            for n in 0..turns / AT_ONCE {
                let conversation = format!("{slot}/{}", n / TURNS);
                zo.ask(&conversation, format!("Question number {n}?")).await.unwrap();
                if delete && n % TURNS == TURNS - 1 {
                    zo.delete_conversation(&conversation).await.unwrap();
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let all = turns / AT_ONCE * AT_ONCE;
    let (mut samples, mut last) = (Vec::new(), (Instant::now(), 0));
    for percent in 1..=100 {
        while done.load(Ordering::Relaxed) < all * percent / 100 && !tasks.is_empty() {
            tokio::select! {
                ended = tasks.join_next() => ended.unwrap().unwrap(),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        let (at, rss) = (done.load(Ordering::Relaxed), rss_kib());
        let size = std::fs::metadata(file).unwrap().len();
        samples.push((at as f64, rss as f64 * 1024.0, size as f64));
        if percent % 10 == 0 {
            println!(
                "{at:>9} turns  {rss:>7} KiB resident  {:>8.1} MiB of file  {:>6.0} turns/s",
                size as f64 / f64::from(1 << 20),
                (at - last.1) as f64 / last.0.elapsed().as_secs_f64()
            );
            last = (Instant::now(), at);
        }
    }
    // Caches have filled by the second half.
    let tail = &samples[samples.len() / 2..];
    let of =
        |pick: fn(&(f64, f64, f64)) -> f64| slope(&tail.iter().map(|s| (s.0, pick(s))).collect::<Vec<_>>());
    println!(
        "second half: {:+.2} bytes of RSS a turn, {:+.1} bytes of file a turn; {:.0} turns/s, {:.1} us CPU a turn\n",
        of(|s| s.1),
        of(|s| s.2),
        all as f64 / start.elapsed().as_secs_f64(),
        micros((cpu() - cpu_then) / u32::try_from(all).unwrap()),
    );
}
