//! What all handles of an agent share, and what its runs ask of it.

use crate::{
    Approval, Ask, LoopPolicy, Permissions, Persona, Reply, RunId,
    admission::Admission,
    approval,
    builtin::UseSkill,
    context::{
        estimate::Estimator,
        record::{self, Compaction},
    },
    driver::{Frames, MAX_DEPTH, Run},
    journal::{Append, Header, Journal, Setup, missing},
    ledger::{self, Ledgers},
    permission, replay, rules,
    toolbox::{ToolLimiter, ToolLimits, Toolbox},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::OwnedMutexGuard;
use zo_store::Store;
use zo_traits::{
    Budget, Clock, Cx, Error, ErrorKind, Limits, MemoryStore, Price, Provider, Result, Scope, Skill,
    ToolSpec, Transcript, WeakBudget,
};

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
    pub(crate) tool_limiter: Arc<ToolLimiter>,
    pub(crate) admission: Admission,
    pub(crate) estimator: Estimator,
    pub(crate) frames: Frames,
    /// The setup of the last run, with its digest: mostly that of the next.
    pub(crate) setups: Mutex<Option<(Setup, String)>>,
    pub(crate) ledgers: Ledgers,
    /// The allowances of runs that others may share.
    pub(crate) budgets: Mutex<HashMap<String, WeakBudget>>,
    /// The latest compactions, where there is no file to keep them in.
    pub(crate) ram_compactions: Mutex<HashMap<String, Compaction>>,
    pub(crate) personas: BTreeMap<String, Character>,
    pub(crate) config: Config,
}

/// The tools as the skills last offered them.
#[derive(Debug)]
pub(crate) struct Offered {
    by: Vec<Arc<[ToolSpec]>>,
    toolbox: Arc<Toolbox>,
}

/// A persona, ready for use.
#[derive(Debug)]
pub(crate) struct Character {
    pub(crate) persona: Persona,
    pub(crate) permissions: Option<Permissions>,
}

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) model: String,
    pub(crate) why: String,
    pub(crate) system: Option<Arc<str>>,
    pub(crate) scope: Scope,
    pub(crate) limits: Limits,
    pub(crate) permissions: Option<Permissions>,
    pub(crate) approval_timeout: Option<Duration>,
    pub(crate) prices: HashMap<String, Price>,
    pub(crate) loops: LoopPolicy,
    pub(crate) max_steps: u32,
    pub(crate) max_wait: Duration,
    pub(crate) run_timeout: Option<Duration>,
    pub(crate) tools: ToolLimits,
    pub(crate) max_parallel_tools: usize,
    pub(crate) history_tokens: usize,
    pub(crate) context_tokens: Option<u64>,
    /// Summaries are put together from sentences, and nobody is asked.
    pub(crate) plain_summaries: bool,
    pub(crate) recall_limit: usize,
    /// The transcript is in the journal's store, so that the end of a run and its messages are one commit.
    pub(crate) own_transcript: bool,
}

impl Inner {
    pub(crate) async fn ask(self: Arc<Self>, cx: &Cx, ask: Ask) -> Result<Reply> {
        Box::pin(Run::start(self, cx, ask, None)).await?.drive().await
    }

    /// Begins anew after the first `steps` answers of a run.
    pub(crate) async fn fork(
        self: &Arc<Self>,
        run: &RunId,
        steps: u32,
        conversation: String,
    ) -> Result<RunId> {
        if conversation.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "zo.fork", "the conversation has no name"));
        }
        self.journal.settled().await?;
        let source = self.journal.header(run)?.ok_or_else(|| missing(run))?.conversation;
        let fork = replay::fork(self, run, steps, &conversation, RunId::new(self.clock.now()))?;
        let _turn = self.conversations.turn(&conversation).await;
        if !self.journal.interrupted_in(&conversation).is_empty() {
            let message = format_args!("conversation {conversation:?} has an unfinished run");
            return Err(Error::new(ErrorKind::Conflict, "zo.fork", message));
        }
        let past = replay::before(self, &fork.header, &source).await?;
        let cx = Cx::new("fork").with_clock(self.clock.clone());
        if let Some(t) = &self.transcript
            && t.len(&cx, &conversation).await? > 0
        {
            let message = format_args!("conversation {conversation:?} is not empty");
            return Err(Error::new(ErrorKind::Conflict, "zo.fork", message));
        }
        let compaction = match fork.header.compaction {
            Some(n) => self.compaction_number(&source, n)?,
            None => None,
        };
        let past = match &self.transcript {
            Some(t) if !self.config.own_transcript => {
                t.append(&cx, &conversation, Some(0), &past).await?;
                None
            }
            _ => Some(Append { conversation, messages: past }),
        };
        self.journal.plant(fork, compaction, past).await
    }

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
        match (Toolbox::with_limiter(self.skills.iter().chain(&use_skill), &self.tool_limiter), &*kept) {
            (Ok(toolbox), _) => {
                let toolbox = Arc::new(toolbox);
                *kept = Some(Offered { by, toolbox: toolbox.clone() });
                Ok((toolbox, None))
            }
            (Err(problem), Some(kept)) => Ok((kept.toolbox.clone(), Some(problem))),
            (Err(problem), None) => Err(problem),
        }
    }

    /// What a request holds beside its messages: the system text and the tools that may be called at all.
    pub(crate) fn setup(
        &self,
        toolbox: &Toolbox,
        persona: Option<&Character>,
        permissions: &[Permissions],
        scope: &Scope,
    ) -> Result<Setup> {
        let mut system = self.config.system.clone();
        let rules = match self.journal.store() {
            Some(store) => store.read(|s| rules::list(s, scope))?,
            None => Vec::new(),
        };
        if let Some(p) = persona.filter(|p| !p.persona.prompt.is_empty()) {
            system = Some(p.persona.prompt.as_str().into());
        }
        if let Some(rules) = rules::render(&rules) {
            system = Some(system.map_or_else(|| rules.as_str().into(), |s| format!("{s}\n\n{rules}").into()));
        }
        let all = toolbox.specs();
        let fits = |spec: &ToolSpec| {
            persona.is_none_or(|p| p.persona.offers(&spec.name))
                && permissions.iter().all(|p| p.decide(spec, None) != permission::Verdict::Deny)
        };
        let tools = if all.iter().all(fits) {
            all.clone()
        } else {
            all.iter().filter(|s| fits(s)).cloned().collect()
        };
        Ok(Setup { system, tools })
    }

    pub(crate) fn persona(&self, name: &str) -> Result<&Character> {
        self.personas.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.personas.keys().map(String::as_str).collect();
            let message = format!("there is no persona {name:?}; there are: {}", known.join(", "));
            Error::new(ErrorKind::NotFound, "zo.ask", message)
        })
    }

    /// What a model costs: what the host stated, else what the provider knows.
    pub(crate) fn price(&self, model: &str) -> Option<Price> {
        self.config.prices.get(model).copied().or_else(|| self.provider.capabilities(model).price)
    }

    /// The allowance of a run: its own limits, inside those that it shares with others.
    pub(crate) async fn budget(&self, cx: &Cx, header: &Header) -> Result<Budget> {
        let name = header.run.as_str();
        let (own, shared) = match header.ledgers.split_first() {
            Some((first, rest)) if first == name => (true, rest),
            _ => (false, header.ledgers.as_slice()),
        };
        let mut base = cx.budget().cloned();
        if base.is_none() {
            // Outermost first.
            for id in shared.iter().rev() {
                base = Some(match base {
                    None if !is_run(id) || self.journal.header(&RunId::from(id.as_str()))?.is_none() => {
                        self.ledgers.get(id).await?
                    }
                    parent => self.run_budget(id, parent)?,
                });
            }
        }
        let budget = match &base {
            Some(parent) => parent.child(header.limits),
            None => Budget::new(header.limits),
        };
        if own {
            self.restore(name, &budget)?;
            self.remember(name, &budget);
        }
        Ok(budget)
    }

    /// The allowance of another run: the one in use, or as it is on record.
    fn run_budget(&self, id: &str, parent: Option<Budget>) -> Result<Budget> {
        let live =
            self.budgets.lock().unwrap_or_else(PoisonError::into_inner).get(id).and_then(WeakBudget::upgrade);
        if let Some(live) = live {
            return Ok(live);
        }
        let limits = match self.journal.store() {
            Some(store) => store.read(|s| ledger::read(s, id))?.map_or(Limits::none(), |l| l.limits),
            None => Limits::none(),
        };
        let budget = match parent {
            Some(parent) => parent.child(limits),
            None => Budget::new(limits),
        };
        self.restore(id, &budget)?;
        self.remember(id, &budget);
        Ok(budget)
    }

    /// What is on record as spent.
    fn restore(&self, id: &str, budget: &Budget) -> Result<()> {
        if let Some(store) = self.journal.store()
            && let Some(ledger) = store.read(|s| ledger::read(s, id))?
        {
            budget.restore(ledger.spent, &ledger.by);
        }
        Ok(())
    }

    fn remember(&self, id: &str, budget: &Budget) {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if budgets.len() == budgets.capacity() {
            budgets.retain(|_, b| b.upgrade().is_some());
        }
        budgets.insert(id.to_owned(), budget.downgrade());
    }

    /// The summary that stands for the beginning of a conversation which is `len` long.
    pub(crate) fn compaction_of(&self, conversation: &str, len: u64) -> Result<Option<Compaction>> {
        match self.journal.store() {
            Some(store) => store.read(|s| record::latest_in_force(s, conversation, len)),
            None => {
                let all = self.ram_compactions.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(all.get(conversation).filter(|c| c.upto <= len).cloned())
            }
        }
    }

    /// A summary by its number, in force or not.
    pub(crate) fn compaction_number(&self, conversation: &str, n: u64) -> Result<Option<Compaction>> {
        match self.journal.store() {
            Some(store) => Ok(store.read(|s| record::list(s, conversation))?.into_iter().find(|c| c.n == n)),
            None => Ok(None),
        }
    }

    /// The positions that the host pinned.
    pub(crate) fn pins(&self, conversation: &str) -> Result<Vec<u64>> {
        match self.journal.store() {
            Some(store) => store.read(|s| record::pins(s, conversation)),
            None => Ok(Vec::new()),
        }
    }

    /// The calls that wait for a decision in runs that `run` started, however deep.
    pub(crate) fn below(&self, run: &RunId) -> Result<Vec<Approval>> {
        let Some(store) = self.journal.store() else { return Ok(Vec::new()) };
        let mut below = Vec::new();
        for approval in store.read(|s| approval::pending(s))? {
            let mut at = RunId::from(approval.run.as_str());
            // No deeper than runs can be; what is on disk may go round in circles.
            for _ in 0..=MAX_DEPTH {
                let Some(parent) = self.journal.header(&at)?.and_then(|h| h.parent) else { break };
                if parent == *run {
                    below.push(approval);
                    break;
                }
                at = parent;
            }
        }
        Ok(below)
    }

    /// The run that has to be resumed for this one to go on: the topmost above it that is not over.
    pub(crate) fn root(&self, run: &RunId) -> Result<RunId> {
        let mut root = run.clone();
        for _ in 0..=MAX_DEPTH {
            match self.journal.header(&root)?.and_then(|h| h.parent) {
                Some(parent) if self.journal.is_open(&parent) => root = parent,
                _ => break,
            }
        }
        Ok(root)
    }
}

/// Is it the name of a run's own ledger?
fn is_run(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

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
