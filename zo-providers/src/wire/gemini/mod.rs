//! Gemini's `generateContent`, `countTokens` and `batchEmbedContents`
//! (<https://ai.google.dev/api/generate-content>, version `v1beta`).
//!
//! A model's parts may bear a `thoughtSignature`. It is kept with the very part that it came with and goes back there:
//! Gemini 3 refuses a call of a function without it. Parts that this crate has no word for, such as code that the provider
//! ran, are kept whole as [`Part::Opaque`](zo_traits::Part::Opaque) and sent back as they came.

mod decode;
mod embed;
mod encode;
mod model;
mod partial;

pub use decode::Generate;
pub use embed::{embeddings, encode_embed};
pub use encode::{count_body, encode};
pub use model::{counted, models};

/// The family of this wire's [`Replay`](zo_traits::Replay) data.
pub const FAMILY: &str = "gemini";

/// The field of a part that holds its signature, there and in [`Replay`](zo_traits::Replay) data.
const SIGNATURE: &str = "thoughtSignature";
