//! What is known of a Gemini model: by its name, and by what the server lists and counts.

use crate::wire::{
    decode::unreadable,
    lenient::{Count, List, Obj, Str},
};
use serde::Deserialize;
use std::borrow::Cow;
use zo_traits::{Error, ErrorKind, ModelInfo, Result};

/// How a model is told to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thinking {
    /// Not at all, or not that it were known.
    Never,
    /// By a budget of tokens: Gemini 2.5.
    Budget,
    /// By a level: Gemini 3 and later, which also insist on signatures.
    Level,
}

/// `gemini-2.5-flash` is (2, 5), `models/gemini-3-pro-preview` is (3, 0). `None` when the name does not tell.
pub(super) fn version(model: &str) -> Option<(u32, u32)> {
    let name = bare(model).strip_prefix("gemini-")?;
    let mut numbers = name.split('-').next()?.splitn(2, '.');
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next().map_or(Some(0), |minor| minor.parse().ok())?))
}

pub(super) fn thinking(model: &str) -> Thinking {
    match version(model) {
        Some(v) if v < (2, 5) => Thinking::Never,
        Some(v) if v < (3, 0) => Thinking::Budget,
        Some(_) => Thinking::Level,
        // `gemini-flash-latest` and the like move with the newest.
        None if bare(model).starts_with("gemini-") && model.ends_with("-latest") => Thinking::Level,
        None => Thinking::Never,
    }
}

/// Does it call functions and obey a schema in one answer? Up to Gemini 2.5 the API refuses the two together.
pub(super) fn schema_beside_tools(model: &str) -> bool {
    thinking(model) == Thinking::Level
}

/// Does it take files inside a function's response? Others take them beside it.
pub(super) fn media_in_responses(model: &str) -> bool {
    thinking(model) == Thinking::Level
}

fn bare(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

/// A model as the API's resources are named: `models/gemini-2.5-flash`.
pub(super) fn resource(model: &str) -> Cow<'_, str> {
    if model.contains('/') { Cow::Borrowed(model) } else { Cow::Owned(format!("models/{model}")) }
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow, default)]
    models: Option<List<Obj<Row<'a>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(borrow, default)]
    name: Str<'a>,
    #[serde(borrow, default)]
    display_name: Str<'a>,
    #[serde(default)]
    input_token_limit: Count,
    #[serde(default)]
    output_token_limit: Count,
    #[serde(borrow, default)]
    supported_generation_methods: List<Str<'a>>,
    /// `true` where it thinks.
    #[serde(borrow, default)]
    thinking: Str<'a>,
}

/// The models of an answer to `GET /models?pageSize=1000`, without those that generate no content (embeddings, pictures by
/// another method).
///
/// # Errors
/// [`ErrorKind::Corrupt`] for anything but a list of models.
pub fn models(body: &[u8]) -> Result<Vec<ModelInfo>> {
    let body = String::from_utf8_lossy(body);
    let listed: Listed<'_> =
        serde_json::from_str(&body).map_err(|e| unreadable("a list of models", &body, &e))?;
    let rows = listed
        .models
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "wire.decode", "the answer holds no list of models"))?;
    let info = |row: Row<'_>| {
        let can = |method: &str| row.supported_generation_methods.0.iter().any(|m| m.as_str() == method);
        let id = row.name.as_str().strip_prefix("models/").unwrap_or(row.name.as_str());
        if id.is_empty() || !can("generateContent") {
            return None;
        }
        let count = |n: Count| n.0.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        let mut info = ModelInfo::new(id);
        info.name = row.display_name.non_empty().map(str::to_owned);
        info.capabilities.context_window = count(row.input_token_limit);
        info.capabilities.max_output = count(row.output_token_limit);
        info.capabilities.reasoning = row.thinking.as_str() == "true";
        info.capabilities.cache = can("createCachedContent");
        Some(info)
    };
    Ok(rows.0.into_iter().filter_map(|row| row.0.and_then(info)).collect())
}

/// The count in an answer to `POST /models/{model}:countTokens`.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when there is none.
pub fn counted(body: &[u8]) -> Result<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        #[serde(default)]
        total_tokens: Count,
    }
    let body = String::from_utf8_lossy(body);
    let answer: Answer = serde_json::from_str(&body).map_err(|e| unreadable("a count", &body, &e))?;
    answer
        .total_tokens
        .0
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "wire.decode", "the answer holds no count of tokens"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_generations() {
        for (name, how) in [
            ("gemini-1.5-pro", Thinking::Never),
            ("gemini-2.0-flash-001", Thinking::Never),
            ("models/gemini-2.5-flash-lite", Thinking::Budget),
            ("gemini-3-flash-preview", Thinking::Level),
            ("publishers/google/models/gemini-3.1-pro-preview", Thinking::Level),
            ("gemini-12", Thinking::Level),
            ("gemini-flash-latest", Thinking::Level),
            ("gemini-robotics-er-1.5-preview", Thinking::Never),
            ("gemini-embedding-001", Thinking::Never),
            ("gemma-3-27b-it", Thinking::Never),
            ("", Thinking::Never),
        ] {
            assert_eq!(thinking(name), how, "{name}");
        }
    }

    #[test]
    fn only_models_that_generate_are_listed() {
        let body = br#"{"models": [
            {"name": "models/gemini-2.5-flash", "displayName": "Gemini 2.5 Flash", "inputTokenLimit": 1048576,
             "outputTokenLimit": 65536, "thinking": true,
             "supportedGenerationMethods": ["generateContent", "countTokens", "createCachedContent"]},
            {"name": "models/embedding-001", "supportedGenerationMethods": ["embedContent"]},
            {"name": "tunedModels/mine", "inputTokenLimit": 99999999999, "supportedGenerationMethods": ["generateContent"]},
            {"name": "", "supportedGenerationMethods": ["generateContent"]}, 5, {}
        ], "nextPageToken": "x"}"#;
        let all = models(body).unwrap();
        assert_eq!(
            all.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(),
            ["gemini-2.5-flash", "tunedModels/mine"]
        );
        assert_eq!(all[0].name.as_deref(), Some("Gemini 2.5 Flash"));
        let c = &all[0].capabilities;
        assert_eq!((c.context_window, c.max_output), (Some(1_048_576), Some(65_536)));
        assert!(c.reasoning && c.cache && !all[1].capabilities.reasoning);
        assert_eq!((&all[1].name, all[1].capabilities.context_window), (&None, None));
        assert!(models(br#"{"models": []}"#).unwrap().is_empty());
        for bad in ["", "{}", "[]", "{\"models\":null}", "{\"models\":[{\"name\":"] {
            assert_eq!(models(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{bad}");
        }
    }

    #[test]
    fn counts_are_read_or_refused() {
        assert_eq!(counted(br#"{"totalTokens": 31, "cachedContentTokenCount": 0}"#).unwrap(), 31);
        for bad in ["", "{}", "7", r#"{"totalTokens": null}"#, r#"{"totalTokens": []}"#] {
            assert_eq!(counted(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{bad}");
        }
    }
}
