//! Errors of the file system as errors of a backend.

use std::error::Error;
use std::io;
use std::path::Path;

use hitbox_backend::core::{BackendError, ErrorKind};

/// `what` could not be done to `path`.
pub(crate) fn io_error(what: &str, path: &Path, error: io::Error) -> BackendError {
    BackendError::new(ErrorKind::Io, format!("cannot {what} {}", path.display())).with_source(error)
}

/// The folder cannot be used.
pub(crate) fn unusable(message: String) -> BackendError {
    BackendError::new(ErrorKind::Configuration, message)
}

/// What the file system said, if it was asked.
pub(crate) fn io_kind(error: &BackendError) -> Option<io::ErrorKind> {
    error.source()?.downcast_ref::<io::Error>().map(io::Error::kind)
}
