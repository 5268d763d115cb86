//! Blocking calls stay off the async threads: with the only thread for blocking work taken, no call gets
//! anywhere, and the async thread stays free. A read may be answered at once if the page cache has what it
//! needs; so its files are dropped from the page cache first.

use std::fs::File;
use std::io::IoSliceMut;
use std::path::Path;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::BoxFuture;

use crate::store::{Store, delete, files, get, key, set};
use crate::{Verdict, rejected};

/// Drops a file from the page cache, and says whether a read of it would block now: it never does where files
/// live in memory.
fn is_out_of_memory(path: &Path) -> bool {
    use rustix::fs::{Advice, fadvise};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let file = File::open(path).expect("a file");
    file.sync_all().expect("it is on disk");
    let drop_pages = || fadvise(&file, 0, None, Advice::DontNeed).expect("advice");
    let would_block = || {
        let mut byte = [0];
        let read = preadv2(&file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT);
        read == Err(Errno::AGAIN)
    };
    drop_pages();
    let blocks = would_block();
    // The question has the kernel read ahead: pages on their way cannot be dropped, those that are there can.
    while would_block() {
        std::thread::yield_now();
    }
    drop_pages();
    blocks
}

fn is_empty(path: &Path) -> bool {
    path.metadata().expect("a file").len() == 0
}

fn check(store: Store) -> Verdict {
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("tokio");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = store.open(folder.path(), 1 << 30).await;
        set(&*open, 1, Bytes::from_static(b"there")).await?;
        let before = files(folder.path());
        let out_of_memory: Vec<bool> =
            before.iter().filter(|path| !is_empty(path)).map(|path| is_out_of_memory(path)).collect();
        let has_to_wait = out_of_memory.iter().all(|is_out| *is_out);

        let (release, released) = mpsc::channel::<()>();
        let taken = tokio::task::spawn_blocking(move || released.recv());
        let mut calls: Vec<(&str, BoxFuture<'_, Verdict>)> = vec![
            ("write", Box::pin(set(&*open, 2, Bytes::from_static(b"new")))),
            ("remove", Box::pin(delete(&*open, 3))),
            ("clear", Box::pin(async { open.erase().await.map_err(|error| error.to_string()) })),
            (
                "list",
                Box::pin(async { open.list_keys(0, 10).await.map(drop).map_err(|error| error.to_string()) }),
            ),
            (
                "look",
                Box::pin(async { open.contains(&key(1)).await.map(drop).map_err(|error| error.to_string()) }),
            ),
            (
                "count",
                Box::pin(async { open.entry_counts().await.map(drop).map_err(|error| error.to_string()) }),
            ),
        ];
        if has_to_wait {
            calls.insert(0, ("read", Box::pin(async { get(&*open, 1).await.map(|_| ()) })));
        }
        let mut context = Context::from_waker(Waker::noop());
        let mut verdict = Ok(());
        for (name, call) in &mut calls {
            for _ in 0..10 {
                if let Poll::Ready(answer) = call.as_mut().poll(&mut context) {
                    verdict = Err(format!("a {name} ended on the async thread: {answer:?}"));
                    break;
                }
                tokio::task::yield_now().await;
            }
            if verdict.is_err() {
                break;
            }
        }
        if verdict.is_ok() && files(folder.path()) != before {
            verdict = Err("files changed on the async thread".to_owned());
        }
        drop(release);
        taken.await.expect("the thread").expect_err("nothing is ever sent");
        verdict?;
        // The calls go on where they were.
        for (_, call) in calls {
            call.await?;
        }
        Ok(())
    })
}

pub(crate) fn disk_05_no_blocking_on_async_threads() -> Verdict {
    // The kernel may keep a page that it is told to drop. A store that reads where it must not does so each time.
    let mut verdict = Ok(());
    for _ in 0..8 {
        verdict = check(Store::Disk);
        if !verdict.as_ref().is_err_and(|why| why.starts_with("a read ended")) {
            return verdict;
        }
    }
    verdict
}

pub(crate) fn disk_05_rejects_io_on_the_callers_thread() -> Verdict {
    rejected(check(Store::NakedFiles))
}
