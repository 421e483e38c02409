//! What is on record, and what a host does with it: decisions, replays, conversations, ledgers, standing instructions.

use crate::{
    Approval, Decision, Ledger, Rule, RuleId, RunId, RunReplay, Zo, approval,
    context::record::{self, Compaction},
    journal::DeleteIn,
    ledger, replay, rules,
};
use std::sync::PoisonError;
use zo_store::Store;
use zo_traits::{Budget, Error, ErrorKind, Limits, Message, Result, Scope};

impl Zo {
    /// The calls that wait for a decision, oldest first.
    ///
    /// # Errors
    /// Those of the store.
    pub fn approvals(&self) -> Result<Vec<Approval>> {
        match self.inner.journal.store() {
            Some(store) => store.read(|s| approval::pending(s)),
            None => Ok(Vec::new()),
        }
    }

    /// Allows a call: this one, with these arguments, once. `by` is who decided, for the record. Durable when it returns. Gives
    /// the run to [`resume`](Zo::resume), if it is parked: that of the call, or the one above whose sub-agent it is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing waits there; [`ErrorKind::Conflict`] when it was decided otherwise, expired, or was
    /// asked about other arguments.
    pub async fn approve(&self, approval: &Approval, by: impl Into<String>) -> Result<RunId> {
        self.decide(approval, Decision::Allow, by.into()).await
    }

    /// Refuses a call; the model is told why. As [`approve`](Zo::approve).
    ///
    /// # Errors
    /// As [`approve`](Zo::approve).
    pub async fn deny(
        &self,
        approval: &Approval,
        why: impl Into<String>,
        by: impl Into<String>,
    ) -> Result<RunId> {
        self.decide(approval, Decision::Deny { why: why.into() }, by.into()).await
    }

    async fn decide(&self, a: &Approval, decision: Decision, by: String) -> Result<RunId> {
        let Some(store) = self.inner.journal.store() else {
            return Err(Error::new(ErrorKind::NotFound, "zo.approve", "nothing waits for a decision"));
        };
        let (run, call, digest) = (a.run.clone(), a.call.id.clone(), a.digest.clone());
        let now = self.inner.clock.now();
        store.write(move |tx| approval::decide(tx, &run, &call, &digest, &decision, &by, now)).await?;
        self.inner.root(&RunId::from(a.run.as_str()))
    }

    /// Goes through a run on record again, without asking a model or running a tool: every request as it was sent, every
    /// answer, every result.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] naming the step whose request does not come out as it was sent, because
    /// the conversation before it was changed or this version makes requests differently; [`ErrorKind::Unsupported`] for a
    /// run that a version before 0.2 recorded.
    pub async fn replay(&self, run: &RunId) -> Result<RunReplay> {
        self.inner.journal.settled().await?;
        replay::replay(&self.inner, run).await
    }

    /// Begins anew after the first `steps` answers of a run, in a conversation of its own which must be empty: with what came
    /// before, with those answers and what their tools gave. The fork is unfinished; [`resume`](Zo::resume) goes another way
    /// from there. The run itself stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such run or it has fewer steps; [`ErrorKind::Conflict`] when the conversation is
    /// not empty, or when nothing was left to do after those steps.
    pub async fn fork(&self, run: &RunId, steps: u32, conversation: impl Into<String>) -> Result<RunId> {
        self.inner.fork(run, steps, conversation.into()).await
    }

    /// Deletes a conversation: its messages and what is on record of its runs. Memories are another thing: see
    /// [`memory`](Zo::memory). Waits for a run of it that is under way.
    ///
    /// # Errors
    /// Those of the store and the transcript.
    pub async fn delete_conversation(&self, conversation: &str) -> Result<()> {
        let _turn = self.inner.conversations.turn(conversation).await;
        self.inner.journal.settled().await?;
        let own = self.inner.config.own_transcript;
        self.inner.journal.delete(conversation, own.then_some(delete_in as DeleteIn)).await?;
        match &self.inner.transcript {
            Some(t) if !own => {
                self.inner
                    .ram_compactions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(conversation);
                t.delete(&self.cx(), conversation).await.map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// The messages of a conversation, oldest first; all of them, whatever was made a summary of.
    ///
    /// # Errors
    /// Those of the transcript.
    pub async fn history(&self, conversation: &str) -> Result<Vec<Message>> {
        match &self.inner.transcript {
            Some(t) => t.read(&self.cx(), conversation, 0, usize::MAX).await,
            None => Ok(Vec::new()),
        }
    }

    /// The summaries that were made of a conversation, oldest first, with what each left out of the model's sight.
    ///
    /// # Errors
    /// Those of the store.
    pub fn compactions(&self, conversation: &str) -> Result<Vec<Compaction>> {
        match self.inner.journal.store() {
            Some(store) => store.read(|s| record::list(s, conversation)),
            None => {
                let all = self.inner.ram_compactions.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(all.get(conversation).into_iter().cloned().collect())
            }
        }
    }

    /// Takes the latest summary back: the model sees again what it stood for, as far as there is room.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn undo_compaction(&self, conversation: &str) -> Result<Option<Compaction>> {
        let Some(store) = self.inner.journal.store() else {
            let mut all = self.inner.ram_compactions.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(all.remove(conversation));
        };
        let _turn = self.inner.conversations.turn(conversation).await;
        let name = conversation.to_owned();
        store.write(move |tx| record::undo(tx, &name)).await
    }

    /// Keeps the message at this position of a conversation in the model's sight, word for word, through every compaction to
    /// come. Positions are those of [`history`](Zo::history).
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] without a file; those of the store.
    pub async fn pin(&self, conversation: &str, position: u64) -> Result<()> {
        let name = conversation.to_owned();
        self.kept("zo.pin")?.write(move |tx| record::pin(tx, &name, position).map(|_| ())).await
    }

    /// Takes a [`pin`](Zo::pin) back.
    ///
    /// # Errors
    /// As [`pin`](Zo::pin).
    pub async fn unpin(&self, conversation: &str, position: u64) -> Result<()> {
        let name = conversation.to_owned();
        self.kept("zo.unpin")?.write(move |tx| record::unpin(tx, &name, position).map(|_| ())).await
    }

    /// Opens a ledger: an allowance that many runs share ([`Ask::ledger`](crate::Ask::ledger)) and that no restart refills. One that exists keeps
    /// what was spent.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it is in use with other limits.
    pub async fn open_ledger(&self, id: &str, limits: Limits) -> Result<Budget> {
        self.inner.ledgers.open(id, limits).await
    }

    /// The ledgers on record, with what was spent on what. Those of unfinished runs are among them, under the run's id.
    ///
    /// # Errors
    /// Those of the store.
    pub fn ledgers(&self) -> Result<Vec<Ledger>> {
        match self.inner.journal.store() {
            Some(store) => store.read(|s| ledger::list(s)),
            None => Ok(Vec::new()),
        }
    }

    /// The standing instructions of a scope.
    ///
    /// # Errors
    /// Those of the store.
    pub fn rules(&self, scope: &Scope) -> Result<Vec<Rule>> {
        match self.inner.journal.store() {
            Some(store) => store.read(|s| rules::list(s, scope)),
            None => Ok(Vec::new()),
        }
    }

    /// Makes a standing instruction of a scope: it is part of the system text of every run of that scope, and with a condition
    /// it is to be followed only then.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an empty or overlong one; [`ErrorKind::Exhausted`] when there are too many;
    /// [`ErrorKind::Unsupported`] without a file.
    pub async fn create_rule(
        &self,
        scope: &Scope,
        instruction: &str,
        condition: Option<&str>,
    ) -> Result<Rule> {
        let (scope, instruction, condition) =
            (scope.clone(), instruction.to_owned(), condition.map(str::to_owned));
        let now = self.inner.clock.now();
        let create = move |tx: &mut zo_store::Tx<'_>| {
            rules::create(tx, &scope, None, now, &instruction, condition.as_deref())
        };
        self.kept("zo.create_rule")?.write(create).await
    }

    /// Turns a standing instruction on or off.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; those of the store.
    pub async fn enable_rule(&self, scope: &Scope, id: RuleId, on: bool) -> Result<Rule> {
        let scope = scope.clone();
        self.kept("zo.enable_rule")?.write(move |tx| rules::set_enabled(tx, &scope, id, on)).await
    }

    /// Deletes a standing instruction; `false` when there was none.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn delete_rule(&self, scope: &Scope, id: RuleId) -> Result<bool> {
        let scope = scope.clone();
        self.kept("zo.delete_rule")?.write(move |tx| rules::delete(tx, &scope, id)).await
    }

    fn kept(&self, op: &'static str) -> Result<&Store> {
        self.inner.journal.store().ok_or_else(|| {
            let message = "nothing is kept without a file: give the builder a `file` or a `store`";
            Error::new(ErrorKind::Unsupported, op, message)
        })
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
