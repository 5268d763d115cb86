//! `#[derive(ToKey)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Result};

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(
            input.ident.span(),
            "ToKey is for structs: an enum has to say what its key is",
        ));
    };
    let mut parts = Vec::new();
    for (index, field) in data.fields.iter().enumerate() {
        let mut name = match &field.ident {
            Some(name) => name.to_string(),
            None => index.to_string(),
        };
        let mut skip = false;
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("key")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("skip") {
                    skip = true;
                } else if meta.path.is_ident("name") {
                    name = meta.value()?.parse::<LitStr>()?.value();
                } else {
                    return Err(meta.error("a field takes `skip` or `name = \"…\"`"));
                }
                Ok(())
            })?;
        }
        if skip {
            continue;
        }
        let member = match &field.ident {
            Some(name) => quote!(#name),
            None => {
                let index = syn::Index::from(index);
                quote!(#index)
            }
        };
        let span = field.ty.span();
        parts.push(quote::quote_spanned! {span=>
            key = ::hitbox::ToKey::add_to(&self.#member, key, &::hitbox::inner_name(name, #name));
        });
    }
    if parts.is_empty() && !matches!(data.fields, Fields::Unit) && !data.fields.is_empty() {
        return Err(Error::new(input.ident.span(), "all fields are skipped: every value would have one key"));
    }
    let name = &input.ident;
    let mut generics = input.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(syn::parse_quote!(::hitbox::ToKey));
    }
    let (impls, types, bounds) = generics.split_for_impl();
    Ok(quote! {
        impl #impls ::hitbox::ToKey for #name #types #bounds {
            fn add_to(
                &self,
                mut key: ::hitbox::core::CacheKeyBuilder,
                name: &str,
            ) -> ::hitbox::core::CacheKeyBuilder {
                #(#parts)*
                key
            }
        }
    })
}
