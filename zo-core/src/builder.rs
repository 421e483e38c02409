//! Putting an agent together: every part has a default, and each can be replaced by anything that implements its trait.

use crate::{
    Zo,
    builtin::{MemorySkill, ReadOutput},
    journal::Journal,
    toolbox::ToolLimits,
    zo::{Config, Conversations, Inner},
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use zo_store::Store;
use zo_traits::{
    Clock, Cx, Error, ErrorKind, Limits, MemoryStore, Provider, Result, Scope, Skill, Transcript,
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
/// | [`history_tokens`](ZoBuilder::history_tokens) | about 24,000 tokens of the conversation reach the model |
/// | [`keep_runs`](ZoBuilder::keep_runs) | the records of the last 1,000 finished runs |
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ZoBuilder {
    provider: Option<Arc<dyn Provider>>,
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
    max_steps: u32,
    run_timeout: Option<Duration>,
    tool_timeout: Duration,
    max_parallel_tools: usize,
    max_tool_output: usize,
    history_tokens: usize,
    recall_limit: usize,
    keep_runs: u64,
}

impl Default for ZoBuilder {
    fn default() -> Self {
        Self {
            provider: None,
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
            max_steps: 32,
            run_timeout: None,
            tool_timeout: Duration::from_secs(120),
            max_parallel_tools: 8,
            max_tool_output: 32 * 1024,
            history_tokens: 24_000,
            recall_limit: 6,
            keep_runs: 1_000,
        }
    }
}

impl ZoBuilder {
    /// The model's provider, owned, shared or boxed.
    pub fn provider(mut self, provider: impl Provider) -> Self {
        self.provider = Some(Arc::new(provider));
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

    /// Allowance of each run.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
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

    /// About how many tokens of the conversation so far reach the model.
    pub fn history_tokens(mut self, n: usize) -> Self {
        self.history_tokens = n;
        self
    }

    /// Most memories that are recalled for a turn and shown to the model; 0 for none.
    pub fn recall_limit(mut self, n: usize) -> Self {
        self.recall_limit = n;
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
        let journal = Arc::new(Journal::open(store.clone(), self.keep_runs).await?);
        let own_transcript = self.transcript.is_none() && store.is_some();
        let (memory, transcript) = parts(store.clone(), self.memory, self.transcript).await?;
        let chosen = choose(&cx, self.provider).await?;

        let mut skills = self.skills;
        if let Some(memory) = memory.clone().filter(|_| self.memory_tools) {
            skills.push(Arc::new(MemorySkill::new(memory)));
        }
        let kept = journal.is_on();
        if kept {
            // A page must fit a result, its last line included.
            skills.push(Arc::new(ReadOutput::new(journal.clone(), self.max_tool_output - 256)));
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
        let zo = Zo(Arc::new(Inner {
            provider: chosen.provider,
            memory,
            transcript,
            journal,
            skills,
            store,
            clock: self.clock,
            conversations: Conversations::default(),
            toolbox: Mutex::default(),
            config: Config {
                model: self.model.unwrap_or(chosen.model),
                why: chosen.why,
                system: self.system,
                scope: self.scope,
                limits: self.limits,
                max_steps: self.max_steps,
                run_timeout: self.run_timeout,
                tools: ToolLimits { timeout: self.tool_timeout, max_output: self.max_tool_output, kept },
                max_parallel_tools: self.max_parallel_tools,
                history_tokens: self.history_tokens,
                recall_limit: self.recall_limit,
                own_transcript,
            },
        }));
        // Now rather than at the first question.
        zo.0.toolbox()?;
        Ok(zo)
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
        "no provider: call `.provider(...)`, or turn on a feature of zo-core such as `openai`",
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
