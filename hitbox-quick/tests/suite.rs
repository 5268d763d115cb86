//! The behaviour suite over this leaf, alone and in compositions.

use hitbox_quick::QuickBackend;
use hitbox_testkit::{World, factory};

hitbox_testkit::suite_tests! {
    factory(|world: World| async move { QuickBackend::builder().clock(world.shared_clock()).build().expect("quick") })
}
