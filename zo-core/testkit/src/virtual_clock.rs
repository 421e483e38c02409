//! A clock that stands still until a test moves it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use zo_traits::{Clock, Timestamp, async_trait};

/// A clock that stands still until a test moves it. Clones are one clock.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use zo_testkit::VirtualClock;
/// use zo_traits::{Clock, Cx};
///
/// let clock = VirtualClock::at(1_000_000);
/// let cx = Cx::new("test").with_clock(Arc::new(clock.clone())).with_timeout(Duration::from_secs(5));
/// clock.advance(Duration::from_secs(6));
/// assert!(cx.check("late").is_err());
/// ```
#[derive(Debug, Clone)]
pub struct VirtualClock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Wall clock in milliseconds: apart from the monotonic one, since it may jump.
    wall: Mutex<i64>,
    monotonic: watch::Sender<Duration>,
}

impl VirtualClock {
    /// A clock whose wall shows `ms` milliseconds since the epoch.
    pub fn at(ms: i64) -> Self {
        Self(Arc::new(Inner { wall: Mutex::new(ms), monotonic: watch::Sender::new(Duration::ZERO) }))
    }

    /// Lets `d` pass on both clocks and wakes who was waiting for it.
    pub fn advance(&self, d: Duration) {
        *self.0.wall.lock().unwrap_or_else(PoisonError::into_inner) += i64::try_from(d.as_millis()).unwrap();
        self.0.monotonic.send_modify(|m| *m += d);
    }

    /// Moves the wall clock alone, forward or back, as NTP or a user does.
    pub fn jump(&self, ms: i64) {
        *self.0.wall.lock().unwrap_or_else(PoisonError::into_inner) += ms;
    }

    /// How many sleepers wait now.
    pub fn sleepers(&self) -> usize {
        self.0.monotonic.receiver_count()
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp(*self.0.wall.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn monotonic(&self) -> Duration {
        *self.0.monotonic.borrow()
    }

    async fn sleep(&self, d: Duration) {
        let until = self.monotonic() + d;
        let mut rx = self.0.monotonic.subscribe();
        let _ = rx.wait_for(|now| *now >= until).await;
    }
}
