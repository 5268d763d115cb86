//! The one error type: a kind to branch on, the layer that failed, and what caused it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::BackendLabel;

/// What every backend call answers with.
pub type BackendResult<T> = Result<T, BackendError>;

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be reached.
    Connection,
    /// The store did not answer in time; whether it acted is unknown.
    Timeout,
    /// A value could not be encoded or decoded.
    Codec,
    /// A key or value is over a limit; see [`BackendError::exceeded`].
    TooLarge,
    /// A conditional write met an equal or newer version.
    VersionMismatch,
    /// A conditional write met another entry than it was made for, or one where there should be none.
    Conflict,
    /// The backend cannot do this.
    Unsupported,
    /// A range does not begin within the body that is read.
    Range,
    /// A layer that was declared required failed; the cause says how.
    RequiredLayer,
    /// Every layer failed; [`BackendError::causes`] has one error per layer.
    AllLayers,
    /// Too much work is under way.
    Overloaded,
    /// The store has no room for an entry of its class, and keeps what it has.
    NotAdmitted,
    /// The operating system refused an operation on a file.
    Io,
    /// The store answered what it should not.
    Protocol,
    /// A setting is wrong; the message names it.
    Configuration,
    /// The backend has been shut down.
    Closed,
}

impl ErrorKind {
    /// The kind as it stands in metrics (label `kind`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Codec => "codec",
            Self::TooLarge => "too_large",
            Self::VersionMismatch => "version_mismatch",
            Self::Conflict => "conflict",
            Self::Unsupported => "unsupported",
            Self::Range => "range",
            Self::RequiredLayer => "required_layer",
            Self::AllLayers => "all_layers",
            Self::Overloaded => "overloaded",
            Self::NotAdmitted => "not_admitted",
            Self::Io => "io",
            Self::Protocol => "protocol",
            Self::Configuration => "configuration",
            Self::Closed => "closed",
        }
    }

    /// Whether the same call may succeed later.
    pub const fn status(self) -> ErrorStatus {
        match self {
            Self::Connection
            | Self::Timeout
            | Self::AllLayers
            | Self::RequiredLayer
            | Self::Overloaded
            | Self::Io => ErrorStatus::Temporary,
            _ => ErrorStatus::Permanent,
        }
    }

    /// Whether the store may have acted although the caller was told that it failed.
    pub const fn is_outcome_unknown(self) -> bool {
        matches!(self, Self::Timeout | Self::Connection | Self::Io)
    }
}

/// Whether it is worth trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorStatus {
    /// The same call may succeed later, without anything being changed.
    Temporary,
    /// The same call fails again until the value, a setting or the store is changed.
    Permanent,
}

/// What was being done when an error occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// A read of one or several entries.
    Read,
    /// A write of one or several entries, or a refill.
    Write,
    /// A delete.
    Remove,
    /// A look whether an entry is there.
    Contains,
    /// An invalidation by scope, prefix or pattern, or a change made elsewhere.
    Invalidate,
    /// Sweeping, erasing, counting or listing.
    Maintain,
    /// A body that is read by chunks.
    ReadBody,
    /// A body that is written by chunks.
    WriteBody,
}

impl Operation {
    /// Its name, as it stands in error texts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Remove => "remove",
            Self::Contains => "contains",
            Self::Invalidate => "invalidate",
            Self::Maintain => "maintain",
            Self::ReadBody => "read body",
            Self::WriteBody => "write body",
        }
    }
}

/// Why a conditional write was refused: the stored version is not lower than the one it brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionMismatch {
    /// The version that is stored.
    pub existing: u64,
    /// The version that was to be written.
    pub attempted: u64,
}

impl fmt::Display for VersionMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {} is not newer than the stored version {}", self.attempted, self.existing)
    }
}

impl Error for VersionMismatch {}

/// An error of a backend. Cheap to clone: waiters of one failure share it.
#[derive(Clone)]
pub struct BackendError(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    label: Option<BackendLabel>,
    operation: Option<Operation>,
    exceeded: Option<(u64, u64)>,
    mismatch: Option<VersionMismatch>,
    causes: Vec<BackendError>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// For those who read bodies as sources of bytes.
impl From<BackendError> for std::io::Error {
    fn from(error: BackendError) -> Self {
        let kind = match error.kind() {
            ErrorKind::Timeout => std::io::ErrorKind::TimedOut,
            ErrorKind::Codec => std::io::ErrorKind::InvalidData,
            ErrorKind::Unsupported => std::io::ErrorKind::Unsupported,
            ErrorKind::Range => std::io::ErrorKind::InvalidInput,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl BackendError {
    /// An error of this kind; `message` is for people, in lower case, without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            label: None,
            operation: None,
            exceeded: None,
            mismatch: None,
            causes: Vec::new(),
            source: None,
        }))
    }

    /// `what` has `size` bytes where `limit` are allowed.
    pub fn too_large(what: &str, size: u64, limit: u64) -> Self {
        let error = Self::new(
            ErrorKind::TooLarge,
            format!("{what} of {size} bytes is over the limit of {limit} bytes"),
        );
        error.change(|inner| inner.exceeded = Some((size, limit)))
    }

    /// There are `count` of `what` where `limit` are allowed.
    pub fn too_many(what: &str, count: u64, limit: u64) -> Self {
        let error = Self::new(ErrorKind::TooLarge, format!("{count} {what} are over the limit of {limit}"));
        error.change(|inner| inner.exceeded = Some((count, limit)))
    }

    /// A conditional write met an equal or newer version.
    pub fn version_mismatch(mismatch: VersionMismatch) -> Self {
        let error = Self::new(ErrorKind::VersionMismatch, mismatch.to_string());
        error.change(|inner| inner.mismatch = Some(mismatch))
    }

    /// This backend does not offer `operation`.
    pub fn unsupported(operation: &str) -> Self {
        Self::new(ErrorKind::Unsupported, format!("{operation} is not supported by this backend"))
    }

    /// Both layers failed.
    pub fn all_layers(causes: Vec<Self>) -> Self {
        Self::new(ErrorKind::AllLayers, "every layer failed").change(|inner| inner.causes = causes)
    }

    /// A required layer failed.
    pub fn required_layer(cause: Self) -> Self {
        Self::new(ErrorKind::RequiredLayer, "a required layer failed").change(|inner| {
            inner.label = cause.label();
            inner.operation = cause.operation();
            inner.causes = vec![cause];
        })
    }

    /// The same with the error that caused it.
    pub fn with_source(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.change(|inner| inner.source = Some(Arc::from(source.into())))
    }

    /// The same, naming the leaf that failed, unless one is named already.
    pub fn at(self, label: BackendLabel) -> Self {
        if self.0.label.is_some() {
            return self;
        }
        self.change(|inner| inner.label = Some(label))
    }

    /// The same, naming what was being done, unless that is named already.
    pub fn during(self, operation: Operation) -> Self {
        if self.0.operation.is_some() {
            return self;
        }
        self.change(|inner| inner.operation = Some(operation))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later. Where several layers failed, it may if that is so for one of them.
    pub fn status(&self) -> ErrorStatus {
        match self.0.kind {
            ErrorKind::AllLayers | ErrorKind::RequiredLayer if !self.0.causes.is_empty() => {
                let is_temporary = |cause: &Self| cause.status() == ErrorStatus::Temporary;
                let any = self.0.causes.iter().any(is_temporary);
                if any { ErrorStatus::Temporary } else { ErrorStatus::Permanent }
            }
            kind => kind.status(),
        }
    }

    /// What was being done, as far as the leaf that failed has said.
    pub fn operation(&self) -> Option<Operation> {
        self.0.operation
    }

    /// The dotted path of the leaf that failed.
    pub fn label(&self) -> Option<BackendLabel> {
        self.0.label
    }

    /// The two versions, if a conditional write met an equal or newer one.
    pub fn mismatch(&self) -> Option<VersionMismatch> {
        self.0.mismatch
    }

    /// Size and limit, in bytes or items, of what was too large; of several layers that of the first which says so.
    pub fn exceeded(&self) -> Option<(u64, u64)> {
        self.0.exceeded.or_else(|| self.0.causes.iter().find_map(Self::exceeded))
    }

    /// The errors of the layers, where several are told as one.
    pub fn causes(&self) -> &[Self] {
        &self.0.causes
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = self.0.label {
            write!(f, "{label}: ")?;
        }
        if let Some(operation) = self.0.operation {
            write!(f, "{}: ", operation.as_str())?;
        }
        f.write_str(&self.0.message)?;
        for (i, cause) in self.0.causes.iter().enumerate() {
            write!(f, "{}{cause}", if i == 0 { ": " } else { "; " })?;
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackendError({:?}: {self})", self.0.kind)
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match (&self.0.source, self.0.causes.first()) {
            (Some(source), _) => Some(&**source),
            (None, Some(cause)) => Some(cause),
            (None, None) => None,
        }
    }
}
