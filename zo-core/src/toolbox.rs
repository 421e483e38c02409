//! The tools of a run: found by exact name, checked against their schema, run apart so that one which fails, panics or
//! hangs costs its own result and nothing else.
//!
//! A call runs in a task of its own. When its run is cancelled or dropped, or its time is over, the task is aborted and not
//! waited for: a tool that heeds nothing ends at its next `await`, one that blocks its thread is left behind.

use crate::{INVALID_NAME, normal, schema};
use serde_json::Value;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use tracing::Instrument;
use zo_traits::{
    Cx, Effect, Error, ErrorKind, Media, MediaSource, Result, Skill, ToolCall, ToolOutput, ToolResult,
    ToolSpec, ToolStatus,
};

/// The tools on offer in one run: a snapshot, so that a reload in the middle of a run cannot mix versions.
#[derive(Debug, Clone)]
pub(crate) struct Toolbox {
    /// In order of name, so that the same tools give the same bytes and a provider's prompt cache hits.
    specs: Arc<[ToolSpec]>,
    /// Who runs them, in the same order.
    runners: Vec<Runner>,
}

#[derive(Debug, Clone)]
struct Runner {
    skill: Arc<dyn Skill>,
    /// For a tool of which only so many calls may run at the same time.
    gate: Option<Arc<Gate>>,
}

impl Default for Toolbox {
    fn default() -> Self {
        Self { specs: Arc::from([]), runners: Vec::new() }
    }
}

/// How many calls of each tool run in a whole agent, whatever its toolboxes: it outlives them, as skills are loaded anew.
#[derive(Debug, Default)]
pub(crate) struct ToolLimiter {
    /// Only as long as some toolbox or call knows them.
    gates: Mutex<HashMap<String, Weak<Gate>>>,
}

impl ToolLimiter {
    /// The gate of a tool, wide enough for `max` calls from now on: the newest toolbox decides. Calls that began before are
    /// not stopped, but counted.
    fn gate(&self, tool: &str, max: u32) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(tool).and_then(Weak::upgrade) {
            gate.resize(max);
            return gate;
        }
        if gates.len() == gates.capacity() {
            gates.retain(|_, gate| gate.strong_count() > 0);
        }
        let size = Semaphore::MAX_PERMITS.min(usize::try_from(max).unwrap_or(usize::MAX));
        let gate = Arc::new(Gate {
            slots: Arc::new(Semaphore::new(size)),
            size: Mutex::new(Size { permits: size, surplus: 0 }),
        });
        gates.insert(tool.to_owned(), Arc::downgrade(&gate));
        gate
    }
}

/// Lets so many calls of a tool in at the same time, the one that waits longest first.
struct Gate {
    slots: Arc<Semaphore>,
    size: Mutex<Size>,
}

struct Size {
    permits: usize,
    /// How many of the permits that are out now are not to come back, since the gate became narrower.
    surplus: usize,
}

impl Gate {
    fn resize(&self, max: u32) {
        let max = Semaphore::MAX_PERMITS.min(usize::try_from(max).unwrap_or(usize::MAX));
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = max.checked_sub(size.permits) {
            let kept = more.min(size.surplus);
            size.surplus -= kept;
            self.slots.add_permits(more - kept);
        } else {
            let fewer = size.permits - max;
            size.surplus += fewer - self.slots.forget_permits(fewer);
        }
        size.permits = max;
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({} free)", self.slots.available_permits())
    }
}

/// A place among the calls of a tool that run at the same time. Free again when dropped.
#[derive(Debug)]
struct Slot {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut size = self.gate.size.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock in both cases: a gate that becomes narrower must find the permit either out or back.
        match self.permit.take() {
            Some(permit) if size.surplus > 0 => {
                size.surplus -= 1;
                permit.forget();
            }
            permit => drop(permit),
        }
    }
}

/// The slots of the call that a context belongs to and of those that it was called by: what runs inside of a call does not
/// wait for that call's own slot, or an agent that a tool starts could not use the tool.
#[derive(Debug, Clone, Default)]
struct Held(Vec<Weak<Slot>>);

/// Leave to run a call, from [`Toolbox::admit`]. Gives its place back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Admission(Option<Arc<Slot>>);

/// Most bytes of media, as base64, in one result.
const MAX_MEDIA: usize = 8 << 20;

/// Why a tool has not ended: its own run waits for a decision. The call is made again.
#[derive(Debug)]
pub(crate) struct Waits;

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("waits for a decision")
    }
}

impl std::error::Error for Waits {}

/// Name of the tool that reads what was left out of a long result.
pub(crate) const READ_OUTPUT: &str = "read_output";

/// What [`clip`] writes before the quoted name of the whole output.
pub(crate) const READ_ON: &str = "read on with read_output, id ";

/// Names the whole output of a call.
pub(crate) fn output_id(run: &str, call: &str) -> String {
    format!("{run}/{call}")
}

/// How tools are run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToolLimits {
    /// Longest time for a call of a tool that does not state its own.
    pub(crate) timeout: Duration,
    /// Most bytes of one result that the model sees at once.
    pub(crate) max_output: usize,
    /// Where the whole of a longer one is kept, if it is.
    pub(crate) kept: bool,
}

impl Toolbox {
    /// Tools whose [`max_parallel`](ToolSpec::max_parallel) counts within this toolbox only.
    ///
    /// # Errors
    /// As of [`with_limiter`](Self::with_limiter).
    #[cfg(test)]
    pub(crate) fn new<'a>(skills: impl IntoIterator<Item = &'a Arc<dyn Skill>>) -> Result<Self> {
        Self::with_limiter(skills, &ToolLimiter::default())
    }

    /// Tools whose [`max_parallel`](ToolSpec::max_parallel) counts over all toolboxes of `limiter`.
    ///
    /// # Errors
    /// `Conflict` when two skills offer a tool of one name; `Invalid` for a name that providers refuse, a schema that is not
    /// of an object, and limits under which no call could ever run.
    pub(crate) fn with_limiter<'a>(
        skills: impl IntoIterator<Item = &'a Arc<dyn Skill>>,
        limiter: &ToolLimiter,
    ) -> Result<Self> {
        let mut tools: HashMap<String, (ToolSpec, Arc<dyn Skill>)> = HashMap::new();
        for skill in skills {
            for spec in skill.tools().iter() {
                if !normal::good_name(&spec.name) || spec.name == INVALID_NAME {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        "zo.tools",
                        format_args!(
                            "skill {:?} offers a tool named {:?}; providers take only [a-zA-Z0-9_-], 1 to 64 characters",
                            skill.manifest().name,
                            spec.name
                        ),
                    ));
                }
                if spec.input.get("type").and_then(Value::as_str) != Some("object") {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        "zo.tools",
                        format_args!(
                            "the schema of tool {:?} is not that of an object (`\"type\": \"object\"`), as providers demand",
                            spec.name
                        ),
                    ));
                }
                if spec.max_parallel == Some(0) || spec.timeout == Some(Duration::ZERO) {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        "zo.tools",
                        format_args!(
                            "tool {:?} states max_parallel {:?} and timeout {:?}: with zero, no call could ever run; leave \
                             it out for no limit",
                            spec.name, spec.max_parallel, spec.timeout
                        ),
                    ));
                }
                if let Some((_, other)) = tools.get(&spec.name) {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "zo.tools",
                        format_args!(
                            "skills {:?} and {:?} both offer a tool named {:?}; rename one",
                            other.manifest().name,
                            skill.manifest().name,
                            spec.name
                        ),
                    ));
                }
                tools.insert(spec.name.clone(), (spec.clone(), skill.clone()));
            }
        }
        let mut tools: Vec<(ToolSpec, Arc<dyn Skill>)> = tools.into_values().collect();
        tools.sort_unstable_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let (mut specs, mut runners) = (Vec::with_capacity(tools.len()), Vec::with_capacity(tools.len()));
        for (spec, skill) in tools {
            let gate = spec.max_parallel.map(|max| limiter.gate(&spec.name, max));
            runners.push(Runner { skill, gate });
            specs.push(spec);
        }
        Ok(Self { specs: specs.into(), runners })
    }

    /// What is offered to the model, in order of name.
    pub(crate) fn specs(&self) -> &Arc<[ToolSpec]> {
        &self.specs
    }

    /// What a tool says of itself; `None` for an unknown one.
    pub(crate) fn spec(&self, name: &str) -> Option<&ToolSpec> {
        self.find(name).map(|(spec, _)| spec)
    }

    fn find(&self, name: &str) -> Option<(&ToolSpec, &Runner)> {
        let at = self.specs.binary_search_by(|spec| spec.name.as_str().cmp(name)).ok()?;
        self.specs.get(at).zip(self.runners.get(at))
    }

    /// The effect class of a tool; unknown tools do nothing.
    pub(crate) fn effect(&self, name: &str) -> Effect {
        self.spec(name).map_or(Effect::Pure, |spec| spec.effect.clone())
    }

    /// Waits until one more call of this tool may run, in the whole agent. At once for a tool without a limit, an unknown
    /// one, and within a call of the same tool.
    ///
    /// Nothing has begun yet, so a caller may do this before it claims the call.
    ///
    /// # Errors
    /// `Cancelled` and `Timeout` when the context ends first.
    pub(crate) async fn admit(&self, cx: &Cx, tool: &str) -> Result<Admission> {
        let Some(gate) = self.find(tool).and_then(|(_, runner)| runner.gate.as_ref()) else {
            return Ok(Admission::default());
        };
        let inside = |slot: &Weak<Slot>| slot.upgrade().is_some_and(|slot| Arc::ptr_eq(&slot.gate, gate));
        if cx.get::<Held>().is_some_and(|held| held.0.iter().any(inside)) {
            return Ok(Admission::default());
        }
        let permit = cx.race("tool.wait", gate.slots.clone().acquire_owned()).await?;
        let permit =
            permit.map_err(|_| Error::new(ErrorKind::Unavailable, "tool.wait", "the gate is closed"))?;
        Ok(Admission(Some(Arc::new(Slot { gate: gate.clone(), permit: Some(permit) }))))
    }

    /// Runs one call to its result, whatever happens; with the output as the skill gave it. Waits first until one more call
    /// of its tool may run, which does not count as its time.
    ///
    /// # Errors
    /// Only when the run itself was cancelled or is late: then the call was stopped and its outcome is not known.
    #[cfg(test)]
    pub(crate) async fn run(
        &self,
        cx: &Cx,
        call: &ToolCall,
        limits: ToolLimits,
    ) -> Result<(ToolResult, ToolOutput)> {
        let admission = self.admit(cx, &call.name).await?;
        self.run_admitted(cx, call, limits, admission).await
    }

    /// Runs one call that was [admitted](Self::admit), as [`run`](Self::run) does.
    ///
    /// # Errors
    /// As of [`run`](Self::run).
    pub(crate) async fn run_admitted(
        &self,
        cx: &Cx,
        call: &ToolCall,
        limits: ToolLimits,
        admission: Admission,
    ) -> Result<(ToolResult, ToolOutput)> {
        let (spec, skill) = match self.check(call) {
            Ok(found) => found,
            Err(e) => return Ok((failed(call, &e, limits), ToolOutput::default())),
        };
        // A tool knows best how long it takes, be that shorter or longer than is usual.
        let timeout = spec.timeout.unwrap_or(limits.timeout);
        let mut inner = cx.child().with_timeout(timeout);
        if let Some(slot) = &admission.0 {
            let mut held = cx.get::<Held>().cloned().unwrap_or_default();
            held.0.retain(|slot| slot.strong_count() > 0);
            held.0.push(Arc::downgrade(slot));
            inner = inner.with(held);
        }
        // A task begins to run as soon as it is spawned, whether or not anybody looks at it.
        cx.check("agent.tool")?;
        let mut task = Task(tokio::spawn({
            let (skill, call, cx) = (skill.clone(), call.clone(), inner.clone());
            async move {
                // Given back when the call is really over: one that is left behind still runs.
                let _admission = admission;
                skill.call(&cx, &call).await
            }
            .in_current_span()
        }));
        // Raced out here as well as wherever the skill looks at its context: one that blocks its thread is left behind.
        let stopped = match inner.race("tool", &mut task.0).await {
            Ok(Ok(Ok(output))) => return Ok(succeeded(cx, call, output, limits)),
            // It has not ended: something in it waits for a person.
            Ok(Ok(Err(e))) if e.source_as::<Waits>().is_some() => return Err(e),
            Ok(Ok(Err(e))) => {
                // A skill that says so because the run was stopped: then that is what counts.
                cx.check("agent.tool")?;
                return Ok((failed(call, &e, limits), ToolOutput::default()));
            }
            Ok(Err(join)) if join.is_panic() => "it crashed while it ran".to_owned(),
            Ok(Err(_)) => "it was stopped while it ran".to_owned(),
            Err(_) => {
                inner.cancel().cancel();
                // Was it the run that ended, or only this call's time?
                cx.check("agent.tool")?;
                format!("it did not finish within {timeout:?}")
            }
        };
        let result = if spec.effect.may_repeat() {
            ToolResult::new(call, ToolStatus::Error, format!("failed: {stopped}"))
        } else {
            ToolResult::new(
                call,
                ToolStatus::Unknown,
                format!(
                    "outcome unknown: {stopped}. It may or may not have taken effect; check before doing it again."
                ),
            )
        };
        Ok((result, ToolOutput::default()))
    }

    /// Finds the tool and checks the arguments.
    pub(crate) fn check(&self, call: &ToolCall) -> Result<(&ToolSpec, &Arc<dyn Skill>)> {
        let Some((spec, runner)) = self.find(&call.name) else {
            let names: Vec<&str> = self.specs.iter().map(|s| s.name.as_str()).take(50).collect();
            return Err(Error::new(
                ErrorKind::NotFound,
                "tool.find",
                format_args!("no tool {:?}", call.name),
            )
            .with_model_text(format!(
                "there is no tool named {:?}; the tools are: {}",
                call.name,
                names.join(", ")
            )));
        };
        let refuse = |text: String| Error::new(ErrorKind::Invalid, "tool.args", &text).with_model_text(text);
        if let Value::String(raw) = &call.args
            && let Err(e) = serde_json::from_str::<Value>(raw)
        {
            return Err(refuse(format!(
                "not run: the arguments are not JSON ({e}); call again with a JSON object"
            )));
        }
        schema::validate(&spec.input, &call.args)
            .map_err(|e| refuse(format!("not run: the arguments do not fit the tool's schema:\n{e}")))?;
        Ok((spec, &runner.skill))
    }
}

/// A spawned task that ends with its handle.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failed(call: &ToolCall, e: &Error, limits: ToolLimits) -> ToolResult {
    let status = if e.kind() == ErrorKind::Denied { ToolStatus::Denied } else { ToolStatus::Error };
    ToolResult::new(call, status, clip(&e.model_text(), limits.max_output, None))
}

fn succeeded(cx: &Cx, call: &ToolCall, output: ToolOutput, limits: ToolLimits) -> (ToolResult, ToolOutput) {
    let id = limits.kept.then(|| output_id(cx.run(), &call.id));
    let mut text = clip(&output.text, limits.max_output, id.as_deref());
    let bytes = |m: &Media| match &m.source {
        MediaSource::Base64(data) => data.len(),
        _ => 0,
    };
    let mut media = Vec::new();
    let mut room = MAX_MEDIA;
    for item in &output.media {
        match room.checked_sub(bytes(item)) {
            Some(left) => {
                room = left;
                media.push(item.clone());
            }
            None => text.push_str(&format!(
                "\n[{} of {} bytes left out: too large]",
                item.media_type,
                bytes(item)
            )),
        }
    }
    let mut result = ToolResult::new(call, ToolStatus::Ok, text);
    result.media = media;
    (result, output)
}

/// At most about `max` bytes: the beginning, the end, and between them how much was left out and, with `id`, how to read
/// it.
pub(crate) fn clip(text: &str, max: usize, id: Option<&str>) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let (head, tail) = (boundary(text, max / 4 * 3), boundary(text, text.len() - max / 4));
    let (start, end) = (text.get(..head).unwrap_or_default(), text.get(tail..).unwrap_or_default());
    let how = id.map_or(String::new(), |id| format!("; {READ_ON}{id:?}, offset {head}"));
    format!("{start}\n[... {} of {} bytes left out{how} ...]\n{end}", tail - head, text.len())
}

/// The last character boundary at or before `at`.
pub(crate) fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::{
        sync::{
            OnceLock,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        time::Instant,
    };
    use tokio::sync::Notify;
    use zo_testkit::{RawTool, VirtualClock, tool};
    use zo_traits::{SkillManifest, async_trait};

    #[test]
    fn clipping_keeps_both_ends_and_characters() {
        let text = "é".repeat(10_000);
        let got = clip(&text, 1_001, Some("r/c"));
        assert!(got.len() < 1_100 && got.starts_with('é') && got.ends_with('é'));
        assert!(got.contains("of 20000 bytes left out"));
        assert!(got.contains("id \"r/c\", offset 750"), "{got}");
        assert_eq!(clip("short", 100, None), "short");
        assert!(READ_ON.contains(READ_OUTPUT) && got.contains(READ_ON));
    }

    const LIMITS: ToolLimits =
        ToolLimits { timeout: Duration::from_secs(60), max_output: 1_000, kept: false };

    fn object() -> Value {
        json!({"type": "object"})
    }

    fn with(limiter: &ToolLimiter, skill: impl Skill) -> Toolbox {
        let skill: Arc<dyn Skill> = Arc::new(skill);
        Toolbox::with_limiter([&skill], limiter).unwrap()
    }

    fn of(skill: impl Skill) -> Toolbox {
        with(&ToolLimiter::default(), skill)
    }

    fn call(name: &str) -> ToolCall {
        ToolCall::new("c", name, json!({}))
    }

    /// A tool that counts how many of its calls run, and ends each when it is told to.
    #[derive(Clone, Default)]
    struct Door {
        inside: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
        open: Arc<Notify>,
    }

    impl Door {
        fn tool(&self, name: &str) -> RawTool {
            let door = self.clone();
            tool(name, move |_, _| {
                let door = door.clone();
                async move {
                    let _inside = Inside::new(&door);
                    door.open.notified().await;
                    Ok("through".into())
                }
            })
        }

        fn now(&self) -> usize {
            self.inside.load(SeqCst)
        }

        async fn until(&self, n: usize) {
            let reached = async {
                while self.now() != n {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), reached)
                .await
                .unwrap_or_else(|_| panic!("{} inside instead of {n}", self.now()));
        }
    }

    struct Inside(Arc<AtomicUsize>);

    impl Inside {
        fn new(door: &Door) -> Self {
            let now = door.inside.fetch_add(1, SeqCst) + 1;
            door.most.fetch_max(now, SeqCst);
            Self(door.inside.clone())
        }
    }

    impl Drop for Inside {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }

    fn spec(name: &str) -> ToolSpec {
        ToolSpec::new(name, "d", object())
    }

    #[test]
    fn tools_are_found_by_exact_name_and_offered_in_order() {
        let skills: Vec<Arc<dyn Skill>> = ["b", "a", "c"]
            .map(|n| Arc::new(tool(n, |_, _| async { Ok("".into()) })) as Arc<dyn Skill>)
            .into();
        let tools = Toolbox::new(&skills).unwrap();
        let names: Vec<&str> = tools.specs().iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        for name in names {
            assert_eq!(tools.spec(name).unwrap().name, name);
            assert!(format!("{:?}", tools.find(name).unwrap().1.skill).contains(&format!("({name})")));
        }
        assert!(tools.spec("A").is_none() && tools.spec("").is_none() && tools.spec("ab").is_none());
        assert_eq!((tools.effect("a"), tools.effect("z")), (Effect::AtMostOnce, Effect::Pure));
        assert!(Toolbox::default().specs().is_empty());
    }

    #[test]
    fn limits_that_let_nothing_through_are_refused() {
        #[derive(Debug)]
        struct One(SkillManifest, ToolSpec);
        #[async_trait]
        impl Skill for One {
            fn manifest(&self) -> &SkillManifest {
                &self.0
            }
            fn tools(&self) -> Arc<[ToolSpec]> {
                Arc::from([self.1.clone()])
            }
            async fn call(&self, _: &Cx, _: &ToolCall) -> Result<ToolOutput> {
                Ok("".into())
            }
        }
        let new = |spec| {
            let skill: Arc<dyn Skill> = Arc::new(One(SkillManifest::new("one", "d"), spec));
            Toolbox::new([&skill]).map(|_| ()).map_err(|e| (e.kind(), e.to_string()))
        };
        for bad in [spec("t").max_parallel(0), spec("t").timeout(Duration::ZERO)] {
            let (kind, text) = new(bad).unwrap_err();
            assert!(kind == ErrorKind::Invalid && text.contains("\"t\""), "{text}");
        }
        new(spec("t").max_parallel(u32::MAX).timeout(Duration::MAX)).unwrap();
    }

    #[tokio::test]
    async fn a_tool_states_its_own_time_be_it_shorter_or_longer() {
        let clock = VirtualClock::at(0);
        let cx = Cx::new("r").with_clock(Arc::new(clock.clone()));
        for (own, expected) in [(None, 60), (Some(5), 5), (Some(600), 600)] {
            let skill = Door::default().tool("t");
            let skill = match own {
                Some(s) => skill.timeout(Duration::from_secs(s)),
                None => skill,
            };
            let tools = of(skill);
            let (c, cx) = (call("t"), cx.clone());
            let running = tokio::spawn(async move { tools.run(&cx, &c, LIMITS).await });
            while clock.sleepers() == 0 {
                tokio::task::yield_now().await;
            }
            clock.advance(Duration::from_secs(expected - 1));
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            assert!(!running.is_finished(), "{own:?}");
            clock.advance(Duration::from_secs(1));
            let (result, _) = ends(running).await.unwrap().unwrap();
            assert_eq!(result.status, ToolStatus::Unknown);
            assert!(result.content.contains(&format!("within {expected}s")), "{}", result.content);
        }
    }

    #[tokio::test]
    async fn a_limit_holds_over_runs_and_toolboxes() {
        let (limiter, door) = (ToolLimiter::default(), Door::default());
        // Each run has made its tools anew, as after a reload.
        let calls: Vec<_> = (0..20)
            .map(|n| {
                let tools = with(&limiter, door.tool("t").max_parallel(3));
                tokio::spawn(async move {
                    tools.run(&Cx::new(format!("r{n}")), &call("t"), LIMITS).await.unwrap().0.content
                })
            })
            .collect();
        door.until(3).await;
        for call in calls {
            door.open.notify_one();
            assert_eq!(call.await.unwrap(), "through");
        }
        assert_eq!(door.most.load(SeqCst), 3);
        let unlimited = with(&limiter, door.tool("other"));
        let cx = Cx::new("r");
        let admissions: Vec<Admission> = {
            let mut all = Vec::new();
            for _ in 0..10 {
                all.push(unlimited.admit(&cx, "other").await.unwrap());
            }
            all
        };
        assert_eq!(admissions.len(), 10);
    }

    #[tokio::test]
    async fn a_gate_takes_another_size_while_calls_run() {
        let (limiter, cx) = (ToolLimiter::default(), Cx::new("r"));
        let sized = |n| with(&limiter, Door::default().tool("t").max_parallel(n));
        let free =
            |tools: &Toolbox| tools.find("t").unwrap().1.gate.as_ref().unwrap().slots.available_permits();
        let tools = sized(3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(tools.admit(&cx, "t").await.unwrap());
        }
        let narrow = sized(1);
        held.pop();
        assert_eq!(free(&narrow), 0, "two still run");
        held.pop();
        assert_eq!(free(&narrow), 0, "one still runs");
        let wide = sized(4);
        assert_eq!((free(&wide), free(&tools)), (3, 3), "the newest decides for all");
        held.push(wide.admit(&cx, "t").await.unwrap());
        sized(1);
        let same = sized(2);
        assert_eq!(free(&same), 0);
        held.clear();
        assert_eq!(free(&same), 2);
        sized(1);
        assert_eq!(free(&same), 1);
        drop((tools, narrow, wide, same));
        for n in 0..1_000 {
            limiter.gate(&format!("t{n}"), 1);
        }
        assert!(limiter.gates.lock().unwrap().len() < 10, "tools that are gone are forgotten");
    }

    #[tokio::test]
    async fn waiting_obeys_the_context_and_is_not_the_tools_time() {
        let clock = VirtualClock::at(0);
        let cx = Cx::new("r").with_clock(Arc::new(clock.clone()));
        let door = Door::default();
        let tools = Arc::new(of(door.tool("t").max_parallel(1).timeout(Duration::from_secs(5))));
        let first = tools.admit(&cx, "t").await.unwrap();

        let stopped = cx.child();
        let waiting = tokio::spawn({
            let (tools, cx) = (tools.clone(), stopped.clone());
            async move { tools.run(&cx, &call("t"), LIMITS).await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        stopped.cancel().cancel();
        assert_eq!(ends(waiting).await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);

        let late = cx.clone().with_timeout(Duration::from_secs(1));
        let waiting = tokio::spawn({
            let tools = tools.clone();
            async move { tools.run(&late, &call("t"), LIMITS).await.map(|_| ()) }
        });
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(ends(waiting).await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);

        let waiting = tokio::spawn({
            let (tools, cx) = (tools.clone(), cx.clone());
            async move { tools.run(&cx, &call("t"), LIMITS).await.map(|(r, _)| r.status) }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(100));
        drop(first);
        door.until(1).await;
        door.open.notify_one();
        assert_eq!(ends(waiting).await.unwrap().unwrap(), ToolStatus::Ok);
    }

    #[tokio::test]
    async fn what_runs_inside_of_a_call_does_not_wait_for_it() {
        let limiter = Arc::new(ToolLimiter::default());
        let slot: Arc<OnceLock<Arc<Toolbox>>> = Arc::default();
        let inner = slot.clone();
        // An agent as a tool that starts another one.
        let tools = Arc::new(with(
            &limiter,
            tool("agent", move |cx, call| {
                let tools = inner.get().unwrap().clone();
                async move {
                    let depth = call.args["depth"].as_u64().unwrap();
                    if depth == 0 {
                        return Ok("deep".into());
                    }
                    let call = ToolCall::new("c", "agent", json!({"depth": depth - 1}));
                    Ok(Box::pin(tools.run(&cx, &call, LIMITS)).await?.0.content.into())
                }
            })
            .max_parallel(1),
        ));
        slot.set(tools.clone()).unwrap();
        let call = ToolCall::new("c", "agent", json!({"depth": 5}));
        let cx = Cx::new("r");
        let work = tools.run(&cx, &call, LIMITS);
        let (result, _) =
            tokio::time::timeout(Duration::from_secs(10), work).await.expect("no deadlock").unwrap();
        assert_eq!(result.content, "deep");

        // But a context that outlives its call holds nothing.
        let kept: Arc<OnceLock<Cx>> = Arc::default();
        let keep = kept.clone();
        let tools = with(
            &limiter,
            tool("keep", move |cx, _| {
                let _ = keep.set(cx.child());
                async { Ok("".into()) }
            })
            .max_parallel(1),
        );
        tools.run(&Cx::new("r"), &ToolCall::new("c", "keep", json!({})), LIMITS).await.unwrap();
        let taken = tools.admit(&Cx::new("r"), "keep").await.unwrap();
        let old = kept.get().unwrap();
        assert!(old.get::<Held>().is_some());
        assert!(settled(tools.admit(old, "keep")).await.is_none(), "it waits like everybody");
        drop(taken);
        assert!(settled(tools.admit(old, "keep")).await.is_some());
    }

    /// Its outcome if it has one within a few turns of the scheduler.
    async fn settled<F: Future>(work: F) -> Option<F::Output> {
        tokio::time::timeout(Duration::from_millis(20), work).await.ok()
    }

    /// A test that would hang fails.
    async fn ends<F: Future>(work: F) -> F::Output {
        tokio::time::timeout(Duration::from_secs(10), work).await.expect("it hangs")
    }

    /// What runs on when a call is left must be gone within this.
    const SOON: Duration = Duration::from_millis(100);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cancelled_run_leaves_a_tool_that_heeds_nothing() {
        let door = Door::default();
        let tools = of(door.tool("t"));
        let cx = Cx::new("r");
        let stop = cx.cancel().clone();
        let running = tokio::spawn(async move { tools.run(&cx, &call("t"), LIMITS).await.map(|_| ()) });
        door.until(1).await;
        let start = Instant::now();
        stop.cancel();
        assert_eq!(ends(running).await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        door.until(0).await;
        assert!(start.elapsed() < SOON, "its task is gone as well: {:?}", start.elapsed());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cancelled_run_leaves_a_tool_that_blocks_its_thread() {
        let (entered, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, end) = (entered.clone(), release.clone());
        let tools = Arc::new(of(tool("t", move |_, _| {
            let (seen, end) = (seen.clone(), end.clone());
            async move {
                seen.store(1, SeqCst);
                while end.load(SeqCst) == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                seen.store(2, SeqCst);
                Ok("".into())
            }
        })
        .max_parallel(1)));
        let cx = Cx::new("r");
        let stop = cx.cancel().clone();
        let running = tokio::spawn({
            let tools = tools.clone();
            async move { tools.run(&cx, &call("t"), LIMITS).await.map(|_| ()) }
        });
        while entered.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        stop.cancel();
        assert_eq!(ends(running).await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        // It still runs, and so it still counts.
        assert!(settled(tools.admit(&Cx::new("r2"), "t")).await.is_none());
        release.store(1, SeqCst);
        tokio::time::timeout(Duration::from_secs(10), tools.admit(&Cx::new("r2"), "t"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(entered.load(SeqCst), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dropped_run_takes_its_tools_with_it() {
        let door = Door::default();
        let tools = of(door.tool("t").max_parallel(50));
        let cx = Cx::new("r");
        let c = call("t");
        {
            let mut runs: Vec<_> = (0..50).map(|_| Box::pin(tools.run(&cx, &c, LIMITS))).collect();
            for run in &mut runs {
                assert!(poll_once(run).await.is_none());
            }
            door.until(50).await;
        }
        let start = Instant::now();
        door.until(0).await;
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        let gate = tools.find("t").unwrap().1.gate.as_ref().unwrap();
        let all = tokio::time::timeout(SOON, gate.slots.acquire_many(50)).await;
        assert!(all.is_ok(), "all slots are free again");
    }

    async fn poll_once<F: Future + Unpin>(work: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *work).poll(cx) {
            std::task::Poll::Ready(out) => std::task::Poll::Ready(Some(out)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_result_and_frees_its_slot() {
        let tools = of(tool("t", |_, call| async move {
            if call.args["panic"] == true {
                panic!("ouch")
            }
            Ok("fine".into())
        })
        .max_parallel(1));
        let cx = Cx::new("r");
        let bad = ToolCall::new("c", "t", json!({"panic": true}));
        let (result, _) = tools.run(&cx, &bad, LIMITS).await.unwrap();
        assert_eq!(result.status, ToolStatus::Unknown);
        assert!(result.content.contains("crashed"), "{}", result.content);
        assert_eq!(tools.run(&cx, &call("t"), LIMITS).await.unwrap().0.content, "fine");
    }
}
