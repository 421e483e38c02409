//! Answers in a form that the host asked for: a JSON Schema, native where the provider has it, else told in words, and checked
//! in both cases. An answer that does not fit is sent back with what is wrong.

use crate::schema;
use serde_json::Value;
use zo_traits::{Error, ErrorKind, Message, Result};

/// How often an answer of the wrong form is sent back.
pub(crate) const MAX_REPAIRS: u32 = 2;

/// Tells a model without native support which form its answer must have.
pub(crate) fn instruction(schema: &Value) -> Message {
    Message::system(format!(
        "Answer with one JSON value and nothing else: no words around it and no code fence. It must fit this JSON Schema:\n{schema}"
    ))
}

/// The JSON in an answer: the whole text, or what stands in its one code fence, since models put it there however often they
/// are told not to.
fn json_in(text: &str) -> &str {
    let text = text.trim();
    let fenced = text.strip_prefix("```").and_then(|t| t.strip_suffix("```"));
    match fenced {
        Some(inner) => {
            let inner = inner.strip_prefix("json").or_else(|| inner.strip_prefix("JSON")).unwrap_or(inner);
            inner.trim()
        }
        None => text,
    }
}

/// The value of an answer that fits its schema.
///
/// # Errors
/// [`ErrorKind::Corrupt`] with what is wrong, in words for the model.
pub(crate) fn value(schema: &Value, text: &str) -> Result<Value> {
    let bad = |what: String| Error::new(ErrorKind::Corrupt, "zo.answer", &what).with_model_text(what);
    let value: Value =
        serde_json::from_str(json_in(text)).map_err(|e| bad(format!("the answer is not JSON: {e}")))?;
    schema::validate(schema, &value).map_err(|e| bad(format!("the answer does not fit the schema:\n{e}")))?;
    Ok(value)
}

/// The answer as a `T`.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when it does not fit.
#[cfg(feature = "skills")]
pub(crate) fn typed<T: serde::de::DeserializeOwned>(schema: &Value, text: &str) -> Result<T> {
    serde_json::from_value(value(schema, text)?).map_err(|e| {
        Error::new(
            ErrorKind::Corrupt,
            "zo.answer",
            format_args!("the answer fits the schema and not the type: {e}"),
        )
    })
}

/// What the model is told of an answer that does not fit.
pub(crate) fn complaint(e: &Error) -> Message {
    Message::user(format!(
        "That answer cannot be used: {}\nAnswer again with the corrected JSON value and nothing else.",
        e.model_text()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_found_in_its_fence_and_nowhere_else() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        for good in ["{\"n\": 1}", " {\"n\":1}\n", "```json\n{\"n\": 1}\n```", "```\n{\"n\":1}```"] {
            assert_eq!(value(&schema, good).unwrap(), json!({"n": 1}), "{good}");
        }
        for bad in [
            "",
            "n is 1",
            "{\"n\": \"1\"}",
            "{}",
            "Here: {\"n\": 1}",
            "```json\n{\"n\": 1}",
            "{\"n\":1} {\"n\":2}",
        ] {
            assert_eq!(value(&schema, bad).unwrap_err().kind(), ErrorKind::Corrupt, "{bad}");
        }
    }
}
