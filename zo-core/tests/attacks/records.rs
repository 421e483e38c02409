//! What is on record and in memory of runs: readable when it should be, gone when it should be, and in nobody's way.

use crate::common::{
    Events, Fed, calls_once, fill, hang, interrupted, left_in, look, over, poll_once, polled, reopened,
    results, slow_store, texts, until, whole, within, zo,
};
use serde_json::json;
use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use zo_core::{
    Ask, Cursor, Cx, Effect, Error, ErrorKind, Limits, Result, StreamEvent, ToolCall, ToolResult, ToolStatus,
    Zo,
    store::{Store, Table},
};
use zo_testkit::{Scripted, Turn, tool};

#[tokio::test]
async fn a_run_of_a_newer_version_is_kept_until_the_host_gives_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let make = || zo(calls_once("look"), dir.path());
    let first = make().skill(hang("look")).build().await.unwrap();
    let run = interrupted(&first, "c").await;
    drop(first);
    let store = Store::open(dir.path().join("z")).unwrap();
    let mut key = run.as_str().as_bytes().to_vec();
    key.extend_from_slice(&9_u32.to_be_bytes());
    let entries = Table::new("agent.run_entries");
    store.write(move |tx| tx.put(entries, &key, b"{\"entry\":\"hologram\"}")).await.unwrap();
    drop(store);
    let zo = reopened(make).await;
    assert!(left_in(&zo, "c")[0].damaged.is_some());
    // A question does not throw away what that version could go on with.
    assert_eq!(zo.ask("c", "hello?").await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(left_in(&zo, "c")[0].run, run);
    zo.abandon(&run).await.unwrap();
    assert!(zo.unfinished().unwrap().is_empty());
    assert_eq!(zo.ask("c", "hello?").await.unwrap().text, "ok");
}

#[tokio::test]
async fn a_deleted_conversation_leaves_no_ledger_of_an_interrupted_run() {
    let dir = tempfile::tempdir().unwrap();
    let zo = zo(calls_once("look"), dir.path()).limits(Limits::none().steps(5)).skill(hang("look"));
    let zo = zo.build().await.unwrap();
    interrupted(&zo, "c").await;
    assert!(!zo.ledgers().unwrap().is_empty());
    zo.delete_conversation("c").await.unwrap();
    assert!(zo.ledgers().unwrap().is_empty(), "{:?}", zo.ledgers());
    assert!(zo.unfinished().unwrap().is_empty());
}

#[tokio::test]
async fn a_dropped_question_costs_no_later_run_its_replay() {
    let (disk, store) = slow_store(1);
    let zo = over(&store, Scripted::by(|_| Turn::text("hi"))).await;
    disk.set_sync_time(Duration::from_millis(100));
    let one = fill(&store, 1, Duration::from_millis(30)).await;
    let two = fill(&store, 2, Duration::from_millis(10)).await;
    assert!(polled(zo.ask("c", "q"), 1).await.is_none());
    one.await.unwrap();
    two.await.unwrap();
    disk.set_sync_time(Duration::ZERO);
    let run = zo.ask("d", "again").await.unwrap().run;
    assert_eq!(zo.replay(&run).await.unwrap().reply.text, "hi");
}

#[tokio::test]
async fn a_tool_that_fails_like_one_that_waits_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let ran: Arc<AtomicU32> = Arc::default();
    let count = ran.clone();
    let odd = tool("odd", move |_, _| {
        count.fetch_add(1, SeqCst);
        async { Err(Error::new(ErrorKind::Other("waits_for_approval".into()), "test", "so it says")) }
    });
    let zo = zo(calls_once("odd"), dir.path()).skill(odd.effect(Effect::AtMostOnce)).build().await.unwrap();
    let reply = tokio::time::timeout(Duration::from_secs(2), zo.ask("c", "go")).await;
    assert_eq!(ran.load(SeqCst), 1, "{reply:?}");
    assert_eq!(reply.unwrap().unwrap().text, "ok");
}

fn panics(_: &mut Context<'_>) -> Poll<Option<Result<StreamEvent>>> {
    panic!("on purpose")
}

#[tokio::test]
async fn a_model_that_panics_costs_its_own_run_one_try() {
    let dir = tempfile::tempdir().unwrap();
    let model = Fed::new(|n| async move {
        match n {
            0 => whole(Turn::calls([("1", "look", json!({}))])),
            1 => Ok(Box::pin(futures_util::stream::poll_fn(panics)) as Events),
            _ => whole(Turn::text("fine")),
        }
    });
    let zo = zo(model, dir.path()).skill(look()).build().await.unwrap();
    let agent = zo.spawn(&Cx::new(""), Ask::new("c", "q")).await.unwrap();
    within(agent.reply()).await.unwrap_err();
    let left = left_in(&zo, "c");
    assert_eq!(left.len(), 1);
    assert_eq!(within(zo.resume(&left[0].run).reply()).await.unwrap().text, "fine");
    assert_eq!(within(zo.ask("c", "more")).await.unwrap().text, "fine");
}

#[tokio::test]
async fn an_outcome_that_was_taken_is_told_whatever_becomes_of_the_next_question() {
    let dir = tempfile::tempdir().unwrap();
    let zo = zo(calls_once("look"), dir.path()).skill(hang("look")).build().await.unwrap();
    for polls in (1..30).step_by(3) {
        for lead in 0..6 {
            let c = format!("c{polls}/{lead}");
            let run = interrupted(&zo, &c).await;
            let call = ToolCall::new("1", "look", json!({}));
            let mut supply = Box::pin(zo.supply(&run, ToolResult::new(&call, ToolStatus::Ok, "it happened")));
            let mut supplied = None;
            for _ in 0..lead {
                if supplied.is_none() {
                    supplied = poll_once(supply.as_mut()).await;
                    tokio::task::yield_now().await;
                }
            }
            let mut ask = Box::pin(zo.ask(&c, "later"));
            for i in 0..polls {
                if poll_once(ask.as_mut()).await.is_some() {
                    break;
                }
                if supplied.is_none() {
                    supplied = poll_once(supply.as_mut()).await;
                }
                if i % 3 == 0 {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
            drop(ask);
            let supplied = match supplied {
                Some(done) => done,
                None => within(supply).await,
            };
            within(zo.ask(&c, "later")).await.unwrap();
            let (history, told) = (texts(&zo, &c).await, results(&zo, &c).await);
            assert_eq!(history.iter().filter(|t| *t == "go").count(), 1, "{c}: {history:?}");
            assert_eq!(told.len(), 1, "{c}: {told:?}");
            assert!(supplied.is_err() || told == ["it happened"], "{c}: {told:?}");
        }
    }
}

#[tokio::test]
async fn spawned_runs_end_with_the_last_handle_and_free_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let beats: Arc<AtomicU32> = Arc::default();
    let count = beats.clone();
    let beat = tool("beat", move |_, _| {
        let count = count.clone();
        async move {
            loop {
                count.fetch_add(1, SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let zo = zo(calls_once("beat"), dir.path()).skill(beat).build().await.unwrap();
    let agent = zo.spawn(&Cx::new(""), Ask::new("c", "go")).await.unwrap();
    let events = agent.events(Cursor::start());
    until(|| beats.load(SeqCst) > 0).await;
    drop(zo);
    // Neither an agent nor one who looks on keeps it alive.
    within(async {
        loop {
            let before = beats.load(SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            if beats.load(SeqCst) == before {
                break;
            }
        }
    })
    .await;
    within(agent.reply()).await.unwrap_err();
    drop(events);
    until(|| Store::open(dir.path().join("z")).is_ok()).await;
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4
}

/// Runs so many that end or are dropped, each in a conversation of its own that is deleted.
async fn come_and_go(zo: &Zo, runs: std::ops::Range<u32>) {
    for k in runs {
        let c = format!("c{k}");
        let _ = polled(zo.ask(&c, "q"), 1 + k % 2).await;
        zo.delete_conversation(&c).await.unwrap();
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
#[ignore = "measured in a process of its own, by the test below"]
async fn growth() {
    let model = Scripted::by_unrecorded(|_| Turn::text("ok"));
    let zo = Zo::builder().provider(model).recall_limit(0).limits(Limits::none().steps(5));
    let zo = zo.build().await.unwrap();
    come_and_go(&zo, 0..2_000).await;
    let before = resident();
    come_and_go(&zo, 2_000..10_000).await;
    let after = resident();
    println!("{before} KiB, then {after} KiB");
    assert!(after < before + 600, "{before} KiB grew to {after} KiB over 8,000 runs");
}

#[test]
#[cfg(target_os = "linux")]
fn runs_that_come_and_go_leave_nothing_in_memory() {
    let alone = ["records::growth", "--exact", "--ignored", "--nocapture"];
    let out = Command::new(std::env::current_exe().unwrap()).args(alone).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    println!("{said}");
}
