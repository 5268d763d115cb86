//! The body to read of a composition: that of the layer whose copy the policy of reads chooses. It is chosen when it is opened. If that
//! layer fails in the middle, what is missing is read from the other, if it has the same body.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_core::{Accept, BackendError, BackendResult, BoxFuture, CacheKey, ReadMode};

use super::attempts::{Asked, ReadAttempts};
use super::read::Detachment;
use super::state::Composition;
use super::{Layer, Pair, winner};
use crate::backend::Backend;
use crate::completion::{Batch, Completion};
use crate::envelope::{Chunks, Raw};
use crate::operation::{Answer, Found, ReadOptions};
use crate::stream::{BodyReader, ReaderWrapper};

type Reader = Box<dyn BodyReader>;

impl Composition {
    pub(super) async fn open_by_policy(
        self: &Arc<Self>,
        key: &CacheKey,
        options: &ReadOptions,
    ) -> BackendResult<Option<Reader>> {
        let options = self.for_layers(key, options);
        let permit = self.refill_permit(key);
        let run = OpenRun {
            composition: self,
            key,
            options: &options,
            opened: Arc::default(),
            detached: Pair::default(),
        };
        let answers = self.read_policy().read(&run, &*self.offload).await;
        for (answer, detached) in [(&answers.l1, &run.detached.l1), (&answers.l2, &run.detached.l2)] {
            if let (None, Some(detached)) = (answer, detached.get()) {
                detached.left_behind(self, key, &options);
            }
        }
        let l1_is_empty = matches!(answers.l1, Some(Ok(None)));
        let l1_is_open = l1_is_empty || answers.l1.is_none();
        let not_served = |found: &Found| self.not_served(key, self.spare(found), &options);
        let Some((layer, found)) = winner::choose(answers, &self.blueprint.required, not_served)? else {
            self.layout.count_unanswered(&options);
            return Ok(None);
        };
        if let (Layer::L2, true, Some(permit)) = (layer, l1_is_open, permit) {
            self.refill_body(key, found.freshness, permit, l1_is_empty).await;
        }
        let opened = run.opened[layer].lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(opened.map(|reader| {
            let (composition, key) = (self.clone(), key.clone());
            Box::new(LayerReader { composition, key, layer, reader, at: 0..u64::MAX, has_moved: false })
                as Reader
        }))
    }
}

/// Opens the body of a layer, and tells the policy what there is.
async fn open(
    composition: &Composition,
    layer: Layer,
    key: &CacheKey,
    options: &ReadOptions,
    opened: &Pair<Mutex<Option<Reader>>>,
) -> Answer {
    let layout = composition.layers[layer].layout();
    let Some(reader) = composition.layers[layer].open_reader(key, options).await? else { return Ok(None) };
    let (label, freshness) = (reader.label(), reader.freshness());
    let leaf = layout.leaves().iter().find(|leaf| leaf.path() == label).map(|leaf| leaf.position());
    let value = reader.entry().clone().map(|()| Raw::chunks(Chunks::default(), 0));
    *opened[layer].lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    Ok(leaf.map(|leaf| Found { value, freshness, label, leaf, mode: ReadMode::Direct }))
}

/// The attempts of an opening.
struct OpenRun<'a> {
    composition: &'a Arc<Composition>,
    key: &'a CacheKey,
    options: &'a ReadOptions,
    opened: Arc<Pair<Mutex<Option<Reader>>>>,
    detached: Pair<OnceLock<Arc<Detachment>>>,
}

impl ReadAttempts for OpenRun<'_> {
    fn ask(&self, layer: Layer) -> Asked<'_> {
        let Self { composition, key, options, opened, .. } = self;
        let ask = async move { Batch::one(open(composition, layer, key, options, opened).await) };
        Asked::new(Completion::later(ask))
    }

    fn detach(&self, layer: Layer) -> BoxFuture<'static, Answer> {
        let (composition, key, options) = (self.composition.clone(), self.key.clone(), self.options.clone());
        let (opened, detached) =
            (self.opened.clone(), self.detached[layer].get_or_init(Arc::default).clone());
        Box::pin(async move {
            let answer = open(&composition, layer, &key, &options, &opened).await;
            detached.ended(&composition, &key, &options, &answer);
            answer
        })
    }
}

/// The body of one layer, and that of the other where this one fails.
struct LayerReader {
    composition: Arc<Composition>,
    key: CacheKey,
    layer: Layer,
    reader: Reader,
    /// What is left to be handed out; the end is clamped to the length.
    at: Range<u64>,
    has_moved: bool,
}

impl LayerReader {
    /// Goes on in the other layer, if that has the same body.
    ///
    /// # Errors
    /// That of the layer that failed.
    async fn move_on(&mut self, failed: BackendError) -> BackendResult<Option<Bytes>> {
        let other = self.layer.other();
        if self.has_moved {
            return Err(failed);
        }
        // Its time may be over by now, which is nothing to who has opened it before.
        let options = ReadOptions::NORMAL.accepting(Accept::Expired).without_reconcile().in_background();
        let opened = self.composition.layers[other].open_reader(&self.key, &options).await;
        let is_same = |reader: &Reader| reader.generation() == self.reader.generation();
        let Some(mut reader) = opened.ok().flatten().filter(is_same) else {
            self.has_moved = true;
            return Err(failed);
        };
        let read = match reader.seek(self.at.clone()) {
            Ok(()) => reader.chunk().await,
            Err(error) => Err(error),
        };
        self.has_moved = true;
        match read {
            Ok(chunk) => {
                tracing::debug!(from = %self.reader.label(), to = %reader.label(), error = %failed, "a body is read on from another layer");
                (self.layer, self.reader) = (other, reader);
                Ok(chunk)
            }
            Err(_) => Err(failed),
        }
    }
}

#[async_trait]
impl ReaderWrapper for LayerReader {
    fn reader(&self) -> &dyn BodyReader {
        &*self.reader
    }

    fn reader_mut(&mut self) -> &mut dyn BodyReader {
        &mut *self.reader
    }

    fn seek(&mut self, range: Range<u64>) -> BackendResult<()> {
        self.reader.seek(range.clone())?;
        self.at = range;
        Ok(())
    }

    async fn chunk(&mut self) -> BackendResult<Option<Bytes>> {
        let chunk = match self.reader.chunk().await {
            Ok(chunk) => chunk,
            Err(failed) => self.move_on(failed).await?,
        };
        self.at.start += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Ok(chunk)
    }
}
