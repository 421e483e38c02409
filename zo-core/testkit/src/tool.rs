//! A skill of one tool, made from a closure over the raw call: for tests that need no schema of a Rust type.

use serde_json::{Value, json};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};
use zo_traits::{
    Cx, Effect, Result, Skill, SkillManifest, ToolCall, ToolOutput, ToolSpec, Touch, async_trait,
};

type Body =
    Arc<dyn Fn(Cx, ToolCall) -> Pin<Box<dyn Future<Output = Result<ToolOutput>> + Send>> + Send + Sync>;

/// A skill of one tool. See [`tool`].
#[derive(Clone)]
pub struct RawTool {
    manifest: SkillManifest,
    spec: ToolSpec,
    /// The same at every call, as nothing changes.
    tools: OnceLock<Arc<[ToolSpec]>>,
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
        tools: OnceLock::new(),
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

    /// Touching this as well.
    #[must_use]
    pub fn touch(mut self, touch: Touch) -> Self {
        self.spec = self.spec.touch(touch);
        self
    }

    /// Needing this permission scope as well.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.spec = self.spec.scope(scope);
        self
    }

    /// With this longest time for one call.
    #[must_use]
    pub fn timeout(mut self, d: Duration) -> Self {
        self.spec = self.spec.timeout(d);
        self
    }

    /// With at most so many calls at the same time.
    #[must_use]
    pub fn max_parallel(mut self, n: u32) -> Self {
        self.spec = self.spec.max_parallel(n);
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
        self.tools.get_or_init(|| Arc::from([self.spec.clone()])).clone()
    }

    async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput> {
        (self.body)(cx.clone(), call.clone()).await
    }
}
