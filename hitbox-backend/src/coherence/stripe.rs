//! The slots and load permits of the keys that share a stripe of a store's write queue.

use std::task::Waker;

use hitbox_core::{CacheKey, KeyPattern};
use smallvec::SmallVec;

use super::sync::Arc;

#[derive(Default)]
pub(super) struct Stripe {
    /// Raised when a write starts and when it ends.
    pub(super) generation: u64,
    /// Drains under way: no refill gets in.
    pub(super) drains: usize,
    /// Drains under way of the keys that match: no refill of one gets in.
    pub(super) patterns: Vec<Arc<KeyPattern>>,
    /// The number of the next slot or permit.
    pub(super) next: u64,
    /// Slots with lower numbers were there when the last drain began.
    pub(super) drained: u64,
    pub(super) slots: SmallVec<[Slot; 1]>,
    pub(super) permits: SmallVec<[Permit; 1]>,
    /// Who waits for the slots to be done.
    pub(super) draining: Vec<Waker>,
}

/// A load permit that nothing has ended yet.
pub(super) struct Permit {
    pub(super) hash: u64,
    pub(super) id: u64,
    pub(super) key: CacheKey,
    /// It was taken while its key was being written, by a call that had no answer yet. It ends with that write and never becomes a write.
    pub(super) late: bool,
}

pub(super) struct Slot {
    pub(super) hash: u64,
    pub(super) number: u64,
    /// Its turn is over; the ticket goes on in other stores. A store that stands in several places keeps the turn until
    /// it has what the write brought.
    pub(super) done: bool,
    /// Places of the store in the expression that are being written.
    pub(super) active: usize,
    /// Its caller has been answered: whoever comes later comes after it.
    pub(super) acknowledged: bool,
    /// This store has what a later write brought.
    pub(super) overtaken: bool,
    pub(super) kind: WriteKind,
    /// Who waits for its turn: one for each place of the store in the expression.
    pub(super) wakers: SmallVec<[Waker; 1]>,
}

/// Why a write that has had its turn has no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The store has what it brought, or something later: a later write may have had its turn.
    Overtaken,
    /// It brought nothing to the store, and later writes may have had their turn. Nobody knows whether it would undo them.
    Late,
}

/// What a write brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// A new state: what loads bring that started before is older.
    Change,
    /// The state that is there already, in another store or with another note. It ends no load permit.
    Maintenance,
}

impl Stripe {
    pub(super) fn may_begin(&self, hash: u64, id: u64) -> bool {
        self.permits.iter().any(|permit| permit.hash == hash && permit.id == id && !permit.late)
    }

    /// Whether keys of the store are being removed.
    pub(super) fn has_drains(&self) -> bool {
        self.drains > 0 || !self.patterns.is_empty()
    }

    /// Whether all that the store has of this key is being removed.
    pub(super) fn is_draining(&self, key: &CacheKey) -> bool {
        self.drains > 0 || self.patterns.iter().any(|pattern| pattern.matches(key))
    }

    pub(super) fn enter(&mut self, hash: u64, kind: WriteKind) -> u64 {
        let number = self.next;
        self.next += 1;
        if kind == WriteKind::Change && !self.permits.is_empty() {
            self.permits.retain(|permit| permit.hash != hash);
        }
        self.slots.push(Slot {
            hash,
            number,
            done: false,
            active: 0,
            acknowledged: false,
            overtaken: false,
            kind,
            wakers: SmallVec::new(),
        });
        number
    }

    pub(super) fn has_slot_of(&self, hash: u64) -> bool {
        self.slots.iter().any(|slot| slot.hash == hash)
    }

    pub(super) fn is_first(&self, hash: u64, number: u64) -> bool {
        !self.slots.iter().any(|slot| slot.hash == hash && slot.number < number && !slot.done)
    }

    /// The write with this slot, whose turn may be over, is to be made once more. `is_stored` says whether the store has
    /// what it brought.
    ///
    /// # Errors
    /// Where a later change of the key has come, or everything was erased, that would be undone.
    pub(super) fn enter_again(&mut self, hash: u64, number: u64, is_stored: bool) -> Result<(), Passed> {
        let is_passed =
            number < self.drained || self.slots.iter().any(|slot| slot.hash == hash && slot.number > number);
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.number == number) else {
            return Err(Passed::Late);
        };
        if slot.overtaken || (slot.done && is_passed && is_stored) {
            return Err(Passed::Overtaken);
        }
        if slot.done && is_passed {
            return Err(Passed::Late);
        }
        slot.done = false;
        Ok(())
    }

    /// The store is to be written in one of its places; nothing if earlier writes come first.
    pub(super) fn enter_place(
        &mut self,
        hash: u64,
        number: u64,
        is_stored: bool,
    ) -> Option<Result<(), Passed>> {
        if !self.is_first(hash, number) {
            return None;
        }
        let entered = self.enter_again(hash, number, is_stored);
        if entered.is_ok()
            && let Some(slot) = self.slots.iter_mut().find(|slot| slot.number == number)
        {
            slot.active += 1;
        }
        Some(entered)
    }

    /// One place has been left. Who comes later goes on when the store has what the write brought, and no place is being
    /// written. Otherwise the write goes on in another place, or ends.
    pub(super) fn leave_place(&mut self, hash: u64, number: u64, is_stored: bool) -> Option<Woken> {
        let slot = self.slots.iter_mut().find(|slot| slot.number == number)?;
        slot.active -= 1;
        slot.done = is_stored && slot.active == 0;
        if slot.done { self.wake(hash) } else { None }
    }

    /// The write with this slot is stored: what earlier ones failed to do does not matter any more.
    pub(super) fn overtake(&mut self, hash: u64, number: u64) {
        let earlier = self.slots.iter_mut().filter(|slot| slot.hash == hash && slot.number < number);
        earlier.for_each(|slot| slot.overtaken = true);
    }

    /// The write with this slot ends. Says who is to be woken.
    #[inline]
    pub(super) fn leave(&mut self, hash: u64, number: u64) -> Option<Woken> {
        self.generation += 1;
        // As a rule nobody else is here.
        if let [alone] = &*self.slots
            && alone.number == number
            && self.permits.is_empty()
            && self.draining.is_empty()
        {
            self.slots.clear();
            return None;
        }
        let at = self.slots.iter().position(|slot| slot.number == number)?;
        let slot = self.slots.swap_remove(at);
        if slot.kind == WriteKind::Change && !self.permits.is_empty() {
            self.permits.retain(|permit| permit.hash != hash || !permit.late);
        }
        self.wake(hash)
    }

    /// Who waits behind a slot of this key that is done or gone.
    #[inline]
    pub(super) fn wake(&mut self, hash: u64) -> Option<Woken> {
        let waits = |slot: &Slot| slot.hash == hash && !slot.done;
        if self.draining.is_empty() && !self.slots.iter().any(waits) {
            return None;
        }
        Some(self.waiting(hash))
    }

    #[cold]
    fn waiting(&mut self, hash: u64) -> Woken {
        let waiting = self.slots.iter_mut().filter(|slot| slot.hash == hash && !slot.done);
        let next = waiting.min_by_key(|slot| slot.number).map(|slot| std::mem::take(&mut slot.wakers));
        next.into_iter().flatten().chain(self.draining.drain(..)).collect()
    }
}

/// Who is to be woken when the stripe is not locked any more.
pub(super) type Woken = SmallVec<[Waker; 2]>;
