//! Where work runs and when it is due.
//!
//! This crate will hold the durable queue, its workers and engines, the scheduler and the process supervisor; there is none
//! yet. What is here is the contract, so that a [`ComputeBackend`] or a [`Scheduler`] of your own can be written against it
//! today.
#![forbid(unsafe_code)]

pub use zo_traits::{
    Beat, ComputeBackend, Durability, Finished, Firing, FiringKind, JobEvent, JobId, JobQuery, JobState,
    JobView, Lease, LeaseState, LeaseToken, Missed, NewJob, Outcome, Overlap, PoolCapabilities, Schedule,
    Scheduled, Scheduler, Submitted, Worker,
};
