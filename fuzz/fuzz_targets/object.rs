//! The files of the disk store: any input is a record, another's, newer or damaged.

#![no_main]

use hitbox_disk::object;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = object::decode(b"k", input.to_vec());
    // What was written is read.
    let (key, record) = input.split_at(input.len().min(3));
    let file = object::encode(key, record);
    assert_eq!(object::decode(key, file), object::Object::Record(record.to_vec().into()));
});
