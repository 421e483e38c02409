//! Interrupted runs: what is known of them, how they go on, and what is never done twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "memory")]

use serde_json::json;
use std::{
    path::Path,
    sync::{Arc, Mutex},
};
use zo_core::{
    Cx, Effect, Error, ErrorKind, Message, RunEvent, RunId, ToolOutput, ToolStatus, Unfinished, Zo, ZoBuilder,
};
use zo_testkit::{RawTool, Scripted, Turn, tool};

type Log = Arc<Mutex<Vec<String>>>;

fn zo(model: &Scripted, dir: &Path) -> ZoBuilder {
    Zo::builder().provider(model.clone()).file(dir.join("z")).recall_limit(0)
}

/// Notes its key and then hangs or returns.
fn noting(name: &str, log: &Log, effect: Effect, hang: bool) -> RawTool {
    let log = log.clone();
    tool(name, move |cx: Cx, call| {
        log.lock().unwrap().push(format!("{} {}", call.name, cx.idempotency_key().unwrap()));
        async move {
            if hang {
                std::future::pending::<()>().await;
            }
            Ok(ToolOutput::text("fine"))
        }
    })
    .effect(effect)
}

/// Lets a run go on until `n` tools are noted, then drops it and its agent: what a crash leaves, in one process.
async fn interrupt(zo: Zo, log: &Log, n: usize) -> RunId {
    let mut stream = zo.stream("c", "go");
    let mut run = None;
    while run.is_none() || log.lock().unwrap().len() < n {
        tokio::select! {
            event = stream.next() => if let RunEvent::Started(id) = event.unwrap().unwrap() {
                run = Some(id);
            },
            () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
        }
    }
    run.unwrap()
}

fn one(zo: &Zo) -> Unfinished {
    let mut all = zo.unfinished().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[tokio::test]
async fn a_resumed_run_repeats_what_it_may_and_reports_what_it_may_not() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let tools = |b: ZoBuilder, hang| {
        b.skill(noting("mail", &log, Effect::AtMostOnce, hang))
            .skill(noting("put", &log, Effect::Idempotent, hang))
            .skill(noting("look", &log, Effect::Pure, hang))
    };
    let model = Scripted::new([Turn::calls([
        ("1", "mail", json!({})),
        ("2", "put", json!({})),
        ("3", "look", json!({})),
    ])]);
    let run = interrupt(tools(zo(&model, dir.path()), true).build().await.unwrap(), &log, 3).await;
    let before: Vec<String> = std::mem::take(&mut *log.lock().unwrap());

    let model = Scripted::new([Turn::text("all clear")]);
    let zo = tools(zo(&model, dir.path()), false).build().await.unwrap();
    let left = one(&zo);
    assert_eq!(
        (left.run.clone(), left.conversation.as_str(), left.input.as_str(), left.steps),
        (run, "c", "go", 1)
    );
    assert_eq!(left.unknown.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["mail"]);

    let reply = zo.resume(&left.run).reply().await.unwrap();
    assert_eq!((reply.text.as_str(), reply.steps), ("all clear", 2));
    assert_eq!(model.asked().len(), 1, "the first answer was not asked for again");
    let results: Vec<_> = reply.messages.iter().flat_map(Message::results).collect();
    assert_eq!(
        results.iter().map(|r| (r.id.as_str(), r.status.clone())).collect::<Vec<_>>(),
        [("1", ToolStatus::Unknown), ("2", ToolStatus::Ok), ("3", ToolStatus::Ok)]
    );
    assert!(results[0].content.contains("outcome unknown"));
    let mut again = log.lock().unwrap().clone();
    again.sort();
    let mut expected: Vec<_> = before.into_iter().filter(|l| !l.starts_with("mail")).collect();
    expected.sort();
    assert_eq!(again, expected, "what ran again ran under the same key");
    assert!(zo.unfinished().unwrap().is_empty());
    assert_eq!(zo.history("c").await.unwrap(), reply.messages);
}

#[tokio::test]
async fn a_call_that_had_not_begun_is_run_even_if_it_must_not_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let model = Scripted::new([Turn::calls([("1", "mail", json!({})), ("2", "mail", json!({}))])]);
    let first = zo(&model, dir.path()).max_parallel_tools(1);
    interrupt(first.skill(noting("mail", &log, Effect::AtMostOnce, true)).build().await.unwrap(), &log, 1)
        .await;

    let model = Scripted::new([Turn::text("ok")]);
    let zo =
        zo(&model, dir.path()).skill(noting("mail", &log, Effect::AtMostOnce, false)).build().await.unwrap();
    let reply = zo.resume(&one(&zo).run).reply().await.unwrap();
    let statuses: Vec<_> =
        reply.messages.iter().flat_map(Message::results).map(|r| r.status.clone()).collect();
    assert_eq!(statuses, [ToolStatus::Unknown, ToolStatus::Ok]);
    assert_eq!(log.lock().unwrap().len(), 2, "each began once");
}

#[tokio::test]
async fn the_next_question_takes_an_interrupted_run_into_the_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let model = Scripted::new([Turn::calls([("1", "mail", json!({})), ("2", "look", json!({}))])]);
    let first = zo(&model, dir.path()).skill(noting("mail", &log, Effect::AtMostOnce, true)).skill(noting(
        "look",
        &log,
        Effect::Pure,
        true,
    ));
    let run = interrupt(first.build().await.unwrap(), &log, 2).await;

    let model = Scripted::new([Turn::text("moving on")]);
    let zo = zo(&model, dir.path()).build().await.unwrap();
    assert_eq!(zo.ask("c", "never mind").await.unwrap().text, "moving on");
    assert!(zo.unfinished().unwrap().is_empty());
    let sent = &model.asked()[0].request.messages;
    assert_eq!(
        sent.iter().map(|m| m.role.as_str()).collect::<Vec<_>>(),
        ["user", "assistant", "tool", "user"]
    );
    let statuses: Vec<_> = sent[2].results().map(|r| r.status.clone()).collect();
    assert_eq!(statuses, [ToolStatus::Unknown, ToolStatus::Cancelled]);
    assert_eq!(zo.resume(&run).reply().await.unwrap_err().kind(), ErrorKind::Conflict, "it has ended");
}

#[tokio::test]
async fn a_passing_error_leaves_the_work_so_far() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let model = Scripted::new([
        Turn::calls([("1", "mail", json!({}))]),
        Turn::Fail(Error::new(ErrorKind::Unavailable, "x", "overloaded")),
        Turn::text("there you are"),
    ]);
    let zo =
        zo(&model, dir.path()).skill(noting("mail", &log, Effect::AtMostOnce, false)).build().await.unwrap();
    assert_eq!(zo.ask("c", "go").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let reply = zo.resume(&one(&zo).run).reply().await.unwrap();
    assert_eq!(reply.text, "there you are");
    assert_eq!(log.lock().unwrap().len(), 1, "the mail went out once");
}

#[tokio::test]
async fn an_error_before_any_answer_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let model =
        Scripted::new([Turn::Fail(Error::new(ErrorKind::Unauthorized, "x", "bad key")), Turn::text("ok")]);
    let zo = zo(&model, dir.path()).build().await.unwrap();
    assert_eq!(zo.ask("c", "go").await.unwrap_err().kind(), ErrorKind::Unauthorized);
    assert!(zo.unfinished().unwrap().is_empty());
    zo.ask("c", "go").await.unwrap();
    assert_eq!(zo.history("c").await.unwrap().len(), 2);
}

#[tokio::test]
async fn abandoning_and_wrong_ids() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let model = Scripted::new([Turn::calls([("1", "look", json!({}))])]);
    let first = zo(&model, dir.path()).skill(noting("look", &log, Effect::Pure, true)).build().await.unwrap();
    let run = interrupt(first, &log, 1).await;
    let zo = zo(&Scripted::new([]), dir.path()).build().await.unwrap();
    zo.abandon(&run).await.unwrap();
    assert!(zo.unfinished().unwrap().is_empty());
    assert_eq!(zo.history("c").await.unwrap().len(), 3);
    assert_eq!(zo.abandon(&run).await.unwrap_err().kind(), ErrorKind::Conflict);
    for id in ["", "no such run", "0000"] {
        assert_eq!(
            zo.resume(&RunId::from(id)).reply().await.unwrap_err().kind(),
            ErrorKind::NotFound,
            "{id:?}"
        );
    }
}

#[tokio::test]
async fn a_run_under_way_is_not_unfinished_and_cannot_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([Turn::Hang]);
    let zo = zo(&model, dir.path()).build().await.unwrap();
    let mut stream = zo.stream("c", "go");
    let Some(Ok(RunEvent::Started(run))) = stream.next().await else { panic!() };
    assert!(zo.unfinished().unwrap().is_empty());
    assert_eq!(zo.resume(&run).reply().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(zo.abandon(&run).await.unwrap_err().kind(), ErrorKind::Conflict);
    drop(stream);
    assert_eq!(one(&zo).run, run);
}

#[tokio::test]
async fn a_conversation_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = zo(&Scripted::new([Turn::text("hello Ada")]), dir.path()).build().await.unwrap();
    first.ask("c", "I am Ada").await.unwrap();
    drop(first);
    let model =
        Scripted::by(|r| Turn::text(&r.messages.iter().map(Message::to_text).collect::<Vec<_>>().join("/")));
    let zo = zo(&model, dir.path()).build().await.unwrap();
    assert_eq!(zo.ask("c", "who am I?").await.unwrap().text, "I am Ada/hello Ada/who am I?");
}

#[tokio::test]
async fn what_ended_beside_a_cancelled_tool_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let model = Scripted::new([Turn::calls([
        ("1", "fast", json!({})),
        ("2", "mail", json!({})),
        ("3", "look", json!({})),
    ])]);
    let zo = zo(&model, dir.path())
        .skill(noting("fast", &log, Effect::AtMostOnce, false))
        .skill(noting("mail", &log, Effect::AtMostOnce, true))
        .skill(noting("look", &log, Effect::Pure, true))
        .build()
        .await
        .unwrap();
    let cx = Cx::new("");
    let mut stream = zo.stream_with(&cx, zo_core::Ask::new("c", "go"));
    let e = loop {
        match stream.next().await.unwrap() {
            Ok(RunEvent::ToolFinished { .. }) => {
                while log.lock().unwrap().len() < 3 {
                    tokio::task::yield_now().await;
                }
                cx.cancel().cancel();
            }
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert_eq!(e.kind(), ErrorKind::Cancelled);
    let history = zo.history("c").await.unwrap();
    let statuses: Vec<_> = history.iter().flat_map(Message::results).map(|r| r.status.clone()).collect();
    assert_eq!(statuses, [ToolStatus::Ok, ToolStatus::Unknown, ToolStatus::Cancelled]);
    assert!(zo.unfinished().unwrap().is_empty(), "cancelling ends a run");
}

#[tokio::test]
async fn resuming_does_not_refill_the_allowance() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|_| Turn::calls([("1", "look", json!({}))]));
    let log = Log::default();
    let zo = zo(&model, dir.path())
        .limits(zo_core::Limits::none().steps(3))
        .skill(noting("look", &log, Effect::Pure, false))
        .build()
        .await
        .unwrap();
    assert_eq!(zo.ask("c", "go").await.unwrap_err().kind(), ErrorKind::Denied);
    let asked = model.asked().len();
    for _ in 0..3 {
        assert_eq!(zo.resume(&one(&zo).run).reply().await.unwrap_err().kind(), ErrorKind::Denied);
    }
    assert_eq!(model.asked().len(), asked);
}

/// Conversations kept elsewhere, where an append can die right after it took effect.
#[derive(Debug, Default)]
struct Elsewhere {
    log: zo_core::memory::RamTranscript,
    dies: std::sync::atomic::AtomicBool,
}

#[zo_core::async_trait]
impl zo_core::Transcript for Elsewhere {
    async fn append(&self, cx: &Cx, c: &str, at: Option<u64>, m: &[Message]) -> zo_core::Result<u64> {
        let len = self.log.append(cx, c, at, m).await?;
        if self.dies.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "elsewhere", "the line went dead"));
        }
        Ok(len)
    }
    async fn read(&self, cx: &Cx, c: &str, from: u64, limit: usize) -> zo_core::Result<Vec<Message>> {
        self.log.read(cx, c, from, limit).await
    }
    async fn len(&self, cx: &Cx, c: &str) -> zo_core::Result<u64> {
        self.log.len(cx, c).await
    }
    async fn conversations(&self, cx: &Cx, after: Option<&str>, n: usize) -> zo_core::Result<Vec<String>> {
        self.log.conversations(cx, after, n).await
    }
    async fn delete(&self, cx: &Cx, c: &str) -> zo_core::Result<bool> {
        self.log.delete(cx, c).await
    }
}

#[tokio::test]
async fn a_turn_is_not_doubled_in_a_transcript_kept_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Arc::new(Elsewhere::default());
    elsewhere.dies.store(true, std::sync::atomic::Ordering::SeqCst);
    let n = Arc::new(Mutex::new(0));
    let model = Scripted::by(move |_| {
        let mut n = n.lock().unwrap();
        *n += 1;
        Turn::text(&format!("answer {n}"))
    });
    let zo = zo(&model, dir.path()).transcript(elsewhere.clone()).build().await.unwrap();
    assert_eq!(zo.ask("c", "q").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let reply = zo.resume(&one(&zo).run).reply().await.unwrap();
    assert_eq!(reply.text, "answer 1", "an answer on record is not asked for again");
    let said: Vec<_> = zo.history("c").await.unwrap().iter().map(Message::to_text).collect();
    assert_eq!(said, ["q", "answer 1"]);
}

#[tokio::test]
async fn a_damaged_record_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let model = Scripted::new([Turn::calls([("1", "look", json!({}))])]);
    let first = zo(&model, dir.path()).skill(noting("look", &log, Effect::Pure, true)).build().await.unwrap();
    let run = interrupt(first, &log, 1).await;
    let store = zo_core::store::Store::open(dir.path().join("z")).unwrap();
    let mut key = run.as_str().as_bytes().to_vec();
    key.extend_from_slice(&0u32.to_be_bytes());
    let entries = zo_core::store::Table::new("agent.run_entries");
    store.write(move |tx| tx.put(entries, &key, b"{\"entry\":\"model\",")).await.unwrap();
    drop(store);
    let model = Scripted::by(|_| Turn::text("ok"));
    let zo = zo(&model, dir.path()).build().await.unwrap();
    assert!(one(&zo).damaged.is_some());
    assert_eq!(zo.resume(&run).reply().await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(zo.ask("c", "still there?").await.unwrap().text, "ok");
    assert!(zo.unfinished().unwrap().is_empty());
}

#[tokio::test]
async fn old_records_are_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|_| Turn::text("ok"));
    let zo = zo(&model, dir.path()).keep_runs(3).build().await.unwrap();
    let mut runs = Vec::new();
    // What is old goes with every eighth end.
    for i in 0..17 {
        runs.push(zo.ask("c", format!("{i}")).await.unwrap().run);
    }
    let kinds: Vec<_> = {
        let mut kinds = Vec::new();
        for run in &runs {
            kinds.push(zo.resume(run).reply().await.unwrap_err().kind());
        }
        kinds
    };
    // The newest are on record as ended, the older are gone.
    assert_eq!(kinds.iter().filter(|k| **k == ErrorKind::Conflict).count(), 3);
    assert!(kinds[..14].iter().all(|k| *k == ErrorKind::NotFound));
    assert_eq!(zo.history("c").await.unwrap().len(), 34, "conversations are not pruned");
}

#[tokio::test]
async fn files_that_are_not_ours_are_clear_errors() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|_| Turn::text("ok"));
    std::fs::write(dir.path().join("z"), "just some notes of mine, longer than a header".repeat(200))
        .unwrap();
    let e = zo(&model, dir.path()).build().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    let e = Zo::builder()
        .provider(model.clone())
        .file(dir.path().join("no/such/folder/z"))
        .build()
        .await
        .unwrap_err();
    assert!(e.to_string().contains("no/such/folder"), "{e}");

    std::fs::remove_file(dir.path().join("z")).unwrap();
    let holder = zo(&model, dir.path()).build().await.unwrap();
    let e = zo(&model, dir.path()).build().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
    holder.ask("c", "x").await.unwrap();
}
