//! The key vault: the users' keys, encrypted at rest, and given out only to what puts them on the wire.
//!
//! | what | where |
//! |---|---|
//! | keep and find keys | [`Vault`] |
//! | what opens it: passphrase, key, the system's keyring | [`Unlock`] |
//! | a skill names a key, only the HTTP layer sees it | [`Injector`], [`VaultHttp`] |
//! | keys kept out of prompts, logs and children | [`Leaks`], [`clean_env`](crate::clean_env) |
//!
//! # Example
//! ```
//! use zo_providers::{KeyName, Scope, Secret, Unlock, Vault};
//! # let dir = std::env::temp_dir().join(format!("zo-vault-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir).unwrap();
//! # let path = dir.join("keys.vault");
//! // With `Unlock::Passphrase` do this in `spawn_blocking`: it takes 100 to 200 ms of CPU.
//! let unlock = Unlock::Key(Unlock::random_key()?);
//! let vault = Vault::create(&path, &unlock)?;
//! let github = KeyName::new("alice", "github");
//! vault.put(&github, &Secret::new("ghp_0123456789abcdef"), &Scope::hosts(["api.github.com"]))?;
//! assert_eq!(Vault::open(&path, &unlock)?.get(&github)?.expose(), "ghp_0123456789abcdef");
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok::<(), zo_traits::Error>(())
//! ```
//!
//! # What it promises
//! * On disk there is nothing readable but how the vault is unlocked (kinds, times, Argon2id parameters) and how often it was
//!   written. Names of users and providers are encrypted, too.
//! * A bit that flipped, a file that was cut, an entry that was removed, doubled, reordered, or moved to another user or
//!   provider, a way to unlock that was added or revived: the file is refused ([`ErrorKind::Corrupt`], or
//!   [`Unauthorized`](ErrorKind::Unauthorized) where that looks like a wrong passphrase). A wrong value is never given out.
//! * A write is on disk when it returns. `kill -9` or a power cut at any moment leaves the old file or the new one.
//! * Any number of processes may use a file at the same time: writers wait for each other and lose no update, readers see what
//!   others wrote with their next call.
//! * No key is in an error, in `Debug` output, or in a log. Values are decrypted one at a time, when they are asked for, and
//!   zeroed when they are dropped.
//!
//! # What it cannot do
//! * **Rollback.** Whoever can write the file can put back an older copy of the whole of it. A process that has seen a newer
//!   one refuses it; a process that starts afresh cannot tell. A host that keeps [`Vault::generation`] elsewhere can.
//! * Whoever kept a copy of the file and a passphrase of that time can read that copy for ever. Removing a way to unlock is
//!   for the future, and only [`Vault::rekey`] makes it good against copies; the keys themselves must be exchanged at their
//!   providers.
//! * Whoever can read this process's memory, or runs as the same user with a debugger, can read the vault key.
//!   [`forbid_core_dumps`] closes one of these doors.
//! * File modes are checked on Unix. Elsewhere the folder's own protection has to do.
//! * Locks hold where the file system has them; most network file systems do.

mod disk;
mod dump;
mod format;
mod http;
mod inject;
#[cfg(feature = "vault-keyring")]
mod keyring;
mod name;
mod seal;
mod unlock;

pub use dump::forbid_core_dumps;
pub use http::{HttpRequest, HttpResponse, VaultHttp};
pub use inject::Injector;
pub use name::{KeyName, Scope};
pub use unlock::{Cost, Unlock};

use crate::{
    Leaks, Secret,
    leak::{base64_decode, base64_encode},
};
use disk::{Lock, Seen};
use format::{Entry, File, Head, Index, MAX_SLOTS, Which};
use seal::{Key, random};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};
use unlock::Slot;
use zo_traits::{Error, ErrorKind, Result, Timestamp};

/// Longest key that a vault keeps, in bytes.
const MAX_VALUE: usize = 64 << 10;

/// An encrypted file of keys, opened. Cheap to clone; clones share what they have read. See the [module](self) for what it
/// promises.
///
/// All calls are synchronous. [`get`](Vault::get) costs some microseconds, a write as much as the disk takes to sync twice.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
    cost: Cost,
}

struct Inner {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    key: Key,
    head: Head,
    index: Index,
    /// SHA-256 of the file: two of one generation are the same or of two branches.
    digest: [u8; 32],
    seen: Seen,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

/// A key in a vault, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Whose it is and for what.
    pub key: KeyName,
    /// When it was put.
    pub created: Timestamp,
    /// When its value was set last.
    pub changed: Timestamp,
    /// Where it may be sent.
    pub scope: Scope,
    /// Tells values apart without showing any part of them: 16 hexadecimal digits of an HMAC-SHA-256 under a key of this
    /// vault. It changes with [`Vault::rekey`].
    pub fingerprint: String,
    /// Is the value before the last rotation still there?
    pub has_old: bool,
}

/// A way to unlock a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnlockInfo {
    /// What [`Vault::remove_unlock`] takes.
    pub id: u32,
    /// `passphrase`, `key` or `keyring`.
    pub kind: &'static str,
    /// When it was added.
    pub created: Timestamp,
}

/// What became of a variable that [`Vault::import_env`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// The provider.
    pub provider: String,
    /// The environment variable.
    pub variable: String,
    /// What was done.
    pub outcome: ImportOutcome,
}

/// What was done with a key from the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportOutcome {
    /// It is in the vault now.
    Added,
    /// It was there.
    Same,
    /// Another key of that name is in the vault and was left alone; [`Vault::rotate`] would replace it.
    Different,
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Vault {
    /// Makes a new vault at `path`, with mode 600, that `unlock` opens. The folder must exist. Beside it a lock file stays
    /// (`path` with `.lock` behind it).
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if there is a file already, [`Invalid`](ErrorKind::Invalid) for an empty passphrase or what is
    /// no key, and what the disk reports.
    pub fn create(path: impl Into<PathBuf>, unlock: &Unlock) -> Result<Self> {
        Self::create_with(path, unlock, Cost::default())
    }

    /// As [`create`](Vault::create), with another price of the passphrase.
    ///
    /// # Errors
    /// As [`create`](Vault::create).
    pub fn create_with(path: impl Into<PathBuf>, unlock: &Unlock, cost: Cost) -> Result<Self> {
        let path = path.into();
        let (mut id, key) = ([0; 16], Key::random()?);
        random(&mut id)?;
        let slot = Slot::new(1, &id, &key, unlock, cost, now())?;
        let head = Head { vault: base64_encode(&id), generation: 1, unlock: vec![slot] };
        let index = Index::new();
        let bytes = format::write(&head, &key, &index)?;
        let lock = Lock::take(&path)?;
        if path.symlink_metadata().is_ok() {
            let what = format_args!("{} exists already", path.display()).to_string();
            return Err(Error::new(ErrorKind::Conflict, "vault.create", what));
        }
        let seen = disk::replace(&path, &bytes, &lock)?;
        let state = Mutex::new(State { key, head, index, digest: digest(&bytes), seen });
        Ok(Self { inner: Arc::new(Inner { path, state }), cost })
    }

    /// Opens the vault at `path`. With a passphrase this takes 100 to 200 ms of CPU for each passphrase that the vault has:
    /// from async code call it in `spawn_blocking`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`Unauthorized`](ErrorKind::Unauthorized) for a wrong passphrase or key;
    /// [`Denied`](ErrorKind::Denied) for a file that others may read, or a symbolic link;
    /// [`Corrupt`](ErrorKind::Corrupt) for a damaged file; [`Unsupported`](ErrorKind::Unsupported) for one of a later version;
    /// [`Invalid`](ErrorKind::Invalid) for one whose Argon2id parameters are out of bounds; and what the disk reports.
    pub fn open(path: impl Into<PathBuf>, unlock: &Unlock) -> Result<Self> {
        let path = path.into();
        let (bytes, seen) = disk::read(&path)?;
        let (head, key, index) = decode(&bytes, unlock)?;
        let state = Mutex::new(State { key, head, index, digest: digest(&bytes), seen });
        Ok(Self { inner: Arc::new(Inner { path, state }), cost: Cost::default() })
    }

    /// Looks whether `bytes`, say of a backup, are a whole vault that `unlock` opens with all values in it, and lists them.
    ///
    /// # Errors
    /// As [`open`](Vault::open).
    pub fn verify(bytes: &[u8], unlock: &Unlock) -> Result<Vec<KeyInfo>> {
        let (head, key, index) = decode(bytes, unlock)?;
        for (name, entry) in &index {
            entry.open(&head.vault, &key, name, Which::Old)?;
        }
        list(&head, &key, &index, None)
    }

    /// The same vault; passphrases that are added through it have this price.
    #[must_use]
    pub fn with_cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// How often the vault was written. It only grows: a host that remembers it elsewhere can tell that an old copy was put in
    /// place.
    ///
    /// # Errors
    /// As [`get`](Vault::get).
    pub fn generation(&self) -> Result<u64> {
        Ok(self.fresh()?.head.generation)
    }

    /// Keeps `value` under `key`, in place of what was there, its old value included.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a value that is empty or longer than 64 KiB, and for names and hosts that are none; else as
    /// [`get`](Vault::get), and what the disk reports.
    pub fn put(&self, key: &KeyName, value: &Secret, scope: &Scope) -> Result<()> {
        check_value(key, value)?;
        key.check()?;
        scope.check()?;
        self.update(|state, index| {
            let entry = Entry::new(&state.head.vault, &state.key, key, value, scope.clone(), now())?;
            index.insert(key.clone(), entry);
            Ok(((), true))
        })
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; as [`open`](Vault::open) if the file was changed by somebody else and cannot be read;
    /// [`Conflict`](ErrorKind::Conflict) if it was given a new vault key, was replaced by another vault, or by an older copy
    /// of this one: open it again.
    pub fn get(&self, key: &KeyName) -> Result<Secret> {
        self.value(key, Which::Current)?.ok_or_else(|| missing(key))
    }

    /// The value of `key` before its last rotation, if it was not retired.
    ///
    /// # Errors
    /// As [`get`](Vault::get).
    pub fn get_old(&self, key: &KeyName) -> Result<Option<Secret>> {
        self.value(key, Which::Old)
    }

    fn value(&self, key: &KeyName, which: Which) -> Result<Option<Secret>> {
        let state = self.fresh()?;
        let entry = state.index.get(key).ok_or_else(|| missing(key))?;
        entry.open(&state.head.vault, &state.key, key, which)
    }

    /// Where `key` may be sent, and its value.
    fn scoped(&self, key: &KeyName) -> Result<(Scope, Secret)> {
        let state = self.fresh()?;
        let entry = state.index.get(key).ok_or_else(|| missing(key))?;
        let value = entry.open(&state.head.vault, &state.key, key, Which::Current)?;
        Ok((entry.scope.clone(), value.ok_or_else(|| missing(key))?))
    }

    /// Forgets `key`. Was it there?
    ///
    /// # Errors
    /// As [`put`](Vault::put).
    pub fn remove(&self, key: &KeyName) -> Result<bool> {
        self.update(|_, index| {
            let was = index.remove(key).is_some();
            Ok((was, was))
        })
    }

    /// The keys of `user`, or of all users, in order. No value is shown, nor any part of one.
    ///
    /// # Errors
    /// As [`get`](Vault::get).
    pub fn list(&self, user: Option<&str>) -> Result<Vec<KeyInfo>> {
        let state = self.fresh()?;
        list(&state.head, &state.key, &state.index, user)
    }

    /// Gives `key` a new value. The one before stays as its [old value](Vault::get_old) until it is [retired](Vault::retire) or
    /// the key is rotated again: calls under way may still need it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], else as [`put`](Vault::put).
    pub fn rotate(&self, key: &KeyName, value: &Secret) -> Result<()> {
        check_value(key, value)?;
        self.update(|state, index| {
            let entry = index.get_mut(key).ok_or_else(|| missing(key))?;
            entry.rotate(&state.head.vault, &state.key, key, value, now())?;
            Ok(((), true))
        })
    }

    /// Forgets the old value of `key`. Was there one?
    ///
    /// # Errors
    /// As [`rotate`](Vault::rotate).
    pub fn retire(&self, key: &KeyName) -> Result<bool> {
        self.update(|_, index| {
            let was = index.get_mut(key).ok_or_else(|| missing(key))?.retire();
            Ok((was, was))
        })
    }

    /// Changes where `key` may be sent.
    ///
    /// # Errors
    /// As [`rotate`](Vault::rotate).
    pub fn set_scope(&self, key: &KeyName, scope: &Scope) -> Result<()> {
        scope.check()?;
        self.update(|_, index| {
            index.get_mut(key).ok_or_else(|| missing(key))?.scope = scope.clone();
            Ok(((), true))
        })
    }

    /// Takes over the keys that `lookup` (say, the environment) has under the given variables, each for the provider beside it,
    /// and tells which. Keys that are in the vault stay as they are. All or none are taken.
    ///
    /// ```
    /// # use zo_providers::{Unlock, Vault, DIALECTS};
    /// # fn demo(vault: &Vault) -> zo_traits::Result<()> {
    /// let known = DIALECTS.iter().map(|d| (d.id.as_str(), d.key_env.as_str()));
    /// for found in vault.import_env("alice", known, |name| std::env::var(name).ok())? {
    ///     println!("{}: {:?}", found.variable, found.outcome);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Vault::put).
    pub fn import_env<'a>(
        &self,
        user: &str,
        known: impl IntoIterator<Item = (&'a str, &'a str)>,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Imported>> {
        let mut found = Vec::new();
        for (provider, variable) in known {
            // A server on this machine has no variable.
            let value = (!variable.is_empty()).then(|| lookup(variable)).flatten().map(Secret::new);
            let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
            let key = KeyName::new(user, provider);
            key.check()?;
            check_value(&key, &value)?;
            found.push((key, variable, value));
        }
        if found.is_empty() {
            return Ok(Vec::new());
        }
        self.update(|state, index| {
            let (mut out, mut any) = (Vec::new(), false);
            for (key, variable, value) in &found {
                let (vault, own) = (&state.head.vault, &state.key);
                let outcome = match index.get(key) {
                    Some(entry) if entry.open(vault, own, key, Which::Current)?.as_ref() == Some(value) => {
                        ImportOutcome::Same
                    }
                    Some(_) => ImportOutcome::Different,
                    None => {
                        any = true;
                        index.insert(
                            key.clone(),
                            Entry::new(vault, own, key, value, Scope::default(), now())?,
                        );
                        ImportOutcome::Added
                    }
                };
                out.push(Imported { provider: key.provider().into(), variable: (*variable).into(), outcome });
            }
            Ok((out, any))
        })
    }

    /// Tells `leaks` all keys of `user`, or of all users, old values included, and returns those that are too short to be looked
    /// for.
    ///
    /// # Errors
    /// As [`get`](Vault::get).
    pub fn watch(&self, leaks: &Leaks, user: Option<&str>) -> Result<Vec<KeyName>> {
        let state = self.fresh()?;
        let mut short = Vec::new();
        for (key, entry) in state.index.iter().filter(|(key, _)| user.is_none_or(|user| user == key.user())) {
            for which in [Which::Current, Which::Old] {
                let Some(value) = entry.open(&state.head.vault, &state.key, key, which)? else { continue };
                if leaks.add(&key.short(), &value).is_err() && which == Which::Current {
                    short.push(key.clone());
                }
            }
        }
        Ok(short)
    }

    /// The ways to unlock this vault.
    ///
    /// # Errors
    /// As [`get`](Vault::get).
    pub fn unlocks(&self) -> Result<Vec<UnlockInfo>> {
        let state = self.fresh()?;
        let info = |slot: &Slot| UnlockInfo {
            id: slot.id,
            kind: slot.kind.name(),
            created: Timestamp(slot.created),
        };
        Ok(state.head.unlock.iter().map(info).collect())
    }

    /// Adds a way to unlock this vault and returns its id. A passphrase takes 100 to 200 ms of CPU.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what is no key or passphrase, and when there are 16 already; else as [`put`](Vault::put).
    pub fn add_unlock(&self, unlock: &Unlock) -> Result<u32> {
        self.update_head(|state, slots| {
            if slots.len() >= MAX_SLOTS {
                let what = format_args!("a vault has at most {MAX_SLOTS} ways to unlock it").to_string();
                return Err(Error::new(ErrorKind::Invalid, "vault.add_unlock", what));
            }
            let id = next_id(slots);
            slots.push(Slot::new(id, &state.id()?, &state.key, unlock, self.cost, now())?);
            Ok(id)
        })
    }

    /// Removes a way to unlock this vault. It is of no use for copies of the file made later; see [`rekey`](Vault::rekey) for
    /// copies made before.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`Denied`](ErrorKind::Denied) for the last one; else as [`put`](Vault::put).
    pub fn remove_unlock(&self, id: u32) -> Result<()> {
        const OP: &str = "vault.remove_unlock";
        self.update_head(|_, slots| {
            let Some(at) = slots.iter().position(|slot| slot.id == id) else {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    OP,
                    format_args!("no way to unlock with id {id}"),
                ));
            };
            if slots.len() == 1 {
                return Err(Error::new(ErrorKind::Denied, OP, "it is the last way to unlock this vault"));
            }
            slots.remove(at);
            Ok(())
        })
    }

    /// Replaces the passphrase `old` by `new`.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`] if `old` is wrong; else as [`put`](Vault::put).
    pub fn change_passphrase(&self, old: &Secret, new: &Secret) -> Result<()> {
        self.update_head(|state, slots| {
            let vault = state.id()?;
            let (id, _) = unlock::unlock(slots, &vault, &Unlock::Passphrase(old.clone()))?;
            let new = Unlock::Passphrase(new.clone());
            let slot = Slot::new(next_id(slots), &vault, &state.key, &new, self.cost, now())?;
            slots.retain(|slot| slot.id != id);
            slots.push(slot);
            Ok(())
        })
    }

    /// Gives the vault a new key, encrypts everything anew, and lets it be unlocked by `unlocks` and nothing else. This is what
    /// to do after a passphrase or the vault key may have been seen; a copy of the file as it is now stays as readable as it
    /// is.
    ///
    /// Other processes that have the vault open are told to open it again ([`ErrorKind::Conflict`]).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if `unlocks` is empty or has more than 16 entries; else as [`put`](Vault::put).
    pub fn rekey(&self, unlocks: &[Unlock]) -> Result<()> {
        if unlocks.is_empty() || unlocks.len() > MAX_SLOTS {
            let what = format_args!("a vault has between one and {MAX_SLOTS} ways to unlock it").to_string();
            return Err(Error::new(ErrorKind::Invalid, "vault.rekey", what));
        }
        let lock = Lock::take(&self.inner.path)?;
        let mut state = self.fresh()?;
        let (vault, key) = (state.id()?, Key::random()?);
        let first = next_id(&state.head.unlock);
        let slots =
            (first..).zip(unlocks).map(|(id, unlock)| Slot::new(id, &vault, &key, unlock, self.cost, now()));
        let mut head = state.head.clone();
        head.unlock = slots.collect::<Result<_>>()?;
        let entries = state.index.iter();
        let index = entries
            .map(|(name, entry)| Ok((name.clone(), entry.under(&head.vault, &state.key, &key, name)?)))
            .collect::<Result<Index>>()?;
        state.save(&self.inner.path, head, Some(key), index, &lock)
    }

    /// What is known, brought up to date with the file.
    fn fresh(&self) -> Result<MutexGuard<'_, State>> {
        // Nothing is left half done when a thread panics: a state is replaced as a whole.
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.seen.is_current(&self.inner.path) {
            state.reload(&self.inner.path)?;
        }
        Ok(state)
    }

    /// Changes the index, in one write, on top of what all others wrote. `change` says whether it changed anything.
    fn update<T>(&self, change: impl FnOnce(&State, &mut Index) -> Result<(T, bool)>) -> Result<T> {
        let lock = Lock::take(&self.inner.path)?;
        let mut state = self.fresh()?;
        let mut index = state.index.clone();
        let (out, changed) = change(&state, &mut index)?;
        if changed {
            let head = state.head.clone();
            state.save(&self.inner.path, head, None, index, &lock)?;
        }
        Ok(out)
    }

    fn update_head<T>(&self, change: impl FnOnce(&State, &mut Vec<Slot>) -> Result<T>) -> Result<T> {
        let lock = Lock::take(&self.inner.path)?;
        let mut state = self.fresh()?;
        let (mut head, index) = (state.head.clone(), state.index.clone());
        let out = change(&state, &mut head.unlock)?;
        state.save(&self.inner.path, head, None, index, &lock)?;
        Ok(out)
    }
}

impl State {
    fn id(&self) -> Result<[u8; 16]> {
        vault_id(&self.head)
    }

    fn reload(&mut self, path: &Path) -> Result<()> {
        let conflict = |why: &str| {
            Error::new(
                ErrorKind::Conflict,
                "vault.reload",
                format_args!("{}: {why}; open it again", path.display()),
            )
        };
        let (bytes, seen) = disk::read(path)?;
        let file = File::parse(&bytes)?;
        if file.head.vault != self.head.vault {
            return Err(conflict("another vault was put in its place"));
        }
        let Some(index) = file.index(&self.key)? else {
            return Err(conflict("it was given a new key, or is damaged"));
        };
        if file.head.generation < self.head.generation {
            return Err(conflict("an older copy of it was put in its place"));
        }
        let digest = digest(&bytes);
        if file.head.generation == self.head.generation && digest != self.digest {
            return Err(conflict("an older copy of it was put in its place and written to"));
        }
        (self.head, self.index, self.digest, self.seen) = (file.head, index, digest, seen);
        Ok(())
    }

    /// Writes the next generation, and takes it for what is known once it is on disk.
    fn save(
        &mut self,
        path: &Path,
        mut head: Head,
        key: Option<Key>,
        index: Index,
        lock: &Lock,
    ) -> Result<()> {
        head.generation = head.generation.checked_add(1).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                "vault.save",
                "the vault was written more often than can be counted",
            )
        })?;
        let bytes = format::write(&head, key.as_ref().unwrap_or(&self.key), &index)?;
        self.seen = disk::replace(path, &bytes, lock)?;
        (self.head, self.index, self.digest) = (head, index, digest(&bytes));
        if let Some(key) = key {
            self.key = key;
        }
        Ok(())
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    hmac_sha256::Hash::hash(bytes)
}

fn vault_id(head: &Head) -> Result<[u8; 16]> {
    base64_decode(&head.vault).and_then(|id| id.as_slice().try_into().ok()).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "vault.open", "the vault file is damaged: its id is not 16 bytes")
    })
}

fn decode(bytes: &[u8], unlock: &Unlock) -> Result<(Head, Key, Index)> {
    let file = File::parse(bytes)?;
    let (_, key) = unlock::unlock(&file.head.unlock, &vault_id(&file.head)?, unlock)?;
    let index = file.index(&key)?.ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            "vault.open",
            "the vault file was changed or is damaged: its seal is broken",
        )
    })?;
    Ok((file.head, key, index))
}

fn list(head: &Head, key: &Key, index: &Index, user: Option<&str>) -> Result<Vec<KeyInfo>> {
    let print = hmac_sha256::HMAC::mac(b"zo-vault 1 fingerprint", key.bytes());
    index
        .iter()
        .filter(|(name, _)| user.is_none_or(|user| user == name.user()))
        .map(|(name, entry)| {
            let value = entry.open(&head.vault, key, name, Which::Current)?.ok_or_else(|| missing(name))?;
            let mac = hmac_sha256::HMAC::mac(value.expose(), print);
            Ok(KeyInfo {
                key: name.clone(),
                created: Timestamp(entry.created),
                changed: Timestamp(entry.changed),
                scope: entry.scope.clone(),
                fingerprint: mac.iter().take(8).map(|b| format!("{b:02x}")).collect(),
                has_old: entry.has_old(),
            })
        })
        .collect()
}

/// Never one that was used before and is still there; one that is gone may come back.
fn next_id(slots: &[Slot]) -> u32 {
    slots.iter().map(|slot| slot.id).max().unwrap_or(0).wrapping_add(1)
}

fn missing(key: &KeyName) -> Error {
    Error::new(ErrorKind::NotFound, "vault.get", format_args!("the vault has no key {key}"))
        .with_model_text("no such secret")
}

fn check_value(key: &KeyName, value: &Secret) -> Result<()> {
    let why = match value.expose().len() {
        0 => "is empty",
        n if n > MAX_VALUE => "is longer than 64 KiB",
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Invalid, "vault.put", format_args!("the value of {key} {why}")))
}
