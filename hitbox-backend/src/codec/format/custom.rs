//! Formats written outside this crate.

use std::fmt::Debug;
use std::sync::{PoisonError, RwLock};

use serde::de::DeserializeOwned;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A format of the user's own, used as [`Format::Custom`](super::Format::Custom).
///
/// Once a leaf that writes it has been made, every leaf of the process reads it, since refills carry records
/// from leaf to leaf as they are. Where it is not known, its records are misses.
pub trait CustomFormat: Debug + Send + Sync + 'static {
    /// A number below 0x8000 that stays the same for as long as records of this format exist,
    /// and that no other format of the process has.
    fn id(&self) -> u16;

    /// The bytes of a value.
    ///
    /// # Errors
    /// Whatever keeps the value from being expressed.
    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Vec<u8>, BoxError>;

    /// Hands a deserializer over `bytes` to `read`, once.
    ///
    /// # Errors
    /// Those of `read`, and whatever else is wrong with the bytes.
    fn decode(
        &self,
        bytes: &[u8],
        read: &mut dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error>,
    ) -> Result<(), BoxError>;
}

pub(super) fn decode<T: DeserializeOwned>(format: &dyn CustomFormat, bytes: &[u8]) -> Result<T, BoxError> {
    let mut value = None;
    format.decode(bytes, &mut |deserializer| {
        value = Some(erased_serde::deserialize(deserializer)?);
        Ok(())
    })?;
    value.ok_or_else(|| "the format did not read a value".into())
}

/// The formats that leaves of this process write.
static KNOWN: RwLock<Vec<&'static dyn CustomFormat>> = RwLock::new(Vec::new());

pub(super) fn make_known(format: &'static dyn CustomFormat) {
    if known(format.id()).is_none() {
        KNOWN.write().unwrap_or_else(PoisonError::into_inner).push(format);
    }
}

pub(super) fn known(id: u16) -> Option<&'static dyn CustomFormat> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    known.iter().find(|format| format.id() == id).copied()
}
