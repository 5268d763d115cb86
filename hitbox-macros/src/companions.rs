//! What stands beside a cached function: the key of a call, and its invalidation.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::{FnArg, ImplItemFn, Token, Visibility};

use crate::cached::{Argument, KeyMaker, Place, mentions};
use crate::options::Options;

/// The visibility, one module further in, of what is seen as `visibility` says.
fn from_within(visibility: &Visibility) -> TokenStream {
    let Visibility::Restricted(restricted) = visibility else {
        return match visibility {
            Visibility::Inherited => quote!(pub(super)),
            visibility => quote!(#visibility),
        };
    };
    let path = &restricted.path;
    match path.segments.first().map(|segment| segment.ident.to_string()).as_deref() {
        Some("super") => quote!(pub(in super::#path)),
        Some("self") => quote!(pub(super)),
        _ => quote!(#visibility),
    }
}

/// Functions for the key of a call and for its invalidation.
pub(crate) fn companions(
    function: &ImplItemFn,
    options: &Options,
    arguments: &[Argument],
    key: &KeyMaker<'_>,
    place: Place,
) -> TokenStream {
    let ImplItemFn { vis: visibility, sig: signature, .. } = function;
    let (name, cache, krate) = (&signature.ident, &options.cache, &options.krate);
    let is_async = signature.asyncness.is_some();
    let (generics, _, bounds) = signature.generics.split_for_impl();
    let about_key = format!("The key under which [`{name}`] caches what it returns for these arguments.");
    let about_invalidate = format!("Removes what [`{name}`] has cached for these arguments.");
    let bare = name.unraw();
    let (key_name, invalidate_name) = match place {
        Place::Module => (format_ident!("__{bare}_key"), format_ident!("__{bare}_invalidate")),
        _ => (format_ident!("{bare}_key"), format_ident!("{bare}_invalidate")),
    };
    // Arguments that are left out are not asked for, unless the key or the cache is made of them.
    let inputs = |uses: TokenStream| -> Punctuated<FnArg, Token![,]> {
        let receiver = signature.inputs.iter().filter(|input| matches!(input, FnArg::Receiver(_)));
        let others = arguments.iter().filter(|argument| {
            let is_part = options.key.is_none() && !argument.is_skipped;
            is_part || mentions(uses.clone(), &argument.name)
        });
        receiver.chain(others.map(|argument| &argument.input)).cloned().collect()
    };
    let key_expression = key.expression();
    let key_inputs = inputs(key_expression.clone());
    let invalidate_inputs = inputs(quote!(#key_expression #cache));
    let hidden = (place == Place::Module).then(|| quote!(#[doc(hidden)]));
    let asyncness = is_async.then(|| quote!(async));
    let remove = quote!(__hitbox_cache.remove(__hitbox_key));
    let removed = if is_async { quote!(#remove.await) } else { quote!(#krate::wait(#remove)) };
    let functions = quote! {
        #[doc = #about_key]
        #hidden
        #[allow(unused_variables, unused_mut, dead_code, clippy::too_many_arguments)]
        #visibility fn #key_name #generics (#key_inputs) -> #krate::core::CacheKey #bounds {
            #key_expression
        }

        #[doc = #about_invalidate]
        ///
        /// # Errors
        /// If any layer failed to remove it.
        #hidden
        #[allow(unused_variables, unused_mut, dead_code, clippy::too_many_arguments)]
        #visibility #asyncness fn #invalidate_name #generics (#invalidate_inputs)
            -> #krate::core::BackendResult<#krate::backend::DeleteStatus> #bounds
        {
            let __hitbox_key = #key_expression;
            let __hitbox_cache = &#cache;
            #removed
        }
    };
    if place != Place::Module {
        return functions;
    }
    let about = format!("What belongs to the cached function [`{name}`](fn@super::{name}).");
    let seen = from_within(visibility);
    quote! {
        #functions

        #[doc = #about]
        #[allow(unused_imports)]
        #visibility mod #name {
            #[doc(inline)]
            #seen use super::#key_name as key;
            #[doc(inline)]
            #seen use super::#invalidate_name as invalidate;
        }
    }
}
