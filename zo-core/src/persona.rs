//! Personas: who a sub-agent is, as data.
//!
//! A persona says what the agent is told, which model it speaks through, what it may touch and how much it may use. Each
//! field that is left out is inherited; a persona can narrow what its parent has and never widen it. Since a persona is
//! offered to a model as a tool, its name obeys the rule for names of tools.

use crate::{normal, permission};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zo_traits::{Error, ErrorKind, Limits, Result};

const OP: &str = "persona.check";

/// Longest description, in characters: it is part of every request that offers the persona.
const MAX_DESCRIPTION: usize = 2_000;
/// Longest prompt, in characters.
const MAX_PROMPT: usize = 100_000;
/// Most scopes and most patterns of tools.
const MAX_LIST: usize = 256;

/// Who a sub-agent is.
///
/// ```
/// use zo_core::{Limits, Persona};
/// let reader = Persona::new("reader", "You read what you are pointed to and answer in one paragraph.")
///     .description("Reads long documents. Delegate to it when only the gist is needed.")
///     .preset("read only")
///     .tools(["read_*", "search"])
///     .max_steps(8)
///     .limits(Limits::none().tokens(20_000));
/// assert!(reader.check().is_ok() && reader.offers("read_file") && !reader.offers("write_file"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Persona {
    /// Its name, `[a-zA-Z0-9_-]{1,64}`: also that of the tool that delegates to it.
    pub name: String,
    /// When to delegate to it: what another model chooses by.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it is told, in place of the agent's own prompt. Empty: the agent's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// Which model; none for that of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Name of a permission preset; none for what the parent may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Permission scopes, beside those of the preset. Empty, without a preset: what the parent may do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Names of the tools that it is offered, `*` standing for any characters and `?` for one; none for all that its
    /// permissions allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// Most model calls of one run; none for the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u32>,
    /// What one run of it may use up of its parent's allowance.
    #[serde(default, skip_serializing_if = "is_none")]
    pub limits: Limits,
}

fn is_none(limits: &Limits) -> bool {
    *limits == Limits::none()
}

impl Persona {
    /// A persona of this name that is told `prompt` and inherits everything else.
    pub fn new(name: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self { name: name.into(), prompt: prompt.into(), ..Self::default() }
    }

    /// States when to delegate to it.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// States the model.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// States the permission preset.
    #[must_use]
    pub fn preset(mut self, name: impl Into<String>) -> Self {
        self.preset = Some(name.into());
        self
    }

    /// States one more permission scope.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scopes.push(scope.into());
        self
    }

    /// States the tools that it is offered, by name or pattern. An empty list offers none.
    #[must_use]
    pub fn tools(mut self, tools: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tools = Some(tools.into_iter().map(Into::into).collect());
        self
    }

    /// States how many model calls one run may make.
    #[must_use]
    pub fn max_steps(mut self, n: u32) -> Self {
        self.max_steps = Some(n);
        self
    }

    /// States what one run may use up.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Is the tool of this name offered to it, as far as the persona decides?
    pub fn offers(&self, tool: &str) -> bool {
        self.tools.as_ref().is_none_or(|patterns| patterns.iter().any(|p| permission::glob(p, tool)))
    }

    /// Is it one that can be used?
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] that names the persona, the field and what is wrong with it.
    pub fn check(&self) -> Result<()> {
        if !normal::good_name(&self.name) {
            return Err(
                self.wrong("name", "must be of [a-zA-Z0-9_-], 1 to 64 characters, as it names a tool")
            );
        }
        let long = |text: &str, max| text.chars().nth(max).is_some();
        if long(&self.description, MAX_DESCRIPTION) {
            return Err(
                self.wrong("description", format_args!("is longer than {MAX_DESCRIPTION} characters"))
            );
        }
        if long(&self.prompt, MAX_PROMPT) {
            return Err(self.wrong("prompt", format_args!("is longer than {MAX_PROMPT} characters")));
        }
        if self.model.as_ref().is_some_and(|m| m.trim().is_empty()) {
            return Err(self.wrong("model", "is empty; leave it out to use the agent's own"));
        }
        if self.preset.as_ref().is_some_and(|p| p.trim().is_empty()) {
            return Err(self.wrong("preset", "is empty; leave it out to inherit permissions"));
        }
        let words = |what, list: &[String]| {
            let bad = |word: &&String| {
                word.is_empty()
                    || word.len() > 128
                    || word.chars().any(|c| c.is_whitespace() || c.is_control())
            };
            if list.len() > MAX_LIST {
                return Err(self.wrong(what, format_args!("has more than {MAX_LIST} entries")));
            }
            match list.iter().find(bad) {
                Some(word) => Err(self.wrong(
                    what,
                    format_args!("has the entry {word:.40?}: one word of 1 to 128 bytes was expected"),
                )),
                None => Ok(()),
            }
        };
        words("scopes", &self.scopes)?;
        words("tools", self.tools.as_deref().unwrap_or_default())?;
        if self.max_steps == Some(0) {
            return Err(self.wrong("max_steps", "is 0: it could never answer"));
        }
        Ok(())
    }

    fn wrong(&self, field: &str, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Invalid, OP, format_args!("{field} of persona {:.80?} {what}", self.name))
    }
}

/// The personas of an agent, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Personas(BTreeMap<String, Persona>);

impl Personas {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    ///
    /// # Errors
    /// As [`Persona::check`]; [`ErrorKind::Conflict`] when there is one of this name.
    pub fn add(&mut self, persona: Persona) -> Result<()> {
        persona.check()?;
        if self.0.contains_key(&persona.name) {
            return Err(Error::new(
                ErrorKind::Conflict,
                OP,
                format_args!("there are two personas named {:?}", persona.name),
            ));
        }
        self.0.insert(persona.name.clone(), persona);
        Ok(())
    }

    /// Reads a JSON array of personas.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what is no such array, with the line and the column; as [`add`](Personas::add).
    pub fn from_json(text: &str) -> Result<Self> {
        let list: Vec<Persona> = serde_json::from_str(text).map_err(|e| {
            Error::new(ErrorKind::Invalid, "persona.load", format_args!("not a list of personas: {e}"))
        })?;
        list.into_iter().try_fold(Self::new(), |mut all, persona| all.add(persona).map(|()| all))
    }

    /// The persona of exactly this name.
    pub fn get(&self, name: &str) -> Option<&Persona> {
        self.0.get(name)
    }

    /// [`get`](Personas::get), or an error that a model can learn from.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with the names that there are.
    pub fn require(&self, name: &str) -> Result<&Persona> {
        self.get(name).ok_or_else(|| {
            let names = self.0.keys().take(50).map(String::as_str).collect::<Vec<_>>().join(", ");
            let text = if names.is_empty() {
                format!("there is no persona {name:.80?}, nor any other")
            } else {
                format!("there is no persona {name:.80?}; there are: {names}")
            };
            Error::new(ErrorKind::NotFound, "persona.find", &text).with_model_text(text)
        })
    }

    /// All of them, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Persona> {
        self.0.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> Persona {
        Persona::new("code-reviewer_2", "You review.")
            .description("Reviews a change.")
            .model("anthropic:x")
            .preset("read only")
            .scope("web:search")
            .tools(["read_*", "diff"])
            .max_steps(7)
            .limits(Limits::none().tokens(10).microusd(5))
    }

    #[test]
    fn a_persona_survives_json_and_the_least_one_is_a_name() {
        let text = serde_json::to_string(&[full()]).unwrap();
        assert_eq!(Personas::from_json(&text).unwrap().get("code-reviewer_2"), Some(&full()));
        let least = Personas::from_json(r#"[{"name": "a"}]"#).unwrap();
        assert_eq!(least.get("a"), Some(&Persona::new("a", "")));
        assert_eq!(serde_json::to_string(&Persona::new("a", "")).unwrap(), r#"{"name":"a"}"#);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let s = |n: usize| "x".repeat(n);
        for (persona, says) in [
            (Persona::new("", "p"), "name"),
            (Persona::new("two words", "p"), "name"),
            (Persona::new("näme", "p"), "name"),
            (Persona::new(s(65), "p"), "name"),
            (full().description(s(2_001)), "description"),
            (Persona::new("a", s(100_001)), "prompt"),
            (full().model(" "), "model"),
            (full().preset(""), "preset"),
            (full().scope("files read"), "scopes"),
            (full().scope(""), "scopes"),
            (full().tools(["a\nb"]), "tools"),
            (full().tools(vec!["a"; 257]), "tools"),
            (full().max_steps(0), "max_steps"),
        ] {
            let e = persona.check().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Invalid);
            assert!(e.message().starts_with(says) && e.message().len() < 300, "{e}");
        }
        full().description("ü".repeat(2_000)).check().unwrap();
        full().tools(Vec::<String>::new()).check().unwrap();
    }

    #[test]
    fn a_list_is_checked_whole() {
        let kind = |text: &str| Personas::from_json(text).unwrap_err().kind();
        assert_eq!(kind(r#"[{"name": "a"}, {"name": "a"}]"#), ErrorKind::Conflict);
        assert_eq!(kind(r#"[{"name": "a b"}]"#), ErrorKind::Invalid);
        assert_eq!(kind(r#"{"name": "a"}"#), ErrorKind::Invalid);
        let e = Personas::from_json("[{\"name\": \"a\",\n \"scope\": \"files:read\"}]").unwrap_err();
        assert!(e.message().contains("`scope`") && e.message().contains("line 2"), "a misspelt field: {e}");
    }

    #[test]
    fn a_lookup_is_exact_and_a_miss_names_what_there_is() {
        let all = Personas::from_json(r#"[{"name": "b"}, {"name": "a"}]"#).unwrap();
        assert_eq!(all.iter().map(|p| &*p.name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(all.require("a").unwrap().name, "a");
        let e = all.require("A").unwrap_err();
        assert_eq!((e.kind(), e.model_text().contains("a, b")), (ErrorKind::NotFound, true), "{e}");
        assert!(Personas::new().require("a").is_err() && Personas::new().is_empty() && all.len() == 2);
    }

    #[test]
    fn tools_are_offered_by_name_and_pattern() {
        assert!(Persona::new("a", "").offers("anything"));
        assert!(!Persona::new("a", "").tools(Vec::<String>::new()).offers("anything"));
        for (pattern, yes, no) in [
            ("read_*", vec!["read_", "read_file"], vec!["read", "xread_file"]),
            ("*_file", vec!["read_file", "_file", "a_file_file"], vec!["file", "read_files"]),
            ("a?c", vec!["abc"], vec!["ac", "abbc"]),
            ("*", vec!["", "x"], vec![]),
            ("exact", vec!["exact"], vec!["Exact", "exact1", ""]),
            ("a*b*c", vec!["abc", "aXbYc", "abbcc"], vec!["acb", "abcd"]),
        ] {
            let p = Persona::new("a", "").tools([pattern]);
            assert!(yes.iter().all(|t| p.offers(t)), "{pattern} {yes:?}");
            assert!(!no.iter().any(|t| p.offers(t)), "{pattern} {no:?}");
        }
        let slow = Persona::new("a", "").tools(["*a".repeat(60) + "b"]);
        assert!(!slow.offers(&"a".repeat(64)), "in no time");
    }

    fn naive(p: &[u8], t: &[u8]) -> bool {
        match p.split_first() {
            None => t.is_empty(),
            Some((b'*', rest)) => (0..=t.len()).any(|n| naive(rest, &t[n..])),
            Some((c, rest)) => t.split_first().is_some_and(|(d, t)| (c == d || *c == b'?') && naive(rest, t)),
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_their_definition(p in "[ab*?]{0,7}", t in "[ab]{0,8}") {
            prop_assert_eq!(permission::glob(&p, &t), naive(p.as_bytes(), t.as_bytes()));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = Personas::from_json(&text);
            let _ = Persona::new(&*text, &*text).tools([&*text]).scope(&*text).check();
        }
    }
}
