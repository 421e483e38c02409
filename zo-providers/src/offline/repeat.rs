//! One tool several times over in one message.
//!
//! Two ways of saying so are understood. *Lists*: "the weather in Paris and Rome", "5, 7 and 9 metres", also two lists
//! side by side ("A and B, for 10 and 20 minutes respectively"). *Records*: stretches that fill the same slots anew
//! ("the first has a base of 3 and a height of 4, the second ..."). What a record leaves out it has from the one before
//! or from the whole message. Stretches that fill other slots belong to the record before them, so that one request in
//! several sentences stays one call.

use super::{
    decide::MAX_CALLS,
    extract::Evidence,
    extract::span::Look,
    fill::{self, Filled, Piece, Pin, Plan},
};
use serde_json::{Map, Value};
use std::ops::Range;

/// Most stretches of a message that are looked at one by one.
const MAX_STRETCHES: usize = 16;

/// The message cut at sentence ends, conjunctions and commas before a new clause, at most `most` pieces of three words
/// and more.
pub(super) fn stretches(e: &Evidence<'_>, most: usize) -> Vec<Range<usize>> {
    let text = &e.text;
    let n = text.tokens.len();
    let mut out: Vec<Range<usize>> = Vec::new();
    let mut from = 0;
    for i in 0..n {
        let quoted = e.quoted.get(i) == Some(&true);
        let ends = (text.ends_sentence(i) || text.any(i, &["and", "then", "also", "plus"])) && !quoted;
        if ends && i - from >= 3 && i + 3 < n {
            out.push(from..i);
            from = i + 1;
        }
        if out.len() + 1 >= most {
            break;
        }
    }
    if n - from >= 1 {
        out.push(from..n);
    }
    out
}

/// The same, cut finer: a clause after a comma is a stretch too.
fn clauses(e: &Evidence<'_>) -> Vec<Range<usize>> {
    const OPENERS: &[&str] = &[
        "the", "then", "a", "an", "another", "one", "while", "for", "from", "with", "what", "how", "first",
        "second", "third", "finally", "lastly", "to", "in", "if", "next", "who", "also", "and",
    ];
    let text = &e.text;
    let n = text.tokens.len();
    let inside = |i: usize| e.literals.iter().any(|l| l.from <= i && i < l.to);
    let mut out: Vec<Range<usize>> = Vec::new();
    let mut from = 0;
    for i in 0..n {
        if e.quoted.get(i) == Some(&true) || inside(i) {
            continue;
        }
        let comma = text.mark(i, ',') && text.any(i + 1, OPENERS);
        let ends = text.ends_sentence(i) || comma || text.any(i, &["and", "then", "also", "plus", "while"]);
        if ends && i - from >= 2 && i + 2 < n {
            out.push(from..i);
            from = i + 1;
        }
        if out.len() + 1 >= MAX_STRETCHES {
            break;
        }
    }
    out.push(from..n);
    out
}

/// Is what a slot took more than a guess from loose words, and is it not another slot's in the message as a whole?
fn is_solid(e: &Evidence<'_>, whole: &Filled, piece: &Piece, least: f32) -> bool {
    if piece.to <= piece.from || !piece.required {
        return false;
    }
    let here = |from: usize, to: usize| from < piece.to && piece.from < to;
    // In the message as a whole it is another slot's, or one part of a longer value of the same slot.
    let part = |w: &Piece| w.slot == piece.slot && w.from < piece.from && piece.to <= w.to;
    if whole.pieces.iter().any(|w| part(w) || w.slot != piece.slot && w.list == 0 && here(w.from, w.to)) {
        return false;
    }
    let named = || e.spans.iter().any(|s| s.look != Look::Chunk && here(s.from, s.to));
    e.numbers.iter().any(|n| !n.weak && here(n.from, n.to))
        || e.whens.iter().any(|w| here(w.from, w.to))
        || piece.score >= 2.6
        || piece.score >= least && named()
}

/// Words that say that there is more than one.
const CUES: &[&str] = &[
    "also",
    "another",
    "second",
    "both",
    "each",
    "same",
    "again",
    "respectively",
    "lastly",
    "finally",
    "two",
    "three",
    "four",
    "different",
    "separately",
    "repeat",
];

/// Words with which the next one begins.
const NEXT: &[&str] = &["second", "third", "fourth", "fifth", "last", "another", "other", "next"];

/// Arguments of each record, if the message holds several for this tool.
pub(super) fn records(e: &Evidence<'_>, plan: &Plan<'_>, whole: &Filled) -> Vec<Map<String, Value>> {
    // There must be more to give away than one call takes.
    let wanted = whole.pieces.iter().filter(|p| p.required).count();
    if wanted == 0 || e.numbers.len() + e.whens.len() + e.spans.len() <= wanted {
        return Vec::new();
    }
    let groups = bracketed(e, plan, whole);
    if groups.len() > 1 {
        return groups;
    }
    let cued = (0..e.text.tokens.len()).any(|i| e.text.any(i, CUES));
    let cuts = clauses(e);
    if cuts.len() < 2 {
        return Vec::new();
    }
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut have: Vec<Piece> = Vec::new();
    for cut in cuts {
        let filled = fill::fill(e, plan, cut.clone(), &[]);
        // One piece that is sure carries those beside it that are less so.
        let carried = filled.pieces.iter().any(|p| is_solid(e, whole, p, 2.6));
        let least = if carried { 1.8 } else { 2.6 };
        let mut new: Vec<Piece> =
            filled.pieces.into_iter().filter(|p| is_solid(e, whole, p, least)).collect();
        let enough = |h: &Piece| {
            if h.value.is_array() {
                2.0
            } else if have.len() > 1 {
                (0.75 * h.score).min(2.8)
            } else {
                0.8 * h.score
            }
        };
        let rival =
            |p: &Piece| have.iter().any(|h| h.slot == p.slot && h.value != p.value && p.score >= enough(h));
        let against = new.iter().filter(|p| rival(p)).count();
        let along = new.iter().any(|p| !have.iter().any(|h| h.slot == p.slot));
        // A record begins where the slots are filled anew, most of them and no new one.
        let another = (cut.start..cut.start + 4).any(|i| e.text.any(i, NEXT));
        if against > 0 && !along && (another || 2 * against + usize::from(cued) > have.len()) {
            ranges.push(cut);
            have = new;
        } else {
            match ranges.last_mut() {
                Some(last) => last.end = cut.end,
                None => ranges.push(cut),
            }
            new.retain(|p| !have.iter().any(|h| h.slot == p.slot && h.score >= p.score));
            have.retain(|h| !new.iter().any(|p| p.slot == h.slot));
            have.append(&mut new);
        }
    }
    if ranges.len() < 2 || ranges.len() > MAX_CALLS {
        return Vec::new();
    }
    let mut out: Vec<Map<String, Value>> = Vec::new();
    let mut before: Map<String, Value> = Map::new();
    for range in ranges {
        let filled = fill::fill(e, plan, range, &[]);
        let mut args = filled.args;
        for name in required(plan) {
            let said = filled.pieces.iter().any(|p| p.name == name);
            if !said && let Some(value) = before.get(name).or_else(|| whole.args.get(name)) {
                args.insert(name.to_owned(), value.clone());
            }
        }
        if !super::schema::accepts(&plan.tool.input, &plan.tool.input, &Value::Object(args.clone())) {
            return Vec::new();
        }
        before.clone_from(&args);
        if !out.contains(&args) {
            out.push(args);
        }
    }
    out
}

/// "(45, 60) and (81, 27)": one call per pair of brackets with as many numbers as there are slots for them.
fn bracketed(e: &Evidence<'_>, plan: &Plan<'_>, whole: &Filled) -> Vec<Map<String, Value>> {
    let numeric: Vec<&Piece> =
        whole.pieces.iter().filter(|p| p.required && p.single && p.value.is_number()).collect();
    let fits = |v: &Value| {
        v.as_array()
            .is_some_and(|a| a.len() == numeric.len() && a.len() > 1 && a.iter().all(Value::is_number))
    };
    let groups: Vec<_> = e.literals.iter().filter(|l| fits(&l.value)).collect();
    if !(2..=MAX_CALLS).contains(&groups.len()) {
        return Vec::new();
    }
    let mut out = Vec::new();
    for group in groups {
        let filled = fill::fill(e, plan, group.from..group.to, &[]);
        let mut args = whole.args.clone();
        args.extend(filled.args);
        if !filled.pieces.iter().filter(|p| p.value.is_number()).count().eq(&numeric.len())
            || !super::schema::accepts(&plan.tool.input, &plan.tool.input, &Value::Object(args.clone()))
        {
            return Vec::new();
        }
        out.push(args);
    }
    out
}

fn required<'t>(plan: &Plan<'t>) -> impl Iterator<Item = &'t str> {
    let root = super::schema::resolve(&plan.tool.input, &plan.tool.input);
    root.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The members of a list that a single-valued slot took one of, in the order of the message.
fn members(e: &Evidence<'_>, piece: &Piece, range: &Range<usize>) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    if piece.list != 0 {
        out.extend(e.spans.iter().filter(|s| s.list == piece.list).map(|s| s.from..s.to));
    } else if let Some(number) = e.numbers.iter().find(|n| n.from == piece.from && n.to == piece.to) {
        let same = e.numbers.iter().filter(|n| n.group == number.group && n.weak == number.weak);
        out.extend(same.map(|n| n.from..n.to));
    }
    out.sort_by_key(|r| r.start);
    out.dedup();
    let (Some(first), Some(last)) = (out.first(), out.last()) else { return Vec::new() };
    let joined = (first.end..last.start).any(|i| e.text.any(i, &["and", "or", "&"]));
    let inside = first.start >= range.start && last.end <= range.end;
    if (2..=MAX_CALLS).contains(&out.len()) && joined && inside { out } else { Vec::new() }
}

/// One set of arguments per member of the lists that single-valued slots took one of. Lists of one length go side by
/// side.
pub(super) fn fan(
    e: &Evidence<'_>,
    plan: &Plan<'_>,
    filled: &Filled,
    range: Range<usize>,
) -> Vec<Map<String, Value>> {
    let mut lists: Vec<(&Piece, Vec<Range<usize>>)> = Vec::new();
    for piece in filled.pieces.iter().filter(|p| p.required && p.single) {
        let members = members(e, piece, &range);
        // The siblings must be of no other use.
        let free = members.iter().all(|m| {
            m.start == piece.from
                || !filled.pieces.iter().any(|p| p.slot != piece.slot && p.from < m.end && m.start < p.to)
        });
        if members.len() > 1 && free {
            lists.push((piece, members));
        }
    }
    let Some(longest) = lists.iter().map(|(_, m)| m.len()).max() else { return Vec::new() };
    lists.retain(|(_, m)| m.len() == longest);
    let mut out: Vec<Map<String, Value>> = Vec::new();
    for n in 0..longest {
        let pins: Vec<Pin> = lists
            .iter()
            .filter_map(|(piece, members)| {
                let own = members.get(n)?.clone();
                let others = members.iter().filter(|m| **m != own).cloned().collect();
                Some(Pin { slot: piece.slot, own, others })
            })
            .collect();
        let filled = fill::fill(e, plan, range.clone(), &pins);
        if !filled.missing.is_empty() {
            return Vec::new();
        }
        if !out.contains(&filled.args) {
            out.push(filled.args);
        }
    }
    out
}
