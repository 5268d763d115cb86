//! What is no file, under the name of one.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::{is_refused, opened, write_and_find};
use crate::Verdict;
use crate::store::{block_on, delete, get, set};

const THERE: Bytes = Bytes::from_static(b"there");
const ELSEWHERE: &[u8] = b"another file";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Pipe,
    /// It never ends.
    Device,
    Socket,
    Folder,
    FullFolder,
    Link,
    DeadLink,
}

impl Thing {
    const ALL: [Self; 7] =
        [Self::Pipe, Self::Device, Self::Socket, Self::Folder, Self::FullFolder, Self::Link, Self::DeadLink];

    /// Makes it, with `elsewhere` for what a link points to.
    fn make(self, path: &Path, elsewhere: &Path) {
        let node = |kind, device| mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device);
        match self {
            Self::Pipe => node(FileType::Fifo, 0).expect("a pipe"),
            // Whoever may not make devices has none to fear.
            Self::Device => node(FileType::CharacterDevice, makedev(1, 5))
                .or_else(|_| node(FileType::Fifo, 0))
                .expect("a device"),
            Self::Socket => drop(UnixListener::bind(path).expect("a socket")),
            Self::Folder => fs::create_dir(path).expect("a folder"),
            Self::FullFolder => fs::create_dir_all(path.join("below")).expect("a folder"),
            Self::Link => symlink(elsewhere, path).expect("a link"),
            Self::DeadLink => symlink(elsewhere.with_extension("none"), path).expect("a link"),
        }
    }
}

async fn as_an_object(thing: Thing, while_open: bool, was_read: bool) -> Verdict {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (folder, elsewhere) = (place.path().join("store"), place.path().join("elsewhere"));
    let mut disk = Some(opened(&folder).await?);
    let first = disk.as_ref().expect("it is open");
    set(first, 1, THERE).await?;
    let path = write_and_find(first, &folder, 2, THERE).await?;
    if was_read {
        get(first, 2).await?;
    }
    if !while_open {
        disk.take().expect("it is open").close().await;
    }
    // Even if what is linked is an object of this key, it is not the store's.
    fs::rename(&path, &elsewhere).expect("a rename");
    let linked = fs::read(&elsewhere).expect("a file");
    thing.make(&path, &elsewhere);
    let disk = match disk {
        Some(disk) => disk,
        None => opened(&folder).await?,
    };
    if !was_read && get(&disk, 2).await?.is_some() {
        return Err("it is read".to_owned());
    }
    if get(&disk, 1).await? != Some(THERE) {
        return Err("another key is lost".to_owned());
    }
    let written = set(&disk, 2, Bytes::from_static(b"new")).await;
    if written.is_err() != (thing == Thing::FullFolder) {
        return Err(format!("a write says {written:?}"));
    }
    let read = get(&disk, 2).await?;
    if read.is_some() != written.is_ok() {
        return Err(format!("after the write {written:?}, {read:?} is read"));
    }
    if written.is_ok() && !fs::symlink_metadata(&path).is_ok_and(|file| file.is_file()) {
        return Err("it has not been replaced".to_owned());
    }
    delete(&disk, 2).await?;
    if get(&disk, 2).await?.is_some() || fs::read(&elsewhere).ok() != Some(linked) {
        return Err("it is there after a delete, or what was linked is not".to_owned());
    }
    // And without a write before.
    if thing != Thing::FullFolder {
        thing.make(&path, &elsewhere);
    }
    delete(&disk, 2).await?;
    disk.close().await;
    opened(&folder).await.map(drop)
}

async fn beside_objects(thing: Thing) -> Verdict {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (folder, elsewhere) = (place.path().join("store"), place.path().join("elsewhere"));
    fs::write(&elsewhere, ELSEWHERE).expect("a file");
    let disk = opened(&folder).await?;
    let path = write_and_find(&disk, &folder, 1, THERE).await?;
    disk.close().await;
    thing.make(&folder.join("tmp/0.tmp"), &elsewhere);
    thing.make(&folder.join("tmp/other"), &elsewhere);
    let disk = opened(&folder).await?;
    if get(&disk, 1).await? != Some(THERE) {
        return Err("below tmp/: an entry is lost".to_owned());
    }
    set(&disk, 2, THERE).await.map_err(|what| format!("below tmp/: {what}"))?;
    disk.close().await;
    if fs::read(&elsewhere).ok().as_deref() != Some(ELSEWHERE) {
        return Err("below tmp/: what was linked is another".to_owned());
    }
    // In the place of a folder, only what is a folder will do; in that of a file, none.
    let is_folder = matches!(thing, Thing::Folder | Thing::FullFolder);
    for (name, for_a_folder) in [("LOCK", false), ("FORMAT", false), ("tmp", true), ("objects", true)] {
        let (path, aside) = (folder.join(name), place.path().join("aside"));
        fs::rename(&path, &aside).expect("a rename");
        // What is linked would do.
        thing.make(&path, &aside);
        if is_folder && for_a_folder {
            opened(&folder).await.map_err(|what| format!("{name}: {what}"))?.close().await;
            fs::remove_dir_all(&path).expect("it can be removed");
        } else {
            is_refused(&folder, name, &path).await?;
            if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
                .expect("it can be removed");
        }
        fs::rename(&aside, &path).expect("a rename");
    }
    // In the place of the folder of some objects.
    let shelf = path.parent().expect("a folder").to_owned();
    fs::rename(&shelf, place.path().join("shelf")).expect("a rename");
    thing.make(&shelf, &place.path().join("shelf"));
    if matches!(thing, Thing::Link | Thing::DeadLink) {
        return is_refused(&folder, "the folder of some objects", &shelf).await;
    }
    let disk = opened(&folder).await?;
    if get(&disk, 1).await?.is_some() {
        return Err("an entry is found where its folder is none".to_owned());
    }
    let written = set(&disk, 1, THERE).await;
    if written.is_ok() != is_folder {
        return Err(format!("into the folder of some objects: {written:?}"));
    }
    delete(&disk, 1).await
}

pub(crate) fn case_f05_what_is_no_file_is_no_object() -> Verdict {
    block_on(async {
        for thing in Thing::ALL {
            for (while_open, was_read) in [(true, false), (true, true), (false, false)] {
                let said = as_an_object(thing, while_open, was_read).await;
                said.map_err(|what| {
                    format!("{thing:?}, while open: {while_open}, was read: {was_read}: {what}")
                })?;
            }
        }
        Ok(())
    })
}

pub(crate) fn case_f05_what_is_no_file_beside_objects() -> Verdict {
    block_on(async {
        for thing in Thing::ALL {
            beside_objects(thing).await.map_err(|what| format!("{thing:?}: {what}"))?;
        }
        Ok(())
    })
}
