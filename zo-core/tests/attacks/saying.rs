//! What is said to a run, whatever else goes on: it is heard once, or whoever said it is told that it was not.

use crate::common::{
    Events, Fed, Gate, calls_once, fill, hang, interrupted, over, poll_once, polled, slow_store, texts,
    whole, within, zo,
};
use serde_json::json;
use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use zo_core::{Ask, Cx, Error, ErrorKind, Message, Result, RunEvent, Zo};
use zo_testkit::{Scripted, Turn};

/// A model beside whose first answer `words` are said in conversation "c"; the cell takes the agent.
fn overheard(
    words: &'static str,
    answer: impl Fn(usize) -> Result<Events> + Send + Sync + 'static,
) -> (Fed, Arc<OnceLock<Zo>>) {
    let cell: Arc<OnceLock<Zo>> = Arc::default();
    let (zo, answer) = (cell.clone(), Arc::new(answer));
    let model = Fed::new(move |n| {
        let (zo, answer) = (zo.get().unwrap().clone(), answer.clone());
        async move {
            if n == 0 {
                zo.say("c", words).await.unwrap();
            }
            answer(n)
        }
    });
    (model, cell)
}

/// Does `work` and all along tries to say `words`; whether somebody took them.
pub(crate) async fn say_beside<F: Future>(
    zo: &Zo,
    conversation: &str,
    words: &str,
    work: F,
) -> (F::Output, bool) {
    let over = AtomicBool::new(false);
    let work = async {
        let out = work.await;
        over.store(true, SeqCst);
        out
    };
    let say = async {
        while !over.load(SeqCst) {
            match zo.say(conversation, words).await {
                Ok(_) => return true,
                Err(e) if e.kind() == ErrorKind::NotFound => tokio::task::yield_now().await,
                Err(_) => return false,
            }
        }
        false
    };
    tokio::join!(work, say)
}

fn times(messages: &[Message], words: &str) -> usize {
    messages.iter().filter(|m| m.to_text() == words).count()
}

#[tokio::test]
async fn what_was_said_survives_a_first_answer_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (model, cell) = overheard("remember the milk", |_| {
        Err(Error::new(ErrorKind::Unauthorized, "test", "the key is bad"))
    });
    let zo = zo(model, dir.path()).build().await.unwrap();
    cell.set(zo.clone()).unwrap();
    assert_eq!(zo.ask("c", "q").await.unwrap_err().kind(), ErrorKind::Unauthorized);
    let history = texts(&zo, "c").await;
    let there = history.iter().any(|t| t.contains("milk"));
    assert!(there || !zo.unfinished().unwrap().is_empty(), "{history:?}");
}

#[tokio::test]
async fn what_is_said_while_a_run_is_given_up_joins_the_conversation_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let zo = zo(calls_once("look"), dir.path()).skill(hang("look")).build().await.unwrap();
    let run = interrupted(&zo, "c").await;
    let (done, said) = say_beside(&zo, "c", "milk", zo.abandon(&run)).await;
    done.unwrap();
    let history = texts(&zo, "c").await;
    assert_eq!(history.iter().filter(|t| *t == "milk").count(), usize::from(said), "{history:?}");
}

#[tokio::test]
async fn a_run_replays_that_was_spoken_to_beside_an_answer_that_is_sent_back() {
    let dir = tempfile::tempdir().unwrap();
    let (model, cell) =
        overheard("hurry", |n| whole(Turn::text(if n == 0 { "not json" } else { "{\"n\":1}" })));
    let zo = zo(model, dir.path()).build().await.unwrap();
    cell.set(zo.clone()).unwrap();
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let reply = zo.ask_with(&Cx::new(""), Ask::new("c", "q").output_schema(schema)).await.unwrap();
    assert_eq!(times(&reply.messages, "hurry"), 1);
    assert_eq!(zo.replay(&reply.run).await.unwrap().reply.messages, reply.messages);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_who_speak_at_once_are_heard_and_the_run_replays() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::shut();
    let zo = zo(calls_once("look"), dir.path()).skill(gate.tool("look")).build().await.unwrap();
    for round in 0..30 {
        let c = format!("c{round}");
        let agent = zo.spawn(&Cx::new(""), Ask::new(&c, "go")).await.unwrap();
        gate.reached(round + 1).await;
        let speakers: Vec<_> = (0..16)
            .map(|k| {
                let (zo, c) = (zo.clone(), c.clone());
                tokio::spawn(async move { zo.say(&c, format!("m{k}")).await.unwrap() })
            })
            .collect();
        for speaker in speakers {
            speaker.await.unwrap();
        }
        gate.let_through(1);
        let reply = within(agent.reply()).await.unwrap();
        for k in 0..16 {
            assert_eq!(times(&reply.messages, &format!("m{k}")), 1, "round {round}: {:?}", reply.messages);
        }
        assert_eq!(zo.replay(&reply.run).await.unwrap().reply.messages, reply.messages, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_speaker_that_is_dropped_while_the_queue_is_full_holds_nobody_up() {
    let (disk, store) = slow_store(1);
    let zo = over(&store, Scripted::by(|_| Turn::Hang)).await;
    let agent = zo.spawn(&Cx::new(""), Ask::new("c", "q")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    disk.set_sync_time(Duration::from_millis(150));
    let fills =
        [fill(&store, 1, Duration::from_millis(30)).await, fill(&store, 2, Duration::from_millis(30)).await];
    let mut one = Box::pin(zo.say("c", "one"));
    let mut two = Box::pin(zo.say("c", "two"));
    assert!(poll_once(one.as_mut()).await.is_none());
    assert!(poll_once(two.as_mut()).await.is_none());
    // The second waits for room; the first gets it and waits for the disk.
    let mut said = None;
    for _ in 0..200 {
        said = poll_once(one.as_mut()).await;
        if said.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(two);
    match said {
        Some(said) => said.unwrap(),
        None => within(one).await.unwrap(),
    };
    for fill in fills {
        within(fill).await.unwrap();
    }
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_word_overwrites_nothing_of_the_resumed_run() {
    for together in [false, true] {
        let (disk, store) = slow_store(3);
        let hangs = Arc::new(AtomicBool::new(true));
        let still = hangs.clone();
        let model =
            Scripted::by(move |_| if still.load(SeqCst) { Turn::Hang } else { Turn::text("the answer") });
        let zo = over(&store, model).await;
        let mut stream = zo.stream("c", "q");
        let Some(Ok(RunEvent::Started(run))) = stream.next().await else { panic!("not started") };
        let _ = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
        disk.set_sync_time(Duration::from_millis(150));
        fill(&store, 1, Duration::from_millis(50)).await;
        for key in 2..5 {
            fill(&store, key, Duration::ZERO).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut one = Box::pin(zo.say("c", "one"));
        let mut two = Box::pin(zo.say("c", "two"));
        assert!(poll_once(one.as_mut()).await.is_none());
        assert!(poll_once(two.as_mut()).await.is_none());
        drop(stream);
        hangs.store(false, SeqCst);
        // The speakers are slow: what they say is late.
        assert_eq!(within(zo.resume(&run).reply()).await.unwrap().text, "the answer");
        let said = if together {
            let (one, two) = within(async { tokio::join!(one, two) }).await;
            [one, two]
        } else {
            [within(one).await, within(two).await]
        };
        assert_eq!(zo.replay(&run).await.unwrap().reply.text, "the answer");
        let history = texts(&zo, "c").await;
        for (said, words) in said.iter().zip(["one", "two"]) {
            let there = history.iter().filter(|t| *t == words).count();
            assert!(there <= 1, "{words} is there {there} times: {history:?}");
            assert!(said.is_err() || there == 1, "{words} was taken and is lost: {history:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_said_at_the_end_is_there_once_or_refused() {
    for file in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let model = Scripted::by_unrecorded(|_| Turn::text("ok"));
        let zo = match file {
            true => zo(model, dir.path()),
            false => Zo::builder().provider(model).recall_limit(0),
        };
        let zo = zo.build().await.unwrap();
        for round in 0..300_u64 {
            let c = format!("c{round}");
            let agent = zo.spawn(&Cx::new(""), Ask::new(&c, "q")).await.unwrap();
            let then = Instant::now() + Duration::from_micros(round * 37 % if file { 3_000 } else { 200 });
            let speaker = tokio::spawn({
                let (zo, c) = (zo.clone(), c.clone());
                async move {
                    while Instant::now() < then {
                        std::hint::spin_loop();
                    }
                    zo.say(&c, "late").await
                }
            });
            let said = within(speaker).await.unwrap();
            let reply = within(agent.reply()).await.unwrap();
            let there = times(&zo.history(&c).await.unwrap(), "late");
            assert_eq!(there, usize::from(said.is_ok()), "round {round}, file {file}: {said:?}, {reply:?}");
            if file && round % 10 == 0 {
                zo.replay(&reply.run).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn dropped_speakers_leave_the_record_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::shut();
    let zo = zo(calls_once("look"), dir.path()).skill(gate.tool("look")).build().await.unwrap();
    for (round, polls) in (1..8).enumerate() {
        let c = format!("c{polls}");
        let agent = zo.spawn(&Cx::new(""), Ask::new(&c, "go")).await.unwrap();
        gate.reached(round + 1).await;
        let _ = polled(zo.say(&c, "one"), polls).await;
        zo.say(&c, "two").await.unwrap();
        gate.let_through(1);
        let reply = within(agent.reply()).await.unwrap();
        assert_eq!(zo.replay(&reply.run).await.unwrap().reply.messages, reply.messages);
        assert!(times(&reply.messages, "one") <= 1);
        assert_eq!(times(&reply.messages, "two"), 1);
    }
}
