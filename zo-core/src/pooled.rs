//! Runs as jobs of a compute pool: asked here, carried out by whichever worker has room, and taken up again by the next one
//! when a worker dies.
//!
//! A job holds its question, what it may do, and the ledgers that it spends from; so a pooled child never may or gets more
//! than the run that asked for it. Which run a job has become is on record, in one order with the run itself, before any of
//! its tools that changes the world begins: a second attempt goes on with that run, or gives its answer if it has one.
//!
//! Delivery is the pool's (at least once, fenced), effects are the journal's (at most once): the two meet only in the agent's
//! file. Attempts that reach agents with different files begin anew.

use crate::{
    Approval, Ask, Permissions, Reply, RunId, Zo,
    approval::{self, State},
    driver::{Lineage, Run},
    journal::{End, Journal, Recorded},
    ledger,
};
use futures_util::{
    StreamExt,
    future::{Either, select},
    stream::BoxStream,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use zo_store::{Scan, Table, Tx, Urgency};
use zo_traits::{
    Beat, Cancel, ComputeBackend, Cx, Error, ErrorKind, Finished, JobId, JobQuery, JobState, Lease,
    LeaseState, LeaseToken, Limits, NewJob, Outcome, Overspent, Result, Scope, Submitted, Worker,
};

/// The kind of the jobs that [`Zo::submit_all`] makes and [`Zo::work`] carries out.
pub const POOLED_ASK: &str = "zo.ask";

/// Most attempts of a job. Every restart of its worker costs one, and the run goes on in the next: more than for a job that
/// begins anew each time.
const MAX_ATTEMPTS: u32 = 20;

/// Job -> its run; and run -> job, oldest first because runs are.
const JOBS: Table = Table::new("agent.pooled");
const BY_RUN: Table = Table::new("agent.pooled_runs");
/// Most jobs whose runs are known. More than a journal keeps finished runs by default.
const KEPT_JOBS: u64 = 10_000;

/// Most jobs that a worker holds while they wait for a person; others are handed back for as long as [`LATER`].
const MAX_PARKED: usize = 10_000;
const LATER: Duration = Duration::from_secs(300);
/// How often it is looked whether somebody has decided: a look at a counter in RAM.
const LOOK: Duration = Duration::from_secs(1);
/// Between tries of a pool that fails.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time for handing jobs back when a worker stops.
const GOODBYE: Duration = Duration::from_secs(5);
/// Longest that one claim, and one question about jobs, is.
const PAGE: usize = 64;

/// What a job holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PooledAsk {
    /// Names the job wherever it goes. Ids of jobs do not: a pool in RAM counts them from one again.
    id: String,
    ask: Ask,
    /// The run that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    above: Option<Above>,
}

/// What a child gets from the run above it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Above {
    run: RunId,
    depth: u32,
    permissions: Vec<Permissions>,
    ledgers: Vec<String>,
}

impl From<Above> for Lineage {
    fn from(a: Above) -> Self {
        Self { run: a.run, depth: a.depth, permissions: a.permissions, ledgers: a.ledgers }
    }
}

/// The conversation of a job whose question names none.
fn conversation_of(id: &str) -> String {
    format!("pool/{id}")
}

fn is_run(ledger: &str) -> bool {
    ledger.len() == 32 && ledger.bytes().all(|b| b.is_ascii_hexdigit())
}

fn error(kind: ErrorKind, message: impl fmt::Display) -> Error {
    Error::new(kind, "zo.pool", message)
}

impl Zo {
    /// Queues questions as jobs of a pool, all or none, for the [workers](Zo::work) of this agent or of another one like it. An
    /// ask whose conversation is the empty string gets one of its own. The answers: [`pooled_replies`](Zo::pooled_replies).
    ///
    /// **Once.** Where `cx` has an [idempotency key](Cx::idempotency_key), as inside a tool, the same question at the same
    /// place is the same job: a tool that is run again after a crash submits nothing twice. Elsewhere give the context a key
    /// of your own (the message that you answer, the firing of a schedule), or each call makes new jobs.
    ///
    /// **Never more than the parent.** From inside a tool the jobs are children of the tool's run. What it and all above it may
    /// do travels in the job by value and holds on every worker. Its ledgers travel by name: they are spent from by workers
    /// whose agent has the same file; an agent that does not know them refuses the job. As long as the parent's run goes on, its
    /// children spend from its own allowance. The children of a parent that ended go on within what it had left when it first
    /// submitted, all of them together: that is the [ledger](Zo::ledgers) `pool/<run>`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a question that cannot be asked, or that names a ledger inside a context with a budget;
    /// [`ErrorKind::Unsupported`] when `cx` has a budget that is in no ledger, which no worker could spend from; those of the
    /// pool and the store.
    pub async fn submit_all(
        &self,
        cx: &Cx,
        pool: &dyn ComputeBackend,
        asks: impl IntoIterator<Item = Ask>,
    ) -> Result<Vec<JobId>> {
        let above = self.above(cx).await?;
        let mut jobs = Vec::new();
        for (n, mut ask) in asks.into_iter().enumerate() {
            if ask.ledger.is_some() && cx.budget().is_some() {
                return Err(error(
                    ErrorKind::Invalid,
                    "a context with a budget and a ledger: give one of them",
                ));
            }
            // As a child that is started here: it is about the one whom the parent is about.
            ask.scope = ask.scope.or_else(|| cx.get::<Scope>().cloned());
            let id = match cx.idempotency_key() {
                Some(key) => derived(key, n, &ask)?,
                None => RunId::new(self.inner.clock.now()).as_str().to_owned(),
            };
            if ask.conversation.is_empty() {
                ask.conversation = conversation_of(&id);
            }
            ask.check()?;
            if let Some(name) = &ask.persona {
                self.inner.persona(name)?;
            }
            let tenant = ask.scope.as_ref().map_or_else(String::new, |s| s.0.clone());
            let payload = PooledAsk { id: id.clone(), ask, above: above.clone() };
            let mut job = NewJob::new(POOLED_ASK, serde_json::to_value(payload).map_err(no_json)?);
            (job.unique, job.max_attempts, job.tenant) = (Some(id), MAX_ATTEMPTS, tenant);
            jobs.push(job);
        }
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        Ok(pool.submit(cx, jobs).await?.into_iter().map(Submitted::id).collect())
    }

    /// What the run that submits passes on.
    async fn above(&self, cx: &Cx) -> Result<Option<Above>> {
        let left = cx.budget().map_or(Limits::none(), zo_traits::Budget::remaining);
        let Some(l) = cx.get::<Lineage>() else {
            return if cx.budget().is_some() { Err(homeless()) } else { Ok(None) };
        };
        let mut above = Above {
            run: l.run.clone(),
            depth: l.depth,
            permissions: l.permissions.clone(),
            ledgers: l.ledgers.clone(),
        };
        if above.ledgers.is_empty() && left != Limits::none() {
            return Err(homeless());
        }
        // The ledger of a run ends with it, and its pooled children may live longer.
        if above.ledgers.iter().any(|id| is_run(id))
            && let Some(store) = self.inner.journal.store()
        {
            let id = conversation_of(l.run.as_str());
            let name = id.clone();
            store
                .write(move |tx| match ledger::read(tx, &name)? {
                    Some(_) => Ok(()),
                    None => ledger::open(tx, &name, left).map(drop),
                })
                .await?;
            above.ledgers.retain(|known| *known != id);
            above.ledgers.insert(0, id);
        }
        Ok(Some(above))
    }

    /// Carries out the pooled questions, at most `at_once` at the same time (at least one), until `cx` is cancelled or its
    /// deadline passes. Of `worker`, the identity and the labels count.
    ///
    /// * **After a crash** (of a worker, or of this future, which may be dropped at any time) the lease runs out, and the next
    ///   attempt goes on with the same run, as [`resume`](Zo::resume) does. If the run had ended, its answer is the job's. This
    ///   needs an agent with a file; without one each attempt begins anew.
    /// * **Leases** are extended at a third of their time. When the pool says that a lease is lost, or cannot be reached for as
    ///   long as a lease lasts, the run is stopped where it is, not ended. A job that is cancelled cancels its run.
    /// * **Outcomes.** Done, with the [`Reply`] as JSON. Errors that pass are tried again, not before the provider wants it.
    ///   Others are for good: the job is dead. Among these is a spent allowance; then the run stays
    ///   [unfinished](Zo::unfinished), and the same question, submitted again under the same key, goes on with it.
    /// * **A run that waits for an approval** keeps its lease and its place in the pool, and takes no place of the `at_once`. The
    ///   decision, wherever it is made, lets it go on within a second; or the host resumes it, and the job gets the answer. Until
    ///   then it costs its share of a heartbeat. Attempts are lost only to restarts.
    /// * **A run that was [given up](Zo::abandon)**, or whose conversation went on without it, makes its job dead.
    /// * **Stopping** claims nothing more, interrupts the runs under way and hands their jobs back to the pool at once.
    ///
    /// All callers of a pool must share one clock; this one goes by that of `cx`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when `cx` has a budget: what jobs spend is said by their ledgers. Errors of the pool that do not
    /// pass.
    pub async fn work(
        &self,
        cx: &Cx,
        pool: Arc<dyn ComputeBackend>,
        worker: Worker,
        at_once: usize,
    ) -> Result<()> {
        if cx.budget().is_some() {
            return Err(error(
                ErrorKind::Invalid,
                "the context of a worker has no budget: jobs name the ledgers that they spend from",
            ));
        }
        let mut worker = worker;
        worker.kinds = vec![POOLED_ASK.to_owned()];
        let desk = Arc::new(Desk {
            zo: self.clone(),
            cx: cx.clone(),
            pool,
            worker,
            slots: Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))),
            wanted: Notify::new(),
            held: Mutex::default(),
            more: Notify::new(),
            parked: Arc::new(Semaphore::new(MAX_PARKED)),
            stopping: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        let both = async {
            match either(desk.beats(), desk.claims(&mut tasks)).await {
                Either::Left(never) => match never {},
                Either::Right(failed) => failed,
            }
        };
        // Only a cancellation or a deadline ends the race early.
        let outcome = cx.race("zo.work", both).await.map_or(Ok(()), Err);
        desk.stopping.store(true, Ordering::Release);
        tasks.shutdown().await;
        desk.hand_back().await;
        outcome
    }

    /// The answers to pooled questions as they come: each job once, in the order in which they end, until all have. A job that
    /// died is an error that says why; one that was cancelled is [`ErrorKind::Cancelled`], one that the pool does not know
    /// [`ErrorKind::NotFound`]. Jobs that had ended before come first.
    ///
    /// When `cx` is cancelled or late, or the pool fails for good, that is the result of every job that is left; ask again
    /// for them. Passing errors of the pool are waited out.
    pub async fn pooled_replies(
        &self,
        cx: &Cx,
        pool: Arc<dyn ComputeBackend>,
        jobs: &[JobId],
    ) -> BoxStream<'static, (JobId, Result<Reply>)> {
        let follow = Following {
            left: jobs.iter().copied().collect(),
            ready: Vec::new(),
            events: None,
            cx: cx.clone(),
            pool,
        };
        futures_util::stream::unfold(follow, |mut f| async move { f.next().await.map(|item| (item, f)) })
            .boxed()
    }
}

/// Whichever is first; of two that are ready, the first.
async fn either<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    match select(pin!(a), pin!(b)).await {
        Either::Left((a, _)) => Either::Left(a),
        Either::Right((b, _)) => Either::Right(b),
    }
}

fn no_json(e: serde_json::Error) -> Error {
    error(ErrorKind::Invalid, "cannot be written as JSON").with_source(e)
}

fn homeless() -> Error {
    error(
        ErrorKind::Unsupported,
        "the budget of this context is in this process alone and no worker could spend from it: open a ledger, and ask with \
         its id",
    )
}

/// The same job for the same question at the same place of the same effect.
fn derived(key: &str, n: usize, ask: &Ask) -> Result<String> {
    let bytes = serde_json::to_vec(&(key, n, ask)).map_err(no_json)?;
    let hash = hmac_sha256::Hash::hash(&bytes);
    Ok(hash.iter().take(16).map(|b| format!("{b:02x}")).collect())
}

/// A job under way here.
struct Held {
    lasts: Duration,
    /// When the lease is over unless it is extended, on the clock's monotonic scale.
    until: Duration,
    signs: Arc<Signs>,
}

/// What the pool and the attempt tell each other about a job.
#[derive(Default)]
struct Signs {
    /// Stop the run where it is: the job is somebody else's.
    lost: Cancel,
    /// End the run: the job was cancelled.
    cancel: Cancel,
    waits: AtomicBool,
}

/// A worker's place: what it holds, and who is at it.
struct Desk {
    zo: Zo,
    cx: Cx,
    pool: Arc<dyn ComputeBackend>,
    worker: Worker,
    slots: Arc<Semaphore>,
    /// A run that was parked goes on and wants a slot that a claim may be holding.
    wanted: Notify,
    held: Mutex<HashMap<LeaseToken, Held>>,
    /// There is more to keep alive.
    more: Notify,
    parked: Arc<Semaphore>,
    stopping: AtomicBool,
}

/// Strikes a job from those that are kept alive; while the worker stops they are left for it to hand back.
struct Strike<'a>(&'a Desk, LeaseToken);

impl Drop for Strike<'_> {
    fn drop(&mut self) {
        if !self.0.stopping.load(Ordering::Acquire) {
            self.0.held().remove(&self.1);
        }
    }
}

impl Desk {
    fn held(&self) -> MutexGuard<'_, HashMap<LeaseToken, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> &Arc<Journal> {
        &self.zo.inner.journal
    }

    fn now(&self) -> Duration {
        self.cx.clock().monotonic()
    }

    /// Claims as long as there is room. Comes back only with an error that does not pass.
    async fn claims(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Error {
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(first) = self.slots.clone().acquire_owned().await else {
                return error(ErrorKind::Unavailable, "the worker is over");
            };
            let mut room = vec![first];
            while room.len() < PAGE
                && let Ok(more) = self.slots.clone().try_acquire_owned()
            {
                room.push(more);
            }
            let claim = self.pool.claim(&self.cx, &self.worker, room.len());
            // A claim that is dropped holds no job.
            let Either::Right(claimed) = either(self.wanted.notified(), claim).await else { continue };
            match claimed {
                Ok(leases) if leases.is_empty() => {
                    drop(room);
                    self.cx.clock().sleep(PAUSE).await;
                }
                Ok(leases) => {
                    for (lease, slot) in leases.into_iter().zip(room) {
                        let signs = Arc::new(Signs::default());
                        let lasts = lease.expires_in;
                        let until = self.now().saturating_add(lasts);
                        self.held().insert(lease.token, Held { lasts, until, signs: signs.clone() });
                        tasks.spawn(self.clone().serve(lease, slot, signs));
                    }
                    self.more.notify_one();
                }
                Err(e) if e.is_retryable() => {
                    tracing::warn!(error = %e, "the pool gives no jobs");
                    drop(room);
                    self.cx.clock().sleep(e.retry_after().unwrap_or(PAUSE)).await;
                }
                Err(e) => return e,
            }
        }
    }

    /// Keeps the leases alive.
    async fn beats(&self) -> std::convert::Infallible {
        loop {
            let next = {
                let held = self.held();
                held.values().map(|h| h.lasts / 3).min()
            };
            let Some(every) = next else {
                self.more.notified().await;
                continue;
            };
            let due = self.now().saturating_add(every);
            let mut sleep = self.cx.clock().sleep(every);
            // A new one may have a shorter lease; for another the time goes on.
            while let Either::Right(()) = either(&mut sleep, self.more.notified()).await {
                let shorter = self.held().values().map(|h| h.lasts / 3).min().is_some_and(|s| s < every);
                if shorter || self.now() >= due {
                    break;
                }
            }
            self.beat(every).await;
        }
    }

    async fn beat(&self, every: Duration) {
        let beats: Vec<Beat> = {
            let held = self.held();
            let note =
                |h: &Held| h.signs.waits.load(Ordering::Relaxed).then(|| "waits for an approval".to_owned());
            held.iter().map(|(token, h)| Beat { token: *token, progress: None, note: note(h) }).collect()
        };
        // Before the call: the pool counts from when it hears of it, which is later.
        let now = self.now();
        let cx = self.cx.child().with_timeout(every.max(Duration::from_millis(1)));
        let told = cx.race("zo.beat", self.pool.heartbeat(&cx, &beats)).await.and_then(|r| r);
        let mut held = self.held();
        match told {
            Ok(states) => {
                for (beat, state) in beats.iter().zip(states) {
                    let Some(h) = held.get_mut(&beat.token) else { continue };
                    match state {
                        LeaseState::Lost => h.signs.lost.cancel(),
                        LeaseState::Cancel => {
                            h.until = now.saturating_add(h.lasts);
                            h.signs.cancel.cancel();
                        }
                        _ => h.until = now.saturating_add(h.lasts),
                    }
                }
            }
            Err(e) => {
                tracing::warn!(error = %e, "no sign of life could be given");
                let now = self.now();
                held.values().filter(|h| h.until <= now).for_each(|h| h.signs.lost.cancel());
            }
        }
    }

    /// One attempt, from its lease to its outcome.
    async fn serve(self: Arc<Self>, lease: Lease, slot: OwnedSemaphorePermit, signs: Arc<Signs>) {
        let token = lease.token;
        let _strike = Strike(&self, token);
        let (stop, cx) = (self.cx.cancel().clone(), self.cx.child());
        let whole = async {
            let outcome = self.attempt(&cx, &lease, slot, &signs).await;
            self.finish(token, outcome).await;
        };
        let cancel = async {
            signs.cancel.cancelled().await;
            cx.cancel().cancel();
            std::future::pending::<()>().await;
        };
        let work = either(signs.lost.cancelled(), either(cancel, whole));
        // Looked at first, so that a worker that stops does not end its runs: they would see the cancellation too.
        if let Either::Left(()) = either(stop.cancelled(), work).await {
            // The run is dropped as it is. The job is handed back with the others.
            std::future::pending::<()>().await;
        }
    }

    async fn finish(&self, token: LeaseToken, outcome: Outcome) {
        loop {
            match self.pool.finish(&self.cx, vec![(token, outcome.clone())]).await {
                Ok(states) => {
                    if states.contains(&Finished::Stale) {
                        tracing::debug!(job = %token.job, attempt = token.attempt, "the outcome came too late");
                    }
                    return;
                }
                Err(e) if e.is_retryable() => {
                    tracing::warn!(job = %token.job, error = %e, "the outcome could not be told yet");
                    self.cx.clock().sleep(PAUSE).await;
                }
                Err(e) => {
                    // The lease runs out, and the next attempt finds the answer on record.
                    tracing::warn!(job = %token.job, error = %e, "the outcome could not be told");
                    return;
                }
            }
        }
    }

    /// What was under way when the worker stopped is anybody's.
    async fn hand_back(&self) {
        let back = |token: &LeaseToken| {
            let message = "its worker stopped; the run goes on in the next attempt".to_owned();
            (*token, Outcome::Retry { message, after: Some(Duration::ZERO) })
        };
        let outcomes: Vec<_> = self.held().drain().map(|(token, _)| back(&token)).collect();
        if outcomes.is_empty() {
            return;
        }
        let cx = Cx::new(self.cx.run()).with_clock(self.cx.clock().clone()).with_timeout(GOODBYE);
        // Where it fails the leases run out by themselves.
        if let Err(e) = cx.race("zo.work", self.pool.finish(&cx, outcomes)).await.and_then(|r| r) {
            tracing::warn!(error = %e, "jobs could not be handed back");
        }
    }

    async fn attempt(&self, cx: &Cx, lease: &Lease, slot: OwnedSemaphorePermit, signs: &Signs) -> Outcome {
        let job = match PooledAsk::deserialize(&lease.job.payload) {
            Ok(job) => job,
            Err(e) => return Outcome::Dead { message: format!("the job does not hold a question: {e}") },
        };
        let mut slot = Some(slot);
        loop {
            let reply = match self.carry(cx, &job).await {
                Ok(reply) => reply,
                Err(e) => return outcome(&e, signs.cancel.is_cancelled()),
            };
            if !reply.is_parked() {
                return match serde_json::to_value(&reply) {
                    Ok(reply) => Outcome::Done(reply),
                    Err(e) => Outcome::Dead { message: e.to_string() },
                };
            }
            slot.take();
            let Ok(_place) = self.parked.clone().try_acquire_owned() else {
                let message = "waits for an approval, and the worker has no room for more that do".to_owned();
                return Outcome::Retry { message, after: Some(LATER) };
            };
            signs.waits.store(true, Ordering::Relaxed);
            let decided = self.until_decided(cx, &reply).await;
            signs.waits.store(false, Ordering::Relaxed);
            match decided {
                Ok(()) => {}
                Err(_) if signs.cancel.is_cancelled() => {
                    // Nobody has to decide about it any more.
                    return match self.zo.abandon(&reply.run).await {
                        Ok(()) => Outcome::Cancelled,
                        Err(e) if matches!(e.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                            Outcome::Cancelled
                        }
                        Err(e) => outcome(&e, true),
                    };
                }
                Err(e) => return outcome(&e, false),
            }
            let turn = self.slots.clone().acquire_owned();
            self.wanted.notify_one();
            slot = turn.await.ok();
        }
    }

    /// Waits until one of the questions is answered or expired, or somebody else has taken the run to its end.
    async fn until_decided(&self, cx: &Cx, reply: &Reply) -> Result<()> {
        let journal = self.journal();
        let mut seen = None;
        loop {
            if !journal.is_open(&reply.run) {
                return Ok(());
            }
            let now = self.zo.inner.clock.now();
            if !journal.is_active(&reply.run) {
                let latest = journal.store().map(zo_store::Store::sequence);
                let expired = reply.approvals.iter().any(|a| a.is_expired(now));
                if expired || seen != Some(latest) {
                    seen = Some(latest);
                    if self.any_decided(&reply.approvals)? {
                        return Ok(());
                    }
                }
            }
            cx.race("zo.work", cx.clock().sleep(LOOK)).await?;
        }
    }

    fn any_decided(&self, approvals: &[Approval]) -> Result<bool> {
        let Some(store) = self.journal().store() else { return Ok(true) };
        let now = self.zo.inner.clock.now();
        store.read(|s| {
            for a in approvals {
                if approval::state(s, &a.run, &a.call, now)? != Some(State::Pending) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Starts the run of a job, goes on with the one that it has, or gives the answer that it got.
    async fn carry(&self, cx: &Cx, job: &PooledAsk) -> Result<Reply> {
        let (inner, journal) = (&self.zo.inner, self.journal());
        loop {
            let Some(run) = self.run_of(job)? else { break };
            // An attempt that does not know yet that it lost its lease, or a host that resumed it.
            while journal.is_active(&run) {
                cx.race("zo.work", inner.conversations.turn(&job.ask.conversation)).await?;
                tokio::task::yield_now().await;
            }
            journal.settled().await?;
            let recorded = match journal.load(&run) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let gone = "its run is over, and its record is no longer kept; the answer is in its conversation";
                    return Err(error(ErrorKind::NotFound, gone));
                }
                recorded => recorded?,
            };
            match &recorded.ended {
                None => {}
                Some(End::Done) => return Ok(answered(&recorded)),
                Some(End::Abandoned) => {
                    self.forget(job).await?;
                    return Err(error(ErrorKind::Denied, "its run was given up"));
                }
                // It was told then. This attempt is there to try again.
                Some(End::Cancelled | End::Failed { .. }) => break,
            }
            match Box::pin(Run::resume(inner.clone(), cx, &run, None)).await {
                Ok(run) => return run.drive().await,
                // Somebody was quicker.
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                Err(e) => return Err(e),
            }
        }
        let cx = match &job.above {
            Some(above) => {
                self.knows(&above.ledgers).await?;
                cx.clone().with(Lineage::from(above.clone()))
            }
            None => cx.clone(),
        };
        let run = Box::pin(Run::start(inner.clone(), &cx, job.ask.clone(), None)).await?;
        let (id, name, journal) = (job.id.clone(), run.id().clone(), journal.clone());
        // In the queue right behind the run's header, and before anything that it does.
        run.log().write("pooled", Urgency::Soon, move |tx| remember(tx, &id, &name, &journal)).await?;
        run.drive().await
    }

    /// The run that a job has become.
    fn run_of(&self, job: &PooledAsk) -> Result<Option<RunId>> {
        let journal = self.journal();
        let Some(store) = journal.store() else { return Ok(None) };
        let known = store.read(|s| s.get(JOBS, job.id.as_bytes()))?;
        if let Some(run) = known {
            return Ok(Some(RunId::from(String::from_utf8_lossy(&run).as_ref())));
        }
        // It began, and what says so was lost. In a conversation that others use it cannot be told from theirs: it did nothing
        // yet, and is settled as any interrupted run.
        let own = job.ask.conversation == conversation_of(&job.id);
        Ok(own.then(|| journal.interrupted_in(&job.ask.conversation).into_iter().next()).flatten())
    }

    async fn forget(&self, job: &PooledAsk) -> Result<()> {
        let Some(store) = self.journal().store() else { return Ok(()) };
        let id = job.id.clone();
        store
            .write(move |tx| {
                if let Some(run) = tx.get(JOBS, id.as_bytes())? {
                    tx.delete(BY_RUN, &run)?;
                }
                tx.delete(JOBS, id.as_bytes()).map(drop)
            })
            .await
    }

    /// Can it spend from these? Those of runs go with their runs; beside each there is one that stays.
    async fn knows(&self, ledgers: &[String]) -> Result<()> {
        for id in ledgers.iter().filter(|id| !is_run(id)) {
            let known = match self.journal().store() {
                Some(store) => store.read(|s| ledger::read(s, id))?.is_some(),
                None => self.zo.inner.ledgers.get(id).await.is_ok(),
            };
            if !known {
                let message =
                    format_args!("it spends from ledger {id:?}, which this worker's agent does not have");
                return Err(error(ErrorKind::Denied, message));
            }
        }
        Ok(())
    }
}

/// Notes which run a job has become, and lets go of the oldest notes beyond what is kept.
fn remember(tx: &mut Tx<'_>, id: &str, run: &RunId, journal: &Journal) -> Result<()> {
    if let Some(old) = tx.get(JOBS, id.as_bytes())? {
        tx.delete(BY_RUN, &old)?;
    }
    tx.put(JOBS, id.as_bytes(), run.as_str().as_bytes())?;
    tx.put(BY_RUN, run.as_str().as_bytes(), id.as_bytes())?;
    if tx.len(BY_RUN)? > KEPT_JOBS {
        // A few at a time, and none that is still to be taken up.
        for (old, job) in tx.collect(BY_RUN, &Scan::all().limit(4))? {
            if !journal.is_open(&RunId::from(String::from_utf8_lossy(&old).as_ref())) {
                tx.delete(JOBS, &job)?;
                tx.delete(BY_RUN, &old)?;
            }
        }
    }
    Ok(())
}

/// The reply of a run that has ended.
fn answered(recorded: &Recorded) -> Reply {
    let machine = &recorded.machine;
    Reply {
        run: recorded.header.run.clone(),
        text: machine.final_text().to_owned(),
        messages: machine.messages().to_vec(),
        finish: match machine.step() {
            crate::Step::Done(reason) => reason,
            _ => zo_traits::FinishReason::Stop,
        },
        usage: machine.usage(),
        microusd: recorded.microusd,
        steps: machine.steps(),
        approvals: Vec::new(),
    }
}

/// What an error of a run means for its job.
fn outcome(e: &Error, cancelled: bool) -> Outcome {
    let message = e.to_string();
    match e.kind() {
        ErrorKind::Cancelled if cancelled => Outcome::Cancelled,
        _ if e.source_as::<Overspent>().is_some() => Outcome::Dead { message },
        // A conversation that waits for a decision; an answer that broke off; a worker that stops.
        ErrorKind::Conflict | ErrorKind::Corrupt | ErrorKind::Cancelled => {
            Outcome::Retry { message, after: None }
        }
        _ if e.is_retryable() => Outcome::Retry { message, after: e.retry_after() },
        _ => Outcome::Dead { message },
    }
}

/// Jobs whose ends are still to come.
struct Following {
    left: BTreeSet<JobId>,
    ready: Vec<(JobId, Result<Reply>)>,
    events: Option<zo_traits::BoxStream<Result<zo_traits::JobEvent>>>,
    cx: Cx,
    pool: Arc<dyn ComputeBackend>,
}

impl Following {
    async fn next(&mut self) -> Option<(JobId, Result<Reply>)> {
        loop {
            if let Some((job, reply)) = self.ready.pop() {
                self.left.remove(&job);
                return Some((job, reply));
            }
            self.left.first()?;
            let step = match &mut self.events {
                None => self.look().await,
                Some(events) => match self.cx.race("zo.pool", events.next()).await {
                    Ok(Some(Ok(event))) => {
                        if self.left.contains(&event.id)
                            && let Some(reply) = ended(event.state)
                        {
                            self.ready.push((event.id, reply));
                        }
                        Ok(())
                    }
                    // Events were missed, or their source is gone: look again.
                    Ok(None) => self.again(PAUSE).await,
                    Ok(Some(Err(e))) if e.kind() == ErrorKind::NotFound => self.again(Duration::ZERO).await,
                    Ok(Some(Err(e))) | Err(e) => Err(e),
                },
            };
            match step {
                Ok(()) => {}
                Err(e) if e.is_retryable() && self.cx.check("zo.pool").is_ok() => {
                    let wait = e.retry_after().unwrap_or(PAUSE);
                    if let Err(e) = self.again(wait).await {
                        self.give_up(&e);
                    }
                }
                Err(e) => self.give_up(&e),
            }
        }
    }

    async fn again(&mut self, wait: Duration) -> Result<()> {
        self.events = None;
        self.cx.race("zo.pool", self.cx.clock().sleep(wait)).await
    }

    fn give_up(&mut self, e: &Error) {
        self.ready = self.left.iter().rev().map(|job| (*job, Err(e.clone()))).collect();
    }

    /// Follows from the oldest event that is kept, and asks for what had ended before that.
    async fn look(&mut self) -> Result<()> {
        let events = self.pool.events(&self.cx, 0).await?;
        let left: Vec<JobId> = self.left.iter().copied().collect();
        let mut ready = Vec::new();
        for page in left.chunks(PAGE) {
            let mut query = JobQuery::ids(page.iter().copied());
            query.limit = page.len();
            let views = self.pool.query(&self.cx, &query).await?;
            let known: HashMap<JobId, JobState> = views.into_iter().map(|v| (v.id, v.state)).collect();
            for job in page {
                match known.get(job) {
                    Some(state) => ready.extend(ended(state.clone()).map(|reply| (*job, reply))),
                    None => {
                        let e = error(ErrorKind::NotFound, format_args!("the pool has no job {job}"));
                        ready.push((*job, Err(e)));
                    }
                }
            }
        }
        ready.reverse();
        (self.ready, self.events) = (ready, Some(events));
        Ok(())
    }
}

/// The result of a job that has ended.
fn ended(state: JobState) -> Option<Result<Reply>> {
    match state {
        JobState::Done(reply) => Some(serde_json::from_value(reply).map_err(|e| {
            error(ErrorKind::Corrupt, "the result of the job is not the reply of a run").with_source(e)
        })),
        JobState::Dead { message } => Some(Err(error(ErrorKind::Other("dead".into()), message))),
        JobState::Cancelled => Some(Err(Error::cancelled("zo.pool"))),
        _ => None,
    }
}
