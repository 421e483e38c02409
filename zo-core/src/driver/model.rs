//! One turn of the model: what it may cost is set aside, it is asked, and its answer comes on record with the calls that begin
//! at once.

use super::Run;
use crate::{
    RunEvent, Step,
    journal::{Claim, Entry, With},
    lanes::Lanes,
    ledger, trace,
};
use futures_util::{FutureExt, StreamExt};
use std::{borrow::Cow, time::Duration};
use tracing::Instrument;
use zo_store::Urgency;
use zo_traits::{
    Accumulator, Error, ErrorKind, Limits, Overspent, PartKind, Price, Reservation, Response, Result, Spend,
    StreamEvent, ToolChoice, Usage,
};

/// Longest answer that is taken, in bytes of text and arguments.
const MAX_ANSWER: usize = 32 << 20;
/// How long a provider's stream may go on after the end of the answer.
const AFTER_FINISH: Duration = Duration::from_millis(500);
/// How often a request that is too long is tried again with less in it.
const MAX_SHRINKS: u32 = 3;
/// How often a call that a rate limit refused is tried again.
const MAX_WAITS: u32 = 8;
/// What is set aside for an answer at least, in tokens, where so much is left.
const USUAL_ANSWER: u64 = 4_096;
/// What is set aside for an answer at most, in tokens, where the model's longest is not known.
const LONG_ANSWER: u64 = 16_384;
/// Under which name answers are booked that were paid for and lost.
const LOST: &str = "lost answers";
/// How long is waited for what others have set aside.
const HELD: Duration = Duration::from_millis(20);
/// An answer that may not even have this many tokens is not asked for.
const LEAST_ANSWER: u64 = 16;

/// A failed attempt.
struct Failure {
    error: Error,
    /// What it cost all the same.
    usage: Usage,
    /// Something of the answer was seen already.
    flowed: bool,
}

impl Run {
    pub(super) async fn model(&mut self, last: bool) -> Result<()> {
        self.hear_now()?;
        self.view.catch_up(self.machine.messages());
        self.fit().await?;
        let choice = if last && self.machine.steps() > 0 { ToolChoice::None } else { ToolChoice::Auto };
        let (answer, digest) = self.ask_model(choice).await?;
        Box::pin(self.take(answer, digest)).await
    }

    /// Puts an answer on record, with what it cost and the calls that begin at once.
    async fn take(&mut self, answer: Response, request: Option<String>) -> Result<()> {
        let spent = self.cost(1, &answer.usage);
        let microusd = spent.microusd;
        self.microusd = self.microusd.saturating_add(microusd);
        let mut kept = self.log.is_on().then(|| answer.clone());
        self.machine.model(answer)?;
        if let Some(kept) = &mut kept
            && kept.message.tool_calls().next().is_some()
            && let Some(last) = self.machine.last_answer()
        {
            // On record under the ids that the results will have.
            kept.message.clone_from(last);
        }
        if let Some(answer) = kept.as_ref().map(Cow::Borrowed) {
            let claims = match self.machine.step() {
                Step::Tools(calls) => self.first_claims(&calls),
                _ => Vec::new(),
            };
            self.claimed.extend(claims.iter().map(|c| c.id.clone()));
            let charge = charge(&self.header.ledgers, &label(&self.header.model), spent);
            let charge = both(charge, self.charge_time());
            let entry = Entry::Model { answer, claims, heard: self.heard, microusd, request };
            self.log.append(Urgency::Soon, &entry, charge).await?;
        } else {
            self.log.count_unkept();
        }
        let usage = self.machine.usage();
        self.log.tell(|| RunEvent::Usage(usage));
        Ok(())
    }

    /// The calls that begin at once and change the world.
    fn first_claims(&self, calls: &[zo_traits::ToolCall]) -> Vec<Claim> {
        let mut lanes = Lanes::new(calls.iter().map(|c| (c, self.toolbox.spec(&c.name))));
        let first =
            lanes.ready().into_iter().filter_map(|i| calls.get(i)).take(self.inner.config.max_parallel_tools);
        first
            .filter(|c| self.may_begin(c))
            .map(|c| Claim { id: c.id.clone(), effect: self.toolbox.effect(&c.name) })
            .filter(|c| c.effect != zo_traits::Effect::Pure)
            .collect()
    }

    /// One answer of the model. A request that is too long is tried again with less in it, and a provider that is at its
    /// limit is given the time that it asks for.
    async fn ask_model(&mut self, choice: ToolChoice) -> Result<(Response, Option<String>)> {
        let (mut shrinks, mut waits) = (0, 0);
        let mut turn = None;
        loop {
            self.book_time();
            let estimate = self.view.tokens(&self.inner.estimator);
            let held = self.reserve(estimate).await?;
            let pass = match turn.take() {
                Some(turn) => self.inner.admission.enter_again(&self.cx, turn).await?,
                None => self.inner.admission.enter(&self.cx).await?,
            };
            let nudged = self.view.prepare(choice.clone());
            let digest = self.log.is_on().then(|| self.view.digest(&self.inner.frames));
            let request = &self.view.request;
            let (provider, conversation) = (self.inner.provider.id(), &self.header.conversation);
            let span = trace::chat(provider, &request.model, conversation, request.max_tokens);
            let attempt = self.attempt().instrument(span.clone()).await;
            trace::answered(&span, attempt.as_ref().map_err(|f| &f.error));
            drop(span);
            self.view.sent(nudged);
            let failure = match attempt {
                Ok(answer) => {
                    pass.settle(Ok(()));
                    self.settle(held, &answer.usage);
                    self.inner.estimator.observe(&self.view.request.model, estimate, answer.usage.input);
                    return Ok((answer, digest));
                }
                Err(failure) => failure,
            };
            let Failure { error, usage, flowed } = failure;
            // What came before the break was paid for; what was refused was not.
            if flowed || usage.total() > 0 {
                let spent = self.settle(held, &usage);
                if let Some(charge) = charge(&self.header.ledgers, LOST, spent) {
                    self.log.write("charge", Urgency::Soon, charge).await?;
                }
            } else {
                drop(held);
            }
            let place = pass.turn();
            let wait = pass.settle(Err(&error)).filter(|_| !flowed);
            if error.kind() == ErrorKind::ContextOverflow && !flowed && shrinks < MAX_SHRINKS {
                shrinks += 1;
                if Box::pin(self.compact(estimate / 2)).await? {
                    continue;
                }
                return Err(error);
            }
            match wait {
                Some(wait)
                    if waits < MAX_WAITS
                        && wait <= self.inner.config.max_wait
                        && self.cx.remaining().is_none_or(|left| wait < left) =>
                {
                    waits += 1;
                    turn = Some(place);
                    self.log.tell(|| RunEvent::Waiting { wait, why: error });
                    // The door itself keeps everybody waiting for that long.
                }
                _ => return Err(error),
            }
        }
    }

    /// Sets aside what the next answer may cost, and bounds the answer so that it cannot cost more. What others have set aside
    /// from the same allowance may come back: then it is waited for rather than refused.
    async fn reserve(&mut self, estimate: u64) -> Result<Reservation> {
        let mut waited = Duration::ZERO;
        loop {
            // Not for ever: somebody may hold it and never come back.
            let held = self.budget.is_held() && waited < self.inner.config.max_wait;
            match self.try_reserve(estimate, held) {
                Ok(Some(reservation)) => return Ok(reservation),
                Ok(None) => {}
                Err(e) if held && e.source_as::<Overspent>().is_some_and(Overspent::may_pass) => {}
                Err(e) => return Err(e),
            }
            self.cx.race("zo.budget", self.cx.clock().sleep(HELD)).await?;
            waited = waited.saturating_add(HELD);
        }
    }

    /// `None` when there is hardly room for an answer, because others have set something aside.
    fn try_reserve(&mut self, estimate: u64, held: bool) -> Result<Option<Reservation>> {
        let left = self.budget.remaining();
        let model = &self.header.model;
        if left.tokens.is_none() && left.microusd.is_none() {
            return self.budget.reserve_on(&label(model), Spend::steps(1)).map(Some);
        }
        // A prompt that is written to a cache may be the dearest.
        let price = self.inner.price(model);
        let price = price.map(|p| Price { input: p.input.max(p.cache_write).max(p.cache_read), ..p });
        let input = self.inner.estimator.upper(&self.view.request.model, estimate);
        // Generous while there is plenty; less when others spend from the same allowance.
        let most = self.inner.provider.capabilities(model).max_output.map_or(LONG_ANSWER, u64::from);
        let quarter = left.tokens.map_or(most, |tokens| tokens / 4);
        let wanted = most.min(quarter.max(USUAL_ANSWER));
        let output = affordable(left, price.as_ref(), input, wanted);
        if held && output < wanted.min(USUAL_ANSWER) {
            return Ok(None);
        }
        let output = output.max(LEAST_ANSWER);
        let cost = price.map_or(0, |p| p.cost(&Usage::new(input, output)));
        let amount =
            Spend::steps(1).plus(Spend::tokens(input.saturating_add(output))).plus(Spend::microusd(cost));
        let reservation = self.budget.reserve_on(&label(model), amount)?;
        self.view.request.max_tokens = u32::try_from(output).ok();
        Ok(Some(reservation))
    }

    /// Replaces what was set aside by what it cost.
    fn settle(&mut self, held: Reservation, usage: &Usage) -> Spend {
        let spent = self.cost(1, usage);
        held.settle(spent);
        spent
    }

    /// What so many calls of the model with these token counts cost.
    pub(super) fn cost(&self, calls: u64, usage: &Usage) -> Spend {
        let microusd = self.inner.price(&self.header.model).map_or(0, |p| p.cost(usage));
        Spend::steps(calls).plus(Spend::tokens(usage.total())).plus(Spend::microusd(microusd))
    }

    /// Books the time since the last booking. Time passes for a run and for what it started at once, so it is booked once: to
    /// the run itself, and by the topmost to the ledger that it spends from.
    pub(super) fn book_time(&mut self) {
        let now = self.cx.clock().monotonic();
        let millis = u64::try_from(now.saturating_sub(self.booked).as_millis()).unwrap_or(u64::MAX);
        if millis > 0 {
            self.booked = now;
            self.unbooked = self.unbooked.saturating_add(millis);
            if self.header.parent.is_none() {
                self.budget.record_on("time", Spend::millis(millis));
            } else {
                self.budget.record_here("time", Spend::millis(millis));
            }
        }
    }

    /// What puts the time on record that was booked since it was last done.
    pub(super) fn charge_time(&mut self) -> Option<With> {
        self.book_time();
        let millis = Spend::millis(std::mem::take(&mut self.unbooked));
        let all = self.header.ledgers.as_slice();
        let own = usize::from(self.header.own_ledger().is_some());
        let ledgers = if self.header.parent.is_some() { all.get(..own).unwrap_or_default() } else { all };
        charge(ledgers, "time", millis)
    }

    /// Books the answer that may have been paid for and lost when the run was interrupted.
    pub(super) async fn book_lost(&mut self) -> Result<()> {
        self.view.catch_up(self.machine.messages());
        let input = self.view.tokens(&self.inner.estimator);
        let input = self.inner.estimator.upper(&self.view.request.model, input);
        let lost = self.cost(1, &Usage::new(input, USUAL_ANSWER));
        self.budget.record_on(LOST, lost);
        match charge(&self.header.ledgers, LOST, lost) {
            Some(charge) => self.log.write("charge", Urgency::Soon, charge).await,
            None => Ok(()),
        }
    }

    /// One request, told as its answer comes.
    async fn attempt(&mut self) -> Result<Response, Failure> {
        let (provider, cx, request, log) = (&self.inner.provider, &self.cx, &self.view.request, &self.log);
        let failed = |error| Failure { error, usage: Usage::default(), flowed: false };
        let stream = cx.race("zo.model", provider.stream(cx, request)).await.map_err(failed)?;
        let mut stream = stream.map_err(failed)?;
        let mut answer = Accumulator::default();
        let mut flowed = false;
        let whole = cx
            .race("zo.model", async {
                let mut length = 0;
                while let Some(event) = stream.next().await {
                    let event = event?;
                    if let StreamEvent::Delta { index, text } = &event {
                        length += text.len();
                        flowed = true;
                        match answer.kind(*index).filter(|_| !text.is_empty()) {
                            Some(PartKind::Text | PartKind::Refusal) => log.fragment(text, false),
                            Some(PartKind::Reasoning) => log.fragment(text, true),
                            _ => {}
                        }
                    }
                    answer.push(event)?;
                    if length > MAX_ANSWER {
                        return Err(Error::new(ErrorKind::Corrupt, "zo.model", "the answer never ends"));
                    }
                    if answer.is_finished() {
                        break;
                    }
                }
                Ok(())
            })
            .await
            .and_then(|inner| inner);
        if let Err(error) = whole {
            return Err(Failure { error, usage: answer.usage(), flowed });
        }
        // The end of the bytes behind the end of the answer leaves the connection fit for the next; a server that keeps
        // it open gets a moment, and no more. An event there breaks the grammar.
        let usage = answer.usage();
        let broken = |error| Failure { error, usage, flowed: true };
        if answer.is_finished() {
            let more = match stream.next().now_or_never() {
                Some(more) => more,
                None => {
                    let moment = cx.child().with_timeout(AFTER_FINISH);
                    moment.race("zo.model", stream.next()).await.unwrap_or(None)
                }
            };
            if let Some(more) = more {
                more.and_then(|event| answer.push(event)).map_err(broken)?;
            }
        }
        answer.finish().map_err(broken)
    }
}

/// Two changes as one.
pub(super) fn both(a: Option<With>, b: Option<With>) -> Option<With> {
    match (a, b) {
        (Some(mut a), Some(mut b)) => Some(Box::new(move |tx| {
            a(tx)?;
            b(tx)
        })),
        (a, b) => a.or(b),
    }
}

/// Under which name the cost of a model is booked.
pub(super) fn label(model: &str) -> String {
    if model.is_empty() { "model".into() } else { format!("model {model}") }
}

/// What books an amount in these ledgers.
pub(crate) fn charge(ledgers: &[String], what: &str, amount: Spend) -> Option<With> {
    if ledgers.is_empty() || amount.is_zero() {
        return None;
    }
    let (ledgers, what) = (ledgers.to_vec(), what.to_owned());
    Some(Box::new(move |tx| {
        ledgers.iter().try_for_each(|id| match ledger::add(tx, id, &[(&what, amount)]) {
            // A run above this one may be over; its ledger went with it.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        })
    }))
}

/// The longest answer up to `wanted` tokens that the allowance has room for behind `input` tokens.
fn affordable(left: Limits, price: Option<&zo_traits::Price>, input: u64, wanted: u64) -> u64 {
    let mut most = wanted;
    if let Some(tokens) = left.tokens {
        most = most.min(tokens.saturating_sub(input));
    }
    if let (Some(money), Some(price)) = (left.microusd, price)
        && price.output > 0
    {
        let rest = money.saturating_sub(price.cost(&Usage::new(input, 0)));
        let tokens = u128::from(rest) * 1_000_000 / u128::from(price.output);
        most = most.min(u64::try_from(tokens).unwrap_or(u64::MAX));
    }
    most
}
