//! Putting an agent together: every part has a default, and each can be replaced by anything that implements its trait.

use crate::{
    LoopPolicy, Permissions, Persona, Preset, Zo,
    admission::{self, Admission},
    agents::Agents,
    builtin::{MemorySkill, ReadOutput},
    context::estimate::Estimator,
    delegate::Delegate,
    driver::Frames,
    inner::{Character, Config, Conversations, Inner},
    journal::{Journal, Probe},
    ledger::Ledgers,
    permission,
    rules::{self, RulesSkill},
    toolbox::{READ_OUTPUT, ToolLimiter, ToolLimits},
};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use zo_store::Store;
use zo_traits::{
    Clock, Cx, Error, ErrorKind, Limits, MemoryStore, Price, Provider, Result, Scope, Skill, Transcript,
};

/// Builds a [`Zo`]. Every setting has a default:
///
/// | part | default |
/// |---|---|
/// | [`provider`](ZoBuilder::provider) | what [`from_env`](crate::providers::from_env) finds: a key in the environment, a model server on this machine, else the embedded offline provider |
/// | [`file`](ZoBuilder::file) | none: nothing survives the process |
/// | [`memory`](ZoBuilder::memory), [`transcript`](ZoBuilder::transcript) | in the file; in RAM without one |
/// | [`max_steps`](ZoBuilder::max_steps) | 32 model calls a run |
/// | [`tool_timeout`](ZoBuilder::tool_timeout) | 2 minutes a tool call |
/// | [`max_parallel_tools`](ZoBuilder::max_parallel_tools) | 8 |
/// | [`max_tool_output`](ZoBuilder::max_tool_output) | 32 KiB of one result reach the model at once; with a file it can read on |
/// | [`history_tokens`](ZoBuilder::history_tokens) | beyond about 24,000 tokens, what is old in a conversation becomes a summary |
/// | [`context_tokens`](ZoBuilder::context_tokens) | what the model's window holds, as far as it is known; else 100,000 |
/// | [`summaries`](ZoBuilder::summaries) | written by the model; put together from sentences where it is the offline one |
/// | [`permissions`](ZoBuilder::permissions) | every tool may be used |
/// | [`loops`](ZoBuilder::loops) | a word to the model at the third equal call with an equal result, the end at the sixth |
/// | [`max_parallel_models`](ZoBuilder::max_parallel_models) | 64 model calls at the same time, fewer when the provider says so |
/// | [`max_wait`](ZoBuilder::max_wait) | a rate limit is waited out for up to a minute |
/// | [`rule_tools`](ZoBuilder::rule_tools) | standing instructions are the host's: the model has no tools for them |
/// | [`resume_on_start`](ZoBuilder::resume_on_start) | off |
/// | [`keep_runs`](ZoBuilder::keep_runs) | the records of the last 1,000 finished runs |
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ZoBuilder {
    provider: Option<Arc<dyn Provider>>,
    #[cfg(feature = "http")]
    leaks: Option<zo_providers::Leaks>,
    model: Option<String>,
    system: Option<String>,
    skills: Vec<Arc<dyn Skill>>,
    file: Option<PathBuf>,
    store: Option<Store>,
    memory: Option<Arc<dyn MemoryStore>>,
    transcript: Option<Arc<dyn Transcript>>,
    clock: Arc<dyn Clock>,
    memory_tools: bool,
    scope: Scope,
    limits: Limits,
    permissions: Option<Permissions>,
    approval_timeout: Option<Duration>,
    prices: HashMap<String, Price>,
    personas: Vec<Persona>,
    loops: LoopPolicy,
    rule_tools: bool,
    resume_on_start: bool,
    max_steps: u32,
    max_parallel_models: usize,
    max_wait: Duration,
    run_timeout: Option<Duration>,
    tool_timeout: Duration,
    max_parallel_tools: usize,
    max_tool_output: usize,
    history_tokens: usize,
    context_tokens: Option<u64>,
    summaries: Option<bool>,
    recall_limit: usize,
    keep_runs: u64,
    probe: Probe,
}

impl Default for ZoBuilder {
    fn default() -> Self {
        Self {
            provider: None,
            #[cfg(feature = "http")]
            leaks: None,
            model: None,
            system: None,
            skills: Vec::new(),
            file: None,
            store: None,
            memory: None,
            transcript: None,
            clock: Cx::default().clock().clone(),
            memory_tools: true,
            scope: Scope::new("default"),
            limits: Limits::none(),
            permissions: None,
            approval_timeout: None,
            prices: HashMap::new(),
            personas: Vec::new(),
            loops: LoopPolicy::default(),
            rule_tools: false,
            resume_on_start: false,
            max_steps: 32,
            max_parallel_models: admission::DEFAULT_MAX,
            max_wait: Duration::from_secs(60),
            run_timeout: None,
            tool_timeout: Duration::from_secs(120),
            max_parallel_tools: 8,
            max_tool_output: 32 * 1024,
            history_tokens: 24_000,
            context_tokens: None,
            summaries: None,
            recall_limit: 6,
            keep_runs: 1_000,
            probe: Probe::default(),
        }
    }
}

impl ZoBuilder {
    /// The model's provider, owned, shared or boxed.
    pub fn provider(mut self, provider: impl Provider) -> Self {
        self.provider = Some(Arc::new(provider));
        self
    }

    /// Secrets that must not get out. Each is replaced by `[secret NAME]` in whatever goes to the model and in what tools hand
    /// back, before it is written down or told. What is added to `leaks` later counts, too.
    #[cfg(feature = "http")]
    pub fn leaks(mut self, leaks: zo_providers::Leaks) -> Self {
        self.leaks = Some(leaks);
        self
    }

    /// The model, as the provider spells it. Without it the provider's own default.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Standing instructions, sent first in every request.
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.system = Some(text.into());
        self
    }

    /// Adds a skill.
    pub fn skill(mut self, skill: impl Skill) -> Self {
        self.skills.push(Arc::new(skill));
        self
    }

    /// Adds skills.
    pub fn skills<S: Skill>(mut self, skills: impl IntoIterator<Item = S>) -> Self {
        self.skills.extend(skills.into_iter().map(|s| Arc::new(s) as Arc<dyn Skill>));
        self
    }

    /// Keeps everything in this one file: conversations, memories, the record of runs. Made if it does not exist.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Keeps everything in this store, which the host opened itself and may share with other parts.
    pub fn store(mut self, store: Store) -> Self {
        self.store = Some(store);
        self
    }

    /// Another long-term memory.
    pub fn memory(mut self, memory: impl MemoryStore) -> Self {
        self.memory = Some(Arc::new(memory));
        self
    }

    /// Another place for conversations.
    pub fn transcript(mut self, transcript: impl Transcript) -> Self {
        self.transcript = Some(Arc::new(transcript));
        self
    }

    /// Another clock, for tests.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Whether the model gets `remember`, `recall` and `forget` as tools. On by default.
    pub fn memory_tools(mut self, on: bool) -> Self {
        self.memory_tools = on;
        self
    }

    /// Whose memory is used when an [`Ask`](crate::Ask) names no scope. **A bot with several users must name one per
    /// user**, or they will hear of each other's facts.
    pub fn scope(mut self, scope: impl Into<Scope>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Allowance of each run, everything that it starts included. With a file, a restart does not refill it. What is used up
    /// is an error of kind [`ErrorKind::Denied`] that says what was spent on what.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What a model costs, where the provider does not know or is wrong.
    pub fn price(mut self, model: impl Into<String>, price: Price) -> Self {
        self.prices.insert(model.into(), price);
        self
    }

    /// What tools may do: which calls are allowed, which are refused, and which wait for an approval. A tool that can never be
    /// allowed is not offered to the model at all.
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = Some(permissions);
        self
    }

    /// How long a call waits for an approval before it counts as refused. For ever by default.
    pub fn approval_timeout(mut self, d: Duration) -> Self {
        self.approval_timeout = Some(d);
        self
    }

    /// Somebody else that the agent can speak as ([`Ask::persona`](crate::Ask::persona)). One with a description is a tool
    /// as well, `ask_<name>`, by which the model hands it a task.
    pub fn persona(mut self, persona: Persona) -> Self {
        self.personas.push(persona);
        self
    }

    /// What is done about a model that makes the same call with the same result over and over.
    pub fn loops(mut self, policy: LoopPolicy) -> Self {
        self.loops = policy;
        self
    }

    /// Whether the model gets tools to keep [standing instructions](Zo::rules) for its user. They need a file. Off by default:
    /// tools cost tokens in every request.
    pub fn rule_tools(mut self, on: bool) -> Self {
        self.rule_tools = on;
        self
    }

    /// Whether runs that were interrupted go on by themselves as soon as the agent is built. Follow them with
    /// [`running`](Zo::running) and [`attach`](Zo::attach). Host values for tools are not there then.
    pub fn resume_on_start(mut self, on: bool) -> Self {
        self.resume_on_start = on;
        self
    }

    /// Most model calls at the same time, of all runs together, at least one. A provider that refuses some for their number
    /// is given fewer.
    pub fn max_parallel_models(mut self, n: usize) -> Self {
        self.max_parallel_models = n;
        self
    }

    /// Longest time that a rate limit is waited out; then it is the run's error.
    pub fn max_wait(mut self, d: Duration) -> Self {
        self.max_wait = d;
        self
    }

    /// Most model calls in one run, at least one. At the last one, unless it is the first as well, the model is told to call
    /// no tool, so that it answers with what it has.
    pub fn max_steps(mut self, n: u32) -> Self {
        self.max_steps = n.max(1);
        self
    }

    /// Longest time for one run. None by default.
    pub fn run_timeout(mut self, d: Duration) -> Self {
        self.run_timeout = Some(d);
        self
    }

    /// Longest time for one tool call.
    pub fn tool_timeout(mut self, d: Duration) -> Self {
        self.tool_timeout = d;
        self
    }

    /// Most tool calls of one run at the same time, at least one.
    pub fn max_parallel_tools(mut self, n: usize) -> Self {
        self.max_parallel_tools = n.max(1);
        self
    }

    /// Most bytes of one tool result that reach the model at once, at least 1,024.
    pub fn max_tool_output(mut self, bytes: usize) -> Self {
        self.max_tool_output = bytes.max(1_024);
        self
    }

    /// About how many tokens of the conversation so far reach the model. Where it is longer, its older part becomes a summary;
    /// what is kept stays whole.
    pub fn history_tokens(mut self, n: usize) -> Self {
        self.history_tokens = n;
        self
    }

    /// About how many tokens a request may have, where that is less than the model's window or the window is not known.
    pub fn context_tokens(mut self, n: u64) -> Self {
        self.context_tokens = Some(n);
        self
    }

    /// Whether summaries of old parts of a conversation are written by the model, which costs a call, or put together from
    /// sentences, which costs nothing.
    pub fn summaries(mut self, by_model: bool) -> Self {
        self.summaries = Some(by_model);
        self
    }

    /// Most memories that are recalled for a turn and shown to the model; 0 for none.
    pub fn recall_limit(mut self, n: usize) -> Self {
        self.recall_limit = n;
        self
    }

    /// For crash tests: is told of every write to the journal, by the kind of its entry, before it is queued (`queue`), after
    /// (`queued`), and when it is durable (`durable`, on the store's thread).
    #[doc(hidden)]
    pub fn probe(mut self, probe: impl Fn(&'static str, &'static str) + Send + Sync + 'static) -> Self {
        self.probe = Probe(Some(Arc::new(probe)));
        self
    }

    /// How many finished runs stay on record.
    pub fn keep_runs(mut self, n: u64) -> Self {
        self.keep_runs = n;
        self
    }

    /// Opens the file, finds the provider and checks that the parts fit together.
    ///
    /// # Errors
    /// * [`ErrorKind::Conflict`]: two skills offer a tool of one name; the file is open elsewhere.
    /// * [`ErrorKind::Corrupt`], [`ErrorKind::Unsupported`]: the file is damaged, foreign, or from a newer version.
    /// * [`ErrorKind::Invalid`]: `file` and `store` both given; a tool name that providers refuse; an explicit setting in
    ///   the environment that cannot be honoured.
    pub async fn build(self) -> Result<Zo> {
        let cx = Cx::new("build").with_clock(self.clock.clone());
        let store = match (self.store, self.file) {
            (Some(_), Some(_)) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "zo.build",
                    "give either `file` or `store`, not both",
                ));
            }
            (Some(store), None) => Some(store),
            (None, Some(path)) => Some(Store::open(path)?),
            (None, None) => None,
        };
        let journal = Arc::new(Journal::open(store.clone(), self.keep_runs, self.probe).await?);
        if let Some(store) = &store {
            rules::open(store).await?;
        }
        let own_transcript = self.transcript.is_none() && store.is_some();
        let (memory, transcript) = parts(store.clone(), self.memory, self.transcript).await?;
        let chosen = choose(&cx, self.provider).await?;
        #[cfg(feature = "http")]
        let chosen = match &self.leaks {
            Some(leaks) => {
                use zo_providers::layer::{LayerExt, Scrub};
                let provider = Arc::new(chosen.provider.layer(Scrub::new(leaks.clone())));
                Choice { provider, ..chosen }
            }
            None => chosen,
        };

        let mut skills = self.skills;
        if let Some(memory) = memory.clone().filter(|_| self.memory_tools) {
            skills.push(Arc::new(MemorySkill::new(memory)));
        }
        let kept = journal.is_on();
        if let Some(store) = journal.store().filter(|_| self.rule_tools) {
            skills.push(Arc::new(RulesSkill::new(store.clone())));
        }
        let late = Arc::new(OnceLock::new());
        let mut personas = BTreeMap::new();
        for persona in &self.personas {
            persona.check()?;
            let character = Character { permissions: permissions_of(persona)?, persona: persona.clone() };
            if personas.insert(persona.name.clone(), character).is_some() {
                let message = format_args!("two personas are named {:?}; rename one", persona.name);
                return Err(Error::new(ErrorKind::Conflict, "zo.build", message));
            }
        }
        if let Some(permissions) = &self.permissions {
            permissions.check()?;
        }
        if let Some(delegate) = Delegate::new(&self.personas, late.clone()) {
            skills.push(Arc::new(delegate));
        }
        if kept {
            // A page must fit a result, its last line included.
            skills.push(Arc::new(ReadOutput::new(journal.clone(), self.max_tool_output - 256)));
        }
        #[cfg(feature = "http")]
        if let Some(leaks) = &self.leaks {
            for skill in &mut skills {
                *skill = Arc::new(crate::leaks::Guarded::new(skill.clone(), leaks.clone()));
            }
        }
        // Two skills of one name would make `use_skill` ambiguous.
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = skills.iter().map(|s| &s.manifest().name).find(|n| !names.insert(*n)) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "zo.build",
                format_args!("two skills are named {twice:?}; rename one"),
            ));
        }
        // Sentences are all that the offline provider could make of it.
        let by_model = self.summaries.unwrap_or_else(|| chosen.provider.id() != "offline");
        let inner = Arc::new(Inner {
            provider: chosen.provider,
            memory,
            transcript,
            ledgers: Ledgers::new(store.clone()),
            journal,
            skills,
            store,
            clock: self.clock,
            conversations: Conversations::default(),
            toolbox: Mutex::default(),
            tool_limiter: Arc::new(ToolLimiter::default()),
            admission: Admission::new(self.max_parallel_models),
            estimator: Estimator::default(),
            frames: Frames::default(),
            setups: Mutex::default(),
            budgets: Mutex::default(),
            ram_compactions: Mutex::default(),
            personas,
            config: Config {
                model: self.model.unwrap_or(chosen.model),
                why: chosen.why,
                system: self.system.map(Into::into),
                scope: self.scope,
                limits: self.limits,
                permissions: self.permissions,
                approval_timeout: self.approval_timeout,
                prices: self.prices,
                loops: self.loops,
                max_steps: self.max_steps,
                max_wait: self.max_wait,
                run_timeout: self.run_timeout,
                tools: ToolLimits { timeout: self.tool_timeout, max_output: self.max_tool_output, kept },
                max_parallel_tools: self.max_parallel_tools,
                history_tokens: self.history_tokens,
                context_tokens: self.context_tokens,
                plain_summaries: !by_model,
                recall_limit: self.recall_limit,
                own_transcript,
            },
        });
        let _ = late.set(Arc::downgrade(&inner));
        // Now rather than at the first question.
        inner.toolbox()?;
        let zo = Zo { inner, agents: Arc::new(Agents::default()) };
        if self.resume_on_start {
            for run in zo.unfinished()? {
                // A child goes on with its parent, and what waits for a person goes on with him.
                let by_itself = run.damaged.is_none() && run.parent.is_none() && run.approvals.is_empty();
                if by_itself && let Err(e) = zo.spawn_resumed(&Cx::new(""), &run.run).await {
                    // One that cannot go on is in nobody's way, and stays on the list.
                    tracing::warn!(run = run.run.as_str(), error = %e, "an interrupted run could not be resumed");
                }
            }
        }
        Ok(zo)
    }
}

/// What a persona may do, where it is not what its parent may.
fn permissions_of(persona: &Persona) -> Result<Option<Permissions>> {
    if persona.preset.is_none() && persona.scopes.is_empty() {
        return Ok(None);
    }
    let mut permissions = match &persona.preset {
        Some(name) => Permissions::preset(preset(name)?),
        None => Permissions::default().scopes(Vec::<String>::new()),
    };
    for scope in &persona.scopes {
        permissions = permissions.scope(scope);
    }
    if persona.preset.as_deref().map(preset).transpose()? != Some(Preset::ChatOnly) {
        // The agent's own tools reach nothing but its own memory of its user.
        for tool in ["remember", "recall", "forget", "use_skill", READ_OUTPUT] {
            permissions = permissions.rule(permission::Rule::allow().tool(tool));
        }
    }
    permissions.check()?;
    Ok(Some(permissions))
}

/// A preset by its name, however its words are joined.
fn preset(name: &str) -> Result<Preset> {
    match name.to_lowercase().replace([' ', '-'], "_").as_str() {
        "all_access" => Ok(Preset::AllAccess),
        "workspace" => Ok(Preset::Workspace),
        "read_only" => Ok(Preset::ReadOnly),
        "chat_only" => Ok(Preset::ChatOnly),
        _ => Err(Error::new(
            ErrorKind::Invalid,
            "zo.build",
            format_args!(
                "there is no preset {name:?}; there are all_access, workspace, read_only and chat_only"
            ),
        )),
    }
}

/// A provider, its model and why they were chosen.
struct Choice {
    provider: Arc<dyn Provider>,
    model: String,
    why: String,
}

async fn choose(cx: &Cx, given: Option<Arc<dyn Provider>>) -> Result<Choice> {
    if let Some(provider) = given {
        return Ok(Choice { provider, model: String::new(), why: "given by the host".into() });
    }
    from_env(cx).await
}

#[cfg(feature = "providers")]
async fn from_env(cx: &Cx) -> Result<Choice> {
    let chosen = zo_providers::from_env(cx).await?;
    Ok(Choice { provider: chosen.provider, model: chosen.model, why: chosen.why })
}

#[cfg(not(feature = "providers"))]
async fn from_env(_: &Cx) -> Result<Choice> {
    Err(Error::new(
        ErrorKind::Invalid,
        "zo.build",
        "no provider: call `.provider(...)`, or turn on a feature of zo-core such as `http`",
    ))
}

type Parts = (Option<Arc<dyn MemoryStore>>, Option<Arc<dyn Transcript>>);

#[cfg(feature = "memory")]
async fn parts(
    store: Option<Store>,
    memory: Option<Arc<dyn MemoryStore>>,
    transcript: Option<Arc<dyn Transcript>>,
) -> Result<Parts> {
    let transcript: Arc<dyn Transcript> = match (transcript, &store) {
        (Some(t), _) => t,
        (None, Some(store)) => Arc::new(zo_memory::StoreTranscript::new(store.clone()).await?),
        (None, None) => Arc::new(zo_memory::RamTranscript::default()),
    };
    let memory: Arc<dyn MemoryStore> = match (memory, store) {
        (Some(m), _) => m,
        (None, Some(store)) => Arc::new(zo_memory::Memory::new(store).await?),
        (None, None) => Arc::new(zo_memory::Memory::in_memory().await?),
    };
    Ok((Some(memory), Some(transcript)))
}

#[cfg(not(feature = "memory"))]
async fn parts(
    _: Option<Store>,
    memory: Option<Arc<dyn MemoryStore>>,
    transcript: Option<Arc<dyn Transcript>>,
) -> Result<Parts> {
    Ok((memory, transcript))
}
