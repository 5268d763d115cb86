//! An entry on its way into a store: its size is checked, and it is encoded unless the store keeps live values.

use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue};

use super::{Leaf, LeafHandle};
use crate::envelope::attributes;
use crate::envelope::wire;
use crate::envelope::{Encodings, Raw};
use crate::receipt::{LeafOutcome, Receipt};
use crate::stats::Event;
use crate::store::Store;

/// Bytes that a store is given.
pub(super) fn bytes_of(value: &CacheValue<Raw>) -> u64 {
    value.data().as_encoded().map_or(0, |encoded| encoded.bytes.len() as u64)
}

impl LeafHandle {
    /// The entry is over already: there is nothing to store.
    pub(super) fn is_gone<T>(&self, value: &CacheValue<T>) -> bool {
        value.drop_at().is_some_and(|end| end <= self.clock().now())
    }

    pub(super) fn refuse(&self, error: BackendError) -> Receipt {
        Receipt::of(self.path(), LeafOutcome::of_error(self.failed(Event::WriteError, error)))
    }

    pub(super) fn line(&self, outcome: LeafOutcome) -> Receipt {
        Receipt::of(self.path(), outcome)
    }

    fn check_limits(&self, value: &CacheValue<Raw>) -> BackendResult<()> {
        let Some(details) = value.details() else { return Ok(()) };
        let limits = self.limits();
        for (what, count, limit) in [
            ("pairs of metadata", details.metadata.len() as u64, limits.metadata),
            ("tags and dependencies", details.scopes.len() as u64, limits.tags),
        ] {
            if count > limit {
                return Err(BackendError::too_many(what, count, limit));
            }
        }
        let limit = limits.attributes_bytes.min(wire::MAX_ATTRIBUTES_BYTES);
        let size = attributes::len(details);
        if size > limit {
            return Err(BackendError::too_large("tags and metadata", size, limit));
        }
        Ok(())
    }
}

impl<S: Store> Leaf<S> {
    /// The entry as this leaf stores it, or why it does not.
    pub(super) fn prepare(
        &self,
        key: &CacheKey,
        value: CacheValue<Raw>,
        encodings: Option<&Encodings>,
    ) -> BackendResult<CacheValue<Raw>> {
        self.check(key, &value)?;
        self.encoded(value, encodings)
    }

    /// Whether the leaf accepts an entry, as far as that can be said before it is encoded.
    pub(super) fn check(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<()> {
        self.handle.check_key(key)?;
        let limit = self.handle.limits().value_bytes;
        if let Some(size) = value.data().known_len()
            && size > limit
        {
            return Err(BackendError::too_large("a value", size, limit));
        }
        self.handle.check_limits(value)
    }

    pub(super) fn encoded(
        &self,
        value: CacheValue<Raw>,
        encodings: Option<&Encodings>,
    ) -> BackendResult<CacheValue<Raw>> {
        let value = match value.created() {
            Some(_) => value,
            None => value.with_created(Some(self.handle.clock().now())),
        };
        if self.is_live {
            return Ok(value);
        }
        let metadata = value.details().into_iter().flat_map(|details| &details.metadata);
        let content_type = metadata.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let content_type = content_type.map(|(_, value)| value);
        let content_type = content_type.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let own = Encodings::default();
        let encodings = encodings.unwrap_or(&own);
        let handle = &self.handle;
        let encoded = value.data().to_encoded(handle.codec(), content_type, encodings, Some(handle))?;
        let limit = handle.limits().value_bytes;
        if encoded.plain_len > limit {
            return Err(BackendError::too_large("a value", encoded.plain_len, limit));
        }
        Ok(value.map(|_| Raw::encoded(encoded, Some(handle.clone()))))
    }
}
