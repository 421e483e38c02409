//! A budget's limits under many hands: threads that run free, and every order of events that a generator thinks of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};
use zo_traits::{Budget, Limits, Spend};

/// 64 children, each with its own limit and a grandchild, reserve more than they use, until nothing is left.
#[test]
fn caps_hold_under_64_concurrent_children() {
    const CAP: u64 = 1_250_000;
    let root = Budget::new(Limits::none().microusd(CAP).steps(20_000));
    let (over, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let (billed, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|s| {
        s.spawn(|| {
            while !done.load(Relaxed) {
                let spent = root.spent();
                over.fetch_or(spent.microusd > CAP || spent.steps > 20_000, Relaxed);
            }
        });
        let children: Vec<_> = (0..64u64)
            .map(|n| {
                let child = root.child(Limits::none().microusd(CAP / 10));
                let (over, billed, refused) = (&over, &billed, &refused);
                s.spawn(move || {
                    let deep = child.child(Limits::none());
                    for i in 0..2_000u64 {
                        let worst = 40 + (n * 7 + i * 13) % 200;
                        let asked = Spend::microusd(worst).plus(Spend::steps(1));
                        match deep.reserve_on("model", asked) {
                            Ok(held) => {
                                let used = (worst * (i % 5)) / 4;
                                billed.fetch_add(used, Relaxed);
                                held.settle(Spend::microusd(used).plus(Spend::steps(1)));
                            }
                            Err(_) => drop(refused.fetch_add(1, Relaxed)),
                        }
                        over.fetch_or(child.spent().microusd > CAP / 10, Relaxed);
                    }
                })
            })
            .collect();
        children.into_iter().for_each(|c| c.join().unwrap());
        done.store(true, Relaxed);
    });
    assert!(!over.load(Relaxed), "a limit was exceeded, if only for a moment");
    assert_eq!(root.spent().microusd, billed.load(Relaxed), "every unit is accounted for");
    assert_eq!(root.breakdown()["model"], root.spent());
    assert!(refused.load(Relaxed) > 0, "the test never reached a limit");
}

/// Units that are taken one by one run out at the limit exactly: neither one more nor one less.
#[test]
fn nothing_that_fits_is_refused() {
    let root = Budget::new(Limits::none().tokens(10_000));
    let got: u64 = thread::scope(|s| {
        let all: Vec<_> = (0..50)
            .map(|_| {
                // Half of the askings are refused by the root after the child has agreed: they must not be in the way.
                let (child, root) = (root.child(Limits::none().tokens(400)), &root);
                s.spawn(move || {
                    let take = |b: &Budget, n| u64::from(b.spend_on("t", Spend::tokens(n)).is_ok()) * n;
                    (0..600).map(|_| take(&child, 20_000) + take(&child, 1) + take(root, 20_000)).sum::<u64>()
                })
            })
            .collect();
        all.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(got, 10_000);
    assert_eq!(root.spent().tokens, 10_000);
}

/// A clone of a child is not refused because another clone's spending is about to be refused further up.
#[test]
fn a_doomed_request_is_in_nobodys_way() {
    let root = Budget::new(Limits::none().tokens(50));
    let child = root.child(Limits::none().tokens(100));
    let wrong = AtomicU64::new(0);
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| (0..20_000).for_each(|_| assert!(child.spend(Spend::tokens(80)).is_err())));
        }
        s.spawn(|| {
            for _ in 0..20_000 {
                match child.reserve(Spend::tokens(40)) {
                    Ok(held) => drop(held),
                    Err(_) => drop(wrong.fetch_add(1, Relaxed)),
                }
            }
        });
    });
    assert_eq!(wrong.load(Relaxed), 0);
}

#[derive(Debug, Clone)]
enum Event {
    Spend(usize, u64, u8),
    Reserve(usize, u64, u8),
    /// Of what is held: which, and what share of it was used, in hundredths.
    Settle(usize, u64),
    Drop(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (0..7usize, 0..40u64, 0..4u8).prop_map(|(a, n, l)| Event::Spend(a, n, l)),
        (0..7usize, 0..60u64, 0..4u8).prop_map(|(a, n, l)| Event::Reserve(a, n, l)),
        (any::<usize>(), 0..=100u64).prop_map(|(i, share)| Event::Settle(i, share)),
        any::<usize>().prop_map(Event::Drop),
    ];
    prop::collection::vec(event, 0..120)
}

proptest! {
    /// A tree of seven allowances against a model that only counts.
    #[test]
    fn every_interleaving_keeps_every_limit(
        limits in prop::collection::vec(prop::option::of(0..300u64), 7),
        events in events(),
    ) {
        let limit = |i: usize| limits[i].map_or(Limits::none(), |n| Limits::none().tokens(n));
        let mut tree = vec![Budget::new(limit(0))];
        for i in 1..7 {
            let child = tree[(i - 1) / 2].child(limit(i));
            tree.push(child);
        }
        let above = |mut i: usize| {
            let mut all = vec![i];
            while i > 0 {
                i = (i - 1) / 2;
                all.push(i);
            }
            all
        };
        let mut spent = [0u64; 7];
        let mut held = Vec::new();
        let labels = ["", "a", "b", Budget::OTHER];
        for event in events {
            match event {
                Event::Spend(at, n, l) => {
                    let fits = above(at).iter().all(|&i| limits[i].is_none_or(|max| spent[i] + n <= max));
                    prop_assert_eq!(tree[at].spend_on(labels[l as usize], Spend::tokens(n)).is_ok(), fits);
                    if fits { above(at).iter().for_each(|&i| spent[i] += n); }
                }
                Event::Reserve(at, n, l) => {
                    let left = tree[at].remaining().tokens;
                    match tree[at].reserve_on(labels[l as usize], Spend::tokens(n)) {
                        Ok(r) => {
                            prop_assert!(left.is_none_or(|left| n <= left));
                            above(at).iter().for_each(|&i| spent[i] += n);
                            held.push((at, n, r));
                        }
                        Err(_) => prop_assert!(left.is_some_and(|left| n > left)),
                    }
                }
                Event::Settle(which, share) if !held.is_empty() => {
                    let (at, n, r) = held.swap_remove(which % held.len());
                    r.settle(Spend::tokens(n * share / 100));
                    above(at).iter().for_each(|&i| spent[i] = spent[i] - n + n * share / 100);
                }
                Event::Drop(which) if !held.is_empty() => {
                    let (at, n, r) = held.swap_remove(which % held.len());
                    drop(r);
                    above(at).iter().for_each(|&i| spent[i] -= n);
                }
                _ => {}
            }
            for (i, budget) in tree.iter().enumerate() {
                prop_assert_eq!(budget.spent(), Spend::tokens(spent[i]));
                prop_assert!(limits[i].is_none_or(|max| spent[i] <= max));
                let sum = budget.breakdown().values().fold(Spend::default(), |sum, s| sum.plus(*s));
                prop_assert_eq!(sum, budget.spent());
            }
        }
    }

    /// At the ends of the numbers nothing wraps around and nothing panics.
    #[test]
    fn huge_amounts_saturate(a in any::<u64>(), b in any::<u64>(), max in any::<u64>()) {
        let budget = Budget::new(Limits::none().microusd(max));
        for n in [a, b, u64::MAX] {
            let before = budget.spent().microusd;
            let ok = budget.spend_on("x", Spend::microusd(n)).is_ok();
            prop_assert_eq!(ok, u128::from(before) + u128::from(n) <= u128::from(max) || max == u64::MAX);
            prop_assert!(budget.spent().microusd <= max);
        }
    }
}
