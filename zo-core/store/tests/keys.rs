//! Composite keys sort as their parts do and come apart again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use zo_store::key::{Key, Parts, successor};

fn text() -> impl Strategy<Value = Vec<u8>> {
    // Few letters, and those that matter, so that prefixes and escapes meet often.
    proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), Just(b'a'), any::<u8>()], 0..6)
}

proptest! {
    #[test]
    fn order_and_identity_of_parts_are_those_of_the_key(
        a in (text(), any::<i64>(), text(), any::<u64>(), any::<u128>(), any::<u32>(), any::<u8>()),
        b in (text(), any::<i64>(), text(), any::<u64>(), any::<u128>(), any::<u32>(), any::<u8>()),
        share in 0usize..3,
    ) {
        let mut b = b;
        if share > 0 { b.0 = a.0.clone(); }
        if share > 1 { b.1 = a.1; }
        let key = |t: &(Vec<u8>, i64, Vec<u8>, u64, u128, u32, u8)| {
            Key::new().bytes(&t.0).i64(t.1).bytes(&t.2).u64(t.3).u128(t.4).u32(t.5).u8(t.6)
        };
        prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        let k = key(&a);
        let mut parts = Parts::of(&k);
        prop_assert_eq!(parts.bytes().unwrap().into_owned(), a.0);
        prop_assert_eq!(parts.i64().unwrap(), a.1);
        prop_assert_eq!(parts.bytes().unwrap().into_owned(), a.2);
        prop_assert_eq!(parts.u64().unwrap(), a.3);
        prop_assert_eq!(parts.u128().unwrap(), a.4);
        prop_assert_eq!(parts.u32().unwrap(), a.5);
        prop_assert_eq!(parts.u8().unwrap(), a.6);
        parts.end().unwrap();
    }

    #[test]
    fn taking_a_foreign_key_apart_never_panics(bytes in text(), rest in text()) {
        let whole = [bytes, rest].concat();
        let mut parts = Parts::of(&whole);
        let _ = (parts.str(), parts.u8(), parts.bytes(), parts.u128());
        let _ = parts.end();
    }

    #[test]
    fn the_successor_bounds_the_prefix(prefix in text(), tail in text(), other in text()) {
        let inside = [prefix.clone(), tail].concat();
        match successor(&prefix) {
            None => prop_assert!(prefix.iter().all(|b| *b == 0xff)),
            Some(end) => {
                prop_assert!(inside < end);
                prop_assert_eq!(other >= prefix && other < end, other.starts_with(&prefix));
            }
        }
    }
}

#[test]
fn neighbours_do_not_collide() {
    let key = |a: &str, b: &str| Key::new().str(a).str(b);
    assert_ne!(key("a", "b"), key("ab", ""));
    assert_ne!(key("a\0", "b"), key("a", "\0b"));
    assert!(
        !key("ab", "").starts_with(&Key::new().str("a")),
        "a prefix scan of one string finds no longer one"
    );
    assert!(Key::new().i64(-1) < Key::new().i64(0) && Key::new().i64(i64::MIN) < Key::new().i64(-1));
}
