//! The HTTP face of an agent: routers that a host mounts.
//!
//! There are none yet. What is here is the agent that they will face.
#![forbid(unsafe_code)]

pub use zo_core::Zo;
