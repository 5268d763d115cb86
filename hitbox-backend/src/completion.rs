//! What a call answers with: at once, or later.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use hitbox_core::BoxFuture;
use smallvec::SmallVec;

/// The result of a call, or the future that brings it. Memory answers at once, and then nothing is boxed.
///
/// It is a future itself: `.await` it. A call that is `Done` has taken effect. What dropping a `Later` leaves behind is said
/// by each method.
pub enum Completion<'a, T> {
    /// The call has ended.
    Done(T),
    /// The call has to wait.
    Later(BoxFuture<'a, T>),
    /// Awaited to its end. Another poll stays pending.
    Taken,
}

impl<'a, T> Completion<'a, T> {
    /// A call that has to wait.
    pub fn later(work: impl Future<Output = T> + Send + 'a) -> Self {
        Self::Later(Box::pin(work))
    }

    /// The same call with another result.
    pub fn map<U>(self, change: impl FnOnce(T) -> U + Send + 'a) -> Completion<'a, U>
    where
        T: Send + 'a,
    {
        match self {
            Self::Done(result) => Completion::Done(change(result)),
            Self::Later(work) => Completion::later(async move { change(work.await) }),
            Self::Taken => Completion::Taken,
        }
    }
}

// The result is moved out and never pinned.
impl<T> Unpin for Completion<'_, T> {}

impl<T> Future for Completion<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Self::Later(work) = &mut *self {
            return work.as_mut().poll(cx);
        }
        match std::mem::replace(&mut *self, Self::Taken) {
            Self::Done(result) => Poll::Ready(result),
            _ => Poll::Pending,
        }
    }
}

impl<'a, T> From<BoxFuture<'a, T>> for Completion<'a, T> {
    fn from(work: BoxFuture<'a, T>) -> Self {
        Self::Later(work)
    }
}

impl<T: fmt::Debug> fmt::Debug for Completion<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(result) => f.debug_tuple("Done").field(result).finish(),
            Self::Later(_) => f.write_str("Later"),
            Self::Taken => f.write_str("Taken"),
        }
    }
}

/// One item or several, in order: calls for one key and batches are the same call. One item needs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<T>(SmallVec<[T; 1]>);

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<T> Batch<T> {
    /// One item.
    #[inline]
    pub fn one(item: T) -> Self {
        Self(SmallVec::from([item]))
    }

    /// No item yet, with room for so many.
    pub fn with_capacity(items: usize) -> Self {
        Self(SmallVec::with_capacity(items))
    }

    /// Adds an item at the end.
    pub fn push(&mut self, item: T) {
        self.0.push(item);
    }

    /// Adds items at the end.
    pub fn extend(&mut self, items: impl IntoIterator<Item = T>) {
        self.0.extend(items);
    }

    /// The only item; of several the last.
    #[inline]
    pub fn into_one(mut self) -> Option<T> {
        self.0.pop()
    }

    /// The items.
    pub fn into_vec(self) -> Vec<T> {
        self.0.into_vec()
    }
}

impl<T> Deref for Batch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Batch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T> From<Vec<T>> for Batch<T> {
    fn from(items: Vec<T>) -> Self {
        Self(SmallVec::from_vec(items))
    }
}

impl<T> FromIterator<T> for Batch<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = T;
    type IntoIter = IntoItems<T>;

    fn into_iter(self) -> IntoItems<T> {
        IntoItems(self.0.into_iter())
    }
}

impl<'b, T> IntoIterator for &'b Batch<T> {
    type Item = &'b T;
    type IntoIter = std::slice::Iter<'b, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The items of a [`Batch`].
#[derive(Debug)]
pub struct IntoItems<T>(smallvec::IntoIter<[T; 1]>);

impl<T> Iterator for IntoItems<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<T> ExactSizeIterator for IntoItems<T> {}
