//! Compute pool and scheduler of zo.
#![forbid(unsafe_code)]
