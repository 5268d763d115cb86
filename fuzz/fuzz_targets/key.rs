//! Keys as stores render them, and patterns over them: any input is a key or none, and every key is read back.

#![no_main]

use hitbox_core::{CacheKey, KeyPattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (pattern, key) = input.split_at(input.len() / 2);
    for key in [CacheKey::from_text(key), CacheKey::from_encoded(key).ok()].into_iter().flatten() {
        let mut text = Vec::new();
        key.write_text(&mut text);
        assert_eq!(CacheKey::from_text(&text), Some(key.clone()));
        assert_eq!(KeyPattern::prefix(&key).matches(&key), !key.is_reserved());
        let pattern = KeyPattern::glob(&String::from_utf8_lossy(pattern));
        let _ = pattern.matches(&key);
        assert!(key.is_reserved() || !key.namespace().is_empty() || KeyPattern::glob("**").matches(&key));
    }
});
