//! Known secrets stay out of prompts and results. What a user says himself stays in his conversation as he said it.
//!
//! The provider gets a layer that takes them out of every request; every skill is wrapped in one that takes them out of what it
//! hands back, before anything of it is written down, told or shown.

use std::{borrow::Cow, sync::Arc};
use zo_providers::Leaks;
use zo_traits::{Cx, Error, Result, Skill, SkillManifest, ToolCall, ToolOutput, ToolSpec, async_trait};

/// A skill whose output holds no known secret.
#[derive(Debug)]
pub(crate) struct Guarded {
    skill: Arc<dyn Skill>,
    leaks: Leaks,
}

impl Guarded {
    pub(crate) fn new(skill: Arc<dyn Skill>, leaks: Leaks) -> Self {
        Self { skill, leaks }
    }

    fn error(&self, e: Error) -> Error {
        let words = e.model_text();
        let (message, model) = (self.leaks.scrub(e.message()), self.leaks.scrub(&words));
        if matches!((&message, &model), (Cow::Borrowed(_), Cow::Borrowed(_))) && !self.is_in_causes(&e) {
            return e;
        }
        // What caused it may hold the secret, too, and is left out.
        let clean = Error::new(e.kind(), e.op(), message).with_model_text(model);
        match e.retry_after() {
            Some(wait) => clean.with_retry_after(wait),
            None => clean,
        }
    }
}

impl Guarded {
    /// Does what caused it hold a secret, as hosts print it?
    fn is_in_causes(&self, e: &Error) -> bool {
        let mut cause = std::error::Error::source(e);
        while let Some(inner) = cause {
            if self.leaks.is_in(format!("{inner} {inner:?}").as_bytes()) {
                return true;
            }
            cause = inner.source();
        }
        false
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Skill for Guarded {
    fn manifest(&self) -> &SkillManifest {
        self.skill.manifest()
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        self.skill.tools()
    }

    async fn instructions(&self, cx: &Cx) -> Result<String> {
        let text = self.skill.instructions(cx).await.map_err(|e| self.error(e))?;
        Ok(self.leaks.scrub(&text).into_owned())
    }

    async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput> {
        let mut output = self.skill.call(cx, call).await.map_err(|e| self.error(e))?;
        self.leaks.scrub_output(&mut output);
        Ok(output)
    }
}
