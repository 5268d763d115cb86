//! What a backend can do, as facts that callers branch on.

use std::time::Duration;

/// Facts about a backend. A composition has a capability if every call it promises can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Values stay as they are: nothing is encoded for this backend.
    pub keeps_live_values: bool,
    /// `try_read` never answers "would wait".
    pub answers_at_once: bool,
    /// Entries survive the process.
    pub durable: bool,
    /// Other processes see the same entries.
    pub shared: bool,
    /// Keys can be listed.
    pub enumerates: bool,
    /// All entries can be removed at once.
    pub erases: bool,
    /// Writes can depend on the stored version.
    pub writes_conditionally: bool,
    /// Every upper layer is filled from the ones below.
    pub refills: bool,
    /// The longest life that some layer gives to entries, if any bounds it.
    pub longest_life: Option<Duration>,
}

impl Capabilities {
    /// A backend that stores bytes and offers what the three required methods do.
    pub const PLAIN: Self = Self {
        keeps_live_values: false,
        answers_at_once: false,
        durable: false,
        shared: false,
        enumerates: false,
        erases: false,
        writes_conditionally: false,
        refills: true,
        longest_life: None,
    };

    /// What two layers offer together.
    pub fn join(self, other: Self) -> Self {
        Self {
            keeps_live_values: self.keeps_live_values && other.keeps_live_values,
            answers_at_once: self.answers_at_once && other.answers_at_once,
            durable: self.durable || other.durable,
            shared: self.shared || other.shared,
            enumerates: self.enumerates && other.enumerates,
            erases: self.erases && other.erases,
            writes_conditionally: self.writes_conditionally && other.writes_conditionally,
            refills: self.refills && other.refills,
            longest_life: self.longest_life.max(other.longest_life),
        }
    }
}
