//! Model providers of zo.
#![forbid(unsafe_code)]
