//! A skill of one tool, made from a closure over the raw call: for tests that need no schema of a Rust type.

use serde_json::{Value, json};
use std::{fmt, future::Future, pin::Pin, sync::Arc};
use zo_traits::{Cx, Effect, Result, Skill, SkillManifest, ToolCall, ToolOutput, ToolSpec, async_trait};

type Body =
    Arc<dyn Fn(Cx, ToolCall) -> Pin<Box<dyn Future<Output = Result<ToolOutput>> + Send>> + Send + Sync>;

/// A skill of one tool. See [`tool`].
#[derive(Clone)]
pub struct RawTool {
    manifest: SkillManifest,
    spec: ToolSpec,
    body: Body,
}

/// A skill of one tool named `name` that takes any object and runs `body`.
pub fn tool<F, Fut>(name: &str, body: F) -> RawTool
where
    F: Fn(Cx, ToolCall) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<ToolOutput>> + Send + 'static,
{
    let description = format!("The tool {name} of a test");
    RawTool {
        manifest: SkillManifest::new(name, &description),
        spec: ToolSpec::new(name, description, json!({"type": "object"})),
        body: Arc::new(move |cx, call| Box::pin(body(cx, call))),
    }
}

impl RawTool {
    /// With this schema of the arguments.
    #[must_use]
    pub fn schema(mut self, schema: Value) -> Self {
        self.spec.input = Arc::new(schema);
        self
    }

    /// With this effect class.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.spec.effect = effect;
        self
    }

    /// Running alone.
    #[must_use]
    pub fn serial(mut self) -> Self {
        self.spec.serial = true;
        self
    }
}

impl fmt::Debug for RawTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawTool({})", self.spec.name)
    }
}

#[async_trait]
impl Skill for RawTool {
    fn manifest(&self) -> &SkillManifest {
        &self.manifest
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        Arc::from([self.spec.clone()])
    }

    async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput> {
        (self.body)(cx.clone(), call.clone()).await
    }
}
