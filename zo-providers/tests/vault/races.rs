//! Many writers, and the sudden death of one.

use super::{Folder, key, vault};
use std::{path::Path, time::Duration};
use zo_providers::{KeyName, Scope, Secret, Vault};
use zo_testkit::kill::Victim;

const ENV: &str = "ZO_VAULT_VICTIM";

fn env(path: &Path, what: &str) -> [(&'static str, String); 2] {
    [(ENV, path.display().to_string()), ("ZO_VAULT_PART", what.to_owned())]
}

/// What a child process does; nothing when it is run as a test.
#[test]
fn races_victim() {
    let (Ok(path), Ok(part)) = (std::env::var(ENV), std::env::var("ZO_VAULT_PART")) else { return };
    let vault = Vault::open(path, &key()).unwrap();
    match part.strip_prefix("crash") {
        None => {
            for n in 0..50 {
                let name = KeyName::new(format!("writer {part}"), format!("p{n}"));
                vault.put(&name, &Secret::new(format!("value {part} {n}")), &Scope::default()).unwrap();
            }
        }
        Some(round) => {
            let name = KeyName::new("crash", "rotating");
            // Of different lengths, so that a file half old and half new could not be whole.
            for n in 0.. {
                let value = format!("{round}:{n}:{}", "x".repeat(n % 7 * 1_000));
                vault.rotate(&name, &Secret::new(value)).unwrap();
                let new = KeyName::new(format!("round {round}"), format!("p{n}"));
                vault.put(&new, &Secret::new(format!("value {n}")), &Scope::default()).unwrap();
                println!("done {n}");
            }
        }
    }
}

#[test]
fn writers_in_several_processes_lose_nothing() {
    let folder = Folder::new("writers");
    let ours = vault(&folder);
    let writers: Vec<_> = (0..8)
        .map(|n| Victim::respawn("races::races_victim", &env(&folder.file(), &n.to_string())))
        .collect();
    for writer in writers {
        assert!(writer.wait(Duration::from_secs(120)).ended.expect("ended by itself").success());
    }
    for part in 0..8 {
        for n in 0..50 {
            let name = KeyName::new(format!("writer {part}"), format!("p{n}"));
            assert_eq!(ours.get(&name).unwrap().expose(), format!("value {part} {n}"));
        }
    }
    assert_eq!((ours.list(None).unwrap().len(), ours.generation().unwrap()), (400, 401));
}

#[test]
fn writers_in_several_threads_lose_nothing() {
    let folder = Folder::new("threads");
    let vault = vault(&folder);
    std::thread::scope(|scope| {
        for part in 0..4 {
            let own = Vault::open(folder.file(), &key()).unwrap();
            let shared = vault.clone();
            scope.spawn(move || {
                for n in 0..25 {
                    let name = KeyName::new(format!("t{part}"), format!("p{n}"));
                    let through = if n % 2 == 0 { &own } else { &shared };
                    through.put(&name, &Secret::new("some-value"), &Scope::default()).unwrap();
                }
            });
        }
    });
    assert_eq!(vault.list(None).unwrap().len(), 100);
}

#[test]
fn a_reader_sees_every_write_of_another() {
    let folder = Folder::new("reader");
    let (writer, name) = (vault(&folder), KeyName::new("a", "b"));
    writer.put(&name, &"value 100".into(), &Scope::default()).unwrap();
    let reader = Vault::open(folder.file(), &key()).unwrap();
    // Of one length, as fast as it goes: neither size nor time tells these files apart.
    for n in 101..400 {
        let value = Secret::new(format!("value {n}"));
        writer.put(&name, &value, &Scope::default()).unwrap();
        assert!(reader.get(&name).unwrap() == value, "{n}");
    }
}

#[test]
fn a_crash_leaves_the_old_file_or_the_new_one() {
    let rounds: u32 = std::env::var("ZO_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let folder = Folder::new("crash");
    let ours = vault(&folder);
    let rotating = KeyName::new("crash", "rotating");
    ours.put(&rotating, &Secret::new("0:0:"), &Scope::default()).unwrap();
    let (mut acknowledged, mut interrupted) = (0, 0);
    for round in 0..rounds {
        let victim = Victim::respawn("races::races_victim", &env(&folder.file(), &format!("crash{round}")));
        // From before it opens the file to well after its first writes, in steps that fit nothing else.
        let lines = victim.kill_after(Duration::from_micros(u64::from(round % 97) * 311));
        let done = lines.iter().filter(|line| line.contains("done ")).count();
        acknowledged += done;
        interrupted += u32::from(folder.0.join("keys.vault.tmp").exists());
        let fresh = Vault::open(folder.file(), &key()).unwrap_or_else(|e| panic!("round {round}: {e}"));
        for vault in [&fresh, &ours] {
            for n in 0..done {
                let name = KeyName::new(format!("round {round}"), format!("p{n}"));
                assert_eq!(vault.get(&name).unwrap().expose(), format!("value {n}"), "round {round}");
            }
            let value = vault.get(&rotating).unwrap();
            let mut parts = value.expose().splitn(3, ':').map(str::to_owned);
            let (of, n, tail) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            let n: usize = n.parse().unwrap();
            assert_eq!(tail.len(), n % 7 * 1_000, "half a value");
            assert!(
                done == 0 || of == round.to_string() && (n + 1 == done || n == done),
                "{of}:{n} after {done}"
            );
            // Written in the same breath or never.
            assert!(vault.list(Some(&format!("round {round}"))).unwrap().len() <= done + 1);
        }
        // The next writer is not in the way of what the dead one left.
        for info in ours.list(Some(&format!("round {round}"))).unwrap() {
            assert!(ours.remove(&info.key).unwrap());
        }
        assert!(!folder.0.join("keys.vault.tmp").exists() || done == 0);
    }
    println!(
        "{rounds} kills, {acknowledged} acknowledged rounds of writes, {interrupted} in the midst of a write"
    );
    assert!(rounds < 100 || acknowledged > 0, "the kills came too early to say anything");
}
