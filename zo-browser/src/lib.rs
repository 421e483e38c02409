//! Browser of zo.
#![forbid(unsafe_code)]
