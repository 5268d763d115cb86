//! The reference model: what a cache may answer, whatever its layers are and whichever of them fail.

use std::collections::HashMap;

use hitbox_core::{Freshness, Lifetime, Timestamp};

/// What a cache may hold under each key.
#[derive(Debug, Default)]
pub struct Model {
    keys: HashMap<u8, Possible>,
    /// Some call met a fault: from then on entries may be missing.
    faulted: bool,
}

/// What an entry is to those who ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value.
    Value,
    /// A body.
    Body,
}

/// The values that a read may see.
#[derive(Clone, Debug, Default)]
struct Possible {
    values: Vec<(Kind, u64, Lifetime)>,
    /// Whether a write or delete of this key failed, so that more than one state is possible.
    uncertain: bool,
}

impl Model {
    /// A fault may have struck: a layer may have lost its copy.
    pub fn fault(&mut self) {
        self.faulted = true;
    }

    /// A write has returned.
    pub fn wrote(&mut self, key: u8, kind: Kind, value: u64, lifetime: Lifetime, succeeded: bool) {
        let possible = self.keys.entry(key).or_default();
        if succeeded {
            *possible = Possible::default();
        } else {
            possible.uncertain = true;
        }
        possible.values.push((kind, value, lifetime));
    }

    /// A delete has returned.
    pub fn deleted(&mut self, key: u8, succeeded: bool) {
        let possible = self.keys.entry(key).or_default();
        if succeeded {
            *possible = Possible::default();
        } else {
            possible.uncertain = true;
        }
    }

    /// The body that a read has found has been removed, and nothing else. Where a write has failed, what was there before it may be there
    /// still.
    pub fn purged(&mut self, key: u8, succeeded: bool) {
        if !self.keys.entry(key).or_default().uncertain {
            self.deleted(key, succeeded);
        }
    }

    /// A key has been taken out of some layers: it may be in none.
    pub fn evicted(&mut self, key: u8) {
        self.keys.entry(key).or_default().uncertain = true;
    }

    /// Whether a read that asks for an entry of this kind may have been answered like this.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn check(
        &self,
        key: u8,
        kind: Kind,
        answer: Option<(u64, Lifetime)>,
        now: Timestamp,
    ) -> Result<(), String> {
        let nothing = Possible::default();
        let possible = self.keys.get(&key).unwrap_or(&nothing);
        let readable = |lifetime: &Lifetime| lifetime.freshness(now) <= Freshness::Stale;
        match answer {
            Some((value, lifetime)) => {
                if !readable(&lifetime) {
                    return Err(format!("key {key}: {value} is served past its time"));
                }
                if !possible.values.contains(&(kind, value, lifetime)) {
                    return Err(format!("key {key}: {value} with {lifetime:?} is none of {possible:?}"));
                }
                Ok(())
            }
            None if self.faulted || possible.uncertain => Ok(()),
            None => {
                match possible.values.iter().find(|(of, _, lifetime)| *of == kind && readable(lifetime)) {
                    Some((_, value, _)) => Err(format!("key {key}: {value} was lost without a fault")),
                    None => Ok(()),
                }
            }
        }
    }
}
