//! What opens a vault: each method wraps the same random vault key in a slot of its own.

use super::seal::{Key, OVERHEAD, context, random};
use crate::{
    Secret,
    leak::{base64_decode, base64_encode},
};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;
use zo_traits::{Error, ErrorKind, Result};

/// What opens a vault.
#[derive(Clone)]
#[non_exhaustive]
pub enum Unlock {
    /// A passphrase. Its key comes from Argon2id (RFC 9106), which takes 100 to 200 ms of CPU and 64 MiB of memory by default:
    /// from async code open the vault in `spawn_blocking`.
    Passphrase(Secret),
    /// 32 random bytes, as 64 hexadecimal digits or as base64, from wherever the host keeps them (by custom the environment
    /// variable `ZO_VAULT_KEY`). Make one with [`Unlock::random_key`] or `openssl rand -hex 32`.
    Key(Secret),
    /// A key that the operating system keeps: Keychain, Credential Manager, or the Secret Service of a desktop. It is made
    /// when the method is added to a vault. A headless Linux has no such service. Blocks, and may ask the user: from async
    /// code open the vault in `spawn_blocking`.
    #[cfg(feature = "vault-keyring")]
    Keyring {
        /// Name of the program.
        service: String,
        /// Which of its keys.
        account: String,
    },
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl Unlock {
    /// A new random key for [`Unlock::Key`], as 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the system gives no random numbers.
    pub fn random_key() -> Result<Secret> {
        let key = Key::random()?;
        let mut text = Zeroizing::new(String::with_capacity(64));
        for byte in key.bytes() {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
        Ok(Secret::new(std::mem::take(&mut *text)))
    }

    /// Its kind, in a word.
    fn kind(&self) -> &'static str {
        match self {
            Self::Passphrase(_) => "passphrase",
            Self::Key(_) => "key",
            #[cfg(feature = "vault-keyring")]
            Self::Keyring { .. } => "keyring",
        }
    }
}

/// What deriving a key from a passphrase costs (Argon2id, RFC 9106). Kept in the file, for each passphrase its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory: u32,
    passes: u32,
    lanes: u32,
}

impl Default for Cost {
    /// 64 MiB, three passes, one lane: the second recommendation of RFC 9106, section 4, but for the lanes, which would be
    /// computed one after another.
    fn default() -> Self {
        Self { memory: 64 << 10, passes: 3, lanes: 1 }
    }
}

impl Cost {
    /// `memory` in KiB, `passes` over it, `lanes`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] below 19 MiB or, at that, below two passes (the least that OWASP's Password Storage Cheat Sheet
    /// advises), and above what [`Vault::open`](super::Vault::open) accepts: 512 MiB, 16 passes, 4 lanes, and 2 GiB for memory
    /// times passes.
    pub fn new(memory: u32, passes: u32, lanes: u32) -> Result<Self> {
        let cost = Self { memory, passes, lanes };
        if memory < 19 << 10 || u64::from(memory) * u64::from(passes) < 2 * (19 << 10) {
            return Err(Error::new(
                ErrorKind::Invalid,
                "vault.cost",
                "a passphrase needs 19 MiB and two passes at least",
            ));
        }
        cost.check("vault.cost")?;
        Ok(cost)
    }

    /// Worth nothing as a protection: for tests that open thousands of vaults.
    #[doc(hidden)]
    pub fn worthless() -> Self {
        Self { memory: 8, passes: 1, lanes: 1 }
    }

    /// What a file may ask of the machine that opens it. Looked at before anything is allocated.
    fn check(self, op: &'static str) -> Result<()> {
        let work = u64::from(self.memory) * u64::from(self.passes);
        let fits = (8..=512 << 10).contains(&self.memory)
            && (1..=16).contains(&self.passes)
            && (1..=4).contains(&self.lanes)
            && self.memory >= 8 * self.lanes
            && work <= 2 << 20;
        if fits {
            return Ok(());
        }
        let Self { memory, passes, lanes } = self;
        Err(Error::new(
            ErrorKind::Invalid,
            op,
            format_args!(
                "Argon2id with {memory} KiB, {passes} passes and {lanes} lanes is out of bounds: 512 MiB, 16 passes, 4 lanes, \
                 and 2 GiB for memory times passes are the most"
            ),
        ))
    }
}

/// A method of unlocking, as it stands in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Slot {
    pub(super) id: u32,
    pub(super) kind: SlotKind,
    /// When it was added, in milliseconds since 1970.
    pub(super) created: i64,
    /// The vault key, sealed; base64.
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argon2id: Option<Argon>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SlotKind {
    Passphrase,
    Key,
    Keyring,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Argon {
    memory: u32,
    passes: u32,
    lanes: u32,
    /// 16 random bytes, base64.
    salt: String,
}

impl Slot {
    /// Wraps `vault_key` so that `unlock` opens it.
    pub(super) fn new(
        id: u32,
        vault: &[u8],
        vault_key: &Key,
        unlock: &Unlock,
        cost: Cost,
        now: i64,
    ) -> Result<Self> {
        const OP: &str = "vault.unlock";
        let (kind, argon2id, kek) = match unlock {
            Unlock::Passphrase(passphrase) => {
                if passphrase.is_empty() {
                    return Err(Error::new(ErrorKind::Invalid, OP, "the passphrase is empty"));
                }
                cost.check(OP)?;
                let mut salt = [0; 16];
                random(&mut salt)?;
                let Cost { memory, passes, lanes } = cost;
                let argon = Argon { memory, passes, lanes, salt: base64_encode(&salt) };
                let kek = argon.key(passphrase)?;
                (SlotKind::Passphrase, Some(argon), kek)
            }
            Unlock::Key(key) => (SlotKind::Key, None, parse_key(key)?),
            #[cfg(feature = "vault-keyring")]
            Unlock::Keyring { service, account } => {
                (SlotKind::Keyring, None, parse_key(&super::keyring::key(service, account, true)?)?)
            }
        };
        let mut slot = Self { id, kind, created: now, key: String::new(), argon2id };
        slot.key = base64_encode(&kek.seal(&slot.context(vault), vault_key.bytes())?);
        Ok(slot)
    }

    /// What the wrapped key is bound to. The rest of the slot is covered by the seal over the whole file.
    fn context(&self, vault: &[u8]) -> Vec<u8> {
        context(&[b"zo-vault 1 slot", vault, &self.id.to_le_bytes(), self.kind.name().as_bytes()])
    }

    /// The vault key, if `kek` is the right key.
    fn unwrap(&self, vault: &[u8], kek: &Key) -> Option<Key> {
        let sealed = base64_decode(&self.key).filter(|s| s.len() == 32 + OVERHEAD)?;
        Key::from_slice(&kek.open(&self.context(vault), &sealed)?)
    }
}

impl SlotKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Key => "key",
            Self::Keyring => "keyring",
        }
    }
}

impl Argon {
    fn key(&self, passphrase: &Secret) -> Result<Key> {
        const OP: &str = "vault.unlock";
        let damaged =
            |e: &dyn fmt::Display| Error::new(ErrorKind::Corrupt, OP, format_args!("Argon2id refuses: {e}"));
        let Self { memory, passes, lanes, ref salt } = *self;
        Cost { memory, passes, lanes }.check(OP)?;
        let salt = base64_decode(salt)
            .filter(|salt| salt.len() == 16)
            .ok_or_else(|| damaged(&"the salt in the file is not 16 bytes"))?;
        let params = Params::new(memory, passes, lanes, Some(32)).map_err(|e| damaged(&e))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), &salt, &mut *key)
            .map_err(|e| damaged(&e))?;
        Ok(Key::new(key))
    }
}

/// The slot that `unlock` opens, by its place, and the vault key.
pub(super) fn unlock(slots: &[Slot], vault: &[u8], unlock: &Unlock) -> Result<(u32, Key)> {
    const OP: &str = "vault.open";
    let none = |kind: &str| {
        Error::new(ErrorKind::Unauthorized, OP, format_args!("the vault cannot be opened by a {kind}"))
    };
    let wrong = |what: &str| {
        Error::new(
            ErrorKind::Unauthorized,
            OP,
            format_args!("{what} does not open the vault: it is wrong, or the file is damaged"),
        )
    };
    let of = |kind: SlotKind| slots.iter().filter(move |slot| slot.kind == kind);
    let by_key = |kek: Key, kind: SlotKind, what: &str| {
        let mut slots = of(kind).peekable();
        if slots.peek().is_none() {
            return Err(none(kind.name()));
        }
        slots.find_map(|slot| Some((slot.id, slot.unwrap(vault, &kek)?))).ok_or_else(|| wrong(what))
    };
    match unlock {
        Unlock::Passphrase(passphrase) => {
            let mut slots = of(SlotKind::Passphrase).peekable();
            if slots.peek().is_none() {
                return Err(none("passphrase"));
            }
            for slot in slots {
                let argon = slot.argon2id.as_ref().ok_or_else(|| {
                    Error::new(ErrorKind::Corrupt, OP, "a passphrase is without its Argon2id parameters")
                })?;
                if let Some(key) = slot.unwrap(vault, &argon.key(passphrase)?) {
                    return Ok((slot.id, key));
                }
            }
            Err(wrong("the passphrase"))
        }
        Unlock::Key(key) => by_key(parse_key(key)?, SlotKind::Key, "the key"),
        #[cfg(feature = "vault-keyring")]
        Unlock::Keyring { service, account } => by_key(
            parse_key(&super::keyring::key(service, account, false)?)?,
            SlotKind::Keyring,
            "the key in the keyring",
        ),
    }
}

/// 32 bytes from 64 hexadecimal digits or from base64 of either alphabet.
fn parse_key(text: &Secret) -> Result<Key> {
    let bad = || {
        let what = "a key is 32 bytes: 64 hexadecimal digits, or base64";
        Error::new(ErrorKind::Invalid, "vault.unlock", what)
    };
    let text = text.expose();
    if text.len() == 64 {
        let mut key = Zeroizing::new([0u8; 32]);
        for (byte, two) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            for digit in two {
                let digit =
                    char::from(*digit).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or_else(bad)?;
                *byte = *byte << 4 | digit;
            }
        }
        return Ok(Key::new(key));
    }
    base64_decode(text).and_then(|bytes| Key::from_slice(&bytes)).ok_or_else(bad)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hex_or_base64() {
        let bytes: Vec<u8> = (0..32).map(|n| n * 7).collect();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        for text in
            [hex.clone(), hex.to_uppercase(), base64_encode(&bytes), base64_encode(&bytes).replace('=', "")]
        {
            assert_eq!(parse_key(&Secret::new(text)).unwrap().bytes().as_slice(), bytes);
        }
        for bad in ["", "abc", &hex[..62], &"g".repeat(64), &base64_encode(&bytes[..31])] {
            let e = parse_key(&Secret::new(bad)).err().unwrap();
            assert!(
                e.kind() == ErrorKind::Invalid && (bad.is_empty() || !e.to_string().contains(bad)),
                "{e}"
            );
        }
        let random = Unlock::random_key().unwrap();
        assert!(parse_key(&random).is_ok() && random != Unlock::random_key().unwrap());
    }

    #[test]
    fn costs_have_a_floor_and_a_ceiling() {
        assert_eq!(Cost::default(), Cost::new(64 << 10, 3, 1).unwrap());
        for (memory, passes, lanes, good) in [
            (19 << 10, 2, 1, true),
            (19 << 10, 1, 1, false),
            (46 << 10, 1, 1, true),
            (8, 1, 1, false),
            (512 << 10, 4, 4, true),
            (512 << 10, 5, 1, false),
            (u32::MAX, 1, 1, false),
            (64 << 10, u32::MAX, 1, false),
            (64 << 10, 3, u32::MAX, false),
            (64 << 10, 3, 0, false),
            (64 << 10, 0, 1, false),
        ] {
            assert_eq!(Cost::new(memory, passes, lanes).is_ok(), good, "{memory} {passes} {lanes}");
        }
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let all = [Unlock::Passphrase("hunter2".into()), Unlock::Key("hunter2".into())];
        assert_eq!(format!("{all:?}"), "[passphrase, key]");
    }
}
