//! The handle that a host holds, and what it can ask of it.

use crate::{
    Ask, Cursor, Reply, RunId, RunStream, Unfinished, ZoBuilder,
    agents::Agents,
    ask::check_message,
    driver::Run,
    inner::Inner,
    journal::{Entry, Listener, Log, missing, under_way},
};
use serde_json::Value;
use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};
use zo_store::{Store, Urgency};
use zo_traits::{Cx, Error, ErrorKind, MemoryStore, Message, Result, ToolResult, Transcript};

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
/// All methods that wait must be polled inside a Tokio runtime with its time driver enabled. Runs that were
/// [spawned](Zo::spawn) end with the last handle; with a file they can then be resumed.
#[derive(Debug, Clone)]
pub struct Zo {
    pub(crate) inner: Arc<Inner>,
    pub(crate) agents: Arc<Agents>,
}

/// Where a run that is about to start is found.
type Slot = Arc<OnceLock<Arc<Log>>>;

impl Zo {
    /// Starts to put an agent together.
    pub fn builder() -> ZoBuilder {
        ZoBuilder::default()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Those of the provider and the store; a tool that fails is told to the model and is not an error here.
    /// [`ErrorKind::Denied`] with an [`Overspent`](crate::Overspent) as its source when an allowance is used up;
    /// [`ErrorKind::Conflict`] when a run of this conversation waits for an approval. When the error is a passing one and the
    /// run had got somewhere, it stays in [`unfinished`](Zo::unfinished): then [`resume`](Zo::resume) it. **Asking again
    /// instead asks the model anew**, which may call its tools again.
    ///
    /// A run that needs an approval ends in a [parked](Reply::is_parked) reply.
    ///
    /// # Cancel safety
    /// Dropping the future stops the run. With a file it stays in [`unfinished`](Zo::unfinished).
    pub async fn ask(&self, conversation: impl Into<String>, text: impl Into<String>) -> Result<Reply> {
        self.ask_with(&Cx::new(""), Ask::new(conversation, text)).await
    }

    /// As [`ask`](Zo::ask), with a context of the host's (cancellation, deadline, budget, host values for skills) and all
    /// options. From inside a tool, with the tool's context, it starts a child: what the parent may not do it may not
    /// either, and it spends from the parent's allowance.
    ///
    /// # Errors
    /// As [`ask`](Zo::ask).
    pub async fn ask_with(&self, cx: &Cx, ask: Ask) -> Result<Reply> {
        self.inner.clone().ask(cx, ask).await
    }

    /// Asks for an answer that fits a JSON Schema, and gives it as JSON. A provider that supports schemas is told it; to
    /// others the model is told in words. What does not fit is sent back, twice at most.
    ///
    /// # Errors
    /// As [`ask`](Zo::ask); [`ErrorKind::Corrupt`] when no answer fits; [`ErrorKind::Conflict`] when the run is parked.
    pub async fn ask_json(&self, cx: &Cx, ask: Ask, schema: impl Into<Arc<Value>>) -> Result<Value> {
        let schema = schema.into();
        let reply = self.ask_with(cx, ask.output_schema(schema.clone())).await?;
        unparked(&reply)?;
        crate::structured::value(&schema, &reply.text)
    }

    /// Asks for an answer of a type.
    ///
    /// ```no_run
    /// # use zo_core::skills::schemars;
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct Invoice { number: String, total_cents: u64 }
    /// # async fn demo(zo: zo_core::Zo) -> zo_core::Result<()> {
    /// let invoice: Invoice = zo.ask_as("inbox", "What does this say? Invoice No. 7, 12.50 EUR").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`ask_json`](Zo::ask_json).
    #[cfg(feature = "skills")]
    pub async fn ask_as<T>(&self, conversation: impl Into<String>, text: impl Into<String>) -> Result<T>
    where
        T: serde::de::DeserializeOwned + zo_skills::schemars::JsonSchema,
    {
        self.ask_as_with(&Cx::new(""), Ask::new(conversation, text)).await
    }

    /// As [`ask_as`](Zo::ask_as), with a context and all options.
    ///
    /// # Errors
    /// As [`ask_json`](Zo::ask_json).
    #[cfg(feature = "skills")]
    pub async fn ask_as_with<T>(&self, cx: &Cx, ask: Ask) -> Result<T>
    where
        T: serde::de::DeserializeOwned + zo_skills::schemars::JsonSchema,
    {
        let schema: Arc<Value> = Arc::new(zo_skills::schema_of::<T>());
        let reply = self.ask_with(cx, ask.output_schema(schema.clone())).await?;
        unparked(&reply)?;
        crate::structured::typed(&schema, &reply.text)
    }

    /// Asks, and gives back what happens as it happens. The run goes on as the stream is polled; dropping it stops the
    /// run.
    pub fn stream(&self, conversation: impl Into<String>, text: impl Into<String>) -> RunStream {
        self.stream_with(&Cx::new(""), Ask::new(conversation, text))
    }

    /// As [`stream`](Zo::stream), with a context of the host's and all options.
    pub fn stream_with(&self, cx: &Cx, ask: Ask) -> RunStream {
        let (inner, cx) = (self.inner.clone(), cx.clone());
        RunStream::new(move |listener: Arc<Listener>, slot: Slot| async move {
            let run = Box::pin(Run::start(inner, &cx, ask, Some((&listener, &slot)))).await?;
            run.drive().await
        })
    }

    /// Looks on at a run from `cursor` on: at one that is under way in this process, however it was started, or at one on
    /// record. Any number may look on. The stream never holds up the run: who falls behind misses fragments, is told by
    /// [`RunEvent::Gap`](crate::RunEvent::Gap), and gets what is on record of them.
    ///
    /// After a disconnect, [`RunStream::cursor`] of the lost stream is where a new one goes on; no word comes twice. What may
    /// come again are [`ToolStarted`](crate::RunEvent::ToolStarted) of calls in flight and [`Usage`](crate::RunEvent::Usage).
    pub fn attach(&self, run: &RunId, cursor: Cursor) -> RunStream {
        RunStream::attach(&self.inner, run, cursor)
    }

    /// Says something to the run that is under way in a conversation. The model hears it at its next turn: after the tool
    /// calls that it is waiting for, and instead of ending if it was about to. Durable when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when no run is under way there: [`ask`](Zo::ask) instead. [`ErrorKind::Conflict`] when the run
    /// came to its end meanwhile; [`ErrorKind::Unavailable`] when too much waits for it already.
    pub async fn say(&self, conversation: &str, text: impl Into<String>) -> Result<RunId> {
        self.say_message(conversation, Message::user(text)).await
    }

    /// As [`say`](Zo::say), with a message of any parts.
    ///
    /// # Errors
    /// As [`say`](Zo::say).
    pub async fn say_message(&self, conversation: &str, message: Message) -> Result<RunId> {
        check_message("zo.say", &message)?;
        let Some(log) = self.inner.journal.talking_in(conversation) else {
            let text = format_args!("no run is under way in {conversation:?}; ask instead");
            return Err(Error::new(ErrorKind::NotFound, "zo.say", text));
        };
        log.say(message).await?;
        Ok(log.run.clone())
    }

    /// The runs that were interrupted, oldest first: by a crash, by dropping their stream, or by a passing error; and those
    /// that wait for an approval.
    ///
    /// # Errors
    /// Those of the store.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>> {
        self.inner.journal.unfinished()
    }

    /// The runs that are under way in this process, oldest first.
    pub fn running(&self) -> Vec<RunId> {
        self.inner.journal.running()
    }

    /// Continues an interrupted or parked run where it stopped. Answers of the model that are on record are not asked for
    /// again; a tool call that was in flight is run again with the same idempotency key if its effect class allows that, else
    /// the model is told that its outcome is unknown. Host values are not on record: tools that need some want
    /// [`resume_with`](Zo::resume_with).
    pub fn resume(&self, run: &RunId) -> RunStream {
        self.resume_with(&Cx::new(""), run)
    }

    /// As [`resume`](Zo::resume), with a context of the host's.
    pub fn resume_with(&self, cx: &Cx, run: &RunId) -> RunStream {
        let (inner, cx, run) = (self.inner.clone(), cx.clone(), run.clone());
        RunStream::new(move |listener: Arc<Listener>, slot: Slot| async move {
            Box::pin(Run::resume(inner, &cx, &run, Some((&listener, &slot)))).await?.drive().await
        })
    }

    /// Tells the true outcome of a call that was in flight at a crash and must not be repeated, before its run is resumed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the run has no such call whose outcome is unknown; [`ErrorKind::Conflict`] when it is
    /// under way or over.
    pub async fn supply(&self, run: &RunId, result: ToolResult) -> Result<()> {
        let journal = &self.inner.journal;
        if journal.is_active(run) {
            return Err(under_way(run));
        }
        journal.settled().await?;
        let conversation = journal.header(run)?.ok_or_else(|| missing(run))?.conversation;
        let _turn = self.inner.conversations.turn(&conversation).await;
        // Whoever had the turn before may have been dropped and left a write behind.
        journal.settled().await?;
        let mut recorded = journal.load(run)?;
        let over =
            recorded.ended.is_some() || Run::is_appended(&self.inner, &self.cx(), run, &mut recorded).await?;
        if over {
            return Err(crate::journal::has_ended());
        }
        if !recorded.unknown().iter().any(|c| c.id == result.id && c.name == result.name) {
            let message = format_args!(
                "run {run} has no call {:?} of {:?} whose outcome is unknown",
                result.id, result.name
            );
            return Err(Error::new(ErrorKind::NotFound, "zo.supply", message));
        }
        let active = journal.activate_silent(run, &conversation, recorded.next)?;
        active.log.append(Urgency::Now, &Entry::Tool { result: Cow::Borrowed(&result) }, None).await?;
        active.log.settled().await
    }

    /// Gives an interrupted or parked run up: what it did joins its conversation, and it is no longer unfinished.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not on record, [`ErrorKind::Conflict`] when it is under way or has ended.
    pub async fn abandon(&self, run: &RunId) -> Result<()> {
        let journal = &self.inner.journal;
        if journal.is_active(run) {
            return Err(under_way(run));
        }
        journal.settled().await?;
        let conversation = match journal.load(run) {
            Ok(recorded) => recorded.header.conversation,
            // What cannot be read, or only by a newer version, is given up as it is.
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                journal.conversation_of(run).ok_or(e)?
            }
            Err(e) => return Err(e),
        };
        let _turn = self.inner.conversations.turn(&conversation).await;
        self.inner.settle(run, &conversation, true).await
    }

    /// The long-term memory, if there is one.
    pub fn memory(&self) -> Option<&Arc<dyn MemoryStore>> {
        self.inner.memory.as_ref()
    }

    /// Where conversations are kept, if they are.
    pub fn transcript(&self) -> Option<&Arc<dyn Transcript>> {
        self.inner.transcript.as_ref()
    }

    /// The store, if there is one: for a backup, or to share it.
    pub fn store(&self) -> Option<&Store> {
        self.inner.store.as_ref()
    }

    /// Which provider and model answer, and why they were chosen, in words.
    pub fn model_choice(&self) -> String {
        let c = &self.inner.config;
        let model = if c.model.is_empty() { "its default model" } else { &c.model };
        format!("{} with {}: {}", self.inner.provider.id(), model, c.why)
    }

    pub(crate) fn cx(&self) -> Cx {
        Cx::new("").with_clock(self.inner.clock.clone())
    }
}

/// An answer that is there.
fn unparked(reply: &Reply) -> Result<()> {
    if reply.is_parked() {
        let message = format_args!("run {} waits for an approval; there is no answer yet", reply.run);
        return Err(Error::new(ErrorKind::Conflict, "zo.ask", message));
    }
    Ok(())
}
