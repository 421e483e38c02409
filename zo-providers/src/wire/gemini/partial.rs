//! Arguments that come piece by piece, each with the JSONPath of where it belongs (Vertex AI's
//! `streamFunctionCallArguments`).

use crate::wire::lenient::Str;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Map, Value, value::RawValue};

/// Deepest place that a piece may go to. With what is around them, arguments must fit into a parser's depth.
const MAX_DEPTH: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece<'a> {
    #[serde(borrow, default)]
    json_path: Str<'a>,
    #[serde(borrow, default)]
    string_value: Option<Str<'a>>,
    #[serde(borrow, default)]
    number_value: Option<&'a RawValue>,
    #[serde(default)]
    bool_value: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    null_value: bool,
}

fn present<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(d).map(|_| true)
}

/// The arguments of one call, as far as they have come.
#[derive(Debug)]
pub(super) struct Args {
    so_far: Value,
    /// A piece that could not be put anywhere: the call must not be run.
    misfit: Option<String>,
}

impl Args {
    /// Starts from the arguments that came whole, if any did.
    pub(super) fn new(args: Option<&str>) -> Self {
        let mut new = Self { so_far: Value::Object(Map::new()), misfit: None };
        if let Some(text) = args {
            match serde_json::from_str::<Map<String, Value>>(text) {
                Ok(map) => new.so_far = Value::Object(map),
                Err(_) => new.misfit = Some(text.to_owned()),
            }
        }
        new
    }

    /// Puts a piece, a JSON text, where it belongs.
    pub(super) fn add(&mut self, piece: &str) {
        if self.misfit.is_none() && self.put(piece).is_none() {
            self.misfit = Some(piece.to_owned());
        }
    }

    /// The JSON text of the arguments, empty where there are none; or a text that is no JSON, if they are not `whole`.
    pub(super) fn finish(self, whole: bool) -> String {
        match self.misfit {
            None if whole && self.so_far.as_object().is_some_and(Map::is_empty) => String::new(),
            None if whole => self.so_far.to_string(),
            None => format!("unfinished: {}", self.so_far),
            Some(piece) => format!("unreadable: {} then {piece}", self.so_far),
        }
    }

    fn put(&mut self, piece: &str) -> Option<()> {
        let piece: Piece<'_> = serde_json::from_str(piece).ok()?;
        let steps = steps(piece.json_path.as_str())?;
        let value = match piece {
            Piece { string_value: Some(text), .. } => Value::String(text.0.into_owned()),
            Piece { number_value: Some(raw), .. } => Value::Number(serde_json::from_str(raw.get()).ok()?),
            Piece { bool_value: Some(truth), .. } => Value::Bool(truth),
            Piece { null_value: true, .. } => Value::Null,
            // A place without a value says nothing.
            _ => return Some(()),
        };
        let mut at = &mut self.so_far;
        for step in steps {
            if at.is_null() {
                *at = match step {
                    Step::Key(_) => Value::Object(Map::new()),
                    Step::Index(_) => Value::Array(Vec::new()),
                };
            }
            at = match (step, at) {
                (Step::Key(key), Value::Object(map)) => map.entry(key).or_insert(Value::Null),
                (Step::Index(index), Value::Array(items)) => {
                    // Elements come in order. A gap would let a few bytes ask for any amount of memory.
                    if index == items.len() {
                        items.push(Value::Null);
                    }
                    items.get_mut(index)?
                }
                _ => return None,
            };
        }
        match (at, value) {
            (Value::String(old), Value::String(more)) => old.push_str(&more),
            (Value::Object(_) | Value::Array(_), _) => return None,
            (at, value) => *at = value,
        }
        Some(())
    }
}

#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

/// The steps of a path that names one place (RFC 9535: member names, quoted or not, and indexes).
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut out = Vec::new();
    while !rest.is_empty() {
        if out.len() >= MAX_DEPTH {
            return None;
        }
        if let Some(name) = rest.strip_prefix('.') {
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (name, after) = name.split_at(end);
            if name.is_empty() || name == "*" {
                return None;
            }
            out.push(Step::Key(name.to_owned()));
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('[') {
            let (step, after) = match inner.chars().next()? {
                quote @ ('"' | '\'') => {
                    let (name, after) = quoted(inner.get(1..)?, quote)?;
                    (Step::Key(name), after)
                }
                _ => {
                    let (index, after) = inner.split_at(inner.find(']')?);
                    (Step::Index(index.trim().parse().ok()?), after)
                }
            };
            out.push(step);
            rest = after.strip_prefix(']')?;
        } else {
            return None;
        }
    }
    Some(out)
}

/// A name up to its closing quote, and what is behind that.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut json = String::from("\"");
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => {
                json.push('"');
                return Some((serde_json::from_str(&json).ok()?, text.get(at + 1..)?));
            }
            // JSON knows no escaped apostrophe.
            '\\' => match chars.next()?.1 {
                '\'' => json.push('\''),
                other => json.extend(['\\', other]),
            },
            '"' => json.push_str("\\\""),
            c => json.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(pieces: &[Value]) -> String {
        let mut args = Args::new(None);
        pieces.iter().for_each(|p| args.add(&p.to_string()));
        args.finish(true)
    }

    #[test]
    fn pieces_go_where_their_path_says() {
        let text = of(&[
            json!({"jsonPath": "$.a[0].b", "stringValue": "x", "willContinue": true}),
            json!({"jsonPath": "$.a[0].b", "stringValue": "y\""}),
            json!({"jsonPath": "$.a[1]", "numberValue": 0.5}),
            json!({"jsonPath": "$['c d'][\"e.'\"]", "boolValue": false}),
            json!({"jsonPath": "$['it\\'s \"\\u00e4\"']", "nullValue": null}),
            json!({"jsonPath": "$.n", "numberValue": 7}),
            json!({"jsonPath": "$.nothing"}),
        ]);
        let want = json!({"a": [{"b": "xy\""}, 0.5], "c d": {"e.'": false}, "it's \"ä\"": null, "n": 7});
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), want);
        assert_eq!(of(&[]), "");
    }

    #[test]
    fn what_fits_nowhere_is_no_json() {
        let deep = format!("${}", "[0]".repeat(MAX_DEPTH + 1));
        for bad in [
            json!({"jsonPath": "", "stringValue": "x"}),
            json!({"jsonPath": "$", "stringValue": "x"}),
            json!({"jsonPath": "$.a[4294967295]", "stringValue": "x"}),
            json!({"jsonPath": "$.a[1]", "stringValue": "x"}),
            json!({"jsonPath": "$.a[-1]", "stringValue": "x"}),
            json!({"jsonPath": "$[0]", "stringValue": "x"}),
            json!({"jsonPath": "$.*", "stringValue": "x"}),
            json!({"jsonPath": "$..a", "stringValue": "x"}),
            json!({"jsonPath": "$['a", "stringValue": "x"}),
            json!({"jsonPath": "$['a'", "stringValue": "x"}),
            json!({"jsonPath": "$a", "stringValue": "x"}),
            json!({"jsonPath": "$.a", "numberValue": "x"}),
            json!({"jsonPath": deep, "stringValue": "x"}),
            json!(5),
        ] {
            let text = of(&[json!({"jsonPath": "$.ok", "stringValue": "1"}), bad.clone()]);
            assert!(serde_json::from_str::<Value>(&text).is_err() && text.contains("ok"), "{bad}: {text}");
        }
        let clash = [
            json!({"jsonPath": "$.a.b", "numberValue": 1}),
            json!({"jsonPath": "$.a", "numberValue": 1}),
            json!({"jsonPath": "$.a[0]", "numberValue": 1}),
        ];
        assert!(serde_json::from_str::<Value>(&of(&clash[..2])).is_err());
        assert!(serde_json::from_str::<Value>(&of(&[clash[0].clone(), clash[2].clone()])).is_err());
        assert!(serde_json::from_str::<Value>(&Args::new(Some("{\"a\":1}")).finish(false)).is_err());
        assert_eq!(Args::new(Some("{\"a\":1}")).finish(true), "{\"a\":1}");
        assert!(serde_json::from_str::<Value>(&Args::new(Some("[1]")).finish(true)).is_err());
    }
}
