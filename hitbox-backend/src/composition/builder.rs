//! Building compositions: `l1.compose(l2, offload)` and setters.

use std::sync::Arc;

use hitbox_core::{BackendLabel, Offload};

use super::policy::{OptimisticParallelWritePolicy, ReadPolicy, SequentialReadPolicy, WritePolicy};
use super::{CompositionBackend, Layer, Pair, RefillPolicy, Requirement};
use crate::backend::Backend;

/// How a composition reads, writes and refills. One policy can be given to many compositions.
///
/// ```
/// use hitbox_backend::{CompositionPolicy, RaceReadPolicy, RefillPolicy};
/// let policy = CompositionPolicy::new().read(RaceReadPolicy::default()).refill(RefillPolicy::Always);
/// ```
#[derive(Clone, Debug)]
pub struct CompositionPolicy {
    pub(super) read: Arc<dyn ReadPolicy>,
    pub(super) write: Arc<dyn WritePolicy>,
    pub(super) refill: RefillPolicy,
}

impl Default for CompositionPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl CompositionPolicy {
    /// Sequential reads, optimistic parallel writes, no refill.
    pub fn new() -> Self {
        Self {
            read: Arc::new(SequentialReadPolicy),
            write: Arc::new(OptimisticParallelWritePolicy),
            refill: RefillPolicy::Never,
        }
    }

    /// The same with another read policy.
    #[must_use]
    pub fn read(mut self, policy: impl ReadPolicy) -> Self {
        self.read = Arc::new(policy);
        self
    }

    /// The same with another write policy.
    #[must_use]
    pub fn write(mut self, policy: impl WritePolicy) -> Self {
        self.write = Arc::new(policy);
        self
    }

    /// The same with another refill policy.
    #[must_use]
    pub fn refill(mut self, policy: RefillPolicy) -> Self {
        self.refill = policy;
        self
    }
}

/// Puts one backend over another.
pub trait Compose: Backend + Sized {
    /// A composition with this backend as L1 and `l2` below it, and default policies.
    fn compose(self, l2: impl Backend, offload: Arc<dyn Offload>) -> CompositionBackend {
        CompositionBackend::new(self, l2, offload)
    }

    /// The same with these policies.
    fn compose_with(
        self,
        l2: impl Backend,
        offload: Arc<dyn Offload>,
        policy: &CompositionPolicy,
    ) -> CompositionBackend {
        CompositionBackend::new(self, l2, offload).with_policy(policy)
    }
}

impl<B: Backend> Compose for B {}

/// What a composition is made of; its working form is made from this, again for each place in a nest.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) layers: Pair<Arc<dyn Backend>>,
    pub(super) offload: Arc<dyn Offload>,
    pub(super) label: BackendLabel,
    pub(super) policy: CompositionPolicy,
    pub(super) required: Pair<Requirement>,
    /// Decides conditional writes.
    pub(super) authority: Layer,
}

impl CompositionBackend {
    /// A composition with default policies: sequential reads, optimistic parallel writes, no refill.
    /// Background work goes through `offload`.
    pub fn new(l1: impl Backend, l2: impl Backend, offload: Arc<dyn Offload>) -> Self {
        Self::of_plan(Plan {
            layers: Pair { l1: Arc::new(l1), l2: Arc::new(l2) },
            offload,
            label: "composition".into(),
            policy: CompositionPolicy::new(),
            required: Pair::default(),
            authority: Layer::L2,
        })
    }

    /// The same under another label, the part of its leaves' paths that names this composition.
    #[must_use]
    pub fn with_label(self, label: impl Into<BackendLabel>) -> Self {
        self.replan(|plan| plan.label = label.into())
    }

    /// The same with other policies.
    #[must_use]
    pub fn with_policy(self, policy: &CompositionPolicy) -> Self {
        self.replan(|plan| plan.policy = policy.clone())
    }

    /// The same with another read policy.
    #[must_use]
    pub fn with_read(self, policy: impl ReadPolicy) -> Self {
        self.replan(|plan| plan.policy.read = Arc::new(policy))
    }

    /// The same with another write policy.
    #[must_use]
    pub fn with_write(self, policy: impl WritePolicy) -> Self {
        self.replan(|plan| plan.policy.write = Arc::new(policy))
    }

    /// The same with another refill policy.
    #[must_use]
    pub fn with_refill(self, policy: RefillPolicy) -> Self {
        self.replan(|plan| plan.policy.refill = policy)
    }

    /// The same with another meaning of a layer's failure.
    #[must_use]
    pub fn with_requirement(self, layer: Layer, requirement: Requirement) -> Self {
        self.replan(|plan| plan.required[layer] = requirement)
    }

    /// The same with another layer that decides writes that depend on the stored version; L2 by default.
    #[must_use]
    pub fn with_authority(self, layer: Layer) -> Self {
        self.replan(|plan| plan.authority = layer)
    }

    fn replan(self, change: impl FnOnce(&mut Plan)) -> Self {
        let mut plan = self.plan().clone();
        change(&mut plan);
        Self::of_plan(plan)
    }
}
