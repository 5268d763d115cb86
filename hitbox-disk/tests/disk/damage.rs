//! Flipped bits, cut files, exchanged files and files of others.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use hitbox_backend::{Backend, CacheBackend};

use crate::store::{Store, block_on, delete, files, get, key, set};
use crate::{Verdict, rejected};

const KEYS: u64 = 12;
/// One byte a chunk, several chunks, and what lies between.
const LENGTHS: [usize; 4] = [1, 300, 65_536, 200_000];

fn body(number: u64) -> Bytes {
    let len = LENGTHS[number as usize % LENGTHS.len()];
    (0..len).map(|at| (at as u64 * 31 + number) as u8).collect()
}

async fn fill(store: &dyn Backend) -> Verdict {
    for number in 0..KEYS {
        set(store, number, body(number)).await?;
    }
    Ok(())
}

/// The files that hold entries: those that appeared when entries were written.
async fn fill_and_list(store: &dyn Backend, folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    // The first write brings the file of the epochs that all entries have.
    fill(store).await?;
    for number in 0..KEYS {
        delete(store, number).await?;
    }
    let before = files(folder);
    fill(store).await?;
    let written: Vec<_> = files(folder).into_iter().filter(|path| !before.contains(path)).collect();
    if written.len() as u64 == KEYS {
        Ok(written)
    } else {
        Err(format!("{} files for {KEYS} entries", written.len()))
    }
}

/// No key has anything but its own body or nothing; says how many are gone.
async fn missing(store: &dyn Backend) -> Result<u64, String> {
    let mut missing = 0;
    for number in 0..KEYS {
        match get(store, number).await? {
            None => missing += 1,
            Some(bytes) if bytes == body(number) => {}
            Some(_) => return Err(format!("key {number} has a body that is not its own")),
        }
    }
    Ok(missing)
}

async fn check(store: Store) -> Verdict {
    type Damage = fn(&Path, usize);
    let damages: [(&str, Damage); 4] = [
        ("a flipped bit", |path, number| {
            let mut bytes = fs::read(path).expect("a file");
            // Somewhere else in each file; in the first ones within the head.
            let at = if number < 4 { number * 13 } else { number * 7_919 } % bytes.len();
            bytes[at] ^= 1 << (number % 8);
            fs::write(path, bytes).expect("a file");
        }),
        ("a cut file", |path, number| {
            let bytes = fs::read(path).expect("a file");
            fs::write(path, &bytes[..bytes.len() * number / KEYS as usize]).expect("a file");
        }),
        ("a file of zeros", |path, _| {
            let len = fs::metadata(path).expect("a file").len() as usize;
            fs::write(path, vec![0; len]).expect("a file");
        }),
        ("a longer file", |path, _| {
            let mut bytes = fs::read(path).expect("a file");
            bytes.extend_from_slice(b"more");
            fs::write(path, bytes).expect("a file");
        }),
    ];
    for (name, damage) in damages {
        for while_open in [true, false] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let first = store.open(folder.path(), 1 << 30).await;
            let written = fill_and_list(&*first, folder.path()).await?;
            let still_open = while_open.then_some(first);
            for (number, path) in written.iter().enumerate() {
                damage(path, number);
            }
            let open = match still_open {
                Some(open) => open,
                None => store.open(folder.path(), 1 << 30).await,
            };
            let said = format!("{name}, {}", if while_open { "open" } else { "closed" });
            let gone = missing(&*open).await.map_err(|what| format!("{said}: {what}"))?;
            if gone != KEYS {
                return Err(format!("{said}: {} of {KEYS} keys are served", KEYS - gone));
            }
            let counted: u64 = open.layout().statistics().iter().map(|leaf| leaf.unusable).sum();
            if counted != KEYS {
                return Err(format!("{said}: {counted} of {KEYS} damaged entries are counted"));
            }
            fill(&*open).await.map_err(|what| format!("{said}, afterwards: {what}"))?;
            if missing(&*open).await? != 0 {
                return Err(format!("{said}: it does not heal"));
            }
        }
    }
    exchanged_files(store).await?;
    foreign_files(store).await
}

/// The file of one key under the name of another is not that key's.
async fn exchanged_files(store: Store) -> Verdict {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = store.open(folder.path(), 1 << 30).await;
    let written = fill_and_list(&*open, folder.path()).await?;
    for pair in written.chunks(2) {
        let aside = folder.path().join("aside");
        fs::rename(&pair[0], &aside).and_then(|()| fs::rename(&pair[1], &pair[0])).expect("a rename");
        fs::rename(&aside, &pair[1]).expect("a rename");
    }
    let gone = missing(&*open).await?;
    if gone == KEYS { Ok(()) } else { Err(format!("exchanged files serve {}", KEYS - gone)) }
}

/// Files of others stay, wherever they lie, and harm nothing.
async fn foreign_files(store: Store) -> Verdict {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = store.open(folder.path(), 1 << 30).await;
    let written = fill_and_list(&*open, folder.path()).await?;
    drop(open);
    let beside = written[0].parent().expect("a folder");
    let foreign = [
        folder.path().join("README"),
        beside.join("notes.txt"),
        beside.join("0123.obj"),
        folder.path().join("objects-of-mine"),
    ];
    for path in &foreign {
        fs::write(path, b"not ours").expect("a file");
    }
    let open = store.open(folder.path(), 1 << 30).await;
    if missing(&*open).await? != 0 {
        return Err("foreign files hide entries".to_owned());
    }
    open.erase().await.map_err(|error| format!("it cannot be cleared: {error}"))?;
    if get(&*open, 0).await?.is_some() {
        return Err(format!("{} is there after a clear", key(0)));
    }
    match foreign.iter().find(|path| fs::read(path).ok().as_deref() != Some(b"not ours")) {
        Some(path) => Err(format!("the foreign file {} was touched", path.display())),
        None => Ok(()),
    }
}

pub(crate) fn disk_03_damage_is_a_miss_and_heals() -> Verdict {
    block_on(check(Store::Disk))
}

pub(crate) fn disk_03_rejects_files_without_checksums() -> Verdict {
    rejected(block_on(check(Store::NakedFiles)))
}
