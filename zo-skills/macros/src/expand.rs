//! The code that `#[skill]` writes.
//!
//! Everything stands inside the body of one function, so that it takes no name from the surrounding module, and every
//! path starts at the crate root, so that no name of the surrounding module is taken for one of ours.

use crate::{
    function::{self, Context, Function},
    options,
};
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Error, Item, LitStr, Path, Result, ReturnType, ext::IdentExt, spanned::Spanned};

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(options, &item) {
        Ok(code) => code,
        Err(e) => e.to_compile_error(),
    }
}

fn try_expand(options: TokenStream, item: &TokenStream) -> Result<TokenStream> {
    let options = options::parse(options)?;
    let item = match syn::parse2::<Item>(item.clone())? {
        Item::Fn(item) => item,
        other => {
            return Err(Error::new(
                other.span(),
                "#[skill] stands above a free function, e.g. `async fn add(..)`",
            ));
        }
    };
    let Function { item, outer, description, context, params } = function::check(item)?;
    options::check_touches(&options.touches, &params)?;
    let krate: Path = match options.krate {
        Some(path) => path,
        None => syn::parse_quote!(::zo_core::skills),
    };
    let ident = &item.sig.ident;
    let name = match options.name {
        Some(name) => name,
        None => {
            let name = ident.unraw().to_string();
            options::check_name(&name, ident.span())?;
            LitStr::new(&name, ident.span())
        }
    };

    let (vis, triggers) = (&item.vis, &options.triggers);
    let effect = options.effect.map(|variant| {
        let variant = quote::format_ident!("{variant}");
        quote!(.effect(#krate::Effect::#variant))
    });
    let version = options.version.map(|version| quote!(.version(#version)));
    let serial = options.serial.then(|| quote!(.serial()));
    let touches = options.touches.iter().map(|options::Touch { write, what, by }| {
        let make = quote::format_ident!("{}", if *write { "writes" } else { "reads" });
        let by = by.iter().map(|(how, arg)| quote!(.#how(#arg)));
        quote!(.touch(#krate::Touch::#make(#what)#(#by)*))
    });
    let scopes = options.scopes.iter().map(|scope| quote!(.scope(#scope)));
    let timeout = options.timeout.map(|ms| quote!(.timeout(::core::time::Duration::from_millis(#ms))));
    let max_parallel = options.max_parallel.map(|n| quote!(.max_parallel(#n)));
    let triggers = (!triggers.is_empty()).then(|| quote!(.triggers([#(#triggers),*])));

    let (fields, names): (Vec<_>, Vec<_>) = params
        .iter()
        .map(|p| {
            let (attrs, ident, ty) = (&p.attrs, &p.ident, &p.ty);
            (quote!(#(#attrs)* #ident: #ty), ident)
        })
        .unzip();
    let cx = match context {
        Context::None => quote!(),
        Context::Owned => quote!(__zo_cx,),
        Context::Borrowed => quote!(&__zo_cx,),
    };
    let wait = item.sig.asyncness.map(|_| quote!(.await));
    let text = |path: &str| {
        let krate = quote!(#krate).to_string().replace(' ', "");
        LitStr::new(&format!("{krate}::__private::{path}"), ident.span())
    };
    let (serde, schemars) = (text("serde"), text("schemars"));
    // A result that is no output is the return type's fault, so that is where the compiler shall point.
    let at = match &item.sig.output {
        ReturnType::Type(_, ty) => ty.span(),
        ReturnType::Default => ident.span(),
    };
    let finish = quote_spanned!(at=> #krate::__private::IntoToolResult::into_tool_result(__zo_output));
    let output = quote_spanned!(at=> __zo_output);
    let mut inner = item.clone();
    inner.vis = syn::Visibility::Inherited;

    Ok(quote! {
        #(#outer)*
        #vis fn #ident() -> #krate::FnSkill {
            #[derive(#krate::__private::serde::Deserialize, #krate::__private::schemars::JsonSchema)]
            #[serde(crate = #serde)]
            #[schemars(crate = #schemars)]
            struct __ZoArguments { #(#fields),* }

            #inner

            #krate::skill_fn(#name, #description, |__zo_cx: #krate::Cx, __zo_args: __ZoArguments| {
                async move {
                    // Before the arguments get their names, one of which may be the function's.
                    let __zo_call = #ident;
                    let __ZoArguments { #(#names),* } = __zo_args;
                    let #output = __zo_call(#cx #(#names),*) #wait;
                    #finish
                }
            })
            #effect #version #serial #(#touches)* #(#scopes)* #timeout #max_parallel #triggers
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_path_is_the_facade() {
        let code = expand(quote!(), quote! { /** Adds. */ fn add(a: i64) -> i64 { a } }).to_string();
        assert!(code.contains(":: zo_core :: skills :: skill_fn"), "{code}");
        assert!(code.contains("\"::zo_core::skills::__private::serde\""), "{code}");
    }

    #[test]
    fn errors_are_compile_errors() {
        for bad in [
            quote!(
                struct S;
            ),
            quote!(
                fn f() {}
            ),
            quote!(let),
            quote!(),
        ] {
            assert!(expand(quote!(), bad).to_string().contains("compile_error"));
        }
    }
}
