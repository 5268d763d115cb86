//! The index as the folder says, when it is opened: from the head of each object. Bodies are verified when
//! they are read.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use hitbox_backend::core::{BackendResult, Timestamp};

use crate::digest::{self, Digest};
use crate::error::io_error;
use crate::files::Files;
use crate::index::{Entry, Index, space};
use crate::start::{Look, Start, class_of};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) index: Index,
    /// Objects that were damaged, and those over their time, which have been removed.
    pub(crate) damaged: u64,
    pub(crate) expired: u64,
    /// Objects of a newer release, which stay.
    pub(crate) newer: u64,
    /// What is no file, or could not be read or removed, under the name of an object.
    pub(crate) left: u64,
}

pub(crate) fn recover(files: &Files, now: Timestamp) -> BackendResult<Recovered> {
    let mut recovered = Recovered::default();
    let mut found = Vec::new();
    let objects = files.objects();
    for shelf in fs::read_dir(&objects).map_err(|e| io_error("list", &objects, e))?.flatten() {
        if !is_shelf(&shelf.file_name())
            || shelf.file_type().is_ok_and(|kind| !kind.is_dir() && !kind.is_symlink())
        {
            continue;
        }
        // Whoever else owns it could exchange what is in it at any time.
        files.shelf(&shelf.file_name().to_string_lossy())?;
        let Ok(shelf) = fs::read_dir(shelf.path()) else { continue };
        for file in shelf.flatten() {
            // What does not have the name of an object, is no file or cannot be read, is left as it is.
            let Some(digest) = digest_of(&file.path()) else { continue };
            let Ok(Some(look)) = files.look(digest) else {
                recovered.left += 1;
                continue;
            };
            match look {
                Look::Entry(start) if start.entry.is_gone(now) => {
                    recovered.expired += 1;
                    recovered.left += u64::from(!files.remove_or_leave(digest));
                }
                Look::Entry(start) if digest::digest_of(&start.key) == digest => found.push((digest, start)),
                // No key leads here.
                Look::Entry(_) => {
                    recovered.damaged += 1;
                    recovered.left += u64::from(!files.remove_or_leave(digest));
                }
                Look::Newer => recovered.newer += 1,
                Look::Damaged => {
                    recovered.damaged += 1;
                    recovered.left += u64::from(!files.remove_or_leave(digest));
                }
            }
        }
    }
    // Oldest first, as they were written.
    found.sort_by_key(|(_, start)| start.modified);
    for (digest, Start { key, entry, bytes, .. }) in found {
        let sequence = recovered.index.begin(digest);
        recovered.index.reserve(space(bytes), u64::MAX);
        recovered.index.insert(digest, Entry::new(bytes, &entry, class_of(&key), sequence));
        recovered.index.end(digest, sequence);
    }
    Ok(recovered)
}

/// Whether a folder of objects has such a name.
fn is_shelf(name: &OsStr) -> bool {
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    name.len() == 2 && name.as_encoded_bytes().iter().all(is_digit)
}

/// The digest that an object's file is named after.
fn digest_of(path: &Path) -> Option<Digest> {
    let name = path.file_name()?.to_str()?.strip_suffix(".obj").filter(|name| name.len() == 32)?;
    let digest = Digest::from_str_radix(name, 16).ok()?;
    let shelf = path.parent()?.file_name()?.to_str()?;
    (shelf == &format!("{digest:032x}")[..2]).then_some(digest)
}
