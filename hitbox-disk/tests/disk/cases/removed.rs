//! A folder that somebody removes while a store has it open.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use hitbox_backend::operation::Presence;
use hitbox_backend::{Backend, CacheBackend};
use hitbox_disk::{DiskBackend, Durability};

use super::{is_refused, opened, write_and_find};
use crate::Verdict;
use crate::store::{block_on, delete, files, get, key, set};

const BODY: Bytes = Bytes::from_static(b"body");

async fn removed(what: &str, durability: Durability) -> Verdict {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("above/store");
    let disk = DiskBackend::builder(&folder).durability(durability).open().await;
    let disk = disk.map_err(|error| error.to_string())?;
    let path = write_and_find(&disk, &folder, 1, BODY).await?;
    // It is open from now on.
    if get(&disk, 1).await? != Some(BODY) {
        return Err("it is not there".to_owned());
    }
    let shelf = path.parent().expect("a folder").to_owned();
    let gone = match what {
        "shelf" => shelf,
        "all" => folder.clone(),
        "above" => place.path().join("above"),
        name => folder.join(name),
    };
    let is_kept = !path.starts_with(&gone);
    if gone.is_dir() { fs::remove_dir_all(&gone) } else { fs::remove_file(&gone) }
        .expect("it can be removed");
    let read = get(&disk, 1).await.map_err(|what| format!("a read: {what}"))?;
    // What the store has open is the right value still; what it has not is a miss.
    if read.as_ref().is_some_and(|read| *read != BODY) || (is_kept && read.is_none()) {
        return Err(format!("{read:?} is read"));
    }
    let present = disk.contains(&key(1)).await.map_err(|error| error.to_string())?;
    if !is_kept && present != Presence::Absent {
        return Err("it says that it is there".to_owned());
    }
    delete(&disk, 3).await?;
    for number in 0..40 {
        set(&disk, number, BODY).await?;
    }
    for number in 0..40 {
        if get(&disk, number).await? != Some(BODY) {
            return Err(format!("key {number} is not kept"));
        }
    }
    let objects = files(&folder.join("objects")).len();
    if objects < 40 {
        return Err(format!("{objects} objects are in the folder"));
    }
    is_refused(&folder, "in use", &folder).await?;
    disk.close().await;
    let disk = opened(&folder).await?;
    for number in 0..40 {
        if get(&disk, number).await? != Some(BODY) {
            return Err(format!("key {number} is not kept when it is opened again"));
        }
    }
    Ok(())
}

pub(crate) fn case_f03_what_is_removed_is_made_again() -> Verdict {
    block_on(async {
        for durability in [Durability::Os, Durability::Sync] {
            for what in ["tmp", "objects", "shelf", "LOCK", "FORMAT", "all", "above"] {
                removed(what, durability).await.map_err(|why| format!("{what}, {durability:?}: {why}"))?;
            }
        }
        Ok(())
    })
}

/// Writes while the folder is removed again and again either succeed or say why.
pub(crate) fn case_f03_removed_under_writers() -> Verdict {
    block_on(async {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = place.path().join("store");
        let disk = opened(&folder).await?;
        let writers = (0..3).map(|writer| {
            let disk = disk.clone();
            tokio::spawn(async move {
                for step in 0..200 {
                    // It may be removed more often than a write is tried.
                    let _ = set(&disk, writer * 10 + step % 10, BODY).await;
                    get(&disk, step % 30).await?;
                }
                Ok::<_, String>(())
            })
        });
        let writers: Vec<_> = writers.collect();
        for part in ["tmp", "objects", "", "LOCK"].into_iter().cycle().take(200) {
            let gone = folder.join(part);
            let removed = if part == "LOCK" { fs::remove_file(&gone) } else { fs::remove_dir_all(&gone) };
            // What is made meanwhile, or was not there, is the next round's.
            drop(removed);
            tokio::task::yield_now().await;
        }
        for writer in writers {
            writer.await.expect("it does not panic")?;
        }
        set(&disk, 1, BODY).await?;
        if get(&disk, 1).await? != Some(BODY) {
            return Err("the last write is not kept".to_owned());
        }
        is_refused(&folder, "in use", &folder).await
    })
}

async fn is_lost(disk: &DiskBackend, folder: &Path) -> Verdict {
    for _ in 0..2 {
        let refused = [set(disk, 1, BODY).await, delete(disk, 1).await];
        for refused in refused {
            match refused {
                Ok(()) => return Err("it changes what another store has".to_owned()),
                Err(error) if error.contains(&*folder.to_string_lossy()) && error.contains("another") => {}
                Err(error) => return Err(format!("it does not say why: {error}")),
            }
        }
        if get(disk, 1).await?.is_some() {
            return Err("it reads what another store has".to_owned());
        }
        if disk.erase().await.is_ok() {
            return Err("it says that it has erased what another store has".to_owned());
        }
    }
    Ok(())
}

pub(crate) fn case_f03_two_stores_never_share_a_folder() -> Verdict {
    block_on(async {
        let ways = ["", "LOCK", "LOCK moved", "LOCK linked"];
        for (what, is_closed) in ways.into_iter().flat_map(|what| [(what, false), (what, true)]) {
            let place = tempfile::tempdir().expect("a temporary folder");
            let folder = place.path().join("store");
            let disk = opened(&folder).await?;
            set(&disk, 1, BODY).await?;
            get(&disk, 1).await?;
            let (lock, elsewhere) = (folder.join("LOCK"), place.path().join("elsewhere"));
            match what {
                "" => fs::remove_dir_all(&folder),
                "LOCK moved" => fs::rename(lock, elsewhere),
                // As snapshots of folders do that share files.
                "LOCK linked" => fs::hard_link(&lock, elsewhere).and_then(|()| fs::remove_file(lock)),
                _ => fs::remove_file(lock),
            }
            .expect("it can be removed");
            let other = opened(&folder).await?;
            let theirs = Bytes::from_static(b"theirs");
            set(&other, 1, theirs.clone()).await?;
            let other = if is_closed {
                other.close().await;
                None
            } else {
                Some(other)
            };
            is_lost(&disk, &folder).await.map_err(|why| format!("{what:?} removed: {why}"))?;
            drop(disk);
            let other = match other {
                Some(other) => other,
                None => opened(&folder).await?,
            };
            if get(&other, 1).await? != Some(theirs) {
                return Err("the other store has lost its entry".to_owned());
            }
        }
        Ok(())
    })
}

/// A lock that is removed as soon as it is made is nobody else's.
pub(crate) fn case_f03_a_lock_that_is_removed_at_once_is_made_again() -> Verdict {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    block_on(async {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = place.path().join("store");
        let disk = opened(&folder).await?;
        let is_done = Arc::new(AtomicBool::new(false));
        let (lock, remove) = (folder.join("LOCK"), is_done.clone());
        let remover = std::thread::spawn(move || {
            while !remove.load(Ordering::Relaxed) {
                // It is not there most of the time.
                drop(fs::remove_file(&lock));
            }
        });
        for number in 0..300 {
            // It may be removed more often than a write is tried.
            drop(set(&disk, number, BODY).await);
        }
        is_done.store(true, Ordering::Relaxed);
        remover.join().expect("it does not panic");
        set(&disk, 1, BODY).await?;
        is_refused(&folder, "in use", &folder).await
    })
}
