//! Providers as data: one row each, so that a compatible provider costs no code.

/// Which wire a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's Messages API.
    Anthropic,
}

/// How the longest answer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokensField {
    /// `max_tokens`.
    MaxTokens,
    /// `max_completion_tokens`, which counts reasoning too.
    MaxCompletionTokens,
}

/// How an answer after a JSON Schema is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaField {
    /// `response_format: {"type": "json_schema", ...}`.
    JsonSchema,
    /// `response_format: {"type": "json_object"}`; the schema itself goes into the system text.
    JsonObject,
}

/// How much thinking is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EffortField {
    /// Not at all: the wish is left out.
    None,
    /// `reasoning_effort`, for models that reason by their name (OpenAI's), since others refuse the field.
    ReasoningModels,
    /// `reasoning_effort`.
    ReasoningEffort,
    /// `reasoning: {"effort": ...}`.
    Reasoning,
}

/// A provider as data: where it is, how its key is called, and where it departs from the common wire.
///
/// [`Dialect::PLAIN`] is the common wire; a row states what differs.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Dialect {
    /// Id of the provider, and the family of its [`Replay`](zo_traits::Replay) data.
    pub id: &'static str,
    /// Which wire it speaks.
    pub family: Family,
    /// Base URL, without a slash at its end.
    pub base_url: &'static str,
    /// Environment variable that holds its key. Empty for a local server, which needs none.
    pub key_env: &'static str,
    /// Environment variable that replaces [`base_url`](Dialect::base_url). Empty where there is no custom of one.
    pub base_env: &'static str,
    /// The model when the caller names none. Empty: the first that the server lists.
    pub default_model: &'static str,
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
    pub required: &'static str,
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
    pub media: Option<&'static [&'static str]>,
}

/// Pictures that OpenAI takes, and most others.
const PICTURES: &[&str] = &["image/jpeg", "image/png", "image/gif", "image/webp"];

impl Dialect {
    /// The common chat completions wire.
    pub const PLAIN: Self = Self {
        id: "openai-compatible",
        family: Family::Chat,
        base_url: "",
        key_env: "",
        base_env: "",
        default_model: "",
        tokens: TokensField::MaxTokens,
        schema: SchemaField::JsonSchema,
        schema_alone: false,
        effort: EffortField::None,
        stream_usage: true,
        mid_system: false,
        strict_turns: false,
        required: "required",
        tool_by_name: true,
        short_ids: false,
        replay_reasoning: false,
        replay_details: false,
        media: None,
    };

    const LOCAL: Self = Self { strict_turns: true, tool_by_name: false, ..Self::PLAIN };

    /// The row of a provider by its id.
    pub fn named(id: &str) -> Option<&'static Self> {
        DIALECTS.iter().find(|d| d.id == id)
    }

    /// A server on this machine that takes no key.
    pub fn is_local(&self) -> bool {
        self.key_env.is_empty()
    }
}

/// Every provider known by name, in the order in which keys are looked for.
pub static DIALECTS: &[Dialect] = &[
    Dialect {
        id: "anthropic",
        family: Family::Anthropic,
        base_url: "https://api.anthropic.com/v1",
        key_env: "ANTHROPIC_API_KEY",
        base_env: "ANTHROPIC_BASE_URL",
        default_model: "claude-sonnet-4-6",
        ..Dialect::PLAIN
    },
    Dialect {
        id: "openai",
        base_url: "https://api.openai.com/v1",
        key_env: "OPENAI_API_KEY",
        base_env: "OPENAI_BASE_URL",
        default_model: "gpt-5-mini",
        tokens: TokensField::MaxCompletionTokens,
        effort: EffortField::ReasoningModels,
        mid_system: true,
        media: Some(&[
            "image/jpeg",
            "image/png",
            "image/gif",
            "image/webp",
            "audio/wav",
            "audio/mpeg",
            "application/pdf",
        ]),
        ..Dialect::PLAIN
    },
    Dialect {
        id: "groq",
        base_url: "https://api.groq.com/openai/v1",
        key_env: "GROQ_API_KEY",
        default_model: "openai/gpt-oss-120b",
        schema_alone: true,
        media: Some(PICTURES),
        ..Dialect::PLAIN
    },
    Dialect {
        id: "together",
        base_url: "https://api.together.xyz/v1",
        key_env: "TOGETHER_API_KEY",
        default_model: "openai/gpt-oss-120b",
        ..Dialect::PLAIN
    },
    Dialect {
        id: "openrouter",
        base_url: "https://openrouter.ai/api/v1",
        key_env: "OPENROUTER_API_KEY",
        default_model: "openrouter/auto",
        effort: EffortField::Reasoning,
        replay_details: true,
        ..Dialect::PLAIN
    },
    Dialect {
        id: "mistral",
        base_url: "https://api.mistral.ai/v1",
        key_env: "MISTRAL_API_KEY",
        default_model: "mistral-small-latest",
        // Refuses fields that it does not know, and counts tokens unasked.
        stream_usage: false,
        strict_turns: true,
        required: "any",
        short_ids: true,
        media: Some(PICTURES),
        ..Dialect::PLAIN
    },
    Dialect {
        id: "deepseek",
        base_url: "https://api.deepseek.com/v1",
        key_env: "DEEPSEEK_API_KEY",
        default_model: "deepseek-flash",
        schema: SchemaField::JsonObject,
        replay_reasoning: true,
        // An `image_url` is an unknown variant to it.
        media: Some(&[]),
        ..Dialect::PLAIN
    },
    Dialect {
        id: "xai",
        base_url: "https://api.x.ai/v1",
        key_env: "XAI_API_KEY",
        default_model: "grok-4",
        media: Some(&["image/jpeg", "image/png"]),
        ..Dialect::PLAIN
    },
    Dialect {
        id: "cerebras",
        base_url: "https://api.cerebras.ai/v1",
        key_env: "CEREBRAS_API_KEY",
        default_model: "gpt-oss-120b",
        tokens: TokensField::MaxCompletionTokens,
        ..Dialect::PLAIN
    },
    Dialect { id: "ollama", base_url: "http://127.0.0.1:11434/v1", ..Dialect::LOCAL },
    Dialect { id: "lmstudio", base_url: "http://127.0.0.1:1234/v1", ..Dialect::LOCAL },
    Dialect { id: "llamacpp", base_url: "http://127.0.0.1:8080/v1", ..Dialect::LOCAL },
    Dialect { id: "vllm", base_url: "http://127.0.0.1:8000/v1", ..Dialect::LOCAL },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_distinct_and_whole() {
        for (n, row) in DIALECTS.iter().enumerate() {
            assert!(DIALECTS.iter().skip(n + 1).all(|other| other.id != row.id), "{}", row.id);
            assert!(!row.base_url.ends_with('/') && row.base_url.starts_with("http"), "{}", row.id);
            assert_eq!(row.is_local(), row.base_url.starts_with("http://127.0.0.1:"), "{}", row.id);
            assert!(row.is_local() || !row.default_model.is_empty(), "{}", row.id);
        }
    }
}
