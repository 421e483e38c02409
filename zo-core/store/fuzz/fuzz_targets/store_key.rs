//! Any bytes as a key: taking it apart never panics, a key has one spelling, and keys sort as their parts do.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::borrow::Cow;
use zo_store::key::{Key, Parts, successor};
use zo_traits::ErrorKind;

#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Part<'a> {
    U8(u8),
    U32(u32),
    U64(u64),
    U128(u128),
    I64(i64),
    Bytes(Cow<'a, [u8]>),
    Str(Cow<'a, str>),
}

/// Takes `key` apart as `shape` says; none when the key does not hold that.
fn take<'a>(key: &'a [u8], shape: &[u8]) -> Option<Vec<Part<'a>>> {
    let mut parts = Parts::of(key);
    let mut out = Vec::new();
    for kind in shape {
        let part = match kind % 7 {
            0 => parts.u8().map(Part::U8),
            1 => parts.u32().map(Part::U32),
            2 => parts.u64().map(Part::U64),
            3 => parts.u128().map(Part::U128),
            4 => parts.i64().map(Part::I64),
            5 => parts.bytes().map(Part::Bytes),
            _ => parts.str().map(Part::Str),
        };
        match part {
            Ok(part) => out.push(part),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corrupt);
                return None;
            }
        }
    }
    parts.end().ok().map(|()| out)
}

fn put(parts: &[Part<'_>]) -> Vec<u8> {
    let key = parts.iter().fold(Key::new(), |key, part| match part {
        Part::U8(n) => key.u8(*n),
        Part::U32(n) => key.u32(*n),
        Part::U64(n) => key.u64(*n),
        Part::U128(n) => key.u128(*n),
        Part::I64(n) => key.i64(*n),
        Part::Bytes(b) => key.bytes(b),
        Part::Str(s) => key.str(s),
    });
    key.into_bytes()
}

// Input: how many parts there are, what kind each is, then two keys of which the first byte says where they divide.
fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else { return };
    let Some((shape, rest)) = rest.split_at_checked(usize::from(count % 9)) else { return };
    let Some((&at, rest)) = rest.split_first() else { return };
    let (a, b) = rest.split_at(usize::from(at).min(rest.len()));
    let (parts_a, parts_b) = (take(a, shape), take(b, shape));
    for (key, parts) in [(a, &parts_a), (b, &parts_b)] {
        if let Some(parts) = parts {
            assert_eq!(put(parts), key, "a second spelling of {parts:?}");
        }
    }
    if let (Some(x), Some(y)) = (&parts_a, &parts_b) {
        assert_eq!(x.partial_cmp(y), Some(a.cmp(b)), "{x:?} and {y:?}");
    }
    match successor(a) {
        Some(end) => assert_eq!(b >= a && b < end.as_slice(), b.starts_with(a)),
        None => assert!(a.iter().all(|b| *b == 0xff)),
    }
});
