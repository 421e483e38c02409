//! A bound on how many answers are under way at once.

use super::Layer;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zo_traits::{
    BoxStream, Cx, Error, ErrorKind, Provider, Request, Result, Stream, StreamEvent, async_trait,
};

const OP: &str = "layer.concurrency";

/// At most so many answers under way at once: a call counts from its start until its stream has ended or is dropped. Others
/// wait, first come, first served; who is cancelled, late or dropped gives up the place and loses nobody else's. Lists of
/// models and token counts are not counted.
///
/// Clones share the count: put one around each of several providers to bound all of them together.
#[derive(Debug, Clone)]
pub struct Concurrency(Arc<Semaphore>);

impl Concurrency {
    /// At most `n` at once, and at least one.
    pub fn new(n: usize) -> Self {
        Self(Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// How many more could start now.
    pub fn available(&self) -> usize {
        self.0.available_permits()
    }
}

#[async_trait]
impl Layer for Concurrency {
    async fn stream(
        &self,
        next: &dyn Provider,
        cx: &Cx,
        request: &Request,
    ) -> Result<BoxStream<Result<StreamEvent>>> {
        let permit = cx
            .race(OP, self.0.clone().acquire_owned())
            .await?
            .map_err(|_| Error::new(ErrorKind::Unavailable, OP, "closed"))?;
        let inner = next.stream(cx, request).await?;
        Ok(Box::pin(Held { inner: Some(inner), permit: Some(permit) }))
    }
}

/// A stream with its permit.
struct Held {
    inner: Option<BoxStream<Result<StreamEvent>>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Stream for Held {
    type Item = Result<StreamEvent>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let item = std::task::ready!(inner.as_mut().poll_next(task));
        match &item {
            None | Some(Err(_)) => {
                // The connection first, so that the next one finds it closed or free.
                self.inner = None;
                self.permit = None;
            }
            // Whoever has the end of an answer may keep the stream without looking at it again.
            Some(Ok(StreamEvent::Finish(_))) => self.permit = None,
            Some(Ok(_)) => {}
        }
        Poll::Ready(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.as_ref().map_or((0, Some(0)), |inner| inner.size_hint())
    }
}
