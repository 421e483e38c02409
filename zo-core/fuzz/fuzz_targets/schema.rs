//! Any schema and any value: the check ends, tells little, and `not`, `allOf`, `anyOf` and `$ref` mean what they say.
//!
//! Input: two JSON texts one after the other, or else bytes from which both are built.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use zo_core::schema::validate;

/// Longer than any check may take, on a slow and busy machine.
const MOST_TIME: Duration = Duration::from_secs(5);

const NAMES: [&str; 8] = ["a", "b", "c", "ab", "", "a/b", "~", "é"];
const TYPES: [&str; 8] = ["null", "boolean", "string", "array", "object", "number", "integer", "other"];
const PATTERNS: [&str; 8] = ["^a", "b$", "[", "(a|b)*c", "a{2,3}", ".", "\\d+", "((a*)*)*"];
const REFERENCES: [&str; 6] = ["#", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/nowhere", "other.json"];
/// Keywords with one schema, a list of them, a map of them, and a number.
const ONE: [&str; 8] =
    ["not", "items", "contains", "additionalProperties", "propertyNames", "if", "then", "else"];
const MANY: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const NAMED: [&str; 4] = ["properties", "patternProperties", "dependentSchemas", "$defs"];
const NUMBER: [&str; 15] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minContains",
    "maxContains",
    "uniqueItems",
    "maxItems",
];

/// Makes values out of bytes; at their end everything is small.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[usize::from(self.byte()) % from.len()]
    }

    fn number(&mut self) -> Value {
        match self.byte() % 8 {
            0 => json!(-1),
            1 => json!(f64::from(self.byte()) / 4.0),
            2 => json!(u64::MAX),
            3 => json!(1e300),
            4 => json!(i64::MIN),
            5 => json!(1e-300),
            _ => json!(self.byte() % 8),
        }
    }

    fn value(&mut self, depth: u8) -> Value {
        match self.byte() % if depth == 0 { 5 } else { 8 } {
            0 => Value::Null,
            1 => json!(self.byte() % 2 == 0),
            2 => self.number(),
            3 | 4 => json!(self.pick(&NAMES)),
            5 => (0..self.byte() % 5).map(|_| self.value(depth - 1)).collect(),
            _ => Value::Object(
                (0..self.byte() % 5).map(|_| (self.pick(&NAMES).to_owned(), self.value(depth - 1))).collect(),
            ),
        }
    }

    fn schema(&mut self, depth: u8) -> Value {
        if depth == 0 || self.byte() % 8 == 0 {
            return json!(self.byte() % 2 == 0);
        }
        let mut out = Map::new();
        for _ in 0..=self.byte() % 4 {
            let (key, rule) = match self.byte() % 12 {
                0 => ("type", json!(self.pick(&TYPES))),
                1 => ("type", json!([self.pick(&TYPES), self.pick(&TYPES)])),
                2 => ("enum", (0..self.byte() % 4).map(|_| self.value(2)).collect()),
                3 => ("const", self.value(2)),
                4 => ("pattern", json!(self.pick(&PATTERNS))),
                5 => ("$ref", json!(self.pick(&REFERENCES))),
                6 => ("required", json!([self.pick(&NAMES), self.pick(&NAMES)])),
                7 => (self.pick(&NUMBER), self.number()),
                8 => (self.pick(&ONE), self.schema(depth - 1)),
                9 => (self.pick(&MANY), (0..self.byte() % 4).map(|_| self.schema(depth - 1)).collect()),
                10 => {
                    let named =
                        (0..self.byte() % 4).map(|_| (self.pick(&NAMES).to_owned(), self.schema(depth - 1)));
                    let named = Value::Object(named.collect());
                    (self.pick(&NAMED), named)
                }
                // What stands where something else should.
                _ => (self.pick(&MANY), self.value(2)),
            };
            out.insert(key.to_owned(), rule);
        }
        Value::Object(out)
    }
}

/// A check that gave up, or could not be made at all, says nothing of its opposite.
fn gave_up(outcome: &Result<(), String>) -> bool {
    outcome.as_ref().is_err_and(|e| {
        ["too deep or too large", "reference to nowhere", "not a JSON Schema"]
            .iter()
            .any(|why| e.contains(why))
    })
}

fuzz_target!(|data: &[u8]| {
    let mut texts = serde_json::Deserializer::from_slice(data).into_iter::<Value>();
    let (schema, value) = match (texts.next(), texts.next()) {
        (Some(Ok(schema)), Some(Ok(value))) => (schema, value),
        _ => {
            let mut source = Source(data);
            (source.schema(6), source.value(5))
        }
    };
    let begun = Instant::now();
    let outcome = validate(&schema, &value);
    assert!(begun.elapsed() < MOST_TIME, "took {:?}", begun.elapsed());
    assert_eq!(validate(&schema, &value), outcome, "the same question has one answer");
    if let Err(e) = &outcome {
        assert!(!e.is_empty(), "a refusal without a reason");
        assert!(e.len() <= 8 * 4_100, "{} bytes are more than a model should read", e.len());
    }
    let accepts = |schema: Value| validate(&schema, &value);
    if gave_up(&outcome) && schema.get("$defs").is_none() && schema.pointer("/properties/a").is_none() {
        // What could not be judged is not accepted by being turned round.
        assert!(
            accepts(json!({"not": schema})).is_err(),
            "the opposite of what cannot be judged was accepted"
        );
    }
    // Below `not`, `$ref` and the like a reference into the root would point elsewhere.
    let references = schema.to_string().contains("\"$ref\"");
    if gave_up(&outcome) || references {
        return;
    }
    let opposite = accepts(json!({"not": schema}));
    assert!(
        gave_up(&opposite) || opposite.is_ok() != outcome.is_ok(),
        "neither it nor its opposite: {opposite:?}"
    );
    let at_two = json!({"$ref": "#/$defs/it", "$defs": {"it": schema}});
    for same in [
        json!({"allOf": [schema, true]}),
        json!({"anyOf": [false, schema]}),
        json!({"oneOf": [schema]}),
        at_two,
    ] {
        let again = validate(&same, &value);
        assert!(
            gave_up(&again) || again.is_ok() == outcome.is_ok(),
            "{same} says {again:?}, not {outcome:?}"
        );
    }
    // In a place of its own.
    let inside = validate(&json!({"properties": {"p": schema}}), &json!({"p": value}));
    assert!(gave_up(&inside) || inside.is_ok() == outcome.is_ok(), "as a property: {inside:?}");
});
