//! Lists and objects written out: `[[1, 2], [3, 4]]`, `{'age': 30}`, `(1, 2)`, as JSON or Python write them.

use crate::offline::words::Text;
use serde_json::{Map, Number, Value};

/// A list or object at tokens `from..to`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::offline) struct Literal {
    pub(in crate::offline) from: usize,
    pub(in crate::offline) to: usize,
    pub(in crate::offline) value: Value,
}

const MAX_LITERALS: usize = 16;
const MAX_DEPTH: usize = 6;
/// Bytes looked at per literal.
const MAX_BYTES: usize = 4_096;

/// The outermost lists and objects of a text.
pub(in crate::offline) fn find(text: &Text<'_>) -> Vec<Literal> {
    let mut out: Vec<Literal> = Vec::new();
    let mut i = 0;
    // Brackets that come to nothing cost at most this many bytes in all.
    let mut fuel = 16 * MAX_BYTES;
    while i < text.tokens.len() && out.len() < MAX_LITERALS && fuel > 0 {
        let Some(token) = text.tokens.get(i).filter(|t| matches!(t.mark, Some('[' | '(' | '{'))) else {
            i += 1;
            continue;
        };
        let rest =
            crate::offline::words::cut(text.full.get(token.start..).unwrap_or(""), MAX_BYTES.min(fuel));
        let mut reader = Reader { rest };
        let value = reader.value(0);
        let used = rest.len() - reader.rest.len();
        fuel = fuel.saturating_sub(if value.is_some() { used } else { used.max(512) });
        match value {
            Some(value) => {
                let end = token.start + used;
                let to = (i..text.tokens.len()).find(|j| text.tokens.get(*j).is_some_and(|t| t.start >= end));
                let to = to.unwrap_or(text.tokens.len());
                out.push(Literal { from: i, to, value });
                i = to.max(i + 1);
            }
            None => i += 1,
        }
    }
    out
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, c: char) -> bool {
        self.skip();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.skip();
        match self.rest.chars().next()? {
            '[' if depth < MAX_DEPTH => self.list(']', depth),
            '(' if depth < MAX_DEPTH => self.list(')', depth),
            '{' if depth < MAX_DEPTH => self.object(depth),
            quote @ ('"' | '\'') => self.quoted(quote).map(Value::from),
            _ => self.word(),
        }
    }

    fn list(&mut self, close: char, depth: usize) -> Option<Value> {
        self.rest = self.rest.get(1..)?;
        let mut out = Vec::new();
        loop {
            if self.eat(close) {
                break;
            }
            out.push(self.value(depth + 1)?);
            if !self.eat(',') {
                if self.eat(close) {
                    break;
                }
                return None;
            }
        }
        // A bracketed remark is no list.
        let telling = close == ']' || (out.len() > 1 && out.iter().all(|v| !v.is_string()));
        telling.then_some(Value::Array(out))
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.rest = self.rest.get(1..)?;
        let mut out = Map::new();
        loop {
            if self.eat('}') {
                break;
            }
            self.skip();
            let name = match self.rest.chars().next()? {
                quote @ ('"' | '\'') => self.quoted(quote)?.to_owned(),
                _ => {
                    let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
                    let (name, rest) = self.rest.split_at_checked(end)?;
                    self.rest = rest;
                    name.to_owned()
                }
            };
            if name.is_empty() || !self.eat(':') {
                return None;
            }
            let value = self.value(depth + 1)?;
            out.insert(name, value);
            if !self.eat(',') {
                if self.eat('}') {
                    break;
                }
                return None;
            }
        }
        Some(Value::Object(out))
    }

    fn quoted(&mut self, quote: char) -> Option<&'a str> {
        let body = self.rest.get(1..)?;
        let end = body.find(quote)?;
        let (inner, rest) = body.split_at_checked(end)?;
        self.rest = rest.get(1..)?;
        Some(inner)
    }

    /// A number, `true`, `None`, or bare words up to the next mark.
    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find([',', ']', ')', '}', '[', '(', '{', '\n', '"', ':'])?;
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        let word = word.trim();
        Some(match word {
            "" => return None,
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            "null" | "None" => Value::Null,
            _ => match (word.parse::<i64>(), word.parse::<f64>()) {
                (Ok(whole), _) => Value::from(whole),
                (_, Ok(n)) => Number::from_f64(n).map(Value::Number)?,
                _ if word.len() <= 60 => Value::from(word),
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(s: &str) -> Vec<Value> {
        find(&Text::new(s)).into_iter().map(|l| l.value).collect()
    }

    #[test]
    fn json_and_python() {
        assert_eq!(
            values("rows [[1, 2], [3.5, -4]] and [a, 'b c']"),
            [json!([[1, 2], [3.5, -4]]), json!(["a", "b c"])]
        );
        assert_eq!(
            values("{'age': 30, name: \"Bo\", on: True}"),
            [json!({"age": 30, "name": "Bo", "on": true})]
        );
        assert_eq!(values("points (1, 2) and (3, 4)"), [json!([1, 2]), json!([3, 4])]);
    }

    #[test]
    fn remarks_and_torn_brackets_are_none() {
        assert!(values("he (my uncle) said [so").is_empty());
        assert!(values("a (b, c) d").is_empty());
        assert!(values(&"[".repeat(5_000)).is_empty());
        assert!(values(&"[1,".repeat(5_000)).is_empty());
    }
}
