//! A future that is dropped after a number of polls: what a timeout, a disconnect or a `select!` does to it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Polls `work` up to `n` times and drops it; what it came to, if it got there.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(zo_testkit::polled(async { 7 }, 1).await, Some(7));
/// assert_eq!(zo_testkit::polled(std::future::pending::<()>(), 1).await, None);
/// # });
/// ```
pub async fn polled<F: Future>(work: F, n: u32) -> Option<F::Output> {
    let (mut work, mut left) = (pin!(work), n);
    poll_fn(move |task| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match work.as_mut().poll(task) {
            Poll::Ready(out) => Poll::Ready(Some(out)),
            // Nothing wakes a task that is about to be dropped.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
