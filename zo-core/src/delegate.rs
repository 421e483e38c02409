//! Personas as tools: an agent hands a task to another, which is a run of its own with its own conversation.
//!
//! The child is named after the call that started it. So a call that is made again after a crash finds its child and goes on
//! with it, and the effects of the child's tools are as safe as the child's own journal makes them.

use crate::{Ask, Persona, driver::Run, inner::Inner, journal::CHILD, toolbox::Waits};
use serde_json::{Value, json};
use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
};
use zo_traits::{
    Cx, Effect, Error, ErrorKind, Message, Result, Role, Scope, Skill, SkillManifest, ToolCall, ToolOutput,
    ToolSpec, async_trait,
};

/// One tool for each persona that says when to delegate to it.
pub(crate) struct Delegate {
    manifest: SkillManifest,
    tools: Arc<[ToolSpec]>,
    inner: Arc<OnceLock<Weak<Inner>>>,
}

impl fmt::Debug for Delegate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delegate").field("tools", &self.tools.len()).finish()
    }
}

/// What a tool that delegates begins with.
const PREFIX: &str = "ask_";

impl Delegate {
    /// `None` when no persona is to be delegated to. `inner` is set when there is an agent.
    pub(crate) fn new<'a>(
        personas: impl IntoIterator<Item = &'a Persona>,
        inner: Arc<OnceLock<Weak<Inner>>>,
    ) -> Option<Self> {
        let tools: Arc<[ToolSpec]> = personas
            .into_iter()
            .filter(|p| !p.description.is_empty())
            .map(|p| {
                let input = json!({
                    "type": "object",
                    "properties": {"task": {
                        "type": "string",
                        "description": "What to do, complete in itself: the other agent does not know this conversation"
                    }},
                    "required": ["task"],
                    "additionalProperties": false
                });
                // It cannot begin twice: see above.
                ToolSpec::new(format!("{PREFIX}{}", p.name), p.description.clone(), input)
                    .effect(Effect::Idempotent)
                    .timeout(std::time::Duration::from_secs(24 * 3600))
            })
            .collect();
        let manifest = SkillManifest::new("delegate", "Hand tasks to other agents");
        (!tools.is_empty()).then_some(Self { manifest, tools, inner })
    }
}

#[async_trait]
impl Skill for Delegate {
    fn manifest(&self) -> &SkillManifest {
        &self.manifest
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        self.tools.clone()
    }

    async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput> {
        let gone = || Error::new(ErrorKind::Unavailable, "delegate", "the agent is gone");
        let inner = self.inner.get().and_then(Weak::upgrade).ok_or_else(gone)?;
        let persona = call.name.strip_prefix(PREFIX).unwrap_or_default();
        let task = call.args.get("task").and_then(Value::as_str).unwrap_or_default();
        let key = cx.idempotency_key().unwrap_or(&call.id);
        let conversation = format!("{CHILD}{key}");
        let failed = |e: Error| {
            let text = format!("the agent could not finish: {}", e.model_text());
            e.with_model_text(text)
        };
        // Somebody else may be at it: then it is his answer that counts.
        drop(cx.race("delegate", inner.conversations.turn(&conversation)).await?);
        let reply = match inner.journal.interrupted_in(&conversation).first() {
            Some(run) => {
                Box::pin(Run::resume(inner.clone(), cx, run, None)).await.map_err(failed)?.drive().await
            }
            None => match said(&inner, cx, &conversation).await? {
                Some(answer) => return Ok(answer.into()),
                None => {
                    let mut ask = Ask::new(&conversation, task).persona(persona);
                    ask.scope = cx.get::<Scope>().cloned();
                    inner.clone().ask(cx, ask).await
                }
            },
        };
        let reply = reply.map_err(failed)?;
        if reply.is_parked() {
            let waits = Error::new(ErrorKind::Conflict, "delegate", "the agent waits for an approval");
            return Err(waits.with_source(Waits));
        }
        let data = json!({"run": reply.run, "usage": reply.usage});
        Ok(ToolOutput::text(if reply.text.is_empty() { "(no answer)".into() } else { reply.text })
            .with_data(data))
    }
}

/// The answer of a child that has ended.
async fn said(inner: &Inner, cx: &Cx, conversation: &str) -> Result<Option<String>> {
    let Some(transcript) = &inner.transcript else { return Ok(None) };
    let len = transcript.len(cx, conversation).await?;
    if len == 0 {
        return Ok(None);
    }
    // Its run is over, whatever it left: it is never begun again.
    let messages = transcript.read(cx, conversation, 0, usize::MAX).await?;
    let last = messages.iter().rev().find(|m| m.role == Role::Assistant).map(Message::to_text);
    Ok(Some(last.filter(|t| !t.is_empty()).unwrap_or_else(|| "(no answer)".into())))
}
