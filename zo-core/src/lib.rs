//! A personal AI agent inside any Rust program: it answers, streams, runs your functions as tools, remembers, and continues
//! where it stopped after a crash. Everything lives in the host's process and, by default, in one file.
//!
//! ```
//! use zo_core::{Zo, providers::Offline, skill};
//!
//! /// Add two integers.
//! #[skill(effect = "pure")]
//! async fn add(
//!     /// the first
//!     a: i64,
//!     /// the second
//!     b: i64,
//! ) -> i64 {
//!     a + b
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let dir = tempfile::tempdir().unwrap();
//! # let file = dir.path().join("bot.zo");
//! let zo = Zo::builder()
//!     .provider(Offline::default()) // leave it out to use what the environment offers
//!     .file(file)
//!     .skill(add())
//!     .build()
//!     .await?;
//! let reply = zo.ask("a conversation", "Add 17 and 23").await?;
//! assert!(reply.text.contains("40"), "{}", reply.text);
//! # Ok::<(), zo_core::Error>(()) }).unwrap();
//! ```
//!
//! # Where to look
//! * [`Zo`]: what can be asked of an agent; [`ZoBuilder`]: how one is put together, with all defaults.
//! * [`RunStream`] and [`RunEvent`]: following a run as it happens; [`Cursor`] and [`Zo::attach`]: from anywhere in it. [`Reply`]:
//!   what it leaves.
//! * [`Zo::unfinished`] and [`Zo::resume`]: after a crash. [`Zo::replay`] and [`Zo::fork`]: to find out why, and to try another way.
//! * [`Permissions`], [`Zo::approvals`]: what may be done, and what waits for a person.
//! * [`Limits`], [`Zo::open_ledger`], [`Overspent`]: what it may cost.
//! * [`Zo::spawn`], [`Zo::spawn_all`], [`Persona`], [`Zo::say`], [`Zo::work`]: many agents at once, and speaking to them.
//! * [`Zo::compactions`], [`Zo::pin`]: long conversations. [`Zo::create_rule`]: standing instructions.
//! * [`Ask`] and [`Cx`]: everything that can be said about one question, cancellation and budgets included.
//! * [`Provider`], [`Skill`], [`MemoryStore`], [`Transcript`], [`Clock`]: the parts, each replaceable.
//! * [`Machine`]: the loop without I/O. [`normal`]: the form in which every provider takes a conversation. [`schema`]: the check of
//!   tool arguments. [`trace`]: the names of its spans.
//!
//! # Features
//! `openai`, `anthropic` (providers over HTTP), `skills` (`skill_fn`, `#[skill]`, `SKILL.md`), `memory` (conversations and
//! long-term memory) are on by default. `providers` alone brings the embedded offline provider without any HTTP. With none
//! of them there is still the agent with its journal, for parts of your own.
//!
//! # Runtime
//! Tokio, with its time driver. Tools and spawned runs are tasks of it; everything else runs in the caller's task.
#![forbid(unsafe_code)]

mod admission;
mod agents;
mod approval;
mod ask;
mod builder;
mod builtin;
mod context;
mod delegate;
mod digest;
mod driver;
mod event;
mod history;
mod inner;
mod journal;
mod lanes;
#[cfg(feature = "http")]
mod leaks;
mod ledger;
mod loops;
mod machine;
pub mod normal;
pub mod permission;
mod persona;
mod pooled;
mod records;
mod replay;
mod rules;
pub mod schema;
mod stream;
mod structured;
mod toolbox;
pub mod trace;
mod zo;

pub use agents::{Agent, Spawned};
pub use approval::{Approval, Decision};
pub use ask::Ask;
pub use builder::ZoBuilder;
pub use context::record::{Compaction, Method};
pub use driver::MEMORIES_HEADING;
pub use event::{Cursor, PARKED, Reply, RunEvent, RunId, Unfinished};
pub use ledger::Ledger;
pub use loops::LoopPolicy;
pub use machine::{INVALID_NAME, LOOP, MAX_CALLS, Machine, STEP_LIMIT, Step};
pub use permission::{Permissions, Preset, Verdict};
pub use persona::{Persona, Personas};
pub use pooled::POOLED_ASK;
pub use replay::{ReplayStep, RunReplay};
pub use rules::{Rule, RuleId};
pub use stream::RunStream;
pub use zo::Zo;
pub use zo_store as store;
pub use zo_traits::*;

#[cfg(feature = "memory")]
pub use zo_memory as memory;
#[cfg(feature = "providers")]
pub use zo_providers as providers;
#[cfg(feature = "skills")]
pub use zo_skills as skills;
#[cfg(feature = "skills")]
pub use zo_skills::{skill, skill_fn};
