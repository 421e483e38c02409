//! What is known of models: windows, abilities, prices and vector lengths, as data with source and date.
//!
//! The table is `table.tsv`, one row for each
//! provider and model; `scripts/models` makes it anew. A host that knows better says so in a [`Models`].
//!
//! # What it promises
//! * Unknown stays unknown. A model is found by its id, or by its id less a date, a version stamp or `-latest`; never by
//!   the likeness of its name, since a wrong price is worse than none.
//! * A price is the list price of the standard tier for short prompts, on the day named in [`Known::as_of`]. Surcharges for
//!   long prompts, tools, regions and speed are not in it; where the price depends on the time of day, it is the dearest.
//!   What costs nothing extra to read from or write to the cache, or is not known to, costs what any prompt token does.
//! * A lookup allocates nothing and takes less than a microsecond; the table is parsed once, at the first.
//!
//! ```
//! use zo_providers::models;
//!
//! let haiku = models::known("anthropic", "claude-haiku-4-5-20251001").unwrap();
//! assert_eq!(haiku.capabilities.context_window, Some(200_000));
//! assert_eq!(haiku.capabilities.price.unwrap().output, 5_000_000); // 5 USD per million tokens
//! assert!(models::known("anthropic", "claude-haiku-4-5-turbo").is_none());
//! ```

mod name;
mod table;
#[cfg(test)]
mod tests;

use self::name::Spelling;
use std::{fmt, sync::OnceLock};
use zo_traits::{Capabilities, Error, ErrorKind, Result};

/// Source of what a host has said itself.
const HOST: &str = "the host";

/// What is known of one model at one provider.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Known {
    /// What it can do and costs. `context_window` is the longest prompt in tokens where the source tells that from the
    /// whole window; of an embedding model it is the longest text.
    pub capabilities: Capabilities,
    /// Length of its vectors, of an embedding model, unless another is asked for.
    pub dimensions: Option<u32>,
    /// Who says so: packages and their versions, or `"the host"`.
    pub source: &'static str,
    /// Day of that source, as `YYYY-MM-DD`. Empty for what the host said.
    pub as_of: &'static str,
}

/// A row of a table, borrowed or owned.
#[derive(Debug, Clone, PartialEq)]
struct Row<S> {
    provider: S,
    model: S,
    known: Known,
}

impl<S: AsRef<str>> Row<S> {
    fn key(&self) -> (&str, &str) {
        (self.provider.as_ref(), self.model.as_ref())
    }
}

/// The row of exactly that id, in sorted `rows`.
fn exact<'a, S: AsRef<str>>(rows: &'a [Row<S>], provider: &str, model: &str) -> Option<&'a Known> {
    let at = rows.binary_search_by(|row| row.key().cmp(&(provider, model))).ok()?;
    rows.get(at).map(|row| &row.known)
}

fn builtin() -> &'static [Row<&'static str>] {
    static ROWS: OnceLock<Vec<Row<&'static str>>> = OnceLock::new();
    ROWS.get_or_init(|| table::builtin(include_str!("table.tsv")))
}

/// What the built-in table knows of `model`, spelled as `provider` does.
///
/// In this order: the very id; the id less dates (`-20250929`, `-2025-08-07`, also after `@`, `.` and `:`), `-latest`,
/// `-001` and `-v1:0`; both again without a leading `provider/` or `models/`. `azure` is looked up as `openai`, too. Of
/// OpenRouter's variants (`:free`, `:nitro`, ...) the abilities are those of the model, the rest is unknown.
pub fn known(provider: &str, model: &str) -> Option<Known> {
    find(&[], provider, model)
}

/// Every row of the built-in table as provider, model and what is known of it, sorted by both.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, Known)> {
    builtin().iter().map(|row| (row.provider, row.model, row.known.clone()))
}

fn find(own: &[Row<Box<str>>], provider: &str, model: &str) -> Option<Known> {
    let twin = (provider == "azure").then_some("openai");
    name::spellings(provider, model).find_map(|Spelling { id, variant }| {
        let mut known = [Some(provider), twin]
            .into_iter()
            .flatten()
            .find_map(|p| exact(own, p, id).or_else(|| exact(builtin(), p, id)))?
            .clone();
        if variant {
            let c = &mut known.capabilities;
            (c.context_window, c.max_output, c.price) = (None, None, None);
        }
        Some(known)
    })
}

/// The built-in table, and what a host adds to it or knows better.
///
/// A row of the host's hides the built-in row of the same id whole.
///
/// ```
/// use zo_providers::models::Models;
///
/// // provider, model, context, output, dimensions, USD per million tokens (in, out, cache read, cache write), abilities
/// let models = Models::read("vllm\tqwen3-32b\t131072\t8192\t-\t0\t0\t-\t-\ttsr\n")?;
/// let mine = models.known("vllm", "qwen3-32b").unwrap();
/// assert!(mine.capabilities.reasoning && !mine.capabilities.vision);
/// assert!(models.known("openai", "gpt-5").is_some());
/// assert_eq!(Models::read("vllm\tx\tmany").unwrap_err().to_string(), "models.read: line 1: context \"many\" is not a number");
/// # Ok::<(), zo_traits::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Models {
    /// The host's rows, sorted, each id once.
    own: Vec<Row<Box<str>>>,
}

impl Models {
    /// The built-in table.
    pub fn builtin() -> Self {
        Self::default()
    }

    /// Adds a model, or replaces what is known of it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a provider or model that could not be written down: empty, with a tab, with a line break,
    /// or, of a provider, beginning with `#`.
    pub fn with(mut self, provider: &str, model: &str, capabilities: Capabilities) -> Result<Self> {
        table::check(provider, model).map_err(|e| Error::new(ErrorKind::Invalid, "models.with", e))?;
        let known = Known { capabilities, source: HOST, ..Known::default() };
        match self.own.binary_search_by(|row| row.key().cmp(&(provider, model))) {
            Ok(at) => {
                if let Some(row) = self.own.get_mut(at) {
                    row.known = known;
                }
            }
            Err(at) => self.own.insert(at, Row { provider: provider.into(), model: model.into(), known }),
        }
        Ok(self)
    }

    /// The built-in table and the rows of `text`, which has the format of the built-in one: lines of columns parted by
    /// tabs, namely
    ///
    /// 1. the provider's id and 2. the model's,
    /// 3. longest prompt, 4. longest answer, 5. length of vectors, in tokens and numbers,
    /// 6. price of prompt tokens, 7. of completion tokens, 8. of those read from the cache, 9. of those written to it, in USD
    ///    per million tokens with at most six decimal places,
    /// 10. abilities as letters: `t`ools, `p`arallel tools, `s`tructured output, `v`ision, `a`udio, `d`ocuments,
    ///     `r`easoning, `c`ached prompts.
    ///
    /// Unknown is empty or `-`; columns at the end may be missing, an eleventh is left unread. Empty lines and those that
    /// begin with `#` are skipped. [`Display`](fmt::Display) writes the same.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the number of the line, for anything else than that, and for an id that comes twice.
    pub fn read(text: &str) -> Result<Self> {
        table::read(text)
            .map(|own| Self { own })
            .map_err(|e| Error::new(ErrorKind::Invalid, "models.read", e))
    }

    /// As [`known`], with what the host has added.
    pub fn known(&self, provider: &str, model: &str) -> Option<Known> {
        find(&self.own, provider, model)
    }
}

/// The host's rows in the format that [`Models::read`] reads.
impl fmt::Display for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.own.iter().try_for_each(|row| table::write(f, row))
    }
}
