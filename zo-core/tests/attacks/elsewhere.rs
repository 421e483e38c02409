//! A transcript that the host keeps elsewhere, and that fails in the ways of a service: after the fact, with the wrong error,
//! or to be read at all.

use crate::common::{calls_once, hang, interrupted, left_in, reopened, texts, within, zo};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::SeqCst},
};
use zo_core::{Cx, Error, ErrorKind, Message, Result, Transcript, async_trait, memory::RamTranscript};
use zo_testkit::{Scripted, Turn};

#[derive(Debug, Default)]
struct Elsewhere {
    log: RamTranscript,
    /// How the next append fails, and whether after it took effect.
    fail: Mutex<Option<(ErrorKind, bool)>>,
    unreadable: AtomicBool,
}

impl Elsewhere {
    fn fail_next(&self, kind: ErrorKind, took_effect: bool) {
        *self.fail.lock().unwrap() = Some((kind, took_effect));
    }
}

#[async_trait]
impl Transcript for Elsewhere {
    async fn append(&self, cx: &Cx, c: &str, at: Option<u64>, messages: &[Message]) -> Result<u64> {
        let fail = self.fail.lock().unwrap().take();
        match fail {
            None => self.log.append(cx, c, at, messages).await,
            Some((kind, took_effect)) => {
                if took_effect {
                    self.log.append(cx, c, at, messages).await?;
                }
                Err(Error::new(kind, "elsewhere", format_args!("failed, having taken effect: {took_effect}")))
            }
        }
    }

    async fn read(&self, cx: &Cx, c: &str, from: u64, limit: usize) -> Result<Vec<Message>> {
        if self.unreadable.load(SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "elsewhere", "down"));
        }
        self.log.read(cx, c, from, limit).await
    }

    async fn len(&self, cx: &Cx, c: &str) -> Result<u64> {
        self.log.len(cx, c).await
    }

    async fn conversations(&self, cx: &Cx, after: Option<&str>, n: usize) -> Result<Vec<String>> {
        self.log.conversations(cx, after, n).await
    }

    async fn delete(&self, cx: &Cx, c: &str) -> Result<bool> {
        self.log.delete(cx, c).await
    }
}

#[tokio::test]
async fn an_append_that_took_effect_and_failed_for_good_is_not_made_twice() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Arc::new(Elsewhere::default());
    elsewhere.fail_next(ErrorKind::Unauthorized, true);
    let model = Scripted::by(|_| Turn::text("a"));
    let zo = zo(model, dir.path()).transcript(elsewhere.clone()).build().await.unwrap();
    if zo.ask("c", "q").await.is_err() {
        for u in zo.unfinished().unwrap() {
            within(zo.resume(&u.run).reply()).await.unwrap();
        }
    }
    assert_eq!(texts(&zo, "c").await, ["q", "a"]);
}

#[tokio::test]
async fn a_conflict_elsewhere_makes_no_run_vanish() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Arc::new(Elsewhere::default());
    let zo = zo(calls_once("look"), dir.path()).transcript(elsewhere.clone()).skill(hang("look"));
    let zo = zo.build().await.unwrap();
    let run = interrupted(&zo, "c").await;
    // Somebody else appended between the look at the length and the append: once.
    elsewhere.fail_next(ErrorKind::Conflict, false);
    let later = zo.ask("c", "later?").await;
    let history = texts(&zo, "c").await;
    assert!(
        history.iter().any(|t| t == "go") || left_in(&zo, "c").iter().any(|u| u.run == run),
        "neither in the conversation nor unfinished: {history:?} {later:?}"
    );
}

#[tokio::test]
async fn an_agent_starts_although_a_run_cannot_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Arc::new(Elsewhere::default());
    let make = || zo(calls_once("look"), dir.path()).transcript(elsewhere.clone());
    let first = make().skill(hang("look")).build().await.unwrap();
    first.ask("c", "warm").await.unwrap();
    let run = interrupted(&first, "c").await;
    drop(first);
    elsewhere.unreadable.store(true, SeqCst);
    let zo = reopened(|| make().resume_on_start(true)).await;
    assert_eq!(left_in(&zo, "c")[0].run, run);
}
