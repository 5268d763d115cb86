//! Building compositions: `l1.compose(l2, offload)` and setters.

use std::sync::Arc;

use hitbox_core::{BackendLabel, Offload};

use super::policy::{OptimisticParallelWritePolicy, ReadPolicy, SequentialReadPolicy, WritePolicy};
use super::{CompositionBackend, Layer, Pair, RefillPolicy, Requirement};
use crate::backend::Backend;
use crate::into::IntoBackend;
use crate::offload::OffloadPool;

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

/// Puts one backend or store over another.
pub trait Compose<Kind>: IntoBackend<Kind> {
    /// A composition with this backend as L1 and `l2` below it, and default policies.
    fn compose<Lower>(self, l2: impl IntoBackend<Lower>, offload: Arc<dyn Offload>) -> CompositionBackend {
        CompositionBackend::new(self, l2, offload)
    }

    /// The same with a pool of its own for background work, which has default limits.
    fn over<Lower>(self, l2: impl IntoBackend<Lower>) -> CompositionBackend {
        self.compose(l2, OffloadPool::new().shared())
    }

    /// The same as [`compose`](Self::compose) with these policies.
    fn compose_with<Lower>(
        self,
        l2: impl IntoBackend<Lower>,
        offload: Arc<dyn Offload>,
        policy: &CompositionPolicy,
    ) -> CompositionBackend {
        CompositionBackend::new(self, l2, offload).with_policy(policy)
    }
}

impl<Kind, B: IntoBackend<Kind>> Compose<Kind> for B {}

/// What a composition is made from, again for each place in a nest.
#[derive(Clone)]
pub(super) struct Blueprint {
    pub(super) layers: Pair<Arc<dyn Backend>>,
    pub(super) offload: Arc<dyn Offload>,
    pub(super) label: BackendLabel,
    pub(super) policy: CompositionPolicy,
    pub(super) required: Pair<Requirement>,
    /// Decides conditional writes, if somebody has said who does.
    pub(super) authority: Option<Layer>,
}

impl Blueprint {
    /// The layer that decides conditional writes: a shared one before one that other processes do not see.
    pub(super) fn authority(&self) -> Layer {
        self.authority.unwrap_or_else(|| {
            let is_shared = |layer: &Arc<dyn Backend>| layer.layout().capabilities().shared;
            let Pair { l1, l2 } = &self.layers;
            if is_shared(l1) && !is_shared(l2) { Layer::L1 } else { Layer::L2 }
        })
    }
}

impl CompositionBackend {
    /// A composition with default policies: sequential reads, optimistic parallel writes, no refill.
    /// Background work goes through `offload`.
    pub fn new<Upper, Lower>(
        l1: impl IntoBackend<Upper>,
        l2: impl IntoBackend<Lower>,
        offload: Arc<dyn Offload>,
    ) -> Self {
        let blueprint = Blueprint {
            layers: Pair { l1: l1.into_shared(), l2: l2.into_shared() },
            offload,
            label: "composition".into(),
            policy: CompositionPolicy::new(),
            required: Pair::default(),
            authority: None,
        };
        Self::placed(blueprint, None)
    }

    /// The same under another label, the part of its leaves' paths that names this composition. Default `composition`.
    #[must_use]
    pub fn with_label(self, label: impl Into<BackendLabel>) -> Self {
        self.rebuild(|blueprint| blueprint.label = label.into())
    }

    /// The same with other policies. Default: those of [`CompositionPolicy::new`].
    #[must_use]
    pub fn with_policy(self, policy: &CompositionPolicy) -> Self {
        self.rebuild(|blueprint| blueprint.policy = policy.clone())
    }

    /// The same with another read policy. Default: [`SequentialReadPolicy`].
    #[must_use]
    pub fn with_read(self, policy: impl ReadPolicy) -> Self {
        self.rebuild(|blueprint| blueprint.policy.read = Arc::new(policy))
    }

    /// The same with another write policy. Default: [`OptimisticParallelWritePolicy`].
    #[must_use]
    pub fn with_write(self, policy: impl WritePolicy) -> Self {
        self.rebuild(|blueprint| blueprint.policy.write = Arc::new(policy))
    }

    /// The same with another refill policy. Default: nothing is refilled.
    #[must_use]
    pub fn with_refill(self, policy: RefillPolicy) -> Self {
        self.rebuild(|blueprint| blueprint.policy.refill = policy)
    }

    /// The same with another meaning of a layer's failure. Default: as the policies say.
    #[must_use]
    pub fn with_requirement(self, layer: Layer, requirement: Requirement) -> Self {
        self.rebuild(|blueprint| blueprint.required[layer] = requirement)
    }

    /// The same with another layer that decides writes that depend on the stored version. By default that is L2, or L1 if
    /// that is shared with other processes and L2 is not.
    #[must_use]
    pub fn with_authority(self, layer: Layer) -> Self {
        self.rebuild(|blueprint| blueprint.authority = Some(layer))
    }

    fn rebuild(self, change: impl FnOnce(&mut Blueprint)) -> Self {
        let mut blueprint = self.0.blueprint.clone();
        change(&mut blueprint);
        Self::placed(blueprint, None)
    }
}
