//! Layers around scripted providers, on a clock that stands still until it is moved: nothing here really waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "common/jumping.rs"]
mod jumping;

use jumping::{Jumping, settle};
use proptest::prelude::*;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use zo_providers::layer::{
    Concurrency, Fallback, Headroom, HeadroomSink, Hedge, LayerExt, RateLimit, Retry, Window,
};
use zo_testkit::{Scripted, Turn, polled};
use zo_traits::{
    BoxStream, Clock, Cx, Error, ErrorKind, FinishReason, Message, Provider, ProviderExt, Request, Response,
    Result, StreamEvent, Usage, async_trait, stream_of,
};

const SECOND: Duration = Duration::from_secs(1);

fn cx(clock: &(impl Clock + Clone)) -> Cx {
    Cx::new("t").with_clock(Arc::new(clock.clone()))
}

fn ask(text: &str) -> Request {
    Request::new("m", [Message::user(text)])
}

mod rated {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Kind {
        /// All come back at the end of a window, which begins with the first request or at such a time after the start.
        Window(u64),
        /// Each comes back a minute after it was taken.
        Sliding,
        /// They come back steadily.
        Bucket,
    }

    /// A provider with a rate limit, and what it counted.
    #[derive(Debug)]
    struct Rated {
        clock: Jumping,
        kind: Kind,
        limit: u64,
        headers: bool,
        /// How much one request takes.
        each: u64,
        latency: Duration,
        state: Mutex<(VecDeque<Duration>, f64, Duration)>,
        refused: AtomicUsize,
        served: AtomicUsize,
    }

    impl Rated {
        fn new(clock: &Jumping, kind: Kind, limit: u64, headers: bool) -> Arc<Self> {
            Arc::new(Self {
                clock: clock.clone(),
                kind,
                limit,
                headers,
                each: 1,
                latency: Duration::from_millis(400),
                state: Mutex::new((VecDeque::new(), limit as f64, Duration::ZERO)),
                refused: AtomicUsize::new(0),
                served: AtomicUsize::new(0),
            })
        }

        /// Takes one, or says how long to wait; and what is left, and until when.
        fn take(&self) -> (Option<Duration>, u64, Duration) {
            let now = self.clock.monotonic();
            let minute = SECOND * 60;
            let (log, level, at) = &mut *self.state.lock().unwrap();
            let rate = self.limit as f64 / 60.0;
            let reset;
            match self.kind {
                Kind::Window(offset) => {
                    let offset = Duration::from_secs(offset);
                    // Window number n ends at offset + n minutes.
                    let number = |t: Duration| (t + minute - offset).as_secs() / 60;
                    if number(now) != number(*at) {
                        *level = self.limit as f64;
                    }
                    *at = now;
                    reset = minute * u32::try_from(number(now)).unwrap() + offset - now;
                }
                Kind::Sliding => {
                    while log.front().is_some_and(|t| *t + minute <= now) {
                        log.pop_front();
                    }
                    *level = self.limit as f64 - log.len() as f64;
                    reset = log.front().map_or(minute, |t| *t + minute - now);
                }
                Kind::Bucket => {
                    *level = (*level + (now - *at).as_secs_f64() * rate).min(self.limit as f64);
                    *at = now;
                    reset = Duration::ZERO;
                }
            }
            let each = self.each as f64;
            let refused = (*level + 1e-9 < each).then(|| match self.kind {
                Kind::Bucket => Duration::from_secs_f64((each - *level) / rate),
                _ => reset,
            });
            if refused.is_none() {
                *level -= each;
                log.push_back(now);
            }
            let reset = match self.kind {
                Kind::Bucket => Duration::from_secs_f64((self.limit as f64 - *level) / rate),
                _ => reset,
            };
            (refused, *level as u64, reset)
        }
    }

    #[async_trait]
    impl Provider for Rated {
        fn id(&self) -> &str {
            "rated"
        }

        async fn stream(&self, cx: &Cx, _: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
            cx.race("rated", self.clock.sleep(self.latency / 4)).await?;
            let (refused, remaining, resets_in) = self.take();
            cx.race("rated", self.clock.sleep(self.latency * 3 / 4)).await?;
            if self.headers
                && let Some(sink) = cx.get::<HeadroomSink>()
            {
                let mut said = Headroom::default();
                let window = Some(Window { limit: self.limit, remaining, resets_in });
                if self.each == 1 {
                    said.requests = window
                } else {
                    said.tokens = window
                }
                sink.tell(&said);
            }
            if let Some(wait) = refused {
                self.refused.fetch_add(1, Ordering::Relaxed);
                // In whole seconds, as it stands in a header.
                let wait = Duration::from_secs_f64(wait.as_secs_f64().ceil().max(1.0));
                return Err(Error::new(ErrorKind::RateLimited, "rated", "429").with_retry_after(wait));
            }
            self.served.fetch_add(1, Ordering::Relaxed);
            let mut answer = Response::new(Message::assistant("ok"), FinishReason::Stop);
            answer.usage = Usage::new(self.each, 0);
            Ok(stream_of(answer.into_events().into_iter().map(Ok)))
        }
    }

    /// Lets `n` agents ask at the same time; returns how many refusals there were and how long it took.
    async fn crowd(server: &Arc<Rated>, limit: RateLimit, n: usize) -> (usize, Duration) {
        let provider = Arc::new(server.clone().layer(limit).layer(Retry::default().attempts(50).seed(1)));
        let tasks: Vec<_> = (0..n)
            .map(|n| {
                let (provider, cx) = (provider.clone(), cx(&server.clock));
                tokio::spawn(async move { provider.complete(&cx, &ask(&format!("{n}"))).await })
            })
            .collect();
        while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
            server.clock.jump().await;
            assert!(server.clock.monotonic() < SECOND * 3600, "stuck");
        }
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().message.to_text(), "ok");
        }
        assert_eq!(server.served.load(Ordering::Relaxed), n);
        (server.refused.load(Ordering::Relaxed), server.clock.monotonic())
    }

    /// The least time in which a server of this kind can serve `n`.
    fn ideal(kind: Kind, limit: u64, n: u64) -> f64 {
        match kind {
            Kind::Bucket => n.saturating_sub(limit) as f64 * 60.0 / limit as f64,
            Kind::Sliding => ((n - 1) / limit) as f64 * 60.0,
            Kind::Window(offset) => match (n - 1) / limit {
                0 => 0.0,
                k => offset as f64 + (k - 1) as f64 * 60.0,
            },
        }
    }

    #[tokio::test]
    async fn two_hundred_at_once_are_hardly_refused_and_hardly_late() {
        let mut bad = Vec::new();
        for limit in [30, 60, 100, 150, 600] {
            for kind in [Kind::Window(60), Kind::Window(37), Kind::Sliding, Kind::Bucket] {
                for (headers, set) in [(true, true), (true, false), (false, true)] {
                    let clock = Jumping::new();
                    let server = Rated::new(&clock, kind, limit, headers);
                    let mut layer = RateLimit::new();
                    if set {
                        layer = layer.requests_per_minute(limit);
                    }
                    let (refused, took) = crowd(&server, layer, 200).await;
                    let best = ideal(kind, limit, 200) + 0.4;
                    let ratio = took.as_secs_f64() / best;
                    println!(
                        "{kind:?} {limit} headers {headers} set {set}: {refused} refused, {took:?}, {ratio:.3} of {best:.1} s"
                    );
                    if refused > 4 || ratio > 1.1 && took.as_secs_f64() - best > 2.5 {
                        bad.push((kind, limit, headers, set, refused, ratio));
                    }
                }
            }
        }
        assert!(bad.is_empty(), "{bad:#?}");
    }

    #[tokio::test]
    async fn tokens_are_kept_below_their_limit_too() {
        for kind in [Kind::Window(60), Kind::Sliding, Kind::Bucket] {
            for headers in [true, false] {
                let clock = Jumping::new();
                let mut server = Arc::into_inner(Rated::new(&clock, kind, 60_000, headers)).unwrap();
                // What a request is estimated at: a few bytes, and 1024 for the answer.
                server.each = 1000;
                let server = Arc::new(server);
                let (refused, took) = crowd(&server, RateLimit::new().tokens_per_minute(60_000), 200).await;
                let best = ideal(kind, 60, 200);
                println!("tokens, {kind:?}, headers {headers}: {refused} refused, {took:?} of {best:.0} s");
                assert!(
                    refused <= 4 && took.as_secs_f64() <= best * 1.1 + 3.0,
                    "{kind:?} {refused} {took:?}"
                );
            }
        }
    }
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "inner", "no")
}

fn start() -> StreamEvent {
    StreamEvent::Start { id: None, model: None }
}

/// `Ok`, and fails as its first item.
fn late(kind: ErrorKind) -> Turn {
    Turn::Events(vec![Ok(start()), Ok(StreamEvent::Usage(Usage::new(1, 0))), Err(error(kind))])
}

/// Fails after some content.
fn half(kind: ErrorKind) -> Turn {
    let mut events: Vec<Result<StreamEvent>> = Response::new(Message::assistant("half"), FinishReason::Stop)
        .into_events()
        .into_iter()
        .map(Ok)
        .collect();
    events.truncate(3);
    events.push(Err(error(kind)));
    Turn::Events(events)
}

async fn read(stream: BoxStream<Result<StreamEvent>>) -> Vec<Result<StreamEvent>> {
    let (mut stream, mut all) = (stream, Vec::new());
    while let Some(item) = std::future::poll_fn(|task| stream.as_mut().poll_next(task)).await {
        all.push(item);
    }
    all
}

/// Runs `work` to its end, moving `clock` to each next timer; returns it and when it was done.
async fn run<T: Send + 'static>(
    clock: &Jumping,
    work: impl Future<Output = T> + Send + 'static,
) -> (T, Duration) {
    let task = tokio::spawn(work);
    settle().await;
    let mut turns = 0;
    while !task.is_finished() {
        clock.jump().await;
        settle().await;
        turns += 1;
        assert!(turns < 10_000, "stuck");
    }
    (task.await.unwrap(), clock.monotonic())
}

fn arc(clock: &Jumping) -> Cx {
    cx(clock)
}

mod retry {
    use super::*;

    #[tokio::test]
    async fn waits_are_those_that_were_asked_for() {
        let clock = Jumping::new();
        let inner = Scripted::new([
            Turn::Fail(error(ErrorKind::RateLimited).with_retry_after(SECOND * 7)),
            late(ErrorKind::Unavailable),
            Turn::Events(vec![Ok(start())]),
            Turn::Fail(error(ErrorKind::Timeout).with_retry_after(SECOND * 2)),
            Turn::text("hello"),
        ]);
        let told = Arc::new(Mutex::new(Vec::new()));
        let hook = told.clone();
        let provider = inner.clone().layer(
            Retry::default()
                .seed(3)
                .on_retry(move |r| hook.lock().unwrap().push((r.attempt, r.wait, r.error.kind()))),
        );
        let cx = arc(&clock);
        let (answer, took) = run(&clock, async move { provider.complete(&cx, &ask("x")).await }).await;
        assert_eq!(answer.unwrap().message.to_text(), "hello");
        let told = told.lock().unwrap();
        assert_eq!(took, told.iter().map(|(_, wait, _)| *wait).sum::<Duration>());
        assert_eq!((told[0].0, told[0].1, told[3].1), (1, SECOND * 7, SECOND * 2));
        assert_eq!(told[2].2, ErrorKind::Corrupt, "an answer that ends before it begins");
        assert!(told[1].1 <= SECOND && told[2].1 <= SECOND * 2);
        assert_eq!(inner.asked().len(), 5);
    }

    #[tokio::test]
    async fn what_has_begun_is_handed_on_untouched() {
        let inner = Scripted::new([half(ErrorKind::Unavailable), Turn::text("again")]);
        let events =
            read(inner.clone().layer(Retry::default()).stream(&Cx::new("t"), &ask("x")).await.unwrap()).await;
        assert_eq!(events.len(), 4);
        assert_eq!(events[3].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(inner.asked().len(), 1);
    }

    #[tokio::test]
    async fn a_wait_beyond_the_deadline_fails_at_once_and_a_cancellation_ends_one() {
        let clock = Jumping::new();
        let inner = Scripted::by(|_| Turn::Fail(error(ErrorKind::RateLimited).with_retry_after(SECOND * 30)));
        let provider = Arc::new(inner.clone().layer(Retry::default()));
        let e = provider.stream(&cx(&clock).with_timeout(SECOND * 20), &ask("x")).await.err().unwrap();
        assert_eq!((e.kind(), e.retry_after()), (ErrorKind::RateLimited, Some(SECOND * 30)));
        assert_eq!(clock.monotonic(), Duration::ZERO);
        let patient = cx(&clock).with_timeout(SECOND * 31);
        let (task, other) = (provider.clone(), patient.clone());
        let task = tokio::spawn(async move { task.stream(&other, &ask("x")).await.err().unwrap().kind() });
        settle().await;
        assert!(!task.is_finished());
        patient.cancel().cancel();
        assert_eq!(task.await.unwrap(), ErrorKind::Cancelled);
        assert_eq!((inner.asked().len(), clock.clock.sleepers()), (2, 0));
    }

    #[tokio::test]
    async fn dropped_in_a_wait_it_leaves_nothing_behind() {
        let clock = Jumping::new();
        let inner = Scripted::new([Turn::Fail(error(ErrorKind::Unavailable)), Turn::text("a")]);
        let provider = inner.clone().layer(Retry::default());
        assert!(polled(provider.stream(&cx(&clock), &ask("x")), 1).await.is_none());
        assert_eq!((clock.clock.sleepers(), inner.asked().len()), (0, 1));
    }

    fn turn() -> impl Strategy<Value = (u8, u8)> {
        (0u8..4, 0u8..14)
    }

    fn kind(n: u8) -> ErrorKind {
        use ErrorKind as K;
        [
            K::RateLimited,
            K::Unavailable,
            K::Timeout,
            K::Corrupt,
            K::Invalid,
            K::NotFound,
            K::Unauthorized,
            K::Denied,
            K::Exhausted,
            K::ContextOverflow,
            K::Unsupported,
            K::Conflict,
            K::Cancelled,
            K::Other("x".into()),
        ][usize::from(n)]
        .clone()
    }

    proptest! {
        /// Whatever comes in whatever order: content is emitted once, and nothing permanent is tried again.
        #[test]
        fn nothing_twice_and_nothing_in_vain(turns in proptest::collection::vec(turn(), 1..9), hedge: bool, chain: bool) {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async move {
                let clock = Jumping::new();
                let script: Vec<Turn> = turns
                    .iter()
                    .map(|(how, what)| match how {
                        0 => Turn::Fail(error(kind(*what))),
                        1 => late(kind(*what)),
                        2 => half(kind(*what)),
                        _ => Turn::text("whole"),
                    })
                    .collect();
                let inner = Scripted::new(script);
                let mut provider: Arc<dyn Provider> = Arc::new(inner.clone().layer(Retry::default().attempts(4)));
                if hedge {
                    provider = Arc::new(provider.layer(Hedge::new(SECOND)));
                }
                if chain {
                    provider = Arc::new(Fallback::new(provider));
                }
                let cx = arc(&clock);
                let (events, _) = run(&clock, async move {
                    match provider.stream(&cx, &ask("x")).await {
                        Ok(stream) => read(stream).await,
                        Err(e) => vec![Err(e)],
                    }
                })
                .await;
                let starts = events.iter().filter(|e| matches!(e, Ok(StreamEvent::PartStart { .. }))).count();
                let texts: String = events
                    .iter()
                    .filter_map(|e| if let Ok(StreamEvent::Delta { text, .. }) = e { Some(text.as_str()) } else { None })
                    .collect();
                assert!(starts <= 1 && ["", "half", "whole"].contains(&texts.as_str()), "{events:?}");
                let end = |at: usize| turns.get(at).is_none_or(|(how, what)| *how >= 2 || *what >= 4);
                let first_end = (0..=turns.len()).find(|at| end(*at)).unwrap();
                // With a hedge there may be two at once, each with attempts of its own.
                if !hedge {
                    assert_eq!(inner.asked().len(), (first_end + 1).min(5), "{turns:?}");
                }
            });
        }
    }
}

mod concurrency {
    use super::*;

    #[tokio::test]
    async fn permits_come_back_when_streams_end_or_are_dropped() {
        let limit = Concurrency::new(2);
        let provider = Scripted::by(|_| Turn::text("x")).layer(limit.clone());
        let cx = Cx::new("t");
        let a = provider.stream(&cx, &ask("a")).await.unwrap();
        let b = provider.stream(&cx, &ask("b")).await.unwrap();
        assert_eq!(limit.available(), 0);
        assert!(polled(provider.stream(&cx, &ask("c")), 1).await.is_none(), "the third waits");
        drop(a);
        assert_eq!(limit.available(), 1);
        let mut b = b;
        while let Some(event) = std::future::poll_fn(|task| b.as_mut().poll_next(task)).await {
            if matches!(event, Ok(StreamEvent::Finish(_))) {
                assert_eq!(limit.available(), 2, "the end is the end, whoever keeps the stream");
            }
        }
        let failing = Scripted::by(|_| Turn::Fail(error(ErrorKind::Invalid))).layer(limit.clone());
        assert!(failing.stream(&cx, &ask("d")).await.is_err());
        let broken = Scripted::by(|_| half(ErrorKind::Corrupt)).layer(limit.clone());
        let events = read(broken.stream(&cx, &ask("e")).await.unwrap()).await;
        assert!(events.last().unwrap().is_err());
        assert_eq!(limit.available(), 2);
    }

    #[tokio::test]
    async fn waiters_are_served_in_order_and_may_give_up() {
        let (clock, limit) = (Jumping::new(), Concurrency::new(1));
        let provider = Arc::new(Scripted::by(|_| Turn::text("x")).layer(limit.clone()));
        let held = provider.stream(&cx(&clock), &ask("0")).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        let contexts: Vec<Cx> =
            (0..5).map(|n| if n == 3 { cx(&clock).with_timeout(SECOND) } else { cx(&clock) }).collect();
        for (n, cx) in contexts.iter().enumerate() {
            let (provider, cx, order) = (provider.clone(), cx.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let done = provider.complete(&cx, &ask("x")).await.map_err(|e| e.kind());
                if done.is_ok() {
                    order.lock().unwrap().push(n);
                }
                done.map(drop)
            }));
            settle().await;
        }
        contexts[1].cancel().cancel();
        clock.clock.advance(SECOND);
        tasks[0].abort();
        settle().await;
        assert!(order.lock().unwrap().is_empty());
        drop(held);
        settle().await;
        assert_eq!(*order.lock().unwrap(), [2, 4]);
        let mut ends = Vec::new();
        for task in tasks {
            ends.push(task.await.ok());
        }
        assert_eq!(ends[1], Some(Err(ErrorKind::Cancelled)));
        assert_eq!(ends[3], Some(Err(ErrorKind::Timeout)));
        assert_eq!(limit.available(), 1);
    }
}

mod fallback {
    use super::*;

    fn fails(kind: ErrorKind) -> Scripted {
        Scripted::by(move |_| Turn::Fail(error(kind.clone())))
    }

    fn says(text: &'static str) -> Scripted {
        Scripted::by(move |_| Turn::text(text))
    }

    #[tokio::test]
    async fn the_next_is_asked_where_it_may_do_better_and_only_there() {
        use ErrorKind as K;
        for (kind, falls) in [
            (K::Unavailable, true),
            (K::Timeout, true),
            (K::RateLimited, true),
            (K::Exhausted, true),
            (K::Unauthorized, true),
            (K::NotFound, true),
            (K::Unsupported, true),
            (K::Corrupt, true),
            (K::Invalid, false),
            (K::Denied, false),
            (K::Cancelled, false),
            (K::ContextOverflow, false),
            (K::Conflict, false),
        ] {
            for at_once in [true, false] {
                let second = says("second");
                let first = kind.clone();
                let first = Scripted::by(move |_| {
                    if at_once { Turn::Fail(error(first.clone())) } else { late(first.clone()) }
                });
                let chain = Fallback::new(first).then_model(second.clone(), "other");
                let done = chain.complete(&Cx::new("t"), &ask("x")).await;
                assert_eq!(done.is_ok(), falls, "{kind}");
                match done {
                    Ok(answer) => {
                        assert_eq!(answer.message.to_text(), "second");
                        assert_eq!(answer.model.as_deref(), Some("other"), "who answered is visible");
                        assert_eq!(second.asked()[0].request.model, "other");
                    }
                    Err(e) => assert_eq!((e.kind(), second.asked().len()), (kind.clone(), 0)),
                }
            }
        }
        let second = says("second");
        let chain = Fallback::new(Scripted::by(|_| half(K::Unavailable))).then(second.clone());
        assert!(chain.complete(&Cx::new("t"), &ask("x")).await.is_err());
        assert!(second.asked().is_empty(), "something has been shown");
        let chain = Fallback::new(fails(K::Denied)).then(says("x")).also_on(|e| e.kind() == K::Denied);
        assert!(chain.complete(&Cx::new("t"), &ask("x")).await.is_ok());
    }

    #[tokio::test]
    async fn one_error_names_them_all() {
        let a = Scripted::by(|_| Turn::Fail(Error::new(ErrorKind::Unauthorized, "p", "bad key")));
        let b = Scripted::by(|_| {
            Turn::Fail(Error::new(ErrorKind::RateLimited, "p", "slow down").with_retry_after(SECOND * 9))
        });
        let c = Scripted::by(|_| {
            Turn::Fail(Error::new(ErrorKind::RateLimited, "p", "later").with_retry_after(SECOND * 4))
        });
        let e = Fallback::new(a).then(b).then(c).complete(&Cx::new("t"), &ask("x")).await.unwrap_err();
        assert_eq!((e.kind(), e.retry_after()), (ErrorKind::RateLimited, Some(SECOND * 4)));
        for words in ["bad key", "slow down", "later", "unauthorized"] {
            assert!(e.message().contains(words), "{e}");
        }
    }

    #[tokio::test]
    async fn the_dead_are_passed_over_and_looked_at_again() {
        let clock = Jumping::new();
        let alive = Arc::new(AtomicUsize::new(0));
        let switch = alive.clone();
        let first = Scripted::by(move |_| match switch.load(Ordering::Relaxed) {
            0 => Turn::Fail(error(ErrorKind::Unavailable)),
            _ => Turn::text("first"),
        });
        let chain = Fallback::new(first.clone()).then(says("second")).breaker(3, SECOND * 30);
        let text = async || chain.complete(&cx(&clock), &ask("x")).await.unwrap().message.to_text();
        for _ in 0..10 {
            assert_eq!(text().await, "second");
        }
        assert_eq!(first.asked().len(), 3);
        clock.clock.advance(SECOND * 30);
        assert_eq!((text().await, text().await), ("second".into(), "second".into()));
        assert_eq!(first.asked().len(), 4, "one goes and looks");
        alive.store(1, Ordering::Relaxed);
        assert_eq!(text().await, "second");
        clock.clock.advance(SECOND * 30);
        assert_eq!((text().await, text().await), ("first".into(), "first".into()));

        let alone = Fallback::new(fails(ErrorKind::Unavailable)).breaker(1, SECOND * 30);
        assert!(alone.complete(&cx(&clock), &ask("x")).await.unwrap_err().retry_after().is_none());
        let e = alone.complete(&cx(&clock), &ask("x")).await.unwrap_err();
        assert_eq!((e.kind(), e.retry_after()), (ErrorKind::Unavailable, Some(SECOND * 30)));
    }

    #[tokio::test]
    async fn a_probe_that_is_dropped_lets_the_next_one_look() {
        let clock = Jumping::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let first = Scripted::by(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Turn::Fail(error(ErrorKind::Unavailable)),
            1 => Turn::Hang,
            _ => Turn::text("first"),
        });
        let chain = Fallback::new(first).then(says("second")).breaker(1, SECOND);
        let text = async || chain.complete(&cx(&clock), &ask("x")).await.unwrap().message.to_text();
        assert_eq!(text().await, "second");
        clock.clock.advance(SECOND);
        {
            let here = cx(&clock);
            let request = ask("x");
            let mut probe = Box::pin(chain.stream(&here, &request));
            assert!(polled(&mut probe, 1).await.is_none());
            assert_eq!(text().await, "second", "one at a time");
        }
        assert_eq!(text().await, "first");
    }

    #[tokio::test]
    async fn the_callers_own_deadline_is_nobodys_failure() {
        let clock = Jumping::new();
        let second = says("second");
        let chain = Fallback::new(Scripted::by(|_| Turn::Hang)).then(second.clone());
        let here = cx(&clock).with_timeout(SECOND);
        let (done, _) = run(&clock, async move { chain.complete(&here, &ask("x")).await }).await;
        assert_eq!(done.unwrap_err().kind(), ErrorKind::Timeout);
        assert!(second.asked().is_empty());
    }
}

mod hedge {
    use super::*;

    /// Answers after so many seconds; counts what is under way.
    #[derive(Debug)]
    struct Slow {
        clock: Jumping,
        after: Mutex<VecDeque<u64>>,
        asked: AtomicUsize,
        open: Arc<AtomicUsize>,
    }

    struct Open(Arc<AtomicUsize>);

    impl Drop for Open {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[async_trait]
    impl Provider for Slow {
        fn id(&self) -> &str {
            "slow"
        }

        async fn stream(&self, cx: &Cx, _: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
            let n = self.asked.fetch_add(1, Ordering::Relaxed);
            self.open.fetch_add(1, Ordering::Relaxed);
            let _open = Open(self.open.clone());
            let wait = self.after.lock().unwrap().pop_front().unwrap();
            cx.race("slow", self.clock.sleep(SECOND * u32::try_from(wait).unwrap())).await?;
            let answer = Response::new(Message::assistant(n.to_string()), FinishReason::Stop);
            Ok(stream_of(answer.into_events().into_iter().map(Ok)))
        }
    }

    fn slow(clock: &Jumping, after: &[u64]) -> Arc<Slow> {
        let (after, open) = (Mutex::new(after.iter().copied().collect()), Arc::default());
        Arc::new(Slow { clock: clock.clone(), after, asked: AtomicUsize::new(0), open })
    }

    async fn once(clock: &Jumping, inner: &Arc<Slow>, hedge: &Hedge, cx: Cx) -> (String, Duration) {
        let (provider, before) = (inner.clone().layer(hedge.clone()), clock.monotonic());
        let (answer, at) = run(clock, async move { provider.complete(&cx, &ask("x")).await }).await;
        assert_eq!(inner.open.load(Ordering::Relaxed), 0, "the loser is gone");
        (answer.unwrap().message.to_text(), at - before)
    }

    #[tokio::test]
    async fn the_first_content_wins() {
        for (after, wins, took) in [(vec![1], "0", 1), (vec![30, 2], "1", 5), (vec![4, 30], "0", 4)] {
            let clock = Jumping::new();
            let inner = slow(&clock, &after);
            let won = once(&clock, &inner, &Hedge::new(SECOND * 3), cx(&clock)).await;
            assert_eq!(won, (wins.into(), SECOND * took));
            assert_eq!(inner.asked.load(Ordering::Relaxed), after.len());
        }
    }

    #[tokio::test]
    async fn hedges_stay_a_fraction() {
        let clock = Jumping::new();
        let hedge = Hedge::new(SECOND);
        let inner = slow(&clock, &[9; 400]);
        for _ in 0..100 {
            once(&clock, &inner, &hedge, cx(&clock)).await;
        }
        assert_eq!(inner.asked.load(Ordering::Relaxed), 100 + 11);
        let never = hedge.max_hedged_fraction(0.0);
        let before = inner.asked.load(Ordering::Relaxed);
        once(&clock, &inner, &never, cx(&clock)).await;
        assert_eq!(inner.asked.load(Ordering::Relaxed), before + 1);
    }

    #[tokio::test]
    async fn a_hedge_costs_what_the_budget_has() {
        use zo_traits::{Budget, Limits};
        let clock = Jumping::new();
        let inner = slow(&clock, &[9; 10]);
        let poor = Budget::new(Limits::none().tokens(500));
        once(&clock, &inner, &Hedge::new(SECOND), cx(&clock).with_budget(poor.clone())).await;
        assert_eq!((inner.asked.load(Ordering::Relaxed), poor.spent().tokens), (1, 0));
        let rich = Budget::new(Limits::none().tokens(5000));
        once(&clock, &inner, &Hedge::new(SECOND), cx(&clock).with_budget(rich.clone())).await;
        assert_eq!((inner.asked.load(Ordering::Relaxed), rich.spent().steps), (3, 1));
        assert!(rich.spent().tokens < 10 && rich.breakdown().contains_key("hedge"));
    }

    #[tokio::test]
    async fn a_hedge_that_nobody_waited_for_is_booked_too() {
        use zo_traits::{Budget, Limits};
        let clock = Jumping::new();
        let inner = slow(&clock, &[9, 9]);
        let budget = Budget::new(Limits::none());
        let here = cx(&clock).with_budget(budget.clone());
        let late = cx(&clock).with_timeout(SECOND * 3);
        let (provider, asked) = (inner.clone().layer(Hedge::new(SECOND)), ask(&"x".repeat(400)));
        let (answer, _) = run(&clock, async move {
            late.race("t", provider.complete(&here, &asked)).await.and_then(|done| done)
        })
        .await;
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(inner.asked.load(Ordering::Relaxed), 2);
        assert_eq!((budget.spent().steps, budget.spent().tokens), (1, 100), "its prompt was read");
    }

    #[tokio::test]
    async fn one_failure_waits_for_the_other() {
        let clock = Jumping::new();
        let inner = slow(&clock, &[5]);
        let other = Scripted::by(|_| Turn::Fail(error(ErrorKind::Unavailable)));
        let won = once(&clock, &inner, &Hedge::new(SECOND).to(other.clone()), cx(&clock)).await;
        assert_eq!((won.1, other.asked().len()), (SECOND * 5, 1));
    }
}

mod limit {
    use super::*;

    type Notes = Arc<Mutex<Vec<(Duration, String)>>>;

    /// Notes when it was asked for what.
    fn noting(clock: &Jumping) -> (Notes, Scripted) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (notes, clock) = (asked.clone(), clock.clone());
        let inner = Scripted::by(move |r| {
            notes.lock().unwrap().push((clock.monotonic(), r.messages[0].to_text()));
            Turn::text("x")
        });
        (asked, inner)
    }

    #[tokio::test]
    async fn first_come_first_served_and_who_gives_up_harms_nobody() {
        let clock = Jumping::new();
        let (asked, inner) = noting(&clock);
        let provider = Arc::new(inner.layer(RateLimit::new().requests_per_minute(2)));
        let contexts: Vec<Cx> = (0..8).map(|_| cx(&clock)).collect();
        let mut tasks = Vec::new();
        for (n, cx) in contexts.iter().enumerate() {
            let (provider, cx) = (provider.clone(), cx.clone());
            tasks.push(tokio::spawn(
                async move { provider.complete(&cx, &ask(&n.to_string())).await.map(drop) },
            ));
            settle().await;
        }
        // The first in the line, one in the middle, and one by dropping.
        contexts[2].cancel().cancel();
        contexts[5].cancel().cancel();
        tasks[4].abort();
        for _ in 0..20 {
            clock.jump().await;
        }
        settle().await;
        let order: Vec<String> = asked.lock().unwrap().iter().map(|(_, n)| n.clone()).collect();
        assert_eq!(order, ["0", "1", "3", "6", "7"]);
        let at: Vec<u64> = asked.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(at, [0, 0, 30, 61, 91], "one in 30 s, a little slower");
        assert_eq!(clock.clock.sleepers(), 0);
    }

    #[tokio::test]
    async fn a_wait_beyond_the_deadline_fails_at_once() {
        let clock = Jumping::new();
        let (asked, inner) = noting(&clock);
        let provider = inner.layer(RateLimit::new().requests_per_minute(1));
        provider.complete(&cx(&clock), &ask("a")).await.unwrap();
        let e = provider.complete(&cx(&clock).with_timeout(SECOND * 50), &ask("b")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::RateLimited);
        let wait = e.retry_after().unwrap();
        assert!(wait > SECOND * 59 && wait < SECOND * 63, "{wait:?}");
        assert_eq!(asked.lock().unwrap().len(), 1);
        let patient = cx(&clock).with_timeout(SECOND * 70);
        let (done, _) = run(&clock, async move { provider.complete(&patient, &ask("c")).await }).await;
        assert!(done.is_ok());
    }

    #[tokio::test]
    async fn a_refusal_is_heard_by_all_and_then_they_go_one_by_one() {
        let clock = Jumping::new();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (notes, time) = (asked.clone(), clock.clone());
        let inner = Scripted::by(move |_| {
            let mut notes = notes.lock().unwrap();
            notes.push(time.monotonic());
            match notes.len() {
                1 => Turn::text("x"),
                2 => Turn::Fail(error(ErrorKind::RateLimited).with_retry_after(SECOND * 10)),
                _ => Turn::text("x"),
            }
        });
        let limit = RateLimit::new();
        let (one, other) = (inner.clone().layer(limit.clone()), Arc::new(inner.layer(limit)));
        one.complete(&cx(&clock), &ask("a")).await.unwrap();
        assert!(one.complete(&cx(&clock), &ask("b")).await.is_err());
        let e = other.complete(&cx(&clock).with_timeout(SECOND * 9), &ask("c")).await.unwrap_err();
        assert_eq!((e.kind(), e.retry_after()), (ErrorKind::RateLimited, Some(SECOND * 10)));
        let here = cx(&clock);
        run(&clock, async move {
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    let (other, here) = (other.clone(), here.clone());
                    tokio::spawn(async move { other.complete(&here, &ask("d")).await.unwrap() })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        })
        .await;
        let pace = Duration::from_millis(20);
        assert_eq!(asked.lock().unwrap()[2..], [SECOND * 10, SECOND * 10 + pace, SECOND * 10 + pace * 2]);
    }

    #[tokio::test]
    async fn what_was_not_used_comes_back() {
        let clock = Jumping::new();
        let (asked, inner) = noting(&clock);
        let provider = inner.layer(RateLimit::new().tokens_per_minute(1100));
        for n in 0..50 {
            // Estimated at 1025 and used 15 each.
            provider.complete(&cx(&clock), &ask(&n.to_string())).await.unwrap();
            if n == 3 {
                break;
            }
        }
        assert_eq!((asked.lock().unwrap().len(), clock.monotonic()), (4, Duration::ZERO));
    }

    /// A provider of the host's own may tell anything.
    #[tokio::test]
    async fn absurd_headroom_harms_nobody() {
        use zo_providers::layer::Window;
        #[derive(Debug)]
        struct Tells(Mutex<Vec<Window>>);
        #[async_trait]
        impl Provider for Tells {
            fn id(&self) -> &str {
                "tells"
            }
            async fn stream(&self, cx: &Cx, _: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
                if let Some(said) = self.0.lock().unwrap().pop() {
                    let mut headroom = Headroom::default();
                    (headroom.requests, headroom.tokens) = (Some(said), Some(said));
                    cx.get::<HeadroomSink>().unwrap().tell(&headroom);
                }
                Err(error(ErrorKind::Invalid))
            }
        }
        let window = |limit, remaining, resets_in| Window { limit, remaining, resets_in };
        let all = vec![
            window(0, 0, SECOND),
            window(10, 1_000, SECOND),
            window(10, 1_000, SECOND),
            window(10, 1_000, SECOND * 2),
            window(0, 9, Duration::MAX),
            window(u64::MAX, u64::MAX, Duration::MAX),
            window(1_000_000, 999_999, Duration::ZERO),
        ];
        let clock = Jumping::new();
        let n = all.len();
        for limit in [RateLimit::new(), RateLimit::new().requests_per_minute(60_000)] {
            let provider = Tells(Mutex::new(all.clone())).layer(limit);
            for _ in 0..n + 3 {
                let (asked, here) = (ask("x"), cx(&clock).with_timeout(SECOND * 60));
                let e = provider.complete(&here, &asked).await.unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
            }
        }
    }

    #[tokio::test]
    async fn a_sink_from_outside_hears_it_too() {
        #[derive(Debug)]
        struct Tells;
        #[async_trait]
        impl Provider for Tells {
            fn id(&self) -> &str {
                "tells"
            }
            async fn stream(&self, cx: &Cx, _: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
                cx.get::<HeadroomSink>().unwrap().tell(&Headroom::default());
                Err(error(ErrorKind::Invalid))
            }
        }
        let heard = Arc::new(AtomicUsize::new(0));
        let count = heard.clone();
        let here = Cx::new("t").with(HeadroomSink(Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })));
        let provider = Tells.layer(RateLimit::new()).layer(RateLimit::new());
        assert!(provider.complete(&here, &ask("x")).await.is_err());
        assert_eq!(heard.load(Ordering::Relaxed), 1);
    }
}

/// Every layer around a provider is a provider.
mod laws {
    use super::*;
    use zo_testkit::laws::provider::Subject;

    fn answers() -> Scripted {
        Scripted::by(|_| {
            Turn::calls([("a", "f", serde_json::json!({})), ("b", "f", serde_json::json!({"x": 1}))])
        })
    }

    fn hangs() -> Scripted {
        Scripted::by(|_| Turn::Hang)
    }

    fn subject(provider: impl Provider) -> Subject {
        Subject::new(provider, ask("hello"))
    }

    macro_rules! all {
        ($($name:ident: $wrap:expr;)*) => {$(
            mod $name {
                use super::*;
                mod answering {
                    use super::*;
                    zo_testkit::provider_laws!(async { subject(($wrap)(answers())) });
                }
                mod silent {
                    use super::*;
                    zo_testkit::hanging_provider_laws!(async { subject(($wrap)(hangs())) });
                }
            }
        )*};
    }

    all! {
        retry: |p: Scripted| p.layer(Retry::default());
        fallback: |p: Scripted| Fallback::new(p.clone()).then_model(p, "other");
        fallback_to_it: |p: Scripted| Fallback::new(Scripted::by(|_| late(ErrorKind::Unavailable))).then_model(p, "m");
        hedge: |p: Scripted| p.layer(Hedge::new(Duration::from_millis(20)));
        rate_limit: |p: Scripted| p.layer(RateLimit::new());
        rate_limit_set: |p: Scripted| p.layer(RateLimit::new().requests_per_minute(100_000).tokens_per_minute(100_000_000));
        concurrency: |p: Scripted| p.layer(Concurrency::new(8));
        all_of_them: |p: Scripted| Fallback::new(
            p.layer(Concurrency::new(64)).layer(RateLimit::new()).layer(Retry::default()).layer(Hedge::new(SECOND))
        );
    }
}
