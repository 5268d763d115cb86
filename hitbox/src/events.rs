//! What happens in a cache: a hook for those who want to see each event, and counts for those who do not.

use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox_backend::Statistics;
use hitbox_backend::internal::Striped;
use hitbox_backend::metrics::{Collector, Sample, Value};
use hitbox_backend::wrap::Layout;
use hitbox_core::{BackendError, BackendLabel, CacheKey, Freshness};
use serde::Serialize;

use crate::error::LoadError;

/// Something that happened in a cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CacheEvent<'a> {
    /// A copy was served.
    Hit {
        /// Its key.
        key: &'a CacheKey,
        /// What it was.
        freshness: Freshness,
    },
    /// No layer had a usable copy.
    Miss {
        /// The key.
        key: &'a CacheKey,
    },
    /// A load began.
    LoadStarted {
        /// The key.
        key: &'a CacheKey,
        /// Whether it runs ahead of need, in the background.
        in_background: bool,
    },
    /// A load brought something.
    Loaded {
        /// The key.
        key: &'a CacheKey,
        /// How long the loader took.
        took: Duration,
    },
    /// A load failed.
    LoadFailed {
        /// The key.
        key: &'a CacheKey,
        /// Why.
        error: &'a LoadError,
    },
    /// What a load brought was not stored, since the key was written meanwhile.
    Superseded {
        /// The key.
        key: &'a CacheKey,
    },
    /// An older copy was served instead of a load.
    StaleServed {
        /// The key.
        key: &'a CacheKey,
    },
    /// A call waited longer than it would.
    TimedOut {
        /// The key.
        key: &'a CacheKey,
    },
    /// A layer failed; what the cache was asked for did not.
    LayerFailed {
        /// The key.
        key: &'a CacheKey,
        /// The error; it names the layer.
        error: &'a BackendError,
    },
    /// Layers that had failed have the key's present state again.
    Recovered {
        /// The key.
        key: &'a CacheKey,
    },
}

/// Is told of every event, while it happens: it must not wait.
pub(crate) type Hook = Arc<dyn Fn(&CacheEvent<'_>) + Send + Sync>;

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident => $metric:literal,)+) => {
        /// What loads and calls of a cache have come to since it was built.
        /// `Display` shows the layers as a table and the rest below it.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct CacheStatistics {
            /// Calls whose first look found a fresh copy.
            pub hits: u64,
            /// Calls whose first look found a stale copy.
            pub stale_hits: u64,
            /// Calls whose first look found none.
            pub misses: u64,
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Keys whose copy in some layer is out of date, since the layer failed. It is not served until the layer is
            /// back.
            pub recovering: u64,
            /// Loads under way.
            pub loading: u64,
            /// The layers.
            pub layers: Statistics,
        }

        impl fmt::Display for CacheStatistics {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                writeln!(f, "{}", self.layers)?;
                // What never happened is left out.
                let facts = [
                    ("hits", self.hits),
                    ("stale_hits", self.stale_hits),
                    ("misses", self.misses),
                    $((stringify!($name), self.$name),)+
                    ("recovering", self.recovering),
                    ("loading", self.loading),
                ];
                let facts = facts.iter().filter(|(_, count)| *count > 0);
                let facts: Vec<String> =
                    facts.map(|(name, count)| format!("{}: {count}", name.replace('_', " "))).collect();
                f.write_str(&facts.join(", "))
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counts {
            /// By [`look_of`].
            pub(crate) looks: Striped<3>,
            $(pub(crate) $name: AtomicU64,)+
        }

        impl Counts {
            pub(crate) fn snapshot(&self) -> CacheStatistics {
                let [hits, stale_hits, misses] = [HIT, STALE, MISS].map(|look| self.looks.get(look));
                CacheStatistics {
                    hits,
                    stale_hits,
                    misses,
                    $($name: self.$name.load(Ordering::Relaxed),)+
                    ..CacheStatistics::default()
                }
            }

            fn help(name: &str) -> &'static str {
                match name {
                    "hitbox_cache_hit_total" => "Calls whose first look found a fresh copy.",
                    "hitbox_cache_stale_total" => "Calls whose first look found a stale copy.",
                    "hitbox_cache_miss_total" => "Calls whose first look found no copy.",
                    LAYER_HIT => "Reads of a layer of a cache that were answered with a fresh copy.",
                    LAYER_STALE => "Reads of a layer of a cache that were answered with a stale copy.",
                    LAYER_MISS => "Reads of a layer of a cache that found no usable copy.",
                    $($metric => concat!($($doc),+).trim_ascii_start(),)+
                    _ => "",
                }
            }

            fn each(&self, mut add: impl FnMut(&'static str, u64)) {
                add("hitbox_cache_hit_total", self.looks.get(HIT));
                add("hitbox_cache_stale_total", self.looks.get(STALE));
                add("hitbox_cache_miss_total", self.looks.get(MISS));
                $(add($metric, self.$name.load(Ordering::Relaxed));)+
            }
        }
    };
}

counts! {
    /// Loads that began.
    loads => "hitbox_load_started_total",
    /// Calls that waited for another call's load.
    coalesced => "hitbox_load_coalesced_total",
    /// Loads that failed.
    load_failures => "hitbox_load_failed_total",
    /// Loads that panicked; they count as failed too.
    load_panics => "hitbox_load_panicked_total",
    /// Calls of the event hook that panicked.
    hook_panics => "hitbox_load_hook_panicked_total",
    /// Calls that waited longer than they would.
    load_timeouts => "hitbox_load_timed_out_total",
    /// Loads whose value was not stored, since the key was written meanwhile.
    load_superseded => "hitbox_load_superseded_total",
    /// Milliseconds that loaders took.
    load_millis => "hitbox_load_milliseconds_total",
    /// Stale or expired copies served.
    stale_served => "hitbox_load_stale_served_total",
    /// Loads that were begun before the copy was stale.
    refreshed_early => "hitbox_load_refreshed_early_total",
    /// Early loads that were saved, since a lower layer had a newer copy.
    refreshed_from_layer => "hitbox_load_refreshed_from_layer_total",
    /// Background loads that the offload did not take.
    refused => "hitbox_load_refused_total",
    /// Reads that failed and counted as misses.
    read_errors => "hitbox_load_read_errors_total",
    /// Writes of loaded values that failed.
    write_errors => "hitbox_load_write_errors_total",
    /// Keys brought up to date in layers that had failed.
    recovered => "hitbox_recovery_recovered_total",
    /// Reads noted for entries with an idle time.
    touched => "hitbox_load_touched_total",
}

const HIT: usize = 0;
const STALE: usize = 1;
const MISS: usize = 2;

/// What the first look of a call has come to, as it is counted.
#[inline]
pub(crate) const fn look_of(found: Option<Freshness>) -> usize {
    match found {
        Some(Freshness::Fresh) => HIT,
        Some(_) => STALE,
        None => MISS,
    }
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts and the hook.
#[derive(Clone)]
pub(crate) struct Events {
    pub(crate) name: BackendLabel,
    pub(crate) hook: Option<Hook>,
    pub(crate) counts: Arc<Counts>,
}

impl Events {
    /// Tells the hook, if there is one.
    #[inline]
    pub(crate) fn tell<'a>(&self, event: impl FnOnce() -> CacheEvent<'a>) {
        if let Some(hook) = &self.hook {
            self.call(hook, &event());
        }
    }

    /// A hook that panics harms nobody but itself.
    fn call(&self, hook: &Hook, event: &CacheEvent<'_>) {
        if catch_unwind(AssertUnwindSafe(|| hook(event))).is_err() {
            count(&self.counts.hook_panics);
            tracing::error!(cache = %self.name, "the event hook panicked");
        }
    }

    /// A layer failed, which does not concern the caller.
    pub(crate) fn layer_failed(&self, key: &CacheKey, error: &BackendError) {
        tracing::debug!(cache = %self.name, %key, %error, "a layer failed");
        self.tell(|| CacheEvent::LayerFailed { key, error });
    }
}

impl Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("hook", &self.hook.is_some()).finish_non_exhaustive()
    }
}

const LAYER_HIT: &str = "hitbox_cache_layer_hit_total";
const LAYER_STALE: &str = "hitbox_cache_layer_stale_total";
const LAYER_MISS: &str = "hitbox_cache_layer_miss_total";

/// Shows the counts under the cache's name, and those of its layers.
#[derive(Debug)]
pub(crate) struct CountsCollector {
    pub(crate) name: BackendLabel,
    pub(crate) counts: Arc<Counts>,
    pub(crate) layout: Layout,
}

impl Collector for CountsCollector {
    fn collect(&self, add: &mut dyn FnMut(Sample)) {
        let cache = ("cache", self.name.as_str());
        let labels = [cache, ("", "")];
        self.counts.each(|name, value| add(Sample { name, labels, value: Value::Counter(value) }));
        for leaf in self.layout.statistics() {
            let labels = [cache, ("backend", leaf.label.as_str())];
            for (name, value) in
                [(LAYER_HIT, leaf.hits), (LAYER_STALE, leaf.stale_hits), (LAYER_MISS, leaf.misses)]
            {
                add(Sample { name, labels, value: Value::Counter(value) });
            }
        }
    }

    fn help(&self, name: &str) -> &'static str {
        Counts::help(name)
    }
}
