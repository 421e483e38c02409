//! A skill made from one async closure.

use crate::{
    IntoToolResult,
    schema::{self, Shape},
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};
use zo_traits::{
    Cx, Effect, Error, ErrorKind, Result, Skill, SkillManifest, ToolCall, ToolOutput, ToolSpec, Touch,
    async_trait,
};

type Answer = Pin<Box<dyn Future<Output = Result<ToolOutput>> + Send>>;
type Body = dyn Fn(Cx, &Value) -> Result<Answer> + Send + Sync;

/// A skill with one tool, made by [`skill_fn`] or [`#[skill]`](macro@crate::skill). Clones share the function.
///
/// A call that is cancelled or runs past its deadline is dropped, so the function need not watch its [`Cx`].
#[derive(Clone)]
pub struct FnSkill {
    manifest: SkillManifest,
    /// The tool's description without its triggers.
    about: String,
    tool: ToolSpec,
    tools: Arc<[ToolSpec]>,
    body: Arc<Body>,
}

impl fmt::Debug for FnSkill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnSkill")
            .field("name", &self.manifest.name)
            .field("effect", &self.tool.effect)
            .finish_non_exhaustive()
    }
}

/// A skill from an async closure. The argument type says what the tool takes.
///
/// The tool has the skill's name, with every character that a provider would refuse replaced by `_` and cut to 64 bytes.
/// An argument type that is not a plain object (a `String`, a `Vec`, an enum) is offered as the property `value`; `()` is
/// a tool without arguments. Doc comments on its fields become the descriptions that the model reads.
///
/// The function returns `Result<T>` where `T: Into<ToolOutput>` (text, numbers, `()`, JSON) or [`Json`](crate::Json) of
/// anything serializable.
///
/// The effect is [`Effect::AtMostOnce`] until stated otherwise: the safe assumption.
///
/// ```
/// use zo_skills::{Effect, Error, ErrorKind, skill_fn};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Divide {
///     /// What to divide.
///     a: f64,
///     /// By what.
///     b: f64,
/// }
///
/// let divide = skill_fn("divide", "Divides two numbers.", |_cx, Divide { a, b }| async move {
///     if b == 0.0 {
///         return Err(Error::new(ErrorKind::Invalid, "divide", "by zero").with_model_text("b must not be 0"));
///     }
///     Ok(a / b)
/// })
/// .effect(Effect::Pure)
/// .triggers(["divide", "quotient"]);
/// # use zo_skills::Skill;
/// # assert_eq!(divide.tools()[0].description, "Divides two numbers.\nTriggers: divide, quotient");
/// ```
pub fn skill_fn<A, F, Fut, O, Kind>(
    name: impl Into<String>,
    description: impl Into<String>,
    function: F,
) -> FnSkill
where
    A: DeserializeOwned + JsonSchema + 'static,
    F: Fn(Cx, A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O>> + Send + 'static,
    O: IntoToolResult<Kind>,
{
    let (schema, shape) = schema::of::<A>();
    let manifest = SkillManifest::new(name, description);
    let about = manifest.description.clone();
    let tool = ToolSpec::new(tool_name(&manifest.name), about.clone(), schema);
    let body = move |cx: Cx, args: &Value| -> Result<Answer> {
        let args = schema::read::<A>(args, shape).map_err(|e| bad_arguments(&e, shape))?;
        let work = function(cx, args);
        Ok(Box::pin(async move { work.await?.into_tool_result() }))
    };
    FnSkill { tools: Arc::from([tool.clone()]), manifest, about, tool, body: Arc::new(body) }
}

impl FnSkill {
    /// Names the tool, where it is not the skill's own name; characters that a provider would refuse become `_`.
    #[must_use]
    pub fn tool(mut self, name: impl AsRef<str>) -> Self {
        self.tool.name = tool_name(name.as_ref());
        self.publish()
    }

    /// States the effect class of the tool.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.tool.effect = effect;
        self.publish()
    }

    /// Lets the tool run alone, never beside another call of the same turn.
    #[must_use]
    pub fn serial(mut self) -> Self {
        self.tool.serial = true;
        self.publish()
    }

    /// States one more thing that the tool touches: calls of one turn that touch the same thing, one of them writing, run one
    /// after another in call order; all others run at the same time.
    ///
    /// ```
    /// use zo_skills::{Touch, skill_fn};
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct Append {
    ///     path: String,
    ///     text: String,
    /// }
    ///
    /// let append = skill_fn("append", "Adds text to a file.", |_cx, Append { path, text }| async move {
    ///     // ...
    /// #   let _ = (path, text);
    ///     Ok(())
    /// })
    /// .touch(Touch::writes("file").path("path"))
    /// .scope("files:write");
    /// # let _ = append;
    /// ```
    #[must_use]
    pub fn touch(mut self, touch: Touch) -> Self {
        self.tool.touches.push(touch);
        self.publish()
    }

    /// States one more permission scope that the tool needs, e.g. `files:write`.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.tool.scopes.push(scope.into());
        self.publish()
    }

    /// States the longest time for one call, where the agent's own limit does not fit. Zero is refused by an agent.
    #[must_use]
    pub fn timeout(mut self, d: Duration) -> Self {
        self.tool.timeout = Some(d);
        self.publish()
    }

    /// States how many calls of the tool may run at the same time, in the whole agent. Zero is refused by an agent.
    #[must_use]
    pub fn max_parallel(mut self, n: u32) -> Self {
        self.tool.max_parallel = Some(n);
        self.publish()
    }

    /// Adds a word or phrase that calls for this skill. The model reads the triggers in the last line of the tool's
    /// description.
    #[must_use]
    pub fn trigger(self, trigger: impl Into<String>) -> Self {
        self.triggers([trigger])
    }

    /// Adds words or phrases that call for this skill.
    #[must_use]
    pub fn triggers(mut self, triggers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.manifest.triggers.extend(triggers.into_iter().map(Into::into));
        self.publish()
    }

    /// States the semantic version of the skill.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.manifest.version = version.into();
        self
    }

    fn publish(mut self) -> Self {
        self.tool.description.clone_from(&self.about);
        if !self.manifest.triggers.is_empty() {
            self.tool.description.push_str("\nTriggers: ");
            self.tool.description.push_str(&self.manifest.triggers.join(", "));
        }
        self.tools = Arc::from([self.tool.clone()]);
        self
    }
}

#[async_trait]
impl Skill for FnSkill {
    fn manifest(&self) -> &SkillManifest {
        &self.manifest
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        self.tools.clone()
    }

    async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput> {
        if call.name != self.tool.name {
            return Err(no_such_tool(&self.manifest.name, &call.name));
        }
        cx.check("skill.call")?;
        let work = (self.body)(cx.clone(), &call.args)?;
        cx.race("skill.call", work).await?
    }
}

/// What a skill answers when it is asked for a tool that it does not have.
pub(crate) fn no_such_tool(skill: &str, tool: &str) -> Error {
    Error::new(ErrorKind::NotFound, "skill.call", format_args!("skill `{skill}` has no tool `{tool}`"))
        .with_model_text(format!("there is no tool `{tool}`"))
}

fn bad_arguments(e: &serde_json::Error, shape: Shape) -> Error {
    let hint = match shape {
        Shape::Wrapped => " (give the argument as the field `value`)",
        Shape::Object | Shape::Unit => "",
    };
    Error::new(ErrorKind::Invalid, "skill.call", format_args!("arguments do not fit: {e}"))
        .with_model_text(format!("the arguments do not fit the tool: {e}{hint}"))
}

fn tool_name(name: &str) -> String {
    let ok = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    let name: String = name.chars().map(ok).take(64).collect();
    if name.is_empty() { "skill".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Json;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn call(name: &str, args: Value) -> ToolCall {
        ToolCall::new("c", name, args)
    }

    #[tokio::test]
    async fn every_kind_of_return_value() {
        let cx = Cx::default();
        let c = call("t", json!({}));
        async fn text(skill: FnSkill, cx: &Cx, c: &ToolCall) -> String {
            skill.call(cx, c).await.unwrap().text
        }
        assert_eq!(text(skill_fn("t", "d", |_, ()| async { Ok("a") }), &cx, &c).await, "a");
        assert_eq!(text(skill_fn("t", "d", |_, ()| async { Ok(()) }), &cx, &c).await, "done");
        assert_eq!(text(skill_fn("t", "d", |_, ()| async { Ok(7u64) }), &cx, &c).await, "7");
        assert_eq!(text(skill_fn("t", "d", |_, ()| async { Ok(Json(vec![1, 2])) }), &cx, &c).await, "[1,2]");
        let out = skill_fn("t", "d", |_, ()| async { Ok(Json(("x", 1))) }).call(&cx, &c).await.unwrap();
        assert_eq!((out.text.as_str(), out.data), (r#"["x",1]"#, Some(json!(["x", 1]))));
        let bad =
            skill_fn("t", "d", |_, ()| async { Ok(Json(std::collections::HashMap::from([((1, 2), 3)]))) });
        assert_eq!(bad.call(&cx, &c).await.unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn wrong_arguments_tell_the_model_what_is_wrong() {
        let ran = Arc::new(AtomicUsize::new(0));
        let seen = ran.clone();
        let skill = skill_fn("t", "d", move |_, n: Vec<u8>| {
            seen.fetch_add(1, Ordering::SeqCst);
            async move { Ok(n.len()) }
        });
        for args in [json!({}), json!("x"), json!({"value": [300]}), json!({"value": "no"}), Value::Null] {
            let e = skill.call(&Cx::default(), &call("t", args)).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Invalid);
            assert!(e.model_text().contains("value"), "{}", e.model_text());
        }
        assert_eq!(ran.load(Ordering::SeqCst), 0, "the function never sees them");
    }

    #[tokio::test]
    async fn a_function_that_ignores_its_context_still_ends() {
        let hang = skill_fn("t", "d", |_, ()| std::future::pending::<Result<()>>());
        let cx = Cx::default().with_timeout(Duration::from_millis(5));
        assert_eq!(hang.call(&cx, &call("t", json!({}))).await.unwrap_err().kind(), ErrorKind::Timeout);
        let cx = Cx::default();
        let (inner, h) = (cx.clone(), hang.clone());
        let running = tokio::spawn(async move { h.call(&inner, &call("t", json!({}))).await });
        tokio::task::yield_now().await;
        cx.cancel().cancel();
        assert_eq!(running.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn names_and_options() {
        let s = skill_fn("look up: 東京", "d", |_, ()| async { Ok(()) })
            .version("1.2.0")
            .serial()
            .effect(Effect::Pure);
        let tool = s.tools()[0].clone();
        assert_eq!(tool.name, "look_up____");
        assert!(tool.serial);
        assert_eq!((tool.effect, s.manifest().version.as_str()), (Effect::Pure, "1.2.0"));
        assert_eq!(tool.description, "d");
        assert_eq!(skill_fn("", "d", |_, ()| async { Ok(()) }).tools()[0].name, "skill");
        assert_eq!(skill_fn("x".repeat(99), "d", |_, ()| async { Ok(()) }).tools()[0].name.len(), 64);
    }

    #[test]
    fn what_a_tool_says_of_itself_is_published() {
        let s = skill_fn("t", "d", |_, ()| async { Ok(()) })
            .touch(Touch::writes("file").path("to"))
            .touch(Touch::reads("file").path("from"))
            .scope("files:write")
            .timeout(Duration::from_secs(3))
            .max_parallel(2);
        let expected = ToolSpec::new("t", "d", s.tools()[0].input.clone())
            .touch(Touch::writes("file").path("to"))
            .touch(Touch::reads("file").path("from"))
            .scope("files:write")
            .timeout(Duration::from_secs(3))
            .max_parallel(2);
        assert_eq!(*s.tools(), [expected]);
    }

    #[test]
    fn debug_is_short() {
        let s = skill_fn("t", "d", |_, ()| async { Ok(()) });
        assert_eq!(format!("{s:?}"), r#"FnSkill { name: "t", effect: AtMostOnce, .. }"#);
    }
}
