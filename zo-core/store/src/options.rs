//! How a store is opened.

use std::time::Duration;

/// How a [`Store`](crate::Store) is opened. The defaults suit a program that keeps an agent.
///
/// ```
/// let options = zo_store::Options::default().cache_bytes(16 << 20);
/// assert_eq!(options.max_batch, 1024);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Most bytes of pages that are kept in RAM. Default 4 MiB; the operating system caches the file besides.
    pub cache_bytes: usize,
    /// Most writes in one commit. Default 1024.
    pub max_batch: usize,
    /// Most time that a commit waits for company. Default 250 µs. It waits only when urgent writes shared the commit before
    /// it, and only until as many are there again, so a lone writer never waits.
    pub linger: Duration,
    /// Most time that a write which is not urgent ([`Urgency::Soon`](crate::Urgency::Soon)) waits before its commit
    /// begins, unless an earlier commit is still under way. Default 5 ms.
    pub idle_linger: Duration,
    /// Most writes that wait in the queue; further ones wait for room. Default 16,384.
    pub max_queue: usize,
    /// A file of at most this many bytes is verified, page by page, when it is opened. Default 32 MiB; `u64::MAX` for
    /// always, 0 for only after a crash, when it has to be. It costs about as long as reading the file three times.
    pub verify_limit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 4 << 20,
            max_batch: 1024,
            linger: Duration::from_micros(250),
            idle_linger: Duration::from_millis(5),
            max_queue: 16_384,
            verify_limit: 32 << 20,
        }
    }
}

impl Options {
    /// Sets [`cache_bytes`](Options::cache_bytes).
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets [`max_batch`](Options::max_batch); 0 counts as 1.
    #[must_use]
    pub fn max_batch(mut self, writes: usize) -> Self {
        self.max_batch = writes;
        self
    }

    /// Sets [`linger`](Options::linger).
    #[must_use]
    pub fn linger(mut self, most: Duration) -> Self {
        self.linger = most;
        self
    }

    /// Sets [`idle_linger`](Options::idle_linger).
    #[must_use]
    pub fn idle_linger(mut self, most: Duration) -> Self {
        self.idle_linger = most;
        self
    }

    /// Sets [`max_queue`](Options::max_queue); 0 counts as 1.
    #[must_use]
    pub fn max_queue(mut self, writes: usize) -> Self {
        self.max_queue = writes;
        self
    }

    /// Sets [`verify_limit`](Options::verify_limit).
    #[must_use]
    pub fn verify_limit(mut self, bytes: u64) -> Self {
        self.verify_limit = bytes;
        self
    }
}
