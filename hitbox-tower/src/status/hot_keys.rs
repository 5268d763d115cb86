//! The keys that are asked for most, in bounded memory: Space-Saving (Metwally, Agrawal, El Abbadi: Efficient computation of frequent and
//! top-k elements in data streams, 2005).

use std::collections::HashMap;

use hitbox::core::CacheKey;
use serde::Serialize;

/// So many keys are counted. One that makes up more than a 128th of what is counted is among them.
const COUNTED: usize = 128;
/// So many of them are shown.
const SHOWN: usize = 20;
/// After so many counts each counts half, so that what was hot is forgotten.
const HALF_LIFE: u64 = 8_192;
/// Longer keys are not counted, in bytes.
const LONGEST: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct HotKeys {
    counts: HashMap<CacheKey, Count>,
    total: u64,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    count: u64,
    /// Of these some may be of a key that had this place before.
    of_others: u64,
}

/// One of the keys that are asked for most.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct HotKey {
    /// As it is purged by.
    pub(crate) key: String,
    /// As people read it: the URL, and what else the key has.
    pub(crate) resource: String,
    /// The part of all requests that are for it, at least.
    pub(crate) share: f64,
}

impl HotKeys {
    pub(super) fn count(&mut self, key: &CacheKey) {
        self.total += 1;
        if key.as_encoded().len() > LONGEST {
            return;
        }
        if let Some(known) = self.counts.get_mut(key) {
            known.count += 1;
        } else {
            let mut of_others = 0;
            if self.counts.len() >= COUNTED
                && let Some((least, count)) = self.counts.iter().min_by_key(|(_, count)| count.count)
            {
                of_others = count.count;
                let least = least.clone();
                self.counts.remove(&least);
            }
            self.counts.insert(key.clone(), Count { count: of_others + 1, of_others });
        }
        if self.total >= HALF_LIFE {
            self.total /= 2;
            self.counts.retain(|_, count| {
                (count.count, count.of_others) = (count.count / 2, count.of_others / 2);
                count.count > 0
            });
        }
    }

    /// The hottest first. What may be another's count does not count.
    pub(super) fn hottest(&self) -> Vec<HotKey> {
        let sure = |count: &Count| count.count - count.of_others;
        let mut keys: Vec<(u64, &CacheKey)> = self
            .counts
            .iter()
            .map(|(key, count)| (sure(count), key))
            .filter(|(count, _)| *count > 0)
            .collect();
        keys.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.as_encoded().cmp(other.as_encoded())));
        let shown = keys.into_iter().take(SHOWN);
        shown
            .map(|(count, key)| HotKey {
                key: key.to_string(),
                resource: resource_of(key),
                share: count as f64 / self.total as f64,
            })
            .collect()
    }
}

/// The URL, and the other parts with their names.
fn resource_of(key: &CacheKey) -> String {
    let mut text = String::new();
    for part in key.parts() {
        let value = part.value.map(|value| String::from_utf8_lossy(value).into_owned());
        match (part.name, value) {
            ("url", Some(url)) => text.push_str(&url.replace(' ', ":")),
            (name, Some(value)) => text.push_str(&format!(" {name}={value}")),
            (name, None) => text.push_str(&format!(" {name}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> CacheKey {
        CacheKey::builder("k").part("n", number).build()
    }

    /// A scan of keys that come once does not put out what is hot, and is not shown as hot.
    #[test]
    fn hot_keys_are_found_among_many_that_come_once() {
        let mut hot = HotKeys::default();
        for number in 0..4_000 {
            hot.count(&key(1_000 + number));
            if number % 2 == 0 {
                hot.count(&key(1));
            }
            if number % 8 == 0 {
                hot.count(&key(2));
            }
        }
        let shown = hot.hottest();
        assert_eq!(shown[0].key, key(1).to_string());
        assert_eq!(shown[1].key, key(2).to_string());
        assert!((shown[0].share - 2_000.0 / 6_500.0).abs() < 0.01, "{:?}", shown[0]);
        assert!(shown[2].share < 0.01 && shown.len() <= SHOWN, "{shown:?}");
        assert!(hot.counts.len() <= COUNTED);
    }

    #[test]
    fn what_was_hot_is_forgotten() {
        let mut hot = HotKeys::default();
        (0..HALF_LIFE).for_each(|_| hot.count(&key(1)));
        (0..16 * HALF_LIFE).for_each(|_| hot.count(&key(2)));
        let shown = hot.hottest();
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert!(shown[0].key == key(2).to_string() && shown[0].share > 0.99);
    }
}
