//! What is known of a Claude model by its name.

use zo_traits::Capabilities;

/// Version in a model's name: `claude-3-5-haiku-latest` is (3, 5), `claude-sonnet-4-20250514` is (4, 0),
/// `claude-opus-4-6` is (4, 6). `None` when the name does not tell.
pub(super) fn version(model: &str) -> Option<(u32, u32)> {
    let name = model.rsplit('/').next().unwrap_or(model).strip_prefix("claude-")?;
    let mut numbers = name.split(['-', '.', '@']).skip_while(|w| w.parse::<u32>().is_err());
    let major = numbers.next()?.parse().ok().filter(|n| *n < 100)?;
    // What follows may be a date instead.
    let minor = numbers.next().and_then(|w| w.parse().ok()).filter(|n| *n < 100).unwrap_or(0);
    Some((major, minor))
}

/// How a model is told to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thinking {
    /// It cannot.
    Never,
    /// By a budget of tokens.
    Budget,
    /// By an effort; it budgets itself.
    Adaptive,
}

pub(super) fn thinking(model: &str) -> Thinking {
    match version(model) {
        Some(v) if v < (3, 7) => Thinking::Never,
        Some(v) if v < (4, 6) => Thinking::Budget,
        Some(_) => Thinking::Adaptive,
        None => Thinking::Never,
    }
}

/// May a call be demanded of it? Models that cannot but think refuse that: Claude 5.5, and Fable and Mythos since 5.1.
pub(super) fn can_be_forced(model: &str) -> bool {
    let since = if ["fable", "mythos"].iter().any(|name| model.contains(name)) { (5, 1) } else { (5, 5) };
    version(model).is_none_or(|v| v < since)
}

/// Longest answer, in tokens, where it is known.
pub(super) fn max_output(model: &str) -> Option<u32> {
    if let Some(known) = crate::models::known(super::FAMILY, model) {
        return known.capabilities.max_output;
    }
    let version = version(model)?;
    Some(match version {
        (..=2, _) | (3, ..=4) => 4096,
        (3, 5 | 6) => 8192,
        (4, 0 | 1) if model.contains("opus") => 32_000,
        (3, 7..) | (4, _) => 64_000,
        _ => return None,
    })
}

/// What `model` can do, as far as its name tells.
pub fn capabilities(model: &str) -> Capabilities {
    let mut c = Capabilities::default();
    (c.tools, c.parallel_tools) = (true, true);
    if let Some(version) = version(model) {
        c.vision = version >= (3, 0);
        c.reasoning = thinking(model) != Thinking::Never;
        c.structured = version >= (4, 5);
        c.context_window = ((2, 1)..(5, 0)).contains(&version).then_some(200_000);
        c.max_output = max_output(model);
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_versions() {
        for (name, v) in [
            ("claude-3-5-haiku-latest", Some((3, 5))),
            ("claude-3-opus-20240229", Some((3, 0))),
            ("claude-sonnet-4-20250514", Some((4, 0))),
            ("claude-opus-4-6", Some((4, 6))),
            ("anthropic/claude-sonnet-4.5", Some((4, 5))),
            ("claude-instant", None),
            ("other", None),
        ] {
            assert_eq!(version(name), v, "{name}");
        }
        assert_eq!(thinking("claude-sonnet-4-6"), Thinking::Adaptive);
        assert_eq!(max_output("claude-opus-4-1"), Some(32_000));
        assert!(!capabilities("claude-3-opus-20240229").reasoning);
        for (name, forced) in [
            ("claude-opus-5", true),
            ("claude-fable-5", true),
            ("claude-fable-5-1", false),
            ("claude-sonnet-5-5", false),
            ("x", true),
        ] {
            assert_eq!(can_be_forced(name), forced, "{name}");
        }
    }
}
