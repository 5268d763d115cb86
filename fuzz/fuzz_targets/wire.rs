//! The wire format: any input gives a record or a reason, and any payload a value or an error.

#![no_main]

use bytes::Bytes;
use hitbox_backend::Codec;
use hitbox_backend::envelope::Inspection;
use hitbox_backend::envelope::wire::{self, Record};
use hitbox_core::{CacheKey, Timestamp};
use hitbox_fuzz::Anything;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let key = CacheKey::new("k");
    let mut record = input.to_vec();
    // As it is, and with the checksum and the digest of the key that let it come further.
    for sealed in [false, true] {
        if sealed {
            if record.len() < wire::HEADER_BYTES {
                return;
            }
            record[80..96].copy_from_slice(&wire::key_digest(&key).to_le_bytes());
            // It does not say of which type it is, and is read as any.
            record[128..136].fill(0);
            wire::seal(&mut record);
        }
        let _ = wire::peek_times(&record);
        let _ = wire::peek_for(&key, &record, 0);
        // A start that is not the whole says so, or how much more it needs.
        if let Some(Err(more)) = wire::peek(&record[..record.len() / 2]) {
            assert!(more > record.len() / 2);
        }
        if let Ok(inspection) = Inspection::of(&Bytes::from(record.clone()), Timestamp::from_millis(0)) {
            assert!(!inspection.to_string().contains('\u{1b}'));
        }
        if let Record::Value(value) =
            wire::decode(&key, &Bytes::from(record.clone()), &Codec::default(), None)
        {
            let _ = value.data().decode::<Anything>();
            let _ = value.data().decode::<Bytes>();
        }
    }
});
