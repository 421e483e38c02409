//! Dates and times in words and digits. Never the clock: *tomorrow* has a date only if the conversation names today's.

use crate::offline::{
    lexicon::{month, numeral, weekday},
    words::Text,
};

/// A day of the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::offline) struct Day {
    pub(in crate::offline) year: i32,
    pub(in crate::offline) month: u32,
    pub(in crate::offline) day: u32,
}

/// A time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::offline) struct Clock {
    pub(in crate::offline) hour: u32,
    pub(in crate::offline) minute: u32,
    pub(in crate::offline) second: u32,
}

/// A date or a time as it stands in a text, at tokens `from..to`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::offline) struct When {
    pub(in crate::offline) from: usize,
    pub(in crate::offline) to: usize,
    /// The day, if it can be told.
    pub(in crate::offline) day: Option<Day>,
    /// The time of day, if it is one.
    pub(in crate::offline) clock: Option<Clock>,
    /// Month and day, where only the year was left out.
    pub(in crate::offline) partial: Option<(u32, u32)>,
    /// It is a day or a span of days, resolved or not.
    pub(in crate::offline) is_day: bool,
}

impl Day {
    /// A day that exists.
    fn new(year: i32, month: u32, day: u32) -> Option<Self> {
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let last = match month {
            2 => {
                if leap {
                    29
                } else {
                    28
                }
            }
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        ((1..=9999).contains(&year) && (1..=last).contains(&day)).then_some(Self { year, month, day })
    }

    /// Days since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
    fn number(self) -> i64 {
        let y = i64::from(self.year) - i64::from(self.month <= 2);
        let era = y.div_euclid(400);
        let of_era = y.rem_euclid(400);
        let of_year = (153 * ((i64::from(self.month) + 9) % 12) + 2) / 5 + i64::from(self.day) - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }

    fn plus(self, days: i64) -> Option<Self> {
        let z = self.number().checked_add(days)?.checked_add(719_468)?;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        Self::new(
            i32::try_from(year).ok()?,
            u32::try_from(month).ok()?,
            u32::try_from(doy - (153 * mp + 2) / 5 + 1).ok()?,
        )
    }

    fn weekday(self) -> i64 {
        (self.number() + 3).rem_euclid(7)
    }

    /// In the layout that `words` (the description of a parameter, lower-cased) ask for; ISO 8601 if none.
    pub(in crate::offline) fn layout(self, words: &str) -> String {
        let Self { year: y, month: m, day: d } = self;
        let has = |all: &[&str]| all.iter().any(|l| words.contains(l));
        if has(&["mm-dd-yyyy", "month-day-year", "mm-dd-yyy"]) {
            format!("{m:02}-{d:02}-{y:04}")
        } else if has(&["mm/dd/yyyy"]) {
            format!("{m:02}/{d:02}/{y:04}")
        } else if has(&["dd/mm/yyyy", "day/month/year"]) {
            format!("{d:02}/{m:02}/{y:04}")
        } else if has(&["dd-mm-yyyy", "day-month-year"]) {
            format!("{d:02}-{m:02}-{y:04}")
        } else if has(&["dd.mm.yyyy"]) {
            format!("{d:02}.{m:02}.{y:04}")
        } else if has(&["yyyy/mm/dd"]) {
            format!("{y:04}/{m:02}/{d:02}")
        } else if has(&["yyyymmdd"]) {
            format!("{y:04}{m:02}{d:02}")
        } else if has(&["yyyy.mm.dd"]) {
            format!("{y:04}.{m:02}.{d:02}")
        } else {
            format!("{y:04}-{m:02}-{d:02}")
        }
    }
}

/// Finds dates and times. `today` is the day that the conversation gives for today.
pub(in crate::offline) fn find(text: &Text<'_>, today: Option<Day>) -> Vec<When> {
    let mut out: Vec<When> = Vec::new();
    let mut i = 0;
    while i < text.tokens.len() && out.len() < 32 {
        match day_at(text, i, today).or_else(|| clock_at(text, i)) {
            Some(when) => {
                i = when.to;
                out.push(when);
            }
            None => i += 1,
        }
    }
    // "from April 3rd to April 5th 2023": the year stands once.
    let year = out.iter().find_map(|w| w.day).map(|d| d.year);
    for when in out.iter_mut().filter(|w| w.day.is_none()) {
        when.day = year.zip(when.partial).and_then(|(y, (m, d))| Day::new(y, m, d));
    }
    out
}

/// The day that a text states for today: *today is 2026-05-03*, *current date: ...*.
pub(in crate::offline) fn stated_today(text: &Text<'_>) -> Option<Day> {
    let n = text.tokens.len();
    let cue = |i: usize| {
        text.is(i, "today")
            || text.is(i, "today's")
            || (text.any(i, &["current", "today's"]) && text.is(i + 1, "date"))
            || text.is(i, "now")
    };
    for i in (0..n).filter(|i| cue(*i)) {
        let near = (i + 1..n.min(i + 8)).find_map(|j| day_at(text, j, None).and_then(|w| w.day));
        if near.is_some() {
            return near;
        }
    }
    None
}

fn at(from: usize, to: usize, day: Option<Day>) -> When {
    When { from, to, day, clock: None, partial: None, is_day: true }
}

fn day_at(text: &Text<'_>, i: usize, today: Option<Day>) -> Option<When> {
    let word = text.word(i);
    let first = word.chars().next()?;
    if first.is_ascii_digit() {
        if let Some((day, clock)) = digits(word) {
            return Some(When { from: i, to: i + 1, day: Some(day), clock, partial: None, is_day: true });
        }
        // 3 May 2026, 3rd of May, the 15th of April 2021
        let day = day_number(word)?;
        let of = usize::from(text.is(i + 1, "of"));
        let month = month(text.word(i + 1 + of))?;
        let next = i + 2 + of;
        let comma = usize::from(text.mark(next, ',') || text.mark(next, '.'));
        return Some(match year(text.word(next + comma)) {
            Some(y) => at(i, next + comma + 1, Day::new(y, month, day)),
            None => When {
                partial: Some((month, day)),
                ..at(i, next, today.and_then(|t| Day::new(t.year, month, day)))
            },
        });
    }
    if !first.is_ascii_alphabetic() {
        return None;
    }
    if let Some(month) = month(word).filter(|_| first.is_ascii_uppercase() || word.len() > 3) {
        let dot = usize::from(text.mark(i + 1, '.'));
        let the = usize::from(text.is(i + 1 + dot, "the"));
        if let Some(day) = day_number(text.word(i + 1 + dot + the)) {
            let next = i + 2 + dot + the;
            let comma = usize::from(text.mark(next, ',') || text.is(next, "of"));
            return Some(match year(text.word(next + comma)) {
                Some(y) => at(i, next + comma + 1, Day::new(y, month, day)),
                None => When {
                    partial: Some((month, day)),
                    ..at(i, next, today.and_then(|t| Day::new(t.year, month, day)))
                },
            });
        }
        let comma = usize::from(text.mark(i + 1, ','));
        if year(text.word(i + 1 + comma)).is_some() {
            return Some(at(i, i + 2 + comma, None));
        }
        // "may" alone is rather the verb.
        return (first.is_ascii_uppercase() && !text.is(i, "may") && !text.is(i, "march"))
            .then(|| at(i, i + 1, None));
    }
    relative(text, i, today)
}

fn relative(text: &Text<'_>, i: usize, today: Option<Day>) -> Option<When> {
    let plus = |to: usize, days: i64| Some(at(i, to, today.and_then(|t| t.plus(days))));
    let coming = |to: usize, day: i64| {
        let days = today.map(|t| (day - t.weekday() - 1).rem_euclid(7) + 1);
        Some(at(i, to, today.zip(days).and_then(|(t, d)| t.plus(d))))
    };
    let word = text.word(i).to_ascii_lowercase();
    match word.as_str() {
        "today" | "tonight" => plus(i + 1, 0),
        "tomorrow" => plus(i + 1, 1),
        "yesterday" => plus(i + 1, -1),
        "next" | "this" | "coming" | "upcoming" | "last" | "on" => {
            let skip = usize::from(text.any(i + 1, &["coming", "upcoming", "next"]));
            if let Some(day) = weekday(text.word(i + 1 + skip)) {
                return match word.as_str() {
                    "on" => coming(i + 2 + skip, day).map(|w| When { from: i + 1, ..w }),
                    "last" => {
                        let back = today.map(|t| -((t.weekday() - day - 1).rem_euclid(7) + 1));
                        Some(at(i, i + 2, today.zip(back).and_then(|(t, d)| t.plus(d))))
                    }
                    _ => coming(i + 2 + skip, day),
                };
            }
            let span = text.any(i + 1, &["week", "month", "year", "weekend"]);
            (span && word != "on").then(|| at(i, i + 2, None))
        }
        "in" => {
            let n = text
                .word(i + 1)
                .parse::<i64>()
                .ok()
                .or_else(|| numeral(text.word(i + 1)).map(|n| n as i64))?;
            let days = match text.word(i + 2).to_ascii_lowercase().as_str() {
                "day" | "days" => n,
                "week" | "weeks" => n.checked_mul(7)?,
                _ => return None,
            };
            today?;
            plus(i + 3, days)
        }
        _ => weekday(&word).and_then(|day| coming(i + 1, day)),
    }
}

/// `2026-05-03`, `2026/05/03`, `05/03/2026`, `3.5.2026`, and with a time after `T`.
fn digits(word: &str) -> Option<(Day, Option<Clock>)> {
    let (date, time) = word.split_once('T').map_or((word, None), |(d, t)| (d, Some(t)));
    let mut parts = date.split(['-', '/', '.']);
    let (a, b, c) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let n = |s: &str| {
        if s.len() <= 4 && s.bytes().all(|b| b.is_ascii_digit()) { s.parse::<u32>().ok() } else { None }
    };
    let (x, y, z) = (n(a)?, n(b)?, n(c)?);
    let day = if a.len() == 4 {
        Day::new(i32::try_from(x).ok()?, y, z)?
    } else if c.len() == 4 {
        let year = i32::try_from(z).ok()?;
        // Month first where slashes or dashes stand, unless that is no date; day first where dots stand.
        let day_first = date.contains('.');
        let (m, d) = if day_first { (y, x) } else { (x, y) };
        Day::new(year, m, d).or_else(|| Day::new(year, d, m))?
    } else {
        return None;
    };
    Some((day, time.and_then(hms)))
}

fn hms(time: &str) -> Option<Clock> {
    let time = time.trim_end_matches(['Z', 'z']);
    let mut parts = time.split(':');
    let n = |s: Option<&str>| s.and_then(|s| if s.len() <= 2 { s.parse::<u32>().ok() } else { None });
    let hour = n(parts.next()).filter(|h| *h < 24)?;
    let minute = n(parts.next()).filter(|m| *m < 60)?;
    let second = match parts.next() {
        Some(s) => n(Some(s)).filter(|s| *s < 60)?,
        None => 0,
    };
    parts.next().is_none().then_some(Clock { hour, minute, second })
}

fn clock_at(text: &Text<'_>, i: usize) -> Option<When> {
    let word = text.word(i).to_ascii_lowercase();
    let made = |to: usize, clock: Clock| When {
        from: i,
        to,
        day: None,
        clock: Some(clock),
        partial: None,
        is_day: false,
    };
    let whole = |hour: u32| Clock { hour, minute: 0, second: 0 };
    match word.as_str() {
        "noon" | "midday" => return Some(made(i + 1, whole(12))),
        "midnight" => return Some(made(i + 1, whole(0))),
        _ => {}
    }
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (body, mut half, mut to) = match word.strip_suffix("am").or_else(|| word.strip_suffix("a.m")) {
        Some(body) => (body, Some(false), i + 1),
        None => match word.strip_suffix("pm").or_else(|| word.strip_suffix("p.m")) {
            Some(body) => (body, Some(true), i + 1),
            None => (word.as_str(), None, i + 1),
        },
    };
    if half.is_none() {
        half = match () {
            () if text.any(i + 1, &["am", "a.m"]) => Some(false),
            () if text.any(i + 1, &["pm", "p.m"]) => Some(true),
            () => None,
        };
        if half.is_some() {
            to = i + 2;
        } else if text.is(i + 1, "o'clock") {
            return body.parse().ok().filter(|h| *h < 24).map(|h| made(i + 2, whole(h)));
        }
    }
    let mut clock = match hms(body) {
        Some(clock) => clock,
        None => whole(half.and_then(|_| body.parse().ok()).filter(|h| (1..=12).contains(h))?),
    };
    match half {
        Some(true) if clock.hour < 12 => clock.hour += 12,
        Some(false) if clock.hour == 12 => clock.hour = 0,
        _ => {}
    }
    Some(made(to, clock))
}

fn day_number(word: &str) -> Option<u32> {
    let word = ["st", "nd", "rd", "th"].iter().find_map(|e| word.strip_suffix(e)).unwrap_or(word);
    if word.len() > 2 {
        return None;
    }
    word.parse().ok().filter(|d| (1..=31).contains(d))
}

fn year(word: &str) -> Option<i32> {
    if word.len() != 4 {
        return None;
    }
    word.parse().ok().filter(|y| (1000..=2999).contains(y))
}

/// RFC 3339 `full-date`.
pub(in crate::offline) fn is_iso_date(s: &str) -> bool {
    s.len() == 10
        && s.bytes().enumerate().all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() })
        && digits(s).is_some()
}

/// RFC 3339 `full-time`, or the same without an offset.
pub(in crate::offline) fn is_iso_time(s: &str) -> bool {
    let body = s.strip_suffix('Z').unwrap_or_else(|| match s.rfind(['+', '-']) {
        Some(at) => s.get(..at).unwrap_or(s),
        None => s,
    });
    let offset = s.get(body.len()..).unwrap_or("");
    let whole = body.split('.').next().unwrap_or(body);
    whole.len() == 8
        && hms(whole).is_some()
        && (offset.is_empty()
            || offset == "Z"
            || (offset.len() == 6 && offset.get(1..).is_some_and(|o| hms(o).is_some())))
}

/// RFC 3339 `date-time`.
pub(in crate::offline) fn is_iso_date_time(s: &str) -> bool {
    s.split_once(['T', 't']).is_some_and(|(d, t)| {
        is_iso_date(d) && is_iso_time(t) && (t.ends_with('Z') || t.rfind(['+', '-']).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(s: &str, today: Option<Day>) -> Option<String> {
        find(&Text::new(s), today).first().and_then(|w| w.day).map(|d| d.layout(""))
    }

    #[test]
    fn dates_in_many_spellings() {
        for s in [
            "on 3 May 2026",
            "May 3rd, 2026",
            "2026-05-03",
            "2026/05/03",
            "05/03/2026",
            "3.5.2026",
            "the 3rd of May 2026",
        ] {
            assert_eq!(one(s, None).as_deref(), Some("2026-05-03"), "{s}");
        }
        assert_eq!(one("31 February 2026", None), None);
    }

    #[test]
    fn relative_days_need_a_stated_today() {
        assert_eq!(one("tomorrow", None), None);
        let today = stated_today(&Text::new("Today is Sunday, 3 May 2026."));
        for (s, want) in [
            ("tomorrow", "2026-05-04"),
            ("next Friday", "2026-05-08"),
            ("on Sunday", "2026-05-10"),
            ("in 30 days", "2026-06-02"),
            ("yesterday", "2026-05-02"),
            ("last Friday", "2026-05-01"),
        ] {
            assert_eq!(one(s, today).as_deref(), Some(want), "{s}");
        }
    }

    #[test]
    fn times() {
        for (s, want) in [("at 10:30", (10, 30)), ("5 pm", (17, 0)), ("12:15am", (0, 15)), ("noon", (12, 0))]
        {
            let clock = find(&Text::new(s), None).first().and_then(|w| w.clock).unwrap();
            assert_eq!((clock.hour, clock.minute), want, "{s}");
        }
        assert!(find(&Text::new("25:99 5 13 pm"), None).is_empty());
    }
}
