//! Providers as data: one row each, so that a compatible provider costs no code.
//!
//! The rows that are built in stand in `dialects.json`; a host adds its own in the same format ([`Dialect::read`]).

use serde::Deserialize;
use std::{collections::BTreeMap, sync::LazyLock};
use zo_traits::{Error, ErrorKind, Result};

/// Which wire a provider speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Family {
    /// OpenAI's chat completions.
    #[default]
    Chat,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages API.
    Anthropic,
    /// Gemini's `generateContent`.
    Gemini,
    /// Ollama's `/api/chat`.
    Ollama,
    /// Zo Computer's `/zo/ask`, which is an agent and no model.
    Zo,
}

/// How the longest answer is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokensField {
    /// `max_tokens`.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`, which counts reasoning too.
    MaxCompletionTokens,
}

/// How an answer after a JSON Schema is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SchemaField {
    /// `response_format: {"type": "json_schema", ...}`.
    #[default]
    JsonSchema,
    /// `response_format: {"type": "json_object"}`; the schema itself goes into the system text.
    JsonObject,
}

/// How much thinking is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EffortField {
    /// Not at all: the wish is left out.
    #[default]
    None,
    /// `reasoning_effort`, for models that reason by their name (OpenAI's), since others refuse the field.
    ReasoningModels,
    /// `reasoning_effort`.
    ReasoningEffort,
    /// `reasoning_effort`, for models that are [known](crate::models) to reason, since others refuse the field.
    KnownModels,
    /// `reasoning: {"effort": ...}`.
    Reasoning,
}

/// A provider as data: where it is, how its key is called, and where it departs from its wire.
///
/// The [default](Dialect::default) is plain chat completions at no address; a row states what differs. Rows are read from
/// JSON, whose fields are those below:
///
/// ```
/// use zo_providers::Dialect;
/// let row = Dialect::read(r#"{"id": "acme", "base_url": "https://llm.acme.example/v1", "key_env": "ACME_KEY",
///     "required": "any", "short_ids": true}"#)?;
/// assert_eq!(row[0].id, "acme");
/// # Ok::<(), zo_traits::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Dialect {
    /// Id of the provider, and the family of its [`Replay`](zo_traits::Replay) data where its wire has no name of its own.
    pub id: String,
    /// Which wire it speaks.
    pub family: Family,
    /// Base URL. Empty where everybody has an address of their own.
    pub base_url: String,
    /// The header that carries the key. `authorization` carries it as `Bearer ...`, any other as it is.
    pub key_header: String,
    /// Environment variable that holds its key. Empty for a local server, which needs none.
    pub key_env: String,
    /// Environment variable that replaces [`base_url`](Dialect::base_url). Empty where there is no custom of one.
    pub base_env: String,
    /// Chosen only by its name, never because its key is in the environment.
    pub by_name_only: bool,
    /// The model when the caller names none. Empty: the first that the server lists.
    pub default_model: String,
    /// Headers on every request. No place for secrets.
    pub headers: BTreeMap<String, String>,
    /// How the longest answer is asked for.
    pub tokens: TokensField,
    /// How structured output is asked for.
    pub schema: SchemaField,
    /// Structured output goes neither with streaming nor with tools: without tools the answer is asked for whole, with tools
    /// the schema goes into the system text.
    pub schema_alone: bool,
    /// How thinking is asked for.
    pub effort: EffortField,
    /// Understands `stream_options: {"include_usage": true}`.
    pub stream_usage: bool,
    /// Takes system messages in the middle of a conversation. Where not, as with most chat templates, their text goes
    /// marked into the user's turn. Counts only at [`base_url`](Dialect::base_url): what stands elsewhere under the same
    /// name may be any server.
    pub mid_system: bool,
    /// Chat templates insist on turns: user and assistant alternate, and after tool results the assistant speaks first.
    pub strict_turns: bool,
    /// Spelling of "must call a tool".
    pub required: String,
    /// Takes the name of the tool that must be called. Where not, only that tool is offered.
    pub tool_by_name: bool,
    /// Tool call ids must be exactly nine letters or digits.
    pub short_ids: bool,
    /// Wants `reasoning_content` back, always, of everything that the model said between two questions if it called a tool
    /// there.
    pub replay_reasoning: bool,
    /// Wants `reasoning_details` back verbatim.
    pub replay_details: bool,
    /// Media types that it takes, as far as the wire has a place for them. `None`: who knows, they are sent.
    /// Counts only at [`base_url`](Dialect::base_url), too.
    pub media: Option<Vec<String>>,
    /// Most texts in one request for embeddings.
    pub embed_texts: usize,
    /// Most bytes of text in one request for embeddings; a longer text goes alone.
    pub embed_bytes: usize,
    /// How the length of vectors is asked for.
    pub embed_dimensions: String,
    /// Whatever is to be known about the row.
    pub note: String,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            id: "openai-compatible".into(),
            family: Family::Chat,
            base_url: String::new(),
            key_header: "authorization".into(),
            key_env: String::new(),
            base_env: String::new(),
            by_name_only: false,
            default_model: String::new(),
            headers: BTreeMap::new(),
            tokens: TokensField::MaxTokens,
            schema: SchemaField::JsonSchema,
            schema_alone: false,
            effort: EffortField::None,
            stream_usage: true,
            mid_system: false,
            strict_turns: false,
            required: "required".into(),
            tool_by_name: true,
            short_ids: false,
            replay_reasoning: false,
            replay_details: false,
            media: None,
            // Cohere's 96 texts are the fewest but for rows that say so, and OpenAI's 300,000 tokens far more than this.
            embed_texts: 96,
            embed_bytes: 256 << 10,
            embed_dimensions: "dimensions".into(),
            note: String::new(),
        }
    }
}

impl Dialect {
    /// The row of a provider that is built in, by its id.
    pub fn named(id: &str) -> Option<&'static Self> {
        DIALECTS.iter().find(|d| d.id == id)
    }

    /// Rows from JSON: one object, or a list of them.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], with the place, for what is no such JSON, has a field that no row has, or no id.
    pub fn read(json: &str) -> Result<Vec<Self>> {
        #[derive(Deserialize)]
        struct Named {
            #[serde(rename = "id")]
            _id: String,
        }
        let invalid = |e: serde_json::Error| {
            Error::new(
                ErrorKind::Invalid,
                "provider.dialect",
                format_args!("cannot read a provider's row: {e}"),
            )
        };
        if json.trim_start().starts_with('[') {
            serde_json::from_str::<Vec<Named>>(json).map_err(invalid)?;
            serde_json::from_str(json).map_err(invalid)
        } else {
            serde_json::from_str::<Named>(json).map_err(invalid)?;
            Ok(vec![serde_json::from_str(json).map_err(invalid)?])
        }
    }

    /// A server on this machine that takes no key. Who hands over the key himself names no variable for it, so the address
    /// counts, too.
    pub fn is_local(&self) -> bool {
        let host = self.base_url.split_once("://").map_or("", |(_, rest)| rest);
        let here = ["127.", "localhost", "[::1]"].iter().any(|start| host.starts_with(start));
        self.key_env.is_empty() && here
    }

    /// The family of the replay data of its answers.
    pub fn replays(&self) -> &str {
        match self.family {
            Family::Chat | Family::Responses => &self.id,
            Family::Anthropic => "anthropic",
            Family::Gemini => "gemini",
            Family::Ollama => "ollama",
            Family::Zo => "zo",
        }
    }
}

/// Every provider that is built in, in the order in which keys are looked for.
pub static DIALECTS: LazyLock<Vec<Dialect>> =
    LazyLock::new(|| Dialect::read(include_str!("dialects.json")).unwrap_or_default());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_distinct_and_whole() {
        let rows = Dialect::read(include_str!("dialects.json")).unwrap();
        assert!(rows.len() > 25);
        for (n, row) in rows.iter().enumerate() {
            assert!(rows.iter().skip(n + 1).all(|other| other.id != row.id), "{}", row.id);
            assert!(!row.base_url.ends_with('/'), "{}", row.id);
            assert!(row.base_url.starts_with("http") || !row.base_env.is_empty(), "{}", row.id);
            assert_eq!(row.is_local(), row.base_url.starts_with("http://127.0.0.1:"), "{}", row.id);
        }
        assert_eq!(Dialect::named("groq").unwrap().key_env, "GROQ_API_KEY");
        let own = Dialect::read(r#"{"id": "acme", "base_url": "https://llm.acme.example/v1"}"#).unwrap();
        assert!(!own[0].is_local(), "its key is handed over, not looked for");
    }

    #[test]
    fn rows_that_cannot_be_read_say_where() {
        for bad in
            ["{}", "[{\"base_url\": \"x\"}]", "{\"id\": \"x\", \"basurl\": \"y\"}", "{\"id\": 7}", "nonsense"]
        {
            let e = Dialect::read(bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Invalid);
            assert!(e.message().contains("line 1"), "{e}");
        }
    }
}
