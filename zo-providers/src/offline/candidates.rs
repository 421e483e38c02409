//! Scored offers of evidence to slots.

use super::{
    clause,
    extract::{
        number::Number,
        span::{self, Look},
    },
    fill::Filling,
    places,
    lexicon::{self, currency_code, language_code, language_name, unit_fit},
    schema::{self, Kind},
    slot::{Hint, Slot},
    words::{self, Stem, is_generic, stem},
};
use serde_json::{Value, json};

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
    let mut out = Vec::new();
    for (i, slot) in slots.iter().enumerate() {
        let before = out.len();
        offer(f, slots, i, slot, &mut out);
        // Where one piece could go to either, what must be there comes first.
        if slot.required {
            out.iter_mut().skip(before).for_each(|c| c.score += 0.9);
        }
        if out.len() > 6_000 {
            break;
        }
    }
    out
}

fn offer(f: &Filling<'_, '_>, slots: &[Slot<'_>], i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let options = schema::options(slot.node);
    if !options.is_empty() {
        return choices(f, i, slot, &options, out);
    }
    match (slot.kind, slot.list) {
        (Kind::Boolean, false) => flag(f, i, slot, out),
        (Kind::Integer | Kind::Number, false) => numbers(f, slots, i, slot, out),
        (Kind::Integer | Kind::Number, true) => number_lists(f, slots, i, slot, out),
        (Kind::Text, false) => texts(f, slots, i, slot, out),
        (Kind::Text, true) => text_lists(f, slots, i, slot, out),
        _ => {}
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
        for i in to..self.range.end.min(to + 4) {
            let Some(token) = text.tokens.get(i) else { break };
            if token.mark.is_some_and(|m| !"-'\"”%°".contains(m)) || token.digit || text.any(i, &["and", "or"]) {
                break;
            }
            sum += 0.6 * pull(slot, text.word(i), token.stem) / (1.0 + 0.9 * distance);
            distance += if token.stop { 0.9 } else { 1.0 };
        }
        sum.min(4.5)
    }

    /// The word before `from`, articles and quotation marks skipped.
    fn before(&self, from: usize) -> String {
        let text = &self.evidence.text;
        let mut i = from;
        while let Some(j) = i.checked_sub(1).filter(|j| *j >= self.range.start) {
            if !text.any(j, &["the", "a", "an", "my", "our", "all", "any", "some"]) && !text.tokens.get(j).is_some_and(|t| t.mark.is_some_and(|m| "'\"“‘".contains(m))) {
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

// ---- numbers

fn numeric(slot: &Slot<'_>, value: f64) -> Value {
    if slot.kind == Kind::Integer && value.fract() == 0.0 && value.abs() < 9e15 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53, as just checked")]
        return Value::from(value as i64);
    }
    if value.fract() == 0.0 && value.abs() < 9e15 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53, as just checked")]
        return Value::from(value as i64);
    }
    Value::from(value)
}

/// The value that a number with a percent sign has for this slot: 5 where percent is asked for, else 0.05.
fn percent(slot: &Slot<'_>, value: f64) -> f64 {
    if slot.kind == Kind::Integer || (slot.speaks_of(&["percentage", "percent", "%", "0 to 100", "percentile"]) && !slot.speaks_of(&["sum to 1", "between 0 and 1", "decimal"])) {
        value
    } else {
        // Avoids 0.07000000000000001.
        format!("{:.12}", value / 100.0).parse().unwrap_or(value / 100.0)
    }
}

/// Names of slots that say how many.
const COUNTS: &[&str] = &["count", "limit", "num", "number", "top", "max", "n", "quantity", "size", "results"];

fn number_score(f: &Filling<'_, '_>, slots: &[Slot<'_>], i: usize, slot: &Slot<'_>, n: &Number, rank: usize) -> f32 {
    let text = &f.evidence.text;
    let year_like = n.value.fract() == 0.0 && (1500.0..=2100.0).contains(&n.value) && !n.money && !n.percent && n.to == n.from + 1
        && !text.word(n.from).contains(',');
    let wants_year = slot.named(&["year"]) && !slot.speaks_of(&["years", "number of"]) || slot.named(&["year"]) && slot.name_words().ends_with("year");
    let mut score = 0.15 + f.context(slot, n.from, n.to);
    let about: Vec<Stem> = slot.name.iter().chain(&slot.about).map(|(s, _)| *s).collect();
    if n.unit != 0 {
        score += 1.4 * unit_fit(n.unit, &about);
    }
    let prep = f.before(n.from);
    if year_like && wants_year {
        score += 2.2;
    } else if wants_year {
        score -= 1.5;
    } else if year_like && ["in", "since", "year", "of", "by", "from", "until"].contains(&prep.as_str()) && !slot.speaks_of(&["year", "date"]) {
        score -= 1.2;
    }
    if n.percent {
        score += if slot.speaks_of(&["percent", "percentage", "rate", "ratio", "probability", "confidence", "level", "discount", "tax", "yield", "return", "interest", "frequency", "humidity", "contribution", "fraction", "volume"]) { 1.2 } else { -0.6 };
    }
    if n.money {
        score += if slot.speaks_of(&["amount", "price", "cost", "budget", "salary", "income", "payment", "principal", "investment", "invested", "balance", "loan", "value", "fee", "revenue", "money", "sales", "profit", "fund", "cash", "paid", "payout", "expense", "expenses", "total", "dollars", "usd", "deposit", "rent", "equity"]) { 1.2 } else { -0.6 };
    }
    if n.weak {
        score -= 0.3;
        if n.value == 1.0 {
            score -= 0.8;
        }
    }
    let counts = slot.named(COUNTS);
    if counts && (["top", "first", "last", "next", "only", "find", "get", "list", "show", "fetch", "limit", "latest", "most"].contains(&prep.as_str()) || text.word(n.to).ends_with('s')) {
        score += if n.weak || n.unit != 0 { 1.7 } else { 0.6 };
    }
    if let ("to" | "than" | "least" | "most" | "over" | "under" | "above" | "below" | "maximum" | "minimum" | "within" | "between" | "from" | "up", _) = (prep.as_str(), 0) {
        let most = ["to", "under", "below", "maximum", "most", "within", "up"].contains(&prep.as_str())
            || (prep == "than" && text.any(n.from.saturating_sub(2), &["less", "fewer", "cheaper"]));
        if slot.named(&["max", "maximum", "end", "to", "upper", "limit"]) && most {
            score += 1.0;
        }
        if slot.named(&["min", "minimum", "start", "from", "lower"]) && !most {
            score += 1.0;
        }
    }
    // Numbers mostly come in the order in which the parameters stand.
    let place = slots.iter().take(i).filter(|s| matches!(s.kind, Kind::Integer | Kind::Number) && s.required == slot.required).count();
    score - 0.06 * f32::from(u8::try_from(place.abs_diff(rank)).unwrap_or(u8::MAX).min(10))
}

fn in_range<'f>(f: &'f Filling<'_, '_>) -> impl Iterator<Item = &'f Number> {
    f.evidence.numbers.iter().filter(|n| f.inside(n.from, n.to)).take(96)
}

fn numbers(f: &Filling<'_, '_>, slots: &[Slot<'_>], i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let operands = f.evidence.expression.as_ref().is_some();
    let wanted = slots.iter().filter(|s| s.required && matches!(s.kind, Kind::Integer | Kind::Number)).count();
    let enough = in_range(f).filter(|n| !n.weak).count() >= wanted.max(1);
    for (rank, n) in in_range(f).enumerate() {
        let mut score = number_score(f, slots, i, slot, n, rank);
        // "two numbers, 45 and 60": the numeral only counts them.
        if n.weak && enough && !(slot.named(COUNTS) && !slot.required) {
            score -= 0.8;
        }
        if operands {
            score += 0.4;
        }
        let value = if n.percent { percent(slot, n.value) } else { n.value };
        if slot.kind == Kind::Integer && value.fract() != 0.0 {
            continue;
        }
        out.push(Candidate { slot: i, from: n.from, to: n.to, score, value: numeric(slot, value), shared: false, list: 0 });
    }
}

fn number_lists(f: &Filling<'_, '_>, slots: &[Slot<'_>], i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let all: Vec<&Number> = in_range(f).collect();
    let mut at = 0;
    let mut rank = 0;
    let lists = slots.iter().take(i).filter(|s| s.list && matches!(s.kind, Kind::Integer | Kind::Number)).count();
    while let Some(first) = all.get(at) {
        let group: Vec<&&Number> = all.iter().skip(at).take_while(|n| n.group == first.group).collect();
        let (from, to) = (first.from, group.last().map_or(first.to, |n| n.to));
        let values: Vec<f64> = group.iter().map(|n| if n.percent { percent(slot, n.value) } else { n.value }).collect();
        at += group.len();
        if slot.kind == Kind::Integer && values.iter().any(|v| v.fract() != 0.0) {
            continue;
        }
        let mut score = f.context(slot, from, to) + 0.2 + if group.len() > 1 { 1.2 } else { -0.4 };
        score -= 0.3 * f32::from(u8::try_from(lists.abs_diff(rank)).unwrap_or(u8::MAX).min(4));
        rank += usize::from(group.len() > 1);
        let value = Value::Array(values.into_iter().map(|v| numeric(slot, v)).collect());
        out.push(Candidate { slot: i, from, to, score, value, shared: false, list: 0 });
    }
    // Numbers that stand apart, each with its own words, for the only list that there is.
    let only = slots.iter().filter(|s| matches!(s.kind, Kind::Integer | Kind::Number)).count() == 1;
    if only && all.len() > 1 && let (Some(first), Some(last)) = (all.first(), all.last()) {
        let ok = |v: f64| slot.kind != Kind::Integer || v.fract() == 0.0;
        if all.iter().all(|n| ok(n.value)) && all.iter().any(|n| n.group != first.group) {
            let value = Value::Array(all.iter().map(|n| numeric(slot, if n.percent { percent(slot, n.value) } else { n.value })).collect());
            out.push(Candidate { slot: i, from: first.from, to: last.to, score: 0.5, value, shared: false, list: 0 });
        }
    }
}

// ---- flags and options

fn flag(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    if let Some((from, to, on, score)) = flagged(f, slot) {
        out.push(Candidate { slot: i, from, to, score, value: Value::Bool(on), shared: true, list: 0 });
    }
}

/// Where the message raises the flag that `slot` is named for, and whether it is raised or lowered.
fn flagged(f: &Filling<'_, '_>, slot: &Slot<'_>) -> Option<(usize, usize, bool, f32)> {
    const COMMON: &[&str] = &[
        "include", "included", "is", "has", "show", "enable", "enabled", "with", "get", "return", "only", "allow", "allowed", "flag", "should",
        "use", "want", "do", "be", "needed", "required", "option", "the", "of", "in", "for", "a", "to", "info", "information", "by", "status",
    ];
    let text = &f.evidence.text;
    let telling: Vec<&str> = slot.name_words().split(' ').filter(|w| !COMMON.contains(w) && w.len() > 1).collect();
    let like = |i: usize, w: &str| {
        let word = text.word(i);
        text.stem(i) == stem(w) || alike(word, w) || (word.contains('-') && word.split('-').any(|p| stem(p) == stem(w)))
    };
    let at: Vec<usize> = telling.iter().filter_map(|w| f.range.clone().find(|i| like(*i, w))).collect();
    let (&from, &to) = (at.iter().min()?, at.iter().max()?);
    // All of its telling words, or the first of two.
    let first = telling.first().is_some_and(|w| like(from, w)) && telling.len() == 2;
    if at.len() < telling.len() && !first {
        return None;
    }
    let no = (from.saturating_sub(3)..from).any(|i| {
        text.any(i, &["no", "not", "without", "don't", "never", "exclude", "excluding", "disable", "skip", "doesn't", "isn't"])
    });
    // A word that the tool itself is named by says little about one of its flags.
    let own = telling.iter().all(|w| f.tool_words.contains(&stem(w))) && slot.default() != Some(Value::Bool(false));
    let score = if own && !slot.required { 1.2 } else if at.len() < telling.len() { 1.8 } else { 2.5 };
    Some((from, to + 1, !no, score))
}

/// Do two words begin alike for most of their length?
fn alike(a: &str, b: &str) -> bool {
    let same = a.bytes().zip(b.bytes()).take_while(|(x, y)| x.eq_ignore_ascii_case(y)).count();
    same >= 5 && same * 10 >= a.len().max(b.len()) * 6
}

/// Where the words of `label` stand in the message, near each other.
fn locate(f: &Filling<'_, '_>, label: &str) -> Option<(usize, usize)> {
    let text = &f.evidence.text;
    let mut wanted = Vec::new();
    words::each_word(words::cut(label, 80), |w| wanted.push(stem(w)));
    let first = *wanted.first()?;
    let part = |i: usize, w: Stem| {
        if text.stem(i) == w {
            return true;
        }
        let mut hit = false;
        if text.word(i).contains(['-', '_', '/', '.']) {
            words::each_word(text.word(i), |p| hit |= stem(p) == w);
        }
        hit
    };
    f.range.clone().filter(|i| part(*i, first)).find_map(|from| {
        let mut to = from + 1;
        for w in wanted.iter().skip(1) {
            let here = (from..to + 2).find(|j| part(*j, *w))?;
            to = to.max(here + 1);
        }
        Some((from, to))
    })
}

fn choices(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, options: &[(&Value, &str)], out: &mut Vec<Candidate>) {
    let text = &f.evidence.text;
    let mut hits: Vec<(usize, usize, f32, &Value)> = Vec::new();
    // Flags in words: "True" and "False", "yes" and "no".
    let pick = |word: &str| options.iter().map(|(o, _)| *o).find(|o| o.as_str().is_some_and(|s| s.eq_ignore_ascii_case(word)));
    for (yes, no) in [("true", "false"), ("yes", "no")] {
        if let (Some(yes), Some(no)) = (pick(yes), pick(no)) {
            if let Some((from, to, on, score)) = flagged(f, slot) {
                let value = if on { yes } else { no }.clone();
                out.push(Candidate { slot: i, from, to, score, value, shared: true, list: 0 });
            }
            return;
        }
    }
    for (option, about) in options.iter().take(128) {
        if let (Some(n), false) = (option.as_f64(), option.is_string()) {
            for number in in_range(f).filter(|m| (m.value - n).abs() < f64::EPSILON) {
                hits.push((number.from, number.to, 1.2 + f.context(slot, number.from, number.to), option));
            }
            continue;
        }
        let Some(label) = option.as_str() else { continue };
        if label.is_empty() {
            continue;
        }
        let short = label.chars().count() < 2;
        let mut spellings = Vec::new();
        if let Some((from, to)) = locate(f, label) {
            // A one-letter option must be written as it is.
            if !short || text.span(from, to).contains(label) {
                spellings.push((from, to, 2.2 + 0.2 * weight(to - from)));
            }
        }
        let alternatives = language_name(label).filter(|_| slot.hint == Hint::Language || slot.speaks_of(&["language"]));
        let levels = lexicon::LEVELS.iter().filter(|(l, _)| l.eq_ignore_ascii_case(label)).flat_map(|(_, w)| w.split_whitespace());
        for other in alternatives.into_iter().chain(levels) {
            if let Some((from, to)) = locate(f, other) {
                spellings.push((from, to, 1.7));
            }
        }
        if spellings.is_empty() && label.len() > 4 {
            // fahr for fahrenheit, std for nothing.
            let begins = |j: &usize| {
                let w = text.word(*j);
                (w.len() >= 4 && label.get(..w.len()).is_some_and(|l| l.eq_ignore_ascii_case(w))) || alike(w, label)
            };
            if let Some(at) = f.range.clone().find(begins) {
                spellings.push((at, at + 1, 1.6));
            }
        }
        if !about.is_empty() && spellings.is_empty() && let Some((from, to)) = locate(f, about) {
            spellings.push((from, to, 1.7));
        }
        for (from, to, score) in spellings {
            let prep = preposition(slot, &f.before(from));
            let own = if slot.required { 0.0 } else { 0.8 * f.own(from, to) };
            hits.push((from, to, score + 0.35 * f.context(slot, from, to) + prep - own, option));
        }
    }
    if slot.list {
        hits.sort_by_key(|h| h.0);
        let (Some(first), Some(last)) = (hits.first(), hits.last()) else { return };
        let mut values: Vec<Value> = Vec::new();
        for (.., option) in &hits {
            if !values.contains(option) {
                values.push((*option).clone());
            }
        }
        out.push(Candidate { slot: i, from: first.0, to: last.1, score: 2.0, value: Value::Array(values), shared: true, list: 0 });
        return;
    }
    // The longest spelling of overlapping ones: "dark blue" rather than "blue".
    for (from, to, score, option) in &hits {
        let inside_longer = hits.iter().any(|(a, b, ..)| a <= from && b >= to && b - a > to - from);
        let penalty = if inside_longer { 1.5 } else { 0.0 };
        out.push(Candidate { slot: i, from: *from, to: *to, score: score - penalty, value: (*option).clone(), shared: slot.required, list: 0 });
    }
    described(f, i, slot, options, out);
}

/// Options told apart by lines `- option: text` in a description, or by texts of their own.
fn described(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, options: &[(&Value, &str)], out: &mut Vec<Candidate>) {
    let query = super::route::Query::new(&f.evidence.text, f.range.clone());
    let about = slot.whole.get("description").and_then(Value::as_str).unwrap_or("");
    let mut lines: Vec<(&Value, f32)> = Vec::new();
    let texts: Vec<(&Value, String)> = options
        .iter()
        .filter_map(|(option, own)| {
            let label = match option {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            };
            let text = if own.is_empty() {
                option_line(&f.tool.description, &label).or_else(|| option_line(about, &label))?
            } else {
                own
            };
            Some((*option, format!("{label} {text}")))
        })
        .collect();
    for (option, text) in &texts {
        // Words that all options share tell nothing.
        let (mut hit, mut seen) = (0.0f32, Vec::new());
        words::each_word(words::cut(text, 400), |w| {
            let s = stem(w);
            if words::is_stop(s) || seen.contains(&s) || seen.len() > 60 {
                return;
            }
            seen.push(s);
            let (got, _) = query.overlap(w);
            if got > 0.0 {
                let df = texts.iter().filter(|(_, t)| words::stems(t, 60).contains(&s)).count();
                let worth = if is_generic(s) { 0.3 } else { 1.0 };
                hit += got * worth / weight(df.max(1));
            }
        });
        if query.has_trigger(text) {
            hit += 4.0;
        }
        lines.push((option, hit));
    }
    lines.sort_by(|a, b| b.1.total_cmp(&a.1));
    if let Some((option, hit)) = lines.first()
        && *hit >= 0.5
        && lines.get(1).is_none_or(|(_, second)| hit > second)
    {
        out.push(Candidate { slot: i, from: 0, to: 0, score: 1.3 + 0.5 * hit.min(3.0), value: (*option).clone(), shared: true, list: 0 });
    }
}

/// The text of the line `- label: text`, or of `label represents text` within a sentence.
pub(super) fn option_line<'d>(description: &'d str, label: &str) -> Option<&'d str> {
    description
        .lines()
        .find_map(|line| {
            let line = line.trim_start().strip_prefix(['-', '*'])?.trim_start();
            let line = line.strip_prefix(['`', '\'', '"']).unwrap_or(line);
            let rest = line.strip_prefix(label)?;
            let rest = rest.strip_prefix(['`', '\'', '"']).unwrap_or(rest);
            rest.trim_start().strip_prefix([':', '-', '–', '=']).map(str::trim)
        })
        .or_else(|| {
            [" for ", " represents ", " means ", " is ", " = ", "=", ": ", " indicates "].iter().find_map(|link| {
                let cue = format!("{label}{link}");
                let at = description.find(&cue)?;
                let whole = description.get(..at)?.chars().next_back().is_none_or(|c| !c.is_alphanumeric());
                let rest = description.get(at + cue.len()..)?;
                whole.then(|| rest.split([',', ';', '.', '(', '\n']).next().unwrap_or(rest).trim())
            })
        })
}

fn weight(n: usize) -> f32 {
    f32::from(u8::try_from(n).unwrap_or(u8::MAX))
}

// ---- texts

/// How much the word before a piece speaks for a slot.
fn preposition(slot: &Slot<'_>, word: &str) -> f32 {
    let named = |any: &[&str]| slot.named(any);
    match word {
        "from" if named(&["from", "origin", "start", "source", "base", "departure", "sender", "starting", "begin", "pickup", "current", "first", "initial"]) => 2.0,
        "from" if named(&["to", "destination", "end", "target", "arrival"]) => -1.5,
        "to" | "into" | "towards" | "until" | "till" if named(&["to", "destination", "end", "target", "arrival", "recipient", "dest", "ending", "new", "final", "second", "dropoff"]) => 2.0,
        "to" | "into" if named(&["from", "origin", "start", "source", "base", "departure"]) => -1.5,
        "between" if named(&["from", "origin", "start", "source", "first", "1"]) => 1.0,
        "in" | "at" | "near" | "around" | "within" | "nearby" if slot.hint == Hint::Place => 1.6,
        "of" | "for" | "from" | "to" if slot.hint == Hint::Place => 0.8,
        "by" | "starring" | "featuring" if slot.hint == Hint::Person => 1.6,
        "of" | "for" | "with" | "to" | "player" if slot.hint == Hint::Person => 0.6,
        "in" | "at" | "near" if slot.hint == Hint::Person => -0.8,
        "on" | "at" | "in" | "for" if matches!(slot.hint, Hint::Date | Hint::Time | Hint::DateTime) => 0.4,
        "called" | "named" | "titled" if named(&["name", "title"]) => 2.0,
        "about" | "on" | "regarding" if slot.hint == Hint::Free => 0.9,
        _ => 0.0,
    }
}

fn base(hint: Hint, look: Look) -> Option<f32> {
    Some(match (hint, look) {
        (Hint::Email, Look::Email) | (Hint::Url, Look::Url) => 3.0,
        (Hint::Email | Hint::Url | Hint::Date | Hint::DateTime | Hint::Time, _) => return None,
        (Hint::Free, Look::Quoted) => 2.2,
        (Hint::Free, Look::Name) => 0.5,
        (Hint::Free, Look::Chunk) => 0.3,
        (Hint::Place, Look::Name) => 1.2,
        (Hint::Place, Look::Quoted) => 0.8,
        (Hint::Place | Hint::Person, Look::Chunk) => 0.0,
        (Hint::Person, Look::Name) => 1.2,
        (Hint::Person, Look::Quoted) => 1.1,
        (Hint::Id, Look::Id) => 1.6,
        (Hint::Id, Look::Quoted) => 1.4,
        (Hint::Id, Look::Name) => 0.3,
        (Hint::Id, Look::Chunk) => 0.0,
        (Hint::Language | Hint::Currency, Look::Name) => 0.5,
        (Hint::Language | Hint::Currency, _) => return None,
        (Hint::Expression, Look::Quoted) => 1.5,
        (Hint::Expression, _) => return None,
        (_, Look::Quoted) => 1.6,
        (_, Look::Name) => 0.9,
        (_, Look::Id) => 0.5,
        (_, Look::Chunk) => 0.35,
        (_, Look::Email | Look::Url) => 0.5,
    })
}

fn texts(f: &Filling<'_, '_>, slots: &[Slot<'_>], i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    whens(f, i, slot, out);
    if slot.hint == Hint::Expression {
        if let Some(e) = &f.evidence.expression {
            out.push(Candidate { slot: i, from: 0, to: 0, score: 4.0, value: json!(e.text), shared: true, list: 0 });
        } else if let Some((from, to)) = clause::formula(&f.evidence.text, f.range.clone()) {
            out.push(Candidate { slot: i, from, to, score: 3.0, value: json!(f.evidence.text.span(from, to)), shared: false, list: 0 });
        }
    } else if let Some(e) = &f.evidence.expression
        && slot.speaks_of(&["expression", "formula", "equation", "calculation", "arithmetic"])
    {
        out.push(Candidate { slot: i, from: 0, to: 0, score: 3.6, value: json!(e.text), shared: true, list: 0 });
    } else if let Some(op) = f.evidence.expression.as_ref().and_then(|e| e.operator)
        && slot.named(&["operator", "operation", "op"])
    {
        out.push(Candidate { slot: i, from: 0, to: 0, score: 2.5, value: json!(op), shared: true, list: 0 });
    }
    stated(f, i, slot, out);
    for found in clause::clauses(f, slot) {
        out.push(Candidate { slot: i, from: found.from, to: found.to, score: found.score, value: json!(found.text), shared: false, list: 0 });
    }
    let known = out.len();
    if slot.hint == Hint::Currency || slot.hint == Hint::Language {
        known_words(f, i, slot, out);
        if out.len() > known {
            return;
        }
    }
    if slot.hint == Hint::Language && slot.required && slot.speaks_of(&["written", "source", "original", "text is"]) && is_english(f) {
        out.push(Candidate { slot: i, from: 0, to: 0, score: 0.5, value: json!(coded(slot, "English")), shared: true, list: 0 });
    }
    let alone = slots.iter().filter(|s| s.kind == Kind::Text && s.required).count() <= 1;
    for span in f.evidence.spans.iter().filter(|s| f.inside(s.from, s.to)) {
        let Some(base) = base(slot.hint, span.look) else { continue };
        let (from, to) = trim(f, slot, span.from, span.to, span.look);
        if from >= to {
            continue;
        }
        if span.look != Look::Quoted && span::is_empty_talk(&f.evidence.text, from, to) {
            continue;
        }
        let context = f.context(slot, from, to);
        let prep = preposition(slot, &f.before(from));
        let own = f.own(from, to) * match span.look {
            Look::Chunk => 1.3,
            Look::Name => 0.5,
            _ => 0.0,
        };
        let mut score = base + context.min(3.0) + prep - own;
        if matches!(slot.hint, Hint::Place | Hint::Person) && span.look == Look::Chunk && prep <= 0.0 && context < 1.0 {
            score -= 1.0;
        }
        if span.look == Look::Chunk && !slot.required && context < 1.2 && prep <= 0.0 {
            continue;
        }
        score += kinship(f, slots, i, from, to);
        if span.look == Look::Name && slot.hint == Hint::Person && to - from >= 2 {
            score += 0.7;
        }
        if span.look == Look::Chunk && to - from == 1 && verbish(f.evidence.text.word(from)) {
            score -= 0.7;
        }
        if span.look == Look::Chunk && ["in", "of", "for", "about", "with", "on", "like", "by", "to", "from", "at"].contains(&f.before(from).as_str()) {
            score += 0.4;
        }
        score -= 0.01 * weight(from.min(60));
        if alone && span.look == Look::Name {
            score += 0.2;
        }
        let text = if span.look == Look::Quoted { f.evidence.text.span(from, to) } else { span::value(&f.evidence.text, from, to) };
        if text.is_empty() {
            continue;
        }
        if span.look == Look::Chunk && (from..to).any(|t| f.evidence.text.is(t, "of")) {
            score += 0.5;
        }
        let (before, text_before) = (f.before(from), |n: usize| from >= n && f.evidence.text.is(from - n, "name"));
        if slot.hint == Hint::Person && (before == "i'm" || (before == "am" && from >= 2) || (before == "is" && text_before(2))) {
            score += if slot.named(&["user", "my", "sender", "customer"]) { 2.0 } else { -0.5 };
        }
        let region = (slot.hint == Hint::Place && places::wants_region(&slot.words)).then(|| places::with_region(text)).flatten();
        let text = coded(slot, region.unwrap_or(text));
        out.push(Candidate { slot: i, from, to, score, value: json!(text), shared: false, list: span.list });
        // "Denver, Colorado" as one place.
        if slot.hint == Hint::Place && span.look == Look::Name && !slot.named(&["state", "country", "city", "county", "district", "province"]) | slot.words.contains("state)") | slot.words.contains("city and state") | slot.words.contains("city, ") {
            let next = f.evidence.spans.iter().find(|s| s.look == Look::Name && s.from == to + 1);
            if let Some(next) = next.filter(|_| f.evidence.text.mark(to, ',')) {
                let value = f.evidence.text.span(from, next.to);
                out.push(Candidate { slot: i, from, to: next.to, score: score + 0.3, value: json!(value), shared: false, list: 0 });
            }
        }
    }
    // A number as text: "ticket 12345".
    if slot.hint == Hint::Id {
        for n in in_range(f).filter(|n| !n.weak) {
            let context = f.context(slot, n.from, n.to);
            if context > 1.5 {
                let text = f.evidence.text.span(n.from, n.to);
                out.push(Candidate { slot: i, from: n.from, to: n.to, score: context - 0.3, value: json!(text), shared: false, list: 0 });
            }
        }
    }
}

/// "Louvre Museum" goes to `museum`, not to `location`: a piece that holds the name of a slot is that slot's.
fn kinship(f: &Filling<'_, '_>, slots: &[Slot<'_>], i: usize, from: usize, to: usize) -> f32 {
    let holds = |slot: &Slot<'_>| {
        to - from >= 2
            && (from..to).any(|t| {
                let stem = f.evidence.text.stem(t);
                !is_generic(stem) && slot.name.iter().any(|(s, w)| *s == stem && *w >= 0.9)
            })
    };
    if slots.get(i).is_some_and(holds) {
        1.5
    } else if slots.iter().enumerate().any(|(j, s)| j != i && s.kind == Kind::Text && !s.list && holds(s)) {
        -1.0
    } else {
        0.0
    }
}

/// A lone word that is rather what happens than what it happens to.
fn verbish(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    (lower.len() > 4 && (lower.ends_with("ed") || lower.ends_with("ing")))
        || matches!(lower.as_str(), "found" | "made" | "least" | "given" | "held" | "known" | "located" | "based" | "want" | "looking" | "including" | "currently" | "happening" | "available" | "taken" | "built")
}

/// Is the message in English, by its little words?
fn is_english(f: &Filling<'_, '_>) -> bool {
    f.evidence.text.tokens.iter().filter(|t| t.mark.is_none() && t.stop).count() >= 3
}

/// Codes where the description asks for codes.
fn coded(slot: &Slot<'_>, text: &str) -> String {
    let code = match slot.hint {
        Hint::Currency => currency_code(text),
        Hint::Language if slot.speaks_of(&["code", "iso", "en"]) => language_code(text),
        _ => None,
    };
    code.unwrap_or(text).to_owned()
}

/// Names of currencies and languages, capitalised or not.
fn known_words(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let text = &f.evidence.text;
    let mut at = f.range.start;
    while at < f.range.end {
        let found = (1..=2usize).rev().find_map(|len| {
            let words = text.span(at, at + len);
            let known = match slot.hint {
                Hint::Currency => currency_code(words).map(str::to_owned),
                _ => language_code(words).map(|_| coded(slot, words)),
            };
            known.filter(|_| at + len <= f.range.end).map(|k| (len, k))
        });
        match found {
            Some((len, known)) => {
                let counted = at > 0 && f.evidence.numbers.iter().any(|n| n.to == at || n.from == at + len);
                let source = if slot.hint == Hint::Currency && counted {
                    if slot.named(&["from", "base", "source"]) { 1.5 } else if slot.named(&["to", "target"]) { -1.0 } else { 0.0 }
                } else {
                    0.0
                };
                let score = 2.2 + source + preposition(slot, &f.before(at)) + 0.3 * f.context(slot, at, at + len) - 0.01 * weight(at.min(60));
                out.push(Candidate { slot: i, from: at, to: at + len, score, value: json!(known), shared: false, list: 0 });
                at += len;
            }
            None => at += 1,
        }
    }
}

/// Takes words off both ends of a piece that name the slot rather than fill it: "Thai food" for `food_type`.
fn trim(f: &Filling<'_, '_>, slot: &Slot<'_>, mut from: usize, mut to: usize, look: Look) -> (usize, usize) {
    if look != Look::Chunk {
        return (from, to);
    }
    let text = &f.evidence.text;
    let names = |i: usize| slot.name.iter().any(|(s, _)| *s == text.stem(i));
    let tool = |i: usize| f.tool_words.contains(&text.stem(i)) || is_generic(text.stem(i));
    while from + 1 < to && (names(from) || tool(from) || span::is_imperative(text, from)) {
        from += 1;
    }
    while from + 1 < to && (names(to - 1) || tool(to - 1)) {
        to -= 1;
    }
    (from, to)
}

/// Values that the description itself names, found in the message.
fn stated(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    if matches!(slot.hint, Hint::Date | Hint::DateTime | Hint::Email | Hint::Url | Hint::Expression | Hint::Place | Hint::Person) {
        return;
    }
    let about = slot.whole.get("description").or_else(|| slot.node.get("description")).and_then(Value::as_str).unwrap_or("");
    for option in examples(words::cut(about, 600)) {
        if let Some((from, to)) = locate(f, option) {
            let clear = f.own(from, to) < 1.0 || slot.required;
            let score = if clear { 2.4 } else { 1.2 } + 0.4 * f.context(slot, from, to) + preposition(slot, &f.before(from));
            out.push(Candidate { slot: i, from, to, score, value: json!(option), shared: false, list: 0 });
        }
    }
}

/// Quoted words of a description, and its lists after "e.g." and "options".
fn examples(about: &str) -> Vec<&str> {
    let mut out: Vec<&str> = Vec::new();
    let mut rest = about;
    while let Some(at) = rest.find(['\'', '"', '`', '‘', '“']) {
        let before = rest.get(..at).and_then(|h| h.chars().next_back());
        let quote = rest.get(at..).and_then(|t| t.chars().next()).unwrap_or('\'');
        let Some(body) = rest.get(at + quote.len_utf8()..) else { break };
        let close = match quote {
            '‘' => '’',
            '“' => '”',
            q => q,
        };
        if before.is_some_and(char::is_alphanumeric) {
            rest = body;
            continue;
        }
        let Some(end) = body.find(close) else { break };
        if let Some(word) = body.get(..end).filter(|w| (2..=40).contains(&w.len())) {
            out.push(word.trim_end_matches(','));
        }
        rest = body.get(end + close.len_utf8()..).unwrap_or("");
    }
    for cue in ["e.g.", "options:", "options are", "can be", "one of", "such as", "like", "either"] {
        if let Some(at) = super::slot::find_ignore_case(about, cue)
            && let Some(tail) = about.get(at + cue.len()..)
        {
            let tail = tail.split(['.', ')', ';']).next().unwrap_or("");
            out.extend(
                tail.split([',', '/'])
                    .flat_map(|w| w.split(" or "))
                    .map(|w| w.trim().trim_start_matches("or ").trim_matches(['\'', '"', ':', ' ']))
                    .filter(|w| (3..=24).contains(&w.len()) && w.split(' ').count() <= 2 && *w != "etc"),
            );
        }
    }
    out.retain(|w| !w.contains(['\'', '"']) && !words::stems(w, 4).is_empty());
    out.truncate(40);
    out
}

fn whens(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let text = &f.evidence.text;
    let all = || f.evidence.whens.iter().filter(|w| f.inside(w.from, w.to));
    for when in all() {
        let prep = f.before(when.from);
        let mut score = 2.4 + 0.5 * f.context(slot, when.from, when.to) + preposition(slot, &prep) - 0.02 * weight(when.from.min(60));
        if ["to", "until", "till", "-", "through"].contains(&prep.as_str()) && slot.named(&["from", "start", "checkin", "check"]) && !slot.named(&["out"]) {
            score -= 1.0;
        }
        let raw = text.span(when.from, when.to);
        let value = match (slot.hint, when.day, when.clock) {
            (Hint::Date, Some(day), _) => day.layout(&slot.words),
            (Hint::Date, None, _) if when.is_day => {
                score -= 0.5;
                raw.to_owned()
            }
            (Hint::Time, _, Some(c)) => {
                if slot.node.get("format").is_some() || slot.words.contains("hh:mm:ss") {
                    format!("{:02}:{:02}:{:02}", c.hour, c.minute, c.second)
                } else if slot.words.contains("am") && slot.speaks_of(&["am", "pm"]) {
                    raw.to_owned()
                } else {
                    format!("{:02}:{:02}", c.hour, c.minute)
                }
            }
            (Hint::DateTime, day, clock) => {
                // The other half stands close by.
                let near = |w: &&crate::offline::extract::date::When| w.from.abs_diff(when.from) <= 8;
                let day = day.or_else(|| all().filter(near).find_map(|w| w.day));
                let clock = clock.or_else(|| all().filter(near).find_map(|w| w.clock));
                let Some(day) = day else { continue };
                let (h, m, s) = clock.map_or((0, 0, 0), |c| (c.hour, c.minute, c.second));
                if slot.words.contains("yyyy-mm-dd hh:mm") {
                    format!("{} {h:02}:{m:02}:{s:02}", day.layout(""))
                } else {
                    format!("{}T{h:02}:{m:02}:{s:02}Z", day.layout(""))
                }
            }
            _ => continue,
        };
        out.push(Candidate { slot: i, from: when.from, to: when.to, score, value: json!(value), shared: slot.hint == Hint::DateTime, list: 0 });
    }
}

fn text_lists(f: &Filling<'_, '_>, slots: &[Slot<'_>], i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    let text = &f.evidence.text;
    let mut seen: Vec<u32> = Vec::new();
    for span in f.evidence.spans.iter().filter(|s| f.inside(s.from, s.to)) {
        if span.list != 0 && seen.contains(&span.list) {
            continue;
        }
        let members: Vec<_> = if span.list == 0 {
            vec![span]
        } else {
            seen.push(span.list);
            let mut all: Vec<_> = f.evidence.spans.iter().filter(|s| s.list == span.list && f.inside(s.from, s.to)).collect();
            all.sort_by_key(|s| s.from);
            all
        };
        let hint = if slot.hint == Hint::Date { Hint::Other } else { slot.hint };
        let Some(base) = base(hint, span.look) else { continue };
        let (Some(first), Some(last)) = (members.first(), members.last()) else { continue };
        let trimmed: Vec<(usize, usize)> = members.iter().map(|s| trim(f, slot, s.from, s.to, s.look)).collect();
        let values: Vec<Value> = trimmed
            .iter()
            .filter(|(a, b)| span.look == Look::Quoted || !span::is_empty_talk(text, *a, *b))
            .map(|(a, b)| json!(span::value(text, *a, *b)))
            .collect();
        if values.is_empty() {
            continue;
        }
        let own = if span.look == Look::Chunk { 1.2 * f.own(first.from, last.to) } else { 0.0 };
        let context = f.context(slot, first.from, last.to).max(f.context(slot, first.from, first.to));
        let many = if values.len() > 1 { 1.0 } else { 0.0 };
        if span.look == Look::Chunk && !slot.required && context < 1.0 {
            continue;
        }
        let score = base + context.min(3.0) + many - own - 0.01 * weight(first.from.min(60));
        out.push(Candidate { slot: i, from: first.from, to: last.to, score, value: Value::Array(values), shared: false, list: 0 });
    }
    // Options that the description names.
    let mut single = Vec::new();
    stated(f, i, slot, &mut single);
    single.sort_by_key(|c| c.from);
    if let (Some(first), Some(last)) = (single.first(), single.last()) {
        let mut values: Vec<Value> = Vec::new();
        for c in &single {
            if !values.contains(&c.value) {
                values.push(c.value.clone());
            }
        }
        out.push(Candidate { slot: i, from: first.from, to: last.to, score: 2.1, value: Value::Array(values), shared: true, list: 0 });
    }
    let _ = slots;
}
