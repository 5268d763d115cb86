//! `#[derive(ToKey)]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Path, Result};

/// What an attribute `#[key(…)]` says.
struct Said {
    name: Option<String>,
    skip: bool,
    krate: Option<Path>,
}

fn said(attributes: &[Attribute]) -> Result<Said> {
    let mut said = Said { name: None, skip: false, krate: None };
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("key")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("skip") {
                said.skip = true;
            } else if meta.path.is_ident("name") {
                said.name = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("crate") {
                said.krate = Some(meta.value()?.call(Path::parse_mod_style)?);
            } else {
                return Err(meta.error("a field takes `skip` or `name = \"…\"`, a type `crate = …`"));
            }
            Ok(())
        })?;
    }
    Ok(said)
}

/// The fields that are parts: under which name, and how the generated code calls them.
fn parts<'f>(fields: impl Iterator<Item = &'f Field>) -> Result<Vec<(String, Ident, &'f Field)>> {
    let mut parts = Vec::new();
    for (index, field) in fields.enumerate() {
        let said = said(&field.attrs)?;
        if said.skip {
            continue;
        }
        let own = field.ident.as_ref().map_or_else(|| index.to_string(), ToString::to_string);
        let name = said.name.unwrap_or_else(|| own.trim_start_matches("r#").to_owned());
        parts.push((name, format_ident!("__field{index}"), field));
    }
    Ok(parts)
}

/// A pattern that binds all fields that are parts.
fn pattern(fields: &Fields) -> TokenStream {
    let bound = |(index, field): (usize, &Field)| {
        let local = format_ident!("__field{index}");
        match &field.ident {
            Some(name) => quote!(#name: #local),
            None => quote!(#local),
        }
    };
    let all = fields.iter().enumerate().map(bound);
    match fields {
        Fields::Named(_) => quote!({ #(#all),* }),
        Fields::Unnamed(_) => quote!(( #(#all),* )),
        Fields::Unit => TokenStream::new(),
    }
}

fn add(parts: &[(String, Ident, &Field)], krate: &Path) -> TokenStream {
    let adds = parts.iter().map(|(name, local, field)| {
        quote_spanned! {field.ty.span()=>
            __key = #krate::ToKey::add_to(#local, __key, &#krate::inner_name(__name, #name));
        }
    });
    quote!(#(#adds)*)
}

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let krate = said(&input.attrs)?.krate.unwrap_or_else(|| syn::parse_quote!(::hitbox));
    let body = match &input.data {
        Data::Struct(data) => {
            let parts = parts(data.fields.iter())?;
            if parts.is_empty() && !data.fields.is_empty() {
                let what = "all fields are skipped: every value would have one key";
                return Err(Error::new(input.ident.span(), what));
            }
            let (pattern, add) = (pattern(&data.fields), add(&parts, &krate));
            // Every value adds a part at least.
            let nothing = parts.is_empty().then(|| quote!(__key = __key.part(__name, "");));
            quote!(let Self #pattern = self; #add #nothing)
        }
        Data::Enum(data) => {
            let mut arms = TokenStream::new();
            let mut names = Vec::new();
            for variant in &data.variants {
                let said = said(&variant.attrs)?;
                if said.skip {
                    return Err(Error::new(variant.ident.span(), "a variant cannot be skipped"));
                }
                let own = &variant.ident;
                let name = said.name.unwrap_or_else(|| own.to_string().trim_start_matches("r#").to_owned());
                if names.contains(&name) {
                    return Err(Error::new(own.span(), format!("two variants are named `{name}`")));
                }
                let (pattern, add) = (pattern(&variant.fields), add(&parts(variant.fields.iter())?, &krate));
                arms.extend(quote!(Self::#own #pattern => { __key = __key.part(__name, #name); #add }));
                names.push(name);
            }
            if names.is_empty() {
                return Err(Error::new(input.ident.span(), "an enum without variants has no values"));
            }
            quote!(match self { #arms })
        }
        Data::Union(_) => return Err(Error::new(input.ident.span(), "ToKey is for structs and enums")),
    };
    let name = &input.ident;
    let mut generics = input.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(syn::parse_quote!(#krate::ToKey));
    }
    let (impls, types, bounds) = generics.split_for_impl();
    Ok(quote! {
        impl #impls #krate::ToKey for #name #types #bounds {
            #[allow(unused_variables, unused_mut, unused_assignments)]
            fn add_to(&self, __key: #krate::core::CacheKeyBuilder, __name: &str) -> #krate::core::CacheKeyBuilder {
                let mut __key = __key;
                #body
                __key
            }
        }
    })
}
