//! Memory of zo: transcript, remember, recall, forget.
#![forbid(unsafe_code)]
