//! Conversations: messages, their parts, tool calls and tool results.
//!
//! These types are people's history on disk. Their JSON is pinned by golden tests (`tests/golden.rs`): new fields are
//! optional, and what an older or newer version wrote is read without loss ([`Part::Unknown`], `Other`).

use crate::wire_enum;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

wire_enum! {
    /// Who is speaking.
    pub enum Role {
        /// Instructions and facts from the host.
        System = "system",
        /// The human.
        User = "user",
        /// The model.
        Assistant = "assistant",
        /// Results of tool calls.
        Tool = "tool",
    }
}

/// One turn: a role and ordered parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Speaker.
    pub role: Role,
    /// Content, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// A message of one text part.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::text(text)] }
    }

    /// What the human says.
    pub fn user(text: impl Into<String>) -> Self {
        Self::text(Role::User, text)
    }

    /// What the host says.
    pub fn system(text: impl Into<String>) -> Self {
        Self::text(Role::System, text)
    }

    /// What the model says.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::text(Role::Assistant, text)
    }

    /// The results of one turn's tool calls, in call order.
    pub fn tool_results(results: impl IntoIterator<Item = ToolResult>) -> Self {
        Self { role: Role::Tool, parts: results.into_iter().map(Part::ToolResult).collect() }
    }

    /// The text parts, joined.
    pub fn to_text(&self) -> String {
        self.parts.iter().filter_map(Part::as_text).collect()
    }

    /// Tool calls, in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|p| if let Part::ToolCall(c) = p { Some(c) } else { None })
    }

    /// Tool results, in order.
    pub fn results(&self) -> impl Iterator<Item = &ToolResult> {
        self.parts.iter().filter_map(|p| if let Part::ToolResult(r) = p { Some(r) } else { None })
    }
}

/// A piece of content. JSON: an object whose `type` is the variant's name in snake_case.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Part {
    /// Plain text.
    Text(Text),
    /// The model's reasoning. Sent back only to the provider family named in its [`Replay`].
    Reasoning(Text),
    /// The model declines, in words.
    Refusal(Text),
    /// An image, a sound, a document.
    Media(Media),
    /// The model wants a tool run.
    ToolCall(ToolCall),
    /// The host answers a tool call.
    ToolResult(ToolResult),
    /// A block that only its provider understands (encrypted reasoning, a server-side tool's result). Sent back verbatim
    /// to the same provider family, left out for others.
    Opaque(Replay),
    /// A part that this version does not know, kept verbatim so that reading and writing history loses nothing.
    Unknown(Value),
}

impl Part {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Text::new(text))
    }

    /// The text, if this is a text part.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(t) = self { Some(&t.text) } else { None }
    }
}

/// Text of a part, with what its provider wants back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// The text; may be empty (hidden reasoning).
    pub text: String,
    /// Opaque data to send back with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

impl Text {
    /// Text without replay data.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), replay: None }
    }
}

/// Data that must go back verbatim to the provider that sent it, and to no other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Wire family that understands it, e.g. `"anthropic"`.
    pub provider: String,
    /// The data, verbatim.
    pub data: Value,
}

impl Replay {
    /// `data` for `provider`.
    pub fn new(provider: impl Into<String>, data: impl Into<Value>) -> Self {
        Self { provider: provider.into(), data: data.into() }
    }
}

/// Bytes or a link, with their media type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Media {
    /// Media type (RFC 6838), e.g. `image/png`.
    pub media_type: String,
    /// Where the bytes are.
    pub source: MediaSource,
    /// File name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Where the bytes of a [`Media`] are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MediaSource {
    /// The bytes themselves, standard base64 with padding (RFC 4648, section 4).
    Base64(String),
    /// A URL that the provider fetches.
    Url(String),
}

/// A request by the model to run a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Correlation id, unique in its run, always present (minted when the provider has none).
    pub id: String,
    /// Tool name, as the model wrote it.
    pub name: String,
    /// Arguments. When the model's text was not JSON this is that text as a JSON string, which no tool's schema accepts.
    pub args: Value,
    /// Opaque data to send back with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

impl ToolCall {
    /// A call without replay data.
    pub fn new(id: impl Into<String>, name: impl Into<String>, args: impl Into<Value>) -> Self {
        Self { id: id.into(), name: name.into(), args: args.into(), replay: None }
    }
}

wire_enum! {
    /// How a tool call ended.
    pub enum ToolStatus {
        /// It did what was asked.
        Ok = "ok",
        /// It failed, and said so.
        Error = "error",
        /// It was in flight when the process died and must not be repeated: it may or may not have happened.
        Unknown = "unknown",
        /// It was stopped or never started, because the run was.
        Cancelled = "cancelled",
        /// A policy or a person refused it.
        Denied = "denied",
    }
}

/// The answer to a [`ToolCall`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// Which call this answers.
    pub id: String,
    /// Name of the tool; some wires want it beside the id.
    pub name: String,
    /// How it ended.
    pub status: ToolStatus,
    /// Text shown to the model.
    pub content: String,
    /// Images and files shown to the model, where its provider can take them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<Media>,
}

impl ToolResult {
    /// A result of `call` without media.
    pub fn new(call: &ToolCall, status: ToolStatus, content: impl Into<String>) -> Self {
        Self {
            id: call.id.clone(),
            name: call.name.clone(),
            status,
            content: content.into(),
            media: Vec::new(),
        }
    }

    /// Anything but [`ToolStatus::Ok`].
    pub fn is_error(&self) -> bool {
        self.status != ToolStatus::Ok
    }
}

// The JSON of `Part`: internally tagged by `type`, with every unknown or unreadable object kept whole.

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PartRef<'a> {
    Text(&'a Text),
    Reasoning(&'a Text),
    Refusal(&'a Text),
    Media(&'a Media),
    ToolCall(&'a ToolCall),
    ToolResult(&'a ToolResult),
    Opaque(&'a Replay),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PartOwned {
    Text(Text),
    Reasoning(Text),
    Refusal(Text),
    Media(Media),
    ToolCall(ToolCall),
    ToolResult(ToolResult),
    Opaque(Replay),
    #[serde(untagged)]
    Unknown(Value),
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(t) => PartRef::Text(t),
            Self::Reasoning(t) => PartRef::Reasoning(t),
            Self::Refusal(t) => PartRef::Refusal(t),
            Self::Media(m) => PartRef::Media(m),
            Self::ToolCall(c) => PartRef::ToolCall(c),
            Self::ToolResult(r) => PartRef::ToolResult(r),
            Self::Opaque(r) => PartRef::Opaque(r),
            Self::Unknown(v) => return v.serialize(s),
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(match PartOwned::deserialize(d)? {
            PartOwned::Text(t) => Self::Text(t),
            PartOwned::Reasoning(t) => Self::Reasoning(t),
            PartOwned::Refusal(t) => Self::Refusal(t),
            PartOwned::Media(m) => Self::Media(m),
            PartOwned::ToolCall(c) => Self::ToolCall(c),
            PartOwned::ToolResult(r) => Self::ToolResult(r),
            PartOwned::Opaque(r) => Self::Opaque(r),
            PartOwned::Unknown(v) => Self::Unknown(v),
        })
    }
}
