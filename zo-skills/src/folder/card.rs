//! Frontmatter as a skill's identity card: lenient about what it reads, and telling what it did not like.
//!
//! The fields are those of the [Agent Skills specification](https://agentskills.io/specification): `name`, `description`,
//! `license`, `compatibility`, `metadata`, `allowed-tools`; beside them `triggers` and `version` are understood, at the top
//! or within `metadata`.

use super::{Rule, repair, yaml};
use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization;
use zo_traits::SkillManifest;

const MAX_NAME: usize = 64;
const MAX_DESCRIPTION: usize = 1024;
/// Most triggers kept, and most characters of one: more is a try at being chosen for everything.
const MAX_TRIGGERS: usize = 64;
const MAX_TRIGGER: usize = 100;

/// A rule, a line from 0 within the frontmatter, and what to say.
pub(crate) type Finding = (Rule, Option<usize>, String);

/// What a frontmatter says.
pub(crate) struct Card {
    pub(crate) manifest: SkillManifest,
    pub(crate) license: Option<String>,
    pub(crate) compatibility: Option<String>,
    pub(crate) allowed_tools: Vec<String>,
    pub(crate) warnings: Vec<Finding>,
}

/// Reads the frontmatter `front` of a skill in a folder called `dir`.
pub(crate) fn read(front: &str, dir: &str) -> Result<Card, Finding> {
    let mut warnings = Vec::new();
    let mut fields = fields(front, &mut warnings)?;
    let mut warn = |rule, key: &str, say: String| warnings.push((rule, line_of(front, key), say));

    let name = match fields.remove("name").as_ref().and_then(scalar) {
        Some(name) => name.nfkc().collect::<String>(),
        None => {
            let say = format!("has no name; the folder's stands in: write `name: {dir}`");
            warn(Rule::NameFromDir, "name", say);
            dir.nfkc().collect()
        }
    };
    check_name(&name, dir, &mut warn);

    let description = match fields.remove("description") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => one_line(&text),
        Some(other) => {
            warn(Rule::DescNotString, "description", "is not text: write it as one sentence".into());
            one_line(&flatten(&other))
        }
    };
    if description.is_empty() {
        let say = "has no description, by which a model could choose it: write `description: what it does and when \
                   to use it`";
        return Err((Rule::DescMissing, line_of(front, "description"), say.into()));
    }
    let length = description.chars().count();
    if length > MAX_DESCRIPTION {
        let say = format!("the description has {length} characters: keep it within {MAX_DESCRIPTION}");
        warn(Rule::DescTooLong, "description", say);
    }
    for (key, text) in [("name", &name), ("description", &description)] {
        if let Some(c) = text.chars().find(|c| is_hidden(*c)) {
            let say = format!("`{key}` holds the invisible character U+{:04X}: remove it", u32::from(c));
            warn(Rule::HiddenUnicode, key, say);
        }
    }

    let license = fields.remove("license").as_ref().and_then(scalar);
    let compatibility = fields.remove("compatibility").as_ref().and_then(scalar);
    let allowed_tools = fields.remove("allowed-tools").map(|v| tool_list(&v)).unwrap_or_default();
    let mut metadata = match fields.remove("metadata") {
        Some(Value::Object(map)) => map,
        Some(Value::Null) | None => Map::new(),
        // Some write JSON into a string.
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Object(map)) => map,
            _ => Map::from_iter([("metadata".to_owned(), Value::String(text))]),
        },
        Some(other) => Map::from_iter([("metadata".to_owned(), other)]),
    };
    for key in fields.keys() {
        // `triggers` and `version` are understood here, but another client may refuse the file.
        warn(
            Rule::UnknownField,
            key,
            format!("`{key}` is no field of the specification: move it under `metadata:`"),
        );
    }

    let mut manifest = SkillManifest::new(name, description);
    let version = fields.remove("version").or_else(|| metadata.get("version").cloned());
    manifest.version = version.as_ref().and_then(scalar).unwrap_or_default();
    if let Some(triggers) = fields.remove("triggers").or_else(|| metadata.get("triggers").cloned()) {
        let all = trigger_list(&triggers);
        let cut = all.len() > MAX_TRIGGERS || all.iter().any(|t| t.chars().count() > MAX_TRIGGER);
        if cut {
            let say = format!("only {MAX_TRIGGERS} triggers of at most {MAX_TRIGGER} characters are kept");
            warn(Rule::TriggersCut, "triggers", say);
        }
        let short = |t: &String| t.chars().count() <= MAX_TRIGGER;
        manifest.triggers = all.into_iter().filter(short).take(MAX_TRIGGERS).collect();
    }
    for (key, value) in fields {
        metadata.entry(key).or_insert(value);
    }
    manifest.metadata = metadata;
    Ok(Card { manifest, license, compatibility, allowed_tools, warnings })
}

/// The top-level fields, repaired if need be.
fn fields(front: &str, warnings: &mut Vec<Finding>) -> Result<Map<String, Value>, Finding> {
    let not_mapping = || {
        let say = "is no list of `key: value` lines: write `name: ...` and `description: ...` between the `---` lines";
        (Rule::NotMapping, Some(0), say.to_owned())
    };
    let (line, wrong) = match yaml::parse(front) {
        Ok(yaml::Yaml { value: Value::Object(map), aliases }) => {
            for line in aliases {
                let say = "an alias (`*name`) is ignored: repeat the value".into();
                warnings.push((Rule::YamlAlias, Some(line), say));
            }
            return Ok(map);
        }
        Ok(_) => return Err(not_mapping()),
        Err(e) => e,
    };
    let fixed = repair::repair(front);
    if fixed.fields.is_empty() {
        let say = format!(
            "is not YAML ({wrong}): write `key: value` lines, with quotes around values that hold `: `"
        );
        return Err((Rule::InvalidYaml, Some(line), say));
    }
    for line in fixed.repaired {
        let say = format!("is not YAML ({wrong}) and was repaired: put quotes around the value");
        warnings.push((Rule::YamlRepaired, Some(line), say));
    }
    for line in fixed.dropped {
        warnings.push((Rule::YamlSalvaged, Some(line), "is not YAML and was left out: remove it".into()));
    }
    Ok(fixed.fields)
}

fn check_name(name: &str, dir: &str, warn: &mut impl FnMut(Rule, &str, String)) {
    let length = name.chars().count();
    if length > MAX_NAME {
        warn(
            Rule::NameTooLong,
            "name",
            format!("the name has {length} characters: keep it within {MAX_NAME}"),
        );
    }
    if name.to_lowercase() != name {
        let say = format!("the name has upper case: write `name: {}`", name.to_lowercase());
        warn(Rule::NameUppercase, "name", say);
    }
    let edge = name.starts_with('-') || name.ends_with('-') || name.contains("--");
    if edge || !name.chars().all(|c| c.is_alphanumeric() || c == '-') {
        let say = "the name may hold letters, digits and single hyphens between them";
        warn(Rule::NameBadChars, "name", say.into());
    }
    if name != dir.nfkc().collect::<String>() {
        let say = format!("the name is not the folder's: rename one of `{name}` and `{dir}`");
        warn(Rule::NameDirMismatch, "name", say);
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(one_line(text)).filter(|t| !t.is_empty()),
        _ => None,
    }
}

/// Runs of white space as one blank.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn flatten(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(flatten).collect::<Vec<_>>().join(" "),
        Value::Object(map) => {
            map.iter().map(|(k, v)| format!("{k}: {}", flatten(v))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

fn trigger_list(value: &Value) -> Vec<String> {
    let texts: Vec<String> = match value {
        Value::String(text) => text.split([',', '\n']).map(one_line).collect(),
        Value::Array(items) => items.iter().map(|v| one_line(&flatten(v))).collect(),
        _ => Vec::new(),
    };
    let mut out: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for text in texts {
        if !text.is_empty() && seen.insert(text.to_lowercase()) {
            out.push(text);
        }
    }
    out
}

/// A list, or names divided by blanks or commas that stand outside parentheses: `Bash(git add:*) Read`.
fn tool_list(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(scalar).collect(),
        Value::String(text) => {
            let mut depth = 0usize;
            text.split(|c: char| {
                match c {
                    '(' => depth += 1,
                    ')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                depth == 0 && (c == ',' || c.is_whitespace())
            })
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
            .collect()
        }
        _ => Vec::new(),
    }
}

/// Text that a model reads and a person does not see: direction controls, tags, zero-width characters. The joiners that
/// scripts and emoji need are not among them.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}'
        | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{00ad}')
}

/// Line, from 0, on which the field `key` begins.
fn line_of(front: &str, key: &str) -> Option<usize> {
    front.lines().position(|l| l.strip_prefix(key).is_some_and(|r| r.trim_start().starts_with(':')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn card(front: &str) -> Card {
        read(front, "pdf").unwrap_or_else(|e| panic!("{e:?}"))
    }

    #[test]
    fn every_field() {
        let c = card(
            "name: pdf\ndescription: >\n  Reads\n  PDF files.\nlicense: MIT\ncompatibility: needs git\n\
             metadata:\n  author: me\n  version: 1.10\nallowed-tools: Bash(git add:*), Read Write\n\
             triggers: pdf, fill form,, PDF\nemoji: x\n",
        );
        assert_eq!((c.manifest.name.as_str(), c.manifest.description.as_str()), ("pdf", "Reads PDF files."));
        assert_eq!(c.manifest.version, "1.10");
        assert_eq!(c.manifest.triggers, ["pdf", "fill form"]);
        assert_eq!(c.allowed_tools, ["Bash(git add:*)", "Read", "Write"]);
        assert_eq!((c.license.as_deref(), c.compatibility.as_deref()), (Some("MIT"), Some("needs git")));
        assert_eq!(
            Value::Object(c.manifest.metadata),
            json!({"author": "me", "version": "1.10", "emoji": "x"})
        );
        let rules: Vec<_> = c.warnings.iter().map(|w| (w.0, w.1)).collect();
        assert_eq!(rules, [(Rule::UnknownField, Some(11)), (Rule::UnknownField, Some(10))]);
    }

    #[test]
    fn triggers_and_version_elsewhere() {
        let c = card("description: d\nname: pdf\nversion: 2\nmetadata: {triggers: [a b, c]}");
        assert_eq!(
            (c.manifest.version.as_str(), c.manifest.triggers),
            ("2", vec!["a b".to_owned(), "c".into()])
        );
        let many: String = (0..100).map(|n| format!("t{n},")).collect();
        let c = card(&format!("name: pdf\ndescription: d\ntriggers: {many}"));
        assert_eq!(c.manifest.triggers.len(), MAX_TRIGGERS);
        assert!(c.warnings.iter().any(|w| w.0 == Rule::TriggersCut));
    }

    #[test]
    fn hopeless_ones_say_so() {
        let rule = |front: &str| read(front, "x").err().map(|e| e.0);
        assert_eq!(rule(""), Some(Rule::NotMapping));
        assert_eq!(rule("- a\n- b"), Some(Rule::NotMapping));
        assert_eq!(rule("name: x"), Some(Rule::DescMissing));
        assert_eq!(rule("name: x\ndescription: '  '"), Some(Rule::DescMissing));
        assert_eq!(rule("{{{ : ]"), Some(Rule::InvalidYaml));
    }
}
