//! `#[cached]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{
    Error, Expr, FnArg, GenericArgument, Ident, ImplItemFn, Pat, PathArguments, Result, ReturnType,
    Signature, Token, Type, parenthesized,
};

/// What stands in the parentheses.
struct Options {
    cache: Expr,
    skip: Vec<Ident>,
    key: Option<Expr>,
    option_as_value: bool,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let (mut cache, mut skip, mut key, mut option_as_value) = (None, Vec::new(), None, false);
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            match name.to_string().as_str() {
                "cache" => {
                    input.parse::<Token![=]>()?;
                    cache = Some(input.parse()?);
                }
                "key" => {
                    input.parse::<Token![=]>()?;
                    key = Some(input.parse()?);
                }
                "skip" => {
                    let names;
                    parenthesized!(names in input);
                    skip.extend(Punctuated::<Ident, Token![,]>::parse_terminated(&names)?);
                }
                "option_as_value" => option_as_value = true,
                other => {
                    let what =
                        format!("there is no option `{other}`: use cache, key, skip or option_as_value");
                    return Err(Error::new(name.span(), what));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let cache = cache.ok_or_else(|| {
            Error::new(
                Span::call_site(),
                "say which cache: `#[cached(cache = …)]`, an expression of type `Cache<T>`",
            )
        })?;
        Ok(Self { cache, skip, key, option_as_value })
    }
}

/// What a function returns, as far as caching is concerned.
enum Returns {
    /// `Result<T, E>`
    Result(Type),
    /// `Result<Option<T>, E>`
    ResultOfOption(Type),
    /// `Option<T>`
    Option,
    /// `T`
    Value,
}

/// The first argument of a generic type of this name.
fn argument_of(ty: &Type, name: &str) -> Option<Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    })
}

impl Returns {
    fn of(ty: &Type, option_as_value: bool) -> Self {
        match argument_of(ty, "Result") {
            Some(inner) if !option_as_value && argument_of(&inner, "Option").is_some() => {
                Self::ResultOfOption(ty.clone())
            }
            Some(_) => Self::Result(ty.clone()),
            None if !option_as_value && argument_of(ty, "Option").is_some() => Self::Option,
            None => Self::Value,
        }
    }
}

/// Finds what keeps a type from being owned for ever.
#[derive(Default)]
struct Borrows(bool);

impl Visit<'_> for Borrows {
    fn visit_type_reference(&mut self, _: &syn::TypeReference) {
        self.0 = true;
    }

    fn visit_type_impl_trait(&mut self, _: &syn::TypeImplTrait) {
        self.0 = true;
    }

    fn visit_lifetime(&mut self, lifetime: &syn::Lifetime) {
        self.0 |= lifetime.ident != "static";
    }
}

/// The arguments with names, without `self`.
fn arguments(signature: &Signature, options: &Options) -> Result<Vec<Ident>> {
    let mut names = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                if receiver.reference.is_none() || receiver.mutability.is_some() {
                    return Err(Error::new(receiver.span(), "a cached method takes `&self`"));
                }
            }
            FnArg::Typed(argument) => match &*argument.pat {
                Pat::Ident(name) if name.subpat.is_none() => names.push(name.ident.clone()),
                pattern => {
                    return Err(Error::new(pattern.span(), "an argument of a cached function needs a name"));
                }
            },
        }
    }
    for skipped in &options.skip {
        if !names.contains(skipped) {
            return Err(Error::new(skipped.span(), format!("there is no argument `{skipped}` to skip")));
        }
    }
    Ok(names)
}

pub(crate) fn expand(attributes: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options: Options = syn::parse2(attributes)?;
    // A function outside of an `impl` is one inside without `self`.
    let mut function: ImplItemFn = syn::parse2(item)?;
    let signature = function.sig.clone();
    if signature.asyncness.is_none() {
        return Err(Error::new(
            signature.fn_token.span,
            "a cached function is `async`: it waits for layers and loads",
        ));
    }
    let ReturnType::Type(_, returned) = &signature.output else {
        return Err(Error::new(signature.ident.span(), "a cached function returns something to be cached"));
    };
    let names = arguments(&signature, &options)?;
    let is_method = signature.receiver().is_some();

    let (name, cache) = (&signature.ident, &options.cache);
    let (generics, _, bounds) = signature.generics.split_for_impl();
    let inputs = &signature.inputs;
    let path = if is_method {
        quote!(&::std::format!("{}::{}", ::std::any::type_name::<Self>(), ::std::stringify!(#name)))
    } else {
        quote!(::std::concat!(::std::module_path!(), "::", ::std::stringify!(#name)))
    };
    let key = if let Some(key) = &options.key {
        quote!(::hitbox::ToKey::add_to(&#key, key, "key"))
    } else {
        let parts = names.iter().filter(|name| !options.skip.contains(name)).map(|name| {
            let text = name.to_string();
            quote_spanned!(name.span()=> let key = ::hitbox::ToKey::add_to(&#name, key, #text);)
        });
        quote!({ #(#parts)* key })
    };
    let make_key = |path: &TokenStream| {
        quote! {{
            let key = ::hitbox::core::CacheKey::builder(#path);
            #key.build()
        }}
    };
    let own_key = make_key(&path);
    // The module beside a function has the function's path.
    let companions_key = make_key(&if is_method { path } else { quote!(::std::module_path!()) });

    let mut borrows = Borrows(is_method || !signature.generics.params.is_empty());
    signature.inputs.iter().for_each(|input| borrows.visit_fn_arg(input));
    let returns = Returns::of(returned, options.option_as_value);
    let is_optional = matches!(returns, Returns::Option | Returns::ResultOfOption(_));
    let load = match (is_optional, borrows.0) {
        (false, true) => quote!(get_or_load_scoped),
        (false, false) => quote!(get_or_load),
        (true, true) => quote!(get_or_load_optional_scoped),
        (true, false) => quote!(get_or_load_optional),
    };
    let body = &function.block;
    // Tells the compiler what `?` and `return` are about.
    let work = quote! {{
        #[allow(unreachable_code, clippy::diverging_sub_expression, clippy::needless_return)]
        if false {
            let __never: #returned = loop {};
            return __never;
        }
        #body
    }};
    let work = match &returns {
        Returns::Result(_) | Returns::ResultOfOption(_) => quote!(move || async move #work),
        Returns::Option | Returns::Value => {
            quote!(move || async move {
                ::std::result::Result::<#returned, ::std::convert::Infallible>::Ok((async move #work).await)
            })
        }
    };
    let answer = match &returns {
        Returns::Result(ty) | Returns::ResultOfOption(ty) => quote_spanned! {ty.span()=>
            match __response {
                ::std::result::Result::Ok(response) => ::std::result::Result::Ok(response.value),
                ::std::result::Result::Err(error) => ::std::result::Result::Err(::std::convert::From::from(error)),
            }
        },
        Returns::Option | Returns::Value => quote! {
            match __response {
                ::std::result::Result::Ok(served) => served.value,
                ::std::result::Result::Err(error) => ::std::panic!("{error}"),
            }
        },
    };
    function.block = syn::parse2(quote! {{
        let __key = #own_key;
        let __cache = &#cache;
        let __response = __cache.entry(__key).#load(#work).await;
        #answer
    }})?;

    // An error type may be `LoadError` itself.
    function.attrs.push(syn::parse_quote!(#[allow(clippy::useless_conversion)]));

    let visibility = &function.vis;
    let (key_name, invalidate_name) = if is_method {
        (format_ident!("{name}_key"), format_ident!("{name}_invalidate"))
    } else {
        (format_ident!("key"), format_ident!("invalidate"))
    };
    let about_key = format!("The key under which [`{name}`] caches what it returns for these arguments.");
    let about_invalidate = format!("Removes what [`{name}`] has cached for these arguments.");
    let companions = |visibility: TokenStream| {
        quote! {
            #[doc = #about_key]
            #[allow(unused_variables, dead_code, clippy::too_many_arguments)]
            #visibility fn #key_name #generics (#inputs) -> ::hitbox::core::CacheKey #bounds {
                #companions_key
            }

            #[doc = #about_invalidate]
            ///
            /// # Errors
            /// If any layer failed to remove it.
            #[allow(unused_variables, dead_code, clippy::too_many_arguments)]
            #visibility async fn #invalidate_name #generics (#inputs)
                -> ::hitbox::core::BackendResult<::hitbox::backend::DeleteStatus> #bounds
            {
                let __key = #companions_key;
                let __cache = &#cache;
                __cache.remove(__key).await
            }
        }
    };
    if is_method {
        let companions = companions(quote!(#visibility));
        return Ok(quote!(#function #companions));
    }
    let companions = companions(quote!(pub));
    let about = format!("What belongs to the cached function [`{name}`](fn@super::{name}).");
    Ok(quote! {
        #function

        #[doc = #about]
        #visibility mod #name {
            #[allow(unused_imports)]
            use super::*;

            #companions
        }
    })
}
