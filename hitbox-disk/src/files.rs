//! Names and system calls. Everything here blocks.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hitbox_backend::core::BackendResult;
use rustix::fs::{AtFlags, renameat, unlinkat};
use rustix::io::Errno;

use crate::builder::Durability;
use crate::error::io_error;
use crate::in_place::Handles;
use crate::index::Digest;
use crate::place::{self, Place};
use crate::start::{Look, Start};
use crate::trust;

/// An open folder. The lock is released when it is dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    durability: Durability,
    place: Arc<Place>,
    handles: Handles,
    _lock: File,
}

impl Files {
    /// Opens the folder for this process alone, and clears what writers left unfinished.
    pub(crate) fn open(folder: &Path, durability: Durability) -> BackendResult<Self> {
        let root = trust::root(folder, durability)?;
        let lock = place::lock(&root, folder)?;
        let place = Place::open(&root, folder, durability)?;
        place.clear_temporary(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            durability,
            place: Arc::new(place),
            handles: Handles::new(),
            _lock: lock,
        })
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.folder.join("objects")
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.objects().join(name(digest))
    }

    /// The object that this write made, if reading it is known to need no waiting.
    pub(crate) fn read_in_place(&self, digest: Digest, sequence: u64, bytes: u64) -> Option<Vec<u8>> {
        self.handles.read(&self.place.objects, digest, sequence, bytes)
    }

    /// The file of an object; nothing if there is none, or something else has its name.
    fn file(&self, digest: Digest) -> io::Result<Option<File>> {
        let (shelf, name) = shelf_and_name(digest);
        match trust::existing(&self.place.objects, &shelf) {
            Ok(shelf) => trust::read(&shelf, name.as_ref()),
            // A link is no folder of the store's.
            Err(error) if trust::is_nothing(error.kind()) || is_link(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn read(&self, digest: Digest) -> BackendResult<Option<Vec<u8>>> {
        let read = || {
            let Some(mut file) = self.file(digest)? else { return Ok(None) };
            let mut bytes = Vec::new();
            // It knows how long the file is.
            file.read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        };
        read().map_err(|e| io_error("read", &self.path(digest), e))
    }

    /// What an object says without its payload; nothing if there is none.
    pub(crate) fn look(&self, digest: Digest) -> io::Result<Option<Look>> {
        self.file(digest)?.map(Start::read).transpose()
    }

    /// The same; nothing too if it cannot be understood.
    pub(crate) fn start(&self, digest: Digest) -> BackendResult<Option<Start>> {
        match self.look(digest) {
            Ok(Some(Look::Entry(start))) => Ok(Some(start)),
            Ok(_) => Ok(None),
            Err(error) => Err(io_error("read", &self.path(digest), error)),
        }
    }

    /// Opens the folder of an object; says if another user has put one there.
    pub(crate) fn shelf(&self, shelf: &str) -> BackendResult<File> {
        trust::sub_folder(&self.place.objects, shelf, &self.objects().join(shelf), self.durability)
    }

    /// Writes a file that nobody sees yet.
    pub(crate) fn write_temporary(&self, bytes: &[u8]) -> BackendResult<Temporary> {
        let folder = self.folder.join("tmp");
        let failed = |e| io_error("write into", &folder, e);
        let (name, mut file) = self.place.new_temporary().map_err(failed)?;
        let temporary = Temporary { place: self.place.clone(), name, is_installed: false };
        file.write_all(bytes).map_err(failed)?;
        if self.durability == Durability::Sync {
            file.sync_data().map_err(failed)?;
        }
        Ok(temporary)
    }

    /// Puts a temporary file in the place of an object, and of whatever else has its name but a folder that is not
    /// empty.
    pub(crate) fn install(&self, mut temporary: Temporary, digest: Digest) -> BackendResult<()> {
        let (shelf_name, name) = shelf_and_name(digest);
        let shelf = self.shelf(&shelf_name)?;
        let rename = || renameat(&temporary.place.temporary, &temporary.name, &shelf, &name);
        let renamed = match rename() {
            Err(Errno::ISDIR) => unlinkat(&shelf, &name, AtFlags::REMOVEDIR).and_then(|()| rename()),
            renamed => renamed,
        };
        // Even if it failed, what is under the name may be another file than the one that is open.
        self.handles.close(digest);
        renamed.map_err(|e| io_error("rename into", &self.path(digest), e.into()))?;
        temporary.is_installed = true;
        self.durability.sync(&shelf, &self.objects().join(shelf_name))
    }

    /// Removes an object. One that is not there is removed already, and a folder is none.
    pub(crate) fn remove(&self, digest: Digest) -> BackendResult<()> {
        self.handles.close(digest);
        let (shelf_name, name) = shelf_and_name(digest);
        let remove = || -> io::Result<Option<File>> {
            let shelf = match trust::existing(&self.place.objects, &shelf_name) {
                Ok(shelf) => shelf,
                Err(error) if trust::is_nothing(error.kind()) || is_link(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            match unlinkat(&shelf, &name, AtFlags::empty()) {
                Ok(()) => Ok(Some(shelf)),
                Err(Errno::NOENT | Errno::ISDIR) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        match remove().map_err(|e| io_error("remove", &self.path(digest), e))? {
            Some(shelf) => self.durability.sync(&shelf, &self.objects().join(shelf_name)),
            None => Ok(()),
        }
    }
}

fn is_link(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// A file that is removed unless it is installed.
pub(crate) struct Temporary {
    place: Arc<Place>,
    name: String,
    is_installed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_installed {
            return;
        }
        if let Err(error) = unlinkat(&self.place.temporary, &self.name, AtFlags::empty()) {
            // It is removed when the folder is opened again.
            tracing::debug!(name = %self.name, %error, "a temporary file stays");
        }
    }
}

/// The name of an object within the folder of objects.
pub(crate) fn name(digest: Digest) -> PathBuf {
    let (shelf, name) = shelf_and_name(digest);
    Path::new(&shelf).join(name)
}

/// The folder of an object within that of all objects, and its name there.
fn shelf_and_name(digest: Digest) -> (String, String) {
    let name = format!("{digest:032x}.obj");
    (name[..2].to_owned(), name)
}
