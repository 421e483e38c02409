//! Embeddings: OpenAI's `/v1/embeddings`, which most servers speak, and Ollama's `/api/embed`.
//!
//! What is read is checked: as many vectors as places, all of one length, every number finite. Anything else is
//! [`ErrorKind::Corrupt`], since a wrong vector in an index is never noticed.

use crate::wire::{
    decode::unreadable,
    fault,
    lenient::{Count, Obj},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap, fmt};
use zo_traits::{Error, ErrorKind, Result, Usage};

#[derive(Serialize)]
struct OpenAiBody<'a> {
    model: &'a str,
    input: &'a [&'a str],
    #[serde(flatten)]
    dimensions: BTreeMap<&'a str, u32>,
    encoding_format: &'static str,
}

#[derive(Serialize)]
struct OllamaBody<'a> {
    model: &'a str,
    input: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

/// The body of `POST /v1/embeddings` for `inputs`; `dimensions` cuts the vectors, where the model can, and is said in `field`
/// (OpenAI's is `dimensions`).
///
/// Vectors are asked for in base64: a quarter of the bytes of digits, and far less work to read. OpenAI's own client does the
/// same, so servers have met it; one that knows only digits and ignores the field is read as well.
///
/// # Errors
/// [`ErrorKind::Invalid`] without any input, or with an empty one, which the API refuses.
///
/// Source: <https://platform.openai.com/docs/api-reference/embeddings/create>.
pub fn openai_body(model: &str, inputs: &[&str], dimensions: Option<u32>, field: &str) -> Result<Vec<u8>> {
    let dimensions = dimensions.map(|n| (field, n)).into_iter().collect();
    body(inputs, &OpenAiBody { model, input: inputs, dimensions, encoding_format: "base64" })
}

/// The body of `POST /api/embed` for `inputs`; `dimensions` cuts the vectors, where the model can.
///
/// The server cuts an input that is longer than the model's window.
///
/// # Errors
/// As [`openai_body`].
///
/// Source: <https://github.com/ollama/ollama/blob/main/docs/api.md#generate-embeddings>.
pub fn ollama_body(model: &str, inputs: &[&str], dimensions: Option<u32>) -> Result<Vec<u8>> {
    body(inputs, &OllamaBody { model, input: inputs, dimensions })
}

fn body(inputs: &[&str], body: &impl Serialize) -> Result<Vec<u8>> {
    if inputs.is_empty() || inputs.iter().any(|i| i.is_empty()) {
        return Err(Error::new(
            ErrorKind::Invalid,
            "embed.encode",
            "there is nothing to embed in an empty input",
        ));
    }
    serde_json::to_vec(body)
        .map_err(|e| Error::new(ErrorKind::Invalid, "embed.encode", format_args!("no JSON: {e}")))
}

#[derive(Deserialize)]
struct OpenAiAnswer<'a> {
    data: Option<Vec<Obj<Place>>>,
    #[serde(default)]
    usage: Obj<Counts>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Place {
    #[serde(default)]
    index: Count,
    embedding: Vector,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    prompt_tokens: Count,
    #[serde(default)]
    total_tokens: Count,
}

#[derive(Deserialize)]
struct OllamaAnswer<'a> {
    embeddings: Option<Vec<Vector>>,
    #[serde(default)]
    prompt_eval_count: Count,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Reads an answer of `/v1/embeddings`: the vectors in the order of the inputs, whatever the order in the answer, and the
/// tokens. Numbers come as digits or as base64 of little-endian `f32`.
///
/// # Errors
/// What the server reports inside the answer, classified; [`ErrorKind::Corrupt`] when places are missing or taken twice, when
/// vectors are empty or of different lengths, when a number is not finite, and for what cannot be read.
pub fn openai_embeddings(body: &[u8]) -> Result<(Vec<Vec<f32>>, Usage)> {
    let body = text(body);
    let answer: Obj<OpenAiAnswer<'_>> = serde_json::from_str(&body).map_err(|e| refused(&body, &e))?;
    let answer = answer.0.ok_or_else(none)?;
    reported(answer.error, &body)?;
    let data = answer.data.ok_or_else(none)?;
    let mut places: Vec<Option<Vec<f32>>> = vec![None; data.len()];
    for (at, place) in data.into_iter().enumerate() {
        let place = place.0.ok_or_else(none)?;
        let index = place.index.0.map_or(Some(at), |index| usize::try_from(index).ok());
        match index.and_then(|index| places.get_mut(index)) {
            Some(free @ None) => *free = Some(place.embedding.0),
            _ => {
                return Err(corrupt(
                    "the vectors of the answer have no order: a place is missing or taken twice",
                ));
            }
        }
    }
    let usage = answer.usage.0.and_then(|c| c.prompt_tokens.0.or(c.total_tokens.0)).unwrap_or(0);
    Ok((alike(places.into_iter().flatten().collect())?, Usage::new(usage, 0)))
}

/// Reads an answer of `/api/embed`: the vectors in the order of the inputs, and the tokens.
///
/// # Errors
/// As [`openai_embeddings`].
pub fn ollama_embeddings(body: &[u8]) -> Result<(Vec<Vec<f32>>, Usage)> {
    let body = text(body);
    let answer: Obj<OllamaAnswer<'_>> = serde_json::from_str(&body).map_err(|e| refused(&body, &e))?;
    let answer = answer.0.ok_or_else(none)?;
    reported(answer.error, &body)?;
    let vectors = answer.embeddings.ok_or_else(none)?;
    let vectors = alike(vectors.into_iter().map(|v| v.0).collect())?;
    Ok((vectors, Usage::new(answer.prompt_eval_count.0.unwrap_or(0), 0)))
}

/// The vectors, if there is one for each of so many inputs.
///
/// # Errors
/// [`ErrorKind::Corrupt`] otherwise.
pub fn counted(vectors: Vec<Vec<f32>>, inputs: usize) -> Result<Vec<Vec<f32>>> {
    match vectors.len() == inputs {
        true => Ok(vectors),
        false => Err(corrupt(format_args!("{} vectors for {inputs} inputs", vectors.len()))),
    }
}

/// The vector of length 1 in the same direction. One without direction (zeros), or with numbers that are not finite, stays as it
/// is.
pub fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    // Squares of the largest and of the smallest `f32` fit into an `f64`.
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 && length.is_finite() {
        for x in &mut vector {
            // At most 1 in size.
            #[allow(clippy::cast_possible_truncation)]
            let scaled = (f64::from(*x) / length) as f32;
            *x = scaled;
        }
    }
    vector
}

fn alike(vectors: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>> {
    let dimensions = vectors.first().map_or(1, Vec::len);
    if dimensions == 0 {
        return Err(corrupt("a vector is empty"));
    }
    match vectors.iter().find(|v| v.len() != dimensions) {
        Some(other) => Err(corrupt(format_args!(
            "a vector of {} numbers stands beside one of {dimensions}",
            other.len()
        ))),
        None => Ok(vectors),
    }
}

/// Numbers, as digits or as base64.
struct Vector(Vec<f32>);

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Vector;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of finite numbers, or base64 of them")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vector, A::Error> {
                let mut out = Vec::new();
                while let Some(number) = seq.next_element::<f64>()? {
                    // What is too large for an `f32` becomes infinite, and is found below.
                    #[allow(clippy::cast_possible_truncation)]
                    out.push(finite(number as f32)?);
                }
                Ok(Vector(out))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vector, E> {
                let bytes = base64(text).ok_or_else(|| E::custom("the vector is no base64"))?;
                let (numbers, []) = bytes.as_chunks::<4>() else {
                    return Err(E::custom("the bytes of the vector are no row of 32-bit numbers"));
                };
                numbers.iter().map(|n| finite(f32::from_le_bytes(*n))).collect::<Result<_, E>>().map(Vector)
            }
        }
        d.deserialize_any(V)
    }
}

fn finite<E: de::Error>(number: f32) -> Result<f32, E> {
    if number.is_finite() { Ok(number) } else { Err(E::custom("a number of the vector is not finite")) }
}

/// Standard base64 (RFC 4648, section 4); padding may be missing.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text).as_bytes();
    if digits.len() % 4 == 1 || (digits.len() != text.len() && !text.len().is_multiple_of(4)) {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.chunks(4) {
        let mut bits = 0u32;
        for digit in chunk {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let [_, bytes @ ..] = (bits << (6 * (4 - chunk.len()))).to_be_bytes();
        out.extend_from_slice(bytes.get(..chunk.len() - 1).unwrap_or_default());
    }
    Some(out)
}

fn reported(error: Option<&RawValue>, body: &str) -> Result<()> {
    match error {
        Some(e) if !matches!(e.get(), "null" | "{}" | "\"\"" | "false") => {
            Err(fault::classify_inner(body).into_error("embed"))
        }
        _ => Ok(()),
    }
}

/// What is no answer may be an error all the same.
fn refused(body: &str, e: &serde_json::Error) -> Error {
    #[derive(Deserialize)]
    struct Failed<'a> {
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let failed = serde_json::from_str::<Failed<'_>>(body).ok().and_then(|f| reported(f.error, body).err());
    failed.unwrap_or_else(|| unreadable("the vectors", body, e))
}

fn text(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body))
}

fn none() -> Error {
    corrupt("the answer holds no vectors")
}

fn corrupt(message: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "wire.decode", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn openai(body: &Value) -> Result<Vec<Vec<f32>>> {
        openai_embeddings(body.to_string().as_bytes()).map(|r| r.0)
    }

    fn place(index: usize, embedding: impl Into<Value>) -> Value {
        json!({"object": "embedding", "index": index, "embedding": embedding.into()})
    }

    #[test]
    fn bodies() {
        let of = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        assert_eq!(
            of(openai_body("m", &["a", "b"], Some(8), "dimensions").unwrap()),
            json!({"model": "m", "input": ["a", "b"], "dimensions": 8, "encoding_format": "base64"})
        );
        assert_eq!(of(ollama_body("m", &["a"], None).unwrap()), json!({"model": "m", "input": ["a"]}));
        assert_eq!(openai_body("m", &[], None, "dimensions").unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(ollama_body("m", &["a", ""], None).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn the_order_is_that_of_the_inputs() {
        let body = json!({"data": [place(2, [3.0]), place(0, [1]), place(1, "AAAAQA==")],
            "usage": {"prompt_tokens": 5, "total_tokens": 9}});
        assert_eq!(openai(&body).unwrap(), [[1.0], [2.0], [3.0]]);
        let usage = openai_embeddings(body.to_string().as_bytes()).unwrap().1;
        assert_eq!(usage, Usage::new(5, 0));
        let unnumbered = json!({"data": [{"embedding": [1]}, {"embedding": [2]}]});
        assert_eq!(openai(&unnumbered).unwrap(), [[1.0], [2.0]]);
        let ollama = br#"{"model":"m","embeddings":[[1,0.5],[-1e-3,0]],"prompt_eval_count":8}"#;
        assert_eq!(
            ollama_embeddings(ollama).unwrap(),
            (vec![vec![1.0, 0.5], vec![-0.001, 0.0]], Usage::new(8, 0))
        );
    }

    #[test]
    fn what_is_wrong_is_corrupt() {
        let nan = "AADAfw==";
        for body in [
            json!({}),
            json!({"data": null}),
            json!({"data": [null]}),
            json!({"data": [[0, [1]]]}),
            json!([[place(0, [1])]]),
            json!({"data": [{"index": 0}]}),
            json!({"data": [place(0, [1]), place(0, [2])]}),
            json!({"data": [place(0, [1]), place(2, [2])]}),
            json!({"data": [place(0, [1, 2]), place(1, [1])]}),
            json!({"data": [place(0, json!([]))]}),
            json!({"data": [place(0, "")]}),
            json!({"data": [place(0, nan)]}),
            json!({"data": [place(0, [1e300])]}),
            json!({"data": [place(0, json!([null]))]}),
            json!({"data": [place(0, json!(["1"]))]}),
            json!({"data": [place(0, json!([[1.0]]))]}),
            json!({"data": [place(0, "AAAA")]}),
            json!({"data": [place(0, "AA-_AA==")]}),
            json!({"data": [place(0, "AAAAQ===")]}),
        ] {
            assert_eq!(openai(&body).unwrap_err().kind(), ErrorKind::Corrupt, "{body}");
        }
        for body in
            ["", "[]", "{", r#"{"data":[{"embedding":[1e999]}]}"#, r#"{"data":[{"embedding":[NaN]}]}"#]
        {
            assert_eq!(openai_embeddings(body.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{body}");
        }
        for body in
            [r#"{"embeddings":[[1],[1,2]]}"#, r#"{"embeddings":[[]]}"#, "{}", r#"{"embeddings":[[null]]}"#]
        {
            assert_eq!(ollama_embeddings(body.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{body}");
        }
        assert_eq!(counted(vec![vec![1.0]], 2).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(counted(vec![vec![1.0]], 1).unwrap().len(), 1);
    }

    #[test]
    fn an_error_inside_is_that_error() {
        for body in [r#"{"error":{"message":"x","code":429}}"#, r#"{"error":{"code":429},"data":"none"}"#] {
            assert_eq!(
                openai_embeddings(body.as_bytes()).unwrap_err().kind(),
                ErrorKind::RateLimited,
                "{body}"
            );
        }
        let e = ollama_embeddings(br#"{"error":"llama runner process has terminated"}"#).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn lengths() {
        assert_eq!(unit(vec![3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(unit(vec![0.0; 3]), [0.0; 3]);
        assert_eq!(unit(vec![f32::MAX, f32::MAX])[0], std::f32::consts::FRAC_1_SQRT_2);
        assert_eq!(unit(vec![f32::MIN_POSITIVE / 1024.0]), [1.0]);
        assert!(unit(vec![f32::INFINITY, 1.0])[0].is_infinite() && unit(vec![]).is_empty());
    }

    fn encode(numbers: &[f32]) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut out = String::new();
        for chunk in bytes.chunks(3) {
            let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            for i in 0..4 {
                let digit = char::from(DIGITS[(n >> (18 - 6 * i)) as usize & 63]);
                out.push(if i <= chunk.len() { digit } else { '=' });
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

        #[test]
        fn digits_and_base64_say_the_same(
            numbers in prop::collection::vec(any::<f32>().prop_filter("finite", |n| n.is_finite()), 1..40),
            padded in any::<bool>(),
        ) {
            let text = encode(&numbers);
            let text = if padded { &text } else { text.trim_end_matches('=') };
            for embedding in [json!(text), json!(numbers)] {
                let read = openai(&json!({"data": [place(0, embedding)]})).unwrap();
                prop_assert_eq!(&read[0], &numbers);
            }
            let length: f64 = unit(numbers.clone()).iter().map(|x| f64::from(*x).powi(2)).sum();
            prop_assert!((length - 1.0).abs() < 1e-5 || numbers.iter().all(|n| *n == 0.0), "{}", length);
        }

        #[test]
        fn any_base64_is_read_or_refused(text in "[A-Za-z0-9+/=]{0,24}") {
            match base64(&text) {
                Some(bytes) => prop_assert!(bytes.len() <= text.len() * 3 / 4),
                None => prop_assert!(text.contains('=') || text.len() % 4 == 1),
            }
        }
    }
}
