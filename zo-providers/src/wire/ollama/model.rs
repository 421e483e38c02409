//! What a server says of its models: `GET /api/tags` and `POST /api/show`.

use crate::wire::{
    decode::unreadable,
    fault,
    lenient::{Count, List, Obj, Str},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap};
use zo_traits::{Capabilities, Error, ErrorKind, ModelInfo, Result};

#[derive(Deserialize)]
struct Tags<'a> {
    #[serde(borrow)]
    models: Option<List<Obj<Tag<'a>>>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow, default)]
    name: Str<'a>,
    #[serde(borrow, default)]
    model: Str<'a>,
    #[serde(borrow, default)]
    details: Obj<Details<'a>>,
    #[serde(borrow, default)]
    capabilities: Option<List<Str<'a>>>,
}

#[derive(Deserialize, Default)]
struct Details<'a> {
    #[serde(borrow, default)]
    family: Str<'a>,
    #[serde(borrow, default)]
    families: List<Str<'a>>,
    #[serde(borrow, default)]
    parameter_size: Str<'a>,
    #[serde(borrow, default)]
    quantization_level: Str<'a>,
    #[serde(default)]
    context_length: Count,
}

#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow, default)]
    details: Obj<Details<'a>>,
    #[serde(borrow, default)]
    model_info: Obj<BTreeMap<Cow<'a, str>, &'a RawValue>>,
    #[serde(borrow, default)]
    capabilities: Option<List<Str<'a>>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

const OP: &str = "ollama.models";

/// Reads the answer of `GET /api/tags`: the models that the server has, in its order, the newest first.
///
/// Recent servers list what each can do; from older ones only pictures are known, by the families of the model, and
/// [`shown`] tells the rest. A model that only embeds stands in the list without any capability.
///
/// # Errors
/// What the server reports, classified; [`ErrorKind::Corrupt`] for what is no such list.
pub fn models(body: &[u8]) -> Result<Vec<ModelInfo>> {
    let body = text(body);
    let tags: Obj<Tags<'_>> =
        serde_json::from_str(&body).map_err(|e| unreadable("the list of models", &body, &e))?;
    let none = || Error::new(ErrorKind::Corrupt, OP, "the answer holds no list of models");
    let tags = tags.0.ok_or_else(none)?;
    refused(tags.error, &body)?;
    let models = tags.models.ok_or_else(none)?;
    let info = |tag: Tag<'_>| {
        let id = tag.model.non_empty().or(tag.name.non_empty())?;
        let details = tag.details.0.unwrap_or_default();
        let facts: Vec<&str> = [&details.parameter_size, &details.quantization_level]
            .into_iter()
            .filter_map(Str::non_empty)
            .collect();
        let mut info = ModelInfo::new(id);
        info.name = (!facts.is_empty()).then(|| format!("{id} ({})", facts.join(", ")));
        info.capabilities = capabilities(tag.capabilities.as_ref(), &details);
        Some(info)
    };
    Ok(models.0.into_iter().filter_map(|m| m.0).filter_map(info).collect())
}

/// Reads the answer of `POST /api/show`: what one model can do, and its context window.
///
/// The window is that of the model. The server runs it with the one that is asked for, see [`encode`](super::encode).
///
/// # Errors
/// What the server reports, classified; [`ErrorKind::Corrupt`] for what cannot be read.
pub fn shown(body: &[u8]) -> Result<Capabilities> {
    let body = text(body);
    let shown: Obj<Shown<'_>> =
        serde_json::from_str(&body).map_err(|e| unreadable("the facts of a model", &body, &e))?;
    let shown = shown.0.ok_or_else(|| Error::new(ErrorKind::Corrupt, OP, "the answer is no object"))?;
    refused(shown.error, &body)?;
    let mut out = capabilities(shown.capabilities.as_ref(), &shown.details.0.unwrap_or_default());
    let info = shown.model_info.0.unwrap_or_default();
    let window = |key: &str| info.get(key).and_then(|v| serde_json::from_str::<Count>(v.get()).ok()?.0);
    let architecture =
        info.get("general.architecture").and_then(|v| serde_json::from_str::<Str<'_>>(v.get()).ok());
    out.context_window = architecture
        .and_then(|a| window(&format!("{}.context_length", a.as_str())))
        .or_else(|| window(info.keys().find(|k| k.ends_with(".context_length"))?))
        .and_then(|n| u32::try_from(n).ok())
        .or(out.context_window);
    Ok(out)
}

fn capabilities(named: Option<&List<Str<'_>>>, details: &Details<'_>) -> Capabilities {
    let has = |name: &str| named.is_some_and(|list| list.0.iter().any(|c| c.as_str() == name));
    // The parts of a model that see, from before servers said it in so many words.
    let eyes = |family: &Str<'_>| matches!(family.as_str(), "clip" | "mllama");
    let mut out = Capabilities::default();
    out.tools = has("tools");
    out.parallel_tools = out.tools;
    // The server's grammar does it, whatever the model.
    out.structured = has("completion");
    out.vision =
        has("vision") || named.is_none() && (eyes(&details.family) || details.families.0.iter().any(eyes));
    out.audio = has("audio");
    out.reasoning = has("thinking");
    out.context_window = details.context_length.0.filter(|n| *n > 0).and_then(|n| u32::try_from(n).ok());
    out
}

fn refused(error: Option<&RawValue>, body: &str) -> Result<()> {
    match error {
        Some(e) if e.get() != "null" => Err(fault::classify_inner(body).into_error(OP)),
        _ => Ok(()),
    }
}

fn text(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_list() {
        let body = json!({"models": [
            {"name": "qwen3:4b", "model": "qwen3:4b", "size": 1, "details": {"family": "qwen3", "families": ["qwen3"],
             "parameter_size": "4.0B", "quantization_level": "Q4_K_M", "context_length": 40960},
             "capabilities": ["completion", "tools", "thinking", "future"]},
            {"name": "llava:latest", "details": {"families": ["llama", "clip"], "parameter_size": ""}},
            {"model": "all-minilm", "details": null, "capabilities": ["embedding"]},
            {"name": "", "model": null}, null,
        ]});
        let list = models(body.to_string().as_bytes()).unwrap();
        let ids: Vec<_> = list.iter().map(|m| m.id.as_str()).collect();
        assert_eq!(ids, ["qwen3:4b", "llava:latest", "all-minilm"]);
        assert_eq!(list[0].name.as_deref(), Some("qwen3:4b (4.0B, Q4_K_M)"));
        let c = &list[0].capabilities;
        assert!(c.tools && c.parallel_tools && c.structured && c.reasoning && !c.vision && !c.audio, "{c:?}");
        assert_eq!(c.context_window, Some(40_960));
        assert!(list[1].capabilities.vision && !list[1].capabilities.tools && list[1].name.is_none());
        assert_eq!(list[2].capabilities, Capabilities::default());
        assert!(models(b"[]").is_err() && models(br#"[[{"name":"x"}]]"#).is_err());
        assert!(
            models(br#"{"models":null}"#).is_err() && models(b"{}").is_err() && models(b"<html>").is_err()
        );
        assert!(models(br#"{"models":[]}"#).unwrap().is_empty());
        assert_eq!(models(br#"{"error":"unauthorized"}"#).unwrap_err().op(), "ollama.models");
    }

    #[test]
    fn one_model() {
        let body = json!({
            "license": "x", "details": {"family": "gemma3", "families": ["gemma3"]},
            "model_info": {"general.architecture": "gemma3", "gemma3.context_length": 131_072, "gemma3.vision.context_length": 5,
                "gemma3.rope.scaling.original_context_length": 8192, "tokenizer.ggml.tokens": null},
            "capabilities": ["completion", "vision"],
        });
        let c = shown(body.to_string().as_bytes()).unwrap();
        assert!(c.vision && c.structured && !c.tools);
        assert_eq!(c.context_window, Some(131_072));
        let unnamed = shown(br#"{"model_info":{"llama.context_length":"4096"}}"#).unwrap();
        assert_eq!(unnamed.context_window, Some(4096));
        let odd =
            shown(br#"{"model_info":{"general.architecture":7,"x.context_length":99999999999}}"#).unwrap();
        assert_eq!(odd, Capabilities::default());
        assert!(shown(br#"{"error":"model 'x' not found"}"#).is_err() && shown(b"[]").is_err());
    }
}
