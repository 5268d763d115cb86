//! What `Durability::Sync` synchronises. The store says in its trace what it has synchronised; what was in a folder
//! at that moment is looked up here.

use std::collections::HashSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

use bytes::Bytes;
use hitbox_disk::{DiskBackend, Durability};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::Verdict;
use crate::store::{block_on, delete, set};

/// What was in a folder when it was synchronised, with the folders themselves.
static SYNCED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

struct Recorder;

impl Visit for Recorder {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let path = PathBuf::from(format!("{value:?}"));
        if field.name() != "path" {
            return;
        }
        let inside = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut synced = SYNCED.lock().expect("no panic");
        synced.extend(inside);
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("hitbox_disk") && metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().level() == &tracing::Level::TRACE {
            event.record(&mut Recorder);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn record() {
    static ONCE: Once = Once::new();
    // Calls that block run on other threads, so it is that of the whole process.
    ONCE.call_once(|| tracing::subscriber::set_global_default(Recorder).expect("the only subscriber"));
}

/// Everything below a folder, those that it consists of included.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        all.push(entry.path());
        if entry.path().is_dir() {
            all.extend(below(&entry.path()));
        }
    }
    all
}

/// A name survives once the folder that it is in has been synchronised with it.
fn all_survive(place: &Path, when: &str) -> Verdict {
    let synced: HashSet<_> = SYNCED.lock().expect("no panic").drain(..).collect();
    match below(place).iter().find(|path| !synced.contains(*path)) {
        None => Ok(()),
        Some(path) => Err(format!("{when}: {} would be lost", path.display())),
    }
}

pub(crate) fn case_f08_folders_are_synchronised_too() -> Verdict {
    record();
    let body = Bytes::from_static(b"body");
    block_on(async {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = place.path().join("a/b/store");
        let builder = DiskBackend::builder(&folder).durability(Durability::Sync);
        let disk = builder.clone().open().await.map_err(|error| error.to_string())?;
        all_survive(place.path(), "once it is open")?;
        // Folders that were there are not synchronised with each write: what survived goes on to.
        let mut survived: HashSet<PathBuf> = below(place.path()).into_iter().collect();
        for number in 0..20 {
            set(&disk, number, body.clone()).await?;
            SYNCED.lock().expect("no panic").extend(survived);
            all_survive(place.path(), &format!("after write {number}"))?;
            survived = below(place.path()).into_iter().collect();
        }
        fs::remove_dir_all(place.path().join("a")).expect("it can be removed");
        set(&disk, 1, body.clone()).await?;
        all_survive(place.path(), "after the write that made it again")?;
        delete(&disk, 1).await?;
        disk.close().await;
        SYNCED.lock().expect("no panic").clear();
        // Without `Sync` nothing is synchronised; with it what was there is, since it may be new.
        let disk =
            builder.clone().durability(Durability::Os).open().await.map_err(|error| error.to_string())?;
        set(&disk, 1, body).await?;
        disk.close().await;
        // Other checks may synchronise theirs.
        if SYNCED.lock().expect("no panic").iter().any(|path| path.starts_with(place.path())) {
            return Err("it synchronises what it need not".to_owned());
        }
        builder.open().await.map_err(|error| error.to_string())?.close().await;
        let synced = SYNCED.lock().expect("no panic").clone();
        let lost = [folder.clone(), folder.join("objects"), folder.join("tmp"), folder.join("FORMAT")];
        match lost.into_iter().find(|path| !synced.contains(path)) {
            None => Ok(()),
            Some(path) => Err(format!("{} of an earlier opening would be lost", path.display())),
        }
    })
}
