//! The one list of expressions: every leaf, every pair, left and right nests of three, statically typed and behind
//! `Arc<dyn Backend>` at every level; every wrapper around every leaf; a store of three methods; and compositions whose
//! parts have three wrappers each, in random order.
//!
//! `HITBOX_SEED` replays the random ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox_backend::wrap::{AdmissionRule, Wrapper};
use hitbox_backend::{Backend, CacheBackend, Compose, Wrap};
use hitbox_core::BoxFuture;
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::broken::PlainMap;
use hitbox_testkit::{
    Exception, Factory, RedisServer, Subject, World, factory, left_nest, pair, right_nest, seed,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn moka(world: World) -> BoxFuture<'static, MokaBackend> {
    Box::pin(async move { MokaBackend::builder().clock(world.shared_clock()).build().expect("moka") })
}

pub(crate) fn quick(world: World) -> BoxFuture<'static, QuickBackend> {
    Box::pin(async move { QuickBackend::builder().clock(world.shared_clock()).build().expect("quick") })
}

pub(crate) fn redis(world: World) -> BoxFuture<'static, RedisBackend> {
    Box::pin(async move {
        RedisBackend::builder(&RedisServer::shared().url())
            .prefix(&format!("suite{}:", unique()))
            .clock(world.shared_clock())
            // Checks move the clock in leaps while calls are under way.
            .deadline(std::time::Duration::from_secs(1_000_000))
            .build()
            .expect("redis")
    })
}

/// A disk backend whose folder goes with it.
pub(crate) struct TemporaryDisk {
    disk: Arc<dyn Backend>,
    folder: Arc<tempfile::TempDir>,
}

impl Wrapper for TemporaryDisk {
    type Inner = dyn Backend;

    fn inner(&self) -> &dyn Backend {
        &*self.disk
    }

    fn around(&self, disk: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self { disk, folder: self.folder.clone() })
    }
}

pub(crate) fn disk(world: World) -> BoxFuture<'static, TemporaryDisk> {
    Box::pin(async move {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let builder = DiskBackend::builder(folder.path()).clock(world.shared_clock());
        TemporaryDisk { disk: Arc::new(builder.open().await.expect("disk")), folder }
    })
}

/// A store that has the three methods that it has to have, and no more.
pub(crate) fn plain(world: World) -> BoxFuture<'static, hitbox_backend::Leaf<PlainMap>> {
    Box::pin(async move { PlainMap::leaf(world.shared_clock()) })
}

/// A wrapper that changes nothing that the checks look at, but for what its exceptions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Around {
    Deadline,
    Cap,
    Override,
    Namespace,
    Admission,
    Coalesced,
    Idle,
    /// Not for leaves that others share or that cannot list their keys, nor for compositions.
    Filter,
}

/// Checks move the clock in leaps while calls are under way.
const LONG: Duration = Duration::from_secs(1_000_000);

const CAPPED: &[Exception] = &[
    Exception { id: "value_02", why: "what never ends has an end there" },
    Exception { id: "value_04", why: "what never ends has an end there" },
    Exception {
        id: "value_06",
        why: "a copy in a layer without a cap outlives one with it, which nobody looks at then",
    },
    Exception { id: "compose_04", why: "a copy in a layer without a cap outlives one with it" },
];

const OVERRIDDEN: &[Exception] = &[
    Exception { id: "value_02", why: "nothing ends there" },
    Exception { id: "value_03", why: "nothing ends there" },
    Exception { id: "value_05", why: "nothing ends there" },
    Exception { id: "stats_01", why: "nothing becomes stale there" },
    Exception { id: "stats_05", why: "nothing expires there" },
];

const IDLE: &[Exception] = &[
    Exception { id: "value_02", why: "when an entry was read stands in its details there" },
    Exception { id: "value_04", why: "the idle time of the layer stands in the details" },
];

const PLAIN: &[Exception] =
    &[Exception { id: "presence_01", why: "a store of three methods cannot look without reading: maybe" }];

impl Around {
    const ALL: [Self; 8] = [
        Self::Deadline,
        Self::Cap,
        Self::Override,
        Self::Namespace,
        Self::Admission,
        Self::Coalesced,
        Self::Idle,
        Self::Filter,
    ];

    fn exceptions(self) -> &'static [Exception] {
        match self {
            Self::Cap => CAPPED,
            Self::Override => OVERRIDDEN,
            Self::Idle => IDLE,
            _ => &[],
        }
    }
}

/// A backend with these wrappers, the first innermost; as they are, or each behind a pointer.
pub(crate) fn stack<B: Backend>(
    backend: B,
    mut wrappers: Vec<Around>,
    is_dyn: bool,
) -> BoxFuture<'static, Arc<dyn Backend>> {
    fn next<B: Backend>(backend: B, rest: Vec<Around>, is_dyn: bool) -> BoxFuture<'static, Arc<dyn Backend>> {
        if is_dyn { stack(backend.shared(), rest, true) } else { stack(backend, rest, false) }
    }
    Box::pin(async move {
        if wrappers.is_empty() {
            return backend.shared();
        }
        match wrappers.remove(0) {
            Around::Deadline => next(backend.deadline(LONG), wrappers, is_dyn).await,
            Around::Cap => next(backend.ttl_cap(LONG), wrappers, is_dyn).await,
            Around::Override => next(backend.ttl_override(None), wrappers, is_dyn).await,
            Around::Namespace => next(backend.namespace("around"), wrappers, is_dyn).await,
            Around::Admission => next(backend.admission(AdmissionRule::Always), wrappers, is_dyn).await,
            Around::Coalesced => next(backend.coalesced(), wrappers, is_dyn).await,
            Around::Idle => next(backend.idle(LONG), wrappers, is_dyn).await,
            Around::Filter => {
                let filtered = backend.negative_filter(1_000).await.expect("a filter");
                next(filtered, wrappers, is_dyn).await
            }
        }
    })
}

/// A leaf with these wrappers.
fn stacked<B: Backend>(
    leaf: fn(World) -> BoxFuture<'static, B>,
    wrappers: Vec<Around>,
    is_dyn: bool,
) -> Factory {
    Arc::new(move |world: World| {
        let wrappers = wrappers.clone();
        Box::pin(async move { stack(leaf(world).await, wrappers, is_dyn).await })
    })
}

/// Three wrappers, more than one of a kind too. None that a nest legitimately changes what is seen with.
fn three_wrappers(random: &mut StdRng, takes_filter: bool) -> Vec<Around> {
    let mut wrappers = Vec::new();
    while wrappers.len() < 3 {
        let wrapper = Around::ALL[random.random_range(0..Around::ALL.len())];
        if wrapper != Around::Override && (takes_filter || wrapper != Around::Filter) {
            wrappers.push(wrapper);
        }
    }
    wrappers
}

/// A composition of two leaves, with three wrappers around each and around the whole.
fn random_composition(random: &mut StdRng, number: usize) -> Vec<Subject> {
    type Made = (&'static str, [Factory; 2], Vec<Around>);
    let mut leaf = || -> Made {
        macro_rules! of {
            ($leaf:ident, $takes_filter:literal) => {{
                let wrappers = three_wrappers(random, $takes_filter);
                let made = [false, true].map(|is_dyn| stacked($leaf, wrappers.clone(), is_dyn));
                (stringify!($leaf), made, wrappers)
            }};
        }
        match random.random_range(0..5) {
            0 => of!(moka, true),
            1 => of!(quick, true),
            2 => of!(redis, false),
            3 => of!(disk, true),
            _ => of!(plain, false),
        }
    };
    let ((upper, l1, above), (lower, l2, below)) = (leaf(), leaf());
    let around = three_wrappers(random, false);
    let wrappers = [&above, &below, &around].into_iter().flatten();
    let mut exceptions: Vec<Exception> =
        wrappers.flat_map(|wrapper| wrapper.exceptions().iter().copied()).collect();
    if [upper, lower].contains(&"plain") {
        exceptions.extend(PLAIN);
    }
    let exceptions: &'static [Exception] = exceptions.leak();
    let name = format!("{around:?} around {upper} in {above:?} / {lower} in {below:?}");
    eprintln!("random expression {number}: {name}");
    let of = |is_dyn: bool| {
        let at = usize::from(is_dyn);
        let layers = Subject::pair(&format!("{name}{}", if is_dyn { " dyn" } else { "" }), &l1[at], &l2[at]);
        let (l1, l2, around) = (l1[at].clone(), l2[at].clone(), around.clone());
        let whole: Factory = Arc::new(move |world: World| {
            let (l1, l2, around) = (l1.clone(), l2.clone(), around.clone());
            Box::pin(async move {
                let (l1, l2) = (l1(world.clone()).await, l2(world.clone()).await);
                let composed = l1.compose(l2, world.pool.shared()).with_label("outer");
                if is_dyn {
                    stack(composed.shared(), around, true).await
                } else {
                    stack(composed, around, false).await
                }
            })
        });
        Subject { whole, ..layers }.except(exceptions)
    };
    vec![of(false), of(true)]
}

/// Every wrapper around every leaf, and what is made of stores of three methods.
fn wrapped() -> Vec<Subject> {
    let mut subjects = Vec::new();
    macro_rules! around {
        ($leaf:ident, $takes_filter:literal, $exceptions:expr) => {
            for wrapper in
                Around::ALL.into_iter().filter(|wrapper| $takes_filter || *wrapper != Around::Filter)
            {
                let name = format!("{wrapper:?} around {}", stringify!($leaf));
                let exceptions: &'static [Exception] = [wrapper.exceptions(), $exceptions].concat().leak();
                let whole = stacked($leaf, vec![wrapper], false);
                subjects.push(Subject::wrapped(&name, whole).except(exceptions));
            }
        };
    }
    around!(moka, true, &[]);
    around!(quick, true, &[]);
    around!(redis, false, &[]);
    around!(disk, true, &[]);
    around!(plain, false, PLAIN);
    subjects.push(Subject::wrapped("plain", factory(plain)).except(PLAIN));
    for (name, l1, l2, whole) in [
        ("plain/plain", factory(plain), factory(plain), pair(plain, plain)),
        ("moka/plain", factory(moka), factory(plain), pair(moka, plain)),
        ("plain/redis", factory(plain), factory(redis), pair(plain, redis)),
    ] {
        subjects.push(Subject { whole, ..Subject::pair(name, &l1, &l2) }.except(PLAIN));
    }
    subjects
}

/// Calls a macro with every leaf.
macro_rules! leaves {
    ($then:ident $(, $arg:ident)*) => {
        $then!(moka $(, $arg)*);
        $then!(quick $(, $arg)*);
        $then!(redis $(, $arg)*);
        $then!(disk $(, $arg)*);
    };
}

/// Every expression.
pub(crate) fn subjects() -> Vec<Subject> {
    let mut leaf_factories: Vec<(&str, Factory)> = Vec::new();
    let mut subjects = Vec::new();
    macro_rules! one {
        ($a:ident) => {
            leaf_factories.push((stringify!($a), factory($a)));
        };
    }
    leaves!(one);
    for (name, made) in &leaf_factories {
        subjects.push(Subject::leaf(name, made.clone()));
    }
    // Statically typed layers.
    let mut typed: Vec<(String, Factory, Factory, Factory)> = Vec::new();
    macro_rules! two {
        ($b:ident, $a:ident) => {
            let name = format!("{}/{}", stringify!($a), stringify!($b));
            typed.push((name, factory($a), factory($b), pair($a, $b)));
            leaves!(three, $b, $a);
        };
    }
    macro_rules! three {
        ($c:ident, $b:ident, $a:ident) => {
            let (a, b, c) = (stringify!($a), stringify!($b), stringify!($c));
            typed.push((format!("({a}/{b})/{c}"), pair($a, $b), factory($c), left_nest($a, $b, $c)));
            typed.push((format!("{a}/({b}/{c})"), factory($a), pair($b, $c), right_nest($a, $b, $c)));
        };
    }
    macro_rules! first {
        ($a:ident) => {
            leaves!(two, $a);
        };
    }
    leaves!(first);
    for (name, l1, l2, whole) in typed {
        // The same behind `dyn` at every level: layers and whole come as `Arc<dyn Backend>`.
        subjects.push(Subject::pair(&format!("{name} dyn"), &l1, &l2));
        subjects.push(Subject { whole, ..Subject::pair(&name, &l1, &l2) });
    }
    subjects.extend(wrapped());
    let seed = seed();
    eprintln!("random expressions with HITBOX_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for number in 0..6 {
        subjects.extend(random_composition(&mut random, number));
    }
    subjects
}
