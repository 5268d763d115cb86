//! `#[cached]`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{
    Error, FnArg, GenericArgument, GenericParam, Ident, ImplItemFn, Pat, PathArguments, ReceiverKind, Result,
    ReturnType, Signature, Type,
};

use crate::companions::companions;
use crate::options::Options;

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
pub(crate) fn mentions(tokens: TokenStream, name: &Ident) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == *name,
        TokenTree::Group(group) => mentions(group.stream(), name),
        _ => false,
    })
}

/// One argument that has a name.
pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) input: FnArg,
    pub(crate) is_skipped: bool,
}

/// The arguments without `self`.
fn arguments(signature: &Signature, options: &Options) -> Result<Vec<Argument>> {
    let mut arguments = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                if !matches!(receiver.kind, ReceiverKind::Reference(_, _, None)) {
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
pub(crate) enum Place {
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

/// Makes the key of a call.
pub(crate) struct KeyMaker<'o> {
    prefix: TokenStream,
    parts: TokenStream,
    krate: &'o syn::Path,
}

impl KeyMaker<'_> {
    pub(crate) fn expression(&self) -> TokenStream {
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
                Some(quote!(&#krate::type_part(::std::any::type_name::<#name>())))
            }
            GenericParam::Const(parameter) => {
                let name = &parameter.ident;
                Some(quote!(&::std::format!("{:?}", #name)))
            }
            GenericParam::Lifetime(_) => None,
        })
        .collect();
    for argument in arguments {
        if Borrows::of(&argument.input).impl_trait {
            let name = &argument.name;
            types.push(quote!(&#krate::type_part(::std::any::type_name_of_val(&#name))));
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
            let text = name.unraw().to_string();
            // "key" stands for a whole key, whose parts stand by themselves.
            let text = if text == "key" { "key.key".to_owned() } else { text };
            parts.extend(add(quote!(#name), &text, name.span()));
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
