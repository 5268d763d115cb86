//! Settings of the disk backend.

use std::fs::File;
use std::path::{Path, PathBuf};

use hitbox_backend::core::BackendResult;
use hitbox_backend::leaf_setters;
use hitbox_backend::store::LeafOptions;

use crate::DiskBackend;
use crate::error::{io_error, unusable};

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

impl Durability {
    /// Synchronises a file or folder, if that is asked for.
    pub(crate) fn sync(self, file: &File, path: &Path) -> BackendResult<()> {
        if self != Self::Sync {
            return Ok(());
        }
        file.sync_all().map_err(|e| io_error("synchronise", path, e))?;
        tracing::trace!(path = %path.display(), "synchronised");
        Ok(())
    }

    /// The same with a folder that is not open.
    pub(crate) fn sync_path(self, path: &Path) -> BackendResult<()> {
        if self != Self::Sync {
            return Ok(());
        }
        let folder = File::open(path).map_err(|e| io_error("open", path, e))?;
        self.sync(&folder, path)
    }
}

/// Builds a [`DiskBackend`]. Priorities of entries have no effect on who is evicted.
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
            // A slash at the end would follow a link that stands before it.
            folder: folder.components().collect(),
            max_bytes: 1 << 30,
            durability: Durability::Os,
            options: LeafOptions::new("disk"),
        }
    }

    /// Takes at most this many bytes of the file system, 1 GiB by default. Each entry has a file of its own, which takes
    /// whole blocks of 4 KiB: 1 GiB holds at most 262,144 entries. A value that is larger than the bound is refused.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// What a write that returned survives. Default: the end of the process, however it comes.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    leaf_setters!("disk", codec);

    /// Opens the folder, makes it if it is not there, and rebuilds the index.
    ///
    /// If a store of this process has the folder whose last handle is gone, this waits until the writes and deletes that
    /// were given up on it have ended. If there are handles, this waits for a second at most: work in the background, such as
    /// a refill, may have the last one. [`close`](DiskBackend::close) waits for as long as it takes.
    ///
    /// # Errors
    /// [`Configuration`](hitbox_backend::core::ErrorKind::Configuration) if the folder is in use, of a newer format,
    /// is a link, belongs to another user, or the bound is zero; [`Io`](hitbox_backend::core::ErrorKind::Io) if it cannot be read or written.
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
