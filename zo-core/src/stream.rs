//! A run as a stream of events.

use crate::{Reply, RunEvent};
use futures_util::StreamExt;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zo_traits::{Error, ErrorKind, Result, Stream};

type Driver = Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

/// What happens in a run, as it happens. The last item is [`RunEvent::Done`] or an error.
///
/// The run lives in this value: it goes on while the stream is polled and stops when it is dropped. With a file, a
/// stopped run can be [resumed](crate::Zo::resume).
pub struct RunStream {
    driver: Option<Driver>,
    events: UnboundedReceiver<RunEvent>,
    last: Option<Result<Reply>>,
}

impl fmt::Debug for RunStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunStream").field("running", &self.driver.is_some()).finish_non_exhaustive()
    }
}

impl RunStream {
    pub(crate) fn new<F, Fut>(start: F) -> Self
    where
        F: FnOnce(UnboundedSender<RunEvent>) -> Fut,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        let (to, events) = unbounded_channel();
        Self { driver: Some(Box::pin(start(to))), events, last: None }
    }

    /// The next event; `None` after the last.
    ///
    /// # Cancel safety
    /// Dropping this future loses nothing; call again.
    pub async fn next(&mut self) -> Option<Result<RunEvent>> {
        StreamExt::next(self).await
    }

    /// Lets the run go on to its end and gives the reply.
    ///
    /// # Errors
    /// Those of the run.
    pub async fn reply(mut self) -> Result<Reply> {
        while let Some(event) = self.next().await {
            if let RunEvent::Done(reply) = event? {
                return Ok(reply);
            }
        }
        Err(Error::new(ErrorKind::Conflict, "run.reply", "the run's end was already taken from this stream"))
    }
}

impl Stream for RunStream {
    type Item = Result<RunEvent>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            // What the driver has told so far comes before its end.
            if let Ok(event) = self.events.try_recv() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(driver) = &mut self.driver else {
                return Poll::Ready(self.last.take().map(|end| end.map(RunEvent::Done)));
            };
            match driver.as_mut().poll(task) {
                Poll::Ready(end) => {
                    self.driver = None;
                    self.last = Some(end);
                }
                Poll::Pending if self.events.is_empty() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}
