//! Cases that were found by attacking stores that work. Each says what the file system does to a folder, and what
//! its users may see of it.

mod digests;
mod full;
mod listing;
mod others;
mod removed;
mod reopened;
mod room;
mod synced;
mod things;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use hitbox_backend::core::BackendResult;
use hitbox_core::ErrorKind;
use hitbox_disk::{DiskBackend, Durability};

use crate::Verdict;
use crate::store::{files, set};

pub(crate) use digests::*;
pub(crate) use full::*;
pub(crate) use listing::*;
pub(crate) use others::*;
pub(crate) use removed::*;
pub(crate) use reopened::*;
pub(crate) use room::*;
pub(crate) use synced::*;
pub(crate) use things::*;

async fn open(folder: &Path) -> BackendResult<DiskBackend> {
    DiskBackend::builder(folder).open().await
}

async fn opened(folder: &Path) -> Result<DiskBackend, String> {
    open(folder)
        .await
        .map_err(|error| format!("it does not open: {error}: {:?}", std::error::Error::source(&error)))
}

/// Opening is refused as a mistake in the configuration, and the error names what is wrong.
async fn is_refused(folder: &Path, what: &str, named: &Path) -> Verdict {
    match open(folder).await {
        Ok(_) => Err(format!("{what}: it opens")),
        Err(error) if error.kind() != ErrorKind::Configuration => Err(format!("{what}: {error:?}")),
        Err(error) if !error.to_string().contains(&*named.to_string_lossy()) => {
            Err(format!("{what}: {error} does not name {}", named.display()))
        }
        Err(_) => Ok(()),
    }
}

/// The file of a key, which has not been written before, once it is written. The first write of a store brings others.
async fn write_and_find(
    disk: &DiskBackend,
    folder: &Path,
    number: u64,
    body: Bytes,
) -> Result<PathBuf, String> {
    set(disk, 1_000, Bytes::new()).await?;
    let before = files(folder);
    set(disk, number, body).await?;
    let new: Vec<_> = files(folder).into_iter().filter(|path| !before.contains(path)).collect();
    if let [path] = &new[..] { Ok(path.clone()) } else { Err(format!("{new:?} are new")) }
}
