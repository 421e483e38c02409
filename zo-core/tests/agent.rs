//! The agent loop from the outside: what a host sees of it, and what the model is sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "memory")]

use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::Barrier;
use zo_core::{
    Ask, Cx, Effect, Error, ErrorKind, FinishReason, Limits, Message, Part, PartKind, Role, RunEvent,
    STEP_LIMIT, StreamEvent, ToolOutput, ToolStatus, Zo, ZoBuilder,
};
use zo_testkit::{Scripted, Turn, tool};

fn zo(model: &Scripted) -> ZoBuilder {
    Zo::builder().provider(model.clone())
}

/// The results that the model was shown in its last request.
fn shown(model: &Scripted) -> Vec<zo_core::ToolResult> {
    let asked = model.asked();
    asked.last().unwrap().request.messages.iter().flat_map(|m| m.results().cloned()).collect()
}

#[tokio::test]
async fn answers_and_keeps_the_conversation() {
    let model = Scripted::new([Turn::text("hello"), Turn::text("again")]);
    let zo = zo(&model).system("Be brief.").build().await.unwrap();
    let reply = zo.ask("c", "hi").await.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish, reply.steps), ("hello", FinishReason::Stop, 1));
    zo.ask("c", "more").await.unwrap();
    let sent = &model.asked()[1].request.messages;
    let said: Vec<_> = sent.iter().map(|m| (m.role.as_str(), m.to_text())).collect();
    assert_eq!(
        said,
        [("system", "Be brief."), ("user", "hi"), ("assistant", "hello"), ("user", "more")]
            .map(|(r, t)| (r, t.to_owned()))
    );
    assert_eq!(zo.history("c").await.unwrap().len(), 4);
    assert!(zo.history("other").await.unwrap().is_empty());
}

#[tokio::test]
async fn each_request_begins_with_the_one_before() {
    let model = Scripted::by(|r| {
        if r.messages.len() % 5 == 1 { Turn::calls([("x", "t", json!({}))]) } else { Turn::text("ok") }
    });
    let zo = zo(&model).skill(tool("t", |_, _| async { Ok("done".into()) })).build().await.unwrap();
    for i in 0..8 {
        zo.ask("c", format!("message {i}")).await.unwrap();
    }
    let asked = model.asked();
    for pair in asked.windows(2) {
        let (a, b) = (&pair[0].request, &pair[1].request);
        assert_eq!(
            a.messages[..],
            b.messages[..a.messages.len()],
            "the prefix changed, so no cache would hit"
        );
        assert_eq!(a.tools, b.tools);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_run_in_parallel_and_results_keep_call_order() {
    let model = Scripted::new([
        Turn::calls([
            ("a", "meet", json!({"n": 1})),
            ("b", "meet", json!({"n": 2})),
            ("c", "meet", json!({"n": 3})),
        ]),
        Turn::text("done"),
    ]);
    // Passes only when all three are inside at the same time.
    let barrier = Arc::new(Barrier::new(3));
    let meet = tool("meet", move |_, call| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            let n = call.args["n"].as_u64().unwrap();
            tokio::time::sleep(Duration::from_millis(20 * (4 - n))).await;
            Ok(n.into())
        }
    });
    let zo = zo(&model).skill(meet).tool_timeout(Duration::from_secs(10)).build().await.unwrap();
    zo.ask("c", "go").await.unwrap();
    let got: Vec<_> = shown(&model).iter().map(|r| (r.id.clone(), r.content.clone())).collect();
    assert_eq!(got, [("a", "1"), ("b", "2"), ("c", "3")].map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[tokio::test]
async fn serial_tools_run_alone() {
    let calls = || {
        Turn::calls([
            ("1", "s", json!({})),
            ("2", "p", json!({})),
            ("3", "s", json!({})),
            ("4", "p", json!({})),
        ])
    };
    let model = Scripted::new([calls(), Turn::text("done")]);
    let running = Arc::new(AtomicU32::new(0));
    let body = |serial: bool| {
        let running = running.clone();
        move |_: Cx, _| {
            let running = running.clone();
            async move {
                let others = running.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                let together = running.fetch_sub(1, Ordering::SeqCst);
                assert!(!serial || (others == 0 && together == 1), "something ran beside a serial tool");
                Ok(ToolOutput::text("ok"))
            }
        }
    };
    let zo =
        zo(&model).skill(tool("s", body(true)).serial()).skill(tool("p", body(false))).build().await.unwrap();
    zo.ask("c", "go").await.unwrap();
    assert!(shown(&model).iter().all(|r| r.status == ToolStatus::Ok), "{:?}", shown(&model));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn failing_panicking_and_hanging_tools_cost_only_their_own_result() {
    let model = Scripted::new([
        Turn::calls([
            ("1", "fails", json!({})),
            ("2", "panics", json!({})),
            ("3", "hangs", json!({})),
            ("4", "works", json!({})),
        ]),
        Turn::text("done"),
    ]);
    let zo = zo(&model)
        .tool_timeout(Duration::from_secs(1))
        .skill(tool("fails", |_, _| async {
            Err(Error::new(ErrorKind::Unavailable, "x", "password hunter2")
                .with_model_text("the printer is on fire"))
        }))
        .skill(tool("panics", |_, _| async { panic!("boom") }))
        .skill(tool("hangs", |_, _| std::future::pending()).effect(Effect::Pure))
        .skill(tool("works", |_, _| async { Ok("fine".into()) }))
        .build()
        .await
        .unwrap();
    assert_eq!(zo.ask("c", "go").await.unwrap().text, "done");
    let got = shown(&model);
    assert_eq!(got[0].content, "the printer is on fire");
    assert!(got[1].content.contains("crashed"), "{}", got[1].content);
    assert!(got[2].content.contains("did not finish within 1s"), "{}", got[2].content);
    // One that says that it failed has failed; of one that must not be repeated and was stopped nobody knows.
    let statuses: Vec<_> = got.iter().map(|r| r.status.clone()).collect();
    assert_eq!(statuses, [ToolStatus::Error, ToolStatus::Unknown, ToolStatus::Error, ToolStatus::Ok]);
    assert_eq!((got[3].status.clone(), got[3].content.as_str()), (ToolStatus::Ok, "fine"));
    assert!(!serde_json::to_string(&got).unwrap().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_blocks_its_thread_is_left_behind() {
    let model = Scripted::new([Turn::calls([("1", "blocks", json!({}))]), Turn::text("done")]);
    let blocks = tool("blocks", |_, _| async {
        std::thread::sleep(Duration::from_millis(600));
        Ok("too late".into())
    });
    let zo = zo(&model).tool_timeout(Duration::from_millis(100)).skill(blocks.effect(Effect::Idempotent));
    assert_eq!(zo.build().await.unwrap().ask("c", "go").await.unwrap().text, "done");
    assert!(shown(&model)[0].content.contains("did not finish"));
}

#[tokio::test]
async fn bad_calls_never_reach_a_skill() {
    let model = Scripted::new([
        Turn::calls([
            ("1", "add", json!({"a": 1})),
            ("2", "add", json!("{\"a\": 1, \"b\":")),
            ("3", "ad", json!({"a": 1, "b": 2})),
            ("4", "add", json!({"a": 1, "b": "2"})),
            ("4", "add", json!({"a": 1, "b": 2})),
        ]),
        Turn::text("done"),
    ]);
    let ran = Arc::new(AtomicU32::new(0));
    let count = ran.clone();
    let schema = json!({"type": "object", "required": ["a", "b"],
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}});
    let add = tool("add", move |_, call| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { Ok((call.args["a"].as_i64().unwrap() + call.args["b"].as_i64().unwrap()).into()) }
    });
    let zo = zo(&model).skill(add.schema(schema)).build().await.unwrap();
    zo.ask("c", "go").await.unwrap();
    let got = shown(&model);
    assert!(got[0].content.contains("`b` is required"), "{}", got[0].content);
    assert!(got[1].content.contains("not JSON"), "{}", got[1].content);
    assert!(
        got[2].content.contains("no tool named \"ad\"") && got[2].content.contains("add"),
        "{}",
        got[2].content
    );
    assert!(got[3].content.contains("/b: expected integer"), "{}", got[3].content);
    assert!(
        got[4].id.starts_with("4-") && got[4].content == "3",
        "a repeated id is made unique: {:?}",
        got[4]
    );
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn streams_events_in_order() {
    let model = Scripted::new([
        Turn::Events(
            [
                StreamEvent::PartStart { index: 0, kind: PartKind::Reasoning },
                StreamEvent::Delta { index: 0, text: "hm".into() },
                StreamEvent::PartEnd { index: 0, replay: None },
                StreamEvent::PartStart {
                    index: 1,
                    kind: PartKind::ToolCall { id: "1".into(), name: "t".into() },
                },
                StreamEvent::Delta { index: 1, text: "{}".into() },
                StreamEvent::PartEnd { index: 1, replay: None },
                StreamEvent::Finish(FinishReason::ToolCalls),
            ]
            .into_iter()
            .map(Ok)
            .collect(),
        ),
        Turn::text("hello"),
    ]);
    let zo = zo(&model)
        .skill(tool("t", |_, _| async { Ok(ToolOutput::text("seen").with_data(json!({"host": 1}))) }))
        .build()
        .await
        .unwrap();
    let mut stream = zo.stream("c", "hi");
    let mut seen = Vec::new();
    while let Some(event) = stream.next().await {
        seen.push(match event.unwrap() {
            RunEvent::Started(_) => "started".into(),
            RunEvent::Text(t) => format!("text {t}"),
            RunEvent::Reasoning(t) => format!("reasoning {t}"),
            RunEvent::ToolStarted(c) => format!("start {}", c.name),
            RunEvent::ToolFinished { result, output } => format!("end {} {:?}", result.content, output.data),
            RunEvent::Usage(u) => format!("usage {}", u.total()),
            RunEvent::Done(r) => format!("done {}", r.text),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(
        seen,
        [
            "started",
            "reasoning hm",
            "usage 0",
            "start t",
            "end seen Some(Object {\"host\": Number(1)})",
            "text hello",
            "usage 15",
            "done hello"
        ]
    );
}

#[tokio::test]
async fn a_cut_stream_is_an_error_and_never_an_answer() {
    let cut = Turn::Events(vec![
        Ok(StreamEvent::PartStart { index: 0, kind: PartKind::Text }),
        Ok(StreamEvent::Delta { index: 0, text: "half an ans".into() }),
    ]);
    let model = Scripted::new([cut, Turn::text("whole")]);
    let zo = zo(&model).build().await.unwrap();
    assert_eq!(zo.ask("c", "hi").await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(zo.history("c").await.unwrap().is_empty(), "a failed question leaves the conversation as it was");
    assert_eq!(zo.ask("c", "hi").await.unwrap().text, "whole");
}

#[tokio::test]
async fn steps_are_bounded_and_the_last_one_offers_no_choice_of_tools() {
    let model = Scripted::by(|_| Turn::calls([("x", "t", json!({}))]));
    let zo = zo(&model).max_steps(3).skill(tool("t", |_, _| async { Ok("r".into()) })).build().await.unwrap();
    let reply = zo.ask("c", "loop").await.unwrap();
    assert_eq!((reply.steps, reply.finish), (3, FinishReason::Other(STEP_LIMIT.into())));
    let asked = model.asked();
    assert_eq!(asked[2].request.tool_choice, zo_core::ToolChoice::None);
    assert_eq!(asked[1].request.tool_choice, zo_core::ToolChoice::Auto);
}

/// The same turn at another price.
fn costly(turn: Turn, tokens: u64) -> Turn {
    match turn {
        Turn::Answer(mut answer) => {
            answer.usage = zo_core::Usage::new(tokens - 5, 5);
            Turn::Answer(answer)
        }
        other => other,
    }
}

#[tokio::test]
async fn token_limits_stop_a_run() {
    let model = Scripted::by(|_| costly(Turn::calls([("x", "t", json!({}))]), 1_000));
    let zo = zo(&model)
        .limits(Limits::none().tokens(4_000))
        .skill(tool("t", |_, _| async { Ok("r".into()) }))
        .build()
        .await
        .unwrap();
    // The request counts before it is sent: where it might not fit any more, it is not.
    let e = zo.ask("c", "loop").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    let spent = e.source_as::<zo_core::Overspent>().unwrap();
    assert!((2..=3).contains(&model.asked().len()), "{}", model.asked().len());
    assert_eq!(spent.spent.tokens, 1_000 * model.asked().len() as u64);
    assert!(e.to_string().contains("tokens"), "{e}");
    let most = model.asked().last().unwrap().request.max_tokens.unwrap();
    assert!(most < 4_000, "the answer is bounded by what is left: {most}");
}

#[tokio::test]
async fn cancellation_races_the_model_and_the_tools() {
    let model = Scripted::new([Turn::Hang]);
    let zo1 = zo(&model).build().await.unwrap();
    let cx = Cx::new("");
    let (run, cancel) = (zo1.ask_with(&cx, Ask::new("c", "hi")), cx.cancel().clone());
    let (outcome, ()) = tokio::join!(run, async {
        tokio::task::yield_now().await;
        cancel.cancel();
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);

    let model = Scripted::new([Turn::calls([("1", "hangs", json!({}))]), Turn::text("next")]);
    let stopped = Arc::new(AtomicU32::new(0));
    let inside = Arc::new(tokio::sync::Notify::new());
    let (flag, entered) = (stopped.clone(), inside.clone());
    let hangs = tool("hangs", move |_, _| {
        struct OnDrop(Arc<AtomicU32>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (guard, entered) = (OnDrop(flag.clone()), entered.clone());
        async move {
            let _guard = guard;
            entered.notify_one();
            std::future::pending().await
        }
    });
    let zo2 = zo(&model).skill(hangs).build().await.unwrap();
    let cx = Cx::new("");
    let mut stream = zo2.stream_with(&cx, Ask::new("c", "go"));
    loop {
        tokio::select! {
            () = inside.notified() => cx.cancel().cancel(),
            event = stream.next() => match event.unwrap() {
                Ok(_) => {}
                Err(e) => break assert_eq!(e.kind(), ErrorKind::Cancelled),
            },
        }
    }
    tokio::time::timeout(Duration::from_secs(5), async {
        while stopped.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the tool was dropped");
    // The conversation is valid and goes on.
    let history = zo2.history("c").await.unwrap();
    assert_eq!(history.last().unwrap().results().next().unwrap().status, ToolStatus::Unknown);
    assert_eq!(zo2.ask("c", "still there?").await.unwrap().text, "next");
}

#[tokio::test]
async fn dropping_the_stream_stops_the_run() {
    let model = Scripted::new([Turn::calls([("1", "hangs", json!({}))])]);
    let alive = Arc::new(());
    let token = alive.clone();
    let hangs = tool("hangs", move |_, _| {
        let token = token.clone();
        async move {
            let _token = token;
            std::future::pending().await
        }
    });
    let zo = zo(&model).skill(hangs).build().await.unwrap();
    let mut stream = zo.stream("c", "go");
    while !matches!(stream.next().await, Some(Ok(RunEvent::ToolStarted(_)))) {}
    tokio::task::yield_now().await;
    let during = Arc::strong_count(&alive);
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), async {
        while Arc::strong_count(&alive) >= during {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the tool's task ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ask_all_runs_at_once_and_keeps_order() {
    let barrier = Arc::new(Barrier::new(3));
    let model = Scripted::by(|r| match r.messages.last() {
        Some(m) if m.role == Role::Tool => Turn::text(&m.results().next().unwrap().content),
        Some(m) if m.to_text() == "fail" => Turn::Fail(Error::new(ErrorKind::Unauthorized, "x", "no key")),
        Some(m) => Turn::calls([("1", "meet", json!({"text": m.to_text()}))]),
        None => unreachable!(),
    });
    let meet = tool("meet", move |_, call| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            Ok(call.args["text"].as_str().unwrap().into())
        }
    });
    let zo = zo(&model).skill(meet).build().await.unwrap();
    let all = zo.ask_all([("a", "one"), ("b", "two"), ("x", "fail"), ("c", "three")]).await;
    let texts: Vec<_> =
        all.iter().map(|r| r.as_ref().map(|r| r.text.as_str()).map_err(Error::kind)).collect();
    assert_eq!(texts, [Ok("one"), Ok("two"), Err(ErrorKind::Unauthorized), Ok("three")]);
}

#[tokio::test]
async fn runs_of_one_conversation_follow_each_other() {
    let model = Scripted::by(|r| Turn::text(&format!("{}", r.messages.len())));
    let zo = zo(&model).build().await.unwrap();
    let all = zo.ask_all((0..5).map(|i| ("same", format!("{i}")))).await;
    let mut lens: Vec<_> = all.into_iter().map(|r| r.unwrap().text).collect();
    lens.sort();
    assert_eq!(lens, ["1", "3", "5", "7", "9"], "each saw all that came before it");
}

#[tokio::test]
async fn long_outputs_are_shortened_for_the_model_and_kept_for_reading_on() {
    let dir = tempfile::tempdir().unwrap();
    let big: String = (0..1_000_000).map(|i| format!("{i:09}\n")).collect();
    let len = big.len();
    let text = big.clone();
    let model = Scripted::by(move |r| {
        let results: Vec<_> = r.messages.iter().flat_map(Message::results).collect();
        match results.as_slice() {
            [] => Turn::calls([("1", "big", json!({}))]),
            [first] => {
                let id = first.content.split("id \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
                Turn::calls([("2", "read_output", json!({"id": id, "offset": 5_000_000}))])
            }
            _ => Turn::text("read"),
        }
    });
    let zo = zo(&model)
        .file(dir.path().join("z"))
        .skill(tool("big", move |_, _| {
            let text = text.clone();
            async move { Ok(text.into()) }
        }))
        .build()
        .await
        .unwrap();
    let mut whole = 0;
    let mut stream = zo.stream("c", "go");
    while let Some(event) = stream.next().await {
        if let RunEvent::ToolFinished { output, result } = event.unwrap()
            && result.name == "big"
        {
            whole = output.text.len();
            assert!(result.content.len() < 40_000);
        }
    }
    assert_eq!(whole, len, "the host gets all of it");
    let second = shown(&model)[1].content.clone();
    assert!(
        second.starts_with("000500000\n") && second.contains("bytes follow; read on at offset"),
        "{}",
        &second[..60]
    );
}

#[tokio::test]
async fn recalled_memories_are_shown_for_one_question_and_one_scope() {
    let model = Scripted::by(|_| Turn::text("ok"));
    let zo = zo(&model).build().await.unwrap();
    let cx = Cx::default();
    let memory = zo.memory().unwrap();
    memory
        .remember(&cx, &"default".into(), vec![zo_core::NewMemory::text("The cat is called Miso")])
        .await
        .unwrap();
    memory
        .remember(&cx, &"other".into(), vec![zo_core::NewMemory::text("The cat is a secret")])
        .await
        .unwrap();
    let ask = |scope: &str| Ask::new("c", "What is my cat called?").scope(scope);
    zo.ask_with(&cx, ask("default")).await.unwrap();
    zo.ask_with(&cx, ask("other")).await.unwrap();
    let facts = |n: usize| -> Vec<String> {
        let sent = &model.asked()[n].request.messages;
        assert_eq!(sent.last().unwrap().role, Role::System, "the facts stand behind the question");
        sent.iter().filter(|m| m.role == Role::System).map(Message::to_text).collect()
    };
    let [mine, theirs] = [facts(0), facts(1)];
    assert!(mine.len() == 1 && mine[0].starts_with(zo_core::MEMORIES_HEADING), "{mine:?}");
    assert!(mine[0].ends_with("\n- The cat is called Miso"), "{mine:?}");
    assert!(
        theirs.len() == 1 && theirs[0].ends_with("\n- The cat is a secret"),
        "another scope's facts stayed: {theirs:?}"
    );
    assert!(
        zo.history("c").await.unwrap().iter().all(|m| m.role != Role::System),
        "facts join no conversation"
    );
}

#[tokio::test]
async fn the_models_memory_tools_stay_in_the_scope_of_the_ask() {
    let model = Scripted::by(|r| match r.messages.last() {
        Some(m) if m.role == Role::Tool => Turn::text(&m.results().next().unwrap().content),
        Some(m) if m.to_text().starts_with("Remember") => {
            Turn::calls([("1", "remember", json!({"text": "the door code is 4711"}))])
        }
        _ => Turn::calls([("1", "recall", json!({"query": "door code"}))]),
    });
    let zo = zo(&model).build().await.unwrap();
    let cx = Cx::default();
    zo.ask_with(&cx, Ask::new("a", "Remember the code").scope("ada")).await.unwrap();
    let hers = zo.ask_with(&cx, Ask::new("b", "What is it?").scope("ada")).await.unwrap();
    let his = zo.ask_with(&cx, Ask::new("c", "What is it?").scope("bob")).await.unwrap();
    assert!(hers.text.contains("4711"), "{}", hers.text);
    assert_eq!(his.text, "nothing found");
}

#[tokio::test]
async fn a_request_that_is_too_long_is_tried_again_with_less_history() {
    let model = Scripted::by(|r| {
        if r.messages.len() > 12 {
            Turn::Fail(Error::new(ErrorKind::ContextOverflow, "x", "too long"))
        } else {
            Turn::text("ok")
        }
    });
    let zo = zo(&model).system("s").build().await.unwrap();
    for i in 0..20 {
        zo.ask("c", format!("m{i}")).await.unwrap();
    }
    assert_eq!(zo.history("c").await.unwrap().len(), 40, "nothing is forgotten on disk");
    let last = model.asked().last().unwrap().request.clone();
    assert_eq!(last.messages[0].to_text(), "s");
    assert_eq!(last.messages.last().unwrap().to_text(), "m19");
}

#[tokio::test]
async fn deadlines_and_budgets_of_the_host_hold() {
    let model = Scripted::by(|_| Turn::Hang);
    let zo1 = zo(&model).build().await.unwrap();
    // However old the agent and its clock are.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let cx = Cx::new("").with_timeout(Duration::from_millis(100));
    let begun = std::time::Instant::now();
    assert_eq!(zo1.ask_with(&cx, Ask::new("c", "x")).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let zo2 = zo(&model).run_timeout(Duration::from_millis(20)).build().await.unwrap();
    assert_eq!(zo2.ask("c", "x").await.unwrap_err().kind(), ErrorKind::Timeout);

    let model = Scripted::by(|_| Turn::text("15 tokens"));
    let zo3 = zo(&model).build().await.unwrap();
    let budget = zo_core::Budget::new(Limits::none().steps(2));
    let cx = Cx::new("").with_budget(budget.clone());
    zo3.ask_with(&cx, Ask::new("a", "x")).await.unwrap();
    zo3.ask_with(&cx, Ask::new("b", "x")).await.unwrap();
    assert_eq!(budget.spent().tokens, 30);
    assert_eq!(zo3.ask_with(&cx, Ask::new("c", "x")).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_kept_output_is_read_by_its_own_conversation_and_scope_alone() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|r| {
        let last = r.messages.last().unwrap();
        match (last.role.clone(), last.to_text()) {
            (Role::User, t) if t == "look" => Turn::calls([("1", "big", json!({}))]),
            (Role::User, id) => Turn::calls([("2", "read_output", json!({"id": id, "offset": 50_001}))]),
            _ => Turn::text(&last.results().next().unwrap().content),
        }
    });
    let big = tool("big", |_, _| async { Ok("\u{20ac}".repeat(100_000).into()) });
    let zo = zo(&model).file(dir.path().join("z")).skill(big).build().await.unwrap();
    let cx = Cx::default();
    let first = zo.ask_with(&cx, Ask::new("c", "look").scope("ada")).await.unwrap();
    let id = first.text.split("id \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let hers = zo.ask_with(&cx, Ask::new("c", &id).scope("ada")).await.unwrap().text;
    assert!(hers.starts_with('\u{20ac}') && !hers.contains('\u{fffd}'), "pages are cut between characters");
    for (conversation, scope) in [("c", "bob"), ("other", "ada")] {
        let his = zo.ask_with(&cx, Ask::new(conversation, &id).scope(scope)).await.unwrap().text;
        assert!(his.contains("no kept output"), "{his}");
    }
}

#[tokio::test]
async fn two_agents_cannot_work_on_one_store() {
    let store = zo_core::store::Store::in_memory().unwrap();
    let model = Scripted::by(|_| Turn::text("ok"));
    let first = zo(&model).store(store.clone()).build().await.unwrap();
    assert_eq!(zo(&model).store(store.clone()).build().await.unwrap_err().kind(), ErrorKind::Conflict);
    drop(first);
    zo(&model).store(store).build().await.unwrap();
}

#[tokio::test]
async fn a_bad_reload_of_tools_leaves_the_last_good_ones() {
    #[derive(Debug)]
    struct Reloading(zo_core::SkillManifest, std::sync::Mutex<Arc<[zo_core::ToolSpec]>>);
    #[zo_core::async_trait]
    impl zo_core::Skill for Reloading {
        fn manifest(&self) -> &zo_core::SkillManifest {
            &self.0
        }
        fn tools(&self) -> Arc<[zo_core::ToolSpec]> {
            self.1.lock().unwrap().clone()
        }
        async fn call(&self, _: &Cx, _: &zo_core::ToolCall) -> zo_core::Result<ToolOutput> {
            Ok("x".into())
        }
    }
    let spec = |name: &str| -> Arc<[zo_core::ToolSpec]> {
        [zo_core::ToolSpec::new(name, "d", json!({"type": "object"}))].into()
    };
    let skill = Arc::new(Reloading(zo_core::SkillManifest::new("r", "d"), spec("good").into()));
    let model = Scripted::by(|_| Turn::text("ok"));
    let zo = zo(&model).skill(skill.clone()).build().await.unwrap();
    *skill.1.lock().unwrap() = spec("bad name!");
    let mut warned = false;
    let mut stream = zo.stream("c", "x");
    while let Some(event) = stream.next().await {
        warned |= matches!(event.unwrap(), RunEvent::Warning(_));
    }
    assert!(warned);
    let names = |n: usize| model.asked()[n].request.tools.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
    assert!(names(0).contains(&"good".into()));
    *skill.1.lock().unwrap() = spec("better");
    zo.ask("c", "x").await.unwrap();
    assert!(names(1).contains(&"better".into()));
}

#[tokio::test]
async fn a_stream_that_stays_open_behind_its_end_does_not_hang_the_run() {
    #[derive(Debug)]
    struct Lingers;
    #[zo_core::async_trait]
    impl zo_core::Provider for Lingers {
        fn id(&self) -> &str {
            "lingers"
        }
        async fn stream(
            &self,
            _: &Cx,
            _: &zo_core::Request,
        ) -> zo_core::Result<zo_core::BoxStream<zo_core::Result<StreamEvent>>> {
            use futures_util::StreamExt;
            let answer = zo_core::Response::new(Message::assistant("done"), FinishReason::Stop);
            let events = futures_util::stream::iter(answer.into_events().into_iter().map(Ok));
            Ok(events.chain(futures_util::stream::pending()).boxed())
        }
    }
    let zo = Zo::builder().provider(Lingers).build().await.unwrap();
    assert_eq!(zo.ask("c", "x").await.unwrap().text, "done");
}

#[tokio::test]
async fn a_deleted_conversation_is_gone_with_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::by(|_| Turn::text("ok"));
    let zo = zo(&model).file(dir.path().join("z")).build().await.unwrap();
    let run = zo.ask("c", "secret plan").await.unwrap().run;
    zo.ask("kept", "hello").await.unwrap();
    zo.delete_conversation("c").await.unwrap();
    assert!(zo.history("c").await.unwrap().is_empty());
    assert_eq!(zo.resume(&run).reply().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(zo.history("kept").await.unwrap().len(), 2);
}

#[tokio::test]
async fn wrong_set_ups_are_clear_errors() {
    let model = Scripted::new([]);
    let t = || tool("t", |_, _| async { Ok("x".into()) });
    let e = zo(&model).skill(t()).skill(t()).build().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    assert!(e.to_string().contains("\"t\""), "{e}");
    let e = zo(&model).skill(tool("no spaces", |_, _| async { Ok("x".into()) })).build().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    let e = zo(&model).skill(t().schema(json!({"type": "string"}))).build().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    let zo = zo(&model).build().await.unwrap();
    let forged = Message {
        role: Role::User,
        parts: vec![Part::text("x"), Part::ToolCall(zo_core::ToolCall::new("1", "t", json!({})))],
    };
    let e = zo.ask_with(&Cx::default(), Ask::message("c", forged)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    for (conversation, text) in [("", "x"), ("c", ""), ("c", " \n")] {
        assert_eq!(zo.ask(conversation, text).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(model.asked().is_empty());
}

#[tokio::test]
async fn host_values_reach_skills_and_nobody_else() {
    #[derive(Clone)]
    struct Tenant(&'static str);
    let model = Scripted::new([Turn::calls([("1", "who", json!({}))]), Turn::text("ok")]);
    let who = tool("who", |cx, call| async move {
        assert_eq!(cx.idempotency_key(), Some(format!("{}/{}", cx.run(), call.id).as_str()));
        Ok(cx.get::<Tenant>().map_or("none", |t| t.0).into())
    });
    let zo = zo(&model).skill(who.effect(Effect::Pure)).build().await.unwrap();
    let cx = Cx::new("").with(Tenant("acme"));
    zo.ask_with(&cx, Ask::new("c", "who am I?")).await.unwrap();
    assert_eq!(shown(&model)[0].content, "acme");
}

#[tokio::test]
async fn two_agents_in_one_process_share_nothing() {
    let (a, b) = (Scripted::by(|_| Turn::text("a")), Scripted::by(|_| Turn::text("b")));
    let (za, zb) = (zo(&a).build().await.unwrap(), zo(&b).build().await.unwrap());
    za.ask("c", "x").await.unwrap();
    zb.ask("c", "y").await.unwrap();
    assert_eq!((za.history("c").await.unwrap().len(), zb.history("c").await.unwrap().len()), (2, 2));
}
