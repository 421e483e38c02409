//! Arithmetic in a text: `17 times 23`, `(3+4)/2`, `square root of 2`.

use crate::offline::{lexicon::numeral, words::cut};

/// An arithmetic expression found in a text.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::offline) struct Expression {
    /// In symbols: `17 * 23`. As written, where it was written in symbols.
    pub(in crate::offline) text: String,
    /// The operator, if there is exactly one.
    pub(in crate::offline) operator: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq)]
enum Item {
    Number(String),
    Operator(&'static str),
    /// An operator behind its operand: `^ 2` for *squared*.
    Behind(&'static str),
    Function(&'static str),
    Open,
    Close,
}

/// How an item is written, and what it is.
type Spelling = (&'static str, fn() -> Item);

/// Spellings in words, longest first where one begins another.
const WORDS: &[Spelling] = &[
    ("raised to the power of", || Item::Operator("^")),
    ("to the power of", || Item::Operator("^")),
    ("multiplied by", || Item::Operator("*")),
    ("divided by", || Item::Operator("/")),
    ("percent of", || Item::Operator("/ 100 *")),
    ("% of", || Item::Operator("/ 100 *")),
    ("the square root of", || Item::Function("sqrt")),
    ("square root of", || Item::Function("sqrt")),
    ("sqrt", || Item::Function("sqrt")),
    ("squared", || Item::Behind("^ 2")),
    ("cubed", || Item::Behind("^ 3")),
    ("times", || Item::Operator("*")),
    ("plus", || Item::Operator("+")),
    ("minus", || Item::Operator("-")),
    ("modulo", || Item::Operator("%")),
    ("mod", || Item::Operator("%")),
    ("x", || Item::Operator("*")),
    ("**", || Item::Operator("^")),
    ("*", || Item::Operator("*")),
    ("×", || Item::Operator("*")),
    ("·", || Item::Operator("*")),
    ("÷", || Item::Operator("/")),
    ("/", || Item::Operator("/")),
    ("+", || Item::Operator("+")),
    ("-", || Item::Operator("-")),
    ("−", || Item::Operator("-")),
    ("^", || Item::Operator("^")),
    ("(", || Item::Open),
    (")", || Item::Close),
];

/// The longest expression with at least one operator or function.
pub(in crate::offline) fn find(text: &str) -> Option<Expression> {
    let text = cut(text, 4096);
    let mut best: Option<(usize, Expression)> = None;
    let mut at = 0;
    let mut fresh = true;
    while at < text.len() {
        let rest = text.get(at..)?;
        let c = rest.chars().next()?;
        if fresh && !c.is_whitespace() {
            let (items, ends) = run(rest);
            let used = parse(&items, 0, 0).unwrap_or(0);
            let items = items.get(..used).unwrap_or(&[]);
            let end = used.checked_sub(1).and_then(|i| ends.get(i)).copied().unwrap_or(0);
            if let Some(found) = finish(items, rest.get(..end).unwrap_or(""), text)
                && best.as_ref().is_none_or(|(n, _)| *n < used)
            {
                best = Some((used, found));
            }
            if end > 0 {
                at += end;
                fresh = true;
                continue;
            }
        }
        fresh = !(c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '#' | '^' | '='));
        at += c.len_utf8();
    }
    best.map(|(_, e)| e)
}

/// Items from the beginning of `rest` on, and where each ends.
fn run(rest: &str) -> (Vec<Item>, Vec<usize>) {
    let (mut items, mut ends) = (Vec::new(), Vec::new());
    let mut at = 0;
    while items.len() < 64 {
        let Some(tail) = rest.get(at..) else { break };
        let trimmed = tail.trim_start();
        let start = at + tail.len() - trimmed.len();
        let Some((item, len)) = item(trimmed, items.last()) else { break };
        at = start + len;
        items.push(item);
        ends.push(at);
    }
    (items, ends)
}

fn item(s: &str, last: Option<&Item>) -> Option<(Item, usize)> {
    let operand_next = matches!(last, None | Some(Item::Operator(_) | Item::Open | Item::Function(_)));
    let signed = operand_next && s.starts_with(['-', '−']);
    let body = if signed { s.get(s.chars().next()?.len_utf8()..)? } else { s };
    if operand_next && body.starts_with(|c: char| c.is_ascii_digit()) {
        let mut end =
            body.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ',')).unwrap_or(body.len());
        while body.get(..end).is_some_and(|n| n.ends_with(['.', ','])) {
            end -= 1;
        }
        let after = body.get(end..)?.chars().next();
        if after.is_some_and(|c| c.is_alphabetic() && c != 'x' || c == '_') {
            return None;
        }
        let digits: String = body.get(..end)?.chars().filter(|c| *c != ',').collect();
        digits.parse::<f64>().ok()?;
        let sign = if signed { "-" } else { "" };
        return Some((Item::Number(format!("{sign}{digits}")), s.len() - body.len() + end));
    }
    let first: &str = s.split(|c: char| !c.is_alphabetic() && c != '-').next().unwrap_or("");
    if operand_next && !first.is_empty() {
        let mut parts = first.split('-');
        let pair = (parts.next().and_then(numeral), parts.next().and_then(numeral), parts.next());
        if let (Some(n), ones, None) = pair
            && (ones.is_some() || !first.contains('-'))
        {
            return Some((Item::Number((n + ones.unwrap_or(0.0)).to_string()), first.len()));
        }
    }
    WORDS.iter().find_map(|(spelling, item)| {
        let head = s.get(..spelling.len())?;
        let word = spelling.ends_with(|c: char| c.is_alphabetic());
        let ends = !word || !s.get(spelling.len()..)?.starts_with(|c: char| c.is_alphabetic());
        (head.eq_ignore_ascii_case(spelling) && ends).then(|| (item(), spelling.len()))
    })
}

/// How many items from `at` on are one expression: `operand (operator operand)*`.
fn parse(items: &[Item], at: usize, depth: u32) -> Option<usize> {
    let mut end = operand(items, at, depth)?;
    loop {
        match items.get(end) {
            Some(Item::Behind(_)) => end += 1,
            Some(Item::Operator(_)) => match operand(items, end + 1, depth) {
                Some(next) => end = next,
                None => return Some(end),
            },
            _ => return Some(end),
        }
    }
}

fn operand(items: &[Item], at: usize, depth: u32) -> Option<usize> {
    if depth > 16 {
        return None;
    }
    match items.get(at)? {
        Item::Number(_) => Some(at + 1),
        Item::Function(_) => operand(items, at + 1, depth + 1),
        Item::Open => {
            let end = parse(items, at + 1, depth + 1)?;
            matches!(items.get(end), Some(Item::Close)).then_some(end + 1)
        }
        Item::Operator(_) | Item::Behind(_) | Item::Close => None,
    }
}

fn finish(items: &[Item], raw: &str, text: &str) -> Option<Expression> {
    let numbers = items.iter().filter(|i| matches!(i, Item::Number(_))).count();
    let works = items.iter().filter(|i| matches!(i, Item::Operator(_) | Item::Behind(_) | Item::Function(_)));
    let mut works = works.peekable();
    works.peek()?;
    let spaced = raw.contains(char::is_whitespace);
    let only = |c: char| raw.contains(c) && !raw.contains(['+', '*', '^', '(', '×', '÷', 'x']);
    // 2026/05/03, 555-1234, 2022-2023 and 24/7 are no sums unless somebody asks for one.
    if !spaced && (only('-') || only('/')) && !(numbers == 2 && asks(text)) {
        return None;
    }
    let operator = match (works.next(), works.next()) {
        (Some(Item::Operator(op)), None) => Some(*op),
        _ => None,
    };
    if !raw.contains(|c: char| c.is_alphabetic() || !c.is_ascii() || c == ',') {
        return Some(Expression { text: raw.trim().to_owned(), operator });
    }
    let mut out = String::new();
    let mut close = 0;
    for (i, item) in items.iter().enumerate() {
        match item {
            Item::Number(n) => {
                out.push_str(n);
                for _ in 0..std::mem::take(&mut close) {
                    out.push(')');
                }
            }
            Item::Operator(op) => out.extend([" ", op, " "]),
            Item::Behind(op) => out.extend([" ", op]),
            Item::Function(name) if matches!(items.get(i + 1), Some(Item::Open)) => out.push_str(name),
            Item::Function(name) => {
                out.extend([name, "("]);
                close += 1;
            }
            Item::Open => out.push('('),
            Item::Close => out.push(')'),
        }
    }
    for _ in 0..close {
        out.push(')');
    }
    Some(Expression { text: out, operator })
}

fn asks(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["what is", "what's", "calculat", "comput", "evaluat", "how much is", "work out", "result of", "="]
        .iter()
        .any(|c| lower.contains(c))
        || text.trim().chars().all(|c| c.is_ascii_digit() || "+-*/.()? ".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_symbols() {
        for (text, want) in [
            ("what is 17 times 23?", "17 * 23"),
            ("17*23", "17*23"),
            ("12 plus 30", "12 + 30"),
            ("please work out (3+4)/2 for me", "(3+4)/2"),
            ("the square root of 2", "sqrt(2)"),
            ("two to the power of ten", "2 ^ 10"),
            ("5 squared plus 1", "5 ^ 2 + 1"),
            ("15% of 80", "15 / 100 * 80"),
            ("What is 1,200 / 4?", "1200 / 4"),
            ("calculate 10-3", "10-3"),
            ("12 x 3", "12 * 3"),
        ] {
            assert_eq!(find(text).map(|e| e.text).as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn dates_ranges_and_names_are_no_sums() {
        for text in [
            "on 2026-05-03",
            "open 24/7",
            "call 555-1234",
            "season 2022-2023",
            "model x 5",
            "5 apples",
            "a + b",
            "(3)",
            "-",
            "((((",
            "3x^2 - 2",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
    }
}
