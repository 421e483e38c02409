//! The function under `#[skill]`, checked and taken apart.

use crate::doc;
use syn::{
    Attribute, Error, FnArg, Ident, ItemFn, Pat, PatIdent, Result, ReturnType, Type, ext::IdentExt,
    spanned::Spanned,
};

/// How the function wants its context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    None,
    Owned,
    Borrowed,
}

/// One argument of the tool.
pub(crate) struct Param {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    /// Its doc comments and its `serde` and `schemars` attributes.
    pub(crate) attrs: Vec<Attribute>,
}

/// The checked function. `item` is what runs: without docs and without attributes that belong to a field.
pub(crate) struct Function {
    pub(crate) item: ItemFn,
    /// Attributes for the function that makes the skill: docs, lints, `cfg`.
    pub(crate) outer: Vec<Attribute>,
    pub(crate) description: String,
    pub(crate) context: Context,
    pub(crate) params: Vec<Param>,
}

pub(crate) fn check(mut item: ItemFn) -> Result<Function> {
    refuse_what_cannot_be_called(&item)?;
    let description = doc::text(&item.attrs);
    if description.is_empty() {
        let name = item.sig.ident.unraw();
        let say = format!(
            "a skill needs a doc comment: it is what the model reads to choose `{name}`; write one above the \
             function, e.g. `/// Adds two integers.`"
        );
        return Err(Error::new(item.sig.ident.span(), say));
    }
    let (outer, inner) = std::mem::take(&mut item.attrs).into_iter().partition(belongs_outside);
    item.attrs = inner;

    let mut context = Context::None;
    let mut params = Vec::new();
    let mut errors: Option<Error> = None;
    let mut fail = |e: Error| match &mut errors {
        Some(all) => all.combine(e),
        None => errors = Some(e),
    };
    for (at, input) in item.sig.inputs.iter_mut().enumerate() {
        let FnArg::Typed(input) = input else {
            fail(Error::new(input.span(), "a skill is a free function: it takes no `self`"));
            continue;
        };
        match context_of(&input.ty) {
            Context::None => {}
            found if at == 0 => {
                context = found;
                continue;
            }
            _ => {
                fail(Error::new(input.ty.span(), "the context comes first: make `Cx` the first parameter"));
                continue;
            }
        }
        if let Err(e) = refuse_type(&input.ty) {
            fail(e);
            continue;
        }
        let Pat::Ident(PatIdent { by_ref: None, subpat: None, ident, .. }) = &*input.pat else {
            fail(Error::new(
                input.pat.span(),
                "give the parameter a plain name: it becomes the name of the argument that the model fills in",
            ));
            continue;
        };
        let (attrs, stay) = std::mem::take(&mut input.attrs).into_iter().partition(describes_a_field);
        input.attrs = stay;
        params.push(Param { ident: ident.clone(), ty: (*input.ty).clone(), attrs });
    }
    match errors {
        Some(e) => Err(e),
        None => {
            // A comment on the context is for people; it may not stay on a parameter.
            if let (true, Some(FnArg::Typed(cx))) = (context != Context::None, item.sig.inputs.first_mut()) {
                cx.attrs.retain(|a| !describes_a_field(a));
            }
            Ok(Function { item, outer, description, context, params })
        }
    }
}

fn refuse_what_cannot_be_called(item: &ItemFn) -> Result<()> {
    let sig = &item.sig;
    if !sig.generics.params.is_empty() || sig.generics.where_clause.is_some() {
        let span = if sig.generics.params.is_empty() {
            sig.generics.where_clause.span()
        } else {
            sig.generics.params.span()
        };
        return Err(Error::new(
            span,
            "a skill cannot be generic: the model calls it, so every type must be known",
        ));
    }
    if !matches!(sig.safety, syn::Safety::Default) {
        return Err(Error::new(
            sig.safety.span(),
            "a skill cannot be `unsafe`: the model calls it with anything",
        ));
    }
    if let Some(token) = &sig.abi {
        return Err(Error::new(token.span(), "a skill is a Rust function: remove `extern`"));
    }
    if let Some(token) = &sig.constness {
        return Err(Error::new(token.span(), "a skill runs at run time: remove `const`"));
    }
    if let Some(token) = &sig.variadic {
        return Err(Error::new(token.span(), "a skill has a fixed number of parameters"));
    }
    if let ReturnType::Type(_, ty) = &sig.output
        && let Type::Reference(ty) = &**ty
        && ty.lifetime.as_ref().is_none_or(|l| l.ident != "static")
    {
        return Err(Error::new(ty.span(), "a skill returns an owned value, e.g. `String` instead of `&str`"));
    }
    Ok(())
}

fn context_of(ty: &Type) -> Context {
    let named_cx = |ty: &Type| match ty {
        Type::Path(p) => p.path.segments.last().is_some_and(|s| s.ident == "Cx" && s.arguments.is_none()),
        _ => false,
    };
    match ty {
        Type::Reference(r) if r.mutability.is_none() && named_cx(&r.elem) => Context::Borrowed,
        ty if named_cx(ty) => Context::Owned,
        _ => Context::None,
    }
}

fn refuse_type(ty: &Type) -> Result<()> {
    match ty {
        Type::Reference(r) => {
            let instead = match &*r.elem {
                Type::Path(p) if p.path.is_ident("str") => "`String`".to_owned(),
                Type::Slice(_) => "a `Vec`".to_owned(),
                _ => "the type without `&`".to_owned(),
            };
            let say = format!("a skill owns its arguments, which come out of JSON: write {instead}");
            Err(Error::new(ty.span(), say))
        }
        Type::ImplTrait(_) => Err(Error::new(
            ty.span(),
            "a skill cannot be generic: the model calls it, so write the type itself instead of `impl`",
        )),
        _ => Ok(()),
    }
}

fn describes_a_field(attr: &Attribute) -> bool {
    ["doc", "serde", "schemars"].iter().any(|name| attr.path().is_ident(name))
}

fn belongs_outside(attr: &Attribute) -> bool {
    const OUTSIDE: [&str; 8] = ["doc", "cfg", "cfg_attr", "allow", "expect", "warn", "deny", "deprecated"];
    OUTSIDE.iter().any(|name| attr.path().is_ident(name))
}
