//! Doors to private parsers for the targets in `fuzz/`. Compiled with `--cfg fuzzing` alone; no part of the interface.

#[cfg(feature = "builtin")]
pub use crate::builtin::calculate;
pub use crate::folder::fuzzing::*;
