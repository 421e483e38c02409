//! Anthropic's Messages API.
//!
//! Blocks that this crate does not know, and those of server-side tools, are kept whole as
//! [`Part::Opaque`](zo_traits::Part::Opaque) and sent back as they came: the API wants the conversation unabridged.

mod decode;
mod encode;
mod model;

pub use decode::Messages;
pub use encode::{count_body, counted, encode};
pub(crate) use encode::{refuses_thoughts, without_thoughts};
pub use model::capabilities;

/// The family of this wire's [`Replay`](zo_traits::Replay) data.
pub const FAMILY: &str = "anthropic";
