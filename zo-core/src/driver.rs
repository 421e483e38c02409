//! The thin driver around the [`Machine`]: it talks to the model, runs tools, and writes each input of the machine to the
//! journal before its effect can be seen.

use crate::{
    Ask, Machine, Reply, RunEvent, RunId, Step, history,
    journal::{Append, Claim, End, Entry, Header, unknown_outcome},
    toolbox::{ToolLimits, Toolbox, output_id},
    zo::Inner,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::sync::{OwnedMutexGuard, mpsc::UnboundedSender};
use zo_traits::{
    Accumulator, Budget, Cx, Effect, Error, ErrorKind, Message, PartKind, Recall, Request, Response, Result,
    Spend, StreamEvent, ToolCall, ToolChoice, ToolResult, ToolStatus,
};

/// First line of the system message that carries recalled memories into a turn.
pub const MEMORIES_HEADING: &str = "Memories that may help:";

/// How often a request that is too long is tried again with a shorter history.
const MAX_SHRINKS: u32 = 4;

/// A run under way.
pub(crate) struct Run {
    inner: Arc<Inner>,
    cx: Cx,
    header: Header,
    machine: Machine,
    request: Request,
    /// How many of the request's messages come before the run's own.
    prefix: usize,
    toolbox: Arc<Toolbox>,
    limits: ToolLimits,
    /// Number of the next journal entry.
    next: AtomicU32,
    /// Calls that are on record as begun.
    claimed: HashSet<String>,
    /// Calls that were in flight when the run was interrupted.
    in_flight: HashMap<String, Effect>,
    events: Events,
    ended: bool,
    _turn: OwnedMutexGuard<()>,
}

/// Where progress is told, if anybody listens.
#[derive(Clone)]
struct Events(Option<UnboundedSender<RunEvent>>);

impl Events {
    fn tell(&self, event: impl FnOnce() -> RunEvent) {
        if let Some(to) = &self.0 {
            // A host that stopped listening drops the run with its stream; nothing else to do about it here.
            let _ = to.send(event());
        }
    }
}

impl Run {
    /// Puts a new run on record.
    pub(crate) async fn start(
        inner: Arc<Inner>,
        cx: &Cx,
        ask: Ask,
        events: Option<UnboundedSender<RunEvent>>,
    ) -> Result<Self> {
        ask.check()?;
        let events = Events(events);
        let run = RunId::new(inner.clock.now());
        let cx = context(&inner, cx, &run);
        let turn = cx.race("zo.ask", inner.conversations.turn(&ask.conversation)).await?;
        // What the conversation was in the middle of joins it before it goes on.
        for old in inner.journal.interrupted_in(&ask.conversation) {
            inner.settle(&old).await?;
        }
        let (from, base, history) = match &inner.transcript {
            Some(t) => {
                history::window(&cx, t.as_ref(), &ask.conversation, inner.config.history_tokens).await?
            }
            None => (0, 0, Vec::new()),
        };
        let scope = ask.scope.unwrap_or_else(|| inner.config.scope.clone());
        let mut opening = Vec::with_capacity(2);
        opening.extend(recalled(&inner, &cx, &scope, &ask.message, &history, &events).await);
        opening.push(ask.message);
        let header = Header {
            run,
            conversation: ask.conversation,
            scope,
            model: ask.model.unwrap_or_else(|| inner.config.model.clone()),
            started: inner.clock.now(),
            max_steps: ask.max_steps.unwrap_or(inner.config.max_steps).max(1),
            from,
            base,
            opening,
        };
        let machine = Machine::new(header.opening.clone(), &history, header.max_steps);
        inner.journal.start(&header).await?;
        Self::make(inner, cx, header, machine, history, 0, HashMap::new(), events, turn)
    }

    /// Takes an interrupted run up again.
    pub(crate) async fn resume(
        inner: Arc<Inner>,
        cx: &Cx,
        run: &RunId,
        events: Option<UnboundedSender<RunEvent>>,
    ) -> Result<Self> {
        let cx = context(&inner, cx, run);
        let conversation = inner.journal.load(run)?.header.conversation;
        let turn = cx.race("zo.resume", inner.conversations.turn(&conversation)).await?;
        // Read again under the conversation's turn: somebody may have continued or ended it meanwhile.
        let recorded = inner.journal.load(run)?;
        if recorded.ended {
            return Err(Error::new(ErrorKind::Conflict, "zo.resume", format_args!("run {run} has ended")));
        }
        let header = recorded.header;
        let history = match &inner.transcript {
            Some(t) => history::read_back(&cx, t.as_ref(), &conversation, header.from, header.base).await?,
            None => Vec::new(),
        };
        let (mut machine, next, in_flight) = (recorded.machine, recorded.next, recorded.in_flight);
        machine.reserve_ids(&history);
        Self::make(inner, cx, header, machine, history, next, in_flight, Events(events), turn)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the one place where a run is put together, for its two beginnings"
    )]
    fn make(
        inner: Arc<Inner>,
        cx: Cx,
        header: Header,
        machine: Machine,
        history: Vec<Message>,
        next: u32,
        in_flight: HashMap<String, Effect>,
        events: Events,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Self> {
        let toolbox = inner.toolbox()?;
        let mut request = Request::new(header.model.clone(), inner.config.system.iter().map(Message::system));
        request.messages.extend(history);
        let prefix = request.messages.len();
        request.messages.extend_from_slice(machine.messages());
        request.tools = toolbox.specs().to_vec();
        let limits = ToolLimits { kept: inner.journal.is_on(), ..inner.config.tools };
        let cx = cx.with(header.scope.clone());
        inner.journal.activate(&header.run)?;
        events.tell(|| RunEvent::Started(header.run.clone()));
        Ok(Self {
            claimed: in_flight.keys().cloned().collect(),
            inner,
            cx,
            header,
            machine,
            request,
            prefix,
            toolbox,
            limits,
            next: AtomicU32::new(next),
            in_flight,
            events,
            ended: false,
            _turn: turn,
        })
    }

    /// Carries the run to its end.
    pub(crate) async fn drive(mut self) -> Result<Reply> {
        match self.go().await {
            Ok(reply) => Ok(reply),
            Err(e) => {
                self.fail(&e).await?;
                Err(e)
            }
        }
    }

    async fn go(&mut self) -> Result<Reply> {
        // A run that is resumed after its last answer was recorded, and before its end was, is only to be ended.
        loop {
            match self.machine.step() {
                Step::Model { last } => self.model(last).await?,
                Step::Tools(calls) => self.tools(calls).await?,
                Step::Done(_) => return self.done(None).await,
            }
            if self.ended {
                return Ok(self.reply());
            }
        }
    }

    async fn model(&mut self, last: bool) -> Result<()> {
        if let Some(budget) = self.cx.budget() {
            budget.spend(Spend::steps(1))?;
        }
        self.request.tool_choice =
            if last && self.machine.steps() > 0 { ToolChoice::None } else { ToolChoice::Auto };
        let answer = self.ask_model().await?;
        if let Some(budget) = self.cx.budget() {
            let price = self.inner.provider.capabilities(&self.request.model).price;
            let cost = price.map_or(0, |p| p.cost(&answer.usage));
            budget.record(Spend::tokens(answer.usage.total()).plus(Spend::microusd(cost)));
        }
        let mut kept = self.inner.journal.is_on().then(|| answer.clone());
        self.machine.model(answer)?;
        if let Some(kept) = &mut kept
            && kept.message.tool_calls().next().is_some()
            && let Some(last) = self.machine.last_answer()
        {
            // On record under the ids that the results will have.
            kept.message.clone_from(last);
        }
        self.catch_up();
        self.events.tell(|| RunEvent::Usage(self.machine.usage()));
        let answer = kept.as_ref().map(Cow::Borrowed);
        match self.machine.step() {
            // The last answer and the end are one commit.
            Step::Done(_) => {
                let last = answer.map(|answer| Entry::Model { answer, claims: Vec::new() });
                self.finish(last, End::Done, true).await
            }
            step => {
                // The calls that begin at once are claimed in the same commit as the answer that makes them.
                let first = if let Step::Tools(calls) = &step { self.first_batch(calls) } else { Vec::new() };
                let claims: Vec<Claim> = first.iter().map(|c| self.claim(c)).collect();
                self.claimed.extend(claims.iter().map(|c| c.id.clone()));
                if let Some(answer) = answer {
                    let at = self.next.fetch_add(1, Ordering::Relaxed);
                    self.inner.journal.append(&self.header.run, at, &Entry::Model { answer, claims }).await?;
                }
                Ok(())
            }
        }
    }

    /// One answer of the model, told as it comes. A request that is too long is tried again with half the history.
    async fn ask_model(&mut self) -> Result<Response> {
        let mut shrinks = 0;
        loop {
            let (provider, cx, request) = (&self.inner.provider, &self.cx, &self.request);
            let stream = cx.race("zo.model", provider.stream(cx, request)).await?;
            let mut stream = match stream {
                Ok(stream) => stream,
                Err(e)
                    if e.kind() == ErrorKind::ContextOverflow && shrinks < MAX_SHRINKS && self.shrink() =>
                {
                    shrinks += 1;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let events = &self.events;
            return cx
                .race("zo.model", async move {
                    let mut answer = Accumulator::default();
                    let mut kinds: HashMap<u32, bool> = HashMap::new();
                    while let Some(event) = stream.next().await {
                        let event = event?;
                        match &event {
                            StreamEvent::PartStart { index, kind } => match kind {
                                PartKind::Text | PartKind::Refusal => drop(kinds.insert(*index, true)),
                                PartKind::Reasoning => drop(kinds.insert(*index, false)),
                                _ => {}
                            },
                            StreamEvent::Delta { index, text } if !text.is_empty() => {
                                match kinds.get(index) {
                                    Some(true) => events.tell(|| RunEvent::Text(text.clone())),
                                    Some(false) => events.tell(|| RunEvent::Reasoning(text.clone())),
                                    None => {}
                                }
                            }
                            _ => {}
                        }
                        answer.push(event)?;
                    }
                    answer.finish()
                })
                .await?;
        }
    }

    /// Runs the open calls: together where they may, alone where a tool asks for it.
    async fn tools(&mut self, calls: Vec<ToolCall>) -> Result<()> {
        let mut rest = calls.as_slice();
        while !rest.is_empty() {
            let serial = |c: &ToolCall| self.toolbox.is_serial(&c.name);
            let n = match rest.iter().position(serial) {
                Some(0) => 1,
                Some(n) => n,
                None => rest.len(),
            };
            let (group, later) = rest.split_at(n.min(rest.len()));
            rest = later;
            let mut results = Vec::with_capacity(group.len());
            {
                let this = &*self;
                // Boxed and collected: with a lazy `map` over borrowed calls the compiler cannot see that this is `Send`.
                let all: Vec<BoxFuture<'_, _>> = group.iter().map(|call| this.tool(call).boxed()).collect();
                let mut running =
                    futures_util::stream::iter(all).buffer_unordered(self.inner.config.max_parallel_tools);
                while let Some(result) = running.next().await {
                    results.push(result?);
                }
            }
            for result in results {
                self.machine.tool(result)?;
            }
        }
        self.catch_up();
        Ok(())
    }

    /// One call, from its claim to its recorded result.
    async fn tool(&self, call: &ToolCall) -> Result<ToolResult> {
        let (journal, run) = (&self.inner.journal, &self.header.run);
        let interrupted = self.in_flight.get(&call.id);
        let (result, output) = if interrupted.is_some_and(|effect| !effect.may_repeat()) {
            (unknown_outcome(call), Default::default())
        } else {
            if journal.is_on() && !self.claimed.contains(&call.id) {
                let at = self.next.fetch_add(1, Ordering::Relaxed);
                journal.append(run, at, &Entry::Claimed { claim: self.claim(call) }).await?;
            }
            self.events.tell(|| RunEvent::ToolStarted(call.clone()));
            let cx = self.cx.child().with_idempotency_key(output_id(run.as_str(), &call.id));
            self.toolbox.run(&cx, call, self.limits).await?
        };
        if journal.is_on() {
            let whole = (output.text.len() > result.content.len()).then_some(output.text.as_str());
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            journal.tool(run, at, &result, whole).await?;
        }
        self.events.tell(|| RunEvent::ToolFinished { result: result.clone(), output });
        Ok(result)
    }

    async fn done(&mut self, last: Option<Entry<'_>>) -> Result<Reply> {
        self.finish(last, End::Done, true).await?;
        Ok(self.reply())
    }

    /// The calls that may begin at once.
    fn first_batch<'a>(&self, calls: &'a [ToolCall]) -> Vec<&'a ToolCall> {
        let max = self.inner.config.max_parallel_tools;
        match calls.first() {
            Some(first) if self.toolbox.is_serial(&first.name) => vec![first],
            _ => calls.iter().take_while(|c| !self.toolbox.is_serial(&c.name)).take(max).collect(),
        }
    }

    fn claim(&self, call: &ToolCall) -> Claim {
        Claim { id: call.id.clone(), effect: self.toolbox.effect(&call.name) }
    }

    /// Adds to the request what the machine has added to the run.
    fn catch_up(&mut self) {
        let known = self.request.messages.len().saturating_sub(self.prefix);
        let new = self.machine.messages().get(known..).unwrap_or_default();
        self.request.messages.extend_from_slice(new);
    }

    /// Forgets the older half of the history for this run; `false` when there is none left.
    fn shrink(&mut self) -> bool {
        let head = usize::from(self.inner.config.system.is_some());
        let own = self.request.messages.split_off(self.prefix);
        let mut history = self.request.messages.split_off(head.min(self.request.messages.len()));
        let shrunk = history::halve(&mut history);
        self.request.messages.extend(history);
        self.prefix = self.request.messages.len();
        self.request.messages.extend(own);
        shrunk
    }

    /// Settles a run that could not go on. One that got somewhere and met a passing error stays open, to be resumed.
    async fn fail(&mut self, e: &Error) -> Result<()> {
        let answered = self.machine.has_answer();
        let passing = e.is_retryable() || matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Exhausted);
        if self.ended || (answered && passing && self.inner.journal.is_on()) {
            return Ok(());
        }
        let (outcome, why) = if e.kind() == ErrorKind::Cancelled {
            (
                End::Cancelled,
                "stopped: the run was cancelled while this call was in flight; it may have taken effect",
            )
        } else {
            let message = e.to_string();
            (End::Failed { kind: e.kind(), message }, "stopped: the run failed while this call was in flight")
        };
        self.machine.close(&ToolStatus::Cancelled, why);
        self.finish(None, outcome, answered).await
    }

    /// Ends the run; with `keep`, its messages join the conversation.
    async fn finish(&mut self, last: Option<Entry<'_>>, outcome: End, keep: bool) -> Result<()> {
        let append = (keep && self.inner.transcript.is_some()).then(|| Append {
            conversation: self.header.conversation.clone(),
            messages: self.machine.messages().to_vec(),
        });
        let at = self.next.load(Ordering::Relaxed);
        self.inner.end(&self.header.run, at, self.header.base, last, outcome, append).await?;
        self.ended = true;
        Ok(())
    }

    fn reply(&self) -> Reply {
        let finish = match self.machine.step() {
            Step::Done(reason) => reason,
            _ => zo_traits::FinishReason::Stop,
        };
        Reply {
            run: self.header.run.clone(),
            text: self.machine.final_text(),
            messages: self.machine.messages().to_vec(),
            finish,
            usage: self.machine.usage(),
            steps: self.machine.steps(),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.inner.journal.deactivate(&self.header.run, &self.header.conversation, self.ended);
    }
}

/// The context of a run inside the host's: its own id, clock, time limit and allowance.
fn context(inner: &Inner, cx: &Cx, run: &RunId) -> Cx {
    let mut mine = cx.child().with_run(run.as_str()).with_clock(inner.clock.clone());
    if let Some(limit) = inner.config.run_timeout {
        mine = mine.with_timeout(limit);
    }
    let budget = match cx.budget() {
        Some(parent) => parent.child(inner.config.limits),
        None => Budget::new(inner.config.limits),
    };
    mine.with_budget(budget)
}

/// Recalled facts that the model does not see already, as a message of their own. They stand right before the user's
/// message and stay in the conversation, so that the beginning of a request never changes.
async fn recalled(
    inner: &Inner,
    cx: &Cx,
    scope: &zo_traits::Scope,
    message: &Message,
    history: &[Message],
    events: &Events,
) -> Option<Message> {
    let text = message.to_text();
    let memory =
        inner.memory.as_ref().filter(|_| inner.config.recall_limit > 0 && !text.trim().is_empty())?;
    let hits = match memory.recall(cx, scope, &Recall::new(text, inner.config.recall_limit)).await {
        Ok(hits) => hits,
        // An answer without memories beats no answer, as long as the host is told.
        Err(e) => {
            events.tell(|| RunEvent::Warning(e));
            return None;
        }
    };
    let seen: HashSet<&str> = history
        .iter()
        .filter(|m| m.role == zo_traits::Role::System)
        .flat_map(|m| &m.parts)
        .filter_map(|p| p.as_text())
        .filter(|t| t.starts_with(MEMORIES_HEADING))
        .flat_map(|t| t.lines().filter_map(|l| l.strip_prefix("- ")))
        .collect();
    let mut list = String::new();
    for hit in &hits {
        let line = hit.text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !seen.contains(line.as_str()) {
            list.push_str("\n- ");
            list.push_str(&line);
        }
    }
    (!list.is_empty()).then(|| Message::system(format!("{MEMORIES_HEADING}{list}")))
}
