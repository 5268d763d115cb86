//! What a check is run against: an expression, made anew for each check, and the way to compose its layers.

use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::policy::Pair;
use hitbox_backend::{
    Backend, CompositionBackend, CompositionPolicy, IntoBackend, Layer, OffloadPool, RefillPolicy,
    Requirement,
};
use hitbox_core::{BoxFuture, Clock, ManualClock};

/// The clock and the offload of one check.
#[derive(Clone, Debug)]
pub struct World {
    /// Moves when the check says so.
    pub clock: ManualClock,
    /// Runs background work.
    pub pool: OffloadPool,
}

impl World {
    /// A new clock and pool, on the current tokio runtime.
    pub fn new() -> Self {
        Self { clock: ManualClock::new(), pool: OffloadPool::builder().timeout(None).build() }
    }

    /// The clock as backends take it.
    pub fn shared_clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    /// Moves the clock.
    pub fn advance_millis(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a backend with an empty store.
pub type Factory = Arc<dyn Fn(World) -> BoxFuture<'static, Arc<dyn Backend>> + Send + Sync>;

/// A factory from an asynchronous function that makes a backend or a store.
pub fn factory<F, B, Kind>(make: impl Fn(World) -> F + Send + Sync + 'static) -> Factory
where
    F: Future<Output = B> + Send + 'static,
    B: IntoBackend<Kind>,
{
    Arc::new(move |world| {
        let made = make(world);
        Box::pin(async move { made.await.into_shared() })
    })
}

/// How two layers are put together.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The composition's label.
    pub label: &'static str,
    /// Its policies.
    pub policy: CompositionPolicy,
    /// What a layer's failure means.
    pub required: Pair<Requirement>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { label: "outer", policy: CompositionPolicy::new(), required: Pair::default() }
    }
}

impl Setup {
    /// Default policies with this refill.
    pub fn refill(refill: RefillPolicy) -> Self {
        Self { policy: CompositionPolicy::new().refill(refill), ..Self::default() }
    }
}

/// Composes two layers: rightly, or in a broken way that checks must reject.
pub type Composer =
    Arc<dyn Fn(Arc<dyn Backend>, Arc<dyn Backend>, &World, Setup) -> Arc<dyn Backend> + Send + Sync>;

/// What a check is run against.
#[derive(Clone)]
pub struct Subject {
    /// Its name in reports, such as `moka/(redis/disk) boxed`.
    pub name: String,
    /// The whole expression.
    pub whole: Factory,
    /// Its layers, if it is a composition.
    pub layers: Option<(Factory, Factory)>,
    /// How layers are composed.
    pub composer: Composer,
    /// Bytes of the largest value that is taken through it.
    pub largest: usize,
    /// Checks that say what it does otherwise by design.
    pub exceptions: &'static [Exception],
}

/// A check that does not hold for a subject, by design.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// The id of the check.
    pub id: &'static str,
    /// What the subject does instead.
    pub why: &'static str,
}

/// Bytes of the largest value that leaves carry, and of the one that others do.
const LARGEST: usize = 100 << 20;
const LARGE: usize = 1 << 20;

impl Subject {
    /// A leaf.
    pub fn leaf(name: &str, whole: Factory) -> Self {
        let (composer, largest) = (right_composer(), LARGEST);
        Self { name: name.to_owned(), whole, layers: None, composer, largest, exceptions: &[] }
    }

    /// A wrapper around leaves, or whatever else has no layers of its own.
    pub fn wrapped(name: &str, whole: Factory) -> Self {
        Self { largest: LARGE, ..Self::leaf(name, whole) }
    }

    /// The same but for these checks.
    #[must_use]
    pub fn except(self, exceptions: &'static [Exception]) -> Self {
        Self { exceptions, ..self }
    }

    /// Whether a check holds for it.
    pub fn is_held_to(&self, id: &str) -> bool {
        self.exceptions.iter().all(|exception| exception.id != id)
    }

    /// Two factories composed. The expression has the label `outer`.
    pub fn pair(name: &str, l1: &Factory, l2: &Factory) -> Self {
        Self::composed_by(name, l1, l2, right_composer())
    }

    /// Two factories composed in another way.
    pub fn composed_by(name: &str, l1: &Factory, l2: &Factory, composer: Composer) -> Self {
        let whole = {
            let (l1, l2, composer) = (l1.clone(), l2.clone(), composer.clone());
            Arc::new(move |world: World| {
                let (l1, l2, composer) = (l1(world.clone()), l2(world.clone()), composer.clone());
                Box::pin(async move { composer(l1.await, l2.await, &world, Setup::default()) })
                    as BoxFuture<'static, Arc<dyn Backend>>
            })
        };
        let layers = Some((l1.clone(), l2.clone()));
        Self { name: name.to_owned(), whole, layers, composer, largest: LARGE, exceptions: &[] }
    }

    /// Composes two backends as this subject does.
    pub fn compose<Upper, Lower>(
        &self,
        l1: impl IntoBackend<Upper>,
        l2: impl IntoBackend<Lower>,
        world: &World,
        setup: Setup,
    ) -> Arc<dyn Backend> {
        (self.composer)(l1.into_shared(), l2.into_shared(), world, setup)
    }

    /// New layers.
    pub async fn make_layers(&self, world: &World) -> Option<(Arc<dyn Backend>, Arc<dyn Backend>)> {
        let (l1, l2) = self.layers.as_ref()?;
        Some((l1(world.clone()).await, l2(world.clone()).await))
    }
}

/// Several subjects: what `suite_tests!` takes.
#[derive(Clone)]
pub struct Subjects(pub Vec<Subject>);

impl From<Vec<Subject>> for Subjects {
    fn from(subjects: Vec<Subject>) -> Self {
        Self(subjects)
    }
}

impl From<Subject> for Subjects {
    fn from(subject: Subject) -> Self {
        Self(vec![subject])
    }
}

/// What a leaf is checked in: alone, over itself, over and below memory.
impl From<Factory> for Subjects {
    fn from(leaf: Factory) -> Self {
        let memory = factory(|world: World| async move { crate::MemoryBackend::new(world.shared_clock()) });
        Self(vec![
            Subject::leaf("it", leaf.clone()),
            Subject::pair("it over itself", &leaf, &leaf),
            Subject::pair("memory over it", &memory, &leaf),
            Subject::pair("it over memory", &leaf, &memory),
        ])
    }
}

fn right_composer() -> Composer {
    Arc::new(|l1, l2, world, setup| {
        let Setup { label, policy, required } = setup;
        let composed = CompositionBackend::new(l1, l2, world.pool.shared())
            .with_label(label)
            .with_policy(&policy)
            .with_requirement(Layer::L1, required.l1)
            .with_requirement(Layer::L2, required.l2);
        Arc::new(composed)
    })
}

/// A composition of statically typed layers, from functions that make them.
pub fn pair<A: Backend, B: Backend>(
    l1: fn(World) -> BoxFuture<'static, A>,
    l2: fn(World) -> BoxFuture<'static, B>,
) -> Factory {
    factory(move |world: World| async move {
        let pool = world.pool.shared();
        CompositionBackend::new(l1(world.clone()).await, l2(world).await, pool).with_label("outer")
    })
}

/// `(a / b) / c`, statically typed.
pub fn left_nest<A: Backend, B: Backend, C: Backend>(
    a: fn(World) -> BoxFuture<'static, A>,
    b: fn(World) -> BoxFuture<'static, B>,
    c: fn(World) -> BoxFuture<'static, C>,
) -> Factory {
    factory(move |world: World| async move {
        let pool = world.pool.shared();
        let inner = CompositionBackend::new(a(world.clone()).await, b(world.clone()).await, pool.clone());
        CompositionBackend::new(inner.with_label("inner"), c(world).await, pool).with_label("outer")
    })
}

/// `a / (b / c)`, statically typed.
pub fn right_nest<A: Backend, B: Backend, C: Backend>(
    a: fn(World) -> BoxFuture<'static, A>,
    b: fn(World) -> BoxFuture<'static, B>,
    c: fn(World) -> BoxFuture<'static, C>,
) -> Factory {
    factory(move |world: World| async move {
        let pool = world.pool.shared();
        let inner = CompositionBackend::new(b(world.clone()).await, c(world.clone()).await, pool.clone());
        CompositionBackend::new(a(world).await, inner.with_label("inner"), pool).with_label("outer")
    })
}
