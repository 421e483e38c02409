//! What the tests of zo, and of anyone who implements one of its traits, are made of.
//!
//! * [`laws`]: for each trait, the behaviour that every implementation must show, as plain async functions that panic
//!   when it does not. A macro per trait turns them into tests.
//! * [`rules`]: what providers demand of a request, as checks; [`Strict`]: a provider that refuses what breaks them.
//! * [`Scripted`]: a provider that answers from a script and records what it was asked.
//! * [`tool`]: a skill of one tool, made from a closure.
//! * [`RamPool`]: a compute pool in RAM.
//! * [`VirtualClock`]: a clock that stands still until a test moves it.
//! * [`kill`]: runs a child process and kills it with SIGKILL at a random moment.
//!
//! This is test code: it panics on purpose.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod kill;
pub mod laws;
mod polled;
mod ram_pool;
pub mod rules;
mod scripted;
mod strict;
mod tool;
mod virtual_clock;

pub use polled::polled;
pub use ram_pool::RamPool;
pub use scripted::{Asked, Scripted, Turn};
pub use strict::Strict;
pub use tool::{RawTool, tool};
pub use virtual_clock::VirtualClock;

#[doc(hidden)]
pub use tokio;

/// Turns laws into tests: `laws!(memory, make(); law_one, law_two)` makes one `#[test]` per law of `zo_testkit::laws::memory`,
/// each with a fresh value of the expression, which is a future, and a runtime of its own.
#[doc(hidden)]
#[macro_export]
macro_rules! __laws {
    ($module:ident, $make:expr; $($law:ident),* $(,)?) => {$(
        #[test]
        fn $law() {
            $crate::tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
                .block_on(async { $crate::laws::$module::$law($make.await).await });
        }
    )*};
}
