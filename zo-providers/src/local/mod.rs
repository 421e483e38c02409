//! A model in this process: a GGUF file, run on the processor.
//!
//! ```no_run
//! # async fn demo() -> zo_traits::Result<()> {
//! use zo_providers::Local;
//! use zo_traits::{Cx, Message, ProviderExt, Request};
//!
//! let model = Local::open("SmolLM2-1.7B-Instruct-Q4_K_M.gguf")?.threads(4).context(4096);
//! let answer = model.complete(&Cx::default(), &Request::new("", [Message::user("hello")])).await?;
//! println!("{}", answer.message.to_text());
//! # Ok(()) }
//! ```
//!
//! # What it promises
//! * **Tool calls and schema answers are well-formed.** While one is written, only tokens are on offer that keep it within the
//!   JSON Schema, and a tool's name is one of those on offer. The one way for it to be broken is a limit on its length, and then
//!   the answer ends with [`Length`](zo_traits::FinishReason::Length). Of a tool's schema the parts that the grammar engine
//!   does not know are left to the check before the tool runs; for [`Request::output_schema`] they are an error.
//! * **It stops.** Cancelling, a deadline or dropping the stream ends the work within a layer of the model.
//! * **First come, first served.** One request at a time, on a thread of its own, so that no async thread is held up; the
//!   others wait in line. The thread, and the memory, are given back when the provider and its streams are dropped.
//! * **A broken file is an error**, not a panic. Reading one that somebody made in order to harm takes memory in proportion to
//!   its size.
//!
//! # What runs
//! Families `llama` (also Mistral, SmolLM2, TinyLlama), `qwen2` and `qwen3`, dense, in every format of weights that the engine
//! reads (Q2_K to Q8_0, F16, BF16, F32). In memory weights take 9 bits each and the cache 8 bytes for every value of
//! a key, so that a model of 1.7 billion weights wants 2 GB.
//!
//! # Options of a request
//! `temperature` (unset: 0, which always takes the best), `top_p`, `max_tokens` (unset: to the end of the context), `stop`,
//! `tool_choice`, `output_schema`; in `extra`, `seed` (a natural number: the same seed, the same answer) and
//! `parallel_tool_calls` (`false`: at most one call). `model` is not looked at: a file is one model.

mod answer;
mod attention;
mod chat;
mod gguf;
mod grammar;
mod matrix;
mod model;
mod sample;
mod stream;
mod words;
mod worker;

use gguf::Head;
use std::{
    fmt,
    fs::File,
    num::NonZero,
    path::Path,
    sync::{Mutex, PoisonError},
};
use stream::Events;
use tokio::sync::{mpsc, oneshot};
use worker::{Job, Task};
use zo_traits::{
    BoxStream, Capabilities, Cx, Error, ErrorKind, ModelInfo, Price, Provider, Request, Result, StreamEvent,
    async_trait,
};

const OP: &str = "local";
/// Requests that wait in line inside; further ones wait at its end, first come, first served.
const LINE: usize = 16;

/// A GGUF file as a [`Provider`]. See the [module](self).
pub struct Local {
    id: String,
    name: String,
    threads: usize,
    context: usize,
    thinks: bool,
    state: Mutex<State>,
}

/// The weights are read when they are first wanted.
enum State {
    Closed(Box<(Head, File)>),
    Open(mpsc::Sender<Job>),
    Failed(Error),
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("id", &self.id)
            .field("model", &self.name)
            .field("threads", &self.threads)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

impl Local {
    /// Opens a GGUF file. Its head is read and checked now, which takes some 100 ms; the weights are read by the first request,
    /// on the model's own thread (or by [`warm`](Self::warm)).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Denied`]; [`ErrorKind::Corrupt`] for what is no GGUF file or a broken one;
    /// [`ErrorKind::Unsupported`] for a model of another kind, with what is known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (head, file) = worker::caught(|| Head::read(path))?;
        let shape = worker::caught(|| model::Shape::new(&head))?;
        let template = head.text("tokenizer.chat_template").unwrap_or_default();
        let file_name = path.file_stem().map(|s| s.to_string_lossy().into_owned());
        Ok(Self {
            id: "local".into(),
            name: file_name.unwrap_or_else(|| "model".into()),
            // The other half is the host's.
            threads: std::thread::available_parallelism().map_or(1, NonZero::get).div_ceil(2).min(8),
            context: shape.context.min(8192),
            thinks: template.contains(chat::THINK),
            state: Mutex::new(State::Closed(Box::new((head, file)))),
        })
    }

    /// Another [id](Provider::id) than `local`, for a process with several models.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Threads that compute; at least one. Unset: half of the processors, at most eight. More than there are idle processors
    /// makes it slower.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.clamp(1, 256);
        self
    }

    /// Longest conversation with its answer, in tokens; no more than the model was made for. Unset: that, up to 8192. The cache
    /// grows with what is really used.
    #[must_use]
    pub fn context(mut self, tokens: usize) -> Self {
        let most = match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Closed(file) => model::Shape::new(&file.0).map_or(tokens, |s| s.context),
            _ => self.context,
        };
        self.context = tokens.clamp(1, most.max(1));
        self
    }

    /// Reads the weights now, so that the first request need not.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] and others when they cannot be read; [`ErrorKind::Cancelled`], [`ErrorKind::Timeout`].
    pub async fn warm(&self, cx: &Cx) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(cx, Task::Warm(reply), answer).await
    }

    async fn ask<T>(&self, cx: &Cx, task: Task, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        cx.check(OP)?;
        let line = self.line()?;
        let gone = || Error::new(ErrorKind::Unavailable, OP, "the model's thread has ended");
        cx.race(OP, line.send(Job { cx: cx.clone(), task })).await?.map_err(|_| gone())?;
        cx.race(OP, answer).await?.map_err(|_| gone())?
    }

    /// The line of the worker, which is started if need be.
    fn line(&self) -> Result<mpsc::Sender<Job>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let starting = Error::new(ErrorKind::Unavailable, OP, "the model's thread could not be started");
        match std::mem::replace(&mut *state, State::Failed(starting)) {
            State::Closed(file) => {
                let (line, jobs) = mpsc::channel(LINE);
                match worker::start(*file, self.name.clone(), self.threads, self.context, jobs) {
                    Ok(()) => *state = State::Open(line.clone()),
                    Err(e) => {
                        *state = State::Failed(e.clone());
                        return Err(e);
                    }
                }
                Ok(line)
            }
            State::Open(line) => {
                *state = State::Open(line.clone());
                Ok(line)
            }
            State::Failed(e) => {
                *state = State::Failed(e.clone());
                Err(e)
            }
        }
    }
}

#[async_trait]
impl Provider for Local {
    fn id(&self) -> &str {
        &self.id
    }

    fn capabilities(&self, _model: &str) -> Capabilities {
        let mut c = Capabilities::default();
        (c.tools, c.parallel_tools, c.structured, c.reasoning) = (true, true, true, self.thinks);
        c.context_window = u32::try_from(self.context).ok();
        c.price = Some(Price::default());
        c
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        let (reply, answer) = oneshot::channel();
        let (events, received) = mpsc::unbounded_channel();
        let task = Task::Answer { request: Box::new(request.clone()), reply, events };
        self.ask(cx, task, answer).await?;
        Ok(Box::pin(Events::new(cx, received)))
    }

    async fn models(&self, cx: &Cx) -> Result<Vec<ModelInfo>> {
        cx.check(OP)?;
        let mut info = ModelInfo::new(self.name.clone());
        info.capabilities = self.capabilities("");
        Ok(vec![info])
    }

    async fn count_tokens(&self, cx: &Cx, request: &Request) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        self.ask(cx, Task::Count { request: Box::new(request.clone()), reply }, answer).await
    }
}
