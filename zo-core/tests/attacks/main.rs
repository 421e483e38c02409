//! What a hostile reading of the run engine tried: hosts that drop futures at every poll, speak at the worst moment, reattach
//! in the middle of a word, decide while a run parks, give up children and parents; disks that are slow, full or gone;
//! transcripts that answer with the wrong error. Each test is named by the promise that it tries to break.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg(feature = "memory")]

mod approving;
mod children;
mod common;
mod elsewhere;
mod following;
mod forking;
mod records;
mod saying;
