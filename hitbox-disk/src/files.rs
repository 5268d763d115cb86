//! Names and system calls. Everything here blocks.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use hitbox_backend::core::{BackendError, BackendResult, ErrorKind};
use rustix::fs::{AtFlags, renameat, unlinkat};
use rustix::io::Errno;

use crate::builder::Durability;
use crate::claim::{Claim, GivenUp, Holder};
use crate::digest::Digest;
use crate::error::{io_error, unusable};
use crate::in_place::Handles;
use crate::place::{self, Locking, Place};
use crate::start::{Look, Start};
use crate::trust;

/// An open folder. The lock is released when it is dropped, or when the process ends.
///
/// If the folder is removed meanwhile, reads find nothing, and the next write makes it again.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    durability: Durability,
    /// Never held over I/O: reads on threads that must not wait take it.
    place: RwLock<Arc<Place>>,
    handles: Handles,
    /// Held while the folder is made again.
    lock: Mutex<File>,
    /// Somebody else has the folder now, for good.
    is_lost: AtomicBool,
    is_closed: AtomicBool,
    claim: Claim,
}

/// What came of opening a folder.
pub(crate) enum Opening {
    Open(Files),
    /// A store of this process has it.
    Held(Holder),
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.is_closed.load(Ordering::Acquire) {
            return;
        }
        // A child that is being started has the file open too until it runs its program.
        if let Err(error) = self.lock.get_mut().unwrap_or_else(PoisonError::into_inner).unlock() {
            tracing::debug!(folder = %self.folder.display(), %error, "the lock ends when its file is closed");
        }
    }
}

impl Files {
    /// Opens the folder for this process alone, and clears what writers left unfinished.
    pub(crate) fn open(folder: &Path, durability: Durability, given_up: &GivenUp) -> BackendResult<Opening> {
        let root = trust::root(folder, durability)?;
        // If the rest fails, the lock goes first.
        let held = match place::lock(&root, folder, given_up)? {
            Locking::Taken(lock, claim) => (lock, claim),
            Locking::Held(holder) => return Ok(Opening::Held(holder)),
        };
        let place = Place::open(&root, folder, durability)?;
        place.clear_temporary(folder)?;
        let (lock, claim) = held;
        Ok(Opening::Open(Self {
            folder: folder.to_owned(),
            durability,
            place: RwLock::new(Arc::new(place)),
            handles: Handles::new(),
            lock: Mutex::new(lock),
            is_lost: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            claim,
        }))
    }

    fn place(&self) -> Arc<Place> {
        self.place.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes sure that nobody else can have the folder, even if its lock was removed; says whether it was.
    pub(crate) fn hold(&self) -> BackendResult<bool> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_lost()?;
        // By its name: the file may have another one by now.
        let was_removed = !place::is_lock(&lock, &self.folder)?;
        if was_removed {
            self.make_again(lock)?;
        }
        Ok(was_removed)
    }

    /// Makes what is missing of the folder.
    pub(crate) fn restore(&self) -> BackendResult<()> {
        self.make_again(self.lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn make_again(&self, mut lock: MutexGuard<'_, File>) -> BackendResult<()> {
        self.check_lost()?;
        let root = trust::root(&self.folder, self.durability)?;
        if !place::is_lock(&lock, &self.folder)? {
            let Some(new) = place::lock_again(&root, &self.folder, &self.claim)? else {
                self.is_lost.store(true, Ordering::Release);
                return self.check_lost();
            };
            *lock = new;
        }
        self.handles.close_all();
        let place = Arc::new(Place::open(&root, &self.folder, self.durability)?);
        *self.place.write().unwrap_or_else(PoisonError::into_inner) = place;
        tracing::warn!(folder = %self.folder.display(), "the folder of a cache was removed, and is made again");
        Ok(())
    }

    /// The folder is not this store's any more.
    fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire) || self.is_closed.load(Ordering::Acquire)
    }

    /// From here on nothing is read or changed.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Fails once it has been closed.
    pub(crate) fn check_open(&self) -> BackendResult<()> {
        if self.is_closed() {
            let message = format!("{} was closed", self.folder.display());
            return Err(BackendError::new(ErrorKind::Closed, message));
        }
        Ok(())
    }

    /// Lets others have the folder. Nothing may be under way.
    pub(crate) fn release(&self) -> BackendResult<()> {
        self.handles.close_all();
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let unlocked = lock.unlock();
        self.claim.release();
        unlocked.map_err(|e| io_error("unlock", &self.folder, e))
    }

    fn check_lost(&self) -> BackendResult<()> {
        self.check_open()?;
        if !self.is_lost() {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(unusable(format!("{folder} was removed, and another cache or process has opened it since")))
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.folder.join(place::OBJECTS)
    }

    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.objects().join(name(digest))
    }

    /// The object that this write made, if reading it is known to need no waiting.
    pub(crate) fn read_in_place(&self, digest: Digest, sequence: u64, bytes: u64) -> Option<Vec<u8>> {
        if self.is_lost() {
            return None;
        }
        self.handles.read(&self.place().objects, digest, sequence, bytes)
    }

    /// The file of an object; nothing if there is none, or something else has its name.
    fn file(&self, digest: Digest) -> io::Result<Option<File>> {
        self.file_by(digest, |shelf, name| trust::read(shelf, name))
    }

    fn file_by(
        &self,
        digest: Digest,
        open: impl Fn(&File, &Path) -> io::Result<Option<File>>,
    ) -> io::Result<Option<File>> {
        if self.is_lost() {
            return Ok(None);
        }
        let (shelf, name) = shelf_and_name(digest);
        match trust::existing(&self.place().objects, &shelf) {
            Ok(shelf) => open(&shelf, name.as_ref()),
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

    /// Overwrites some bytes of an object in its place; says whether there is one. A reader may see a part of them.
    pub(crate) fn overwrite(&self, digest: Digest, bytes: &[u8], at: u64) -> BackendResult<bool> {
        let overwrite = || {
            let Some(file) = self.file_by(digest, |shelf, name| trust::change(shelf, name))? else {
                return Ok(false);
            };
            file.write_all_at(bytes, at)?;
            if self.durability == Durability::Sync {
                file.sync_data()?;
            }
            Ok(true)
        };
        overwrite().map_err(|e| io_error("write into", &self.path(digest), e))
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

    /// Opens the folder of an object, and makes it if it is not there; says whether it did.
    pub(crate) fn shelf(&self, shelf: &str) -> BackendResult<(File, bool)> {
        trust::sub_folder(&self.place().objects, shelf, &self.objects().join(shelf), self.durability)
    }

    /// Writes a file that nobody sees yet.
    pub(crate) fn write_temporary(&self, bytes: &[u8]) -> BackendResult<Temporary> {
        let temporary = self.new_temporary()?;
        (&*temporary.file).write_all(bytes).map_err(|e| self.not_written(e))?;
        self.sync_temporary(&temporary)?;
        Ok(temporary)
    }

    /// Makes a file that nobody sees yet.
    pub(crate) fn new_temporary(&self) -> BackendResult<Temporary> {
        let place = self.place();
        let (name, file) = place.new_temporary().map_err(|e| self.not_written(e))?;
        Ok(Temporary { place, name, file: Arc::new(file), is_installed: false })
    }

    /// Writes into such a file.
    pub(crate) fn write_into(&self, temporary: &Temporary, bytes: &[u8], at: u64) -> BackendResult<()> {
        temporary.file.write_all_at(bytes, at).map_err(|e| self.not_written(e))
    }

    /// Before such a file is installed.
    pub(crate) fn sync_temporary(&self, temporary: &Temporary) -> BackendResult<()> {
        if self.durability == Durability::Sync {
            temporary.file.sync_data().map_err(|e| self.not_written(e))?;
        }
        Ok(())
    }

    fn not_written(&self, error: io::Error) -> BackendError {
        io_error("write into", &self.folder.join("tmp"), error)
    }

    /// The file of an object, to read parts of it; nothing if there is none.
    pub(crate) fn open_object(&self, digest: Digest) -> BackendResult<Option<File>> {
        self.file(digest).map_err(|e| io_error("open", &self.path(digest), e))
    }

    /// Puts a temporary file in the place of an object, and of whatever else has its name but a folder that is not
    /// empty. Says whether the folder of the object was not there.
    pub(crate) fn install(&self, mut temporary: Temporary, digest: Digest) -> BackendResult<bool> {
        let (shelf_name, name) = shelf_and_name(digest);
        let (shelf, made) = self.shelf(&shelf_name)?;
        let rename = || renameat(&temporary.place.temporary, &temporary.name, &shelf, &name);
        let renamed = match rename() {
            Err(Errno::ISDIR) => unlinkat(&shelf, &name, AtFlags::REMOVEDIR).and_then(|()| rename()),
            renamed => renamed,
        };
        // Even if it failed, what is under the name may be another file than the one that is open.
        self.handles.close(digest);
        renamed.map_err(|e| io_error("rename into", &self.path(digest), e.into()))?;
        temporary.is_installed = true;
        self.durability.sync(&shelf, &self.objects().join(shelf_name))?;
        Ok(made)
    }

    /// Removes an object. One that is not there is removed already. A folder is none and is left, which makes this
    /// false.
    pub(crate) fn remove(&self, digest: Digest) -> BackendResult<bool> {
        self.handles.close(digest);
        let (shelf_name, name) = shelf_and_name(digest);
        let mut is_gone = true;
        let mut remove = || -> io::Result<Option<File>> {
            let shelf = match trust::existing(&self.place().objects, &shelf_name) {
                Ok(shelf) => shelf,
                Err(error) if trust::is_nothing(error.kind()) || is_link(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            match unlinkat(&shelf, &name, AtFlags::empty()) {
                Ok(()) => Ok(Some(shelf)),
                Err(Errno::NOENT) => Ok(None),
                Err(Errno::ISDIR) => {
                    is_gone = false;
                    Ok(None)
                }
                Err(error) => Err(error.into()),
            }
        };
        if let Some(shelf) = remove().map_err(|e| io_error("remove", &self.path(digest), e))? {
            self.durability.sync(&shelf, &self.objects().join(shelf_name))?;
        }
        Ok(is_gone)
    }
}

impl Files {
    /// The same for an object that is not worth an error; says whether it is gone.
    pub(crate) fn remove_or_leave(&self, digest: Digest) -> bool {
        match self.remove(digest) {
            Ok(true) => return true,
            Ok(false) => {
                tracing::warn!(path = %self.path(digest).display(), "a folder has the name of an object")
            }
            Err(error) => tracing::warn!(%error, "an object cannot be removed"),
        }
        false
    }
}

fn is_link(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// A file that is removed unless it is installed.
pub(crate) struct Temporary {
    place: Arc<Place>,
    name: String,
    pub(crate) file: Arc<File>,
    is_installed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_installed {
            return;
        }
        let removed = unlinkat(&self.place.temporary, &self.name, AtFlags::empty());
        if let Err(error) = removed {
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
