//! The context engine: what of a conversation a request holds, when it no longer holds all of it.
//!
//! * [`estimate`]: how many tokens messages are, per family of models, corrected by what providers report.
//! * [`compact`]: where a conversation is cut so that the rest fits.
//! * [`summarize`]: the text that stands for what was cut off.
//! * [`record`]: which part of which conversation is replaced by which summary, what is pinned, and what was undone.
//!
//! The transcript itself is never shortened: a compaction only changes what is sent.

pub(crate) mod compact;
pub(crate) mod estimate;
pub(crate) mod record;
pub(crate) mod summarize;
mod weights;
