//! Standing instructions: what an agent is told in every run, always or on a condition.
//!
//! Rules are kept in the store, per [`Scope`], and survive restarts. They become part of the system prompt, so their text
//! is bounded, is one line each, and is the same bytes as long as the rules are the same ([`render`]). The functions over a
//! transaction are for whoever wants a rule and something else in one commit; [`RulesSkill`] gives the model hands on them.

use crate::digest::Fnv;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fmt,
    fmt::Write as _,
    hash::{BuildHasher, RandomState},
    ops::ControlFlow,
    str::FromStr,
    sync::Arc,
};
use zo_store::{Read, Scan, Store, Table, Tx, key::Key};
use zo_traits::{
    Cx, Effect, Error, ErrorKind, Result, Scope, Skill, SkillManifest, Timestamp, ToolCall, ToolOutput,
    ToolSpec, Touch, async_trait,
};

/// (scope, id) -> JSON of the rule.
const RULES: Table = Table::new("agent.rules");
const SCHEMA: u32 = 1;

/// Most rules of one scope.
pub(crate) const MAX_RULES: usize = 100;
/// Longest instruction, and longest condition, in characters.
pub(crate) const MAX_RULE_CHARS: usize = 2_000;

/// What the rules stand under in a system prompt.
pub(crate) const HEADING: &str = "Standing rules, set by the user. Follow each whenever it applies:";

/// Names a rule within its scope. Text form: 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleId(u64);

impl RuleId {
    /// The same for the same effect, so that an effect that is tried again makes nothing new.
    fn of(effect: &str) -> Self {
        // Must be the same in every version and on every machine, which the standard hasher is not.
        let mut fnv = Fnv::default();
        fnv.add(effect.as_bytes());
        Self(fnv.value())
    }

    fn random() -> Self {
        // `RandomState` is seeded by the operating system: the one source of chance in the standard library.
        Self(RandomState::new().hash_one(std::process::id()))
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleId({self})")
    }
}

impl FromStr for RuleId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(n) if digits => Ok(Self(n)),
            _ => {
                let says =
                    format!("{text:.40?} is not the id of a rule: 16 hexadecimal digits were expected");
                Err(Error::new(ErrorKind::Invalid, "rules.id", &says).with_model_text(says))
            }
        }
    }
}

impl TryFrom<String> for RuleId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RuleId> for String {
    fn from(id: RuleId) -> Self {
        id.to_string()
    }
}

/// A standing instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rule {
    /// Names it within its scope.
    pub id: RuleId,
    /// What to do.
    pub instruction: String,
    /// When; none for always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Is it part of the prompt?
    pub enabled: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its place in the order of creation within the scope, which a wall clock does not tell.
    pub seq: u64,
}

/// What to change of a rule; `None` leaves it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) instruction: Option<String>,
    /// `Some(None)` makes it unconditional.
    pub(crate) condition: Option<Option<String>>,
    pub(crate) enabled: Option<bool>,
}

/// Makes sure that the file's rules are of this version.
///
/// # Errors
/// `Unsupported` when a newer version wrote them.
pub(crate) async fn open(store: &Store) -> Result<()> {
    store
        .require_schema("agent.rules", SCHEMA, |_, from| {
            Err(Error::new(ErrorKind::Unsupported, "rules.open", format_args!("rules of version {from}")))
        })
        .await
}

fn prefix(scope: &Scope) -> Key {
    Key::new().str(&scope.0)
}

fn row(scope: &Scope, id: RuleId) -> Key {
    prefix(scope).u64(id.0)
}

fn decode(value: &[u8]) -> Result<Rule> {
    serde_json::from_slice(value).map_err(|e| Error::new(ErrorKind::Corrupt, "rules.read", e))
}

fn put(tx: &mut Tx<'_>, scope: &Scope, rule: &Rule) -> Result<()> {
    let value = serde_json::to_vec(rule).map_err(|e| Error::new(ErrorKind::Invalid, "rules.write", e))?;
    tx.put(RULES, &row(scope, rule.id), &value)
}

fn invalid(says: String) -> Error {
    Error::new(ErrorKind::Invalid, "rules.check", &says).with_model_text(says)
}

/// One line: runs of white space, line ends of any script and control characters become one space.
fn line(text: &str) -> String {
    let breaks = |c: char| c.is_whitespace() || c.is_control();
    text.split(breaks).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn checked(what: &str, text: &str) -> Result<String> {
    // Before it is copied: a text of a gigabyte costs nothing but this look.
    if text.len() > 16 * MAX_RULE_CHARS {
        return Err(invalid(format!("the {what} of a rule has at most {MAX_RULE_CHARS} characters")));
    }
    let text = line(text);
    match text.chars().count() {
        0 => Err(invalid(format!("the {what} of a rule is empty"))),
        n if n > MAX_RULE_CHARS => Err(invalid(format!(
            "the {what} of a rule has at most {MAX_RULE_CHARS} characters; this one has {n}"
        ))),
        _ => Ok(text),
    }
}

fn missing(id: RuleId) -> Error {
    let says = format!("there is no rule {id}");
    Error::new(ErrorKind::NotFound, "rules.find", &says).with_model_text(says)
}

fn get(reads: &impl Read, scope: &Scope, id: RuleId) -> Result<Option<Rule>> {
    let mut rule = None;
    reads.look(RULES, &row(scope, id), &mut |value| {
        rule = Some(decode(value)?);
        Ok(())
    })?;
    Ok(rule)
}

/// The rules of `scope`, in order of creation.
///
/// # Errors
/// Those of the store.
pub(crate) fn list(reads: &impl Read, scope: &Scope) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    reads.visit(RULES, &Scan::prefix(&prefix(scope)), &mut |_, value| {
        rules.push(decode(value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    rules.sort_by_key(|r: &Rule| (r.seq, r.id));
    Ok(rules)
}

/// Makes a rule. With the `effect` that asks for it (an idempotency key) a repeat returns the rule that is there already.
///
/// # Errors
/// `Invalid` for a text that is empty or too long; `Exhausted` when the scope has [`MAX_RULES`].
pub(crate) fn create(
    tx: &mut Tx<'_>,
    scope: &Scope,
    effect: Option<&str>,
    now: Timestamp,
    instruction: &str,
    condition: Option<&str>,
) -> Result<Rule> {
    let instruction = checked("instruction", instruction)?;
    let condition = condition.map(|c| checked("condition", c)).transpose()?;
    let mut id = effect.map_or_else(RuleId::random, RuleId::of);
    while let Some(there) = get(tx, scope, id)? {
        if effect.is_some() {
            return Ok(there);
        }
        id = RuleId::random();
    }
    let rules = list(tx, scope)?;
    if rules.len() >= MAX_RULES {
        let says =
            format!("there are {MAX_RULES} rules already, the most that there can be; delete one first");
        return Err(Error::new(ErrorKind::Exhausted, "rules.create", &says).with_model_text(says));
    }
    let seq = rules.last().map_or(0, |last| last.seq.saturating_add(1));
    let rule = Rule { id, instruction, condition, enabled: true, created: now, seq };
    put(tx, scope, &rule)?;
    Ok(rule)
}

/// Changes a rule; returns it as it is then.
///
/// # Errors
/// `NotFound`; `Invalid` for a text that is empty or too long.
pub(crate) fn edit(tx: &mut Tx<'_>, scope: &Scope, id: RuleId, edit: &Edit) -> Result<Rule> {
    let mut rule = get(tx, scope, id)?.ok_or_else(|| missing(id))?;
    let before = rule.clone();
    if let Some(text) = &edit.instruction {
        rule.instruction = checked("instruction", text)?;
    }
    if let Some(condition) = &edit.condition {
        rule.condition = condition.as_deref().map(|c| checked("condition", c)).transpose()?;
    }
    rule.enabled = edit.enabled.unwrap_or(rule.enabled);
    if rule != before {
        put(tx, scope, &rule)?;
    }
    Ok(rule)
}

/// Switches a rule on or off.
///
/// # Errors
/// `NotFound`.
pub(crate) fn set_enabled(tx: &mut Tx<'_>, scope: &Scope, id: RuleId, enabled: bool) -> Result<Rule> {
    edit(tx, scope, id, &Edit { enabled: Some(enabled), ..Edit::default() })
}

/// Deletes a rule; `false` when there was none.
///
/// # Errors
/// Those of the store.
pub(crate) fn delete(tx: &mut Tx<'_>, scope: &Scope, id: RuleId) -> Result<bool> {
    tx.delete(RULES, &row(scope, id))
}

/// The rules as part of a system prompt; none when there is nothing to say. Those that always hold come first, each kind in
/// order of creation. Every rule is one line that starts with a dash, whatever its text is.
pub(crate) fn render(rules: &[Rule]) -> Option<String> {
    let mut said: Vec<&Rule> = rules.iter().filter(|r| r.enabled).collect();
    said.sort_by_key(|r| (r.condition.is_some(), r.seq, r.id));
    if said.is_empty() {
        return None;
    }
    let mut text = String::from(HEADING);
    for rule in said {
        let instruction = line(&rule.instruction);
        let _ = match &rule.condition {
            Some(condition) => write!(text, "\n- When {}: {instruction}", line(condition)),
            None => write!(text, "\n- {instruction}"),
        };
    }
    Some(text)
}

/// `create_rule`, `list_rules`, `edit_rule`, `delete_rule`: the model's own hands on the rules of the scope that it works in.
#[derive(Debug)]
pub(crate) struct RulesSkill {
    manifest: SkillManifest,
    tools: Arc<[ToolSpec]>,
    store: Store,
}

impl RulesSkill {
    pub(crate) fn new(store: Store) -> Self {
        let text = |what: &str| json!({"type": "string", "maxLength": MAX_RULE_CHARS, "description": what});
        let id = json!({"type": "string", "description": "Id of the rule, 16 hexadecimal digits, as list_rules gives it"});
        let object = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        let manage = |spec: ToolSpec| {
            spec.effect(Effect::Idempotent).scope("settings:manage").touch(Touch::writes("rules"))
        };
        let tools = [
            manage(ToolSpec::new(
                "create_rule",
                "Make a standing rule: an instruction to be followed in every later conversation, always or under a \
                 condition. Only when the user asks for one.\nTriggers: from now on, always, never, whenever",
                object(
                    json!({"instruction": text("What to do, as one sentence"),
                        "condition": text("When it applies, to be read after \"When\", e.g. \"the user asks for code\". Leave it out for a rule that always applies")}),
                    &["instruction"],
                ),
            )),
            ToolSpec::new("list_rules", "List the standing rules, each with its id.", object(json!({}), &[]))
                .effect(Effect::Pure)
                .scope("settings:read")
                .touch(Touch::reads("rules")),
            manage(ToolSpec::new(
                "edit_rule",
                "Change a standing rule. What is left out stays as it is.",
                object(
                    json!({"id": id, "instruction": text("What to do instead"),
                        "condition": text("When it applies from now on; an empty text for always"),
                        "enabled": {"type": "boolean", "description": "false to suspend it, true to take it up again"}}),
                    &["id"],
                ),
            )),
            manage(ToolSpec::new(
                "delete_rule",
                "Delete a standing rule for good.",
                object(json!({"id": id}), &["id"]),
            )),
        ];
        let manifest = SkillManifest::new("rules", "Standing instructions that hold in every conversation");
        Self { manifest, tools: tools.into(), store }
    }
}

#[async_trait]
impl Skill for RulesSkill {
    fn manifest(&self) -> &SkillManifest {
        &self.manifest
    }

    fn tools(&self) -> Arc<[ToolSpec]> {
        self.tools.clone()
    }

    async fn call(&self, cx: &Cx, call: &ToolCall) -> Result<ToolOutput> {
        cx.check("rules.call")?;
        let scope = cx.get::<Scope>().cloned().unwrap_or_default();
        let text = |key: &str| call.args.get(key).and_then(Value::as_str).map(str::to_owned);
        let need = |key: &str| {
            text(key).ok_or_else(|| invalid(format!("argument {key:?} is missing or not a text")))
        };
        match call.name.as_str() {
            "create_rule" => {
                let (effect, now) = (cx.idempotency_key().map(str::to_owned), cx.clock().now());
                // An empty condition is how some models leave one out.
                let condition = text("condition").filter(|c| !c.trim().is_empty());
                let instruction = need("instruction")?;
                let write = move |tx: &mut Tx<'_>| {
                    create(tx, &scope, effect.as_deref(), now, &instruction, condition.as_deref())
                };
                Ok(said("created", &cx.race("rules.call", self.store.write(write)).await??))
            }
            "list_rules" => {
                let rules = self.store.read(|s| list(s, &scope))?;
                if rules.is_empty() {
                    return Ok(ToolOutput::text("there are no rules"));
                }
                let mut out = String::new();
                for rule in &rules {
                    let _ = writeln!(out, "- {}", describe(rule));
                }
                Ok(ToolOutput::text(out))
            }
            "edit_rule" => {
                let id: RuleId = need("id")?.parse()?;
                let change = Edit {
                    instruction: text("instruction"),
                    condition: text("condition").map(|c| Some(c).filter(|c| !c.trim().is_empty())),
                    enabled: call.args.get("enabled").and_then(Value::as_bool),
                };
                let write = move |tx: &mut Tx<'_>| edit(tx, &scope, id, &change);
                Ok(said("it is now", &cx.race("rules.call", self.store.write(write)).await??))
            }
            "delete_rule" => {
                let id: RuleId = need("id")?.parse()?;
                let gone =
                    cx.race("rules.call", self.store.write(move |tx| delete(tx, &scope, id))).await??;
                Ok(ToolOutput::text(if gone { "deleted" } else { "there was no such rule" }))
            }
            other => {
                Err(Error::new(ErrorKind::NotFound, "skill.call", format_args!("no tool {other:?} here")))
            }
        }
    }
}

fn describe(rule: &Rule) -> String {
    let (id, instruction) = (rule.id, &rule.instruction);
    let off = if rule.enabled { "" } else { ", suspended" };
    match &rule.condition {
        Some(condition) => format!("When {condition}: {instruction} (id {id}{off})"),
        None => format!("{instruction} (id {id}{off})"),
    }
}

fn said(what: &str, rule: &Rule) -> ToolOutput {
    ToolOutput::text(format!("{what}: {}", describe(rule))).with_data(json!({"id": rule.id}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    zo_testkit::skill_laws!(async { RulesSkill::new(Store::in_memory().unwrap()) });

    const NOW: Timestamp = Timestamp(1_000);

    fn store() -> Store {
        Store::in_memory().unwrap()
    }

    fn make(store: &Store, scope: &str, instruction: &str, condition: Option<&str>) -> Result<Rule> {
        let (scope, instruction) = (Scope::new(scope), instruction.to_owned());
        let condition = condition.map(str::to_owned);
        store.write_blocking(move |tx| create(tx, &scope, None, NOW, &instruction, condition.as_deref()))
    }

    fn all(store: &Store, scope: &str) -> Vec<Rule> {
        store.read(|s| list(s, &Scope::new(scope))).unwrap()
    }

    #[test]
    fn rules_are_listed_in_order_of_creation_within_their_scope() {
        let store = store();
        for n in 0..20 {
            make(&store, "a", &format!("a{n}"), None).unwrap();
            make(&store, "a\0", &format!("b{n}"), Some("c")).unwrap();
        }
        let of = |scope| all(&store, scope).into_iter().map(|r| r.instruction).collect::<Vec<_>>();
        assert_eq!(of("a"), (0..20).map(|n| format!("a{n}")).collect::<Vec<_>>());
        assert_eq!(of("a\0"), (0..20).map(|n| format!("b{n}")).collect::<Vec<_>>());
        assert!(of("").is_empty() && of("b").is_empty());
    }

    #[test]
    fn a_scope_is_a_wall() {
        let store = store();
        let id = make(&store, "a", "x", None).unwrap().id;
        let other = Scope::new("b");
        let (s1, s2) = (other.clone(), other);
        assert!(!store.write_blocking(move |tx| delete(tx, &s1, id)).unwrap());
        let e = store.write_blocking(move |tx| set_enabled(tx, &s2, id, false)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        assert!(all(&store, "a")[0].enabled);
    }

    #[test]
    fn an_edit_changes_what_it_names_and_bad_ones_nothing() {
        let store = store();
        let rule = make(&store, "a", "x", Some("c")).unwrap();
        let change = |e: Edit| {
            let id = rule.id;
            store.write_blocking(move |tx| edit(tx, &Scope::new("a"), id, &e))
        };
        let to = |text: &str| Edit { instruction: Some(text.into()), ..Edit::default() };
        assert_eq!(change(Edit::default()).unwrap(), rule);
        assert_eq!(change(to(" y\n z ")).unwrap().instruction, "y z");
        assert!(
            change(Edit { enabled: Some(false), instruction: Some("  ".into()), ..Edit::default() }).is_err()
        );
        let now = all(&store, "a");
        assert_eq!(
            (&*now[0].instruction, now[0].condition.as_deref(), now[0].enabled),
            ("y z", Some("c"), true)
        );
        let bare = change(Edit { condition: Some(None), enabled: Some(false), ..Edit::default() }).unwrap();
        assert_eq!((bare.condition, bare.enabled), (None, false));
        let id = rule.id;
        assert!(store.write_blocking(move |tx| delete(tx, &Scope::new("a"), id)).unwrap());
        assert!(!store.write_blocking(move |tx| delete(tx, &Scope::new("a"), id)).unwrap());
        assert_eq!(change(to("z")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn bounds_hold_and_say_so() {
        let store = store();
        make(&store, "a", &"ü".repeat(MAX_RULE_CHARS), Some(&"ü".repeat(MAX_RULE_CHARS))).unwrap();
        let long = "x".repeat(MAX_RULE_CHARS + 1);
        for (instruction, condition, says) in [
            (&*long, None, "at most 2000 characters; this one has 2001"),
            (&"y".repeat(1 << 20), None, "at most 2000"),
            ("x", Some(&*long), "condition"),
            (" \n\u{2028}\0", None, "empty"),
            ("x", Some(" "), "empty"),
        ] {
            let e = make(&store, "a", instruction, condition).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Invalid);
            assert!(e.message().contains(says) && e.model_text().contains(says), "{e}");
        }
        for n in 1..MAX_RULES {
            make(&store, "a", &format!("{n}"), None).unwrap();
        }
        assert_eq!(make(&store, "a", "more", None).unwrap_err().kind(), ErrorKind::Exhausted);
        make(&store, "b", "elsewhere there is room", None).unwrap();
        assert_eq!(all(&store, "a").len(), MAX_RULES);
    }

    #[test]
    fn rules_survive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.zo");
        let store = Store::open(&file).unwrap();
        let rule = make(&store, "a", "x", Some("y")).unwrap();
        drop(store);
        assert_eq!(all(&Store::open(&file).unwrap(), "a"), [rule]);
    }

    fn rule(seq: u64, instruction: &str, condition: Option<&str>) -> Rule {
        Rule {
            id: RuleId(seq),
            instruction: instruction.into(),
            condition: condition.map(Into::into),
            enabled: true,
            created: NOW,
            seq,
        }
    }

    #[test]
    fn the_prompt_says_each_rule_once() {
        assert_eq!(render(&[]), None);
        let off = Rule { enabled: false, ..rule(0, "no", None) };
        assert_eq!(render(std::slice::from_ref(&off)), None);
        let rules = [rule(3, "d", None), rule(2, "c", Some("it rains")), rule(1, "b", None), off];
        assert_eq!(render(&rules).unwrap(), format!("{HEADING}\n- b\n- d\n- When it rains: c"));
    }

    proptest! {
        /// Whatever a rule says, it stays in its line, and the text does not depend on the order of reading.
        #[test]
        fn no_rule_can_pass_for_another_section(texts in proptest::collection::vec((any::<String>(), any::<Option<String>>()), 1..6)) {
            let mut rules: Vec<_> = (0..).zip(&texts).map(|(n, (i, c))| rule(n, i, c.as_deref())).collect();
            let text = render(&rules).unwrap();
            let lines: Vec<_> = text.split(|c: char| c != ' ' && (c.is_whitespace() || c.is_control())).collect();
            prop_assert_eq!(lines.len(), 1 + rules.len());
            prop_assert!(lines[1..].iter().all(|l| l.starts_with("- ")));
            rules.reverse();
            prop_assert_eq!(render(&rules).unwrap(), text);
        }

        #[test]
        fn an_id_survives_its_text(n in any::<u64>(), text in ".{0,20}") {
            prop_assert_eq!(RuleId(n).to_string().parse::<RuleId>().unwrap(), RuleId(n));
            let _ = text.parse::<RuleId>();
        }
    }

    async fn tool(skill: &RulesSkill, cx: &Cx, name: &str, args: Value) -> Result<String> {
        Ok(skill.call(cx, &ToolCall::new("c", name, args)).await?.text)
    }

    #[tokio::test]
    async fn the_model_makes_lists_changes_and_deletes() {
        let store = store();
        open(&store).await.unwrap();
        let skill = RulesSkill::new(store.clone());
        let cx = Cx::new("r").with(Scope::new("ada")).with_idempotency_key("run/call-1");
        let args = json!({"instruction": "answer in Latin", "condition": "asked\nfor a motto"});
        let first = tool(&skill, &cx, "create_rule", args.clone()).await.unwrap();
        assert_eq!(
            tool(&skill, &cx, "create_rule", args.clone()).await.unwrap(),
            first,
            "a repeat makes nothing new"
        );
        let rules = all(&store, "ada");
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].condition.as_deref(), Some("asked for a motto"));
        let other = cx.clone().with_idempotency_key("run/call-2");
        tool(&skill, &other, "create_rule", json!({"instruction": "be brief", "condition": ""}))
            .await
            .unwrap();
        let id = rules[0].id.to_string();
        let text = tool(&skill, &cx, "list_rules", json!({})).await.unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(&id) && text.contains("When asked for a motto: answer in Latin"), "{text}");
        let change = json!({"id": id, "condition": "", "enabled": false});
        for _ in 0..2 {
            let text = tool(&skill, &cx, "edit_rule", change.clone()).await.unwrap();
            assert!(text.contains("suspended") && !text.contains("When"), "{text}");
        }
        let stranger = Cx::new("r").with(Scope::new("bob"));
        assert_eq!(tool(&skill, &stranger, "list_rules", json!({})).await.unwrap(), "there are no rules");
        assert!(tool(&skill, &stranger, "edit_rule", change).await.is_err());
        assert_eq!(tool(&skill, &cx, "delete_rule", json!({"id": id})).await.unwrap(), "deleted");
        assert_eq!(
            tool(&skill, &cx, "delete_rule", json!({"id": id})).await.unwrap(),
            "there was no such rule"
        );
        assert_eq!(all(&store, "ada").len(), 1);
        let e = tool(&skill, &cx, "delete_rule", json!({"id": "no id"})).await.unwrap_err();
        assert!(e.model_text().contains("16 hexadecimal"), "{e}");
    }

    #[test]
    fn what_changes_rules_needs_the_permission_to() {
        let skill = RulesSkill::new(store());
        for spec in skill.tools().iter() {
            let (effect, scope) = match spec.name.as_str() {
                "list_rules" => (Effect::Pure, "settings:read"),
                _ => (Effect::Idempotent, "settings:manage"),
            };
            assert_eq!((&spec.effect, &*spec.scopes), (&effect, &[scope.to_owned()][..]), "{}", spec.name);
        }
    }
}
