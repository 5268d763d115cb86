//! The commands of a store, and what their answers say.

use std::sync::Arc;

use hitbox_backend::core::{BackendError, BackendResult, CacheKey, CacheValue, Clock, Lifetime};
use hitbox_backend::envelope::wire;
use hitbox_backend::store::{Conditional, Peek, Raw, StoreCondition};
use redis::Cmd;

use crate::builder::Settings;
use crate::scripts;

/// Makes the commands of a store, and reads what they answer.
#[derive(Clone)]
pub(crate) struct Commands {
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) schema: u32,
}

/// The digest of a key as it stands in its records.
pub(crate) fn digest_in_record(key: &CacheKey) -> Vec<u8> {
    wire::key_digest(key).to_le_bytes().to_vec()
}

/// A condition as scripts are told it.
pub(crate) struct ConditionArguments {
    pub(crate) mode: &'static str,
    pub(crate) identity: Vec<u8>,
}

impl ConditionArguments {
    pub(crate) const ALWAYS: Self = Self { mode: "always", identity: Vec::new() };

    pub(crate) fn of(condition: &StoreCondition) -> BackendResult<Self> {
        let (mode, identity) = match condition {
            StoreCondition::IfNewer { ignoring, .. } => ("newer", *ignoring),
            StoreCondition::IfAbsent { ignoring } => ("absent", *ignoring),
            StoreCondition::IfSame(identity) => ("same", Some(*identity)),
            _ => return Err(BackendError::unsupported("this condition of a write")),
        };
        let identity = identity.map_or_else(Vec::new, |identity| identity.to_le_bytes().to_vec());
        Ok(Self { mode, identity })
    }
}

impl Commands {
    pub(crate) fn key(&self, key: &CacheKey) -> Vec<u8> {
        self.settings.key_format.render(&self.settings.prefix, key)
    }

    /// When the server may drop an entry. Redis keeps times in signed 64 bits.
    fn end_of<T>(&self, value: &CacheValue<T>) -> Option<u64> {
        let end = value.drop_at().filter(|_| self.clock.is_real())?;
        Some((end + self.settings.skew_margin).as_millis().min(i64::MAX as u64))
    }

    /// The same as scripts are told it: nothing if it never ends.
    pub(crate) fn end_argument<T>(&self, value: &CacheValue<T>) -> String {
        self.end_of(value).map_or_else(String::new, |end| end.to_string())
    }

    pub(crate) fn set(&self, key: &CacheKey, value: &CacheValue<Raw>) -> BackendResult<Cmd> {
        let (key, record) = (self.key(key), Raw::to_record(key, value)?);
        let mut command = Cmd::with_capacity(5, 3 + key.len() + record.len() + 24);
        command.arg("SET").arg(key).arg(record);
        if let Some(end) = self.end_of(value) {
            command.arg("PXAT").arg(end);
        }
        Ok(command)
    }

    pub(crate) fn set_if(
        &self,
        key: &CacheKey,
        value: &CacheValue<Raw>,
        condition: &StoreCondition,
    ) -> BackendResult<Cmd> {
        let ConditionArguments { mode, identity } = ConditionArguments::of(condition)?;
        let record = Raw::to_record(key, value)?;
        let mut command = redis::cmd("EVAL");
        command.arg(scripts::SET_IF).arg(1).arg(self.key(key));
        command.arg(&record).arg(self.end_argument(value)).arg(&identity).arg(mode);
        Ok(command)
    }

    /// What the start of a stored record that is in the way says of a conditional write.
    pub(crate) fn came_of(&self, key: &CacheKey, in_the_way: Option<Vec<u8>>) -> Conditional {
        let Some(start) = in_the_way else { return Conditional::Written };
        let identity = wire::identity_of(&start).unwrap_or(0);
        Conditional::Conflict(match wire::peek_for(key, &start, self.schema) {
            Some(Ok(stored)) => Some((stored, identity)),
            // A record that this leaf cannot use, or none: it does not count.
            _ if start.is_empty() => None,
            _ => Some((CacheValue::new(()).with_lifetime(Lifetime::ENDED), identity)),
        })
    }

    pub(crate) fn unlink(&self, key: &CacheKey) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(scripts::REMOVE).arg(1).arg(self.key(key)).arg(digest_in_record(key));
        command
    }

    pub(crate) fn unlink_same(&self, key: &CacheKey, identity: u64) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(scripts::REMOVE_SAME).arg(1).arg(self.key(key)).arg(digest_in_record(key));
        command.arg(&identity.to_le_bytes()[..]);
        command
    }

    /// What a record said that was removed.
    pub(crate) fn removed(&self, key: &CacheKey, found: Vec<Option<Vec<u8>>>) -> Peek {
        let Some(start) = found.into_iter().flatten().next() else { return Peek::Absent };
        match wire::peek_for(key, &start, self.schema) {
            Some(Ok(entry)) => Peek::Entry(entry),
            _ => Peek::Unknown,
        }
    }
}
