//! Keys.

use hitbox_backend::Wrap;
use hitbox_core::{CacheKey, ErrorKind};

use super::support::*;
use crate::{Subject, World};

pub(super) async fn key_01_different_keys_never_collide(subject: &Subject) -> Verdict {
    let backend = (subject.whole)(World::new()).await;
    let part = |name: &str, value: &str| CacheKey::builder("p").part(name, value).build();
    let keys = [
        CacheKey::new("p"),
        CacheKey::new(""),
        CacheKey::builder("p").version(1).build(),
        CacheKey::new("p:1"),
        CacheKey::builder("p").flag("a").build(),
        part("a", ""),
        part("a", "1&b=2"),
        CacheKey::builder("p").part("a", 1).part("b", 2).build(),
        CacheKey::builder("p").part("b", 2).part("a", 1).build(),
        part("a", "1:b=2"),
        part("a=1:b", "2"),
        part("a", "%3A"),
        part("a", ":"),
        part("a", "ä\u{0}\n"),
        part("a", "{x}"),
        CacheKey::builder("p").part_bytes("a", &[0xff, 0xfe]).build(),
        CacheKey::builder("p").part_bytes("a", &[0xff, 0xfd]).build(),
        CacheKey::new("!p"),
        CacheKey::new("n/p"),
        CacheKey::new("p").in_namespace("n"),
    ];
    for (index, key) in keys.iter().enumerate() {
        put_forever(&*backend, key, index as u64).await?;
    }
    for (index, key) in keys.iter().enumerate() {
        ensure_eq!(value::<u64>(&*backend, key).await?, Some(index as u64), "the value of {key}");
    }
    Ok(())
}

pub(super) async fn key_03_namespaces_are_apart(subject: &Subject) -> Verdict {
    let backend = (subject.whole)(World::new()).await;
    let plain = backend.clone();
    let names = ["a", "b", "a/b", "a%2Fb"];
    let spaces: Vec<_> = names.into_iter().map(|name| backend.clone().namespace(name)).collect();
    let nested = backend.namespace("b").namespace("a");
    put_forever(&*plain, &key("same"), 100_u64).await?;
    put_forever(&nested, &key("same"), 200_u64).await?;
    for (index, space) in spaces.iter().enumerate() {
        put_forever(space, &key("same"), index as u64).await?;
    }
    for (index, space) in spaces.iter().enumerate() {
        ensure_eq!(value::<u64>(space, &key("same")).await?, Some(index as u64), "in {}", names[index]);
    }
    ensure_eq!(value::<u64>(&*plain, &key("same")).await?, Some(100), "without a namespace");
    ensure_eq!(value::<u64>(&nested, &key("same")).await?, Some(200), "in nested namespaces");
    Ok(())
}

pub(super) async fn key_04_long_keys_work_or_are_refused(subject: &Subject) -> Verdict {
    use hitbox_backend::CacheBackend;
    use hitbox_core::{CacheContext, CacheValue};
    let backend = (subject.whole)(World::new()).await;
    for length in [0, 1, 255, 256, 4_096, 64 * 1024] {
        // Two keys that differ at their end only.
        for last in ["x", "y"] {
            let key = CacheKey::builder("").part("", "k".repeat(length) + last).build();
            put_forever(&*backend, &key, format!("{length}{last}")).await?;
        }
        for last in ["x", "y"] {
            let key = CacheKey::builder("").part("", "k".repeat(length) + last).build();
            ensure_eq!(
                value::<String>(&*backend, &key).await?,
                Some(format!("{length}{last}")),
                "{length} bytes"
            );
        }
    }
    let endless = CacheKey::builder("").part("", "k".repeat(1 << 20)).build();
    let refused = backend.set(&endless, CacheValue::new(1_u64), &mut CacheContext::new()).await;
    let Err(error) = refused else { return Err("a key of 1 MiB was taken".to_owned()) };
    let kinds: Vec<_> = std::iter::once(&error).chain(error.causes()).map(|e| e.kind()).collect();
    ensure!(kinds.contains(&ErrorKind::TooLarge), "the refusal is {error:?}");
    Ok(())
}

pub(super) async fn key_05_reserved_keys_are_out_of_reach(subject: &Subject) -> Verdict {
    let backend = (subject.whole)(World::new()).await;
    let reserved = CacheKey::builder("epoch").part("tag", "a").reserved().build();
    put_forever(&*backend, &reserved, "framework".to_owned()).await?;
    for key in reserved_keys_are_out_of_reach(&reserved) {
        put_forever(&*backend, &key, "user".to_owned()).await?;
    }
    ensure_eq!(
        value::<String>(&*backend, &reserved).await?.as_deref(),
        Some("framework"),
        "the reserved entry"
    );
    Ok(())
}

/// What a user would try to reach a reserved key with.
pub fn reserved_keys_are_out_of_reach(reserved: &CacheKey) -> Vec<CacheKey> {
    let text = reserved.to_string();
    vec![
        CacheKey::builder("epoch").part("tag", "a").build(),
        CacheKey::new(&text),
        CacheKey::new(text.trim_start_matches('!')),
        CacheKey::builder("!epoch").part("tag", "a").build(),
        CacheKey::builder("epoch").part("tag", "a").build().in_namespace("!"),
        CacheKey::new(&String::from_utf8_lossy(reserved.as_encoded())),
    ]
}
