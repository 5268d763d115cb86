//! A union is no key.

use hitbox::ToKey;

#[derive(ToKey)]
union Bits {
    number: u32,
    float: f32,
}

fn main() {}
