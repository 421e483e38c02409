//! One question to an agent.

use crate::Permissions;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use zo_traits::{Error, ErrorKind, Limits, Message, Part, Result, Role, Scope};

/// One question to an agent, with everything that can be said about it. As JSON it can be queued and carried out elsewhere.
///
/// ```
/// # use zo_core::{Ask, Message};
/// let ask = Ask::new("discord/42", "What's on today?").scope("user/7").model("small-model");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ask {
    /// The conversation that it continues or begins.
    pub conversation: String,
    /// What the user says.
    pub message: Message,
    /// Whose memory it may use; the agent's own when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Another model than the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Another limit of model calls than the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u32>,
    /// The name of the persona that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
    /// Permissions besides those of the agent and the persona: each of them must allow a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
    /// Limits besides those of the agent and the persona: the tightest hold.
    #[serde(default)]
    pub limits: Limits,
    /// The [ledger](crate::Zo::open_ledger) that it spends from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// The form of the answer, a JSON Schema. [`Zo::ask_as`](crate::Zo::ask_as) sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Arc<Value>>,
}

impl Ask {
    /// `text` in `conversation`.
    pub fn new(conversation: impl Into<String>, text: impl Into<String>) -> Self {
        Self::message(conversation, Message::user(text))
    }

    /// A message of any parts (images, files) in `conversation`.
    pub fn message(conversation: impl Into<String>, message: Message) -> Self {
        Self {
            conversation: conversation.into(),
            message,
            scope: None,
            model: None,
            max_steps: None,
            persona: None,
            permissions: None,
            limits: Limits::none(),
            ledger: None,
            output_schema: None,
        }
    }

    /// Whose memory it may use.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Scope>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Another model than the agent's.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Another limit of model calls than the agent's.
    #[must_use]
    pub fn max_steps(mut self, n: u32) -> Self {
        self.max_steps = Some(n);
        self
    }

    /// Who answers: a persona that the builder was given.
    #[must_use]
    pub fn persona(mut self, name: impl Into<String>) -> Self {
        self.persona = Some(name.into());
        self
    }

    /// What it may do, besides what the agent and the persona may.
    #[must_use]
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = Some(permissions);
        self
    }

    /// What it may spend at most.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The ledger that it spends from.
    #[must_use]
    pub fn ledger(mut self, id: impl Into<String>) -> Self {
        self.ledger = Some(id.into());
        self
    }

    /// The form of the answer, a JSON Schema.
    #[must_use]
    pub fn output_schema(mut self, schema: impl Into<Arc<Value>>) -> Self {
        self.output_schema = Some(schema.into());
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.conversation.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "zo.ask", "the conversation has no name"));
        }
        check_message("zo.ask", &self.message)
    }
}

/// Can a user say this?
pub(crate) fn check_message(op: &'static str, message: &Message) -> Result<()> {
    let bad = |m: &str| Err(Error::new(ErrorKind::Invalid, op, m));
    if message.role != Role::User {
        return bad("only a user's message can be asked");
    }
    if !message.parts.iter().all(|p| matches!(p, Part::Text(_) | Part::Media(_))) {
        return bad("a user's message holds text, images and files; nothing else");
    }
    let says = |p: &Part| !matches!(p, Part::Text(t) if t.text.trim().is_empty());
    if !message.parts.iter().any(says) {
        return bad("the message is empty");
    }
    Ok(())
}
