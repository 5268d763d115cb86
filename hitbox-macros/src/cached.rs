//! `#[cached]`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{
    Error, Expr, ExprArray, FnArg, GenericArgument, GenericParam, Ident, ImplItemFn, Pat, PathArguments,
    Result, ReturnType, Signature, Token, Type, Visibility, parenthesized,
};

const OPTIONS: &str =
    "cache, key, self_key, skip, name, ttl, stale, tags, option_as_value, associated, trait_impl or crate";

/// What stands in the parentheses.
struct Options {
    cache: Expr,
    skip: Vec<Ident>,
    key: Option<Expr>,
    self_key: Option<Expr>,
    name: Option<Expr>,
    ttl: Option<Expr>,
    stale: Option<Expr>,
    tags: Vec<Expr>,
    option_as_value: bool,
    associated: bool,
    trait_impl: Option<Span>,
    krate: syn::Path,
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

/// The last segment of a path, if its name is this.
fn last_of<'t>(ty: &'t Type, name: &str) -> Option<&'t syn::PathSegment> {
    let Type::Path(path) = ty else { return None };
    path.path.segments.last().filter(|segment| segment.ident == name)
}

/// The first argument of a generic type of this name.
fn argument_of(ty: &Type, name: &str) -> Option<Type> {
    let PathArguments::AngleBracketed(arguments) = &last_of(ty, name)?.arguments else { return None };
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

/// Finds what keeps a type from being owned for ever, and types that have no name.
#[derive(Default)]
struct Borrows {
    something: bool,
    impl_trait: bool,
}

impl Visit<'_> for Borrows {
    fn visit_type_reference(&mut self, reference: &syn::TypeReference) {
        self.something = true;
        syn::visit::visit_type_reference(self, reference);
    }

    fn visit_type_impl_trait(&mut self, _: &syn::TypeImplTrait) {
        (self.something, self.impl_trait) = (true, true);
    }

    fn visit_lifetime(&mut self, lifetime: &syn::Lifetime) {
        self.something |= lifetime.ident != "static";
    }
}

impl Borrows {
    fn of(argument: &FnArg) -> Self {
        let mut borrows = Self::default();
        borrows.visit_fn_arg(argument);
        borrows
    }
}

/// Whether this name stands somewhere in there.
fn mentions(tokens: TokenStream, name: &Ident) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == *name,
        TokenTree::Group(group) => mentions(group.stream(), name),
        _ => false,
    })
}

/// One argument that has a name.
struct Argument {
    name: Ident,
    input: FnArg,
    is_skipped: bool,
}

/// The arguments without `self`.
fn arguments(signature: &Signature, options: &Options) -> Result<Vec<Argument>> {
    let mut arguments = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                if receiver.reference.is_none() || receiver.mutability.is_some() {
                    return Err(Error::new(receiver.span(), "a cached method takes `&self`"));
                }
                let is_told = options.key.is_some()
                    || options.self_key.is_some()
                    || options.skip.iter().any(|skipped| skipped == "self");
                if !is_told {
                    return Err(Error::new(
                        receiver.span(),
                        "say what of `self` belongs to the key: `self_key = self.id`, or `skip(self)` if all values of \
                         the type may share what is cached",
                    ));
                }
            }
            FnArg::Typed(argument) => match &*argument.pat {
                Pat::Ident(name) if name.subpat.is_none() => {
                    let name = name.ident.clone();
                    let is_skipped = options.skip.contains(&name);
                    arguments.push(Argument { name, input: input.clone(), is_skipped });
                }
                pattern => {
                    return Err(Error::new(pattern.span(), "an argument of a cached function needs a name"));
                }
            },
        }
    }
    for skipped in &options.skip {
        let is_self = skipped == "self" && signature.receiver().is_some();
        if !is_self && !arguments.iter().any(|argument| argument.name == *skipped) {
            return Err(Error::new(skipped.span(), format!("there is no argument `{skipped}` to skip")));
        }
    }
    if let (Some(key), None) = (&options.self_key, signature.receiver()) {
        return Err(Error::new(key.span(), "`self_key` is for methods: there is no `self` here"));
    }
    Ok(arguments)
}

/// Where a function stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Module,
    Impl,
    TraitImpl,
}

fn place(function: &ImplItemFn, options: &Options) -> Result<Place> {
    if let Some(span) = options.trait_impl {
        if options.name.is_none() {
            return Err(Error::new(
                span,
                "a method of a trait needs a `name = \"…\"` of its own: two traits may call a method alike",
            ));
        }
        return Ok(Place::TraitImpl);
    }
    let own_type = Ident::new("Self", Span::call_site());
    let uses_own_type = mentions(function.sig.to_token_stream(), &own_type)
        || mentions(function.block.to_token_stream(), &own_type);
    let is_in_impl = function.sig.receiver().is_some() || options.associated || uses_own_type;
    Ok(if is_in_impl { Place::Impl } else { Place::Module })
}

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

/// Makes the key of a call.
struct KeyMaker<'o> {
    prefix: TokenStream,
    parts: TokenStream,
    krate: &'o syn::Path,
}

impl KeyMaker<'_> {
    fn expression(&self) -> TokenStream {
        let Self { prefix, parts, krate } = self;
        quote! {{
            let __hitbox_key = #krate::core::CacheKey::builder(#prefix);
            #parts
            __hitbox_key.build()
        }}
    }
}

fn key_maker<'o>(
    signature: &Signature,
    options: &'o Options,
    arguments: &[Argument],
    place: Place,
) -> KeyMaker<'o> {
    let (name, krate) = (&signature.ident, &options.krate);
    let text = name.unraw().to_string();
    let path = match (&options.name, place) {
        (Some(name), _) => quote!(#name),
        (None, Place::Module) => quote!(::std::concat!(::std::module_path!(), "::", #text)),
        (None, _) => quote!(::std::format!("{}::{}", ::std::any::type_name::<Self>(), #text)),
    };
    // What a generic function returns may depend on its types.
    let mut types: Vec<TokenStream> = signature
        .generics
        .params
        .iter()
        .filter_map(|parameter| match parameter {
            GenericParam::Type(parameter) => {
                let name = &parameter.ident;
                Some(quote!(::std::any::type_name::<#name>()))
            }
            GenericParam::Const(parameter) => {
                let name = &parameter.ident;
                Some(quote!(&::std::format!("{:?}", #name)))
            }
            GenericParam::Lifetime(_) => None,
        })
        .collect();
    for argument in arguments.iter().filter(|argument| !argument.is_skipped) {
        if Borrows::of(&argument.input).impl_trait {
            let name = &argument.name;
            types.push(quote!(::std::any::type_name_of_val(&#name)));
        }
    }
    let prefix = if types.is_empty() {
        quote!(::std::convert::AsRef::<str>::as_ref(&#path))
    } else {
        quote!(&{
            let __hitbox_types: &[&str] = &[#(#types),*];
            ::std::format!("{}<{}>", #path, __hitbox_types.join(", "))
        })
    };
    let add = |value: TokenStream, text: &str, span: Span| quote_spanned!(span=> let __hitbox_key = #krate::ToKey::add_to(&#value, __hitbox_key, #text););
    let mut parts = TokenStream::new();
    if let Some(own) = &options.self_key {
        parts.extend(add(quote!(#own), "self", own.span()));
    }
    if let Some(key) = &options.key {
        parts.extend(add(quote!(#key), "key", key.span()));
    } else {
        for Argument { name, .. } in arguments.iter().filter(|argument| !argument.is_skipped) {
            parts.extend(add(quote!(#name), &name.unraw().to_string(), name.span()));
        }
    }
    KeyMaker { prefix, parts, krate }
}

pub(crate) fn expand(attributes: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options: Options = syn::parse2(attributes)?;
    // A function outside of an `impl` is one inside without `self`.
    let mut function: ImplItemFn = syn::parse2(item)?;
    let signature = function.sig.clone();
    let ReturnType::Type(_, returned) = &signature.output else {
        return Err(Error::new(signature.ident.span(), "a cached function returns something to be cached"));
    };
    let is_async = signature.asyncness.is_some();
    if !is_async && last_of(returned, "Pin").is_some() {
        return Err(Error::new(
            returned.span(),
            "a function that returns a future is cached where it is written as `async fn`: put `#[cached]` on a method of \
             the type, and call that from the trait",
        ));
    }
    let arguments = arguments(&signature, &options)?;
    let place = place(&function, &options)?;
    let key = key_maker(&signature, &options, &arguments, place);

    let (cache, krate) = (&options.cache, &options.krate);
    let borrows = !is_async
        || place != Place::Module
        || !signature.generics.params.is_empty()
        || signature.inputs.iter().any(|input| Borrows::of(input).something);
    let returns = Returns::of(returned, options.option_as_value);
    let is_optional = matches!(returns, Returns::Option | Returns::ResultOfOption(_));
    let load = match (is_optional, borrows) {
        (false, true) => quote!(get_or_load_scoped),
        (false, false) => quote!(get_or_load),
        (true, true) => quote!(get_or_load_optional_scoped),
        (true, false) => quote!(get_or_load_optional),
    };
    let mut call_options = TokenStream::new();
    if let Some(ttl) = &options.ttl {
        call_options.extend(quote!(.ttl(#ttl)));
    }
    if let Some(stale) = &options.stale {
        call_options.extend(quote!(.stale(#stale)));
    }
    for tag in &options.tags {
        call_options.extend(quote_spanned!(tag.span()=> .tag(::std::convert::AsRef::<str>::as_ref(&#tag))));
    }
    let body = &function.block.stmts;
    // Tells the compiler what `?` and `return` are about.
    let work = quote! {{
        #[allow(unreachable_code, clippy::diverging_sub_expression, clippy::needless_return)]
        if false {
            let __hitbox_never: #returned = loop {};
            return __hitbox_never;
        }
        #(#body)*
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
            match __hitbox_response {
                ::std::result::Result::Ok(response) => ::std::result::Result::Ok(response.value),
                ::std::result::Result::Err(error) => ::std::result::Result::Err(::std::convert::From::from(error)),
            }
        },
        Returns::Option | Returns::Value => quote! {
            match __hitbox_response {
                ::std::result::Result::Ok(served) => served.value,
                ::std::result::Result::Err(error) => ::std::panic!("{error}"),
            }
        },
    };
    let wait = |work: TokenStream| if is_async { quote!(#work.await) } else { quote!(#krate::wait(#work)) };
    let own_key = key.expression();
    let response = wait(quote!(__hitbox_cache.entry(__hitbox_key) #call_options .#load(#work)));
    function.block = syn::parse2(quote! {{
        let __hitbox_key = #own_key;
        let __hitbox_cache = &#cache;
        let __hitbox_response = #response;
        #answer
    }})?;
    // An error type may be `LoadError` itself.
    function.attrs.push(syn::parse_quote!(#[allow(clippy::useless_conversion)]));
    if place == Place::TraitImpl {
        return Ok(quote!(#function));
    }
    let companions = companions(&function, &options, &arguments, &key, place);
    Ok(quote!(#function #companions))
}

/// Functions for the key of a call and for its invalidation.
fn companions(
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
