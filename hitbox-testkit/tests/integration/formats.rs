//! What formats carry, and what records say of the types that they are of: through real leaves.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use hitbox_backend::{Backend, CacheBackend, Cacheable, Codec, Compose, CustomFormat, Format, OffloadPool};
use hitbox_core::{CacheContext, CacheKey, CacheValue, ErrorKind};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const NAMED: [Format; 3] = [Format::MessagePack, Format::Json, Format::Rkyv];
const POSITIONAL: [Format; 2] = [Format::Postcard, Format::Bitcode];

fn formats() -> impl Iterator<Item = Format> {
    NAMED.into_iter().chain(POSITIONAL)
}

async fn disk(format: Format) -> (DiskBackend, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let codec = Codec { format, ..Codec::default() };
    (DiskBackend::builder(folder.path()).codec(codec).open().await.expect("disk"), folder)
}

fn redis(format: Format, prefix: &str) -> RedisBackend {
    let builder = RedisBackend::builder(&RedisServer::shared().url()).prefix(prefix);
    let codec = Codec { format, ..Codec::default() };
    builder.deadline(std::time::Duration::from_secs(10)).codec(codec).build().expect("redis")
}

async fn get<T: Cacheable>(cache: &dyn Backend, key: &CacheKey) -> Option<T> {
    cache.get::<T>(key, &mut CacheContext::new()).await.expect("a read").map(CacheValue::into_data)
}

fn key(name: &str) -> CacheKey {
    CacheKey::builder("formats").part("name", name).build()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

/// The same fields as a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    name: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_b04_a_value_of_another_type_is_a_miss() {
    let (pool, key) = (OffloadPool::new(), key("b04"));
    let memory = || MokaBackend::builder().build().expect("moka");
    for (number, format) in formats().enumerate() {
        let redis = redis(format, &format!("b04.{number}:"));
        let (disk, _folder) = disk(format).await;
        let backends: [Arc<dyn Backend>; 5] = [
            memory().shared(),
            redis.clone().shared(),
            disk.clone().shared(),
            memory().compose(redis.clone(), pool.shared()).shared(),
            memory().compose(redis.compose(disk, pool.shared()), pool.shared()).shared(),
        ];
        for cache in &backends {
            let mut context = CacheContext::new();
            let user = User { id: 1, name: "n".to_owned() };
            cache.set(&key, CacheValue::new(user.clone()), &mut context).await.expect("a write");
            let said = format!("{format:?} in {}", cache.layout().paths().next().expect("a leaf"));
            assert_eq!(get::<Order>(&**cache, &key).await, None, "{said}: an order");
            assert_eq!(get::<(u64, String)>(&**cache, &key).await, None, "{said}: a pair");
            assert_eq!(get::<Value>(&**cache, &key).await, None, "{said}: any value");
            assert_eq!(get::<Vec<User>>(&**cache, &key).await, None, "{said}: a list");
            let many = cache.get_many::<Order>(std::slice::from_ref(&key)).await;
            assert!(matches!(&many[..], [Ok(None)]), "{said}: in a batch");
            assert_eq!(get::<User>(&**cache, &key).await, Some(user.clone()), "{said}");
            assert_eq!(get::<Arc<User>>(&**cache, &key).await.as_deref(), Some(&user), "{said}: shared");
            assert_eq!(get::<Box<User>>(&**cache, &key).await.as_deref(), Some(&user), "{said}: boxed");

            cache.set(&key, CacheValue::new(36_u32), &mut context).await.expect("a write");
            assert_eq!(get::<i64>(&**cache, &key).await, None, "{said}: another number");
            assert_eq!(get::<u32>(&**cache, &key).await, Some(36), "{said}");
        }
    }
}

/// What a program reads that has the second type, after one that has the first has written a value. Both types have one
/// name, as they have in two releases.
macro_rules! after_a_release {
    ($cache:expr, $key:expr, { $($old:item)* } $value:expr, { $($new:item)* }) => {{
        {
            $(#[derive(Clone, Debug, Serialize, Deserialize)] $old)*
            $cache.set::<Kept>($key, CacheValue::new($value), &mut CacheContext::new()).await.expect("a write");
        }
        {
            $(#[derive(Clone, Debug, Serialize, Deserialize)] $new)*
            get::<Kept>(&$cache, $key).await.map(|value| format!("{value:?}"))
        }
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_b05_after_a_release_there_is_a_miss_or_the_right_value() {
    for (number, format) in formats().enumerate() {
        let (disk, _folder) = disk(format).await;
        let redis = redis(format, &format!("b05.{number}:"));
        let is_named = NAMED.contains(&format);
        for cache in [disk.shared(), redis.shared()] {
            let cache = &*cache;
            let check = |change: &str, found: Option<String>, with_names: Option<&str>| {
                let right = if is_named { with_names.map(str::to_owned) } else { None };
                assert_eq!(
                    found,
                    right,
                    "{change}, {format:?} in {}",
                    cache.layout().paths().next().expect("a leaf")
                );
            };
            let found = after_a_release!(*cache, &key("added"),
                { struct Kept { a: u32 } } Kept { a: 1 },
                { struct Kept { a: u32, #[serde(default)] b: u8 } });
            check("a field added", found, Some("Kept { a: 1, b: 0 }"));
            let found = after_a_release!(*cache, &key("required"),
                { struct Kept { a: u32 } } Kept { a: 1 },
                { struct Kept { a: u32, b: u8 } });
            check("a field required", found, None);
            let found = after_a_release!(*cache, &key("removed"),
                { struct Kept { a: u32, b: u32 } } Kept { a: 1, b: 2 },
                { struct Kept { b: u32 } });
            check("a field removed", found, Some("Kept { b: 2 }"));
            let found = after_a_release!(*cache, &key("renamed"),
                { struct Kept { a: u32, b: u32 } } Kept { a: 1, b: 2 },
                { struct Kept { a: u32, c: u32 } });
            check("a field renamed", found, None);
            let found = after_a_release!(*cache, &key("reordered"),
                { struct Kept { a: u32, b: u32 } } Kept { a: 1, b: 2 },
                { struct Kept { b: u32, a: u32 } });
            check("fields reordered", found, Some("Kept { b: 2, a: 1 }"));
            let found = after_a_release!(*cache, &key("retyped"),
                { struct Kept { a: u32 } } Kept { a: 36 },
                { struct Kept { a: i64 } });
            check("a field retyped", found, Some("Kept { a: 36 }"));
            let found = after_a_release!(*cache, &key("text"),
                { struct Kept { a: u32 } } Kept { a: 36 },
                { struct Kept { a: String } });
            check("a field of another kind", found, None);
            let found = after_a_release!(*cache, &key("deep"),
                { struct Inner { x: u8, y: u8 } struct Kept { a: Vec<Option<Inner>> } }
                Kept { a: vec![None, Some(Inner { x: 1, y: 2 })] },
                { struct Inner { y: u8, x: u8 } struct Kept { a: Vec<Option<Inner>> } });
            check(
                "fields of a part reordered",
                found,
                Some("Kept { a: [None, Some(Inner { y: 2, x: 1 })] }"),
            );
            let found = after_a_release!(*cache, &key("variant"),
                { enum Kept { A, B(u8) } } Kept::B(1),
                { enum Kept { A, Between(u8), B(u8) } });
            check("a variant inserted", found, Some("B(1)"));
            let found = after_a_release!(*cache, &key("variants"),
                { enum Kept { A, B } } Kept::A,
                { enum Kept { B, A } });
            check("variants reordered", found, Some("A"));
            let found = after_a_release!(*cache, &key("gone"),
                { enum Kept { A, B } } Kept::A,
                { enum Kept { B } });
            check("a variant removed", found, None);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    a: u32,
    half: f32,
    maybe: Option<Option<u8>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    id: u64,
    #[serde(flatten)]
    part: Part,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
    Struct { x: Option<u8>, y: f64 },
    List(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Struct { x: u64, maybe: Option<Option<u8>> },
    Part(Part),
    Unit,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "of")]
enum Adjacent {
    Struct { x: u64 },
    Part(Part),
    Unit,
    Nothing(Option<()>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum External {
    First,
    #[serde(skip)]
    #[expect(dead_code)]
    Skipped,
    Last(u8),
    Struct {
        x: Option<Unit>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped<T>(T);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Skips {
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<u8>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    list: Vec<u8>,
    z: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum List {
    End,
    Next(Box<List>),
}

impl Drop for List {
    fn drop(&mut self) {
        // As deep as it may be.
        let mut next = match self {
            Self::End => return,
            Self::Next(next) => std::mem::replace(&mut **next, Self::End),
        };
        while let Self::Next(inner) = &mut next {
            next = std::mem::replace(&mut **inner, Self::End);
        }
    }
}

fn list(len: usize) -> List {
    (0..len).fold(List::End, |list, _| List::Next(Box::new(list)))
}

/// Tries a value in all formats: each gives it back as it was, or refuses it. Says which refuse it.
async fn try_value<T: Cacheable + Debug>(leaves: &[(Format, Arc<dyn Backend>)], value: T) -> Vec<Format> {
    let said = format!("{value:?}");
    let mut refused = Vec::new();
    for (format, leaf) in leaves {
        let key = key(std::any::type_name::<T>());
        match leaf.set(&key, CacheValue::new(value.clone()), &mut CacheContext::new()).await {
            Ok(_) => {
                let found = get::<T>(&**leaf, &key).await.map(|value| format!("{value:?}"));
                assert_eq!(found.as_deref(), Some(&*said), "{format:?}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Codec, "{format:?}: {error}");
                let counted = leaf.layout().statistics().iter().map(|row| row.errors).sum::<u64>();
                assert!(counted > 0, "{format:?} counts what it refuses");
                refused.push(*format);
            }
        }
    }
    refused
}

async fn leaves() -> (Vec<(Format, Arc<dyn Backend>)>, Vec<tempfile::TempDir>) {
    let (mut leaves, mut folders): (Vec<(Format, Arc<dyn Backend>)>, _) = (Vec::new(), Vec::new());
    for format in formats() {
        let (disk, folder) = disk(format).await;
        leaves.push((format, disk.shared()));
        folders.push(folder);
    }
    (leaves, folders)
}

#[tokio::test]
async fn case_b06_the_default_format_carries_what_serde_derives_produce() {
    let (leaves, _folders) = leaves().await;
    let part = Part { a: 1, half: 0.1, maybe: Some(None) };
    let plain = Part { maybe: None, ..part.clone() };
    let names = |formats: Vec<Format>| {
        assert!(!formats.contains(&Format::MessagePack), "the default carries it");
        formats
    };
    let rest = BTreeMap::from([("z".to_owned(), json!({ "a": [1, null, 2.5, "x"], "m": -3 }))]);
    names(try_value(&leaves, Flat { id: 1, part: part.clone(), rest: rest.clone() }).await);
    let refused = names(try_value(&leaves, Flat { id: 1, part: plain.clone(), rest }).await);
    assert_eq!(refused, POSITIONAL, "flattened");
    let untagged = vec![
        Untagged::Number(3),
        Untagged::Text("x".to_owned()),
        Untagged::Struct { x: None, y: 0.1 },
        Untagged::List(vec![plain.clone()]),
    ];
    assert_eq!(names(try_value(&leaves, untagged).await), POSITIONAL, "untagged");
    names(try_value(&leaves, Untagged::List(vec![part.clone()])).await);
    names(try_value(&leaves, Tagged::Struct { x: u64::MAX, maybe: Some(None) }).await);
    let tagged = vec![Tagged::Part(plain.clone()), Tagged::Unit, Tagged::Struct { x: 1, maybe: None }];
    assert_eq!(names(try_value(&leaves, tagged).await), POSITIONAL, "internally tagged");
    let adjacent = vec![Adjacent::Struct { x: 1 }, Adjacent::Part(plain), Adjacent::Unit];
    names(try_value(&leaves, adjacent).await);
    names(try_value(&leaves, vec![Adjacent::Nothing(None), Adjacent::Nothing(Some(()))]).await);
    let value = json!({ "a": 1, "b": [null, true, 1.5e300], "c": { "d": "x" } });
    assert_eq!(names(try_value(&leaves, value).await), POSITIONAL, "any value");
    let skips = Skips { a: None, list: Vec::new(), z: 7 };
    assert_eq!(names(try_value(&leaves, skips).await), POSITIONAL, "skipped fields");
    assert_eq!(try_value(&leaves, Skips { a: Some(1), list: vec![1], z: 7 }).await, [], "none skipped");
    names(try_value(&leaves, BTreeMap::from([((1_u8, true), 1), ((2, false), 2)])).await);
    names(try_value(&leaves, BTreeMap::from([(None, 1), (Some(2_u8), 2)])).await);
    assert_eq!(try_value(&leaves, BTreeMap::from([(1_u32, 'x'), (200, '💾')])).await, []);
    assert_eq!(try_value(&leaves, (i128::MIN, u64::MAX, i64::MIN, std::time::Duration::MAX)).await, []);
    assert_eq!(try_value(&leaves, vec![0_u8, 127, 128, 255]).await, []);
    assert_eq!(try_value(&leaves, vec![Ok::<u8, String>(1), Err("x".to_owned())]).await, []);
}

#[tokio::test]
async fn case_b08_what_would_be_read_as_another_value_is_refused() {
    let (leaves, _folders) = leaves().await;
    let no_nesting = [Format::Json, Format::Rkyv];
    assert_eq!(try_value(&leaves, Some(())).await, no_nesting);
    assert_eq!(try_value(&leaves, Some(Unit)).await, no_nesting);
    assert_eq!(try_value(&leaves, Some(None::<u8>)).await, no_nesting);
    assert_eq!(
        try_value(&leaves, vec![Some(Some(Some(1_u8))), Some(Some(None)), Some(None), None]).await,
        no_nesting
    );
    assert_eq!(try_value(&leaves, Some(Wrapped(None::<u8>))).await, no_nesting);
    assert_eq!(try_value(&leaves, Wrapped(Some(Wrapped(Some(()))))).await, no_nesting);
    assert_eq!(
        try_value(&leaves, External::Struct { x: Some(Unit) }).await,
        [Format::Json, Format::Rkyv, Format::Postcard, Format::Bitcode]
    );
    let refused = try_value(&leaves, Some(Value::Null)).await;
    assert_eq!(refused, [Format::Json, Format::Rkyv, Format::Postcard, Format::Bitcode]);
    assert_eq!(try_value(&leaves, Some(1.5_f64)).await, []);
    assert_eq!(try_value(&leaves, Some(f64::NAN)).await, [Format::Json]);
    assert_eq!(try_value(&leaves, vec![f32::INFINITY, f32::NEG_INFINITY]).await, [Format::Json]);
    assert_eq!(try_value(&leaves, External::First).await, []);
    assert_eq!(try_value(&leaves, External::Last(7)).await, POSITIONAL);
}

#[tokio::test]
async fn case_f10_hostile_nesting_is_a_miss() {
    let (leaves, _folders) = leaves().await;
    assert_eq!(try_value(&leaves, list(50)).await, []);
    // Deeper than any thread's stack: refused when it is written.
    let refused = try_value(&leaves, list(0)).await;
    assert_eq!(refused, []);
    for format in formats() {
        let error = format.encode(&list(2_000)).expect_err("it is too deep");
        assert_eq!(error.kind(), ErrorKind::Codec, "{format:?}");
    }
    // And when it comes from elsewhere.
    let levels = 100_000;
    let mut nested = vec![1_u8; levels];
    nested.push(0);
    assert!(Format::Postcard.decode::<List>(&nested).is_err());
    let mut nested = Vec::new();
    for _ in 0..levels {
        nested.extend(b"\x81\xA4Next");
    }
    nested.extend(b"\xA3End");
    assert!(Format::MessagePack.decode::<List>(&nested).is_err());
    assert!(Format::MessagePack.decode::<Value>(&vec![0x91; levels]).is_err());
    // Extensions within extensions, each with the length of all that follows.
    let mut nested = vec![0xC0_u8];
    while nested.len() < 100_000 {
        let mut outer = vec![0xC9];
        outer.extend((nested.len() as u32).to_be_bytes());
        outer.push(83);
        outer.extend(&nested);
        nested = outer;
    }
    type Deep = Option<Option<Option<Option<Untagged>>>>;
    assert!(Format::MessagePack.decode::<Deep>(&nested).is_err());
    assert!(Format::MessagePack.decode::<Value>(&nested).is_err());
    let text = format!("{}\"End\"{}", "{\"Next\":".repeat(levels), "}".repeat(levels));
    assert!(Format::Json.decode::<List>(text.as_bytes()).is_err());
}

/// A format of a user's own.
#[derive(Debug)]
struct Own;

impl CustomFormat for Own {
    fn id(&self) -> u16 {
        11
    }

    fn encode(
        &self,
        value: &dyn erased_serde::Serialize,
    ) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(serde_json::to_vec(value)?)
    }

    fn decode(
        &self,
        bytes: &[u8],
        read: &mut dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        Ok(read(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut deserializer))?)
    }
}

#[tokio::test]
async fn case_b04_formats_of_users_say_the_type_too() {
    let (disk, _folder) = disk(Format::Custom(&Own)).await;
    let user = User { id: 1, name: "n".to_owned() };
    disk.set(&key("own"), CacheValue::new(user.clone()), &mut CacheContext::new()).await.expect("a write");
    assert_eq!(get::<Order>(&disk, &key("own")).await, None);
    assert_eq!(get::<User>(&disk, &key("own")).await, Some(user));
}

mod elsewhere {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Skips {
        pub(super) z: u8,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_b05_no_part_of_a_type_is_overlooked() {
    use std::num::NonZeroU32;
    for (number, format) in formats().enumerate() {
        let (disk, _folder) = disk(format).await;
        let is_named = NAMED.contains(&format);
        let check = |change: &str, found: Option<String>, with_names: Option<&str>| {
            let right = if is_named { with_names.map(str::to_owned) } else { None };
            assert_eq!(found, right, "{change}, {format:?} {number}");
        };
        let found = after_a_release!(disk, &key("nested"),
            { enum Inner { A(u8), B(u8) }
              enum Kept { V(Inner), W } } Kept::V(Inner::B(200)),
            { enum Inner { A(u8), B(i16) }
              enum Kept { V(Inner), W } });
        check("an enum within an enum", found, Some("V(B(200))"));
        let found = after_a_release!(disk, &key("results"),
            { enum Inner { A(u8), B { x: u8, y: u8 } }
              struct Kept { one: Result<u8, Inner>, two: Result<Inner, String> } }
            Kept { one: Ok(1), two: Ok(Inner::B { x: 1, y: 2 }) },
            { enum Inner { A(u8), B { y: u8, x: u8 } }
              struct Kept { one: Result<u8, Inner>, two: Result<Inner, String> } });
        check("an enum within results", found, Some("Kept { one: Ok(1), two: Ok(B { y: 2, x: 1 }) }"));
        let found = after_a_release!(disk, &key("behind"),
            { enum Sum { Add(Box<Sum>, Box<Sum>), One(u8) }
              enum Last { A(u8), B }
              struct Kept { sum: Sum, last: Last } }
            Kept { sum: Sum::One(1), last: Last::A(200) },
            { enum Sum { Add(Box<Sum>, Box<Sum>), One(u8) }
              enum Last { A(i16), B }
              struct Kept { sum: Sum, last: Last } });
        check("a part behind a recursive one", found, Some("Kept { sum: One(1), last: A(200) }"));
        let found = after_a_release!(disk, &key("nonzero"),
            { struct Kept { id: NonZeroU32, x: u8, y: u8 } }
            Kept { id: NonZeroU32::MIN, x: 1, y: 2 },
            { struct Kept { id: NonZeroU32, y: u8, x: u8 } });
        check("a part behind one that is not 0", found, Some("Kept { id: 1, y: 2, x: 1 }"));
        let found = after_a_release!(disk, &key("tree"),
            { struct Kept { left: Option<Box<Kept>>, right: Option<Box<Kept>>, x: u8, y: u8 } }
            Kept { left: None, right: None, x: 1, y: 2 },
            { struct Kept { left: Option<Box<Kept>>, right: Option<Box<Kept>>, y: u8, x: u8 } });
        check("a tree", found, Some("Kept { left: None, right: None, y: 2, x: 1 }"));
        let found = after_a_release!(disk, &key("narrow"),
            { struct Kept { a: f64 } } Kept { a: 1e300 },
            { struct Kept { a: f32 } });
        // JSON has but digits.
        if format != Format::Json {
            check("a double as a float", found, None);
        }
        let found = after_a_release!(disk, &key("rounded"),
            { struct Kept { a: u64 } } Kept { a: (1 << 53) + 1 },
            { struct Kept { a: f64 } });
        check("an integer as a double that has too few digits", found, None);
        let found = after_a_release!(disk, &key("tuple"),
            { struct Kept(u32, u32); } Kept(1, 2),
            { struct Kept { h: u32, w: u32 } });
        check("a tuple as a struct", found, None);
        let found = after_a_release!(disk, &key("signed"),
            { struct Kept { a: u128 } } Kept { a: u128::MAX },
            { struct Kept { a: i128 } });
        check("a number without a sign as one with it", found, None);
    }
}

/// Written in one way for humans and in another for machines.
#[derive(Clone, Debug, PartialEq)]
struct Money(u64);

impl Serialize for Money {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_f64(self.0 as f64 / 100.0),
            false => serializer.serialize_u64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => Ok(Self((f64::deserialize(deserializer)? * 100.0).round() as u64)),
            false => Ok(Self(u64::deserialize(deserializer)?)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Bill {
    Due { money: Money, from: std::net::IpAddr },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Numbers {
    Large(u128),
    Double(f64),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SkipsInTuple(#[serde(skip_serializing_if = "Option::is_none")] Option<u8>, #[serde(default)] u8);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Both {
    one: Skips,
    two: elsewhere::Skips,
}

#[tokio::test]
async fn case_b06_buffered_values_are_read_as_they_were_written() {
    let (leaves, _folders) = leaves().await;
    let bill = Bill::Due { money: Money(150), from: std::net::Ipv6Addr::LOCALHOST.into() };
    assert_eq!(try_value(&leaves, bill).await, POSITIONAL);
    let addresses = std::net::SocketAddr::from(([127, 0, 0, 1], 80));
    assert_eq!(try_value(&leaves, (addresses, addresses.ip())).await, []);
    for number in [5, u128::from(u64::MAX), u128::MAX] {
        let refused = try_value(&leaves, Numbers::Large(number)).await;
        assert_eq!(refused.len(), leaves.len(), "serde itself cannot read {number}");
    }
    for number in [0, 5, u128::MAX, u128::from(u64::MAX) + 1] {
        let signed = i128::try_from(number).map_or(i128::MIN, |number| -number);
        assert_eq!(try_value(&leaves, (Some(number), signed)).await, []);
    }
    assert_eq!(try_value(&leaves, std::borrow::Cow::<'static, str>::Borrowed("x")).await, []);
    let both = Both { one: Skips { a: None, list: vec![1], z: 1 }, two: elsewhere::Skips { z: 2 } };
    assert_eq!(try_value(&leaves, both).await, POSITIONAL);
    for (format, leaf) in &leaves {
        let key = key("tuple");
        if leaf.set(&key, CacheValue::new(SkipsInTuple(None, 5)), &mut CacheContext::new()).await.is_ok()
            && *format != Format::Json
        {
            assert_eq!(get::<SkipsInTuple>(&**leaf, &key).await, None, "{format:?}");
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum ListOfStructs {
    End,
    Next { next: Box<ListOfStructs> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum ListOfPairs {
    End,
    Next(u8, Box<ListOfPairs>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ListOfOptions {
    next: Option<Box<ListOfOptions>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Tree(Vec<Tree>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Node {
    nodes: Vec<Node>,
}

#[test]
fn case_f10_what_may_be_written_may_be_read() {
    fn check<T: Serialize + DeserializeOwned + Cacheable + PartialEq + Debug>(
        empty: T,
        more: impl Fn(T) -> T,
    ) {
        for format in formats() {
            let (mut value, mut deepest) = (empty.clone(), 0);
            for levels in 0..300 {
                match format.encode(&value) {
                    Ok(bytes) => {
                        let back = format.decode::<T>(&bytes);
                        assert!(back.is_ok_and(|back| back == value), "{format:?}, {levels} levels");
                        deepest = levels;
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Codec),
                }
                value = more(value);
            }
            let name = std::any::type_name::<T>();
            assert!((20..300).contains(&deepest), "{name} in {format:?}: {deepest} levels");
        }
    }
    // As much room as the threads of tokio have.
    let check = || {
        check(ListOfStructs::End, |next| ListOfStructs::Next { next: Box::new(next) });
        check(ListOfPairs::End, |next| ListOfPairs::Next(1, Box::new(next)));
        check(ListOfOptions { next: None }, |next| ListOfOptions { next: Some(Box::new(next)) });
        check(Tree(Vec::new()), |tree| Tree(vec![tree]));
        check(Node { nodes: Vec::new() }, |node| Node { nodes: vec![node] });
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(check).expect("a thread").join().expect("no panic");
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Refuses(u32);

impl<'de> Deserialize<'de> for Refuses {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        assert_ne!(number, 1, "one");
        Ok(Self(number))
    }
}

#[tokio::test]
async fn case_b09_a_panic_while_a_type_is_looked_at_is_a_miss() {
    for format in formats() {
        let (disk, _folder) = disk(format).await;
        disk.set(&key("b09"), CacheValue::new(1_u32), &mut CacheContext::new()).await.expect("a write");
        assert_eq!(get::<Refuses>(&disk, &key("b09")).await, None, "{format:?}");
        let keys = [key("b09"), key("none")];
        let many = disk.get_many::<Refuses>(&keys).await;
        assert!(many.iter().all(|read| matches!(read, Ok(None))), "{format:?}: {many:?}");
    }
}
