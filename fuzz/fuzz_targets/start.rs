//! The start of a file of the disk store: any input is an entry without its value, newer or damaged.

#![no_main]

use hitbox_backend::envelope::wire;
use hitbox_disk::{is_start, object};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = is_start(input);
    // Behind a head that is right, and with a header whose checksum is.
    let mut record = input.to_vec();
    let _ = is_start(&object::encode(b"k", &record));
    wire::seal(&mut record);
    let start = object::encode(b"k", &record);
    let known = is_start(&start);
    let peeked = matches!(wire::peek(&record), Some(Ok(_)));
    assert_eq!(known, peeked, "the disk store and the envelope agree on what is understood");
});
