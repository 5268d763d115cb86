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
    /// The loader said that it has nothing for others.
    Declined,
    /// A loader asked for a key whose load waits for it: for its own, or for one whose loader asks for its own.
    Cycle,
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

    pub(crate) fn of_cycle(key: &CacheKey, keys: &[CacheKey]) -> Self {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let source = Some(keys.join(" → ").into());
        Self(Arc::new(Inner { kind: LoadErrorKind::Cycle, key: key.clone(), source }))
    }

    /// What happened.
    pub fn kind(&self) -> LoadErrorKind {
        self.0.kind
    }

    /// The key that was loaded.
    pub fn key(&self) -> &CacheKey {
        &self.0.key
    }

    /// The loader's error, or one of those that it says it is from, if there is one that is an `E`.
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
        let first = match source.downcast_ref::<SharedError>() {
            Some(SharedError(source)) => &**source as &(dyn Error + 'static),
            None => source,
        };
        let mut error = Some(first);
        while let Some(here) = error {
            if let Some(found) = here.downcast_ref() {
                return Some(found);
            }
            error = here.source();
        }
        None
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
            LoadErrorKind::Loader => write!(f, "the load of {key} failed")?,
            LoadErrorKind::Panicked => write!(f, "the load of {key} panicked")?,
            LoadErrorKind::TimedOut => write!(f, "the load of {key} took too long")?,
            LoadErrorKind::Cancelled => write!(f, "the load of {key} was cancelled")?,
            LoadErrorKind::NothingToKeep => {
                write!(
                    f,
                    "the loader of {key} says that nothing was modified, and no older value is there to be kept"
                )?;
            }
            LoadErrorKind::Declined => write!(f, "the loader of {key} has nothing for others")?,
            LoadErrorKind::Absent => write!(f, "the source has nothing for {key}")?,
            LoadErrorKind::Cycle => write!(f, "the load of {key} would wait for itself")?,
        }
        // The cause is part of the sentence: who prints one line is to know it.
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
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
