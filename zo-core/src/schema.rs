//! Checks tool arguments against their JSON Schema before a skill sees them.
//!
//! Source: JSON Schema 2020-12, Core and Validation. Covered are all assertion and applicator keywords that tool schemas
//! use; `format` is an annotation, as the specification has it by default; `$ref` may point into the same schema
//! (`#`, `#/...`); `unevaluated*`, `$dynamicRef` and remote references are not followed, and a schema that uses a
//! reference that cannot be resolved refuses every value with a message that says so. Schemas come from plugins and
//! servers, so they are hostile: depth, steps and the number of reported errors are bounded.

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use std::{collections::HashMap, fmt::Write as _};

/// Deepest nesting that is followed, of schema and value together.
const MAX_DEPTH: u32 = 64;
/// Most keyword evaluations for one value.
const MAX_STEPS: u32 = 200_000;
/// Largest compiled pattern, in bytes. Matching takes time proportional to it and to the text.
const MAX_PATTERN: usize = 16 << 10;
/// Most errors that are told; the first few are what a model can act on.
const MAX_ERRORS: usize = 8;
/// Most characters of one error: a schema may list options without end.
const MAX_ERROR: usize = 1_000;

/// Checks `value` against `schema`.
///
/// # Errors
/// One line per violation, each with the JSON Pointer (RFC 6901) of the place: what a model needs to correct itself.
pub fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    let mut v = Validator {
        root: schema,
        errors: Vec::new(),
        steps: 0,
        quiet: 0,
        unjudged: None,
        patterns: HashMap::new(),
    };
    let mut path = String::new();
    let fits = v.check(schema, value, &mut path, 0);
    if let Some(why) = v.unjudged {
        // Whatever came out: a `not` around the place that was not looked at would have turned it round.
        return Err(why);
    }
    if fits { Ok(()) } else { Err(v.errors.join("\n")) }
}

struct Validator<'a> {
    root: &'a Value,
    errors: Vec<String>,
    steps: u32,
    /// Above zero inside `anyOf`, `not` and the like, where a failing branch is not an error by itself.
    quiet: u32,
    /// Why the outcome means nothing: a limit was reached, or the schema itself is broken.
    unjudged: Option<String>,
    /// Compiled patterns; `None` for one in a dialect that cannot be read here or that is too large.
    patterns: HashMap<&'a str, Option<Regex>>,
}

impl<'a> Validator<'a> {
    fn fail(&mut self, path: &str, message: impl FnOnce() -> String) -> bool {
        if self.quiet == 0 && self.errors.len() < MAX_ERRORS {
            let at = if path.is_empty() { "arguments" } else { path };
            let mut line = format!("{at}: {}", message());
            if let Some((cut, _)) = line.char_indices().nth(MAX_ERROR) {
                line.truncate(cut);
                line.push_str("...");
            }
            self.errors.push(line);
        }
        false
    }

    /// Pays for work; `false` when there is nothing left to pay with.
    fn charge(&mut self, steps: usize) -> bool {
        self.steps = self.steps.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX));
        self.steps <= MAX_STEPS || self.give_up()
    }

    fn give_up(&mut self) -> bool {
        self.broken("", "the schema or the value is nested too deep or too large to check")
    }

    /// Nothing can be said about any value. The first reason is told.
    fn broken(&mut self, path: &str, why: &str) -> bool {
        let at = if path.is_empty() { "arguments" } else { path };
        self.unjudged.get_or_insert_with(|| format!("{at}: {why}"));
        false
    }

    /// Does `text` match `pattern`? `None` when the pattern cannot be read here: it then binds the skill, not the caller.
    fn matches(&mut self, pattern: &'a str, text: &str) -> Option<bool> {
        if !self.charge(1 + text.len() / 8) {
            return Some(false);
        }
        let compiled = self.patterns.entry(pattern).or_insert_with(|| {
            RegexBuilder::new(pattern).size_limit(MAX_PATTERN).nest_limit(32).build().ok()
        });
        compiled.as_ref().map(|re| re.is_match(text))
    }

    /// Does `value` obey `schema`? Goes on after the first violation, so that all of them can be told at once.
    fn check(&mut self, schema: &'a Value, value: &Value, path: &mut String, depth: u32) -> bool {
        if depth > MAX_DEPTH || !self.charge(1) {
            return self.give_up();
        }
        let schema = match schema {
            Value::Bool(true) => return true,
            Value::Bool(false) => return self.fail(path, || "no value is allowed here".into()),
            Value::Object(s) => s,
            _ => return self.broken(path, "the tool's schema is not a JSON Schema"),
        };
        let mut ok = true;
        if let Some(Value::String(reference)) = schema.get("$ref") {
            ok &= match self.resolve(reference) {
                Some(target) => self.check(target, value, path, depth + 1),
                None => {
                    let shown: String = reference.chars().take(80).collect();
                    self.broken(path, &format!("the tool's schema has a reference to nowhere: {shown}"))
                }
            };
        }
        ok &= self.check_type(schema, value, path);
        ok &= self.check_choice(schema, value, path);
        match value {
            Value::Number(n) => ok &= self.check_number(schema, n, path),
            Value::String(s) => ok &= self.check_string(schema, s, path),
            Value::Array(items) => ok &= self.check_array(schema, items, path, depth),
            Value::Object(object) => ok &= self.check_object(schema, value, object, path, depth),
            Value::Null | Value::Bool(_) => {}
        }
        ok & self.check_logic(schema, value, path, depth)
    }

    fn check_type(&mut self, schema: &Map<String, Value>, value: &Value, path: &str) -> bool {
        let fits = |name: &str| match (name, value) {
            ("null", Value::Null)
            | ("boolean", Value::Bool(_))
            | ("string", Value::String(_))
            | ("array", Value::Array(_))
            | ("object", Value::Object(_))
            | ("number", Value::Number(_)) => true,
            // 2020-12: a number with a zero fraction is an integer.
            ("integer", Value::Number(n)) => {
                n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|f| f.fract() == 0.0)
            }
            _ => false,
        };
        let names: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        if names.iter().any(|n| fits(n)) {
            return true;
        }
        self.fail(path, || format!("expected {}, got {}", names.join(" or "), describe(value)))
    }

    fn check_choice(&mut self, schema: &Map<String, Value>, value: &Value, path: &str) -> bool {
        let mut ok = true;
        if let Some(Value::Array(options)) = schema.get("enum")
            && self.charge(options.len())
            && !options.iter().any(|o| equal(o, value))
        {
            let shown: Vec<String> = options.iter().take(20).map(Value::to_string).collect();
            ok = self.fail(path, || format!("must be one of {}, got {}", shown.join(", "), describe(value)));
        }
        if let Some(only) = schema.get("const")
            && !equal(only, value)
        {
            ok = self.fail(path, || format!("must be {only}, got {}", describe(value)));
        }
        ok
    }

    fn check_number(&mut self, schema: &Map<String, Value>, n: &serde_json::Number, path: &str) -> bool {
        let Some(x) = n.as_f64() else { return true };
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let mut ok = true;
        for (key, holds) in [
            ("minimum", bound("minimum").is_none_or(|b| x >= b)),
            ("maximum", bound("maximum").is_none_or(|b| x <= b)),
            ("exclusiveMinimum", bound("exclusiveMinimum").is_none_or(|b| x > b)),
            ("exclusiveMaximum", bound("exclusiveMaximum").is_none_or(|b| x < b)),
        ] {
            if !holds {
                ok = self
                    .fail(path, || format!("{n} breaks {key} {}", schema.get(key).unwrap_or(&Value::Null)));
            }
        }
        if let Some(step) = bound("multipleOf").filter(|s| *s > 0.0) {
            let quotient = x / step;
            if (quotient - quotient.round()).abs() > 1e-9 * quotient.abs().max(1.0) {
                ok = self.fail(path, || format!("{n} is not a multiple of {step}"));
            }
        }
        ok
    }

    fn check_string(&mut self, schema: &'a Map<String, Value>, s: &str, path: &str) -> bool {
        let mut ok = true;
        if let Some(least) = size(schema, "minLength")
            && s.chars().take(least).count() < least
        {
            ok = self.fail(path, || format!("shorter than {least} characters"));
        }
        if let Some(most) = size(schema, "maxLength")
            && s.chars().nth(most).is_some()
        {
            ok = self.fail(path, || format!("longer than {most} characters"));
        }
        if let Some(Value::String(pattern)) = schema.get("pattern")
            && self.matches(pattern, s) == Some(false)
        {
            ok = self.fail(path, || format!("does not match the pattern {pattern}"));
        }
        ok
    }

    fn check_array(
        &mut self,
        schema: &'a Map<String, Value>,
        items: &[Value],
        path: &mut String,
        depth: u32,
    ) -> bool {
        let mut ok = true;
        if size(schema, "minItems").is_some_and(|least| items.len() < least) {
            ok = self.fail(path, || format!("has {} items, fewer than allowed", items.len()));
        }
        if size(schema, "maxItems").is_some_and(|most| items.len() > most) {
            ok = self.fail(path, || format!("has {} items, more than allowed", items.len()));
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
            let mut seen = std::collections::HashSet::new();
            if !items.iter().all(|i| seen.insert(canonical(i))) {
                ok = self.fail(path, || "has the same item twice".into());
            }
        }
        // Before 2020-12 an array under `items` meant what `prefixItems` means now.
        let (list, rest) = match (schema.get("prefixItems"), schema.get("items")) {
            (None, Some(Value::Array(list))) => (Some(list), schema.get("additionalItems")),
            (list, rest) => (list.and_then(Value::as_array), rest),
        };
        let prefix = list.map_or(&[][..], Vec::as_slice);
        for (i, item) in items.iter().enumerate() {
            if let Some(sub) = prefix.get(i).or(rest) {
                ok &= self.inside(path, &i.to_string(), |v, path| v.check(sub, item, path, depth + 1));
            }
        }
        if let Some(sub) = schema.get("contains") {
            self.quiet += 1;
            let hits = items.iter().filter(|i| self.check(sub, i, path, depth + 1)).count();
            self.quiet -= 1;
            let least = size(schema, "minContains").unwrap_or(1);
            let most = size(schema, "maxContains").unwrap_or(usize::MAX);
            if hits < least || hits > most {
                ok = self.fail(path, || format!("has {hits} items of the required kind"));
            }
        }
        ok
    }

    fn check_object(
        &mut self,
        schema: &'a Map<String, Value>,
        value: &Value,
        object: &Map<String, Value>,
        path: &mut String,
        depth: u32,
    ) -> bool {
        let mut ok = true;
        for name in
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !object.contains_key(name) {
                ok = self.fail(path, || format!("`{name}` is required"));
            }
        }
        if size(schema, "minProperties").is_some_and(|least| object.len() < least) {
            ok = self.fail(path, || "has too few properties".into());
        }
        if size(schema, "maxProperties").is_some_and(|most| object.len() > most) {
            ok = self.fail(path, || "has too many properties".into());
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        for (name, item) in object {
            let mut known = false;
            if let Some(sub) = properties.and_then(|p| p.get(name)) {
                known = true;
                ok &= self.inside(path, name, |v, path| v.check(sub, item, path, depth + 1));
            }
            for (pattern, sub) in patterns.into_iter().flatten() {
                if self.matches(pattern, name) == Some(true) {
                    known = true;
                    ok &= self.inside(path, name, |v, path| v.check(sub, item, path, depth + 1));
                }
            }
            match schema.get("additionalProperties") {
                Some(Value::Bool(false)) if !known => {
                    let all: Vec<&str> =
                        properties.into_iter().flatten().map(|(k, _)| k.as_str()).take(20).collect();
                    ok = self.fail(path, || {
                        format!("`{name}` is not a known property (known: {})", all.join(", "))
                    });
                }
                Some(sub) if !known => {
                    ok &= self.inside(path, name, |v, path| v.check(sub, item, path, depth + 1));
                }
                _ => {}
            }
            if let Some(sub) = schema.get("propertyNames") {
                ok &= self.check(sub, &Value::String(name.clone()), path, depth + 1);
            }
        }
        for (name, needs) in schema.get("dependentRequired").and_then(Value::as_object).into_iter().flatten()
        {
            for need in needs.as_array().into_iter().flatten().filter_map(Value::as_str) {
                if object.contains_key(name) && !object.contains_key(need) {
                    ok = self.fail(path, || format!("`{need}` is required beside `{name}`"));
                }
            }
        }
        for (name, sub) in schema.get("dependentSchemas").and_then(Value::as_object).into_iter().flatten() {
            if object.contains_key(name) {
                ok &= self.check(sub, value, path, depth + 1);
            }
        }
        ok
    }

    fn check_logic(
        &mut self,
        schema: &'a Map<String, Value>,
        value: &Value,
        path: &mut String,
        depth: u32,
    ) -> bool {
        let branches = |key: &str| schema.get(key).and_then(Value::as_array).map(Vec::as_slice);
        let mut ok = true;
        for sub in branches("allOf").into_iter().flatten() {
            ok &= self.check(sub, value, path, depth + 1);
        }
        if let Some(subs) = branches("anyOf")
            && !subs.iter().any(|s| self.quietly(s, value, path, depth))
        {
            ok = self.fail(path, || format!("{} fits none of the allowed forms", describe(value)));
        }
        if let Some(subs) = branches("oneOf") {
            let hits = subs.iter().filter(|s| self.quietly(s, value, path, depth)).count();
            if hits != 1 {
                ok = self
                    .fail(path, || format!("{} fits {hits} of the allowed forms, not one", describe(value)));
            }
        }
        if let Some(sub) = schema.get("not")
            && self.quietly(sub, value, path, depth)
        {
            ok = self.fail(path, || format!("{} is of a form that is not allowed", describe(value)));
        }
        if let Some(condition) = schema.get("if") {
            let branch = if self.quietly(condition, value, path, depth) { "then" } else { "else" };
            if let Some(sub) = schema.get(branch) {
                ok &= self.check(sub, value, path, depth + 1);
            }
        }
        ok
    }

    fn quietly(&mut self, schema: &'a Value, value: &Value, path: &mut String, depth: u32) -> bool {
        self.quiet += 1;
        let ok = self.check(schema, value, path, depth + 1);
        self.quiet -= 1;
        ok
    }

    fn inside(
        &mut self,
        path: &mut String,
        step: &str,
        f: impl FnOnce(&mut Self, &mut String) -> bool,
    ) -> bool {
        let len = path.len();
        let _ = write!(path, "/{}", step.replace('~', "~0").replace('/', "~1"));
        let ok = f(self, path);
        path.truncate(len);
        ok
    }

    fn resolve(&self, reference: &str) -> Option<&'a Value> {
        let pointer = reference.strip_prefix('#')?;
        if pointer.is_empty() { Some(self.root) } else { self.root.pointer(pointer) }
    }
}

fn size(schema: &Map<String, Value>, key: &str) -> Option<usize> {
    schema.get(key).and_then(Value::as_f64).filter(|n| *n >= 0.0).map(|n| n as usize)
}

/// 2020-12: numbers are equal when their mathematical values are.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| equal(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, a)| y.get(k).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// Text that is the same for equal values.
fn canonical(v: &Value) -> String {
    match v {
        Value::Number(n) => n.as_f64().map_or_else(|| n.to_string(), |f| f.to_string()),
        other => other.to_string(),
    }
}

fn describe(value: &Value) -> String {
    let text = match value {
        Value::Null => "null".into(),
        Value::Object(_) => "an object".into(),
        Value::Array(a) => format!("an array of {}", a.len()),
        other => other.to_string(),
    };
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ok(schema: &Value, value: Value) -> bool {
        validate(schema, &value).is_ok()
    }

    #[test]
    fn tells_every_mistake_with_its_place() {
        let schema = json!({"type": "object", "required": ["city"], "additionalProperties": false,
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}});
        let e = validate(&schema, &json!({"days": 0, "unit": "C"})).unwrap_err();
        assert!(e.contains("`city` is required"), "{e}");
        assert!(e.contains("/days: 0 breaks minimum 1"), "{e}");
        assert!(e.contains("`unit` is not a known property (known: city, days)"), "{e}");
        assert!(ok(&schema, json!({"city": "Rome", "days": 2.0})));
    }

    #[test]
    fn text_instead_of_an_object_is_refused() {
        let schema = json!({"type": "object", "properties": {}});
        assert!(!ok(&schema, json!("{\"a\": 1")));
    }

    #[test]
    fn follows_references_and_stops_at_cycles() {
        let list = json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object",
            "properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["v"]}}});
        assert!(ok(&list, json!({"v": 1, "next": {"v": 2}})));
        assert!(!ok(&list, json!({"v": 1, "next": {}})));
        assert!(!ok(&json!({"$ref": "#"}), json!(1)), "a schema that is only itself ends");
        assert!(!ok(&json!({"$ref": "#/$defs/none"}), json!(1)));
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!({"v": 1, "next": deep});
        }
        assert!(!ok(&list, deep));
    }

    #[test]
    fn exploding_schemas_end() {
        // Each level doubles the work: 2^60 branches if nobody counted.
        let mut schema = json!({"type": "string"});
        for _ in 0..60 {
            schema = json!({"anyOf": [schema.clone(), schema]});
            if schema.to_string().len() > 100_000 {
                break;
            }
        }
        assert!(!ok(&schema, json!(1)));
    }

    #[test]
    fn a_check_that_gives_up_never_lets_a_value_pass() {
        let schema = json!({"not": {"contains": {"const": "rm"}}});
        let mut items = vec![json!("x"); 200_001];
        items.push(json!("rm"));
        assert!(!ok(&schema, json!(items)));
        assert!(ok(&schema, json!(["x"])) && !ok(&schema, json!(["x", "rm"])));
    }

    #[test]
    fn a_broken_schema_refuses_even_when_turned_round() {
        for broken in [json!({"$ref": "#/nowhere"}), json!({"$ref": "other.json"}), json!(7), json!("object")]
        {
            for schema in [json!({"not": broken}), json!({"not": {"not": broken}}), json!({"if": broken})] {
                let e = validate(&schema, &json!(1)).unwrap_err();
                assert!(e.contains("reference to nowhere") || e.contains("not a JSON Schema"), "{e}");
            }
        }
    }

    #[test]
    fn what_is_told_is_short() {
        let long = "x".repeat(100_000);
        let schema = json!({"enum": [long, long], "const": long, "properties": {long.as_str(): false}});
        for value in [json!(1), json!({long.as_str(): 1})] {
            let e = validate(&schema, &value).unwrap_err();
            assert!(e.lines().all(|l| l.len() <= 1_003) && e.lines().count() > 1, "{} bytes", e.len());
        }
    }

    #[test]
    fn patterns_cost_what_they_cost_and_no_more() {
        let bomb = json!({"type": "array", "items": {"pattern": "(((a{0,50}){0,50}){0,20})$"}});
        assert!(ok(&bomb, json!(vec!["b"; 20])), "a pattern that is too large is not checked");
        let long = json!({"pattern": "^[a-z]+$"});
        assert!(!ok(&long, json!("a".repeat(10_000_000))), "more text than can be paid for is refused");
        assert!(ok(&long, json!("a".repeat(10_000))));
    }

    #[test]
    fn draft_7_tuples() {
        let schema = json!({"items": [{"type": "string"}], "additionalItems": {"type": "integer"}});
        assert!(ok(&schema, json!(["a", 1])) && !ok(&schema, json!(["a", "b"])) && !ok(&schema, json!([1])));
    }

    #[test]
    fn logic_keywords() {
        let nullable = json!({"anyOf": [{"type": "string"}, {"type": "null"}]});
        assert!(ok(&nullable, json!(null)) && ok(&nullable, json!("x")) && !ok(&nullable, json!(1)));
        let one = json!({"oneOf": [{"multipleOf": 3}, {"multipleOf": 5}]});
        assert!(ok(&one, json!(9)) && !ok(&one, json!(15)) && !ok(&one, json!(1)));
        let cond = json!({"if": {"properties": {"k": {"const": "a"}}}, "then": {"required": ["x"]}, "else": {"required": ["y"]}});
        assert!(ok(&cond, json!({"k": "a", "x": 1})) && !ok(&cond, json!({"k": "b", "x": 1})));
        assert!(ok(&json!({"not": {"type": "string"}}), json!(1)));
        assert!(ok(&json!(true), json!(1)) && !ok(&json!(false), json!(1)));
    }

    #[test]
    fn strings_numbers_arrays() {
        assert!(!ok(&json!({"pattern": "^a+$"}), json!("ab")));
        assert!(ok(&json!({"minLength": 2, "maxLength": 2}), json!("é日")));
        assert!(ok(&json!({"multipleOf": 0.01}), json!(19.99)));
        assert!(!ok(&json!({"exclusiveMaximum": 3}), json!(3)));
        assert!(!ok(&json!({"uniqueItems": true}), json!([1, 1.0])));
        assert!(!ok(&json!({"prefixItems": [{"type": "string"}], "items": false}), json!(["a", 1])));
        assert!(!ok(&json!({"contains": {"type": "null"}}), json!([1])));
        assert!(ok(&json!({"enum": [1, "a", null]}), json!(1.0)));
        assert!(!ok(&json!({"dependentRequired": {"a": ["b"]}}), json!({"a": 1})));
        assert!(!ok(&json!({"propertyNames": {"maxLength": 1}}), json!({"ab": 1})));
        assert!(!ok(&json!({"patternProperties": {"^n": {"type": "number"}}}), json!({"n": "x"})));
    }
}
