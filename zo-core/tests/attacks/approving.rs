//! Runs that wait for an approval: neither a question, a dropped resume nor the moment of the decision loses one.

use crate::common::{Till, calls_once, left_in, polled, within, zo};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use zo_core::{Ask, Cursor, Cx, ErrorKind, Permissions, RunEvent, Zo, permission::Rule};

/// An agent that asks before it pays, and pays once for each "go".
async fn careful(dir: &Path, till: &Till) -> Zo {
    let asks = Permissions::default().rule(Rule::ask().tool("pay"));
    zo(calls_once("pay"), dir).permissions(asks).skill(till.pay()).build().await.unwrap()
}

#[tokio::test]
async fn a_dropped_resume_of_a_parked_run_does_not_lay_it_open_to_the_next_question() {
    let dir = tempfile::tempdir().unwrap();
    let zo = careful(dir.path(), &Till::default()).await;
    for polls in 1..20 {
        let c = format!("c{polls}");
        let run = zo.ask(&c, "go").await.unwrap().run;
        if let Some(again) = polled(zo.resume(&run).reply(), polls).await {
            assert!(again.unwrap().is_parked());
        }
        let waits = || zo.approvals().unwrap().iter().any(|a| a.run == run.as_str());
        assert!(waits(), "{polls} polls");
        let refused = zo.ask(&c, "other").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{polls} polls: {refused}");
        assert!(waits(), "{polls} polls, after the question");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_decision_that_comes_while_a_run_parks_is_acted_upon() {
    let dir = tempfile::tempdir().unwrap();
    let zo = careful(dir.path(), &Till::default()).await;
    for round in 0..120_u64 {
        let agent = zo.spawn(&Cx::new(""), Ask::new(format!("c{round}"), "go")).await.unwrap();
        let mut events = agent.events(Cursor::start());
        let approval = loop {
            match within(events.next()).await {
                Some(Ok(RunEvent::Approval(approval))) => break approval,
                Some(Ok(RunEvent::Done(reply))) => break reply.approvals[0].clone(),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        // Before, while and after it parks.
        let then = Instant::now() + Duration::from_micros(round * 137 % 6_000);
        while Instant::now() < then {
            tokio::task::yield_now().await;
        }
        let run = zo.approve(&approval, "ada").await.unwrap();
        let reply = match within(zo.resume(&run).reply()).await {
            // Under way, so it goes on by itself.
            Err(e) if e.kind() == ErrorKind::Conflict => within(agent.reply()).await.unwrap(),
            other => other.unwrap(),
        };
        assert!(!reply.is_parked(), "round {round}: approved, and waits");
    }
}

#[tokio::test]
async fn what_was_approved_is_not_thrown_away_by_the_next_question() {
    let dir = tempfile::tempdir().unwrap();
    let till = Till::default();
    let zo = careful(dir.path(), &till).await;
    let reply = zo.ask("c", "go").await.unwrap();
    let run = zo.approve(&reply.approvals[0], "ada").await.unwrap();
    let refused = zo.ask("c", "other").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(left_in(&zo, "c")[0].run, run);
    assert!(!within(zo.resume(&run).reply()).await.unwrap().is_parked());
    assert_eq!(till.paid(""), 1);
}
