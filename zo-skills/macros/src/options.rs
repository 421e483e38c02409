//! What stands between the parentheses of `#[skill(..)]`.

use crate::function::Param;
use proc_macro2::{Span, TokenStream};
use syn::{
    Attribute, Error, Ident, Lit, LitInt, LitStr, Meta, Path, Result, Token,
    ext::IdentExt,
    parse::{ParseStream, Parser},
    punctuated::Punctuated,
};

/// The options, checked.
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    /// Variant of `Effect`.
    pub(crate) effect: Option<&'static str>,
    pub(crate) triggers: Vec<LitStr>,
    pub(crate) version: Option<LitStr>,
    pub(crate) serial: bool,
    pub(crate) touches: Vec<Touch>,
    pub(crate) scopes: Vec<LitStr>,
    /// In milliseconds.
    pub(crate) timeout: Option<u64>,
    pub(crate) max_parallel: Option<u32>,
    pub(crate) krate: Option<Path>,
}

/// `reads("kind")`, `writes("kind", path = "parameter")`.
pub(crate) struct Touch {
    pub(crate) write: bool,
    pub(crate) what: LitStr,
    /// How the argument names the thing, `path` or `arg`, and the argument.
    pub(crate) by: Option<(Ident, LitStr)>,
}

pub(crate) fn parse(tokens: TokenStream) -> Result<Options> {
    let mut o = Options {
        name: None,
        effect: None,
        triggers: Vec::new(),
        version: None,
        serial: false,
        touches: Vec::new(),
        scopes: Vec::new(),
        timeout: None,
        max_parallel: None,
        krate: None,
    };
    let mut seen = Vec::<String>::new();
    let parser = |input: ParseStream<'_>| -> Result<()> {
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            let text = key.to_string();
            if seen.contains(&text) && !["reads", "writes"].contains(&text.as_str()) {
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
                "triggers" => o.triggers = texts(input)?,
                "serial" => o.serial = true,
                "reads" | "writes" => o.touches.push(touch(input, text == "writes")?),
                "scopes" => {
                    o.scopes = texts(input)?;
                    o.scopes.iter().try_for_each(check_scope)?;
                }
                "timeout" => {
                    input.parse::<Token![=]>()?;
                    o.timeout = Some(time(input)?);
                }
                "max_parallel" => {
                    input.parse::<Token![=]>()?;
                    let n: LitInt = input.parse()?;
                    let say = "the number of calls that may run at the same time, at least 1; leave it out for no limit";
                    match n.base10_parse::<u32>() {
                        Ok(n @ 1..) => o.max_parallel = Some(n),
                        _ => return Err(Error::new(n.span(), say)),
                    }
                }
                "crate" => {
                    input.parse::<Token![=]>()?;
                    o.krate = Some(input.call(Path::parse_mod_style)?);
                }
                other => {
                    let say = format!(
                        "`{other}` is no option of #[skill]: there are name, effect, triggers, version, serial, reads, \
                         writes, scopes, timeout, max_parallel and crate"
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

/// `("...", ..)`
fn texts(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let inside;
    syn::parenthesized!(inside in input);
    Ok(Punctuated::<LitStr, Token![,]>::parse_terminated(&inside)?.into_iter().collect())
}

/// `("kind")`, `("kind", path = "parameter")` or `("kind", arg = "parameter")`
fn touch(input: ParseStream<'_>, write: bool) -> Result<Touch> {
    let inside;
    syn::parenthesized!(inside in input);
    let what: LitStr = inside.parse()?;
    if what.value().trim().is_empty() {
        return Err(Error::new(what.span(), "say what kind of thing it is, e.g. \"file\" or \"account\""));
    }
    let mut by = None;
    if inside.parse::<Option<Token![,]>>()?.is_some() && !inside.is_empty() {
        let how = inside.call(Ident::parse_any)?;
        if how != "path" && how != "arg" {
            let say = format!(
                "`{how}` names nothing: write `path = \"...\"` with the parameter that is the path of a file or folder, or \
                 `arg = \"...\"` with the one that names the thing in another way"
            );
            return Err(Error::new(how.span(), say));
        }
        inside.parse::<Token![=]>()?;
        by = Some((how, inside.parse::<LitStr>()?));
        inside.parse::<Option<Token![,]>>()?;
    }
    if !inside.is_empty() {
        return Err(
            inside.error("one thing at a time: write another `reads(..)` or `writes(..)` for the next")
        );
    }
    Ok(Touch { write, what, by })
}

/// Whole seconds, or a text with a unit; in milliseconds.
fn time(input: ParseStream<'_>) -> Result<u64> {
    let (text, span) = match input.parse::<Lit>()? {
        Lit::Int(n) => (format!("{}s", n.base10_digits()), n.span()),
        Lit::Str(text) => (text.value(), text.span()),
        other => (String::new(), other.span()),
    };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text.get(digits.len()..).map(str::trim) {
        Some("ms") => 1,
        Some("s") => 1_000,
        Some("m") => 60_000,
        Some("h") => 3_600_000,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) {
        None | Some(0) => Err(Error::new(
            span,
            "a time is a whole number above zero with a unit, \"500ms\", \"30s\", \"5m\" or \"1h\", or a number of seconds",
        )),
        Some(ms) => Ok(ms),
    }
}

fn check_scope(scope: &LitStr) -> Result<()> {
    let text = scope.value();
    if !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    Err(Error::new(scope.span(), "a permission scope is one word without blanks, e.g. \"files:write\""))
}

/// Does every touch name an argument that there is? Not decided where serde gives a parameter another name.
pub(crate) fn check_touches(touches: &[Touch], params: &[Param]) -> Result<()> {
    let renames = |attr: &Attribute| match &attr.meta {
        Meta::List(list) if !list.path.is_ident("doc") => {
            let words = list.tokens.to_string();
            words.contains("rename") || words.contains("flatten")
        }
        _ => false,
    };
    if params.iter().any(|p| p.attrs.iter().any(renames)) {
        return Ok(());
    }
    let names: Vec<String> = params.iter().map(|p| p.ident.unraw().to_string()).collect();
    for (_, arg) in touches.iter().filter_map(|t| t.by.as_ref()) {
        let text = arg.value();
        // A JSON Pointer leads into a parameter; none of the two marks that it escapes can be in a name of Rust.
        let first = text.strip_prefix('/').map_or(text.as_str(), |p| p.split('/').next().unwrap_or(p));
        if names.iter().any(|name| name == first) {
            continue;
        }
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Error::new(
            arg.span(),
            format!("`{first}` is no parameter of this skill; there are: {there}"),
        ));
    }
    Ok(())
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
