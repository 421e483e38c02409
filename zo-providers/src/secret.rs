//! A key that does not show itself.

use std::fmt;
use zeroize::Zeroizing;

/// A key. Its `Debug` is `Secret(***)`, it has neither `Display` nor `Serialize`, and its bytes are zeroed when the last
/// clone is dropped.
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

    /// The key itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Has it no characters?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` with every occurrence of the key blotted out: servers like to quote what they reject.
    pub(crate) fn scrub(&self, text: String) -> String {
        // A key this short cannot be told from ordinary words.
        if self.0.len() < 6 || !text.contains(self.expose()) {
            text
        } else {
            text.replace(self.expose(), "***")
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

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
    }
}
