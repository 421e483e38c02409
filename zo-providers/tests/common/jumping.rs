//! Time that moves on when nothing else can.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use zo_testkit::VirtualClock;
use zo_traits::{Clock, Cx, Timestamp, async_trait};

/// Lets every task run until all wait.
pub async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// A virtual clock that knows when the next sleeper is due, and what is under way.
#[derive(Debug, Clone)]
pub struct Jumping {
    pub clock: VirtualClock,
    due: Arc<Mutex<BTreeMap<Duration, usize>>>,
    pub busy: Arc<AtomicUsize>,
    pub idle: Arc<Notify>,
}

impl Jumping {
    pub fn new() -> Self {
        Self { clock: VirtualClock::at(0), due: Arc::default(), busy: Arc::default(), idle: Arc::default() }
    }

    pub fn cx(&self) -> Cx {
        Cx::new("chaos").with_clock(Arc::new(self.clone()))
    }

    /// To when the next sleeper is due.
    fn move_on(&self) {
        let next = self.due.lock().unwrap().first_key_value().map(|(at, _)| *at);
        if let Some(next) = next {
            self.clock.advance(next.saturating_sub(self.clock.monotonic()));
        }
    }

    /// Lets every task run until all wait, and moves on to when the next is due.
    pub async fn jump(&self) {
        settle().await;
        self.move_on();
    }

    /// Drives `work` to its end, moving on to the next sleeper whenever no request is under way.
    pub async fn drive<T>(&self, work: impl Future<Output = T>) -> T {
        let jumps = async {
            loop {
                settle().await;
                if self.busy.load(Ordering::SeqCst) > 0 {
                    self.idle.notified().await;
                    continue;
                }
                self.move_on();
            }
        };
        tokio::select! {
            done = work => done,
            () = jumps => unreachable!(),
        }
    }
}

struct Due<'a>(&'a Jumping, Duration);

impl Drop for Due<'_> {
    fn drop(&mut self) {
        let mut due = self.0.due.lock().unwrap();
        let n = due.get_mut(&self.1).unwrap();
        *n -= 1;
        if *n == 0 {
            due.remove(&self.1);
        }
    }
}

#[async_trait]
impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    async fn sleep(&self, d: Duration) {
        let at = self.monotonic() + d;
        *self.due.lock().unwrap().entry(at).or_default() += 1;
        let _due = Due(self, at);
        self.clock.sleep(d).await;
    }
}
