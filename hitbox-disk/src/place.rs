//! The folders of a store, open: whoever exchanges a name afterwards exchanges nothing that the store uses.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_backend::core::{BackendError, BackendResult};
use rustix::fs::{AtFlags, CWD, renameat, unlinkat};

use crate::builder::Durability;
use crate::claim::{Claim, GivenUp, Holder, Taking};
use crate::error::{io_error, io_kind, unusable};
use crate::trust;

/// The newest layout of the folder that this release reads and writes.
const FORMAT: u32 = 1;

const LOCK: &str = "LOCK";
/// Where the objects are.
pub(crate) const OBJECTS: &str = "objects";

/// The folders, by what they are and not by their names.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) objects: File,
    pub(crate) temporary: File,
}

impl Place {
    /// Opens the folders below the store's, which is locked, and makes those that are not there.
    pub(crate) fn open(root: &File, folder: &Path, durability: Durability) -> BackendResult<Self> {
        let has_format = check_format(root, folder)?;
        let sub = |name: &str| trust::sub_folder(root, name, &folder.join(name), durability);
        let place = Self { objects: sub(OBJECTS)?.0, temporary: sub("tmp")?.0 };
        if !has_format {
            place.write_format(root, folder, durability)?;
        }
        // An earlier opening may have made them without this.
        durability.sync(&place.objects, &folder.join(OBJECTS))?;
        durability.sync(root, folder)?;
        Ok(place)
    }

    fn write_format(&self, root: &File, folder: &Path, durability: Durability) -> BackendResult<()> {
        let path = folder.join("FORMAT");
        let failed = |e| io_error("write", &path, e);
        let (name, mut file) = self.new_temporary().map_err(failed)?;
        file.write_all(format!("{FORMAT}\n").as_bytes()).map_err(failed)?;
        durability.sync(&file, &path)?;
        renameat(&self.temporary, &name, root, "FORMAT").map_err(|e| failed(e.into()))
    }

    /// A file of a name that nobody can foretell.
    pub(crate) fn new_temporary(&self) -> io::Result<(String, File)> {
        let mut tries = 0;
        loop {
            let name = format!("{:016x}.tmp", random());
            match trust::new_file(&self.temporary, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < 8 => tries += 1,
                file => return Ok((name, file?)),
            }
        }
    }

    /// Removes what writers left unfinished. What cannot be removed harms nobody: it is left.
    pub(crate) fn clear_temporary(&self, folder: &Path) -> BackendResult<()> {
        let folder = folder.join("tmp");
        let entries = fs::read_dir(&folder).map_err(|e| io_error("list", &folder, e))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder || path.extension().is_none_or(|extension| extension != "tmp") {
                continue;
            }
            match unlinkat(&self.temporary, entry.file_name(), AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "a temporary file stays"),
            }
        }
        Ok(())
    }
}

/// A number that differs each time, and cannot be foretold: the standard library seeds its hashes from the system.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    static SEED: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    SEED.hash_one((NEXT.fetch_add(1, Ordering::Relaxed), std::process::id()))
}

/// Whether the folder names its format, which is one that this release reads.
fn check_format(root: &File, folder: &Path) -> BackendResult<bool> {
    let path = folder.join("FORMAT");
    let failed = |e| io_error("read", &path, e);
    let Some(file) = trust::read(root, "FORMAT".as_ref()).map_err(failed)? else {
        return match trust::look(root, "FORMAT".as_ref()).map_err(failed)? {
            None => Ok(false),
            Some(_) => Err(unusable(format!("{} is not a file of this user", path.display()))),
        };
    };
    let mut text = Vec::new();
    file.take(64).read_to_end(&mut text).map_err(failed)?;
    match String::from_utf8_lossy(&text).trim().parse::<u32>() {
        Ok(version) if version <= FORMAT => Ok(true),
        Ok(version) => Err(unusable(format!(
            "{} has format {version}; this release reads up to {FORMAT}",
            folder.display()
        ))),
        Err(_) => Err(unusable(format!("{} does not name a format", path.display()))),
    }
}

/// What came of locking a folder.
pub(crate) enum Locking {
    Taken(File, Claim),
    /// By a store of this process.
    Held(Holder),
}

/// Says that a folder is in use.
pub(crate) fn in_use(folder: &Path) -> BackendError {
    unusable(format!("{} is in use by another cache or process", folder.display()))
}

/// Takes the lock of a folder, or says that another process has it.
pub(crate) fn lock(root: &File, folder: &Path, given_up: &GivenUp) -> BackendResult<Locking> {
    let path = folder.join(LOCK);
    loop {
        let file = trust::lockable(root, LOCK, &path, false)?;
        match Claim::take(&file, given_up).map_err(|e| io_error("lock", &path, e))? {
            // Whoever removed the file meanwhile may have locked another one in its place.
            Taking::Taken(claim) if is_lock(&file, folder)? => return Ok(Locking::Taken(file, claim)),
            Taking::Taken(_) => {}
            Taking::Held(holder) => return Ok(Locking::Held(holder)),
            Taking::InUse => return Err(in_use(folder)),
        }
    }
}

/// Makes and takes the lock of a folder whose lock was removed; nothing if somebody else has made one since: what they
/// did to the folder is not known.
pub(crate) fn lock_again(root: &File, folder: &Path, claim: &Claim) -> BackendResult<Option<File>> {
    let path = folder.join(LOCK);
    loop {
        let file = match trust::lockable(root, LOCK, &path, true) {
            Err(error) if io_kind(&error) == Some(io::ErrorKind::AlreadyExists) => return Ok(None),
            file => file?,
        };
        if !claim.take_again(&file).map_err(|e| io_error("lock", &path, e))? {
            return Ok(None);
        }
        if is_lock(&file, folder)? {
            return Ok(Some(file));
        }
        // It was removed at once: nobody else has it for that.
    }
}

/// Whether this is the lock that others find in the folder.
pub(crate) fn is_lock(file: &File, folder: &Path) -> BackendResult<bool> {
    let path = folder.join(LOCK);
    let failed = |e| io_error("look at", &path, e);
    match trust::look(CWD, &path).map_err(failed)? {
        Some(stat) => trust::is_same(file, &stat).map_err(failed),
        None => Ok(false),
    }
}
