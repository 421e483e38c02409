//! Laws of [`zo_traits::Provider`].
//!
//! They run against any provider, given one request that it answers, the same each time and within a few seconds. A law
//! calls the provider several times. What only a provider that never answers can show has laws of its own, see
//! [`hanging_provider_laws`](crate::hanging_provider_laws).

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};
use zo_traits::{
    Accumulator, BoxStream, Cx, Error, ErrorKind, Provider, ProviderExt, Request, Response, Result,
    StreamEvent,
};

/// A provider, and a request that it answers.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// The request.
    pub request: Request,
}

impl Subject {
    /// A provider, and a request that it answers.
    pub fn new(provider: impl Provider, request: Request) -> Self {
        Self { provider: Arc::new(provider), request }
    }
}

/// Makes a test of every law of a provider that answers: `provider_laws!(make())`, where the expression is a future of a
/// [`Subject`](crate::laws::provider::Subject).
#[macro_export]
macro_rules! provider_laws {
    ($make:expr) => {
        $crate::__laws!(provider, $make;
            the_stream_obeys_its_grammar,
            nothing_follows_the_end,
            the_whole_is_the_fold_of_the_stream,
            a_cancelled_context_is_refused_at_once,
            a_late_context_is_refused_at_once,
            cancelling_ends_a_stream,
            a_deadline_ends_a_stream,
            a_dropped_stream_harms_nothing,
            calls_do_not_get_into_each_others_way,
            tool_calls_have_names_and_ids,
            the_id_stays,
            capabilities_are_plain_data,
            the_list_of_models_is_cancelled_too,
        );
    };
}

/// Makes a test of every law of a provider that never answers: `hanging_provider_laws!(make())`, where the expression is a
/// future of a [`Subject`](crate::laws::provider::Subject).
#[macro_export]
macro_rules! hanging_provider_laws {
    ($make:expr) => {
        $crate::__laws!(provider, $make;
            a_deadline_ends_a_call_that_hangs,
            cancelling_ends_a_call_that_hangs,
        );
    };
}

/// Longest wait for what ought to happen at once.
const SOON: Duration = Duration::from_secs(5);

async fn next(stream: &mut BoxStream<Result<StreamEvent>>) -> Option<Result<StreamEvent>> {
    let item = poll_fn(|task| stream.as_mut().poll_next(task));
    tokio::time::timeout(SOON * 4, item).await.expect("the stream hangs")
}

async fn open(s: &Subject, cx: &Cx) -> BoxStream<Result<StreamEvent>> {
    s.provider.stream(cx, &s.request).await.expect("the provider answers the request")
}

async fn whole(s: &Subject) -> Response {
    s.provider.complete(&Cx::new("law"), &s.request).await.expect("the provider answers the request")
}

/// The stream is one well-formed answer.
pub async fn the_stream_obeys_its_grammar(s: Subject) {
    let mut stream = open(&s, &Cx::new("law")).await;
    let mut acc = Accumulator::default();
    while let Some(event) = next(&mut stream).await {
        acc.push(event.expect("no error")).expect("the grammar is obeyed");
    }
    acc.finish().expect("the stream ends with Finish");
}

/// After `Finish` comes the end, and only once.
pub async fn nothing_follows_the_end(s: Subject) {
    let mut stream = open(&s, &Cx::new("law")).await;
    let mut ends = 0;
    while let Some(event) = next(&mut stream).await {
        assert_eq!(ends, 0, "an event follows the end: {event:?}");
        ends += usize::from(matches!(event, Ok(StreamEvent::Finish(_))));
    }
    assert_eq!(ends, 1, "the stream ends without Finish");
}

/// A buffered answer is the streamed one, folded.
pub async fn the_whole_is_the_fold_of_the_stream(s: Subject) {
    let mut stream = open(&s, &Cx::new("law")).await;
    let mut acc = Accumulator::default();
    while let Some(event) = next(&mut stream).await {
        acc.push(event.unwrap()).unwrap();
    }
    let (folded, whole) = (acc.finish().unwrap(), whole(&s).await);
    assert_eq!((folded.message, folded.finish), (whole.message, whole.finish));
    assert_eq!(folded.usage, whole.usage);
}

async fn refused(s: &Subject, cx: &Cx) -> Error {
    let began = Instant::now();
    let refused = tokio::time::timeout(SOON, s.provider.stream(cx, &s.request)).await;
    assert!(began.elapsed() < SOON, "the refusal takes too long");
    match refused.expect("a refusal does not wait") {
        Err(e) => e,
        Ok(_) => panic!("a call was started under a context that is over"),
    }
}

/// Under a cancelled context nothing is started.
pub async fn a_cancelled_context_is_refused_at_once(s: Subject) {
    let cx = Cx::new("law");
    cx.cancel().cancel();
    assert_eq!(refused(&s, &cx).await.kind(), ErrorKind::Cancelled);
    assert_eq!(s.provider.complete(&cx, &s.request).await.unwrap_err().kind(), ErrorKind::Cancelled);
    whole(&s).await;
}

/// After the deadline nothing is started.
pub async fn a_late_context_is_refused_at_once(s: Subject) {
    let cx = Cx::new("law").with_timeout(Duration::ZERO);
    assert_eq!(refused(&s, &cx).await.kind(), ErrorKind::Timeout);
}

/// Reads on after the context is over: what was on its way may still come, an error is the last item, and it ends.
async fn winds_down(stream: &mut BoxStream<Result<StreamEvent>>, kind: ErrorKind) {
    let (began, mut failed) = (Instant::now(), false);
    while let Some(item) = next(stream).await {
        assert!(!failed, "an item follows the error: {item:?}");
        if let Err(e) = item {
            assert_eq!(e.kind(), kind, "{e}");
            failed = true;
        }
        assert!(began.elapsed() < SOON, "the stream goes on");
    }
}

/// Cancelling ends a stream that has begun.
pub async fn cancelling_ends_a_stream(s: Subject) {
    let cx = Cx::new("law");
    let mut stream = open(&s, &cx).await;
    next(&mut stream).await.expect("an event").expect("no error");
    cx.cancel().cancel();
    winds_down(&mut stream, ErrorKind::Cancelled).await;
    whole(&s).await;
}

/// A deadline that passes ends a stream that has begun.
pub async fn a_deadline_ends_a_stream(s: Subject) {
    let cx = Cx::new("law").with_timeout(SOON);
    let mut stream = open(&s, &cx).await;
    next(&mut stream).await.expect("an event").expect("no error");
    winds_down(&mut stream, ErrorKind::Timeout).await;
}

/// A stream that is dropped half-way, or never looked at, leaves the provider as it was.
pub async fn a_dropped_stream_harms_nothing(s: Subject) {
    let before = whole(&s).await;
    for events in 0..4 {
        let mut stream = open(&s, &Cx::new("law")).await;
        for _ in 0..events {
            next(&mut stream).await;
        }
    }
    let after = whole(&s).await;
    assert_eq!((before.message, before.finish), (after.message, after.finish));
}

/// Calls at the same time each get their own answer, and cancelling one leaves the others alone.
pub async fn calls_do_not_get_into_each_others_way(s: Subject) {
    let alone = whole(&s).await;
    let mut tasks = Vec::new();
    for n in 0..8 {
        let s = s.clone();
        tasks.push(tokio::spawn(async move {
            let cx = Cx::new("law");
            if n % 4 == 3 {
                let stream = open(&s, &cx).await;
                cx.cancel().cancel();
                drop(stream);
                None
            } else {
                Some(s.provider.complete(&cx, &s.request).await.expect("no error"))
            }
        }));
    }
    for task in tasks {
        if let Some(answer) = task.await.expect("no panic") {
            assert_eq!(answer.message, alone.message);
        }
    }
}

/// A tool call can be answered: it has an id, and no two of a turn share one.
pub async fn tool_calls_have_names_and_ids(s: Subject) {
    let answer = whole(&s).await;
    let mut ids = std::collections::BTreeSet::new();
    for call in answer.message.tool_calls() {
        assert!(!call.id.is_empty(), "a call of {} has no id", call.name);
        assert!(ids.insert(&call.id), "two calls share the id {}", call.id);
    }
}

/// The id names the provider, before and after calls alike.
pub async fn the_id_stays(s: Subject) {
    let before = s.provider.id().to_owned();
    assert!(!before.is_empty());
    whole(&s).await;
    assert_eq!(s.provider.id(), before);
}

/// Capabilities are looked up, not found out.
pub async fn capabilities_are_plain_data(s: Subject) {
    let before = s.provider.capabilities(&s.request.model);
    let began = Instant::now();
    for _ in 0..1000 {
        let _ = s.provider.capabilities(&s.request.model);
    }
    assert!(began.elapsed() < SOON, "capabilities are slow");
    whole(&s).await;
    assert_eq!(s.provider.capabilities(&s.request.model), before);
}

/// The list of models obeys the context, where there is one.
pub async fn the_list_of_models_is_cancelled_too(s: Subject) {
    let cx = Cx::new("law");
    cx.cancel().cancel();
    match tokio::time::timeout(SOON, s.provider.models(&cx)).await.expect("a refusal does not wait") {
        Ok(_) => {} // A list that is plain data needs no waiting.
        Err(e) => assert!(matches!(e.kind(), ErrorKind::Cancelled | ErrorKind::Unsupported), "{e:?}"),
    }
}

/// Reads an answer that never comes, to its end; returns the error.
async fn end_of(s: &Subject, cx: &Cx) -> Error {
    let call = async {
        let mut stream = s.provider.stream(cx, &s.request).await?;
        loop {
            match poll_fn(|task| stream.as_mut().poll_next(task)).await {
                Some(Err(e)) => return Err::<(), Error>(e),
                Some(Ok(event)) => assert!(!matches!(event, StreamEvent::Finish(_)), "it was not to answer"),
                None => panic!("the stream ends without Finish and without an error"),
            }
        }
    };
    tokio::time::timeout(SOON, call).await.expect("the call goes on after its context").unwrap_err()
}

/// A deadline ends a call that hangs, whether before its answer or within.
pub async fn a_deadline_ends_a_call_that_hangs(s: Subject) {
    let cx = Cx::new("law").with_timeout(Duration::from_millis(100));
    assert_eq!(end_of(&s, &cx).await.kind(), ErrorKind::Timeout);
}

/// Cancelling ends a call that hangs, whether before its answer or within.
pub async fn cancelling_ends_a_call_that_hangs(s: Subject) {
    let cx = Cx::new("law");
    let cancel = cx.cancel().clone();
    let canceller = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel.cancel();
    });
    assert_eq!(end_of(&s, &cx).await.kind(), ErrorKind::Cancelled);
    canceller.await.unwrap();
}
