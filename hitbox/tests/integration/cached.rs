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
    assert_eq!(name_of::key(7, false).to_string(), "integration%3A%3Acached%3A%3Aname_of:0:id=7:upper=false");
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

    #[cached(cache = self.names, skip(self))]
    async fn find(&self, id: u64) -> Result<Option<String>, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(self.users.get(&id).cloned())
    }

    #[cached(cache = self.lengths, skip(self, trace))]
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

/// One row of a table, whatever the type of rows.
#[cached(cache = ROWS)]
async fn row<T: Table>(id: u64) -> Result<String, LoadError> {
    Ok(format!("{} {id}", T::NAME))
}

#[cached(cache = ROWS)]
async fn power<const EXPONENT: u32>(base: u64) -> Result<String, LoadError> {
    Ok(base.pow(EXPONENT).to_string())
}

#[cached(cache = ROWS)]
async fn shown(what: impl ToKey + Debug) -> Result<String, LoadError> {
    Ok(format!("{what:?} of {}", std::any::type_name_of_val(&what)))
}

trait Table {
    const NAME: &'static str;
}

struct Users;
struct Orders;

impl Table for Users {
    const NAME: &'static str = "user";
}

impl Table for Orders {
    const NAME: &'static str = "order";
}

static ROWS: LazyLock<Cache<String>> = LazyLock::new(cache);

#[tokio::test]
async fn case_b01_types_are_part_of_the_key() {
    for _ in 0..2 {
        assert_eq!(row::<Users>(1).await.expect("a row"), "user 1");
        assert_eq!(row::<Orders>(1).await.expect("a row"), "order 1");
        assert_eq!(power::<2>(3).await.expect("a power"), "9");
        assert_eq!(power::<3>(3).await.expect("a power"), "27");
        assert_eq!(shown(1_u8).await.expect("a text"), "1 of u8");
        assert_eq!(shown(1_u64).await.expect("a text"), "1 of u64");
    }
    assert_ne!(row::key::<Users>(1), row::key::<Orders>(1));
    row::invalidate::<Users>(1).await.expect("a delete");
    assert_eq!(ROWS.get(row::key::<Users>(1)).await.expect("a read"), None);
    assert!(ROWS.get(row::key::<Orders>(1)).await.expect("a read").is_some());
}

/// The same for types that methods belong to.
struct Repository<T> {
    tenant: String,
    _rows: std::marker::PhantomData<fn() -> T>,
}

impl<T: Table> Repository<T> {
    fn of(tenant: &str) -> Self {
        Self { tenant: tenant.to_owned(), _rows: std::marker::PhantomData }
    }

    #[cached(cache = ROWS, self_key = self.tenant)]
    async fn find(&self, id: u64) -> Result<String, LoadError> {
        Ok(format!("{} {id} of {}", T::NAME, self.tenant))
    }

    #[cached(cache = ROWS, skip(self))]
    async fn about(&self, id: u64) -> Result<String, LoadError> {
        Ok(format!("{} {id}", T::NAME))
    }

    #[cached(cache = ROWS)]
    async fn headline(id: u64) -> Result<String, LoadError> {
        let of: Self = Self::of("nobody");
        Ok(format!("the {} {id} of {}", T::NAME, of.tenant))
    }

    #[cached(cache = ROWS, associated)]
    async fn footline(id: u64) -> Result<String, LoadError> {
        Ok(format!("that was {} {id}", T::NAME))
    }
}

#[tokio::test]
async fn case_b02_instances_share_nothing_unless_it_is_said() {
    let (acme, other) = (Repository::<Users>::of("acme"), Repository::<Users>::of("other"));
    let orders = Repository::<Orders>::of("acme");
    for _ in 0..2 {
        assert_eq!(acme.find(1).await.expect("a row"), "user 1 of acme");
        assert_eq!(other.find(1).await.expect("a row"), "user 1 of other");
        assert_eq!(orders.find(1).await.expect("a row"), "order 1 of acme");
        assert_eq!((acme.about(1).await.expect("a row"), other.about(1).await.expect("a row")), {
            ("user 1".to_owned(), "user 1".to_owned())
        });
        assert_eq!(orders.about(1).await.expect("a row"), "order 1");
        assert_eq!(Repository::<Users>::headline(1).await.expect("a line"), "the user 1 of nobody");
        assert_eq!(Repository::<Orders>::headline(1).await.expect("a line"), "the order 1 of nobody");
        assert_eq!(Repository::<Orders>::footline(1).await.expect("a line"), "that was order 1");
    }
    assert_ne!(acme.find_key(1), other.find_key(1));
    assert_eq!(acme.about_key(1), other.about_key(1));
    assert_ne!(Repository::<Users>::headline_key(1), Repository::<Orders>::headline_key(1));
}

/// Methods of traits have no companions and a name that says which they are.
trait Greets {
    async fn greet(&self, whom: &str) -> Result<String, LoadError>;
}

trait Greeter {
    async fn greet(&self, whom: &str) -> Result<String, LoadError>;
}

struct Polite;

impl Greets for Polite {
    #[cached(cache = ROWS, trait_impl, name = "Polite as Greets", skip(self))]
    async fn greet(&self, whom: &str) -> Result<String, LoadError> {
        Ok(format!("Hello, {whom}"))
    }
}

impl Greeter for Polite {
    #[cached(cache = ROWS, trait_impl, name = "Polite as Greeter", skip(self))]
    async fn greet(&self, whom: &str) -> Result<String, LoadError> {
        Ok(format!("Good evening, {whom}"))
    }
}

#[tokio::test]
async fn methods_of_traits_are_cached() {
    for _ in 0..2 {
        assert_eq!(Greets::greet(&Polite, "Ada").await.expect("a text"), "Hello, Ada");
        assert_eq!(Greeter::greet(&Polite, "Ada").await.expect("a text"), "Good evening, Ada");
    }
}

#[test]
fn case_b03_options_of_options_are_told_apart() {
    type Deep = Option<Option<Option<u8>>>;
    let shapes: [Deep; 4] = [None, Some(None), Some(Some(None)), Some(Some(Some(1)))];
    let mut keys: Vec<_> = shapes.iter().map(|shape| shape.to_key("d").into_owned()).collect();
    keys.extend(shapes.iter().map(|shape| (shape, 1_u8).to_key("d").into_owned()));
    let units: [Option<Option<()>>; 3] = [None, Some(None), Some(Some(()))];
    let units: Vec<_> = units.iter().map(|unit| unit.to_key("u").into_owned()).collect();
    let lists: [Vec<Vec<&str>>; 6] = [
        vec![],
        vec![vec![]],
        vec![vec![""]],
        vec![vec![], vec![]],
        vec![vec!["a", "b"]],
        vec![vec!["a"], vec!["b"]],
    ];
    let lists: Vec<_> = lists.iter().map(|list| list.to_key("l").into_owned()).collect();
    let boxed: [Option<Box<Option<&str>>>; 3] = [None, Some(Box::new(None)), Some(Box::new(Some("")))];
    let boxed: Vec<_> = boxed.iter().map(|value| value.to_key("b").into_owned()).collect();
    for keys in [keys, units, lists, boxed] {
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len(), "{keys:?}");
    }
}

mod renamed {
    pub(crate) use hitbox as cache_crate;
}

/// Arguments may be called as they like, bodies may be one line, and a crate may have another name.
mod plain {
    #![deny(warnings, clippy::all)]
    #![allow(unreachable_pub)]

    use super::{LazyLock, renamed};

    pub struct Outer(pub u64);

    static NUMBERS: LazyLock<renamed::cache_crate::Cache<u64>> = LazyLock::new(super::cache);

    #[renamed::cache_crate::cached(cache = NUMBERS, crate = super::renamed::cache_crate)]
    pub async fn sum(key: u64, cache: u64, context: u64, response: u64, r#type: u64, mut name: u64) -> u64 {
        name += 1;
        key + cache + context + response + r#type + name
    }

    #[renamed::cache_crate::cached(cache = NUMBERS, crate = super::renamed::cache_crate)]
    pub async fn one_line(id: u64) -> u64 {
        id
    }

    pub mod inner {
        use super::{NUMBERS, renamed};

        /// A type of the module above.
        #[renamed::cache_crate::cached(cache = super::NUMBERS, key = of.0, crate = super::renamed::cache_crate)]
        pub(crate) async fn doubled(of: super::Outer) -> u64 {
            of.0 * 2
        }

        #[renamed::cache_crate::cached(cache = NUMBERS, skip(unused), crate = super::renamed::cache_crate)]
        pub(super) async fn tripled(unused: &super::Outer, number: u64) -> u64 {
            let super::Outer(_) = unused;
            number * 3
        }
    }

    pub async fn both() -> (u64, u64) {
        assert_eq!(
            inner::tripled::key(1).to_string().rsplit(':').next(),
            Some("number=1"),
            "what is skipped is not asked for"
        );
        (inner::doubled(Outer(2)).await, inner::tripled(&Outer(0), 2).await)
    }
}

#[tokio::test]
async fn case_b10_arguments_may_have_any_name() {
    assert_eq!(plain::sum(1, 2, 3, 4, 5, 6).await, 22);
    assert_eq!(plain::sum(1, 2, 3, 4, 5, 6).await, 22);
    assert_eq!(plain::sum(2, 1, 3, 4, 5, 7).await, 23);
    assert_eq!(plain::one_line(5).await, 5);
    assert_eq!(plain::both().await, (4, 6));
    plain::inner::doubled::invalidate(plain::Outer(2)).await.expect("a delete");
    let text = plain::sum::key(1, 2, 3, 4, 5, 6).to_string();
    assert!(text.ends_with("key.key=1:cache=2:context=3:response=4:type=5:name=6"), "{text}");
}

/// Not asynchronous: it waits.
#[cached(cache = SQUARES)]
fn square(number: u64) -> Result<u64, LoadError> {
    CALLS_OF_SQUARE.fetch_add(1, Ordering::SeqCst);
    Ok(number * number)
}

#[cached(cache = SQUARES, name = "cubes")]
fn cube(number: u64) -> u64 {
    CALLS_OF_SQUARE.fetch_add(1, Ordering::SeqCst);
    number * number * number
}

static SQUARES: LazyLock<Cache<u64>> = LazyLock::new(cache);
static CALLS_OF_SQUARE: AtomicU64 = AtomicU64::new(0);

#[test]
fn functions_that_are_not_async_are_cached() {
    // The pool of the cache needs a runtime; the calls do not.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { LazyLock::force(&SQUARES) });
    for _ in 0..3 {
        assert_eq!((square(3).expect("a square"), cube(3)), (9, 27));
    }
    assert_eq!(CALLS_OF_SQUARE.load(Ordering::SeqCst), 2);
    square::invalidate(3).expect("a delete");
    assert_eq!(square(3).expect("a square"), 9);
    assert_eq!(CALLS_OF_SQUARE.load(Ordering::SeqCst), 3);
    assert_eq!(cube::key(3).to_string(), "cubes:0:number=3");
    // Within a runtime too.
    runtime.block_on(async { assert_eq!((square(4).expect("a square"), cube(4)), (16, 64)) });
}

#[cached(
    cache = LIVES,
    name = "news",
    ttl = std::time::Duration::from_secs(60),
    stale = std::time::Duration::from_secs(30),
    tags = ["news", format!("author:{author}")],
    skip(token)
)]
async fn news(author: u64, token: &str) -> Result<String, LoadError> {
    Ok(format!("{author} by {}", token.len()))
}

static LIVES: LazyLock<Cache<String>> = LazyLock::new(cache);

#[tokio::test]
async fn case_h09_functions_have_lives_tags_and_names() {
    assert_eq!(news(1, "secret").await.expect("news"), "1 by 6");
    assert_eq!(news(2, "secret").await.expect("news"), "2 by 6");
    assert_eq!(news::key(1).to_string(), "news:0:author=1");
    let found = LIVES.entry(news::key(1)).get().await.expect("a read");
    let (now, expires) = (std::time::SystemTime::now().into(), found.outcome.expires.expect("an end"));
    assert!((80..=90).contains(&expires.since(now).as_secs()), "fresh and stale for 90 s: {expires:?}");
    LIVES.invalidate_tags(&["author:1"]).await.expect("an invalidation");
    assert_eq!(LIVES.get(news::key(1)).await.expect("a read"), None);
    assert!(LIVES.get(news::key(2)).await.expect("a read").is_some());
    news::invalidate(2).await.expect("a delete");
    assert_eq!(LIVES.get(news::key(2)).await.expect("a read"), None);
}

#[derive(ToKey)]
enum Page {
    First,
    Number(u32),
    Between {
        from: u32,
        to: Option<u32>,
    },
    #[key(name = "at")]
    Cursor(String, #[key(skip)] ()),
}

#[test]
fn case_h08_more_types_are_keys() {
    let text = |key: &dyn ToKey| key.to_key("k").to_string();
    assert_eq!(text(&Page::First), "k:0:key=First");
    assert_eq!(text(&Page::Number(0)), "k:0:key=Number:0=0");
    assert_eq!(text(&Page::Between { from: 1, to: None }), "k:0:key=Between:from=1:to");
    assert_eq!(text(&Page::Cursor("x".to_owned(), ())), "k:0:key=at:0=x");
    assert_eq!(text(&(Page::First, 1)), "k:0:0=First:1=1");
    assert_eq!(text(&vec![1, 2]), "k:0:len=2:0=1:1=2");
    assert_eq!(text(&[1.5_f64, -0.0]), "k:0:len=2:0=1.5:1=-0.0");
    assert_ne!(text(&0.0_f32), text(&-0.0_f32));
    assert_eq!(text(&std::time::Duration::from_millis(1)), "k:0:key=1000000");
    assert_eq!(text(&(vec![1_u8, 2].as_slice(), 3)), text(&(vec![1_u8, 2], 3)));
    assert_eq!(text(&std::sync::Arc::<str>::from("a")), "k:0:key=a");
    let id = |value: Result<u8, &'static str>| hitbox::SerdeKey(value).to_key("k").into_owned();
    assert_ne!(id(Ok(1)), id(Err("1")));
    assert_eq!(id(Ok(1)), id(Ok(1)));
    // What cannot be serialized is found by nobody.
    struct Broken;
    impl serde::Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("broken"))
        }
    }
    assert_ne!(hitbox::SerdeKey(Broken).to_key("k"), hitbox::SerdeKey(Broken).to_key("k"));
}

/// A field called as a whole key is, next to what adds nothing.
#[derive(ToKey)]
struct Named {
    key: Option<u8>,
}

#[derive(ToKey)]
struct Nothing;

#[derive(ToKey)]
struct Twice {
    #[key(name = "x")]
    a: Option<()>,
    #[key(name = "x")]
    b: Option<Nothing>,
}

#[derive(ToKey)]
struct Inner {
    a: Option<()>,
}

#[cached(cache = ROWS)]
async fn beside(key: Inner, a: Option<()>) -> Result<String, LoadError> {
    Ok(format!("{:?} {a:?}", key.a))
}

#[cached(cache = ROWS, skip(add))]
async fn applied<F: Fn(u64) -> u64 + Send + Sync>(add: F, number: u64) -> Result<String, LoadError> {
    Ok(add(number).to_string())
}

#[cached(cache = ROWS, skip(table))]
async fn named(table: impl Fn() -> &'static str + Send + Sync, id: u64) -> Result<String, LoadError> {
    Ok(format!("{} {id}", table()))
}

#[tokio::test]
async fn case_b03_no_part_is_taken_for_its_neighbours() {
    assert_ne!(None::<Named>.to_key("p"), Some(Named { key: None }).to_key("p"));
    let twice = |a, b| Twice { a, b }.to_key("p").into_owned();
    assert_ne!(twice(None, Some(Nothing)), twice(Some(()), None));
    let address = |flow| {
        let address = std::net::SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, 1, flow, 0);
        std::net::SocketAddr::V6(address).to_key("p").into_owned()
    };
    assert_ne!(address(0), address(7));
    assert_ne!(beside::key(Inner { a: None }, Some(())), beside::key(Inner { a: Some(()) }, None));
    // Closures have no names of their own.
    for (first, second) in [(2, 3), (2, 3)] {
        assert_eq!(applied(|number| number + 1, 1).await.expect("a sum"), first.to_string());
        assert_eq!(applied(|number| number + 2, 1).await.expect("a sum"), second.to_string());
        assert_eq!(named(|| "user", 1).await.expect("a row"), "user 1");
        assert_eq!(named(|| "order", 1).await.expect("a row"), "order 1");
    }
}

#[test]
fn case_b03_what_serde_tells_apart_is_told_apart() {
    #[derive(serde::Serialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u64),
        Small(u8),
        Text(String),
        Nothing,
    }
    #[derive(serde::Serialize)]
    struct Skipping {
        #[serde(skip_serializing_if = "Option::is_none")]
        a: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        b: Option<u8>,
    }
    fn key(value: impl serde::Serialize + Send + Sync) -> hitbox::core::CacheKey {
        hitbox::SerdeKey(value).to_key("s").into_owned()
    }
    let untagged =
        [Untagged::Number(0), Untagged::Small(0), Untagged::Text(String::new()), Untagged::Nothing];
    let mut keys: Vec<_> = untagged.into_iter().map(key).collect();
    keys.extend([(Some(1), None), (None, Some(1)), (None, None)].map(|(a, b)| key(Skipping { a, b })));
    keys.extend([None, Some(None), Some(Some(()))].map(key));
    keys.extend([vec![], vec![vec![]], vec![vec![0_u8]], vec![vec![], vec![]]].map(key));
    keys.extend([f64::NAN, 0.0, -0.0].map(key));
    keys.extend([("ab", "c"), ("a", "bc")].map(key));
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len(), "{keys:?}");
    assert_eq!(
        key(std::collections::BTreeMap::from([((1, 2), "x")])),
        key(std::collections::BTreeMap::from([((1, 2), "x")]))
    );
}
