//! Reading JSON Schemas: what a property wants, and whether a value obeys it.
//!
//! Understands what schema generators for Rust, Python and TypeScript emit (draft 7 and 2020-12): `$ref` into `$defs` or
//! `definitions`, `anyOf` with `null`, `oneOf` of constants, `type` as a list. A constraint that cannot be judged here
//! (`pattern`, `not`, `if`) makes a value unacceptable, so a call never rests on an unchecked promise. Depth is bounded.

use super::extract::date;
use serde_json::Value;

/// Deeper nesting than this is not followed.
pub(super) const DEPTH: usize = 8;

/// What kind of value a schema wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Number,
    Boolean,
    Array,
    Object,
    Text,
    Null,
}

/// Follows `$ref`, drops `null` alternatives and unwraps single `allOf`, so that what is left says what to fill in.
pub(super) fn resolve<'a>(root: &'a Value, mut node: &'a Value) -> &'a Value {
    for _ in 0..DEPTH {
        let next = if let Some(path) = node.get("$ref").and_then(Value::as_str) {
            path.strip_prefix('#').and_then(|p| root.pointer(p))
        } else if let Some([only]) = node.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            Some(only)
        } else {
            // Of several alternatives the first is taken, unless all are constants: those are options.
            ["anyOf", "oneOf"].iter().find_map(|key| {
                let all = node.get(key)?.as_array()?;
                let mut some = all.iter().filter(|s| s.get("type").and_then(Value::as_str) != Some("null"));
                let first = some.next()?;
                let constants = is_options(first) && some.clone().all(is_options) && some.next().is_some();
                (!constants).then_some(first)
            })
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}

fn is_options(node: &Value) -> bool {
    node.get("const").is_some() || node.get("enum").is_some()
}

/// The kind that a resolved schema wants; text when it does not say.
pub(super) fn kind(node: &Value) -> Kind {
    let named = |name: &str| match name {
        "integer" => Some(Kind::Integer),
        "number" => Some(Kind::Number),
        "boolean" => Some(Kind::Boolean),
        "array" => Some(Kind::Array),
        "object" => Some(Kind::Object),
        "string" => Some(Kind::Text),
        "null" => Some(Kind::Null),
        _ => None,
    };
    match node.get("type") {
        Some(Value::String(name)) => named(name).unwrap_or(Kind::Text),
        Some(Value::Array(names)) => {
            let all = || names.iter().filter_map(Value::as_str).filter_map(named);
            all().find(|k| *k != Kind::Null).unwrap_or(Kind::Null)
        }
        _ if node.get("properties").is_some() => Kind::Object,
        _ if node.get("items").is_some() => Kind::Array,
        _ => match options(node).first() {
            Some((Value::Number(n), _)) => {
                if n.is_f64() {
                    Kind::Number
                } else {
                    Kind::Integer
                }
            }
            Some((Value::Bool(_), _)) => Kind::Boolean,
            _ => Kind::Text,
        },
    }
}

/// The values that a resolved schema lists, each with the description that it may carry. At most 256.
pub(super) fn options(node: &Value) -> Vec<(&Value, &str)> {
    let mut out = Vec::new();
    collect(&mut out, node);
    for key in ["oneOf", "anyOf"] {
        for alternative in node.get(key).and_then(Value::as_array).into_iter().flatten() {
            collect(&mut out, alternative);
        }
    }
    out.truncate(256);
    out
}

fn collect<'a>(out: &mut Vec<(&'a Value, &'a str)>, node: &'a Value) {
    let about = node.get("description").and_then(Value::as_str).unwrap_or("");
    if let Some(only) = node.get("const") {
        out.push((only, about));
    }
    if let Some(all) = node.get("enum").and_then(Value::as_array) {
        // A description over several values says nothing about one of them.
        let about = if all.len() == 1 { about } else { "" };
        out.extend(all.iter().take(256).filter(|v| !v.is_null()).map(|v| (v, about)));
    }
}

/// Names in a `required` list.
pub(super) fn is_required(node: &Value, name: &str) -> bool {
    let list = node.get("required").and_then(Value::as_array);
    list.is_some_and(|list| list.iter().any(|n| n.as_str() == Some(name)))
}

/// Does `value` obey `node`?
pub(super) fn accepts(root: &Value, node: &Value, value: &Value) -> bool {
    let mut steps = 20_000;
    check(root, node, value, 0, &mut steps)
}

fn check(root: &Value, node: &Value, value: &Value, depth: usize, steps: &mut u32) -> bool {
    let Some(rest) = steps.checked_sub(1) else { return false };
    *steps = rest;
    if depth > 4 * DEPTH {
        return false;
    }
    let schema = match node {
        Value::Bool(all) => return *all,
        Value::Object(schema) => schema,
        _ => return false,
    };
    schema.iter().all(|(key, rule)| match key.as_str() {
        "$ref" => rule
            .as_str()
            .and_then(|path| path.strip_prefix('#'))
            .and_then(|path| root.pointer(path))
            .is_some_and(|target| check(root, target, value, depth + 1, steps)),
        "type" => match rule {
            Value::Array(any) => any.iter().any(|t| is_type(t, value)),
            one => is_type(one, value),
        },
        "enum" => rule.as_array().is_some_and(|all| all.iter().any(|v| same(v, value))),
        "const" => same(rule, value),
        "anyOf" => list(rule).any(|s| check(root, s, value, depth + 1, steps)),
        "allOf" => list(rule).all(|s| check(root, s, value, depth + 1, steps)),
        "oneOf" => list(rule).filter(|s| check(root, s, value, depth + 1, steps)).count() == 1,
        "minimum" => number(value).is_none_or(|v| rule.as_f64().is_some_and(|r| v >= r)),
        "maximum" => number(value).is_none_or(|v| rule.as_f64().is_some_and(|r| v <= r)),
        "exclusiveMinimum" => number(value).is_none_or(|v| rule.as_f64().is_some_and(|r| v > r)),
        "exclusiveMaximum" => number(value).is_none_or(|v| rule.as_f64().is_some_and(|r| v < r)),
        "multipleOf" => {
            number(value).is_none_or(|v| rule.as_f64().is_some_and(|r| r > 0.0 && (v / r).fract() == 0.0))
        }
        "minLength" => {
            value.as_str().is_none_or(|s| rule.as_u64().is_some_and(|r| s.chars().count() as u64 >= r))
        }
        "maxLength" => {
            value.as_str().is_none_or(|s| rule.as_u64().is_some_and(|r| s.chars().count() as u64 <= r))
        }
        "minItems" => value.as_array().is_none_or(|a| rule.as_u64().is_some_and(|r| a.len() as u64 >= r)),
        "maxItems" => value.as_array().is_none_or(|a| rule.as_u64().is_some_and(|r| a.len() as u64 <= r)),
        "minProperties" => {
            value.as_object().is_none_or(|o| rule.as_u64().is_some_and(|r| o.len() as u64 >= r))
        }
        "maxProperties" => {
            value.as_object().is_none_or(|o| rule.as_u64().is_some_and(|r| o.len() as u64 <= r))
        }
        "uniqueItems" => value.as_array().is_none_or(|a| {
            rule.as_bool() != Some(true)
                || a.iter().enumerate().all(|(i, v)| !a.iter().take(i).any(|w| same(v, w)))
        }),
        "items" => value.as_array().is_none_or(|a| {
            let from = schema.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
            a.iter().skip(from).all(|v| check(root, rule, v, depth + 1, steps))
        }),
        "prefixItems" => value
            .as_array()
            .is_none_or(|a| a.iter().zip(list(rule)).all(|(v, s)| check(root, s, v, depth + 1, steps))),
        "required" => value
            .as_object()
            .is_none_or(|o| list(rule).all(|name| name.as_str().is_some_and(|name| o.contains_key(name)))),
        "properties" => value.as_object().is_none_or(|o| {
            o.iter().all(|(name, v)| rule.get(name).is_none_or(|s| check(root, s, v, depth + 1, steps)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|o| {
            let known = schema.get("properties");
            o.iter()
                .filter(|(name, _)| known.is_none_or(|k| k.get(name).is_none()))
                .all(|(_, v)| check(root, rule, v, depth + 1, steps))
        }),
        "format" => value.as_str().is_none_or(|s| rule.as_str().is_some_and(|f| fits_format(f, s))),
        "pattern" => !value.is_string(),
        "patternProperties"
        | "propertyNames"
        | "dependentRequired"
        | "dependentSchemas"
        | "dependencies"
        | "unevaluatedProperties" => !value.is_object(),
        "contains" | "unevaluatedItems" | "additionalItems" => !value.is_array(),
        "not" | "if" => false,
        _ => true,
    })
}

fn list(rule: &Value) -> impl Iterator<Item = &Value> {
    rule.as_array().into_iter().flatten()
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(x), Some(y)) if x == y)
}

/// The formats that this provider fills in are checked; others are annotations, as the specification has it.
fn fits_format(format: &str, s: &str) -> bool {
    match format {
        "date" => date::is_iso_date(s),
        "date-time" => date::is_iso_date_time(s),
        "time" | "partial-time" => date::is_iso_time(s),
        "email" | "idn-email" => s.split_once('@').is_some_and(|(a, b)| {
            !a.is_empty() && b.len() > 2 && !b.contains('@') && !s.contains(char::is_whitespace)
        }),
        "uri" | "iri" | "url" => s.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
                && !rest.is_empty()
                && !s.contains(char::is_whitespace)
        }),
        "uuid" => {
            s.len() == 36
                && s.bytes().enumerate().all(|(i, b)| match i {
                    8 | 13 | 18 | 23 => b == b'-',
                    _ => b.is_ascii_hexdigit(),
                })
        }
        "ipv4" => s.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => s.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => true,
    }
}
