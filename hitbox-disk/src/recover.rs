//! The index as the folder says, when it is opened: from the head of each object. Bodies are verified when
//! they are read.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::UNIX_EPOCH;

use hitbox_backend::envelope::wire;
use hitbox_core::{BackendResult, Timestamp};

use crate::error::io_error;
use crate::files::Files;
use crate::index::{Digest, Index};
use crate::object::{HEAD_BYTES, Head, Newer};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) index: Index,
    /// Objects that were damaged, and those over their time, which have been removed.
    pub(crate) damaged: u64,
    pub(crate) expired: u64,
    /// Objects of a newer release, which stay.
    pub(crate) newer: u64,
}

struct Candidate {
    digest: Digest,
    bytes: u64,
    drop_at: u64,
    modified: u128,
}

enum Look {
    Entry(Candidate),
    Foreign,
    Newer,
    Damaged(Digest),
    Expired(Digest),
}

pub(crate) fn recover(files: &Files, now: Timestamp) -> BackendResult<Recovered> {
    let mut recovered = Recovered::default();
    let mut found = Vec::new();
    let objects = files.objects();
    for shelf in fs::read_dir(&objects).map_err(|e| io_error("list", &objects, e))?.flatten() {
        let Ok(shelf) = fs::read_dir(shelf.path()) else { continue };
        for file in shelf.flatten() {
            match look(&file.path(), now) {
                Look::Entry(candidate) => found.push(candidate),
                Look::Foreign => {}
                Look::Newer => recovered.newer += 1,
                Look::Damaged(digest) => {
                    recovered.damaged += 1;
                    files.remove(digest)?;
                }
                Look::Expired(digest) => {
                    recovered.expired += 1;
                    files.remove(digest)?;
                }
            }
        }
    }
    // Oldest first, as they were written.
    found.sort_by_key(|candidate| candidate.modified);
    for Candidate { digest, bytes, drop_at, .. } in found {
        let sequence = recovered.index.begin(digest);
        recovered.index.reserve(bytes, u64::MAX);
        recovered.index.insert(digest, bytes, drop_at, sequence);
        recovered.index.end(digest);
    }
    Ok(recovered)
}

/// Files that do not have the name of an object, or cannot be read, are left as they are.
fn look(path: &Path, now: Timestamp) -> Look {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".obj"));
    let Some(digest) = name.filter(|n| n.len() == 32).and_then(|n| Digest::from_str_radix(n, 16).ok()) else {
        return Look::Foreign;
    };
    let in_its_place = path.parent().and_then(Path::file_name).and_then(|n| n.to_str());
    if in_its_place != Some(&format!("{digest:032x}")[..2]) {
        return Look::Foreign;
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let Ok((metadata, mut file)) = opened else { return Look::Foreign };
    let mut start = vec![0; HEAD_BYTES];
    if file.read_exact(&mut start).is_err() {
        return Look::Damaged(digest);
    }
    let head = match Head::parse(&start, metadata.len()) {
        Ok(Some(head)) => head,
        Ok(None) => return Look::Damaged(digest),
        Err(Newer) => return Look::Newer,
    };
    let skip = head.record_at - HEAD_BYTES as u64;
    let mut record = Vec::with_capacity(wire::HEADER_BYTES);
    let skipped = std::io::copy(&mut Read::by_ref(&mut file).take(skip), &mut std::io::sink());
    let read = skipped.and_then(|_| file.take(wire::HEADER_BYTES as u64).read_to_end(&mut record));
    if read.is_err() || (record.len() as u64) < head.record_len.min(wire::HEADER_BYTES as u64) {
        return Look::Damaged(digest);
    }
    let drop_at = wire::peek_drop_at(&record).flatten();
    if drop_at.is_some_and(|end| end <= now) {
        return Look::Expired(digest);
    }
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Look::Entry(Candidate {
        digest,
        bytes: metadata.len(),
        drop_at: drop_at.map_or(u64::MAX, Timestamp::as_millis),
        modified: modified.map_or(0, |time| time.as_nanos()),
    })
}
