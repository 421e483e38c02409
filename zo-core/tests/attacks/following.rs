//! Looking on at a run: no word comes twice or is missing, and nothing is told that is not so.

use crate::common::{Events, Fed, calls_once, look, over, slow_store, whole, within, zo};
use std::sync::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use zo_core::{Agent, Ask, Cursor, Cx, FinishReason, PartKind, Result, RunEvent, RunStream, StreamEvent, Zo};
use zo_testkit::{Scripted, Turn};

/// The voice of a model: its first answer is what the test says here.
struct Voice(UnboundedSender<StreamEvent>);

impl Voice {
    /// A model, which gives " second" to every later call, and its voice.
    fn new() -> (Fed, Self) {
        let (tx, rx) = unbounded_channel();
        let events: Events = Box::pin(futures_util::stream::unfold(rx, |mut rx| async move {
            rx.recv().await.map(|event| (Ok(event), rx))
        }));
        let first = Mutex::new(Some(events));
        let model = Fed::new(move |_| {
            let first = first.lock().unwrap().take();
            async move { first.map_or_else(|| whole(Turn::text(" second")), Ok) }
        });
        tx.send(StreamEvent::PartStart { index: 0, kind: PartKind::Text }).unwrap();
        (model, Self(tx))
    }

    fn says(&self, text: &str) {
        self.0.send(StreamEvent::Delta { index: 0, text: text.into() }).unwrap();
    }

    fn ends(&self) {
        self.0.send(StreamEvent::PartEnd { index: 0, replay: None }).unwrap();
        self.0.send(StreamEvent::Finish(FinishReason::Stop)).unwrap();
    }
}

async fn spoken(dir: &std::path::Path) -> (Zo, Agent, Voice) {
    let (model, voice) = Voice::new();
    let zo = zo(model, dir).build().await.unwrap();
    let agent = zo.spawn(&Cx::new(""), Ask::new("c", "q")).await.unwrap();
    (zo, agent, voice)
}

/// The text up to `end`.
async fn text_until(stream: &mut RunStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        match within(stream.next()).await {
            Some(Ok(RunEvent::Text(more))) => text.push_str(&more),
            Some(Ok(_)) => {}
            other => panic!("{other:?} after {text:?}"),
        }
    }
    text
}

/// All that is still to come.
async fn rest(mut stream: RunStream) -> Vec<Result<RunEvent>> {
    let mut events = Vec::new();
    while let Some(event) = within(stream.next()).await {
        events.push(event);
    }
    events
}

fn text_of(events: &[Result<RunEvent>]) -> String {
    let texts = events.iter().filter_map(|e| match e {
        Ok(RunEvent::Text(text)) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

#[tokio::test]
async fn what_is_said_during_an_answer_doubles_no_text_after_a_reattach() {
    let dir = tempfile::tempdir().unwrap();
    let (_zo, agent, voice) = spoken(dir.path()).await;
    let mut stream = agent.events(Cursor::start());
    voice.says("Hello ");
    let mut text = text_until(&mut stream, "Hello ").await;
    agent.say("and?").await.unwrap();
    voice.says("wor");
    text += &text_until(&mut stream, "wor").await;
    let cursor = stream.cursor();
    drop(stream);
    let stream = agent.events(cursor);
    voice.says("ld");
    voice.ends();
    text += &text_of(&rest(stream).await);
    assert_eq!(text, "Hello world second");
}

#[tokio::test]
async fn what_is_said_during_an_answer_costs_a_late_listener_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let (_zo, agent, voice) = spoken(dir.path()).await;
    let mut early = agent.events(Cursor::start());
    voice.says("Hello ");
    text_until(&mut early, "Hello ").await;
    let late = agent.events(Cursor::start());
    agent.say("and?").await.unwrap();
    voice.says("world");
    voice.ends();
    assert_eq!(text_of(&rest(late).await), "Hello world second");
}

#[tokio::test]
async fn a_finished_call_is_told_once_across_a_reattach() {
    let dir = tempfile::tempdir().unwrap();
    let zo = zo(calls_once("look"), dir.path()).skill(look()).build().await.unwrap();
    let run = zo.ask("c", "go").await.unwrap().run;
    let mut stream = zo.attach(&run, Cursor::start());
    while !matches!(within(stream.next()).await.unwrap().unwrap(), RunEvent::ToolFinished { .. }) {}
    let events = rest(zo.attach(&run, stream.cursor())).await;
    assert!(!events.iter().any(|e| matches!(e, Ok(RunEvent::ToolFinished { .. }))), "{events:?}");
    assert!(matches!(events.last(), Some(Ok(RunEvent::Done(_)))), "{events:?}");
}

#[tokio::test]
async fn a_cursor_of_another_run_does_not_swallow_text_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let (_zo, agent, voice) = spoken(dir.path()).await;
    let stream = agent.events("4000000000.99999999999.0".parse().unwrap());
    voice.says("Hello");
    voice.ends();
    let events = rest(stream).await;
    assert!(text_of(&events) == "Hello" || events.iter().any(Result::is_err), "{events:?}");
}

#[tokio::test]
async fn what_could_not_be_written_is_not_told() {
    let (disk, store) = slow_store(64);
    let zo = over(&store, Scripted::by(|_| Turn::text("hi"))).await;
    zo.ask("c", "warm").await.unwrap();
    disk.cut_power_after(0);
    let events = rest(zo.stream("c", "q")).await;
    assert!(
        !events
            .iter()
            .any(|e| matches!(e, Ok(RunEvent::Started(_) | RunEvent::Usage(_) | RunEvent::Done(_)))),
        "nothing of this is on record: {events:?}"
    );
    assert!(events.last().is_some_and(Result::is_err), "{events:?}");
}
