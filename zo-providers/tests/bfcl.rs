//! The offline provider against the Berkeley Function Calling Leaderboard (v4, Apache-2.0).
//!
//! Floors only, with room for other cases of the same sets, so that a change for the worse is seen: the figures
//! themselves, with the confidence and the time per question, are printed by the bench `offline_quality`. The corpus
//! holds half of the leaderboard's cases.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "bfcl/score.rs"]
mod score;

use score::{Score, auc, cases, corpus, judge};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
};
use zo_providers::Offline;
use zo_traits::{Cx, Message, ProviderExt, Request, Role, ToolSpec};

/// One corpus at a time: the time per question is measured, too.
static ONE: Mutex<()> = Mutex::new(());

/// Runs a set; returns totals and confidences.
fn run(name: &str) -> Option<(Score, Vec<f32>)> {
    if corpus().is_none() {
        println!("bfcl {name}: skipped, there is no corpus (set ZO_CORPUS)");
        return None;
    }
    let cases = cases(name);
    if cases.is_empty() {
        println!("bfcl {name}: skipped, the corpus has no such set");
        return None;
    }
    let (mut score, mut sure, mut took) = (Score::default(), Vec::new(), std::time::Duration::ZERO);
    for case in &cases {
        let verdict = catch_unwind(AssertUnwindSafe(|| judge(case)))
            .unwrap_or_else(|_| panic!("{name}: {} made it panic: {}", case.id, case.asked()));
        assert!((0.0..=1.0).contains(&verdict.confidence), "{}: {}", case.id, verdict.did);
        score.add(&verdict);
        sure.push(verdict.confidence);
        took += verdict.took;
    }
    let right = if name.contains("irrelevance") { score.silent } else { score.whole };
    println!(
        "bfcl {name}: {right} passed, {} failed ({:.1} % whole calls, {:.1} % tool choice, {:.1} % without a call; {:?} a question)",
        score.cases - right,
        score.percent(score.whole),
        score.percent(score.tool),
        score.percent(score.silent),
        took / u32::try_from(score.cases).unwrap()
    );
    Some((score, sure))
}

/// Floors in percent.
fn floors(name: &str, whole: f64, tool: f64) {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let Some((score, _)) = run(name) else { return };
    assert!(score.percent(score.whole) >= whole, "{name}: {:.1} % < {whole} %", score.percent(score.whole));
    assert!(score.percent(score.tool) >= tool, "{name} tool: {:.1} % < {tool} %", score.percent(score.tool));
}

#[test]
fn simple_python() {
    floors("simple_python", 50.0, 95.0);
}

#[test]
fn multiple() {
    floors("multiple", 60.0, 95.0);
}

#[test]
fn parallel() {
    floors("parallel", 12.0, 95.0);
}

#[test]
fn live_simple() {
    floors("live_simple", 33.0, 78.0);
}

#[test]
fn live_multiple() {
    floors("live_multiple", 40.0, 82.0);
}

/// Confidence tells questions that a function fits from those that none does.
fn apart(none: &str, fitting: [&str; 2], declined: f64) {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let Some((score, negative)) = run(none) else { return };
    assert!(score.percent(score.silent) >= declined, "{none}: {:.1} %", score.percent(score.silent));
    let positive: Vec<f32> = fitting.into_iter().filter_map(run).flat_map(|(_, sure)| sure).collect();
    if !positive.is_empty() {
        let area = auc(&positive, &negative);
        println!("bfcl {none}: auc {area:.3}");
        assert!(area >= 0.87, "{none}: {area:.3}");
    }
}

#[test]
fn irrelevance() {
    apart("irrelevance", ["simple_python", "multiple"], 65.0);
}

#[test]
fn live_irrelevance() {
    apart("live_irrelevance", ["live_simple", "live_multiple"], 75.0);
}

#[test]
fn the_stream_does_what_the_decision_says() {
    if corpus().is_none() {
        println!("bfcl stream: skipped, there is no corpus (set ZO_CORPUS)");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for case in cases("multiple").iter().chain(&cases("irrelevance")) {
        let decision = Offline::new().choose(&case.request);
        let answer = runtime.block_on(Offline::new().complete(&Cx::default(), &case.request)).unwrap();
        let said: Vec<_> = answer.message.tool_calls().map(|c| (c.name.clone(), c.args.clone())).collect();
        let chose: Vec<_> =
            decision.calls.into_iter().map(|(name, args)| (name, serde_json::Value::Object(args))).collect();
        assert_eq!(said, chose, "{}", case.id);
        let words = Message::to_text(&answer.message);
        assert_eq!(decision.missing.is_empty(), !words.starts_with("I would use"), "{}: {words}", case.id);
    }
}

#[test]
fn the_area_under_a_curve() {
    assert!((auc(&[0.9, 0.8], &[0.1, 0.2]) - 1.0).abs() < 1e-9);
    assert!((auc(&[0.1, 0.2], &[0.9, 0.8])).abs() < 1e-9);
    assert!((auc(&[0.5, 0.5], &[0.5]) - 0.5).abs() < 1e-9);
    assert!((auc(&[0.9, 0.1], &[0.5]) - 0.5).abs() < 1e-9);
}
