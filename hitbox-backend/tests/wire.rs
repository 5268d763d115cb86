//! The wire format: every flip of a bit is detected, and no input makes the parser panic.

use bytes::Bytes;
use hitbox_backend::envelope::wire::{self, Record};
use hitbox_backend::{Codec, Encodings, Raw};
use hitbox_core::{CacheKey, CacheValue, Details, Epoch, Lifetime, Scope, ScopeKind, Timestamp};

fn record(key: &CacheKey) -> Vec<u8> {
    let mut details = Details::default();
    details.version = Some(9);
    details.metadata.insert("content-type".to_owned(), "text/plain".to_owned());
    details.scopes.push(Scope { kind: ScopeKind::Tag, name: "tag".into(), epoch: Epoch(7) });
    let encoded = Raw::live("a value of some length".to_owned())
        .to_encoded(&Codec::default(), None, &Encodings::default(), None)
        .expect("a text can be encoded");
    let value = CacheValue::new(Raw::encoded(encoded.clone(), None))
        .with_lifetime(Lifetime::new(Some(Timestamp::from_millis(1)), Some(Timestamp::from_millis(2)), None))
        .with_details(details);
    wire::encode(key, &value, &encoded)
}

fn is_value(key: &CacheKey, bytes: Vec<u8>) -> bool {
    matches!(wire::decode(key, &Bytes::from(bytes), &Codec::default(), None), Record::Value(_))
}

#[test]
fn every_flip_of_a_bit_is_detected() {
    let key = CacheKey::new("k");
    let record = record(&key);
    assert!(is_value(&key, record.clone()));
    for bit in 0..record.len() * 8 {
        let mut flipped = record.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_value(&key, flipped), "bit {bit}");
    }
    for length in 0..record.len() {
        assert!(!is_value(&key, record[..length].to_vec()), "cut at {length}");
    }
}

#[test]
fn a_million_mutated_inputs_never_panic() {
    let key = CacheKey::new("k");
    let record = record(&key);
    // A generator of its own (xorshift64*, Vigna 2016), so that the inputs are the same everywhere.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    };
    let mut values = 0_u32;
    for _ in 0..1_000_000 {
        let mut input = record.clone();
        for _ in 0..1 + random() % 8 {
            let at = random() as usize % input.len();
            match random() % 4 {
                0 => input[at] ^= 1 << (random() % 8),
                1 => input[at] = random() as u8,
                2 => input[at..].fill(0xff),
                _ => input.truncate(at.max(1)),
            }
        }
        values += u32::from(input != record && is_value(&key, input));
    }
    assert_eq!(values, 0, "a mutated record was taken for a value");
}
