//! Drops `ask`, `resume` and `abandon` after every number of polls, and looks at what is left: a host does that all the time,
//! with timeouts, disconnects and `select!`.

#![cfg(feature = "memory")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::json;
use std::{
    collections::HashMap,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use zo_core::{Effect, Message, Role, ToolStatus, Zo};
use zo_testkit::{Scripted, Turn, polled, tool};

static PAID: AtomicU32 = AtomicU32::new(0);

async fn open(dir: &Path) -> Zo {
    let model = Scripted::by_unrecorded(|r| {
        let asked = r.messages.iter().rposition(|m| m.role == Role::User).unwrap();
        match r.messages[asked..].iter().any(|m| m.role == Role::Tool) {
            false => Turn::calls([("p", "pay", json!({}))]),
            true => Turn::text(&format!("answer to {}", r.messages[asked].to_text())),
        }
    });
    let pay = tool("pay", |_, _| async {
        PAID.fetch_add(1, Ordering::SeqCst);
        Ok("paid".into())
    });
    let pay = pay.effect(Effect::AtMostOnce);
    Zo::builder().provider(model).file(dir.join("z")).recall_limit(0).skill(pay).build().await.unwrap()
}

fn count(history: &[Message]) -> HashMap<String, u32> {
    let mut all = HashMap::new();
    for m in history.iter().filter(|m| matches!(m.role, Role::User | Role::Assistant)) {
        *all.entry(m.to_text()).or_default() += 1;
    }
    all
}

/// The questions in the order in which they were asked, each once, with valid pairs; no payment made twice or told as not
/// made.
fn check(history: &[Message], asked: &[String], what: &str) {
    let questions: Vec<String> =
        history.iter().filter(|m| m.role == Role::User).map(Message::to_text).collect();
    let expected: Vec<&String> = asked.iter().filter(|q| questions.contains(q)).collect();
    assert_eq!(questions.iter().collect::<Vec<_>>(), expected, "{what}: order or number of questions");
    for (text, n) in count(history) {
        assert!(n == 1 || text.is_empty(), "{what}: {text:?} is there {n} times");
    }
    for (i, m) in history.iter().enumerate() {
        let calls: Vec<_> = m.tool_calls().map(|c| &c.id).collect();
        if !calls.is_empty() {
            assert_eq!(history[i + 1].results().map(|r| &r.id).collect::<Vec<_>>(), calls, "{what}");
        }
    }
}

#[tokio::test]
async fn dropped_asks_neither_brick_nor_double_nor_reorder() {
    let dir = tempfile::tempdir().unwrap();
    let zo = open(dir.path()).await;
    for n in 1..40 {
        // The writer thread may be anywhere when the drop comes.
        for wait in [0, 300, 1_500] {
            let c = format!("c{n}/{wait}");
            let mut asked = vec![format!("first {c}")];
            let dropped = polled(zo.ask(&c, &asked[0]), n).await;
            if wait > 0 {
                tokio::time::sleep(Duration::from_micros(wait)).await;
            }
            for i in 0..2 {
                asked.push(format!("later {i} {c}"));
                let reply = zo.ask(&c, &asked[i + 1]).await.unwrap();
                assert_eq!(reply.text, format!("answer to later {i} {c}"));
            }
            let history = zo.history(&c).await.unwrap();
            check(&history, &asked, &c);
            if dropped.is_some() {
                assert!(history.iter().any(|m| m.to_text() == format!("answer to first {c}")));
            }
        }
    }
    assert!(zo.unfinished().unwrap().is_empty());
    let paid = u32::try_from(
        [zo.transcript().unwrap().conversations(&zo_core::Cx::default(), None, 1_000).await.unwrap()]
            .concat()
            .len(),
    )
    .unwrap();
    assert!(PAID.load(Ordering::SeqCst) >= paid * 2);
    // And again from the disk.
    drop(zo);
    let zo = open(dir.path()).await;
    assert!(zo.unfinished().unwrap().is_empty(), "a run came back from the dead");
}

#[tokio::test]
async fn dropped_resumes_and_abandons_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let zo = open(dir.path()).await;
    for n in 1..30 {
        for abandon in [false, true] {
            let c = format!("c{n}/{abandon}");
            let asked = [format!("first {c}"), format!("later {c}")];
            // Far enough for the payment to be in flight or done, not far enough for the end.
            if polled(zo.ask(&c, &asked[0]), 6).await.is_some() {
                continue;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
            let Some(run) = zo.unfinished().unwrap().into_iter().find(|u| u.conversation == c) else {
                continue;
            };
            if abandon {
                let _ = polled(zo.abandon(&run.run), n).await;
            } else {
                let _ = polled(zo.resume(&run.run).reply(), n).await;
            }
            zo.ask(&c, &asked[1]).await.unwrap();
            let history = zo.history(&c).await.unwrap();
            check(&history, &asked, &c);
            assert_eq!(count(&history).get(&asked[0]), Some(&1), "{c}: the interrupted question is lost");
            let first: Vec<_> =
                history.iter().take_while(|m| m.to_text() != asked[1]).flat_map(|m| m.results()).collect();
            assert!(
                first.iter().all(|r| r.status != ToolStatus::Cancelled || run.unknown.is_empty()),
                "{first:?}"
            );
        }
    }
    assert!(zo.unfinished().unwrap().is_empty());
}
