//! OpenAI's Responses API, and the servers that took it over.
//!
//! An answer is a list of items. Messages, calls of our functions and reasoning become parts of their own; every other item,
//! as those of the provider's own tools, is kept whole as [`Part::Opaque`](zo_traits::Part::Opaque) and sent back as it came.
//!
//! Conversations are sent whole (`store: false`): nothing depends on what a server remembers, so encrypted reasoning is asked
//! for and sent back in its place.

mod decode;
mod encode;

pub use decode::Responses;
pub use encode::{count_body, counted, encode};

/// The usual family of this wire's [`Replay`](zo_traits::Replay) data.
pub const FAMILY: &str = "openai-responses";
