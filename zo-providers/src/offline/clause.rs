//! The words of the user's own in a message: what follows *remember that*, *note:*, *search for*.

use super::{
    extract::span,
    fill::Filling,
    slot::{Hint, Slot},
    words::{Text, is_generic},
};
use std::ops::Range;

/// A clause and how surely it is the one meant.
#[derive(Debug)]
pub(super) struct Clause {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) score: f32,
    pub(super) text: String,
}

/// Clauses of tokens `range` that could fill `slot`.
pub(super) fn clauses(f: &Filling<'_, '_>, slot: &Slot<'_>) -> Vec<Clause> {
    let text = &f.evidence.text;
    let range = f.range.clone();
    let mut out = Vec::new();
    if !matches!(slot.hint, Hint::Free | Hint::Other) {
        return out;
    }
    let free = slot.hint == Hint::Free;
    // "<name of the slot>: the rest", "with content - the rest"
    if let Some(from) = after_colon(text, &range)
        && (free || slot.required)
    {
        push(f, &mut out, from, range.end, if free { 2.7 } else { 1.4 });
    }
    if !free {
        return out;
    }
    if let Some(from) = after_cue(text, &range) {
        push(f, &mut out, from, range.end, 2.5);
    }
    let query = slot.named(&["query", "search", "keyword", "keywords", "topic", "subject", "q"]);
    if query {
        if let Some((from, to)) = topic(text, &range) {
            push(f, &mut out, from, to, 2.0);
        }
        if let Some((from, to)) = residue(f) {
            push(f, &mut out, from, to, 0.6);
        }
    }
    // The whole message, for who wants to have it.
    if slot.required {
        let asks = slot.named(&["question", "statement", "prompt", "input", "query"]);
        let mut from = range.start;
        while from < range.end && text.any(from, &["please", "hey", "hi", "hello", ",", "!"]) {
            from += 1;
        }
        let keeps = f.tool.name.split(['_', '-', '.']).any(|w| matches!(w, "remember" | "memorize"));
        push(
            f,
            &mut out,
            from,
            range.end,
            if keeps && slot.named(&["text", "fact", "memory", "content", "note"]) {
                1.2
            } else if asks {
                0.5
            } else {
                0.2
            },
        );
    }
    out
}

fn push(f: &Filling<'_, '_>, out: &mut Vec<Clause>, from: usize, mut to: usize, score: f32) {
    let text = &f.evidence.text;
    let whole = to >= text.tokens.len();
    if !whole {
        while to > from
            && text.tokens.get(to - 1).is_some_and(|t| t.mark.is_some_and(|m| ".,;!?\n".contains(m)))
        {
            to -= 1;
        }
    }
    // A message longer than what is analysed keeps its tail.
    let words = if whole { text.rest(from) } else { text.span(from, to) };
    let words = tidy(words);
    if words.chars().any(char::is_alphanumeric) {
        out.push(Clause { from, to, score, text: words.to_owned() });
    }
}

/// Without the full stop and the quotation marks around.
fn tidy(words: &str) -> &str {
    let words = words.trim();
    let words = words.strip_suffix(['.', '!', ',']).unwrap_or(words);
    let inner = [('"', '"'), ('\'', '\''), ('“', '”')].iter().find_map(|(a, b)| {
        words.strip_prefix(*a).and_then(|w| w.strip_suffix(*b)).filter(|w| !w.contains(*a))
    });
    inner.unwrap_or(words).trim()
}

fn after_colon(text: &Text<'_>, range: &Range<usize>) -> Option<usize> {
    let near = range.end.min(range.start + 24);
    (range.start..near).find_map(|i| {
        let colon = text.mark(i, ':') && i > range.start;
        let dash = text.mark(i, '-')
            && i > range.start + 1
            && i + 1 < range.end
            && text.tokens.get(i).zip(text.tokens.get(i + 1)).is_some_and(|(a, b)| a.end < b.start);
        let from = i + 1;
        ((colon || dash) && from < range.end).then_some(from)
    })
}

/// The word after *remember that*, *remind me to*, *make a note of*, *saying*.
fn after_cue(text: &Text<'_>, range: &Range<usize>) -> Option<usize> {
    for i in range.start..range.end.min(range.start + 24) {
        let skip = |mut j: usize, words: &[&str]| {
            while text.any(j, words) || text.mark(j, ',') {
                j += 1;
            }
            j
        };
        let from = if text.any(i, &["remember", "memorize", "memorise", "note"]) && !text.is(i + 1, "to") {
            skip(i + 1, &["that", "this", "down", "for", "me", "please", "the", "fact"])
        } else if text.any(i, &["remember", "note", "reminder", "task", "todo"]) && text.is(i + 1, "to") {
            i + 2
        } else if text.any(i, &["remind"]) {
            skip(i + 1, &["me", "us", "him", "her", "to", "that", "about"])
        } else if text.any(i, &["saying", "says", "reading", "stating"]) {
            skip(i + 1, &["that"])
        } else if text.any(i, &["write", "jot"]) && text.any(i + 1, &["down", "that"]) {
            skip(i + 1, &["down", "that"])
        } else if text.any(i, &["say", "echo", "repeat"]) && i < range.start + 3 {
            i + 1
        } else if text.any(i, &["tell", "message", "text"])
            && text.tokens.get(i + 1).is_some_and(|t| t.mark.is_none())
            && text.any(i + 2, &["that"])
        {
            i + 3
        } else {
            continue;
        };
        if from < range.end
            && text
                .tokens
                .get(from)
                .is_some_and(|t| t.mark.is_none() || t.mark.is_some_and(|m| "'\"“".contains(m)))
        {
            return Some(from);
        }
    }
    None
}

/// What is searched for: *search the web for X*, *look up X*, *articles about X*.
fn topic(text: &Text<'_>, range: &Range<usize>) -> Option<(usize, usize)> {
    let end = |from: usize| {
        (from..range.end).find(|i| text.ends_sentence(*i) || text.mark(*i, ',')).unwrap_or(range.end)
    };
    let cue = |i: usize| -> Option<usize> {
        if text.any(i, &["search", "look", "looking", "query", "google", "find"]) {
            if let Some(j) = (i + 1..range.end.min(i + 6)).find(|j| text.any(*j, &["for", "about"])) {
                return Some(j + 1);
            }
            if text.is(i + 1, "up") {
                return Some(i + 2);
            }
            return text.any(i, &["google", "search"]).then_some(i + 1);
        }
        text.any(i, &["about", "regarding", "concerning"]).then_some(i + 1)
    };
    let mut from = range.clone().find_map(cue)?;
    while text
        .any(from, &["the", "a", "an", "some", "any", "information", "info", "about", "on", "for", "me"])
    {
        from += 1;
    }
    let to = end(from);
    (from < to && !span::is_empty_talk(text, from, to)).then_some((from, to))
}

/// From the first to the last telling word that is not the tool's own.
fn residue(f: &Filling<'_, '_>) -> Option<(usize, usize)> {
    let text = &f.evidence.text;
    let telling = |i: &usize| {
        text.tokens.get(*i).is_some_and(|t| {
            t.mark.is_none()
                && !t.stop
                && !is_generic(t.stem)
                && !f.tool_words.contains(&t.stem)
                && !span::is_imperative(text, *i)
        })
    };
    let from = f.range.clone().find(telling)?;
    let to = f.range.clone().rev().find(telling)? + 1;
    (to - from <= 16).then_some((from, to))
}

/// A run of symbols, digits and single letters: `3x^2 + 2x - 5`.
pub(super) fn formula(text: &Text<'_>, range: Range<usize>) -> Option<(usize, usize)> {
    let symbol = |i: usize| {
        text.tokens.get(i).is_some_and(|t| match t.mark {
            Some(m) => "+-*/^()²³".contains(m),
            None => {
                let w = text.word(i);
                t.digit
                    || w.contains(['^', '*', '/'])
                    || (w.len() == 1 && !w.eq_ignore_ascii_case("a") && w != "I")
                    || matches!(w, "sin" | "cos" | "tan" | "log" | "ln" | "exp" | "sqrt" | "pi")
            }
        })
    };
    let telling = |i: usize| {
        let w = text.word(i);
        (w.contains(|c: char| c.is_alphabetic())
            && (w.contains(['^', '*']) || text.tokens.get(i).is_some_and(|t| t.digit)))
            || w.len() == 1 && w.chars().all(char::is_alphabetic)
            || matches!(w, "sin" | "cos" | "tan" | "log" | "ln" | "exp" | "sqrt")
    };
    let mut best: Option<(usize, usize)> = None;
    let mut i = range.start;
    while i < range.end {
        if !symbol(i) {
            i += 1;
            continue;
        }
        let mut to = i;
        while to < range.end && symbol(to) {
            to += 1;
        }
        let mut end = to;
        while end > i
            && text.tokens.get(end - 1).is_some_and(|t| t.mark.is_some_and(|m| "+-*/^(".contains(m)))
        {
            end -= 1;
        }
        if (i..end).any(telling) && best.is_none_or(|(a, b)| end - i > b - a) {
            best = Some((i, end));
        }
        i = to;
    }
    best
}
