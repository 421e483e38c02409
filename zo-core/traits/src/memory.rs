//! Long-term memory, conversation transcripts and embeddings.

use crate::{Cx, Message, Result, Timestamp, id::id};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt::Debug;

/// Long-term memory: remember, recall, forget.
///
/// # What an implementation owes
/// * A [`Scope`] is a wall: nothing remembered in one is ever recalled or forgotten through another.
/// * What [`remember`](MemoryStore::remember) returned ids for is durable to the degree that the store promises.
/// * Ids are never reused, also not after [`forget`](MemoryStore::forget); newer ids are greater.
/// * What was forgotten is never recalled again.
#[async_trait]
pub trait MemoryStore: Send + Sync + Debug + 'static {
    /// Stores items, all or none; returns their ids in order. An empty list is fine.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a text that is empty or only white space.
    async fn remember(&self, cx: &Cx, scope: &Scope, items: Vec<NewMemory>) -> Result<Vec<MemoryId>>;

    /// Best matches first, at most [`Recall::limit`]; with an empty query text the newest first.
    ///
    /// # Errors
    /// Those of the store.
    async fn recall(&self, cx: &Cx, scope: &Scope, query: &Recall) -> Result<Vec<Recalled>>;

    /// Deletes; returns how many existed. Deleting again returns 0.
    ///
    /// # Errors
    /// Those of the store.
    async fn forget(&self, cx: &Cx, scope: &Scope, what: &Forget) -> Result<usize>;
}

/// Append-only conversation log.
///
/// # What an implementation owes
/// An append is atomic and durable before it returns, and reads see whole appends in order.
#[async_trait]
pub trait Transcript: Send + Sync + Debug + 'static {
    /// Appends `messages`; returns the new length in messages. With `at`, only if the length is `at`: so an append that
    /// may have happened can be tried again without doubling.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when the length is not `at`; nothing is appended then.
    async fn append(&self, cx: &Cx, conversation: &str, at: Option<u64>, messages: &[Message])
    -> Result<u64>;

    /// Up to `limit` messages from position `from` on. Past the end: empty.
    ///
    /// # Errors
    /// Those of the store.
    async fn read(&self, cx: &Cx, conversation: &str, from: u64, limit: usize) -> Result<Vec<Message>>;

    /// Length in messages; 0 for a conversation that does not exist.
    ///
    /// # Errors
    /// Those of the store.
    async fn len(&self, cx: &Cx, conversation: &str) -> Result<u64>;

    /// Names of conversations after `after` in byte order, at most `limit`.
    ///
    /// # Errors
    /// Those of the store.
    async fn conversations(&self, cx: &Cx, after: Option<&str>, limit: usize) -> Result<Vec<String>>;

    /// Deletes a conversation; `false` when there was none.
    ///
    /// # Errors
    /// Those of the store.
    async fn delete(&self, cx: &Cx, conversation: &str) -> Result<bool>;
}

/// Turns texts into vectors. Separate from [`Provider`](crate::Provider): other models, other lifetimes.
#[async_trait]
pub trait Embedder: Send + Sync + Debug + 'static {
    /// Names the vector space, model and version included. Vectors of different spaces are never compared.
    fn space(&self) -> &str;

    /// Length of each vector.
    fn dimensions(&self) -> usize;

    /// One vector per input, in order, each of unit length (or all zeros for a text without content).
    ///
    /// # Errors
    /// As [`Provider::stream`](crate::Provider::stream).
    async fn embed(&self, cx: &Cx, inputs: &[&str]) -> Result<Vec<Vec<f32>>>;
}

/// Whose memory: a tenant, a user, an agent, a channel. Any text; two scopes are the same when their texts are.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(pub String);

impl Scope {
    /// The scope named `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

impl From<&str> for Scope {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

id! {
    /// Id of a stored memory.
    MemoryId
}

/// An item to store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NewMemory {
    /// The fact, in words.
    pub text: String,
    /// Whatever the host wants to keep with it (source, author, kind).
    pub metadata: Map<String, Value>,
}

impl NewMemory {
    /// An item of text alone.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// What to recall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Recall {
    /// The question or words; empty for the newest items.
    pub text: String,
    /// Most results.
    pub limit: usize,
}

impl Default for Recall {
    fn default() -> Self {
        Self { text: String::new(), limit: 8 }
    }
}

impl Recall {
    /// The best `limit` for `text`.
    pub fn new(text: impl Into<String>, limit: usize) -> Self {
        Self { text: text.into(), limit }
    }

    /// The newest `limit`.
    pub fn newest(limit: usize) -> Self {
        Self::new("", limit)
    }
}

/// A match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recalled {
    /// Which.
    pub id: MemoryId,
    /// The fact.
    pub text: String,
    /// Higher is better; comparable only within one list.
    pub score: f32,
    /// When it was stored.
    pub at: Timestamp,
    /// What was kept with it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

impl Recalled {
    /// A match without metadata.
    pub fn new(id: MemoryId, text: impl Into<String>, score: f32, at: Timestamp) -> Self {
        Self { id, text: text.into(), score, at, metadata: Map::new() }
    }
}

/// What to forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Forget {
    /// These.
    Ids(Vec<MemoryId>),
    /// Everything in the scope.
    All,
}
