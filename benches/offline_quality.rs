//! How well the offline provider's rules choose tools and fill arguments: the Berkeley Function Calling Leaderboard.
//!
//! `cargo run --release -p zo-benches --bin offline_quality [--misses <set> [<fold> <of>]]`
//!
//! One line per figure. `whole` is the share of questions whose calls are all right, `tool` the share with the right
//! function, `auc` how well the confidence tells questions that a function fits from those that none does. With
//! `--misses` the wrong answers of one set are printed instead, of every `of`th case if a fold is named, so that
//! rules can be found on one part and checked on another. The corpus is read as the tests read it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../zo-providers/tests/bfcl/score.rs"]
mod score;

use score::{Score, auc, cases, corpus, judge};
use std::time::Duration;
use zo_core::{Message, Request, Role, ToolSpec, providers::Offline};

/// Sets in which some function fits.
const FITTING: [&str; 5] = ["simple_python", "multiple", "parallel", "live_simple", "live_multiple"];

fn main() {
    if corpus().is_none() {
        println!(
            "offline_quality: skipped, there is no corpus (set ZO_CORPUS to the folder that holds bfcl)"
        );
        return;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|n| n.parse::<usize>().ok());
    match args.first().map(String::as_str) {
        Some("--misses") => misses(args.get(1).map_or("simple_python", String::as_str), number(2), number(3)),
        Some("--fold") => report(number(1), number(2)),
        _ => report(None, None),
    }
}

fn is_in(i: usize, fold: Option<usize>, of: Option<usize>) -> bool {
    fold.is_none_or(|fold| i % of.unwrap_or(2).max(1) == fold)
}

fn report(fold: Option<usize>, of: Option<usize>) {
    let mut sure: Vec<(&str, Vec<f32>)> = Vec::new();
    let mut took: Vec<Duration> = Vec::new();
    for name in FITTING.into_iter().chain(["irrelevance", "live_irrelevance"]) {
        let mut score = Score::default();
        let mut confidences = Vec::new();
        for (i, case) in cases(name).iter().enumerate() {
            if !is_in(i, fold, of) {
                continue;
            }
            let verdict = judge(case);
            score.add(&verdict);
            confidences.push(verdict.confidence);
            took.push(verdict.took);
        }
        if score.cases == 0 {
            println!("{name}: skipped, the corpus has no such set");
            continue;
        }
        if FITTING.contains(&name) {
            println!("{name} whole = {:.1} % of {}", score.percent(score.whole), score.cases);
            println!("{name} tool = {:.1} %", score.percent(score.tool));
            println!("{name} called = {:.1} %", 100.0 - score.percent(score.silent));
        } else {
            println!("{name} declined = {:.1} % of {}", score.percent(score.silent), score.cases);
        }
        sure.push((name, confidences));
    }
    let of = |name: &str| sure.iter().find(|(n, _)| *n == name).map(|(_, c)| c.clone()).unwrap_or_default();
    for (none, fitting) in [
        ("irrelevance", ["simple_python", "multiple"]),
        ("live_irrelevance", ["live_simple", "live_multiple"]),
    ] {
        let fitting: Vec<f32> = fitting.into_iter().flat_map(of).collect();
        println!("{none} auc = {:.3}", auc(&fitting, &of(none)));
    }
    took.sort();
    let total: Duration = took.iter().sum();
    let micros = |d: Duration| d.as_secs_f64() * 1e6;
    println!("per query = {:.1} us", micros(total) / took.len().max(1) as f64);
    println!("per query p50 = {:.1} us", micros(took[took.len() / 2]));
    println!("per query p99 = {:.1} us", micros(took[took.len() * 99 / 100]));
}

fn misses(name: &str, fold: Option<usize>, of: Option<usize>) {
    for (i, case) in cases(name).iter().enumerate() {
        let verdict = judge(case);
        let wrong = if case.truth.is_empty() { !verdict.silent } else { !verdict.whole };
        if !wrong || !is_in(i, fold, of) {
            continue;
        }
        let tool = if verdict.tool || case.truth.is_empty() { "" } else { "WRONG TOOL " };
        println!("-- {} {tool}{}\n   got  {}", case.id, case.asked(), verdict.did);
        if case.truth.is_empty() {
            let tools: Vec<&str> = case.request.tools.iter().map(|t| t.name.as_str()).collect();
            println!("   of   {tools:?}");
        } else {
            println!("   want {}", serde_json::json!(case.truth));
        }
    }
}
