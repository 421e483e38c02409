//! Runs and their sub-agents: a child does its work once, whichever of the two is dropped, resumed, parked, cancelled or
//! given up, and it leaves with its parent.

use crate::common::{Gate, Till, look, poll_once, reopened, until, within, zo};
use serde_json::json;
use std::time::Duration;
use zo_core::{Ask, Cx, Effect, ErrorKind, Permissions, Persona, Request, Role, permission::Rule};
use zo_testkit::{Scripted, Turn, tool};

fn buyer() -> Persona {
    Persona::new("buyer", "You buy things.").description("Buys what you name")
}

fn asks_before_pay() -> Permissions {
    Permissions::default().rule(Rule::ask().tool("pay"))
}

/// The next turn of a parent that has whatever begins with "lamp" bought by a sub-agent, or of the sub-agent, which calls
/// `steps` one after the other and then says `last`.
fn next(r: &Request, steps: &[&str], last: &str) -> Turn {
    let child = r.messages.iter().any(|m| m.to_text() == "You buy things.");
    let at = r.messages.iter().rposition(|m| m.role == Role::User).unwrap();
    let what = r.messages[at].to_text();
    let done = r.messages[at..].iter().filter(|m| m.role == Role::Tool).count();
    match (child, done) {
        (false, 0) if what.starts_with("lamp") => Turn::calls([("1", "ask_buyer", json!({"task": what}))]),
        (false, _) => Turn::text("ok"),
        (true, n) if n < steps.len() => Turn::calls([(&n.to_string(), steps[n], json!({"for": what}))]),
        (true, _) => Turn::text(last),
    }
}

fn trade(steps: &'static [&'static str], last: &'static str) -> Scripted {
    Scripted::by_unrecorded(move |r| next(r, steps, last))
}

#[tokio::test]
async fn a_question_to_a_parent_whose_child_waits_is_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let till = Till::default();
    let zo = zo(trade(&["pay"], "bought"), dir.path()).permissions(asks_before_pay());
    let zo = zo.persona(buyer()).skill(till.pay()).build().await.unwrap();
    assert!(zo.ask("c", "lamp").await.unwrap().is_parked());
    assert_eq!(zo.ask("c", "other").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(zo.unfinished().unwrap().len(), 2);
    assert_eq!(zo.approvals().unwrap().len(), 1);
}

#[tokio::test]
async fn a_cancelled_parent_takes_its_child_along() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Gate::shut();
    let zo = zo(trade(&["pay"], "bought"), dir.path()).persona(buyer());
    let zo = zo.skill(gate.tool("pay").effect(Effect::AtMostOnce)).build().await.unwrap();
    let agent = zo.spawn(&Cx::new(""), Ask::new("c", "lamp")).await.unwrap();
    gate.reached(1).await;
    agent.cancel();
    assert_eq!(within(agent.reply()).await.unwrap_err().kind(), ErrorKind::Cancelled);
    until(|| zo.unfinished().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_parent_that_is_given_up_takes_its_waiting_child_along() {
    let dir = tempfile::tempdir().unwrap();
    let till = Till::default();
    let zo = zo(trade(&["pay"], "bought"), dir.path()).permissions(asks_before_pay());
    let zo = zo.persona(buyer()).skill(till.pay()).build().await.unwrap();
    let reply = zo.ask("c", "lamp").await.unwrap();
    assert!(reply.is_parked());
    zo.abandon(&reply.run).await.unwrap();
    let (left, waiting) = (zo.unfinished().unwrap(), zo.approvals().unwrap());
    assert!(left.is_empty() && waiting.is_empty(), "{left:#?} {waiting:?}");
    assert_eq!(till.paid("lamp"), 0);
}

#[tokio::test]
async fn a_host_that_resumes_all_that_is_unfinished_runs_a_child_once() {
    let dir = tempfile::tempdir().unwrap();
    let (till, gate) = (Till::default(), Gate::shut());
    let make =
        || zo(trade(&["look", "pay"], "the lamp is there"), dir.path()).persona(buyer()).skill(till.pay());
    let first = make().skill(gate.tool("look").effect(Effect::Pure)).build().await.unwrap();
    let agent = first.spawn(&Cx::new(""), Ask::new("c", "lamp")).await.unwrap();
    gate.reached(1).await;
    drop((agent, first));
    // Slow enough for both to be under way at the same time.
    let slow = tool("look", |_, _| async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        Ok("seen".into())
    })
    .effect(Effect::Pure);
    let zo = reopened(|| make().skill(slow.clone())).await;
    let mut left = zo.unfinished().unwrap();
    assert_eq!(left.len(), 2);
    left.sort_by_key(|u| u.parent.is_none());
    let mut agents = Vec::new();
    for u in &left {
        agents.push(zo.spawn_resumed(&Cx::new(""), &u.run).await.unwrap());
    }
    let mut replies = Vec::new();
    for agent in agents {
        replies.push(within(agent.reply()).await.map(|r| r.text));
    }
    assert_eq!(till.paid("lamp"), 1, "{replies:?}");
}

#[tokio::test]
async fn a_child_whose_parent_was_dropped_pays_at_most_once() {
    // A child that has nothing to add when it is done has ended all the same.
    for last in ["", "the lamp is there"] {
        let dir = tempfile::tempdir().unwrap();
        let till = Till::default();
        let zo = zo(trade(&["pay"], last), dir.path()).persona(buyer()).skill(till.pay());
        let zo = zo.build().await.unwrap();
        for polls in (1..40).step_by(2) {
            for micros in [0, 400, 1_500, 3_000] {
                let (c, what) = (format!("c{polls}/{micros}"), format!("lamp {polls}/{micros}"));
                let mut work = Box::pin(zo.ask(&c, &what));
                for _ in 0..polls {
                    if poll_once(work.as_mut()).await.is_some() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_micros(micros)).await;
                }
                drop(work);
                tokio::time::sleep(Duration::from_millis(2)).await;
                if let Some(u) = zo.unfinished().unwrap().into_iter().find(|u| u.conversation == c) {
                    match within(zo.resume(&u.run).reply()).await {
                        // Its end was on its way to the disk.
                        Err(e) if e.kind() == ErrorKind::Conflict => {}
                        reply => assert_eq!(reply.unwrap().text, "ok", "{c}"),
                    }
                    let left = zo.unfinished().unwrap();
                    assert!(!left.iter().any(|l| l.parent.as_ref() == Some(&u.run)), "{c}: {left:?}");
                }
                assert!(till.paid(&what) <= 1, "{c}, {last:?}: paid {} times", till.paid(&what));
            }
        }
    }
}

#[tokio::test]
async fn a_decision_on_a_childs_call_while_a_sibling_runs_is_acted_upon() {
    let dir = tempfile::tempdir().unwrap();
    let (till, gate) = (Till::default(), Gate::shut());
    let model = Scripted::by(|r| match next(r, &["pay"], "bought") {
        Turn::Answer(a) if a.message.tool_calls().any(|c| c.name == "ask_buyer") => {
            Turn::calls([("1", "ask_buyer", json!({"task": "lamp"})), ("2", "look", json!({}))])
        }
        other => other,
    });
    let zo = zo(model, dir.path()).permissions(asks_before_pay()).persona(buyer()).skill(till.pay());
    let zo = zo.skill(gate.tool("look").effect(Effect::Pure)).build().await.unwrap();
    let agent = zo.spawn(&Cx::new(""), Ask::new("c", "lamp")).await.unwrap();
    until(|| !zo.approvals().unwrap().is_empty()).await;
    gate.reached(1).await;
    // Time for the child to park.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let root = zo.approve(&zo.approvals().unwrap()[0], "ada").await.unwrap();
    assert_eq!(&root, agent.run());
    // Under way, so it goes on by itself.
    assert_eq!(zo.resume(&root).reply().await.unwrap_err().kind(), ErrorKind::Conflict);
    gate.let_through(10);
    let reply = within(agent.reply()).await.unwrap();
    assert!(!reply.is_parked(), "{:?}, pending {:?}", reply.approvals, zo.approvals());
    assert_eq!(till.paid("lamp"), 1);
}

#[tokio::test]
async fn a_child_that_was_given_up_is_not_started_anew_by_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let (till, gate) = (Till::default(), Gate::shut());
    let make =
        || zo(trade(&["pay", "look"], "the lamp is there"), dir.path()).persona(buyer()).skill(till.pay());
    let first = make().skill(gate.tool("look").effect(Effect::AtMostOnce)).build().await.unwrap();
    let agent = first.spawn(&Cx::new(""), Ask::new("c", "lamp")).await.unwrap();
    gate.reached(1).await;
    drop((agent, first));
    let zo = reopened(|| make().skill(look())).await;
    let left = zo.unfinished().unwrap();
    let child = left.iter().find(|u| u.parent.is_some()).unwrap();
    let parent = left.iter().find(|u| u.parent.is_none()).unwrap();
    zo.abandon(&child.run).await.unwrap();
    let reply = within(zo.resume(&parent.run).reply()).await.unwrap();
    assert_eq!(till.paid("lamp"), 1, "{:?}", reply.messages);
}
