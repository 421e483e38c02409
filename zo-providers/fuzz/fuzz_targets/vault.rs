//! A vault file that somebody changed is refused or means what it meant; and no secret passes the leak scanner, however its
//! text is spelled and cut.
//!
//! Input: a byte that says which, and
//! * 0: a whole file,
//! * 1: changes to a good file, four bytes each: a place (two bytes), what to do there, and with which byte,
//! * else: how to cut (one byte), which spelling (one byte), and what stands before and behind the secret, parted by a zero.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use zo_providers::{KeyInfo, LeakStream, Leaks, Secret, Unlock, Vault};
use zo_providers_fuzz::pieces;

/// Made by another implementation; opens with the passphrase below, at a price of 64 KiB.
const GOOD: &[u8] = include_bytes!("../../tests/vault/sodium.vault");
const KEY: &str = "sk-\"canary\"/+ä/0123";

fn unlock() -> Unlock {
    Unlock::Passphrase(Secret::new("correct horse"))
}

fn file(bytes: &[u8]) {
    static LIST: OnceLock<Vec<KeyInfo>> = OnceLock::new();
    let list = LIST.get_or_init(|| Vault::verify(GOOD, &unlock()).expect("a good file"));
    // Argon2id with what a hostile file may ask for takes seconds, and would be all that is fuzzed.
    let cheap = bytes.windows(12).any(|w| w == br#""memory":64,"#)
        && bytes.windows(11).any(|w| w == br#""passes":3,"#);
    let by_key = Vault::verify(bytes, &Unlock::Key(Secret::new("00".repeat(32))));
    assert!(by_key.is_err());
    if !cheap {
        return;
    }
    match Vault::verify(bytes, &unlock()) {
        Ok(found) => assert!(bytes == GOOD && found == *list, "a changed file was believed"),
        Err(e) => {
            assert!(bytes != GOOD);
            assert!(!format!("{e:?}").contains("ghp_"), "{e}");
        }
    }
}

fn change(edits: &[u8]) -> Vec<u8> {
    let mut bytes = GOOD.to_vec();
    for edit in edits.chunks_exact(4) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % bytes.len();
        match edit[2] % 4 {
            0 => bytes[at] = edit[3],
            1 => bytes[at] ^= 1 << (edit[3] % 8),
            2 => bytes.insert(at, edit[3]),
            _ if bytes.len() > 1 => drop(bytes.remove(at)),
            _ => {}
        }
    }
    bytes
}

fn spelled(kind: u8) -> Vec<u8> {
    let bytes = KEY.bytes();
    match kind % 7 {
        0 => KEY.into(),
        1 => bytes.map(|b| format!("{b:02x}")).collect::<String>().into(),
        2 => bytes.map(|b| format!("{b:02X}")).collect::<String>().into(),
        3 => bytes.map(|b| format!("%{b:02x}")).collect::<String>().into(),
        4 => serde_json::to_string(KEY).expect("a string").trim_matches('"').trim_end_matches('\\').into(),
        5 => KEY.encode_utf16().map(|u| format!("\\u{u:04X}")).collect::<String>().into(),
        // A line break, where a terminal or an encoder would put one.
        _ => KEY.replacen("canary", "can\r\n\t ary", 1).into(),
    }
}

fn scanner(data: &[u8]) {
    let Some((&[cut, kind], around)) = data.split_first_chunk() else { return };
    let leaks = Leaks::default();
    leaks.add("k", &Secret::new(KEY)).expect("long enough");
    leaks.add("other", &Secret::new("sk-\"canary\"/+ä/0123-and-more")).expect("long enough");
    let (before, behind) = around.split_at(around.iter().position(|b| *b == 0).unwrap_or(around.len()));
    let hidden = spelled(kind);
    let text = [before, &hidden, behind].concat();
    let clean = leaks.scrub_bytes(&text).into_owned();
    // An escape that begins before the secret and takes its first characters in leaves no secret there.
    let taken = before.iter().rev().take(12).any(|b| matches!(b, b'%' | b'\\'));
    assert!(taken || !clean.windows(hidden.len()).any(|w| w == hidden), "it passed");
    assert!(taken || leaks.is_in(&text));
    let mut stream = LeakStream::new(&leaks);
    let mut out = Vec::new();
    for piece in pieces(&text, cut) {
        out.extend(stream.push(piece));
    }
    out.extend(stream.finish());
    assert_eq!(out, clean, "cut into pieces");
    // Any bytes as text: what is not there is not replaced.
    if !leaks.is_in(around) {
        assert_eq!(leaks.scrub_bytes(around).as_ref(), around);
    }
}

fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((0, bytes)) => file(bytes),
    Some((1, edits)) => file(&change(edits)),
    Some((_, rest)) => scanner(rest),
    None => {}
});
