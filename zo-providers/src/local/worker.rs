//! The thread on which a model lives: it reads the weights, then serves one request after another.

use super::{
    OP,
    answer::{Plan, Ready, Writer},
    chat::Chat,
    gguf::{Head, corrupt},
    grammar::Grammars,
    model::Model,
    sample::Sampler,
    words::Words,
};
use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
};
use tokio::sync::{mpsc, oneshot};
use zo_traits::{Cx, Error, ErrorKind, Request, Result, StreamEvent, ToolChoice, ToolSpec};

/// Something to do, for somebody who waits as long as his context lasts.
pub(super) struct Job {
    pub(super) cx: Cx,
    pub(super) task: Task,
}

pub(super) enum Task {
    /// Nothing: the weights are there.
    Warm(oneshot::Sender<Result<()>>),
    Count {
        request: Box<Request>,
        reply: oneshot::Sender<Result<u64>>,
    },
    /// `reply` says whether the request is one that can be answered.
    Answer {
        request: Box<Request>,
        reply: oneshot::Sender<Result<()>>,
        events: mpsc::UnboundedSender<Result<StreamEvent>>,
    },
}

impl Task {
    fn fail(self, e: Error) {
        // Nobody may be waiting any more.
        match self {
            Self::Warm(reply) | Self::Answer { reply, .. } => drop(reply.send(Err(e))),
            Self::Count { reply, .. } => drop(reply.send(Err(e))),
        }
    }
}

/// Runs `work`; a panic in it, the engine's or ours, is an error.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(corrupt(format_args!("the engine gave up: {text}")))
    })
}

/// Starts the thread. It ends when the other end of `jobs` is gone and the last answer is.
pub(super) fn start(
    (head, file): (Head, File),
    name: String,
    threads: usize,
    context: usize,
    mut jobs: mpsc::Receiver<Job>,
) -> Result<()> {
    let refused = |e: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Unavailable, OP, format_args!("the model's threads could not be started: {e}"))
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("zo-local-{n}"))
        .build()
        .map_err(|e| refused(&e))?;
    let run = move || {
        let go_on = || if jobs.is_closed() { Err(Error::cancelled(OP)) } else { Ok(()) };
        let engine = pool.install(|| caught(|| Engine::load(&head, file, name, context, go_on)));
        drop(head);
        let mut engine = engine;
        while let Some(job) = jobs.blocking_recv() {
            match &mut engine {
                Ok(engine) => pool.install(|| engine.serve(job)),
                Err(e) => job.task.fail(e.clone()),
            }
        }
    };
    std::thread::Builder::new().name("zo-local".into()).spawn(run).map(drop).map_err(|e| refused(&e))
}

struct Engine {
    name: String,
    words: Words,
    chat: Chat,
    grammars: Grammars,
    model: Model,
    context: usize,
}

impl Engine {
    fn load(
        head: &Head,
        file: File,
        name: String,
        context: usize,
        go_on: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let words = Words::new(head)?;
        Ok(Self {
            chat: Chat::new(head.text("tokenizer.chat_template").ok())?,
            grammars: Grammars::new(&words)?,
            model: Model::load(head, file, go_on)?,
            words,
            name,
            context,
        })
    }

    fn serve(&mut self, Job { cx, task }: Job) {
        match task {
            Task::Warm(reply) => drop(reply.send(Ok(()))),
            Task::Count { request, reply } => {
                let count = caught(|| Ok(self.prompt(&request)?.0.len() as u64));
                drop(reply.send(count));
            }
            Task::Answer { request, reply, events } => {
                let mut reply = Some(reply);
                let done = caught(|| self.answer(&cx, &request, &mut reply, &events));
                if let Err(e) = done {
                    match reply {
                        Some(reply) => drop(reply.send(Err(e))),
                        None => drop(events.send(Err(e))),
                    }
                }
            }
        }
    }

    fn prompt(&self, request: &Request) -> Result<(Vec<u32>, bool)> {
        // What cannot fit however it is cut need not be cut.
        let bytes: usize = request.messages.iter().map(|m| m.to_text().len()).sum();
        if bytes / self.words.longest() > self.context {
            return Err(self.overflow(format_args!("{bytes} bytes of text")));
        }
        self.chat.prompt(&self.words, request, offered(request)?)
    }

    fn overflow(&self, what: std::fmt::Arguments<'_>) -> Error {
        let context = self.context;
        Error::new(
            ErrorKind::ContextOverflow,
            OP,
            format_args!("{what} do not fit a context of {context} tokens"),
        )
    }

    fn answer(
        &mut self,
        cx: &Cx,
        request: &Request,
        reply: &mut Option<oneshot::Sender<Result<()>>>,
        events: &mpsc::UnboundedSender<Result<StreamEvent>>,
    ) -> Result<()> {
        let mut go_on = || {
            if events.is_closed() { Err(Error::cancelled(OP)) } else { cx.check(OP) }
        };
        // It may have waited in line for long.
        go_on()?;
        let tools = offered(request)?;
        let (prompt, thinking) = self.prompt(request)?;
        let room = self.context.saturating_sub(prompt.len());
        if room == 0 {
            return Err(self.overflow(format_args!("{} tokens", prompt.len())));
        }
        let id = prompt
            .iter()
            .fold(0xCBF2_9CE4_8422_2325u64, |h, t| (h ^ u64::from(*t)).wrapping_mul(0x0100_0000_01B3));
        let plan = Plan {
            tools,
            must_call: matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Tool(_)),
            parallel: !matches!(request.tool_choice, ToolChoice::Tool(_))
                && request.extra.get("parallel_tool_calls").is_none_or(|v| v != false),
            schema: request.output_schema.as_deref(),
            stop: &request.stop,
            thinking,
            id,
        };
        let ready = Ready::new(&mut self.grammars, &plan)?;
        let sampler = sampler(request)?;
        if let Some(reply) = reply.take() {
            drop(reply.send(Ok(())));
        }
        let mut emit = |event| drop(events.send(Ok(event)));
        emit(StreamEvent::Start { id: None, model: Some(self.name.clone()) });
        let scores = self.model.read(&prompt, &mut go_on)?;
        let most = request.max_tokens.map_or(room, |n| room.min(n as usize));
        let writer = Writer {
            model: &mut self.model,
            words: &self.words,
            sampler,
            go_on: &mut go_on,
            emit: &mut emit,
            scores,
            unread: Vec::new(),
            input: prompt.len(),
            output: 0,
            most,
            parts: 0,
        };
        { writer }.write(&plan, ready)
    }
}

/// The tools that may be called.
fn offered(request: &Request) -> Result<&[ToolSpec]> {
    let invalid = |m: String| Err(Error::new(ErrorKind::Invalid, OP, m));
    match &request.tool_choice {
        ToolChoice::None => Ok(&[]),
        ToolChoice::Required if request.tools.is_empty() => {
            invalid("a tool is to be called, and none is on offer".into())
        }
        ToolChoice::Tool(name) => match request.tools.iter().position(|t| t.name == *name) {
            Some(at) => Ok(request.tools.get(at..=at).unwrap_or_default()),
            None => invalid(format!("the tool {name} is to be called, and is not on offer")),
        },
        _ => Ok(&request.tools),
    }
}

fn sampler(request: &Request) -> Result<Sampler> {
    let invalid = |what: &str| Error::new(ErrorKind::Invalid, OP, format_args!("{what} is out of range"));
    let temperature = request.temperature.unwrap_or(0.0);
    let top_p = request.top_p.unwrap_or(1.0);
    if !(0.0..=100.0).contains(&temperature) {
        return Err(invalid("temperature"));
    }
    if !(0.0..=1.0).contains(&top_p) {
        return Err(invalid("top_p"));
    }
    let seed = match request.extra.get("seed") {
        Some(seed) => seed.as_u64().ok_or_else(|| invalid("seed"))?,
        None => RandomState::new().hash_one(0),
    };
    Ok(Sampler::new(temperature, top_p, seed))
}
