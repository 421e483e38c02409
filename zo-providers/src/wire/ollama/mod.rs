//! Ollama's own chat API (`/api/chat`), with the lists and the facts about models that belong to it.
//!
//! Its OpenAI-compatible side knows neither the size of the context nor the thoughts that go back, so it is not used.

mod decode;
mod encode;
mod model;

pub use decode::OllamaChat;
pub use encode::encode;
pub use model::{models, shown};

/// The family of this wire's [`Replay`](zo_traits::Replay) data.
pub const FAMILY: &str = "ollama";
