//! Names of layers and dotted paths of leaves.
//!
//! Labels are interned: one is two words wide, `Copy`, and compared by content. A process has as many
//! labels as its configuration names, so interned text is never freed.

use std::collections::HashSet;
use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

/// The name of a layer (`moka`), or the dotted path of a leaf within a composition
/// (`outer.inner.moka`).
///
/// ```
/// use hitbox_core::BackendLabel;
/// let path = BackendLabel::new("outer").join("inner".into()).join("moka".into());
/// assert_eq!(path.as_str(), "outer.inner.moka");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendLabel(&'static str);

static INTERNED: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

impl BackendLabel {
    /// The label of this text. Costs a look-up under a lock: make labels when you build, not when you
    /// read.
    pub fn new(text: &str) -> Self {
        let mut interned = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = interned.get(text) {
            return Self(known);
        }
        let leaked: &'static str = Box::leak(text.into());
        interned.insert(leaked);
        Self(leaked)
    }

    /// As one part of a path: a dot in it becomes `_`, since dots stand between parts.
    #[must_use]
    pub fn as_part(self) -> Self {
        if self.0.contains('.') { Self::new(&self.0.replace('.', "_")) } else { self }
    }

    /// `self.child`.
    pub fn join(self, child: Self) -> Self {
        Self::new(&format!("{}.{}", self.0, child.0))
    }

    /// The text.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl From<&str> for BackendLabel {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for BackendLabel {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl fmt::Display for BackendLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for BackendLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
