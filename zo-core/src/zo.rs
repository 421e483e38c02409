//! The handle that a host holds, and what it can ask of it.

use crate::{
    Reply, RunId, RunStream, Unfinished, ZoBuilder,
    builtin::UseSkill,
    driver::Run,
    journal::{Append, DeleteIn, End, Entry, Journal, has_ended, under_way},
    toolbox::{ToolLimits, Toolbox},
};
use futures_util::future::join_all;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::OwnedMutexGuard;
use zo_store::Store;
use zo_traits::{
    Clock, Cx, Error, ErrorKind, Limits, MemoryStore, Message, Part, Provider, Result, Role, Scope, Skill,
    ToolSpec, Transcript,
};

/// A personal agent. Cheap to clone; clones are one agent. Several agents in one process share nothing.
///
/// Runs of different conversations go on at the same time; runs of one conversation follow each other. So whoever holds a
/// [`RunStream`] and does not poll it keeps its conversation waiting, and a tool that asks its own conversation waits for
/// itself until its time is up.
///
/// ```no_run
/// # async fn demo() -> zo_core::Result<()> {
/// let zo = zo_core::Zo::builder().file("bot.zo").build().await?;
/// println!("{}", zo.ask("ada", "Remember that my cat is called Miso.").await?.text);
/// # Ok(()) }
/// ```
///
/// All methods that wait must be polled inside a Tokio runtime with its time driver enabled.
#[derive(Debug, Clone)]
pub struct Zo(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) memory: Option<Arc<dyn MemoryStore>>,
    pub(crate) transcript: Option<Arc<dyn Transcript>>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) skills: Vec<Arc<dyn Skill>>,
    pub(crate) store: Option<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) conversations: Conversations,
    pub(crate) toolbox: Mutex<Option<Offered>>,
    pub(crate) config: Config,
}

/// The tools as the skills last offered them.
#[derive(Debug)]
pub(crate) struct Offered {
    by: Vec<Arc<[ToolSpec]>>,
    toolbox: Arc<Toolbox>,
}

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) model: String,
    pub(crate) why: String,
    pub(crate) system: Option<String>,
    pub(crate) scope: Scope,
    pub(crate) limits: Limits,
    pub(crate) max_steps: u32,
    pub(crate) run_timeout: Option<Duration>,
    pub(crate) tools: ToolLimits,
    pub(crate) max_parallel_tools: usize,
    pub(crate) history_tokens: usize,
    pub(crate) recall_limit: usize,
    /// The transcript is in the journal's store, so that the end of a run and its messages are one commit.
    pub(crate) own_transcript: bool,
}

/// One question to an agent, with everything that can be said about it.
///
/// ```
/// # use zo_core::{Ask, Message};
/// let ask = Ask::new("discord/42", "What's on today?").scope("user/7").model("small-model");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Ask {
    /// The conversation that it continues or begins.
    pub conversation: String,
    /// What the user says.
    pub message: Message,
    /// Whose memory it may use; the agent's own when `None`.
    pub scope: Option<Scope>,
    /// Another model than the agent's.
    pub model: Option<String>,
    /// Another limit of model calls than the agent's.
    pub max_steps: Option<u32>,
}

impl Ask {
    /// `text` in `conversation`.
    pub fn new(conversation: impl Into<String>, text: impl Into<String>) -> Self {
        Self::message(conversation, Message::user(text))
    }

    /// A message of any parts (images, files) in `conversation`.
    pub fn message(conversation: impl Into<String>, message: Message) -> Self {
        Self { conversation: conversation.into(), message, scope: None, model: None, max_steps: None }
    }

    /// Whose memory it may use.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Scope>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Another model than the agent's.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Another limit of model calls than the agent's.
    #[must_use]
    pub fn max_steps(mut self, n: u32) -> Self {
        self.max_steps = Some(n);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let bad = |m: &str| Err(Error::new(ErrorKind::Invalid, "zo.ask", m));
        if self.conversation.is_empty() {
            return bad("the conversation has no name");
        }
        if self.message.role != Role::User {
            return bad("only a user's message can be asked");
        }
        if !self.message.parts.iter().all(|p| matches!(p, Part::Text(_) | Part::Media(_))) {
            return bad("a user's message holds text, images and files; nothing else");
        }
        let says = |p: &Part| !matches!(p, Part::Text(t) if t.text.trim().is_empty());
        if !self.message.parts.iter().any(says) {
            return bad("the message is empty");
        }
        Ok(())
    }
}

impl Zo {
    /// Starts to put an agent together.
    pub fn builder() -> ZoBuilder {
        ZoBuilder::default()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Those of the provider and the store; a tool that fails is told to the model and is not an error here. When the
    /// error is a passing one and the run had got somewhere, it stays in [`unfinished`](Zo::unfinished): then
    /// [`resume`](Zo::resume) it. **Asking again instead asks the model anew**, which may call its tools again.
    ///
    /// # Cancel safety
    /// Dropping the future stops the run. With a file it stays in [`unfinished`](Zo::unfinished).
    pub async fn ask(&self, conversation: impl Into<String>, text: impl Into<String>) -> Result<Reply> {
        self.ask_with(&Cx::new(""), Ask::new(conversation, text)).await
    }

    /// As [`ask`](Zo::ask), with a context of the host's (cancellation, deadline, budget, host values for skills) and all
    /// options.
    ///
    /// # Errors
    /// As [`ask`](Zo::ask).
    pub async fn ask_with(&self, cx: &Cx, ask: Ask) -> Result<Reply> {
        Run::start(self.0.clone(), cx, ask, None).await?.drive().await
    }

    /// Asks, and gives back what happens as it happens. The run goes on as the stream is polled; dropping it stops the
    /// run.
    pub fn stream(&self, conversation: impl Into<String>, text: impl Into<String>) -> RunStream {
        self.stream_with(&Cx::new(""), Ask::new(conversation, text))
    }

    /// As [`stream`](Zo::stream), with a context of the host's and all options.
    pub fn stream_with(&self, cx: &Cx, ask: Ask) -> RunStream {
        let (inner, cx) = (self.0.clone(), cx.clone());
        RunStream::new(
            move |events| async move { Run::start(inner, &cx, ask, Some(events)).await?.drive().await },
        )
    }

    /// Asks many things at the same time; answers in the order of the questions. Dropping the future stops them all.
    pub async fn ask_all<C, T>(&self, asks: impl IntoIterator<Item = (C, T)>) -> Vec<Result<Reply>>
    where
        C: Into<String>,
        T: Into<String>,
    {
        let tasks: Vec<_> = asks
            .into_iter()
            .map(|(conversation, text)| {
                let (zo, ask) = (self.clone(), Ask::new(conversation, text));
                AbortOnDrop(tokio::spawn(async move { zo.ask_with(&Cx::new(""), ask).await }))
            })
            .collect();
        join_all(tasks.into_iter().map(|mut task| async move {
            match (&mut task.0).await {
                Ok(outcome) => outcome,
                Err(e) => {
                    Err(Error::new(ErrorKind::Unavailable, "zo.ask_all", "the run ended without an answer")
                        .with_source(e))
                }
            }
        }))
        .await
    }

    /// The runs that were interrupted, oldest first: by a crash, by dropping their stream, or by a passing error.
    ///
    /// # Errors
    /// Those of the store.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>> {
        self.0.journal.unfinished()
    }

    /// Continues an interrupted run where it stopped. Answers of the model that are on record are not asked for again; a
    /// tool call that was in flight is run again with the same idempotency key if its effect class allows that, else the
    /// model is told that its outcome is unknown. Host values are not on record: tools that need some want
    /// [`resume_with`](Zo::resume_with).
    pub fn resume(&self, run: &RunId) -> RunStream {
        self.resume_with(&Cx::new(""), run)
    }

    /// As [`resume`](Zo::resume), with a context of the host's.
    pub fn resume_with(&self, cx: &Cx, run: &RunId) -> RunStream {
        let (inner, cx, run) = (self.0.clone(), cx.clone(), run.clone());
        RunStream::new(move |events| async move {
            Run::resume(inner, &cx, &run, Some(events)).await?.drive().await
        })
    }

    /// Gives an interrupted run up: what it did joins its conversation, and it is no longer unfinished.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not on record, [`ErrorKind::Conflict`] when it is under way or has ended.
    pub async fn abandon(&self, run: &RunId) -> Result<()> {
        let journal = &self.0.journal;
        if journal.is_active(run) {
            return Err(under_way(run));
        }
        journal.settled().await?;
        let conversation = match journal.load(run) {
            Ok(recorded) => recorded.header.conversation,
            Err(e) if e.kind() == ErrorKind::Corrupt => journal.conversation_of(run).ok_or(e)?,
            Err(e) => return Err(e),
        };
        let _turn = self.0.conversations.turn(&conversation).await;
        self.0.settle(run, &conversation).await
    }

    /// Deletes a conversation: its messages and what is on record of its runs. Memories are another thing: see
    /// [`memory`](Zo::memory). Waits for a run of it that is under way.
    ///
    /// # Errors
    /// Those of the store and the transcript.
    pub async fn delete_conversation(&self, conversation: &str) -> Result<()> {
        let _turn = self.0.conversations.turn(conversation).await;
        self.0.journal.settled().await?;
        let own = self.0.config.own_transcript;
        self.0.journal.delete(conversation, own.then_some(delete_in as DeleteIn)).await?;
        match &self.0.transcript {
            Some(t) if !own => t.delete(&self.cx(), conversation).await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// The messages of a conversation, oldest first.
    ///
    /// # Errors
    /// Those of the transcript.
    pub async fn history(&self, conversation: &str) -> Result<Vec<Message>> {
        match &self.0.transcript {
            Some(t) => t.read(&self.cx(), conversation, 0, usize::MAX).await,
            None => Ok(Vec::new()),
        }
    }

    /// The long-term memory, if there is one.
    pub fn memory(&self) -> Option<&Arc<dyn MemoryStore>> {
        self.0.memory.as_ref()
    }

    /// Where conversations are kept, if they are.
    pub fn transcript(&self) -> Option<&Arc<dyn Transcript>> {
        self.0.transcript.as_ref()
    }

    /// The store, if there is one: for a backup, or to share it.
    pub fn store(&self) -> Option<&Store> {
        self.0.store.as_ref()
    }

    /// Which provider and model answer, and why they were chosen, in words.
    pub fn model_choice(&self) -> String {
        let c = &self.0.config;
        let model = if c.model.is_empty() { "its default model" } else { &c.model };
        format!("{} with {}: {}", self.0.provider.id(), model, c.why)
    }

    fn cx(&self) -> Cx {
        Cx::new("").with_clock(self.0.clock.clone())
    }
}

impl Inner {
    /// The tools on offer now. Put together anew only when a skill offers others than before; when those do not fit together,
    /// the last ones that did stay on offer, with what is wrong.
    pub(crate) fn toolbox(&self) -> Result<(Arc<Toolbox>, Option<Error>)> {
        let by: Vec<Arc<[ToolSpec]>> = self.skills.iter().map(|s| s.tools()).collect();
        let mut kept = self.toolbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*kept
            && kept.by.len() == by.len()
            && kept.by.iter().zip(&by).all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return Ok((kept.toolbox.clone(), None));
        }
        let use_skill = UseSkill::new(&self.skills).map(|u| Arc::new(u) as Arc<dyn Skill>);
        match (Toolbox::new(self.skills.iter().chain(&use_skill)), &*kept) {
            (Ok(toolbox), _) => {
                let toolbox = Arc::new(toolbox);
                *kept = Some(Offered { by, toolbox: toolbox.clone() });
                Ok((toolbox, None))
            }
            (Err(problem), Some(kept)) => Ok((kept.toolbox.clone(), Some(problem))),
            (Err(problem), None) => Err(problem),
        }
    }

    /// Settles every interrupted run of a conversation. The caller holds its turn.
    pub(crate) async fn settle_all(&self, conversation: &str) -> Result<()> {
        for run in self.journal.interrupted_in(conversation) {
            match self.settle(&run, conversation).await {
                Ok(()) => {}
                // It ended after all, or its start never reached the disk.
                Err(e) if matches!(e.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                    self.journal.forget(&run)
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Ends an interrupted run and lets what it did join its conversation. The caller holds the conversation's turn.
    pub(crate) async fn settle(&self, run: &RunId, conversation: &str) -> Result<()> {
        // A dropped future of the run may have left a write in the queue.
        self.journal.settled().await?;
        let recorded = match self.journal.load(run) {
            Ok(recorded) if recorded.ended => return Err(has_ended()),
            Ok(recorded) => recorded,
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                // Nothing can be made of it, and it must not be in the way of everything else.
                let mut active = self.journal.activate(run, conversation)?;
                let outcome = End::Failed { kind: e.kind(), message: e.to_string() };
                self.journal.finish(run, u32::MAX - 1, None, outcome, None).await?;
                active.ended();
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let mut active = self.journal.activate(run, conversation)?;
        let (next, appending) = (recorded.next, recorded.appending);
        let messages = recorded.close("not run: the run was interrupted");
        let append = Append { conversation: conversation.to_owned(), messages };
        self.end(run, next, appending, None, End::Abandoned, Some(append)).await?;
        active.ended();
        Ok(())
    }

    /// Ends a run on record, and appends its messages: in one commit where the transcript lives in the same store. Elsewhere
    /// the last answer and the position come on record first, so that a second try neither asks nor appends again.
    pub(crate) async fn end(
        &self,
        run: &RunId,
        mut next: u32,
        appending: Option<u64>,
        last: Option<Entry<'_>>,
        outcome: End,
        append: Option<Append>,
    ) -> Result<()> {
        if self.config.own_transcript {
            return self.journal.finish(run, next, last, outcome, append).await;
        }
        if let (Some(transcript), Some(a)) = (&self.transcript, append) {
            // Not the run's context: the end of a cancelled run is kept as well. But no transcript may hang it for ever.
            let cx = Cx::new(run.as_str()).with_clock(self.clock.clone()).with_timeout(APPEND_TIMEOUT);
            if let Some(last) = last {
                self.journal.append(run, next, &last).await?;
                next += 1;
            }
            let len = cx.race("zo.append", transcript.len(&cx, &a.conversation)).await??;
            let at = match appending {
                Some(at) => at,
                None => {
                    self.journal.append(run, next, &Entry::Appending { at: len }).await?;
                    next += 1;
                    len
                }
            };
            if len <= at {
                cx.race("zo.append", transcript.append(&cx, &a.conversation, Some(at), &a.messages))
                    .await??;
            }
            return self.journal.finish(run, next, None, outcome, None).await;
        }
        self.journal.finish(run, next, last, outcome, None).await
    }
}

/// Longest time that a transcript kept elsewhere may take.
const APPEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Lets the runs of one conversation follow each other.
#[derive(Debug, Default)]
pub(crate) struct Conversations(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Conversations {
    pub(crate) async fn turn(&self, conversation: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match all.get(conversation).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    // Forget the conversations that nobody holds before the table grows.
                    if all.len() == all.capacity() {
                        all.retain(|_, turn| turn.strong_count() > 0);
                    }
                    let turn = Arc::new(tokio::sync::Mutex::new(()));
                    all.insert(conversation.to_owned(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

#[cfg(feature = "memory")]
fn delete_in(tx: &mut zo_store::Tx<'_>, conversation: &str) -> Result<()> {
    zo_memory::delete_in(tx, conversation).map(|_| ())
}

#[cfg(not(feature = "memory"))]
fn delete_in(_: &mut zo_store::Tx<'_>, _: &str) -> Result<()> {
    Ok(())
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
