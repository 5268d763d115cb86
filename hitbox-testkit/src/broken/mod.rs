//! Backends and policies that are wrong on purpose, each in the way of a real mistake: what the suite must
//! reject.

mod bodies;
mod files;
mod lapse;
mod leaf;
mod naive;
mod offload;
mod policy;
mod rewrites;

use std::sync::Arc;

use hitbox_backend::Backend;

use crate::{Factory, Setup, Subject, World, factory};

pub use bodies::{BodyDefect, BodyDefective};
pub use files::NakedFiles;
pub use lapse::{Lapse, Lapsed, PlainMap};
pub use leaf::{Defect, Defective};
pub use naive::Naive;
pub use offload::{LeaksSubjects, SpawnsEverything};
pub use policy::{AsksBoth, FirstAnswer, GoesOn, L1First, NeverAsks, PrefersL1, SwallowsErrors};
pub use rewrites::Rewrites;

/// A leaf with a defect.
pub fn leaf(defect: Defect) -> Factory {
    factory(move |world: World| async move { Defective::new(defect, world.shared_clock()) })
}

/// A leaf without one.
pub fn sound() -> Factory {
    factory(|world: World| async move { crate::MemoryBackend::new(world.shared_clock()) })
}

/// A defective leaf as a subject of its own.
pub fn alone(defect: Defect) -> Subject {
    Subject::leaf(&format!("{defect:?}"), leaf(defect))
}

/// A defective leaf over a sound one.
pub fn upper(defect: Defect) -> Subject {
    Subject::pair(&format!("{defect:?} over sound"), &leaf(defect), &sound())
}

/// A defective leaf below a sound one.
pub fn lower(defect: Defect) -> Subject {
    Subject::pair(&format!("sound over {defect:?}"), &sound(), &leaf(defect))
}

/// A leaf with a lapse.
pub fn lapsed(lapse: Lapse) -> Factory {
    factory(move |world: World| async move { Lapsed::new(lapse, world.shared_clock()) })
}

/// A leaf with a lapse as a subject of its own.
pub fn lapsed_alone(lapse: Lapse) -> Subject {
    Subject::leaf(&format!("{lapse:?}"), lapsed(lapse))
}

/// A leaf with a lapse over a sound one.
pub fn lapsed_upper(lapse: Lapse) -> Subject {
    Subject::pair(&format!("{lapse:?} over sound"), &lapsed(lapse), &sound())
}

/// A leaf with a lapse below a sound one.
pub fn lapsed_lower(lapse: Lapse) -> Subject {
    Subject::pair(&format!("sound over {lapse:?}"), &sound(), &lapsed(lapse))
}

/// A sound leaf whose bodies have a defect.
pub fn bodies(defect: BodyDefect) -> Subject {
    let make = factory(move |world: World| async move {
        let sound: Arc<dyn Backend> = Arc::new(crate::MemoryBackend::new(world.shared_clock()));
        BodyDefective::new(sound, defect)
    });
    Subject::leaf(&format!("{defect:?}"), make)
}

/// A composition of sound layers whose bodies have a defect.
pub fn composed_bodies(defect: BodyDefect) -> Subject {
    let right = Subject::pair("", &sound(), &sound()).composer;
    let composer = Arc::new(move |l1, l2, world: &World, setup: Setup| {
        Arc::new(BodyDefective::new(right(l1, l2, world, setup), defect)) as Arc<dyn Backend>
    });
    Subject::composed_by(&format!("{defect:?}"), &sound(), &sound(), composer)
}

/// Sound layers, composed by a first attempt.
pub fn naive() -> Subject {
    let composer = Arc::new(|l1, l2, world: &World, setup: Setup| {
        Arc::new(Naive::new(l1, l2, setup.label, world.pool.shared())) as Arc<dyn Backend>
    });
    Subject::composed_by("naive composition", &sound(), &sound(), composer)
}

/// Sound layers under a setup that is changed behind the check's back.
pub fn with_setup(name: &str, change: impl Fn(Setup) -> Setup + Send + Sync + 'static) -> Subject {
    let right = Subject::pair(name, &sound(), &sound()).composer;
    let composer = Arc::new(move |l1, l2, world: &World, setup: Setup| right(l1, l2, world, change(setup)));
    Subject::composed_by(name, &sound(), &sound(), composer)
}
