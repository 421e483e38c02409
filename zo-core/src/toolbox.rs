//! The tools of a run: found by exact name, checked against their schema, run apart so that one which fails, panics or
//! hangs costs its own result and nothing else.

use crate::{INVALID_NAME, schema};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use zo_traits::{
    Cx, Effect, Error, ErrorKind, Media, MediaSource, Result, Skill, ToolCall, ToolOutput, ToolResult,
    ToolSpec, ToolStatus,
};

/// The tools on offer in one run: a snapshot, so that a reload in the middle of a run cannot mix versions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Toolbox {
    tools: HashMap<String, (ToolSpec, Arc<dyn Skill>)>,
    /// In order of name, so that the same tools give the same bytes and a provider's prompt cache hits.
    specs: Vec<ToolSpec>,
}

/// Most bytes of media, as base64, in one result.
const MAX_MEDIA: usize = 8 << 20;

/// Name of the tool that reads what was left out of a long result.
pub(crate) const READ_OUTPUT: &str = "read_output";

/// Names the whole output of a call.
pub(crate) fn output_id(run: &str, call: &str) -> String {
    format!("{run}/{call}")
}

/// How tools are run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToolLimits {
    pub(crate) timeout: Duration,
    /// Most bytes of one result that the model sees at once.
    pub(crate) max_output: usize,
    /// Where the whole of a longer one is kept, if it is.
    pub(crate) kept: bool,
}

impl Toolbox {
    /// # Errors
    /// `Conflict` when two skills offer a tool of one name; `Invalid` for a name that providers refuse.
    pub(crate) fn new<'a>(skills: impl IntoIterator<Item = &'a Arc<dyn Skill>>) -> Result<Self> {
        let mut tools: HashMap<String, (ToolSpec, Arc<dyn Skill>)> = HashMap::new();
        for skill in skills {
            for spec in skill.tools().iter() {
                let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                let fits = !spec.name.is_empty() && spec.name.len() <= 64 && spec.name.chars().all(good);
                if !fits || spec.name == INVALID_NAME {
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
        let mut specs: Vec<ToolSpec> = tools.values().map(|(spec, _)| spec.clone()).collect();
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { tools, specs })
    }

    pub(crate) fn specs(&self) -> &[ToolSpec] {
        &self.specs
    }

    /// The effect class of a tool; unknown tools do nothing.
    pub(crate) fn effect(&self, name: &str) -> Effect {
        self.tools.get(name).map_or(Effect::Pure, |(spec, _)| spec.effect.clone())
    }

    pub(crate) fn is_serial(&self, name: &str) -> bool {
        self.tools.get(name).is_some_and(|(spec, _)| spec.serial)
    }

    /// Runs one call to its result, whatever happens; with the output as the skill gave it.
    ///
    /// # Errors
    /// Only when the run itself was cancelled or is late: then the call was stopped and its outcome is not known.
    pub(crate) async fn run(
        &self,
        cx: &Cx,
        call: &ToolCall,
        limits: ToolLimits,
    ) -> Result<(ToolResult, ToolOutput)> {
        let (spec, skill) = match self.check(call) {
            Ok(found) => found,
            Err(e) => return Ok((failed(call, &e, limits), ToolOutput::default())),
        };
        let inner = cx.child().with_timeout(limits.timeout);
        // A task begins to run as soon as it is spawned, whether or not anybody looks at it.
        inner.check("agent.tool")?;
        let mut task = Task(tokio::spawn({
            let (skill, call, cx) = (skill.clone(), call.clone(), inner.clone());
            async move { skill.call(&cx, &call).await }
        }));
        // Raced out here as well as wherever the skill looks at its context: one that blocks its thread is left behind.
        let stopped = match inner.race("tool", &mut task.0).await {
            Ok(Ok(Ok(output))) => return Ok(succeeded(cx, call, output, limits)),
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
                format!("it did not finish within {:?}", limits.timeout)
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
    fn check(&self, call: &ToolCall) -> Result<(&ToolSpec, &Arc<dyn Skill>)> {
        let Some((spec, skill)) = self.tools.get(&call.name) else {
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
        Ok((spec, skill))
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
    let how =
        id.map_or(String::new(), |id| format!("; read on with {READ_OUTPUT}, id {id:?}, offset {head}"));
    format!("{start}\n[... {} of {} bytes left out{how} ...]\n{end}", tail - head, text.len())
}

/// The last character boundary at or before `at`.
pub(crate) fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_keeps_both_ends_and_characters() {
        let text = "é".repeat(10_000);
        let got = clip(&text, 1_001, Some("r/c"));
        assert!(got.len() < 1_100 && got.starts_with('é') && got.ends_with('é'));
        assert!(got.contains("of 20000 bytes left out"));
        assert!(got.contains("id \"r/c\", offset 750"), "{got}");
        assert_eq!(clip("short", 100, None), "short");
    }
}
