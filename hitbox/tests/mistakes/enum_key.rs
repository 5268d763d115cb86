//! An enum as a key.

#[derive(hitbox::ToKey)]
enum Key {
    One,
    Two,
}

fn main() {}
