//! A provider that answers from a script and records what it was asked.

use serde_json::Value;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use zo_traits::{
    BoxStream, Capabilities, Cx, Error, ErrorKind, FinishReason, Message, Part, Provider, Request, Response,
    Result, Role, StreamEvent, ToolCall, Usage, async_trait, stream_of,
};

/// One scripted answer.
#[derive(Debug, Clone)]
pub enum Turn {
    /// A whole answer.
    Answer(Response),
    /// These events, however broken, then the end of the stream.
    Events(Vec<Result<StreamEvent>>),
    /// Nothing: the call itself fails.
    Fail(Error),
    /// The call never returns; only cancellation or a deadline ends it.
    Hang,
}

impl Turn {
    /// An answer in words.
    pub fn text(text: &str) -> Self {
        let mut answer = Response::new(Message::assistant(text), FinishReason::Stop);
        answer.usage = Usage::new(10, 5);
        Self::Answer(answer)
    }

    /// A turn that calls tools: `(id, name, arguments)`.
    pub fn calls<const N: usize>(calls: [(&str, &str, Value); N]) -> Self {
        let parts =
            calls.into_iter().map(|(id, name, args)| Part::ToolCall(ToolCall::new(id, name, args))).collect();
        let mut answer = Response::new(Message { role: Role::Assistant, parts }, FinishReason::ToolCalls);
        answer.usage = Usage::new(10, 5);
        Self::Answer(answer)
    }
}

/// What the provider was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The request, as it came.
    pub request: Request,
    /// The run it came from.
    pub run: String,
}

type Rule = Arc<dyn Fn(&Request) -> Turn + Send + Sync>;

/// A provider that answers from a script, or by a rule, and records what it was asked. Clones share script and record.
///
/// ```
/// use zo_testkit::{Scripted, Turn};
/// use zo_traits::{Cx, Message, ProviderExt, Request};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let model = Scripted::new([Turn::text("hello")]);
/// let answer = model.complete(&Cx::default(), &Request::new("m", [Message::user("hi")])).await?;
/// assert_eq!(answer.message.to_text(), "hello");
/// assert_eq!(model.asked().len(), 1);
/// # Ok::<(), zo_traits::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Scripted(Arc<Inner>);

struct Inner {
    script: Mutex<VecDeque<Turn>>,
    rule: Option<Rule>,
    asked: Mutex<Vec<Asked>>,
    record: bool,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

impl Scripted {
    /// Answers with these turns, one a call; a call beyond them fails with `NotFound`.
    pub fn new(turns: impl IntoIterator<Item = Turn>) -> Self {
        Self::make(turns.into_iter().collect(), None, true)
    }

    /// Answers every call by this rule.
    pub fn by(rule: impl Fn(&Request) -> Turn + Send + Sync + 'static) -> Self {
        Self::make(VecDeque::new(), Some(Arc::new(rule)), true)
    }

    /// As [`by`](Scripted::by), keeping no record: for benches and long runs.
    pub fn by_unrecorded(rule: impl Fn(&Request) -> Turn + Send + Sync + 'static) -> Self {
        Self::make(VecDeque::new(), Some(Arc::new(rule)), false)
    }

    fn make(script: VecDeque<Turn>, rule: Option<Rule>, record: bool) -> Self {
        Self(Arc::new(Inner { script: Mutex::new(script), rule, asked: Mutex::default(), record }))
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Provider for Scripted {
    fn id(&self) -> &str {
        "scripted"
    }

    fn capabilities(&self, _model: &str) -> Capabilities {
        let mut c = Capabilities::default();
        (c.tools, c.parallel_tools) = (true, true);
        c
    }

    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>> {
        cx.check("scripted.stream")?;
        if self.0.record {
            let asked = Asked { request: request.clone(), run: cx.run().to_owned() };
            self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        }
        let turn = match &self.0.rule {
            Some(rule) => rule(request),
            None => {
                let next = self.0.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                next.ok_or_else(|| Error::new(ErrorKind::NotFound, "scripted.stream", "the script is over"))?
            }
        };
        match turn {
            Turn::Answer(answer) => Ok(stream_of(answer.into_events().into_iter().map(Ok))),
            Turn::Events(events) => Ok(stream_of(events)),
            Turn::Fail(error) => Err(error),
            Turn::Hang => cx.race("scripted.stream", std::future::pending()).await?,
        }
    }
}
