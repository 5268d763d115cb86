//! The wire format: every flip of a bit is detected, and no input makes the parser panic.

use bytes::Bytes;
use hitbox_backend::envelope::Encodings;
use hitbox_backend::envelope::wire::{self, Record};
use hitbox_backend::{Codec, Raw};
use hitbox_core::{CacheKey, CacheValue, Details, Epoch, Lifetime, Scope, ScopeKind, Timestamp};

fn record(key: &CacheKey) -> Vec<u8> {
    let mut details = Details::default();
    details.version = Some(9);
    details.metadata.insert("content-type".to_owned(), "text/plain".into());
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

/// Parses, and says how many bytes were allocated meanwhile at the most.
fn parse(key: &CacheKey, bytes: &Bytes) -> (bool, u64) {
    let mut is_value = false;
    let allocated = allocation_counter::measure(|| {
        let record = wire::decode(key, bytes, &Codec::default(), None);
        is_value = matches!(record, Record::Value(_));
    });
    (is_value, allocated.bytes_max)
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
    let mut sealed_values = 0_u32;
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
        let changed = input != record;
        // Half of them get the right checksum, so that what lies behind it is met too.
        let sealed = random() % 2 == 0 && input.len() >= wire::HEADER_BYTES;
        if sealed {
            wire::seal(&mut input);
        }
        let input = Bytes::from(input);
        let (is_value, allocated) = parse(&key, &input);
        assert!(sealed || !changed || !is_value, "a mutated record was taken for a value");
        assert!(allocated <= input.len() as u64 + (1 << 20), "{allocated} bytes for {}", input.len());
        sealed_values += u32::from(sealed && is_value);
    }
    assert!(sealed_values > 1_000, "only {sealed_values} inputs came past the checksum");
}

#[test]
fn attributes_that_fill_their_bound_allocate_within_theirs() {
    let key = CacheKey::new("k");
    let mut details = Details::default();
    let mut limit = wire::MAX_ATTRIBUTES_BYTES as usize - 8;
    // The worst for whoever reads them: many, small and different.
    for number in 0.. {
        let name = format!("{number:x}");
        let Some(left) = limit.checked_sub(8 + name.len()) else { break };
        limit = left;
        details.metadata.insert(name, Bytes::new());
    }
    let encoded = Raw::live(1_u64)
        .to_encoded(&Codec::default(), None, &Encodings::default(), None)
        .expect("a number can be encoded");
    let value = CacheValue::new(Raw::encoded(encoded.clone(), None)).with_details(details);
    let bytes = Bytes::from(wire::encode(&key, &value, &encoded));
    let (is_value, allocated) = parse(&key, &bytes);
    assert!(is_value && allocated <= bytes.len() as u64 + (1 << 20), "{is_value}, {allocated} bytes");
}

#[tokio::test]
async fn longer_attributes_are_refused() {
    use hitbox_backend::{CacheBackend, IntoBackend, doc::Map};
    let mut details = Details::default();
    details.metadata.insert("remark".to_owned(), "x".repeat(wire::MAX_ATTRIBUTES_BYTES as usize).into());
    let value = CacheValue::new(1_u64).with_details(details);
    let mut context = hitbox_core::CacheContext::new();
    let refused = Map::default()
        .into_backend()
        .set(&CacheKey::new("k"), value, &mut context)
        .await
        .expect_err("too long");
    assert_eq!(refused.kind(), hitbox_core::ErrorKind::TooLarge);
    assert!(refused.to_string().contains("65536"), "{refused}");
}
