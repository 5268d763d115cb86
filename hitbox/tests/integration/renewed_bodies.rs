//! Bodies whose life starts anew, since their source says that they are still right; and loads that have nothing for others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::Empty;
use hitbox::{AnswerKind, Body, Cache, Compose, LoadErrorKind, Loaded, OffloadPool, Wrap};
use hitbox_backend::Backend;
use hitbox_core::Freshness;

use crate::loaded_bodies::{disk, films_over, memory, read, source, until, whole};

type Nothing = Empty<io::Result<Bytes>>;

const MINUTE: Duration = Duration::from_secs(60);

fn tag_of(body: &Body) -> Option<&[u8]> {
    body.metadata("etag").map(|tag| &tag[..])
}

/// Memory, disk, both, and a nest behind wrappers.
async fn backends(folders: &[tempfile::TempDir; 3]) -> Vec<Arc<dyn Backend>> {
    let pool = OffloadPool::new();
    let nest = memory().compose(disk(&folders[2]).await, pool.shared()).namespace("n").deadline(MINUTE);
    vec![
        Arc::new(memory()),
        Arc::new(disk(&folders[0]).await),
        Arc::new(memory().compose(disk(&folders[1]).await, pool.shared())),
        Arc::new(nest),
    ]
}

/// A body that is stale already.
async fn stale_body(films: &Cache<()>, tag: &str) -> u64 {
    let entry = films.entry("metropolis").ttl(Duration::ZERO).stale(MINUTE).metadata("etag", tag);
    entry.write_body().await.expect("a writer").store(source(3)).await.expect("it is stored");
    let stored = films.open_body("metropolis").await.expect("an answer").expect("it is stored");
    assert_eq!((stored.freshness(), tag_of(&stored)), (Freshness::Stale, Some(tag.as_bytes())));
    stored.generation()
}

async fn stored(films: &Cache<()>) -> Body {
    films.open_body("metropolis").await.expect("an answer").expect("it is stored")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_modified_lives_on() {
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    for backend in backends(&folders).await {
        let films = films_over(backend);
        let generation = stale_body(&films, "one").await;
        let validated = move || async move {
            let kept = Loaded::<Nothing>::body_not_modified(generation);
            Ok::<_, io::Error>(kept.ttl(MINUTE).stale(MINUTE).metadata("etag", "two"))
        };
        let answer =
            films.entry("metropolis").reload().get_or_load_stream_with(validated).await.expect("a body");
        assert_eq!(answer.outcome.kind, AnswerKind::Loaded);
        assert_eq!(tag_of(&answer.value), Some(&b"two"[..]));
        assert!(read(answer.value).await == whole(3));
        let kept = stored(&films).await;
        assert_eq!((kept.freshness(), kept.generation()), (Freshness::Fresh, generation), "{:?}", films);
        assert_eq!(films.statistics().load_failures, 0);

        // What says nothing of metadata keeps it. A load that begins while the one before is still being stored renews nothing.
        until("it is renewed", async || {
            let kept = || async {
                let kept = Loaded::<Nothing>::not_modified();
                Ok::<_, io::Error>(kept.ttl(Duration::ZERO).stale(MINUTE))
            };
            films.entry("metropolis").reload().get_or_load_stream_with(kept).await.expect("a body");
            let kept = stored(&films).await;
            assert_eq!(tag_of(&kept), Some(&b"two"[..]));
            kept.freshness() == Freshness::Stale
        })
        .await;
    }
}

/// What has been stored meanwhile is another body: what is said of the one before is not said of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_is_of_one_generation() {
    let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    for backend in backends(&folders).await {
        let films = films_over(backend);
        let before = stale_body(&films, "one").await;
        let now = stale_body(&films, "two").await;
        assert_ne!(before, now);
        let validated = move || async move {
            Ok::<_, io::Error>(
                Loaded::<Nothing>::body_not_modified(before).ttl(MINUTE).metadata("etag", "one again"),
            )
        };
        let answer =
            films.entry("metropolis").reload().get_or_load_stream_with(validated).await.expect("a body");
        assert_eq!(tag_of(&answer.value), Some(&b"two"[..]), "it is the answer");
        let kept = stored(&films).await;
        assert_eq!(
            (kept.freshness(), kept.generation(), tag_of(&kept)),
            (Freshness::Stale, now, Some(&b"two"[..]))
        );
    }
}

#[tokio::test]
async fn nothing_is_renewed_where_nothing_is() {
    let films = films_over(Arc::new(memory()));
    let kept = || async {
        Ok::<_, io::Error>(Loaded::<Nothing>::not_modified().ttl(MINUTE).metadata("etag", "one"))
    };
    let error = films.entry("metropolis").get_or_load_stream_with(kept).await.expect_err("there is nothing");
    assert_eq!(error.kind(), LoadErrorKind::NothingToKeep);
    assert!(films.open_body("metropolis").await.expect("an answer").is_none());
}

/// A write that comes while the source is asked wins over what the source says of what was there before.
#[tokio::test]
async fn a_write_wins_over_a_renewal() {
    let films = films_over(Arc::new(memory()));
    stale_body(&films, "one").await;
    let writer = films.clone();
    let validated = move || async move {
        stale_body(&writer, "two").await;
        Ok::<_, io::Error>(Loaded::<Nothing>::not_modified().ttl(MINUTE).metadata("etag", "one again"))
    };
    films.entry("metropolis").reload().get_or_load_stream_with(validated).await.expect("a body");
    let kept = stored(&films).await;
    assert_eq!((kept.freshness(), tag_of(&kept)), (Freshness::Stale, Some(&b"two"[..])));
}

#[tokio::test]
async fn other_metadata_may_come_with_other_times() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = OffloadPool::new();
    let films = films_over(Arc::new(memory().compose(disk(&folder).await, pool.shared())));
    let generation = stale_body(&films, "one").await;
    films.entry("metropolis").metadata("etag", "two").set_metadata().await.expect("it is done");
    assert_eq!(stored(&films).await.freshness(), Freshness::Stale, "its times stay");
    films.entry("metropolis").ttl(MINUTE).metadata("etag", "three").set_metadata().await.expect("it is done");
    let kept = stored(&films).await;
    assert_eq!(
        (kept.freshness(), kept.generation(), tag_of(&kept)),
        (Freshness::Fresh, generation, Some(&b"three"[..]))
    );
    assert!(read(kept).await == whole(3));
}

/// A layer's own limit of a life is that of a life that starts anew, too.
#[tokio::test]
async fn a_renewal_heeds_the_ttl_of_a_layer() {
    let short = memory().ttl_cap(Duration::from_secs(30));
    let films = films_over(Arc::new(short));
    stale_body(&films, "one").await;
    films.entry("metropolis").ttl(Duration::from_secs(3600)).set_metadata().await.expect("it is done");
    let kept = stored(&films).await;
    let (now, end) =
        (kept.entry().created().expect("a time"), kept.entry().lifetime().expire().expect("an end"));
    assert!(end.since(now) <= Duration::from_secs(31), "it lives for {:?}", end.since(now));
}

/// What a loader has for nobody else is an error to all who wait, and changes nothing.
#[tokio::test]
async fn a_load_that_is_declined_leaves_what_is_there() {
    let films = films_over(Arc::new(memory()));
    let generation = stale_body(&films, "one").await;
    let (open, gate) = tokio::sync::watch::channel(false);
    let calls = (0..5).map(|_| {
        let (films, mut gate) = (films.clone(), gate.clone());
        async move {
            let declined = || async move {
                gate.wait_for(|is_open| *is_open).await.map_err(io::Error::other)?;
                Ok::<_, io::Error>(Loaded::<Nothing>::declined())
            };
            films.entry("metropolis").reload().get_or_load_stream_with(declined).await
        }
    });
    let calls = join_all(calls);
    let opening = async {
        until("all wait", async || films.statistics().coalesced == 4).await;
        open.send(true).expect("they wait");
    };
    let (answers, ()) = tokio::join!(calls, opening);
    for answer in answers {
        assert_eq!(answer.expect_err("it is declined").kind(), LoadErrorKind::Declined);
    }
    assert_eq!((films.statistics().loads, films.statistics().load_failures), (1, 0));
    assert_eq!(stored(&films).await.generation(), generation);
}

#[tokio::test]
async fn values_can_be_declined_too() {
    let users: Cache<u32> = Cache::builder(memory()).name("users").build().expect("a cache");
    users.insert(7, 1).await.expect("it is stored");
    let declined = |_| async { Ok::<_, io::Error>(Loaded::declined()) };
    let error = users.entry(7).reload().get_or_load_with(declined).await.expect_err("it is declined");
    assert_eq!(error.kind(), LoadErrorKind::Declined);
    assert_eq!(users.get(7).await.expect("an answer"), Some(1));
}
