//! What a composition consists of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hitbox_core::{BackendLabel, CacheKey, Freshness, Offload, Subject};

use super::builder::Blueprint;
use super::policy::{ReadPolicy, WriteOrder};
use super::refill::Refill;
use super::{CompositionBackend, Layer, Pair};
use crate::backend::{Backend, Placement};
use crate::capability::Capabilities;
use crate::coherence::RefillPermit;
use crate::layout::Layout;
use crate::metrics::{Collector, Sample, Value, register_collector};
use crate::operation::{Found, LeafSet, ReadOptions, TimeChange};
use crate::stats::Event;

pub(super) struct Composition {
    /// Distinguishes the compositions of a process.
    id: u64,
    pub(super) blueprint: Blueprint,
    pub(super) path: BackendLabel,
    pub(super) layout: Layout,
    /// The layers as they stand here: with their full paths.
    pub(super) layers: Pair<Arc<dyn Backend>>,
    pub(super) sets: Pair<LeafSet>,
    pub(super) answers_at_once: Pair<bool>,
    /// Hits of L1 do not pass through the policy.
    pub(super) serves_l1_at_once: bool,
    /// The order of writes, if both layers are leaves that answer at once. A nest that has to wait has begun by itself,
    /// and must not be asked twice.
    pub(super) order_at_once: Option<WriteOrder>,
    /// More than one leaf may encode a value.
    pub(super) shares_encodings: bool,
    pub(super) offload: Arc<dyn Offload>,
    pub(super) refill: Refill,
    /// Monotonic milliseconds before which dirty keys are left alone, after an attempt that failed.
    pub(super) reconcile_from: AtomicU64,
    /// Invalidations are being recorded in the background.
    pub(super) is_recording: Arc<AtomicBool>,
}

fn capabilities(layers: &Pair<Arc<dyn Backend>>, blueprint: &Blueprint, refill: &Refill) -> Capabilities {
    let (l1, l2) = (layers.l1.layout().capabilities(), layers.l2.layout().capabilities());
    let mut joined = l1.join(*l2);
    joined.refills &= refill.is_on();
    joined.writes_conditionally = layers[blueprint.authority()].layout().capabilities().writes_conditionally;
    joined
}

impl CompositionBackend {
    /// The working form of a blueprint, at some place of a nest or by itself.
    pub(super) fn placed(blueprint: Blueprint, placement: Option<&Placement>) -> Self {
        let path = placement.map_or(blueprint.label.as_part(), |placement| placement.path(blueprint.label));
        let first = placement.map_or(0, |placement| placement.first);
        let l1 = blueprint.layers.l1.adopt(&Placement::new(path, first));
        let second = Placement::new(path, first.saturating_add(l1.layout().leaves().len() as u8));
        let mut l2 = blueprint.layers.l2.adopt(&second);
        // Two siblings never have one path.
        let same =
            |l2: &Arc<dyn Backend>| l2.layout().paths().any(|path| l1.layout().paths().any(|p| p == path));
        if same(&l2) {
            l2 = blueprint.layers.l2.adopt(&second.with_suffix("2".into()));
        }
        let layers = Pair { l1, l2 };
        let refill = Refill::new(blueprint.policy.refill);
        let facts = capabilities(&layers, &blueprint, &refill);
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let layout = Layout::join(layers.l1.layout(), layers.l2.layout(), facts, id, &blueprint.offload);
        let encoding = layout.leaves().iter().filter(|leaf| !leaf.capabilities().keeps_live_values);
        let is_pair_at_once = facts.answers_at_once && layout.leaves().len() == 2;
        let composition = Arc::new(Composition {
            id,
            path,
            sets: Pair::of(|layer| layers[layer].layout().set()),
            answers_at_once: Pair::of(|layer| layers[layer].layout().capabilities().answers_at_once),
            serves_l1_at_once: blueprint.policy.read.serves_l1_at_once(),
            order_at_once: blueprint.policy.write.order().filter(|_| is_pair_at_once),
            shares_encodings: encoding.count() > 1,
            layers,
            layout,
            offload: blueprint.offload.clone(),
            refill,
            reconcile_from: AtomicU64::new(0),
            is_recording: Arc::default(),
            blueprint,
        });
        let weak: std::sync::Weak<Composition> = Arc::downgrade(&composition);
        register_collector(weak);
        Self(composition)
    }
}

/// A copy that a layer has answered with, and that may turn out not to be served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spare {
    pub(super) label: BackendLabel,
    freshness: Freshness,
    /// The note that is due now that it has been read.
    note: Option<TimeChange>,
}

impl Composition {
    pub(super) fn spare(&self, found: &Found) -> Spare {
        let (label, freshness) = (found.label, found.freshness);
        let note = || TimeChange::of_read(&found.value, || self.layout.clock().now());
        Spare { label, freshness, note: if found.value.has_details() { note() } else { None } }
    }

    /// Background work on a key of this composition.
    pub(super) fn subject(&self, key: &CacheKey) -> Subject {
        Subject { owner: self.id, key: key.clone() }
    }

    /// Whether neither layer is a composition.
    pub(super) fn is_pair_of_leaves(&self) -> bool {
        self.layout.leaves().len() == 2
    }

    pub(super) fn read_policy(&self) -> &dyn ReadPolicy {
        &*self.blueprint.policy.read
    }

    /// A leaf answered with a copy that is not served: another layer's is, and that alone is a hit. It has been read all the
    /// same, which begins an idle time anew.
    pub(super) fn not_served(&self, key: &CacheKey, spare: Spare, options: &ReadOptions) {
        if options.background {
            return;
        }
        let hit = if spare.freshness == Freshness::Fresh { Event::Hit } else { Event::Stale };
        if let Some(leaf) = self.layout.leaves().iter().find(|leaf| leaf.path() == spare.label) {
            leaf.handle().take_back(hit);
            leaf.handle().count(Event::Unserved, 1);
        }
        if let Some(change) = spare.note {
            self.layout.note_read_later(key, change);
        }
    }

    /// The right to fill L1, if it is to be filled at all.
    pub(super) fn refill_permit(&self, key: &CacheKey) -> Option<RefillPermit> {
        self.refill.is_on().then(|| self.layers[Layer::L1].layout().refill_permit(key, LeafSet::EMPTY))
    }
}

impl Collector for Composition {
    fn collect(&self, add: &mut dyn FnMut(Sample)) {
        use std::sync::atomic::Ordering::Relaxed;
        let counts = [&self.refill.registered, &self.refill.refused, &self.refill.failed];
        // What is a part of another composition is shown under its whole path, as its leaves are.
        let is_part = || self.layout.leaves().iter().all(|leaf| leaf.handle().is_placed());
        if !self.refill.is_on() || counts.iter().all(|count| count.load(Relaxed) == 0) && is_part() {
            return;
        }
        for (name, count) in [
            ("hitbox_refill_registered_total", &self.refill.registered),
            ("hitbox_refill_refused_total", &self.refill.refused),
            ("hitbox_refill_failed_total", &self.refill.failed),
        ] {
            let labels = [("backend", self.path.as_str()), ("", "")];
            add(Sample { name, labels, value: Value::Counter(count.load(Relaxed)) });
        }
    }
}
