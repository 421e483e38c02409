//! Keys are kept, found, replaced, and given up; ways to unlock come and go.

use super::{Folder, KEY, key, passphrase, vault};
use zo_providers::{Cost, ImportOutcome, KeyName, Leaks, Scope, Secret, Unlock, Vault};
use zo_traits::ErrorKind;

#[test]
fn keys_are_found_again_by_user_provider_and_name() {
    let folder = Folder::new("keep");
    let vault = vault(&folder);
    let names = [
        KeyName::new("alice", "openai"),
        KeyName::new("alice", "openai").named("work"),
        KeyName::new("alice", "github"),
        KeyName::new("bob", "openai"),
    ];
    for (n, name) in names.iter().enumerate() {
        vault
            .put(name, &Secret::new(format!("value-{n}")), &Scope::hosts([format!("h{n}.example.com")]))
            .unwrap();
    }
    let again = Vault::open(folder.file(), &key()).unwrap();
    for (n, name) in names.iter().enumerate() {
        assert_eq!(again.get(name).unwrap().expose(), format!("value-{n}"));
    }
    let list = again.list(Some("alice")).unwrap();
    let listed: Vec<String> = list.iter().map(|info| info.key.to_string()).collect();
    assert_eq!(listed, ["alice: github", "alice: openai", "alice: openai/work"]);
    assert_eq!(list[0].scope.allowed_hosts(), ["h2.example.com"]);
    assert!(list.iter().all(|info| info.fingerprint.len() == 16 && info.created.0 > 1_700_000_000_000));
    assert_eq!(again.list(None).unwrap().len(), 4);
    let e = again.get(&KeyName::new("carol", "openai")).unwrap_err();
    assert_eq!((e.kind(), e.message()), (ErrorKind::NotFound, "the vault has no key carol: openai"));
    assert!(again.remove(&names[3]).unwrap() && !again.remove(&names[3]).unwrap());
    assert_eq!(vault.get(&names[3]).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_rotation_keeps_the_old_value_until_it_is_retired() {
    let folder = Folder::new("rotate");
    let vault = vault(&folder);
    let name = KeyName::new("alice", "openai");
    assert_eq!(vault.rotate(&name, &Secret::new("x")).unwrap_err().kind(), ErrorKind::NotFound);
    vault.put(&name, &Secret::new("first-value"), &Scope::hosts(["a.b"])).unwrap();
    let first = vault.list(None).unwrap().remove(0);
    assert!(vault.get_old(&name).unwrap().is_none() && !first.has_old);
    vault.rotate(&name, &Secret::new("second-value")).unwrap();
    vault.rotate(&name, &Secret::new("third-value")).unwrap();
    let again = Vault::open(folder.file(), &key()).unwrap();
    assert_eq!(again.get(&name).unwrap().expose(), "third-value");
    assert_eq!(again.get_old(&name).unwrap().unwrap().expose(), "second-value");
    let third = again.list(None).unwrap().remove(0);
    assert!(third.has_old && third.fingerprint != first.fingerprint && third.created == first.created);
    assert_eq!(third.scope, first.scope);
    let leaks = Leaks::default();
    assert!(again.watch(&leaks, None).unwrap().is_empty());
    assert_eq!(leaks.scrub("second-value third-value"), "[secret openai] [secret openai]");
    assert!(vault.retire(&name).unwrap() && !vault.retire(&name).unwrap());
    assert!(again.get_old(&name).unwrap().is_none());
    again.set_scope(&name, &Scope::default()).unwrap();
    assert!(vault.list(None).unwrap()[0].scope.allowed_hosts().is_empty());
}

#[test]
fn several_ways_unlock_it_and_the_last_one_stays() {
    let folder = Folder::new("unlock");
    let vault = vault(&folder);
    let name = KeyName::new("a", "b");
    vault.put(&name, &Secret::new("some-value"), &Scope::default()).unwrap();
    let second = vault.add_unlock(&passphrase("one")).unwrap();
    let third = vault.add_unlock(&passphrase("two")).unwrap();
    let opens = |unlock: &Unlock| {
        let vault = Vault::open(folder.file(), unlock)?;
        assert_eq!(vault.get(&name)?.expose(), "some-value");
        Ok::<_, zo_traits::Error>(vault.with_cost(Cost::worthless()))
    };
    assert!(opens(&key()).is_ok() && opens(&passphrase("one")).is_ok() && opens(&passphrase("two")).is_ok());
    for wrong in [passphrase("three"), passphrase(""), Unlock::Key(Unlock::random_key().unwrap())] {
        let e = opens(&wrong).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unauthorized, "{e}");
        assert!(e.message().contains("does not open the vault"), "{e}");
    }
    assert_eq!(opens(&Unlock::Key("xyz".into())).unwrap_err().kind(), ErrorKind::Invalid);
    let kinds: Vec<_> = vault.unlocks().unwrap().into_iter().map(|u| (u.id, u.kind)).collect();
    assert_eq!(kinds, [(1, "key"), (second, "passphrase"), (third, "passphrase")]);

    let by_two = opens(&passphrase("two")).unwrap();
    assert_eq!(
        by_two.change_passphrase(&"three".into(), &"x".into()).unwrap_err().kind(),
        ErrorKind::Unauthorized
    );
    by_two.change_passphrase(&"one".into(), &"uno".into()).unwrap();
    assert!(opens(&passphrase("uno")).is_ok() && opens(&passphrase("one")).is_err());
    by_two.remove_unlock(1).unwrap();
    by_two.remove_unlock(third).unwrap();
    assert!(opens(&passphrase("two")).is_err());
    let e = opens(&key()).unwrap_err();
    assert_eq!(e.message(), "the vault cannot be opened by a key");
    let left = by_two.unlocks().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(by_two.remove_unlock(left[0].id).unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(by_two.remove_unlock(99).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(opens(&passphrase("uno")).is_ok());
    for _ in 0..15 {
        by_two.add_unlock(&key()).unwrap();
    }
    assert_eq!(by_two.add_unlock(&key()).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(by_two.add_unlock(&passphrase("")).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_new_vault_key_shuts_old_ways_and_old_copies_out() {
    let folder = Folder::new("rekey");
    let vault = vault(&folder);
    let name = KeyName::new("a", "b");
    vault.put(&name, &Secret::new("first-value"), &Scope::hosts(["a.b"])).unwrap();
    vault.rotate(&name, &Secret::new("second-value")).unwrap();
    let other = Vault::open(folder.file(), &key()).unwrap();
    let before = vault.list(None).unwrap();
    let copy = std::fs::read(folder.file()).unwrap();
    assert!(vault.rekey(&[]).is_err());
    vault.rekey(&[passphrase("new"), Unlock::Key(KEY.replace('0', "f").into())]).unwrap();
    assert_eq!(vault.get(&name).unwrap().expose(), "second-value");
    let after = vault.list(None).unwrap();
    assert_ne!(after[0].fingerprint, before[0].fingerprint);
    assert!(after[0].has_old && after[0].created == before[0].created && after[0].scope == before[0].scope);
    assert!(Vault::open(folder.file(), &key()).is_err());
    let again = Vault::open(folder.file(), &passphrase("new")).unwrap();
    assert_eq!(again.get_old(&name).unwrap().unwrap().expose(), "first-value");
    let e = other.get(&name).unwrap_err();
    assert!(e.kind() == ErrorKind::Conflict && e.message().contains("open it again"), "{e}");
    assert_eq!(other.put(&name, &"x".into(), &Scope::default()).unwrap_err().kind(), ErrorKind::Conflict);

    // The unlock line of the copy with the body of the new file, and the other way round.
    let (old, new) = (String::from_utf8(copy).unwrap(), std::fs::read_to_string(folder.file()).unwrap());
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    for lines in [[old[0], old[1], new[2]], [new[0], new[1], old[2]]] {
        let mixed = lines.join("\n") + "\n";
        assert!(Vault::verify(mixed.as_bytes(), &key()).is_err());
        assert!(Vault::verify(mixed.as_bytes(), &passphrase("new")).is_err());
    }
}

#[test]
fn a_way_to_unlock_that_was_removed_cannot_be_put_back() {
    let folder = Folder::new("revive");
    let vault = vault(&folder);
    let id = vault.add_unlock(&passphrase("fired")).unwrap();
    let with = std::fs::read_to_string(folder.file()).unwrap();
    vault.remove_unlock(id).unwrap();
    let without = std::fs::read_to_string(folder.file()).unwrap();
    let (with, without): (Vec<&str>, Vec<&str>) = (with.lines().collect(), without.lines().collect());
    let mixed = format!("{}\n{}\n{}\n", without[0], with[1], without[2]);
    for unlock in [passphrase("fired"), key()] {
        let e = Vault::verify(mixed.as_bytes(), &unlock).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    }
}

#[test]
fn keys_come_from_the_environment_and_nothing_is_overwritten() {
    let folder = Folder::new("import");
    let vault = vault(&folder);
    let name = |provider: &str| KeyName::new("alice", provider);
    vault.put(&name("groq"), &Secret::new("gsk-mine"), &Scope::default()).unwrap();
    vault.put(&name("xai"), &Secret::new("xai-same"), &Scope::default()).unwrap();
    let generation = vault.generation().unwrap();
    let known = [
        ("openai", "OPENAI_API_KEY"),
        ("groq", "GROQ_API_KEY"),
        ("xai", "X"),
        ("ollama", ""),
        ("none", "N"),
        ("e", "E"),
    ];
    let lookup = |variable: &str| match variable {
        "OPENAI_API_KEY" => Some(" sk-openai\n".to_owned()),
        "GROQ_API_KEY" => Some("gsk-other".to_owned()),
        "X" => Some("xai-same".to_owned()),
        "E" => Some(" ".to_owned()),
        _ => None,
    };
    let found = vault.import_env("alice", known, lookup).unwrap();
    let found: Vec<_> = found.iter().map(|f| (f.provider.as_str(), f.variable.as_str(), f.outcome)).collect();
    assert_eq!(
        found,
        [
            ("openai", "OPENAI_API_KEY", ImportOutcome::Added),
            ("groq", "GROQ_API_KEY", ImportOutcome::Different),
            ("xai", "X", ImportOutcome::Same)
        ]
    );
    assert_eq!(vault.get(&name("openai")).unwrap().expose(), "sk-openai");
    assert_eq!(vault.get(&name("groq")).unwrap().expose(), "gsk-mine");
    vault.import_env("alice", known, lookup).unwrap();
    assert_eq!(vault.generation().unwrap(), generation + 1, "nothing new, nothing written");
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let folder = Folder::new("refuse");
    let vault = vault(&folder);
    let good = KeyName::new("a", "b");
    for (name, value, scope) in [
        (KeyName::new("a", "b/c"), "value", Scope::default()),
        (good.clone(), "", Scope::default()),
        (good.clone(), &"x".repeat(65 * 1024), Scope::default()),
        (good.clone(), "value", Scope::hosts(["not a host"])),
        (good, "value", Scope::hosts(vec!["a.b"; 65])),
    ] {
        assert_eq!(vault.put(&name, &value.into(), &scope).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(vault.list(None).unwrap().is_empty());
    assert_eq!(Vault::create(folder.file(), &key()).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(Vault::open(folder.0.join("none"), &key()).unwrap_err().kind(), ErrorKind::NotFound);
    let e = Vault::create(folder.0.join("empty"), &passphrase("  ")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
}
