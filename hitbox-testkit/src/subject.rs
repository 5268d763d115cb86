//! What a check is run against: an expression, made anew for each check, and the way to compose its layers.

use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::{
    Backend, CompositionBackend, CompositionPolicy, Layer, OffloadPool, Pair, RefillPolicy, Requirement,
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

/// A factory from an asynchronous function.
pub fn factory<F, B>(make: impl Fn(World) -> F + Send + Sync + 'static) -> Factory
where
    F: Future<Output = B> + Send + 'static,
    B: Backend,
{
    Arc::new(move |world| {
        let made = make(world);
        Box::pin(async move { Arc::new(made.await) as Arc<dyn Backend> })
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
}

impl Subject {
    /// A leaf.
    pub fn leaf(name: &str, whole: Factory) -> Self {
        Self { name: name.to_owned(), whole, layers: None, composer: right_composer() }
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
        Self { name: name.to_owned(), whole, layers: Some((l1.clone(), l2.clone())), composer }
    }

    /// Composes two backends as this subject does.
    pub fn compose(
        &self,
        l1: impl Backend,
        l2: impl Backend,
        world: &World,
        setup: Setup,
    ) -> Arc<dyn Backend> {
        (self.composer)(Arc::new(l1), Arc::new(l2), world, setup)
    }

    /// New layers.
    pub async fn make_layers(&self, world: &World) -> Option<(Arc<dyn Backend>, Arc<dyn Backend>)> {
        let (l1, l2) = self.layers.as_ref()?;
        Some((l1(world.clone()).await, l2(world.clone()).await))
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
