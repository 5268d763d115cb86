//! Instants and durations to and from the types of chrono (feature `chrono`) and jiff (feature `jiff`). The framework
//! counts whole milliseconds; what is finer is cut off.

/// The types of chrono.
#[cfg(feature = "chrono")]
pub mod chrono {
    use std::time::Duration;

    use ::chrono::{DateTime, TimeDelta, Utc};

    use crate::Timestamp;

    /// Instants before 1970 are 1970.
    impl From<DateTime<Utc>> for Timestamp {
        fn from(time: DateTime<Utc>) -> Self {
            Self::from_millis(u64::try_from(time.timestamp_millis()).unwrap_or(0))
        }
    }

    /// Instants that chrono cannot express, some 262,000 years away, are its last.
    impl From<Timestamp> for DateTime<Utc> {
        fn from(time: Timestamp) -> Self {
            let millis = i64::try_from(time.as_millis()).ok();
            millis.and_then(DateTime::from_timestamp_millis).unwrap_or(DateTime::<Utc>::MAX_UTC)
        }
    }

    /// A time to live, for every setting that takes a [`Duration`]. A negative one is zero.
    pub fn duration(delta: TimeDelta) -> Duration {
        delta.to_std().unwrap_or(Duration::ZERO)
    }

    /// A duration as chrono has it; its longest if it is longer.
    pub fn time_delta(duration: Duration) -> TimeDelta {
        TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_goes_there_comes_back() {
            let time = Timestamp::from_millis(1_700_000_000_123);
            assert_eq!(Timestamp::from(DateTime::<Utc>::from(time)), time);
            assert_eq!(DateTime::<Utc>::from(Timestamp::MAX), DateTime::<Utc>::MAX_UTC);
            assert_eq!(Timestamp::from(DateTime::<Utc>::MIN_UTC), Timestamp::from_millis(0));
            assert_eq!(duration(TimeDelta::seconds(-1)), Duration::ZERO);
            assert_eq!(duration(time_delta(Duration::from_millis(1_500))), Duration::from_millis(1_500));
            assert_eq!(time_delta(Duration::MAX), TimeDelta::MAX);
        }
    }
}

/// The types of jiff.
#[cfg(feature = "jiff")]
pub mod jiff {
    use std::time::Duration;

    use ::jiff::SignedDuration;

    use crate::Timestamp;

    /// Instants before 1970 are 1970.
    impl From<::jiff::Timestamp> for Timestamp {
        fn from(time: ::jiff::Timestamp) -> Self {
            Self::from_millis(u64::try_from(time.as_millisecond()).unwrap_or(0))
        }
    }

    /// Instants that jiff cannot express, from the year 10,000 on, are its last.
    impl From<Timestamp> for ::jiff::Timestamp {
        fn from(time: Timestamp) -> Self {
            let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
            Self::from_millisecond(millis).unwrap_or(Self::MAX)
        }
    }

    /// A time to live, for every setting that takes a [`Duration`]. A negative one is zero.
    pub fn duration(signed: SignedDuration) -> Duration {
        Duration::try_from(signed).unwrap_or(Duration::ZERO)
    }

    /// A duration as jiff has it; its longest if it is longer.
    pub fn signed_duration(duration: Duration) -> SignedDuration {
        SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_goes_there_comes_back() {
            let time = Timestamp::from_millis(1_700_000_000_123);
            assert_eq!(Timestamp::from(::jiff::Timestamp::from(time)), time);
            assert_eq!(::jiff::Timestamp::from(Timestamp::MAX), ::jiff::Timestamp::MAX);
            assert_eq!(Timestamp::from(::jiff::Timestamp::MIN), Timestamp::from_millis(0));
            assert_eq!(duration(SignedDuration::from_secs(-1)), Duration::ZERO);
            assert_eq!(duration(signed_duration(Duration::from_millis(1_500))), Duration::from_millis(1_500));
            assert_eq!(signed_duration(Duration::MAX), SignedDuration::MAX);
        }
    }
}
