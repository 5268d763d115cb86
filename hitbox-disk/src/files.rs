//! Names and system calls. Everything here blocks.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_backend::core::BackendResult;

use crate::builder::Durability;
use crate::error::{io_error, unusable};
use crate::in_place::Handles;
use crate::index::Digest;
use crate::start::{Look, Start};

/// The newest layout of the folder that this release reads and writes.
const FORMAT: u32 = 1;

/// An open folder. The lock is released when it is dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    durability: Durability,
    next_temporary: AtomicU64,
    /// The folder of the objects, open.
    shelves: File,
    handles: Handles,
    _lock: File,
}

impl Files {
    /// Opens the folder for this process alone, and clears what writers left unfinished.
    pub(crate) fn open(folder: &Path, durability: Durability) -> BackendResult<Self> {
        let make = |path: &Path| fs::create_dir_all(path).map_err(|e| io_error("make folder", path, e));
        make(folder)?;
        let lock_path = folder.join("LOCK");
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|e| io_error("open", &lock_path, e))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                unusable(format!("{} is in use by another cache or process", folder.display()))
            }
            fs::TryLockError::Error(error) => io_error("lock", &lock_path, error),
        })?;
        check_format(folder)?;
        for name in ["objects", "tmp"] {
            make(&folder.join(name))?;
        }
        let objects = folder.join("objects");
        let files = Self {
            folder: folder.to_owned(),
            durability,
            next_temporary: AtomicU64::new(0),
            shelves: File::open(&objects).map_err(|e| io_error("open", &objects, e))?,
            handles: Handles::new(),
            _lock: lock,
        };
        files.clear_temporary()?;
        Ok(files)
    }

    fn clear_temporary(&self) -> BackendResult<()> {
        let folder = self.folder.join("tmp");
        let entries = fs::read_dir(&folder).map_err(|e| io_error("list", &folder, e))?;
        for entry in entries.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(entry.path()).map_err(|e| io_error("remove", &entry.path(), e))?;
            }
        }
        Ok(())
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.folder.join("objects")
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join("objects").join(name(digest))
    }

    /// The object that this write made, if reading it is known to need no waiting.
    pub(crate) fn read_in_place(&self, digest: Digest, sequence: u64, bytes: u64) -> Option<Vec<u8>> {
        self.handles.read(&self.shelves, digest, sequence, bytes)
    }

    pub(crate) fn read(&self, digest: Digest) -> BackendResult<Option<Vec<u8>>> {
        let path = self.path(digest);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// What an object says without its payload; nothing if there is none, or none that can be understood.
    pub(crate) fn start(&self, digest: Digest) -> BackendResult<Option<Start>> {
        let path = self.path(digest);
        match Start::read(&path) {
            Ok(Look::Entry(start)) => Ok(Some(start)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Writes a file that nobody sees yet.
    pub(crate) fn write_temporary(&self, bytes: &[u8]) -> BackendResult<Temporary> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join("tmp").join(format!("{number}.tmp"));
        let temporary = Temporary { path, is_installed: false };
        let path = &temporary.path;
        let write = || {
            let mut file = File::create(path)?;
            file.write_all(bytes)?;
            if self.durability == Durability::Sync {
                file.sync_data()?;
            }
            Ok(())
        };
        write().map_err(|e| io_error("write", path, e))?;
        Ok(temporary)
    }

    /// Puts a temporary file in the place of an object.
    pub(crate) fn install(&self, mut temporary: Temporary, digest: Digest) -> BackendResult<()> {
        let path = self.path(digest);
        let renamed = match fs::rename(&temporary.path, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().unwrap_or(&self.folder);
                fs::create_dir_all(folder).map_err(|e| io_error("make folder", folder, e))?;
                fs::rename(&temporary.path, &path)
            }
            renamed => renamed,
        };
        renamed.map_err(|e| io_error("rename into", &path, e))?;
        self.handles.close(digest);
        temporary.is_installed = true;
        self.sync_folder_of(&path)
    }

    /// Removes an object. One that is not there is removed already.
    pub(crate) fn remove(&self, digest: Digest) -> BackendResult<()> {
        let path = self.path(digest);
        self.handles.close(digest);
        match fs::remove_file(&path) {
            Ok(()) => self.sync_folder_of(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error("remove", &path, error)),
        }
    }

    fn sync_folder_of(&self, path: &Path) -> BackendResult<()> {
        if self.durability != Durability::Sync {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.folder);
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|e| io_error("synchronise", folder, e))
    }
}

/// A file that is removed unless it is installed.
pub(crate) struct Temporary {
    path: PathBuf,
    is_installed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_installed {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            // It is removed when the folder is opened again.
            tracing::debug!(path = %self.path.display(), %error, "a temporary file stays");
        }
    }
}

/// The name of an object within the folder of objects.
pub(crate) fn name(digest: Digest) -> PathBuf {
    let name = format!("{digest:032x}");
    Path::new(&name[..2]).join(name.clone() + ".obj")
}

fn check_format(folder: &Path) -> BackendResult<()> {
    let path = folder.join("FORMAT");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(version) if version <= FORMAT => Ok(()),
            Ok(version) => Err(unusable(format!(
                "{} has format {version}; this release reads up to {FORMAT}",
                folder.display()
            ))),
            Err(_) => Err(unusable(format!("{} does not name a format", path.display()))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let temporary = folder.join("FORMAT.new");
            let written =
                fs::write(&temporary, format!("{FORMAT}\n")).and_then(|()| fs::rename(&temporary, &path));
            written.map_err(|e| io_error("write", &path, e))
        }
        Err(error) => Err(io_error("read", &path, error)),
    }
}
