//! What a store or an expression can do, as facts that callers branch on.

use std::time::Duration;

/// Facts about a store or an expression. An expression has a capability if every call that it promises can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Values stay as they are: nothing is encoded for this store.
    pub keeps_live_values: bool,
    /// Reads never have to wait.
    pub answers_at_once: bool,
    /// Entries survive the process.
    pub durable: bool,
    /// Other processes see the same entries.
    pub shared: bool,
    /// Keys can be listed.
    pub enumerates: bool,
    /// Entries can be counted.
    pub counts: bool,
    /// All entries can be removed.
    pub erases: bool,
    /// Writes can depend on what is stored. A store says so if it decides that itself, in one step; a leaf around a store
    /// that no other process shares can do it for the store.
    pub writes_conditionally: bool,
    /// Every upper layer is filled from the ones below.
    pub refills: bool,
    /// The longest life that some layer gives to entries, if any bounds it.
    pub longest_life: Option<Duration>,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::PLAIN
    }
}

impl Capabilities {
    /// A store of bytes that offers what the three required methods do.
    pub const PLAIN: Self = Self {
        keeps_live_values: false,
        answers_at_once: false,
        durable: false,
        shared: false,
        enumerates: false,
        counts: false,
        erases: false,
        writes_conditionally: false,
        refills: true,
        longest_life: None,
    };

    /// A store in memory that keeps live values, answers at once, and can list, count and erase its entries.
    pub const MEMORY: Self = Self {
        keeps_live_values: true,
        answers_at_once: true,
        enumerates: true,
        counts: true,
        erases: true,
        ..Self::PLAIN
    };

    /// What two layers offer together.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            keeps_live_values: self.keeps_live_values && other.keeps_live_values,
            answers_at_once: self.answers_at_once && other.answers_at_once,
            durable: self.durable || other.durable,
            shared: self.shared || other.shared,
            enumerates: self.enumerates && other.enumerates,
            counts: self.counts && other.counts,
            erases: self.erases && other.erases,
            writes_conditionally: self.writes_conditionally && other.writes_conditionally,
            refills: self.refills && other.refills,
            longest_life: self.longest_life.max(other.longest_life),
        }
    }
}
