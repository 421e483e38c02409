//! What is on people's disks: runs that an earlier release left are resumed by this one, what a later release wrote is refused
//! clearly and not lost, and the form of what this release writes does not change unawares.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "memory")]

use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};
use zo_core::{
    Effect, ErrorKind, Message, Permissions, RunEvent, RunId, ToolStatus, Usage, Zo, ZoBuilder,
    permission::Rule,
    store::{Scan, Store, Table, key::Key},
};
use zo_testkit::{RawTool, Scripted, Strict, Turn, VirtualClock, tool};

const RUNS: Table = Table::new("agent.runs");
const ENTRIES: Table = Table::new("agent.run_entries");
const UNFINISHED: Table = Table::new("agent.runs_unfinished");
const FINISHED: Table = Table::new("agent.runs_finished");
const OUTPUTS: Table = Table::new("agent.run_outputs");
const MESSAGES: Table = Table::new("transcript.messages");
const CONVERSATIONS: Table = Table::new("transcript.conversations");

/// A run of version 1: 48 bits of time, 80 bits of chance.
const RUN: &str = "018bcfe568000123456789abcdef0123";

type Log = Arc<Mutex<Vec<String>>>;

/// A file in the making.
struct File {
    dir: tempfile::TempDir,
    store: Store,
}

impl File {
    /// As version 0.1 made it: the journal is of schema 1, the conversations are of schema 1.
    async fn of_schema(journal: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("z")).unwrap();
        store.require_schema("agent.journal", journal, |_, _| unreachable!()).await.unwrap();
        store.require_schema("transcript", 1, |_, _| unreachable!()).await.unwrap();
        Self { dir, store }
    }

    async fn put(&self, table: Table, key: Vec<u8>, row: Vec<u8>) {
        self.store.write(move |tx| tx.put(table, &key, &row)).await.unwrap();
    }

    async fn run(&self, header: &Value, entries: &[Value], ended: bool) {
        let run = header["run"].as_str().unwrap();
        self.put(RUNS, run.into(), header.to_string().into()).await;
        self.put(if ended { FINISHED } else { UNFINISHED }, run.into(), Vec::new()).await;
        for (entry, n) in entries.iter().zip(0u32..) {
            let key = [run.as_bytes(), &n.to_be_bytes()].concat();
            self.put(ENTRIES, key, entry.to_string().into()).await;
        }
    }

    async fn talk(&self, conversation: &str, messages: &[Value]) {
        for (message, at) in messages.iter().zip(0u64..) {
            let key = Key::new().str(conversation).u64(at).into_bytes();
            self.put(MESSAGES, key, message.to_string().into()).await;
        }
        let length = (messages.len() as u64).to_be_bytes().to_vec();
        self.put(CONVERSATIONS, conversation.into(), length).await;
    }

    /// Lets go of the store: somebody else opens the file.
    async fn close(self) -> tempfile::TempDir {
        self.store.close().await.unwrap();
        self.dir
    }
}

/// What version 1 wrote before it asked the model.
fn header() -> Value {
    json!({
        "run": RUN,
        "conversation": "c",
        "scope": "default",
        "model": "",
        "started": 1_700_000_000_000_i64,
        "max_steps": 32,
        "from": 0,
        "base": 0,
        "opening": [{"role": "user", "parts": [{"type": "text", "text": "go"}]}],
    })
}

fn said(role: &str, text: &str) -> Value {
    json!({"role": role, "parts": [{"type": "text", "text": text}]})
}

fn answered(message: &Value, finish: &str, claims: &Value) -> Value {
    let usage = json!({"input": 10, "output": 5, "cache_read": 0, "cache_write": 0, "reasoning": 0});
    json!({
        "entry": "model",
        "answer": {"message": message, "finish": finish, "usage": usage},
        "claims": claims,
    })
}

/// An answer that calls `mail`, `put` and `look`, with those claimed that change the world.
fn called(claims: &[(&str, &str)]) -> Value {
    let call = |id: &str, name: &str| json!({"type": "tool_call", "id": id, "name": name, "args": {}});
    let message =
        json!({"role": "assistant", "parts": [call("1", "mail"), call("2", "put"), call("3", "look")]});
    let claims: Vec<_> = claims.iter().map(|(id, effect)| json!({"id": id, "effect": effect})).collect();
    answered(&message, "tool_calls", &json!(claims))
}

fn result(id: &str, name: &str, text: &str) -> Value {
    json!({"entry": "tool", "result": {"id": id, "name": name, "status": "ok", "content": text}})
}

fn noting(name: &str, log: &Log, effect: Effect) -> RawTool {
    let (log, mark) = (log.clone(), name.to_owned());
    let body = move |cx: zo_core::Cx, _| {
        log.lock().unwrap().push(format!("{mark} {}", cx.idempotency_key().unwrap()));
        let text = format!("{mark} now");
        async move { Ok(text.into()) }
    };
    tool(name, body).effect(effect)
}

fn builder(model: &Scripted, dir: &Path, log: &Log) -> ZoBuilder {
    Zo::builder()
        .provider(Strict::new(model.clone()))
        .file(dir.join("z"))
        .recall_limit(0)
        .skill(noting("mail", log, Effect::AtMostOnce))
        .skill(noting("put", log, Effect::Idempotent))
        .skill(noting("look", log, Effect::Pure))
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|m| if m.results().next().is_some() { "(results)".into() } else { m.to_text() })
        .collect()
}

fn results(messages: &[Message]) -> Vec<(String, ToolStatus, String)> {
    messages
        .iter()
        .flat_map(Message::results)
        .map(|r| {
            (r.name.clone(), r.status.clone(), r.content.split(':').next().unwrap_or_default().to_owned())
        })
        .collect()
}

fn row(name: &str, status: ToolStatus, text: &str) -> (String, ToolStatus, String) {
    (name.to_owned(), status, text.to_owned())
}

/// Resumes the one run of version 1 in the file, and gives what it left, what its tools did and how often the model was asked.
async fn resume_v1(entries: &[Value], unknown: &[&str]) -> (Vec<Message>, Vec<String>, usize) {
    let file = File::of_schema(1).await;
    file.run(&header(), entries, false).await;
    let dir = file.close().await;
    let (model, log) = (Scripted::by(|_| Turn::text("all clear")), Log::default());
    let zo = builder(&model, dir.path(), &log).build().await.unwrap();
    let left = zo.unfinished().unwrap();
    assert_eq!(left.len(), 1);
    assert!(left[0].damaged.is_none(), "{:?}", left[0].damaged);
    let was =
        (left[0].run.as_str(), left[0].conversation.as_str(), left[0].input.as_str(), left[0].started.0);
    assert_eq!(was, (RUN, "c", "go", 1_700_000_000_000));
    assert_eq!(left[0].unknown.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), unknown);
    let reply = zo.resume(&left[0].run).reply().await.unwrap();
    assert!(zo.unfinished().unwrap().is_empty());
    let history = zo.history("c").await.unwrap();
    assert_eq!(history, reply.messages);
    // And the conversation goes on.
    zo.ask("c", "and now?").await.unwrap();
    let asked = model.asked().len() - 1;
    let sent = &model.asked()[asked].request.messages;
    assert_eq!(texts(&sent[..history.len()]), texts(&history));
    let mut log = log.lock().unwrap().clone();
    log.sort();
    (history, log, asked)
}

#[tokio::test]
async fn v1_interrupted_before_the_answer() {
    let (history, log, asked) = resume_v1(&[], &[]).await;
    assert_eq!((texts(&history), asked), (vec!["go".into(), "all clear".into()], 1));
    assert!(log.is_empty());
}

#[tokio::test]
async fn v1_interrupted_with_calls_in_flight() {
    let answer = called(&[("1", "at_most_once"), ("2", "idempotent")]);
    let (history, log, asked) = resume_v1(&[answer], &["mail"]).await;
    assert_eq!(
        results(&history),
        [
            row("mail", ToolStatus::Unknown, "outcome unknown"),
            row("put", ToolStatus::Ok, "put now"),
            row("look", ToolStatus::Ok, "look now"),
        ]
    );
    // The same key as version 1 gave it.
    assert_eq!(log, [format!("look {RUN}/3"), format!("put {RUN}/2")]);
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn v1_interrupted_with_calls_that_had_not_begun() {
    let (history, log, _) = resume_v1(&[called(&[])], &[]).await;
    assert!(results(&history).iter().all(|(_, status, _)| *status == ToolStatus::Ok));
    assert_eq!(log, [format!("look {RUN}/3"), format!("mail {RUN}/1"), format!("put {RUN}/2")]);
}

#[tokio::test]
async fn v1_interrupted_between_calls_that_waited_for_each_other() {
    let entries = [
        called(&[("2", "idempotent")]),
        result("2", "put", "put then"),
        json!({"entry": "claimed", "claim": {"id": "1", "effect": "at_most_once"}}),
        result("3", "look", "look then"),
    ];
    let (history, log, _) = resume_v1(&entries, &["mail"]).await;
    assert_eq!(
        results(&history),
        [
            row("mail", ToolStatus::Unknown, "outcome unknown"),
            row("put", ToolStatus::Ok, "put then"),
            row("look", ToolStatus::Ok, "look then"),
        ]
    );
    assert!(log.is_empty(), "nothing was to be done again: {log:?}");
}

#[tokio::test]
async fn v1_interrupted_between_the_last_answer_and_the_end() {
    let entries = [
        called(&[("1", "at_most_once"), ("2", "idempotent")]),
        result("1", "mail", "mail then"),
        result("2", "put", "put then"),
        result("3", "look", "look then"),
        answered(&said("assistant", "done then"), "stop", &json!([])),
    ];
    let (history, log, asked) = resume_v1(&entries, &[]).await;
    assert_eq!(texts(&history), ["go", "", "(results)", "done then"]);
    assert_eq!((log.len(), asked), (0, 0), "an answer on record is not asked for again");
}

#[tokio::test]
async fn v1_interrupted_while_its_messages_were_appended_elsewhere() {
    for appended in [false, true] {
        let file = File::of_schema(1).await;
        let answer = said("assistant", "done then");
        let entries = [answered(&answer, "stop", &json!([])), json!({"entry": "appending", "at": 0})];
        file.run(&header(), &entries, false).await;
        if appended {
            file.talk("c", &[said("user", "go"), answer]).await;
        }
        let dir = file.close().await;
        let model = Scripted::new([]);
        let store = Store::open(dir.path().join("z")).unwrap();
        let elsewhere = zo_core::memory::StoreTranscript::new(store.clone()).await.unwrap();
        let zo = Zo::builder().provider(model).store(store).transcript(elsewhere).build().await.unwrap();
        let reply = zo.resume(&RunId::from(RUN)).reply().await.unwrap();
        assert_eq!(reply.text, "done then");
        assert_eq!(
            texts(&zo.history("c").await.unwrap()),
            ["go", "done then"],
            "appended before: {appended}"
        );
    }
}

#[tokio::test]
async fn v1_ended_runs_stay_ended_and_their_conversations_go_on() {
    for outcome in [
        json!("done"),
        json!("cancelled"),
        json!("abandoned"),
        json!({"failed": {"kind": "unavailable", "message": "overloaded"}}),
    ] {
        let file = File::of_schema(1).await;
        let answer = said("assistant", "done then");
        let entries = [answered(&answer, "stop", &json!([])), json!({"entry": "end", "outcome": outcome})];
        file.run(&header(), &entries, true).await;
        file.talk("c", &[said("user", "go"), answer]).await;
        let dir = file.close().await;
        let (model, log) = (Scripted::by(|_| Turn::text("hello again")), Log::default());
        let zo = builder(&model, dir.path(), &log).build().await.unwrap();
        assert!(zo.unfinished().unwrap().is_empty());
        let e = zo.resume(&RunId::from(RUN)).reply().await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
        zo.ask("c", "still there?").await.unwrap();
        assert_eq!(texts(&model.asked()[0].request.messages), ["go", "done then", "still there?"]);
    }
}

#[tokio::test]
async fn v1_is_settled_by_the_next_question() {
    let file = File::of_schema(1).await;
    file.run(&header(), &[called(&[("1", "at_most_once")]), result("3", "look", "look then")], false).await;
    let dir = file.close().await;
    let (model, log) = (Scripted::by(|_| Turn::text("moving on")), Log::default());
    let zo = builder(&model, dir.path(), &log).build().await.unwrap();
    zo.ask("c", "never mind").await.unwrap();
    let history = zo.history("c").await.unwrap();
    assert_eq!(texts(&history), ["go", "", "(results)", "never mind", "moving on"]);
    let statuses: Vec<_> = results(&history).into_iter().map(|(_, status, _)| status).collect();
    assert_eq!(statuses, [ToolStatus::Unknown, ToolStatus::Cancelled, ToolStatus::Ok]);
    assert!(log.lock().unwrap().is_empty() && zo.unfinished().unwrap().is_empty());
}

#[tokio::test]
async fn v1_long_outputs_can_be_read_on() {
    let file = File::of_schema(1).await;
    let entries = [called(&[]), json!({"entry": "end", "outcome": "done"})];
    file.run(&header(), &entries, true).await;
    let page = |offset: u64| [format!("{RUN}/3").as_bytes(), &[0], &offset.to_be_bytes()].concat();
    file.put(OUTPUTS, page(0), vec![b'a'; 16 << 10]).await;
    file.put(OUTPUTS, page(16 << 10), b"the end".to_vec()).await;
    file.put(OUTPUTS, page(u64::MAX), ((16u64 << 10) + 7).to_be_bytes().to_vec()).await;
    let dir = file.close().await;
    let args = json!({"id": format!("{RUN}/3"), "offset": 16 << 10});
    let model = Scripted::new([Turn::calls([("9", "read_output", args)]), Turn::text("read")]);
    let zo = builder(&model, dir.path(), &Log::default()).build().await.unwrap();
    let reply = zo.ask("c", "read on").await.unwrap();
    let read = reply.messages.iter().flat_map(Message::results).next().unwrap();
    assert!(read.status == ToolStatus::Ok && read.content.starts_with("the end"), "{read:?}");
}

#[tokio::test]
async fn a_file_of_version_1_becomes_one_of_version_2() {
    let file = File::of_schema(1).await;
    file.run(&header(), &[], false).await;
    let dir = file.close().await;
    let zo = builder(&Scripted::new([]), dir.path(), &Log::default()).build().await.unwrap();
    let store = zo.store().unwrap().clone();
    // Of version 2, so that a program which knows 1 alone refuses it.
    store.require_schema("agent.journal", 2, |_, _| panic!("not of version 2")).await.unwrap();
    let e = store.require_schema("agent.journal", 1, |_, _| unreachable!()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    let row = store.read(|s| s.get(RUNS, RUN.as_bytes())).unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&row).unwrap(), header(), "what is there is left as it is");
}

#[tokio::test]
async fn an_entry_of_a_later_version_is_named_and_kept() {
    let file = File::of_schema(2).await;
    let later = json!({"entry": "teleported", "to": "elsewhere"});
    file.run(&header(), &[called(&[("1", "at_most_once")]), later.clone()], false).await;
    let dir = file.close().await;
    let (model, log) = (Scripted::by(|_| Turn::text("ok")), Log::default());
    let zo = builder(&model, dir.path(), &log).build().await.unwrap();
    let run = RunId::from(RUN);
    let clear = |e: &zo_core::Error| {
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
        assert!(e.to_string().contains("teleported") && e.to_string().contains("newer version"), "{e}");
    };
    clear(zo.unfinished().unwrap()[0].damaged.as_ref().unwrap());
    clear(&zo.resume(&run).reply().await.unwrap_err());
    // The next question must not make a guess of it.
    clear(&zo.ask("c", "and now?").await.unwrap_err());
    assert_eq!(zo.replay(&run).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(zo.unfinished().unwrap().len(), 1, "it stays");
    assert!(model.asked().is_empty() && log.lock().unwrap().is_empty());
    // It is in nobody else's way.
    assert_eq!(zo.ask("d", "and you?").await.unwrap().text, "ok");
    let key = [RUN.as_bytes(), &1u32.to_be_bytes()].concat();
    let row = zo.store().unwrap().read(|s| s.get(ENTRIES, &key)).unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&row).unwrap(), later);
    // The next start finds it as it was.
    drop(zo);
    let zo = builder(&model, dir.path(), &log).build().await.unwrap();
    clear(zo.unfinished().unwrap()[0].damaged.as_ref().unwrap());
    // Only a host that gives it up is rid of it.
    zo.abandon(&run).await.unwrap();
    assert!(zo.unfinished().unwrap().is_empty());
    assert_eq!(zo.ask("c", "and now?").await.unwrap().text, "ok");
}

#[tokio::test]
async fn what_a_later_version_adds_is_read_over() {
    let file = File::of_schema(2).await;
    let mut header = header();
    header["mood"] = json!({"of": "the day"});
    let mut answer = called(&[("1", "at_most_once")]);
    answer["weather"] = json!("fine");
    answer["answer"]["temperature"] = json!(0.5);
    answer["claims"][0]["by"] = json!("someone");
    file.run(&header, &[answer], false).await;
    let dir = file.close().await;
    let (model, log) = (Scripted::by(|_| Turn::text("ok")), Log::default());
    let zo = builder(&model, dir.path(), &log).build().await.unwrap();
    let reply = zo.resume(&RunId::from(RUN)).reply().await.unwrap();
    assert_eq!((reply.text.as_str(), reply.messages.len()), ("ok", 4));
    assert_eq!(results(&reply.messages)[0].1, ToolStatus::Unknown);
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_refused_and_left_alone() {
    let file = File::of_schema(3).await;
    file.run(&header(), &[], false).await;
    let dir = file.close().await;
    let e = builder(&Scripted::new([]), dir.path(), &Log::default()).build().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
    let text = e.to_string();
    assert!(
        text.contains("agent.journal") && text.contains('3') && text.contains('2') && text.contains("newer"),
        "{e}"
    );
    let store = Store::open(dir.path().join("z")).unwrap();
    assert_eq!(store.read(|s| s.len(RUNS)).unwrap(), 1);
    store.require_schema("agent.journal", 3, |_, _| panic!("changed")).await.unwrap();
}

/// All rows of the journal, with what differs from run to run replaced by words.
fn on_disk(store: &Store) -> Vec<Value> {
    let json = |row: &[u8]| serde_json::from_slice::<Value>(row).unwrap();
    let mut all = Vec::new();
    for (run, header) in store.read(|s| s.collect(RUNS, &Scan::all())).unwrap() {
        let id = String::from_utf8(run.clone()).unwrap();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        let mut rows = vec![json(&header)];
        for (n, (key, entry)) in
            store.read(|s| s.collect(ENTRIES, &Scan::prefix(&run))).unwrap().iter().enumerate()
        {
            assert_eq!(key[..], [&run[..], &u32::try_from(n).unwrap().to_be_bytes()].concat());
            rows.push(json(entry));
        }
        for row in &mut rows {
            for digest in ["setup", "request"] {
                if let Some(d) = row.get_mut(digest).filter(|d| !d.is_null()) {
                    assert!(d.as_str().unwrap().bytes().all(|b| b.is_ascii_hexdigit()));
                    *d = "DIGEST".into();
                }
            }
            if let Some(c) = row.get_mut("compaction").filter(|c| c.is_object()) {
                assert!(c["tokens_before"].as_u64() > c["tokens_after"].as_u64());
                (c["tokens_before"], c["tokens_after"]) = ("BEFORE".into(), "AFTER".into());
            }
            let text = row.to_string().replace(&id, "RUN");
            all.push(serde_json::from_str(&text).unwrap());
        }
    }
    all
}

fn stored(dir: &Path) -> PathBuf {
    dir.join("z")
}

/// A header and one entry of each kind, as this version writes them. Whoever changes one of these texts makes runs of this
/// version unreadable to the next: add a field with a default, or an entry of a new kind, instead.
#[tokio::test]
async fn on_disk_it_looks_like_this() {
    let dir = tempfile::tempdir().unwrap();
    let clock = VirtualClock::at(1_800_000_000_000);
    let log = Log::default();
    let myself: Arc<OnceLock<Zo>> = Arc::default();
    let me = myself.clone();
    let look = tool("look", move |_, _| {
        let me = me.get().unwrap().clone();
        async move {
            me.say("c", "by the way").await?;
            Ok("clear".into())
        }
    });
    let calls = [("1", "look", json!({})), ("2", "put", json!({"n": 1})), ("3", "mail", json!({}))];
    let model = Scripted::new([Turn::calls(calls), Turn::text("done")]);
    let zo = Zo::builder()
        .provider(Strict::new(model.clone()))
        .model("m")
        .clock(clock.clone())
        .file(stored(dir.path()))
        .recall_limit(0)
        .max_parallel_tools(1)
        .limits(zo_core::Limits::none().steps(9))
        .permissions(Permissions::default().rule(Rule::ask().tool("mail")))
        .skill(look.effect(Effect::Pure))
        .skill(noting("put", &log, Effect::Idempotent))
        .skill(noting("mail", &log, Effect::AtMostOnce))
        .build()
        .await
        .unwrap();
    myself.set(zo.clone()).unwrap();
    let parked = zo.ask("c", "go").await.unwrap();
    assert!(parked.is_parked());
    let run = zo.approve(&parked.approvals[0], "ada").await.unwrap();
    zo.resume(&run).reply().await.unwrap();
    let rows = on_disk(zo.store().unwrap());
    let usage = json!({"input": 10, "output": 5, "cache_read": 0, "cache_write": 0, "reasoning": 0});
    let call = |id: &str, name: &str, args: Value| json!({"type": "tool_call", "id": id, "name": name, "args": args});
    let wanted = [
        json!({
            "run": "RUN", "conversation": "c", "scope": "default", "model": "m", "started": 1_800_000_000_000_i64,
            "max_steps": 32, "from": 0, "base": 0,
            "opening": [{"role": "user", "parts": [{"type": "text", "text": "go"}]}],
            "setup": "DIGEST",
            "permissions": [{
                "rules": [{"verdict": "ask", "tool": "mail"}],
                "otherwise": "allow", "ungranted": "deny", "undeclared": "deny"
            }],
            "limits": {"steps": 9, "tokens": null, "microusd": null, "tool_calls": null, "millis": null},
            "ledgers": ["RUN"],
            "depth": 0,
            "loops": {"nudge_at": 3, "stop_at": 6},
        }),
        json!({
            "entry": "model",
            "answer": {
                "message": {"role": "assistant", "parts": [
                    call("1", "look", json!({})), call("2", "put", json!({"n": 1})), call("3", "mail", json!({}))
                ]},
                "finish": "tool_calls",
                "usage": usage
            },
            "claims": [], "heard": 0, "microusd": 0, "request": "DIGEST"
        }),
        json!({"entry": "said", "message": {"role": "user", "parts": [{"type": "text", "text": "by the way"}]}}),
        json!({"entry": "tool", "result": {"id": "1", "name": "look", "status": "ok", "content": "clear"}}),
        json!({"entry": "claimed", "claim": {"id": "2", "effect": "idempotent"}}),
        json!({"entry": "tool", "result": {"id": "2", "name": "put", "status": "ok", "content": "put now"}}),
        json!({"entry": "asked", "call": "3"}),
        json!({"entry": "resumed", "setup": null}),
        json!({"entry": "claimed", "claim": {"id": "3", "effect": "at_most_once"}}),
        json!({"entry": "tool", "result": {"id": "3", "name": "mail", "status": "ok", "content": "mail now"}}),
        json!({
            "entry": "model",
            "answer": {
                "message": {"role": "assistant", "parts": [{"type": "text", "text": "done"}]},
                "finish": "stop",
                "usage": usage
            },
            "claims": [], "heard": 1, "microusd": 0, "request": "DIGEST"
        }),
        json!({"entry": "end", "outcome": "done"}),
    ];
    assert_eq!(rows.len(), wanted.len(), "{rows:#?}");
    for (row, wanted) in rows.iter().zip(&wanted) {
        assert_eq!(row, wanted);
    }
}

/// The entries that need a long conversation, and one that is kept elsewhere.
#[tokio::test]
async fn on_disk_it_looks_like_this_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(stored(dir.path())).unwrap();
    let model = Scripted::by(|request| {
        let Turn::Answer(mut answer) = Turn::text("yes") else { unreachable!() };
        // The estimate learns from it.
        let bytes: usize = request.messages.iter().map(|m| m.to_text().len()).sum();
        answer.usage = Usage::new(bytes as u64 / 4, 5);
        Turn::Answer(answer)
    });
    let zo = Zo::builder()
        .provider(Strict::new(model))
        .model("m")
        .clock(VirtualClock::at(1_800_000_000_000))
        .store(store.clone())
        .transcript(zo_core::memory::RamTranscript::default())
        .recall_limit(0)
        .memory_tools(false)
        .history_tokens(400)
        .summaries(false)
        .build()
        .await
        .unwrap();
    zo.ask("c", "Is it so? ".repeat(600)).await.unwrap();
    let mut stream = zo.stream("c", "And now?");
    while let Some(event) = stream.next().await {
        if let RunEvent::Done(reply) = event.unwrap() {
            assert_eq!(reply.text, "yes");
        }
    }
    zo.ask("c", "And then?").await.unwrap();
    let rows = on_disk(&store);
    let compacted = rows.iter().find(|r| r["entry"] == "compacted").unwrap();
    let summary = compacted["compaction"]["summary"].as_str().unwrap();
    assert!(!summary.is_empty());
    let wanted = json!({
        "entry": "compacted",
        "compaction": {
            "conversation": "c", "n": 0, "upto": 1, "since": 0, "summary": summary, "method": "extractive",
            "tokens_before": "BEFORE", "tokens_after": "AFTER", "at": 1_800_000_000_000_i64
        },
        "microusd": 0
    });
    assert_eq!(*compacted, wanted);
    assert!(rows.contains(&json!({"entry": "appending", "at": 2})), "{rows:#?}");
    let last = rows.iter().find(|r| r["base"] == 4).unwrap();
    assert_eq!((&last["compaction"], &last["from"]), (&json!(1), &json!(1)));
}

/// A run that met a passing error, and one that had to cut what it read.
#[tokio::test]
async fn on_disk_a_pause_looks_like_this() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([
        Turn::calls([("3", "look", json!({}))]),
        Turn::Fail(zo_core::Error::new(ErrorKind::Unavailable, "x", "overloaded")),
    ]);
    let zo = builder(&model, dir.path(), &Log::default()).build().await.unwrap();
    assert_eq!(zo.ask("c", "go").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(on_disk(zo.store().unwrap()).last().unwrap(), &json!({"entry": "stopped"}));

    let file = File::of_schema(2).await;
    let entries = [
        called(&[]),
        result("1", "mail", "mail then"),
        result("2", "put", "put then"),
        result("3", "look", &"look then ".repeat(200)),
        json!({"entry": "shortened", "own": 2}),
        json!({"entry": "stopped"}),
    ];
    file.run(&header(), &entries, false).await;
    let dir = file.close().await;
    let (model, log) = (Scripted::new([Turn::text("ok")]), Log::default());
    let zo = builder(&model, dir.path(), &log).build().await.unwrap();
    assert_eq!(zo.resume(&RunId::from(RUN)).reply().await.unwrap().text, "ok");
    assert!(log.lock().unwrap().is_empty());
}
