//! Resident memory over many turns: in one process, with everything on (file, journal, memory, tools).
//!
//! `cargo run --release -p zo-benches --bin rss_slope [turns]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::json;
use zo_benches::{rss_kib, slope};
use zo_core::{Effect, Role, Zo};
use zo_testkit::{Scripted, Turn, tool};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let turns: u64 = std::env::args().nth(1).map_or(100_000, |n| n.parse().unwrap());
    let model = Scripted::by_unrecorded(|r| match r.messages.last() {
        Some(m) if m.role == Role::Tool => Turn::text("The tool said what it said."),
        _ => Turn::calls([("call", "look", json!({"at": "the sky"}))]),
    });
    let dir = tempfile::tempdir().unwrap();
    let zo = Zo::builder()
        .provider(model)
        .file(dir.path().join("slope.zo"))
        .history_tokens(2_000)
        .skill(tool("look", |_, _| async { Ok("blue".into()) }).effect(Effect::Pure))
        .build()
        .await
        .unwrap();
    let mut samples = Vec::new();
    for turn in 0..turns {
        // A hundred users whose conversations all grow.
        zo.ask(format!("user-{}", turn % 100), format!("Question number {turn}?")).await.unwrap();
        if (turn + 1) % (turns / 20).max(1) == 0 {
            samples.push((turn + 1, rss_kib()));
            println!("{:>8} turns  {:>7} KiB", turn + 1, rss_kib());
        }
    }
    // Caches have filled by the second half.
    let tail: Vec<(f64, f64)> =
        samples[samples.len() / 2..].iter().map(|s| (s.0 as f64, s.1 as f64)).collect();
    println!("slope over the second half: {:.2} bytes a turn", slope(&tail) * 1024.0);
}
