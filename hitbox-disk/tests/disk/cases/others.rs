//! Other users of the machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::Mode;
use rustix::process::{geteuid, umask};

use super::{Durability, is_refused, opened, write_and_find};
use crate::Verdict;
use crate::store::{block_on, files, get, set};
use hitbox_disk::DiskBackend;

const SOMEBODY: u32 = 4_242;

/// The store's folder and all that is in it.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut all = files(folder);
    for path in all.clone() {
        all.extend(path.ancestors().take_while(|above| above.starts_with(folder)).map(Path::to_owned));
    }
    all.extend([folder.join("tmp"), folder.join("store/tmp")].into_iter().filter(|path| path.exists()));
    all.sort();
    all.dedup();
    all
}

fn modes(folder: &Path) -> Verdict {
    for path in everything(folder) {
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        let (mode, right) = (metadata.mode() & 0o777, if metadata.is_dir() { 0o700 } else { 0o600 });
        if mode != right {
            return Err(format!("{} has mode {mode:o}", path.display()));
        }
    }
    Ok(())
}

pub(crate) fn case_f04_nobody_else_may_read_or_write() -> Verdict {
    for mask in [0, 0o022, 0o277] {
        // Alone in its process under nextest; the mask is put back for others.
        let before = umask(Mode::from_raw_mode(mask));
        let verdict = block_on(async {
            let place = tempfile::tempdir().expect("a temporary folder");
            fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
            let folder = place.path().join("above").join("store");
            let disk = opened(&folder).await?;
            for number in 0..20 {
                set(&disk, number, Bytes::from_static(b"body")).await?;
            }
            if get(&disk, 1).await?.is_none() {
                return Err("it does not keep what it writes".to_owned());
            }
            modes(&place.path().join("above"))?;
            disk.close().await;
            // Folders of earlier releases are closed to others when they are opened.
            for path in everything(&folder).iter().filter(|path| path.is_dir() && **path != folder) {
                fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("a mode");
            }
            opened(&folder).await?.close().await;
            modes(&folder)
        });
        umask(before);
        verdict.map_err(|what| format!("under the mask {mask:o}: {what}"))?;
    }
    Ok(())
}

pub(crate) fn case_f04_what_others_own_is_refused() -> Verdict {
    if !geteuid().is_root() {
        eprintln!("only root can give things to others: not checked");
        return Ok(());
    }
    block_on(async {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = place.path().join("store");
        let disk = opened(&folder).await?;
        let object = write_and_find(&disk, &folder, 1, Bytes::from_static(b"body")).await?;
        // While the store has the folder: one that it has not read yet, so that it is not open.
        chown(&object, Some(SOMEBODY), None).expect("root may");
        if get(&disk, 1).await?.is_some() {
            return Err("an object that was given to another user is served".to_owned());
        }
        chown(&object, Some(0), None).expect("root may");
        disk.close().await;
        let shelf = object.parent().expect("a folder").to_owned();
        let owned = [folder.clone(), folder.join("objects"), folder.join("tmp"), folder.join("LOCK"), shelf];
        for path in owned.into_iter().chain([folder.join("FORMAT")]) {
            chown(&path, Some(SOMEBODY), None).expect("root may");
            let before = files(&folder);
            is_refused(&folder, "of another user", &path).await?;
            if files(&folder) != before {
                return Err(format!("{} is another's, and files are made", path.display()));
            }
            chown(&path, Some(0), None).expect("root may");
        }
        // An object that somebody put there is none.
        chown(&object, Some(SOMEBODY), None).expect("root may");
        let disk = opened(&folder).await?;
        match get(&disk, 1).await? {
            None => Ok(()),
            Some(_) => Err("an object of another user is served".to_owned()),
        }
    })
}

/// Every name that the store could be thought to write, as a link to a file and to a folder of somebody.
pub(crate) fn case_f04_links_are_never_followed() -> Verdict {
    block_on(async {
        let names =
            ["LOCK", "FORMAT", "FORMAT.new", "tmp", "objects", "tmp/0.tmp", "tmp/1.tmp", "objects/ab"];
        for durability in [Durability::Os, Durability::Sync] {
            for name in names.into_iter().chain([""]) {
                for to_a_folder in [false, true] {
                    let place = tempfile::tempdir().expect("a temporary folder");
                    let (folder, theirs) = (place.path().join("store"), place.path().join("theirs"));
                    if to_a_folder {
                        fs::create_dir(&theirs).expect("a folder");
                    } else {
                        fs::write(&theirs, b"theirs").expect("a file");
                    }
                    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755)).expect("a mode");
                    let link = if name.is_empty() { folder.clone() } else { folder.join(name) };
                    fs::create_dir_all(link.parent().expect("a folder")).expect("a folder");
                    symlink(&theirs, &link).expect("a link");
                    // It may refuse, or do without. A slash at the end would follow a link that stands before it.
                    for path in [folder.clone(), folder.join(""), folder.join(".")] {
                        let builder = DiskBackend::builder(&path).durability(durability);
                        if let Ok(disk) = builder.open().await {
                            for number in 0..20 {
                                set(&disk, number, Bytes::from_static(b"body")).await?;
                            }
                        }
                    }
                    let is_as_it_was = if to_a_folder {
                        fs::read_dir(&theirs).expect("a folder").next().is_none()
                    } else {
                        fs::read(&theirs).expect("a file") == b"theirs"
                    };
                    if !is_as_it_was || theirs.metadata().expect("it is there").mode() & 0o777 != 0o755 {
                        return Err(format!("the link {} was followed", link.display()));
                    }
                }
            }
        }
        Ok(())
    })
}
