//! The wires: pure codecs between the words of [`zo_traits`] and the bytes of an API.
//!
//! A codec has two halves. *Encode* turns a [`Request`] into a body; the same request is always the same
//! bytes. *Decode* turns the bytes of an answer, cut into pieces of any size, into
//! [`StreamEvent`](zo_traits::StreamEvent)s; a body that came whole runs through the very same code as a streamed one.
//!
//! Bytes from outside are hostile: every decoder is bounded in memory, never panics, and takes time linear in the bytes.

pub mod anthropic;
pub mod embed;
pub mod fault;
pub mod gemini;
pub mod ndjson;
pub mod ollama;
pub mod openai_chat;
pub mod openai_responses;
pub mod sse;
pub mod zo;

mod bom;
mod calls;
mod decode;
mod halves;
mod lenient;
mod media;
mod openai;
mod parts;
mod turns;

pub use decode::{Codec, Decoder, Framing};

use crate::{Dialect, Family};
use zo_traits::{Request, Result};

/// The body of `request` to `model`, as the provider of `row` wants it.
///
/// # Errors
/// [`Invalid`](zo_traits::ErrorKind::Invalid) and [`Unsupported`](zo_traits::ErrorKind::Unsupported), as the wire says.
pub fn encode(request: &Request, model: &str, row: &Dialect) -> Result<Vec<u8>> {
    match row.family {
        Family::Chat => openai_chat::encode(request, model, row, &row.id),
        Family::Responses => openai_responses::encode(request, model, row, &row.id),
        Family::Anthropic => anthropic::encode(request, model),
        Family::Gemini => gemini::encode(request, model),
        Family::Ollama => ollama::encode(request, model),
        Family::Zo => zo::encode(request, model),
    }
}
