//! Two backends as one. What is cut apart: the two layers ([`Layer`], [`Pair`]), what a policy may see of
//! them ([`attempts`]), the order in which they are asked ([`policy`]), how their answers are joined
//! ([`outcome`]), and how the upper is filled from the lower ([`refill`]).

pub(crate) mod attempts;
mod backend;
mod builder;
mod detached;
mod layer;
mod outcome;
mod parts;
pub mod policy;
mod refill;
mod repair;
mod runs;

pub use attempts::{Answers, ReadAttempts, TryAnswer, TryAttempts, WriteAttempts, Written};
pub use backend::CompositionBackend;
pub use builder::{Compose, CompositionPolicy};
pub use layer::{Layer, Pair, Requirement};
pub use refill::RefillPolicy;
