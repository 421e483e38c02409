//! A stream whose events are seen on their way, and whose end is told once.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use zo_traits::{BoxStream, Error, Result, Stream, StreamEvent};

/// Looks at an answer on its way to the caller.
pub(super) trait Watcher: Send + Unpin + 'static {
    /// The next event.
    fn event(&mut self, event: &StreamEvent);

    /// The answer is over. Told once, also when the caller drops the stream.
    fn end(self, how: End<'_>);
}

/// How an answer ended.
pub(super) enum End<'e> {
    /// With [`StreamEvent::Finish`].
    Finished,
    /// With an error.
    Failed(&'e Error),
    /// Nobody waited for its end, or the provider left it without one.
    Dropped,
}

/// `inner` as `watcher` sees it.
pub(super) fn watch(
    inner: BoxStream<Result<StreamEvent>>,
    watcher: impl Watcher,
) -> BoxStream<Result<StreamEvent>> {
    Box::pin(Watched { inner, watcher: Some(watcher) })
}

struct Watched<W: Watcher> {
    inner: BoxStream<Result<StreamEvent>>,
    watcher: Option<W>,
}

impl<W: Watcher> Watched<W> {
    fn end(&mut self, how: End<'_>) {
        if let Some(watcher) = self.watcher.take() {
            watcher.end(how);
        }
    }
}

impl<W: Watcher> Stream for Watched<W> {
    type Item = Result<StreamEvent>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.inner.as_mut().poll_next(task));
        match &item {
            Some(Ok(event)) => {
                if let Some(watcher) = &mut self.watcher {
                    watcher.event(event);
                }
                if matches!(event, StreamEvent::Finish(_)) {
                    self.end(End::Finished);
                }
            }
            Some(Err(e)) => self.end(End::Failed(e)),
            None => self.end(End::Dropped),
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.size_hint()
    }
}

impl<W: Watcher> Drop for Watched<W> {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}
