//! OpenAI's chat completions, the wire that half the world speaks, each with an accent.
//!
//! Where servers differ in what they *take*, a [`Dialect`](crate::Dialect) says so. Where they differ in what they *send*,
//! the decoder reads all of it, whoever sent it.

mod decode;
mod encode;

pub use decode::Chat;
pub use encode::encode;
