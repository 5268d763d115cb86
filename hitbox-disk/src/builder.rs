//! Settings of the disk backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hitbox_backend::{Codec, Compressor, Format, LeafOptions};
use hitbox_core::{BackendResult, Clock};

use crate::DiskBackend;
use crate::error::unusable;

/// What a write that returned survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The end of the process, however it comes.
    #[default]
    Os,
    /// The end of the machine too: file and folder are synchronised before the write returns.
    Sync,
}

/// Builds a [`DiskBackend`].
#[derive(Clone, Debug)]
pub struct DiskBuilder {
    pub(crate) folder: PathBuf,
    pub(crate) max_bytes: u64,
    pub(crate) durability: Durability,
    pub(crate) options: LeafOptions,
}

impl DiskBuilder {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            max_bytes: 1 << 30,
            durability: Durability::Os,
            options: LeafOptions::new("disk"),
        }
    }

    /// Holds at most this many bytes of files, 1 GiB by default. A value that is larger is refused.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// What a write that returned survives.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Its label, `disk` by default.
    #[must_use]
    pub fn label(mut self, label: &str) -> Self {
        self.options.label = label.into();
        self
    }

    /// The serialization format, bitcode by default.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.options.codec.format = format;
        self
    }

    /// The compressor, none by default.
    #[must_use]
    pub fn compressor(mut self, compressor: Compressor) -> Self {
        self.options.codec.compressor = compressor;
        self
    }

    /// The whole codec: format, compressor, compression rules and schema version.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.options.codec = codec;
        self
    }

    /// The schema version of the stored types, 0 by default.
    #[must_use]
    pub fn schema(mut self, schema: u32) -> Self {
        self.options.codec.schema = schema;
        self
    }

    /// Where it gets the time from.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.options.clock = clock;
        self
    }

    /// Opens the folder, makes it if it is not there, and rebuilds the index.
    ///
    /// # Errors
    /// [`Configuration`](hitbox_core::ErrorKind::Configuration) if the folder is in use, of a newer format,
    /// or the bound is zero; [`Io`](hitbox_core::ErrorKind::Io) if it cannot be read or written.
    ///
    /// # Cancellation
    /// A dropped future lets the opening end in the background, and closes the folder again.
    pub async fn open(self) -> BackendResult<DiskBackend> {
        if self.max_bytes == 0 {
            return Err(unusable("max_bytes must be at least 1".to_owned()));
        }
        DiskBackend::open(self).await
    }
}
