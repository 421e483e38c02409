//! What a provider says about its rate limits with every answer, read off the headers.
//!
//! * OpenAI, Azure, Groq, Mistral, xAI and most that are compatible: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`,
//!   where the reset is a span like `6m0s`, `120ms` or `17.5` (seconds); some name the window behind it (`-requests-minute`),
//!   some write `x-ratelimit-requests-limit`.
//! * Anthropic: `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`, where the reset is
//!   a moment (RFC 3339).
//! * Others: `x-ratelimit-{limit,remaining,reset}` (OpenRouter: milliseconds since the epoch), `ratelimit-{limit,remaining,reset}`
//!   (IETF draft-ietf-httpapi-ratelimit-headers up to 07) and its later `ratelimit: "name";r=5;t=30` beside
//!   `ratelimit-policy: "name";q=100;w=60`; all of them count requests.
//!
//! Headers are hostile: what does not parse, is absurd or contradicts itself is as if it were not there.

use crate::calendar::days;
use std::{fmt, sync::Arc, time::Duration};
use zo_traits::Timestamp;

/// The longest time to a reset that is believed: beyond a month it is no window but a mistake.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);
/// The window of a provider that does not say when it ends.
const MINUTE: Duration = Duration::from_secs(60);
/// The longest value that is looked at, in bytes.
const MAX_VALUE: usize = 256;

/// What is left of each of a provider's rate limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Headroom {
    /// Requests.
    pub requests: Option<Window>,
    /// Tokens of prompts and answers together; at Anthropic those of the tightest limit.
    pub tokens: Option<Window>,
    /// Tokens of prompts.
    pub input_tokens: Option<Window>,
    /// Tokens of answers.
    pub output_tokens: Option<Window>,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How many there are when nothing is used.
    pub limit: u64,
    /// How many are left; never more than the limit.
    pub remaining: u64,
    /// Time until all of them are there again. (Some providers fill up steadily until then, some all at once at the end.)
    pub resets_in: Duration,
}

impl Headroom {
    /// Reads what an answer says. `header` looks a header up by its lower-case name; `now` is the wall clock, which only
    /// moments in headers are held against. None when the headers say nothing of rate limits.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zo_providers::layer::Headroom;
    /// use zo_traits::Timestamp;
    /// let headers = [
    ///     ("x-ratelimit-limit-requests", "60"),
    ///     ("x-ratelimit-remaining-requests", "58"),
    ///     ("x-ratelimit-reset-requests", "2s"),
    /// ];
    /// let look = |name: &str| headers.iter().find(|(k, _)| *k == name).map(|(_, v)| *v);
    /// let requests = Headroom::read(look, Timestamp(0)).and_then(|h| h.requests).unwrap();
    /// assert_eq!((requests.limit, requests.remaining, requests.resets_in), (60, 58, Duration::from_secs(2)));
    /// ```
    pub fn read<'h>(header: impl Fn(&str) -> Option<&'h str>, now: Timestamp) -> Option<Self> {
        let header = |name: String| header(&name).map(str::trim).filter(|v| v.len() <= MAX_VALUE);
        let window = |name: &dyn Fn(&str) -> String| {
            Window::of(
                count(header(name("limit"))?)?,
                count(header(name("remaining"))?)?,
                // Some leave it out; their window is a minute.
                header(name("reset")).map_or(Some(MINUTE), |at| reset(at, now))?,
            )
        };
        let anthropic = |what: &str| window(&|field| format!("anthropic-ratelimit-{what}-{field}"));
        let common = |what: &str| {
            window(&|field| format!("x-ratelimit-{field}-{what}"))
                .or_else(|| window(&|field| format!("x-ratelimit-{what}-{field}")))
                .or_else(|| window(&|field| format!("x-ratelimit-{field}-{what}-minute")))
        };
        let plain = || {
            window(&|field| format!("x-ratelimit-{field}"))
                .or_else(|| window(&|field| format!("ratelimit-{field}")))
                .or_else(|| {
                    structured(
                        header("ratelimit".into())?,
                        header("ratelimit-policy".into()).unwrap_or_default(),
                    )
                })
        };
        let found = Self {
            requests: anthropic("requests").or_else(|| common("requests")).or_else(plain),
            tokens: anthropic("tokens").or_else(|| common("tokens")),
            input_tokens: anthropic("input-tokens").or_else(|| common("input-tokens")),
            output_tokens: anthropic("output-tokens").or_else(|| common("output-tokens")),
        };
        (found != Self::default()).then_some(found)
    }
}

impl Window {
    /// None for a limit of nothing, more left than there is, or a reset in the far future.
    fn of(limit: u64, remaining: u64, resets_in: Duration) -> Option<Self> {
        (limit > 0 && remaining <= limit && resets_in <= LONGEST).then_some(Self {
            limit,
            remaining,
            resets_in,
        })
    }
}

/// Where a provider's HTTP layer puts what it reads: a layer sets one in the [`Cx`](zo_traits::Cx) of a call, and the HTTP
/// layer below calls it with what every answer said, success and error alike, before it hands the answer on.
///
/// ```
/// use std::sync::Arc;
/// use zo_providers::layer::{Headroom, HeadroomSink};
/// use zo_traits::Cx;
/// let cx = Cx::new("run").child().with(HeadroomSink(Arc::new(|h: &Headroom| println!("{:?} left", h.requests))));
/// if let Some(sink) = cx.get::<HeadroomSink>() {
///     sink.tell(&Headroom::default());
/// }
/// ```
#[derive(Clone)]
pub struct HeadroomSink(pub Arc<dyn Fn(&Headroom) + Send + Sync>);

impl HeadroomSink {
    /// Passes on what an answer said.
    pub fn tell(&self, headroom: &Headroom) {
        (self.0)(headroom);
    }
}

impl fmt::Debug for HeadroomSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadroomSink")
    }
}

/// A whole number; also one with a fraction of zeros, and the first of a list (`100, 100;w=60`).
fn count(text: &str) -> Option<u64> {
    let first = text.split([',', ';']).next()?.trim();
    let (whole, fraction) = first.split_once('.').unwrap_or((first, ""));
    let digits = !whole.is_empty() && whole.bytes().all(|b| b.is_ascii_digit());
    (digits && fraction.bytes().all(|b| b == b'0')).then(|| whole.parse().ok())?
}

/// Time until a reset, in any of the forms.
fn reset(text: &str, now: Timestamp) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(n) => bare(n, now),
        Err(_) => span(text).or_else(|| until(text, now)),
    }
}

/// A bare number: seconds to wait, or a moment in seconds or milliseconds since the epoch.
fn bare(n: f64, now: Timestamp) -> Option<Duration> {
    let moment = match n {
        n if !n.is_finite() => return None,
        n if n > 1e11 => n / 1e3,
        n if n > 1e8 => n,
        n => return Duration::try_from_secs_f64(n).ok(),
    };
    #[allow(clippy::cast_precision_loss)] // Milliseconds of this millennium fit a double.
    let left = moment - now.0 as f64 / 1e3;
    // To the millisecond: the difference of two large doubles has no more.
    Duration::try_from_secs_f64((left.max(0.0) * 1e3).round() / 1e3).ok()
}

/// A span as Go prints it: `1h0m2.5s`, `120ms`, `15µs`.
fn span(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(at);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(end);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}

/// Time until a moment of RFC 3339.
fn until(text: &str, now: Timestamp) -> Option<Duration> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let (year, month, day) = three(date, '-')?;
    let at = time.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.')?;
    let (clock, zone) = time.split_at(at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let (hour, minute, second) = three(clock, ':')?;
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (sign, rest) = (if zone.starts_with('-') { -1 } else { 1 }, zone.get(1..)?);
            let (h, m) = rest.split_once(':')?;
            let (h, m) = (number(h)?, number(m)?);
            ((h < 24 && m < 60) && zone.starts_with(['+', '-'])).then_some(sign * (h * 60 + m) * 60)?
        }
    };
    if hour > 23 || minute > 59 || second > 60 || fraction.len() > 9 {
        return None;
    }
    let millis = number(&format!("{fraction:0<9}"))? / 1_000_000;
    let seconds = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let left = (seconds * 1000 + millis).saturating_sub(now.0).max(0);
    Some(Duration::from_millis(u64::try_from(left).ok()?))
}

fn three(text: &str, by: char) -> Option<(i64, i64, i64)> {
    let mut numbers = text.split(by).map(number);
    let three = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(three)
}

fn number(text: &str) -> Option<i64> {
    (text.len() < 10 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

/// `"name";r=5;t=30` with the policy `"name";q=100;w=60`.
fn structured(left: &str, policy: &str) -> Option<Window> {
    let of = |text: &str, key: &str| {
        let item = text.split(',').next()?;
        item.split(';').find_map(|p| count(p.trim().strip_prefix(key)?.strip_prefix('=')?))
    };
    let remaining = of(left, "r")?;
    let limit = of(policy, "q").unwrap_or(remaining);
    Window::of(limit, remaining, Duration::from_secs(of(left, "t").or_else(|| of(policy, "w"))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000); // 2023-11-14T22:13:20Z

    fn read(headers: &[(&str, &'static str)]) -> Option<Headroom> {
        let all: Vec<(String, &'static str)> = headers.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        Headroom::read(|name| all.iter().find(|(k, _)| k == name).map(|(_, v)| *v), NOW)
    }

    fn window(limit: u64, remaining: u64, ms: u64) -> Option<Window> {
        Some(Window { limit, remaining, resets_in: Duration::from_millis(ms) })
    }

    #[test]
    fn openai_and_its_likes() {
        let h = read(&[
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ])
        .unwrap();
        assert_eq!((h.requests, h.tokens), (window(60, 59, 1000), window(150_000, 149_984, 360_000)));
        assert_eq!((h.input_tokens, h.output_tokens), (None, None));
        for (text, ms) in [
            ("120ms", 120),
            ("2m59.56s", 179_560),
            ("17.5", 17_500),
            ("1h0m0s", 3_600_000),
            ("0", 0),
            ("8.64s", 8640),
            ("1d", 86_400_000),
        ] {
            assert_eq!(reset(text, NOW), Some(Duration::from_millis(ms)), "{text}");
        }
        let minute = read(&[
            ("x-ratelimit-limit-tokens-minute", "1000"),
            ("x-ratelimit-remaining-tokens-minute", "10"),
            ("x-ratelimit-reset-tokens-minute", "30.5"),
        ]);
        assert_eq!(minute.unwrap().tokens, window(1000, 10, 30_500));
        let silent = read(&[("x-ratelimit-limit-requests", "30"), ("x-ratelimit-remaining-requests", "4")]);
        assert_eq!(silent.unwrap().requests, window(30, 4, 60_000), "no word of a reset");
    }

    #[test]
    fn anthropic() {
        let h = read(&[
            ("anthropic-ratelimit-requests-limit", "4000"),
            ("anthropic-ratelimit-requests-remaining", "3999"),
            ("anthropic-ratelimit-requests-reset", "2023-11-14T22:13:21Z"),
            ("anthropic-ratelimit-input-tokens-limit", "400000"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "2023-11-15T00:13:50.250+02:00"),
            ("anthropic-ratelimit-output-tokens-limit", "80000"),
            ("anthropic-ratelimit-output-tokens-remaining", "80000"),
            ("anthropic-ratelimit-output-tokens-reset", "2022-01-01T00:00:00Z"),
        ])
        .unwrap();
        assert_eq!(h.requests, window(4000, 3999, 1000));
        assert_eq!(h.input_tokens, window(400_000, 0, 30_250));
        assert_eq!(h.output_tokens, window(80_000, 80_000, 0), "the past is now");
    }

    #[test]
    fn the_plain_ones_count_requests() {
        for (name, at, ms) in [
            ("x-ratelimit", "1700000007000", 7000),
            ("x-ratelimit", "1700000007", 7000),
            ("ratelimit", "7", 7000),
        ] {
            let keys = ["limit", "remaining", "reset"].map(|field| format!("{name}-{field}"));
            let h = read(&[(&keys[0], "20"), (&keys[1], "3"), (&keys[2], at)]).unwrap();
            assert_eq!(h.requests, window(20, 3, ms), "{name} {at}");
        }
        let h = read(&[
            ("ratelimit-limit", "100, 100;w=60"),
            ("ratelimit-remaining", "50"),
            ("ratelimit-reset", "30"),
        ]);
        assert_eq!(h.unwrap().requests, window(100, 50, 30_000));
        let h = read(&[("ratelimit", "\"burst\";r=5;t=30"), ("ratelimit-policy", "\"burst\";q=100;w=60")]);
        assert_eq!(h.unwrap().requests, window(100, 5, 30_000));
    }

    #[test]
    fn nonsense_is_not_there() {
        assert_eq!(read(&[]), None);
        let with = |limit, remaining, reset| {
            read(&[
                ("x-ratelimit-limit-requests", limit),
                ("x-ratelimit-remaining-requests", remaining),
                ("x-ratelimit-reset-requests", reset),
            ])
        };
        assert!(with("60", "59", "1s").is_some());
        for (limit, remaining, reset) in [
            ("0", "0", "1s"),
            ("60", "61", "1s"),
            ("-60", "5", "1s"),
            ("60", "NaN", "1s"),
            ("60", "5", "-1s"),
            ("60", "5", "-1"),
            ("60", "5", "inf"),
            ("60", "5", "1e300"),
            ("60", "5", "s"),
            ("60", "5", ""),
            ("60", "5", "1.2.3s"),
            ("60", "5", "99999999h"),
            ("60", "5", "9999-12-31T23:59:59Z"),
            ("60", "5", "2023-02-30T00:00:00Z"),
            ("60", "5", "2023-11-14T25:00:00Z"),
            ("60", "5", "2023-11-14T22:13:20"),
            ("60", "5", "2023-11-14T22:13:20x00:00"),
            ("99999999999999999999999", "5", "1s"),
            ("60", "5", "tomorrow"),
        ] {
            assert_eq!(with(limit, remaining, reset), None, "{limit} {remaining} {reset}");
        }
    }

    proptest! {
        #[test]
        fn no_header_breaks_it(values in proptest::collection::vec("[0-9a-zA-Zµ:.;,=+\" -]{0,40}|\\PC{0,20}", 6)) {
            let at = |n: usize| Some(values[n].as_str());
            let _ = Headroom::read(
                |name| match name {
                    "x-ratelimit-limit-requests" | "ratelimit" => at(0),
                    "x-ratelimit-remaining-requests" | "ratelimit-policy" => at(1),
                    "x-ratelimit-reset-requests" => at(2),
                    "anthropic-ratelimit-tokens-limit" => at(3),
                    "anthropic-ratelimit-tokens-remaining" => at(4),
                    "anthropic-ratelimit-tokens-reset" => at(5),
                    _ => None,
                },
                NOW,
            );
            for value in &values {
                let _ = reset(value, NOW);
            }
        }
    }
}
