//! Admission of model calls: how many may be under way at one provider, and when, learned from what the provider says.
//!
//! One [`Admission`] stands before each provider and is shared by all runs of an agent, so that ten thousand sub-agents
//! queue here instead of at the provider's door. It promises:
//!
//! * **Congestion is answered once.** A refusal halves the number of calls at once (AIMD) and pauses everybody for as long
//!   as the provider asked; the other refusals of the same burst only lengthen the pause. After a pause the slots open one
//!   by one, so that a fresh refusal stops the rest.
//! * **First come, first served.** A call that was refused gets its old place back ([`Admission::enter_again`]).
//! * **Nobody is woken in vain.** A free slot wakes one waiter, which already owns it; during a pause the first in the line
//!   alone keeps a timer. A waiter that is dropped, cancelled or late passes on what it had.
//! * **Nobody waits in vain.** A pause that ends after a waiter's deadline fails it at once, with the time that was asked.
//!
//! All contexts that pass one `Admission` must go by one clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    hash::{BuildHasher, RandomState},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use zo_traits::{Clock, Cx, Error, ErrorKind, Result};

const OP: &str = "model.admission";

/// Most model calls at once where nobody said otherwise.
pub(crate) const DEFAULT_MAX: usize = 64;
/// The first pause when the provider names none; it doubles with each refusal that no success parts from the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// The longest pause that a provider can ask of everybody; one call goes and looks after it.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Between two slots that open after a pause. A refusal usually takes longer than this and a model's answer much longer.
const PACE: Duration = Duration::from_millis(20);
/// Where the last burst was refused the limit grows slower by this factor.
const WARY: usize = 8;

/// The door to one provider. Clones are one door.
#[derive(Debug, Clone)]
pub(crate) struct Admission(Arc<Mutex<State>>);

/// A place in the line, for a call that has to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u64);

#[derive(Debug)]
struct State {
    /// Never more than so many at once.
    max: usize,
    /// How many may be under way now: 1 to `max`.
    limit: usize,
    active: usize,
    /// Most that were under way when one was let in, since the last cut.
    peak: usize,
    /// Successes towards the next slot.
    credit: usize,
    /// At how many the last burst was refused.
    refused_at: Option<usize>,
    /// Number of cuts so far: a refusal of a call from before the last one is no news.
    epoch: u64,
    /// Cuts without a success in between.
    streak: u32,
    /// Nobody before this time: the provider asked for it.
    pause: Duration,
    /// Nobody before this time: the pause, or the pace after one.
    gate: Duration,
    /// Slots that still open one by one.
    paced: usize,
    next: u64,
    line: BTreeMap<u64, Waiting>,
    /// Owners of a slot that do not know it yet.
    granted: BTreeSet<u64>,
    /// Who was last told to wait for the gate.
    timekeeper: Option<u64>,
}

#[derive(Debug)]
struct Waiting {
    waker: Waker,
    deadline: Option<Duration>,
}

impl Admission {
    /// A door that lets at most `max` calls be under way at once (at least one).
    pub(crate) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self(Arc::new(Mutex::new(State {
            max,
            limit: max,
            active: 0,
            peak: 0,
            credit: 0,
            refused_at: None,
            epoch: 0,
            streak: 0,
            pause: Duration::ZERO,
            gate: Duration::ZERO,
            paced: 0,
            next: 0,
            line: BTreeMap::new(),
            granted: BTreeSet::new(),
            timekeeper: None,
        })))
    }

    /// Waits for a slot. Dropping the future gives up the place and loses nothing.
    ///
    /// # Errors
    /// `Cancelled`, `Timeout`; `RateLimited` with [`Error::retry_after`] when the provider asked for a pause that outlasts
    /// the deadline of `cx`.
    pub(crate) fn enter<'a>(&'a self, cx: &'a Cx) -> impl Future<Output = Result<Pass>> + Send + 'a {
        self.wait(cx, None)
    }

    /// [`enter`](Admission::enter) at the place that the call had before ([`Pass::turn`]).
    ///
    /// # Errors
    /// As [`enter`](Admission::enter).
    pub(crate) fn enter_again<'a>(
        &'a self,
        cx: &'a Cx,
        turn: Turn,
    ) -> impl Future<Output = Result<Pass>> + Send + 'a {
        self.wait(cx, Some(turn))
    }

    /// What [`Cx::race`] does, in fewer bytes: tens of thousands may wait here.
    fn wait<'a>(&'a self, cx: &'a Cx, turn: Option<Turn>) -> impl Future<Output = Result<Pass>> + Send + 'a {
        let mut wait = Wait { door: self, cx, ticket: turn.map(|t| t.0), queued: false, timer: None };
        async move {
            let mut cancelled = pin!(wait.cx.cancel().cancelled());
            let mut late = None;
            poll_fn(|task| {
                if cancelled.as_mut().poll(task).is_ready() {
                    return Poll::Ready(Err(Error::cancelled(OP)));
                }
                wait.cx.check(OP)?;
                if let Poll::Ready(done) = Pin::new(&mut wait).poll(task) {
                    return Poll::Ready(done);
                }
                if late.is_none() {
                    late = wait.cx.remaining().map(|left| wait.cx.clock().sleep(left));
                }
                match late.as_mut().map(|late| late.as_mut().poll(task)) {
                    Some(Poll::Ready(())) => {
                        Poll::Ready(Err(Error::new(ErrorKind::Timeout, OP, "deadline passed")))
                    }
                    _ => Poll::Pending,
                }
            })
            .await
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes, once the lock is free again, whom that concerns.
    fn change<R>(&self, now: Duration, change: impl FnOnce(&mut State) -> R) -> R {
        let mut wake = Vec::new();
        let result = {
            let mut state = self.lock();
            let result = change(&mut state);
            state.hand_out(now, None, &mut wake);
            result
        };
        wake.into_iter().for_each(Waker::wake);
        result
    }
}

impl State {
    fn is_open(&self, now: Duration) -> bool {
        self.active < self.limit && now >= self.gate
    }

    fn take_slot(&mut self, now: Duration) {
        self.active += 1;
        self.peak = self.peak.max(self.active);
        if self.paced > 0 {
            self.paced -= 1;
            self.gate = now.saturating_add(PACE);
        }
    }

    /// Gives free slots to the first in the line, and has the first who must wait for the gate keep a timer. `me` is awake.
    fn hand_out(&mut self, now: Duration, me: Option<u64>, wake: &mut Vec<Waker>) {
        while self.is_open(now) {
            let Some((ticket, waiting)) = self.line.pop_first() else { return };
            self.granted.insert(ticket);
            self.take_slot(now);
            if me != Some(ticket) {
                wake.push(waiting.waker);
            }
        }
        if self.active < self.limit
            && let Some((ticket, waiting)) = self.line.first_key_value()
            && self.timekeeper != Some(*ticket)
        {
            self.timekeeper = Some(*ticket);
            if me != Some(*ticket) {
                wake.push(waiting.waker.clone());
            }
        }
    }

    fn succeeded(&mut self, epoch: u64) {
        // What began before the last cut says nothing about the limit since.
        if epoch != self.epoch {
            return;
        }
        self.streak = 0;
        self.credit += 1;
        let wary = self.refused_at.is_some_and(|at| self.limit + 1 >= at);
        if self.limit < self.max && self.credit >= self.limit * if wary { WARY } else { 1 } {
            self.credit = 0;
            self.limit += 1;
            if self.refused_at.is_some_and(|at| self.limit > at) {
                // More goes through than then: times have changed.
                self.refused_at = None;
            }
        }
    }

    /// Returns until when nobody may enter.
    fn refused(&mut self, epoch: u64, now: Duration, asked: Option<Duration>) -> Duration {
        if epoch == self.epoch {
            let at_once = self.peak.clamp(1, self.limit);
            self.refused_at = Some(at_once);
            self.limit = (at_once / 2).max(1);
            self.paced = self.limit;
            self.credit = 0;
            self.epoch += 1;
            self.peak = 0;
            let pause = asked.unwrap_or_else(|| backoff(self.streak));
            self.streak = self.streak.saturating_add(1);
            self.pause_until(now.saturating_add(pause));
        } else if let Some(asked) = asked {
            self.pause_until(now.saturating_add(asked));
        }
        self.gate
    }

    fn pause_until(&mut self, until: Duration) {
        self.pause = self.pause.max(until);
        self.gate = self.gate.max(until);
    }

    /// Those who cannot but be late, because of the pause.
    fn hopeless(&self) -> Vec<Waker> {
        let late = |w: &&Waiting| w.deadline.is_some_and(|at| at <= self.pause);
        self.line.values().filter(late).map(|w| w.waker.clone()).collect()
    }
}

/// Half of it is certain and half is chance, so that several agents of one key do not come back together.
fn backoff(streak: u32) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << streak.min(16)).min(LONGEST_BACKOFF);
    // `RandomState` is seeded by the operating system: the one source of chance in the standard library.
    let chance = RandomState::new().hash_one(streak) >> 40;
    whole / 2 + (whole / 2).mul_f64(chance as f64 / (1u64 << 24) as f64)
}

/// The right to one call. Dropping it frees the slot and teaches nothing.
#[derive(Debug)]
#[must_use = "dropping a pass frees its slot"]
pub(crate) struct Pass {
    door: Admission,
    clock: Arc<dyn Clock>,
    ticket: u64,
    epoch: u64,
}

impl Pass {
    /// The call's place, to be kept for [`Admission::enter_again`].
    pub(crate) fn turn(&self) -> Turn {
        Turn(self.ticket)
    }

    /// Frees the slot and learns from how the call went. When the provider was too busy to take it, returns how long it
    /// is until the call can be let in again; none for a success and for every other failure, which say nothing about load.
    pub(crate) fn settle(self, outcome: Result<(), &Error>) -> Option<Duration> {
        let now = self.clock.monotonic();
        match outcome {
            Ok(()) => {
                self.door.lock().succeeded(self.epoch);
                None
            }
            Err(e) => {
                let asked = e.retry_after().filter(|d| !d.is_zero()).map(|d| d.min(LONGEST_PAUSE));
                // An overloaded provider that says when to come back means the same as one that counts requests.
                let busy = e.kind() == ErrorKind::RateLimited
                    || (e.kind() == ErrorKind::Unavailable && asked.is_some());
                if !busy {
                    return None;
                }
                let (until, hopeless) = {
                    let mut state = self.door.lock();
                    (state.refused(self.epoch, now, asked), state.hopeless())
                };
                hopeless.into_iter().for_each(Waker::wake);
                Some(until.saturating_sub(now))
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.door.change(self.clock.monotonic(), |s| s.active = s.active.saturating_sub(1));
    }
}

/// The wait in the line.
struct Wait<'a> {
    door: &'a Admission,
    cx: &'a Cx,
    /// The place that it has or is to have.
    ticket: Option<u64>,
    /// Is it in the line, or granted a slot?
    queued: bool,
    timer: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

enum Step {
    In(Pass),
    /// The line moves without this one's help.
    Line,
    /// This one is to look again after so long.
    Timer(Duration),
    /// The pause outlasts the deadline.
    Hopeless(Duration),
}

impl Wait<'_> {
    fn step(&mut self, now: Duration, waker: &Waker) -> Step {
        let (mut wake, mut outdated) = (Vec::new(), None);
        let step = {
            let mut guard = self.door.lock();
            let state = &mut *guard;
            let ticket = match self.ticket {
                Some(ticket) if self.queued => {
                    if let Some(mine) = state.line.get_mut(&ticket)
                        && !mine.waker.will_wake(waker)
                    {
                        outdated = Some(std::mem::replace(&mut mine.waker, waker.clone()));
                    }
                    ticket
                }
                again => {
                    let free = |t: &u64| !state.line.contains_key(t) && !state.granted.contains(t);
                    let ticket = again.filter(free).unwrap_or_else(|| {
                        state.next += 1;
                        state.next
                    });
                    if state.is_open(now)
                        && state.line.first_key_value().is_none_or(|(first, _)| ticket < *first)
                    {
                        state.take_slot(now);
                        return Step::In(self.pass(state, ticket));
                    }
                    state.line.insert(ticket, Waiting { waker: waker.clone(), deadline: self.cx.deadline() });
                    (self.ticket, self.queued) = (Some(ticket), true);
                    ticket
                }
            };
            state.hand_out(now, Some(ticket), &mut wake);
            if state.granted.remove(&ticket) {
                self.queued = false;
                Step::In(self.pass(state, ticket))
            } else if now < state.pause && self.cx.deadline().is_some_and(|at| at <= state.pause) {
                Step::Hopeless(state.pause - now)
            } else if state.timekeeper == Some(ticket) && now < state.gate {
                Step::Timer(state.gate - now)
            } else {
                Step::Line
            }
        };
        drop(outdated);
        wake.into_iter().for_each(Waker::wake);
        step
    }

    fn pass(&self, state: &State, ticket: u64) -> Pass {
        Pass { door: self.door.clone(), clock: self.cx.clock().clone(), ticket, epoch: state.epoch }
    }
}

impl Future for Wait<'_> {
    type Output = Result<Pass>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let cx = self.cx;
            match self.step(cx.clock().monotonic(), task.waker()) {
                Step::In(pass) => return Poll::Ready(Ok(pass)),
                Step::Hopeless(left) => return Poll::Ready(Err(too_long(left))),
                Step::Line => {
                    self.timer = None;
                    return Poll::Pending;
                }
                Step::Timer(left) => {
                    // The gate may have moved since the timer was set: then it goes off early and is set again.
                    let timer = self.timer.get_or_insert_with(|| cx.clock().sleep(left));
                    if timer.as_mut().poll(task).is_pending() {
                        return Poll::Pending;
                    }
                    self.timer = None;
                }
            }
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.filter(|_| self.queued) else { return };
        let gone = self.door.change(self.cx.clock().monotonic(), |state| {
            let gone = state.line.remove(&ticket);
            if gone.is_none() && state.granted.remove(&ticket) {
                state.active = state.active.saturating_sub(1);
            }
            gone
        });
        // Outside of the lock: a waker may own a task that waits here too.
        drop(gone);
    }
}

fn too_long(left: Duration) -> Error {
    Error::new(
        ErrorKind::RateLimited,
        OP,
        format_args!("the provider is rate limited for another {left:?}, beyond the deadline of this call"),
    )
    .with_retry_after(left)
    .with_model_text("the model provider is rate limited")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use zo_testkit::VirtualClock;

    fn busy(after: Option<Duration>) -> Error {
        let e = Error::new(ErrorKind::RateLimited, "mock", "429");
        match after {
            Some(d) => e.with_retry_after(d),
            None => e,
        }
    }

    fn cx(clock: &VirtualClock) -> Cx {
        Cx::new("t").with_clock(Arc::new(clock.clone()))
    }

    fn now_or_never<F: Future>(f: F) -> Option<F::Output> {
        match std::pin::pin!(f).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(out) => Some(out),
            Poll::Pending => None,
        }
    }

    fn enter(door: &Admission, cx: &Cx) -> Pass {
        now_or_never(door.enter(cx)).expect("room").unwrap()
    }

    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    /// A provider that takes `at_once` calls at once and `per_second` in each second, each for 100 ms.
    struct Mock {
        clock: VirtualClock,
        at_once: usize,
        per_second: usize,
        names_a_pause: bool,
        busy: AtomicUsize,
        window: Mutex<(u64, usize)>,
        refused: AtomicUsize,
        worst: AtomicUsize,
    }

    impl Mock {
        fn new(clock: &VirtualClock, at_once: usize, per_second: usize, names_a_pause: bool) -> Arc<Self> {
            Arc::new(Self {
                clock: clock.clone(),
                at_once,
                per_second,
                names_a_pause,
                busy: AtomicUsize::new(0),
                window: Mutex::default(),
                refused: AtomicUsize::new(0),
                worst: AtomicUsize::new(0),
            })
        }

        async fn call(&self) -> Result<()> {
            let now = self.clock.monotonic();
            let (second, left) = (now.as_secs(), Duration::from_secs(now.as_secs() + 1).saturating_sub(now));
            let full = {
                let mut window = self.window.lock().unwrap();
                if window.0 != second {
                    *window = (second, 0);
                }
                let full = window.1 >= self.per_second;
                if !full && self.busy.load(Ordering::Relaxed) < self.at_once {
                    window.1 += 1;
                }
                full
            };
            if full || self.busy.load(Ordering::Relaxed) >= self.at_once {
                self.refused.fetch_add(1, Ordering::Relaxed);
                self.clock.sleep(Duration::from_millis(10)).await;
                return Err(busy(self.names_a_pause.then_some(left)));
            }
            self.worst.fetch_max(self.busy.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            self.clock.sleep(Duration::from_millis(100)).await;
            self.busy.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        }
    }

    /// Returns the callers in the order in which they were served, how often the mock refused, and the virtual time.
    async fn thousand(names_a_pause: bool) -> (Vec<usize>, usize, Duration) {
        let clock = VirtualClock::at(0);
        let (door, mock) = (Admission::new(DEFAULT_MAX), Mock::new(&clock, 10, 50, names_a_pause));
        let done = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..1_000)
            .map(|n| {
                let (door, mock, done, cx) = (door.clone(), mock.clone(), done.clone(), cx(&clock));
                tokio::spawn(async move {
                    let mut turn = None;
                    loop {
                        let pass = match turn {
                            None => door.enter(&cx).await.unwrap(),
                            Some(turn) => door.enter_again(&cx, turn).await.unwrap(),
                        };
                        turn = Some(pass.turn());
                        let answer = mock.call().await;
                        if pass.settle(answer.as_ref().map(|_| ())).is_none() {
                            done.lock().unwrap().push(n);
                            return;
                        }
                    }
                })
            })
            .collect();
        for _ in 0..200_000 {
            settle().await;
            if done.lock().unwrap().len() == 1_000 {
                break;
            }
            clock.advance(Duration::from_millis(5));
        }
        assert_eq!(done.lock().unwrap().len(), 1_000, "some never got in");
        for task in tasks {
            task.await.unwrap();
        }
        let state = door.lock();
        assert_eq!((state.active, state.line.len(), state.granted.len()), (0, 0, 0));
        assert!(mock.worst.load(Ordering::Relaxed) <= 10);
        drop(state);
        (
            Arc::try_unwrap(done).unwrap().into_inner().unwrap(),
            mock.refused.load(Ordering::Relaxed),
            clock.monotonic(),
        )
    }

    #[tokio::test]
    async fn a_thousand_callers_at_a_small_provider_are_all_served_in_order() {
        for names_a_pause in [true, false] {
            let (order, refused, took) = thousand(names_a_pause).await;
            println!("named pause {names_a_pause}: {refused} refusals, {took:?}");
            // 54 of them are the first burst of 64, before anything is known.
            assert!(refused <= 150, "{refused} refusals for 1000 calls");
            assert!(took <= Duration::from_secs(60), "{took:?} where 20 s is the least possible");
            let displaced = order.iter().enumerate().map(|(at, n)| at.abs_diff(*n)).max().unwrap();
            assert!(displaced <= 64, "somebody was served {displaced} places off");
        }
    }

    #[test]
    fn one_burst_of_refusals_is_one_cut() {
        let clock = VirtualClock::at(0);
        let (door, cx) = (Admission::new(64), cx(&clock));
        let passes: Vec<_> = (0..64).map(|_| enter(&door, &cx)).collect();
        assert!(now_or_never(door.enter(&cx)).is_none(), "the 65th waits");
        for (n, pass) in passes.into_iter().enumerate() {
            let wait = pass.settle(Err(&busy(Some(Duration::from_secs(1 + n as u64)))));
            assert_eq!(wait, Some(Duration::from_secs(1 + n as u64)), "the pause only grows");
        }
        assert_eq!(door.lock().limit, 32);
        clock.advance(Duration::from_secs(63));
        assert!(now_or_never(door.enter(&cx)).is_none(), "the longest pause holds");
        clock.advance(Duration::from_secs(1));
        let _first = enter(&door, &cx);
        assert!(now_or_never(door.enter(&cx)).is_none(), "after a pause the slots open one by one");
        clock.advance(PACE);
        let second = enter(&door, &cx);
        second.settle(Err(&busy(None))).expect("a pause");
        assert_eq!(door.lock().limit, 1, "the cut halves what was really under way");
    }

    #[test]
    fn the_limit_grows_with_success_up_to_the_maximum() {
        let clock = VirtualClock::at(0);
        let (door, cx) = (Admission::new(4), cx(&clock));
        let passes: Vec<_> = (0..4).map(|_| enter(&door, &cx)).collect();
        for pass in passes {
            let _ = pass.settle(Err(&busy(Some(Duration::from_secs(1)))));
        }
        assert_eq!(door.lock().limit, 2);
        clock.advance(Duration::from_secs(60));
        let mut seen = Vec::new();
        for _ in 0..200 {
            enter(&door, &cx).settle(Ok(()));
            clock.advance(PACE);
            let limit = door.lock().limit;
            if seen.last() != Some(&limit) {
                seen.push(limit);
            }
        }
        assert_eq!(seen, [2, 3, 4], "one at a time, and never beyond the maximum");
    }

    #[test]
    fn pauses_double_until_a_success_and_end_at_a_minute() {
        let clock = VirtualClock::at(0);
        let (door, cx) = (Admission::new(1), cx(&clock));
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = enter(&door, &cx).settle(Err(&busy(None))).unwrap();
            clock.advance(wait);
            waits.push(wait);
        }
        for (n, wait) in waits.iter().enumerate() {
            let whole = Duration::from_secs(1 << n.min(6)).min(LONGEST_BACKOFF);
            assert!(*wait >= whole / 2 && *wait <= whole, "{n}: {wait:?}");
        }
        enter(&door, &cx).settle(Ok(()));
        clock.advance(PACE);
        let wait = enter(&door, &cx).settle(Err(&busy(None))).unwrap();
        assert!(wait <= FIRST_PAUSE, "{wait:?} after a success");
    }

    #[test]
    fn other_failures_say_nothing_about_load() {
        let clock = VirtualClock::at(0);
        let (door, cx) = (Admission::new(8), cx(&clock));
        for kind in [ErrorKind::Invalid, ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Cancelled] {
            assert_eq!(enter(&door, &cx).settle(Err(&Error::new(kind, "mock", "x"))), None);
        }
        drop(enter(&door, &cx));
        let state = door.lock();
        assert_eq!((state.limit, state.gate, state.active), (8, Duration::ZERO, 0));
        drop(state);
        let overloaded =
            Error::new(ErrorKind::Unavailable, "mock", "529").with_retry_after(Duration::from_secs(3));
        assert_eq!(enter(&door, &cx).settle(Err(&overloaded)), Some(Duration::from_secs(3)));
    }

    #[test]
    fn an_absurd_pause_is_cut_and_none_is_none() {
        let clock = VirtualClock::at(0);
        let (door, cx) = (Admission::new(1), cx(&clock));
        assert_eq!(enter(&door, &cx).settle(Err(&busy(Some(Duration::MAX)))), Some(LONGEST_PAUSE));
        clock.advance(LONGEST_PAUSE);
        let wait = enter(&door, &cx).settle(Err(&busy(Some(Duration::ZERO)))).unwrap();
        assert!(wait >= FIRST_PAUSE / 2, "zero is no answer: {wait:?}");
    }

    #[tokio::test]
    async fn a_pause_beyond_the_deadline_fails_at_once() {
        let clock = VirtualClock::at(0);
        let (door, cx) = (Admission::new(2), cx(&clock));
        let (a, b) = (enter(&door, &cx), enter(&door, &cx));
        let short = cx.clone().with_timeout(Duration::from_secs(10));
        let patient = cx.clone().with_timeout(Duration::from_secs(100));
        let (waits, other) = (door.clone(), patient.clone());
        let waits = tokio::spawn(async move { waits.enter(&other).await.map(|_| ()) });
        settle().await;
        // Behind somebody who keeps the timer of the pause.
        let (queued, other) = (door.clone(), short.clone());
        let queued = tokio::spawn(async move { queued.enter(&other).await.map(|_| ()) });
        settle().await;
        let _ = a.settle(Err(&busy(Some(Duration::from_secs(30)))));
        drop(b);
        settle().await;
        let e = queued.await.unwrap().unwrap_err();
        assert_eq!((e.kind(), e.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(30))));
        let e = door.enter(&short).await.unwrap_err();
        assert_eq!((e.kind(), e.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(30))));
        assert!(!waits.is_finished());
        clock.advance(Duration::from_secs(30));
        waits.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn waiters_that_give_up_pass_on_what_they_had() {
        let clock = VirtualClock::at(0);
        let door = Admission::new(1);
        let held = enter(&door, &cx(&clock));
        let spawn = |cx: Cx| {
            let door = door.clone();
            tokio::spawn(async move { door.enter(&cx).await.map(|_| ()).map_err(|e| e.kind()) })
        };
        let (cancelled, late, stays) =
            (cx(&clock), cx(&clock).with_timeout(Duration::from_secs(5)), cx(&clock));
        let first = spawn(cancelled.clone());
        settle().await;
        let second = spawn(late);
        settle().await;
        let third = spawn(stays);
        settle().await;
        cancelled.cancel().cancel();
        clock.advance(Duration::from_secs(5));
        assert_eq!(first.await.unwrap(), Err(ErrorKind::Cancelled));
        assert_eq!(second.await.unwrap(), Err(ErrorKind::Timeout));
        assert!(!third.is_finished());
        drop(held);
        assert_eq!(third.await.unwrap(), Ok(()));

        // Granted, but dropped before it could know.
        let held = enter(&door, &cx(&clock));
        let here = cx(&clock);
        let mut chosen = Box::pin(door.enter(&here));
        assert!(chosen.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let next = spawn(cx(&clock));
        settle().await;
        drop(held);
        settle().await;
        assert!(!next.is_finished(), "the slot is the chosen one's");
        drop(chosen);
        assert_eq!(next.await.unwrap(), Ok(()));
        // The keeper of the timer goes away in a pause.
        let _ = enter(&door, &cx(&clock)).settle(Err(&busy(Some(Duration::from_secs(9)))));
        let (keeper, next) = (spawn(cx(&clock)), spawn(cx(&clock)));
        settle().await;
        keeper.abort();
        settle().await;
        clock.advance(Duration::from_secs(9));
        assert_eq!(next.await.unwrap(), Ok(()));
    }

    #[test]
    fn one_slot_wakes_one_waiter_and_a_pause_keeps_one_timer() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let clock = VirtualClock::at(0);
        let (door, cx) = (Admission::new(2), cx(&clock));
        let (a, b) = (enter(&door, &cx), enter(&door, &cx));
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut waits: Vec<_> = (0..1_000).map(|_| Box::pin(door.enter(&cx))).collect();
        for wait in &mut waits {
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        drop(a);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let _ = b.settle(Err(&busy(Some(Duration::from_secs(1)))));
        for wait in waits.iter_mut().skip(1) {
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert!(clock.sleepers() <= 1, "{} timers", clock.sleepers());
        assert!(count.0.load(Ordering::Relaxed) <= 2);
    }

    #[test]
    fn a_waiter_is_small() {
        let clock = VirtualClock::at(0);
        let (door, cx) = (Admission::new(1), cx(&clock));
        let size = size_of_val(&door.enter(&cx));
        println!("{size} bytes of future, {} in the line", size_of::<(u64, Waiting)>());
        assert!(size + 2 * size_of::<(u64, Waiting)>() <= 320);
    }

    /// Threads, cancellation at random moments, refusals: in the end nothing is held and nobody is left.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_wakeup_is_lost() {
        let door = Admission::new(8);
        let at_once = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..4_000u64)
            .map(|n| {
                let (door, at_once) = (door.clone(), at_once.clone());
                tokio::spawn(async move {
                    let cx = Cx::new("t");
                    let work = async {
                        let pass = door.enter(&cx).await.unwrap();
                        assert!(at_once.fetch_add(1, Ordering::SeqCst) < 8);
                        for _ in 0..n % 5 {
                            tokio::task::yield_now().await;
                        }
                        at_once.fetch_sub(1, Ordering::SeqCst);
                        let refused = busy(Some(Duration::from_micros(n)));
                        pass.settle(if n % 97 == 0 { Err(&refused) } else { Ok(()) });
                    };
                    if n % 3 == 0 {
                        // Dropped while it waits, or not: only while it holds no slot of the counter.
                        let entered = door.enter(&cx);
                        let _ = tokio::time::timeout(Duration::from_micros(n * 7 % 900), entered).await;
                    } else {
                        work.await;
                    }
                })
            })
            .collect();
        for task in tasks {
            tokio::time::timeout(Duration::from_secs(60), task).await.expect("stuck").unwrap();
        }
        let state = door.lock();
        assert_eq!((state.active, state.line.len(), state.granted.len()), (0, 0, 0));
    }
}
