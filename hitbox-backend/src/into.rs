//! What can stand in an expression: any backend, and any store, which gets a leaf of its own.

use std::any::Any;
use std::sync::Arc;

use crate::backend::Backend;
use crate::leaf::{Leaf, LeafOptions};
use crate::store::Store;

/// A backend, or a store that becomes one. `compose`, every wrapper and `Cache::builder` take it.
///
/// `Kind` tells the two apart and is always inferred.
pub trait IntoBackend<Kind>: Sized {
    /// The backend that it becomes.
    type Backend: Backend;

    /// The backend.
    fn into_backend(self) -> Self::Backend;

    /// The backend as a trait object.
    fn into_shared(self) -> Arc<dyn Backend> {
        let backend = self.into_backend();
        // What is shared already needs no second pointer.
        let shared = (&backend as &dyn Any).downcast_ref::<Arc<dyn Backend>>().cloned();
        shared.unwrap_or_else(|| Arc::new(backend))
    }
}

/// The kind of what is a backend.
#[derive(Debug)]
pub struct IsBackend;

/// The kind of what is a store.
#[derive(Debug)]
pub struct IsStore;

impl<B: Backend> IntoBackend<IsBackend> for B {
    type Backend = B;

    fn into_backend(self) -> B {
        self
    }
}

impl<S: Store> IntoBackend<IsStore> for S {
    type Backend = Leaf<S>;

    fn into_backend(self) -> Leaf<S> {
        Leaf::new(self, LeafOptions::new("store"))
    }
}
