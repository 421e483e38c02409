//! The compute pool: durable jobs, leased to workers.

use crate::{BoxStream, Cx, Result, Timestamp, id::id, wire_enum};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug, time::Duration};

/// A place where jobs are queued and from which they are leased. Batches throughout, because that is what an engine can
/// make cheap.
///
/// # What an implementation owes
/// * An acknowledged job is never lost; it is run at least once and its outcome is recorded exactly once.
/// * Each attempt has a fencing token. A heartbeat or an outcome of an attempt that is no longer the current one is
///   refused ([`LeaseState::Lost`], [`Finished::Stale`]), always.
/// * A worker that dies costs one attempt; a job out of attempts is kept as [`JobState::Dead`], never looped or dropped.
/// * [`capabilities`](ComputeBackend::capabilities) is honest.
#[async_trait]
pub trait ComputeBackend: Send + Sync + Debug + 'static {
    /// What this engine does by itself, and how durable an acknowledgement is.
    fn capabilities(&self) -> PoolCapabilities;

    /// Enqueues a batch, all or none. A job whose unique key is already live returns that job's id.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) (a dependency cycle or an unknown dependency),
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
    async fn submit(&self, cx: &Cx, jobs: Vec<NewJob>) -> Result<Vec<Submitted>>;

    /// Leases up to `max` jobs that `worker` can run, highest priority first, waiting for the first one until the
    /// deadline of `cx`. Empty when the time is over.
    ///
    /// # Errors
    /// Those of the engine. A claim that is dropped or cancelled holds no job.
    async fn claim(&self, cx: &Cx, worker: &Worker, max: usize) -> Result<Vec<Lease>>;

    /// Extends leases and reports progress; says which jobs go on, are to be cancelled, or were lost. In order.
    ///
    /// # Errors
    /// Those of the engine.
    async fn heartbeat(&self, cx: &Cx, beats: &[Beat]) -> Result<Vec<LeaseState>>;

    /// Reports outcomes; in order.
    ///
    /// # Errors
    /// Those of the engine.
    async fn finish(&self, cx: &Cx, outcomes: Vec<(LeaseToken, Outcome)>) -> Result<Vec<Finished>>;

    /// Asks for cancellation of these jobs; returns how many were still live.
    ///
    /// # Errors
    /// Those of the engine.
    async fn cancel(&self, cx: &Cx, jobs: &[JobId]) -> Result<usize>;

    /// The jobs that match.
    ///
    /// # Errors
    /// Those of the engine.
    async fn query(&self, cx: &Cx, query: &JobQuery) -> Result<Vec<JobView>>;

    /// Events after the cursor `from` (0 for the oldest kept), then live.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when the cursor is older than what is kept.
    async fn events(&self, cx: &Cx, from: u64) -> Result<BoxStream<Result<JobEvent>>>;

    /// Does what is due (delays that ended, leases that ran out) by the clock of `cx`; returns when to call again.
    ///
    /// # Errors
    /// Those of the engine.
    async fn tick(&self, cx: &Cx) -> Result<Option<Timestamp>>;
}

wire_enum! {
    /// What survives when an acknowledgement was given and the machine then fails.
    pub enum Durability {
        /// Nothing survives the process.
        Memory = "memory",
        /// Survives the process, and the machine but for a short window.
        Relaxed = "relaxed",
        /// Survives power loss.
        Synced = "synced",
    }
}

/// What an engine does by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolCapabilities {
    /// How durable an acknowledgement is.
    pub durability: Durability,
    /// Names of the features that the engine itself provides, e.g. `priority`, `delay`, `unique`, `dependencies`.
    pub native: Vec<String>,
    /// Names of the features that are emulated on top of it.
    pub emulated: Vec<String>,
}

impl PoolCapabilities {
    /// An engine of this durability with no features named yet.
    pub fn new(durability: Durability) -> Self {
        Self { durability, native: Vec::new(), emulated: Vec::new() }
    }
}

id! {
    /// Id of a job.
    JobId
}

/// Work to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NewJob {
    /// Name of the handler.
    pub kind: String,
    /// Arguments of the handler.
    pub payload: Value,
    /// Higher first.
    pub priority: i32,
    /// Not before this time.
    pub run_at: Option<Timestamp>,
    /// While a job with this key is live, no second one is made.
    pub unique: Option<String>,
    /// Most attempts, crashes included.
    pub max_attempts: u32,
    /// Longest time one attempt may take.
    pub timeout: Option<Duration>,
    /// Jobs that must be done first.
    pub after: Vec<JobId>,
    /// Labels that a worker must have, with these values (`gpu` = `a100`, `region` = `eu`).
    pub requires: BTreeMap<String, String>,
    /// Whose job: the unit of fairness.
    pub tenant: String,
}

impl Default for NewJob {
    fn default() -> Self {
        Self {
            kind: String::new(),
            payload: Value::Null,
            priority: 0,
            run_at: None,
            unique: None,
            max_attempts: 3,
            timeout: None,
            after: Vec::new(),
            requires: BTreeMap::new(),
            tenant: String::new(),
        }
    }
}

impl NewJob {
    /// A job for the handler `kind`: priority 0, at once, three attempts.
    pub fn new(kind: impl Into<String>, payload: impl Into<Value>) -> Self {
        Self { kind: kind.into(), payload: payload.into(), ..Self::default() }
    }
}

/// What became of one submitted job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Submitted {
    /// A new job.
    New(JobId),
    /// A live job has the same unique key.
    Existing(JobId),
}

impl Submitted {
    /// The job's id, new or not.
    pub fn id(self) -> JobId {
        match self {
            Self::New(id) | Self::Existing(id) => id,
        }
    }
}

/// A worker: one connected process, not a name that may come back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Worker {
    /// Identity: a key and a boot nonce.
    pub id: String,
    /// Kinds that it can run.
    pub kinds: Vec<String>,
    /// What it has.
    pub labels: BTreeMap<String, String>,
}

impl Worker {
    /// A worker without labels.
    pub fn new(id: impl Into<String>, kinds: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { id: id.into(), kinds: kinds.into_iter().map(Into::into).collect(), labels: BTreeMap::new() }
    }
}

/// Names one attempt of one job: the fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseToken {
    /// The job.
    pub job: JobId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Which opening of the engine handed it out.
    pub epoch: u64,
}

/// Exclusive, expiring right to run a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lease {
    /// The attempt.
    pub token: LeaseToken,
    /// The job.
    pub job: NewJob,
    /// How long it lasts without a heartbeat.
    pub expires_in: Duration,
}

impl Lease {
    /// A lease.
    pub fn new(token: LeaseToken, job: NewJob, expires_in: Duration) -> Self {
        Self { token, job, expires_in }
    }
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// The attempt.
    pub token: LeaseToken,
    /// Progress from 0 to 1, if known.
    pub progress: Option<f32>,
    /// A line for people.
    pub note: Option<String>,
}

wire_enum! {
    /// What became of a lease.
    pub enum LeaseState {
        /// Go on.
        Extended = "extended",
        /// Stop: somebody cancelled the job.
        Cancel = "cancel",
        /// Stop: another attempt is under way or done.
        Lost = "lost",
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// With this result.
    Done(Value),
    /// It failed and may be tried again after the back-off.
    Retry {
        /// Why.
        message: String,
        /// Instead of the engine's back-off.
        after: Option<Duration>,
    },
    /// It failed for good.
    Dead {
        /// Why.
        message: String,
    },
    /// It stopped because it was asked to.
    Cancelled,
}

wire_enum! {
    /// What became of a reported outcome.
    pub enum Finished {
        /// Recorded.
        Recorded = "recorded",
        /// Refused: the attempt was not the current one.
        Stale = "stale",
    }
}

/// Life cycle of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JobState {
    /// Waits for its time or its dependencies.
    Waiting,
    /// Waits for a worker.
    Ready,
    /// Leased.
    Running,
    /// Done, with this result.
    Done(Value),
    /// Out of attempts, or failed for good.
    Dead {
        /// Why.
        message: String,
    },
    /// Cancelled.
    Cancelled,
}

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct JobQuery {
    /// These ids; empty for any.
    pub ids: Vec<JobId>,
    /// This kind.
    pub kind: Option<String>,
    /// This state, by name: `waiting`, `ready`, `running`, `done`, `dead`, `cancelled`.
    pub state: Option<String>,
    /// Ids after this one.
    pub after: Option<JobId>,
    /// At most so many; 0 means the engine's default.
    pub limit: usize,
}

impl JobQuery {
    /// These jobs.
    pub fn ids(ids: impl IntoIterator<Item = JobId>) -> Self {
        Self { ids: ids.into_iter().collect(), ..Self::default() }
    }
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// The job.
    pub job: NewJob,
    /// Where it stands.
    pub state: JobState,
    /// Attempts so far.
    pub attempts: u32,
    /// Progress of the current attempt, 0 to 1.
    pub progress: Option<f32>,
}

impl JobView {
    /// A job that was never tried.
    pub fn new(id: JobId, job: NewJob, state: JobState) -> Self {
        Self { id, job, state, attempts: 0, progress: None }
    }
}

/// A change of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobEvent {
    /// Cursor to go on from.
    pub seq: u64,
    /// Which job.
    pub id: JobId,
    /// Its state now.
    pub state: JobState,
    /// When.
    pub at: Timestamp,
}

impl JobEvent {
    /// An event.
    pub fn new(seq: u64, id: JobId, state: JobState, at: Timestamp) -> Self {
        Self { seq, id, state, at }
    }
}
