//! foyer's memory over disk, with the bounds of ours.

use std::path::Path;

use bytes::Bytes;
use foyer::{BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder};
use hitbox_bench::measure::Env;
use hitbox_bench::replay::{Access, Answer, DISK, MEMORY, Replay};

struct Hybrid(HybridCache<u64, Vec<u8>>);

pub(crate) fn foyer(env: &Env, folder: &Path) -> Box<dyn Replay> {
    let cache = env.block_on(async {
        let device =
            FsDeviceBuilder::new(folder).with_capacity(DISK as usize).build().expect("a folder to store in");
        HybridCacheBuilder::new()
            .memory(MEMORY as usize)
            .with_weighter(|_: &u64, body: &Vec<u8>| body.len() + 64)
            .storage()
            .with_engine_config(BlockEngineConfig::new(device))
            .build()
            .await
            .expect("a cache")
    });
    Box::new(Hybrid(cache))
}

impl Replay for Hybrid {
    fn get(&self, access: Access) -> Answer<'_, bool> {
        Box::pin(async move { self.0.get(&access.key).await.expect("a read").is_some() })
    }

    fn set(&self, access: Access, body: Bytes) -> Answer<'_, ()> {
        self.0.insert(access.key, body.to_vec());
        Box::pin(std::future::ready(()))
    }

    fn disk_bytes(&self) -> Option<(u64, u64)> {
        let statistics = self.0.statistics();
        Some((statistics.disk_read_bytes() as u64, statistics.disk_write_bytes() as u64))
    }
}
