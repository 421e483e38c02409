//! The thin driver around the [`Machine`]: it talks to the model, runs tools, and writes each input of the machine to the
//! journal.
//!
//! An answer, a result, a message is queued for the disk as it comes, and the run goes on. It waits for the disk in three
//! places only: before a tool that changes the world begins, before it parks, and before its host is told that it is over.
//! What a listener sees is durable when he sees it, which is the listener's wait and not the run's.

mod fit;
mod model;
mod start;
mod tools;
mod view;

pub use start::MEMORIES_HEADING;
pub(crate) use start::{Lineage, MAX_DEPTH, back, view};
pub(crate) use view::{Frames, Material, View};

use crate::{
    Approval, Machine, Reply, RunEvent, RunId, Step,
    context::{self, record::Compaction},
    inner::Inner,
    journal::{Active, Append, End, Entry, Header, Log, Setup, With, has_ended, unknown_outcome},
    structured,
    toolbox::Toolbox,
    trace,
};
use model::both;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::OwnedMutexGuard;
use tracing::Instrument;
use zo_store::Urgency;
use zo_traits::{Budget, Cx, Effect, Error, ErrorKind, FinishReason, Message, Result, ToolStatus};

/// A run under way.
pub(crate) struct Run {
    inner: Arc<Inner>,
    cx: Cx,
    header: Header,
    machine: Machine,
    view: View,
    toolbox: Arc<Toolbox>,
    setup: Setup,
    budget: Budget,
    log: Arc<Log>,
    /// Calls that are on record as begun.
    claimed: HashSet<String>,
    /// Calls that were begun here.
    begun: Mutex<HashSet<String>>,
    /// Calls that were in flight when the run was interrupted.
    in_flight: HashMap<String, Effect>,
    /// How many of the messages said to the run the model has heard.
    heard: u32,
    /// How often an answer was sent back because it did not have the form that was asked for.
    repairs: u32,
    /// Where the messages were about to be appended, when the run was interrupted then.
    appending: Option<u64>,
    compaction: Option<Compaction>,
    /// Tool results were cut down in the history and in so many of the run's messages.
    shortened: Option<u32>,
    /// The size of a request that could not be made to fit.
    futile: u64,
    /// Milliseconds that are not on record yet.
    unbooked: u64,
    /// The compaction was made in this run and joins the conversation with it.
    compacted: bool,
    microusd: u64,
    /// Active time that is booked, on the clock's monotonic scale.
    booked: Duration,
    without_media: bool,
    // Dropped in this order: whoever has the next turn finds the run among the interrupted ones.
    active: Active,
    _turn: OwnedMutexGuard<()>,
}

impl Run {
    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The run's name.
    pub(crate) fn id(&self) -> &RunId {
        &self.header.run
    }

    /// Carries the run to its end, or to where it has to wait for a decision.
    pub(crate) async fn drive(mut self: Box<Self>) -> Result<Reply> {
        let span = trace::invoke_agent(&self.header, self.inner.provider.id());
        let outcome = match self.go().instrument(span.clone()).await.map_err(|e| self.overtime(e)) {
            Ok(reply) => Ok(reply),
            Err(e) => match Box::pin(self.fail(&e)).await {
                // Whoever listens sees what came before.
                Ok(()) => self.log.settled().await.and(Err(e)),
                Err(worse) => Err(worse),
            },
        };
        trace::ran(&span, &outcome);
        self.log.end(outcome.clone().map(RunEvent::Done));
        outcome
    }

    /// A run whose allowance of time is used up was not late but denied more.
    fn overtime(&mut self, e: Error) -> Error {
        if e.kind() == ErrorKind::Timeout {
            self.book_time();
            if let Some(left) = self.budget.remaining().millis
                && left <= CLOSE
                && let Err(denied) = self.budget.spend(zo_traits::Spend::millis(left + 1))
            {
                return denied;
            }
        }
        e
    }

    async fn go(&mut self) -> Result<Reply> {
        // A run that is resumed after its last answer was recorded, and before its end was, is only to be ended.
        loop {
            match self.machine.step() {
                Step::Model { last } => Box::pin(self.model(last)).await?,
                Step::Tools(calls) => {
                    let waiting = Box::pin(self.tools(calls)).await?;
                    if !waiting.is_empty()
                        && let Some(reply) = Box::pin(self.park(waiting)).await?
                    {
                        return Ok(reply);
                    }
                }
                Step::Done(_) => {
                    // What was said and not heard, also before an interruption, comes first.
                    if self.hear_now()? {
                        continue;
                    }
                    if Box::pin(self.send_back()).await? || self.hear().await? {
                        continue;
                    }
                    Box::pin(self.finish(End::Done, true)).await?;
                    return Ok(self.reply(Vec::new()));
                }
            }
        }
    }

    /// At the end: lets the model hear what was said meanwhile. `false` when there was nothing, and the run takes no more.
    async fn hear(&mut self) -> Result<bool> {
        while !self.log.close() {
            self.log.quiet().await;
            // With no step left it is kept, unanswered.
            if self.hear_now()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets the model hear what waits. `false` when that is nothing, or no step is left.
    fn hear_now(&mut self) -> Result<bool> {
        for message in self.log.take_said() {
            self.machine.say(message)?;
            self.heard += 1;
        }
        Ok(!matches!(self.machine.step(), Step::Done(_)))
    }

    /// Comes to rest until somebody has decided about these calls; `None` when somebody has.
    async fn park(&mut self, waiting: Vec<Approval>) -> Result<Option<Reply>> {
        let mut time = self.charge_time();
        let (mut park, questions, now) =
            (self.inner.journal.parking(&self.header.run, true), waiting.clone(), self.inner.clock.now());
        let parked = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = parked.clone();
        // In one commit with the look at the answers: one that comes before is seen here, one that comes after finds a
        // run that is parked, and whose turn can be waited for.
        let with = move |tx: &mut zo_store::Tx<'_>| {
            if let Some(time) = &mut time {
                time(tx)?;
            }
            for q in &questions {
                if crate::approval::state(tx, &q.run, &q.call, now)? == Some(crate::approval::State::Pending)
                {
                    told.store(true, std::sync::atomic::Ordering::Relaxed);
                    return park(tx);
                }
            }
            Ok(())
        };
        self.log.parking(true);
        self.log.write("parked", Urgency::Now, with).await?;
        self.log.settled().await?;
        if !parked.load(std::sync::atomic::Ordering::Relaxed) {
            self.log.parking(false);
            return Ok(None);
        }
        self.active.parked();
        Ok(Some(self.reply(waiting)))
    }

    /// Settles a run that could not go on. One that got somewhere and met a passing error stays open, to be resumed.
    async fn fail(&mut self, e: &Error) -> Result<()> {
        let answered = self.machine.has_answer();
        let spent = e.source_as::<zo_traits::Overspent>().is_some();
        let passing =
            e.is_retryable() || spent || matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Exhausted);
        if self.active.is_over() {
            return Ok(());
        }
        if answered && passing && self.log.is_on() {
            // Whatever it cost is booked: nothing was lost when it stopped here.
            let time = self.charge_time();
            return self.log.append(Urgency::Soon, &Entry::Stopped, time).await;
        }
        let (outcome, why) = if e.kind() == ErrorKind::Cancelled {
            (
                End::Cancelled,
                "stopped: the run was cancelled while this call was in flight; it may have taken effect",
            )
        } else {
            let message = e.to_string();
            (End::Failed { kind: e.kind(), message }, "not run to its end: the run failed")
        };
        if let Step::Tools(open) = self.machine.step() {
            let begun = self.begun.get_mut().unwrap_or_else(PoisonError::into_inner);
            for call in
                open.iter().filter(|c| begun.contains(&c.id) && !self.toolbox.effect(&c.name).may_repeat())
            {
                self.machine.tool(unknown_outcome(call))?;
            }
        }
        self.machine.close(&ToolStatus::Cancelled, why);
        // What was said to the run stays said.
        while self.hear().await? {}
        // What the provider refused as it is must not be in the way of every later question.
        self.without_media = e.kind() == ErrorKind::Invalid;
        // What the user said to the run stays said as well.
        let said = self.machine.messages().len() > self.header.opening.len();
        self.finish(outcome, answered || said).await
    }

    /// Ends the run; with `keep`, its messages join the conversation. Durable when it returns.
    async fn finish(&mut self, outcome: End, keep: bool) -> Result<()> {
        let append = (keep && self.inner.transcript.is_some())
            .then(|| Append { conversation: self.header.conversation.clone(), messages: self.messages() });
        let compaction =
            self.compaction.take().filter(|c| self.compacted && (keep || c.upto <= self.header.base));
        if let Some(c) = compaction.as_ref().filter(|_| !self.log.is_on()) {
            self.inner
                .ram_compactions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(c.conversation.clone(), c.clone());
        }
        let books = close_books(compaction, self.header.own_ledger());
        let with = both(self.charge_time(), Some(books));
        self.inner.end(&self.active, &mut self.appending, outcome, append, with).await?;
        self.active.ended();
        self.inner.end_children(&self.header.run, &self.header.conversation).await
    }

    /// What joins the conversation.
    fn messages(&self) -> Vec<Message> {
        let mut messages = self.machine.messages().to_vec();
        if self.without_media {
            messages.iter_mut().for_each(view::drop_media);
        }
        messages
    }

    fn reply(&self, approvals: Vec<Approval>) -> Reply {
        Reply::of(&self.header.run, &self.machine, self.microusd, approvals)
    }

    fn warn(&self, e: Error) {
        self.log.tell(|| RunEvent::Warning(e));
    }
}

impl Inner {
    /// Ends a run on record, and appends its messages: in one commit where the transcript lives in the same store. Elsewhere
    /// the position comes on record first, so that a second try does not append again.
    pub(crate) async fn end(
        &self,
        active: &Active,
        appending: &mut Option<u64>,
        outcome: End,
        append: Option<Append>,
        with: Option<With>,
    ) -> Result<()> {
        let log = &active.log;
        let mut here = append;
        if !self.config.own_transcript
            && let (Some(transcript), Some(a)) = (&self.transcript, here.take())
        {
            // Not the run's context: the end of a cancelled run is kept as well. But no transcript may hang it for ever.
            let cx = Cx::new(log.run.as_str()).with_clock(self.clock.clone()).with_timeout(APPEND_TIMEOUT);
            // The last answer first, so that a second try does not ask again.
            log.settled().await?;
            let len = cx.race("zo.append", transcript.len(&cx, &a.conversation)).await??;
            let at = match *appending {
                Some(at) => at,
                None => {
                    log.append(Urgency::Now, &Entry::Appending { at: len }, None).await?;
                    log.settled().await?;
                    *appending = Some(len);
                    len
                }
            };
            if len <= at {
                cx.race("zo.append", transcript.append(&cx, &a.conversation, Some(at), &a.messages))
                    .await??;
            }
        }
        let ending = self.journal.ending(&log.run, here, with);
        log.append(Urgency::Now, &Entry::End { outcome }, Some(ending)).await?;
        log.settled().await
    }

    /// Settles every interrupted run of a conversation. The caller holds its turn.
    pub(crate) async fn settle_all(self: &Arc<Self>, conversation: &str) -> Result<()> {
        for run in self.journal.interrupted_in(conversation) {
            // Decided or not: what somebody was asked about is not to be given up in passing.
            if self.journal.is_parked(&run)
                || !self.journal.pending(&run)?.is_empty()
                || !self.below(&run)?.is_empty()
            {
                return Err(waits(&run));
            }
            match Box::pin(self.settle(&run, conversation, false)).await {
                Ok(()) => {}
                // It ended after all, or its start never reached the disk.
                // The transcript may have failed in the same words: the record decides.
                Err(e) if matches!(e.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                    match self.journal.load(&run) {
                        Ok(recorded) if recorded.ended.is_none() => return Err(e),
                        _ => self.journal.forget(&run),
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Ends an interrupted run and lets what it did join its conversation. The caller holds the conversation's turn. Only when
    /// it is `given_up` by its host is one ended that a newer version wrote.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        run: &RunId,
        conversation: &str,
        given_up: bool,
    ) -> Result<()> {
        // A dropped future of the run may have left a write in the queue.
        self.journal.settled().await?;
        let mut recorded = match self.journal.load(run) {
            Ok(recorded) if recorded.ended.is_some() => return Err(has_ended()),
            Ok(recorded) => recorded,
            Err(e) if e.kind() == ErrorKind::Corrupt || (given_up && e.kind() == ErrorKind::Unsupported) => {
                // Nothing can be made of it, and it must not be in the way of everything else.
                let mut active = self.journal.activate_silent(run, conversation, u32::MAX - 1)?;
                let outcome = End::Failed { kind: e.kind(), message: e.to_string() };
                let books = close_books(None, Some(run.as_str()));
                self.end(&active, &mut None, outcome, None, Some(books)).await?;
                active.ended();
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let mut active = self.journal.activate_silent(run, conversation, recorded.next)?;
        let messages = recorded.close("not run: the run was interrupted");
        let append = Append { conversation: conversation.to_owned(), messages };
        let books = close_books(recorded.compaction.take(), recorded.header.own_ledger());
        self.end(&active, &mut recorded.appending, End::Abandoned, Some(append), Some(books)).await?;
        active.ended();
        drop(active);
        self.end_children(run, conversation).await
    }

    /// Settles what a run that is over had started: nobody else would take it up.
    async fn end_children(self: &Arc<Self>, run: &RunId, mine: &str) -> Result<()> {
        for _ in 0..DYING {
            let (active, interrupted) = self.journal.children_of(run);
            for (child, conversation) in interrupted {
                // The turn of its own conversation is held by whoever ends the run; one that somebody else holds on to is not
                // waited for without end: then the child stays on the list.
                let turn = self.conversations.turn(&conversation);
                let _turn = match conversation == mine {
                    true => None,
                    false => match tokio::time::timeout(TURN, turn).await {
                        Ok(turn) => Some(turn),
                        Err(_) => return Ok(()),
                    },
                };
                match Box::pin(self.settle(&child, &conversation, false)).await {
                    // Somebody else was faster.
                    Err(e) if matches!(e.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                        self.journal.forget(&child);
                    }
                    other => other?,
                }
            }
            if active == 0 {
                break;
            }
            // Stopped with their tool's task, which takes a moment.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

/// What else the end of a run changes: its compaction joins the conversation, and its own ledger goes.
fn close_books(compaction: Option<Compaction>, ledger: Option<&str>) -> With {
    let ledger = ledger.map(str::to_owned);
    Box::new(move |tx| {
        if let Some(c) = &compaction {
            context::record::put(tx, c.clone())?;
        }
        if let Some(id) = &ledger {
            crate::ledger::delete(tx, id)?;
        }
        Ok(())
    })
}

fn waits(run: &RunId) -> Error {
    Error::new(
        ErrorKind::Conflict,
        "zo.ask",
        format_args!(
            "run {run} of this conversation waits for an approval: decide about it (`Zo::approvals`), resume it, or abandon it"
        ),
    )
}

/// An allowance with less than this left, in milliseconds, is what a run that was stopped for its time has used up.
const CLOSE: u64 = 20;
/// How long the turn of a child's conversation is waited for.
const TURN: Duration = Duration::from_secs(2);
/// How often a run that is over looks whether what it had started has stopped. What has not by then is the host's own doing.
const DYING: u32 = 25;
/// Longest time that a transcript kept elsewhere may take.
const APPEND_TIMEOUT: Duration = Duration::from_secs(30);

impl Run {
    /// At the end: sends an answer back that does not have the form that was asked for. `false` when it has, or when it was
    /// sent back often enough.
    async fn send_back(&mut self) -> Result<bool> {
        let Some(schema) = self.header.output_schema.clone() else { return Ok(false) };
        let natural = matches!(self.machine.step(), Step::Done(FinishReason::Stop));
        let last = self.machine.steps() >= self.header.max_steps;
        if !natural || last || self.repairs >= structured::MAX_REPAIRS {
            return Ok(false);
        }
        match structured::value(&schema, self.machine.final_text()) {
            Ok(_) => Ok(false),
            Err(e) => {
                self.repairs += 1;
                let message = structured::complaint(&e);
                // Behind what others have said meanwhile.
                self.log.put(Urgency::Soon, &message, true).await?;
                self.hear_now()
            }
        }
    }
}
