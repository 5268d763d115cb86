//! Why a value could not be loaded.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use hitbox_core::CacheKey;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// A load came to nothing. Every caller that waited for it gets a clone.
///
/// It says what happened and of which key; [`source`](Error::source) is the loader's own error, and
/// [`loader_error`](Self::loader_error) hands it out by its type.
#[derive(Clone)]
pub struct LoadError(Arc<Inner>);

struct Inner {
    kind: LoadErrorKind,
    key: CacheKey,
    source: Option<BoxError>,
}

/// What happened to a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadErrorKind {
    /// The loader returned an error.
    Loader,
    /// The loader panicked. The caller that ran it gets the panic itself.
    Panicked,
    /// The caller waited as long as it would.
    TimedOut,
    /// The load was cancelled by a shutdown.
    Cancelled,
    /// The loader said "not modified", and there is nothing that could have been.
    NothingToKeep,
    /// The loader said that the source has nothing, and the caller asked for a value.
    Absent,
}

impl LoadError {
    pub(crate) fn new(kind: LoadErrorKind, key: &CacheKey) -> Self {
        Self(Arc::new(Inner { kind, key: key.clone(), source: None }))
    }

    pub(crate) fn of_loader(key: &CacheKey, source: BoxError) -> Self {
        Self(Arc::new(Inner { kind: LoadErrorKind::Loader, key: key.clone(), source: Some(source) }))
    }

    pub(crate) fn of_panic(key: &CacheKey, message: &str) -> Self {
        let source = Some(message.to_owned().into());
        Self(Arc::new(Inner { kind: LoadErrorKind::Panicked, key: key.clone(), source }))
    }

    /// What happened.
    pub fn kind(&self) -> LoadErrorKind {
        self.0.kind
    }

    /// The key that was loaded.
    pub fn key(&self) -> &CacheKey {
        &self.0.key
    }

    /// The loader's error, if there is one and it is an `E`.
    ///
    /// ```
    /// # use hitbox::{Cache, LoadErrorKind};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let cache: Cache<u32> = Cache::null();
    /// let load = || async { "x".parse::<u32>() };
    /// let error = cache.get_or_load(1, load).await.unwrap_err();
    /// assert_eq!(error.kind(), LoadErrorKind::Loader);
    /// assert!(error.loader_error::<std::num::ParseIntError>().is_some());
    /// # }
    /// ```
    pub fn loader_error<E: Error + 'static>(&self) -> Option<&E> {
        let source: &(dyn Error + 'static) = self.0.source.as_deref()?;
        match source.downcast_ref::<SharedError>() {
            Some(SharedError(source)) => (&**source as &(dyn Error + 'static)).downcast_ref(),
            None => source.downcast_ref(),
        }
    }
}

impl fmt::Debug for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadError")
            .field("kind", &self.0.kind)
            .field("key", &self.0.key)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.0.key;
        match self.0.kind {
            LoadErrorKind::Loader => write!(f, "the load of {key} failed"),
            LoadErrorKind::Panicked => write!(f, "the load of {key} panicked"),
            LoadErrorKind::TimedOut => write!(f, "the load of {key} took too long"),
            LoadErrorKind::Cancelled => write!(f, "the load of {key} was cancelled"),
            LoadErrorKind::NothingToKeep => write!(f, "the load of {key} left nothing modified of nothing"),
            LoadErrorKind::Absent => write!(f, "the source has nothing for {key}"),
        }
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// The error of a batch, as each of its keys has it.
#[derive(Clone, Debug)]
pub(crate) struct SharedError(pub(crate) Arc<dyn Error + Send + Sync>);

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for SharedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
