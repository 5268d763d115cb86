//! Errors of the client as errors of a backend.

use hitbox_backend::core::{BackendError, ErrorKind};
use redis::RedisError;

pub(crate) fn backend_error(error: RedisError) -> BackendError {
    let (kind, message) = if error.is_timeout() {
        (ErrorKind::Timeout, "the server did not answer in time")
    } else if error.is_io_error() || error.is_connection_dropped() || error.is_connection_refusal() {
        (ErrorKind::Connection, "the server cannot be reached")
    } else if error.is_unrecoverable_error() {
        (ErrorKind::Connection, "the connection is of no use")
    } else {
        (ErrorKind::Protocol, "the server refused the command")
    };
    BackendError::new(kind, message).with_source(error)
}

/// Whether a key holds another type of value than a string.
pub(crate) fn is_wrong_type(error: &BackendError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<RedisError>());
    error.kind() == ErrorKind::Protocol && source.is_some_and(|e| e.to_string().contains("WRONGTYPE"))
}
