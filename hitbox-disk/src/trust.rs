//! Opening and making what is in the folder without trusting it: links are never followed, nothing that is not
//! a file or a folder is opened for what it holds, and what another user owns is not the store's.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use hitbox_backend::core::BackendResult;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, mkdirat, openat, statat};
use rustix::process::geteuid;

use crate::builder::Durability;
use crate::error::{io_error, io_kind, unusable};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Neither of them waits for the other end of a pipe, nor makes a terminal that of the process.
const CAREFUL: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// What stands under a name, links not followed.
pub(crate) fn look(at: impl AsFd, name: &Path) -> io::Result<Option<Stat>> {
    match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if is_nothing(error.kind()) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Nothing can stand under a name whose folder is none.
pub(crate) fn is_nothing(error: io::ErrorKind) -> bool {
    matches!(error, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Says why something is not what is wanted there.
fn check(path: &Path, stat: &Stat, wanted: FileType) -> BackendResult<()> {
    let found = kind(stat);
    if found != wanted {
        return Err(unusable(format!("{} is of the wrong kind: {found:?}, not {wanted:?}", path.display())));
    }
    let (owner, user) = (stat.st_uid, geteuid().as_raw());
    if owner != user {
        return Err(unusable(format!("{} belongs to user {owner}, not to user {user}", path.display())));
    }
    Ok(())
}

/// Opens a file to read if it is one of this user. Anything else is as good as nothing.
pub(crate) fn read(at: impl AsFd, name: &Path) -> io::Result<Option<File>> {
    open_file(at, name, OFlags::RDONLY)
}

/// The same to change it in its place.
pub(crate) fn change(at: impl AsFd, name: &Path) -> io::Result<Option<File>> {
    open_file(at, name, OFlags::RDWR)
}

fn open_file(at: impl AsFd, name: &Path, access: OFlags) -> io::Result<Option<File>> {
    let is_ours = |stat: &Stat| kind(stat) == FileType::RegularFile && stat.st_uid == geteuid().as_raw();
    // Opening a device can do things, so it is looked at first; and again in case that it was exchanged.
    if !look(&at, name)?.is_some_and(|stat| is_ours(&stat)) {
        return Ok(None);
    }
    let file = match openat(at, name, access | CAREFUL, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(error) if is_nothing(error.kind()) || error == rustix::io::Errno::LOOP => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(is_ours(&rustix::fs::fstat(&file)?).then_some(file))
}

/// Opens a file to lock it, and makes it if it is not there; `new` takes none that is there.
pub(crate) fn lockable(at: &File, name: &str, path: &Path, new: bool) -> BackendResult<File> {
    let failed = |e: io::Error| io_error("open", path, e);
    if let Some(stat) = look(at, name.as_ref()).map_err(failed)?.filter(|_| !new) {
        check(path, &stat, FileType::RegularFile)?;
    }
    let how = if new { OFlags::EXCL } else { OFlags::empty() };
    let flags = OFlags::RDWR | OFlags::CREATE | how | CAREFUL;
    let file = openat(at, name, flags, Mode::from_raw_mode(FILE_MODE)).map_err(|e| failed(e.into()))?;
    check(path, &rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?, FileType::RegularFile)?;
    let file = File::from(file);
    // Whoever may open it may lock it.
    set_mode(&file, FILE_MODE).map_err(failed)?;
    Ok(file)
}

/// Makes a file that was not there.
pub(crate) fn new_file(at: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | CAREFUL;
    let file = File::from(openat(at, name, flags, Mode::from_raw_mode(FILE_MODE))?);
    set_mode(&file, FILE_MODE)?;
    Ok(file)
}

/// The mask of the process takes from the mode that is asked for.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o777 != mode {
        permissions.set_mode(mode);
        file.set_permissions(permissions)?;
    }
    Ok(())
}

/// Opens a folder of this user.
fn open_folder(at: impl AsFd, name: &Path, path: &Path) -> BackendResult<File> {
    let failed = |e: io::Error| io_error("open", path, e);
    let Some(stat) = look(&at, name).map_err(failed)? else {
        return Err(failed(io::ErrorKind::NotFound.into()));
    };
    check(path, &stat, FileType::Directory)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | CAREFUL;
    let folder = openat(at, name, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    check(path, &rustix::fs::fstat(&folder).map_err(|e| failed(e.into()))?, FileType::Directory)?;
    Ok(File::from(folder))
}

/// Opens a sub folder, which is the store's alone, and makes it if it is not there; says whether it did.
pub(crate) fn sub_folder(
    at: &File,
    name: &str,
    path: &Path,
    durability: Durability,
) -> BackendResult<(File, bool)> {
    let made = match mkdirat(at, name, Mode::from_raw_mode(FOLDER_MODE)) {
        Ok(()) => true,
        Err(rustix::io::Errno::EXIST) => false,
        Err(error) => return Err(io_error("make folder", path, error.into())),
    };
    let folder = open_folder(at, name.as_ref(), path)?;
    // Earlier releases left the mode to the mask of the process.
    set_mode(&folder, FOLDER_MODE).map_err(|e| io_error("set the mode of", path, e))?;
    if made {
        durability.sync(&folder, path)?;
        durability.sync(at, path.parent().unwrap_or(path))?;
    }
    Ok((folder, made))
}

/// Opens a sub folder that is there, to look for files in it.
pub(crate) fn existing(at: &File, name: &str) -> io::Result<File> {
    Ok(File::from(openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | CAREFUL, Mode::empty())?))
}

/// Opens the store's folder, and makes it and what it lies in. A folder that was there keeps its mode: it may be one
/// that the store shares with other things.
pub(crate) fn root(path: &Path, durability: Durability) -> BackendResult<File> {
    make(path, durability)?;
    match durability.sync_path(parent(path)) {
        // It was there before the store, whose user may not open it.
        Err(error) if io_kind(&error) == Some(io::ErrorKind::PermissionDenied) => {}
        synced => synced?,
    }
    let folder = open_folder(CWD, path, path)?;
    let mode = folder.metadata().map_err(|e| io_error("look at", path, e))?.mode();
    if mode & 0o1002 == 0o002 {
        tracing::warn!(folder = %path.display(), "every user may write in the folder of a cache");
    }
    Ok(folder)
}

fn make(path: &Path, durability: Durability) -> BackendResult<()> {
    let failed = |e| io_error("make folder", path, e);
    let create = || std::fs::DirBuilder::new().mode(FOLDER_MODE).create(path);
    let mut created = create();
    if created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) && parent(path) != path {
        make(parent(path), durability)?;
        created = create();
    }
    match created {
        Ok(()) => {}
        // What it is, is looked at when it is opened.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    let folder = open_folder(CWD, path, path)?;
    set_mode(&folder, FOLDER_MODE).map_err(failed)?;
    durability.sync(&folder, path)?;
    durability.sync_path(parent(path))
}

/// What a folder lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Whether two files are one.
pub(crate) fn is_same(file: &File, stat: &Stat) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(metadata.ino() == stat.st_ino && metadata.dev() == stat.st_dev)
}
