//! Looks at settings that are allowed and yet not what somebody can have meant.

use std::fmt;

use hitbox_backend::Backend;

use crate::settings::{OnStale, Settings};

/// Settings that contradict each other. They are taken as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// Entries never end, so they are never stale either.
    StaleWithoutTtl,
    /// Stale copies are served and never reloaded.
    StaleNeverReloaded,
    /// Entries never end, so nothing is kept beyond their end.
    FailSafeWithoutTtl,
    /// There is nothing to be served when the soft timeout comes.
    SoftTimeoutWithoutOlderCopy,
    /// The hard timeout comes first.
    SoftTimeoutAfterHard,
    /// There is no TTL to spread.
    JitterWithoutTtl,
    /// There is no TTL to be ahead of.
    EarlyRefreshWithoutTtl,
    /// Reloads on every hit.
    RefreshAtOnce,
    /// Entries expire before they can be idle for so long.
    IdleBeyondTtl,
    /// A TTL of zero: nothing is stored.
    NothingStored,
    /// A layer may keep entries for longer than they live.
    LayerBeyondTtl,
    /// An upper layer is not filled from a lower one: after a restart every hit goes down.
    NoRefill,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StaleWithoutTtl => "`stale` has no effect without `ttl`: entries never become stale",
            Self::StaleNeverReloaded => "stale copies are served until they expire and never reloaded",
            Self::FailSafeWithoutTtl => "`fail_safe` has no effect without `ttl`: entries never expire",
            Self::SoftTimeoutWithoutOlderCopy => {
                "without `stale` or `fail_safe` there is no older copy to serve at the `soft_timeout`"
            }
            Self::SoftTimeoutAfterHard => "`soft_timeout` has no effect: `hard_timeout` comes first",
            Self::JitterWithoutTtl => "`jitter` has no effect without `ttl`",
            Self::EarlyRefreshWithoutTtl => "early refresh has no effect without `ttl`",
            Self::RefreshAtOnce => "`refresh_after(0.0)` reloads on every hit",
            Self::IdleBeyondTtl => "`idle` has no effect: entries expire before they are idle for so long",
            Self::NothingStored => "with a `ttl` of zero nothing is stored",
            Self::LayerBeyondTtl => "a layer's own TTL has no effect: entries do not live for so long",
            Self::NoRefill => "no layer is filled from the one below: use `with_refill`",
        })
    }
}

pub(crate) fn examine<B: Backend + ?Sized>(settings: &Settings, backend: &B) -> Vec<Advice> {
    use crate::settings::EarlyRefresh::Share;
    let Settings { ttl, stale, fail_safe, idle, jitter, early, soft_timeout, hard_timeout, .. } = settings;
    let (has_stale, has_fail_safe) = (!stale.is_zero(), !fail_safe.is_zero());
    let facts = backend.layout().capabilities();
    let checks = [
        (ttl.is_none() && has_stale, Advice::StaleWithoutTtl),
        (has_stale && settings.on_stale == OnStale::Serve, Advice::StaleNeverReloaded),
        (ttl.is_none() && has_fail_safe, Advice::FailSafeWithoutTtl),
        (soft_timeout.is_some() && !has_stale && !has_fail_safe, Advice::SoftTimeoutWithoutOlderCopy),
        (
            soft_timeout.zip(*hard_timeout).is_some_and(|(soft, hard)| soft >= hard),
            Advice::SoftTimeoutAfterHard,
        ),
        (ttl.is_none() && !jitter.is_none(), Advice::JitterWithoutTtl),
        (ttl.is_none() && early.is_some(), Advice::EarlyRefreshWithoutTtl),
        (*early == Some(Share(0.0)), Advice::RefreshAtOnce),
        (idle.zip(*ttl).is_some_and(|(idle, ttl)| idle >= ttl.saturating_add(*stale)), Advice::IdleBeyondTtl),
        (ttl.is_some_and(|ttl| ttl.is_zero()), Advice::NothingStored),
        (
            facts
                .longest_life
                .zip(*ttl)
                .is_some_and(|(life, ttl)| life >= ttl.saturating_add(*stale).saturating_add(*fail_safe)),
            Advice::LayerBeyondTtl,
        ),
        (backend.layout().leaves().len() > 1 && !facts.refills, Advice::NoRefill),
    ];
    checks.into_iter().filter(|(applies, _)| *applies).map(|(_, advice)| advice).collect()
}
