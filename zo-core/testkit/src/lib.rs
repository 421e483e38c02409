//! Laws, scripted provider, virtual clock and kill harness for parts of zo.
#![forbid(unsafe_code)]
