//! Laws of [`zo_traits::MemoryStore`].
//!
//! Each takes an empty store. Whether the same text remembered twice is one item or two is left to the implementation.

use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use zo_traits::{Cx, ErrorKind, Forget, MemoryId, MemoryStore, NewMemory, Recall, Scope};

/// Makes a `#[test]` of each law; the expression is a future of an empty [`MemoryStore`].
///
/// ```ignore
/// zo_testkit::memory_laws!(async { Memory::in_memory().await.unwrap() });
/// ```
#[macro_export]
macro_rules! memory_laws {
    ($make:expr) => {
        $crate::__laws!(
            memory,
            $make;
            nothing_is_recalled_from_nothing,
            what_was_remembered_is_recalled,
            ids_are_returned_in_order,
            newer_ids_are_greater,
            remembering_nothing_is_fine,
            a_text_without_content_is_invalid,
            one_bad_item_keeps_all_of_them_out,
            scopes_are_walls_to_recall,
            scopes_are_walls_to_forget,
            every_text_is_a_scope,
            the_limit_holds,
            a_limit_of_nothing_is_nothing,
            an_empty_question_lists_the_newest_first,
            the_better_match_comes_first,
            scores_fall_down_the_list,
            no_item_is_listed_twice,
            metadata_comes_back_as_it_was,
            texts_come_back_byte_for_byte,
            a_long_text_is_found,
            a_very_long_word_is_found,
            case_and_accents_do_not_matter,
            text_without_spaces_is_found,
            any_question_has_an_answer,
            forgotten_is_forgotten,
            forgetting_twice_forgets_once,
            forgetting_a_stranger_forgets_nothing,
            forgetting_one_spares_the_others,
            forgetting_all_empties_the_scope,
            ids_are_not_used_again,
            a_forgotten_fact_can_be_learnt_again,
            ids_grow_though_the_clock_goes_back,
            items_carry_the_time_of_the_clock,
            a_cancelled_call_changes_nothing,
            a_late_call_is_refused,
            many_may_remember_at_once,
            a_shared_store_is_the_store,
        );
    };
}

fn cx() -> Cx {
    Cx::new("law")
}

fn scope() -> Scope {
    Scope::new("law")
}

async fn learn(store: &impl MemoryStore, texts: &[&str]) -> Vec<MemoryId> {
    let items = texts.iter().map(|t| NewMemory::text(*t)).collect();
    store.remember(&cx(), &scope(), items).await.unwrap()
}

async fn ask(store: &impl MemoryStore, question: &str, limit: usize) -> Vec<MemoryId> {
    let found = store.recall(&cx(), &scope(), &Recall::new(question, limit)).await.unwrap();
    found.into_iter().map(|r| r.id).collect()
}

/// An empty store answers every question with nothing.
pub async fn nothing_is_recalled_from_nothing(store: impl MemoryStore) {
    assert_eq!(ask(&store, "anything", 5).await, []);
    assert_eq!(ask(&store, "", 5).await, []);
    assert_eq!(store.forget(&cx(), &scope(), &Forget::All).await.unwrap(), 0);
}

/// A question that shares its words finds the item, with the text and the id that `remember` returned.
pub async fn what_was_remembered_is_recalled(store: impl MemoryStore) {
    let ids = learn(&store, &["The kettle is in the garage"]).await;
    let found = store.recall(&cx(), &scope(), &Recall::new("kettle garage", 5)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id, found[0].text.as_str()), (ids[0], "The kettle is in the garage"));
}

/// One id per item, in the order of the items.
pub async fn ids_are_returned_in_order(store: impl MemoryStore) {
    let ids = learn(&store, &["alpha", "beta", "gamma"]).await;
    for (word, id) in ["alpha", "beta", "gamma"].into_iter().zip(&ids) {
        assert_eq!(ask(&store, word, 5).await, [*id]);
    }
}

/// Ids grow within a call, from call to call, and over scopes.
pub async fn newer_ids_are_greater(store: impl MemoryStore) {
    let mut last = learn(&store, &["one", "two", "three"]).await;
    assert!(last.is_sorted() && last[0] < last[2]);
    for i in 0..5 {
        let name = Scope::new(format!("law {i}"));
        let ids = store.remember(&cx(), &name, vec![NewMemory::text(format!("item {i}"))]).await.unwrap();
        assert!(ids[0] > last[last.len() - 1]);
        last = ids;
    }
}

/// An empty list is remembered without fuss.
pub async fn remembering_nothing_is_fine(store: impl MemoryStore) {
    assert_eq!(store.remember(&cx(), &scope(), vec![]).await.unwrap(), []);
    assert_eq!(ask(&store, "", 5).await, []);
}

/// Text that is empty or only white space is `Invalid`.
pub async fn a_text_without_content_is_invalid(store: impl MemoryStore) {
    for text in ["", " ", "\n\t\u{a0}"] {
        let e = store.remember(&cx(), &scope(), vec![NewMemory::text(text)]).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid);
    }
}

/// Items are stored all or none.
pub async fn one_bad_item_keeps_all_of_them_out(store: impl MemoryStore) {
    let items = ["good", " ", "fine"].map(NewMemory::text).into();
    assert!(store.remember(&cx(), &scope(), items).await.is_err());
    assert_eq!(ask(&store, "", 5).await, []);
    assert_eq!(ask(&store, "good", 5).await, []);
}

/// What is remembered in one scope is not recalled through another, not even one whose name looks alike.
pub async fn scopes_are_walls_to_recall(store: impl MemoryStore) {
    learn(&store, &["the secret word is swordfish"]).await;
    for other in ["", "la", "law ", "law\0", "law/x", "LAW", "other"] {
        for question in ["swordfish", ""] {
            let found = store.recall(&cx(), &other.into(), &Recall::new(question, 9)).await.unwrap();
            assert!(found.is_empty(), "scope {other:?} sees into another");
        }
    }
}

/// Nothing is forgotten through another scope, neither by id nor all of it.
pub async fn scopes_are_walls_to_forget(store: impl MemoryStore) {
    let ids = learn(&store, &["stay"]).await;
    for other in ["", "la", "law\0", "law 2"] {
        store.remember(&cx(), &other.into(), vec![NewMemory::text("go")]).await.unwrap();
        assert_eq!(store.forget(&cx(), &other.into(), &Forget::Ids(ids.clone())).await.unwrap(), 0);
        assert_eq!(store.forget(&cx(), &other.into(), &Forget::All).await.unwrap(), 1);
    }
    assert_eq!(ask(&store, "stay", 5).await, ids);
}

/// A scope may have any name.
pub async fn every_text_is_a_scope(store: impl MemoryStore) {
    let names = ["", "\0", "\0\u{1}", "a\0b", "a", "日本/🎉", &"long ".repeat(2000)].map(Scope::new);
    for (i, name) in names.iter().enumerate() {
        store.remember(&cx(), name, vec![NewMemory::text(format!("note number {i}"))]).await.unwrap();
    }
    for (i, name) in names.iter().enumerate() {
        let found = store.recall(&cx(), name, &Recall::new("note", 9)).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].text, format!("note number {i}"));
    }
}

/// Never more than asked for.
pub async fn the_limit_holds(store: impl MemoryStore) {
    let texts: Vec<_> = (0..30).map(|i| format!("apple number{i}")).collect();
    learn(&store, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for limit in [1, 2, 29, 30, 31, usize::MAX] {
        for question in ["apple", ""] {
            assert_eq!(ask(&store, question, limit).await.len(), limit.min(30));
        }
    }
}

/// A limit of zero is an empty list.
pub async fn a_limit_of_nothing_is_nothing(store: impl MemoryStore) {
    learn(&store, &["apple"]).await;
    assert_eq!(ask(&store, "apple", 0).await, []);
    assert_eq!(ask(&store, "", 0).await, []);
}

/// An empty question, or one of white space, lists the newest items, newest first.
pub async fn an_empty_question_lists_the_newest_first(store: impl MemoryStore) {
    let mut ids = learn(&store, &["one", "two"]).await;
    ids.extend(learn(&store, &["three"]).await);
    ids.reverse();
    assert_eq!(ask(&store, "", 9).await, ids);
    assert_eq!(ask(&store, " \n", 2).await, ids[..2]);
}

/// An item about the question comes before one that only touches it.
pub async fn the_better_match_comes_first(store: impl MemoryStore) {
    let ids = learn(
        &store,
        &[
            "Grandmother's recipe for apple pie with cinnamon",
            "The train to Hamburg leaves at nine",
            "An apple a day, as they say, and many other things that one says when the day is long",
        ],
    )
    .await;
    let found = ask(&store, "apple pie recipe", 9).await;
    assert_eq!(found[0], ids[0]);
    assert_eq!(ask(&store, "train Hamburg", 9).await[0], ids[1]);
}

/// The list is ordered by score, and scores are numbers.
pub async fn scores_fall_down_the_list(store: impl MemoryStore) {
    let texts: Vec<_> = (1..20).map(|i| format!("{} filler{i}", "tea ".repeat(i))).collect();
    learn(&store, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let found = store.recall(&cx(), &scope(), &Recall::new("tea filler7", 30)).await.unwrap();
    assert!(found.len() > 1);
    assert!(found.iter().all(|r| r.score.is_finite()));
    assert!(found.is_sorted_by(|a, b| a.score >= b.score));
}

/// No id comes twice in one list.
pub async fn no_item_is_listed_twice(store: impl MemoryStore) {
    learn(&store, &["echo", "echo", "echo echo echo", "other"]).await;
    for question in ["echo echo", ""] {
        let found = ask(&store, question, 99).await;
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
    }
}

/// Metadata is kept whole: nesting, numbers, null, order aside.
pub async fn metadata_comes_back_as_it_was(store: impl MemoryStore) {
    let metadata: Map<String, Value> = serde_json::from_value(json!({
        "source": "mail", "deep": {"list": [1, 2.5, null, true, {"x": "y"}], "": ""}, "big": u64::MAX, "low": i64::MIN,
        "text": "ünïcode \u{0} \"quoted\"",
    }))
    .unwrap();
    let mut item = NewMemory::text("with metadata");
    item.metadata = metadata.clone();
    store.remember(&cx(), &scope(), vec![item, NewMemory::text("without any")]).await.unwrap();
    for question in ["metadata", ""] {
        let found = store.recall(&cx(), &scope(), &Recall::new(question, 9)).await.unwrap();
        assert_eq!(found.iter().find(|r| r.text == "with metadata").unwrap().metadata, metadata);
    }
    let found = store.recall(&cx(), &scope(), &Recall::new("without", 1)).await.unwrap();
    assert!(found[0].metadata.is_empty());
}

/// Texts are not trimmed, normalised or cut.
pub async fn texts_come_back_byte_for_byte(store: impl MemoryStore) {
    let texts =
        ["  padded word  ", "line\r\nword", "word \0 nul", "Zwo\u{308}lf word 👩‍👩‍👧", "word \u{202e}rtl"];
    let ids = learn(&store, &texts).await;
    let found = store.recall(&cx(), &scope(), &Recall::new("word", 99)).await.unwrap();
    assert_eq!(found.len(), texts.len());
    for (id, text) in ids.iter().zip(texts) {
        assert_eq!(found.iter().find(|r| r.id == *id).unwrap().text, text);
    }
}

/// A text of a megabyte is stored whole and found by a word of its end.
pub async fn a_long_text_is_found(store: impl MemoryStore) {
    let mut text: String = (0..).map(|i| format!("word{} ", i % 5000)).take(120_000).collect();
    text.push_str("rosebud");
    assert!(text.len() > 1_000_000);
    learn(&store, &["something else"]).await;
    let ids = learn(&store, &[&text]).await;
    let found = store.recall(&cx(), &scope(), &Recall::new("rosebud", 3)).await.unwrap();
    assert_eq!(found[0].id, ids[0]);
    assert!(found[0].text == text);
}

/// A word of ten thousand letters is a word, and not the same as one that only starts like it.
pub async fn a_very_long_word_is_found(store: impl MemoryStore) {
    let (word, other) = ("x".repeat(10_000), "x".repeat(9_999));
    let ids = learn(&store, &[&format!("before {word} after"), "another"]).await;
    assert_eq!(ask(&store, &word, 9).await, [ids[0]]);
    assert!(!ask(&store, &other, 9).await.contains(&ids[1]));
}

/// A question finds its words in any case, with or without accents.
pub async fn case_and_accents_do_not_matter(store: impl MemoryStore) {
    let ids = learn(&store, &["Meet me at Café Müller", "nothing of it"]).await;
    for question in ["CAFÉ", "cafe", "müller", "Muller", "cafe\u{301}"] {
        assert_eq!(ask(&store, question, 9).await.first(), Some(&ids[0]), "{question}");
    }
}

/// Chinese and Japanese are found though no spaces show where words end.
pub async fn text_without_spaces_is_found(store: impl MemoryStore) {
    let ids = learn(&store, &["我住在北京大学附近", "彼女は東京タワーが好きです", "no such letters"]).await;
    assert_eq!(ask(&store, "北京", 9).await, [ids[0]]);
    assert_eq!(ask(&store, "東京タワー", 9).await.first(), Some(&ids[1]));
}

/// No question is an error, however odd.
pub async fn any_question_has_an_answer(store: impl MemoryStore) {
    learn(&store, &["the cat sat on the mat"]).await;
    let long = "cat ".repeat(50_000);
    for question in ["???", "\0", "\" OR 1=1 --", "*", "🎉", "(", "the", "a AND b", "\u{301}", "'", &long] {
        let found = store.recall(&cx(), &scope(), &Recall::new(question, 3)).await.unwrap();
        assert!(found.len() <= 1, "{question:?}");
    }
    assert_eq!(ask(&store, &long, 3).await.len(), 1);
}

/// What was forgotten is found neither by its words nor among the newest.
pub async fn forgotten_is_forgotten(store: impl MemoryStore) {
    let ids = learn(&store, &["the password is hunter2", "keep this"]).await;
    assert_eq!(store.forget(&cx(), &scope(), &Forget::Ids(vec![ids[0]])).await.unwrap(), 1);
    assert_eq!(ask(&store, "password hunter2", 9).await, []);
    assert_eq!(ask(&store, "", 9).await, [ids[1]]);
}

/// Forgetting again counts nothing, also within one call.
pub async fn forgetting_twice_forgets_once(store: impl MemoryStore) {
    let ids = learn(&store, &["once"]).await;
    let twice = Forget::Ids(vec![ids[0], ids[0]]);
    assert_eq!(store.forget(&cx(), &scope(), &twice).await.unwrap(), 1);
    assert_eq!(store.forget(&cx(), &scope(), &twice).await.unwrap(), 0);
    assert_eq!(store.forget(&cx(), &scope(), &Forget::All).await.unwrap(), 0);
}

/// Ids that were never given out count nothing; an empty list neither.
pub async fn forgetting_a_stranger_forgets_nothing(store: impl MemoryStore) {
    let ids = learn(&store, &["here"]).await;
    let strangers = [0, 1, u128::MAX, ids[0].0 + 1, ids[0].0 ^ (1 << 100)].map(MemoryId);
    assert_eq!(store.forget(&cx(), &scope(), &Forget::Ids(strangers.into())).await.unwrap(), 0);
    assert_eq!(store.forget(&cx(), &scope(), &Forget::Ids(vec![])).await.unwrap(), 0);
    assert_eq!(ask(&store, "here", 9).await, ids);
}

/// Items that share their words with a forgotten one are still found.
pub async fn forgetting_one_spares_the_others(store: impl MemoryStore) {
    let ids = learn(&store, &["red car fast", "red car slow", "red car old"]).await;
    store.forget(&cx(), &scope(), &Forget::Ids(vec![ids[1]])).await.unwrap();
    let found: BTreeSet<_> = ask(&store, "red car", 9).await.into_iter().collect();
    assert_eq!(found, [ids[0], ids[2]].into());
    assert_eq!(ask(&store, "slow", 9).await, []);
}

/// `Forget::All` counts and deletes everything of the scope, which is then as good as new.
pub async fn forgetting_all_empties_the_scope(store: impl MemoryStore) {
    learn(&store, &["one apple", "two apples", "three apples"]).await;
    assert_eq!(store.forget(&cx(), &scope(), &Forget::All).await.unwrap(), 3);
    assert_eq!(ask(&store, "", 9).await, []);
    assert_eq!(ask(&store, "apple", 9).await, []);
    let ids = learn(&store, &["four apples"]).await;
    assert_eq!(ask(&store, "apple", 9).await, ids);
}

/// No id comes again after its item was forgotten; new ones are greater.
pub async fn ids_are_not_used_again(store: impl MemoryStore) {
    let mut seen = BTreeSet::new();
    for round in 0..6 {
        let ids = learn(&store, &["same", "again"]).await;
        for id in &ids {
            assert!(seen.last().is_none_or(|last| last < id), "round {round}");
            seen.insert(*id);
        }
        let what = if round % 2 == 0 { Forget::All } else { Forget::Ids(ids) };
        assert_eq!(store.forget(&cx(), &scope(), &what).await.unwrap(), 2);
    }
}

/// The text of a forgotten item can be remembered anew.
pub async fn a_forgotten_fact_can_be_learnt_again(store: impl MemoryStore) {
    let old = learn(&store, &["the moon is round"]).await;
    store.forget(&cx(), &scope(), &Forget::Ids(old.clone())).await.unwrap();
    let new = learn(&store, &["the moon is round"]).await;
    assert_ne!(new, old);
    assert_eq!(ask(&store, "moon", 9).await, new);
}

/// A wall clock that jumps back makes no id smaller and no list out of order.
pub async fn ids_grow_though_the_clock_goes_back(store: impl MemoryStore) {
    let clock = crate::VirtualClock::at(1_700_000_000_000);
    let cx = Cx::new("law").with_clock(Arc::new(clock.clone()));
    let mut ids = vec![];
    for jump in [0, 5, -3_600_000, -1_700_000_000_000, -5, 1_800_000_000_000] {
        clock.jump(jump);
        let item = NewMemory::text(format!("moment {}", ids.len()));
        ids.extend(store.remember(&cx, &scope(), vec![item]).await.unwrap());
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    ids.reverse();
    assert_eq!(ask(&store, "", 9).await, ids);
}

/// `at` is the wall clock of the context when the item was stored.
pub async fn items_carry_the_time_of_the_clock(store: impl MemoryStore) {
    let clock = crate::VirtualClock::at(1_234_567_890_123);
    let cx = Cx::new("law").with_clock(Arc::new(clock.clone()));
    store.remember(&cx, &scope(), vec![NewMemory::text("early")]).await.unwrap();
    clock.advance(Duration::from_secs(60));
    store.remember(&cx, &scope(), vec![NewMemory::text("late")]).await.unwrap();
    let found = store.recall(&cx, &scope(), &Recall::newest(2)).await.unwrap();
    assert_eq!((found[0].at.0, found[1].at.0), (1_234_567_950_123, 1_234_567_890_123));
}

/// A cancelled context fails every call with `Cancelled` and changes nothing.
pub async fn a_cancelled_call_changes_nothing(store: impl MemoryStore) {
    let ids = learn(&store, &["stay"]).await;
    let cx = cx();
    cx.cancel().cancel();
    let e = store.remember(&cx, &scope(), vec![NewMemory::text("too late")]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Cancelled);
    let e = store.forget(&cx, &scope(), &Forget::All).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Cancelled);
    let e = store.recall(&cx, &scope(), &Recall::newest(1)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Cancelled);
    assert_eq!(ask(&store, "", 9).await, ids);
}

/// A context past its deadline fails with `Timeout`.
pub async fn a_late_call_is_refused(store: impl MemoryStore) {
    let cx = cx().with_timeout(Duration::ZERO);
    let e = store.remember(&cx, &scope(), vec![NewMemory::text("late")]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout);
    assert_eq!(ask(&store, "", 9).await, []);
}

/// Calls at the same time all take effect, each with ids of its own.
pub async fn many_may_remember_at_once(store: impl MemoryStore) {
    let store = Arc::new(store);
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(
                async move { learn(&*store, &[&format!("common unique{i}"), &format!("pair{i}")]).await },
            )
        })
        .collect();
    let mut all = BTreeSet::new();
    for task in tasks {
        let ids = task.await.unwrap();
        assert!(ids[0] < ids[1]);
        all.extend(ids);
    }
    assert_eq!(all.len(), 80);
    assert_eq!(ask(&*store, "common", 99).await.len(), 40);
    assert_eq!(ask(&*store, "unique7", 99).await.len(), 1);
    assert_eq!(ask(&*store, "", 99).await.into_iter().collect::<BTreeSet<_>>(), all);
}

/// Behind `Arc<dyn MemoryStore>` it is the same store.
pub async fn a_shared_store_is_the_store(store: impl MemoryStore) {
    let shared: Arc<dyn MemoryStore> = Arc::new(store);
    let ids = learn(&shared.clone(), &["shared"]).await;
    assert_eq!(ask(&shared, "shared", 1).await, ids);
    assert!(!format!("{shared:?}").is_empty());
}
