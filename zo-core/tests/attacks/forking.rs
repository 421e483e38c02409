//! Forks: there or not there, whatever comes between.

use crate::{
    common::{calls_once, left_in, look, polled, texts, within, zo},
    saying::say_beside,
};
use std::{path::Path, time::Duration};
use zo_core::{ErrorKind, RunId, Zo};

/// An agent, and the last of so many runs of it that looked and answered.
async fn looked(dir: &Path, times: usize) -> (Zo, RunId) {
    let zo = zo(calls_once("look"), dir).skill(look()).build().await.unwrap();
    for _ in 1..times {
        zo.ask("c", "go").await.unwrap();
    }
    let run = zo.ask("c", "go").await.unwrap().run;
    (zo, run)
}

#[tokio::test]
async fn a_second_fork_into_a_conversation_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let (zo, run) = looked(dir.path(), 1).await;
    // Nothing was said before the run, so only the fork itself is in the way of another.
    let fork = zo.fork(&run, 1, "f").await.unwrap();
    assert_eq!(zo.fork(&run, 1, "f").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(left_in(&zo, "f").iter().map(|u| &u.run).collect::<Vec<_>>(), [&fork]);
}

#[tokio::test]
async fn what_is_said_while_a_fork_is_planted_does_not_destroy_it() {
    let dir = tempfile::tempdir().unwrap();
    let (zo, run) = looked(dir.path(), 1).await;
    let (fork, said) = say_beside(&zo, "f", "milk", zo.fork(&run, 1, "f")).await;
    within(zo.resume(&fork.unwrap()).reply()).await.unwrap();
    let history = texts(&zo, "f").await;
    assert_eq!(history.iter().filter(|t| *t == "milk").count(), usize::from(said), "{history:?}");
}

#[tokio::test]
async fn a_dropped_fork_can_be_made_again_or_is_there_to_be_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (zo, run) = looked(dir.path(), 2).await;
    let original = texts(&zo, "c").await;
    for polls in 1..15 {
        for (wait, abandon) in [(0, false), (2, false), (0, true), (2, true)] {
            let f = format!("f{polls}/{wait}/{abandon}");
            let made = polled(zo.fork(&run, 1, &f), polls).await;
            tokio::time::sleep(Duration::from_millis(wait)).await;
            match (made, zo.fork(&run, 1, &f).await) {
                (None, Ok(_)) => {}
                (_, Err(e)) => assert_eq!(e.kind(), ErrorKind::Conflict, "{f}: {e}"),
                (Some(_), Ok(again)) => panic!("{f}: made twice: {again}"),
            }
            let left = left_in(&zo, &f);
            assert_eq!(left.len(), 1, "{f}: {left:?}");
            if abandon {
                zo.abandon(&left[0].run).await.unwrap();
                assert_eq!(zo.ask(&f, "other").await.unwrap().text, "ok", "{f}");
            } else {
                within(zo.resume(&left[0].run).reply()).await.unwrap();
                assert_eq!(texts(&zo, &f).await, original, "{f}");
            }
            assert!(zo.unfinished().unwrap().is_empty(), "{f}");
        }
    }
}
