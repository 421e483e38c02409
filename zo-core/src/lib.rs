//! A personal AI agent inside any Rust program: the facade of zo.
#![forbid(unsafe_code)]
