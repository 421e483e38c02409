//! What went wrong, read off a status, headers and an error body of any provider.
//!
//! Providers agree on little: errors come as `{"error": {...}}`, `{"error": "text"}`, flat objects, FastAPI's `detail`, arrays,
//! HTML pages or nothing, and the same status can mean *wait a second* or *pay first*. [`classify`] reads all of them and
//! tells apart what a policy must treat differently.

use crate::calendar::days;
use serde_json::Value;
use std::time::Duration;
use zo_traits::{Error, ErrorKind, Timestamp};

/// What a failure is, finer than [`ErrorKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// No key, or a wrong one.
    Auth,
    /// The key may not do this.
    Permission,
    /// Too many requests or tokens per time.
    RateLimit,
    /// Credit or a spending limit is used up; waiting does not help.
    Quota,
    /// The prompt does not fit the context window.
    ContextLength,
    /// Too busy, or still loading.
    Overloaded,
    /// The server failed.
    Server,
    /// The server gave up waiting.
    Timeout,
    /// The request is wrong.
    InvalidRequest,
    /// A filter refused the request.
    ContentFilter,
    /// The body is too large.
    RequestTooLarge,
    /// No such model or path.
    NotFound,
    /// The server cannot do this.
    Unsupported,
    /// A conflict with another request.
    Conflict,
    /// The model wrote a tool call that the server could not read: another sample may do.
    ToolUseFailed,
}

impl Class {
    /// Its name in snake_case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Permission => "permission",
            Self::RateLimit => "rate_limit",
            Self::Quota => "quota",
            Self::ContextLength => "context_length",
            Self::Overloaded => "overloaded",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::InvalidRequest => "invalid_request",
            Self::ContentFilter => "content_filter",
            Self::RequestTooLarge => "request_too_large",
            Self::NotFound => "not_found",
            Self::Unsupported => "unsupported",
            Self::Conflict => "conflict",
            Self::ToolUseFailed => "tool_use_failed",
        }
    }

    /// The kind that a policy acts on.
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Auth => ErrorKind::Unauthorized,
            Self::Permission => ErrorKind::Denied,
            Self::RateLimit => ErrorKind::RateLimited,
            Self::Quota => ErrorKind::Exhausted,
            Self::ContextLength => ErrorKind::ContextOverflow,
            Self::Overloaded | Self::Server | Self::ToolUseFailed => ErrorKind::Unavailable,
            Self::Timeout => ErrorKind::Timeout,
            Self::InvalidRequest | Self::ContentFilter | Self::RequestTooLarge => ErrorKind::Invalid,
            Self::NotFound => ErrorKind::NotFound,
            Self::Unsupported => ErrorKind::Unsupported,
            Self::Conflict => ErrorKind::Conflict,
        }
    }

    fn retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimit | Self::Overloaded | Self::Server | Self::Timeout | Self::ToolUseFailed
        )
    }
}

/// A failure that a server reported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// What it is.
    pub class: Class,
    /// May the same request succeed later? Not when a rate limit asks to wait for more than a day.
    pub retryable: bool,
    /// How long the server asks to wait. Never more than a day.
    pub retry_after: Option<Duration>,
    /// HTTP status, if there was one.
    pub status: Option<u16>,
    /// The provider's own code or type.
    pub code: Option<String>,
    /// The provider's words, shortened.
    pub message: String,
}

impl Fault {
    /// The kind of the [`Error`] that this becomes: that of its class, unless the server said with `x-should-retry` that
    /// the opposite of the class's habit holds, or asks for a wait that is no retry.
    pub fn kind(&self) -> ErrorKind {
        match (self.class.retryable(), self.retryable) {
            (false, true) => ErrorKind::Unavailable,
            (true, false) if self.class == Class::RateLimit => ErrorKind::Exhausted,
            (true, false) => ErrorKind::Invalid,
            _ => self.class.kind(),
        }
    }

    /// Takes down how long the server asks to wait. A rate limit of more than a day is as good as used up; a server that is
    /// down for so long by its own words may well be back sooner.
    fn wait(&mut self, wait: Option<Duration>) {
        self.retry_after = wait.filter(|wait| *wait <= MAX_WAIT);
        self.retryable = self.class != Class::RateLimit || wait == self.retry_after;
    }

    /// As an error of operation `op`.
    pub fn into_error(self, op: &'static str) -> Error {
        let status = self.status.map(|s| format!("HTTP {s}, ")).unwrap_or_default();
        let code = self.code.as_deref().map(|c| format!(" [{c}]")).unwrap_or_default();
        let error = Error::new(
            self.kind(),
            op,
            format_args!("{status}{}: {}{code}", self.class.as_str(), self.message),
        );
        match self.retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }
}

/// Reads a failure off an HTTP answer. `header` looks a header up by its lower-case name; `now` is the wall clock, which only
/// dates in headers are held against.
pub fn classify<'h>(
    status: u16,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &str,
    now: Timestamp,
) -> Fault {
    let told = Told::from_body(body);
    let mut fault = told.fault((status != 200).then_some(status));
    match header("x-should-retry") {
        Some("true") => fault.retryable = true,
        Some("false") => fault.retryable = false,
        _ => {}
    }
    if fault.message.is_empty() {
        fault.message = if body.trim().is_empty() { "no body" } else { "no message in the body" }.into();
    }
    if fault.retryable {
        fault.wait(
            from_headers(&header, fault.class, now)
                .or_else(|| told.retry_delay(now))
                .or_else(|| in_text(&told.message)),
        );
    }
    fault
}

/// Reads a failure off an error object inside an answer (a JSON text), where there is no status.
pub fn classify_inner(body: &str) -> Fault {
    let told = Told::from_body(body);
    let mut fault = told.fault(None);
    if fault.retryable {
        fault.wait(told.retry_delay(Timestamp(i64::MAX)).or_else(|| in_text(&told.message)));
    }
    fault
}

const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);
const MAX_MESSAGE: usize = 400;

/// What an error body says.
#[derive(Debug, Default)]
struct Told {
    message: String,
    code: String,
    kind: String,
    status: Option<u16>,
    body: Value,
}

impl Told {
    fn from_body(body: &str) -> Self {
        let value: Value = match serde_json::from_str(body) {
            // Gemini wraps the error of a stream in an array.
            Ok(Value::Array(items)) => items.into_iter().next().unwrap_or_default(),
            Ok(value) => value,
            Err(_) => return Self { message: short(&plain(body)), ..Self::default() },
        };
        let error = match value.get("error") {
            Some(inner @ Value::Object(_)) => inner,
            _ => &value,
        };
        let text = |v: &Value, key: &str| v.get(key).map(spell).unwrap_or_default();
        let message = ["message", "error", "detail", "msg", "error_description"]
            .iter()
            .map(|key| text(error, key))
            .find(|m| !m.is_empty())
            .or_else(|| Some(spell(&value)).filter(|_| value.is_string()))
            .unwrap_or_default();
        let code = [
            error.pointer("/details/error_code"),
            error.get("code"),
            error.pointer("/innererror/code"),
            error.get("status").filter(|s| s.is_string()),
        ]
        .into_iter()
        .flatten()
        .map(spell)
        .find(|c| !c.is_empty())
        .unwrap_or_default();
        let number = ["code", "status_code", "status", "raw_status_code"]
            .iter()
            .find_map(|key| error.get(key).and_then(Value::as_u64))
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| (400..600).contains(n));
        let kind = text(error, "type");
        Self { message: short(&message), code, kind, status: number, body: value }
    }

    fn error(&self) -> &Value {
        self.body.get("error").filter(|e| e.is_object()).unwrap_or(&self.body)
    }

    fn fault(&self, status: Option<u16>) -> Fault {
        let class = self.class(status);
        let code = [&self.code, &self.kind].into_iter().find(|c| !c.is_empty()).map(|c| short(c));
        Fault {
            class,
            retryable: class.retryable(),
            retry_after: None,
            status,
            code,
            message: self.message.clone(),
        }
    }

    fn class(&self, http: Option<u16>) -> Class {
        let status = http.or(self.status);
        let words = self.message.to_lowercase();
        let (code, kind) = (self.code.to_lowercase(), self.kind.to_lowercase());
        let named = |names: &[&str]| names.iter().any(|n| code == *n || kind == *n);
        let says = |texts: &[&str]| texts.iter().any(|t| words.contains(t));
        let refused = status.is_none_or(|s| (400..500).contains(&s) && s != 429 || s == 500);

        if named(QUOTA) || status == Some(402) || says(QUOTA_WORDS) || self.per_day() {
            return Class::Quota;
        }
        if status == Some(413)
            || named(&["request_too_large"])
            || refused && says(&["request payload size exceeds the limit"])
        {
            return if named(CONTEXT) || says(CONTEXT_WORDS) {
                Class::ContextLength
            } else {
                Class::RequestTooLarge
            };
        }
        if refused && (named(CONTEXT) || says(CONTEXT_WORDS) || says(&["context"]) && says(&["overflow"])) {
            return Class::ContextLength;
        }
        if refused && (named(FILTER) || self.flagged() || says(&["content management policy"])) {
            return Class::ContentFilter;
        }
        // What a chat template raises comes as a failure of the server, but the same conversation will fail again.
        if refused && says(&["must be at the beginning", "roles must alternate", "jinja exception"]) {
            return Class::InvalidRequest;
        }
        if named(&["tool_use_failed"]) {
            return Class::ToolUseFailed;
        }
        // Some answer a bad key with 400 or 403.
        if matches!(status, None | Some(400 | 401 | 403))
            && (named(&["invalid_api_key", "authentication_error"])
                || says(&["incorrect api key", "invalid api key", "api key not valid"])
                || self.body.to_string().contains("API_KEY_INVALID"))
        {
            return Class::Auth;
        }
        if refused && says(INCAPABLE) {
            return Class::Unsupported;
        }
        if status == Some(400) && says(&["user location is not supported"]) {
            return Class::Permission;
        }
        if named(&["overloaded_error"]) {
            return Class::Overloaded;
        }
        match status {
            Some(401) => Class::Auth,
            Some(403) => Class::Permission,
            Some(404) => Class::NotFound,
            Some(408 | 504 | 524) => Class::Timeout,
            Some(409) => Class::Conflict,
            Some(425 | 498 | 503 | 529) => Class::Overloaded,
            Some(429) => Class::RateLimit,
            Some(501) => Class::Unsupported,
            Some(500..) => Class::Server,
            Some(_) => Class::InvalidRequest,
            // Ollama, whose errors are words alone.
            None if words.starts_with("model ") && says(&["not found"]) => Class::NotFound,
            None => Self::by_name(&code, &kind),
        }
    }

    /// Inside a stream there is no status, only names.
    fn by_name(code: &str, kind: &str) -> Class {
        for name in [code, kind] {
            let class = match name {
                "rate_limit_error"
                | "rate_limit_exceeded"
                | "slow_down"
                | "requests"
                | "tokens"
                | "resource_exhausted" => Class::RateLimit,
                "overloaded"
                | "service_unavailable"
                | "service_unavailable_error"
                | "server_is_overloaded"
                | "unavailable"
                | "unavailable_error"
                | "capacity_exceeded" => Class::Overloaded,
                "timeout" | "timeout_error" | "deadline_exceeded" => Class::Timeout,
                "unauthenticated" => Class::Auth,
                "permission_error" | "permission_denied" | "forbidden" => Class::Permission,
                "not_found" | "not_found_error" | "model_not_found" => Class::NotFound,
                "invalid_request_error"
                | "invalid_request"
                | "invalid_argument"
                | "failed_precondition"
                | "out_of_range"
                | "badrequesterror" => Class::InvalidRequest,
                "not_supported_error" | "unsupported" | "unimplemented" => Class::Unsupported,
                "aborted" | "already_exists" => Class::Conflict,
                _ => continue,
            };
            return class;
        }
        Class::Server
    }

    fn flagged(&self) -> bool {
        self.error().pointer("/metadata/flagged_input").is_some()
    }

    /// Google's QuotaFailure names its window, as does the ErrorInfo beside it.
    fn per_day(&self) -> bool {
        let daily = |quota: Option<&Value>| {
            quota.and_then(Value::as_str).is_some_and(|q| q.to_ascii_lowercase().contains("perday"))
        };
        self.details().any(|d| {
            let violations = d.get("violations").and_then(Value::as_array).into_iter().flatten();
            violations.into_iter().any(|v| daily(v.get("quotaId")))
                || daily(d.pointer("/metadata/quota_limit"))
        })
    }

    fn details(&self) -> impl Iterator<Item = &Value> {
        self.error().get("details").and_then(Value::as_array).into_iter().flatten()
    }

    fn retry_delay(&self, now: Timestamp) -> Option<Duration> {
        // A protobuf Duration: text in JSON, an object with some gateways.
        let google = self.details().find_map(|d| {
            let delay = d.get("retryDelay")?;
            let part = |key: &str| delay.get(key).and_then(Value::as_f64);
            let parts = || secs(part("seconds")? + part("nanos").unwrap_or(0.0) / 1e9);
            delay.as_str().and_then(span).or_else(parts)
        });
        let reset = || {
            let headers = self.error().pointer("/metadata/headers")?.as_object()?;
            let (_, at) = headers.iter().find(|(k, _)| k.eq_ignore_ascii_case("x-ratelimit-reset"))?;
            until_epoch(spell(at).parse().ok()?, now)
        };
        let seconds = || {
            let told = self.error().get("retry_after").or_else(|| self.body.get("retry_after"))?;
            secs(told.as_f64().or_else(|| told.as_str()?.parse().ok())?)
        };
        google.or_else(reset).or_else(seconds)
    }
}

const QUOTA: &[&str] = &[
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "enforced_spend_limit_reached",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "insufficient_credits",
    "exceeded_current_quota_error",
];
const QUOTA_WORDS: &[&str] = &[
    "credit balance is too low",
    "insufficient balance",
    "insufficient credits",
    "used all available credits",
    "monthly spending limit",
    "monthly spending cap",
    "prepayment credits are depleted",
];
/// Ollama names what a model cannot do.
const INCAPABLE: &[&str] = &[
    "does not support tools",
    "does not support thinking",
    "does not support chat",
    "does not support generate",
    "does not support embeddings",
];
const CONTEXT: &[&str] = &[
    "context_length_exceeded",
    "exceed_context_size_error",
    "context_window_exceeded",
    "model_context_window_exceeded",
];
const CONTEXT_WORDS: &[&str] = &[
    "maximum context length",
    "maximum prompt length",
    "prompt is too long",
    "input is too long",
    "exceeds the available context size",
    "exceeds the context window",
    "exceeds the context length",
    "longer than the context length",
    "is too large to process",
    "input token count is",
    "exceed context limit",
    "exceeds the maximum number of tokens allowed",
    "exceeds the model's context",
    "exceeded model token limit",
    "context length of only",
    "context length exceeded",
    "context window exceeded",
    "too large for model with",
    "reduce the length of the messages",
];
const FILTER: &[&str] =
    &["content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed"];

/// A JSON value as words: text as it is, numbers spelt, objects as JSON.
fn spell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// A body that is no JSON, as words: the tags of an HTML page are left out.
fn plain(body: &str) -> String {
    let head: String = body.chars().take(4 * MAX_MESSAGE).collect();
    if !head.trim_start().starts_with('<') {
        return head;
    }
    let (mut out, mut in_tag) = (String::new(), false);
    for c in head.chars() {
        match c {
            '<' => in_tag = true,
            '>' => {
                in_tag = false;
                out.push(' ');
            }
            c if !in_tag => out.push(c),
            _ => {}
        }
    }
    out
}

/// One line of at most [`MAX_MESSAGE`] characters.
fn short(text: &str) -> String {
    let mut out = String::new();
    for (n, word) in text.split_whitespace().enumerate() {
        if n > 0 {
            out.push(' ');
        }
        out.extend(word.chars().take(MAX_MESSAGE));
        if out.len() > 4 * MAX_MESSAGE {
            break;
        }
    }
    match out.char_indices().nth(MAX_MESSAGE) {
        Some((at, _)) => {
            out.truncate(at);
            out.push('…');
            out
        }
        None => out,
    }
}

fn from_headers<'h>(
    header: &impl Fn(&str) -> Option<&'h str>,
    class: Class,
    now: Timestamp,
) -> Option<Duration> {
    if let Some(wait) =
        header("retry-after-ms").and_then(|v| v.trim().parse::<f64>().ok()).and_then(|ms| secs(ms / 1e3))
    {
        return Some(wait);
    }
    if let Some(value) = header("retry-after") {
        return value.trim().parse::<f64>().ok().and_then(secs).or_else(|| until_date(value, now));
    }
    if class != Class::RateLimit {
        return None;
    }
    // A window that has something left is not the one that was hit.
    let open = |name: String| header(&name).is_some_and(|left| left.trim() != "0");
    let openai = ["requests", "tokens"]
        .iter()
        .filter(|what| !open(format!("x-ratelimit-remaining-{what}")))
        .filter_map(|what| header(&format!("x-ratelimit-reset-{what}")).and_then(span));
    let anthropic = ["requests", "tokens", "input-tokens", "output-tokens"]
        .iter()
        .filter(|what| !open(format!("anthropic-ratelimit-{what}-remaining")))
        .filter_map(|what| {
            header(&format!("anthropic-ratelimit-{what}-reset")).and_then(|at| until_rfc3339(at, now))
        });
    let plain = ["x-ratelimit-reset", "ratelimit-reset"]
        .iter()
        .filter_map(|name| header(name))
        .filter_map(|v| v.trim().parse::<f64>().ok().and_then(|n| until_epoch(n, now)).or_else(|| span(v)));
    openai.chain(anthropic).chain(plain).max()
}

fn secs(s: f64) -> Option<Duration> {
    if s.is_finite() && s >= 0.0 { Duration::try_from_secs_f64(s).ok() } else { None }
}

/// A bare number of a reset header: seconds to wait, or a moment in seconds or milliseconds since the epoch.
fn until_epoch(n: f64, now: Timestamp) -> Option<Duration> {
    let ms = if n > 1e11 {
        n
    } else if n > 1e8 {
        n * 1e3
    } else {
        return secs(n);
    };
    #[allow(clippy::cast_precision_loss)] // Milliseconds of this millennium fit a double.
    secs(((ms - now.0 as f64) / 1e3).max(0.0))
}

/// Go's durations, which most gateways print: `1m2.5s`, `350ms`, `6m0s`. A bare number is seconds.
fn span(text: &str) -> Option<Duration> {
    spans(text.trim()).filter(|(_, rest)| rest.is_empty()).map(|(wait, _)| wait)
}

/// Reads a duration off the start of `text`; also what follows it.
fn spans(text: &str) -> Option<(Duration, &str)> {
    let (mut total, mut rest, mut any) = (0.0, text, false);
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        // A full stop that ends a sentence is no decimal point.
        let Ok(n) = number.trim_end_matches('.').parse::<f64>() else { break };
        let word = tail.trim_start();
        let letters = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (unit, after) = word.split_at(letters);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "ms" | "milliseconds" | "millisecond" => 1e-3,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86400.0,
            _ if !any => return secs(n).map(|wait| (wait, tail)),
            _ => break,
        };
        total += n * factor;
        any = true;
        rest = after;
        if !rest.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
            break;
        }
        rest = rest.trim_start();
    }
    if any { secs(total).map(|wait| (wait, rest)) } else { None }
}

/// "Please try again in 1m2.5s", "retry after 20 seconds", "retry in 22.5s".
fn in_text(message: &str) -> Option<Duration> {
    let message = message.to_ascii_lowercase();
    ["try again in ", "retry after ", "retry in "].iter().find_map(|lead| {
        let at = message.find(lead)?;
        spans(message.get(at + lead.len()..)?).map(|(wait, _)| wait)
    })
}

/// Time until an HTTP-date (RFC 9110, section 5.6.7): IMF-fixdate, and the obsolete RFC 850 form.
fn until_date(text: &str, now: Timestamp) -> Option<Duration> {
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split([' ', '-']);
    let day: i64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = 1 + i64::try_from(
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            .iter()
            .position(|m| m.eq_ignore_ascii_case(name))?,
    )
    .ok()?;
    let mut year: i64 = words.next()?.parse().ok()?;
    if year < 100 {
        year += if year < 70 { 2000 } else { 1900 };
    }
    let clock = clock_seconds(words.next()?)?;
    secs_until(days(year, month, day)? * 86400 + clock, now)
}

/// Time until an RFC 3339 moment in UTC.
fn until_rfc3339(text: &str, now: Timestamp) -> Option<Duration> {
    let (date, time) = text.trim().split_once(['T', 't'])?;
    let mut numbers = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    let time = time.strip_suffix(['Z', 'z']).or_else(|| time.strip_suffix("+00:00"))?;
    let clock = clock_seconds(time.split('.').next()?)?;
    secs_until(days(year, month, day)? * 86400 + clock, now)
}

fn clock_seconds(text: &str) -> Option<i64> {
    let mut numbers = text.splitn(3, ':').map(str::parse::<i64>);
    let (h, m, s) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    ((0..24).contains(&h) && (0..60).contains(&m) && (0..61).contains(&s)).then_some(h * 3600 + m * 60 + s)
}

fn secs_until(epoch: i64, now: Timestamp) -> Option<Duration> {
    let ms = epoch.checked_mul(1000)?.saturating_sub(now.0).max(0);
    Some(Duration::from_millis(u64::try_from(ms).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000); // 2023-11-14T22:13:20Z

    fn at(status: u16, headers: &[(&str, &'static str)], body: &str) -> Fault {
        let headers: Vec<(String, &'static str)> =
            headers.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        classify(status, |name| headers.iter().find(|(k, _)| k == name).map(|(_, v)| *v), body, NOW)
    }

    fn wait(headers: &[(&str, &'static str)]) -> Option<u64> {
        at(429, headers, "{}").retry_after.map(|d| u64::try_from(d.as_millis()).unwrap())
    }

    #[test]
    fn every_form_of_wait_is_read() {
        assert_eq!(wait(&[("retry-after-ms", "350"), ("retry-after", "9")]), Some(350));
        assert_eq!(wait(&[("retry-after", "1.5")]), Some(1500));
        assert_eq!(wait(&[("retry-after", "Tue, 14 Nov 2023 22:13:30 GMT")]), Some(10_000));
        assert_eq!(wait(&[("retry-after", "Tuesday, 14-Nov-23 22:13:30 GMT")]), Some(10_000));
        assert_eq!(wait(&[("retry-after", "Tue, 14 Nov 2022 22:13:30 GMT")]), Some(0), "the past is now");
        assert_eq!(wait(&[("retry-after", "Wed, 21 Oct 2099 07:28:00 GMT")]), None, "that is no retry");
        assert_eq!(wait(&[("retry-after", "-3")]), None);
        assert_eq!(
            wait(&[("x-ratelimit-reset-requests", "1s"), ("x-ratelimit-reset-tokens", "6m0s")]),
            Some(360_000)
        );
        assert_eq!(
            wait(&[
                ("x-ratelimit-reset-requests", "1h0m0s"),
                ("x-ratelimit-remaining-requests", "12"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "350ms"),
            ]),
            Some(350)
        );
        assert_eq!(wait(&[("anthropic-ratelimit-tokens-reset", "2023-11-14T22:13:25Z")]), Some(5000));
        assert_eq!(wait(&[("x-ratelimit-reset", "1700000007000")]), Some(7000));
        assert_eq!(wait(&[("x-ratelimit-reset", "1700000007")]), Some(7000));
        assert_eq!(wait(&[("x-ratelimit-reset", "7")]), Some(7000));
        for (text, ms) in [
            ("Please try again in 1m2.5s. Visit", 62_500),
            ("try again in 7m12s.", 432_000),
            ("Please retry after 20 seconds.", 20_000),
            ("try again in 350ms", 350),
            ("Please retry in 22.5s.", 22_500),
            ("try again in 1h 2 minutes", 3_720_000),
        ] {
            let body = serde_json::json!({"error": {"message": text}}).to_string();
            assert_eq!(at(429, &[], &body).retry_after, Some(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_wait_is_read_only_where_waiting_helps() {
        assert_eq!(at(400, &[("retry-after", "3")], "{}").retry_after, None);
        let e = at(429, &[("retry-after", "3")], r#"{"error":{"code":"insufficient_quota"}}"#);
        assert_eq!((e.class, e.retryable, e.retry_after), (Class::Quota, false, None));
    }

    #[test]
    fn what_the_server_says_of_retrying_wins() {
        let e = at(429, &[("x-should-retry", "false")], "{}");
        assert!(!e.clone().into_error("t").is_retryable(), "{e:?}");
        assert!(at(409, &[("x-should-retry", "true")], "{}").into_error("t").is_retryable());
        assert!(!at(500, &[("x-should-retry", "false")], "{}").into_error("t").is_retryable());
    }

    #[test]
    fn a_wait_of_more_than_a_day_is_no_retry() {
        let e = at(429, &[("retry-after", "90000")], "{}");
        assert_eq!((e.retryable, e.retry_after, e.kind()), (false, None, ErrorKind::Exhausted));
        let e = at(503, &[("retry-after", "90000")], "{}");
        assert_eq!((e.retryable, e.retry_after), (true, None), "being down is no limit");
        assert!(!classify_inner(r#"{"code":429,"message":"try again in 3 days"}"#).retryable);
        assert!(at(429, &[("retry-after", "86400")], "{}").retryable);
    }

    #[test]
    fn what_a_chat_template_raises_is_the_requests_fault() {
        for text in [
            "System message must be at the beginning.",
            "Conversation roles must alternate user/assistant/user/assistant/...",
            "Value is not callable: Jinja Exception at row 12",
        ] {
            let e = at(500, &[], &serde_json::json!({"error": {"message": text}}).to_string());
            assert_eq!((e.class, e.retryable), (Class::InvalidRequest, false), "{text}");
        }
    }

    #[test]
    fn odd_bodies_give_a_message() {
        for (body, message) in [
            (r#"{"error":"words"}"#, "words"),
            (r#"{"detail":"Not authenticated"}"#, "Not authenticated"),
            (r#"{"message":{"detail":[1]}}"#, r#"{"detail":[1]}"#),
            (r#"[{"error":{"message":"in a list"}}]"#, "in a list"),
            ("<html><head><title>502 Bad Gateway</title></head></html>", "502 Bad Gateway"),
            ("error code: 520", "error code: 520"),
            ("", "no body"),
            ("null", "no message in the body"),
            ("\"text\"", "text"),
        ] {
            assert_eq!(at(500, &[], body).message, message, "{body}");
        }
        assert!(at(500, &[], &"x ".repeat(1_000_000)).message.chars().count() <= MAX_MESSAGE + 1);
    }

    #[test]
    fn google_says_what_quota_it_was() {
        let told = |details: Value| {
            let error =
                serde_json::json!({"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [details]});
            classify_inner(&serde_json::json!([{ "error": error }]).to_string())
        };
        let quota =
            |id: &str| told(serde_json::json!({"violations": [{"quotaMetric": "x"}, {"quotaId": id}]}));
        assert_eq!(quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier").class, Class::Quota);
        assert_eq!(quota("GenerateRequestsPerMinutePerProjectPerModel").class, Class::RateLimit);
        let info = serde_json::json!({"metadata": {"quota_limit": "RequestsPerDayPerProject"}});
        assert_eq!(told(info).class, Class::Quota);
        for (delay, ms) in [
            (serde_json::json!("22.5s"), Some(22_500)),
            (serde_json::json!("0s"), Some(0)),
            (serde_json::json!({"seconds": 3, "nanos": 500_000_000}), Some(3500)),
            (serde_json::json!({"seconds": -3}), None),
            (serde_json::json!({"nanos": 5}), None),
            (serde_json::json!(7), None),
            (Value::Null, None),
        ] {
            let wait = told(serde_json::json!({ "retryDelay": delay })).retry_after;
            assert_eq!(wait.map(|d| d.as_millis()), ms, "{delay}");
        }
        for (words, class) in [
            ("Your prepayment credits are depleted. Please go to AI Studio.", Class::Quota),
            ("Resource has been exhausted (e.g. check quota).", Class::RateLimit),
        ] {
            let body = serde_json::json!({"error": {"message": words, "status": "RESOURCE_EXHAUSTED"}});
            assert_eq!(at(429, &[], &body.to_string()).class, class, "{words}");
        }
    }

    #[test]
    fn googles_names_are_known_where_there_is_no_status() {
        for (name, class) in [
            ("UNAUTHENTICATED", Class::Auth),
            ("PERMISSION_DENIED", Class::Permission),
            ("RESOURCE_EXHAUSTED", Class::RateLimit),
            ("UNAVAILABLE", Class::Overloaded),
            ("DEADLINE_EXCEEDED", Class::Timeout),
            ("INTERNAL", Class::Server),
            ("FAILED_PRECONDITION", Class::InvalidRequest),
            ("UNIMPLEMENTED", Class::Unsupported),
            ("ABORTED", Class::Conflict),
        ] {
            let body = serde_json::json!({"error": {"message": "m", "status": name}}).to_string();
            assert_eq!(classify_inner(&body).class, class, "{name}");
        }
        for (words, class) in [
            ("User location is not supported for the API use.", Class::Permission),
            ("Request payload size exceeds the limit: 20971520 bytes.", Class::RequestTooLarge),
            (
                "Unable to submit request because the input token count is 9 but model only supports up to 8.",
                Class::ContextLength,
            ),
            ("Please use a valid role: user, model.", Class::InvalidRequest),
        ] {
            let body = serde_json::json!({"error": {"code": 400, "message": words}}).to_string();
            assert_eq!(at(400, &[], &body).class, class, "{words}");
        }
    }

    #[test]
    fn ollamas_errors_are_words_alone() {
        for (status, words, class) in [
            (None, "model 'nope' not found", Class::NotFound),
            (None, "model \"nope\" not found, try pulling it first", Class::NotFound),
            (None, "an error was encountered while running the model: unexpected EOF", Class::Server),
            (Some(400), "\"smollm\" does not support thinking", Class::Unsupported),
            (Some(400), "the input length exceeds the context length", Class::ContextLength),
            (
                Some(503),
                "server busy, please try again.  maximum pending requests exceeded",
                Class::Overloaded,
            ),
        ] {
            let body = serde_json::json!({ "error": words }).to_string();
            let fault = status.map_or_else(|| classify_inner(&body), |s| at(s, &[], &body));
            assert_eq!((fault.class, fault.message.is_empty()), (class, false), "{words}");
        }
    }
}
