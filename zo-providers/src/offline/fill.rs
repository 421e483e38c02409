//! Arguments for a tool: every piece of evidence is offered to every slot, and the best pairs win.
//!
//! Nothing is invented: an optional slot is filled only on evidence, a required one that finds none is reported as
//! missing, and what comes out has been checked against the schema.

use super::{
    candidates::{Candidate, candidates},
    extract::Evidence,
    schema::{self, Kind},
    slot::{self, FIRST, Slot},
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
    /// Which slot took which tokens, in the order of the slots.
    pub(super) pieces: Vec<Piece>,
    /// Mean score of what was found, 0 to about 5.
    pub(super) strength: f32,
}

/// A piece of the message in its slot.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) slot: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) score: f32,
    /// The slot must be filled.
    pub(super) required: bool,
    /// The slot takes one value, not a list.
    pub(super) single: bool,
    pub(super) value: Value,
    /// The first step of the slot's path.
    pub(super) name: String,
    /// The enumeration that the piece stands in, 0 if none.
    pub(super) list: u32,
}

/// A piece of the message that a slot is to take, and the tokens of its siblings that nobody else may have.
#[derive(Debug, Clone)]
pub(super) struct Pin {
    pub(super) slot: usize,
    pub(super) own: Range<usize>,
    pub(super) others: Vec<Range<usize>>,
}

/// Words of a tool, by which a message names the tool rather than an argument.
fn tool_words(tool: &ToolSpec) -> Vec<Stem> {
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

/// What filling a tool takes from the tool alone: made once, used for each stretch of a message.
#[derive(Debug)]
pub(super) struct Plan<'t> {
    pub(super) tool: &'t ToolSpec,
    slots: Vec<Slot<'t>>,
    words: Vec<Stem>,
}

impl<'t> Plan<'t> {
    /// Reads the tool's schema and wording.
    pub(super) fn new(tool: &'t ToolSpec) -> Self {
        Self { tool, slots: slot::slots(&tool.input), words: tool_words(tool) }
    }
}

/// Fills a tool from tokens `range`. Pins give slots their pieces and keep the siblings of these from all others.
pub(super) fn fill(e: &Evidence<'_>, plan: &Plan<'_>, range: Range<usize>, pins: &[Pin]) -> Filled {
    let root: &Value = &plan.tool.input;
    let slots = plan.slots.as_slice();
    let filling = Filling { evidence: e, range, tool_words: &plan.words, tool: plan.tool };
    let mut pool = candidates(&filling, slots);
    for pin in pins {
        pool.retain(|c| {
            if c.slot == pin.slot {
                c.from >= pin.own.start && c.to <= pin.own.end && c.from < c.to
            } else {
                c.shared || !pin.others.iter().any(|o| c.from < o.end && o.start < c.to)
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

    exchange(&pool, slots, &mut chosen);
    leftovers(e, &pool, slots, &mut chosen);
    reorder(e, slots, &mut chosen);
    let strength = strength / f32::from(u8::try_from(found.max(1)).unwrap_or(u8::MAX));
    let mut out = Filled {
        found,
        strength,
        required: slots.iter().filter(|s| s.required).count(),
        pieces: pieces(slots, &chosen),
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
        let mut best: Option<(f32, usize, Option<Candidate>, Candidate)> = None;
        for i in 0..n {
            let Some(Some(x)) = chosen.get(i) else { continue };
            if x.shared {
                continue;
            }
            let spare = slots.get(i).is_some_and(|s| !s.required);
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
            // What may be left out gives way even if nothing else is there for it.
            if other.is_none() && !(spare && x.score < take.score + 1.0) {
                continue;
            }
            let gain = take.score + other.map_or(0.0, |o| o.score) - x.score + f32::from(u8::from(spare));
            if gain > 0.0 && best.as_ref().is_none_or(|(g, ..)| gain > *g) {
                best = Some((gain, i, other.cloned(), take.clone()));
            }
        }
        if let Some((_, i, other, take)) = best {
            if let Some(place) = chosen.get_mut(i) {
                *place = other;
            }
            if let Some(place) = chosen.get_mut(j) {
                *place = Some(take);
            }
        }
    }
}

/// Numbers that nobody wanted go to the slots that must have one; a last one to the only slot for numbers that is left.
fn leftovers(e: &Evidence<'_>, pool: &[Candidate], slots: &[Slot<'_>], chosen: &mut [Option<Candidate>]) {
    let numeric = |s: &Slot<'_>| matches!(s.kind, Kind::Integer | Kind::Number) && !s.list;
    for least in [0.3, -0.2] {
        for j in 0..slots.len() {
            let wanted = slots.get(j).is_some_and(|s| s.required && numeric(s));
            if !wanted || !matches!(chosen.get(j), Some(None)) {
                continue;
            }
            let taken =
                |c: &Candidate| chosen.iter().flatten().any(|o| !o.shared && o.from < c.to && c.from < o.to);
            let weak = |c: &Candidate| e.numbers.iter().any(|n| n.from == c.from && n.weak);
            let free =
                pool.iter().find(|c| c.slot == j && c.score >= least && !taken(c) && !weak(c)).cloned();
            if let Some(place) = chosen.get_mut(j) {
                *place = free;
            }
        }
    }
    let empty = || {
        slots
            .iter()
            .enumerate()
            .filter(|(i, s)| {
                numeric(s) && s.node.get("enum").is_none() && matches!(chosen.get(*i), Some(None))
            })
            .map(|(i, _)| i)
    };
    let year = |v: f64| v.fract() == 0.0 && (1_500.0..=2_100.0).contains(&v);
    let taken = |from: usize, to: usize| chosen.iter().flatten().any(|o| o.from < to && from < o.to);
    let mut rest = e.numbers.iter().filter(|n| !n.weak && !year(n.value) && !taken(n.from, n.to));
    if let (Some(only), None) = (empty().next(), empty().nth(1))
        && let (Some(number), None) = (rest.next(), rest.next())
        && let Some(found) = pool.iter().find(|c| c.slot == only && c.from == number.from && c.score >= 0.0)
    {
        let found = found.clone();
        if let Some(place) = chosen.get_mut(only) {
            *place = Some(found);
        }
    }
}

/// Puts the values of `number1` and `number2`, `first_note` and `second_note` into the order of the message.
///
/// `start_city` and `end_city` too, where two cities stand side by side: *between X and Y*, *X to Y*.
fn reorder(e: &Evidence<'_>, slots: &[Slot<'_>], chosen: &mut [Option<Candidate>]) {
    const FIRST: &[&str] = &["start", "starting", "begin", "from", "origin", "source", "departure", "src"];
    const LAST: &[&str] = &["end", "ending", "to", "destination", "target", "arrival", "dest"];
    let role = |slot: &Slot<'_>| {
        let named = |all: &[&str]| slot.name_words().split(' ').any(|w| all.contains(&w));
        if named(FIRST) { 1u8 } else { 2 * u8::from(named(LAST)) }
    };
    let number = |w: &str| {
        matches!(w, "first" | "second" | "third" | "fourth" | "one" | "two" | "three") || w.len() <= 1
    };
    let stem_of = |slot: &Slot<'_>| {
        let words =
            slot.name_words().split(' ').filter(|w| !number(w) && !FIRST.contains(w) && !LAST.contains(w));
        words.collect::<Vec<_>>().join(" ")
    };
    let side_by_side = |x: &Candidate, y: &Candidate| {
        let (a, b) = if x.from < y.from { (x, y) } else { (y, x) };
        let gap = a.to..b.from;
        let prefixed = a.from > 0 && e.text.any(a.from - 1, &["to", "into", "towards"]);
        gap.len() <= 3
            && !prefixed
            && gap.clone().all(|i| e.text.any(i, &["and", "to", "the", "-", "→", "till"]))
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
                && (stems.get(i).is_some_and(|s| !s.is_empty()) || role(a) * role(b) == 2)
                && a.node.get("enum") == b.node.get("enum");
            let (Some(Some(x)), Some(Some(y))) = (chosen.get(i), chosen.get(j)) else { continue };
            // The one that begins comes first, whichever stands first in the schema.
            let turned = role(a) == 2 && role(b) == 1;
            let roles = role(a) * role(b) == 2;
            let misplaced = if turned { x.from < y.from } else { x.from > y.from };
            if alike && misplaced && (!roles || side_by_side(x, y)) {
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

fn pieces(slots: &[Slot<'_>], chosen: &[Option<Candidate>]) -> Vec<Piece> {
    let filled = slots.iter().zip(chosen).enumerate();
    filled
        .filter_map(|(i, (slot, choice))| {
            let c = choice.as_ref()?;
            Some(Piece {
                slot: i,
                from: c.from,
                to: c.to,
                score: c.score,
                required: slot.required,
                single: !slot.list,
                value: c.value.clone(),
                name: slot.path.first().copied().unwrap_or("").to_owned(),
                list: c.list,
            })
        })
        .collect()
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
