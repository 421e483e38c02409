//! The wires: pure codecs between the words of [`zo_traits`] and the bytes of an API.
//!
//! A codec has two halves. *Encode* turns a [`Request`](zo_traits::Request) into a body; the same request is always the same
//! bytes. *Decode* turns the bytes of an answer, cut into pieces of any size, into
//! [`StreamEvent`](zo_traits::StreamEvent)s; a body that came whole runs through the very same code as a streamed one.
//!
//! Bytes from outside are hostile: every decoder is bounded in memory, never panics, and takes time linear in the bytes.

#[cfg(feature = "anthropic")]
pub mod anthropic;
pub mod fault;
#[cfg(feature = "openai")]
pub mod openai_chat;
pub mod sse;

mod decode;
mod lenient;
#[cfg(any(feature = "openai", feature = "anthropic"))]
mod media;
mod parts;
mod turns;

pub use decode::{Codec, Decoder};
