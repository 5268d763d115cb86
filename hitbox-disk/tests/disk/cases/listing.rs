//! Listing while others read and write. How much work it is, is counted in the index itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hitbox_backend::CacheBackend;

use super::opened;
use crate::Verdict;
use crate::store::{block_on, get, key, set};

const KEYS: u64 = 5_000;
const BODY: Bytes = Bytes::from_static(b"body");

pub(crate) fn case_f22_each_key_is_listed_once_under_hits() -> Verdict {
    block_on(async {
        let place = tempfile::tempdir().expect("a temporary folder");
        let disk = opened(place.path()).await?;
        for number in 0..KEYS {
            set(&disk, number, BODY).await?;
        }
        let is_listed = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                let (disk, is_listed) = (disk.clone(), is_listed.clone());
                tokio::spawn(async move {
                    let mut number = reader;
                    while !is_listed.load(Ordering::Acquire) {
                        number = (number + 7) % KEYS;
                        if get(&disk, number).await? != Some(BODY) {
                            return Err(format!("key {number} is lost"));
                        }
                        // What is written again stays in its place.
                        set(&disk, number, BODY).await?;
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                })
            })
            .collect();
        let mut listed: HashMap<_, u32> = HashMap::new();
        let mut from = Some(0);
        while let Some(cursor) = from {
            let page = disk.list_keys(cursor, 7).await.map_err(|error| error.to_string())?;
            for key in page.keys {
                *listed.entry(key).or_default() += 1;
            }
            from = page.next;
        }
        is_listed.store(true, Ordering::Release);
        for reader in readers {
            reader.await.expect("it does not panic")?;
        }
        match (0..KEYS).find(|number| listed.get(&key(*number)) != Some(&1)) {
            None => Ok(()),
            Some(number) => Err(format!("key {number} is listed {:?} times", listed.get(&key(number)))),
        }
    })
}
