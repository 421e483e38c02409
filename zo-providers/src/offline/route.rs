//! Which tool a message asks for: words in common, weighted by how telling they are.
//!
//! A word counts by where the tool has it (name, trigger, description, parameter) and by how few of the offered tools
//! have it. Work is bounded: at most [`MAX_TOOLS`] tools and [`MAX_WORDS`] schema words are looked at.

use super::{
    lexicon::synonyms,
    schema,
    words::{self, Stem, Text, cut, is_generic},
};
use serde_json::Value;
use std::ops::Range;
use zo_traits::ToolSpec;

/// More tools than this are not looked at.
const MAX_TOOLS: usize = 2_048;
/// More words of schemas than this are not looked at.
const MAX_WORDS: usize = 40_000;
/// More different words of a message than this are not looked at.
const MAX_TERMS: usize = 96;

/// The telling words of a message.
#[derive(Debug)]
pub(super) struct Query {
    /// Weight of each term.
    weights: Vec<f32>,
    /// How early each term stands, as a factor for comparing tools: what is asked for comes first.
    places: Vec<f32>,
    /// Stems to look for, sorted: stem, its term, and how well it stands for it.
    index: Vec<(Stem, u16, f32)>,
    /// All stems in order, stop words too, for trigger phrases.
    sequence: Vec<Stem>,
}

/// How well a tool fits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fit {
    /// Position of the tool in the request.
    pub(super) tool: usize,
    /// For comparing tools of one request.
    pub(super) score: f32,
    /// How much of the tool's name the message holds, 0 to 1.
    pub(super) name: f32,
    /// How much of the tool's description the message holds, 0 to 1.
    pub(super) about: f32,
    /// How much of the message the tool's words hold, 0 to 1.
    pub(super) covered: f32,
    /// Telling words in common.
    pub(super) common: f32,
    /// A trigger phrase of the tool stands in the message.
    pub(super) triggered: bool,
}

impl Query {
    /// The telling words of tokens `range`.
    pub(super) fn new(text: &Text<'_>, range: Range<usize>) -> Self {
        let mut terms: Vec<Stem> = Vec::new();
        let mut weights = Vec::new();
        let mut sequence = Vec::new();
        for i in range {
            let Some(token) = text.tokens.get(i) else { break };
            if token.mark.is_some() {
                continue;
            }
            words::each_word(text.word(i), |word| {
                let stem = words::stem(word);
                sequence.push(stem);
                if words::is_stop(stem) || terms.len() >= MAX_TERMS || terms.contains(&stem) {
                    return;
                }
                terms.push(stem);
                let number = word.bytes().all(|b| b.is_ascii_digit());
                weights.push(if number {
                    0.1
                } else if is_generic(stem) {
                    0.35
                } else {
                    1.0
                });
            });
        }
        let mut index: Vec<(Stem, u16, f32)> = Vec::new();
        for (term, stem) in (0u16..).zip(&terms) {
            index.push((*stem, term, 1.0));
            index.extend(synonyms(*stem).iter().filter(|s| !terms.contains(s)).map(|s| (*s, term, 0.55)));
        }
        let many = count(terms.len().max(8));
        let places = (0..terms.len()).map(|i| 1.15 - 0.4 * count(i) / many).collect();
        index.sort_by(|a, b| a.0.cmp(&b.0).then(b.2.total_cmp(&a.2)));
        index.dedup_by_key(|e| e.0);
        Self { weights, places, index, sequence }
    }

    fn find(&self, stem: Stem) -> Option<(usize, f32)> {
        let at = self.index.binary_search_by(|e| e.0.cmp(&stem)).ok()?;
        self.index.get(at).map(|(_, term, factor)| (usize::from(*term), *factor))
    }

    /// How much of `text` is in the message: telling words that are, and all telling words.
    pub(super) fn overlap(&self, text: &str) -> (f32, f32) {
        let (mut hit, mut all) = (0.0, 0.0);
        words::each_word(text, |word| {
            let stem = words::stem(word);
            if !words::is_stop(stem) {
                let weight = if is_generic(stem) { 0.3 } else { 1.0 };
                all += weight;
                hit += self.find(stem).map_or(0.0, |(_, f)| f * weight);
            }
        });
        (hit, all)
    }

    /// Does a line or clause `Triggers: a, b` of `text` name a phrase of the message?
    pub(super) fn has_trigger(&self, text: &str) -> bool {
        text.split("Triggers:")
            .skip(1)
            .any(|t| t.lines().next().unwrap_or("").split(',').any(|p| self.has_phrase(p)))
    }

    fn has_phrase(&self, phrase: &str) -> bool {
        let mut stems = Vec::new();
        words::each_word(cut(phrase, 200), |w| stems.push(words::stem(w)));
        !stems.is_empty() && self.sequence.windows(stems.len()).any(|w| w == stems)
    }
}

/// One tool against a query: the best weight that each term reached in it.
struct Match<'q> {
    query: &'q Query,
    best: Vec<f32>,
    words: usize,
}

impl Match<'_> {
    /// Looks through `text`; returns how much of it the message holds.
    fn field(&mut self, text: &str, weight: f32) -> f32 {
        let (mut hit, mut all) = (0.0f32, 0.0f32);
        words::each_word(text, |word| {
            self.words += 1;
            let stem = words::stem(word);
            let found = self.query.find(stem);
            if found.is_none() && words::is_stop(stem) {
                return;
            }
            let worth = if is_generic(stem) { 0.3 } else { 1.0 };
            all += worth;
            if let Some((term, factor)) = found {
                hit += worth * factor;
                if let Some(best) = self.best.get_mut(term) {
                    *best = best.max(weight * factor);
                }
            }
        });
        if all > 0.0 { hit / all } else { 0.0 }
    }
}

/// All tools, best first.
pub(super) fn rank(query: &Query, tools: &[&ToolSpec]) -> Vec<Fit> {
    let mut fits = Vec::new();
    let mut bests: Vec<Vec<f32>> = Vec::new();
    let mut budget = MAX_WORDS;
    for (tool, spec) in tools.iter().take(MAX_TOOLS).enumerate() {
        let mut m = Match { query, best: vec![0.0; query.weights.len()], words: 0 };
        let name = m.field(cut(&spec.name, 128), 3.0);
        let mut fit = Fit { tool, name, ..Fit::default() };
        if budget > 0 {
            let text = cut(&spec.description, 2_000);
            let mut lead = 0.0;
            for (n, line) in text.lines().enumerate() {
                if let Some(phrases) = line.trim_start().strip_prefix("Triggers:") {
                    fit.triggered |= phrases.split(',').any(|p| query.has_phrase(p));
                    m.field(phrases, 2.5);
                } else {
                    let held = m.field(line, 1.7);
                    if n == 0 {
                        lead = held;
                    }
                }
            }
            fit.about = lead;
            parameters(&mut m, &spec.input, schema::resolve(&spec.input, &spec.input), 0);
        }
        budget = budget.saturating_sub(m.words);
        fits.push(fit);
        bests.push(m.best);
    }
    let n = count(bests.len());
    let idf: Vec<f32> = (0..query.weights.len())
        .map(|t| {
            let df = count(bests.iter().filter(|b| b.get(t).is_some_and(|v| *v > 0.0)).count());
            ((n + 1.0) / (df + 0.5)).ln() + 0.25
        })
        .collect();
    let total: f32 = query.weights.iter().sum();
    for (fit, best) in fits.iter_mut().zip(&bests) {
        let mut covered = 0.0;
        for (((best, weight), idf), place) in best.iter().zip(&query.weights).zip(&idf).zip(&query.places) {
            // Verbs such as *find* tell little about whether a tool fits, but much about which of several does.
            let telling = if *weight > 0.3 { weight.max(0.6) } else { *weight };
            fit.score += best * telling * idf * place;
            covered += weight * best.min(1.0);
            if *weight >= 1.0 && *best >= 0.9 {
                fit.common += 1.0;
            }
        }
        fit.covered = if total > 0.0 { covered / total } else { 0.0 };
        fit.score += 3.0 * fit.name + 2.0 * fit.about + if fit.triggered { 12.0 } else { 0.0 };
    }
    fits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.tool.cmp(&b.tool)));
    fits
}

fn count(n: usize) -> f32 {
    f32::from(u16::try_from(n).unwrap_or(u16::MAX))
}

fn parameters(m: &mut Match<'_>, root: &Value, node: &Value, depth: usize) {
    let Some(properties) = node.get("properties").and_then(Value::as_object) else { return };
    for (name, whole) in properties.iter().take(40) {
        m.field(cut(name, 64), 1.3);
        let leaf = schema::resolve(root, whole);
        let about = whole.get("description").or_else(|| leaf.get("description")).and_then(Value::as_str);
        m.field(cut(about.unwrap_or(""), 300), 0.6);
        for (option, about) in schema::options(leaf).into_iter().take(40) {
            m.field(cut(option.as_str().unwrap_or(""), 48), 1.2);
            m.field(cut(about, 200), 0.8);
        }
        if depth < 3 {
            parameters(m, root, leaf, depth + 1);
            if let Some(items) = leaf.get("items") {
                parameters(m, root, schema::resolve(root, items), depth + 1);
            }
        }
    }
}
