//! Time, injected, so that tests own it.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fmt::Debug,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Milliseconds since the Unix epoch, UTC, leap seconds not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment plus `d`, saturating.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Two clocks in one: the wall clock, which may jump, and the monotonic clock, which may not.
///
/// Everything in zo that waits or measures asks a `Clock`; a test passes a virtual one (`zo_testkit::VirtualClock`) and
/// moves it by hand.
///
/// # Cancel safety
/// Dropping the future of [`sleep`](Clock::sleep) forgets the wait and nothing else.
#[async_trait]
pub trait Clock: Send + Sync + Debug + 'static {
    /// The wall clock. May jump either way (NTP, a user, a suspended laptop).
    fn now(&self) -> Timestamp;

    /// Time since some fixed origin of this clock. Never goes back.
    fn monotonic(&self) -> Duration;

    /// Resolves when [`monotonic`](Clock::monotonic) has advanced by `d`.
    async fn sleep(&self, d: Duration);
}

/// The machine's clock, on the timers of the Tokio runtime that polls it.
///
/// [`sleep`](Clock::sleep) must be polled inside a Tokio runtime with its time driver enabled, as
/// [`tokio::time::sleep`] must.
#[derive(Clone, Copy)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic origin is now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SystemClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemClock")
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(d) => i64::try_from(d.as_millis()).unwrap_or(i64::MAX),
            Err(e) => i64::try_from(e.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        };
        Timestamp(ms)
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    async fn sleep(&self, d: Duration) {
        tokio::time::sleep(d).await;
    }
}
