//! Argument types as tool schemas that every provider takes.
//!
//! A provider wants one plain object at the top: `type: object` with `properties`, no `oneOf` beside them, no reference
//! in its place. An argument type that is not such an object (a string, a list, an enum) is therefore offered under the
//! one property [`WRAPPED`], and unwrapped again before the call.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Name of the property that carries an argument which is not an object by itself.
const WRAPPED: &str = "value";

/// How the object that a model sends becomes the argument type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// It is the argument.
    Object,
    /// It holds the argument under [`WRAPPED`].
    Wrapped,
    /// There is nothing to say: the argument is `()`.
    Unit,
}

/// The JSON Schema (2020-12) of a type, with everything that it refers to written out where it is used.
pub fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.meta_schema = None;
        s.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    drop_number_formats(&mut schema);
    schema
}

/// The schema of `A` and how to read it back.
pub(crate) fn of<A: JsonSchema>() -> (Value, Shape) {
    let schema = schema_of::<A>();
    let Value::Object(mut root) = schema else {
        // `true`: anything goes, which as arguments means any object.
        return (json!({"type": "object", "properties": {}}), Shape::Object);
    };
    root.remove("$schema");
    root.remove("title");
    match root.get("type").and_then(Value::as_str) {
        Some("null") => (json!({"type": "object", "properties": {}}), Shape::Unit),
        Some("object") if !has_any(&root, &["oneOf", "anyOf", "allOf", "not", "enum", "$ref"]) => {
            root.entry("properties").or_insert_with(|| json!({}));
            (Value::Object(root), Shape::Object)
        }
        None if root.keys().all(|k| k == "description") => {
            root.insert("type".into(), "object".into());
            root.insert("properties".into(), json!({}));
            (Value::Object(root), Shape::Object)
        }
        _ => (wrap(root), Shape::Wrapped),
    }
}

/// Reads what a model sent as an `A`.
pub(crate) fn read<A: DeserializeOwned>(args: &Value, shape: Shape) -> Result<A, serde_json::Error> {
    let empty = Value::Object(Map::new());
    // Some models say nothing where an empty object is meant.
    let args = if args.is_null() { &empty } else { args };
    match shape {
        Shape::Object => A::deserialize(args),
        Shape::Unit => A::deserialize(&Value::Null),
        Shape::Wrapped => match args {
            Value::Object(map) => match map.get(WRAPPED) {
                Some(value) => A::deserialize(value),
                None => A::deserialize(&Value::Null)
                    .map_err(|_| serde::de::Error::custom(format_args!("missing field `{WRAPPED}`"))),
            },
            _ => Err(serde::de::Error::custom(format_args!("expected an object with the field `{WRAPPED}`"))),
        },
    }
}

fn has_any(root: &Map<String, Value>, keys: &[&str]) -> bool {
    keys.iter().any(|k| root.contains_key(*k))
}

fn wrap(mut inner: Map<String, Value>) -> Value {
    let defs = inner.remove("$defs");
    let mut inner = Value::Object(inner);
    let mut root = json!({"type": "object", "required": [WRAPPED]});
    let mut defs = defs.unwrap_or(Value::Null);
    for part in [&mut inner, &mut defs] {
        each_object(part, &mut |o| {
            // A type that contains itself points at the root, which has moved.
            if o.get("$ref").is_some_and(|r| r == "#") {
                o.insert("$ref".into(), format!("#/properties/{WRAPPED}").into());
            }
        });
    }
    if let Value::Object(root) = &mut root {
        root.insert("properties".into(), json!({WRAPPED: inner}));
        if !defs.is_null() {
            root.insert("$defs".into(), defs);
        }
    }
    root
}

/// `format: uint64` and its kin are not JSON Schema, and some providers refuse formats that they do not know.
fn drop_number_formats(schema: &mut Value) {
    const RUST_ONLY: [&str; 14] = [
        "int8", "int16", "int32", "int64", "int128", "int", "uint8", "uint16", "uint32", "uint64", "uint128",
        "uint", "float", "double",
    ];
    each_object(schema, &mut |o| {
        if o.get("format").and_then(Value::as_str).is_some_and(|f| RUST_ONLY.contains(&f)) {
            o.remove("format");
        }
    });
}

fn each_object(value: &mut Value, f: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(o) => {
            f(o);
            o.values_mut().for_each(|v| each_object(v, f));
        }
        Value::Array(a) => a.iter_mut().for_each(|v| each_object(v, f)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Inner {
        n: u32,
    }

    /// Told to nobody.
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Args {
        /// How many.
        count: u64,
        inner: Inner,
        note: Option<String>,
    }

    #[test]
    fn a_struct_is_a_plain_inlined_object() {
        let (schema, shape) = of::<Args>();
        assert_eq!(shape, Shape::Object);
        assert_eq!(
            schema,
            json!({
                "type": "object",
                "description": "Told to nobody.",
                "properties": {
                    "count": {"type": "integer", "minimum": 0, "description": "How many."},
                    "inner": {
                        "type": "object",
                        "properties": {"n": {"type": "integer", "minimum": 0}},
                        "required": ["n"],
                    },
                    "note": {"type": ["string", "null"]},
                },
                "required": ["count", "inner"],
            })
        );
    }

    #[test]
    fn other_types_are_wrapped_and_unwrapped() {
        let (schema, shape) = of::<Vec<i32>>();
        assert_eq!(
            schema,
            json!({
                "type": "object",
                "properties": {"value": {"type": "array", "items": {"type": "integer"}}},
                "required": ["value"],
            })
        );
        assert_eq!(read::<Vec<i32>>(&json!({"value": [1, 2]}), shape).unwrap(), [1, 2]);
        let e = read::<Vec<i32>>(&json!({}), shape).unwrap_err();
        assert!(e.to_string().contains("missing field `value`"), "{e}");
        assert!(read::<Vec<i32>>(&json!([1]), shape).is_err());
    }

    #[derive(Deserialize, JsonSchema, Debug, PartialEq)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Choice {
        Left { by: u8 },
        Right,
    }

    #[test]
    fn no_choice_at_the_top() {
        let (schema, shape) = of::<Choice>();
        assert!(schema.get("oneOf").is_none(), "{schema}");
        let args = json!({"value": {"kind": "left", "by": 2}});
        assert_eq!(read::<Choice>(&args, shape).unwrap(), Choice::Left { by: 2 });
    }

    #[derive(Deserialize, JsonSchema, Debug)]
    #[allow(dead_code)]
    struct Tree {
        name: String,
        children: Vec<Tree>,
    }

    #[derive(Deserialize, JsonSchema, Debug)]
    #[allow(dead_code)]
    enum List {
        Nil,
        Cons(Box<List>),
    }

    fn refs(v: &Value, out: &mut Vec<String>) {
        match v {
            Value::Object(o) => {
                if let Some(Value::String(r)) = o.get("$ref") {
                    out.push(r.clone());
                }
                o.values().for_each(|v| refs(v, out));
            }
            Value::Array(a) => a.iter().for_each(|v| refs(v, out)),
            _ => {}
        }
    }

    #[test]
    fn types_that_contain_themselves_keep_references_that_resolve() {
        for (schema, shape) in [of::<Tree>(), of::<List>(), of::<Vec<Tree>>()] {
            assert_eq!(schema["type"], "object", "{schema}");
            assert!(schema["properties"].is_object(), "{schema}");
            let mut found = Vec::new();
            refs(&schema, &mut found);
            assert!(!found.is_empty(), "{schema}");
            for r in found {
                let at = r.strip_prefix('#').expect("inward");
                assert!(schema.pointer(at).is_some(), "{r} in {schema} ({shape:?})");
                // Once wrapped, the root is no longer the type that refers to itself.
                assert!(shape == Shape::Object || !at.is_empty(), "{r} in {schema}");
            }
        }
    }

    #[test]
    fn nothing_and_anything() {
        assert_eq!(of::<()>(), (json!({"type": "object", "properties": {}}), Shape::Unit));
        read::<()>(&json!({}), Shape::Unit).unwrap();
        let (schema, shape) = of::<Value>();
        assert_eq!((&schema["type"], &schema["properties"]), (&json!("object"), &json!({})));
        assert_eq!(read::<Value>(&json!({"a": 1}), shape).unwrap(), json!({"a": 1}));
        assert_eq!(read::<Value>(&Value::Null, shape).unwrap(), json!({}));
    }
}
