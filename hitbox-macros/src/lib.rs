#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cached;
mod companions;
mod options;
mod to_key;

use proc_macro::TokenStream;

/// Makes a struct or an enum a key: its fields are parts, under their names, in their order; the variant of an enum is a part
/// before them.
///
/// A field with `#[key(skip)]` is left out; a field or variant with `#[key(name = "…")]` is named otherwise. Every field that
/// is not left out has to be a key itself. `#[key(crate = path)]` on the type says where `hitbox` is, if it has another name.
#[proc_macro_derive(ToKey, attributes(key))]
pub fn derive_to_key(input: TokenStream) -> TokenStream {
    to_key::derive(syn::parse_macro_input!(input)).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Caches what a function or method returns.
///
/// `#[cached(cache = EXPRESSION)]`: the expression is a `Cache` of the value, which may use the arguments and `self`.
///
/// The key is the full path of the function, its types if it is generic, and its arguments, which have to be keys.
///
/// | option | what it does |
/// |---|---|
/// | `skip(a, b)` | leaves arguments out of the key; `skip(self)` says that all values of the type share what is cached |
/// | `self_key = EXPRESSION` | what of `self` belongs to the key: one of these, or `key`, has to be said by a method |
/// | `key = EXPRESSION` | is the key, instead of the arguments |
/// | `name = EXPRESSION` | stands in the key instead of the path and of `Self`: a function that is moved keeps its entries |
/// | `ttl`, `stale` | how long what it stores is fresh, and served beyond (`Duration`) |
/// | `tags = [a, b]` | tags of what it stores, which may use the arguments |
/// | `option_as_value` | an `Option` is a value like any other |
/// | `associated` | the function stands in an `impl` and has no `self` (seen by itself if it says `Self`) |
/// | `trait_impl` | the method is one of a trait: it needs a `name`, and has no companions |
/// | `crate = PATH` | where `hitbox` is, if it has another name |
///
/// | returns | what is cached |
/// |---|---|
/// | `Result<T, E>` | values; `E` must be made of a `LoadError` (`From`) |
/// | `Result<Option<T>, E>` | values, and absence for as long as the cache says |
/// | `Option<T>` | values, and absence for as long as the cache says |
/// | `T` | values |
///
/// Beside a function `f` there are `f::key(args)` and `f::invalidate(args)`; beside a method, `f_key` and
/// `f_invalidate`. They take the arguments that are part of the key, or that the cache is made of.
///
/// A function that is not `async` blocks its thread while it waits for a layer or for another call's load. A hit in memory
/// waits for nothing.
///
/// # Panics
/// A function that is not `async` does within a task of a runtime with one thread, if it has to wait. Call it from
/// `spawn_blocking` there. One that returns no `Result` does if the load comes to nothing.
#[proc_macro_attribute]
pub fn cached(attributes: TokenStream, item: TokenStream) -> TokenStream {
    cached::expand(attributes.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
