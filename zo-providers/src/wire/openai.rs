//! What both of OpenAI's wires know: its models by their names, and when a schema may be called strict.

use serde_json::Value;

/// Generation of one of OpenAI's GPT models by its name, a provider's prefix before it: `gpt-5` is (5, 0), `gpt-5.4-mini` is
/// (5, 4), `gpt-6-sol` is (6, 0). `None` for others, and for `gpt-4o`, whose 4 is no version of this kind.
pub(super) fn generation(model: &str) -> Option<(u32, u32)> {
    let rest = model.rsplit('/').next().unwrap_or(model).strip_prefix("gpt-")?;
    let version = rest.split('-').next().unwrap_or(rest);
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// OpenAI's reasoning models, by name: `o1`, `o3-mini`, GPT from 5 on, but not its chat models.
pub(super) fn is_reasoning_model(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let o_series = name.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    o_series || (generation(name).is_some_and(|g| g >= (5, 0)) && !name.contains("chat"))
}

/// Does a schema already obey the rules of strict mode: every object closed, every property required? Only then is strict
/// mode asked for; bending a schema to fit would change what it means.
pub(super) fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            let object = map.get("type").is_some_and(|t| t == "object") || map.contains_key("properties");
            let closed = !object
                || map.get("additionalProperties") == Some(&Value::Bool(false))
                    && map.get("properties").and_then(Value::as_object).is_some_and(|properties| {
                        let required = map.get("required").and_then(Value::as_array);
                        properties.keys().all(|k| required.is_some_and(|r| r.iter().any(|r| r == k.as_str())))
                    });
            closed
                && map
                    .iter()
                    .filter(|(k, _)| !matches!(k.as_str(), "enum" | "const" | "default"))
                    .all(|(_, v)| is_strict(v))
        }
        Value::Array(items) => items.iter().all(is_strict),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_generations() {
        for (name, generation_, reasons) in [
            ("gpt-5", Some((5, 0)), true),
            ("openai/gpt-5.4-mini", Some((5, 4)), true),
            ("gpt-5-2025-08-07", Some((5, 0)), true),
            ("gpt-5-chat-latest", Some((5, 0)), false),
            ("gpt-6.1-terra", Some((6, 1)), true),
            ("gpt-4o", None, false),
            ("gpt-4.1", Some((4, 1)), false),
            ("gpt-oss-120b", None, false),
            ("o3-mini", None, true),
            ("olmo", None, false),
        ] {
            assert_eq!((generation(name), is_reasoning_model(name)), (generation_, reasons), "{name}");
        }
    }
}
