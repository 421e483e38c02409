//! One turn's tool calls: what may run runs, in parallel where nothing is in the way; what needs a decision waits for it.

use super::Run;
use crate::{
    Approval, RunEvent,
    approval::{self, State},
    journal::{Claim, Entry, With, unknown_outcome},
    lanes::Lanes,
    permission::Verdict,
    toolbox::{Waits, output_id},
    trace,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{collections::VecDeque, sync::PoisonError};
use tracing::Instrument;
use zo_store::Urgency;
use zo_traits::{Effect, ErrorKind, Result, Spend, ToolCall, ToolOutput, ToolResult, ToolStatus};

/// How one call came out.
enum Outcome {
    Ended(ToolResult),
    /// It is not over: something in it waits for a decision.
    Waits,
}

/// What may be done with a call now.
enum Gate {
    Run,
    Refuse(ToolResult),
    Ask(Approval),
}

impl Run {
    /// Runs the open calls. Gives those that wait for a decision, when nothing else is left to do.
    pub(super) async fn tools(&mut self, calls: Vec<ToolCall>) -> Result<Vec<Approval>> {
        let (results, waiting, failed) = self.round(&calls).await;
        // What has ended was seen to end, whatever became of the others.
        for result in results {
            self.machine.tool(result)?;
        }
        failed?;
        if waiting.is_empty() {
            return Ok(waiting);
        }
        // Decisions may have come while the others ran.
        let Some(store) = self.inner.journal.store() else { return Ok(waiting) };
        self.log.settled().await?;
        let now = self.inner.clock.now();
        let undecided = store.read(|s| {
            let mut some = false;
            for a in &waiting {
                some |= approval::state(s, &a.run, &a.call, now)? == Some(State::Pending);
            }
            Ok(some)
        })?;
        if undecided {
            return Ok(waiting);
        }
        match self.machine.step() {
            crate::Step::Tools(open) => Box::pin(self.tools(open)).await,
            _ => Ok(Vec::new()),
        }
    }

    async fn round(&self, calls: &[ToolCall]) -> (Vec<ToolResult>, Vec<Approval>, Result<()>) {
        let mut lanes = Lanes::new(calls.iter().map(|c| (c, self.toolbox.spec(&c.name))));
        let mut ready: VecDeque<usize> = VecDeque::new();
        let mut running: FuturesUnordered<BoxFuture<'_, (usize, Result<Outcome>)>> = FuturesUnordered::new();
        let (mut results, mut waiting) = (Vec::new(), Vec::new());
        loop {
            ready.extend(lanes.ready());
            while running.len() < self.inner.config.max_parallel_tools
                && let Some(i) = ready.pop_front()
            {
                let Some(call) = calls.get(i) else { continue };
                match self.gate(call) {
                    Ok(Gate::Run) => running.push(self.tool(call).map(move |r| (i, r)).boxed()),
                    Ok(Gate::Refuse(result)) => {
                        running.push(
                            async move {
                                (i, self.record(result, ToolOutput::default()).await.map(Outcome::Ended))
                            }
                            .boxed(),
                        );
                    }
                    Ok(Gate::Ask(approval)) => {
                        // Calls that it is in the way of wait with it: order is part of what was decided about.
                        if let Err(e) = self.ask_for(&approval).await {
                            return (results, waiting, Err(e));
                        }
                        waiting.push(approval);
                    }
                    Err(e) => return (results, waiting, Err(e)),
                }
            }
            match running.next().await {
                Some((i, Ok(Outcome::Ended(result)))) => {
                    results.push(result);
                    lanes.done(i);
                }
                // Calls behind it in its lane wait as well.
                Some((_, Ok(Outcome::Waits))) => match self.inner.below(&self.header.run) {
                    Ok(below) => {
                        for approval in below {
                            if !waiting.contains(&approval) {
                                waiting.push(approval);
                            }
                        }
                    }
                    Err(e) => return (results, waiting, Err(e)),
                },
                Some((_, Err(e))) => return (results, waiting, Err(e)),
                None => return (results, waiting, Ok(())),
            }
        }
    }

    /// May it begin without a decision?
    pub(super) fn may_begin(&self, call: &ToolCall) -> bool {
        self.offers(&call.name) && self.verdict(call) == Verdict::Allow
    }

    /// What the permissions of this run and of all above it say: the strictest.
    fn verdict(&self, call: &ToolCall) -> Verdict {
        let Some(spec) = self.toolbox.spec(&call.name) else { return Verdict::Allow };
        let all = self.header.permissions.iter().map(|p| p.decide(spec, Some(&call.args)));
        all.max().unwrap_or_default()
    }

    /// Why the permissions ask, in words.
    fn why(&self, call: &ToolCall) -> String {
        let Some(spec) = self.toolbox.spec(&call.name) else { return String::new() };
        let all = self.header.permissions.iter().map(|p| p.explain(spec, Some(&call.args)));
        all.filter(|(verdict, _)| *verdict == Verdict::Ask).map(|(_, why)| why).collect::<Vec<_>>().join("; ")
    }

    fn gate(&self, call: &ToolCall) -> Result<Gate> {
        let refuse = |why: &str| Gate::Refuse(ToolResult::new(call, ToolStatus::Denied, why));
        if self.in_flight.contains_key(&call.id) {
            // It was begun: whatever there was to decide is decided.
            return Ok(Gate::Run);
        }
        if !self.offers(&call.name) && self.toolbox.spec(&call.name).is_some() {
            return Ok(refuse("not run: this tool is not allowed here"));
        }
        match self.verdict(call) {
            Verdict::Allow => return Ok(Gate::Run),
            Verdict::Deny => return Ok(refuse("not run: this call is not allowed")),
            Verdict::Ask => {}
        }
        // What cannot run anyway is not worth a person's time.
        if let Err(e) = self.toolbox.check(call) {
            return Ok(Gate::Refuse(ToolResult::new(call, ToolStatus::Error, e.model_text())));
        }
        let Some(store) = self.inner.journal.store() else {
            return Ok(refuse(
                "not run: this call needs an approval, and approvals need a file to be kept in",
            ));
        };
        let (run, now) = (self.header.run.as_str(), self.inner.clock.now());
        let state = match store.read(|s| approval::state(s, run, call, now)) {
            Err(e) if e.kind() == ErrorKind::Conflict => {
                return Ok(refuse("not run: the arguments are not those that were approved"));
            }
            state => state?,
        };
        Ok(match state {
            Some(State::Allowed { .. }) => Gate::Run,
            Some(State::Denied { why, .. }) => refuse(&if why.is_empty() {
                "not run: the user denied this call".to_owned()
            } else {
                format!("not run: the user denied this call: {why}")
            }),
            Some(State::Expired) => refuse("not run: nobody approved this call in time"),
            _ => Gate::Ask(self.approval(call)),
        })
    }

    fn approval(&self, call: &ToolCall) -> Approval {
        let now = self.inner.clock.now();
        let expires = self.inner.config.approval_timeout.map(|d| now.after(d));
        let why = self.why(call);
        Approval::new(self.header.run.as_str(), &self.header.conversation, call.clone(), why, now)
            .expires(expires)
    }

    /// Puts the question on record and before whoever listens.
    async fn ask_for(&self, approval: &Approval) -> Result<()> {
        let row = approval.clone();
        let with: With = Box::new(move |tx| approval::ask(tx, &row).map(|_| ()));
        self.log.append(Urgency::Now, &Entry::Asked { call: approval.call.id.clone() }, Some(with)).await?;
        self.log.tell(|| RunEvent::Approval(approval.clone()));
        Ok(())
    }

    /// One call, from its claim to its recorded result.
    async fn tool(&self, call: &ToolCall) -> Result<Outcome> {
        let interrupted = self.in_flight.get(&call.id);
        if interrupted.is_some_and(|effect| !effect.may_repeat()) {
            self.budget.record_on(&format!("tool {}", call.name), Spend::tool_calls(1));
            return self.record(unknown_outcome(call), ToolOutput::default()).await.map(Outcome::Ended);
        }
        let again = self.begun.lock().unwrap_or_else(PoisonError::into_inner).contains(&call.id);
        let calls = Spend::tool_calls(u64::from(!again));
        if let Err(e) = self.budget.spend_on(&format!("tool {}", call.name), calls) {
            let result = ToolResult::new(call, ToolStatus::Denied, format!("not run: {}", e.model_text()));
            return self.record(result, ToolOutput::default()).await.map(Outcome::Ended);
        }
        // Waiting for other calls of the tool to end is no part of the call.
        let admission = self.toolbox.admit(&self.cx, &call.name).await?;
        let effect = self.toolbox.effect(&call.name);
        if effect != Effect::Pure && self.log.is_on() {
            if !self.claimed.contains(&call.id) {
                let claim = Claim { id: call.id.clone(), effect };
                self.log.append(Urgency::Now, &Entry::Claimed { claim }, None).await?;
            }
            // What changes the world begins only when that it begins is on the disk.
            self.log.settled().await?;
        }
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(call.id.clone());
        self.log.tell(|| RunEvent::ToolStarted(call.clone()));
        let cx = self.cx.clone().with_idempotency_key(output_id(self.header.run.as_str(), &call.id));
        let span = trace::execute_tool(call);
        let ran = self.toolbox.run_admitted(&cx, call, self.inner.config.tools, admission);
        let (result, output) = match ran.instrument(span.clone()).await {
            Ok(ended) => ended,
            Err(e) if e.source_as::<Waits>().is_some() => return Ok(Outcome::Waits),
            Err(e) => return Err(e),
        };
        trace::called(&span, &result);
        self.record(result, output).await.map(Outcome::Ended)
    }

    /// Puts a result on record and tells it.
    async fn record(&self, result: ToolResult, output: ToolOutput) -> Result<ToolResult> {
        let whole = (output.text.len() > result.content.len()).then_some(output.text.as_str());
        let ran = super::view::was_run(&result.status);
        let spent = if ran { Spend::tool_calls(1) } else { Spend::default() };
        let charge = super::model::charge(&self.header.ledgers, &format!("tool {}", result.name), spent);
        self.log.tool(&result, whole, charge).await?;
        self.log.tell(|| RunEvent::ToolFinished { result: result.clone(), output });
        Ok(result)
    }

    fn offers(&self, name: &str) -> bool {
        self.view.request.tools.iter().any(|t| t.name == name)
    }
}
