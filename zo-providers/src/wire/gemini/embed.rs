//! Embeddings: `batchEmbedContents`, and what it and `embedContent` answer (<https://ai.google.dev/api/embeddings>).

use super::model::resource;
use crate::wire::decode::unreadable;
use serde::{Deserialize, Serialize};
use zo_traits::{Error, ErrorKind, Result};

#[derive(Serialize)]
struct Body<'a> {
    requests: Vec<One<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u32>,
}

#[derive(Serialize)]
struct Content<'a> {
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

/// The body of a `POST /models/{model}:batchEmbedContents` for `inputs`, cut to `dimensions` where they are given.
///
/// # Errors
/// [`ErrorKind::Invalid`] when it cannot be written as JSON.
pub fn encode_embed(model: &str, inputs: &[&str], dimensions: Option<u32>) -> Result<Vec<u8>> {
    let model = resource(model);
    let requests = inputs
        .iter()
        .map(|text| One {
            model: &model,
            content: Content { parts: [Part { text }] },
            output_dimensionality: dimensions,
        })
        .collect();
    serde_json::to_vec(&Body { requests })
        .map_err(|e| Error::new(ErrorKind::Invalid, "gemini.embed", format_args!("no JSON: {e}")))
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Option<Vec<Embedding>>,
    embedding: Option<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    values: Vec<f32>,
}

/// The vectors of an answer, in the order of the inputs. One that stands alone, as `embedContent` gives it, is read too.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for anything but lists of finite numbers, and for an empty vector.
pub fn embeddings(body: &[u8]) -> Result<Vec<Vec<f32>>> {
    let body = String::from_utf8_lossy(body);
    let answer: Answer =
        serde_json::from_str(&body).map_err(|e| unreadable("an answer of embeddings", &body, &e))?;
    let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, "gemini.embed", what);
    let all = match answer {
        Answer { embeddings: Some(all), .. } => all,
        Answer { embedding: Some(one), .. } => vec![one],
        _ => return Err(corrupt("the answer holds no embeddings")),
    };
    let all: Vec<_> = all.into_iter().map(|e| e.values).collect();
    // A number beyond what a float can hold is an error above, or infinite: that hangs on how serde_json was built.
    if all.iter().any(|v| v.is_empty() || v.iter().any(|n| !n.is_finite())) {
        return Err(corrupt("an embedding is empty, or has a number that no float can hold"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_batch_names_its_model_in_each_request() {
        let body: Value =
            serde_json::from_slice(&encode_embed("gemini-embedding-001", &["a", ""], Some(768)).unwrap())
                .unwrap();
        let one = |text: &str| {
            json!({"model": "models/gemini-embedding-001", "content": {"parts": [{"text": text}]},
                "outputDimensionality": 768})
        };
        assert_eq!(body, json!({"requests": [one("a"), one("")]}));
        let body = String::from_utf8(encode_embed("models/x", &["a"], None).unwrap()).unwrap();
        assert_eq!(body, r#"{"requests":[{"model":"models/x","content":{"parts":[{"text":"a"}]}}]}"#);
    }

    #[test]
    fn vectors_are_finite_numbers_or_the_answer_is_corrupt() {
        let many = br#"{"embeddings":[{"values":[0.5,-1]},{"values":[2e-3]}],"usageMetadata":{}}"#;
        assert_eq!(embeddings(many).unwrap(), [vec![0.5, -1.0], vec![0.002]]);
        assert_eq!(embeddings(br#"{"embedding":{"values":[1]}}"#).unwrap(), [[1.0]]);
        assert!(embeddings(br#"{"embeddings":[]}"#).unwrap().is_empty());
        for bad in [
            "",
            "null",
            "{}",
            "[]",
            r#"{"embedding":null}"#,
            r#"{"embedding":{}}"#,
            r#"{"embedding":{"values":null}}"#,
            r#"{"embedding":{"values":[]}}"#,
            r#"{"embedding":{"values":["1"]}}"#,
            r#"{"embedding":{"values":[null]}}"#,
            r#"{"embedding":{"values":[1e39]}}"#,
            r#"{"embedding":{"values":[-1e300]}}"#,
            r#"{"embedding":{"values":[1e999]}}"#,
            r#"{"embedding":{"values":[[1]]}}"#,
            r#"{"embeddings":{"values":[1]}}"#,
            r#"{"embedding":{"values":[1,2"#,
        ] {
            assert_eq!(embeddings(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{bad}");
        }
    }
}
