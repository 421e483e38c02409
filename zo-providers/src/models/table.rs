//! The table as text. The format is described at [`Models::read`](super::Models::read).

use super::{HOST, Known, Row};
use std::fmt;
use zo_traits::{Capabilities, Price};

/// Price in USD that nobody asks for a million tokens; more is a slip.
const DEAREST: u64 = 1_000_000;
/// Millionths in one.
const MILLION: u64 = 1_000_000;

/// The rows of the built-in table, which names its sources in its first lines. What does not parse is left out; a test sees
/// to it that nothing is.
pub(super) fn builtin(text: &'static str) -> Vec<Row<&'static str>> {
    let sources: Vec<(&str, &str, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut parts = line.strip_prefix("# ")?.split('\t');
            Some((parts.next()?, parts.next()?, parts.next()?)).filter(|_| parts.next().is_none())
        })
        .collect();
    let mut rows: Vec<_> = lines(text)
        .filter_map(|(_, line)| {
            let (mut row, source) = row(line).ok()?;
            let (_, name, day) = sources.iter().find(|(letter, ..)| Some(*letter) == source)?;
            (row.known.source, row.known.as_of) = (*name, *day);
            Some(row)
        })
        .collect();
    rows.sort_by(|a, b| a.key().cmp(&b.key()));
    rows
}

/// The rows of a host's table, sorted.
pub(super) fn read(text: &str) -> Result<Vec<Row<Box<str>>>, String> {
    let mut rows = Vec::new();
    for (n, line) in lines(text) {
        let (Row { provider, model, mut known }, _) = row(line).map_err(|e| format!("line {n}: {e}"))?;
        known.source = HOST;
        rows.push((n, Row { provider: provider.into(), model: model.into(), known }));
    }
    rows.sort_by(|(_, a), (_, b)| a.key().cmp(&b.key()));
    for pair in rows.windows(2) {
        if let [(first, a), (second, b)] = pair
            && a.key() == b.key()
        {
            return Err(format!("line {second}: {} {} stands already in line {first}", b.provider, b.model));
        }
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// Numbered lines that are neither empty nor comments.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line))
        .filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'))
}

/// A row, and its column that names the source.
fn row(line: &str) -> Result<(Row<&str>, Option<&str>), String> {
    let mut columns = line.split('\t').map(str::trim);
    let mut next = || columns.next().filter(|text| !matches!(*text, "" | "-"));
    let (Some(provider), Some(model)) = (next(), next()) else {
        return Err("a line begins with a provider, a tab and a model".into());
    };
    let mut c = Capabilities::default();
    c.context_window = count("context", next())?;
    c.max_output = count("output", next())?;
    let dimensions = count("dimensions", next())?;
    c.price = price([next(), next(), next(), next()])?;
    abilities(&mut c, next().unwrap_or_default())?;
    let source = next();
    if columns.next().is_some() {
        return Err("more than eleven columns".into());
    }
    Ok((Row { provider, model, known: Known { capabilities: c, dimensions, ..Known::default() } }, source))
}

fn count(what: &str, text: Option<&str>) -> Result<Option<u32>, String> {
    text.map(|text| text.parse().map_err(|_| format!("{what} {text:?} is not a number"))).transpose()
}

fn price([input, output, read, write]: [Option<&str>; 4]) -> Result<Option<Price>, String> {
    let (input, output) = match (input, output) {
        (Some(input), Some(output)) => (usd(input)?, usd(output)?),
        (None, None) if read.is_none() && write.is_none() => return Ok(None),
        _ => return Err("a price needs both that of the prompt and that of the completion".into()),
    };
    // No price of its own: that of an ordinary prompt token, so that no token counts as free.
    let or_input = |text: Option<&str>| text.map_or(Ok(input), usd);
    Ok(Some(Price { input, output, cache_read: or_input(read)?, cache_write: or_input(write)? }))
}

/// Decimal USD as millionths.
fn usd(text: &str) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 6 {
        return Err(format!("price {text:?} is not USD per million tokens with at most six decimal places"));
    }
    let whole = whole.parse::<u64>().ok().filter(|n| *n <= DEAREST);
    let part = part.bytes().chain([b'0'; 6]).take(6).fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match whole {
        Some(whole) => Ok(whole * MILLION + part),
        None => Err(format!("price {text:?} is above {DEAREST} USD per million tokens")),
    }
}

/// The abilities and their letters.
fn letters(c: &mut Capabilities) -> [(char, &mut bool); 8] {
    [
        ('t', &mut c.tools),
        ('p', &mut c.parallel_tools),
        ('s', &mut c.structured),
        ('v', &mut c.vision),
        ('a', &mut c.audio),
        ('d', &mut c.documents),
        ('r', &mut c.reasoning),
        ('c', &mut c.cache),
    ]
}

fn abilities(c: &mut Capabilities, text: &str) -> Result<(), String> {
    for letter in text.chars() {
        let mut all = letters(c);
        let Some((_, can)) = all.iter_mut().find(|(l, _)| *l == letter) else {
            return Err(format!("ability {letter:?} is none of t, p, s, v, a, d, r, c"));
        };
        **can = true;
    }
    Ok(())
}

/// Whether these ids can be written down and read again.
pub(super) fn check(provider: &str, model: &str) -> Result<(), String> {
    for (what, id) in [("provider", provider), ("model", model)] {
        let fits = id.trim() == id && !matches!(id, "" | "-") && !id.contains(['\t', '\n', '\r']);
        if !fits || (what == "provider" && id.starts_with('#')) {
            return Err(format!("{what} {id:?} cannot be an id"));
        }
    }
    Ok(())
}

/// Writes a row as a line.
pub(super) fn write(f: &mut fmt::Formatter<'_>, row: &Row<Box<str>>) -> fmt::Result {
    let mut c = row.known.capabilities.clone();
    write!(f, "{}\t{}", row.provider, row.model)?;
    for number in [c.context_window, c.max_output, row.known.dimensions] {
        match number {
            Some(n) => write!(f, "\t{n}")?,
            None => f.write_str("\t-")?,
        }
    }
    match c.price {
        Some(p) => {
            for each in [p.input, p.output, p.cache_read, p.cache_write] {
                write!(f, "\t{}.{:06}", each / MILLION, each % MILLION)?;
            }
        }
        None => f.write_str("\t-\t-\t-\t-")?,
    }
    f.write_str("\t")?;
    let can = letters(&mut c);
    if can.iter().all(|(_, can)| !**can) {
        f.write_str("-")?;
    }
    can.iter().filter(|(_, can)| **can).try_for_each(|(letter, _)| write!(f, "{letter}"))?;
    f.write_str("\n")
}
