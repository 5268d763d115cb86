//! What memory holds on the heap.

use std::sync::Arc;

use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Lifetime, Timestamp};
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;

#[test]
fn case_f11_erased_entries_leave_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let backends: [Arc<dyn Backend>; 2] = [
        MokaBackend::builder().max_entries(100_000).build().expect("moka").shared(),
        QuickBackend::builder().max_entries(100_000).build().expect("quick").shared(),
    ];
    let fill_and_erase = async |backend: &dyn Backend, round: u64| {
        for number in 0..20_000_u64 {
            let key = CacheKey::builder("f11").part("round", round).part("n", number).build();
            let end = Lifetime::new(None, Some(Timestamp::from_millis(1 << 50)), None);
            let value = CacheValue::new(number).with_lifetime(end);
            backend.set(&key, value, &mut CacheContext::new()).await.expect("a write");
        }
        backend.erase().await.expect("an erasure");
    };
    for backend in backends {
        // Tables keep the room that they have grown to.
        runtime.block_on(fill_and_erase(&*backend, 0));
        let rounds = allocation_counter::measure(|| {
            for round in 1..6 {
                runtime.block_on(fill_and_erase(&*backend, round));
            }
        });
        assert!(rounds.bytes_current < 1 << 20, "{} bytes stay after 100,000 entries", rounds.bytes_current);
    }
}
