//! What memory holds on the heap.

#![allow(clippy::print_stdout, reason = "rows of the page that `cargo xtask heap` writes")]

use std::sync::Arc;

use hitbox_backend::{Backend, CacheBackend};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Lifetime, Scope, Timestamp};
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

/// One way of filling a store.
#[derive(Clone, Copy, Debug)]
struct Filling {
    bytes: usize,
    ttl: bool,
    tags: bool,
}

impl Filling {
    fn entry(self, number: u64) -> CacheValue<bytes::Bytes> {
        let mut value = CacheValue::new(bytes::Bytes::from(vec![7; self.bytes]));
        if self.ttl {
            value = value.with_lifetime(Lifetime::new(None, Some(Timestamp::from_millis(1 << 50)), None));
        }
        if self.tags {
            let mut details = hitbox_core::Details::default();
            details.scopes = vec![Scope::tag("products"), Scope::tag(format!("shop-{}", number % 100))];
            value = value.with_details(details);
        }
        value
    }
}

/// The most bytes on the heap while four times the bound was written, in percent of the bound.
fn filled(backend: &dyn Backend, filling: Filling, bound: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let counted = allocation_counter::measure(|| {
        runtime.block_on(async {
            let entries = 4 * bound / (filling.bytes as u64 + 200);
            for number in 0..entries.max(64) {
                let key = CacheKey::builder("product").part("id", number).build();
                backend.set(&key, filling.entry(number), &mut CacheContext::new()).await.expect("a write");
            }
        });
    });
    counted.bytes_max * 100 / bound
}

#[test]
fn case_f13_the_bound_holds_for_the_heap() {
    const BOUND: u64 = 16 << 20;
    let mut over = Vec::new();
    for bytes in [8, 100, 1_024, 1 << 20] {
        for (ttl, tags) in [(false, false), (true, false), (false, true), (true, true)] {
            let filling = Filling { bytes, ttl, tags };
            let moka = MokaBackend::builder().max_bytes(BOUND).build().expect("moka");
            let quick = QuickBackend::builder().max_bytes(BOUND).build().expect("quick");
            let heaps = [("moka", moka.shared()), ("quick", quick.shared())]
                .map(|(name, backend)| (name, filled(&*backend, filling, BOUND)));
            let yes = |is: bool| if is { "yes" } else { "no" };
            let [moka, quick] = heaps.map(|(_, heap)| heap as f64 / 100.0);
            println!("| {bytes} | {} | {} | {moka:.2} | {quick:.2} |", yes(ttl), yes(tags));
            over.extend(heaps.into_iter().filter(|(_, heap)| *heap > 125).map(|heap| (filling, heap)));
        }
    }
    assert!(over.is_empty(), "{over:?}");
}

/// Large entries, one after the other: what is over the bound goes with the write that put it over.
#[test]
fn case_f14_the_bound_holds_after_each_write() {
    const BOUND: u64 = 16 << 20;
    for (name, backend) in [
        ("moka", MokaBackend::builder().max_bytes(BOUND).build().expect("moka").shared()),
        ("quick", QuickBackend::builder().max_bytes(BOUND).build().expect("quick").shared()),
    ] {
        let most = filled(&*backend, Filling { bytes: 1 << 20, ttl: false, tags: false }, BOUND);
        assert!(most <= 125, "{name}: {most} %");
    }
}
