//! The one error type that crosses every trait boundary.

use crate::wire_enum;
use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

/// Result alias used by every trait in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

wire_enum! {
    /// What went wrong, in terms that a policy (retry, fall back, ask the user) can act on.
    pub enum ErrorKind {
        /// Caller error: bad arguments, malformed request. The same call will fail again.
        Invalid = "invalid",
        /// The named thing does not exist.
        NotFound = "not_found",
        /// Missing or rejected credentials.
        Unauthorized = "unauthorized",
        /// A policy, sandbox or user said no.
        Denied = "denied",
        /// Too many requests; wait [`Error::retry_after`] and try again.
        RateLimited = "rate_limited",
        /// A provider's paid allowance is used up: waiting a moment does not help. (A [`Budget`](crate::Budget) refuses
        /// with [`Denied`](ErrorKind::Denied) and says why in [`Overspent`](crate::Overspent).)
        Exhausted = "exhausted",
        /// The prompt does not fit the model's context window. Shorten it; never retry it unchanged.
        ContextOverflow = "context_overflow",
        /// The backend is down, overloaded or out of room.
        Unavailable = "unavailable",
        /// A deadline passed.
        Timeout = "timeout",
        /// Cancelled through the [`Cx`](crate::Cx).
        Cancelled = "cancelled",
        /// The implementation cannot do this, or the data is from a newer version than it knows.
        Unsupported = "unsupported",
        /// Lost a race: lease expired, version moved on, resource locked by someone else.
        Conflict = "conflict",
        /// Stored or received data is damaged or cut short.
        Corrupt = "corrupt",
    }
}

/// The one error type crossing every trait boundary.
///
/// * [`kind`](Error::kind) is for code: what a retry, fallback or user interface acts on.
/// * [`op`](Error::op) names the operation that failed, e.g. `"store.open"`.
/// * `Display` is `op: message`, for a person. It must never hold a secret.
/// * [`model_text`](Error::model_text) is what a model may read. It defaults to the bare kind, so nothing internal
///   leaks into a prompt unless somebody decided that it may.
///
/// ```
/// use zo_traits::{Error, ErrorKind};
/// let e = Error::new(ErrorKind::NotFound, "files.read", "no file /etc/secret.txt").with_model_text("no such file");
/// assert_eq!(e.kind(), ErrorKind::NotFound);
/// assert_eq!(e.to_string(), "files.read: no file /etc/secret.txt");
/// assert_eq!(e.model_text(), "no such file");
/// ```
#[derive(Clone, thiserror::Error)]
#[error("{op}: {message}")]
pub struct Error {
    kind: ErrorKind,
    op: &'static str,
    message: Box<str>,
    retry_after: Option<Duration>,
    model_text: Option<Box<str>>,
    #[source]
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// New error of `kind`, raised by operation `op` (by convention `part.verb`).
    pub fn new(kind: ErrorKind, op: &'static str, message: impl fmt::Display) -> Self {
        Self {
            kind,
            op,
            message: message.to_string().into(),
            retry_after: None,
            model_text: None,
            source: None,
        }
    }

    /// [`ErrorKind::Cancelled`] for `op`.
    pub fn cancelled(op: &'static str) -> Self {
        Self::new(ErrorKind::Cancelled, op, "cancelled")
    }

    /// Attach the cause. The cause's text may be printed by the host, so it must not hold a secret either.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Attach how long the other side asked us to wait.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Attach the text that a model may see. Without it the model sees only the kind.
    #[must_use]
    pub fn with_model_text(mut self, text: impl Into<String>) -> Self {
        self.model_text = Some(text.into().into());
        self
    }

    /// The same error under another operation name.
    #[must_use]
    pub fn with_op(mut self, op: &'static str) -> Self {
        self.op = op;
        self
    }

    /// Classification.
    pub fn kind(&self) -> ErrorKind {
        self.kind.clone()
    }

    /// Name of the operation that failed.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// The message without the operation.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How long the other side asked us to wait, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Feedback that is safe to show to the model.
    pub fn model_text(&self) -> String {
        match &self.model_text {
            Some(text) => text.to_string(),
            None => format!("failed: {}", self.kind),
        }
    }

    /// The cause, if it is a `T`: `e.source_as::<std::io::Error>()`. The cause that `std::error::Error::source` gives is
    /// behind a shared pointer and cannot be downcast.
    pub fn source_as<T: StdError + 'static>(&self) -> Option<&T> {
        self.source.as_deref().and_then(|e| (e as &(dyn StdError + 'static)).downcast_ref())
    }

    /// May the very same call succeed later?
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::RateLimited | ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("Error");
        d.field("kind", &self.kind).field("op", &self.op).field("message", &self.message);
        if let Some(wait) = &self.retry_after {
            d.field("retry_after", wait);
        }
        if let Some(source) = &self.source {
            d.field("source", source);
        }
        d.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_never_sees_the_message_by_default() {
        let e = Error::new(ErrorKind::Other("x".into()), "op", "password is hunter2");
        assert!(!e.model_text().contains("hunter2"));
    }

    #[test]
    fn source_is_reachable() {
        let e = Error::new(ErrorKind::Unavailable, "op", "m").with_source(std::io::Error::other("inner"));
        assert_eq!(StdError::source(&e).map(ToString::to_string), Some("inner".into()));
        assert!(e.source_as::<std::io::Error>().is_some() && e.source_as::<std::fmt::Error>().is_none());
    }

    #[test]
    fn error_is_small() {
        assert!(size_of::<Error>() <= 128, "{}", size_of::<Error>());
    }
}
