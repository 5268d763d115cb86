//! A look into a folder from outside: nothing is locked, changed or counted, and the cache that has it may be at work.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hitbox_backend::core::{BackendResult, CacheKey, ErrorKind, Timestamp};
use hitbox_backend::envelope::{Inspection, Uninspectable};

use crate::digest;
use crate::error::{io_error, unusable};
use crate::files::name;
use crate::object::{self, Object};
use crate::place::OBJECTS;
use crate::start::{Look, Start};

/// How often an entry that seems damaged is looked at.
const LOOKS: u32 = 4;

/// What the folder of a disk cache has under a key, whether or not a cache has the folder open, and whether or not a read
/// would answer with it. It blocks.
///
/// # Errors
/// [`Io`](hitbox_backend::core::ErrorKind::Io) if the file cannot be read; [`Codec`](hitbox_backend::core::ErrorKind::Codec) if
/// it has no entry that this release understands; [`Configuration`](hitbox_backend::core::ErrorKind::Configuration) if this is no
/// folder of a cache.
pub fn entry(folder: &Path, key: &CacheKey, now: Timestamp) -> BackendResult<Option<Inspection>> {
    let path = objects(folder)?.join(name(digest::digest_of(key.as_encoded())));
    // A cache that is at work may be replacing what is read: then it is whole a moment later.
    for _ in 1..LOOKS {
        match look(&path, key, now) {
            Err(error) if error.kind() == ErrorKind::Codec => std::thread::yield_now(),
            found => return found,
        }
    }
    look(&path, key, now)
}

fn look(path: &Path, key: &CacheKey, now: Timestamp) -> BackendResult<Option<Inspection>> {
    let file = match fs::symlink_metadata(path) {
        // Whatever else has such a name is not followed, and not waited for.
        Ok(found) if !found.is_file() => return Err(unusable(format!("{} is no file", path.display()))),
        Ok(_) => fs::read(path),
        Err(error) => Err(error),
    };
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path, error)),
    };
    match object::decode(key.as_encoded(), file) {
        Object::Record(record) => Ok(Some(Inspection::of(&record, now)?)),
        Object::OtherKey => Ok(None),
        Object::Newer => Err(Uninspectable::Newer.into()),
        Object::Damaged => Err(Uninspectable::Damaged.into()),
        Object::TooLong => Err(Uninspectable::TooLarge.into()),
    }
}

/// The keys of the entries in the folder of a disk cache, in no order; those of the framework's own records are left out, and
/// what cannot be read. It blocks, and reads the start of one file after another.
///
/// # Errors
/// [`Io`](hitbox_backend::core::ErrorKind::Io) if the folder cannot be listed;
/// [`Configuration`](hitbox_backend::core::ErrorKind::Configuration) if it is no folder of a cache.
pub fn keys(folder: &Path) -> BackendResult<impl Iterator<Item = CacheKey>> {
    let objects = objects(folder)?;
    let shelves = fs::read_dir(&objects).map_err(|error| io_error("list", &objects, error))?.flatten();
    let files = shelves.filter_map(|shelf| fs::read_dir(shelf.path()).ok()).flat_map(Iterator::flatten);
    let files = files.filter(|file| file.file_type().is_ok_and(|kind| kind.is_file()));
    let starts = files.filter_map(|file| Start::read(File::open(file.path()).ok()?).ok());
    let keys = starts.filter_map(|look| match look {
        Look::Entry(start) => CacheKey::from_encoded(&start.key).ok(),
        Look::Newer | Look::Damaged => None,
    });
    Ok(keys.filter(|key| !key.is_reserved()))
}

fn objects(folder: &Path) -> BackendResult<PathBuf> {
    let objects = folder.join(OBJECTS);
    if objects.is_dir() {
        return Ok(objects);
    }
    Err(unusable(format!("{} is no folder of a disk cache: it has no folder `objects`", folder.display())))
}
