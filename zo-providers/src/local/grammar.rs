//! What a model may write next, so that what it writes obeys a JSON Schema.

use super::{gguf::unsupported, words::Words};
use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};
use toktrie::{ApproximateTokEnv, TokEnv};
use zo_traits::Result;

/// Most grammars that are kept, so that an agent's tools are not made into grammars again for every turn.
const KEPT: usize = 256;

/// Makes grammars for one vocabulary.
pub(super) struct Grammars {
    factory: ParserFactory,
    kept: HashMap<String, Matcher>,
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl Grammars {
    pub(super) fn new(words: &Words) -> Result<Self> {
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(words.trie()));
        let mut factory = ParserFactory::new_simple(&env)
            .map_err(|e| unsupported(format_args!("no grammar can be made for this vocabulary: {e}")))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory, kept: HashMap::new() })
    }

    /// JSON that obeys `schema`, in one line.
    ///
    /// # Errors
    /// The schema uses what the grammar engine does not know, or nothing obeys it.
    pub(super) fn json(&mut self, schema: &Value) -> Result<Matcher> {
        self.compile(schema, false)
    }

    /// The arguments of a tool: an object. What the grammar engine does not know of the schema is left to the check before
    /// the tool runs.
    pub(super) fn arguments(&mut self, schema: &Value) -> Result<Matcher> {
        let schema = narrowed(schema);
        self.compile(&schema, false).or_else(|_| self.compile(&schema, true))
    }

    fn compile(&mut self, schema: &Value, lenient: bool) -> Result<Matcher> {
        let mut schema = match schema {
            Value::Bool(true) => json!({}),
            other => other.clone(),
        };
        if let Some(fields) = schema.as_object_mut() {
            let how = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ", "lenient": lenient});
            fields.insert("x-guidance".into(), how);
        }
        let key = schema.to_string();
        if let Some(known) = self.kept.get(&key) {
            return Ok(known.deep_clone());
        }
        let matcher = Matcher::new(self.factory.create_parser(TopLevelGrammar::from_json_schema(schema)));
        match matcher.get_error() {
            None => {
                if self.kept.len() >= KEPT {
                    self.kept.clear();
                }
                self.kept.insert(key, matcher.deep_clone());
                Ok(matcher)
            }
            Some(e) => Err(unsupported(format_args!("the JSON schema cannot be enforced: {e}"))),
        }
    }
}

/// `schema`, for objects only, and without fields that it does not name: a small model would fill them with anything.
fn narrowed(schema: &Value) -> Value {
    const COMBINES: [&str; 10] = [
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "patternProperties",
        "additionalProperties",
        "unevaluatedProperties",
        "dependentSchemas",
    ];
    let mut schema = schema.clone();
    match schema.as_object_mut() {
        Some(fields) if !COMBINES.iter().any(|k| fields.contains_key(*k)) => {
            fields.insert("type".into(), "object".into());
            if fields.get("properties").is_some_and(Value::is_object) {
                fields.insert("additionalProperties".into(), false.into());
            }
            schema
        }
        Some(_) => schema,
        None => json!({"type": "object"}),
    }
}
