//! What stands in the parentheses of `#[cached(…)]`.

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Expr, ExprArray, Ident, Result, Token, parenthesized};

const OPTIONS: &str =
    "cache, key, self_key, skip, name, ttl, stale, tags, option_as_value, associated, trait_impl or crate";

/// What stands in the parentheses.
pub(crate) struct Options {
    pub(crate) cache: Expr,
    pub(crate) skip: Vec<Ident>,
    pub(crate) key: Option<Expr>,
    pub(crate) self_key: Option<Expr>,
    pub(crate) name: Option<Expr>,
    pub(crate) ttl: Option<Expr>,
    pub(crate) stale: Option<Expr>,
    pub(crate) tags: Vec<Expr>,
    pub(crate) option_as_value: bool,
    pub(crate) associated: bool,
    pub(crate) trait_impl: Option<Span>,
    pub(crate) krate: syn::Path,
}

fn value<T: Parse>(input: ParseStream<'_>) -> Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut cache = None;
        let mut options = Self {
            cache: syn::parse_quote!(()),
            skip: Vec::new(),
            key: None,
            self_key: None,
            name: None,
            ttl: None,
            stale: None,
            tags: Vec::new(),
            option_as_value: false,
            associated: false,
            trait_impl: None,
            krate: syn::parse_quote!(::hitbox),
        };
        while !input.is_empty() {
            let name = Ident::parse_any(input)?;
            match name.to_string().as_str() {
                "cache" => cache = Some(value(input)?),
                "key" => options.key = Some(value(input)?),
                "self_key" => options.self_key = Some(value(input)?),
                "name" => options.name = Some(value(input)?),
                "ttl" => options.ttl = Some(value(input)?),
                "stale" => options.stale = Some(value(input)?),
                "tags" => options.tags = value::<ExprArray>(input)?.elems.into_iter().collect(),
                "skip" => {
                    let names;
                    parenthesized!(names in input);
                    options.skip.extend(names.parse_terminated(Ident::parse_any, Token![,])?);
                }
                "option_as_value" => options.option_as_value = true,
                "associated" => options.associated = true,
                "trait_impl" => options.trait_impl = Some(name.span()),
                "crate" => {
                    input.parse::<Token![=]>()?;
                    options.krate = syn::Path::parse_mod_style(input)?;
                }
                other => {
                    let what = format!("there is no option `{other}`: use {OPTIONS}");
                    return Err(Error::new(name.span(), what));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        options.cache = cache.ok_or_else(|| {
            Error::new(
                Span::call_site(),
                "say which cache: `#[cached(cache = …)]`, an expression of type `Cache<T>`",
            )
        })?;
        Ok(options)
    }
}
