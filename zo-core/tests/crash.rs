//! Kills an agent with SIGKILL at random moments, again and again over one file, and checks that nothing it acknowledged is
//! lost, that no tool which must not run twice did, and that every interrupted run can be continued.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "memory")]

use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};
use zo_core::{Effect, Message, Role, RunEvent, RunStream, ToolStatus, Zo};
use zo_testkit::{RawTool, Scripted, Turn, kill::Victim, tool};

const ROUNDS: u32 = 200;
const CONVERSATIONS: u32 = 3;

/// Two rounds of tools, then an answer that names the question.
fn model() -> Scripted {
    Scripted::by_unrecorded(|r| {
        let asked = r.messages.iter().rposition(|m| m.role == Role::User).unwrap();
        let question = r.messages[asked].to_text();
        match r.messages[asked..].iter().filter(|m| m.role == Role::Tool).count() {
            0 => Turn::calls([("p", "pay", json!({})), ("n", "note", json!({}))]),
            1 => Turn::calls([("p", "pay", json!({}))]),
            _ => Turn::text(&format!("answer to {question}")),
        }
    })
}

/// A tool whose effect in the world is a line with its idempotency key.
fn writes_to(name: &str, file: PathBuf, effect: Effect) -> RawTool {
    let body = move |cx: zo_core::Cx, _| {
        let file = file.clone();
        async move {
            let key = cx.idempotency_key().unwrap().to_owned();
            let mut out = OpenOptions::new().create(true).append(true).open(&file).unwrap();
            out.write_all(format!("{key}\n").as_bytes()).unwrap();
            tokio::time::sleep(Duration::from_micros(300)).await;
            Ok(format!("receipt {key}").into())
        }
    };
    tool(name, body).effect(effect)
}

async fn open(dir: &Path) -> Zo {
    Zo::builder()
        .provider(model())
        .file(dir.join("bot.zo"))
        .recall_limit(0)
        .keep_runs(1_000_000)
        .skill(writes_to("pay", dir.join("paid"), Effect::AtMostOnce))
        .skill(writes_to("note", dir.join("noted"), Effect::Idempotent))
        .build()
        .await
        .unwrap()
}

/// Follows a run and says aloud what the host has seen: from then on it must not be lost.
async fn follow(mut stream: RunStream, what: &str) {
    let mut run = String::new();
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            RunEvent::Started(id) => {
                run = id.to_string();
                println!("started {run} {what}");
            }
            RunEvent::ToolFinished { result, .. } if result.status == ToolStatus::Ok => {
                println!("did {}", result.content.trim_start_matches("receipt "));
            }
            RunEvent::Done(_) => println!("done {run} {what}"),
            _ => {}
        }
    }
}

/// The life of the child: continue what was interrupted, then ask on and on until killed.
#[test]
fn crash_child() {
    let Ok(dir) = std::env::var("ZO_CRASH_DIR") else { return };
    let first: u32 = std::env::var("ZO_CRASH_FIRST").unwrap().parse().unwrap();
    let dir = PathBuf::from(dir);
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(
        async {
            let zo = open(&dir).await;
            for run in zo.unfinished().unwrap() {
                follow(zo.resume(&run.run), "resumed").await;
            }
            let mut tasks = tokio::task::JoinSet::new();
            for c in 0..CONVERSATIONS {
                let zo = zo.clone();
                tasks.spawn(async move {
                    for i in 0.. {
                        let question = format!("q{}", first + i * CONVERSATIONS + c);
                        follow(zo.stream(format!("c{c}"), &question), &question).await;
                    }
                });
            }
            tasks.join_all().await;
        },
    );
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn assert_none_twice(path: &Path) {
    let mut seen = HashSet::new();
    for key in lines(path) {
        assert!(seen.insert(key.clone()), "{key} ran twice");
    }
}

fn assert_valid(history: &[Message]) {
    for (i, message) in history.iter().enumerate() {
        let calls: Vec<_> = message.tool_calls().map(|c| &c.id).collect();
        if !calls.is_empty() {
            let results: Vec<_> = history[i + 1].results().map(|r| &r.id).collect();
            assert_eq!(calls, results, "a call without its result");
        }
    }
}

#[test]
fn crash_200_kills_lose_nothing_and_repeat_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    println!("seed {chance}");
    let mut started: HashMap<String, String> = HashMap::new();
    let mut done: HashSet<String> = HashSet::new();
    let mut did: HashSet<String> = HashSet::new();
    let mut unfinished_seen = 0;
    for round in 0..ROUNDS {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let env = [
            ("ZO_CRASH_DIR", dir.path().display().to_string()),
            ("ZO_CRASH_FIRST", (round * 10_000).to_string()),
        ];
        let victim = Victim::respawn("crash_child", &env);
        for line in victim.kill_after(Duration::from_micros(5_000 + chance % 45_000)) {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["started", run, what] if *what != "resumed" => {
                    drop(started.insert((*run).into(), (*what).into()))
                }
                ["done", run, _] => drop(done.insert((*run).into())),
                ["did", key] => drop(did.insert((*key).into())),
                _ => {}
            }
        }
        assert_none_twice(&dir.path().join("paid"));
        if round % 10 == 9 {
            runtime.block_on(async {
                let zo = open(dir.path()).await;
                let open: HashSet<String> =
                    zo.unfinished().unwrap().iter().map(|u| u.run.to_string()).collect();
                unfinished_seen += open.len();
                assert!(done.is_disjoint(&open), "a finished run is listed as unfinished");
            });
        }
    }
    assert!(done.len() > ROUNDS as usize / 4, "too few runs ended to mean anything: {}", done.len());
    assert!(unfinished_seen > 0, "no kill ever hit a run");

    // Continue all that is left, here, and look at the whole.
    runtime.block_on(async {
        let zo = open(dir.path()).await;
        for run in zo.unfinished().unwrap() {
            zo.resume(&run.run).reply().await.unwrap();
        }
        assert!(zo.unfinished().unwrap().is_empty());
        let mut texts = HashMap::new();
        let mut receipts = HashSet::new();
        let mut unknown = 0;
        for c in 0..CONVERSATIONS {
            let history = zo.history(&format!("c{c}")).await.unwrap();
            assert_valid(&history);
            for m in &history {
                if matches!(m.role, Role::User | Role::Assistant) {
                    *texts.entry(m.to_text()).or_insert(0) += 1;
                }
                for r in m.results() {
                    match r.status {
                        ToolStatus::Ok => drop(receipts.insert(r.content.trim_start_matches("receipt ").to_owned())),
                        ToolStatus::Unknown => unknown += 1,
                        // Every call was begun or is run when its run is continued.
                        _ => panic!("{r:?} tells less than is known"),
                    }
                }
            }
        }
        for (run, question) in &started {
            assert_eq!(texts.get(question), Some(&1), "run {run}: the question {question} is lost or doubled");
        }
        for run in &done {
            let Some(question) = started.get(run) else { continue };
            assert_eq!(texts.get(&format!("answer to {question}")), Some(&1), "run {run} was done, its answer is not there");
        }
        for key in &did {
            assert!(receipts.contains(key), "the result of {key} was seen and is lost");
        }
        println!(
            "{} runs begun, {} seen to end, {} tool results seen, {unknown} outcomes unknown, {} payments, none twice",
            started.len(),
            done.len(),
            did.len(),
            lines(&dir.path().join("paid")).len()
        );
        assert!(unknown > 0, "no kill ever hit a payment in flight: the test shows nothing");
    });
    assert_none_twice(&dir.path().join("paid"));
}
