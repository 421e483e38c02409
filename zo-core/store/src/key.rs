//! Composite keys that sort as their parts do.
//!
//! Integers are big-endian; a signed one has its sign bit flipped. A text or byte string may hold anything: each zero byte
//! is written as `00 FF` and the end as `00 01`, so that `("a", "b")` and `("ab", "")` differ and a string sorts before
//! every longer one that starts with it.
//!
//! ```
//! use zo_store::key::{Key, Parts};
//! let key = Key::new().str("user/7").u64(42);
//! let mut parts = Parts::of(&key);
//! assert_eq!((parts.str()?, parts.u64()?), ("user/7".into(), 42));
//! parts.end()?;
//! assert!(Key::new().str("a").u64(9) < Key::new().str("a").u64(10));
//! assert!(Key::new().str("a").u64(9) < Key::new().str("a\0").u64(0));
//! # zo_traits::Result::<()>::Ok(())
//! ```

use std::{borrow::Cow, ops::Deref};
use zo_traits::{Error, ErrorKind, Result};

const END: [u8; 2] = [0, 1];
const ZERO: [u8; 2] = [0, 0xff];

/// A key under construction. Dereferences to its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// An empty key.
    pub fn new() -> Self {
        Self(Vec::with_capacity(48))
    }

    /// A key that goes on where `bytes` end.
    pub fn after(bytes: &[u8]) -> Self {
        let mut key = Vec::with_capacity(bytes.len() + 24);
        key.extend_from_slice(bytes);
        Self(key)
    }

    /// Adds a byte.
    #[must_use]
    pub fn u8(self, n: u8) -> Self {
        self.raw(&[n])
    }

    /// Adds an integer of four bytes.
    #[must_use]
    pub fn u32(self, n: u32) -> Self {
        self.raw(&n.to_be_bytes())
    }

    /// Adds an integer of eight bytes.
    #[must_use]
    pub fn u64(self, n: u64) -> Self {
        self.raw(&n.to_be_bytes())
    }

    /// Adds an integer of sixteen bytes.
    #[must_use]
    pub fn u128(self, n: u128) -> Self {
        self.raw(&n.to_be_bytes())
    }

    /// Adds a signed integer of eight bytes; negative ones sort first.
    #[must_use]
    pub fn i64(self, n: i64) -> Self {
        self.u64(n.cast_unsigned() ^ (1 << 63))
    }

    /// Adds a text, escaped and ended.
    #[must_use]
    pub fn str(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds a byte string, escaped and ended.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut pieces = bytes.split(|b| *b == 0);
        self.0.extend_from_slice(pieces.next().unwrap_or_default());
        for piece in pieces {
            self.0.extend_from_slice(&ZERO);
            self.0.extend_from_slice(piece);
        }
        self.raw(&END)
    }

    /// Adds bytes as they are: only the last part of a key can be told from what follows.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Its bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Takes a key apart, in the order in which it was put together.
///
/// # Errors
/// Each part fails with [`ErrorKind::Corrupt`] when the key does not hold it.
#[derive(Debug, Clone)]
pub struct Parts<'a>(&'a [u8]);

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "store.key", format_args!("a key does not hold {what}"))
}

macro_rules! integer {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        ///
        /// # Errors
        /// See [`Parts`].
        pub fn $name(&mut self) -> Result<$name> {
            let (n, rest) = self.0.split_first_chunk().ok_or_else(|| corrupt(concat!("a ", stringify!($name))))?;
            self.0 = rest;
            Ok($name::from_be_bytes(*n))
        }
    };
}

impl<'a> Parts<'a> {
    /// The parts of `key`.
    pub fn of(key: &'a [u8]) -> Self {
        Self(key)
    }

    integer!(
        /// The next byte.
        u8
    );
    integer!(
        /// The next integer of four bytes.
        u32
    );
    integer!(
        /// The next integer of eight bytes.
        u64
    );
    integer!(
        /// The next integer of sixteen bytes.
        u128
    );

    /// The next signed integer.
    ///
    /// # Errors
    /// See [`Parts`].
    pub fn i64(&mut self) -> Result<i64> {
        Ok((self.u64()? ^ (1 << 63)).cast_signed())
    }

    /// The next byte string; borrowed when it holds no zero byte.
    ///
    /// # Errors
    /// See [`Parts`].
    pub fn bytes(&mut self) -> Result<Cow<'a, [u8]>> {
        let mut whole: Option<Vec<u8>> = None;
        loop {
            let at = self.0.iter().position(|b| *b == 0).ok_or_else(|| corrupt("the end of a string"))?;
            let (piece, rest) = self.0.split_at(at);
            let (mark, rest) = rest.split_first_chunk().ok_or_else(|| corrupt("the end of a string"))?;
            self.0 = rest;
            match *mark {
                END => {
                    return Ok(match whole {
                        None => Cow::Borrowed(piece),
                        Some(mut whole) => {
                            whole.extend_from_slice(piece);
                            Cow::Owned(whole)
                        }
                    });
                }
                ZERO => {
                    let whole = whole.get_or_insert_default();
                    whole.extend_from_slice(piece);
                    whole.push(0);
                }
                _ => return Err(corrupt("a string")),
            }
        }
    }

    /// The next text.
    ///
    /// # Errors
    /// See [`Parts`].
    pub fn str(&mut self) -> Result<Cow<'a, str>> {
        match self.bytes()? {
            Cow::Borrowed(bytes) => {
                std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| corrupt("a text"))
            }
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| corrupt("a text")),
        }
    }

    /// What is left, as it is.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// See [`Parts`].
    pub fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(corrupt("just these parts")) }
    }
}

/// The least key that is greater than every key that starts with `prefix`; none when there is no such key.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(b) = end.last_mut() {
        *b += 1;
    }
    Some(end)
}
