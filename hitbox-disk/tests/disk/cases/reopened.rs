//! A folder that is opened again as soon as its last handle is gone.

use std::sync::Arc;

use bytes::Bytes;
use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::{CacheContext, CacheValue};

use super::{is_refused, open, opened};
use crate::Verdict;
use crate::store::{block_on, get, key, set};

const TRIES: u64 = 100;

pub(crate) fn case_f20_opens_again_once_the_last_handle_is_gone() -> Verdict {
    block_on(async {
        let place = tempfile::tempdir().expect("a temporary folder");
        let body = Bytes::from(vec![1; 50_000]);
        for round in 0..TRIES {
            let reopened = async |after: &str| {
                opened(place.path()).await.map_err(|what| format!("round {round}, after {after}: {what}"))
            };
            let disk = reopened("a close").await?;
            set(&disk, 1, body.clone()).await?;
            drop(disk);
            // Handles of many kinds, in many tasks.
            let disk = reopened("a write").await?;
            let tasks: Vec<_> = (0..8)
                .map(|number| {
                    let (disk, body) = (disk.clone(), body.clone());
                    tokio::spawn(async move {
                        set(&disk, number, body).await?;
                        get(&disk, number).await.map(drop)
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("it does not panic")?;
            }
            let shared: Arc<dyn Backend> = Arc::new(disk);
            drop(shared);
            let disk = reopened("many tasks").await?;
            // Calls that are given up go on.
            for number in 0..8 {
                let (key, mut context) = (key(number), CacheContext::new());
                let value = CacheValue::new(body.clone());
                let mut call = Box::pin(disk.set(&key, value, &mut context));
                let waker = std::task::Waker::noop();
                let polled = call.as_mut().poll(&mut std::task::Context::from_waker(waker));
                if let std::task::Poll::Ready(written) = polled {
                    written.map_err(|error| error.to_string())?;
                }
            }
            drop(disk);
            let disk = reopened("writes that were given up").await?;
            drop(disk);
            // So does an opening.
            let mut opening = Box::pin(open(place.path()));
            let waker = std::task::Waker::noop();
            drop(opening.as_mut().poll(&mut std::task::Context::from_waker(waker)));
            drop(opening);
            let disk = reopened("an opening that was given up").await?;
            if get(&disk, 1).await? != Some(body.clone()) {
                return Err(format!("round {round}: it is lost"));
            }
            is_refused(place.path(), "in use", place.path()).await?;
            disk.close().await;
            reopened("another close").await?.close().await;
        }
        Ok(())
    })
}

/// Even if the thread for blocking work is the only one, and busy.
pub(crate) fn case_f20_waits_for_what_was_given_up_on_no_thread() -> Verdict {
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("tokio");
    runtime.block_on(async {
        let place = tempfile::tempdir().expect("a temporary folder");
        for round in 0..TRIES {
            let disk = opened(place.path()).await.map_err(|what| format!("round {round}: {what}"))?;
            let body = Bytes::from(round.to_string());
            set(&disk, 1, body.clone()).await?;
            let (release, released) = std::sync::mpsc::channel::<()>();
            let taken = tokio::task::spawn_blocking(move || released.recv());
            let (key, mut context) = (key(2), CacheContext::new());
            let mut call = Box::pin(disk.set(&key, CacheValue::new(body.clone()), &mut context));
            let mut no_waker = std::task::Context::from_waker(std::task::Waker::noop());
            if call.as_mut().poll(&mut no_waker).is_ready() {
                return Err("a write ended while no thread was free".to_owned());
            }
            drop(call);
            drop(disk);
            // It waits in front of the write that was given up, and after it.
            let mut opening = Box::pin(opened(place.path()));
            if opening.as_mut().poll(&mut no_waker).is_ready() {
                return Err("it opened while no thread was free".to_owned());
            }
            drop(release);
            taken.await.expect("the thread").expect_err("nothing is ever sent");
            let disk = opening.await.map_err(|what| format!("round {round}: {what}"))?;
            for number in [1, 2] {
                if get(&disk, number).await? != Some(body.clone()) {
                    return Err(format!("round {round}: key {number} is lost"));
                }
            }
        }
        Ok(())
    })
}

/// A task has the last handle, and ends while the folder is being opened.
pub(crate) fn case_f20_waits_for_handles_of_background_work() -> Verdict {
    block_on(async {
        let place = tempfile::tempdir().expect("a temporary folder");
        for round in 0..20 {
            let disk = opened(place.path()).await?;
            set(&disk, 1, Bytes::from_static(b"body")).await?;
            let mut opening = Box::pin(opened(place.path()));
            let first =
                std::future::poll_fn(|context| std::task::Poll::Ready(opening.as_mut().poll(context)));
            if first.await.is_ready() {
                return Err(format!("round {round}: two stores have the folder"));
            }
            let work = tokio::spawn(async move {
                for _ in 0..1_000 {
                    get(&disk, 1).await?;
                    tokio::task::yield_now().await;
                }
                Ok::<_, String>(())
            });
            drop(opening.await.map_err(|why| format!("round {round}: {why}"))?);
            work.await.expect("it does not panic")?;
        }
        Ok(())
    })
}
