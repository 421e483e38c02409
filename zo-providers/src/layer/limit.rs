//! Keeps the requests of a whole process below the rate limits of its providers.
//!
//! Promises:
//! * **Refusals are the exception.** A request goes out when the provider will take it, as far as that can be known: from what
//!   the host sets, from what each answer says ([`Headroom`]), and from refusals.
//! * **First come, first served**, for each model.
//! * **A refusal is heard by all.** When a provider asks for a pause, all wait for its end; then they go one by one at first.
//! * **Nobody waits in vain.** Who would be let in only after its deadline fails at once, with the time that it would have
//!   been in [`Error::retry_after`]. Who is cancelled, late or dropped leaves the line.

use super::{
    Layer, estimate,
    headroom::{Headroom, HeadroomSink, Window},
    meter::{Meter, Taken},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use zo_traits::{
    BoxStream, Clock, Cx, Error, ErrorKind, Provider, Request, Result, Stream, StreamEvent, Usage,
    async_trait,
};

const OP: &str = "layer.rate_limit";
/// So many go to a provider of which nothing is known, and so many more each second until it has answered.
const FEW: f64 = 4.0;
/// After a pause so many go one by one,
const PACED: u32 = 64;
/// so far apart.
const PACE: Duration = Duration::from_millis(20);
/// The first pause after a refusal that names none; it doubles with each refusal that no success parts from the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// The longest pause that a provider can ask of everybody; one request goes and looks after it.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// So many models are kept apart; beyond that, those that nobody uses are forgotten.
const MOST_DOORS: usize = 1024;

/// Keeps the requests and tokens per minute of a process below what its providers allow. Clones share the count, so that all
/// agents of one process do; each provider and model has a count of its own.
///
/// Without a number it goes by what the provider says of itself in its headers, and by refusals alone where it says nothing.
/// A number is a bound of its own beside that.
///
/// A request reserves an estimate of its tokens: a quarter of the bytes of its texts, and `max_tokens` or 1024 for the answer.
/// What it really used is settled when its stream says so.
///
/// Put [`Retry`](super::Retry) around it, so that what was refused all the same gets in line again:
///
/// ```
/// use zo_providers::{Offline, layer::{LayerExt, RateLimit, Retry}};
/// let limit = RateLimit::new().requests_per_minute(50).tokens_per_minute(40_000);
/// let one = Offline::new().layer(limit.clone()).layer(Retry::default());
/// let other = Offline::new().layer(limit).layer(Retry::default());
/// ```
///
/// All contexts that pass one `RateLimit` must go by one clock.
#[derive(Clone, Default)]
pub struct RateLimit {
    requests: Option<u64>,
    tokens: Option<u64>,
    doors: Arc<Mutex<HashMap<(String, String), Door>>>,
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("requests_per_minute", &self.requests)
            .field("tokens_per_minute", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl RateLimit {
    /// No limit but those that the providers tell.
    pub fn new() -> Self {
        Self::default()
    }

    /// At most `n` requests a minute to each model, and at least one. The count starts anew; clones made before keep theirs.
    #[must_use]
    pub fn requests_per_minute(self, n: u64) -> Self {
        Self { requests: Some(n.max(1)), doors: Arc::default(), ..self }
    }

    /// At most `n` tokens a minute, prompts and answers together, to each model. The count starts anew; clones made before
    /// keep theirs.
    #[must_use]
    pub fn tokens_per_minute(self, n: u64) -> Self {
        Self { tokens: Some(n.max(1)), doors: Arc::default(), ..self }
    }

    fn door(&self, provider: &str, model: &str, now: Duration) -> Door {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if doors.len() >= MOST_DOORS {
            doors.retain(|_, door| Arc::strong_count(&door.0) > 1);
        }
        let key = (provider.to_owned(), model.to_owned());
        doors.entry(key).or_insert_with(|| Door::new(self.requests, self.tokens, now)).clone()
    }
}

#[async_trait]
impl Layer for RateLimit {
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        cx.check(OP)?;
        let door = self.door(next.id(), &request.model, cx.clock().monotonic());
        let mut pass = door.enter(cx, estimate::total(request)).await?;
        let listening = cx.clone().with(pass.sink(cx.get::<HeadroomSink>().cloned()));
        match next.stream(&listening, request).await {
            Ok(inner) => Ok(Box::pin(Metered { inner: Some(inner), pass, usage: None })),
            Err(e) => {
                pass.failed(&e, None);
                Err(e)
            }
        }
    }
}

/// What stands before one model. Clones are one door.
#[derive(Debug, Clone)]
struct Door(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    requests: Meter,
    tokens: Meter,
    /// Nobody before this time: the provider asked for it.
    pause: Duration,
    /// Nobody before this time: the pause, or the pace after one.
    gate: Duration,
    /// So many still go one by one.
    paced: u32,
    /// Refusals without a success in between.
    streak: u32,
    next: u64,
    line: BTreeMap<u64, Waiting>,
    /// Tokens that those in the line will reserve.
    queued: u64,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    deadline: Option<Duration>,
    tokens: u64,
}

impl Door {
    fn new(requests: Option<u64>, tokens: Option<u64>, now: Duration) -> Self {
        let mut state = State {
            requests: Meter::new(requests, now),
            tokens: Meter::new(tokens, now),
            pause: Duration::ZERO,
            gate: Duration::ZERO,
            paced: 0,
            streak: 0,
            next: 0,
            line: BTreeMap::new(),
            queued: 0,
        };
        if requests.is_none() && tokens.is_none() {
            state.requests.feel_the_way(FEW, now);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes, once the lock is free again, the first in the line, and those who need not wait on.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let wake: Vec<Waker> = {
            let mut state = self.lock();
            let before = state.pause;
            change(&mut state);
            let late = |w: &Waiting| w.deadline.is_some_and(|at| at <= state.pause);
            let paused = state.pause != before;
            let whom = state.line.values().enumerate().take(if paused { usize::MAX } else { 1 });
            whom.filter(|(n, w)| *n == 0 || late(w)).map(|(_, w)| w.waker.clone()).collect()
        };
        wake.into_iter().for_each(Waker::wake);
    }

    /// Waits for its turn.
    ///
    /// # Errors
    /// `Cancelled`, `Timeout`, and `RateLimited` where the turn would come after the deadline.
    async fn enter(&self, cx: &Cx, tokens: u64) -> Result<Pass> {
        let turn = Turn { door: self, cx, tokens, ticket: None, timer: None };
        let (request, tokens) = cx.race(OP, turn).await??;
        let counted = Arc::new(AtomicBool::new(false));
        Ok(Pass { door: self.clone(), clock: cx.clock().clone(), request, tokens, counted, settled: false })
    }
}

impl State {
    /// When the first in the line may go.
    fn ready_at(&mut self, now: Duration, tokens: u64) -> Duration {
        let requests = self.requests.ready_at(now, 1);
        self.gate.max(requests).max(self.tokens.ready_at(now, tokens))
    }

    /// When who comes now may go, if all before it use what they reserve.
    fn expected_at(&mut self, now: Duration, tokens: u64) -> Duration {
        let ahead = self.line.len() as u64;
        let requests = self.requests.expected_at(now, ahead, 1);
        self.gate.max(requests).max(self.tokens.expected_at(now, self.queued, tokens))
    }

    fn counted(&mut self, before: &AtomicBool, request: Taken, tokens: Taken) {
        if !before.swap(true, Ordering::Relaxed) {
            self.requests.counted(request);
            self.tokens.counted(tokens);
        }
    }

    fn take(&mut self, now: Duration, tokens: u64) -> (Taken, Taken) {
        if self.paced > 0 {
            self.paced -= 1;
            self.gate = now.saturating_add(PACE);
        }
        (self.requests.take(now, 1), self.tokens.take(now, tokens))
    }

    fn leave(&mut self, ticket: u64) {
        if let Some(waiting) = self.line.remove(&ticket) {
            self.queued = self.queued.saturating_sub(waiting.tokens);
        }
    }

    fn refused(&mut self, now: Duration, by: (Taken, Taken), asked: Option<Duration>) {
        let wait = asked
            .unwrap_or_else(|| FIRST_PAUSE.saturating_mul(1 << self.streak.min(16)).min(LONGEST_BACKOFF));
        // The refusals of one burst are one: only those of requests sent after the pause was made count.
        if by.0.at() >= self.pause {
            self.streak = self.streak.saturating_add(1);
        }
        self.hold(now, wait);
        if asked.is_some() {
            if self.tokens.fullness(now) < self.requests.fullness(now) {
                self.tokens.refused(now, by.1, wait);
            } else {
                self.requests.refused(now, by.0, wait);
            }
            self.requests.believe(now, by.0, wait);
            self.tokens.believe(now, by.1, wait);
        }
    }

    fn hold(&mut self, now: Duration, wait: Duration) {
        let until = now.saturating_add(wait);
        self.pause = self.pause.max(until);
        self.gate = self.gate.max(until);
        self.paced = PACED;
    }
}

type Timer<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The wait in the line.
struct Turn<'a> {
    door: &'a Door,
    cx: &'a Cx,
    tokens: u64,
    ticket: Option<u64>,
    /// Until when the timer goes.
    timer: Option<(Duration, Timer<'a>)>,
}

impl Future for Turn<'_> {
    type Output = Result<(Taken, Taken)>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let now = this.cx.clock().monotonic();
            let ready = {
                let mut state = this.door.lock();
                let first = match this.ticket {
                    None => {
                        let at = state.expected_at(now, this.tokens);
                        this.may_wait_until(now, at)?;
                        let ticket = state.next;
                        state.next += 1;
                        this.ticket = Some(ticket);
                        state.queued = state.queued.saturating_add(this.tokens);
                        let (waker, deadline) = (task.waker().clone(), this.cx.deadline());
                        state.line.insert(ticket, Waiting { waker, deadline, tokens: this.tokens });
                        state.line.len() == 1
                    }
                    Some(ticket) => {
                        if let Some(waiting) = state.line.get_mut(&ticket) {
                            waiting.waker.clone_from(task.waker());
                        }
                        state.line.first_key_value().is_none_or(|(first, _)| *first == ticket)
                    }
                };
                if !first {
                    this.may_wait_until(now, state.pause)?;
                    this.timer = None;
                    return Poll::Pending;
                }
                let ready = state.ready_at(now, this.tokens);
                if ready <= now {
                    let taken = state.take(now, this.tokens);
                    drop(state);
                    this.leave();
                    return Poll::Ready(Ok(taken));
                }
                ready
            };
            this.may_wait_until(now, ready)?;
            if this.timer.as_ref().is_none_or(|(until, _)| *until != ready) {
                this.timer = Some((ready, this.cx.clock().sleep(ready.saturating_sub(now))));
            }
            match this.timer.as_mut().map(|(_, timer)| timer.as_mut().poll(task)) {
                Some(Poll::Ready(())) => this.timer = None,
                _ => return Poll::Pending,
            }
        }
    }
}

impl Turn<'_> {
    fn may_wait_until(&self, now: Duration, at: Duration) -> Result<()> {
        match self.cx.deadline() {
            Some(deadline) if at > now && at >= deadline => {
                let wait = at.saturating_sub(now);
                let left = deadline.saturating_sub(now);
                Err(Error::new(
                    ErrorKind::RateLimited,
                    OP,
                    format_args!("the rate limit has room in {wait:?}, but the deadline is in {left:?}"),
                )
                .with_retry_after(wait))
            }
            _ => Ok(()),
        }
    }

    /// Gives up the place and wakes who is first now.
    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.door.change(|state| state.leave(ticket));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What one request took.
#[derive(Debug)]
struct Pass {
    door: Door,
    clock: Arc<dyn Clock>,
    request: Taken,
    tokens: Taken,
    /// Has the provider surely counted it?
    counted: Arc<AtomicBool>,
    settled: bool,
}

impl Pass {
    /// Hears what the answer says of the limits, and passes it on to who wanted to hear it before.
    fn sink(&self, outer: Option<HeadroomSink>) -> HeadroomSink {
        let (door, clock, request, tokens) =
            (self.door.clone(), self.clock.clone(), self.request, self.tokens);
        let counted = self.counted.clone();
        HeadroomSink(Arc::new(move |headroom: &Headroom| {
            let now = clock.monotonic();
            door.change(|state| {
                state.counted(&counted, request, tokens);
                if let Some(said) = headroom.requests {
                    state.requests.observe(now, request, said);
                }
                if let Some(said) = headroom.tokens.or_else(|| tightest(headroom)) {
                    state.tokens.observe(now, tokens, said);
                }
            });
            if let Some(outer) = &outer {
                outer.tell(headroom);
            }
        }))
    }

    /// The provider has begun to answer.
    fn answered(&self) {
        let mut state = self.door.lock();
        state.streak = 0;
        if state.requests.known() {
            drop(state);
            self.door.change(|_| {});
        }
    }

    /// Replaces the estimate by what was used.
    fn settle(&mut self, used: u64) {
        if !std::mem::replace(&mut self.settled, true) {
            let (now, taken) = (self.clock.monotonic(), self.tokens);
            self.door.change(|state| state.tokens.settle(now, taken, used));
        }
    }

    fn failed(&mut self, e: &Error, usage: Option<Usage>) {
        let (now, by) = (self.clock.monotonic(), (self.request, self.tokens));
        let asked = e.retry_after().filter(|d| !d.is_zero()).map(|d| d.min(LONGEST_PAUSE));
        match (e.kind(), asked) {
            // What was refused may be counted all the same.
            (ErrorKind::RateLimited, _) => self.door.change(|state| state.refused(now, by, asked)),
            (ErrorKind::Unavailable, Some(wait)) => {
                self.door.change(|state| state.hold(now, wait));
                self.settle(0);
            }
            // Nobody knows how far it got.
            (ErrorKind::Cancelled | ErrorKind::Timeout | ErrorKind::Corrupt, _) => {
                if let Some(usage) = usage {
                    self.settle(usage.total());
                }
            }
            _ => self.settle(usage.map_or(0, |u| u.total())),
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.door.lock().counted(&self.counted, self.request, self.tokens);
    }
}

/// Of the limits on prompts and answers apart, the one that is nearer to its end.
fn tightest(headroom: &Headroom) -> Option<Window> {
    let left = |w: &Window| w.remaining.saturating_mul(1000) / w.limit.max(1);
    [headroom.input_tokens, headroom.output_tokens].into_iter().flatten().min_by_key(left)
}

/// A stream that settles what its request took.
struct Metered {
    inner: Option<BoxStream<Result<StreamEvent>>>,
    pass: Pass,
    usage: Option<Usage>,
}

impl Stream for Metered {
    type Item = Result<StreamEvent>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let item = std::task::ready!(inner.as_mut().poll_next(task));
        match &item {
            Some(Ok(StreamEvent::Usage(usage))) => this.usage = Some(*usage),
            Some(Ok(StreamEvent::Finish(_))) => {
                this.pass.answered();
                if let Some(usage) = this.usage {
                    this.pass.settle(usage.total());
                }
            }
            Some(Ok(StreamEvent::PartStart { .. })) => this.pass.answered(),
            Some(Ok(_)) => {}
            Some(Err(e)) => {
                this.pass.failed(e, this.usage);
                this.inner = None;
            }
            None => this.inner = None,
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.as_ref().map_or((0, Some(0)), |inner| inner.size_hint())
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if let Some(usage) = self.usage {
            self.pass.settle(usage.total());
        }
    }
}
