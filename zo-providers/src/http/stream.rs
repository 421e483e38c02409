//! The body of an answer: read under the caller's context, decoded as it comes.

use super::{Kept, MAX_BODY, Timeouts, scrub, too_large};
use crate::{
    Secret,
    wire::{Codec, Decoder},
};
use bytes::Bytes;
use http_body::Body as _;
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, ready},
    time::Duration,
};
use zo_traits::{Cx, Error, ErrorKind, Result, Stream, StreamEvent};

/// Once all that matters has come, how long to wait for what may follow (token counts).
const LINGER: Duration = Duration::from_secs(5);
/// After the end of the answer, how long and how far to read on so that the connection can be used again.
const DRAIN: Duration = Duration::from_millis(250);
const DRAIN_BYTES: usize = 256 << 10;

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Reads a body piece by piece until its end, cancellation, the deadline or a gap that is too long.
pub(super) struct Reader {
    cx: Cx,
    op: &'static str,
    timeouts: Timeouts,
    body: Option<Kept>,
    /// When the last piece came, or the call began, on the clock's monotonic scale.
    last: Duration,
    any: bool,
    /// Replaces the limit on the gap between pieces: for how long, and until when.
    limit: Option<(Duration, Duration)>,
    timer: Option<Wait>,
    cancelled: Option<Wait>,
}

/// What there is to read.
enum Read {
    Piece(Bytes),
    End,
    /// The connection broke.
    Broken(Error),
    /// The limit set with [`Reader::at_most`] has passed.
    Gap,
    /// Cancelled, late, or no piece for too long.
    Stopped(Error),
}

impl Reader {
    pub(super) fn new(cx: &Cx, op: &'static str, timeouts: Timeouts, asked: Duration, body: Kept) -> Self {
        Self {
            cx: cx.clone(),
            op,
            timeouts,
            body: Some(body),
            last: asked,
            any: false,
            limit: None,
            timer: None,
            cancelled: None,
        }
    }

    /// From now on, reading ends after `limit`, whatever comes, without being an error. It ends within half of the time to
    /// the deadline, so that what was complete before it is handed over before it.
    fn at_most(&mut self, limit: Duration) {
        if self.limit.is_none_or(|(old, _)| old != limit) {
            let now = self.cx.clock().monotonic();
            let left = self.cx.deadline().map_or(limit, |at| at.saturating_sub(now) / 2);
            self.limit = Some((limit, now.saturating_add(limit.min(left))));
            self.last = now;
            self.timer = None;
        }
    }

    /// Takes back [`at_most`](Reader::at_most).
    fn as_long_as_it_takes(&mut self) {
        if self.limit.take().is_some() {
            self.timer = None;
        }
    }

    fn poll(&mut self, task: &mut Context<'_>) -> Poll<Read> {
        if self.cx.is_cancelled() {
            return Poll::Ready(Read::Stopped(Error::cancelled(self.op)));
        }
        // One piece that was late is still taken.
        if self.limit.is_some_and(|(_, end)| end < self.last) {
            return Poll::Ready(Read::Gap);
        }
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(Read::End) };
            match Pin::new(&mut body.body).poll_frame(task) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    self.last = self.cx.clock().monotonic();
                    if !self.any {
                        self.any = true;
                        // It waits for the first byte, which may be longer than between pieces.
                        self.timer = None;
                    }
                    if self.limit.is_none() && self.cx.deadline().is_some_and(|at| at <= self.last) {
                        return Poll::Ready(Read::Stopped(late(self.op)));
                    }
                    return Poll::Ready(Read::Piece(piece));
                }
                Poll::Ready(Some(Err(e))) => {
                    self.body = None;
                    return Poll::Ready(Read::Broken(super::transport(self.op, e)));
                }
                Poll::Ready(None) => {
                    body.kept.fetch_add(1, Relaxed);
                    self.body = None;
                    return Poll::Ready(Read::End);
                }
                Poll::Pending => return self.poll_limits(task),
            }
        }
    }

    /// Nothing to read now: is there a reason to stop waiting?
    fn poll_limits(&mut self, task: &mut Context<'_>) -> Poll<Read> {
        let cancel = self.cx.cancel();
        let cancelled = self.cancelled.get_or_insert_with(|| {
            let cancel = cancel.clone();
            Box::pin(async move { cancel.cancelled().await })
        });
        if cancelled.as_mut().poll(task).is_ready() {
            return Poll::Ready(Read::Stopped(Error::cancelled(self.op)));
        }
        // While the timer runs, no limit has passed: they only move away from it, except in `at_most`, which drops it.
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(task));
            self.timer = None;
        }
        let gap = if self.any { self.timeouts.idle } else { self.timeouts.first_byte };
        loop {
            // The timer is not set anew for every piece: when it fires, it is seen whether it was meant.
            let now = self.cx.clock().monotonic();
            let gap_ends = self.limit.map_or(self.last.saturating_add(gap), |(_, end)| end);
            if self.limit.is_none() && self.cx.deadline().is_some_and(|at| at <= now) {
                return Poll::Ready(Read::Stopped(late(self.op)));
            }
            if gap_ends <= now {
                return Poll::Ready(if self.limit.is_some() {
                    Read::Gap
                } else if self.any {
                    let waited = self.timeouts.idle;
                    Read::Stopped(Error::new(
                        ErrorKind::Timeout,
                        self.op,
                        format_args!("the stream fell silent for {waited:?}"),
                    ))
                } else {
                    Read::Stopped(no_first_byte(self.op, self.timeouts.first_byte))
                });
            }
            let until = self.cx.deadline().map_or(gap_ends, |at| at.min(gap_ends));
            let clock = self.cx.clock().clone();
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(async move { clock.sleep(until.saturating_sub(now)).await }));
            ready!(timer.as_mut().poll(task));
            self.timer = None;
        }
    }

    /// The whole body, up to `most` bytes; and whether that was all of it.
    pub(super) async fn collect(mut self, most: usize) -> Result<(Vec<u8>, bool)> {
        let mut out = Vec::new();
        loop {
            match poll_fn(|task| self.poll(task)).await {
                // The only piece, mostly: taken as it is.
                Read::Piece(piece) if out.is_empty() && piece.len() <= most => out = piece.into(),
                Read::Piece(piece) => {
                    let room = most.saturating_sub(out.len());
                    out.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
                    if piece.len() > room {
                        return Ok((out, false));
                    }
                }
                Read::End | Read::Gap => return Ok((out, true)),
                Read::Broken(e) => {
                    let cut = format_args!("the answer was cut before its end: {}", e.message()).to_string();
                    return Err(Error::new(ErrorKind::Corrupt, self.op, cut));
                }
                Read::Stopped(e) => return Err(e),
            }
        }
    }
}

/// The events of a streamed answer.
pub(super) struct EventStream<C> {
    reader: Reader,
    decoder: Decoder<C>,
    queue: VecDeque<StreamEvent>,
    /// What ends the stream once the queue is empty.
    error: Option<Error>,
    /// Nothing more is to be read.
    over: bool,
    /// Something of the answer's content was decoded.
    content: bool,
    /// The last event, or an error, was handed over: nothing may follow.
    ended: bool,
    drained: usize,
    /// Bytes of the answer so far.
    read: usize,
    secrets: Vec<Secret>,
}

impl<C: Codec> EventStream<C> {
    pub(super) fn new(reader: Reader, decoder: Decoder<C>, secrets: Vec<Secret>) -> Self {
        Self {
            reader,
            decoder,
            queue: VecDeque::new(),
            error: None,
            over: false,
            content: false,
            ended: false,
            drained: 0,
            read: 0,
            secrets,
        }
    }

    /// Reads on until there is content to show.
    ///
    /// # Errors
    /// What went wrong before that; the stream is then of no use. A connection that was lost is
    /// [`ErrorKind::Unavailable`], since nothing was shown yet and the call may be repeated.
    pub(super) async fn begin(&mut self) -> Result<()> {
        while !self.over && !self.content {
            poll_fn(|task| self.poll_read(task)).await;
        }
        match self.error.take() {
            Some(e) if !self.content => Err(e),
            e => {
                self.error = e;
                Ok(())
            }
        }
    }

    /// Reads and decodes one piece.
    fn poll_read(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let finished = self.decoder.is_finished();
        if finished {
            self.reader.at_most(DRAIN);
        } else if self.content && self.decoder.may_end() {
            self.reader.at_most(LINGER);
        } else {
            self.reader.as_long_as_it_takes();
        }
        let result = match ready!(self.reader.poll(task)) {
            Read::Piece(piece) if finished => {
                self.drained = self.drained.saturating_add(piece.len());
                if self.drained > DRAIN_BYTES {
                    self.close();
                }
                return Poll::Ready(());
            }
            Read::Piece(piece) => {
                let known = self.queue.len();
                self.read = self.read.saturating_add(piece.len());
                let fed = if self.read > MAX_BODY {
                    Err(too_large(self.reader.op))
                } else {
                    self.decoder.feed(&piece, &mut self.queue)
                };
                self.content |= self.queue.iter().skip(known).any(is_content);
                fed
            }
            // The answer was complete: how its connection ended is of no interest.
            Read::End | Read::Gap | Read::Broken(_) | Read::Stopped(_) if finished => {
                self.close();
                Ok(())
            }
            Read::End | Read::Gap => {
                self.close();
                self.decoder.finish(&mut self.queue).map_err(|e| self.lost(e, None))
            }
            Read::Broken(cause) => {
                self.close();
                self.decoder.broken(&mut self.queue).map_err(|e| self.lost(e, Some(&cause)))
            }
            Read::Stopped(e) => Err(e),
        };
        if let Err(e) = result {
            self.close();
            self.error = Some(scrub(&self.secrets, e));
        }
        Poll::Ready(())
    }

    /// An answer that was cut: before any content, the call may simply be made again.
    fn lost(&self, e: Error, cause: Option<&Error>) -> Error {
        if e.kind() != ErrorKind::Corrupt {
            return e;
        }
        let why = cause.map(|c| format!(": {}", c.message())).unwrap_or_default();
        let kind = if self.content { ErrorKind::Corrupt } else { ErrorKind::Unavailable };
        Error::new(kind, self.reader.op, format_args!("{}{why}", e.message()))
    }

    fn close(&mut self) {
        self.over = true;
        // Dropping a body that was not read to its end closes the connection.
        self.reader.body = None;
    }
}

impl<C: Codec + Unpin> Stream for EventStream<C> {
    type Item = Result<StreamEvent>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.ended {
                // Only what may be left on the connection is still to be read.
                if this.over {
                    return Poll::Ready(None);
                }
                ready!(this.poll_read(task));
                continue;
            }
            if this.reader.cx.is_cancelled() {
                this.close();
                this.ended = true;
                return Poll::Ready(Some(Err(Error::cancelled(this.reader.op))));
            }
            if let Some(event) = this.queue.pop_front() {
                if matches!(event, StreamEvent::Finish(_)) {
                    this.ended = true;
                    // The end of the body usually lies in the same piece: taken along, so that a caller who stops here
                    // leaves a connection that can be used again.
                    if !this.over {
                        let _ = this.poll_read(task);
                    }
                }
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some(e) = this.error.take() {
                this.ended = true;
                return Poll::Ready(Some(Err(e)));
            }
            if this.over {
                return Poll::Ready(None);
            }
            ready!(this.poll_read(task));
        }
    }
}

/// Is it something to show?
pub(super) fn is_content(event: &StreamEvent) -> bool {
    !matches!(event, StreamEvent::Start { .. } | StreamEvent::Usage(_))
}

pub(super) fn no_first_byte(op: &'static str, waited: Duration) -> Error {
    Error::new(ErrorKind::Timeout, op, format_args!("no answer within {waited:?}"))
}

fn late(op: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, op, "deadline passed").with_model_text("timed out")
}
