//! How long a run of a thousand steps that was interrupted takes to be back: from [`Zo::resume`] to its next request at the
//! provider, and the opening of its file before that. Once with the whole run in the request, once with its old part compacted,
//! as it is by default.
//!
//! `cargo run --release -p zo-benches --bin resume [steps]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::json;
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use zo_benches::{median, micros};
use zo_core::{Effect, Zo};
use zo_testkit::{Scripted, Turn, tool};

const TIMES: usize = 15;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let steps: usize = std::env::args().nth(1).map_or(1_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    for (name, whole) in [("whole", true), ("compacted", false)] {
        measure(&dir.path().join(name), name, steps, whole).await;
    }
}

/// A model that calls a tool `calls` times and then never answers; when and with how many messages it was asked last.
#[derive(Clone, Default)]
struct Model {
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<(Instant, usize)>>>,
}

impl Model {
    fn provider(&self, calls: usize) -> Scripted {
        let model = self.clone();
        Scripted::by_unrecorded(move |r| {
            *model.last.lock().unwrap() = Some((Instant::now(), r.messages.len()));
            let n = model.asked.fetch_add(1, Ordering::Relaxed);
            if n < calls { Turn::calls([("call", "look", json!({"at": n}))]) } else { Turn::Hang }
        })
    }

    async fn wait(&self, asked: usize) {
        while self.asked.load(Ordering::Relaxed) < asked {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn agent(file: &Path, model: Scripted, whole: bool) -> Zo {
    let look =
        tool(
            "look",
            |_, call| async move { Ok(format!("{}: {}", call.args["at"], "blue ".repeat(100)).into()) },
        );
    let mut builder = Zo::builder()
        .provider(model)
        .file(file)
        .max_steps(1_000_000)
        .summaries(false)
        .skill(look.effect(Effect::Pure));
    if whole {
        builder = builder.history_tokens(10_000_000).context_tokens(20_000_000);
    }
    builder.build().await.unwrap()
}

async fn measure(file: &Path, name: &str, steps: usize, whole: bool) {
    let model = Model::default();
    let zo = agent(file, model.provider(steps), whole).await;
    let start = Instant::now();
    {
        let run = zo.ask("c", "Look everywhere.");
        // Interrupted while it waits for the model, with a thousand steps behind it.
        tokio::select! {
            ended = run => panic!("{ended:?}"),
            () = model.wait(steps + 1) => {}
        }
    }
    println!("{name}: {steps} steps took {:.0} us each", micros(start.elapsed()) / steps as f64);
    let (mut opened, mut back) = (Vec::new(), Vec::new());
    let mut zo = Some(zo);
    for _ in 0..TIMES {
        zo.take().unwrap().store().unwrap().clone().close().await.unwrap();
        let model = Model::default();
        let start = Instant::now();
        let again = agent(file, model.provider(0), whole).await;
        opened.push(start.elapsed());
        let open = again.unfinished().unwrap();
        assert_eq!((open.len(), open[0].steps), (1, u32::try_from(steps).unwrap()));
        let start = Instant::now();
        let mut run = again.resume(&open[0].run);
        tokio::select! {
            _ = async { while run.next().await.is_some() {} } => panic!("it cannot end"),
            () = model.wait(1) => {}
        }
        let (asked, messages) = model.last.lock().unwrap().unwrap();
        back.push((asked - start, messages));
        drop(run);
        zo = Some(again);
    }
    println!(
        "  median of {TIMES}: opened in {:.2} ms; from resume to the request {:.2} ms ({} messages in it)",
        micros(median(&opened)) / 1e3,
        micros(median(&back).0) / 1e3,
        back[0].1,
    );
}
