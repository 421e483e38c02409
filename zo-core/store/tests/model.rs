//! Random closures against a map: the store and the model never differ, also over reopening.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, ops::ControlFlow};
use zo_store::{Options, Scan, Store, Table, fault::FaultDisk};
use zo_traits::{Error, ErrorKind, Result};

const TABLES: [Table; 2] = [Table::new("model.a"), Table::new("model.b")];

type Map = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

#[derive(Debug, Clone)]
enum Op {
    Put(usize, Vec<u8>, usize),
    Delete(usize, Vec<u8>),
    DeletePrefix(usize, Vec<u8>),
}

#[derive(Debug, Clone)]
enum Step {
    /// A closure of these, which fails at the end if told so.
    Write(Vec<Op>, bool),
    /// These are queued together, so that they share a commit.
    Together(Vec<(Vec<Op>, bool)>),
    Scan(usize, Vec<u8>, Vec<u8>, bool, usize),
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0u8), Just(1), Just(0xff)], 0..4)
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..2usize, key(), 0..3000usize).prop_map(|(t, k, n)| Op::Put(t, k, n)),
        2 => (0..2usize, key()).prop_map(|(t, k)| Op::Delete(t, k)),
        1 => (0..2usize, key()).prop_map(|(t, k)| Op::DeletePrefix(t, k)),
    ];
    vec(op, 0..6)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (ops(), proptest::bool::weighted(0.2)).prop_map(|(o, f)| Step::Write(o, f)),
        2 => vec((ops(), proptest::bool::weighted(0.3)), 1..6).prop_map(Step::Together),
        3 => (0..2usize, key(), key(), any::<bool>(), 0..5usize).prop_map(|(t, a, b, r, n)| Step::Scan(t, a, b, r, n)),
        1 => Just(Step::Reopen),
    ]
}

fn model(map: &mut Map, ops: &[Op]) -> Vec<u64> {
    ops.iter()
        .map(|op| match op {
            Op::Put(t, k, n) => u64::from(map.insert((*t, k.clone()), vec![1; *n]).is_some()),
            Op::Delete(t, k) => u64::from(map.remove(&(*t, k.clone())).is_some()),
            Op::DeletePrefix(t, p) => {
                let before = map.len();
                map.retain(|(table, k), _| table != t || !k.starts_with(p));
                (before - map.len()) as u64
            }
        })
        .collect()
}

fn closure(
    ops: Vec<Op>,
    fail: bool,
) -> impl FnMut(&mut zo_store::Tx<'_>) -> Result<Vec<u64>> + Send + 'static {
    move |tx| {
        let mut out = vec![];
        for op in &ops {
            out.push(match op {
                Op::Put(t, k, n) => {
                    let was = tx.contains(TABLES[*t], k)?;
                    tx.put(TABLES[*t], k, &vec![1; *n])?;
                    u64::from(was)
                }
                Op::Delete(t, k) => u64::from(tx.delete(TABLES[*t], k)?),
                Op::DeletePrefix(t, p) => tx.delete_all(TABLES[*t], &Scan::prefix(p))?,
            });
        }
        if fail { Err(Error::new(ErrorKind::Conflict, "model", "told to")) } else { Ok(out) }
    }
}

fn open(disk: &FaultDisk) -> Store {
    Store::open_with_backend(disk.clone(), Options::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]
    #[test]
    fn the_store_is_a_map(steps in vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let disk = FaultDisk::new();
        let mut store = open(&disk);
        let mut map = Map::new();
        for step in steps {
            match step {
                Step::Write(ops, fail) => {
                    let mut next = map.clone();
                    let expected = model(&mut next, &ops);
                    match store.write_blocking(closure(ops, fail)) {
                        Ok(got) => {
                            prop_assert!(!fail);
                            prop_assert_eq!(got, expected);
                            map = next;
                        }
                        Err(e) => prop_assert!(fail, "{}", e),
                    }
                }
                Step::Together(closures) => {
                    let results = runtime.block_on(async {
                        let mut writes = vec![];
                        for (ops, fail) in closures.clone() {
                            let mut write = Box::pin(store.write(closure(ops, fail)));
                            let mut task = std::task::Context::from_waker(std::task::Waker::noop());
                            let early = match write.as_mut().poll(&mut task) {
                                std::task::Poll::Ready(result) => Some(result),
                                std::task::Poll::Pending => None,
                            };
                            writes.push((early, write));
                        }
                        let mut results = vec![];
                        for (early, write) in writes {
                            results.push(match early {
                                Some(result) => result,
                                None => write.await,
                            });
                        }
                        results
                    });
                    for ((ops, fail), result) in closures.into_iter().zip(results) {
                        if fail {
                            prop_assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
                        } else {
                            prop_assert_eq!(result.unwrap(), model(&mut map, &ops));
                        }
                    }
                }
                Step::Scan(t, a, b, reverse, limit) => {
                    let mut scan = Scan::range(&a[..]..&b[..]).limit(limit);
                    if reverse {
                        scan = scan.reverse();
                    }
                    let got = store.read(|s| s.collect(TABLES[t], &scan)).unwrap();
                    let mut rows: Vec<_> = map
                        .iter()
                        .filter(|((table, k), _)| *table == t && *k >= a && *k < b)
                        .map(|((_, k), v)| (k.clone(), v.clone()))
                        .collect();
                    if reverse {
                        rows.reverse();
                    }
                    rows.truncate(limit);
                    prop_assert_eq!(got, rows);
                }
                Step::Reopen => {
                    drop(store);
                    store = open(&disk);
                }
            }
        }
        drop(store);
        let store = open(&disk);
        let snapshot = store.snapshot().unwrap();
        let mut all = Map::new();
        for (t, table) in TABLES.into_iter().enumerate() {
            snapshot.scan(table, &Scan::all(), |k, v| {
                all.insert((t, k.to_vec()), v.to_vec());
                Ok(ControlFlow::Continue(()))
            }).unwrap();
            prop_assert_eq!(snapshot.len(table).unwrap(), map.keys().filter(|(x, _)| *x == t).count() as u64);
        }
        prop_assert_eq!(all, map);
    }
}
