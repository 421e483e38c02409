//! Doc comments as text.

use syn::{Attribute, Expr, ExprLit, Lit, Meta};

/// The text of all doc comments among `attrs`, without the common blank after `///`, trimmed. Empty when there are none.
pub(crate) fn text(attrs: &[Attribute]) -> String {
    let mut out = String::new();
    for attr in attrs {
        let Meta::NameValue(doc) = &attr.meta else { continue };
        if !doc.path.is_ident("doc") {
            continue;
        }
        let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &doc.value else { continue };
        for line in text.value().lines() {
            out.push_str(line.strip_prefix(' ').unwrap_or(line).trim_end());
            out.push('\n');
        }
        if text.value().is_empty() {
            out.push('\n');
        }
    }
    out.trim().to_owned()
}
