//! Model providers of zo.
//!
//! | provider | what it speaks | feature |
//! |---|---|---|
//! | [`Remote`] | chat completions (OpenAI and everything compatible, see [`DIALECTS`]), Responses, Anthropic's Messages, Gemini, Ollama, Zo | `http` |
//! | `Local` | nothing: a GGUF file in this process | `local` |
//! | [`Offline`] | nothing: rules, no model, no network | always there |
//!
//! [`from_env`] picks one for a host that has not chosen.
//!
//! # Layers, each testable without the one above
//! 1. [`wire`]: bytes to [`StreamEvent`](zo_traits::StreamEvent)s and [`Request`](zo_traits::Request)s to bodies. Pure: no
//!    I/O, no clock, no randomness, so the same request is the same bytes.
//! 2. `http`: one connection pool, time limits, and the key, which is put in at the last moment.
//! 3. [`Remote`]: a wire, an address and a row of quirks ([`Dialect`]).
//! 4. [`layer`]: retries, limits, fallbacks and more, each a provider around a provider.
//!
//! # Example
//! ```no_run
//! # #[cfg(feature = "http")]
//! # async fn demo() -> zo_traits::Result<()> {
//! use zo_providers::Remote;
//! use zo_traits::{Cx, Message, ProviderExt, Request};
//!
//! let local = Remote::compatible("llamacpp", "http://127.0.0.1:8080/v1", None);
//! let answer = local.complete(&Cx::default(), &Request::new("", [Message::user("hello")])).await?;
//! println!("{}", answer.message.to_text());
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod choose;
mod dialect;
mod offline;

#[cfg(feature = "http")]
mod calendar;
#[cfg(feature = "http")]
mod embedder;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "http")]
pub mod layer;
#[cfg(feature = "http")]
mod leak;
#[cfg(feature = "local")]
pub mod local;
pub mod models;
#[cfg(feature = "http")]
mod remote;
#[cfg(feature = "http")]
mod secret;
#[cfg(feature = "vault")]
pub mod vault;
#[cfg(feature = "http")]
pub mod wire;

#[cfg(feature = "vault")]
pub use choose::from_env_and_vault;
pub use choose::{Chosen, from_env, from_lookup};
pub use dialect::{DIALECTS, Dialect, EffortField, Family, SchemaField, TokensField};
#[cfg(feature = "local")]
pub use local::Local;
pub use offline::{Decision, Offline};
#[cfg(feature = "vault")]
pub use vault::{
    Cost, HttpRequest, HttpResponse, ImportOutcome, Imported, Injector, KeyInfo, KeyName, Scope, Unlock,
    UnlockInfo, Vault, VaultHttp, forbid_core_dumps,
};
#[cfg(feature = "http")]
pub use {
    embedder::RemoteEmbedder,
    http::Timeouts,
    leak::{LeakStream, Leaks, Scrubbed, clean_env},
    remote::Remote,
    secret::Secret,
};
