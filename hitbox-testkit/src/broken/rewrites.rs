//! A process that makes other writes of those that it is given: what random histories have to find.

use std::fmt;
use std::sync::Arc;

use hitbox_backend::Backend;
use hitbox_backend::operation::{Batch, Completion, Receipts, Write};
use hitbox_backend::wrap::{Wrapper, forward};

/// An expression whose writes are changed on their way in.
pub struct Rewrites {
    inner: Arc<dyn Backend>,
    rewrite: fn(&mut Write),
}

impl Rewrites {
    /// The same expression with these writes.
    pub fn new(inner: Arc<dyn Backend>, rewrite: fn(&mut Write)) -> Self {
        Self { inner, rewrite }
    }
}

impl fmt::Debug for Rewrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewrites").finish_non_exhaustive()
    }
}

impl Wrapper for Rewrites {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { inner, ..*self })
    }

    fn write(&self, mut writes: Batch<Write>) -> Completion<'_, Receipts> {
        writes.iter_mut().for_each(self.rewrite);
        forward::write(self, writes)
    }
}
