//! Who of this process has which folder: a store whose handles are gone may have writes under way that were given
//! up, and whoever opens its folder waits for them instead of being refused.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// What the lock of a folder is.
type Id = (u64, u64);

static CLAIMS: Mutex<BTreeMap<Id, Holder>> = Mutex::new(BTreeMap::new());

fn claims() -> MutexGuard<'static, BTreeMap<Id, Holder>> {
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id(lock: &File) -> io::Result<Id> {
    let metadata = lock.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Set when nobody has a handle any more.
pub(crate) type GivenUp = Arc<AtomicBool>;

/// A store of this process that has a folder.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    given_up: GivenUp,
    released: watch::Receiver<()>,
}

impl Holder {
    /// Whether nobody has a handle any more: it goes as soon as what it has under way is done.
    pub(crate) fn is_ending(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Waits until the folder is free.
    pub(crate) async fn released(mut self) {
        // That the sender goes with the claim ends the wait too.
        let _ = self.released.changed().await;
    }
}

/// What came of taking a lock.
#[derive(Debug)]
pub(crate) enum Taking {
    Taken(Claim),
    /// A store of this process has it.
    Held(Holder),
    /// Another process has it.
    InUse,
}

/// The right to a folder. It goes after the lock.
#[derive(Debug)]
pub(crate) struct Claim {
    id: Mutex<Id>,
    given_up: GivenUp,
    released: watch::Sender<()>,
}

impl Claim {
    /// Takes a lock together with the right, so that nobody sees the one without the other.
    pub(crate) fn take(lock: &File, given_up: &GivenUp) -> io::Result<Taking> {
        let id = id(lock)?;
        let mut claims = claims();
        match (lock.try_lock(), claims.get(&id)) {
            (Ok(()), _) => {}
            (Err(TryLockError::Error(error)), _) => return Err(error),
            (Err(TryLockError::WouldBlock), Some(holder)) => return Ok(Taking::Held(holder.clone())),
            (Err(TryLockError::WouldBlock), _) => return Ok(Taking::InUse),
        }
        let claim = Self { id: Mutex::new(id), given_up: given_up.clone(), released: watch::Sender::new(()) };
        claims.insert(id, claim.holder());
        Ok(Taking::Taken(claim))
    }

    /// The same for the new lock of a folder that this has; says whether nobody else has it.
    pub(crate) fn take_again(&self, lock: &File) -> io::Result<bool> {
        let new = id(lock)?;
        {
            let mut claims = claims();
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(false),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            claims.insert(new, self.holder());
        }
        self.leave();
        *self.id() = new;
        Ok(true)
    }

    pub(crate) fn holder(&self) -> Holder {
        Holder { given_up: self.given_up.clone(), released: self.released.subscribe() }
    }

    /// The folder is free, though the store is still there.
    pub(crate) fn release(&self) {
        self.leave();
        self.released.send_replace(());
    }

    fn id(&self) -> MutexGuard<'_, Id> {
        self.id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self) {
        let id = *self.id();
        let mut claims = claims();
        // The next store may have it already.
        if claims.get(&id).is_some_and(|holder| Arc::ptr_eq(&holder.given_up, &self.given_up)) {
            claims.remove(&id);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Says that nobody has a handle any more, when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Handle(pub(crate) GivenUp);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
