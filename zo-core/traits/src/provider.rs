//! Models: what is asked of them and what they can do.

use crate::{
    BoxStream, Cx, Error, ErrorKind, Message, Response, Result, StreamEvent, ToolSpec, stream, wire_enum,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{fmt::Debug, future::Future, sync::Arc};

/// Talks to a model. The one method that carries the meaning is [`stream`](Provider::stream); buffered answers come from
/// [`ProviderExt::complete`], which folds it, so that the two cannot differ.
///
/// # What an implementation owes
/// * The stream obeys the grammar of [`StreamEvent`]. A stream that ends without [`StreamEvent::Finish`] was cut, and
///   every consumer treats it as [`ErrorKind::Corrupt`]; never synthesise a `Finish` at the end of the bytes.
/// * `Err` from `stream` itself means that nothing was produced: the caller may retry or fall back. An `Err` item inside
///   the stream means that output may already have been shown; it is the last item.
/// * [`Replay`](crate::Replay) data of its own family is sent back verbatim, that of other families is left out.
/// * A [`Cx`] that is cancelled or late ends both the call and the stream within one poll of its waker.
/// * No key in any error, log or `Debug` output.
///
/// # Cancel safety
/// Dropping the future or the stream closes the connection. The model may still have been billed for what it produced.
#[async_trait]
pub trait Provider: Send + Sync + Debug + 'static {
    /// Stable id of this provider, e.g. `"anthropic"`.
    fn id(&self) -> &str;

    /// What `model` can do, as far as is known. Plain data, no I/O.
    fn capabilities(&self, _model: &str) -> Capabilities {
        Capabilities::default()
    }

    /// Starts a completion. The request is borrowed, so that retry, fallback, cache and logging layers never clone a
    /// conversation.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`], [`RateLimited`](ErrorKind::RateLimited) (with `retry_after`),
    /// [`Exhausted`](ErrorKind::Exhausted), [`ContextOverflow`](ErrorKind::ContextOverflow),
    /// [`Invalid`](ErrorKind::Invalid), [`NotFound`](ErrorKind::NotFound) (the model),
    /// [`Unavailable`](ErrorKind::Unavailable), [`Timeout`](ErrorKind::Timeout),
    /// [`Cancelled`](ErrorKind::Cancelled), [`Corrupt`](ErrorKind::Corrupt).
    async fn stream(&self, cx: &Cx, request: &Request) -> Result<BoxStream<Result<StreamEvent>>>;

    /// The models on offer.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the provider has no such list; else as [`stream`](Provider::stream).
    async fn models(&self, _cx: &Cx) -> Result<Vec<ModelInfo>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "provider.models",
            format_args!("{} lists no models", self.id()),
        ))
    }

    /// Prompt tokens that `request` would be, by the provider's own tokenizer.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the provider does not tell; else as [`stream`](Provider::stream).
    async fn count_tokens(&self, _cx: &Cx, _request: &Request) -> Result<u64> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "provider.count_tokens",
            format_args!("{} counts no tokens ahead", self.id()),
        ))
    }
}

/// Conveniences over [`Provider`]. Not overridable, so wrappers have nothing to forget.
pub trait ProviderExt: Provider {
    /// The whole answer: the stream, folded by the one shared [`Accumulator`](crate::Accumulator).
    ///
    /// # Errors
    /// What the stream reports, and [`ErrorKind::Corrupt`] when it breaks the grammar or is cut.
    fn complete(&self, cx: &Cx, request: &Request) -> impl Future<Output = Result<Response>> + Send {
        async move { stream::fold(cx, self.stream(cx, request).await?).await }
    }
}
impl<T: Provider + ?Sized> ProviderExt for T {}

/// What a model can do. Unknown is the default: `false` and `None` mean *not known to*.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Capabilities {
    /// Calls tools.
    pub tools: bool,
    /// Calls several tools in one turn.
    pub parallel_tools: bool,
    /// Obeys a JSON Schema for its answer.
    pub structured: bool,
    /// Takes images.
    pub vision: bool,
    /// Takes sound.
    pub audio: bool,
    /// Takes documents (PDF).
    pub documents: bool,
    /// Thinks before it answers.
    pub reasoning: bool,
    /// Prompt tokens that it has seen before cost less.
    pub cache: bool,
    /// Context window, in tokens.
    pub context_window: Option<u32>,
    /// Longest answer, in tokens.
    pub max_output: Option<u32>,
    /// What it costs.
    pub price: Option<Price>,
}

/// Price in millionths of a US dollar per million tokens (so 3 USD per million is 3,000,000).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Prompt tokens that were not cached.
    pub input: u64,
    /// Completion tokens.
    pub output: u64,
    /// Prompt tokens read from the cache.
    pub cache_read: u64,
    /// Prompt tokens written to the cache.
    pub cache_write: u64,
}

impl Price {
    /// Cost of `usage` in millionths of a US dollar, rounded up.
    pub fn cost(&self, usage: &Usage) -> u64 {
        let fresh = usage.input.saturating_sub(usage.cache_read).saturating_sub(usage.cache_write);
        let total = [
            (fresh, self.input),
            (usage.output, self.output),
            (usage.cache_read, self.cache_read),
            (usage.cache_write, self.cache_write),
        ]
        .iter()
        .fold(0u128, |sum, (n, each)| sum.saturating_add(u128::from(*n) * u128::from(*each)));
        u64::try_from(total.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// A model on offer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The id to put into [`Request::model`].
    pub id: String,
    /// A name for people.
    pub name: Option<String>,
    /// What it can do.
    pub capabilities: Capabilities,
}

impl ModelInfo {
    /// A model of which only the id is known.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }
}

/// A completion request. One struct, so that a new option never is a new trait method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Request {
    /// Model id as the provider spells it; empty lets the provider choose its default.
    pub model: String,
    /// The conversation. System messages may stand anywhere; a wire that has no place for them in the middle of a
    /// conversation renders them as marked user text.
    pub messages: Vec<Message>,
    /// Tools on offer, in the order in which they are sent. Shared: thousands of agents offer the same.
    pub tools: Arc<[ToolSpec]>,
    /// Whether the model may, must or must not call a tool.
    pub tool_choice: ToolChoice,
    /// Sampling temperature; `None` is the provider's default.
    pub temperature: Option<f32>,
    /// Nucleus sampling; `None` is the provider's default.
    pub top_p: Option<f32>,
    /// Longest answer, in tokens.
    pub max_tokens: Option<u32>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// JSON Schema that the answer must obey.
    pub output_schema: Option<Arc<Value>>,
    /// How hard to think.
    pub effort: Option<Effort>,
    /// Nobody looks at the pieces: a provider that can send its answer whole may do so, which costs both sides less. The
    /// events are the same. An answer sent whole has no first byte until it is done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    /// Body fields of this provider, merged last; they win.
    pub extra: Map<String, Value>,
}

impl Request {
    /// A request to `model` with `messages`.
    pub fn new(model: impl Into<String>, messages: impl IntoIterator<Item = Message>) -> Self {
        Self { model: model.into(), messages: messages.into_iter().collect(), ..Self::default() }
    }

    /// Offers more tools.
    #[must_use]
    pub fn tools(mut self, tools: impl IntoIterator<Item = ToolSpec>) -> Self {
        self.tools = self.tools.iter().cloned().chain(tools).collect();
        self
    }
}

/// Whether the model may, must or must not call a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// It must not.
    None,
    /// It must call at least one.
    Required,
    /// It must call this one.
    Tool(String),
}

wire_enum! {
    /// How hard a reasoning model thinks.
    pub enum Effort {
        /// Hardly.
        Minimal = "minimal",
        /// A little.
        Low = "low",
        /// Its usual.
        Medium = "medium",
        /// Hard.
        High = "high",
    }
}

/// Token counts of one answer, or of several added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Usage {
    /// All prompt tokens, those read from or written to a cache included.
    pub input: u64,
    /// All completion tokens, reasoning included.
    pub output: u64,
    /// Prompt tokens that came from the provider's cache.
    pub cache_read: u64,
    /// Prompt tokens that were put into the provider's cache.
    pub cache_write: u64,
    /// Completion tokens spent on reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// `input` prompt tokens and `output` completion tokens.
    pub fn new(input: u64, output: u64) -> Self {
        Self { input, output, ..Self::default() }
    }

    /// Prompt and completion tokens together.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, o: Self) {
        self.input = self.input.saturating_add(o.input);
        self.output = self.output.saturating_add(o.output);
        self.cache_read = self.cache_read.saturating_add(o.cache_read);
        self.cache_write = self.cache_write.saturating_add(o.cache_write);
        self.reasoning = self.reasoning.saturating_add(o.reasoning);
    }
}
