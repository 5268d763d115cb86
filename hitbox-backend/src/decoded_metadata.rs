//! What was decoded of the metadata of bodies lately.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hitbox_core::CacheKey;

use crate::Body;
use crate::layout::Layout;

/// The most entries that are remembered. A key has one place, and shares it with others.
const PLACES: usize = 1024;
/// The most bytes that may be remembered of one entry: 16 MiB of all, beside the bytes that they were decoded from.
const MOST_BYTES: usize = 16 * 1024;
/// What a field takes in a map of fields beside its bytes, about.
const FIELD: usize = 128;

/// A table of what was decoded lately of the metadata of entries in memory, with the bytes that it was decoded from: `N` metadata of each
/// entry. An entry in memory has the same bytes at each hit, so each hit but the first finds it decoded. The table is held beside the bound of
/// memory. That is why it is small.
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
        // The known bytes are held, so no others can have their address.
        let is_same = |(known, stored): (&Bytes, &Bytes)| {
            (known.as_ptr(), known.len()) == (stored.as_ptr(), stored.len())
        };
        known.iter().zip(stored).all(is_same).then(|| decoded.clone())
    }

    /// Whether to remember what is decoded to so many bytes of text and fields: it is small, and of a body in memory. An entry that is not in
    /// memory has other bytes at each hit.
    pub fn takes(&self, body: &Body, layout: &Layout, text: usize, fields: usize) -> bool {
        text + FIELD * fields <= MOST_BYTES && is_in_memory(body, layout)
    }

    /// Remembers what was decoded of these bytes of this key, instead of what was in its place.
    pub fn remember(&self, key: &CacheKey, stored: [&Bytes; N], decoded: Arc<T>) {
        let new = Some((stored.map(Bytes::clone), decoded));
        let mut place = self.place(key).lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = std::mem::replace(&mut *place, new);
        drop(place);
        drop(replaced);
    }
}

fn is_in_memory(body: &Body, layout: &Layout) -> bool {
    let mut leaves = layout.leaves().iter();
    leaves.any(|leaf| leaf.capabilities().keeps_live_values && leaf.path() == body.label())
}
