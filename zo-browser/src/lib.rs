//! Pages that an agent reads as text and acts on by data.
//!
//! This crate will hold the engines behind [`Browser`] and [`Page`]; there is none yet. What is here is the contract, so that
//! an engine of your own can be written against it today.
#![forbid(unsafe_code)]

pub use zo_traits::{Action, Browser, Page, ScreenshotOptions, Snapshot, SnapshotOptions};
