//! The settings that every leaf has.

use std::sync::Arc;
use std::time::Duration;

use hitbox_core::{BackendLabel, Clock, Limits};

use crate::clock::SystemClock;
use crate::codec::Codec;

/// The settings that every leaf has.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeafOptions {
    /// Its name, the last part of its path.
    pub label: BackendLabel,
    /// How it encodes. Not used by leaves that keep live values.
    pub codec: Codec,
    /// Where it gets the time from.
    pub clock: Arc<dyn Clock>,
    /// What it accepts.
    pub limits: Limits,
    /// How long the epochs of a store that other processes share are believed without asking it again. What another
    /// process has invalidated is served for so long at most.
    pub staleness_bound: Duration,
    /// How long a write that has to wait for earlier writes of its key may take, with its own work; no bound by default.
    /// A store that cuts its calls gives the time after which it does.
    pub turn_limit: Option<Duration>,
}

impl LeafOptions {
    /// Default codec and limits, and the machine's clock.
    pub fn new(label: &str) -> Self {
        Self {
            label: label.into(),
            codec: Codec::default(),
            clock: Arc::new(SystemClock),
            limits: Limits::DEFAULT,
            staleness_bound: Duration::from_secs(1),
            turn_limit: None,
        }
    }

    /// The same with another label.
    #[must_use]
    pub fn with_label(self, label: &str) -> Self {
        Self { label: label.into(), ..self }
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The same with another codec.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same with another bound on how old epochs of a shared store may be.
    #[must_use]
    pub fn with_staleness_bound(self, bound: Duration) -> Self {
        Self { staleness_bound: bound, ..self }
    }

    /// The same with a bound on writes that wait for earlier ones of their key.
    #[must_use]
    pub fn with_turn_limit(self, limit: Duration) -> Self {
        Self { turn_limit: Some(limit), ..self }
    }
}
