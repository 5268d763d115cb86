//! Formats and compressors through real leaves, each pair of layers with codecs of their own.

use std::collections::BTreeMap;

use hitbox_backend::envelope::Encoded;
use hitbox_backend::operation::Found;
use hitbox_backend::store::Store;
use hitbox_backend::wrap::Wrapper;
use hitbox_backend::{
    Backend, CacheBackend, Codec, Compose, CompressionRules, Compressor, CustomFormat, Format, OffloadPool,
    ReadOptions, RefillPolicy,
};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Details};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Circle(f64),
    Polygon { points: Vec<(i64, i64)> },
}

/// All that serde's data model has to offer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    id: u64,
    big: i128,
    name: String,
    letter: char,
    nothing: Option<u8>,
    something: Option<Box<Item>>,
    bytes: Vec<u8>,
    shapes: Vec<Shape>,
    by_name: BTreeMap<String, (bool, f32)>,
    unit: (),
}

fn item(repeats: usize) -> Item {
    let inner = Item {
        id: u64::MAX,
        big: i128::from(i64::MIN),
        name: "Ünïcödé \"\n".repeat(repeats),
        letter: '💾',
        nothing: None,
        something: None,
        bytes: (0..=255).collect(),
        shapes: vec![Shape::Dot, Shape::Circle(-0.5), Shape::Polygon { points: vec![(i64::MIN, i64::MAX)] }],
        by_name: BTreeMap::from([("a".to_owned(), (true, 1.5)), (String::new(), (false, -0.0))]),
        unit: (),
    };
    Item { id: 0, something: Some(Box::new(inner.clone())), ..inner }
}

/// A format of a user's own: JSON, back to front.
#[derive(Debug)]
struct Backwards;

impl CustomFormat for Backwards {
    fn id(&self) -> u16 {
        7
    }

    fn encode(
        &self,
        value: &dyn erased_serde::Serialize,
    ) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let mut bytes = serde_json::to_vec(value)?;
        bytes.reverse();
        Ok(bytes)
    }

    fn decode(
        &self,
        bytes: &[u8],
        read: &mut dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let bytes: Vec<u8> = bytes.iter().rev().copied().collect();
        let mut deserializer = serde_json::Deserializer::from_slice(&bytes);
        read(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut deserializer))?;
        Ok(())
    }
}

fn formats() -> [Format; 5] {
    [Format::Bitcode, Format::Json, Format::Postcard, Format::Rkyv, Format::Custom(&Backwards)]
}

fn compressors() -> [Compressor; 3] {
    [Compressor::None, Compressor::Gzip(6), Compressor::Zstd(3)]
}

fn codecs() -> Vec<Codec> {
    let each = |format| compressors().map(|compressor| Codec { format, compressor, ..Codec::default() });
    formats().into_iter().flat_map(each).collect()
}

async fn disk(codec: Codec) -> (DiskBackend, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    (DiskBackend::builder(folder.path()).codec(codec).open().await.expect("disk"), folder)
}

fn redis(codec: Codec, prefix: &str) -> RedisBackend {
    let builder = RedisBackend::builder(&RedisServer::shared().url()).prefix(prefix);
    builder.deadline(std::time::Duration::from_secs(10)).codec(codec).build().expect("redis")
}

async fn get(cache: &impl Backend, key: &CacheKey) -> Option<Item> {
    let read = cache.get::<Item>(key, &mut CacheContext::new()).await.expect("a read");
    read.map(CacheValue::into_data)
}

/// The entry as the leaf has read it.
async fn found(cache: &impl Backend, key: &CacheKey) -> Found {
    let answers = cache.read(std::slice::from_ref(key), &ReadOptions::NORMAL).await;
    answers.into_one().expect("an answer").expect("a read").expect("a record")
}

/// The record as the leaf stores it.
async fn stored(cache: &impl Backend, key: &CacheKey) -> Encoded {
    found(cache, key).await.value.data().as_encoded().expect("encoded").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn value_08_every_codec_over_every_other() {
    let (pool, value) = (OffloadPool::new(), item(200));
    for (upper, above) in codecs().into_iter().enumerate() {
        let redis = redis(above, &format!("codecs{upper}:"));
        for (lower, below) in codecs().into_iter().enumerate() {
            let said = format!("{above:?} over {below:?}");
            let (disk, _folder) = disk(below).await;
            let key = CacheKey::builder("item").part("codec", lower).build();
            let memory = MokaBackend::builder().build().expect("moka");
            let cache = memory
                .compose(redis.clone(), pool.shared())
                .with_refill(RefillPolicy::Awaited)
                .compose(disk.clone(), pool.shared())
                .with_refill(RefillPolicy::Awaited);
            cache.set(&key, CacheValue::new(value.clone()), &mut CacheContext::new()).await.expect("a write");
            for (leaf, codec, found) in
                [("redis", above, stored(&redis, &key).await), ("disk", below, stored(&disk, &key).await)]
            {
                assert_eq!(found.format, codec.format, "{said}: {leaf}");
                assert_eq!(found.compressor != 0, codec.compressor != Compressor::None, "{said}: {leaf}");
            }
            assert!(get(&redis, &key).await.as_ref() == Some(&value), "{said}: from Redis");
            assert!(get(&disk, &key).await.as_ref() == Some(&value), "{said}: from disk");
            // From disk through Redis into memory: the record travels in the format that disk has.
            redis.delete(&key, &mut CacheContext::new()).await.expect("a delete");
            let emptied = MokaBackend::builder().build().expect("moka");
            let cache = emptied
                .compose(redis.clone(), pool.shared())
                .with_refill(RefillPolicy::Awaited)
                .compose(disk, pool.shared())
                .with_refill(RefillPolicy::Awaited);
            for reading in ["from disk", "from memory"] {
                assert!(get(&cache, &key).await.as_ref() == Some(&value), "{said}: {reading}");
            }
            assert!(get(&redis, &key).await.as_ref() == Some(&value), "{said}: refilled into Redis");
        }
    }
}

async fn compressor_of(rules: CompressionRules, value: &CacheValue<Vec<u8>>) -> (u16, u64) {
    let codec = Codec { compressor: Compressor::Zstd(3), rules, ..Codec::default() };
    let (disk, _folder) = disk(codec).await;
    let key = CacheKey::new("k");
    disk.set(&key, value.clone(), &mut CacheContext::new()).await.expect("a write");
    let read = disk.get::<Vec<u8>>(&key, &mut CacheContext::new()).await.expect("a read");
    assert_eq!(read.map(CacheValue::into_data).as_ref(), Some(value.data()));
    let encoded = stored(&disk, &key).await;
    (encoded.compressor, encoded.bytes.len() as u64)
}

#[tokio::test]
async fn small_compressed_and_incompressible_values_are_left_as_they_are() {
    let typed = |bytes: Vec<u8>, content_type: &str| {
        let mut details = Details::default();
        details.metadata.insert("content-type".to_owned(), content_type.to_owned().into());
        CacheValue::new(bytes).with_details(details)
    };
    // Text that a compressor can do something with and a serializer cannot.
    let text: Vec<u8> = (0..4_000_u32).flat_map(|n| format!("{} ", n % 97).into_bytes()).collect();
    let mut noise = vec![0; 4_000];
    StdRng::seed_from_u64(8).fill(&mut noise[..]);
    let rules = CompressionRules::default();
    let (zstd, packed) = compressor_of(rules, &CacheValue::new(text.clone())).await;
    assert!(zstd != 0 && packed < text.len() as u64 / 2, "text is compressed: {packed}");
    let threshold = CompressionRules { min_bytes: text.len() + 100, ..rules };
    assert_eq!(compressor_of(threshold, &CacheValue::new(text.clone())).await.0, 0, "under the threshold");
    assert_eq!(compressor_of(rules, &CacheValue::new(noise)).await.0, 0, "it does not pay");
    let never = CompressionRules { keep_below: 0.0, ..rules };
    assert_eq!(compressor_of(never, &CacheValue::new(text.clone())).await.0, 0, "it never pays enough");
    for compressed in ["image/png", "video/mp4; codecs=x", "APPLICATION/ZIP", "font/woff2"] {
        assert_eq!(compressor_of(rules, &typed(text.clone(), compressed)).await.0, 0, "{compressed}");
    }
    for plain in ["text/html; charset=utf-8", "image/svg+xml", "application/json", "nonsense"] {
        assert_eq!(compressor_of(rules, &typed(text.clone(), plain)).await.0, zstd, "{plain}");
    }
    let all = CompressionRules { skip_compressed_types: false, ..rules };
    assert_eq!(compressor_of(all, &typed(text, "image/png")).await.0, zstd, "the rule is off");
}

#[tokio::test]
async fn records_that_lie_about_their_size_are_misses() {
    let codec = Codec { compressor: Compressor::Gzip(9), ..Codec::default() };
    let (disk, _folder) = disk(codec).await;
    let key = CacheKey::new("bomb");
    disk.set(&key, CacheValue::new(item(10_000)), &mut CacheContext::new()).await.expect("a write");
    let honest = found(&disk, &key).await.value;
    let encoded = stored(&disk, &key).await;
    for plain_len in [0, encoded.plain_len - 1, encoded.plain_len + 1, u64::MAX] {
        let mut lie = encoded.clone();
        lie.plain_len = plain_len;
        let raw = hitbox_backend::Raw::encoded(lie, None);
        // Behind the leaf's back, which would not take all of them.
        disk.inner().store().write(&key, honest.clone().map(|_| raw)).await.expect("a write");
        if plain_len != u64::MAX {
            // What claims more than the leaf takes is not even handed on.
            assert_eq!(stored(&disk, &key).await.plain_len, plain_len, "the lie is stored");
        }
        assert_eq!(get(&disk, &key).await, None, "{plain_len} bytes");
    }
}

#[test]
fn case_b07_doubles_come_back_with_equal_bits() {
    let seed = hitbox_testkit::seed();
    let mut random = StdRng::seed_from_u64(seed);
    for format in formats() {
        for _ in 0..20_000 {
            let double = f64::from_bits(random.random());
            if !double.is_finite() {
                continue;
            }
            let bytes = format.encode(&double).expect("it can be encoded");
            let back: f64 = format.decode(&bytes).expect("it can be decoded");
            assert_eq!(back.to_bits(), double.to_bits(), "{double:e} in {format:?}, seed {seed}");
        }
    }
}

#[test]
fn case_b11_longer_and_shorter_records_are_misses() {
    let value = (7_u32, "text".to_owned(), vec![1_u8, 2, 3]);
    for format in formats() {
        let bytes = format.encode(&value).expect("it can be encoded");
        let longer = [&bytes[..], &[0]].concat();
        for record in [&longer[..], &bytes[..bytes.len() - 1]] {
            let back = format.decode::<(u32, String, Vec<u8>)>(record);
            assert!(back.is_err(), "{format:?} reads {} of {} bytes as {back:?}", record.len(), bytes.len());
        }
        // A longer type is not read as the shorter one that it begins with.
        let back = format.decode::<(u32, String)>(&bytes);
        assert!(back.is_err(), "{format:?} reads three fields as {back:?}");
    }
}

#[tokio::test]
async fn case_g08_content_types_are_recognised_in_any_spelling() {
    let codec = Codec { compressor: Compressor::Gzip(6), ..Codec::default() };
    let (disk, _folder) = disk(codec).await;
    for (name, content_type, is_compressed) in [
        ("content-type", "image/png", false),
        ("Content-Type", "image/PNG; name=\"a;b\"", false),
        ("CONTENT-TYPE", " Application/ZIP ", false),
        ("Content-Type", "text/plain", true),
        ("type-of-content", "image/png", true),
    ] {
        let mut details = Details::default();
        details.metadata.insert(name.to_owned(), content_type.to_owned().into());
        let key = CacheKey::builder("g08").part("name", name).part("type", content_type).build();
        let entry = CacheValue::new(item(10_000)).with_details(details);
        disk.set(&key, entry, &mut CacheContext::new()).await.expect("a write");
        let encoded = stored(&disk, &key).await;
        assert_eq!(encoded.compressor != 0, is_compressed, "{name}: {content_type}");
    }
}
