//! What goes in comes out.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use hitbox_backend::envelope::wire::{self, Other, Record};
use hitbox_backend::{
    Backend, CacheBackend, Codec, CompositionPolicy, Format, ParallelReadPolicy, RaceReadPolicy, Raw,
    ReadOptions, RefillPolicy,
};
use hitbox_core::{Accept, CacheContext, CacheStatus, CacheValue, Details, Lifetime, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::support::*;
use crate::{Setup, Subject, World};

pub(super) async fn value_01_any_value_round_trips(subject: &Subject) -> Verdict {
    let world = World::new();
    let backend = (subject.whole)(world).await;
    let bodies = [
        Bytes::new(),
        Bytes::from_static(b"x"),
        Bytes::from_static(&[0xff, 0xfe, 0, 0x80]),
        Bytes::from(
            (0..subject.largest as u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect::<Vec<_>>(),
        ),
    ];
    for (index, body) in bodies.into_iter().enumerate() {
        let key = key(&format!("body {index}"));
        put_forever(&*backend, &key, body.clone()).await?;
        let read = value::<Bytes>(&*backend, &key).await?;
        ensure!(read.as_ref() == Some(&body), "a body of {} bytes did not come back", body.len());
    }
    let item = Item::new(7);
    put_forever(&*backend, &key("item"), item.clone()).await?;
    ensure_eq!(value::<Item>(&*backend, &key("item")).await?, Some(item.clone()), "a struct");
    let nested: Arc<HashMap<String, Option<Item>>> =
        Arc::new([("a".to_owned(), Some(item)), ("b".to_owned(), None)].into());
    put_forever(&*backend, &key("map"), nested.clone()).await?;
    ensure_eq!(
        value::<Arc<HashMap<String, Option<Item>>>>(&*backend, &key("map")).await?,
        Some(nested),
        "a map"
    );
    Ok(())
}

pub(super) async fn value_02_instants_read_back_equal(subject: &Subject) -> Verdict {
    let world = World::new();
    let backend = (subject.whole)(world.clone()).await;
    let cases = [
        lifetime(&world, 1_000, 2_000, 3_000),
        Lifetime::FOREVER,
        Lifetime::FOREVER.with_stale(after(&world, 1_234)),
        Lifetime::FOREVER.with_expire(after(&world, 2_345)),
        Lifetime::FOREVER.with_retain(after(&world, 3_456)),
        Lifetime::FOREVER.with_expire(Timestamp::MAX),
    ];
    for (index, lifetime) in cases.into_iter().enumerate() {
        let key = key(&format!("instants {index}"));
        put(&*backend, &key, Item::new(1), lifetime).await?;
        let read = entry::<Item>(&*backend, &key).await?.ok_or("the entry is gone")?;
        ensure_eq!(*read.lifetime(), lifetime, "the lifetime");
    }
    let mut details = Details::default();
    details.idle = Some(ms(1500));
    details.load_time = Some(ms(12));
    details.version = Some(7);
    details.metadata.insert("content-type".to_owned(), "text/plain".into());
    let value =
        CacheValue::new(Item::new(2)).with_created(Some(after(&world, 0))).with_details(details.clone());
    let details_key = key("details");
    backend.set(&details_key, value, &mut CacheContext::new()).await.map_err(text)?;
    let read = entry::<Item>(&*backend, &details_key).await?.ok_or("the entry with details is gone")?;
    ensure_eq!(read.details(), Some(&details), "the details");
    ensure_eq!(read.created(), Some(after(&world, 0)), "the time of creation");
    // Each layer by itself: what is in the lower one comes through the upper one.
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let whole = lifetime(&world, 10_000, 20_000, 30_000);
    put(&*l2, &key("below"), Item::new(3), whole).await?;
    let composed = subject.compose(l1, l2, &world, Setup::refill(RefillPolicy::Awaited));
    for reading in ["from L2", "from L1 after the refill"] {
        let read = entry::<Item>(&*composed, &key("below")).await?.ok_or("the entry below is gone")?;
        ensure_eq!(*read.lifetime(), whole, "the lifetime {reading}");
    }
    Ok(())
}

pub(super) async fn value_03_lives_under_a_second_are_honoured(subject: &Subject) -> Verdict {
    let world = World::new();
    let backend = (subject.whole)(world.clone()).await;
    put(&*backend, &key("short"), Item::new(1), Lifetime::FOREVER.with_expire(after(&world, 300))).await?;
    world.advance_millis(299);
    ensure_eq!(id(&*backend, &key("short")).await?, Some(1), "one millisecond before the end");
    world.advance_millis(1);
    ensure_eq!(id(&*backend, &key("short")).await?, None, "at the end");
    // A value past its end is not stored, and does not leave the old one.
    put_forever(&*backend, &key("past"), Item::new(1)).await?;
    put(&*backend, &key("past"), Item::new(2), Lifetime::FOREVER.with_expire(after(&world, 0))).await?;
    ensure_eq!(id(&*backend, &key("past")).await?, None, "after a write that was over already");
    let failsafe = ReadOptions::NORMAL.accepting(Accept::Expired);
    let read: Option<CacheValue<Item>> =
        backend.get_with(&key("past"), failsafe, &mut CacheContext::new()).await.map_err(text)?;
    ensure!(read.is_none(), "a value past its end was stored");
    Ok(())
}

pub(super) async fn value_04_overwriting_replaces_everything(subject: &Subject) -> Verdict {
    let world = World::new();
    let backend = (subject.whole)(world.clone()).await;
    let mut details = Details::default();
    details.version = Some(3);
    details.metadata.insert("a".to_owned(), "b".into());
    let first =
        CacheValue::new(Item::new(1)).with_lifetime(lifetime(&world, 100, 200, 300)).with_details(details);
    backend.set(&key("over"), first, &mut CacheContext::new()).await.map_err(text)?;
    put_forever(&*backend, &key("over"), Item::new(2)).await?;
    let read = entry::<Item>(&*backend, &key("over")).await?.ok_or("the entry is gone")?;
    ensure_eq!(*read.lifetime(), Lifetime::FOREVER, "the lifetime after the overwrite");
    ensure!(read.details().is_none(), "details survived the overwrite");
    world.advance_millis(1_000_000);
    ensure_eq!(id(&*backend, &key("over")).await?, Some(2), "long after the old end");
    Ok(())
}

pub(super) async fn value_05_state_follows_the_clock(subject: &Subject) -> Verdict {
    let world = World::new();
    let backend = (subject.whole)(world.clone()).await;
    put(&*backend, &key("ages"), Item::new(1), lifetime(&world, 100, 200, 300)).await?;
    let ages = [
        (0, CacheStatus::Hit, true, true, true),
        (99, CacheStatus::Hit, true, true, true),
        (1, CacheStatus::Stale, false, true, true),
        (99, CacheStatus::Stale, false, true, true),
        (1, CacheStatus::Stale, false, false, true),
        (99, CacheStatus::Stale, false, false, true),
        (1, CacheStatus::Miss, false, false, false),
    ];
    let mut age = 0;
    for (step, status, fresh, normal, failsafe) in ages {
        age += step;
        world.advance_millis(step);
        for (accept, expected) in
            [(Accept::Fresh, fresh), (Accept::Stale, normal), (Accept::Expired, failsafe)]
        {
            let mut context = CacheContext::new();
            let options = ReadOptions::NORMAL.accepting(accept);
            let read: Option<CacheValue<Item>> =
                backend.get_with(&key("ages"), options, &mut context).await.map_err(text)?;
            ensure_eq!(read.is_some(), expected, "{accept:?} after {age} ms");
            let reported = if expected { status } else { CacheStatus::Miss };
            ensure_eq!(context.status(), reported, "the status of {accept:?} after {age} ms");
        }
    }
    Ok(())
}

fn every_read_policy() -> [(&'static str, CompositionPolicy); 3] {
    [
        ("sequential", CompositionPolicy::new()),
        ("race", CompositionPolicy::new().read(RaceReadPolicy::default())),
        ("parallel", CompositionPolicy::new().read(ParallelReadPolicy)),
    ]
}

pub(super) async fn value_06_a_useless_copy_is_a_miss_of_its_layer(subject: &Subject) -> Verdict {
    for (name, policy) in every_read_policy() {
        let world = World::new();
        let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
        put(&*l1, &key("old"), Item::new(1), lifetime(&world, 10, 20, 100_000)).await?;
        put_forever(&*l1, &key("type"), "not an item".to_owned()).await?;
        for name in ["old", "type"] {
            put_forever(&*l2, &key(name), Item::new(2)).await?;
        }
        world.advance_millis(50);
        let composed = subject.compose(l1.clone(), l2.clone(), &world, Setup { policy, ..Setup::default() });
        ensure_eq!(id(&*composed, &key("old")).await?, Some(2), "{name} read over an expired copy");
        ensure_eq!(id(&*composed, &key("type")).await?, Some(2), "{name} read over a copy of another type");
        // The winner of a race may be there before the useless copy is looked at.
        let counted = total(&*composed, |leaf| leaf.unusable);
        ensure!(counted >= 2 || name == "race", "useless copies were not counted ({name})");
        // The copy was not removed: who reads it as what it is finds it.
        ensure_eq!(
            value::<String>(&*l1, &key("type")).await?.as_deref(),
            Some("not an item"),
            "the copy of another type"
        );
    }
    Ok(())
}

pub(super) async fn value_07_a_useless_copy_never_beats_a_usable_one(subject: &Subject) -> Verdict {
    for (name, policy) in every_read_policy() {
        let world = World::new();
        let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
        // The useless copy has the longer physical life, on either side.
        for (old, new, name) in [(&l1, &l2, "old above"), (&l2, &l1, "old below")] {
            put(&**old, &key(name), Item::new(1), lifetime(&world, 10, 20, 1_000_000)).await?;
            put(&**new, &key(name), Item::new(2), lifetime(&world, 100, 200, 200)).await?;
        }
        world.advance_millis(50);
        let composed = subject.compose(l1, l2, &world, Setup { policy, ..Setup::default() });
        for place in ["old above", "old below"] {
            ensure_eq!(id(&*composed, &key(place)).await?, Some(2), "{name} read with the {place}");
        }
    }
    Ok(())
}

pub(super) async fn value_08_layers_have_their_own_codecs(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    // Whatever the layers write, a copy made elsewhere, in other formats, goes through both.
    for (index, format) in [Format::Postcard, Format::Json].into_iter().enumerate() {
        let key = key(&format!("codec {index}"));
        let codec = Codec { format, ..Codec::default() };
        let encoded = Raw::live(Item::new(5)).to_encoded(&codec, None, &Default::default(), None);
        let raw = Raw::encoded(encoded.map_err(text)?, None);
        let receipt = put_raw(&*l2, &key, raw).await;
        ensure!(receipt.is_ok(), "an encoded value was refused");
        let composed = subject.compose(l1.clone(), l2.clone(), &world, Setup::refill(RefillPolicy::Awaited));
        for reading in ["from L2", "from L1"] {
            ensure_eq!(id(&*composed, &key).await?, Some(5), "{format:?} {reading}");
        }
        ensure_eq!(id(&*l1, &key).await?, Some(5), "{format:?} in L1 alone");
        put_forever(&*composed, &key, Item::new(6)).await?;
        ensure_eq!(
            (id(&*l1, &key).await?, id(&*l2, &key).await?),
            (Some(6), Some(6)),
            "after a write to both"
        );
    }
    Ok(())
}

/// Serializations and deserializations, by the number of the value.
static COUNTS: LazyLock<Mutex<HashMap<u64, (u32, u32)>>> = LazyLock::new(Mutex::default);

#[derive(Clone, Debug, PartialEq)]
struct Counted(u64);

impl Counted {
    fn new() -> Self {
        let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let id = counts.len() as u64;
        counts.insert(id, (0, 0));
        Self(id)
    }

    fn counts(&self) -> (u32, u32) {
        let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&self.0).copied().unwrap_or_default()
    }
}

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        COUNTS.lock().unwrap_or_else(PoisonError::into_inner).entry(self.0).or_default().0 += 1;
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = u64::deserialize(deserializer)?;
        COUNTS.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().1 += 1;
        Ok(Self(id))
    }
}

pub(super) async fn value_09_encoded_and_decoded_once(subject: &Subject) -> Verdict {
    let world = World::new();
    let backend = (subject.whole)(world.clone()).await;
    let counted = Counted::new();
    put_forever(&*backend, &key("counted"), counted.clone()).await?;
    // Live leaves need no encoding; the others have equal codecs.
    let needed = u32::from(!is_live(&backend));
    ensure_eq!(counted.counts().0, needed, "encodings of one write");
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let below = Counted::new();
    put_forever(&*l2, &key("below"), below.clone()).await?;
    let composed = subject.compose(l1.clone(), l2.clone(), &world, Setup::refill(RefillPolicy::Awaited));
    for _ in 0..4 {
        ensure!(value::<Counted>(&*composed, &key("below")).await?.is_some(), "the value below is gone");
    }
    if is_live(&l1) {
        ensure!(below.counts().1 <= 1, "a refilled copy was decoded {} times", below.counts().1);
    }
    let both = Counted::new();
    put_forever(&*l1, &key("both"), both.clone()).await?;
    put_forever(&*l2, &key("both"), both.clone()).await?;
    let policy = CompositionPolicy::new().read(ParallelReadPolicy);
    let parallel = subject.compose(l1, l2, &world, Setup { policy, ..Setup::default() });
    ensure!(value::<Counted>(&*parallel, &key("both")).await?.is_some(), "the value in both is gone");
    ensure!(both.counts().1 <= 1, "the loser of a parallel read was decoded");
    Ok(())
}

pub(super) async fn value_10_hits_share_one_allocation(subject: &Subject) -> Verdict {
    let world = World::new();
    let backend = (subject.whole)(world.clone()).await;
    if backend.layout().leaves().len() == 1 && is_live(&backend) {
        let body = Bytes::from(vec![7_u8; 10_000]);
        put_forever(&*backend, &key("shared"), body.clone()).await?;
        for _ in 0..2 {
            let read = value::<Bytes>(&*backend, &key("shared")).await?.ok_or("the body is gone")?;
            ensure!(read.as_ptr() == body.as_ptr(), "a hit copied the payload");
        }
    }
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    if !is_live(&l1) {
        return Ok(());
    }
    put_forever(&*l2, &key("refilled"), Arc::new(Item::new(1))).await?;
    let composed = subject.compose(l1, l2, &world, Setup::refill(RefillPolicy::Awaited));
    let mut hits = Vec::new();
    for _ in 0..4 {
        hits.push(value::<Arc<Item>>(&*composed, &key("refilled")).await?.ok_or("the item is gone")?);
    }
    // The first comes from below; those from the refilled copy are one.
    ensure!(Arc::ptr_eq(&hits[2], &hits[3]), "two hits of one refilled entry do not share it");
    Ok(())
}

pub(super) async fn value_11_other_schemas_are_misses(subject: &Subject) -> Verdict {
    let world = World::new();
    let backend = (subject.whole)(world).await;
    let encoded = Raw::live(Item::new(1)).to_encoded(&Codec::default(), None, &Default::default(), None);
    let encoded = encoded.map_err(text)?.with_schema(99);
    if backend.layout().leaves().len() == 1 && !is_live(&backend) {
        let raw = Raw::encoded(encoded.clone(), None);
        let receipt = put_raw(&*backend, &key("schema"), raw).await;
        ensure!(receipt.is_ok(), "an encoded value was refused");
        ensure_eq!(id(&*backend, &key("schema")).await?, None, "a record of another schema");
        put_forever(&*backend, &key("schema"), Item::new(2)).await?;
        ensure_eq!(id(&*backend, &key("schema")).await?, Some(2), "after it was overwritten");
    }
    let entry = CacheValue::new(Raw::encoded(encoded.clone(), None));
    let record = Bytes::from(wire::encode(&key("mine"), &entry, &encoded));
    let own = Codec { schema: 99, ..Codec::default() };
    let found = |name: &str, record: &Bytes, codec: &Codec| wire::decode(&key(name), record, codec, None);
    ensure!(matches!(found("mine", &record, &own), Record::Value(_)), "a record of ours is not read");
    ensure!(matches!(found("other", &record, &own), Record::Other(Other::Key)), "the key is not checked");
    ensure!(
        matches!(found("mine", &record, &Codec::default()), Record::Other(Other::Schema)),
        "the schema is not checked"
    );
    let mut newer = record.to_vec();
    newer[4] = 2;
    ensure!(
        matches!(found("mine", &newer.into(), &own), Record::Other(Other::Newer)),
        "a newer format is not left"
    );
    ensure!(
        matches!(found("mine", &Bytes::from_static(b"hello"), &own), Record::Other(Other::Foreign)),
        "foreign bytes are not left"
    );
    Ok(())
}
