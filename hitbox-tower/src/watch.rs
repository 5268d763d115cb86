//! What is told of one request to the status page, if there is one.

use hitbox::core::{BackendLabel, CacheKey};

use crate::layer::Rules;

#[cfg(feature = "status-page")]
pub(crate) use seen::Watch;
#[cfg(not(feature = "status-page"))]
pub(crate) use unseen::Watch;

#[cfg(feature = "status-page")]
mod seen {
    use std::time::Duration;

    use super::{BackendLabel, CacheKey, Rules};
    use crate::status::{AnsweredBy, Observer};

    /// A request that may be one of which the status page is told.
    pub(crate) struct Watch {
        /// Of those that are looked at closely: the key, and when it came.
        sample: Option<(CacheKey, Duration)>,
    }

    impl Watch {
        #[inline]
        pub(crate) fn begin(rules: &Rules, key: &CacheKey) -> Self {
            let is_sampled = rules.observer.get().is_some() && Observer::is_sampled();
            Self { sample: is_sampled.then(|| (key.clone(), rules.monotonic())) }
        }

        #[inline]
        pub(crate) fn hit(&self, rules: &Rules, label: BackendLabel) {
            self.answered(rules, AnsweredBy::Layer(label));
        }

        #[inline]
        pub(crate) fn forwarded(&self, rules: &Rules) {
            self.answered(rules, AnsweredBy::Service);
        }

        #[inline]
        pub(crate) fn passed(rules: &Rules) {
            if let Some(observer) = rules.observer.get() {
                observer.passed(rules.monotonic());
            }
        }

        fn answered(&self, rules: &Rules, by: AnsweredBy) {
            let Some(observer) = rules.observer.get() else { return };
            let now = rules.monotonic();
            observer.answered(by, now);
            if let Some((key, came)) = &self.sample {
                observer.sampled(key, by, now.saturating_sub(*came), now);
            }
        }
    }
}

#[cfg(not(feature = "status-page"))]
mod unseen {
    use super::{BackendLabel, CacheKey, Rules};

    /// Nobody is told of anything.
    pub(crate) struct Watch;

    impl Watch {
        #[inline]
        pub(crate) fn begin(_: &Rules, _: &CacheKey) -> Self {
            Self
        }

        #[inline]
        pub(crate) fn hit(&self, _: &Rules, _: BackendLabel) {}

        #[inline]
        pub(crate) fn forwarded(&self, _: &Rules) {}

        #[inline]
        pub(crate) fn passed(_: &Rules) {}
    }
}
