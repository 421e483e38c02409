//! Programs to start from: `cargo run --example quickstart`.

/// The code of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
