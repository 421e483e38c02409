//! A run as a stream of events.

use crate::{
    Cursor, Reply, RunEvent, RunId,
    inner::Inner,
    journal::{BACKLOG, Listener, Log, Next},
    replay::Told,
};
use futures_util::StreamExt;
use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};
use zo_traits::{Error, ErrorKind, Result, Stream};

type Catching = Pin<Box<dyn Future<Output = Result<(Told, u32)>> + Send>>;
type Driver = Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

/// What happens in a run, as it happens. The last item is [`RunEvent::Done`] or an error.
///
/// From [`Zo::stream`](crate::Zo::stream) and [`Zo::resume`](crate::Zo::resume) the run lives in this value: it goes on while the
/// stream is polled and stops when it is dropped. With a file, a stopped run can be resumed. From
/// [`Zo::attach`](crate::Zo::attach) the stream only looks on.
pub struct RunStream {
    driver: Option<Driver>,
    listener: Arc<Listener>,
    /// The log of the run, once there is one.
    log: Arc<OnceLock<Arc<Log>>>,
    /// What the journal has to tell before what is live.
    past: VecDeque<(u32, Result<RunEvent>)>,
    follow: Option<(Arc<Inner>, RunId)>,
    cursor: Cursor,
    /// What is live and lies before this entry was told from the journal.
    live_from: u32,
    /// Bytes of the entry at the cursor that come again and were seen.
    skip_text: u64,
    skip_reasoning: u64,
    catching: Option<Catching>,
    last: Option<Result<Reply>>,
    over: bool,
}

impl fmt::Debug for RunStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunStream").field("running", &self.driver.is_some()).finish_non_exhaustive()
    }
}

impl RunStream {
    /// A run that lives in its stream.
    pub(crate) fn new<F, Fut>(start: F) -> Self
    where
        F: FnOnce(Arc<Listener>, Arc<OnceLock<Arc<Log>>>) -> Fut,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        // Whoever drives the run cannot fall behind it.
        let listener = Listener::new(usize::MAX);
        let log = Arc::new(OnceLock::new());
        let driver: Driver = Box::pin(start(listener.clone(), log.clone()));
        Self { driver: Some(driver), log, ..Self::looking_on(listener) }
    }

    fn looking_on(listener: Arc<Listener>) -> Self {
        Self {
            driver: None,
            listener,
            log: Arc::default(),
            past: VecDeque::new(),
            follow: None,
            cursor: Cursor::start(),
            live_from: 0,
            skip_text: 0,
            skip_reasoning: 0,
            catching: None,
            last: None,
            over: false,
        }
    }

    /// Looks on at a run from `cursor` on.
    pub(crate) fn attach(inner: &Arc<Inner>, run: &RunId, cursor: Cursor) -> Self {
        let mut stream = Self::looking_on(Listener::new(BACKLOG));
        stream.follow = Some((inner.clone(), run.clone()));
        stream.cursor = cursor;
        stream.catch_up();
        stream
    }

    /// Reads what the journal has to tell since the cursor, and listens to what follows.
    fn catch_up(&mut self) {
        let Some((inner, run)) = self.follow.clone() else { return };
        let listener = Listener::new(BACKLOG);
        let live = inner.journal.log_of(&run);
        // First listen, then read: what comes in between is there twice, and told once.
        if let Some(log) = &live {
            log.listen(&listener);
        } else {
            listener.close();
        }
        (self.skip_text, self.skip_reasoning) = (self.cursor.text, self.cursor.reasoning);
        self.listener = listener;
        self.log = Arc::default();
        if let Some(log) = &live {
            let _ = self.log.set(log.clone());
        }
        let from = self.cursor.entry;
        self.catching = Some(Box::pin(async move {
            if let Some(log) = &live {
                log.settled().await?;
            }
            crate::replay::events(&inner, &run, from, live.is_some())
        }));
    }

    /// How far this stream has come: where another one can go on.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The run, once it is known: from the start on for one that was attached to or resumed.
    pub fn run(&self) -> Option<&RunId> {
        self.log.get().map(|log| &log.run).or(self.follow.as_ref().map(|(_, run)| run))
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

    /// Takes note of where an event belongs; what was seen before is dropped or cut.
    fn pass(&mut self, entry: u32, event: Result<RunEvent>) -> Option<Result<RunEvent>> {
        if entry > self.cursor.entry {
            self.cursor = Cursor { entry, text: 0, reasoning: 0 };
            (self.skip_text, self.skip_reasoning) = (0, 0);
        }
        let fresh = |skip: &mut u64, seen: &mut u64, text: String| {
            let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(text.len());
            *skip -= skipped as u64;
            let rest = text.get(skipped..).filter(|t| !t.is_empty())?.to_owned();
            *seen += rest.len() as u64;
            Some(rest)
        };
        match event {
            Ok(RunEvent::Text(text)) => {
                fresh(&mut self.skip_text, &mut self.cursor.text, text).map(|t| Ok(RunEvent::Text(t)))
            }
            Ok(RunEvent::Reasoning(text)) => {
                fresh(&mut self.skip_reasoning, &mut self.cursor.reasoning, text)
                    .map(|t| Ok(RunEvent::Reasoning(t)))
            }
            other => {
                if matches!(other, Ok(RunEvent::ToolFinished { .. })) {
                    // It is all that its entry has to tell.
                    self.cursor =
                        self.cursor.max(Cursor { entry: entry.saturating_add(1), text: 0, reasoning: 0 });
                }
                Some(other)
            }
        }
    }

    /// What is there to tell now.
    fn poll_told(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<RunEvent>>> {
        loop {
            if let Some(catching) = &mut self.catching {
                match catching.as_mut().poll(task) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok((events, next))) => {
                        self.past = events.into();
                        self.live_from = next;
                    }
                    Poll::Ready(Err(e)) => {
                        self.catching = None;
                        self.over = true;
                        return Poll::Ready(Some(Err(e)));
                    }
                }
                self.catching = None;
            }
            if let Some((entry, event)) = self.past.pop_front() {
                match self.pass(entry, event) {
                    Some(event) => return Poll::Ready(Some(event)),
                    None => continue,
                }
            }
            match self.listener.poll(self.log.get().map(AsRef::as_ref), task) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Next::Closed) => return Poll::Ready(None),
                Poll::Ready(Next::Missed) => {
                    self.catch_up();
                    return Poll::Ready(Some(Ok(RunEvent::Gap)));
                }
                Poll::Ready(Next::Event(entry, event)) => {
                    let last = matches!(*event, Ok(RunEvent::Done(_)) | Err(_));
                    if entry < self.live_from && !last {
                        continue;
                    }
                    match self.pass(entry, *event) {
                        Some(event) => return Poll::Ready(Some(event)),
                        None => continue,
                    }
                }
            }
        }
    }
}

impl Stream for RunStream {
    type Item = Result<RunEvent>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            // What the driver has told so far comes before its end.
            let told = self.poll_told(task);
            if self.driver.is_none() && self.last.is_none() {
                // Looking on.
                return match told {
                    Poll::Ready(event) => {
                        self.over |= !matches!(&event, Some(Ok(e)) if !matches!(e, RunEvent::Done(_)));
                        Poll::Ready(event)
                    }
                    Poll::Pending => Poll::Pending,
                };
            }
            if let Poll::Ready(Some(event)) = told {
                return Poll::Ready(Some(event));
            }
            let Some(driver) = &mut self.driver else {
                // All is told, or what is left can never be vouched for.
                self.over = true;
                return Poll::Ready(self.last.take().map(|end| end.map(RunEvent::Done)));
            };
            match driver.as_mut().poll(task) {
                Poll::Ready(end) => {
                    self.driver = None;
                    self.last = Some(end);
                }
                Poll::Pending => {
                    // Polling it may have made something to tell; whoever is waited for has our waker by now.
                    return match self.poll_told(task) {
                        Poll::Ready(Some(event)) => Poll::Ready(Some(event)),
                        _ => Poll::Pending,
                    };
                }
            }
        }
    }
}
