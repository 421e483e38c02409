//! The one-file store of zo: redb, group commit, snapshots, change notification.
//!
//! A [`Store`] is one file of named tables of bytes. It knows no domain: memory, transcript, journal, pool and scheduler
//! keep tables of their own in one store, so that what belongs together is one commit and one file is the backup.
//!
//! # Promises
//! * **Acknowledged is durable.** A [`write`](Store::write) returns once its commit has been synced to the disk; power
//!   loss after that loses nothing of it, power loss before loses all of it or nothing.
//! * **Many writers, one sync.** Closures that wait at the same time share one commit. One that fails takes no other
//!   with it.
//! * **Waiting is optional.** A write that nobody waits for is [queued](Store::queue) and rides along with a later commit,
//!   in order: what a crash leaves is a prefix of the queue.
//! * **Readers never wait.** A [`Snapshot`] is a consistent view that later commits do not change.
//! * **Said, not lost.** A second process, a newer file, a damaged file, a full disk are errors of their own kind.
//!
//! ```
//! use zo_store::{Scan, Store, Table};
//!
//! const NAMES: Table = Table::new("example.names");
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = Store::in_memory()?;
//! let was_new = store.write(|tx| {
//!     let new = tx.get(NAMES, b"ada")?.is_none(); // decide first,
//!     tx.put(NAMES, b"ada", b"1815")?;            // then write
//!     Ok(new)
//! }).await?;
//! assert!(was_new);
//! let names = store.read(|s| s.collect(NAMES, &Scan::prefix(b"a").limit(10)))?;
//! assert_eq!(names, [(b"ada".to_vec(), b"1815".to_vec())]);
//! # store.close().await?;
//! # zo_traits::Result::<()>::Ok(()) }).unwrap();
//! ```
//!
//! # Errors
//! | what happened | [`ErrorKind`](zo_traits::ErrorKind) |
//! |---|---|
//! | the file is open already, here or in another process | `Conflict` |
//! | the file is damaged, cut short or not a store | `Corrupt` |
//! | the file or a domain's schema is of a newer version | `Unsupported` |
//! | the disk is full, or failed: the store must be reopened | `Unavailable` |
//! | a value beyond what the engine takes | `Invalid` |
//!
//! # Damaged files
//! Every page of a file up to [`Options::verify_limit`] is checked when it is opened; a larger one is checked after a crash,
//! and otherwise trusted. A panic of the engine over damaged bytes is caught and reported as `Corrupt`, which needs
//! `panic = "unwind"`, the default.
#![forbid(unsafe_code)]

mod backup;
mod fail;
pub mod fault;
mod job;
pub mod key;
mod open;
mod options;
mod queue;
mod reads;
mod schema;
mod snapshot;
mod store;
mod table;
mod tx;
mod writer;

pub use backup::BackupReport;
pub use options::Options;
pub use queue::Urgency;
pub use reads::{Read, Visit};
pub use redb::{BackendError, StorageBackend};
pub use snapshot::Snapshot;
pub use store::{Claim, Store};
pub use table::{Scan, Table};
pub use tx::Tx;
