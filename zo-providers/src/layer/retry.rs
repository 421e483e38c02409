//! Tries again what may succeed later.
//!
//! Promises:
//! * **Nothing is emitted twice.** A request is sent again only while no content of its answer has come; from then on the
//!   answer is handed on untouched, and what fails in it is the caller's to see.
//! * **What is permanent is not repeated**: a wrong request, a wrong key, a spent quota, a prompt that is too long.
//! * **Nobody waits in vain.** A wait that would go past the deadline of the [`Cx`], or is longer than the host wants to wait,
//!   fails at once, with [`Error::retry_after`] saying how long it would have been.

use super::{Layer, peek};
use std::{
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use zo_traits::{
    BoxStream, Cx, Error, ErrorKind, ModelInfo, Provider, Request, Result, StreamEvent, async_trait,
};

const OP: &str = "layer.retry";

/// Tries again what [`Error::is_retryable`], and an answer that broke off before its first content.
///
/// The wait is what the provider asked for ([`Error::retry_after`], where it is not zero), to the millisecond. Where it asked
/// for none, it is a random part of 0.5 s, doubled with each attempt up to 8 s ("full jitter"), so that clients that failed
/// together do not come back together.
///
/// ```
/// use std::time::Duration;
/// use zo_providers::{Offline, layer::{LayerExt, Retry}};
/// let provider = Offline::new().layer(
///     Retry::default()
///         .attempts(2)
///         .max_wait(Duration::from_secs(30))
///         .on_retry(|r| eprintln!("attempt {} failed ({}), the next in {:?}", r.attempt, r.error, r.wait)),
/// );
/// ```
#[derive(Clone)]
pub struct Retry {
    attempts: u32,
    base: Duration,
    cap: Duration,
    max_wait: Duration,
    chance: Arc<Chance>,
    hook: Option<Hook>,
}

type Hook = Arc<dyn Fn(&Retrying<'_>) + Send + Sync>;

/// One failure that is about to be tried again.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Retrying<'a> {
    /// How many attempts have failed so far: 1 or more.
    pub attempt: u32,
    /// How long it waits before the next.
    pub wait: Duration,
    /// What the last one failed with.
    pub error: &'a Error,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 4,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(8),
            max_wait: Duration::from_secs(600),
            // Seeded by the operating system: the one source of chance in the standard library.
            chance: Arc::new(Chance(AtomicU64::new(RandomState::new().hash_one(OP)))),
            hook: None,
        }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("attempts", &self.attempts)
            .field("base", &self.base)
            .field("cap", &self.cap)
            .field("max_wait", &self.max_wait)
            .finish_non_exhaustive()
    }
}

impl Retry {
    /// Four attempts more, 0.5 s doubled up to 8 s, never more than ten minutes at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// At most `n` attempts more after the first. 4.
    #[must_use]
    pub fn attempts(mut self, n: u32) -> Self {
        self.attempts = n;
        self
    }

    /// The longest wait before the second attempt, where the provider asked for none. 0.5 s.
    #[must_use]
    pub fn base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// Where doubling ends. 8 s.
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// The longest wait that is sat out when a provider asks for it; a longer one is an error. Ten minutes.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Makes the random waits the same each time.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.chance = Arc::new(Chance(AtomicU64::new(seed)));
        self
    }

    /// Called before each wait.
    #[must_use]
    pub fn on_retry(mut self, hook: impl Fn(&Retrying<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    async fn again<T, F>(&self, cx: &Cx, mut call: impl FnMut() -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut failed = 0;
        loop {
            let error = match call().await {
                Ok(done) => return Ok(done),
                Err(e) => e,
            };
            let wait = self.wait(cx, failed, error)?;
            failed += 1;
            if let Some(hook) = &self.hook {
                hook(&Retrying { attempt: failed, wait: wait.0, error: &wait.1 });
            }
            cx.race(OP, cx.clock().sleep(wait.0)).await?;
        }
    }

    /// How long to wait after the failure number `failed`, counted from 0; the error, where that makes no sense.
    fn wait(&self, cx: &Cx, failed: u32, error: Error) -> Result<(Duration, Error)> {
        let transient = error.is_retryable() || error.kind() == ErrorKind::Corrupt;
        // A timeout may be that of the caller, who waits no more.
        if !transient || failed >= self.attempts || cx.check(OP).is_err() {
            return Err(error);
        }
        // A provider that asks for no time at all would be asked again in the same instant, and so on.
        let asked = error.retry_after().filter(|wait| !wait.is_zero());
        let wait = asked.unwrap_or_else(|| {
            let most = self.base.saturating_mul(1 << failed.min(20)).min(self.cap);
            most.mul_f64(self.chance.next())
        });
        let why = match cx.remaining() {
            Some(left) if left <= wait => format!("the deadline is in {left:?}"),
            _ if asked.is_some() && wait > self.max_wait => format!("{:?} is the most", self.max_wait),
            _ => return Ok((wait, error)),
        };
        let told = format_args!("{} (not tried again: the wait is {wait:?}, but {why})", error.message());
        Err(Error::new(error.kind(), error.op(), told)
            .with_retry_after(wait)
            .with_model_text(error.model_text())
            .with_source(error))
    }
}

#[async_trait]
impl Layer for Retry {
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        let opened = self.again(cx, || peek::open(next, cx, request)).await?;
        Ok(opened.into_stream())
    }

    async fn models(&self, next: &dyn Provider, cx: &Cx) -> Result<Vec<ModelInfo>> {
        self.again(cx, || next.models(cx)).await
    }

    async fn count_tokens(&self, next: &dyn Provider, cx: &Cx, request: &Request) -> Result<u64> {
        self.again(cx, || next.count_tokens(cx, request)).await
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): enough to spread waits, and to repeat them in a test.
struct Chance(AtomicU64);

impl Chance {
    /// From 0 up to, but not including, 1.
    fn next(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        #[allow(clippy::cast_precision_loss)] // 53 bits fit a double.
        let unit = (z >> 11) as f64 / (1u64 << 53) as f64;
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zo_testkit::VirtualClock;

    fn cx() -> Cx {
        Cx::new("t").with_clock(Arc::new(VirtualClock::at(0)))
    }

    fn busy() -> Error {
        Error::new(ErrorKind::Unavailable, "p", "busy")
    }

    #[test]
    fn waits_are_a_random_part_of_a_doubled_time() {
        let retry = Retry::default().attempts(100).seed(7);
        for failed in 0..40 {
            let most = Duration::from_millis(500 << failed.min(4)).min(Duration::from_secs(8));
            let waits: Vec<_> = (0..200).map(|_| retry.wait(&cx(), failed, busy()).unwrap().0).collect();
            assert!(waits.iter().all(|w| *w <= most), "{failed}");
            let mean = waits.iter().sum::<Duration>() / 200;
            assert!(mean > most * 2 / 5 && mean < most * 3 / 5, "{failed}: {mean:?} of {most:?}");
        }
        let again = Retry::default().seed(7);
        let other = Retry::default().seed(7);
        assert_eq!(again.wait(&cx(), 3, busy()).unwrap().0, other.wait(&cx(), 3, busy()).unwrap().0);
    }

    #[test]
    fn what_a_provider_asks_for_is_what_it_gets() {
        let asked = |d| busy().with_retry_after(d);
        let retry = Retry::default();
        let second = Duration::from_secs(1);
        assert_eq!(
            retry.wait(&cx(), 0, asked(second * 90)).unwrap().0,
            second * 90,
            "the cap is for our own waits"
        );
        let e = retry.wait(&cx(), 0, asked(second * 601)).unwrap_err();
        assert_eq!((e.kind(), e.retry_after()), (ErrorKind::Unavailable, Some(second * 601)));
        let e = retry.wait(&cx().with_timeout(second * 5), 0, asked(second * 5)).unwrap_err();
        assert_eq!(e.retry_after(), Some(second * 5));
        assert!(e.message().contains("deadline"), "{e}");
        assert!(retry.wait(&cx().with_timeout(second * 6), 0, asked(second * 5)).is_ok());
        assert!(retry.wait(&cx(), 0, asked(Duration::ZERO)).unwrap().0 > Duration::ZERO);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        use ErrorKind as K;
        for kind in [
            K::Invalid,
            K::NotFound,
            K::Unauthorized,
            K::Denied,
            K::Exhausted,
            K::ContextOverflow,
            K::Cancelled,
            K::Unsupported,
            K::Conflict,
            K::Other("x".into()),
        ] {
            let e = Error::new(kind.clone(), "p", "no").with_retry_after(Duration::from_secs(1));
            assert_eq!(Retry::default().wait(&cx(), 0, e).unwrap_err().message(), "no", "{kind}");
        }
        for kind in [K::RateLimited, K::Unavailable, K::Timeout, K::Corrupt] {
            assert!(Retry::default().wait(&cx(), 3, Error::new(kind.clone(), "p", "x")).is_ok(), "{kind}");
            assert!(Retry::default().wait(&cx(), 4, Error::new(kind, "p", "x")).is_err(), "five in all");
        }
    }
}
