//! What stands between the parentheses of `#[skill(..)]`.

use proc_macro2::{Span, TokenStream};
use syn::{Error, LitStr, Path, Result, Token, ext::IdentExt, parse::Parser, punctuated::Punctuated};

/// The options, checked.
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    /// Variant of `Effect`.
    pub(crate) effect: Option<&'static str>,
    pub(crate) triggers: Vec<LitStr>,
    pub(crate) version: Option<LitStr>,
    pub(crate) serial: bool,
    pub(crate) krate: Option<Path>,
}

pub(crate) fn parse(tokens: TokenStream) -> Result<Options> {
    let mut o =
        Options { name: None, effect: None, triggers: Vec::new(), version: None, serial: false, krate: None };
    let mut seen = Vec::<String>::new();
    let parser = |input: syn::parse::ParseStream<'_>| -> Result<()> {
        while !input.is_empty() {
            let key = input.call(syn::Ident::parse_any)?;
            let text = key.to_string();
            if seen.contains(&text) {
                return Err(Error::new(key.span(), format!("`{text}` is given twice")));
            }
            match text.as_str() {
                "name" => {
                    input.parse::<Token![=]>()?;
                    let name: LitStr = input.parse()?;
                    check_name(&name.value(), name.span())?;
                    o.name = Some(name);
                }
                "effect" => {
                    input.parse::<Token![=]>()?;
                    let effect: LitStr = input.parse()?;
                    o.effect = Some(match effect.value().as_str() {
                        "pure" => "Pure",
                        "idempotent" => "Idempotent",
                        "at_most_once" => "AtMostOnce",
                        other => {
                            let say = format!(
                                "`{other}` is no effect: write \"pure\" (changes nothing), \"idempotent\" (may be \
                                 repeated with the same key) or \"at_most_once\" (must never be repeated)"
                            );
                            return Err(Error::new(effect.span(), say));
                        }
                    });
                }
                "version" => {
                    input.parse::<Token![=]>()?;
                    o.version = Some(input.parse()?);
                }
                "triggers" => {
                    let inside;
                    syn::parenthesized!(inside in input);
                    o.triggers =
                        Punctuated::<LitStr, Token![,]>::parse_terminated(&inside)?.into_iter().collect();
                }
                "serial" => o.serial = true,
                "crate" => {
                    input.parse::<Token![=]>()?;
                    o.krate = Some(input.call(Path::parse_mod_style)?);
                }
                other => {
                    let say = format!(
                        "`{other}` is no option of #[skill]: there are name, effect, triggers, version, serial and crate"
                    );
                    return Err(Error::new(key.span(), say));
                }
            }
            seen.push(text);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(())
    };
    parser.parse2(tokens)?;
    Ok(o)
}

/// The strictest rule for tool names among the providers.
pub(crate) fn check_name(name: &str, span: Span) -> Result<()> {
    let fits = (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if fits {
        return Ok(());
    }
    let say = format!(
        "`{name}` is no name for a tool: providers take 1 to 64 characters of a-z, A-Z, 0-9, `_` and `-`; \
         write `#[skill(name = \"...\")]`"
    );
    Err(Error::new(span, say))
}
