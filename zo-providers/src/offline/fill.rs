//! Arguments for a tool: every piece of evidence is offered to every slot, and the best pairs win.
//!
//! Nothing is invented: an optional slot is filled only on evidence, a required one that finds none is reported as
//! missing, and what comes out has been checked against the schema.

use super::{
    candidates::{Candidate, candidates},
    extract::{
        Evidence,
        span::{Look, Span},
    },
    schema::{self, Kind},
    slot::{self, FIRST, Hint, Slot},
    words::{self, Stem},
};
use serde_json::{Map, Value};
use std::ops::Range;
use zo_traits::ToolSpec;

/// What came of filling a tool's arguments.
#[derive(Debug, Clone, Default)]
pub(super) struct Filled {
    /// The arguments; obey the schema if nothing is missing.
    pub(super) args: Map<String, Value>,
    /// Names of required arguments that were not found.
    pub(super) missing: Vec<String>,
    /// How many slots were filled on evidence.
    pub(super) found: usize,
    /// How many slots are required.
    pub(super) required: usize,
    /// The slot whose value is one of an enumeration, and that enumeration: each member is a call of its own.
    pub(super) fan: Option<(usize, u32)>,
    /// Mean score of what was found, 0 to about 5.
    pub(super) strength: f32,
}

/// Words of a tool, by which a message names the tool rather than an argument.
pub(super) fn tool_words(tool: &ToolSpec) -> Vec<Stem> {
    let mut out = words::stems(&tool.name, 16);
    out.extend(words::stems(&tool.description, 48));
    out
}

/// The state of one filling.
pub(super) struct Filling<'e, 'a> {
    pub(super) evidence: &'e Evidence<'a>,
    pub(super) range: Range<usize>,
    pub(super) tool_words: &'e [Stem],
    pub(super) tool: &'e ToolSpec,
}

/// Fills `tool` from tokens `range`. `pinned` gives one slot a piece of the message and keeps it from its siblings.
pub(super) fn fill(
    e: &Evidence<'_>,
    tool: &ToolSpec,
    range: Range<usize>,
    pinned: Option<(usize, Span)>,
) -> Filled {
    let root: &Value = &tool.input;
    let slots = slot::slots(root);
    let tool_words = tool_words(tool);
    let filling = Filling { evidence: e, range, tool_words: &tool_words, tool };
    let mut pool = candidates(&filling, &slots);
    if let Some((slot, span)) = pinned {
        let siblings: Vec<&Span> = e.spans.iter().filter(|s| s.list == span.list && **s != span).collect();
        pool.retain(|c| {
            if c.slot == slot {
                c.from >= span.from && c.to <= span.to
            } else {
                !siblings.iter().any(|s| c.from < s.to && s.from < c.to) || c.shared
            }
        });
    }
    pool.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.slot.cmp(&b.slot)).then(a.from.cmp(&b.from)));

    let mut chosen: Vec<Option<Candidate>> = slots.iter().map(|_| None).collect();
    let mut used: Vec<bool> = vec![false; e.text.tokens.len()];
    let (mut found, mut strength) = (0usize, 0.0f32);
    pool.retain(|c| slots.get(c.slot).is_some_and(|s| fits(root, s, &c.value)));
    for candidate in &pool {
        let candidate = candidate.clone();
        let Some(slot) = slots.get(candidate.slot) else { continue };
        let Some(place) = chosen.get_mut(candidate.slot) else { continue };
        let least = if slot.required { 1.0 } else { 1.5 };
        let overlaps = !candidate.shared && used.iter().take(candidate.to).skip(candidate.from).any(|u| *u);
        if place.is_some() || candidate.score < least || overlaps {
            continue;
        }
        if !candidate.shared {
            used.iter_mut().take(candidate.to).skip(candidate.from).for_each(|u| *u = true);
        }
        found += 1;
        strength += candidate.score.min(5.0) - if slot.required { 0.9 } else { 0.0 };
        *place = Some(candidate);
    }

    exchange(&pool, &slots, &mut chosen);
    reorder(&slots, &mut chosen);
    let fan = fan(e, &slots, &chosen, &used);
    let strength = strength / f32::from(u8::try_from(found.max(1)).unwrap_or(u8::MAX));
    let mut out = Filled {
        found,
        strength,
        required: slots.iter().filter(|s| s.required).count(),
        fan,
        ..Filled::default()
    };
    let mut args = Value::Object(Map::new());
    for (slot, choice) in slots.iter().zip(chosen) {
        let value = choice.map(|c| c.value).or_else(|| fallback(root, slot));
        match value {
            Some(value) => put(&mut args, &slot.path, value),
            None if slot.required => out.missing.push(slot.label().to_owned()),
            None => {}
        }
    }
    prune(root, schema::resolve(root, root), &mut args, 0);
    if out.missing.is_empty() && !schema::accepts(root, root, &args) {
        out.missing = unmet(root, &args);
    }
    if let Value::Object(args) = args {
        out.args = args;
    }
    out
}

/// Lets two slots exchange their pieces where both together are better off: the greedy choice looks at one at a time.
fn exchange(pool: &[Candidate], slots: &[Slot<'_>], chosen: &mut [Option<Candidate>]) {
    let n = chosen.len().min(24);
    for _ in 0..2 {
        let mut better = false;
        for i in 0..n {
            for j in i + 1..n {
                let (Some(Some(x)), Some(Some(y))) = (chosen.get(i), chosen.get(j)) else { continue };
                if x.shared || y.shared || slots.get(i).map(|s| s.list) != slots.get(j).map(|s| s.list) {
                    continue;
                }
                let offer = |slot: usize, like: &Candidate| {
                    pool.iter().find(|c| c.slot == slot && c.from == like.from && c.to == like.to)
                };
                if let (Some(a), Some(b)) = (offer(i, y), offer(j, x))
                    && a.score + b.score > x.score + y.score + 0.05
                {
                    let (a, b) = (a.clone(), b.clone());
                    if let Some(place) = chosen.get_mut(i) {
                        *place = Some(a);
                    }
                    if let Some(place) = chosen.get_mut(j) {
                        *place = Some(b);
                    }
                    better = true;
                }
            }
        }
        if !better {
            break;
        }
    }
    // A required slot that came away empty may take a piece whose owner has another to fall back on.
    for j in 0..n {
        if !matches!(chosen.get(j), Some(None)) || !slots.get(j).is_some_and(|s| s.required) {
            continue;
        }
        let free = |c: &Candidate, but: usize| {
            c.shared
                || !chosen.iter().enumerate().any(|(k, o)| {
                    k != but && o.as_ref().is_some_and(|o| !o.shared && o.from < c.to && c.from < o.to)
                })
        };
        let mut best: Option<(f32, usize, Candidate, Candidate)> = None;
        for i in 0..n {
            let Some(Some(x)) = chosen.get(i) else { continue };
            if x.shared {
                continue;
            }
            let Some(take) =
                pool.iter().find(|c| c.slot == j && c.from == x.from && c.to == x.to && c.score >= 1.0)
            else {
                continue;
            };
            let other = pool.iter().find(|c| {
                c.slot == i
                    && c.score >= 1.0
                    && (c.to <= x.from || c.from >= x.to)
                    && free(c, i)
                    && c.value != x.value
            });
            let Some(other) = other else { continue };
            let gain = take.score + other.score - x.score;
            if gain > 0.0 && best.as_ref().is_none_or(|(g, ..)| gain > *g) {
                best = Some((gain, i, other.clone(), take.clone()));
            }
        }
        if let Some((_, i, other, take)) = best {
            if let Some(place) = chosen.get_mut(i) {
                *place = Some(other);
            }
            if let Some(place) = chosen.get_mut(j) {
                *place = Some(take);
            }
        }
    }
}

/// Puts the values of `number1` and `number2`, `first_note` and `second_note` into the order of the message.
fn reorder(slots: &[Slot<'_>], chosen: &mut [Option<Candidate>]) {
    let stem_of = |slot: &Slot<'_>| {
        let words = slot.name_words().split(' ').filter(|w| {
            !matches!(*w, "first" | "second" | "third" | "fourth" | "one" | "two" | "three") && w.len() > 1
        });
        words.collect::<Vec<_>>().join(" ")
    };
    let stems: Vec<String> = slots.iter().map(stem_of).collect();
    for i in 0..slots.len() {
        for j in i + 1..slots.len() {
            let (Some(a), Some(b)) = (slots.get(i), slots.get(j)) else { continue };
            let alike = a.kind == b.kind
                && a.list == b.list
                && a.hint == b.hint
                && a.path.len() == b.path.len()
                && stems.get(i) == stems.get(j)
                && stems.get(i).is_some_and(|s| !s.is_empty())
                && a.node.get("enum") == b.node.get("enum");
            let (Some(Some(x)), Some(Some(y))) = (chosen.get(i), chosen.get(j)) else { continue };
            if alike && x.from > y.from {
                let (x, y) = (x.clone(), y.clone());
                if let Some(place) = chosen.get_mut(i) {
                    *place = Some(Candidate { slot: i, ..y });
                }
                if let Some(place) = chosen.get_mut(j) {
                    *place = Some(Candidate { slot: j, ..x });
                }
            }
        }
    }
}

fn fits(root: &Value, slot: &Slot<'_>, value: &Value) -> bool {
    schema::accepts(root, slot.whole, value)
}

/// What a required slot holds when nothing was said: its default, and for a flag, off.
fn fallback(root: &Value, slot: &Slot<'_>) -> Option<Value> {
    if !slot.required {
        return None;
    }
    let off = || (slot.kind == Kind::Boolean && !slot.list).then_some(Value::Bool(false));
    slot.default().filter(|v| fits(root, slot, v)).or_else(off).filter(|v| fits(root, slot, v))
}

/// A single value that was one of several of its kind, the others being of no other use.
fn fan(
    e: &Evidence<'_>,
    slots: &[Slot<'_>],
    chosen: &[Option<Candidate>],
    used: &[bool],
) -> Option<(usize, u32)> {
    slots.iter().zip(chosen).enumerate().find_map(|(i, (slot, choice))| {
        let choice = choice.as_ref()?;
        if slot.list || slot.kind != Kind::Text || !slot.required || choice.list == 0 {
            return None;
        }
        let chunk = e.spans.iter().any(|s| s.list == choice.list && s.look == Look::Chunk);
        if chunk && slot.hint != Hint::Place {
            return None;
        }
        let members = || e.spans.iter().filter(|s| s.list == choice.list);
        let others_free = members()
            .filter(|s| s.from != choice.from)
            .all(|s| (s.from..s.to).all(|t| used.get(t) != Some(&true)));
        let count = members().count();
        (others_free && (2..=8).contains(&count)).then_some((i, choice.list))
    })
}

/// Puts `value` at `path`, making objects and lists on the way.
fn put(into: &mut Value, path: &[&str], value: Value) {
    let Some((step, rest)) = path.split_first() else {
        *into = value;
        return;
    };
    if *step == FIRST {
        if !into.is_array() {
            *into = Value::Array(vec![Value::Object(Map::new())]);
        }
        if let Some(first) = into.as_array_mut().and_then(|a| a.first_mut()) {
            put(first, rest, value);
        }
        return;
    }
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    if let Some(object) = into.as_object_mut() {
        put(object.entry(*step).or_insert(Value::Null), rest, value);
    }
}

/// Takes out optional parts that are not acceptable, so that half an object never spoils a call.
fn prune(root: &Value, node: &Value, args: &mut Value, depth: usize) {
    if depth > schema::DEPTH {
        return;
    }
    let Some(object) = args.as_object_mut() else { return };
    let names: Vec<String> = object.keys().cloned().collect();
    for name in names {
        let Some(whole) = node.get("properties").and_then(|p| p.get(&name)) else { continue };
        if let Some(value) = object.get_mut(&name) {
            prune(root, schema::resolve(root, whole), value, depth + 1);
        }
        let bad = object.get(&name).is_some_and(|v| !schema::accepts(root, whole, v));
        if bad && !schema::is_required(node, &name) {
            object.remove(&name);
        }
    }
}

/// Which required properties keep `args` from being acceptable.
fn unmet(root: &Value, args: &Value) -> Vec<String> {
    let node = schema::resolve(root, root);
    let names =
        node.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut out: Vec<String> = names
        .filter(|name| {
            let whole = node.get("properties").and_then(|p| p.get(name));
            match (args.get(name), whole) {
                (Some(value), Some(whole)) => !schema::accepts(root, whole, value),
                (None, _) => true,
                _ => false,
            }
        })
        .map(str::to_owned)
        .collect();
    if out.is_empty() {
        out.push("arguments".to_owned());
    }
    out
}
