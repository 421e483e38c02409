//! Recall against BM25 computed by brute force, and what else this implementation promises beyond the laws.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, sync::Arc};
use zo_memory::{Memory, StoreTranscript, append_in, text};
use zo_store::{Options, Scan, Store, Table, fault::FaultDisk};
use zo_testkit::VirtualClock;
use zo_traits::{
    Cx, ErrorKind, Forget, MemoryId, MemoryStore, Message, NewMemory, Recall, Scope, Transcript,
};

/// BM25 over all items, without an index.
fn brute_force(items: &BTreeMap<MemoryId, String>, question: &str, limit: usize) -> Vec<(MemoryId, f64)> {
    let docs: Vec<(MemoryId, Vec<String>)> = items
        .iter()
        .map(|(id, text)| {
            let mut terms = vec![];
            text::index_terms(text, |t| terms.push(t.to_owned()));
            (*id, terms)
        })
        .collect();
    let n = docs.len() as f64;
    let average = docs.iter().map(|(_, t)| t.len()).sum::<usize>() as f64 / n.max(1.0);
    let question = text::query_terms(question, 4096);
    let mut scored: Vec<_> = docs
        .iter()
        .filter_map(|(id, terms)| {
            let mut score = 0.0;
            for word in &question {
                let tf = terms.iter().filter(|t| *t == word).count() as f64;
                let df = docs.iter().filter(|(_, t)| t.contains(word)).count() as f64;
                if tf > 0.0 {
                    let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
                    let norm = 1.2 * (0.25 + 0.75 * terms.len() as f64 / average.max(1.0));
                    score += idf * tf * 2.2 / (tf + norm);
                }
            }
            (score > 0.0).then_some((*id, score))
        })
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.0.cmp(&a.0)));
    scored.truncate(limit);
    scored
}

#[derive(Debug, Clone)]
enum Step {
    Remember(Vec<String>),
    /// By position among those that are there.
    Forget(Vec<prop::sample::Index>),
    Clear,
    Ask(String, usize),
    Newest(usize),
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "cat",
        "cats",
        "Cat's",
        "dog",
        "running",
        "runs",
        "the",
        "is",
        "what",
        "naïve",
        "naive",
        "東京",
        "京都タワー",
        "42",
        "x",
        "🎉",
        "don't",
        "supercalifragilisticexpialidocioussupercalifragilisticexpialidocious!",
    ]);
    vec(word, 1..9).prop_map(|words| words.join(" "))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => vec(words(), 0..6).prop_map(Step::Remember),
        2 => vec(any::<prop::sample::Index>(), 0..4).prop_map(Step::Forget),
        1 => Just(Step::Clear),
        8 => (words(), 0..12usize).prop_map(|(q, n)| Step::Ask(q, n)),
        1 => (0..12usize).prop_map(Step::Newest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]
    #[test]
    fn recall_ranks_as_brute_force_does(steps in vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let memory = Memory::in_memory().await.unwrap();
            let (cx, scope) = (Cx::default(), Scope::new("s"));
            // What another scope holds must not matter.
            memory.remember(&cx, &"t".into(), vec![NewMemory::text("cat dog cat 東京")]).await.unwrap();
            let mut items = BTreeMap::<MemoryId, String>::new();
            for step in steps {
                match step {
                    Step::Remember(texts) => {
                        let new = texts.iter().map(NewMemory::text).collect();
                        let ids = memory.remember(&cx, &scope, new).await.unwrap();
                        for (id, text) in ids.into_iter().zip(texts) {
                            let known = items.iter().find(|(_, t)| **t == text).map(|(id, _)| *id);
                            prop_assert_eq!(known.unwrap_or(id), id, "the same text has one id");
                            items.insert(id, text);
                        }
                    }
                    Step::Forget(picks) => {
                        let ids: Vec<_> = items.keys().copied().collect();
                        let picked: Vec<_> = picks.iter().filter(|_| !ids.is_empty()).map(|i| *i.get(&ids)).collect();
                        let before = items.len();
                        items.retain(|id, _| !picked.contains(id));
                        let gone = memory.forget(&cx, &scope, &Forget::Ids(picked)).await.unwrap();
                        prop_assert_eq!(gone, before - items.len());
                    }
                    Step::Clear => {
                        let gone = memory.forget(&cx, &scope, &Forget::All).await.unwrap();
                        prop_assert_eq!(gone, items.len());
                        items.clear();
                    }
                    Step::Ask(question, limit) => {
                        let found = memory.recall(&cx, &scope, &Recall::new(&question, limit)).await.unwrap();
                        let expected = brute_force(&items, &question, limit);
                        prop_assert_eq!(found.len(), expected.len());
                        for (hit, (id, score)) in found.iter().zip(&expected) {
                            prop_assert!((f64::from(hit.score) - score).abs() <= 1e-4 * score.abs().max(1.0));
                            prop_assert_eq!(&hit.text, &items[&hit.id]);
                            // Scores that differ by less than rounding may change places.
                            let near = |s: f64| (s - score).abs() < 1e-4;
                            let swapped = expected.iter().any(|(other, s)| *other == hit.id && near(*s))
                                || near(expected[expected.len() - 1].1);
                            prop_assert!(hit.id == *id || swapped, "{:?} is out of place", hit);
                        }
                    }
                    Step::Newest(limit) => {
                        let found = memory.recall(&cx, &scope, &Recall::newest(limit)).await.unwrap();
                        let newest: Vec<_> = items.keys().rev().take(limit).copied().collect();
                        prop_assert_eq!(found.into_iter().map(|r| r.id).collect::<Vec<_>>(), newest);
                    }
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn ranking_is_right_beyond_one_window() {
    // More than 65,536 items, so that scores are gathered in two windows.
    let memory = Memory::in_memory().await.unwrap();
    let (cx, scope) = (Cx::default(), Scope::new("s"));
    let n = 70_000;
    for start in (0..n).step_by(5000) {
        let items = (start..start + 5000).map(|i| {
            let rare = if [7, 65_535, 65_536, 69_999].contains(&i) { "needle" } else { "straw" };
            NewMemory::text(format!("{rare} hay number{i}"))
        });
        memory.remember(&cx, &scope, items.collect()).await.unwrap();
    }
    let texts = |found: Vec<zo_traits::Recalled>| found.into_iter().map(|r| r.text).collect::<Vec<_>>();
    let found = texts(memory.recall(&cx, &scope, &Recall::new("needle", 9)).await.unwrap());
    assert_eq!(
        found,
        [69_999, 65_536, 65_535, 7].map(|i| format!("needle hay number{i}")),
        "newer first among equals"
    );
    let found = texts(memory.recall(&cx, &scope, &Recall::new("hay needle", 5)).await.unwrap());
    assert_eq!(found[3..], ["needle hay number7".to_owned(), "straw hay number69998".to_owned()]);
    let found = texts(memory.recall(&cx, &scope, &Recall::new("number65540 straw", 1)).await.unwrap());
    assert_eq!(found, ["straw hay number65540"]);
}

#[tokio::test]
async fn the_same_again_is_the_same_item_unless_its_metadata_differ() {
    let memory = Memory::in_memory().await.unwrap();
    let (cx, scope) = (Cx::default(), Scope::new("s"));
    let with = |pairs: &[(&str, i32)]| {
        let mut item = NewMemory::text("the sky is blue");
        item.metadata = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        item
    };
    let plain = memory.remember(&cx, &scope, vec![with(&[]), with(&[])]).await.unwrap();
    assert_eq!(plain[0], plain[1]);
    assert_eq!(memory.remember(&cx, &scope, vec![with(&[])]).await.unwrap(), plain[..1]);
    let other = memory.remember(&cx, &scope, vec![with(&[("a", 1), ("b", 2)])]).await.unwrap();
    assert!(other[0] > plain[0]);
    assert_eq!(memory.remember(&cx, &scope, vec![with(&[("b", 2), ("a", 1)])]).await.unwrap(), other);
    assert_eq!(memory.recall(&cx, &scope, &Recall::new("sky", 9)).await.unwrap().len(), 2);
    assert_ne!(memory.remember(&cx, &"other".into(), vec![with(&[])]).await.unwrap(), plain[..1]);
}

#[tokio::test]
async fn ids_begin_with_the_time_and_survive_a_restart() {
    let disk = FaultDisk::new();
    let open = || Store::open_with_backend(disk.clone(), Options::default()).unwrap();
    let clock = VirtualClock::at(1_700_000_000_000);
    let cx = Cx::default().with_clock(Arc::new(clock.clone()));
    let scope = Scope::new("s");
    let memory = Memory::new(open()).await.unwrap();
    let first = memory.remember(&cx, &scope, vec![NewMemory::text("one")]).await.unwrap()[0];
    assert_eq!(first.0 >> 80, 1_700_000_000_000);
    memory.forget(&cx, &scope, &Forget::All).await.unwrap();
    drop(memory);
    clock.jump(-1_000_000);
    let memory = Memory::new(open()).await.unwrap();
    let second = memory.remember(&cx, &scope, vec![NewMemory::text("one")]).await.unwrap()[0];
    assert!(second > first);
}

#[tokio::test]
async fn what_is_forgotten_leaves_no_trace_in_the_tables() {
    let store = Store::in_memory().unwrap();
    let memory = Memory::new(store.clone()).await.unwrap();
    let (cx, scope) = (Cx::default(), Scope::new("s"));
    let rows = || {
        ["memory.items", "memory.postings", "memory.seen"]
            .map(|name| store.read(|s| s.len(Table::new(name))).unwrap())
    };
    for what in 0..2 {
        let texts = (0..50).map(|i| NewMemory::text(format!("fact {i} of many, {} words", i % 7))).collect();
        let ids = memory.remember(&cx, &scope, texts).await.unwrap();
        assert_eq!(rows()[0], 50);
        let what = if what == 0 { Forget::Ids(ids) } else { Forget::All };
        assert_eq!(memory.forget(&cx, &scope, &what).await.unwrap(), 50);
        assert_eq!(rows(), [0; 3]);
    }
    assert_eq!(store.read(|s| s.len(Table::new("memory.scopes"))).unwrap(), 0);
}

#[tokio::test]
async fn a_write_in_the_queue_heeds_cancellation() {
    let disk = FaultDisk::new();
    let store = Store::open_with_backend(disk, Options::default()).unwrap();
    let memory = Memory::new(store.clone()).await.unwrap();
    let cx = Cx::default();
    let cancel = cx.cancel().clone();
    // The writer is busy until the context is cancelled.
    let (busy, free) = std::sync::mpsc::channel::<()>();
    let free = std::sync::Mutex::new(free);
    let blocker = store.write(move |_| {
        let _ = free.lock().unwrap().recv();
        Ok(())
    });
    let scope = Scope::new("s");
    let remember = memory.remember(&cx, &scope, vec![NewMemory::text("late")]);
    let cancelled = async {
        tokio::task::yield_now().await;
        cancel.cancel();
        busy.send(()).unwrap();
    };
    let (blocked, remembered, ()) = tokio::join!(blocker, remember, cancelled);
    blocked.unwrap();
    assert_eq!(remembered.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(memory.recall(&Cx::default(), &scope, &Recall::newest(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_append_in_a_transaction_is_one_commit_with_it() {
    const OTHER: Table = Table::new("test.other");
    let store = Store::in_memory().unwrap();
    let transcript = StoreTranscript::new(store.clone()).await.unwrap();
    let cx = Cx::default();
    let len = store
        .write(|tx| {
            tx.put(OTHER, b"run", b"done")?;
            append_in(tx, "c", Some(0), &[Message::user("hi"), Message::assistant("hello")])
        })
        .await
        .unwrap();
    assert_eq!(len, 2);
    let e = store
        .write(|tx| {
            tx.put(OTHER, b"run 2", b"done")?;
            append_in(tx, "c", Some(0), &[Message::user("again")])
        })
        .await
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    assert_eq!(transcript.read(&cx, "c", 0, 9).await.unwrap().len(), 2);
    assert_eq!(store.read(|s| s.collect(OTHER, &Scan::all())).unwrap().len(), 1);
}

#[tokio::test]
async fn damaged_rows_are_said_to_be_damaged() {
    let store = Store::in_memory().unwrap();
    let (cx, scope) = (Cx::default(), Scope::new("s"));
    let transcript = StoreTranscript::new(store.clone()).await.unwrap();
    transcript.append(&cx, "c", None, &[Message::user("a"), Message::user("b")]).await.unwrap();
    let memory = Memory::new(store.clone()).await.unwrap();
    memory.remember(&cx, &scope, vec![NewMemory::text("some words")]).await.unwrap();
    for name in ["transcript.messages", "memory.items", "memory.postings", "memory.scopes"] {
        let table = Table::new(name);
        let rows = store.read(|s| s.collect(table, &Scan::all())).unwrap();
        for (key, value) in rows {
            for damaged in [vec![], vec![0xff; 30], value[..value.len() - 1].to_vec()] {
                let (k, d) = (key.clone(), damaged.clone());
                store.write(move |tx| tx.put(table, &k, &d)).await.unwrap();
                let errors = [
                    memory.recall(&cx, &scope, &Recall::new("some words", 9)).await.err(),
                    memory.recall(&cx, &scope, &Recall::newest(9)).await.err(),
                    transcript.read(&cx, "c", 0, 9).await.err(),
                ];
                for e in errors.into_iter().flatten() {
                    assert_eq!(e.kind(), ErrorKind::Corrupt, "{name}: {e}");
                }
            }
            store.write(move |tx| tx.put(table, &key, &value)).await.unwrap();
        }
    }
    // A posting that points to nothing, as another build's idea of a word may leave one, is in nobody's way.
    store.write(|tx| tx.delete_all(Table::new("memory.items"), &Scan::all())).await.unwrap();
    memory.remember(&cx, &scope, vec![NewMemory::text("other words")]).await.unwrap();
    let found = memory.recall(&cx, &scope, &Recall::new("words", 9)).await.unwrap();
    assert_eq!(found.iter().map(|r| r.text.as_str()).collect::<Vec<_>>(), ["other words"]);
}

#[tokio::test]
async fn a_text_without_end_is_refused() {
    let memory = Memory::in_memory().await.unwrap();
    let text = "word ".repeat(zo_memory::MAX_TEXT / 5 + 1);
    let (cx, scope) = (Cx::default(), Scope::new("s"));
    let e = memory.remember(&cx, &scope, vec![NewMemory::text(text)]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert!(memory.recall(&cx, &scope, &Recall::newest(9)).await.unwrap().is_empty());
}

#[tokio::test]
async fn data_of_a_newer_version_is_unsupported() {
    for (domain, memory) in [("memory", true), ("transcript", false)] {
        let store = Store::in_memory().unwrap();
        store.require_schema(domain, 1000, |_, _| Ok(())).await.unwrap();
        let e = if memory {
            Memory::new(store).await.map(|_| ()).unwrap_err()
        } else {
            StoreTranscript::new(store).await.map(|_| ()).unwrap_err()
        };
        assert_eq!(e.kind(), ErrorKind::Unsupported);
    }
}
