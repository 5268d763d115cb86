//! Who goes when memory is full: priorities, the dead before the living.

use std::sync::Arc;

use hitbox_backend::store::Occupancy;
use hitbox_backend::{Backend, CacheBackend, LeafOutcome};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Details, Lifetime, ManualClock, Priority};
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;
use std::time::Duration;

fn key(name: &str, number: u64) -> CacheKey {
    CacheKey::builder(name).part("n", number).build()
}

fn of(priority: Priority, number: u64) -> CacheValue<u64> {
    let mut details = Details::default();
    details.priority = priority;
    CacheValue::new(number).with_details(details)
}

async fn set(backend: &dyn Backend, key: &CacheKey, value: CacheValue<u64>) -> LeafOutcome {
    let receipt = backend.set(key, value, &mut CacheContext::new()).await.expect("a write");
    receipt.leaves()[0].outcome.clone()
}

async fn holds(backend: &dyn Backend, key: &CacheKey) -> bool {
    backend.get::<u64>(key, &mut CacheContext::new()).await.expect("a read").is_some()
}

fn occupancy(backend: &dyn Backend) -> Occupancy {
    backend.layout().leaves()[0].statistics().occupancy.expect("a bound")
}

fn with_priorities() -> [(&'static str, MokaBackend); 2] {
    let moka = || MokaBackend::builder().priorities();
    [
        ("entries", moka().max_entries(100).build().expect("moka")),
        ("bytes", moka().max_bytes(40_000).build().expect("moka")),
    ]
}

/// These keys are read after each write of so many others.
async fn assert_stay(name: &str, moka: &MokaBackend, hot: &[CacheKey], others: u64) {
    for key in hot {
        set(moka, key, of(Priority::Normal, 1)).await;
    }
    for number in 0..others {
        set(moka, &key("cold", number), of(Priority::Normal, number)).await;
        for key in hot {
            assert!(holds(moka, key).await, "{name}: {key} has gone after {number} others");
        }
    }
}

#[tokio::test]
async fn case_f16_what_is_read_all_the_time_stays() {
    for (name, moka) in with_priorities() {
        let hot: Vec<_> = (0..20).map(|number| key("hot", number)).collect();
        assert_stay(name, &moka, &hot, 2_000).await;
    }
}

/// The store keeps 65,536 marks of keys that were read.
#[tokio::test]
async fn case_f16_keys_that_share_a_mark_are_spared_together() {
    for (name, moka) in with_priorities() {
        let mark = key("hot", 0).process_hash() % 65_536;
        let hot: Vec<_> = (0..)
            .map(|number| key("hot", number))
            .filter(|key| key.process_hash() % 65_536 == mark)
            .take(5)
            .collect();
        assert_stay(name, &moka, &hot, 500).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_f16_an_overwrite_is_no_miss() {
    for (name, moka) in with_priorities() {
        let hot = key("hot", 0);
        set(&moka, &hot, of(Priority::High, 0)).await;
        let (writer, written) = (moka.clone(), hot.clone());
        let writing = tokio::spawn(async move {
            for number in 0..20_000 {
                set(&writer, &written, of(Priority::High, number)).await;
                set(&writer, &key("cold", number), of(Priority::Normal, number)).await;
            }
        });
        while !writing.is_finished() {
            assert!(holds(&moka, &hot).await, "{name}: it is missed while it is overwritten");
        }
        writing.await.expect("a writer");
    }
}

#[tokio::test]
async fn case_f16_what_finds_no_room_is_not_admitted() {
    for (name, moka) in with_priorities() {
        let mut high = 0;
        while matches!(set(&moka, &key("high", high), of(Priority::High, high)).await, LeafOutcome::Stored)
            && occupancy(&moka).evictions == 0
            && high < 200
        {
            high += 1;
        }
        let before = occupancy(&moka);
        // It takes the place of nobody, and its own older form is gone too.
        let outcome = set(&moka, &key("low", 1), of(Priority::Low, 1)).await;
        assert!(matches!(outcome, LeafOutcome::NotAdmitted), "{name}: {outcome:?}");
        assert!(!holds(&moka, &key("low", 1)).await);
        assert_eq!(
            (occupancy(&moka).entries, occupancy(&moka).evictions),
            (before.entries, before.evictions)
        );
        let last = key("high", high - 1);
        assert!(
            matches!(set(&moka, &last, of(Priority::Low, 2)).await, LeafOutcome::Stored),
            "{name}: its own room"
        );
        assert!(holds(&moka, &last).await);
    }
}

/// A full cache whose entries are all invalidated, and then others are read again and again.
#[tokio::test]
async fn case_f18_what_was_cleared_makes_room() {
    const ENTRIES: u64 = 1_000;
    let moka = MokaBackend::builder().max_entries(ENTRIES).build().expect("moka");
    let quick = QuickBackend::builder().max_entries(ENTRIES).build().expect("quick");
    for (name, backend) in [("moka", moka.shared()), ("quick", quick.shared())] {
        for round in 0..10 {
            for number in 0..ENTRIES {
                if round == 0 {
                    set(&*backend, &key("old", number), of(Priority::Normal, number)).await;
                }
                holds(&*backend, &key("old", number)).await;
            }
        }
        backend.clear().await.expect("a clear");
        if name == "quick" {
            // It drops them when it is swept, moka by itself.
            backend.sweep(usize::MAX).await.expect("a sweep");
        }
        let (mut hits, mut reads) = (0, 0);
        for round in 0..5 {
            for number in 0..ENTRIES / 2 {
                let key = key("new", number);
                if holds(&*backend, &key).await {
                    hits += 1;
                } else {
                    set(&*backend, &key, of(Priority::Normal, number)).await;
                }
                reads += u64::from(round > 0);
            }
        }
        assert!(hits * 10 >= reads * 8, "{name}: {hits} hits of {reads}");
    }
}

/// Nothing is written any more: what is over goes when it is read in vain, and what is over beside it.
#[tokio::test]
async fn case_f19_what_is_over_is_dropped_by_reads() {
    let clock = ManualClock::new();
    let moka = MokaBackend::builder().clock(Arc::new(clock.clone())).build().expect("moka");
    let quick = QuickBackend::builder().clock(Arc::new(clock.clone())).build().expect("quick");
    for (name, backend) in [("moka", moka.shared()), ("quick", quick.shared())] {
        for number in 0..500 {
            let end = Lifetime::ttl(hitbox_core::Clock::now(&clock), Duration::from_secs(5));
            set(&*backend, &key("k", number), CacheValue::new(number).with_lifetime(end)).await;
        }
        clock.advance(Duration::from_secs(10));
        for number in 0..50 {
            assert!(!holds(&*backend, &key("k", number)).await);
        }
        let held = occupancy(&*backend);
        assert_eq!((held.entries, held.expirations), (0, 500), "{name}");
    }
}

/// Where priorities are heeded, the book says; elsewhere they change nothing, and stay with the entry.
#[tokio::test]
async fn case_f27_priorities_are_heeded_where_the_book_says() {
    let quick = QuickBackend::builder().max_entries(100).build().expect("quick");
    let plain = MokaBackend::builder().max_entries(100).build().expect("moka");
    let [(_, heeding), _] = with_priorities();
    let leaves: [(&str, &dyn Backend, bool); 3] =
        [("quick", &quick, false), ("moka", &plain, false), ("moka with priorities", &heeding, true)];
    for (name, backend, heeds) in leaves {
        for number in 0..50 {
            set(backend, &key("high", number), of(Priority::High, number)).await;
        }
        let entry = backend.get_one::<u64>(&key("high", 49)).await.expect("a read").expect("there is room");
        assert_eq!(entry.details().map(|details| details.priority), Some(Priority::High), "{name}");
        // Each is read as often as it takes for a store that goes by frequency to prefer it.
        for number in 0..2_000 {
            set(backend, &key("flood", number), of(Priority::Normal, number)).await;
            for _ in 0..3 {
                holds(backend, &key("flood", number)).await;
            }
        }
        let mut left = 0;
        for number in 0..50 {
            left += u64::from(holds(backend, &key("high", number)).await);
        }
        assert_eq!(left == 50, heeds, "{name}: {left} of 50 are left");
    }
}
