//! Damage, and what else may stand where the file should.

use super::{Folder, key, passphrase, vault};
use std::fs;
use zo_providers::{KeyInfo, KeyName, Scope, Secret, Unlock, Vault};
use zo_traits::ErrorKind;

fn sample(folder: &Folder) -> (Vec<u8>, Vec<KeyInfo>) {
    let vault = vault(folder);
    vault.add_unlock(&passphrase("correct horse")).unwrap();
    for (user, value) in [("alice", "sk-canary-alice"), ("bob", "sk-canary-bob")] {
        vault
            .put(&KeyName::new(user, "openai"), &Secret::new(value), &Scope::hosts(["api.openai.com"]))
            .unwrap();
    }
    vault.rotate(&KeyName::new("bob", "openai"), &Secret::new("sk-canary-bob-2")).unwrap();
    (fs::read(folder.file()).unwrap(), vault.list(None).unwrap())
}

/// An error with a kind and a text of its own, and nothing of a key in it.
fn refused(bytes: &[u8], unlock: &Unlock, what: &str) {
    match Vault::verify(bytes, unlock) {
        Ok(_) => panic!("{what}: accepted"),
        Err(e) => {
            let kinds =
                [ErrorKind::Corrupt, ErrorKind::Unauthorized, ErrorKind::Unsupported, ErrorKind::Invalid];
            assert!(kinds.contains(&e.kind()), "{what}: {e}");
            assert!(!format!("{e} {e:?} {}", e.model_text()).contains("canary"), "{what}: {e}");
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let folder = Folder::new("flip");
    let (bytes, list) = sample(&folder);
    for unlock in [key(), passphrase("correct horse")] {
        assert_eq!(Vault::verify(&bytes, &unlock).unwrap(), list);
        let mut bad = bytes.clone();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bad[at] ^= 1 << bit;
                refused(&bad, &unlock, &format!("bit {bit} of byte {at}"));
                bad[at] = bytes[at];
            }
        }
        println!("{} bits flipped, none accepted, by {unlock:?}", bytes.len() * 8);
    }
    // Through the disk as well, now and then.
    let vault = Vault::open(folder.file(), &key()).unwrap();
    for at in (0..bytes.len()).step_by(97) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        fs::write(folder.file(), &bad).unwrap();
        assert!(Vault::open(folder.file(), &key()).is_err());
        assert!(
            vault.get(&KeyName::new("alice", "openai")).is_err(),
            "a handle that is open goes on with it"
        );
        assert!(vault.put(&KeyName::new("alice", "openai"), &"x".into(), &Scope::default()).is_err());
        assert_eq!(fs::read(folder.file()).unwrap(), bad, "damage is not written over");
    }
    fs::write(folder.file(), &bytes).unwrap();
    assert_eq!(vault.get(&KeyName::new("alice", "openai")).unwrap().expose(), "sk-canary-alice");
}

#[test]
fn every_cut_and_every_addition_is_noticed() {
    let folder = Folder::new("cut");
    let (bytes, _) = sample(&folder);
    for at in 0..bytes.len() {
        refused(&bytes[..at], &key(), &format!("cut at {at}"));
        refused(&bytes[at + 1..], &key(), &format!("the first {} gone", at + 1));
        let without = [&bytes[..at], &bytes[at + 1..]].concat();
        refused(&without, &key(), &format!("without byte {at}"));
        for add in [b' ', b'\n', b'A', b'=', bytes[at]] {
            let with = [&bytes[..at], &[add], &bytes[at..]].concat();
            if with != bytes {
                refused(&with, &key(), &format!("{add} put in at {at}"));
            }
        }
    }
    for tail in ["\n", "A", "\r\n", "\0"] {
        refused(&[&bytes, tail.as_bytes()].concat(), &key(), "something behind it");
    }
    refused(&bytes.repeat(2), &key(), "twice");
}

#[test]
fn costs_without_bounds_are_refused_before_they_are_paid() {
    let folder = Folder::new("cost");
    let (bytes, _) = sample(&folder);
    let text = String::from_utf8(bytes).unwrap();
    let good = r#""memory":8,"passes":1,"lanes":1"#;
    assert!(text.contains(good));
    let began = std::time::Instant::now();
    for bad in [
        r#""memory":4294967295,"passes":1,"lanes":1"#,
        r#""memory":524289,"passes":1,"lanes":1"#,
        r#""memory":524288,"passes":16,"lanes":1"#,
        r#""memory":8,"passes":4294967295,"lanes":1"#,
        r#""memory":8,"passes":1,"lanes":16777215"#,
        r#""memory":0,"passes":0,"lanes":0"#,
    ] {
        let e = Vault::verify(text.replace(good, bad).as_bytes(), &passphrase("x")).unwrap_err();
        assert!(e.kind() == ErrorKind::Invalid && e.message().contains("out of bounds"), "{e}");
    }
    assert!(began.elapsed().as_millis() < 1_000, "{:?}", began.elapsed());
    let newer = text.replacen("zo-vault 1", "zo-vault 2", 1);
    let e = Vault::verify(newer.as_bytes(), &key()).unwrap_err();
    assert!(e.kind() == ErrorKind::Unsupported && e.message().contains("version 2"), "{e}");
    let slots = text.replacen(
        r#""unlock":["#,
        &format!(r#""unlock":[{}"#, r#"{"id":1,"kind":"key","created":1,"key":""},"#.repeat(1000)),
        1,
    );
    assert_eq!(Vault::verify(slots.as_bytes(), &key()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn the_passphrase_is_derived_as_another_implementation_does_it() {
    // Made with libsodium: crypto_pwhash (Argon2id, opslimit 3, memlimit 64 KiB) and
    // crypto_aead_xchacha20poly1305_ietf_encrypt, through PyNaCl 1.6.2.
    let bytes = include_bytes!("sodium.vault");
    let folder = Folder::new("sodium");
    let list = Vault::verify(bytes, &passphrase("correct horse")).unwrap();
    assert_eq!(list.iter().map(|info| info.key.to_string()).collect::<Vec<_>>(), ["alice: github/work"]);
    private(&folder, bytes);
    let vault = Vault::open(folder.file(), &passphrase("correct horse")).unwrap();
    assert_eq!(
        vault.get(&KeyName::new("alice", "github").named("work")).unwrap().expose(),
        "ghp_from_libsodium"
    );
    assert!(Vault::verify(bytes, &passphrase("correct horsf")).is_err());
}

/// Writes `bytes` as the vault of `folder`, for its owner alone.
fn private(folder: &Folder, bytes: &[u8]) {
    fs::write(folder.file(), bytes).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn an_older_copy_is_refused_by_who_has_seen_a_newer_one() {
    let folder = Folder::new("rollback");
    let (old, _) = sample(&folder);
    let vault = Vault::open(folder.file(), &key()).unwrap();
    let name = KeyName::new("alice", "openai");
    vault.rotate(&name, &Secret::new("sk-newer")).unwrap();
    let generation = vault.generation().unwrap();
    fs::write(folder.file(), &old).unwrap();
    for e in [vault.get(&name).unwrap_err(), vault.remove(&name).unwrap_err()] {
        assert!(e.kind() == ErrorKind::Conflict && e.message().contains("older copy"), "{e}");
    }
    // Who starts afresh can tell by the generation alone.
    assert!(Vault::open(folder.file(), &key()).unwrap().generation().unwrap() < generation);

    fs::remove_file(folder.file()).unwrap();
    assert_eq!(vault.get(&name).unwrap_err().kind(), ErrorKind::NotFound);
    super::vault(&folder);
    let e = vault.get(&name).unwrap_err();
    assert!(e.kind() == ErrorKind::Conflict && e.message().contains("another vault"), "{e}");
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn mode(path: &std::path::Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_file_is_its_owners_alone() {
        let folder = Folder::new("mode");
        sample(&folder);
        assert_eq!(mode(&folder.file()), 0o600);
        assert_eq!(mode(&folder.0.join("keys.vault.lock")), 0o600);
        for bad in [0o640, 0o604, 0o660, 0o602, 0o777, 0o610] {
            fs::set_permissions(folder.file(), fs::Permissions::from_mode(bad)).unwrap();
            let e = Vault::open(folder.file(), &key()).unwrap_err();
            assert!(e.kind() == ErrorKind::Denied && e.message().contains("chmod 600"), "{e}");
        }
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o400)).unwrap();
        let vault = Vault::open(folder.file(), &key()).unwrap();
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o644)).unwrap();
        let name = KeyName::new("alice", "openai");
        assert_eq!(vault.get(&name).unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(vault.put(&name, &"x".into(), &Scope::default()).unwrap_err().kind(), ErrorKind::Denied);
    }

    #[test]
    fn links_are_not_followed() {
        let folder = Folder::new("link");
        sample(&folder);
        let link = folder.0.join("link");
        symlink(folder.file(), &link).unwrap();
        let e = Vault::open(&link, &key()).unwrap_err();
        assert!(e.kind() == ErrorKind::Denied && e.message().contains("symbolic link"), "{e}");
        assert!(Vault::create(folder.0.join("link"), &key()).is_err());
        let dangling = folder.0.join("dangling");
        symlink(folder.0.join("nowhere"), &dangling).unwrap();
        assert_eq!(Vault::create(&dangling, &key()).unwrap_err().kind(), ErrorKind::Conflict);
        assert!(!folder.0.join("nowhere").exists());

        // A link laid where the temporary file or the lock goes.
        let (prey, vault) = (folder.0.join("prey"), Vault::open(folder.file(), &key()).unwrap());
        fs::write(&prey, "prey").unwrap();
        symlink(&prey, folder.0.join("keys.vault.tmp")).unwrap();
        vault.put(&KeyName::new("x", "y"), &"some-value".into(), &Scope::default()).unwrap();
        assert_eq!(fs::read(&prey).unwrap(), b"prey");
        fs::remove_file(folder.0.join("keys.vault.lock")).unwrap();
        symlink(&prey, folder.0.join("keys.vault.lock")).unwrap();
        assert!(vault.remove(&KeyName::new("x", "y")).is_err());
        assert_eq!(fs::read(&prey).unwrap(), b"prey");
        assert!(Vault::open(&folder.0, &key()).is_err(), "a folder is no vault");
    }

    #[test]
    fn a_write_that_fails_changes_nothing() {
        let folder = Folder::new("full");
        let (bytes, list) = sample(&folder);
        let vault = Vault::open(folder.file(), &key()).unwrap();
        // Something that cannot be removed as a file stands where the new file is to be written.
        fs::create_dir_all(folder.0.join("keys.vault.tmp/x")).unwrap();
        assert!(vault.put(&KeyName::new("x", "y"), &"some-value".into(), &Scope::default()).is_err());
        assert_eq!((fs::read(folder.file()).unwrap(), vault.list(None).unwrap()), (bytes, list));
    }
}

#[test]
fn a_branch_that_grew_from_an_older_copy_is_refused() {
    let folder = Folder::new("branch");
    let ours = vault(&folder);
    let name = |n: &str| KeyName::new("alice", n);
    let old = fs::read(folder.file()).unwrap();
    ours.put(&name("mine"), &Secret::new("sk-canary-mine"), &Scope::default()).unwrap();
    // Somebody puts the older copy back, and a process that knows no better writes on top of it: as often written as ours.
    fs::write(folder.file(), &old).unwrap();
    let other = Vault::open(folder.file(), &key()).unwrap();
    other.put(&name("other"), &Secret::new("sk-canary-other"), &Scope::default()).unwrap();
    assert_eq!(other.generation().unwrap(), 2);
    let e = ours.get(&name("mine")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
    // What only looks new is not refused: the same bytes in another file.
    let bytes = fs::read(folder.file()).unwrap();
    fs::remove_file(folder.file()).unwrap();
    fs::write(folder.file(), bytes).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert!(other.get(&name("other")).is_ok());
}
