//! Flags, and slots that list their values.

use super::*;

pub(super) fn flag(f: &Filling<'_, '_>, i: usize, slot: &Slot<'_>, out: &mut Vec<Candidate>) {
    if let Some((from, to, on, score)) = flagged(f, slot) {
        out.push(Candidate { slot: i, from, to, score, value: Value::Bool(on), shared: true, list: 0 });
    }
}

/// Where the message raises the flag that `slot` is named for, and whether it is raised or lowered.
pub(super) fn flagged(f: &Filling<'_, '_>, slot: &Slot<'_>) -> Option<(usize, usize, bool, f32)> {
    const COMMON: &[&str] = &[
        "include",
        "included",
        "is",
        "has",
        "show",
        "enable",
        "enabled",
        "with",
        "get",
        "return",
        "only",
        "allow",
        "allowed",
        "flag",
        "should",
        "use",
        "want",
        "do",
        "be",
        "needed",
        "required",
        "option",
        "the",
        "of",
        "in",
        "for",
        "a",
        "to",
        "info",
        "information",
        "by",
        "status",
    ];
    let text = &f.evidence.text;
    let telling: Vec<&str> =
        slot.name_words().split(' ').filter(|w| !COMMON.contains(w) && w.len() > 1).collect();
    let like = |i: usize, w: &str| {
        let word = text.word(i);
        text.stem(i) == stem(w)
            || alike(word, w)
            || (word.contains('-') && word.split('-').any(|p| stem(p) == stem(w)))
    };
    let at: Vec<usize> = telling.iter().filter_map(|w| f.range.clone().find(|i| like(*i, w))).collect();
    let (&from, &to) = (at.iter().min()?, at.iter().max()?);
    // All of its telling words, or the first of two.
    let first = telling.first().is_some_and(|w| like(from, w)) && telling.len() == 2;
    if at.len() < telling.len() && !first {
        return None;
    }
    let no = (from.saturating_sub(3)..from).any(|i| {
        text.any(
            i,
            &[
                "no",
                "not",
                "without",
                "don't",
                "never",
                "exclude",
                "excluding",
                "disable",
                "skip",
                "doesn't",
                "isn't",
            ],
        )
    });
    // A word that the tool itself is named by says little about one of its flags.
    let own =
        telling.iter().all(|w| f.tool_words.contains(&stem(w))) && slot.default() != Some(Value::Bool(false));
    let score = if own && !slot.required {
        1.2
    } else if at.len() < telling.len() {
        1.8
    } else {
        2.5
    };
    Some((from, to + 1, !no, score))
}

/// Do two words begin alike for most of their length?
pub(super) fn alike(a: &str, b: &str) -> bool {
    let same = a.bytes().zip(b.bytes()).take_while(|(x, y)| x.eq_ignore_ascii_case(y)).count();
    same >= 5 && same * 10 >= a.len().max(b.len()) * 6
}

/// Where the words of `label` stand in the message, near each other.
pub(super) fn locate(f: &Filling<'_, '_>, label: &str) -> Option<(usize, usize)> {
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
        for (n, w) in wanted.iter().enumerate().skip(1) {
            // A word that comes twice must be there twice.
            let after = if wanted.iter().take(n).any(|v| v == w) { to } else { from };
            let here = (after..to + 2).find(|j| part(*j, *w))?;
            to = to.max(here + 1);
        }
        Some((from, to))
    })
}

pub(super) fn choices(
    f: &Filling<'_, '_>,
    i: usize,
    slot: &Slot<'_>,
    options: &[(&Value, &str)],
    out: &mut Vec<Candidate>,
) {
    let text = &f.evidence.text;
    let mut hits: Vec<(usize, usize, f32, &Value)> = Vec::new();
    // Flags in words: "True" and "False", "yes" and "no".
    let pick = |word: &str| {
        options.iter().map(|(o, _)| *o).find(|o| o.as_str().is_some_and(|s| s.eq_ignore_ascii_case(word)))
    };
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
        if let Ok(n) = label.parse::<f64>() {
            for number in in_range(f).filter(|m| (m.value - n).abs() < f64::EPSILON) {
                hits.push((number.from, number.to, 1.2 + f.context(slot, number.from, number.to), option));
            }
            continue;
        }
        // Codes of a letter or two must be written as they are: "it" is rarely Italian.
        let short = label.chars().count() < 3 || (label.len() <= 5 && label.contains(['-', '_']));
        let mut spellings = Vec::new();
        if let Some((from, to)) = locate(f, label)
            && (!short || text.span(from, to).contains(label))
        {
            spellings.push((from, to, 2.2 + 0.2 * weight(to - from)));
        }
        let alternatives =
            language_name(label).filter(|_| slot.hint == Hint::Language || slot.speaks_of(&["language"]));
        let levels = lexicon::LEVELS
            .iter()
            .filter(|(l, _)| l.eq_ignore_ascii_case(label))
            .flat_map(|(_, w)| w.split_whitespace());
        for other in alternatives.into_iter().chain(levels) {
            if let Some((from, to)) = locate(f, other) {
                spellings.push((from, to, 1.7));
            }
        }
        if spellings.is_empty() && label.len() > 4 {
            // fahr for fahrenheit, std for nothing.
            let begins = |j: &usize| {
                let w = text.word(*j);
                (w.len() >= 4 && label.get(..w.len()).is_some_and(|l| l.eq_ignore_ascii_case(w)))
                    || alike(w, label)
            };
            if let Some(at) = f.range.clone().find(begins) {
                spellings.push((at, at + 1, 1.6));
            }
        }
        if !about.is_empty()
            && spellings.is_empty()
            && let Some((from, to)) = locate(f, about)
        {
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
        out.push(Candidate {
            slot: i,
            from: first.0,
            to: last.1,
            score: 2.0,
            value: Value::Array(values),
            shared: true,
            list: 0,
        });
        return;
    }
    // The longest spelling of overlapping ones: "dark blue" rather than "blue".
    for (from, to, score, option) in &hits {
        let inside_longer = hits.iter().any(|(a, b, ..)| a <= from && b >= to && b - a > to - from);
        let penalty = if inside_longer { 1.5 } else { 0.0 };
        out.push(Candidate {
            slot: i,
            from: *from,
            to: *to,
            score: score - penalty,
            value: (*option).clone(),
            shared: slot.required,
            list: 0,
        });
    }
    described(f, i, slot, options, out);
}

/// Options told apart by lines `- option: text` in a description, or by texts of their own.
pub(super) fn described(
    f: &Filling<'_, '_>,
    i: usize,
    slot: &Slot<'_>,
    options: &[(&Value, &str)],
    out: &mut Vec<Candidate>,
) {
    let query = crate::offline::route::Query::new(&f.evidence.text, f.range.clone());
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
        out.push(Candidate {
            slot: i,
            from: 0,
            to: 0,
            score: 1.3 + 0.5 * hit.min(3.0),
            value: (*option).clone(),
            shared: true,
            list: 0,
        });
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
            [" for ", " represents ", " means ", " is ", " = ", "=", ": ", " indicates "].iter().find_map(
                |link| {
                    let cue = format!("{label}{link}");
                    let at = description.find(&cue)?;
                    let whole =
                        description.get(..at)?.chars().next_back().is_none_or(|c| !c.is_alphanumeric());
                    let rest = description.get(at + cue.len()..)?;
                    whole.then(|| rest.split([',', ';', '.', '(', '\n']).next().unwrap_or(rest).trim())
                },
            )
        })
}
