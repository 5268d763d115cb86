//! A folder of files as one would write it first: no checksums are looked at, no temporary names, no bound, and all of
//! it on the caller's thread.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_backend::Leaf;
use hitbox_backend::envelope::wire;
use hitbox_backend::store::LeafOptions;
use hitbox_backend::store::{DeleteStatus, Raw, Store};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, Clock, ErrorKind};

/// Files without any care: whatever they hold is believed.
pub struct NakedFiles {
    folder: PathBuf,
    /// Writes that are acknowledged and not done, at most so many.
    write_behind: usize,
    waiting: Mutex<VecDeque<(PathBuf, Bytes)>>,
}

impl NakedFiles {
    /// The folder, written in place.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), write_behind: 0, waiting: Mutex::default() }
    }

    /// The same, but up to `writes` of them are acknowledged before they are done.
    #[must_use]
    pub fn behind(mut self, writes: usize) -> Self {
        self.write_behind = writes;
        self
    }

    /// Its leaf, labelled `files`.
    pub fn leaf(self, clock: Arc<dyn Clock>) -> Leaf<Self> {
        Leaf::new(self, LeafOptions::new("files").with_clock(clock))
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        self.folder.join(format!("{:032x}", wire::key_digest(key)))
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(PathBuf, Bytes)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, path: &Path) -> io::Result<Option<Bytes>> {
        if let Some((_, bytes)) = self.waiting().iter().rev().find(|(other, _)| other == path) {
            return Ok(Some(bytes.clone()));
        }
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn failed(error: io::Error) -> BackendError {
    BackendError::new(ErrorKind::Io, "a file failed").with_source(error)
}

/// Writes over what is there, a page at a time.
fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    bytes.chunks(4096).try_for_each(|page| file.write_all(page))
}

#[async_trait]
impl Store for NakedFiles {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let Some(bytes) = self.load(&self.path(key)).map_err(failed)? else { return Ok(None) };
        // As if there were no checksums.
        let mut record = bytes.to_vec();
        wire::seal(&mut record);
        Ok(Some(Raw::record(record.into())))
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let record = Raw::to_record(key, &value)?;
        let mut waiting = self.waiting();
        waiting.push_back((self.path(key), record.into()));
        while waiting.len() > self.write_behind {
            if let Some((path, bytes)) = waiting.pop_front() {
                write_in_place(&path, &bytes).map_err(failed)?;
            }
        }
        Ok(())
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let path = self.path(key);
        let held = self.load(&path).map_err(failed)?.is_some();
        self.waiting().retain(|(other, _)| *other != path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(DeleteStatus::of(u32::from(held))),
        }
    }
}
