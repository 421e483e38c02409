//! HTTP face of zo.
#![forbid(unsafe_code)]
