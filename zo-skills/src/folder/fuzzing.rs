//! The parsers of a `SKILL.md`, opened for the fuzz targets alone.

use super::{Rule, card, repair, source, yaml};
use serde_json::{Map, Value};
use zo_traits::SkillManifest;

/// A `SKILL.md` that loads.
#[derive(Debug, PartialEq)]
pub struct Skill {
    /// Its card.
    pub manifest: SkillManifest,
    /// Its instructions.
    pub body: String,
    /// Lines of the file, from 1, that a warning names.
    pub lines: Vec<usize>,
}

/// Reads the text of a `SKILL.md` in a folder called `dir`; else the broken rule and its line, from 1.
///
/// # Errors
/// The rule that keeps it from loading.
pub fn skill_md(text: &str, dir: &str) -> Result<Skill, (Rule, Option<usize>)> {
    let source = source::cut(text.to_owned()).map_err(|(line, rule, _)| (rule, line))?;
    let first = source.first_line;
    let card = card::read(source.front(), dir).map_err(|(rule, line, _)| (rule, line.map(|l| l + first)))?;
    let lines = card.warnings.iter().filter_map(|w| Some(w.1? + first)).collect();
    Ok(Skill { manifest: card.manifest, body: source.body().to_owned(), lines })
}

/// Reads frontmatter as YAML; else the line, from 0, that is wrong.
///
/// # Errors
/// The line.
pub fn parse(text: &str) -> Result<Value, usize> {
    yaml::parse(text).map(|y| y.value).map_err(|e| e.0)
}

/// Repairs frontmatter: its fields, and the lines, from 0, that were repaired or dropped.
pub fn repair(text: &str) -> (Map<String, Value>, Vec<usize>) {
    let fixed = repair::repair(text);
    (fixed.fields, [fixed.repaired, fixed.dropped].concat())
}

/// Deepest nesting of one piece of YAML.
pub const MAX_DEPTH: usize = yaml::MAX_DEPTH;
