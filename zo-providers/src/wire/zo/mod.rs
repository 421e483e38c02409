//! Zo Computer's `POST /zo/ask`.
//!
//! Zo is an agent and not a model. It keeps the conversation itself, under an id, and it uses tools of its own: the host's are
//! not offered to it. The id travels as [`Replay`](zo_traits::Replay) data of the answer, so that it lies in the history and no
//! one else has to keep it.
//!
//! Source: <https://docs.zocomputer.com/api-reference/ai/ask-zo>.

mod decode;
mod encode;

pub use decode::{Ask, models};
pub use encode::encode;

/// The family of this wire's [`Replay`](zo_traits::Replay) data.
pub const FAMILY: &str = "zo";

/// The entry of the replay data that holds the id of the conversation.
const CONVERSATION: &str = "conversation_id";
