//! Objects without which all others are worth nothing, in memory: if somebody removes the folder they are in, a store
//! that goes on would write entries that nobody can use after it is opened again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hitbox_backend::core::BackendResult;

use crate::digest::Digest;
use crate::files::Files;
use crate::index::{Class, Entry};
use crate::objects::Objects;

/// Few and small: one for everything, and one for each namespace that was cleared or written.
#[derive(Debug, Default)]
pub(crate) struct Pinned(Mutex<BTreeMap<Digest, Copy>>);

#[derive(Clone, Debug)]
struct Copy {
    entry: Entry,
    file: Arc<[u8]>,
}

impl Pinned {
    /// Those that an opening found.
    pub(crate) fn found(
        files: &Files,
        entries: impl Iterator<Item = (Digest, Entry)>,
    ) -> BackendResult<Self> {
        let pinned = Self::default();
        for (digest, entry) in entries.filter(|(_, entry)| entry.class == Class::Pinned) {
            if let Some(file) = files.read(digest)? {
                pinned.keep(digest, entry, &file);
            }
        }
        Ok(pinned)
    }

    fn copies(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Copy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its file is in place.
    pub(crate) fn keep(&self, digest: Digest, entry: Entry, file: &[u8]) {
        if entry.class == Class::Pinned {
            self.copies().insert(digest, Copy { entry, file: file.into() });
        }
    }

    /// Its file has been removed by the store.
    pub(crate) fn forget(&self, digest: Digest) {
        self.copies().remove(&digest);
    }
}

impl Objects {
    /// Writes those again whose files are gone: of the folder that objects like this one are in, or of all.
    pub(crate) fn restore_pinned(&self, like: Option<Digest>) -> BackendResult<()> {
        let (first, last) = like.map_or((0, Digest::MAX), |digest| {
            let shelf = digest >> 120 << 120;
            (shelf, shelf | (Digest::MAX >> 8))
        });
        let digests: Vec<Digest> =
            self.pinned.copies().range(first..=last).map(|(digest, _)| *digest).collect();
        for digest in digests {
            let _shelf = self.shelf(digest);
            // Removed meanwhile, or written.
            let Some(Copy { entry, file }) = self.pinned.copies().get(&digest).cloned() else { continue };
            if self.files.start(digest)?.is_some() {
                continue;
            }
            let temporary = self.files.write_temporary(&file)?;
            self.files.install(temporary, digest)?;
            let mut index = self.index();
            if index.get(digest).is_none() {
                index.reserve(entry.space(), u64::MAX);
                index.insert(digest, entry);
            }
        }
        Ok(())
    }
}
