//! Blocking calls stay off the async threads: with the only thread for blocking work taken, no call gets
//! anywhere, and the async thread stays free.

use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hitbox_core::BoxFuture;

use crate::store::{Store, delete, files, get, set};
use crate::{Verdict, rejected};

fn check(store: Store) -> Verdict {
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("tokio");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = store.open(folder.path(), 1 << 30).await;
        set(&*open, 1, Bytes::from_static(b"there")).await?;
        let before = files(folder.path());

        let (release, released) = mpsc::channel::<()>();
        let taken = tokio::task::spawn_blocking(move || released.recv());
        let mut calls: Vec<(&str, BoxFuture<'_, Verdict>)> = vec![
            ("read", Box::pin(async { get(&*open, 1).await.map(|_| ()) })),
            ("write", Box::pin(set(&*open, 2, Bytes::from_static(b"new")))),
            ("remove", Box::pin(delete(&*open, 3))),
            ("clear", Box::pin(async { open.clear_with().await.map_err(|error| error.to_string()) })),
        ];
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
    check(Store::Disk)
}

pub(crate) fn disk_05_rejects_io_on_the_callers_thread() -> Verdict {
    rejected(check(Store::NakedFiles))
}
