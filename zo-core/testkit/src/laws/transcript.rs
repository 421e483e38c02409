//! Laws of [`zo_traits::Transcript`]. Each takes an empty one.

use serde_json::json;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use zo_traits::{
    Cx, ErrorKind, Media, MediaSource, Message, Part, Replay, Role, ToolCall, ToolResult, ToolStatus,
    Transcript,
};

/// Makes a `#[test]` of each law; the expression is a future of an empty [`Transcript`].
///
/// ```ignore
/// zo_testkit::transcript_laws!(async { RamTranscript::default() });
/// ```
#[macro_export]
macro_rules! transcript_laws {
    ($make:expr) => {
        $crate::__laws!(
            transcript,
            $make;
            what_does_not_exist_is_empty,
            messages_come_back_in_order,
            every_kind_of_message_comes_back_as_it_was,
            an_append_returns_the_new_length,
            appending_nothing_changes_nothing,
            a_page_is_what_was_asked_for,
            an_append_at_the_length_goes_through,
            an_append_elsewhere_is_a_conflict,
            trying_an_append_again_does_not_double_it,
            of_two_appends_at_one_place_one_wins,
            conversations_are_apart,
            conversations_are_listed_in_byte_order,
            every_text_is_a_name,
            a_deleted_conversation_is_gone,
            a_deleted_conversation_can_begin_anew,
            a_large_message_comes_back_whole,
            whole_appends_are_seen_or_none,
            many_appends_at_once_all_count,
            a_cancelled_append_changes_nothing,
            a_late_call_is_refused,
            a_shared_transcript_is_the_transcript,
        );
    };
}

fn cx() -> Cx {
    Cx::new("law")
}

fn said(texts: &[&str]) -> Vec<Message> {
    texts.iter().map(|t| Message::user(*t)).collect()
}

async fn all(transcript: &impl Transcript, conversation: &str) -> Vec<Message> {
    transcript.read(&cx(), conversation, 0, usize::MAX).await.unwrap()
}

/// A conversation that was never written to has length 0, no messages and is in no list.
pub async fn what_does_not_exist_is_empty(t: impl Transcript) {
    assert_eq!(t.len(&cx(), "c").await.unwrap(), 0);
    assert_eq!(t.read(&cx(), "c", 0, 9).await.unwrap(), []);
    assert_eq!(t.read(&cx(), "c", u64::MAX, 9).await.unwrap(), []);
    assert!(t.conversations(&cx(), None, 9).await.unwrap().is_empty());
    assert!(!t.delete(&cx(), "c").await.unwrap());
}

/// Messages are read in the order in which they were appended, over several appends.
pub async fn messages_come_back_in_order(t: impl Transcript) {
    let mut expected = vec![];
    for i in 0..20 {
        let messages: Vec<_> = (0..=i % 3).map(|j| Message::assistant(format!("{i}.{j}"))).collect();
        t.append(&cx(), "c", None, &messages).await.unwrap();
        expected.extend(messages);
    }
    assert_eq!(all(&t, "c").await, expected);
}

/// Roles, parts, tool calls, media, opaque and unknown parts survive unchanged.
pub async fn every_kind_of_message_comes_back_as_it_was(t: impl Transcript) {
    let mut call = ToolCall::new("call-1", "search", json!({"q": "x", "n": [1, null, {"deep": 2.5}]}));
    call.replay = Some(Replay::new("anthropic", json!({"signature": "abc=="})));
    let mut result = ToolResult::new(&call, ToolStatus::Unknown, "maybe");
    let image = Media {
        media_type: "image/png".into(),
        source: MediaSource::Base64("aGk=".into()),
        name: Some("a.png".into()),
    };
    result.media.push(image.clone());
    let messages = vec![
        Message::system("rules \0 and ünïcode"),
        Message {
            role: Role::Assistant,
            parts: vec![
                Part::Reasoning(zo_traits::Text::new("")),
                Part::text("text"),
                Part::Refusal(zo_traits::Text::new("no")),
                Part::ToolCall(call),
                Part::Opaque(Replay::new("openai", json!([1, 2]))),
            ],
        },
        Message::tool_results([result]),
        Message {
            role: Role::Other("narrator".into()),
            parts: vec![Part::Media(image), Part::Unknown(json!({"type": "hologram", "x": 1}))],
        },
        Message { role: Role::User, parts: vec![] },
    ];
    t.append(&cx(), "c", None, &messages).await.unwrap();
    assert_eq!(all(&t, "c").await, messages);
}

/// `append` returns the length after it, and `len` agrees.
pub async fn an_append_returns_the_new_length(t: impl Transcript) {
    assert_eq!(t.append(&cx(), "c", None, &said(&["a", "b"])).await.unwrap(), 2);
    assert_eq!(t.append(&cx(), "c", None, &said(&["c"])).await.unwrap(), 3);
    assert_eq!(t.len(&cx(), "c").await.unwrap(), 3);
}

/// An empty append returns the length and makes no conversation.
pub async fn appending_nothing_changes_nothing(t: impl Transcript) {
    assert_eq!(t.append(&cx(), "c", None, &[]).await.unwrap(), 0);
    assert!(t.conversations(&cx(), None, 9).await.unwrap().is_empty());
    t.append(&cx(), "c", None, &said(&["a"])).await.unwrap();
    assert_eq!(t.append(&cx(), "c", Some(1), &[]).await.unwrap(), 1);
    assert_eq!(t.append(&cx(), "c", Some(0), &[]).await.unwrap_err().kind(), ErrorKind::Conflict);
}

/// `read` gives `limit` messages from `from` on, fewer at the end, none past it.
pub async fn a_page_is_what_was_asked_for(t: impl Transcript) {
    let messages: Vec<_> = (0..300).map(|i| Message::user(format!("m{i}"))).collect();
    t.append(&cx(), "c", None, &messages).await.unwrap();
    for (from, limit) in [(0, 1), (0, 300), (255, 3), (256, 10), (299, 5), (298, usize::MAX), (10, 0)] {
        let end = messages.len().min(from + limit.min(1000));
        let page = t.read(&cx(), "c", from as u64, limit).await.unwrap();
        assert_eq!(page, messages[from..end], "{from} {limit}");
    }
    assert_eq!(t.read(&cx(), "c", 300, 5).await.unwrap(), []);
    assert_eq!(t.read(&cx(), "c", u64::MAX, usize::MAX).await.unwrap(), []);
}

/// With `at` equal to the length the append takes place.
pub async fn an_append_at_the_length_goes_through(t: impl Transcript) {
    assert_eq!(t.append(&cx(), "c", Some(0), &said(&["a"])).await.unwrap(), 1);
    assert_eq!(t.append(&cx(), "c", Some(1), &said(&["b", "c"])).await.unwrap(), 3);
    assert_eq!(all(&t, "c").await, said(&["a", "b", "c"]));
}

/// With `at` different from the length it is a `Conflict`, and nothing is appended.
pub async fn an_append_elsewhere_is_a_conflict(t: impl Transcript) {
    assert_eq!(t.append(&cx(), "c", Some(1), &said(&["x"])).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(t.conversations(&cx(), None, 9).await.unwrap().is_empty());
    t.append(&cx(), "c", None, &said(&["a", "b"])).await.unwrap();
    for at in [0, 1, 3, u64::MAX] {
        let e = t.append(&cx(), "c", Some(at), &said(&["x"])).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Conflict, "{at}");
    }
    assert_eq!(all(&t, "c").await, said(&["a", "b"]));
}

/// An append with `at` that is tried again leaves its messages there once.
pub async fn trying_an_append_again_does_not_double_it(t: impl Transcript) {
    t.append(&cx(), "c", Some(0), &said(&["a"])).await.unwrap();
    for _ in 0..3 {
        assert!(t.append(&cx(), "c", Some(0), &said(&["a"])).await.is_err());
    }
    assert_eq!(all(&t, "c").await, said(&["a"]));
}

/// Of appends at the same place at the same time exactly one takes place.
pub async fn of_two_appends_at_one_place_one_wins(t: impl Transcript) {
    let t = Arc::new(t);
    for round in 0..10u64 {
        let tasks: Vec<_> = (0..8)
            .map(|i| {
                let t = t.clone();
                tokio::spawn(async move {
                    t.append(&cx(), "c", Some(round), &[Message::user(format!("{i}"))]).await
                })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(len) => {
                    assert_eq!(len, round + 1);
                    won += 1;
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict),
            }
        }
        assert_eq!(won, 1);
    }
    assert_eq!(t.len(&cx(), "c").await.unwrap(), 10);
}

/// No conversation shows messages of another, not even when their names look alike.
pub async fn conversations_are_apart(t: impl Transcript) {
    let names = ["a", "ab", "a\0", "a\0b", "a\u{1}", "A", "a ", ""];
    for name in names {
        t.append(&cx(), name, Some(0), &said(&[name, "second"])).await.unwrap();
    }
    for name in names {
        assert_eq!(all(&t, name).await, said(&[name, "second"]));
    }
    t.delete(&cx(), "a").await.unwrap();
    for name in &names[1..] {
        assert_eq!(t.len(&cx(), name).await.unwrap(), 2, "{name:?}");
        assert_eq!(all(&t, name).await.len(), 2, "{name:?}");
    }
}

/// Names list in byte order, in pages, each once.
pub async fn conversations_are_listed_in_byte_order(t: impl Transcript) {
    let mut names: Vec<String> =
        ["b", "a", "a\0", "aa", "Z", "é", "z", "日", "10", "9"].map(String::from).into();
    for name in &names {
        t.append(&cx(), name, None, &said(&["x"])).await.unwrap();
        t.append(&cx(), name, None, &said(&["y"])).await.unwrap();
    }
    names.sort();
    assert_eq!(t.conversations(&cx(), None, usize::MAX).await.unwrap(), names);
    let mut paged: Vec<String> = vec![];
    loop {
        let page = t.conversations(&cx(), paged.last().map(String::as_str), 3).await.unwrap();
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, names);
    assert_eq!(
        t.conversations(&cx(), Some("aaa"), 1).await.unwrap(),
        ["b"],
        "after a name that is not there"
    );
    assert!(t.conversations(&cx(), None, 0).await.unwrap().is_empty());
}

/// Any text names a conversation.
pub async fn every_text_is_a_name(t: impl Transcript) {
    let long = "long ".repeat(5000);
    for name in ["", "\0", "\u{10ffff}", "a/b/../c", "🎉", &long] {
        t.append(&cx(), name, None, &said(&["x"])).await.unwrap();
        assert_eq!(t.len(&cx(), name).await.unwrap(), 1);
    }
    assert_eq!(t.conversations(&cx(), None, 99).await.unwrap().len(), 6);
}

/// After `delete`, which says whether there was one, nothing is left.
pub async fn a_deleted_conversation_is_gone(t: impl Transcript) {
    t.append(&cx(), "c", None, &said(&["a", "b"])).await.unwrap();
    assert!(t.delete(&cx(), "c").await.unwrap());
    assert!(!t.delete(&cx(), "c").await.unwrap());
    what_does_not_exist_is_empty(t).await;
}

/// A deleted conversation that is written to again starts at 0 without its past.
pub async fn a_deleted_conversation_can_begin_anew(t: impl Transcript) {
    t.append(&cx(), "c", None, &said(&["a", "b", "c"])).await.unwrap();
    t.delete(&cx(), "c").await.unwrap();
    assert_eq!(t.append(&cx(), "c", Some(0), &said(&["new"])).await.unwrap(), 1);
    assert_eq!(all(&t, "c").await, said(&["new"]));
}

/// A message of two megabytes comes back whole.
pub async fn a_large_message_comes_back_whole(t: impl Transcript) {
    let message = Message::user("0123456789abcdef \"\\\n".repeat(100_000));
    t.append(&cx(), "c", None, &[Message::user("before"), message.clone()]).await.unwrap();
    assert!(t.read(&cx(), "c", 1, 1).await.unwrap()[0] == message);
}

/// A reader never sees part of an append, and sees appends in order.
pub async fn whole_appends_are_seen_or_none(t: impl Transcript) {
    let t = Arc::new(t);
    let writer = {
        let t = t.clone();
        tokio::spawn(async move {
            for i in 0..60 {
                let three: Vec<_> = (0..3).map(|_| Message::user(format!("{i}"))).collect();
                t.append(&cx(), "c", None, &three).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    let mut seen = 0;
    while !writer.is_finished() {
        let len = t.len(&cx(), "c").await.unwrap();
        let messages = all(&*t, "c").await;
        assert!(len % 3 == 0 && messages.len() % 3 == 0, "part of an append was seen");
        assert!(messages.len() as u64 >= len && messages.len() >= seen, "an append went away");
        for (i, message) in messages.iter().enumerate() {
            assert_eq!(message.to_text(), (i / 3).to_string());
        }
        seen = messages.len();
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert_eq!(all(&*t, "c").await.len(), 180);
}

/// Appends at the same time all take place, each as a whole, with a length of its own.
pub async fn many_appends_at_once_all_count(t: impl Transcript) {
    let t = Arc::new(t);
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let t = t.clone();
            tokio::spawn(async move {
                let pair = [Message::user(format!("{i}")), Message::assistant(format!("{i}"))];
                t.append(&cx(), "c", None, &pair).await.unwrap()
            })
        })
        .collect();
    let mut lengths = BTreeSet::new();
    for task in tasks {
        lengths.insert(task.await.unwrap());
    }
    assert_eq!(lengths, (1..=40).map(|n| 2 * n).collect());
    for pair in all(&*t, "c").await.chunks(2) {
        assert_eq!(pair[0].to_text(), pair[1].to_text(), "two appends were mixed");
    }
}

/// A cancelled context fails every call with `Cancelled` and changes nothing.
pub async fn a_cancelled_append_changes_nothing(t: impl Transcript) {
    t.append(&cx(), "c", None, &said(&["a"])).await.unwrap();
    let cancelled = cx();
    cancelled.cancel().cancel();
    let kinds = [
        t.append(&cancelled, "c", None, &said(&["b"])).await.unwrap_err().kind(),
        t.read(&cancelled, "c", 0, 9).await.unwrap_err().kind(),
        t.len(&cancelled, "c").await.unwrap_err().kind(),
        t.conversations(&cancelled, None, 9).await.unwrap_err().kind(),
        t.delete(&cancelled, "c").await.unwrap_err().kind(),
    ];
    assert!(kinds.iter().all(|k| *k == ErrorKind::Cancelled), "{kinds:?}");
    assert_eq!(all(&t, "c").await, said(&["a"]));
}

/// A context past its deadline fails with `Timeout`.
pub async fn a_late_call_is_refused(t: impl Transcript) {
    let late = cx().with_timeout(Duration::ZERO);
    assert_eq!(t.append(&late, "c", None, &said(&["b"])).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(t.len(&cx(), "c").await.unwrap(), 0);
}

/// Behind `Arc<dyn Transcript>` it is the same transcript.
pub async fn a_shared_transcript_is_the_transcript(t: impl Transcript) {
    let shared: Arc<dyn Transcript> = Arc::new(t);
    shared.clone().append(&cx(), "c", None, &said(&["a"])).await.unwrap();
    assert_eq!(all(&shared, "c").await, said(&["a"]));
    assert!(!format!("{shared:?}").is_empty());
}
