//! Numbers: digits, words, thousands separators, percent, money, units.

use crate::offline::{
    lexicon::{is_unit, multiplier, numeral},
    words::{Stem, Text, stem},
};

/// A number as it stands in a text, at tokens `from..to`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::offline) struct Number {
    pub(in crate::offline) from: usize,
    pub(in crate::offline) to: usize,
    pub(in crate::offline) value: f64,
    /// Written with `%` or *percent*.
    pub(in crate::offline) percent: bool,
    /// Written with a currency sign.
    pub(in crate::offline) money: bool,
    /// Written in words or as an ordinal.
    pub(in crate::offline) weak: bool,
    /// The unit behind it, 0 if none.
    pub(in crate::offline) unit: Stem,
    /// Which list or pair of brackets it belongs to, 0 if none.
    pub(in crate::offline) group: u32,
}

/// Finds numbers in tokens that are not `taken`.
pub(in crate::offline) fn find(text: &Text<'_>, taken: &[bool]) -> Vec<Number> {
    let mut out: Vec<Number> = Vec::new();
    let mut i = 0;
    while i < text.tokens.len() && out.len() < 512 {
        let free = taken.get(i) != Some(&true);
        match free.then(|| at(text, i)).flatten() {
            Some(number) => {
                i = number.to;
                out.push(number);
            }
            None => i += 1,
        }
    }
    group(text, &mut out);
    out
}

fn at(text: &Text<'_>, i: usize) -> Option<Number> {
    let word = text.word(i);
    let before = i.checked_sub(1).map_or("", |j| text.word(j));
    let (mut value, mut rest) = match digits(word) {
        Some((value, rest)) => (value, rest),
        None => return in_words(text, i),
    };
    let mut to = i + 1;
    let mut weak = false;
    if ["st", "nd", "rd", "th"].iter().any(|e| rest.eq_ignore_ascii_case(e)) {
        (rest, weak) = ("", true);
    }
    let money = matches!(before, "$" | "€" | "£" | "¥" | "₹");
    if money && rest.len() == 1 {
        let scale = match rest.to_ascii_lowercase().as_str() {
            "k" => 1e3,
            "m" => 1e6,
            "b" => 1e9,
            _ => 1.0,
        };
        if scale > 1.0 {
            (value, rest) = (value * scale, "");
        }
    }
    if rest.is_empty()
        && let Some(scale) = multiplier(text.word(to))
    {
        value *= scale;
        to += 1;
    }
    let mut percent = false;
    let mut unit = 0;
    if rest.is_empty() {
        if text.mark(to, '%') || text.any(to, &["percent", "pct"]) {
            percent = true;
            to += 1;
        } else {
            let at = to + usize::from(text.mark(to, '-') || text.mark(to, '°'));
            unit = text.stem(at);
        }
    } else if is_unit(rest.trim_start_matches('-')) || is_unit(rest) || rest.starts_with('-') {
        unit = stem(rest.trim_start_matches('-'));
    } else if rest.eq_ignore_ascii_case("k") {
        value *= 1e3;
    } else if rest.chars().count() > 1 || !rest.chars().all(char::is_alphabetic) {
        // A name with digits in it, not a number with a unit.
        return None;
    }
    Some(Number { from: i, to, value, percent, money, weak, unit, group: 0 })
}

/// The leading number of a word and what follows it.
fn digits(word: &str) -> Option<(f64, &str)> {
    let body = word.strip_prefix(['-', '+', '−']).unwrap_or(word);
    let negative = word.starts_with(['-', '−']);
    if !body.starts_with(|c: char| c.is_ascii_digit()) || body.len() > 32 {
        return None;
    }
    let end = body.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ',')).unwrap_or(body.len());
    let (mut head, mut rest) = (body.get(..end)?, body.get(end..)?);
    if let Some(trimmed) = head.strip_suffix(['.', ',']) {
        head = trimmed;
    }
    // Scientific notation: 1.5e-5
    let mut scientific = String::new();
    if let Some(exponent) = rest.strip_prefix(['e', 'E'])
        && !exponent.is_empty()
        && exponent.strip_prefix(['-', '+']).unwrap_or(exponent).bytes().all(|b| b.is_ascii_digit())
    {
        scientific = format!("{head}e{exponent}");
        rest = "";
    }
    let plain: String =
        if scientific.is_empty() { head.chars().filter(|c| *c != ',').collect() } else { scientific };
    let value: f64 = plain.parse().ok()?;
    value.is_finite().then_some((if negative { -value } else { value }, rest))
}

fn in_words(text: &Text<'_>, i: usize) -> Option<Number> {
    let word = text.word(i);
    let (mut total, mut current) = (0.0, 0.0);
    let mut seen = false;
    let mut from = i;
    // "a hundred", "half a million"; "one" alone is mostly a pronoun.
    if text.any(i, &["a", "an"]) && multiplier(text.word(i + 1)).is_some() {
        (current, from) = (1.0, i + 1);
    }
    let mut to = from;
    for at in from..(from + 12).min(text.tokens.len()) {
        let w = text.word(at);
        // twenty-five
        let pair = w.split_once('-').and_then(|(a, b)| Some(numeral(a)? + numeral(b)?));
        if let Some(n) = numeral(w).or(pair) {
            if seen && current % 10.0 != 0.0 && current < 100.0 {
                break;
            }
            current += n;
        } else if let Some(scale) = multiplier(w).filter(|_| seen || from > i) {
            if scale > 100.0 {
                total += current.max(1.0) * scale;
                current = 0.0;
            } else {
                current = current.max(1.0) * scale;
            }
        } else if w.eq_ignore_ascii_case("and")
            && seen
            && numeral(text.word(at + 1)).is_some()
            && current >= 100.0
        {
            continue;
        } else {
            break;
        }
        (seen, to) = (true, at + 1);
    }
    const ORDINALS: [&str; 10] =
        ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
    let value = if seen {
        total + current
    } else {
        let nth = ORDINALS.iter().position(|o| o.eq_ignore_ascii_case(word))?;
        to = i + 1;
        f64::from(u32::try_from(nth + 1).ok()?)
    };
    let percent = text.mark(to, '%') || text.is(to, "percent");
    let unit = if percent { 0 } else { text.stem(to) };
    Some(Number {
        from: i,
        to: to + usize::from(percent),
        value,
        percent,
        money: false,
        weak: true,
        unit,
        group: 0,
    })
}

/// Numbers in one pair of brackets, or in an enumeration (`12, 24 and 36`), are one group.
fn group(text: &Text<'_>, numbers: &mut [Number]) {
    let mut next = 0u32;
    // Brackets first.
    let mut open: Option<u32> = None;
    let mut at = numbers.iter_mut().peekable();
    for (i, token) in text.tokens.iter().enumerate() {
        match token.mark {
            Some('[' | '(' | '{') => {
                next += 1;
                open = Some(next);
            }
            Some(']' | ')' | '}') => open = None,
            _ => {}
        }
        while let Some(number) = at.next_if(|n| n.from <= i) {
            number.group = open.unwrap_or(0);
        }
    }
    let mut previous: Option<(usize, u32)> = None;
    for number in numbers.iter_mut() {
        if number.group == 0 {
            if let Some((end, group)) = previous.filter(|(end, _)| number.from > *end) {
                let between =
                    (end..number.from).all(|j| text.mark(j, ',') || text.is(j, "and") || text.is(j, "or"));
                if between {
                    number.group = group;
                }
            }
            if number.group == 0 {
                next += 1;
                number.group = next;
            }
            previous = Some((number.to, number.group));
        } else {
            previous = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(s: &str) -> Vec<f64> {
        let text = Text::new(s);
        find(&text, &[]).iter().map(|n| n.value).collect()
    }

    #[test]
    fn many_spellings() {
        assert_eq!(values("$2,000,000 and -3.5"), [2_000_000.0, -3.5]);
        assert_eq!(
            values("twenty-five, two hundred and seven, 3 million, a dozen"),
            [25.0, 207.0, 3e6, 12.0]
        );
        assert_eq!(values("70kg at 298K, 1.5e-5 m"), [70.0, 298.0, 1.5e-5]);
        assert!(values("CA123456 rs60 2022/AL2562 4x4").is_empty());
        assert_eq!(values("five million dollars $10k"), [5e6, 10_000.0]);
    }

    #[test]
    fn groups() {
        let text = Text::new("[3, 4] and [7, 8], then 12, 24 and 36");
        let groups: Vec<u32> = find(&text, &[]).iter().map(|n| n.group).collect();
        assert_eq!(groups[0], groups[1]);
        assert_ne!(groups[1], groups[2]);
        assert_eq!((groups[4], groups[5]), (groups[5], groups[6]));
        assert_ne!(groups[4], groups[3]);
    }
}
