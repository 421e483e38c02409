//! The little YAML that frontmatter is made of, as JSON values.
//!
//! Every scalar stays the text that stands in the file (`version: 1.10` is `"1.10"`, `name: yes` is `"yes"`); only an
//! empty or `null` plain scalar is null. Tags are ignored, so nothing is ever constructed from them, and an alias is
//! null, so nothing is ever multiplied. Memory is bounded by the text: at most one node a byte, at most [`MAX_DEPTH`] deep.

use granit_parser::{Event, Options, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Deepest nesting of lists and mappings.
pub(crate) const MAX_DEPTH: usize = 16;

/// What was read.
pub(crate) struct Yaml {
    pub(crate) value: Value,
    /// Lines, from 0, on which aliases were ignored.
    pub(crate) aliases: Vec<usize>,
}

/// Line, from 0, and what is wrong there.
pub(crate) type YamlError = (usize, String);

enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

/// Reads the first document of `text`. Of two equal keys the last one counts.
pub(crate) fn parse(text: &str) -> Result<Yaml, YamlError> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    options.emit_unresolved_aliases = true;
    // The parser's default of 1024 is for keys; quoted descriptions look like keys until they end.
    options.simple_key_max_lookahead = 1024;

    let mut stack: Vec<Open> = Vec::new();
    let mut root = None;
    let mut aliases = Vec::new();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|e| (e.marker().line().saturating_sub(1), e.info()))?;
        let line = span.start.line().saturating_sub(1);
        let done = match event {
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                let key = matches!(stack.last(), Some(Open::Map(_, None)));
                Some(match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain && !key => Value::Null,
                    text => Value::String(text.to_owned()),
                })
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                aliases.push(line);
                Some(Value::Null)
            }
            Event::SequenceStart(..) => {
                stack.push(Open::List(Vec::new()));
                None
            }
            Event::MappingStart(..) => {
                stack.push(Open::Map(Map::new(), None));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                Some(Open::List(items)) => Some(Value::Array(items)),
                Some(Open::Map(map, _)) => Some(Value::Object(map)),
                None => None,
            },
            Event::DocumentEnd => break,
            _ => None,
        };
        if stack.len() > MAX_DEPTH {
            return Err((line, format!("more than {MAX_DEPTH} levels deep")));
        }
        if let Some(value) = done {
            match stack.last_mut() {
                Some(Open::List(items)) => items.push(value),
                Some(Open::Map(map, key)) => match key.take() {
                    Some(key) => {
                        map.insert(key, value);
                    }
                    None => *key = Some(as_key(value)),
                },
                None => root = Some(value),
            }
        }
    }
    Ok(Yaml { value: root.unwrap_or(Value::Null), aliases })
}

fn as_key(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(text: &str) -> Value {
        parse(text).map_err(|e| format!("{e:?}")).unwrap().value
    }

    #[test]
    fn scalars_stay_text() {
        assert_eq!(
            value("v: 1.10\nn: yes\nq: 'null'\nz: null\ne:\nt: ~\nl: [a, 'b: c']\nnull: k"),
            json!({"v": "1.10", "n": "yes", "q": "null", "z": null, "e": null, "t": null, "l": ["a", "b: c"], "null": "k"})
        );
        assert_eq!(value("a: |+\n  x\n  y\n\nb: >-\n  x\n  y\n"), json!({"a": "x\ny\n\n", "b": "x y"}));
        assert_eq!(value("a: 1\na: 2"), json!({"a": "2"}));
        assert_eq!(value("a: \"x\n y\"\nb: [\n1\n]"), json!({"a": "x y", "b": ["1"]}));
    }

    #[test]
    fn nothing_is_constructed_or_multiplied() {
        assert_eq!(value("x: !!python/object/apply:os.system [\"id\"]"), json!({"x": ["id"]}));
        let laughs = parse("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *nobody]").map_err(|e| e.1).unwrap();
        assert_eq!(laughs.value, json!({"a": ["x", "x"], "b": [null, null], "c": [null, null]}));
        assert_eq!(laughs.aliases, [1, 1, 2, 2]);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(&deep(MAX_DEPTH)).is_ok());
        assert!(parse(&deep(MAX_DEPTH + 1)).is_err());
        assert!(parse(&deep(30_000)).is_err());
        let block: String = (0..40).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(parse(&block).is_err());
    }
}
