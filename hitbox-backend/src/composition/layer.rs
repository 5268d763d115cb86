//! The two sides of a composition.

use std::ops::{Index, IndexMut};

/// One side of a composition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The upper layer, asked first.
    L1,
    /// The lower layer.
    L2,
}

impl Layer {
    /// Both, upper first.
    pub const BOTH: [Self; 2] = [Self::L1, Self::L2];

    /// The other side.
    pub const fn other(self) -> Self {
        match self {
            Self::L1 => Self::L2,
            Self::L2 => Self::L1,
        }
    }
}

/// Something for each layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair<T> {
    /// For the upper layer.
    pub l1: T,
    /// For the lower layer.
    pub l2: T,
}

impl<T> Pair<T> {
    /// Made for each layer, upper first.
    pub fn of(mut make: impl FnMut(Layer) -> T) -> Self {
        Self { l1: make(Layer::L1), l2: make(Layer::L2) }
    }
}

impl<T> Index<Layer> for Pair<T> {
    type Output = T;

    fn index(&self, layer: Layer) -> &T {
        match layer {
            Layer::L1 => &self.l1,
            Layer::L2 => &self.l2,
        }
    }
}

impl<T> IndexMut<Layer> for Pair<T> {
    fn index_mut(&mut self, layer: Layer) -> &mut T {
        match layer {
            Layer::L1 => &mut self.l1,
            Layer::L2 => &mut self.l2,
        }
    }
}

/// What the failure of a layer means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// Reads go on with the other layer; writes fail if the policy says so.
    #[default]
    ByPolicy,
    /// It is counted, and surfaces only if no layer succeeds.
    Optional,
    /// A write fails, and so does a read that no other layer answers with a hit.
    Required,
}
