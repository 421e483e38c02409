//! Model providers of zo.
//!
//! | provider | what it speaks | feature |
//! |---|---|---|
//! | [`OpenAi`] | chat completions: OpenAI and everything compatible ([`DIALECTS`]) | `openai` |
//! | [`Anthropic`] | Anthropic's Messages API | `anthropic` |
//! | [`Offline`] | nothing: rules, no model, no network | always there |
//!
//! [`from_env`] picks one for a host that has not chosen.
//!
//! # Layers, each testable without the one above
//! 1. [`wire`]: bytes to [`StreamEvent`](zo_traits::StreamEvent)s and [`Request`](zo_traits::Request)s to bodies. Pure: no
//!    I/O, no clock, no randomness, so the same request is the same bytes.
//! 2. `http`: one connection pool, time limits, and the key, which is put in at the last moment.
//! 3. The providers: a wire, an address and a row of quirks ([`Dialect`]).
//!
//! # Example
//! ```no_run
//! # #[cfg(feature = "openai")]
//! # async fn demo() -> zo_traits::Result<()> {
//! use zo_providers::OpenAi;
//! use zo_traits::{Cx, Message, ProviderExt, Request};
//!
//! let local = OpenAi::compatible("llamacpp", "http://127.0.0.1:8080/v1", None);
//! let answer = local.complete(&Cx::default(), &Request::new("", [Message::user("hello")])).await?;
//! println!("{}", answer.message.to_text());
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod choose;
mod dialect;
mod offline;

#[cfg(feature = "anthropic")]
mod anthropic;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "openai")]
mod openai;
#[cfg(feature = "http")]
mod secret;
#[cfg(feature = "http")]
pub mod wire;

#[cfg(feature = "anthropic")]
pub use anthropic::Anthropic;
pub use choose::{Chosen, from_env, from_lookup};
pub use dialect::{DIALECTS, Dialect, EffortField, Family, SchemaField, TokensField};
pub use offline::Offline;
#[cfg(feature = "openai")]
pub use openai::OpenAi;
#[cfg(feature = "http")]
pub use {http::Timeouts, secret::Secret};
