//! The shop: a database, a cache of what its queries bring, and a cache of the pages that are made of it.

use std::sync::Arc;
use std::time::Duration;

use hitbox::backend::{Backend, IntoBackend};
use hitbox::moka::MokaBackend;
use hitbox::redis::RedisBackend;
use hitbox::{Cache, LoadError, Wrap, stacks};
use hitbox_tower::CacheLayer;

use crate::database::{Database, Item};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

const MEMORY: u64 = 128 * 1024 * 1024;
/// A request waits so long for Redis, and then asks the database.
const REDIS_DEADLINE: Duration = Duration::from_millis(50);
/// A change that another shop makes shows in this one after this time at most, and the staleness bound of tags in Redis (a second). Until then this
/// one may make a page of an old value: such a page ends with its `s-maxage`.
const MEMORY_TTL_CAP: Duration = Duration::from_secs(1);
/// Background work has so long to end.
const STOPPING: Duration = Duration::from_secs(10);
/// How long a value is good if nobody changes it.
const FRESH: Duration = Duration::from_secs(300);
/// How long it is known that there is no such item.
const ABSENT: Duration = Duration::from_secs(10);

/// All pages that list items carry this tag.
pub(crate) const LISTS: &str = "lists";

/// What carries this tag shows this item.
pub(crate) fn tag_of(id: u32) -> String {
    format!("item-{id}")
}

#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) database: Database,
    items: Cache<Item>,
    lists: Cache<Vec<Item>>,
    /// Caches the pages.
    pub(crate) pages: CacheLayer,
}

impl Shop {
    /// A shop over a database. What it caches is in memory, and in Redis too if there is one, where other shops find it.
    pub(crate) fn new(database: Database, redis: Option<&str>) -> Result<Self, Failure> {
        let memory = MokaBackend::builder().max_bytes(MEMORY).build()?;
        let tiers: Arc<dyn Backend> = match redis {
            Some(url) => {
                let redis = RedisBackend::builder(url).prefix("shop:").build()?;
                // Memory does not hear of what other shops change: it asks Redis again.
                let memory = memory.ttl_cap(MEMORY_TTL_CAP);
                let tiers = stacks::over(memory, redis.deadline(REDIS_DEADLINE));
                tiers.with_label("shop").into_shared()
            }
            None => memory.into_shared(),
        };
        let items = Cache::builder(tiers.clone()).name("items").ttl(FRESH).absent_ttl(ABSENT).build()?;
        let lists = Cache::builder(tiers.clone()).name("lists").ttl(FRESH).build()?;
        let tags = [http::HeaderName::from_static("surrogate-key")];
        let pages = CacheLayer::builder(tiers).name("pages").tags_from(tags).build()?;
        Ok(Self { database, items, lists, pages })
    }

    /// The items of a page, the first of which is 0.
    pub(crate) async fn list(&self, page: u32) -> Result<Vec<Item>, LoadError> {
        let database = self.database.clone();
        let load = move || async move { database.page(page).await };
        Ok(self.lists.entry(page).tag(LISTS).get_or_load(load).await?.value)
    }

    pub(crate) async fn item(&self, id: u32) -> Result<Option<Item>, LoadError> {
        let database = self.database.clone();
        let load = move || async move { database.item(id).await };
        Ok(self.items.entry(id).tag(&tag_of(id)).get_or_load_optional(load).await?.value)
    }

    /// Changes a price, and removes what shows the old one, in all shops. Says whether there is such an item.
    pub(crate) async fn set_price(&self, id: u32, cents: u32) -> Result<bool, Failure> {
        if !self.database.set_price(id, cents).await? {
            return Ok(false);
        }
        // Values first: a page that is made anew is to be made of new ones. If Redis fails, the price is changed and this says so: whoever
        // changed it tries again, or the old pages end by themselves.
        let tag = tag_of(id);
        let values = [self.items.invalidate_tags(&[&tag]).await, self.lists.invalidate_tags(&[LISTS]).await];
        let pages = [self.pages.purge().tag(&tag).await, self.pages.purge().tag(LISTS).await];
        values.into_iter().map(|value| value.map(drop)).chain(pages).collect::<Result<Vec<()>, _>>()?;
        Ok(true)
    }

    /// Lets what is being stored come to its end. Says whether all of it did.
    pub(crate) async fn shutdown(&self) -> bool {
        let pages = self.pages.cache().shutdown(STOPPING).await;
        let values = [self.items.shutdown(STOPPING).await, self.lists.shutdown(STOPPING).await];
        pages.is_clean() && values.iter().all(|end| end.is_clean())
    }
}
