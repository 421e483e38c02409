//! The calendar of automations: when work is due. It never runs work itself.

use crate::{Cx, Result, Timestamp, wire_enum};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Debug;

/// Durable calendar of automations.
///
/// A driver asks [`next_due`](Scheduler::next_due), sleeps, calls [`claim_due`](Scheduler::claim_due), does or enqueues
/// the work and calls [`ack`](Scheduler::ack).
///
/// # What an implementation owes
/// * An occurrence is claimed by one caller only; `(schedule id, epoch, occurrence)` names it for ever, so that whoever
///   does the work can de-duplicate.
/// * A claim that is not acknowledged within its lease is handed out again, with the same name.
/// * Whatever is passed over (missed while down, overlapping) is reported as a [`Firing`] of that kind, never dropped
///   in silence.
#[async_trait]
pub trait Scheduler: Send + Sync + Debug + 'static {
    /// Inserts or replaces by id, and says when it will fire. Putting the same schedule again changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a rule that cannot be read or that never fires, naming part,
    /// value and position.
    async fn put(&self, cx: &Cx, schedule: &Schedule) -> Result<Scheduled>;

    /// The schedule of this id.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    async fn get(&self, cx: &Cx, id: &str) -> Result<Scheduled>;

    /// Schedules whose id is after `after` in byte order, at most `limit`.
    ///
    /// # Errors
    /// Those of the store.
    async fn list(&self, cx: &Cx, after: Option<&str>, limit: usize) -> Result<Vec<Scheduled>>;

    /// Removes; `false` when unknown.
    ///
    /// # Errors
    /// Those of the store.
    async fn remove(&self, cx: &Cx, id: &str) -> Result<bool>;

    /// Claims up to `limit` occurrences that are due now, by the clock of `cx`. Each is leased until it is acknowledged.
    ///
    /// # Errors
    /// Those of the store.
    async fn claim_due(&self, cx: &Cx, limit: usize) -> Result<Vec<Firing>>;

    /// The work of a firing is done or safely handed on.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when the lease was lost.
    async fn ack(&self, cx: &Cx, firing: &Firing) -> Result<()>;

    /// When to wake next; `None` when nothing is due ever.
    ///
    /// # Errors
    /// Those of the store.
    async fn next_due(&self, cx: &Cx) -> Result<Option<Timestamp>>;
}

/// One automation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Schedule {
    /// Id chosen by the caller.
    pub id: String,
    /// RFC 5545 text: a bare `FREQ=...` rule, or `DTSTART`, `RRULE`, `RDATE` and `EXDATE` lines.
    pub rule: String,
    /// IANA time zone for a rule that names none, e.g. `Europe/Berlin`.
    pub zone: Option<String>,
    /// What to do; opaque to the scheduler.
    pub payload: Value,
    /// Do not fire for now.
    pub paused: bool,
    /// What to do about occurrences missed while nobody was there.
    pub missed: Missed,
    /// What to do when the previous run is still going.
    pub overlap: Overlap,
}

impl Schedule {
    /// A schedule with the default policies.
    pub fn new(id: impl Into<String>, rule: impl Into<String>, payload: impl Into<Value>) -> Self {
        Self { id: id.into(), rule: rule.into(), payload: payload.into(), ..Self::default() }
    }
}

/// What to do about occurrences missed while nobody was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Missed {
    /// Report them, run none.
    Skip,
    /// Run the latest, if it is not older than a day.
    #[default]
    Latest,
    /// Run them all, oldest first, at most `max`.
    All {
        /// Most runs.
        max: u32,
    },
}

/// What to do when an occurrence is due while the previous run is still going.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Overlap {
    /// Report it, do not run it.
    #[default]
    Skip,
    /// Run it after the previous one, at most one waiting.
    BufferOne,
    /// Run it beside the previous one.
    Allow,
}

/// A stored schedule and what the calendar knows about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scheduled {
    /// The schedule.
    pub schedule: Schedule,
    /// Goes up when the rule is edited.
    pub epoch: u64,
    /// The next occurrences, at most three.
    pub next: Vec<Timestamp>,
    /// The last occurrence that fired.
    pub last: Option<Timestamp>,
}

impl Scheduled {
    /// A schedule that has not fired yet.
    pub fn new(schedule: Schedule, epoch: u64, next: Vec<Timestamp>) -> Self {
        Self { schedule, epoch, next, last: None }
    }
}

wire_enum! {
    /// What a firing asks for.
    pub enum FiringKind {
        /// Do the work.
        Due = "due",
        /// It was missed and is not to be run: tell whoever cares.
        Missed = "missed",
        /// It overlapped and is not to be run: tell whoever cares.
        Skipped = "skipped",
    }
}

/// One occurrence that is due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Firing {
    /// Schedule id.
    pub id: String,
    /// Epoch of the schedule when it fired.
    pub epoch: u64,
    /// The nominal time of the occurrence.
    pub occurrence: Timestamp,
    /// What it asks for.
    pub kind: FiringKind,
    /// Copy of the payload.
    pub payload: Value,
    /// Fencing token of the lease.
    pub token: u64,
}

impl Firing {
    /// A firing that asks for its work.
    pub fn due(schedule: &Schedule, epoch: u64, occurrence: Timestamp, token: u64) -> Self {
        Self {
            id: schedule.id.clone(),
            epoch,
            occurrence,
            kind: FiringKind::Due,
            payload: schedule.payload.clone(),
            token,
        }
    }

    /// Names the occurrence for ever: the idempotency key of its work.
    pub fn key(&self) -> String {
        format!("sched/{}/{}/{}", self.id, self.epoch, self.occurrence.0)
    }
}
