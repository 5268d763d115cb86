//! What the log says of a layer that fails and comes back.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hitbox_backend::store::{DeleteStatus, LeafOptions, Raw, Store};
use hitbox_backend::{CacheBackend, Compose, Leaf};
use hitbox_core::{BackendError, BackendResult, CacheContext, CacheKey, CacheValue, ErrorKind, ManualClock};
use hitbox_testkit::{MemoryBackend, World};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps lines of the log from INFO on.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("the log"))
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {}={value:?}", field.name()));
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().expect("the log").push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A store that is out of order when it is told to be.
#[derive(Default)]
struct Flaky(AtomicBool, AtomicBool);

impl Flaky {
    fn answer<T>(&self, answer: T) -> BackendResult<T> {
        if self.0.load(Ordering::SeqCst) {
            return Err(BackendError::new(ErrorKind::Connection, "the cable is out"));
        }
        Ok(answer)
    }
}

#[async_trait]
impl Store for Flaky {
    async fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.answer(None)
    }

    async fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(BackendError::new(ErrorKind::Io, "it is read-only"));
        }
        self.answer(())
    }

    async fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        self.answer(DeleteStatus::Missing)
    }
}

#[tokio::test]
async fn case_h05_one_line_when_a_layer_fails_and_one_when_it_is_back() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let (world, clock) = (World::new(), ManualClock::new());
    let store = Arc::new(Flaky::default());
    let leaf = Leaf::of(store.clone(), LeafOptions::new("remote").with_clock(Arc::new(clock.clone())));
    let memory = MemoryBackend::new(Arc::new(clock.clone()));
    let cache = memory.compose(leaf, world.pool.shared()).with_label("tiers");
    let key = CacheKey::new("key");
    let calls = async || {
        for _ in 0..50 {
            drop(cache.get::<u64>(&key, &mut CacheContext::new()).await);
            drop(cache.set(&key, CacheValue::new(1_u64), &mut CacheContext::new()).await);
            drop(cache.delete(&key, &mut CacheContext::new()).await);
            drop(cache.get_many::<u64>(&[key.clone(), CacheKey::new("other")]).await);
        }
    };
    calls().await;
    assert_eq!(log.take(), Vec::<String>::new(), "all is well");
    store.0.store(true, Ordering::SeqCst);
    calls().await;
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let expected = ["WARN", "backend=tiers.remote", "the cable is out"];
    assert!(expected.iter().all(|part| lines[0].contains(part)), "{lines:?}");
    store.0.store(false, Ordering::SeqCst);
    calls().await;
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let expected = ["INFO", "backend=tiers.remote", "failed_calls="];
    assert!(expected.iter().all(|part| lines[0].contains(part)), "{lines:?}");
    // A layer that comes and goes floods nothing.
    for round in 0..20 {
        store.0.store(round % 2 == 0, Ordering::SeqCst);
        calls().await;
    }
    assert_eq!(log.take(), Vec::<String>::new());
    clock.advance(Duration::from_secs(11));
    store.0.store(true, Ordering::SeqCst);
    calls().await;
    assert_eq!(log.take().len(), 1, "another outage");
    // What is refused is no outage.
    store.0.store(false, Ordering::SeqCst);
    calls().await;
    assert_eq!(log.take().len(), 1, "it is back");
}

/// A process that only invalidates hears of the end of an outage too, and of the next one.
#[tokio::test]
async fn invalidations_tell_that_a_layer_is_back() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let store = Arc::new(Flaky::default());
    let clock = ManualClock::new();
    let leaf = Leaf::of(store.clone(), LeafOptions::new("disk").with_clock(Arc::new(clock.clone())));
    for _ in 0..3 {
        store.0.store(true, Ordering::SeqCst);
        drop(leaf.invalidate_tags(&["red"]).await);
        let lines = log.take();
        assert!(lines.len() == 1 && lines[0].contains("fails"), "{lines:?}");
        store.0.store(false, Ordering::SeqCst);
        leaf.invalidate_tags(&["red"]).await.expect("it is back");
        let lines = log.take();
        assert!(lines.len() == 1 && lines[0].contains("is back"), "{lines:?}");
        clock.advance(Duration::from_secs(3600));
    }
}

/// A store that is read and cannot be written is not back because it was read.
#[tokio::test]
async fn a_layer_is_back_when_what_failed_works_again() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let store = Arc::new(Flaky::default());
    let leaf = Leaf::of(store.clone(), LeafOptions::new("disk"));
    let key = CacheKey::new("key");
    let calls = async || {
        for _ in 0..10 {
            drop(leaf.set_one(&key, CacheValue::new(1_u64)).await);
            drop(leaf.get_one::<u64>(&key).await);
        }
    };
    store.1.store(true, Ordering::SeqCst);
    calls().await;
    let lines = log.take();
    assert!(lines.len() == 1 && lines[0].contains("it is read-only"), "{lines:?}");
    store.1.store(false, Ordering::SeqCst);
    calls().await;
    let lines = log.take();
    assert!(lines.len() == 1 && lines[0].contains("failed_calls=10"), "{lines:?}");
}

#[tokio::test]
async fn case_b06_the_first_value_that_a_format_cannot_carry_is_in_the_log() {
    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.clone());
    let folder = tempfile::tempdir().expect("a folder");
    let builder = hitbox_disk::DiskBackend::builder(folder.path()).format(hitbox_backend::Format::Json);
    let disk = builder.open().await.expect("disk");
    for number in 0..3 {
        let key = CacheKey::builder("b06").part("n", number).build();
        let refused = disk.set(&key, CacheValue::new(f64::NAN), &mut CacheContext::new()).await;
        assert_eq!(refused.expect_err("JSON has no NaN").kind(), ErrorKind::Codec);
    }
    // Another type is another line.
    let key = CacheKey::builder("b06").part("n", 9).build();
    disk.set(&key, CacheValue::new(Some(())), &mut CacheContext::new()).await.expect_err("JSON has one null");
    let lines = log.take();
    let told: Vec<_> = lines.iter().filter(|line| line.contains("cannot store a value")).collect();
    assert_eq!(told.len(), 2, "{lines:?}");
    assert!(told[0].contains("f64") && told[1].contains("Option<()>"), "they say which: {told:?}");
    assert!(told[0].contains("NaN"), "it says why: {}", told[0]);
    assert_eq!(hitbox_backend::Backend::layout(&disk).statistics()[0].errors, 4);
}
