//! Scored offers of evidence to slots.

mod choices;
mod numbers;
mod texts;

use super::{
    clause,
    extract::{
        literal::Literal,
        number::Number,
        span::{self, Look, Span},
    },
    fill::Filling,
    lexicon::{self, currency_code, language_code, language_name, unit_clash, unit_fit},
    places,
    schema::{self, Kind},
    slot::{Hint, Slot},
    words::{self, Stem, is_generic, stem},
};
use choices::{choices, flag, locate};
use numbers::{in_range, number_lists, numbers};
use serde_json::{Value, json};
use texts::{preposition, text_lists, texts};

/// A value for a slot, made from tokens `from..to`.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) slot: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) score: f32,
    pub(super) value: Value,
    /// Its tokens may serve other slots too.
    pub(super) shared: bool,
    /// The enumeration that it stands in, 0 if none.
    pub(super) list: u32,
}

/// Everything that could go anywhere.
pub(super) fn candidates(f: &Filling<'_, '_>, slots: &[Slot<'_>]) -> Vec<Candidate> {
    let mut out: Vec<Candidate> = Vec::new();
    // Pieces that a slot lists among its values.
    let mut known: Vec<(usize, usize, usize, f32)> = Vec::new();
    for (i, slot) in slots.iter().enumerate() {
        let before = out.len();
        offer(f, slots, i, slot, &mut out);
        if !schema::options(slot.node).is_empty() {
            known.extend(out.iter().skip(before).map(|c| (i, c.from, c.to, c.score)));
        } else if slot.kind == Kind::Text && !slot.list {
            let mut stated = Vec::new();
            texts::stated(f, i, slot, &mut stated);
            known.extend(stated.iter().map(|c| (i, c.from, c.to, c.score)));
        }
        // Where one piece could go to either, what must be there comes first.
        if slot.required {
            out.iter_mut().skip(before).for_each(|c| c.score += 0.9);
        }
        if out.len() > 6_000 {
            break;
        }
    }
    // They are that slot's rather than anybody else's.
    known.retain(|(_, from, to, score)| from < to && *score >= 2.0);
    known.truncate(64);
    for c in out.iter_mut().filter(|c| c.value.is_string()) {
        let listed = |slot: bool| {
            known.iter().any(|(i, from, to, _)| (*i == c.slot) == slot && *from <= c.from && c.to <= *to)
        };
        if listed(false) && !listed(true) {
            c.score -= 1.2;
        }
    }
    out
}

fn offer(f: &Filling<'_, '_>, slots: &[Slot<'_>], i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let options = schema::options(slot.node);
    if !options.is_empty() {
        return choices(f, i, slot, &options, out);
    }
    literals(f, i, slot, out);
    match (slot.kind, slot.list) {
        (Kind::Boolean, false) => flag(f, i, slot, out),
        (Kind::Integer | Kind::Number, false) => numbers(f, slots, i, slot, out),
        (Kind::Integer | Kind::Number, true) => number_lists(f, slots, i, slot, out),
        (Kind::Text, false) => texts(f, slots, i, slot, out),
        (Kind::Text, true) => text_lists(f, i, slot, out),
        _ => {}
    }
}

/// Lists and objects that the message writes out, for who wants lists and objects.
fn literals(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let wanted = |v: &Value| match v {
        Value::Array(_) => slot.list,
        Value::Object(_) => slot.kind == Kind::Object && !slot.list,
        _ => false,
    };
    let all: Vec<_> = f.evidence.literals.iter().filter(|l| f.inside(l.from, l.to)).collect();
    let depth = |v: &Value| v.as_array().is_some_and(|a| a.iter().all(Value::is_array) && !a.is_empty());
    for (rank, l) in (0u8..).zip(&all) {
        // Lists of numbers are numbers.rs's, which knows percent and order.
        let flat_numbers = matches!(slot.kind, Kind::Integer | Kind::Number);
        if wanted(&l.value) && !flat_numbers && (slot.kind == Kind::Array) == depth(&l.value) {
            let score = 3.0 + f.context(slot, l.from, l.to) - 0.1 * f32::from(rank);
            let value = l.value.clone();
            out.push(Candidate { slot: i, from: l.from, to: l.to, score, value, shared: false, list: 0 });
        }
    }
    // "(1, 2), (3, 4) and (5, 6)" for a list of points.
    let flat = |l: &&&Literal| l.value.as_array().is_some_and(|a| a.iter().all(Value::is_number));
    let points: Vec<_> = all.iter().filter(flat).collect();
    if slot.kind == Kind::Array
        && slot.list
        && let (Some(first), Some(last)) = (points.first(), points.last())
    {
        let value = Value::Array(points.iter().map(|l| l.value.clone()).collect());
        let score = 2.0 + f.context(slot, first.from, first.to);
        out.push(Candidate { slot: i, from: first.from, to: last.to, score, value, shared: false, list: 0 });
    }
}

impl Filling<'_, '_> {
    /// How strongly the words around tokens `from..to` point at `slot`.
    fn context(&self, slot: &Slot<'_>, from: usize, to: usize) -> f32 {
        let text = &self.evidence.text;
        let (mut sum, mut distance) = (0.0f32, 0.0f32);
        for i in (self.range.start..from).rev() {
            if text.ends_sentence(i) && !text.mark(i, '.') || distance > 4.5 {
                break;
            }
            let Some(token) = text.tokens.get(i) else { break };
            // Another quotation in between: what stands before it speaks of that one.
            if self.evidence.quoted.get(i) == Some(&true) && self.evidence.quoted.get(from) != Some(&true) {
                distance += if token.mark.is_some() { 1.0 } else { 0.3 };
                continue;
            }
            match token.mark {
                Some('.') if i + 1 < from && text.tokens.get(i + 1).is_some_and(|t| t.capital) => break,
                Some(',') => distance += 1.2,
                Some(_) => {}
                None if token.digit => distance += 2.0,
                None => {
                    let pull = pull(slot, text.word(i), token.stem);
                    sum += pull / (1.0 + 0.55 * distance);
                    distance += if token.stop { 0.15 } else { 1.0 };
                    if text.any(i, &["and", "or"]) {
                        distance += 1.0;
                    }
                }
            }
        }
        distance = 0.0;
        let mut to = to;
        while to < self.range.end
            && text.tokens.get(to).is_some_and(|t| t.mark.is_some_and(|m| "'\"”’`".contains(m)))
        {
            to += 1;
        }
        // "'main' as the database" says it outright.
        let mut telling = 0.6;
        if text.is(to, "as") {
            telling = 1.2;
            to += 1;
            while text.any(to, &["the", "a", "an", "my", "our", "its"]) {
                to += 1;
            }
        }
        for i in to..self.range.end.min(to + 4) {
            let Some(token) = text.tokens.get(i) else { break };
            if token.mark.is_some_and(|m| !"-'\"”%°".contains(m))
                || token.digit
                || text.any(i, &["and", "or"])
            {
                break;
            }
            sum += telling * pull(slot, text.word(i), token.stem) / (1.0 + 0.9 * distance);
            distance += if token.stop { 0.9 } else { 1.0 };
        }
        sum.min(4.5)
    }

    /// The word before `from`, articles and quotation marks skipped.
    fn before(&self, from: usize) -> String {
        let text = &self.evidence.text;
        let mut i = from;
        while let Some(j) = i.checked_sub(1).filter(|j| *j >= self.range.start) {
            if !text.any(j, &["the", "a", "an", "my", "our", "all", "any", "some"])
                && !text.tokens.get(j).is_some_and(|t| t.mark.is_some_and(|m| "'\"“‘".contains(m)))
            {
                return text.word(j).to_ascii_lowercase();
            }
            i = j;
        }
        String::new()
    }

    fn inside(&self, from: usize, to: usize) -> bool {
        from >= self.range.start && to <= self.range.end
    }

    /// Share of the telling words of `from..to` that are the tool's own.
    fn own(&self, from: usize, to: usize) -> f32 {
        let (mut own, mut all) = (0.0f32, 0.0f32);
        for i in from..to {
            let stem = self.evidence.text.stem(i);
            if stem != 0 && !words::is_stop(stem) {
                all += 1.0;
                own += f32::from(u8::from(self.tool_words.contains(&stem)));
            }
        }
        if all > 0.0 { own / all } else { 1.0 }
    }
}

/// How much `word` points at `slot`; parts of hyphenated words count.
fn pull(slot: &Slot<'_>, word: &str, stem: Stem) -> f32 {
    let whole = slot.pull(stem);
    if whole > 0.0 || !word.contains(['-', '_', '/']) {
        return whole;
    }
    let mut best = 0.0f32;
    words::each_word(word, |w| best = best.max(slot.pull(words::stem(w))));
    best
}

fn weight(n: usize) -> f32 {
    f32::from(u8::try_from(n).unwrap_or(u8::MAX))
}
