//! A key that does not show itself.

use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A key. Its `Debug` is `Secret(***)`, it has neither `Display` nor `Serialize`, and its bytes are zeroed when the last
/// clone is dropped. Comparing two takes a time that tells their lengths and nothing else.
///
/// A `String` that is handed over becomes the key and is zeroed with it; of a `&str` only the copy made here is.
///
/// ```
/// use zo_providers::Secret;
/// let key = Secret::new("sk-very-secret");
/// assert_eq!(format!("{key:?}"), "Secret(***)");
/// assert_eq!(key.expose(), "sk-very-secret");
/// ```
#[derive(Clone)]
pub struct Secret(std::sync::Arc<Zeroizing<String>>);

impl Secret {
    /// Takes a key, without the white space around it (a line end copied along is the usual accident).
    pub fn new(key: impl Into<String>) -> Self {
        let key = Zeroizing::new(key.into());
        let trimmed = key.trim();
        Self(std::sync::Arc::new(if trimmed.len() == key.len() {
            key
        } else {
            Zeroizing::new(trimmed.to_owned())
        }))
    }

    /// Takes bytes that were decrypted, as they are and without another copy. `None` when they are not UTF-8.
    #[cfg(feature = "vault")]
    pub(crate) fn from_bytes(mut bytes: Zeroizing<Vec<u8>>) -> Option<Self> {
        match String::from_utf8(std::mem::take(&mut *bytes)) {
            Ok(text) => Some(Self(std::sync::Arc::new(Zeroizing::new(text)))),
            Err(e) => {
                drop(Zeroizing::new(e.into_bytes()));
                None
            }
        }
    }

    /// The key itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Has it no characters?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` with every occurrence of the key blotted out: servers like to quote what they reject. Of a key of 12 bytes or
    /// more so is a head of 6 bytes or more where the text was cut or masked. A key of less than 6 bytes cannot be told from
    /// ordinary words and stays.
    pub(crate) fn scrub(&self, text: String) -> String {
        let key = self.expose();
        let least = match key.len() {
            ..6 => return text,
            6..12 => key.len(),
            _ => (6..).find(|n| key.is_char_boundary(*n)).unwrap_or(key.len()),
        };
        let Some(head) = key.get(..least).filter(|head| text.contains(head)) else { return text };
        let (mut out, mut rest) = (String::with_capacity(text.len()), text.as_str());
        while let Some((before, from)) = rest.find(head).and_then(|at| rest.split_at_checked(at)) {
            out.push_str(before);
            let common: usize =
                from.chars().zip(key.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
            let after = from.get(common..).unwrap_or_default();
            if common == key.len() || is_cut(after) {
                out.push_str("***");
                rest = after;
            } else {
                let mut chars = from.chars();
                out.extend(chars.next());
                rest = chars.as_str();
            }
        }
        out.push_str(rest);
        out
    }
}

/// Does what follows a quotation say that it was cut off here? What shortens text ends it with `…`, a quote, or a code in
/// brackets; servers mask with asterisks or dots.
fn is_cut(after: &str) -> bool {
    after.is_empty()
        || after.starts_with(['…', '"', '*'])
        || after.starts_with(" [")
        || after.starts_with("..")
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

impl<T: Into<String>> From<T> for Secret {
    fn from(key: T) -> Self {
        Self::new(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_hidden_and_blots_itself_out() {
        let key = Secret::new(" sk-abcdef\n");
        assert_eq!(format!("{key:?} {:?}", Some(&key)), "Secret(***) Some(Secret(***))");
        assert_eq!(key.scrub("wrong key sk-abcdef, sorry".into()), "wrong key ***, sorry");
        assert_eq!(key.scrub("sk-abcde".into()), "sk-abcde", "half of a short one may be a word");
    }

    #[test]
    fn equal_are_those_with_the_same_characters() {
        let key = Secret::new("sk-canary");
        assert!(key == Secret::new("sk-canary ") && key == key.clone());
        assert!(key != Secret::new("sk-canarz") && key != Secret::new("sk-canar") && key != Secret::new(""));
    }

    #[test]
    fn a_head_of_it_is_blotted_out_too() {
        let key = Secret::new("sk-canary-77f1c0ffee");
        assert_eq!(
            key.scrub("is sk-canary-77\u{2026} or sk-canary-77f1c0ffee?".into()),
            "is ***\u{2026} or ***?"
        );
        assert_eq!(key.scrub("sk-cansk-canary".into()), "sk-can***");
        assert_eq!(key.scrub("keys begin with sk-canary-".into()), "keys begin with ***");
        assert_eq!(key.scrub("sk-canary-xyz is another".into()), "sk-canary-xyz is another");
        assert_eq!(key.scrub("sk-ca".into()), "sk-ca");
        assert_eq!(Secret::new("äöüäöüäöü").scrub("<äöüä*>".into()), "<****>");
    }
}
