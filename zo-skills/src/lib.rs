//! Skills of zo: closures, the skill attribute, SKILL.md folders.
#![forbid(unsafe_code)]
