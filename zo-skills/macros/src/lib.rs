//! The skill attribute of zo-skills.
#![forbid(unsafe_code)]
