//! Pieces of a text that could be an argument: quotes, names, identifiers, addresses, noun chunks, and lists of them.

use crate::offline::{
    lexicon::is_unit,
    words::{Text, is_generic, stem},
};

/// What a piece looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::offline) enum Look {
    /// Stands in quotation marks.
    Quoted,
    /// Capitalised words.
    Name,
    /// One word that mixes letters and digits, or holds `_`, `-` or `/`.
    Id,
    Email,
    Url,
    /// Other words between words of little meaning.
    Chunk,
}

/// Tokens `from..to` of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::offline) struct Span {
    pub(in crate::offline) from: usize,
    pub(in crate::offline) to: usize,
    pub(in crate::offline) look: Look,
    /// Member of this enumeration, 0 if of none.
    pub(in crate::offline) list: u32,
}

const MAX_SPANS: usize = 160;

/// Verbs that begin a request and so are no part of a name that follows.
const IMPERATIVES: &str = "find search get show tell give book play buy order add create make set send call open close \
    delete remove update change convert translate calculate compute determine estimate predict plot draw generate list \
    check look locate fetch retrieve identify analyze analyse compare recommend suggest schedule reserve order remind \
    remember note write read save store start stop turn switch run execute query count sum solve simulate provide help \
    i what where when who how which why is are can could would will please do does hi hello hey let need want also then \
    and in on at for from the a an my if of to with by after before during using given considering assuming suppose \
    cancel move rename copy post publish upload download draft summarize summarise explain describe detail display";

/// Finds pieces outside `taken` tokens.
pub(in crate::offline) fn find(text: &Text<'_>, taken: &[bool]) -> Vec<Span> {
    let mut out = Vec::new();
    let quoted = quotes(text, &mut out);
    let free = |i: usize| taken.get(i) != Some(&true) && quoted.get(i) != Some(&true);
    names(text, &free, &mut out);
    let mut named = vec![false; text.tokens.len()];
    for span in out.iter().filter(|s| s.look == Look::Name) {
        named.iter_mut().take(span.to).skip(span.from).for_each(|n| *n = true);
    }
    singles(text, &free, &mut out);
    chunks(text, &|i| free(i) && named.get(i) != Some(&true), &mut out);
    out.truncate(MAX_SPANS);
    lists(text, &mut out);
    out
}

/// Quotations; returns which tokens they cover.
fn quotes(text: &Text<'_>, out: &mut Vec<Span>) -> Vec<bool> {
    let n = text.tokens.len();
    let mut covered = vec![false; n];
    let mut i = 0;
    while i < n && out.len() < MAX_SPANS {
        let open = text.tokens.get(i).and_then(|t| t.mark);
        let close: &[char] = match open {
            Some('"') => &['"'],
            Some('“' | '„') => &['”', '“', '"'],
            Some('‘') => &['’'],
            Some('«') => &['»'],
            Some('`') => &['`'],
            Some('\'') => &['\''],
            _ => &[],
        };
        let end = (!close.is_empty())
            .then(|| {
                // The last fitting mark of an apostrophe-riddled quotation ends before a break.
                (i + 1..n.min(i + 400)).find(|&j| {
                    text.tokens.get(j).and_then(|t| t.mark).is_some_and(|m| close.contains(&m))
                        && ends_quote(text, j)
                })
            })
            .flatten();
        match end {
            Some(end) if end > i + 1 => {
                out.push(Span { from: i + 1, to: end, look: Look::Quoted, list: 0 });
                // A quoted address is both a quotation and an address.
                if end == i + 2
                    && let Some(look) = address(text.word(i + 1))
                {
                    out.push(Span { from: i + 1, to: end, look, list: 0 });
                }
                covered.iter_mut().take(end + 1).skip(i).for_each(|c| *c = true);
                i = end + 1;
            }
            _ => i += 1,
        }
    }
    covered
}

/// A closing mark is followed by space, punctuation or the end.
fn ends_quote(text: &Text<'_>, j: usize) -> bool {
    let end = text.tokens.get(j).map_or(0, |t| t.end);
    text.full.get(end..).and_then(|rest| rest.chars().next()).is_none_or(|c| !c.is_alphanumeric())
}

/// Is the word at `i` one that begins requests?
pub(in crate::offline) fn is_imperative(text: &Text<'_>, i: usize) -> bool {
    let word = text.word(i);
    IMPERATIVES.split_whitespace().any(|w| w.eq_ignore_ascii_case(word))
}

fn sentence_start(text: &Text<'_>, i: usize) -> bool {
    i.checked_sub(1).is_none_or(|j| text.ends_sentence(j) || text.mark(j, ':'))
}

/// Abbreviations that say what kind of value follows, and are none themselves.
fn is_label(word: &str) -> bool {
    matches!(
        word,
        "ID" | "IDs"
            | "UUID"
            | "GUID"
            | "URL"
            | "URI"
            | "IP"
            | "ISBN"
            | "SKU"
            | "PIN"
            | "VIN"
            | "API"
            | "ISO"
    )
}

fn names(text: &Text<'_>, free: &impl Fn(usize) -> bool, out: &mut Vec<Span>) {
    let capital = |i: usize| {
        text.tokens.get(i).is_some_and(|t| t.capital && free(i) && (!t.digit || t.end - t.start <= 3))
            && !is_label(text.word(i))
            && !(text.word(i).len() > 1
                && text.word(i).chars().all(char::is_uppercase)
                && is_unit(text.word(i)))
    };
    let mut i = 0;
    while i < text.tokens.len() && out.len() < MAX_SPANS {
        let lone = !capital(i + 1);
        let weak = text.tokens.get(i).is_some_and(|t| t.stop) && (lone || sentence_start(text, i));
        let begins = sentence_start(text, i) && is_imperative(text, i);
        if !capital(i) || weak || begins {
            i += 1;
            continue;
        }
        let mut end = i + 1;
        while end < text.tokens.len() {
            let possessive = end.checked_sub(1).is_some_and(|j| has_possessive(text.word(j)));
            if possessive && !capital(end) {
                break;
            }
            let short = end.checked_sub(1).is_some_and(|j| {
                text.word(j).len() == 1 || text.any(j, &["Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Jr", "Sr"])
            });
            let initial = text.mark(end, '.') && short && capital(end + 1);
            if capital(end) || initial {
                end += 1;
                continue;
            }
            let particle = |j: usize| {
                text.any(
                    j,
                    &[
                        "of", "the", "de", "del", "da", "di", "la", "le", "van", "von", "der", "&", "vs",
                        "vs.",
                    ],
                )
            };
            if particle(end) && capital(end + 1) && !text.is(end, "the") {
                end += 2;
            } else if particle(end) && particle(end + 1) && capital(end + 2) {
                end += 3;
            } else if text.tokens.get(end).is_some_and(|t| t.digit && t.end - t.start <= 2)
                && text.tokens.get(end + 1).is_none_or(|t| t.mark.is_some() || text.is(end + 1, "and"))
                && free(end)
            {
                end += 1;
                break;
            } else {
                break;
            }
        }
        out.push(Span { from: i, to: end, look: Look::Name, list: 0 });
        i = end;
    }
}

/// Ends in `'s`?
pub(in crate::offline) fn has_possessive(word: &str) -> bool {
    word.ends_with("'s") || word.ends_with("’s")
}

fn singles(text: &Text<'_>, free: &impl Fn(usize) -> bool, out: &mut Vec<Span>) {
    for i in 0..text.tokens.len() {
        if out.len() >= MAX_SPANS {
            break;
        }
        let word = text.word(i);
        let Some(token) = text.tokens.get(i).filter(|t| t.mark.is_none()) else { continue };
        if !free(i) {
            continue;
        }
        let look = if let Some(look) = address(word) {
            look
        } else if is_code(word, token.digit) || is_file(word) {
            Look::Id
        } else {
            continue;
        };
        out.push(Span { from: i, to: i + 1, look, list: 0 });
    }
}

fn address(word: &str) -> Option<Look> {
    let www = word.get(..4).is_some_and(|w| w.eq_ignore_ascii_case("www."));
    if word.contains("://") || www {
        Some(Look::Url)
    } else if word.split_once('@').is_some_and(|(a, b)| !a.is_empty() && b.contains('.')) {
        Some(Look::Email)
    } else {
        is_domain(word).then_some(Look::Url)
    }
}

/// A name with an ending, as files have: `report.pdf`, `main.rs`.
pub(in crate::offline) fn is_file(word: &str) -> bool {
    word.rsplit_once('.').is_some_and(|(stem, end)| {
        (1..=5).contains(&end.len())
            && end.bytes().all(|b| b.is_ascii_alphanumeric())
            && end.starts_with(|c: char| c.is_ascii_lowercase())
            && stem.len() > 1
            && stem.contains(|c: char| c.is_alphabetic())
            && !stem.contains('.')
    })
}

/// Letters and digits in one word, or three digits and more, or words joined by `_` or `/`.
fn is_code(word: &str, digit: bool) -> bool {
    let mixed = word.len() > 1 && word.contains(|c: char| c.is_alphabetic() || "-_/.:".contains(c));
    let long = word.len() >= 3 && word.bytes().all(|b| b.is_ascii_digit());
    (digit && (mixed || long)) || word.contains(['_', '/'])
}

fn is_domain(word: &str) -> bool {
    const ENDS: [&str; 12] =
        [".com", ".org", ".net", ".io", ".edu", ".gov", ".de", ".uk", ".dev", ".app", ".ai", ".co"];
    let lower = word.to_ascii_lowercase();
    ENDS.iter().any(|e| lower.ends_with(e) || lower.contains(&format!("{e}/")))
}

fn chunks(text: &Text<'_>, free: &impl Fn(usize) -> bool, out: &mut Vec<Span>) {
    let inside = |i: usize| text.tokens.get(i).is_some_and(|t| t.mark.is_none() && !t.stop && free(i));
    let mut i = 0;
    let mut previous: Option<(usize, usize)> = None;
    while i < text.tokens.len() && out.len() < MAX_SPANS {
        if !inside(i) || (sentence_start(text, i) && is_imperative(text, i)) {
            i += 1;
            continue;
        }
        let mut end = i + 1;
        while inside(end) && end < i + 8 && !has_possessive(text.word(end - 1)) {
            end += 1;
        }
        let verb =
            end == i + 1 && text.any(end, &["a", "an", "the", "my", "his", "her", "their", "its", "our"]);
        let head = end == i + 1 && is_measure(text, i) && text.is(end, "of");
        if verb || head {
            previous = Some((i, end)).filter(|_| head);
            i = end;
            continue;
        }
        out.push(Span { from: i, to: end, look: Look::Chunk, list: 0 });
        // "theory of relativity" as well as its two halves, but not "basis of" and "amount of".
        if let Some((from, to)) = previous
            && !is_measure(text, to - 1)
            && (text.is(to, "of") && (to + 1 == i || (to + 2 == i && text.is(to + 1, "the"))))
        {
            out.push(Span { from, to: end, look: Look::Chunk, list: 0 });
        }
        previous = Some((i, end));
        i = end;
    }
}

/// A noun that stands before *of* and says nothing of its own.
fn is_measure(text: &Text<'_>, i: usize) -> bool {
    text.any(
        i,
        &[
            "terms", "basis", "amount", "part", "kind", "kinds", "sort", "sorts", "type", "types", "list",
            "lists", "number", "set", "sets", "piece", "pieces", "variety", "couple", "lot", "lots", "bit",
            "case", "use", "form", "value", "values", "level", "levels", "rate", "pair", "pairs", "way",
            "ways",
        ],
    )
}

/// Marks enumerations: neighbours of one look with only commas, *and*, *or* between them.
fn lists(text: &Text<'_>, spans: &mut [Span]) {
    let mut next = 0;
    for look in [Look::Quoted, Look::Name, Look::Email, Look::Url, Look::Id, Look::Chunk] {
        let mut of_look: Vec<usize> =
            spans.iter().enumerate().filter(|(_, s)| s.look == look).map(|(i, _)| i).collect();
        of_look.sort_by_key(|i| spans.get(*i).map_or(0, |s| s.from));
        let mut last: Option<usize> = None;
        for i in of_look {
            let Some(here) = spans.get(i).copied() else { continue };
            if let Some(j) = last
                && let Some(before) = spans.get(j).copied()
                && before.to < here.from
                && joined(text, before.to, here.from)
            {
                let list = if before.list == 0 {
                    next += 1;
                    next
                } else {
                    before.list
                };
                for k in [i, j] {
                    if let Some(span) = spans.get_mut(k) {
                        span.list = list;
                    }
                }
            }
            last = Some(i);
        }
    }
}

/// Only marks of quotation, commas and conjunctions from `from` to `to`?
fn joined(text: &Text<'_>, from: usize, to: usize) -> bool {
    to - from <= 5
        && (from..to).any(|i| text.mark(i, ',') || text.any(i, &["and", "or", "&"]))
        && (from..to).all(|i| {
            text.any(i, &["and", "or", "&", "the", "a", "an", "also", "in", "for", "at"])
                || text.tokens.get(i).and_then(|t| t.mark).is_some_and(|m| ",&'\"“”‘’`".contains(m))
        })
}

/// The piece as an argument: without articles in front and a possessive ending.
pub(in crate::offline) fn value<'a>(text: &Text<'a>, from: usize, to: usize) -> &'a str {
    let mut span = text.span(from, to);
    // A capital article is part of the name: *The Hague*.
    for article in ["the ", "a ", "an ", "my ", "our "] {
        if let Some(rest) = span.strip_prefix(article) {
            span = rest;
            break;
        }
    }
    span.strip_suffix("'s").or_else(|| span.strip_suffix("’s")).unwrap_or(span).trim()
}

/// Is there nothing in tokens `from..to` but words that half of all requests have?
pub(in crate::offline) fn is_empty_talk(text: &Text<'_>, from: usize, to: usize) -> bool {
    (from..to).all(|i| {
        text.tokens.get(i).is_none_or(|t| t.stop || t.stem == 0 || is_generic(t.stem) || t.stem == stem("me"))
    })
}
