//! From a message and the tools on offer to calls, a question back, or neither.

use super::{
    extract::Evidence,
    fill::{self, Filled, Plan},
    repeat,
    route::{self, Fit, Query},
};
use serde_json::{Map, Value};
use std::{ops::Range, rc::Rc};
use zo_traits::ToolSpec;

/// Most calls of one answer.
pub(super) const MAX_CALLS: usize = 8;

/// What to do about a message.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Call these: position of the tool, arguments.
    Call(Vec<(usize, Map<String, Value>)>),
    /// This tool fits, but these arguments were not said.
    Ask(usize, Vec<String>),
    /// No tool fits.
    Nothing,
}

/// What to do, and how sure that a tool is wanted at all.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub(super) act: Act,
    /// The tool that fits best, called or not.
    pub(super) best: Option<usize>,
    /// Log odds that the message asks for it.
    pub(super) odds: f32,
}

/// A tool chosen for a stretch of the message.
struct Choice {
    fit: Fit,
    filled: Filled,
    odds: f32,
}

/// Decides. With `must`, the best tool is taken however weak it is.
pub(super) fn decide(e: &Evidence<'_>, tools: &[&ToolSpec], must: bool) -> Verdict {
    let mut tools = Plans { tools, made: Vec::new() };
    let whole = choose(e, &mut tools, 0..e.text.tokens.len());
    let (best, odds) = whole.as_ref().map_or((None, f32::NEG_INFINITY), |c| (Some(c.fit.tool), c.odds));
    let act = whole.map_or(Act::Nothing, |whole| act(e, &mut tools, must, whole));
    Verdict { act, best, odds }
}

fn act(e: &Evidence<'_>, tools: &mut Plans<'_>, must: bool, whole: Choice) -> Act {
    // Arguments that are missing speak against a call, but a tool that was named may ask for them.
    let named = whole.fit.name >= 0.6 || whole.fit.triggered;
    let may_ask = named && !whole.filled.missing.is_empty();
    if !must && whole.odds < THRESHOLD && !may_ask {
        return Act::Nothing;
    }
    if let Some(calls) = several(e, tools, &whole) {
        return Act::Call(calls);
    }
    let Some(plan) = tools.plan(whole.fit.tool) else { return Act::Nothing };
    let records = repeat::records(e, &plan, &whole.filled);
    let fanned = if whole.filled.missing.is_empty() {
        repeat::fan(e, &plan, &whole.filled, 0..e.text.tokens.len())
    } else {
        Vec::new()
    };
    let many = if fanned.len() >= records.len() { fanned } else { records };
    if many.len() > 1 {
        return Act::Call(many.into_iter().map(|args| (whole.fit.tool, args)).collect());
    }
    if !whole.filled.missing.is_empty() {
        return Act::Ask(whole.fit.tool, whole.filled.missing);
    }
    Act::Call(vec![(whole.fit.tool, whole.filled.args)])
}

/// The tools on offer, and what was made of those that were looked at closely.
struct Plans<'t> {
    tools: &'t [&'t ToolSpec],
    made: Vec<(usize, Rc<Plan<'t>>)>,
}

impl<'t> Plans<'t> {
    fn plan(&mut self, tool: usize) -> Option<Rc<Plan<'t>>> {
        if let Some((_, plan)) = self.made.iter().find(|(t, _)| *t == tool) {
            return Some(plan.clone());
        }
        let plan = Rc::new(Plan::new(self.tools.get(tool)?));
        self.made.push((tool, plan.clone()));
        Some(plan)
    }
}

/// Log odds below which a tool is not called. Below even odds, because a call that is not wanted but harmless costs less
/// than a request that is not served; a call without its required arguments is not made in any case.
const THRESHOLD: f32 = -0.5;

/// The tool that fits tokens `range` best. Of those that are close, the one whose arguments are there.
fn choose(e: &Evidence<'_>, plans: &mut Plans<'_>, range: Range<usize>) -> Option<Choice> {
    let tools = plans.tools;
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
        let Some(plan) = plans.plan(fit.tool) else { continue };
        let filled = fill::fill(e, &plan, range.clone(), &[]);
        let odds = odds(e, &fit, &filled, plan.tool);
        let ready = if filled.missing.is_empty() { 1.0 } else { 0.86 };
        let value = fit.score * ready + 0.15 * small(filled.found);
        if out.as_ref().is_none_or(|(v, _)| value > *v) {
            out = Some((value, Choice { fit, filled, odds }));
        }
    }
    out.map(|(_, choice)| choice)
}

fn small(n: usize) -> f32 {
    f32::from(u8::try_from(n).unwrap_or(u8::MAX))
}

/// How surely the tool is what the message asks for; the weights are a logistic fit, so 0 is even odds.
fn odds(e: &Evidence<'_>, fit: &Fit, filled: &Filled, tool: &ToolSpec) -> f32 {
    if fit.triggered {
        return 3.0;
    }
    let calculator = e.expression.is_some() && takes_arithmetic(tool);
    let missing = small(filled.missing.len()) / small(filled.required.max(1));
    0.97f32.mul_add(fit.name, -1.86)
        + 0.89 * fit.about
        + 0.67 * fit.name.max(fit.about)
        + 0.36 * fit.common.min(4.0)
        - 2.39 * missing
        + 0.38 * small(filled.found.min(4))
        + 0.41 * filled.strength
        + if calculator { 3.0 } else { 0.0 }
        // The rules know English: what they find in other languages are names and numbers, not what is asked.
        - if e.foreign { 1.2 } else { 0.0 }
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

/// Requests to different tools in one message, when each stretch of it stands on its own.
fn several(
    e: &Evidence<'_>,
    tools: &mut Plans<'_>,
    whole: &Choice,
) -> Option<Vec<(usize, Map<String, Value>)>> {
    let cuts = repeat::stretches(e, 6);
    if cuts.len() < 2 {
        return None;
    }
    let mut calls: Vec<(usize, Map<String, Value>)> = Vec::new();
    for range in cuts {
        let Some(choice) = choose(e, tools, range.clone()) else { continue };
        let same = choice.fit.tool == whole.fit.tool;
        let own_words = choice.fit.name >= 0.3
            || choice.fit.common >= 1.0
            || choice.fit.triggered
            || e.expression.is_some();
        let ready = choice.filled.missing.is_empty() && (choice.filled.found > 0 || !same);
        // A part must be surer than the whole, or every second sentence would be a request of its own.
        if choice.odds < THRESHOLD + 0.9 || !own_words || !ready {
            continue;
        }
        let Some(plan) = tools.plan(choice.fit.tool) else { continue };
        let many = repeat::fan(e, &plan, &choice.filled, range);
        let many = if many.len() > 1 { many } else { vec![choice.filled.args] };
        for args in many {
            let call = (choice.fit.tool, args);
            if !calls.contains(&call) && calls.len() < MAX_CALLS {
                calls.push(call);
            }
        }
    }
    // One tool several times over is told apart with more care (`repeat`): it is mostly one request in two sentences.
    let mixed = calls.first().is_some_and(|(first, _)| calls.iter().any(|(tool, _)| tool != first));
    mixed.then_some(calls)
}
