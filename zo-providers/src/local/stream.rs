//! The events of an answer as a stream that ends with its context.

use super::OP;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;
use zo_traits::{Cx, Error, ErrorKind, Result, Stream, StreamEvent};

type Over = Pin<Box<dyn Future<Output = Error> + Send>>;

/// What the worker says, until it is done or the context is over. Dropping it makes the worker stop.
pub(super) struct Events {
    cx: Cx,
    /// None once the last item was given.
    events: Option<mpsc::UnboundedReceiver<Result<StreamEvent>>>,
    over: Over,
}

impl Events {
    pub(super) fn new(cx: &Cx, events: mpsc::UnboundedReceiver<Result<StreamEvent>>) -> Self {
        let watched = cx.clone();
        let over = async move {
            match watched.race(OP, std::future::pending::<()>()).await {
                Err(e) => e,
                Ok(()) => Error::cancelled(OP),
            }
        };
        Self { cx: cx.clone(), events: Some(events), over: Box::pin(over) }
    }
}

impl Stream for Events {
    type Item = Result<StreamEvent>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(events) = &mut this.events else { return Poll::Ready(None) };
        let item = match this.cx.check(OP) {
            Err(e) => Err(e),
            Ok(()) => match (events.poll_recv(task), this.over.as_mut().poll(task)) {
                (Poll::Ready(Some(item)), _) => item,
                (_, Poll::Ready(e)) => Err(e),
                (Poll::Ready(None), _) => {
                    Err(Error::new(ErrorKind::Corrupt, OP, "the answer was cut before its end"))
                }
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
            },
        };
        if matches!(item, Err(_) | Ok(StreamEvent::Finish(_))) {
            this.events = None;
        }
        Poll::Ready(Some(item))
    }
}
