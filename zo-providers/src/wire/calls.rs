//! Tool calls as chat completions write them, and those who took after them.

use super::{decode::unreadable, lenient::Str};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt::Display};
use zo_traits::Result;

/// What is called, or a piece of it.
#[derive(Deserialize)]
pub(super) struct Function<'a> {
    #[serde(borrow, default)]
    pub(super) name: Str<'a>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<&'a RawValue>,
}

/// The JSON text of arguments: they come as that text in a string, as an object, or as null.
pub(super) fn arguments(raw: &RawValue) -> Result<Cow<'_, str>> {
    match raw.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str::<Str<'_>>(raw.get())
            .map(|s| s.0)
            .map_err(|e| unreadable("arguments", raw.get(), &e)),
        Some(b'n') | None => Ok(Cow::Borrowed("")),
        _ => Ok(Cow::Borrowed(raw.get())),
    }
}

/// An id for a call whose server gave none. The same answer gives the same id.
pub(super) fn mint(answer: &str, at: impl Display) -> String {
    format!("call_{at}{}{answer}", if answer.is_empty() { "" } else { "_" })
}
