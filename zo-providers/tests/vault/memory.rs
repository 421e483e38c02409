//! Where a key must not be seen: in the file, beside it, in words, in the memory of a process that has dropped it.

use super::{Folder, passphrase, vault};
use std::fs;
use zo_providers::{HttpRequest, Injector, KeyName, Leaks, Scope, Secret, Vault, VaultHttp};

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle)
}

#[test]
fn no_key_is_in_the_files_or_in_words() {
    let folder = Folder::new("strings");
    let vault = vault(&folder);
    let canaries =
        ["sk-canary-4f0c1d", "canary-old-99aa77", "canary phrase", "canary-user", "canary-provider"];
    let [value, old, phrase, user, provider] = canaries;
    let name = KeyName::new(user, provider);
    vault.add_unlock(&passphrase(phrase)).unwrap();
    vault.put(&name, &Secret::new(old), &Scope::hosts(["canary-host.example.com"])).unwrap();
    // What is left when a writer dies between writing and renaming.
    let before = fs::read(folder.file()).unwrap();
    vault.rotate(&name, &Secret::new(value)).unwrap();
    fs::write(folder.0.join("keys.vault.tmp"), before).unwrap();
    let leaks = Leaks::default();
    for canary in [value, old, phrase] {
        leaks.add("k", &Secret::new(canary)).unwrap();
    }
    let mut files = 0;
    for entry in fs::read_dir(&folder.0).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        for canary in canaries.iter().chain(&["canary"]) {
            assert!(!holds(&bytes, canary.as_bytes()), "{canary}");
        }
        assert!(!leaks.is_in(&bytes), "in some spelling");
        files += 1;
    }
    assert_eq!(files, 3);

    let injector = Injector::new(&vault, user, &leaks);
    let http = VaultHttp::new(injector.clone());
    let request = HttpRequest::new("GET", "https://x").header("a", "{{secret:canary-provider}}");
    let mut words = format!("{vault:?} {injector:?} {http:?} {leaks:?} {:?} {request:?}", passphrase(phrase));
    words += &format!(
        "{:?} {:?} {:?}",
        vault.list(None).unwrap(),
        vault.get(&name).unwrap(),
        vault.unlocks().unwrap()
    );
    let errors = [
        Vault::open(folder.file(), &passphrase("canary phrasf")).unwrap_err(),
        vault.change_passphrase(&"canary phrasf".into(), &phrase.into()).unwrap_err(),
        vault.put(&name, &Secret::new(value.repeat(5_000)), &Scope::default()).unwrap_err(),
        injector.headers("evil.example", "https", request.headers.clone()).unwrap_err(),
        injector.headers("canary-host.example.com", "http", request.headers).unwrap_err(),
        leaks.add("short", &Secret::new("canary-")).unwrap_err(),
    ];
    for e in errors {
        words += &format!("{e} {e:?} {}", e.model_text());
    }
    for canary in [value, old, phrase, "canary phrasf"] {
        assert!(!words.contains(canary), "{canary} in {words}");
    }
}

/// A child process for [`a_key_that_was_dropped_is_not_in_memory`].
#[test]
fn memory_victim() {
    let Ok(path) = std::env::var("ZO_VAULT_MEMORY") else { return };
    #[cfg(target_os = "linux")]
    {
        let vault = Vault::open(path, &passphrase("correct horse")).unwrap();
        let name = KeyName::new("alice", "openai");
        let value = vault.get(&name).unwrap();
        println!("alive {}", linux::count());
        drop(value);
        println!("dropped {}", linux::count());
        // A write decrypts, encrypts and copies the index.
        vault.rotate(&name, &Secret::new("something else")).unwrap();
        vault.list(None).unwrap();
        println!("rotated {}", linux::count());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = path;
}

#[test]
#[cfg(target_os = "linux")]
fn a_key_that_was_dropped_is_not_in_memory() {
    use std::time::Duration;
    let folder = Folder::new("memory");
    let vault = vault(&folder);
    vault.add_unlock(&passphrase("correct horse")).unwrap();
    let value = linux::canary();
    vault.put(&KeyName::new("alice", "openai"), &Secret::new(value), &Scope::default()).unwrap();
    let env = [("ZO_VAULT_MEMORY", folder.file().display().to_string())];
    let victim = zo_testkit::kill::Victim::respawn("memory::memory_victim", &env);
    let remains = victim.wait(Duration::from_secs(120));
    assert!(remains.ended.expect("ended by itself").success());
    let count = |what: &str| -> usize {
        let line = remains
            .lines
            .iter()
            .find_map(|line| line.split_once(what))
            .unwrap_or_else(|| panic!("no {what}"));
        line.1.trim().parse().unwrap()
    };
    assert!(count("alive") > 0, "the search finds what is there");
    assert_eq!((count("dropped"), count("rotated")), (0, 0));
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs, os::unix::fs::FileExt as _};

    /// The key, whose bytes are nowhere in this program as they are.
    const MASKED: [u8; 24] =
        *b"\x16\x0e\x48\x06\x04\x0b\x04\x17\x1c\x48\x0b\x0a\x12\x0d\x00\x17\x00\x48\x00\x09\x16\x00\x54\x52";
    const MASK: u8 = 0x65;

    pub(super) fn canary() -> String {
        MASKED.iter().map(|b| char::from(b ^ MASK)).collect()
    }

    /// How often the key is in this process's memory.
    pub(super) fn count() -> usize {
        let memory = fs::File::open("/proc/self/mem").unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let (mut found, mut page) = (0, vec![0u8; 1 << 16]);
        for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|p| p.starts_with("rw"))) {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let (mut at, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            while at < to {
                let len = page.len().min((to - at) as usize);
                let Ok(n) = memory.read_at(&mut page[..len], at) else { break };
                found += page[..n]
                    .windows(MASKED.len())
                    .filter(|w| w.iter().zip(&MASKED).all(|(a, b)| a ^ MASK == *b))
                    .count();
                // What was read is not found again where it was read to.
                page.fill(0);
                // The pieces overlap, so that none is missed at a border.
                at +=
                    if n == len && at + (len as u64) < to { (len - MASKED.len()) as u64 } else { len as u64 };
            }
        }
        found
    }
}
