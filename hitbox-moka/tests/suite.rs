//! The behaviour suite over this leaf, alone and in compositions.

use hitbox_moka::MokaBackend;
use hitbox_testkit::{World, factory};

hitbox_testkit::suite_tests! {
    factory(|world: World| async move { MokaBackend::builder().clock(world.shared_clock()).build().expect("moka") })
}
