//! Permissions and approvals: what is not offered, what is refused, and what waits for a person, through restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "memory")]

use serde_json::json;
use std::{
    path::Path,
    sync::{Arc, Mutex},
};
use zo_core::{
    Ask, Cx, Effect, ErrorKind, Message, Permissions, Persona, RunEvent, ToolCall, ToolOutput, ToolStatus,
    Zo, ZoBuilder,
    permission::{Arg, Rule},
};
use zo_testkit::{Scripted, Turn, tool};

type Log = Arc<Mutex<Vec<String>>>;

fn pay(log: &Log) -> zo_testkit::RawTool {
    let log = log.clone();
    tool("pay", move |_, call: ToolCall| {
        log.lock().unwrap().push(call.args.to_string());
        async { Ok(ToolOutput::text("paid")) }
    })
    .effect(Effect::AtMostOnce)
}

fn asks_before_pay() -> Permissions {
    Permissions::default().rule(Rule::ask().tool("pay").because("it costs money"))
}

fn zo(model: &Scripted, dir: &Path) -> ZoBuilder {
    Zo::builder().provider(model.clone()).file(dir.join("z")).recall_limit(0).permissions(asks_before_pay())
}

fn buying() -> [Turn; 2] {
    [Turn::calls([("1", "pay", json!({"eur": 7})), ("2", "look", json!({}))]), Turn::text("bought")]
}

fn statuses(messages: &[Message]) -> Vec<ToolStatus> {
    messages.iter().flat_map(Message::results).map(|r| r.status.clone()).collect()
}

#[tokio::test]
async fn a_parked_run_survives_a_restart_and_goes_on_with_the_decision() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let look = || tool("look", |_, _| async { Ok("clear".into()) }).effect(Effect::Pure);
    let [first, second] = buying();
    let zo1 = zo(&Scripted::new([first]), dir.path()).skill(pay(&log)).skill(look()).build().await.unwrap();
    let mut stream = zo1.stream("c", "buy it");
    let mut asked = Vec::new();
    let reply = loop {
        match stream.next().await.unwrap().unwrap() {
            RunEvent::Approval(a) => asked.push(a),
            RunEvent::Done(reply) => break reply,
            _ => {}
        }
    };
    assert!(reply.is_parked() && reply.approvals == asked && asked.len() == 1);
    assert_eq!((asked[0].call.name.as_str(), &asked[0].call.args), ("pay", &json!({"eur": 7})));
    assert!(asked[0].why.contains("it costs money"), "{}", asked[0].why);
    assert!(log.lock().unwrap().is_empty());
    // The conversation waits, and says so.
    let e = zo1.ask("c", "something else").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    assert!(e.to_string().contains("approval"), "{e}");
    drop((stream, zo1));

    let model = Scripted::new([second]);
    let zo2 = zo(&model, dir.path()).skill(pay(&log)).skill(look()).build().await.unwrap();
    let left = zo2.unfinished().unwrap();
    assert_eq!((left.len(), left[0].approvals.len(), left[0].steps), (1, 1, 1));
    // Resumed too early, it waits again and asks nobody.
    assert!(zo2.resume(&left[0].run).reply().await.unwrap().is_parked());
    assert!(model.asked().is_empty());
    // The question has been through a channel as JSON.
    let question: zo_core::Approval =
        serde_json::from_str(&serde_json::to_string(&zo2.approvals().unwrap()[0]).unwrap()).unwrap();
    let mut forged = question.clone();
    forged.digest = "0".repeat(64);
    assert_eq!(zo2.approve(&forged, "eve").await.unwrap_err().kind(), ErrorKind::Conflict);
    let run = zo2.approve(&question, "ada").await.unwrap();
    assert_eq!(
        zo2.deny(&question, "no", "bob").await.unwrap_err().kind(),
        ErrorKind::Conflict,
        "decided once"
    );
    let reply = zo2.resume(&run).reply().await.unwrap();
    assert_eq!((reply.text.as_str(), reply.is_parked()), ("bought", false));
    assert_eq!(*log.lock().unwrap(), ["{\"eur\":7}"]);
    assert_eq!(statuses(&reply.messages), [ToolStatus::Ok, ToolStatus::Ok]);
    assert!(zo2.approvals().unwrap().is_empty() && zo2.unfinished().unwrap().is_empty());
    assert_eq!(zo2.history("c").await.unwrap(), reply.messages);
}

#[tokio::test]
async fn a_denied_call_is_told_to_the_model_and_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let model = Scripted::new(buying());
    let zo = zo(&model, dir.path()).skill(pay(&log)).build().await.unwrap();
    let reply = zo.ask("c", "buy it").await.unwrap();
    let run = zo.deny(&reply.approvals[0], "too dear", "ada").await.unwrap();
    let reply = zo.resume(&run).reply().await.unwrap();
    assert!(log.lock().unwrap().is_empty());
    let results: Vec<_> = reply.messages.iter().flat_map(Message::results).collect();
    assert_eq!(results[0].status, ToolStatus::Denied);
    assert!(results[0].content.contains("too dear"));
}

#[tokio::test]
async fn a_decision_that_comes_while_others_run_needs_no_parking() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let gate = Arc::new(tokio::sync::Notify::new());
    let open = gate.clone();
    let look = tool("look", move |_, _| {
        let open = open.clone();
        async move {
            open.notified().await;
            Ok("clear".into())
        }
    });
    let model = Scripted::new(buying());
    let zo = zo(&model, dir.path()).skill(pay(&log)).skill(look.effect(Effect::Pure)).build().await.unwrap();
    let mut stream = zo.stream("c", "buy it");
    let reply = loop {
        match stream.next().await.unwrap().unwrap() {
            RunEvent::Approval(a) => {
                zo.approve(&a, "ada").await.unwrap();
                gate.notify_one();
            }
            RunEvent::Done(reply) => break reply,
            _ => {}
        }
    };
    assert_eq!((reply.text.as_str(), log.lock().unwrap().len()), ("bought", 1));
}

#[tokio::test]
async fn an_approval_runs_out() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let model = Scripted::new(buying());
    let clock = zo_testkit::VirtualClock::at(1_000_000);
    let day = std::time::Duration::from_secs(86_400);
    let zo = zo(&model, dir.path())
        .clock(clock.clone())
        .approval_timeout(day)
        .skill(pay(&log))
        .build()
        .await
        .unwrap();
    let reply = zo.ask("c", "buy it").await.unwrap();
    clock.advance(day);
    assert_eq!(zo.approve(&reply.approvals[0], "ada").await.unwrap_err().kind(), ErrorKind::Conflict);
    let reply = zo.resume(&reply.run).reply().await.unwrap();
    assert_eq!((reply.text.as_str(), log.lock().unwrap().len()), ("bought", 0));
}

#[tokio::test]
async fn what_is_never_allowed_is_not_offered() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let model = Scripted::by(|r| match r.messages.last().unwrap().results().next() {
        Some(result) => Turn::text(&result.content),
        None => Turn::calls([("1", "pay", json!({}))]),
    });
    let zo = zo(&model, dir.path())
        .permissions(Permissions::default().rule(Rule::deny().tool("pay")))
        .skill(pay(&log))
        .build()
        .await
        .unwrap();
    let reply = zo.ask("c", "buy").await.unwrap();
    assert!(model.asked()[0].request.tools.iter().all(|t| t.name != "pay"));
    assert!(reply.text.contains("not allowed"), "{}", reply.text);
    assert!(log.lock().unwrap().is_empty());
}

#[tokio::test]
async fn arguments_decide() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let read = {
        let log = log.clone();
        tool("read", move |_, call: ToolCall| {
            log.lock().unwrap().push(call.args["path"].as_str().unwrap_or("?").to_owned());
            async { Ok("text".into()) }
        })
        .effect(Effect::Pure)
    };
    let model = Scripted::new([
        Turn::calls([
            ("1", "read", json!({"path": "notes/a.md"})),
            ("2", "read", json!({"path": "notes/../secret"})),
            ("3", "read", json!({"path": "/etc/passwd"})),
        ]),
        Turn::text("ok"),
    ]);
    let only_notes = Permissions::default()
        .otherwise(zo_core::Verdict::Deny)
        .rule(Rule::allow().tool("read").when(Arg::path("path", "notes/**")));
    let zo = zo(&model, dir.path()).permissions(only_notes).skill(read).build().await.unwrap();
    let reply = zo.ask("c", "read").await.unwrap();
    assert_eq!(statuses(&reply.messages), [ToolStatus::Ok, ToolStatus::Denied, ToolStatus::Denied]);
    assert_eq!(*log.lock().unwrap(), ["notes/a.md"]);
}

#[tokio::test]
async fn a_sub_agent_cannot_do_more_and_its_question_parks_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let model = Scripted::by(|r| {
        let child = r.messages.iter().any(|m| m.to_text() == "You buy things.");
        let done = r.messages.last().unwrap().results().next().map(|r| r.content.clone());
        match (child, done) {
            (false, None) => Turn::calls([("1", "ask_buyer", json!({"task": "buy a lamp"}))]),
            (true, None) => Turn::calls([("1", "pay", json!({"eur": 9}))]),
            (true, Some(said)) => Turn::text(&format!("the lamp is {said}")),
            (false, Some(said)) => Turn::text(&format!("my buyer says: {said}")),
        }
    });
    let buyer = Persona::new("buyer", "You buy things.").description("Buys what you name");
    let build = || zo(&model, dir.path()).skill(pay(&log)).persona(buyer.clone());
    let zo1 = build().build().await.unwrap();
    let reply = zo1.ask("c", "I need a lamp").await.unwrap();
    assert!(reply.is_parked(), "{reply:?}");
    assert_ne!(reply.approvals[0].run, reply.run.as_str(), "it is the child that asks");
    drop(zo1);
    let zo2 = build().build().await.unwrap();
    assert_eq!(zo2.unfinished().unwrap().len(), 2);
    let root = zo2.approve(&zo2.approvals().unwrap()[0], "ada").await.unwrap();
    assert_eq!(root, reply.run, "the parent is what has to go on");
    let reply = zo2.resume(&root).reply().await.unwrap();
    assert_eq!(reply.text, "my buyer says: the lamp is paid");
    assert_eq!(log.lock().unwrap().len(), 1);
    assert!(zo2.unfinished().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_file_nothing_can_wait() {
    let log = Log::default();
    let model = Scripted::new(buying());
    let zo =
        Zo::builder().provider(model).permissions(asks_before_pay()).skill(pay(&log)).build().await.unwrap();
    let reply = zo.ask_with(&Cx::default(), Ask::new("c", "buy")).await.unwrap();
    assert_eq!(statuses(&reply.messages)[0], ToolStatus::Denied);
    assert!(log.lock().unwrap().is_empty());
}
