#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod cached;
mod to_key;

use proc_macro::TokenStream;

/// Makes a struct a key: its fields are parts, under their names, in their order.
///
/// A field with `#[key(skip)]` is left out; one with `#[key(name = "…")]` is named otherwise. Every field that is not
/// left out has to be a key itself.
#[proc_macro_derive(ToKey, attributes(key))]
pub fn derive_to_key(input: TokenStream) -> TokenStream {
    to_key::derive(syn::parse_macro_input!(input)).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Caches what an asynchronous function or method returns.
///
/// `#[cached(cache = EXPRESSION)]`: the expression is a `Cache` of the value, which may use the arguments and `self`.
/// The key is the full path of the function and its arguments, which have to be keys; `skip(a, b)` leaves some out, and
/// `key = EXPRESSION` replaces them.
///
/// | returns | what is cached |
/// |---|---|
/// | `Result<T, E>` | values; `E` must be made of a `LoadError` (`From`) |
/// | `Result<Option<T>, E>` | values, and absence for as long as the cache says |
/// | `Option<T>` | values, and absence for as long as the cache says |
/// | `T` | values |
///
/// Beside a function `f` there are `f::key(args)` and `f::invalidate(args)`; beside a method, `f_key` and
/// `f_invalidate`. With `option_as_value` an `Option` is a value like any other.
#[proc_macro_attribute]
pub fn cached(attributes: TokenStream, item: TokenStream) -> TokenStream {
    cached::expand(attributes.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
