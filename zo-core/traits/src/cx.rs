//! The context of a call: cancellation, deadline, identity, budget and typed host values.

use crate::{Budget, Clock, Error, ErrorKind, Result, SystemClock};
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::sync::Notify;

/// What every call that may wait takes first.
///
/// * **Cancellation**: [`cancel`](Cx::cancel). A [`child`](Cx::child) is cancelled with its parent, never the other way.
/// * **Deadline**: absolute, on the [`Clock`]'s monotonic scale; a child can only shorten it.
/// * **Identity**: the [run id](Cx::run) for logs, and inside a tool call its [idempotency key](Cx::idempotency_key).
/// * **Budget**: the allowance that the call spends from.
/// * **Host values**: anything typed that the host wants its skills to see ([`with`](Cx::with), [`get`](Cx::get)).
///   Models never see them.
///
/// Cheap to clone. Clones share the cancellation; take a [`child`](Cx::child) to cancel less.
///
/// ```
/// use zo_traits::{Cx, ErrorKind};
/// struct Tenant(&'static str);
/// let cx = Cx::new("run-1").with(Tenant("acme"));
/// assert_eq!(cx.get::<Tenant>().map(|t| t.0), Some("acme"));
/// let child = cx.child();
/// cx.cancel().cancel();
/// assert_eq!(child.check("demo").unwrap_err().kind(), ErrorKind::Cancelled);
/// ```
#[derive(Clone)]
pub struct Cx {
    cancel: Cancel,
    deadline: Option<Duration>,
    run: Arc<str>,
    key: Option<Arc<str>>,
    budget: Option<Budget>,
    clock: Arc<dyn Clock>,
    host: Arc<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx")
            .field("run", &self.run)
            .field("deadline", &self.deadline)
            .field("cancelled", &self.cancel.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl Default for Cx {
    fn default() -> Self {
        Self::new("")
    }
}

fn system_clock() -> Arc<dyn Clock> {
    // One origin for the process, so that deadlines of contexts made apart can be compared. It is a constant, not state.
    static CLOCK: OnceLock<Arc<SystemClock>> = OnceLock::new();
    CLOCK.get_or_init(|| Arc::new(SystemClock::new())).clone()
}

impl Cx {
    /// A context for run `run`: not cancelled, no deadline, no budget, the system clock.
    pub fn new(run: impl Into<Arc<str>>) -> Self {
        Self {
            cancel: Cancel::new(),
            deadline: None,
            run: run.into(),
            key: None,
            budget: None,
            clock: system_clock(),
            host: Arc::default(),
        }
    }

    /// A context that is cancelled with this one but whose own cancellation stays its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { cancel: self.cancel.child(), ..self.clone() }
    }

    /// The same context under another run id.
    #[must_use]
    pub fn with_run(mut self, run: impl Into<Arc<str>>) -> Self {
        self.run = run.into();
        self
    }

    /// Run id, for logs and spans.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The same context inside the effect named `key`.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Names the effect that is being carried out: the same when the effect is tried again, different for every other.
    /// A skill passes it on to whatever can de-duplicate (a payment API, a job's unique key).
    pub fn idempotency_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Handle that cancels this context and every clone and child of it.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Has it been cancelled?
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// The clock that every wait of this call goes by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The same context on another clock. The time left until the deadline stays what it is.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        let left = self.remaining();
        self.deadline = left.map(|left| clock.monotonic().saturating_add(left));
        self.clock = clock;
        self
    }

    /// The same context with at most `d` from now on; an earlier deadline stays.
    #[must_use]
    pub fn with_timeout(mut self, d: Duration) -> Self {
        let at = self.clock.monotonic().saturating_add(d);
        self.deadline = Some(self.deadline.map_or(at, |old| old.min(at)));
        self
    }

    /// Absolute deadline on the clock's [monotonic](Clock::monotonic) scale.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Time left until the deadline; zero when it has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|at| at.saturating_sub(self.clock.monotonic()))
    }

    /// The allowance that this call spends from.
    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    /// The same context spending from `budget`.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The same context with one more typed host value (auth, session, tenant); it replaces one of the same type.
    #[must_use]
    pub fn with<T: Any + Send + Sync>(mut self, value: T) -> Self {
        Arc::make_mut(&mut self.host).insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// The typed host value, if one was set.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.host.get(&TypeId::of::<T>()).and_then(|v| v.downcast_ref())
    }

    /// Fails fast when cancelled or late.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] or [`ErrorKind::Timeout`].
    pub fn check(&self, op: &'static str) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::cancelled(op));
        }
        match self.remaining() {
            Some(left) if left.is_zero() => Err(late(op)),
            _ => Ok(()),
        }
    }

    /// Runs `work` until it is done, the context is cancelled or its deadline passes, whichever is first.
    ///
    /// Cancellation is looked at before `work` is polled, so a cancelled context starts nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] or [`ErrorKind::Timeout`]; `work` is then dropped.
    pub async fn race<F: Future>(&self, op: &'static str, work: F) -> Result<F::Output> {
        self.check(op)?;
        let mut work = pin!(work);
        let mut cancelled = pin!(self.cancel.cancelled());
        let mut sleep = self.remaining().map(|left| self.clock.sleep(left));
        poll_fn(|task| {
            if cancelled.as_mut().poll(task).is_ready() {
                return Poll::Ready(Err(Error::cancelled(op)));
            }
            if let Poll::Ready(out) = work.as_mut().poll(task) {
                return Poll::Ready(Ok(out));
            }
            match sleep.as_mut().map(|s| s.as_mut().poll(task)) {
                Some(Poll::Ready(())) => Poll::Ready(Err(late(op))),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

fn late(op: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, op, "deadline passed").with_model_text("timed out")
}

/// Cloneable cancellation handle. Clones are one handle; a child follows its parent.
#[derive(Clone, Default)]
pub struct Cancel(Arc<CancelNode>);

#[derive(Default)]
struct CancelNode {
    flag: AtomicBool,
    waiters: Notify,
    children: Mutex<Vec<Weak<CancelNode>>>,
}

impl CancelNode {
    fn set(&self) {
        self.flag.store(true, Ordering::Release);
        self.waiters.notify_waiters();
    }
}

impl Cancel {
    /// A fresh handle.
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle that is cancelled with this one; cancelling it leaves this one alone.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Self::new();
        let mut children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        if children.len() == children.capacity() {
            children.retain(|c| c.strong_count() > 0);
        }
        children.push(Arc::downgrade(&child.0));
        // Under the same lock as `cancel` walks the children: either it sees this child or the child sees it.
        if self.is_cancelled() {
            child.0.set();
        }
        drop(children);
        child
    }

    /// Cancels now. Doing it again changes nothing.
    pub fn cancel(&self) {
        let mut todo = vec![self.0.clone()];
        while let Some(node) = todo.pop() {
            let children = {
                let mut children = node.children.lock().unwrap_or_else(PoisonError::into_inner);
                node.set();
                std::mem::take(&mut *children)
            };
            todo.extend(children.iter().filter_map(Weak::upgrade));
        }
    }

    /// Already cancelled?
    pub fn is_cancelled(&self) -> bool {
        self.0.flag.load(Ordering::Acquire)
    }

    /// Resolves once cancelled. Cancel safe.
    pub async fn cancelled(&self) {
        let mut waiting = pin!(self.0.waiters.notified());
        // Counted among the waiters before the flag is read: whoever sets it in between wakes this one.
        waiting.as_mut().enable();
        if !self.is_cancelled() {
            waiting.await;
        }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_follow_parents_only() {
        let root = Cancel::new();
        let (a, b) = (root.child(), root.child());
        let deep = a.child();
        a.cancel();
        assert!(deep.is_cancelled() && !root.is_cancelled() && !b.is_cancelled());
        root.cancel();
        assert!(b.is_cancelled());
        assert!(root.child().is_cancelled(), "a child of a cancelled parent is born cancelled");
    }

    #[test]
    fn no_waiter_misses_a_cancellation() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..500 {
            let (cancel, barrier) = (Cancel::new(), Arc::new(std::sync::Barrier::new(2)));
            let (theirs, other) = (cancel.clone(), barrier.clone());
            let setter = std::thread::spawn(move || {
                other.wait();
                theirs.cancel();
            });
            barrier.wait();
            let wait = tokio::time::Duration::from_secs(10);
            runtime.block_on(async { tokio::time::timeout(wait, cancel.cancelled()).await }).expect("woken");
            setter.join().unwrap();
        }
    }

    #[test]
    fn dropped_children_do_not_pile_up() {
        let root = Cancel::new();
        for _ in 0..100_000 {
            let _ = root.child();
        }
        assert!(root.0.children.lock().unwrap().capacity() < 64);
    }

    #[tokio::test]
    async fn race_ends_with_the_first_of_three() {
        let cx = Cx::new("r");
        assert_eq!(cx.race("t", async { 7 }).await.unwrap(), 7);
        let slow = cx.clone().with_timeout(Duration::from_millis(5));
        let e = slow.race("t", std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Timeout);
        let (child, cancel) = (cx.child(), cx.cancel().clone());
        let waiting = tokio::spawn(async move { child.race("t", std::future::pending::<()>()).await });
        tokio::task::yield_now().await;
        cancel.cancel();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        let mut ran = false;
        assert!(cx.race("t", async { ran = true }).await.is_err());
        assert!(!ran, "a cancelled context starts nothing");
    }

    #[test]
    fn a_deadline_only_shrinks() {
        let cx = Cx::new("r").with_timeout(Duration::from_secs(1)).with_timeout(Duration::from_secs(60));
        assert!(cx.remaining().unwrap() <= Duration::from_secs(1));
    }

    #[test]
    fn a_deadline_survives_a_change_of_clock() {
        #[derive(Debug)]
        struct Old;
        #[crate::async_trait]
        impl Clock for Old {
            fn now(&self) -> crate::Timestamp {
                crate::Timestamp(0)
            }
            fn monotonic(&self) -> Duration {
                Duration::from_secs(1_000_000)
            }
            async fn sleep(&self, _: Duration) {}
        }
        let cx = Cx::new("r").with_timeout(Duration::from_secs(5)).with_clock(Arc::new(Old));
        let left = cx.remaining().unwrap();
        assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4), "{left:?}");
    }

    #[test]
    fn debug_shows_no_host_value() {
        #[derive(Debug)]
        struct Token(#[allow(dead_code)] &'static str);
        assert!(!format!("{:?}", Cx::new("r").with(Token("sk-secret"))).contains("sk-secret"));
    }
}
