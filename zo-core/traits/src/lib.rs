//! The contract of zo: object-safe traits for a personal AI agent, and the words that they share.
//!
//! | trait | what it stands for |
//! |---|---|
//! | [`Provider`] | a model |
//! | [`Skill`] | instructions and tools |
//! | [`MemoryStore`], [`Transcript`], [`Embedder`] | long-term memory, conversations, meaning |
//! | [`Scheduler`] | when work is due |
//! | [`ComputeBackend`] | where work runs |
//! | [`Browser`], [`Page`] | the web |
//! | [`Clock`] | time |
//!
//! # Rules of the contract
//! * Every trait is object-safe, `Send + Sync + Debug + 'static` and used as `Arc<dyn Trait>`; `Arc<T>` and `Box<T>`
//!   forward every method.
//! * Every call that may wait takes a [`Cx`] first: cancellation, deadline, run id, budget, typed host values.
//! * A trait has the fewest methods that carry the meaning. Conveniences live in extension traits ([`ProviderExt`]).
//! * Options travel in `#[non_exhaustive]` structs and enums; a new option never is a new method.
//! * One [`Error`] crosses every trait; what a model may read is a text of its own.
//! * Words that come from a wire or a disk keep values that this version does not know.
//! * No I/O here. Of Tokio only its channels and its timer are used.
//!
//! Each trait's behaviour is written down as laws in `zo-testkit`; run them against an implementation of your own.
//!
//! # Example: a provider of your own
//! ```
//! use zo_traits::{async_trait, BoxStream, Cx, Message, Provider, ProviderExt, Request, Response, Result, StreamEvent};
//!
//! #[derive(Debug)]
//! struct Echo;
//!
//! #[async_trait]
//! impl Provider for Echo {
//!     fn id(&self) -> &str { "echo" }
//!
//!     async fn stream(&self, _cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
//!         let said = request.messages.last().map(Message::to_text).unwrap_or_default();
//!         let answer = Response::new(Message::assistant(said), zo_traits::FinishReason::Stop);
//!         Ok(zo_traits::stream_of(answer.into_events().into_iter().map(Ok)))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let answer = Echo.complete(&Cx::default(), &Request::new("", [Message::user("hello")])).await?;
//! assert_eq!(answer.message.to_text(), "hello");
//! # Ok::<(), zo_traits::Error>(()) }).unwrap();
//! ```
#![forbid(unsafe_code)]

mod browser;
mod budget;
mod clock;
mod compute;
mod cx;
mod error;
mod forward;
mod id;
mod memory;
mod message;
mod provider;
mod schedule;
mod skill;
mod stream;
mod wire_enum;

pub use self::{
    browser::*, budget::*, clock::*, compute::*, cx::*, error::*, memory::*, message::*, provider::*,
    schedule::*, skill::*, stream::*,
};
/// Attribute for implementing the traits of this crate.
pub use async_trait::async_trait;
/// The one stream trait of the contract.
pub use futures_core::Stream;

use wire_enum::wire_enum;

/// Boxed, sendable stream: the only stream type in the contract.
pub type BoxStream<T> = std::pin::Pin<Box<dyn Stream<Item = T> + Send + 'static>>;

/// A stream of items that are already there.
pub fn stream_of<I>(items: I) -> BoxStream<I::Item>
where
    I: IntoIterator,
    I::IntoIter: Send + Unpin + 'static,
{
    struct Ready<I>(I);
    impl<I: Iterator + Unpin> Stream for Ready<I> {
        type Item = I::Item;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<I::Item>> {
            std::task::Poll::Ready(self.0.next())
        }
    }
    Box::pin(Ready(items.into_iter()))
}
