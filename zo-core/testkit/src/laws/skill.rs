//! Laws of [`zo_traits::Skill`].
//!
//! They know nothing of the skill but its trait, so they call no tool whose effect may not be repeated with arguments that
//! it could accept.

use serde_json::{Value, json};
use std::{collections::HashSet, sync::Arc, time::Duration};
use zo_traits::{Cx, Effect, ErrorKind, Skill, SkillManifest, ToolCall};

/// Turns the laws of a skill into tests. The expression is a future that makes a fresh skill.
///
/// ```
/// # use zo_traits::{Cx, Result, Skill, SkillManifest, ToolCall, ToolOutput, ToolSpec, async_trait};
/// #[derive(Debug)]
/// struct Mine(SkillManifest);
/// # #[async_trait]
/// # impl Skill for Mine {
/// #     fn manifest(&self) -> &SkillManifest { &self.0 }
/// #     fn tools(&self) -> std::sync::Arc<[ToolSpec]> { std::sync::Arc::from([]) }
/// #     async fn call(&self, _: &Cx, _: &ToolCall) -> Result<ToolOutput> { unimplemented!() }
/// # }
///
/// #[cfg(test)]
/// mod tests {
///     use super::*;
///     zo_testkit::skill_laws!(async { Mine(SkillManifest::new("mine", "Does what I need.")) });
/// }
/// ```
#[macro_export]
macro_rules! skill_laws {
    ($make:expr) => {
        $crate::__laws!(skill, $make;
            the_manifest_names_and_describes,
            the_manifest_stays,
            the_manifest_survives_json,
            tool_names_suit_every_provider,
            tool_names_are_unique,
            tools_say_what_they_do,
            schemas_are_plain_objects,
            schemas_refer_only_inward,
            effects_are_known,
            touches_name_what_the_schema_has,
            limits_let_a_call_through,
            scopes_are_words,
            tools_are_a_cheap_and_stable_snapshot,
            an_unknown_tool_is_not_found,
            names_match_exactly,
            a_cancelled_call_is_cancelled,
            a_late_call_times_out,
            missing_arguments_are_an_error,
            many_calls_at_once,
            instructions_are_there_when_promised,
            cancelled_instructions_are_cancelled,
            pointers_forward_everything,
            debug_is_short,
        );
    };
}

/// Arguments that are an object and nothing more.
fn empty() -> Value {
    json!({})
}

fn call(name: &str, args: Value) -> ToolCall {
    ToolCall::new("law", name, args)
}

/// A model cannot choose what has no name or says nothing.
pub async fn the_manifest_names_and_describes(skill: impl Skill) {
    let m = skill.manifest();
    assert!(!m.name.trim().is_empty(), "a skill has a name");
    assert!(!m.description.trim().is_empty(), "skill `{}` has a description", m.name);
    for trigger in &m.triggers {
        assert!(!trigger.trim().is_empty() && !trigger.contains('\n'), "trigger {trigger:?} of `{}`", m.name);
    }
}

/// Asking again, also after calls, gives the same manifest.
pub async fn the_manifest_stays(skill: impl Skill) {
    let before = skill.manifest().clone();
    let _ = skill.call(&Cx::default(), &call("no-such-tool", empty())).await;
    let _ = skill.instructions(&Cx::default()).await;
    assert_eq!(*skill.manifest(), before);
}

/// Hosts keep manifests in files and send them over wires.
pub async fn the_manifest_survives_json(skill: impl Skill) {
    let text = serde_json::to_string(skill.manifest()).expect("as JSON");
    let back: SkillManifest = serde_json::from_str(&text).expect("from JSON");
    assert_eq!(back, *skill.manifest());
}

/// `[a-zA-Z0-9_-]{1,64}`: the strictest rule among the providers.
pub async fn tool_names_suit_every_provider(skill: impl Skill) {
    for tool in skill.tools().iter() {
        let fits = (1..=64).contains(&tool.name.len())
            && tool.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        assert!(fits, "tool name {:?}", tool.name);
    }
}

/// Two tools of one name cannot be told apart.
pub async fn tool_names_are_unique(skill: impl Skill) {
    let tools = skill.tools();
    let names: HashSet<&str> = tools.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names.len(), tools.len(), "{:?}", tools.iter().map(|t| &t.name).collect::<Vec<_>>());
}

/// A tool without a description is used at random.
pub async fn tools_say_what_they_do(skill: impl Skill) {
    for tool in skill.tools().iter() {
        assert!(!tool.description.trim().is_empty(), "tool `{}` has a description", tool.name);
    }
}

/// What every provider takes: `type: object` with `properties`, and nothing beside them that some refuse.
pub async fn schemas_are_plain_objects(skill: impl Skill) {
    for tool in skill.tools().iter() {
        let schema = &*tool.input;
        assert_eq!(schema["type"], "object", "`{}`: {schema}", tool.name);
        let properties = schema["properties"].as_object();
        let Some(properties) = properties else { panic!("`{}` has no `properties`: {schema}", tool.name) };
        for forbidden in ["$schema", "$ref", "oneOf", "anyOf", "allOf", "not", "enum"] {
            assert!(
                schema.get(forbidden).is_none(),
                "`{}` has `{forbidden}` at the top: {schema}",
                tool.name
            );
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let known = name.as_str().is_some_and(|n| properties.contains_key(n));
            assert!(known, "`{}` requires {name}, which it does not describe", tool.name);
        }
    }
}

/// A reference to elsewhere would have to be fetched.
pub async fn schemas_refer_only_inward(skill: impl Skill) {
    fn check(at: &Value, root: &Value) {
        match at {
            Value::Object(o) => {
                if let Some(Value::String(to)) = o.get("$ref") {
                    let inward = to.strip_prefix('#').is_some_and(|p| root.pointer(p).is_some());
                    assert!(inward, "reference {to:?} leads nowhere in {root}");
                }
                o.values().for_each(|v| check(v, root));
            }
            Value::Array(a) => a.iter().for_each(|v| check(v, root)),
            _ => {}
        }
    }
    for tool in skill.tools().iter() {
        check(&tool.input, &tool.input);
    }
}

/// Each tool is of an effect class that this version knows.
pub async fn effects_are_known(skill: impl Skill) {
    for tool in skill.tools().iter() {
        assert!(!matches!(tool.effect, Effect::Other(_)), "`{}` is {:?}", tool.name, tool.effect);
    }
}

/// What a tool touches has a kind, and the argument that names it is one that the schema describes: otherwise every call
/// would touch everything of the kind, and nobody would know why nothing runs in parallel.
pub async fn touches_name_what_the_schema_has(skill: impl Skill) {
    for tool in skill.tools().iter() {
        for touch in &tool.touches {
            assert!(!touch.what.trim().is_empty(), "`{}` touches something without a kind", tool.name);
            assert!(touch.arg.is_some() || !touch.path, "`{}` touches a path without an argument", tool.name);
            let Some(arg) = &touch.arg else { continue };
            let steps: Vec<String> = match arg.strip_prefix('/') {
                Some(pointer) => {
                    pointer.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
                }
                None => vec![arg.clone()],
            };
            let (mut at, mut known) = (&*tool.input, true);
            for (n, step) in steps.iter().enumerate() {
                // What a reference or a list leads to is not followed, but the argument itself must be there.
                match at.get("properties").and_then(|p| p.get(step)) {
                    Some(next) => at = next,
                    None => {
                        known = n > 0 && at.get("properties").is_none();
                        break;
                    }
                }
            }
            assert!(
                known,
                "`{}` touches the {:?} named by {arg:?}, which its schema does not describe: {}",
                tool.name, touch.what, tool.input
            );
        }
    }
}

/// A limit of zero is no limit but a tool that nobody can call.
pub async fn limits_let_a_call_through(skill: impl Skill) {
    for tool in skill.tools().iter() {
        assert_ne!(tool.max_parallel, Some(0), "calls of `{}` at the same time", tool.name);
        assert_ne!(tool.timeout, Some(Duration::ZERO), "time of `{}`", tool.name);
    }
}

/// A scope is compared as it is written: no blanks in it, and none said twice.
pub async fn scopes_are_words(skill: impl Skill) {
    for tool in skill.tools().iter() {
        for scope in &tool.scopes {
            let word = !scope.is_empty() && !scope.contains(|c: char| c.is_whitespace() || c.is_control());
            assert!(word, "scope {scope:?} of `{}`", tool.name);
        }
        let distinct: HashSet<&String> = tool.scopes.iter().collect();
        assert_eq!(distinct.len(), tool.scopes.len(), "`{}`: {:?}", tool.name, tool.scopes);
    }
}

/// Asking for the tools of an idle skill twice gives the same, in the same order, and does no I/O: ten thousand times
/// within a second.
pub async fn tools_are_a_cheap_and_stable_snapshot(skill: impl Skill) {
    let (before, start) = (skill.tools(), std::time::Instant::now());
    for _ in 0..10_000 {
        assert_eq!(skill.tools().len(), before.len());
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?} for 10000 snapshots", start.elapsed());
    assert_eq!(skill.tools(), before);
}

/// A tool that the skill does not have is `NotFound`, whatever the arguments.
pub async fn an_unknown_tool_is_not_found(skill: impl Skill) {
    for name in ["no-such-tool", "", " ", "../../etc/passwd", "ツール"] {
        for args in [empty(), Value::Null, json!([1]), json!("text")] {
            let e = skill.call(&Cx::default(), &call(name, args)).await.expect_err("an unknown tool");
            assert_eq!(e.kind(), ErrorKind::NotFound, "{name:?}: {e}");
        }
    }
}

/// Nothing is guessed: other case, blanks and prefixes are other tools.
pub async fn names_match_exactly(skill: impl Skill) {
    let tools = skill.tools();
    for tool in tools.iter() {
        let n = &tool.name;
        let near = [n.to_uppercase(), format!(" {n}"), format!("{n} "), format!("{n}x"), n[1..].to_owned()];
        for name in near.iter().filter(|name| !tools.iter().any(|t| t.name == **name)) {
            let e = skill.call(&Cx::default(), &call(name, empty())).await.expect_err("an unknown tool");
            assert_eq!(e.kind(), ErrorKind::NotFound, "{name:?} beside `{n}`: {e}");
        }
    }
}

/// Under a cancelled context no tool starts.
pub async fn a_cancelled_call_is_cancelled(skill: impl Skill) {
    let cx = Cx::default();
    cx.cancel().cancel();
    for tool in skill.tools().iter() {
        let e = skill.call(&cx, &call(&tool.name, empty())).await.expect_err("a cancelled call");
        assert_eq!(e.kind(), ErrorKind::Cancelled, "`{}`: {e}", tool.name);
    }
}

/// After its deadline no tool starts.
pub async fn a_late_call_times_out(skill: impl Skill) {
    let cx = Cx::default().with_timeout(Duration::ZERO);
    for tool in skill.tools().iter() {
        let e = skill.call(&cx, &call(&tool.name, empty())).await.expect_err("a late call");
        assert_eq!(e.kind(), ErrorKind::Timeout, "`{}`: {e}", tool.name);
    }
}

/// A caller checks arguments against the schema; should one forget, the tool says so and invents none.
pub async fn missing_arguments_are_an_error(skill: impl Skill) {
    for tool in skill.tools().iter() {
        if tool.input["required"].as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        for args in [empty(), Value::Null, json!([]), json!("text"), json!(7)] {
            let e = skill.call(&Cx::default(), &call(&tool.name, args.clone())).await;
            let e = e.expect_err("a call without what it requires");
            assert_eq!(e.kind(), ErrorKind::Invalid, "`{}` with {args}: {e}", tool.name);
            assert!(!e.model_text().is_empty());
        }
    }
}

/// Calls at once neither block nor disturb each other.
pub async fn many_calls_at_once(skill: impl Skill) {
    let skill: Arc<dyn Skill> = Arc::new(skill);
    let tools = skill.tools();
    let mut running = Vec::new();
    for n in 0..64 {
        // Only what changes nothing is really called.
        let harmless = tools.iter().find(|t| t.effect == Effect::Pure).map(|t| t.name.clone());
        let name = harmless.filter(|_| n % 2 == 0).unwrap_or_else(|| "no-such-tool".to_owned());
        let skill = skill.clone();
        running.push(tokio::spawn(async move {
            let answer = skill.call(&Cx::new(format!("run-{n}")), &call(&name, empty())).await;
            (name, answer.map(|_| ()).map_err(|e| e.kind()))
        }));
    }
    let mut answers: Vec<(String, Result<(), ErrorKind>)> = Vec::new();
    for task in running {
        let done = tokio::time::timeout(Duration::from_secs(10), task).await.expect("within ten seconds");
        answers.push(done.expect("no panic"));
    }
    for (name, answer) in &answers {
        let same = answers.iter().filter(|(n, _)| n == name).all(|(_, a)| a == answer);
        assert!(same, "`{name}` answers differently beside itself: {answers:?}");
    }
    assert_eq!(skill.tools(), tools);
}

/// `has_instructions` tells whether there are any.
pub async fn instructions_are_there_when_promised(skill: impl Skill) {
    let text = skill.instructions(&Cx::default()).await.expect("instructions");
    assert_eq!(skill.manifest().has_instructions, !text.trim().is_empty(), "{text:?}");
}

/// Under a cancelled context nothing is read.
pub async fn cancelled_instructions_are_cancelled(skill: impl Skill) {
    if !skill.manifest().has_instructions {
        return;
    }
    let cx = Cx::default();
    cx.cancel().cancel();
    let e = skill.instructions(&cx).await.expect_err("cancelled instructions");
    assert_eq!(e.kind(), ErrorKind::Cancelled, "{e}");
}

/// Shared and erased, it is the same skill.
pub async fn pointers_forward_everything(skill: impl Skill) {
    let (manifest, tools) = (skill.manifest().clone(), skill.tools());
    let instructions = skill.instructions(&Cx::default()).await.expect("instructions");
    let shared: Arc<dyn Skill> = Arc::new(skill);
    let boxed: Box<dyn Skill> = Box::new(shared.clone());
    assert_eq!((boxed.manifest(), boxed.tools()), (&manifest, tools));
    assert_eq!(boxed.instructions(&Cx::default()).await.expect("instructions"), instructions);
    let e = boxed.call(&Cx::default(), &call("no-such-tool", empty())).await.expect_err("an unknown tool");
    assert_eq!(e.kind(), ErrorKind::NotFound);
}

/// It goes to logs: something, and not a book.
pub async fn debug_is_short(skill: impl Skill) {
    let text = format!("{skill:?}");
    assert!(!text.is_empty() && text.len() < 64 * 1024, "{} bytes of Debug", text.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RawTool, tool};
    use zo_traits::Touch;

    fn nested() -> RawTool {
        tool("t", |_, _| async { Ok("".into()) }).schema(json!({
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "to": {"type": "object", "properties": {"id": {"type": "string"}}},
                "all": {"type": "array", "items": {"type": "string"}},
                "a/b": {"type": "string"},
            },
        }))
    }

    #[tokio::test]
    async fn touches_that_exist_pass() {
        let touches = [
            Touch::writes("file"),
            Touch::writes("file").path("path"),
            Touch::reads("account").arg("/to/id"),
            Touch::reads("file").path("/all/0"),
            Touch::reads("file").path("/a~1b"),
            Touch::reads("file").path("a/b"),
        ];
        let skill = touches.into_iter().fold(nested(), RawTool::touch);
        touches_name_what_the_schema_has(skill).await;
    }

    #[tokio::test]
    async fn touches_that_do_not_fail() {
        for touch in [
            Touch::writes("file").path("Path"),
            Touch::writes("account").arg("/to/name"),
            Touch::writes("account").arg("/from/id"),
            Touch::writes(" "),
        ] {
            let skill = nested().touch(touch.clone());
            let law = tokio::spawn(touches_name_what_the_schema_has(skill));
            assert!(law.await.unwrap_err().is_panic(), "{touch:?}");
        }
    }

    #[tokio::test]
    async fn limits_and_scopes() {
        limits_let_a_call_through(nested().max_parallel(1).timeout(Duration::from_secs(1))).await;
        scopes_are_words(nested().scope("files:write").scope("net")).await;
        for skill in [nested().max_parallel(0), nested().timeout(Duration::ZERO)] {
            assert!(tokio::spawn(limits_let_a_call_through(skill)).await.unwrap_err().is_panic());
        }
        for scopes in [vec![""], vec!["files write"], vec!["net", "net"]] {
            let skill = scopes.into_iter().fold(nested(), RawTool::scope);
            assert!(tokio::spawn(scopes_are_words(skill)).await.unwrap_err().is_panic());
        }
    }
}
