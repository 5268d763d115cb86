//! What is stored under a key, for people.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hitbox_backend::envelope::{Inspection, Raw, Uninspectable, wire};
use hitbox_backend::store::{LeafOptions, Store};
use hitbox_backend::wrap::Wrapper;
use hitbox_backend::{CacheBackend, Codec, Compressor, Format, Leaf, Live, doc::Map};
use hitbox_core::{CacheKey, CacheValue, Clock, Details, Lifetime, ManualClock, Scope, Timestamp};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct User {
    name: String,
    age: Option<u8>,
    scores: BTreeMap<String, f64>,
}

fn user() -> User {
    let scores = [("chess".to_owned(), 1.5), ("go".to_owned(), -0.0)].into();
    User { name: "Ada \"A\"\u{1b}[31m\u{202e}".to_owned(), age: None, scores }
}

const SHOWN: &str =
    r#"{"name": "Ada \"A\"\u001b[31m\u202e", "age": null, "scores": {"chess": 1.5, "go": -0.0}}"#;

/// An entry with everything that an entry may say.
fn entry(now: Timestamp) -> CacheValue<User> {
    let lifetime = Lifetime::ttl(now, Duration::from_secs(90)).with_stale(now + Duration::from_secs(60));
    let mut details = Details::default();
    details.scopes = vec![Scope::tag("brand:\u{7}acme"), Scope::dependency("table:users")];
    details.metadata = [("content-type".to_owned(), Bytes::from_static(b"text/html"))].into();
    details.idle = Some(Duration::from_secs(30));
    details.load_time = Some(Duration::from_millis(12));
    details.version = Some(7);
    CacheValue::new(user()).with_lifetime(lifetime).with_details(details)
}

fn check(inspection: &Inspection, key: &CacheKey, format: &str) {
    let text = inspection.to_string();
    for line in [
        "entry     value, fresh",
        "stale     2001-09-09T01:47:40.000Z (in 1m)",
        "expire    2001-09-09T01:48:10.000Z (in 1m 30s)",
        "idle      30s",
        "loaded in 12ms",
        "version   7",
        "tag       \"brand:\\u0007acme\" (epoch ",
        "depends   \"table:users\" (epoch ",
        "metadata  \"content-type\": \"text/html\"",
        &format!("format    {format}, schema 0"),
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text:?}");
    assert!(inspection.is_of(key) && !inspection.is_of(&CacheKey::new("other")), "{text}");
}

fn codecs() -> Vec<(Format, Compressor)> {
    let formats = [Format::MessagePack, Format::Json, Format::Rkyv, Format::Postcard, Format::Bitcode];
    let compressors = [Compressor::None, Compressor::Gzip(6), Compressor::Zstd(3)];
    formats.into_iter().flat_map(|format| compressors.map(|compressor| (format, compressor))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn case_h10_what_redis_and_disk_have_under_a_key_is_shown() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000_000_000)));
    let key = CacheKey::builder("user").version(1).part("id", 7).build();
    let folder = tempfile::tempdir().expect("a folder");
    for (index, (format, compressor)) in codecs().into_iter().enumerate() {
        let codec = Codec { format, compressor, ..Codec::default() };
        let codec = Codec {
            rules: hitbox_backend::CompressionRules { min_bytes: 0, keep_below: 9.0, ..codec.rules },
            ..codec
        };
        let redis = RedisBackend::builder(&RedisServer::shared().url()).prefix(&format!("h10:{index}:"));
        let redis = redis.codec(codec).clock(clock.clone()).build().expect("a backend");
        let place = folder.path().join(index.to_string());
        let disk = DiskBackend::builder(&place).codec(codec).clock(clock.clone()).open();
        let disk = disk.await.expect("a backend");
        redis.set_one(&key, entry(clock.now())).await.expect("stored");
        disk.set_one(&key, entry(clock.now())).await.expect("stored");
        // While the folder is open, and from outside.
        let found = [
            redis.inspect(&key).await,
            disk.inspect(&key).await,
            hitbox_disk::inspect::entry(&place, &key, clock.now()),
        ];
        for found in found {
            let inspection = found.expect("an answer").expect("an entry");
            check(&inspection, &key, &format!("{format:?}"));
            let stored = inspection.stored.expect("bytes");
            assert_eq!(stored.compressor_id != 0, compressor != Compressor::None, "{inspection}");
            match format {
                Format::Postcard | Format::Bitcode => {
                    let why = inspection.value().expect_err("positions only").to_string();
                    assert!(why.contains("does not say what it holds"), "{why}");
                }
                _ => assert_eq!(inspection.value().expect("a value"), SHOWN),
            }
        }
        let keys: Vec<_> = hitbox_disk::inspect::keys(&place).expect("a folder").collect();
        assert_eq!(keys, std::slice::from_ref(&key));
        let other = CacheKey::new("other");
        assert!(redis.inspect(&other).await.expect("an answer").is_none());
        assert!(hitbox_disk::inspect::entry(&place, &other, clock.now()).expect("an answer").is_none());
    }
    let nowhere = hitbox_disk::inspect::keys(folder.path()).map(Iterator::count).expect_err("no cache");
    assert!(nowhere.to_string().contains("no folder of a disk cache"), "{nowhere}");
}

#[tokio::test]
async fn what_memory_holds_is_shown_without_its_value() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000_000_000)));
    let memory = MokaBackend::builder().clock(clock.clone()).build().expect("a backend");
    let key = CacheKey::new("user");
    memory.set_one(&key, entry(clock.now())).await.expect("stored");
    let inspection = memory.inner().inspect(&key).await.expect("an answer").expect("an entry");
    let text = inspection.to_string();
    assert!(text.contains("value     live, in memory") && text.contains("(in 1m 30s)"), "{text}");
    assert!(inspection.value().is_err() && inspection.stored.is_none());
    memory.set_one(&key, CacheValue::new(Live(1))).await.expect("stored");
    let inspection = memory.inner().inspect(&key).await.expect("an answer").expect("an entry");
    assert!(inspection.to_string().contains("life      without end"), "{inspection}");
}

/// Any value of any format, and what is no record of ours.
#[tokio::test]
async fn bytes_of_all_kinds_are_shown_or_said_to_be_none() {
    let now = Timestamp::from_millis(u64::MAX);
    let (key, leaf) = (CacheKey::new("key"), Leaf::new(Map::default(), LeafOptions::new("map")));
    let record = async || {
        let stored = leaf.store().read(&key).await.expect("an answer").expect("a record");
        Bytes::from(Raw::to_record(&key, &stored).expect("bytes"))
    };
    let look = async || Inspection::of(&record().await, now).expect("a record");
    type Nested = Option<Option<BTreeMap<i8, (char, u128, Vec<()>)>>>;
    let nested: Nested = Some(Some([(-3, ('ß', u128::MAX, vec![(); 2]))].into()));
    leaf.set_one(&key, CacheValue::new(nested)).await.expect("stored");
    let text = look().await.value().expect("a value");
    assert_eq!(text, format!("Some({{-3: [\"ß\", {}, [null, null]]}})", u128::MAX));
    leaf.set_one(&key, CacheValue::new(Some(None::<u8>))).await.expect("stored");
    assert_eq!(look().await.value().expect("a value"), "Some(null)");
    leaf.set_one(&key, CacheValue::new(Bytes::from_static(b"plain\n"))).await.expect("stored");
    assert_eq!(look().await.value().expect("a value"), r#""plain\n""#);
    leaf.set_one(&key, CacheValue::new(Bytes::from(vec![0xff; 100]))).await.expect("stored");
    let text = look().await.value().expect("a value");
    assert!(text.starts_with("0xffff") && text.ends_with("… (100 bytes)"), "{text}");
    // A flip in the payload leaves the header readable; one before it does not; what is cut is damaged.
    let whole = record().await;
    for at in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        match Inspection::of(&bytes.into(), now) {
            Ok(inspection) => {
                let is_payload = at >= wire::HEADER_BYTES;
                assert!(is_payload && !inspection.stored.expect("bytes").is_intact, "byte {at}");
                assert!(inspection.to_string().contains("not shown: the payload is damaged"));
            }
            Err(Uninspectable::Foreign) => assert!(at < 4),
            Err(Uninspectable::Newer) => assert_eq!(at, 4),
            Err(_) => assert!(at > 4, "byte {at}"),
        }
        assert!(Inspection::of(&whole.slice(..at), now).is_err(), "cut at {at}");
    }
    let foreign = Inspection::of(&Bytes::from_static(b"OK"), now).expect_err("no record");
    assert_eq!(foreign, Uninspectable::Foreign);
}
