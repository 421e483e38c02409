//! Runs that others look on at, that are spoken to, that go on by themselves, that are gone through again and tried anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "memory")]

use serde_json::json;
use std::{path::Path, sync::Arc, time::Duration};
use zo_core::{
    Ask, Cursor, Cx, Effect, ErrorKind, Limits, Message, Reply, Role, RunEvent, RunStream, Spend, ToolStatus,
    Zo, ZoBuilder,
};
use zo_testkit::{Scripted, Turn, tool};

fn zo(model: &Scripted, dir: &Path) -> ZoBuilder {
    Zo::builder().provider(model.clone()).file(dir.join("z")).recall_limit(0)
}

/// Answers with what was said last, after one look.
fn looking() -> Scripted {
    Scripted::by(|r| match r.messages.last().unwrap().role {
        Role::Tool => Turn::text(&format!("saw it after {} messages", r.messages.len())),
        _ => Turn::calls([("1", "look", json!({}))]),
    })
}

fn look() -> zo_testkit::RawTool {
    tool("look", |_, _| async { Ok("clear".into()) }).effect(Effect::Pure)
}

/// What a listener makes of events: text, finished tools, the end.
async fn follow(mut stream: RunStream, most: usize) -> (String, Vec<String>, Option<Reply>, Cursor) {
    let (mut text, mut tools, mut done) = (String::new(), Vec::new(), None);
    for _ in 0..most {
        match stream.next().await {
            Some(Ok(RunEvent::Text(t))) => text.push_str(&t),
            Some(Ok(RunEvent::ToolFinished { result, .. })) => tools.push(result.id),
            Some(Ok(RunEvent::Done(reply))) => done = Some(reply),
            Some(Ok(_)) => {}
            Some(Err(e)) => panic!("{e}"),
            None => break,
        }
    }
    (text, tools, done, stream.cursor())
}

#[tokio::test]
async fn a_stream_goes_on_from_its_cursor_wherever_it_broke() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|r| match r.messages.iter().filter(|m| m.role == Role::Tool).count() {
        n @ 0..3 => {
            let mut turn = Turn::calls([("1", "look", json!({}))]);
            if let Turn::Answer(a) = &mut turn {
                a.message.parts.insert(0, zo_core::Part::text(format!("thinking about step {n}. ")));
            }
            turn
        }
        _ => Turn::text("That was all."),
    });
    let zo = zo(&model, dir.path()).skill(look()).build().await.unwrap();
    let whole = follow(zo.stream("c", "go"), usize::MAX).await;
    let reply = whole.2.unwrap();
    assert_eq!(whole.0, "thinking about step 0. thinking about step 1. thinking about step 2. That was all.");
    assert_eq!(whole.1.len(), 3);
    for cut in 0..24 {
        let (text, tools, done, cursor) = follow(zo.attach(&reply.run, Cursor::start()), cut).await;
        let cursor: Cursor = cursor.to_string().parse().unwrap();
        let rest = follow(zo.attach(&reply.run, cursor), usize::MAX).await;
        let all_tools: std::collections::BTreeSet<_> = tools.iter().chain(&rest.1).collect();
        assert_eq!(text + &rest.0, whole.0, "cut after {cut} events at {cursor}");
        assert_eq!(all_tools.len(), 3);
        assert_eq!(done.or(rest.2).unwrap().text, reply.text);
    }
}

#[tokio::test]
async fn many_look_on_at_a_run_under_way_and_miss_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let model = looking();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let open = gate.clone();
    let slow = tool("look", move |_, _| {
        let open = open.clone();
        async move {
            open.acquire().await.unwrap().forget();
            Ok("clear".into())
        }
    });
    let zo = zo(&model, dir.path()).skill(slow.effect(Effect::Pure)).build().await.unwrap();
    let agent = zo.spawn(&Cx::default(), Ask::new("c", "go")).await.unwrap();
    let mut watchers = Vec::new();
    for _ in 0..20 {
        watchers.push(tokio::spawn(follow(agent.events(Cursor::start()), usize::MAX)));
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    let run = agent.run().clone();
    let reply = agent.reply().await.unwrap();
    for watcher in watchers {
        let (text, tools, done, _) = watcher.await.unwrap();
        assert_eq!((text, tools.len(), done.unwrap().text), (reply.text.clone(), 1, reply.text.clone()));
    }
    // And one who comes when all is over.
    assert_eq!(follow(zo.attach(&run, Cursor::start()), usize::MAX).await.0, reply.text);
}

#[tokio::test]
async fn a_listener_that_is_too_slow_is_told_and_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let long: String = (0..5_000).map(|i| format!("{i} ")).collect();
    let said = long.clone();
    let model = Scripted::by(move |_| {
        let mut events = vec![
            Ok(zo_core::StreamEvent::Start { id: None, model: None }),
            Ok(zo_core::StreamEvent::PartStart { index: 0, kind: zo_core::PartKind::Text }),
        ];
        events.extend(
            said.split_inclusive(' ').map(|t| Ok(zo_core::StreamEvent::Delta { index: 0, text: t.into() })),
        );
        events.push(Ok(zo_core::StreamEvent::PartEnd { index: 0, replay: None }));
        events.push(Ok(zo_core::StreamEvent::Finish(zo_core::FinishReason::Stop)));
        Turn::Events(events)
    });
    let zo = zo(&model, dir.path()).build().await.unwrap();
    let agent = zo.spawn(&Cx::default(), Ask::new("c", "go")).await.unwrap();
    let mut slow = agent.events(Cursor::start());
    let reply = agent.reply().await.unwrap();
    let (mut text, mut gaps) = (String::new(), 0);
    while let Some(event) = slow.next().await {
        match event.unwrap() {
            RunEvent::Text(t) => text.push_str(&t),
            RunEvent::Gap => gaps += 1,
            _ => {}
        }
    }
    assert_eq!(text, long);
    assert_eq!(reply.text, long);
    assert_eq!(gaps, 1);
}

#[tokio::test]
async fn what_is_said_to_a_run_is_heard_at_the_next_turn() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|r| {
        let said: Vec<_> = r.messages.iter().filter(|m| m.role == Role::User).map(Message::to_text).collect();
        match r.messages.iter().any(|m| m.role == Role::Tool) {
            false => Turn::calls([("1", "look", json!({}))]),
            true => Turn::text(&said.join("|")),
        }
    });
    let (begun, gate) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (tell, open) = (begun.clone(), gate.clone());
    let slow = tool("look", move |_, _| {
        let (tell, open) = (tell.clone(), open.clone());
        async move {
            tell.notify_one();
            open.notified().await;
            Ok("clear".into())
        }
    });
    let zo = zo(&model, dir.path()).skill(slow.effect(Effect::Pure)).build().await.unwrap();
    assert_eq!(zo.say("c", "anybody?").await.unwrap_err().kind(), ErrorKind::NotFound);
    let agent = zo.spawn(&Cx::default(), Ask::new("c", "first")).await.unwrap();
    begun.notified().await;
    zo.say("c", "second").await.unwrap();
    agent.say("third").await.unwrap();
    gate.notify_one();
    let reply = agent.reply().await.unwrap();
    assert_eq!(reply.text, "first|second|third");
    assert_eq!(zo.history("c").await.unwrap().iter().filter(|m| m.role == Role::User).count(), 3);
    assert_eq!(zo.say("c", "late").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_message_that_comes_with_the_last_answer_is_answered_too() {
    let dir = tempfile::tempdir().unwrap();
    let zo_slot: Arc<std::sync::OnceLock<Zo>> = Arc::default();
    let slot = zo_slot.clone();
    let model = Scripted::by(move |r| {
        let last = r.messages.last().unwrap().to_text();
        if last == "first" {
            // Said while the model gives what would be its last answer.
            let zo = slot.get().unwrap().clone();
            let said = std::thread::spawn(move || {
                let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                rt.block_on(zo.say("c", "second")).unwrap();
            });
            said.join().unwrap();
        }
        Turn::text(&format!("heard {last}"))
    });
    let agent = zo(&model, dir.path()).build().await.unwrap();
    zo_slot.set(agent.clone()).unwrap();
    let reply = agent.ask("c", "first").await.unwrap();
    assert_eq!(reply.text, "heard second");
    let texts: Vec<_> = agent.history("c").await.unwrap().iter().map(Message::to_text).collect();
    assert_eq!(texts, ["first", "heard first", "second", "heard second"]);
}

#[tokio::test]
async fn what_was_said_before_a_crash_is_heard_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|_| Turn::calls([("1", "look", json!({}))]));
    let begun = Arc::new(tokio::sync::Notify::new());
    let tell = begun.clone();
    let hang = tool("look", move |_, _| {
        tell.notify_one();
        std::future::pending()
    });
    let first = zo(&model, dir.path()).skill(hang.effect(Effect::Pure)).build().await.unwrap();
    let agent = first.spawn(&Cx::default(), Ask::new("c", "first")).await.unwrap();
    begun.notified().await;
    first.say("c", "second").await.unwrap();
    drop((first, agent));
    tokio::time::sleep(Duration::from_millis(50)).await;

    let model = Scripted::by(|r| Turn::text(&r.messages.last().unwrap().to_text()));
    let zo = zo(&model, dir.path()).skill(look()).build().await.unwrap();
    let run = zo.unfinished().unwrap()[0].run.clone();
    assert_eq!(zo.resume(&run).reply().await.unwrap().text, "second");
}

#[tokio::test]
async fn dropping_the_last_handle_ends_what_was_spawned() {
    let dir = tempfile::tempdir().unwrap();
    let zo1 = zo(&Scripted::new([Turn::Hang]), dir.path()).build().await.unwrap();
    let agent = zo1.spawn(&Cx::default(), Ask::new("c", "go")).await.unwrap();
    let run = agent.run().clone();
    drop(zo1);
    assert_eq!(agent.reply().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let model = Scripted::new([Turn::text("there you are")]);
    let zo2 = loop {
        match zo(&model, dir.path()).resume_on_start(true).build().await {
            Ok(zo) => break zo,
            Err(e) if e.kind() == ErrorKind::Conflict => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(e) => panic!("{e}"),
        }
    };
    assert!(zo2.running().contains(&run) || zo2.unfinished().unwrap().is_empty());
    let (text, _, done, _) = follow(zo2.attach(&run, Cursor::start()), usize::MAX).await;
    assert_eq!((text.as_str(), done.unwrap().text.as_str()), ("there you are", "there you are"));
    assert!(zo2.unfinished().unwrap().is_empty());
}

#[tokio::test]
async fn many_at_once_in_order_and_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by_unrecorded(|r| Turn::text(&r.messages.last().unwrap().to_text()));
    let zo = zo(&model, dir.path()).build().await.unwrap();
    let asks = |n: usize| (0..n).map(|i| Ask::new(format!("c{i}"), format!("m{i}")));
    let replies = zo.spawn_all(&Cx::default(), asks(200), 16).in_order().await;
    for (i, reply) in replies.iter().enumerate() {
        assert_eq!(reply.as_ref().unwrap().text, format!("m{i}"));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut all = zo.spawn_all(&Cx::default(), asks(50), 4);
    while let Some((i, reply)) = all.next().await {
        assert_eq!(reply.unwrap().text, format!("m{i}"));
        assert!(seen.insert(i));
    }
    assert_eq!((seen.len(), all.left()), (50, 0));
}

#[tokio::test]
async fn a_run_is_gone_through_again_without_asking_anybody_and_forked_from_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let model = looking();
    let zo1 = zo(&model, dir.path()).system("Be brief.").skill(look()).build().await.unwrap();
    zo1.ask("c", "before").await.unwrap();
    let reply = zo1.ask("c", "go").await.unwrap();
    drop(zo1);
    // Neither the tools nor the system text are what they were.
    let other = Scripted::new([Turn::text("another way")]);
    let zo2 = zo(&other, dir.path()).system("Be long.").build().await.unwrap();
    let replay = zo2.replay(&reply.run).await.unwrap();
    let sent: Vec<_> = model.asked().into_iter().skip(2).map(|a| a.request).collect();
    assert_eq!(replay.steps.iter().map(|s| s.request.clone()).collect::<Vec<_>>(), sent);
    assert_eq!(replay.reply.text, reply.text);
    assert_eq!(replay.steps[0].results[0].content, "clear");
    assert!(other.asked().is_empty());

    let fork = zo2.fork(&reply.run, 1, "elsewhere").await.unwrap();
    let forked = zo2.resume(&fork).reply().await.unwrap();
    assert_eq!(forked.text, "another way");
    let asked = &other.asked()[0].request.messages;
    assert_eq!(
        asked.iter().map(|m| m.role.as_str()).collect::<Vec<_>>(),
        ["system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
    );
    assert_eq!(zo2.history("c").await.unwrap().len(), 8, "the run stays as it is");
    assert_eq!(zo2.history("elsewhere").await.unwrap().len(), 8);
    assert_eq!(zo2.fork(&reply.run, 1, "elsewhere").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(zo2.fork(&reply.run, 9, "third").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(zo2.replay(&"nope".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_host_that_knows_supplies_the_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Arc::new(tokio::sync::Notify::new());
    let tell = begun.clone();
    let hang = tool("mail", move |_, _| {
        tell.notify_one();
        std::future::pending()
    });
    let model = Scripted::new([Turn::calls([("1", "mail", json!({}))])]);
    let first = zo(&model, dir.path()).skill(hang).build().await.unwrap();
    let agent = first.spawn(&Cx::default(), Ask::new("c", "go")).await.unwrap();
    begun.notified().await;
    drop((first, agent));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let zo = zo(&Scripted::new([Turn::text("fine")]), dir.path()).build().await.unwrap();
    let left = zo.unfinished().unwrap().remove(0);
    let result = zo_core::ToolResult::new(&left.unknown[0], ToolStatus::Ok, "it was sent at 10:02");
    let mut wrong = result.clone();
    wrong.id = "2".into();
    assert_eq!(zo.supply(&left.run, wrong).await.unwrap_err().kind(), ErrorKind::NotFound);
    zo.supply(&left.run, result.clone()).await.unwrap();
    assert!(zo.unfinished().unwrap()[0].unknown.is_empty());
    let reply = zo.resume(&left.run).reply().await.unwrap();
    assert_eq!(reply.messages[2].results().next().unwrap(), &result);
}

#[tokio::test]
async fn a_ledger_is_shared_and_no_restart_refills_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by_unrecorded(|_| Turn::text("15 tokens"));
    let ask = |i: usize| Ask::new(format!("c{i}"), "x").ledger("user/7");
    let limits = Limits::none().steps(5);
    let zo1 = zo(&model, dir.path()).build().await.unwrap();
    zo1.open_ledger("user/7", limits).await.unwrap();
    let all = zo1.spawn_all(&Cx::default(), (0..3).map(ask), 3).in_order().await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    drop(zo1);
    let zo2 = zo(&model, dir.path()).build().await.unwrap();
    let all = zo2.spawn_all(&Cx::default(), (0..50).map(ask), 50).in_order().await;
    assert_eq!(all.iter().filter(|r| r.is_ok()).count(), 2);
    assert!(
        all.iter().flatten().count()
            + all.iter().filter(|r| r.as_ref().is_err_and(|e| e.kind() == ErrorKind::Denied)).count()
            == 50
    );
    let ledger = zo2.ledgers().unwrap().remove(0);
    assert_eq!((ledger.id.as_str(), ledger.spent.steps, ledger.spent.tokens), ("user/7", 5, 75));
    assert_eq!(ledger.by["model"], Spend::steps(5).plus(Spend::tokens(75)));
}

#[tokio::test]
async fn an_answer_of_a_type_is_asked_for_again_until_it_fits() {
    #[derive(serde::Deserialize, zo_core::skills::schemars::JsonSchema, Debug, PartialEq)]
    #[schemars(crate = "zo_core::skills::schemars")]
    struct Cat {
        name: String,
        age: u8,
    }
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([
        Turn::text("It is Miso, who is 7."),
        Turn::text("{\"name\": \"Miso\"}"),
        Turn::text("```json\n{\"name\": \"Miso\", \"age\": 7}\n```"),
    ]);
    let zo = zo(&model, dir.path()).build().await.unwrap();
    let cat: Cat = zo.ask_as("c", "Which cat?").await.unwrap();
    assert_eq!(cat, Cat { name: "Miso".into(), age: 7 });
    let asked = model.asked();
    assert!(
        asked[0]
            .request
            .messages
            .iter()
            .any(|m| m.role == Role::System && m.to_text().contains("JSON Schema"))
    );
    assert!(
        asked[2].request.messages.last().unwrap().to_text().contains("age"),
        "the model is told what is missing"
    );
}

#[tokio::test]
async fn a_model_that_goes_round_in_circles_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|r| {
        if r.tool_choice == zo_core::ToolChoice::None {
            Turn::text("I give up")
        } else {
            Turn::calls([("1", "look", json!({}))])
        }
    });
    let zo = zo(&model, dir.path()).skill(look()).build().await.unwrap();
    let reply = zo.ask("c", "go").await.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish.as_str(), reply.steps), ("I give up", zo_core::LOOP, 7));
    let results: Vec<_> = reply.messages.iter().flat_map(Message::results).collect();
    assert_eq!(results[1].content, "clear");
    assert!(results[2].content.contains("call number 3"), "{}", results[2].content);
}

#[tokio::test]
async fn standing_instructions_are_part_of_every_run_of_their_scope() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|_| Turn::text("ok"));
    let zo = zo(&model, dir.path()).system("You are a bot.").build().await.unwrap();
    let scope = zo_core::Scope::new("user/7");
    let rule = zo.create_rule(&scope, "Answer in verse.", Some("it is Sunday")).await.unwrap();
    let ask = || Ask::new("c", "hi").scope("user/7");
    zo.ask_with(&Cx::default(), ask()).await.unwrap();
    zo.ask("d", "hi").await.unwrap();
    zo.enable_rule(&scope, rule.id, false).await.unwrap();
    zo.ask_with(&Cx::default(), ask()).await.unwrap();
    let systems: Vec<_> = model.asked().iter().map(|a| a.request.messages[0].to_text()).collect();
    assert!(
        systems[0].starts_with("You are a bot.")
            && systems[0].contains("When it is Sunday: Answer in verse.")
    );
    assert_eq!(systems[1..], ["You are a bot.", "You are a bot."]);
    assert!(zo.delete_rule(&scope, rule.id).await.unwrap() && zo.rules(&scope).unwrap().is_empty());
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_and_one_that_lasts_too_long_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let limited = |wait: u64| {
        let e = zo_core::Error::new(ErrorKind::RateLimited, "x", "slow down");
        Turn::Fail(e.with_retry_after(Duration::from_millis(wait)))
    };
    let model = Scripted::new([limited(30), limited(30), Turn::text("there you are"), limited(3_600_000)]);
    let zo = zo(&model, dir.path()).build().await.unwrap();
    let mut stream = zo.stream("c", "go");
    let mut waits = 0;
    let reply = loop {
        match stream.next().await.unwrap().unwrap() {
            RunEvent::Waiting { .. } => waits += 1,
            RunEvent::Done(reply) => break reply,
            _ => {}
        }
    };
    assert_eq!((reply.text.as_str(), waits, reply.steps), ("there you are", 2, 1));
    assert_eq!(zo.ask("c", "again").await.unwrap_err().kind(), ErrorKind::RateLimited);
}
