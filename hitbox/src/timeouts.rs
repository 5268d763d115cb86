//! How long a call waits. All its timeouts count from its beginning, whatever it waits for: a layer or a load.

use std::time::Duration;

use futures_util::future::{Either, select};
use hitbox_core::{BoxFuture, Clock};

/// The timeouts of one call.
pub(crate) struct Timeouts {
    /// A layer is waited for until then. The load begins beside it.
    pub(crate) look: Timeout,
    pub(crate) soft: Timeout,
    pub(crate) hard: Timeout,
}

/// An instant that may come.
pub(crate) enum Timeout {
    Never,
    Runs(BoxFuture<'static, ()>),
    Over,
}

/// How long layers are waited for: up to the soft timeout, and half of the hard one, so that there is time to load.
pub(crate) fn patience(soft: Option<Duration>, hard: Option<Duration>) -> Option<Duration> {
    let half = hard.map(|hard| hard / 2);
    match (soft, half) {
        (Some(soft), Some(half)) => Some(soft.min(half)),
        (soft, half) => soft.or(half),
    }
}

impl Timeouts {
    /// They run from now on.
    pub(crate) fn start(clock: &dyn Clock, soft: Option<Duration>, hard: Option<Duration>) -> Self {
        let after = |time| Timeout::after(clock, time);
        Self { look: after(patience(soft, hard)), soft: after(soft), hard: after(hard) }
    }
}

impl Timeout {
    /// It comes after so long, or never.
    pub(crate) fn after(clock: &dyn Clock, time: Option<Duration>) -> Self {
        time.map_or(Self::Never, |time| Self::Runs(clock.sleep(time)))
    }

    /// Waits for it. Dropping the future changes nothing.
    pub(crate) async fn over(&mut self) {
        match self {
            Self::Never => std::future::pending().await,
            Self::Runs(sleep) => sleep.await,
            Self::Over => {}
        }
        *self = Self::Over;
    }

    /// What `work` comes to until then. What answers at once is taken even if the time is over.
    ///
    /// # Errors
    /// The work is handed back if it takes longer.
    pub(crate) async fn bound<F: Future + Unpin>(&mut self, work: F) -> Result<F::Output, F> {
        match select(work, std::pin::pin!(self.over())).await {
            Either::Left((result, _)) => Ok(result),
            Either::Right(((), work)) => Err(work),
        }
    }
}

/// The result of work that may not be there.
pub(crate) async fn result_of<F: Future + Unpin>(work: &mut Option<F>) -> F::Output {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
