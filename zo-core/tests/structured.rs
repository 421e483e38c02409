//! Answers in a form that the host asked for: with native support and without, repaired, refused, interrupted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(all(feature = "memory", feature = "skills"))]

use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use zo_core::{
    Ask, BoxStream, Capabilities, Cx, Effect, Error, ErrorKind, FinishReason, Limits, Message, Overspent,
    Part, Permissions, Provider, Request, Response, Result, Role, RunEvent, StreamEvent, ToolOutput, Verdict,
    Zo, ZoBuilder, async_trait, skills::schemars,
};
use zo_testkit::{Scripted, Strict, Turn, tool};

#[derive(Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
struct Invoice {
    number: String,
    cents: u64,
}

#[derive(Debug, Clone)]
struct Model {
    strict: Strict<Scripted>,
    native: bool,
}

impl Model {
    fn new(native: bool, turns: impl IntoIterator<Item = Turn>) -> Self {
        Self { strict: Strict::new(Scripted::new(turns)), native }
    }

    fn asked(&self) -> Vec<Request> {
        assert!(self.strict.violations().is_empty(), "{:?}", self.strict.violations());
        self.strict.inner().asked().into_iter().map(|a| a.request).collect()
    }
}

#[async_trait]
impl Provider for Model {
    fn id(&self) -> &str {
        "model"
    }

    fn capabilities(&self, model: &str) -> Capabilities {
        let mut c = self.strict.capabilities(model);
        c.structured = self.native;
        c
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        self.strict.stream(cx, request).await
    }
}

const GOOD: &str = r#"{"number": "7", "cents": 1250}"#;
const BAD: &str = r#"{"number": "7", "cents": "12.50"}"#;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"number": {"type": "string"}, "cents": {"type": "integer", "minimum": 0}},
        "required": ["number", "cents"],
        "additionalProperties": false
    })
}

fn invoice() -> Invoice {
    Invoice { number: "7".into(), cents: 1250 }
}

fn zo(model: &Model, dir: &Path) -> ZoBuilder {
    let look = tool("look", |_, _| async { Ok(ToolOutput::text("12.50 EUR")) }).effect(Effect::Pure);
    Zo::builder().provider(model.clone()).file(dir.join("z")).recall_limit(0).skill(look)
}

async fn close(zo: Zo) {
    let store = zo.store().unwrap().clone();
    drop(zo);
    store.close().await.unwrap();
}

fn complaints(messages: &[Message]) -> usize {
    messages
        .iter()
        .filter(|m| m.role == Role::User && m.to_text().starts_with("That answer cannot be used"))
        .count()
}

fn forms(r: &Request) -> usize {
    r.messages.iter().filter(|m| m.role == Role::System && m.to_text().contains("JSON Schema")).count()
}

#[tokio::test]
async fn an_answer_of_a_type_with_tools_before_it() {
    for native in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let answer = if native { Turn::text(GOOD) } else { Turn::text(&format!("```json\n{GOOD}\n```")) };
        let model = Model::new(
            native,
            [Turn::calls([("1", "look", json!({}))]), answer, Turn::text("you are welcome")],
        );
        let zo = zo(&model, dir.path()).build().await.unwrap();
        let got: Invoice = zo.ask_as("c", "What does it say?").await.unwrap();
        assert_eq!(got, invoice());
        zo.ask("c", "thanks").await.unwrap();
        let asked = model.asked();
        for r in &asked[..2] {
            assert_eq!((r.output_schema.is_some(), forms(r)), (native, usize::from(!native)));
        }
        let question =
            |r: &Request| r.messages.iter().position(|m| m.to_text() == "What does it say?").unwrap();
        assert!(
            native || asked[0].messages[question(&asked[0]) + 1].to_text().contains("cents"),
            "right behind it"
        );
        assert_eq!((asked[2].output_schema.is_some(), forms(&asked[2])), (false, 0), "it was asked for once");
        assert_eq!(zo.history("c").await.unwrap().len(), 6, "the form is no part of the conversation");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_sent_back_twice_at_most() {
    for native in [true, false] {
        for (answers, fits) in [
            (vec![BAD, GOOD], true),
            (vec!["It says 12.50 EUR.", BAD, GOOD], true),
            (vec![BAD, "{}", "[]", GOOD], false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let model = Model::new(native, answers.iter().map(|a| Turn::text(a)));
            let zo = zo(&model, dir.path()).build().await.unwrap();
            let mut stream =
                zo.stream_with(&Cx::new(""), Ask::new("c", "What does it say?").output_schema(schema()));
            let mut run = None;
            let mut reply = None;
            while let Some(event) = stream.next().await {
                match event.unwrap() {
                    RunEvent::Started(id) => run = Some(id),
                    RunEvent::Done(done) => reply = Some(done),
                    _ => {}
                }
            }
            let (run, reply) = (run.unwrap(), reply.unwrap());
            assert_eq!(reply.text, *answers[..answers.len().min(3)].last().unwrap());
            let asked = model.asked();
            assert_eq!(asked.len(), if fits { answers.len() } else { 3 });
            for (n, r) in asked.iter().enumerate() {
                assert_eq!((complaints(&r.messages), forms(r)), (n, usize::from(!native)));
            }
            let told = asked[1].messages.last().unwrap().to_text();
            assert!(told.contains("cents") || told.contains("not JSON"), "{told}");
            assert_eq!(zo.replay(&run).await.unwrap().steps.len(), asked.len());
        }
    }
}

#[tokio::test]
async fn an_answer_that_never_fits_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::new(false, [Turn::text(BAD), Turn::text("{}"), Turn::text("[]"), Turn::text(GOOD)]);
    let zo = zo(&model, dir.path()).build().await.unwrap();
    let e = zo.ask_json(&Cx::new(""), Ask::new("c", "What does it say?"), schema()).await.unwrap_err();
    assert_eq!((e.kind(), model.asked().len()), (ErrorKind::Corrupt, 3), "{e}");
    assert!(zo.unfinished().unwrap().is_empty());
    // The type may ask for more than its schema.
    #[derive(Debug, serde::Deserialize)]
    #[serde(try_from = "String")]
    struct Even;
    impl TryFrom<String> for Even {
        type Error = String;
        fn try_from(_: String) -> std::result::Result<Self, String> {
            Err("odd".into())
        }
    }
    impl schemars::JsonSchema for Even {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "Even".into()
        }
        fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
            schemars::json_schema!({"type": "string"})
        }
    }
    let model = Model::new(false, [Turn::text("\"x\"")]);
    let zo = Zo::builder().provider(model.clone()).recall_limit(0).build().await.unwrap();
    assert_eq!(zo.ask_as::<Even>("d", "even?").await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_refusal_and_a_cut_answer_are_not_sent_back() {
    for finish in [FinishReason::Refusal, FinishReason::Length, FinishReason::ContentFilter] {
        let dir = tempfile::tempdir().unwrap();
        let said = Response::new(Message::assistant("I will not say."), finish.clone());
        let model = Model::new(true, [Turn::Answer(said), Turn::text(GOOD)]);
        let zo = zo(&model, dir.path()).build().await.unwrap();
        let e = zo.ask_as::<Invoice>("c", "What does it say?").await.unwrap_err();
        assert_eq!((e.kind(), model.asked().len()), (ErrorKind::Corrupt, 1), "{finish}: {e}");
        assert!(zo.unfinished().unwrap().is_empty());
    }
}

#[tokio::test]
async fn at_the_step_limit_nothing_is_sent_back() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::new(false, [Turn::text(BAD), Turn::text(GOOD)]);
    let zo = zo(&model, dir.path()).max_steps(1).build().await.unwrap();
    let e = zo.ask_as::<Invoice>("c", "What does it say?").await.unwrap_err();
    assert_eq!((e.kind(), model.asked().len()), (ErrorKind::Corrupt, 1));
    assert!(zo.unfinished().unwrap().is_empty());
    let history = zo.history("c").await.unwrap();
    assert_eq!(complaints(&history), 0, "nobody hears a complaint that no answer can follow: {history:?}");
}

#[tokio::test]
async fn a_repair_that_was_interrupted_goes_on_where_it_was() {
    for native in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let down = || Turn::Fail(Error::new(ErrorKind::Unavailable, "model", "overloaded"));
        let turns =
            [Turn::text(BAD), down(), down(), Turn::text("{}"), down(), Turn::text("[]"), Turn::text(GOOD)];
        let model = Model::new(native, turns);
        let mut run = None;
        let mut replies = Vec::new();
        for _ in 0..4 {
            let zo = zo(&model, dir.path()).build().await.unwrap();
            let reply = match &run {
                None => {
                    let ask = Ask::new("c", "What does it say?").output_schema(schema());
                    let reply = zo.ask_with(&Cx::new(""), ask).await;
                    run = Some(zo.unfinished().unwrap()[0].run.clone());
                    reply
                }
                Some(run) => zo.resume(run).reply().await,
            };
            replies.push(reply.map(|r| r.text).map_err(|e| e.kind()));
            close(zo).await;
        }
        let asked = model.asked();
        let told: Vec<_> = asked.iter().map(|r| complaints(&r.messages)).collect();
        assert_eq!(told, [0, 1, 1, 1, 2, 2], "each answer is complained about once, and two of them at most");
        let down = Err(ErrorKind::Unavailable);
        assert_eq!(replies, [down.clone(), down.clone(), down, Ok("[]".into())]);
        let zo = zo(&model, dir.path()).build().await.unwrap();
        zo.replay(&run.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_repair_that_crashes_again_and_again_does_not_spend_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let hung = Arc::new(AtomicUsize::new(0));
    let count = hung.clone();
    let strict = Strict::new(Scripted::by(move |r| {
        if complaints(&r.messages) == 0 {
            return Turn::text(BAD);
        }
        count.fetch_add(1, Ordering::SeqCst);
        Turn::Hang
    }));
    let model = Model { strict, native: false };
    let mut ended = None;
    for _ in 0..40 {
        let zo = zo(&model, dir.path()).build().await.unwrap();
        let ask = Ask::new("c", "What does it say?").output_schema(schema()).limits(Limits::none().steps(10));
        let mut stream = match zo.unfinished().unwrap().first() {
            None => zo.stream_with(&Cx::new(""), ask),
            Some(u) => zo.resume(&u.run),
        };
        let before = hung.load(Ordering::SeqCst);
        while ended.is_none() && hung.load(Ordering::SeqCst) == before {
            tokio::select! {
                event = stream.next() => match event {
                    Some(Err(e)) => ended = Some(e),
                    Some(Ok(_)) => {}
                    None => break,
                },
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
        drop(stream);
        close(zo).await;
        if ended.is_some() {
            break;
        }
    }
    let calls = hung.load(Ordering::SeqCst);
    let e = ended.unwrap_or_else(|| panic!("{calls} calls under a limit of 10 and no end"));
    assert!(e.source_as::<Overspent>().is_some() && calls <= 10, "{e} after {calls}");
}

#[tokio::test]
async fn what_is_said_meanwhile_and_the_complaint_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let handle: Arc<OnceLock<Zo>> = Arc::default();
    let n = Arc::new(AtomicUsize::new(0));
    let count = n.clone();
    let strict = Strict::new(Scripted::by(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Turn::text(BAD),
        1 => Turn::Fail(Error::new(ErrorKind::Unavailable, "model", "overloaded")),
        _ => Turn::text(GOOD),
    }));
    /// Says something to the conversation while the first answer comes.
    #[derive(Debug)]
    struct Talking(Model, Arc<OnceLock<Zo>>);
    #[async_trait]
    impl Provider for Talking {
        fn id(&self) -> &str {
            "talking"
        }
        fn capabilities(&self, model: &str) -> Capabilities {
            self.0.capabilities(model)
        }
        async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
            if request.messages.len() == 2 {
                self.1.get().unwrap().say("c", "in euros, please").await?;
            }
            self.0.stream(cx, request).await
        }
    }
    let model = Model { strict, native: false };
    let zo = Zo::builder()
        .provider(Talking(model.clone(), handle.clone()))
        .file(dir.path().join("z"))
        .recall_limit(0)
        .build()
        .await
        .unwrap();
    let _ = handle.set(zo.clone());
    let ask = Ask::new("c", "What does it say?").output_schema(schema());
    zo.ask_with(&Cx::new(""), ask).await.unwrap_err();
    let run = zo.unfinished().unwrap()[0].run.clone();
    let reply = zo.resume(&run).reply().await.unwrap();
    assert_eq!(reply.text, GOOD);
    let asked = model.asked();
    let said = |r: &Request| -> Vec<String> {
        r.messages.iter().map(|m| serde_json::to_string(m).unwrap()).collect()
    };
    assert_eq!(said(&asked[1]), said(&asked[2]), "the same request after the interruption as before it");
    zo.replay(&run).await.unwrap();
}

#[tokio::test]
async fn a_parked_run_has_no_answer_yet() {
    let dir = tempfile::tempdir().unwrap();
    let model =
        Model::new(true, [Turn::calls([("1", "look", json!({}))]), Turn::text(BAD), Turn::text(GOOD)]);
    let zo = zo(&model, dir.path())
        .permissions(Permissions::default().otherwise(Verdict::Ask))
        .build()
        .await
        .unwrap();
    let e = zo.ask_as::<Invoice>("c", "What does it say?").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    let approval = zo.approvals().unwrap().remove(0);
    let run = zo.approve(&approval, "me").await.unwrap();
    let reply = zo.resume(&run).reply().await.unwrap();
    assert_eq!(reply.text, GOOD, "the form is on record: it was repaired after the decision");
    assert!(model.asked().iter().all(|r| r.output_schema.is_some()));
}

#[tokio::test]
async fn the_text_of_an_answer_streams_and_its_parts_are_one_value() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = GOOD.split_at(12);
    let parts = vec![Part::text(a), Part::text(b)];
    let mut answer = Response::new(Message { role: Role::Assistant, parts }, FinishReason::Stop);
    answer.usage = zo_core::Usage::new(5, 5);
    let model = Model::new(true, [Turn::Answer(answer), Turn::text(GOOD), Turn::text(GOOD)]);
    let zo = zo(&model, dir.path()).build().await.unwrap();
    let mut stream = zo.stream_with(&Cx::new(""), Ask::new("c", "What does it say?").output_schema(schema()));
    let mut streamed = String::new();
    while let Some(event) = stream.next().await {
        if let RunEvent::Text(t) = event.unwrap() {
            streamed.push_str(&t);
        }
    }
    assert_eq!((streamed.as_str(), model.asked().len()), (GOOD, 1));
}
