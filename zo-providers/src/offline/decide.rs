//! From a message and the tools on offer to calls, a question back, or neither.

use super::{
    extract::{Evidence, span::Span},
    fill::{self, Filled},
    route::{self, Fit, Query},
};
use serde_json::{Map, Value};
use std::ops::Range;
use zo_traits::ToolSpec;

/// Most calls of one answer.
const MAX_CALLS: usize = 8;

/// What to do about a message.
#[derive(Debug, Clone)]
pub(super) enum Decision {
    /// Call these: position of the tool, arguments.
    Call(Vec<(usize, Map<String, Value>)>),
    /// This tool fits, but these arguments were not said.
    Ask(usize, Vec<String>),
    /// No tool fits.
    Nothing,
}

/// A tool chosen for a stretch of the message.
struct Choice {
    fit: Fit,
    filled: Filled,
    confidence: f32,
}

/// Decides. With `must`, the best tool is taken however weak it is.
pub(super) fn decide(e: &Evidence<'_>, tools: &[&ToolSpec], must: bool) -> Decision {
    let all = 0..e.text.tokens.len();
    let Some(whole) = choose(e, tools, all.clone()) else { return Decision::Nothing };
    let sure = |c: &Choice| must || c.confidence >= 0.0;
    // Arguments that are missing speak against a call, but a tool that was named may ask for them.
    let named = whole.fit.name >= 0.6 || whole.fit.triggered;
    let may_ask = named && !whole.filled.missing.is_empty();
    if !sure(&whole) && !may_ask {
        return Decision::Nothing;
    }
    if let Some(calls) = several(e, tools, &whole) {
        return Decision::Call(calls);
    }
    let Some(spec) = tools.get(whole.fit.tool) else { return Decision::Nothing };
    if !whole.filled.missing.is_empty() {
        return Decision::Ask(whole.fit.tool, whole.filled.missing);
    }
    let fanned = fan(e, spec, &whole, all);
    if fanned.len() > 1 {
        return Decision::Call(fanned.into_iter().map(|args| (whole.fit.tool, args)).collect());
    }
    Decision::Call(vec![(whole.fit.tool, whole.filled.args)])
}

/// Log odds below which a tool is not called. Below even odds, because a call that is not wanted but harmless costs less
/// than a request that is not served; a call without its required arguments is not made in any case.
const THRESHOLD: f32 = -1.1;

/// The tool that fits tokens `range` best. Of those that are close, the one whose arguments are there.
fn choose(e: &Evidence<'_>, tools: &[&ToolSpec], range: Range<usize>) -> Option<Choice> {
    let query = Query::new(&e.text, range.clone());
    let mut ranked = route::rank(&query, tools);
    if e.expression.is_some() {
        for fit in &mut ranked {
            if tools.get(fit.tool).is_some_and(|t| takes_arithmetic(t)) {
                fit.score += 8.0;
            }
        }
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.tool.cmp(&b.tool)));
    }
    let best = ranked.first()?.score;
    let mut out: Option<(f32, Choice)> = None;
    for fit in ranked.into_iter().take(4) {
        if fit.score < best * 0.6 && out.is_some() {
            break;
        }
        let Some(spec) = tools.get(fit.tool) else { continue };
        let filled = fill::fill(e, spec, range.clone(), None);
        let confidence = confidence(e, &fit, &filled, spec);
        let ready = if filled.missing.is_empty() { 1.0 } else { 0.86 };
        let value = fit.score * ready + 0.15 * small(filled.found);
        if out.as_ref().is_none_or(|(v, _)| value > *v) {
            out = Some((value, Choice { fit, filled, confidence }));
        }
    }
    out.map(|(_, choice)| choice)
}

fn small(n: usize) -> f32 {
    f32::from(u8::try_from(n).unwrap_or(u8::MAX))
}

/// How surely the tool is what the message asks for; the weights are a logistic fit, so 0 is even odds.
fn confidence(e: &Evidence<'_>, fit: &Fit, filled: &Filled, spec: &ToolSpec) -> f32 {
    if fit.triggered {
        return 4.0;
    }
    let calculator = e.expression.is_some() && takes_arithmetic(spec);
    let missing = small(filled.missing.len()) / small(filled.required.max(1));
    let lead = fit.name.max(fit.about);
    1.92f32.mul_add(fit.name, -2.87 - THRESHOLD)
        + 2.01 * fit.about
        + 0.21 * fit.covered
        + 0.33 * fit.common.min(4.0)
        - 3.06 * missing
        + 0.5 * small(filled.found.min(4))
        + 0.34 * filled.strength
        - 1.51 * fit.name * fit.covered
        + 0.17 * lead
        + if calculator { 3.0 } else { 0.0 }
}

/// Is it a calculator?
fn takes_arithmetic(spec: &ToolSpec) -> bool {
    let words = |text: &str| {
        let text = text.to_lowercase();
        ["calculat", "arithmetic", "math", "expression", "evaluate", "formula"]
            .iter()
            .any(|w| text.contains(w))
    };
    words(&spec.name) || words(super::words::cut(&spec.description, 400))
}

/// Several requests in one message, when each stretch of it stands on its own.
fn several(
    e: &Evidence<'_>,
    tools: &[&ToolSpec],
    whole: &Choice,
) -> Option<Vec<(usize, Map<String, Value>)>> {
    let cuts = stretches(e);
    if cuts.len() < 2 {
        return None;
    }
    let mut calls: Vec<(usize, Map<String, Value>)> = Vec::new();
    let mut complete = 0;
    for range in cuts {
        let Some(choice) = choose(e, tools, range.clone()) else { continue };
        let same = choice.fit.tool == whole.fit.tool;
        let own_words = choice.fit.name >= 0.3
            || choice.fit.common >= 1.0
            || choice.fit.triggered
            || e.expression.is_some();
        let ready = choice.filled.missing.is_empty() && (choice.filled.found > 0 || !same);
        // A part must be surer than the whole, or every second sentence would be a request of its own.
        if choice.confidence < 0.9 || !own_words || !ready {
            continue;
        }
        let Some(spec) = tools.get(choice.fit.tool) else { continue };
        let many = fan(e, spec, &choice, range);
        let many = if many.len() > 1 { many } else { vec![choice.filled.args] };
        complete += 1;
        for args in many {
            let call = (choice.fit.tool, args);
            if !calls.contains(&call) && calls.len() < MAX_CALLS {
                calls.push(call);
            }
        }
    }
    // Two stretches that only repeat one tool are mostly one request in two sentences.
    (complete >= 2 && calls.len() >= 2).then_some(calls)
}

/// The message cut at sentence ends and conjunctions, at most six pieces of three words and more.
fn stretches(e: &Evidence<'_>) -> Vec<Range<usize>> {
    let text = &e.text;
    let n = text.tokens.len();
    let mut out: Vec<Range<usize>> = Vec::new();
    let quoted = |i: usize| {
        e.spans.iter().any(|s| s.look == super::extract::span::Look::Quoted && s.from <= i && i < s.to)
    };
    let mut from = 0;
    for i in 0..n {
        let ends = (text.ends_sentence(i) || text.any(i, &["and", "then", "also", "plus"])) && !quoted(i);
        if ends && i - from >= 3 && i + 3 < n {
            out.push(from..i);
            from = i + 1;
        }
        if out.len() >= 5 {
            break;
        }
    }
    if n - from >= 1 {
        out.push(from..n);
    }
    out
}

/// One set of arguments per member of the enumeration that a single-valued slot found.
fn fan(e: &Evidence<'_>, spec: &ToolSpec, choice: &Choice, range: Range<usize>) -> Vec<Map<String, Value>> {
    let Some((slot, list)) = choice.filled.fan else { return Vec::new() };
    let mut members: Vec<Span> = e.spans.iter().copied().filter(|s| s.list == list).collect();
    members.sort_by_key(|s| s.from);
    let (Some(first), Some(last)) = (members.first(), members.last()) else { return Vec::new() };
    let joined = (first.to..last.from).any(|i| e.text.any(i, &["and", "or", "&"]));
    if !joined || first.from < range.start || last.to > range.end {
        return Vec::new();
    }
    let mut out: Vec<Map<String, Value>> = Vec::new();
    for member in members {
        let filled = fill::fill(e, spec, range.clone(), Some((slot, member)));
        if !filled.missing.is_empty() {
            return Vec::new();
        }
        if !out.contains(&filled.args) {
            out.push(filled.args);
        }
    }
    out
}
