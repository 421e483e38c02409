//! The behaviour that every implementation of a trait must show: one function per law.

pub mod compute;
pub mod memory;
pub mod provider;
pub mod skill;
pub mod transcript;
