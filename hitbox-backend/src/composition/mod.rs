//! Two backends as one. What is cut apart: the two layers ([`Layer`], [`Pair`]), what a policy may see of them
//! ([`attempts`]), the order in which they are asked ([`policy`]), which copy wins ([`winner`]), and how
//! the upper is filled from the lower ([`refill`]).

pub(crate) mod attempts;
mod builder;
mod dirty;
mod finish;
mod layer;
mod open_body;
pub mod policy;
mod read;
mod receipts;
mod refill;
mod remove;
mod state;
mod tee;
mod whole;
mod winner;
mod write;

use std::fmt;
use std::sync::Arc;

use hitbox_core::{BackendResult, CacheKey, CacheValue};

pub use attempts::{Asked, LayerAnswers, ReadAttempts, TryAnswer, TryAttempts, WriteAttempts, Written};
pub use builder::{Compose, CompositionPolicy};
pub use layer::{Layer, Pair, Requirement};
pub use refill::RefillPolicy;

use crate::backend::{Backend, Placement};
use crate::completion::{Batch, Completion};
use crate::layout::Layout;
use crate::operation::{
    Answers, Invalidation, Maintained, Maintenance, Presence, ReadOptions, Removal, TryRead, Write,
    WriteOptions,
};
use crate::receipt::{Receipt, Receipts};
use crate::stream::{BodyReader, BodyWriter};
use state::Composition;

/// L1 over L2. Cloning shares everything.
#[derive(Clone)]
pub struct CompositionBackend(Arc<Composition>);

impl fmt::Debug for CompositionBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Composition { layout, blueprint, .. } = &*self.0;
        f.debug_struct("CompositionBackend")
            .field("leaves", layout)
            .field("policy", &blueprint.policy)
            .finish()
    }
}

impl Backend for CompositionBackend {
    fn layout(&self) -> &Layout {
        &self.0.layout
    }

    #[inline]
    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        self.0.read_now(key, options)
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        match keys {
            [key] => Completion::later(async move { Batch::one(self.0.read_one(key, options).await) }),
            keys => Completion::later(self.0.read_several(keys, options)),
        }
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        self.0.write_entries(writes)
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        self.0.remove_entries(removals)
    }

    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>> {
        Completion::later(self.0.look(key))
    }

    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt> {
        Completion::later(self.0.in_both_layers(invalidation, |layer, what| layer.invalidate(what)))
    }

    fn observe<'a>(&'a self, change: &'a Invalidation) -> Completion<'a, Receipt> {
        Completion::later(self.0.in_both_layers(change, |layer, what| layer.observe(what)))
    }

    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>> {
        Completion::later(self.0.maintain(work))
    }

    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        Completion::later(self.0.open_by_policy(key, options))
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        Completion::later(self.0.open_tee(key, entry, options))
    }

    fn adopt(&self, placement: &Placement) -> Arc<dyn Backend> {
        self.layout().leaves().iter().for_each(|leaf| leaf.handle().stands_elsewhere());
        Arc::new(Self::placed(self.0.blueprint.clone(), Some(placement)))
    }
}
