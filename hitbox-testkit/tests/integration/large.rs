//! A value of 100 MiB through every nest of memory, Redis and disk. The suite takes it through leaves.

use bytes::Bytes;
use hitbox_backend::operation::LeafSet;
use hitbox_backend::wrap::LeafInfo;
use hitbox_backend::{Backend, CacheBackend, ReadOptions};
use hitbox_core::{CacheContext, CacheKey, CacheValue};
use hitbox_testkit::World;

async fn round_trip(cache: &dyn Backend, body: &Bytes) -> Result<(), String> {
    let (key, mut context) = (CacheKey::new("large"), CacheContext::new());
    let receipt = cache.set(&key, CacheValue::new(body.clone()), &mut context).await;
    let receipt = receipt.map_err(|error| format!("it is not written: {error}"))?;
    if receipt.stored() != 3 {
        return Err(format!("it is not stored in every leaf: {receipt:?}"));
    }
    let found = cache.get::<Bytes>(&key, &mut context).await.map_err(|error| error.to_string())?;
    if found.map(CacheValue::into_data).as_ref() != Some(body) {
        return Err("it comes back changed".to_owned());
    }
    // As the layers below have it, when memory has lost it.
    let leaves = cache.layout().leaves();
    for leaf in leaves {
        let others = leaves.iter().map(LeafInfo::position).filter(|other| *other != leaf.position());
        let others = others.map(LeafSet::of).fold(LeafSet::EMPTY, LeafSet::union);
        let only = ReadOptions::NORMAL.skipping(others);
        let found =
            cache.get_with::<Bytes>(&key, only, &mut context).await.map_err(|error| error.to_string())?;
        if found.map(CacheValue::into_data).as_ref() != Some(body) {
            return Err(format!("it comes back changed from {}", leaf.path()));
        }
    }
    cache.delete(&key, &mut context).await.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn value_01_a_hundred_mebibytes_through_nests() {
    let body: Bytes = (0..100_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let has_all = |name: &str| {
        let is_nest = name.contains('(') && !name.contains("around");
        is_nest && ["moka", "redis", "disk"].iter().all(|leaf| name.contains(leaf))
    };
    let nests: Vec<_> =
        crate::common::subjects().into_iter().filter(|subject| has_all(&subject.name)).collect();
    assert_eq!(nests.len(), 24, "six orders, left and right, static and dyn");
    for subject in nests {
        let cache = (subject.whole)(World::new()).await;
        round_trip(&*cache, &body).await.unwrap_or_else(|what| panic!("{}: {what}", subject.name));
    }
}
