//! A compute pool in RAM: nothing survives the process, and everything else is as [`ComputeBackend`] promises.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::watch;
use zo_traits::{
    Beat, BoxStream, ComputeBackend, Cx, Durability, Error, ErrorKind, Finished, JobEvent, JobId, JobQuery,
    JobState, JobView, Lease, LeaseState, LeaseToken, NewJob, Outcome, PoolCapabilities, Result, Stream,
    Submitted, Timestamp, Worker, async_trait,
};

/// Events that are kept, jobs that a query gives unless it says how many.
const KEPT_EVENTS: usize = 10_000;
const PAGE: usize = 100;
/// The first back-off; it doubles with each attempt, up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// A pool in RAM. Clones are one pool.
///
/// Leases and delays run on the monotonic clock of the [`Cx`] of whoever calls, `run_at` on its wall clock; all callers
/// must share one clock. What is due is done by every call, so [`tick`](ComputeBackend::tick) may be called and need not be.
/// A job whose dependency died or was cancelled is dead. Tenants are not told apart.
///
/// ```
/// use zo_testkit::RamPool;
/// use zo_traits::{ComputeBackend, Cx, NewJob, Outcome, Worker};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let (pool, cx) = (RamPool::new(), Cx::new("example"));
/// pool.submit(&cx, vec![NewJob::new("add", 1)]).await?;
/// let leases = pool.claim(&cx, &Worker::new("w", ["add"]), 1).await?;
/// pool.finish(&cx, vec![(leases[0].token, Outcome::Done(2.into()))]).await?;
/// # Ok::<(), zo_traits::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct RamPool(Arc<Inner>);

struct Inner {
    lease: Duration,
    state: Mutex<State>,
    /// Rises with every event: wakes claims and readers of events.
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    jobs: BTreeMap<JobId, Job>,
    next: u128,
    events: VecDeque<JobEvent>,
    seq: u64,
}

struct Job {
    job: NewJob,
    state: JobState,
    attempts: u32,
    progress: Option<f32>,
    /// While it is running.
    running: Option<Attempt>,
    /// Not before this time of the monotonic clock, after an attempt failed.
    not_before: Duration,
    cancel: bool,
}

struct Attempt {
    token: LeaseToken,
    /// When the lease runs out, and when the attempt's own time is over.
    until: Duration,
    last: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Now {
    wall: Timestamp,
    mono: Duration,
}

impl Now {
    fn of(cx: &Cx) -> Self {
        Self { wall: cx.clock().now(), mono: cx.clock().monotonic() }
    }
}

impl Default for RamPool {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RamPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RamPool").field("jobs", &self.lock().jobs.len()).finish_non_exhaustive()
    }
}

impl RamPool {
    /// An empty pool whose leases last half a minute.
    pub fn new() -> Self {
        Self::with_lease(Duration::from_secs(30))
    }

    /// An empty pool whose leases last `lease` without a heartbeat.
    pub fn with_lease(lease: Duration) -> Self {
        let state = Mutex::new(State { epoch: 1, ..State::default() });
        Self(Arc::new(Inner { lease, state, news: watch::Sender::new(0) }))
    }

    /// As if the engine had been closed and opened again: the epoch rises, and what was leased before is lost to those who
    /// hold it. It costs them an attempt.
    pub fn reopen(&self, cx: &Cx) {
        let now = Now::of(cx);
        let mut state = self.lock();
        state.epoch += 1;
        let running: Vec<JobId> =
            state.jobs.iter().filter(|(_, j)| j.running.is_some()).map(|(id, _)| *id).collect();
        for id in running {
            state.lost(id, "the engine was restarted", now);
        }
        self.done(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Every call begins like this.
    fn begin(&self, cx: &Cx, op: &'static str) -> Result<(MutexGuard<'_, State>, Now)> {
        cx.check(op)?;
        let (mut state, now) = (self.lock(), Now::of(cx));
        state.due(now);
        Ok((state, now))
    }

    /// And ends like this.
    fn done(&self, state: MutexGuard<'_, State>) {
        let seq = state.seq;
        drop(state);
        self.0.news.send_if_modified(|old| std::mem::replace(old, seq) != seq);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_live(state: &JobState) -> bool {
    matches!(state, JobState::Waiting | JobState::Ready | JobState::Running)
}

fn name(state: &JobState) -> &'static str {
    match state {
        JobState::Waiting => "waiting",
        JobState::Ready => "ready",
        JobState::Running => "running",
        JobState::Done(_) => "done",
        JobState::Dead { .. } => "dead",
        JobState::Cancelled => "cancelled",
        _ => "",
    }
}

impl State {
    fn set(&mut self, id: JobId, to: JobState, now: Now) {
        let job = self.jobs.get_mut(&id).unwrap();
        if to != JobState::Running {
            job.running = None;
        }
        if job.state != to || !is_live(&to) {
            job.state = to.clone();
            self.event(id, to, now);
        }
    }

    fn event(&mut self, id: JobId, state: JobState, now: Now) {
        self.seq += 1;
        self.events.push_back(JobEvent::new(self.seq, id, state, now.wall));
        if self.events.len() > KEPT_EVENTS {
            self.events.pop_front();
        }
    }

    /// An attempt ended without a result.
    fn failed(&mut self, id: JobId, why: &str, after: Option<Duration>, now: Now) {
        let job = self.jobs.get_mut(&id).unwrap();
        let to = if job.cancel {
            JobState::Cancelled
        } else if job.attempts >= job.job.max_attempts {
            JobState::Dead { message: why.to_owned() }
        } else {
            let doubled = BACK_OFF.0.saturating_mul(1 << (job.attempts - 1).min(16)).min(BACK_OFF.1);
            job.not_before = now.mono.saturating_add(after.unwrap_or(doubled));
            JobState::Waiting
        };
        self.set(id, to, now);
    }

    /// Nobody heard of an attempt: it may be tried again at once.
    fn lost(&mut self, id: JobId, why: &str, now: Now) {
        self.failed(id, why, Some(Duration::ZERO), now);
    }

    /// Does what is due; returns when something will be.
    fn due(&mut self, now: Now) -> Option<Timestamp> {
        let over: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, j)| j.running.as_ref().is_some_and(|a| a.ends() <= now.mono))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            let timed_out =
                self.jobs[&id].running.as_ref().and_then(|a| a.last).is_some_and(|at| at <= now.mono);
            self.lost(id, if timed_out { "an attempt took too long" } else { "a lease ran out" }, now);
        }
        let mut next: Option<Timestamp> = None;
        let mut at = |t: Timestamp| next = Some(next.map_or(t, |n| n.min(t)));
        // In order of id, and a dependency is always older than what depends on it: one pass is enough.
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            let job = &self.jobs[&id];
            match &job.state {
                JobState::Running => {
                    let ends = job.running.as_ref().unwrap().ends();
                    at(now.wall.after(ends.saturating_sub(now.mono)));
                }
                JobState::Waiting => {
                    let states = || job.job.after.iter().map(|d| &self.jobs[d].state);
                    let to = if states().any(|s| !is_live(s) && !matches!(s, JobState::Done(_))) {
                        JobState::Dead { message: "a job that it depends on was not done".to_owned() }
                    } else if !states().all(|s| matches!(s, JobState::Done(_))) {
                        continue;
                    } else if job.job.run_at.is_some_and(|t| t > now.wall) || job.not_before > now.mono {
                        let later = now.wall.after(job.not_before.saturating_sub(now.mono));
                        at(job.job.run_at.map_or(later, |t| t.max(later)));
                        continue;
                    } else {
                        JobState::Ready
                    };
                    self.set(id, to, now);
                }
                _ => {}
            }
        }
        next
    }

    fn current(&mut self, token: &LeaseToken) -> Option<&mut Job> {
        self.jobs.get_mut(&token.job).filter(|j| j.running.as_ref().is_some_and(|a| a.token == *token))
    }

    fn take(&mut self, worker: &Worker, max: usize, lease: Duration, now: Now) -> Vec<Lease> {
        let suits = |j: &Job| {
            j.state == JobState::Ready
                && worker.kinds.contains(&j.job.kind)
                && j.job.requires.iter().all(|(label, value)| worker.labels.get(label) == Some(value))
        };
        let mut found: Vec<(i32, JobId)> =
            self.jobs.iter().filter(|(_, j)| suits(j)).map(|(id, j)| (j.job.priority, *id)).collect();
        found.sort_by_key(|(priority, id)| (std::cmp::Reverse(*priority), *id));
        found.truncate(max);
        let epoch = self.epoch;
        let mut leases = Vec::new();
        for (_, id) in found {
            let job = self.jobs.get_mut(&id).unwrap();
            job.attempts += 1;
            job.progress = None;
            let token = LeaseToken { job: id, attempt: job.attempts, epoch };
            let last = job.job.timeout.map(|d| now.mono.saturating_add(d));
            job.running = Some(Attempt { token, until: now.mono.saturating_add(lease), last });
            let expires_in = job.job.timeout.map_or(lease, |d| d.min(lease));
            leases.push(Lease::new(token, job.job.clone(), expires_in));
            self.set(id, JobState::Running, now);
        }
        leases
    }
}

impl Attempt {
    fn ends(&self) -> Duration {
        self.last.map_or(self.until, |last| last.min(self.until))
    }
}

#[async_trait]
impl ComputeBackend for RamPool {
    fn capabilities(&self) -> PoolCapabilities {
        let mut can = PoolCapabilities::new(Durability::Memory);
        can.native = ["cancel", "delay", "dependencies", "labels", "priority", "timeout", "unique"]
            .map(String::from)
            .into();
        can
    }

    async fn submit(&self, cx: &Cx, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
        const OP: &str = "pool.submit";
        let (mut state, now) = self.begin(cx, OP)?;
        for job in &jobs {
            if let Some(unknown) = job.after.iter().find(|d| !state.jobs.contains_key(d)) {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    OP,
                    format_args!("there is no job {unknown} to wait for"),
                ));
            }
            if job.max_attempts == 0 {
                return Err(Error::new(ErrorKind::Invalid, OP, "a job needs at least one attempt"));
            }
        }
        let mut submitted = Vec::new();
        for job in jobs {
            let same = |(_, j): &(&JobId, &Job)| is_live(&j.state) && j.job.unique == job.unique;
            if job.unique.is_some()
                && let Some((id, _)) = state.jobs.iter().find(same)
            {
                submitted.push(Submitted::Existing(*id));
                continue;
            }
            state.next += 1;
            let id = JobId(state.next);
            let new = Job {
                job,
                state: JobState::Waiting,
                attempts: 0,
                progress: None,
                running: None,
                not_before: Duration::ZERO,
                cancel: false,
            };
            state.jobs.insert(id, new);
            state.event(id, JobState::Waiting, now);
            submitted.push(Submitted::New(id));
        }
        state.due(now);
        self.done(state);
        Ok(submitted)
    }

    async fn claim(&self, cx: &Cx, worker: &Worker, max: usize) -> Result<Vec<Lease>> {
        const OP: &str = "pool.claim";
        let mut news = self.0.news.subscribe();
        loop {
            if cx.is_cancelled() {
                return Err(Error::cancelled(OP));
            }
            let (leases, next) = {
                let (mut state, now) = (self.lock(), Now::of(cx));
                news.borrow_and_update();
                let next = state.due(now);
                let leases = state.take(worker, max, self.0.lease, now);
                self.done(state);
                (leases, next.map(|t| t.since(now.wall).max(Duration::from_millis(1))))
            };
            if !leases.is_empty() || max == 0 {
                return Ok(leases);
            }
            let woken = async {
                match next.map(|d| cx.clock().sleep(d)) {
                    Some(due) => tokio::select! { _ = news.changed() => {}, () = due => {} },
                    None => drop(news.changed().await),
                }
            };
            match cx.race(OP, woken).await {
                Err(e) if e.kind() == ErrorKind::Timeout => return Ok(Vec::new()),
                other => other?,
            }
        }
    }

    async fn heartbeat(&self, cx: &Cx, beats: &[Beat]) -> Result<Vec<LeaseState>> {
        let (mut state, now) = self.begin(cx, "pool.heartbeat")?;
        let lease = self.0.lease;
        let told = beats
            .iter()
            .map(|beat| {
                let Some(job) = state.current(&beat.token) else { return LeaseState::Lost };
                if let Some(attempt) = &mut job.running {
                    attempt.until = now.mono.saturating_add(lease);
                }
                if let Some(progress) = beat.progress.filter(|p| !p.is_nan()) {
                    job.progress = Some(progress.clamp(0.0, 1.0));
                }
                if job.cancel { LeaseState::Cancel } else { LeaseState::Extended }
            })
            .collect();
        self.done(state);
        Ok(told)
    }

    async fn finish(&self, cx: &Cx, outcomes: Vec<(LeaseToken, Outcome)>) -> Result<Vec<Finished>> {
        let (mut state, now) = self.begin(cx, "pool.finish")?;
        let mut finished = Vec::new();
        for (token, outcome) in outcomes {
            if state.current(&token).is_none() {
                finished.push(Finished::Stale);
                continue;
            }
            match outcome {
                Outcome::Done(value) => state.set(token.job, JobState::Done(value), now),
                Outcome::Retry { message, after } => state.failed(token.job, &message, after, now),
                Outcome::Dead { message } => state.set(token.job, JobState::Dead { message }, now),
                Outcome::Cancelled => state.set(token.job, JobState::Cancelled, now),
                other => {
                    let message = format!("an outcome that this pool does not know: {other:?}");
                    state.set(token.job, JobState::Dead { message }, now);
                }
            }
            finished.push(Finished::Recorded);
        }
        state.due(now);
        self.done(state);
        Ok(finished)
    }

    async fn cancel(&self, cx: &Cx, jobs: &[JobId]) -> Result<usize> {
        let (mut state, now) = self.begin(cx, "pool.cancel")?;
        let mut live = 0;
        for id in jobs {
            let Some(job) = state.jobs.get_mut(id).filter(|j| is_live(&j.state)) else { continue };
            live += 1;
            job.cancel = true;
            if job.state != JobState::Running {
                state.set(*id, JobState::Cancelled, now);
            }
        }
        state.due(now);
        self.done(state);
        Ok(live)
    }

    async fn query(&self, cx: &Cx, query: &JobQuery) -> Result<Vec<JobView>> {
        let (state, _) = self.begin(cx, "pool.query")?;
        let limit = if query.limit == 0 { PAGE } else { query.limit };
        let asked = |id: &JobId, j: &Job| {
            (query.ids.is_empty() || query.ids.contains(id))
                && query.kind.as_ref().is_none_or(|k| *k == j.job.kind)
                && query.state.as_ref().is_none_or(|s| s == name(&j.state))
                && query.after.is_none_or(|after| *id > after)
        };
        let views = state
            .jobs
            .iter()
            .filter(|(id, j)| asked(id, j))
            .take(limit)
            .map(|(id, j)| {
                let mut view = JobView::new(*id, j.job.clone(), j.state.clone());
                view.attempts = j.attempts;
                view.progress = j.progress;
                view
            })
            .collect();
        self.done(state);
        Ok(views)
    }

    async fn events(&self, cx: &Cx, from: u64) -> Result<BoxStream<Result<JobEvent>>> {
        let (state, _) = self.begin(cx, "pool.events")?;
        let oldest = state.events.front().map_or(state.seq + 1, |e| e.seq);
        self.done(state);
        let from = if from == 0 { oldest - 1 } else { from };
        if from + 1 < oldest {
            return Err(forgotten(from));
        }
        let pool = Arc::downgrade(&self.0);
        Ok(Box::pin(Events { cx: cx.clone(), pool, from, news: Some(self.0.news.subscribe()), next: None }))
    }

    async fn tick(&self, cx: &Cx) -> Result<Option<Timestamp>> {
        let (mut state, now) = self.begin(cx, "pool.tick")?;
        let next = state.due(now);
        self.done(state);
        Ok(next)
    }
}

fn forgotten(from: u64) -> Error {
    Error::new(ErrorKind::NotFound, "pool.events", format_args!("events after {from} are no longer kept"))
}

type Found = (Option<Result<JobEvent>>, Option<watch::Receiver<u64>>);

/// Ends when the pool is gone, and with an error when `cx` is.
struct Events {
    cx: Cx,
    pool: Weak<Inner>,
    from: u64,
    /// Here between two items; none after the end.
    news: Option<watch::Receiver<u64>>,
    next: Option<Pin<Box<dyn Future<Output = Found> + Send>>>,
}

async fn look(cx: Cx, pool: Weak<Inner>, from: u64, mut news: watch::Receiver<u64>) -> Found {
    loop {
        let Some(inner) = pool.upgrade() else { return (None, None) };
        news.borrow_and_update();
        {
            let state = inner.lock();
            let oldest = state.events.front().map_or(state.seq + 1, |e| e.seq);
            if from + 1 < oldest {
                return (Some(Err(forgotten(from))), None);
            }
            let at = usize::try_from(from + 1 - oldest).unwrap_or(usize::MAX);
            if let Some(event) = state.events.get(at) {
                return (Some(Ok(event.clone())), Some(news));
            }
        }
        drop(inner);
        match cx.race("pool.events", news.changed()).await {
            Err(e) => return (Some(Err(e)), None),
            Ok(Err(_)) => return (None, None),
            Ok(Ok(())) => {}
        }
    }
}

impl Stream for Events {
    type Item = Result<JobEvent>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.next.is_none() {
            let Some(news) = this.news.take() else { return Poll::Ready(None) };
            this.next = Some(Box::pin(look(this.cx.clone(), this.pool.clone(), this.from, news)));
        }
        let Some(next) = &mut this.next else { return Poll::Ready(None) };
        match next.as_mut().poll(task) {
            Poll::Pending => Poll::Pending,
            Poll::Ready((item, news)) => {
                (this.next, this.news) = (None, news);
                if let Some(Ok(event)) = &item {
                    this.from = event.seq;
                }
                Poll::Ready(item)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VirtualClock;
    use serde_json::Value;

    crate::compute_laws!(async { RamPool::new() });

    #[tokio::test]
    async fn tokens_of_an_earlier_opening_are_refused() {
        let (pool, cx) = (RamPool::new(), Cx::new("t").with_clock(Arc::new(VirtualClock::at(0))));
        let worker = Worker::new("w", ["k"]);
        let mut job = NewJob::new("k", Value::Null);
        job.max_attempts = 2;
        pool.submit(&cx, vec![job]).await.unwrap();
        let old = pool.claim(&cx, &worker, 1).await.unwrap().remove(0).token;
        pool.reopen(&cx);
        let new = pool.claim(&cx, &worker, 1).await.unwrap().remove(0).token;
        assert_eq!((old.epoch, old.attempt, new.epoch, new.attempt), (1, 1, 2, 2));
        let done = |n: i64| Outcome::Done(n.into());
        assert_eq!(
            pool.finish(&cx, vec![(old, done(1)), (new, done(2))]).await.unwrap(),
            [Finished::Stale, Finished::Recorded]
        );
    }

    #[tokio::test]
    async fn events_that_are_gone_are_said_to_be() {
        let (pool, cx) = (RamPool::new(), Cx::new("t").with_clock(Arc::new(VirtualClock::at(0))));
        let mut slow = pool.events(&cx, 0).await.unwrap();
        for _ in 0..KEPT_EVENTS / 100 {
            pool.submit(&cx, (0..100).map(|_| NewJob::new("k", Value::Null)).collect()).await.unwrap();
            let leases = pool.claim(&cx, &Worker::new("w", ["k"]), 100).await.unwrap();
            pool.finish(&cx, leases.iter().map(|l| (l.token, Outcome::Done(Value::Null))).collect())
                .await
                .unwrap();
            pool.lock().jobs.clear();
        }
        assert_eq!(pool.events(&cx, 1).await.err().unwrap().kind(), ErrorKind::NotFound);
        let first = std::future::poll_fn(|task| slow.as_mut().poll_next(task)).await;
        assert_eq!(first.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
        assert!(
            std::future::poll_fn(|task| slow.as_mut().poll_next(task)).await.is_none(),
            "and then it ends"
        );
        let mut kept = pool.events(&cx, 0).await.unwrap();
        assert!(std::future::poll_fn(|task| kept.as_mut().poll_next(task)).await.unwrap().is_ok());
        drop(pool);
        assert!(
            std::future::poll_fn(|task| kept.as_mut().poll_next(task)).await.is_none(),
            "it ends with the pool"
        );
    }
}
