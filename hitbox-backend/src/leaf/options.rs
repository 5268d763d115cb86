//! The settings that every leaf has.

use std::sync::Arc;
use std::time::Duration;

use hitbox_core::{BackendLabel, Clock, Limits};

use crate::clock::SystemClock;
use crate::codec::Codec;

/// The settings that every leaf has.
#[derive(Clone, Debug)]
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
    pub suspect_time: Duration,
}

impl LeafOptions {
    /// Default codec and limits and the machine's clock.
    pub fn new(label: &str) -> Self {
        Self {
            label: label.into(),
            codec: Codec::default(),
            clock: Arc::new(SystemClock),
            limits: Limits::DEFAULT,
            suspect_time: Duration::from_secs(1),
        }
    }
}
