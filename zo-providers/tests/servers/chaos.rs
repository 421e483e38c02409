//! Faults on request: three of ten answers are a 500, no JSON, a 429 with `Retry-After`, or no answer at all.
//!
//! All waiting is done on a virtual clock, which moves on when nothing is under way; what the server saw is read from its
//! journal.

use super::{
    journal::{self, Entry},
    jumping::Jumping,
    rows::{AIMOCK, AIMOCK_CHAT, Row},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::Notify;
use zo_providers::layer::{Concurrency, Layer, LayerExt, Layered, RateLimit, Retry, Trace};
use zo_testkit::VirtualClock;
use zo_traits::{
    Accumulator, BoxStream, Clock, Cx, ErrorKind, FinishReason, Part, Provider, ProviderExt, Request,
    Response, Result, Stream, StreamEvent, async_trait,
};

const SECOND: Duration = Duration::from_secs(1);
const REQUESTS: usize = 1000;
/// What the mock says where its fixture names no time.
const RETRY_AFTER: Duration = SECOND;
/// Drawn one after the other, so that each strikes 7.5 of 100 and all together 30.
const RATES: [(&str, &str); 4] = [
    ("x-aimock-chaos-drop", "0.075"),
    ("x-aimock-chaos-malformed", "0.0811"),
    ("x-aimock-chaos-ratelimit", "0.0882"),
    ("x-aimock-chaos-disconnect", "0.0968"),
];

/// Right above the server: when each attempt began and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    clock: Jumping,
    seen: Arc<Mutex<Vec<Attempt>>>,
}

impl Attempts {
    pub(crate) fn new(clock: &Jumping) -> Self {
        Self { clock: clock.clone(), seen: Arc::default() }
    }
}

#[derive(Debug)]
struct Attempt {
    text: String,
    began: Duration,
    failed: Option<(Duration, ErrorKind)>,
}

/// Something is under way as long as this lives.
struct Busy(Jumping);

impl Busy {
    fn new(clock: &Jumping) -> Self {
        clock.busy.fetch_add(1, Ordering::SeqCst);
        Self(clock.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_one();
        }
    }
}

struct Guarded {
    inner: BoxStream<Result<StreamEvent>>,
    _busy: Busy,
}

impl Stream for Guarded {
    type Item = Result<StreamEvent>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(task)
    }
}

#[async_trait]
impl Layer for Attempts {
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        let busy = Busy::new(&self.clock);
        let began = self.clock.monotonic();
        let text = request.messages.last().unwrap().to_text();
        let answer = next.stream(cx, request).await;
        let failed = answer.as_ref().err().map(|e| (self.clock.monotonic(), e.kind()));
        self.seen.lock().unwrap().push(Attempt { text, began, failed });
        Ok(Box::pin(Guarded { inner: answer?, _busy: busy }))
    }
}

/// What the fixtures tell, in order: what an answer must say, part for part.
fn stories() -> Vec<Vec<(String, Value)>> {
    let file: Value = serde_json::from_str(include_str!("../aimock/stories.json")).unwrap();
    let tell = |fixture: &Value| {
        let answer = &fixture["response"];
        let mut parts = Vec::new();
        for key in ["reasoning", "content"] {
            if let Some(text) = answer.get(key) {
                parts.push((key.to_owned(), text.clone()));
            }
        }
        for call in answer["toolCalls"].as_array().into_iter().flatten() {
            parts.push((call["name"].as_str().unwrap().to_owned(), call["arguments"].clone()));
        }
        parts
    };
    file["fixtures"].as_array().unwrap().iter().map(tell).collect()
}

fn told(answer: &Response) -> Vec<(String, Value)> {
    let parts = answer.message.parts.iter().map(|part| match part {
        Part::Text(t) => ("content".to_owned(), json!(t.text)),
        Part::Reasoning(t) => ("reasoning".to_owned(), json!(t.text)),
        Part::ToolCall(call) => (call.name.clone(), call.args.clone()),
        other => panic!("{other:?}"),
    });
    parts.collect()
}

/// Everything that a caller of the stack sees, folded without mercy: the accumulator takes nothing twice.
async fn all(provider: &dyn Provider, cx: &Cx, ask: &Request) -> Result<Response> {
    let mut stream = provider.stream(cx, ask).await?;
    let mut acc = Accumulator::default();
    while let Some(event) = poll_fn(|task| stream.as_mut().poll_next(task)).await {
        acc.push(event?)?;
    }
    acc.finish()
}

#[tokio::test]
async fn a_thousand_of_a_thousand_end_right() {
    let rows: Vec<Row> = AIMOCK.iter().filter_map(|wire| Row::ready(*wire, "chaos")).collect();
    if rows.is_empty() {
        return;
    }
    let began = std::time::Instant::now();
    let clock = Jumping::new();
    let attempts = Attempts::new(&clock);
    let waits = Arc::new(Mutex::new(Vec::new()));
    let heard = waits.clone();
    // 0.3 to the power of 13 is one in six million.
    let retry = Retry::default()
        .attempts(12)
        .on_retry(move |r| heard.lock().unwrap().push((r.error.kind(), r.error.retry_after(), r.wait)));
    let (limit, together) = (RateLimit::default(), Concurrency::new(32));
    let providers: Vec<Arc<Layered>> = rows
        .iter()
        .map(|row| {
            let remote = RATES.iter().fold(row.remote(), |remote, (name, rate)| remote.header(name, *rate));
            let inner = remote.layer(attempts.clone()).layer(together.clone()).layer(limit.clone());
            Arc::new(inner.layer(retry.clone()).layer(Trace))
        })
        .collect();
    let stories = Arc::new(stories());
    let requests = async {
        let running: Vec<_> = (0..REQUESTS)
            .map(|n| {
                let (provider, cx, stories) = (providers[n % 5].clone(), clock.cx(), stories.clone());
                let story = (n / 5) % stories.len();
                let mut ask = rows[n % 5].ask(&format!("Story {story}, request {n}."));
                ask.whole = n % 3 == 0;
                tokio::spawn(async move {
                    let answer = all(&*provider, &cx, &ask).await;
                    let answer = answer.map_err(|e| format!("request {n}: {:?}: {e}", e.kind()))?;
                    let mut want = stories[story].clone();
                    if provider.id() == "ollama" {
                        // The mock calls it something that Ollama does not.
                        want.retain(|(what, _)| what != "reasoning");
                    }
                    let right = told(&answer) == want;
                    right.then_some(()).ok_or_else(|| format!("request {n}: {:?}", answer.message))
                })
            })
            .collect();
        let mut wrong = Vec::new();
        for one in running {
            wrong.extend(one.await.unwrap().err());
        }
        wrong
    };
    let wrong = tokio::time::timeout(SECOND * 55, clock.drive(requests)).await.expect("it ends");
    assert!(wrong.is_empty(), "{} of {REQUESTS} are wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);

    // What the server saw: of each request all attempts but the last were struck, and nothing came after its answer.
    let (mut asked, mut struck) = (0, BTreeMap::<String, usize>::new());
    for row in &rows {
        let mut by_request = BTreeMap::<String, Vec<Entry>>::new();
        for entry in journal::of(row).await {
            by_request.entry(entry.text()).or_default().push(entry);
        }
        assert_eq!(by_request.len(), REQUESTS / 5, "{}", row.wire.name);
        for (text, entries) in by_request {
            asked += entries.len();
            let (last, before) = entries.split_last().unwrap();
            assert!(last.response.chaos.is_none() && last.response.status == 200, "{text}: {entries:?}");
            for entry in before {
                let fault = entry.response.chaos.clone();
                *struck
                    .entry(fault.unwrap_or_else(|| panic!("{text} was answered twice: {entries:?}")))
                    .or_default() += 1;
            }
        }
    }
    let faults: usize = struck.values().sum();
    assert_eq!(asked, REQUESTS + faults);
    assert_eq!(struck.len(), 4, "every fault struck: {struck:?}");
    assert!((300..600).contains(&faults), "three of ten: {struck:?}");

    // Retry-After was heard: the wait was what was asked for, and the next attempt came no sooner.
    let waits = std::mem::take(&mut *waits.lock().unwrap());
    let refused: Vec<_> = waits.iter().filter(|(kind, ..)| *kind == ErrorKind::RateLimited).collect();
    assert_eq!(refused.len(), struck["rateLimit"]);
    assert!(refused.iter().all(|(_, asked, wait)| *asked == Some(RETRY_AFTER) && *wait == RETRY_AFTER));
    let seen = std::mem::take(&mut *attempts.seen.lock().unwrap());
    let mut by_text = BTreeMap::<&str, Vec<&Attempt>>::new();
    for attempt in &seen {
        by_text.entry(&attempt.text).or_default().push(attempt);
    }
    let mut pairs = 0;
    for pair in by_text.values().flat_map(|of_one| of_one.windows(2)) {
        if let Some((at, ErrorKind::RateLimited)) = &pair[0].failed {
            assert!(pair[1].began >= *at + RETRY_AFTER, "{pair:?}");
            pairs += 1;
        }
    }
    assert_eq!(pairs, refused.len());
    assert_eq!(seen.len(), REQUESTS + waits.len());
    println!(
        "{REQUESTS} of {REQUESTS} right; the server saw {asked} requests, {faults} struck ({:.1} of 100): {struck:?}; \
         {} retries of the layer, {} silent ones after a closed connection; {:?} on the clock, {:?} in truth",
        100.0 * faults as f64 / asked as f64,
        waits.len(),
        asked - seen.len(),
        clock.monotonic(),
        began.elapsed(),
    );
}

/// A provider with retries that would be seen.
fn retrying(row: &Row) -> (Layered, Arc<AtomicUsize>) {
    let retries = Arc::new(AtomicUsize::new(0));
    let count = retries.clone();
    let retry = Retry::default().attempts(5).on_retry(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    (row.remote().layer(retry), retries)
}

#[tokio::test]
async fn a_spent_quota_is_asked_once() {
    for row in AIMOCK.iter().filter_map(|wire| Row::ready(*wire, "quota")) {
        let (provider, retries) = retrying(&row);
        let e = provider.complete(&row.cx(), &row.error("spent quota")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Exhausted, "{}: {e}", row.wire.name);
        assert_eq!(
            (journal::of(&row).await.len(), retries.load(Ordering::SeqCst)),
            (1, 0),
            "{}",
            row.wire.name
        );
    }
}

#[tokio::test]
async fn what_is_permanent_is_asked_once() {
    for row in AIMOCK.iter().filter_map(|wire| Row::ready(*wire, "permanent")) {
        let (provider, retries) = retrying(&row);
        for (asked, what) in ["unknown model", "a prompt that is too long"].into_iter().enumerate() {
            provider.complete(&row.cx(), &row.error(what)).await.unwrap_err();
            assert_eq!(journal::of(&row).await.len(), asked + 1, "{} {what}", row.wire.name);
        }
        assert_eq!(retries.load(Ordering::SeqCst), 0);
    }
}

/// What has been shown is not taken back: an answer that breaks off in the middle is not asked for again.
#[tokio::test]
async fn what_broke_off_in_the_middle_is_asked_once() {
    for row in AIMOCK.iter().filter_map(|wire| Row::ready(*wire, "middle")) {
        let (provider, retries) = retrying(&row);
        let e = provider.complete(&row.cx(), &row.ask("An answer that breaks off.")).await.unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unavailable), "{}: {e}", row.wire.name);
        assert_eq!(
            (journal::of(&row).await.len(), retries.load(Ordering::SeqCst)),
            (1, 0),
            "{}",
            row.wire.name
        );
    }
}

#[tokio::test]
async fn retry_after_is_waited_for_to_the_millisecond() {
    for row in AIMOCK.iter().filter_map(|wire| Row::ready(*wire, "wait")) {
        let clock = VirtualClock::at(0);
        let cx = Cx::new("wait").with_clock(Arc::new(clock.clone()));
        let waiting = Arc::new(Notify::new());
        let heard = waiting.clone();
        let retry = Retry::default().on_retry(move |r| {
            assert_eq!((r.error.kind(), r.wait), (ErrorKind::RateLimited, SECOND * 7), "{}", r.error);
            heard.notify_one();
        });
        let (provider, ask) = (row.remote().layer(retry), row.ask("Please come back in seven seconds."));
        let answer = tokio::spawn(async move { provider.complete(&cx, &ask).await });
        tokio::time::timeout(SECOND * 20, waiting.notified()).await.expect("it is refused, and waits");
        // Its sleep is the only one.
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(SECOND * 7 - Duration::from_millis(1));
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(!answer.is_finished());
        assert_eq!(journal::of(&row).await.len(), 1, "{}: not yet", row.wire.name);
        clock.advance(Duration::from_millis(1));
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(
            (answer.message.to_text().as_str(), &answer.finish),
            ("Here I am again.", &FinishReason::Stop)
        );
        assert_eq!(journal::of(&row).await.len(), 2, "{}", row.wire.name);
    }
}

/// The retries are what makes it right: without them three of ten fail.
#[tokio::test]
async fn without_retries_it_fails() {
    let Some(row) = Row::ready(AIMOCK_CHAT, "bare") else { return };
    let remote = RATES.iter().fold(row.remote(), |remote, (name, rate)| remote.header(name, *rate));
    let (mut failed, cx) = (BTreeMap::<String, usize>::new(), row.cx());
    for n in 0..100 {
        if let Err(e) = all(&remote, &cx, &row.ask(&format!("Story 0, request {n}."))).await {
            *failed.entry(e.kind().as_str().to_owned()).or_default() += 1;
        }
    }
    // Of what the connection lost, some was asked again below the layers: nothing had come of it.
    assert!((5..60).contains(&failed.values().sum::<usize>()), "{failed:?}");
    assert!(
        failed.keys().all(|k| ["rate_limited", "unavailable", "corrupt"].contains(&k.as_str())),
        "{failed:?}"
    );
}
