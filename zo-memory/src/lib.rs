//! Memory of zo: conversations that last, and facts that are found again.
//!
//! * [`StoreTranscript`]: conversations in a [`Store`](zo_store::Store), a message per row; [`append_in`] appends inside a
//!   transaction of the caller's. [`RamTranscript`] keeps the same laws without a file.
//! * [`Memory`]: long-term memory with scopes. Recall ranks by BM25 over an inverted index that lives beside the items,
//!   so it never looks at all of them.
//!
//! Both may share one store with everything else that an agent keeps.
//!
//! ```
//! use zo_memory::{Memory, MemoryStore};
//! use zo_traits::{Cx, NewMemory, Recall, Scope};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let (cx, ada) = (Cx::default(), Scope::new("user/ada"));
//! let memory = Memory::in_memory().await?;
//! let facts = ["Her dog is called Rex.", "She is allergic to peanuts."].map(NewMemory::text);
//! memory.remember(&cx, &ada, facts.into()).await?;
//! let found = memory.recall(&cx, &ada, &Recall::new("What is she allergic to?", 3)).await?;
//! assert_eq!(found[0].text, "She is allergic to peanuts.");
//! # zo_traits::Result::<()>::Ok(()) }).unwrap();
//! ```
#![forbid(unsafe_code)]

mod index;
mod memory;
mod postings;
mod ram;
mod rank;
mod record;
mod scope;
mod stem;
pub mod summary;
pub mod text;
mod transcript;
mod varint;

pub use memory::{MAX_TEXT, Memory};
pub use ram::RamTranscript;
pub use transcript::{StoreTranscript, append_in, delete_in};
pub use zo_traits::{Forget, MemoryId, MemoryStore, Message, NewMemory, Recall, Recalled, Scope, Transcript};
