//! The log of one run under way: its entries on their way to the disk, and whoever listens.
//!
//! An entry is queued and not waited for; [`Log::settled`] waits where a promise needs it. What is told to a listener carries
//! the entry that it reports, and is handed out once that entry is durable. A listener that falls behind loses fragments and
//! is told so; it never holds up the run.

use super::{ENTRIES, Entry, UNFINISHED, entry_key, json, outputs};
use crate::{RunEvent, RunId, toolbox::output_id};
use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tokio::sync::Notify;
use zo_store::{Store, Tx, Urgency};
use zo_traits::{Error, ErrorKind, Message, Result, ToolResult};

/// Most events that wait for one listener that is not the one who drives the run.
pub(crate) const BACKLOG: usize = 256;

/// Changes made in the same commit as an entry.
pub(crate) type With = Box<dyn FnMut(&mut Tx<'_>) -> Result<()> + Send>;

#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) run: RunId,
    pub(crate) conversation: String,
    store: Option<Store>,
    probe: Probe,
    core: Arc<Core>,
}

/// Told of every write of every run, before it is queued, when it is queued and when it is durable: where a test kills.
#[derive(Clone, Default)]
pub(crate) struct Probe(pub(crate) Option<Arc<dyn Fn(&'static str, &'static str) + Send + Sync>>);

impl Probe {
    fn at(&self, what: &'static str, when: &'static str) {
        if let Some(probe) = &self.0 {
            probe(what, when);
        }
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Probe").field(&self.0.is_some()).finish()
    }
}

/// What the writer of the store has in hand as well. It holds no handle of the store: the last one must not be dropped there.
#[derive(Debug, Default)]
struct Core {
    state: Mutex<State>,
    moved: Notify,
    /// Who speaks: the order on record is the order in which the run hears.
    floor: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the next entry.
    next: u32,
    /// Writes that were queued, and how many of them are durable.
    queued: u64,
    durable: u64,
    failed: Option<Error>,
    listeners: Vec<Weak<Listener>>,
    /// What the model has said of the coming answer, for those who come late.
    text: String,
    reasoning: String,
    /// Messages for the run that it has not taken yet.
    inbox: VecDeque<Message>,
    /// How many are in the middle of saying something.
    saying: usize,
    /// The run takes no more messages.
    closed: bool,
    /// The run is about to rest: whoever wants to take it up waits for it.
    parking: bool,
    /// Under which entry the coming answer is told: the one behind the last that is no message to the run.
    answer: u32,
}

/// One who follows a run.
#[derive(Debug)]
pub(crate) struct Listener {
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Events with the write that must be durable first and the entry that they belong to.
    events: VecDeque<(u64, u32, Result<RunEvent>)>,
    missed: bool,
    closed: bool,
    waker: Option<Waker>,
}

/// What a listener is given next.
#[derive(Debug)]
pub(crate) enum Next {
    /// An event of this entry.
    Event(u32, Box<Result<RunEvent>>),
    /// Events were dropped.
    Missed,
    /// Nothing will follow.
    Closed,
}

impl Listener {
    /// `most` events may wait.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, queue: Mutex::default() })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, write: u64, entry: u32, event: Result<RunEvent>) {
        let mut queue = self.queue();
        if queue.events.len() >= self.most {
            queue.events.clear();
            queue.missed = true;
        }
        queue.events.push_back((write, entry, event));
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    /// The next event whose entry is durable. `log` is the log of the run, as long as it is under way.
    pub(crate) fn poll(&self, log: Option<&Log>, task: &mut Context<'_>) -> Poll<Next> {
        let durable = log.map_or(u64::MAX, Log::durable);
        let failed = log.is_some_and(Log::has_failed);
        let mut queue = self.queue();
        if failed {
            // Errors need no disk.
            queue.events.retain(|(write, _, event)| *write <= durable || event.is_err());
            queue.events.iter_mut().filter(|e| e.2.is_err()).for_each(|e| e.0 = 0);
        }
        if std::mem::take(&mut queue.missed) {
            return Poll::Ready(Next::Missed);
        }
        if queue.events.front().is_some_and(|(write, ..)| *write <= durable) {
            return Poll::Ready(match queue.events.pop_front() {
                Some((_, entry, event)) => Next::Event(entry, Box::new(event)),
                None => Next::Closed,
            });
        }
        if queue.events.is_empty() && queue.closed {
            return Poll::Ready(Next::Closed);
        }
        if !queue.waker.as_ref().is_some_and(|w| w.will_wake(task.waker())) {
            queue.waker = Some(task.waker().clone());
        }
        let waits = !queue.events.is_empty();
        drop(queue);
        if let Some(log) = log.filter(|_| waits) {
            // Somebody wants to see it: no reason to linger. And it may have become durable just now.
            log.hurry();
            if log.durable() > durable {
                task.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(waker) = self.queue().waker.take() {
            waker.wake();
        }
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrote(&self, failed: Option<Error>) {
        let listeners = {
            let mut state = self.state();
            if let Some(e) = failed {
                state.failed.get_or_insert(e);
            }
            // Behind a write that failed nothing can be vouched for.
            if state.failed.is_none() {
                state.durable += 1;
            }
            state.listeners.clone()
        };
        self.moved.notify_waiters();
        listeners.iter().filter_map(Weak::upgrade).for_each(|l| l.wake());
    }
}

impl Log {
    pub(crate) fn new(
        store: Option<Store>,
        probe: Probe,
        run: RunId,
        conversation: String,
        next: u32,
    ) -> Arc<Self> {
        let core = Core {
            state: Mutex::new(State { next, answer: next, ..State::default() }),
            moved: Notify::new(),
            floor: tokio::sync::Mutex::default(),
        };
        Arc::new(Self { run, conversation, store, probe, core: Arc::new(core) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.core.state()
    }

    /// Is anything kept at all?
    pub(crate) fn is_on(&self) -> bool {
        self.store.is_some()
    }

    fn durable(&self) -> u64 {
        let state = self.state();
        if self.store.is_none() { u64::MAX } else { state.durable }
    }

    fn has_failed(&self) -> bool {
        self.state().failed.is_some()
    }

    fn hurry(&self) {
        if let Some(store) = &self.store {
            store.hurry();
        }
    }

    /// Queues changes; they become durable in the order of the queue.
    pub(crate) async fn write(
        self: &Arc<Self>,
        what: &'static str,
        urgency: Urgency,
        mut work: impl FnMut(&mut Tx<'_>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        // Counted by the writer in the order in which they are committed.
        self.state().queued += 1;
        let mut counted = Counted(Some(self.core.clone()));
        let (core, probe) = (self.core.clone(), self.probe.clone());
        probe.at(what, "queue");
        store
            .queue(
                urgency,
                move |tx| work(tx),
                move |done| {
                    probe.at(what, "durable");
                    core.wrote(done.err());
                },
            )
            .await?;
        counted.0 = None;
        self.probe.at(what, "queued");
        Ok(())
    }

    /// Appends an entry, and makes `with` in the same commit. Queued, not durable, when it returns.
    pub(crate) async fn append(
        self: &Arc<Self>,
        urgency: Urgency,
        entry: &Entry<'_>,
        with: Option<With>,
    ) -> Result<()> {
        let at = {
            let mut state = self.state();
            let at = state.next;
            state.next = at.saturating_add(1);
            if !matches!(entry, Entry::Said { .. }) {
                state.answer = state.next;
            }
            if matches!(entry, Entry::Model { .. }) {
                state.text.clear();
                state.reasoning.clear();
            }
            at
        };
        if self.store.is_none() {
            return Ok(());
        }
        let (key, row, mut with) = (entry_key(&self.run, at), json(entry)?, with);
        self.write(entry.name(), urgency, move |tx| {
            if let Some(with) = &mut with {
                with(tx)?;
            }
            tx.put(ENTRIES, &key, &row)
        })
        .await
    }

    /// Counts an entry that is kept nowhere, where nothing is.
    pub(crate) fn count_unkept(&self) {
        let mut state = self.state();
        state.next = state.next.saturating_add(1);
        state.answer = state.next;
    }

    /// Appends the end of a call, with the whole output where the model sees only a part.
    pub(crate) async fn tool(
        self: &Arc<Self>,
        result: &ToolResult,
        whole: Option<&str>,
        mut with: Option<With>,
    ) -> Result<()> {
        let pages = whole
            .filter(|_| self.is_on())
            .map_or_else(Vec::new, |text| outputs::pages(&output_id(self.run.as_str(), &result.id), text));
        if !pages.is_empty() {
            let mut before = with.take();
            with = Some(Box::new(move |tx: &mut Tx<'_>| {
                if let Some(before) = &mut before {
                    before(tx)?;
                }
                outputs::put(tx, &pages)
            }));
        }
        self.append(Urgency::Soon, &Entry::Tool { result: Cow::Borrowed(result) }, with).await
    }

    /// Resolves when everything that was queued before is durable.
    ///
    /// # Errors
    /// Why one of the writes failed. Nothing more can be promised of this run.
    pub(crate) async fn settled(&self) -> Result<()> {
        if self.store.is_none() {
            return Ok(());
        }
        let target = self.state().queued;
        let mut hurried = false;
        loop {
            let moved = self.core.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            {
                let state = self.state();
                if let Some(e) = &state.failed {
                    return Err(e.clone());
                }
                // A write that was counted may have been dropped before it was queued.
                if state.durable >= target.min(state.queued) {
                    return Ok(());
                }
            }
            if !std::mem::replace(&mut hurried, true) {
                self.hurry();
            }
            moved.await;
        }
    }

    /// Tells the listeners what happened, as part of the entry before the next one. Never waits.
    pub(crate) fn tell(&self, event: impl FnOnce() -> RunEvent) {
        let mut state = self.state();
        let event = event();
        let last = state.next.saturating_sub(1);
        let entry = if matches!(event, RunEvent::Said(_)) { state.answer } else { last };
        let write = state.queued;
        send(&mut state.listeners, write, entry, || Ok(event));
    }

    /// Tells a fragment of the coming answer.
    pub(crate) fn fragment(&self, text: &str, reasoning: bool) {
        let mut state = self.state();
        if reasoning { &mut state.reasoning } else { &mut state.text }.push_str(text);
        let entry = state.answer;
        // Behind everything that was told before, durable or not: order is kept by the queue.
        send(&mut state.listeners, 0, entry, || {
            Ok(if reasoning { RunEvent::Reasoning(text.to_owned()) } else { RunEvent::Text(text.to_owned()) })
        });
    }

    /// Tells the end to all listeners but the one who drives the run, who has it first hand.
    pub(crate) fn end(&self, outcome: Result<RunEvent>) {
        let mut state = self.state();
        let (write, entry) = (state.queued, state.next);
        for listener in state.listeners.drain(..).filter_map(|l| l.upgrade()) {
            if listener.most != usize::MAX {
                listener.push(write, entry, outcome.clone());
            }
            listener.close();
        }
    }

    /// Adds a listener, who is first told what has been said of the coming answer. Gives the number of the next entry.
    pub(crate) fn listen(&self, listener: &Arc<Listener>) -> u32 {
        let mut state = self.state();
        state.listeners.retain(|l| l.strong_count() > 0);
        let entry = state.answer;
        if !state.reasoning.is_empty() {
            listener.push(0, entry, Ok(RunEvent::Reasoning(state.reasoning.clone())));
        }
        if !state.text.is_empty() {
            listener.push(0, entry, Ok(RunEvent::Text(state.text.clone())));
        }
        state.listeners.push(Arc::downgrade(listener));
        entry
    }

    /// Puts a message into the run's inbox and on record; durable when it returns.
    ///
    /// # Errors
    /// `Conflict` when the run takes no more messages.
    pub(crate) async fn say(self: &Arc<Self>, message: Message) -> Result<()> {
        {
            let mut state = self.state();
            if state.closed {
                return Err(Error::new(ErrorKind::Conflict, "zo.say", "the run is at its end; ask instead"));
            }
            if state.inbox.len() + state.saying >= MAX_INBOX {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "zo.say",
                    "too many messages wait for this run",
                ));
            }
            state.saying += 1;
        }
        // The run does not end while somebody speaks, and hears only what is on its way to the disk.
        let saying = Saying(self);
        let late = self.put(Urgency::Now, &message, false).await?;
        drop(saying);
        self.tell(|| RunEvent::Said(message));
        self.settled().await?;
        if late.load(Ordering::Relaxed) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "zo.say",
                "the run was interrupted meanwhile; say it again",
            ));
        }
        Ok(())
    }

    /// Puts a message on record and into the inbox. What it gives becomes true if the message came too late to be put on
    /// record: the run was dropped and taken up by somebody else meanwhile, whose entries are not to be overwritten.
    pub(crate) async fn put(
        self: &Arc<Self>,
        urgency: Urgency,
        message: &Message,
        repair: bool,
    ) -> Result<Arc<AtomicBool>> {
        let late = Arc::new(AtomicBool::new(false));
        let _floor = self.core.floor.lock().await;
        let at = {
            let mut state = self.state();
            let at = state.next;
            state.next = at.saturating_add(1);
            at
        };
        if self.is_on() {
            let (key, run, told) = (entry_key(&self.run, at), self.run.clone(), late.clone());
            let row = json(&Entry::Said { message: Cow::Borrowed(message), repair })?;
            let put = move |tx: &mut Tx<'_>| {
                if tx.contains(ENTRIES, &key)? || !tx.contains(UNFINISHED, run.as_str().as_bytes())? {
                    told.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                tx.put(ENTRIES, &key, &row)
            };
            self.write("said", urgency, put).await?;
        }
        self.state().inbox.push_back(message.clone());
        Ok(late)
    }

    /// Resolves when nobody is in the middle of saying something.
    pub(crate) async fn quiet(&self) {
        loop {
            let moved = self.core.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.state().saying == 0 {
                return;
            }
            moved.await;
        }
    }

    /// Takes the messages that wait.
    pub(crate) fn take_said(&self) -> Vec<Message> {
        self.state().inbox.drain(..).collect()
    }

    /// Puts messages back that are on record and were not heard.
    pub(crate) fn refill(&self, said: impl IntoIterator<Item = Message>) {
        self.state().inbox.extend(said);
    }

    /// Takes no more messages.
    pub(crate) fn shut(&self) {
        self.state().closed = true;
    }

    /// The run is about to rest, or goes on after all.
    pub(crate) fn parking(&self, parking: bool) {
        self.state().parking = parking;
    }

    pub(crate) fn is_parking(&self) -> bool {
        self.state().parking
    }

    /// Takes no more messages, unless some wait already: then `false`.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.state();
        state.closed |= state.inbox.is_empty() && state.saying == 0;
        state.closed
    }
}

/// Most messages that wait for one run.
const MAX_INBOX: usize = 64;

/// Somebody who is in the middle of saying something.
struct Saying<'a>(&'a Log);

impl Drop for Saying<'_> {
    fn drop(&mut self) {
        self.0.state().saying -= 1;
        self.0.core.moved.notify_waiters();
    }
}

/// A write that was counted and, if the future is dropped before it is queued, never comes.
struct Counted(Option<Arc<Core>>);

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(log) = &self.0 {
            log.state().queued -= 1;
            log.moved.notify_waiters();
        }
    }
}

fn send(
    listeners: &mut Vec<Weak<Listener>>,
    write: u64,
    entry: u32,
    event: impl FnOnce() -> Result<RunEvent>,
) {
    if listeners.is_empty() {
        return;
    }
    let event = event();
    listeners.retain(|l| match l.upgrade() {
        Some(listener) => {
            listener.push(write, entry, event.clone());
            true
        }
        None => false,
    });
}
