//! Errors of the client as errors of a backend.

use hitbox_backend::core::{BackendError, ErrorKind};
use redis::{Arg, Cmd, RedisError};

use crate::scripts;

/// What a command came to nothing of.
pub(crate) fn backend_error(error: RedisError, command: &Cmd) -> BackendError {
    let (kind, message) = if let Some(denied) = denied(&error, command) {
        (ErrorKind::Configuration, denied)
    } else if error.is_timeout() {
        (ErrorKind::Timeout, "the server did not answer in time".to_owned())
    } else if error.is_io_error() || error.is_connection_dropped() || error.is_connection_refusal() {
        (ErrorKind::Connection, "the server cannot be reached".to_owned())
    } else if is_login(&error) {
        (ErrorKind::Configuration, "the server does not take the user and password of the url".to_owned())
    } else if error.to_string().contains("refused to switch database") {
        let message = "the server does not let the user choose the database of the url, which needs +select";
        (ErrorKind::Configuration, message.to_owned())
    } else if error.is_unrecoverable_error() {
        (ErrorKind::Connection, "the connection is of no use".to_owned())
    } else {
        (ErrorKind::Protocol, "the server refused the command".to_owned())
    };
    BackendError::new(kind, message).with_source(error)
}

/// What the user lacks, if the server has not let it do this.
fn denied(error: &RedisError, command: &Cmd) -> Option<String> {
    let text = error.to_string();
    // Before Redis 7.2 a script is told in its own words that it may not run a command.
    let is_in_script = text.contains("The user executing the script");
    if !is_in_script && !is_no_permission(error) {
        return None;
    }
    if text.contains("run this command") || text.contains("permissions to run") {
        let named = text.split('\'').nth(1).filter(|_| !is_in_script).map(str::to_uppercase);
        let named = named.unwrap_or_else(|| format!("a command of a script that {} sends", name_of(command)));
        return Some(format!("the Redis user has no right to run {named}; it needs {}", scripts::RIGHTS));
    }
    let name = name_of(command);
    Some(format!(
        "the Redis user has no right to a key that {name} uses; it needs to read and write all keys that begin with the \
         prefix, as in ~prefix*"
    ))
}

fn name_of(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => "a command".to_owned(),
    }
}

/// Whether the server wants another user or password.
fn is_login(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::AuthenticationFailed
        || error.code().is_some_and(|code| matches!(code, "NOAUTH" | "WRONGPASS"))
}

fn is_no_permission(error: &RedisError) -> bool {
    error.code() == Some("NOPERM")
}

fn source_of(error: &BackendError) -> Option<&RedisError> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

/// Whether a key holds another type of value than a string.
pub(crate) fn is_wrong_type(error: &BackendError) -> bool {
    error.kind() == ErrorKind::Protocol
        && source_of(error).is_some_and(|source| source.to_string().contains("WRONGTYPE"))
}

/// Whether the user has no right to a command, or to one of its keys.
pub(crate) fn is_denied(error: &BackendError) -> bool {
    error.kind() == ErrorKind::Configuration && source_of(error).is_some_and(is_no_permission)
}

/// Whether the user has no right to this command, whatever its keys.
pub(crate) fn is_command_denied(error: &BackendError, command: &str) -> bool {
    let quoted = format!("'{}'", command.to_lowercase());
    is_denied(error) && source_of(error).is_some_and(|source| source.to_string().contains(&quoted))
}
