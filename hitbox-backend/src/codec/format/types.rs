//! What a record says of the type that it holds.

use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use serde::de::DeserializeOwned;
use twox_hash::XxHash3_64;

use super::Format;
use super::shape::Shape;

/// A number for a type, and for its shape too in formats that depend on it. 0 is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeTag(u64);

impl TypeTag {
    /// Of a record that does not say what it holds.
    pub(crate) const UNSAID: Self = Self(0);

    pub(crate) fn of<T: DeserializeOwned + 'static>(format: Format) -> Self {
        if format == Format::Opaque {
            return Self::UNSAID;
        }
        let seed = if format.is_positional() { shape::<T>().fingerprint } else { 0 };
        Self(XxHash3_64::oneshot_with_seed(seed, own_name::<T>().as_bytes()).max(1))
    }

    /// Whether a record of this tag may hold a value of another one.
    pub(crate) fn fits(self, wanted: Self) -> bool {
        self == Self::UNSAID || self == wanted
    }

    pub(crate) const fn from_wire(tag: u64) -> Self {
        Self(tag)
    }

    pub(crate) const fn to_wire(self) -> u64 {
        self.0
    }
}

/// Pointers that serde looks through.
const POINTERS: [&str; 4] =
    ["alloc::sync::Arc<", "alloc::boxed::Box<", "alloc::rc::Rc<", "alloc::borrow::Cow<"];

/// The name of a type without pointers around it: an `Arc<T>` is read as a `T`.
pub(crate) fn own_name<T>() -> &'static str {
    let mut name = type_name::<T>();
    while let Some(inner) = POINTERS.iter().find_map(|pointer| name.strip_prefix(pointer)?.strip_suffix('>'))
    {
        name = inner.strip_prefix("'_, ").unwrap_or(inner);
    }
    if name == "str" { type_name::<String>() } else { name }
}

/// The shape of a type, which is found out once.
pub(super) fn shape<T: DeserializeOwned + 'static>() -> &'static Shape {
    static KNOWN: RwLock<Option<HashMap<TypeId, &'static Shape>>> = RwLock::new(None);
    let id = TypeId::of::<T>();
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(shape) = known.as_ref().and_then(|known| known.get(&id)) {
        return shape;
    }
    drop(known);
    // Without a lock, since it runs code of the type. A type is described once or, by threads that meet, a few times: the
    // program has as many types as it has.
    let shape: &'static Shape = Box::leak(Box::new(Shape::of::<T>()));
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().entry(id).or_insert(shape)
}
