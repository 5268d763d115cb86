//! What was decoded of the metadata of bodies lately.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hitbox_core::CacheKey;

use crate::Body;
use crate::layout::Layout;

/// Entries of which it is remembered, at most: a key has one place.
const PLACES: usize = 1024;
/// Bytes of metadata of an entry of which it is remembered, at most.
const MOST_BYTES: usize = 4096;

/// What was last decoded of `N` metadata of an entry, in each place, with the bytes that it was decoded from. What is in memory has the same
/// bytes each time, and is decoded once. What is remembered is held beside the bound of memory, and is little: hence the limits.
pub struct DecodedMetadata<T, const N: usize>(Box<[Mutex<Place<T, N>>]>);

type Place<T, const N: usize> = Option<([Bytes; N], Arc<T>)>;

impl<T, const N: usize> std::fmt::Debug for DecodedMetadata<T, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodedMetadata").finish_non_exhaustive()
    }
}

impl<T, const N: usize> Default for DecodedMetadata<T, N> {
    fn default() -> Self {
        Self((0..PLACES).map(|_| Mutex::new(None)).collect())
    }
}

impl<T, const N: usize> DecodedMetadata<T, N> {
    fn place(&self, key: &CacheKey) -> &Mutex<Place<T, N>> {
        &self.0[key.process_hash() as usize % PLACES]
    }

    /// What was decoded of these bytes of this key.
    #[inline]
    pub fn of(&self, key: &CacheKey, stored: [&Bytes; N]) -> Option<Arc<T>> {
        let place = self.place(key).lock().unwrap_or_else(PoisonError::into_inner);
        let (known, decoded) = place.as_ref()?;
        // They are held, so that nothing else can be where they are.
        let is_same = |(known, stored): (&Bytes, &Bytes)| {
            (known.as_ptr(), known.len()) == (stored.as_ptr(), stored.len())
        };
        known.iter().zip(stored).all(is_same).then(|| decoded.clone())
    }

    /// Remembers it, if it is of a body that is read from memory. What is not has other bytes each time.
    pub fn remember(
        &self,
        key: &CacheKey,
        body: &Body,
        layout: &Layout,
        stored: [&Bytes; N],
        decoded: &Arc<T>,
    ) {
        if stored.iter().map(|bytes| bytes.len()).sum::<usize>() <= MOST_BYTES && is_in_memory(body, layout) {
            let new = Some((stored.map(Bytes::clone), decoded.clone()));
            let replaced =
                std::mem::replace(&mut *self.place(key).lock().unwrap_or_else(PoisonError::into_inner), new);
            drop(replaced);
        }
    }
}

fn is_in_memory(body: &Body, layout: &Layout) -> bool {
    let mut leaves = layout.leaves().iter();
    leaves.any(|leaf| leaf.capabilities().keeps_live_values && leaf.path() == body.label())
}
