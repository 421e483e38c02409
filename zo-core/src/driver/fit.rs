//! Keeps the request inside the model's window: what is old becomes a summary, the transcript stays whole.

use super::{Run, start};
use crate::{
    RunEvent,
    context::{
        compact,
        record::Compaction,
        summarize::{self, Summarizer, Summary},
    },
    history,
    journal::Entry,
};
use std::borrow::Cow;
use zo_store::Urgency;
use zo_traits::{ErrorKind, Message, Result, Usage};

/// Longest summary, in tokens.
const SUMMARY: u32 = 1_024;
/// Most requests for one summary, and tokens of what is said around the text, for what is set aside.
const PIECES: u64 = 8;
const PROMPT: u64 = 600;
/// The window of a model about which nothing is known, in tokens.
const USUAL_WINDOW: u64 = 100_000;

impl Run {
    /// Before each question to the model: is there room for it and for the answer? Tool results have come since the last one.
    pub(super) async fn fit(&mut self) -> Result<()> {
        let base = self.view.tokens(&self.inner.estimator);
        let (estimator, model) = (&self.inner.estimator, self.view.request.model.as_str());
        let tokens = estimator.corrected(model, base);
        let most = self.window();
        if tokens > most {
            // What could not be made to fit is not tried again at every step.
            if tokens > self.futile / 4 * 5 {
                let keep = estimator.base(model, most / 2);
                Box::pin(self.compact(keep)).await?;
                let after = self.view.tokens(&self.inner.estimator);
                let after = self.inner.estimator.corrected(&self.view.request.model, after);
                self.futile = if after > most { after } else { 0 };
            }
            return Ok(());
        }
        // The conversation before the run is bounded by the host's wish.
        let history = self.view.history_tokens(estimator);
        let most = self.inner.config.history_tokens as u64;
        if self.machine.steps() == 0 && !self.compacted && estimator.corrected(model, history) > most {
            let keep = base.saturating_sub(history).saturating_add(estimator.base(model, most / 2));
            Box::pin(self.compact(keep)).await?;
        }
        Ok(())
    }

    /// Most estimated tokens of one request.
    fn window(&self) -> u64 {
        let capabilities = self.inner.provider.capabilities(&self.header.model);
        match (self.inner.config.context_tokens, capabilities.context_window) {
            (Some(n), Some(window)) => n.min(u64::from(window)),
            (Some(n), None) => n,
            // Room for the answer, and for an estimate that is off by some.
            (None, Some(window)) => {
                let answer = capabilities.max_output.map_or(4_096, u64::from).min(u64::from(window) / 4);
                (u64::from(window) - answer) / 10 * 9
            }
            (None, None) => USUAL_WINDOW,
        }
    }

    /// Makes a summary of the beginning of what the model sees, so that about `keep` base tokens stay. `false` when nothing could
    /// be left out.
    pub(super) async fn compact(&mut self, keep: u64) -> Result<bool> {
        let base = self.header.base;
        let since = self.compaction.as_ref().map_or(self.header.from, |c| c.upto);
        let conversation = self.header.conversation.clone();
        let mut raw = match &self.inner.transcript {
            Some(t) if since < base => {
                self.cx
                    .race("zo.compact", history::read(&self.cx, t.as_ref(), &conversation, since, base))
                    .await??
            }
            _ => Vec::new(),
        };
        let own = usize::try_from(since.saturating_sub(base)).unwrap_or(usize::MAX);
        raw.extend(self.machine.messages().get(own..).unwrap_or_default().iter().cloned());
        let model = self.view.request.model.clone();
        let costs = self.inner.estimator.messages(&model, &raw);
        // What is asked for is a size of the whole; and something goes in any case.
        let total: u64 = costs.iter().fold(0, |sum, n| sum.saturating_add(*n));
        let before = self.view.tokens(&self.inner.estimator);
        let rest = before.saturating_sub(total);
        let keep = keep.saturating_sub(rest).min(total.saturating_sub(1).min(total / 4 * 3));
        let pins = self.inner.pins(&conversation)?;
        let pinned = |i: usize| pins.contains(&(since + i as u64));
        let Some(plan) = compact::plan(&raw, &costs, &pinned, keep) else {
            return self.shorten(before).await;
        };
        let upto = since + plan.cut as u64;
        let mut dropped: Vec<Message> = Vec::new();
        let mut positions: Vec<u64> = Vec::new();
        for at in self.compaction.iter().flat_map(|c| c.pinned.clone()) {
            if pins.contains(&at) || at >= base {
                positions.push(at);
            } else if let Some(t) = &self.inner.transcript {
                // Pinned no more: now it is told in the notes.
                let read = history::read(&self.cx, t.as_ref(), &conversation, at, at + 1);
                dropped.extend(self.cx.race("zo.compact", read).await??);
            }
        }
        dropped.extend_from_slice(raw.get(..plan.cut).unwrap_or_default());
        positions.extend(plan.pinned.iter().map(|i| since + *i as u64));
        // The question of this run is in every request by itself.
        positions.retain(|at| *at != base);
        let previous = self.compaction.as_ref().map(|c| c.summary.clone());
        let (summary, microusd) = self.summarize(previous.as_deref(), &dropped).await?;
        self.microusd = self.microusd.saturating_add(microusd);
        let now = self.inner.clock.now();
        let mut compaction = Compaction::new(&conversation, since, upto, summary.text, summary.method, now);
        compaction.pinned = positions;
        compaction.tokens_before = before;
        self.see_anew(Some(&compaction), self.shortened).await?;
        let after = self.view.tokens(&self.inner.estimator);
        compaction.tokens_after = after;
        let entry = Entry::Compacted { compaction: Cow::Borrowed(&compaction), microusd };
        self.log.append(Urgency::Soon, &entry, None).await?;
        self.log.tell(|| RunEvent::Compacted { messages: upto.saturating_sub(since), before, after });
        self.compaction = Some(compaction);
        self.compacted = true;
        Ok(after < before)
    }

    /// Cuts tool results down, where there is nothing else left to leave out. `false` when that changed nothing.
    async fn shorten(&mut self, before: u64) -> Result<bool> {
        let n = u32::try_from(self.machine.messages().len()).unwrap_or(u32::MAX);
        let compaction = self.compaction.take();
        let seen = self.see_anew(compaction.as_ref(), Some(n)).await;
        self.compaction = compaction;
        seen?;
        self.shortened = Some(n);
        self.log.append(Urgency::Soon, &Entry::Shortened { own: n }, None).await?;
        Ok(self.view.tokens(&self.inner.estimator) < before)
    }

    /// Puts the request together from the beginning, with this compaction and with tool results cut down as far as this.
    async fn see_anew(&mut self, compaction: Option<&Compaction>, shortened: Option<u32>) -> Result<()> {
        let own = self.machine.messages();
        let back = start::back(&self.inner, &self.cx, &self.header, compaction, own);
        let stuff = self.cx.race("zo.compact", back).await??;
        let max_tokens = self.view.request.max_tokens;
        self.view = start::view(&self.header, &self.setup, stuff, shortened, own);
        self.view.catch_up(own);
        self.view.request.max_tokens = max_tokens;
        Ok(())
    }

    /// The text that stands for `dropped`, and its price. What it costs is this run's.
    async fn summarize(&self, previous: Option<&str>, dropped: &[Message]) -> Result<(Summary, u64)> {
        let (provider, model) = (self.inner.provider.as_ref(), self.header.model.as_str());
        let room = self
            .inner
            .estimator
            .messages(model, dropped)
            .iter()
            .fold(0, |sum: u64, n| sum.saturating_add(*n));
        let room = self.inner.estimator.upper(model, room.saturating_add(PROMPT));
        // Long ones are read in several pieces, each with the notes on those before it.
        let most = self.cost(PIECES, &Usage::new(room.saturating_mul(2), u64::from(SUMMARY) * PIECES));
        let held = match self.inner.config.plain_summaries {
            true => None,
            false => self.budget.reserve_on("summaries", most).ok(),
        };
        let how = Summarizer {
            estimator: &self.inner.estimator,
            window: provider.capabilities(model).context_window.map(u64::from),
            offline: held.is_none(),
        };
        // Its requests count at the provider's door as well.
        let pass = match &held {
            Some(_) => Some(self.inner.admission.enter(&self.cx).await?),
            None => None,
        };
        let summary =
            summarize::summarize(&self.cx, &how, provider, model, previous, dropped, SUMMARY).await?;
        if let Some(pass) = pass {
            pass.settle(summary.problem.as_ref().map_or(Ok(()), Err));
        }
        let mut paid = 0;
        if let Some(held) = held {
            let asked = summary.usage.total() > 0;
            let spent = self.cost(asked.into(), &summary.usage);
            paid = spent.microusd;
            held.settle(spent);
            if let Some(charge) = super::model::charge(&self.header.ledgers, "summaries", spent) {
                self.log.write("charge", Urgency::Soon, charge).await?;
            }
        }
        if let Some(problem) = &summary.problem
            && problem.kind() != ErrorKind::Cancelled
        {
            self.warn(problem.clone());
        }
        Ok((summary, paid))
    }
}
