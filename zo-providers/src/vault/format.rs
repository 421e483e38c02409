//! The file: three lines of text, of which the last is sealed and vouches for the other two.
//!
//! ```text
//! zo-vault 1
//! {"vault":"…","generation":7,"unlock":[{"id":1,"kind":"passphrase","created":…,"key":"…","argon2id":{…}}]}
//! base64 of the sealed index
//! ```
//!
//! The index is JSON sealed under the vault key, with the first two lines as its context: whoever does not have that key can
//! change nothing in the file, neither add, drop, swap or revive an entry or a way to unlock it. Within the index each value is
//! sealed once more, bound to its user, provider, name and time, so that only the value that is asked for is ever in plain
//! text.

use super::{
    seal::{Key, context},
    unlock::Slot,
};
use crate::{
    Secret,
    leak::{base64_decode, base64_encode},
    vault::{KeyName, Scope},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zo_traits::{Error, ErrorKind, Result};

/// Most bytes of a file.
pub(super) const MAX_FILE: usize = 64 << 20;
/// Most ways to unlock one vault.
pub(super) const MAX_SLOTS: usize = 16;

const MAGIC: &str = "zo-vault ";
const VERSION: &str = "1";

/// What anybody can read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// 16 random bytes that tell this vault from others; base64.
    pub(super) vault: String,
    /// Counts the writes.
    pub(super) generation: u64,
    pub(super) unlock: Vec<Slot>,
}

/// What is kept under a name.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// When it was put, in milliseconds since 1970.
    pub(super) created: i64,
    /// When its value was set last.
    pub(super) changed: i64,
    pub(super) scope: Scope,
    /// The sealed value, base64.
    value: String,
    /// The sealed value before the last rotation, base64.
    old: Option<String>,
}

pub(super) type Index = BTreeMap<KeyName, Entry>;

/// An entry as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    key: KeyName,
    created: i64,
    changed: i64,
    #[serde(default, skip_serializing_if = "Scope::is_default")]
    scope: Scope,
    value: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old: Option<String>,
}

fn corrupt(why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "vault.open", format_args!("the vault file is damaged: {why}"))
}

/// The bytes of a file, taken apart. Nothing in it is believed yet.
#[derive(Debug)]
pub(super) struct File<'a> {
    pub(super) head: Head,
    /// The first two lines, as they are.
    seen: &'a str,
    body: &'a str,
}

impl<'a> File<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > MAX_FILE {
            return Err(corrupt("it is larger than 64 MiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| corrupt("it is no text"))?;
        let (first, rest) = text.split_once('\n').ok_or_else(|| corrupt("its first line is cut"))?;
        let version =
            first.strip_prefix(MAGIC).ok_or_else(|| corrupt("it does not begin as a vault does"))?;
        if version != VERSION {
            return Err(if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) {
                let what = format_args!("the vault file has version {version}, this program knows {VERSION}")
                    .to_string();
                Error::new(ErrorKind::Unsupported, "vault.open", what)
            } else {
                corrupt("it does not begin as a vault does")
            });
        }
        let (line, rest) = rest.split_once('\n').ok_or_else(|| corrupt("its second line is cut"))?;
        let body = rest.strip_suffix('\n').ok_or_else(|| corrupt("its third line is cut"))?;
        // serde_json quotes nothing of the text, only where it stumbled.
        let head: Head = serde_json::from_str(line).map_err(|e| corrupt(&format!("its second line: {e}")))?;
        if head.unlock.is_empty() || head.unlock.len() > MAX_SLOTS {
            return Err(corrupt("it has no way to unlock it, or too many"));
        }
        let seen = text.get(..first.len() + line.len() + 2).unwrap_or_default();
        Ok(Self { head, seen, body })
    }

    /// The index, if `key` is the vault's key and no byte was changed. `None` tells no more.
    pub(super) fn index(&self, key: &Key) -> Result<Option<Index>> {
        // One spelling only: no byte of the file is without meaning.
        let Some(sealed) = base64_decode(self.body).filter(|bytes| base64_encode(bytes) == self.body) else {
            return Err(corrupt("its third line is no base64"));
        };
        let Some(plain) = key.open(&body_context(self.seen), &sealed) else { return Ok(None) };
        let rows: Vec<Row> =
            serde_json::from_slice(&plain).map_err(|e| corrupt(&format!("its index, though sealed: {e}")))?;
        let mut index = Index::new();
        for row in rows {
            let Row { key, created, changed, scope, value, old } = row;
            if index.insert(key, Entry { created, changed, scope, value, old }).is_some() {
                return Err(corrupt("its index, though sealed, has a key twice"));
            }
        }
        Ok(Some(index))
    }
}

fn body_context(seen: &str) -> Vec<u8> {
    context(&[b"zo-vault 1 index", seen.as_bytes()])
}

/// The bytes of a file.
pub(super) fn write(head: &Head, key: &Key, index: &Index) -> Result<Vec<u8>> {
    let failed = |e: serde_json::Error| Error::new(ErrorKind::Invalid, "vault.save", e);
    let mut out = format!("{MAGIC}{VERSION}\n{}\n", serde_json::to_string(head).map_err(failed)?);
    let rows: Vec<Row> = index
        .iter()
        .map(|(key, e)| Row {
            key: key.clone(),
            created: e.created,
            changed: e.changed,
            scope: e.scope.clone(),
            value: e.value.clone(),
            old: e.old.clone(),
        })
        .collect();
    let plain = zeroize::Zeroizing::new(serde_json::to_vec(&rows).map_err(failed)?);
    let sealed = key.seal(&body_context(&out), &plain)?;
    out.push_str(&base64_encode(&sealed));
    out.push('\n');
    if out.len() > MAX_FILE {
        return Err(Error::new(ErrorKind::Invalid, "vault.save", "the vault would grow beyond 64 MiB"));
    }
    Ok(out.into_bytes())
}

/// Which of the two values of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Current,
    /// The one before the last rotation.
    Old,
}

fn value_context(vault: &str, name: &KeyName, created: i64, which: Which) -> Vec<u8> {
    let which: &[u8] = match which {
        Which::Current => b"current",
        Which::Old => b"old",
    };
    let (user, provider, label) = name.parts();
    context(&[
        b"zo-vault 1 value",
        vault.as_bytes(),
        user.as_bytes(),
        provider.as_bytes(),
        label.as_bytes(),
        &created.to_le_bytes(),
        which,
    ])
}

impl Entry {
    pub(super) fn new(
        vault: &str,
        key: &Key,
        name: &KeyName,
        value: &Secret,
        scope: Scope,
        now: i64,
    ) -> Result<Self> {
        let mut this = Self { created: now, changed: now, scope, value: String::new(), old: None };
        this.value = this.seal(vault, key, name, value, Which::Current)?;
        Ok(this)
    }

    fn seal(&self, vault: &str, key: &Key, name: &KeyName, value: &Secret, which: Which) -> Result<String> {
        let context = value_context(vault, name, self.created, which);
        Ok(base64_encode(&key.seal(&context, value.expose().as_bytes())?))
    }

    /// The value, or `None` when there is no such.
    pub(super) fn open(
        &self,
        vault: &str,
        key: &Key,
        name: &KeyName,
        which: Which,
    ) -> Result<Option<Secret>> {
        let sealed = match which {
            Which::Current => &self.value,
            Which::Old => match &self.old {
                Some(old) => old,
                None => return Ok(None),
            },
        };
        base64_decode(sealed)
            .and_then(|sealed| key.open(&value_context(vault, name, self.created, which), &sealed))
            .and_then(Secret::from_bytes)
            .map(Some)
            .ok_or_else(|| corrupt(&format!("the value of {name}, though sealed, cannot be opened")))
    }

    /// Sets a new value and keeps the one before.
    pub(super) fn rotate(
        &mut self,
        vault: &str,
        key: &Key,
        name: &KeyName,
        value: &Secret,
        now: i64,
    ) -> Result<()> {
        if let Some(before) = self.open(vault, key, name, Which::Current)? {
            self.old = Some(self.seal(vault, key, name, &before, Which::Old)?);
        }
        self.value = self.seal(vault, key, name, value, Which::Current)?;
        self.changed = now;
        Ok(())
    }

    /// Forgets the value before the last rotation. Was there one?
    pub(super) fn retire(&mut self) -> bool {
        self.old.take().is_some()
    }

    pub(super) fn has_old(&self) -> bool {
        self.old.is_some()
    }

    /// The same entry under another key.
    pub(super) fn under(&self, vault: &str, from: &Key, to: &Key, name: &KeyName) -> Result<Self> {
        let mut out = self.clone();
        if let Some(value) = self.open(vault, from, name, Which::Current)? {
            out.value = self.seal(vault, to, name, &value, Which::Current)?;
        }
        if let Some(value) = self.open(vault, from, name, Which::Old)? {
            out.old = Some(self.seal(vault, to, name, &value, Which::Old)?);
        }
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const VAULT: &str = "AAECAwQFBgcICQoLDA0ODw==";

    fn entry(key: &Key, name: &KeyName, value: &str, created: i64) -> Entry {
        Entry::new(VAULT, key, name, &Secret::new(value), Scope::default(), created).unwrap()
    }

    /// Even who can write the index cannot pass a value off as another's.
    #[test]
    fn a_value_opens_only_where_it_was_put() {
        let key = Key::random().unwrap();
        let name = KeyName::new("alice", "openai");
        let mut good = entry(&key, &name, "sk-alice", 7);
        assert_eq!(good.open(VAULT, &key, &name, Which::Current).unwrap().unwrap().expose(), "sk-alice");
        good.rotate(VAULT, &key, &name, &Secret::new("sk-alice-2"), 8).unwrap();
        assert_eq!(good.open(VAULT, &key, &name, Which::Old).unwrap().unwrap().expose(), "sk-alice");
        for other in [
            KeyName::new("bob", "openai"),
            KeyName::new("alice", "groq"),
            KeyName::new("alice", "openai").named("x"),
            KeyName::new("aliceo", "penai"),
        ] {
            let e = good.open(VAULT, &key, &other, Which::Current).unwrap_err();
            assert!(e.kind() == ErrorKind::Corrupt && e.message().contains(&other.to_string()), "{e}");
        }
        let opens = |entry: &Entry, vault: &str| entry.open(vault, &key, &name, Which::Current).is_ok();
        let swapped = Entry { value: good.old.clone().unwrap(), ..good.clone() };
        assert!(!opens(&swapped, VAULT), "an old value is not the current one");
        assert!(!opens(&Entry { created: 9, ..good.clone() }, VAULT), "nor one of another time");
        assert!(!opens(&good, "AAECAwQFBgcICQoLDA0ODA=="), "nor one of another vault");
        assert!(
            opens(&good, VAULT) && good.open(VAULT, &Key::random().unwrap(), &name, Which::Current).is_err()
        );
    }

    #[test]
    fn an_index_with_a_key_twice_is_refused_though_it_is_sealed() {
        let key = Key::random().unwrap();
        let name = KeyName::new("alice", "openai");
        let head = Head { vault: VAULT.into(), generation: 1, unlock: Vec::new() };
        let line = serde_json::to_string(&head).unwrap();
        // A vault without a way in is no vault.
        let bytes = write(&head, &key, &Index::new()).unwrap();
        assert_eq!(File::parse(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);

        let row = || {
            let e = entry(&key, &name, "sk-alice", 7);
            Row {
                key: name.clone(),
                created: 7,
                changed: 7,
                scope: Scope::default(),
                value: e.value,
                old: None,
            }
        };
        let seen = format!("{MAGIC}{VERSION}\n{line}\n");
        for (rows, good) in [(vec![row()], true), (vec![row(), row()], false)] {
            let plain = serde_json::to_vec(&rows).unwrap();
            let body = base64_encode(&key.seal(&body_context(&seen), &plain).unwrap());
            let file = File { head: head.clone(), seen: &seen, body: &body };
            assert_eq!(file.index(&key).is_ok(), good);
            assert!(file.index(&Key::random().unwrap()).unwrap().is_none());
        }
    }
}
