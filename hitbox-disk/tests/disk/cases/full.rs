//! A file system that is full, and files that cannot be removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use hitbox_backend::Backend;
use hitbox_disk::DiskBackend;

use super::{opened, write_and_find};
use crate::Verdict;
use crate::store::{block_on, files, get, set};

/// A small file system; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    /// Nothing if this user may not mount any.
    fn mount(options: &str) -> Option<Self> {
        let place = tempfile::tempdir().expect("a temporary folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(place.path());
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(place))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "it cannot be unmounted");
    }
}

async fn full(options: &str, writes: u64, len: usize, keeps: u64) -> Verdict {
    let Some(small) = Small::mount(options) else {
        eprintln!("this user may not mount anything: not checked");
        return Ok(());
    };
    let folder = small.0.path().join("store");
    let disk = opened(&folder).await?;
    let body = |number: u64| Bytes::from(vec![number as u8; len]);
    for number in 0..writes {
        set(&disk, number, body(number)).await?;
        if get(&disk, number).await? != Some(body(number)) {
            return Err(format!("key {number} is not kept"));
        }
    }
    // Not more than is needed is put out.
    let mut kept = 0;
    for number in writes - keeps..writes {
        kept += u64::from(get(&disk, number).await?.is_some());
    }
    if kept < keeps {
        return Err(format!("{kept} of the last {keeps} are kept"));
    }
    let occupancy = disk.layout().statistics().into_iter().next().and_then(|leaf| leaf.occupancy);
    let evictions = occupancy.map_or(0, |occupancy| occupancy.evictions);
    if evictions < writes / 2 {
        return Err(format!("{evictions} evictions are counted"));
    }
    // If others fill the rest, that can be an error, but not for longer than it is full.
    let others = small.0.path().join("others");
    let filled = fs::write(&others, vec![0; 64 << 20]);
    filled.expect_err("it is full");
    for number in 0..10 {
        // They find room where entries were put out, as long as there are any.
        drop(set(&disk, number, body(number)).await);
    }
    if others.exists() {
        fs::remove_file(&others).expect("it can be removed");
    }
    set(&disk, 1, body(1)).await?;
    disk.close().await;
    let disk = opened(&folder).await?;
    match get(&disk, 1).await? {
        Some(_) => Ok(()),
        None => Err("what was written last is not there when it is opened again".to_owned()),
    }
}

pub(crate) fn case_f28_a_full_file_system_puts_others_out() -> Verdict {
    block_on(async {
        // 2 MiB of contents; as many files as lie in a few folders.
        full("size=2m", 200, 64 << 10, 20).await.map_err(|what| format!("full of bytes: {what}"))?;
        full("size=64m,nr_inodes=700", 2_000, 100, 200).await.map_err(|what| format!("full of files: {what}"))
    })
}

/// A file that not even root removes, until it is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn make(path: &Path) -> Option<Self> {
        let made = Command::new("chattr").arg("+i").arg(path).output();
        made.is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let made = Command::new("chattr").arg("-i").arg(&self.0).status();
        assert!(made.is_ok_and(|status| status.success()), "it stays immutable");
    }
}

async fn cannot_be_removed(immutable: bool, damaged: bool) -> Verdict {
    const MAX_BYTES: u64 = 1 << 20;
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("store");
    let open = || DiskBackend::builder(&folder).max_bytes(MAX_BYTES).open();
    let disk = open().await.map_err(|error| error.to_string())?;
    let body = Bytes::from(vec![7; 20 << 10]);
    let path = write_and_find(&disk, &folder, 0, body.clone()).await?;
    if damaged {
        fs::write(&path, b"not what was written").expect("a file");
    }
    let kept = if immutable {
        let Some(kept) = Immutable::make(&path) else {
            eprintln!("no file can be made immutable here: not checked");
            return Ok(());
        };
        Some(kept)
    } else {
        fs::remove_file(&path).and_then(|()| fs::create_dir_all(path.join("below"))).expect("a folder");
        None
    };
    let mut disk = Some(disk);
    for round in 0..2 {
        let disk = match disk.take() {
            Some(disk) => disk,
            None => open().await.map_err(|error| error.to_string())?,
        };
        for number in 1..200 {
            set(&disk, number, body.clone()).await?;
            if get(&disk, number).await?.is_none() {
                return Err(format!("key {number} is not kept in round {round}"));
            }
        }
        let used: u64 =
            files(&folder).iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum();
        if used > MAX_BYTES + (64 << 10) {
            return Err(format!("{used} bytes are used in round {round}"));
        }
        disk.close().await;
    }
    if !path.exists() {
        return Err("it has been removed".to_owned());
    }
    drop(kept);
    Ok(())
}

pub(crate) fn case_f28_what_cannot_be_removed_is_left() -> Verdict {
    block_on(async {
        for (immutable, damaged) in [(false, false), (true, false), (true, true)] {
            let said = cannot_be_removed(immutable, damaged).await;
            said.map_err(|what| format!("immutable {immutable}, damaged {damaged}: {what}"))?;
        }
        Ok(())
    })
}
