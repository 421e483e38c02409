//! The vault from outside: what damages, swaps, kills, races and onlookers may do to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "vault/disk.rs"]
mod disk;
#[path = "vault/http.rs"]
mod http;
#[path = "vault/keep.rs"]
mod keep;
#[path = "vault/memory.rs"]
mod memory;
#[path = "vault/races.rs"]
mod races;

use std::path::PathBuf;
use zo_providers::{Cost, Secret, Unlock, Vault};

/// A folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("zo-vault-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("keys.vault")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn key() -> Unlock {
    Unlock::Key(Secret::new(KEY))
}

fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(Secret::new(text))
}

/// A vault that opens by [`key`], with passphrases that cost nothing.
fn vault(folder: &Folder) -> Vault {
    Vault::create_with(folder.file(), &key(), Cost::worthless()).unwrap()
}
