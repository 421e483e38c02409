//! Waits for the first content of an answer.
//!
//! Until then nothing can have been shown, so a failure is one of the call: it may be tried again or elsewhere. A provider may
//! well return `Ok` and fail as its first item, which is why the layers look into the stream.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};
use zo_traits::{BoxStream, Cx, Error, ErrorKind, Provider, Request, Result, Stream, StreamEvent};

/// So many events are held back at most; a provider that sends more without any content has shown enough.
const MOST: usize = 64;

/// An answer whose first content has come.
pub(super) struct Opened {
    /// What came so far, the first content included.
    pub(super) head: VecDeque<StreamEvent>,
    /// What is to come.
    pub(super) rest: BoxStream<Result<StreamEvent>>,
}

impl Opened {
    /// The answer, as the provider sent it.
    pub(super) fn into_stream(self) -> BoxStream<Result<StreamEvent>> {
        if self.head.is_empty() { self.rest } else { Box::pin(self) }
    }
}

/// Asks `provider` and waits until content flows. An answer that ends before that is [`ErrorKind::Corrupt`].
pub(super) async fn open(provider: &dyn Provider, cx: &Cx, request: &Request) -> Result<Opened> {
    const OP: &str = "provider.stream";
    let mut rest = provider.stream(cx, request).await?;
    let mut head = VecDeque::new();
    // What is there already is taken without setting any timer.
    let begun = cx.race(OP, async {
        while head.len() < MOST {
            let event = poll_fn(|task| rest.as_mut().poll_next(task)).await.unwrap_or_else(|| {
                Err(Error::new(ErrorKind::Corrupt, OP, "the answer ended before it began"))
            })?;
            let content = !matches!(event, StreamEvent::Start { .. } | StreamEvent::Usage(_));
            head.push_back(event);
            if content {
                break;
            }
        }
        Ok(())
    });
    begun.await??;
    Ok(Opened { head, rest })
}

impl Stream for Opened {
    type Item = Result<StreamEvent>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.head.pop_front() {
            Some(event) => Poll::Ready(Some(Ok(event))),
            None => self.rest.as_mut().poll_next(task),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.rest.size_hint();
        let head = self.head.len();
        (least.saturating_add(head), most.and_then(|most| most.checked_add(head)))
    }
}
