//! `#[cached]` and `#[derive(ToKey)]`.

#![cfg(feature = "macros")]

use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hitbox::{Cache, LoadError, ToKey, cached, stacks};

#[derive(Clone, Debug, PartialEq)]
enum StoreError {
    NotFound(u64),
    Cache(String),
}

impl Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for StoreError {}

impl From<LoadError> for StoreError {
    fn from(error: LoadError) -> Self {
        error.loader_error::<Self>().cloned().unwrap_or_else(|| Self::Cache(error.to_string()))
    }
}

/// Caches of tests that run on a runtime each: loads run within their callers.
fn cache<V: hitbox::Cacheable>() -> Cache<V> {
    #[derive(Debug)]
    struct Inline;
    impl hitbox::core::Offload for Inline {
        fn register(&self, task: hitbox::core::Task) -> Result<(), hitbox::core::Refused> {
            Err(hitbox::core::Refused { task, why: hitbox::core::Refusal::Closed })
        }
    }
    let builder = Cache::builder(stacks::memory(1_000).expect("memory")).offload(std::sync::Arc::new(Inline));
    builder.absent_ttl(std::time::Duration::from_secs(60)).build().expect("a cache")
}

static NAMES: LazyLock<Cache<String>> = LazyLock::new(cache);
static CALLS: AtomicU64 = AtomicU64::new(0);

/// The name of a user.
#[cached(cache = NAMES)]
async fn name_of(id: u64, upper: bool) -> Result<String, StoreError> {
    CALLS.fetch_add(1, Ordering::SeqCst);
    if id == 0 {
        return Err(StoreError::NotFound(id));
    }
    let name = format!("user {id}");
    Ok(if upper { name.to_uppercase() } else { name })
}

#[tokio::test]
async fn functions_are_cached_by_path_and_arguments() {
    assert_eq!(name_of(7, false).await, Ok("user 7".to_owned()));
    assert_eq!(name_of(7, false).await, Ok("user 7".to_owned()));
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    assert_eq!(name_of(7, true).await, Ok("USER 7".to_owned()));
    assert_eq!(CALLS.load(Ordering::SeqCst), 2);
    assert_eq!(name_of::key(7, false).to_string(), "cached%3A%3Aname_of:0:id=7:upper=false");
    name_of::invalidate(7, false).await.expect("a delete");
    assert_eq!(name_of(7, false).await, Ok("user 7".to_owned()));
    assert_eq!(CALLS.load(Ordering::SeqCst), 3);
    // Errors are the function's own, and not kept.
    assert_eq!(name_of(0, false).await, Err(StoreError::NotFound(0)));
    assert_eq!(name_of(0, false).await, Err(StoreError::NotFound(0)));
    assert_eq!(CALLS.load(Ordering::SeqCst), 5);
}

/// What somebody wants to know and no key is made of.
struct Trace<T>(Vec<T>);

/// A store whose methods borrow it and their arguments.
struct Store {
    users: HashMap<u64, String>,
    names: Cache<String>,
    lengths: Cache<usize>,
    calls: AtomicU64,
}

impl Store {
    fn new() -> Self {
        let users = HashMap::from([(1, "Ada".to_owned()), (2, "Grace".to_owned())]);
        Self { users, names: cache(), lengths: cache(), calls: AtomicU64::new(0) }
    }

    #[cached(cache = self.names)]
    async fn find(&self, id: u64) -> Result<Option<String>, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(self.users.get(&id).cloned())
    }

    #[cached(cache = self.lengths, skip(trace))]
    async fn longest<'a, T>(&self, texts: &'a str, trace: &mut Trace<T>) -> Option<usize>
    where
        T: From<&'a str> + Send,
    {
        self.calls.fetch_add(1, Ordering::SeqCst);
        trace.0.push(T::from(texts));
        texts.split(' ').map(str::len).max()
    }

    #[cached(cache = self.lengths, key = (a.min(b), a.max(b)))]
    async fn distance(&self, a: u64, b: u64) -> usize {
        self.calls.fetch_add(1, Ordering::SeqCst);
        a.abs_diff(b) as usize
    }
}

#[tokio::test]
async fn methods_are_cached_with_absence_skipped_and_own_keys() {
    let store = Store::new();
    for _ in 0..3 {
        assert_eq!(store.find(1).await, Ok(Some("Ada".to_owned())));
        assert_eq!(store.find(9).await, Ok(None));
    }
    assert_eq!(store.calls.load(Ordering::SeqCst), 2, "absence is remembered");
    store.find_invalidate(1).await.expect("a delete");
    assert_eq!(store.find(1).await, Ok(Some("Ada".to_owned())));
    assert_eq!(store.calls.load(Ordering::SeqCst), 3);
    assert!(store.find_key(1).to_string().ends_with("id=1"), "{}", store.find_key(1));

    let mut trace: Trace<String> = Trace(Vec::new());
    assert_eq!(store.longest("a bb ccc", &mut trace).await, Some(3));
    assert_eq!(store.longest("a bb ccc", &mut trace).await, Some(3));
    assert_eq!(trace.0, ["a bb ccc"]);

    assert_eq!((store.distance(3, 10).await, store.distance(10, 3).await), (7, 7));
    assert_eq!(store.calls.load(Ordering::SeqCst), 5);
}

#[cached(cache = OPTIONS, option_as_value)]
async fn half(number: u64) -> Option<u64> {
    number.is_multiple_of(2).then_some(number / 2)
}

static OPTIONS: LazyLock<Cache<Option<u64>>> = LazyLock::new(cache);

#[tokio::test]
async fn an_option_may_be_a_value() {
    assert_eq!((half(4).await, half(3).await, half(3).await), (Some(2), None, None));
    let cached = OPTIONS.get(half::key(3)).await.expect("a read");
    assert_eq!(cached, Some(None), "it is stored as it is");
}

#[derive(ToKey)]
struct Query<T> {
    tenant: String,
    page: u32,
    #[key(name = "q")]
    text: Option<T>,
    #[key(skip)]
    _trace: (),
}

#[derive(ToKey)]
struct Pair(u8, bool);

#[test]
fn structs_are_keys_by_their_fields() {
    let query = |text: Option<&'static str>| Query { tenant: "acme".to_owned(), page: 2, text, _trace: () };
    assert_eq!(query(Some("x")).to_key("search").to_string(), "search:0:tenant=acme:page=2:q=x");
    assert_eq!(query(None).to_key("search").to_string(), "search:0:tenant=acme:page=2:q");
    assert_ne!(query(None).to_key("search"), query(Some("")).to_key("search"));
    assert_eq!(Pair(1, true).to_key("p").to_string(), "p:0:0=1:1=true");
    assert_eq!((Pair(1, true), 5).to_key("p").to_string(), "p:0:0.0=1:0.1=true:1=5");
}

#[test]
fn mistakes_are_named() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
