//! Keys: one encoding, one hash, cheap clones.

use std::cell::Cell;
use std::fmt;

use hitbox_core::CacheKey;

/// Counts how often it is rendered.
struct Rendered<'a>(&'a Cell<u32>);

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.set(self.0.get() + 1);
        f.write_str("value")
    }
}

#[test]
fn key_02_encoded_and_hashed_once_and_shared_by_clones() {
    let rendered = Cell::new(0);
    let key = CacheKey::builder("k").part("p", Rendered(&rendered)).build();
    assert_eq!(rendered.get(), 1);
    let clones: Vec<CacheKey> = (0..100).map(|_| key.clone()).collect();
    for clone in &clones {
        assert_eq!(clone.process_hash(), key.process_hash());
        // A clone shares the encoding: it is the same memory.
        assert!(std::ptr::eq(clone.as_encoded(), key.as_encoded()));
    }
    assert_eq!(rendered.get(), 1);
}

#[test]
fn an_encoding_is_read_back_and_anything_else_is_refused() {
    let key = CacheKey::builder("k").version(3).part("a", "ä").flag("b").build().in_namespace("n/m");
    assert_eq!(CacheKey::from_encoded(key.as_encoded()).as_ref(), Ok(&key));
    for length in 0..key.as_encoded().len() {
        let cut = CacheKey::from_encoded(&key.as_encoded()[..length]);
        // A prefix is a key only if it ends between two parts.
        assert!(cut.is_err() || cut.is_ok_and(|cut| cut != key));
    }
    assert!(CacheKey::from_encoded(b"\x07nonsense").is_err());
}
