//! What the formats cost for a small value, and how many bytes it takes in each.

use std::hint::black_box;

use hitbox_backend::Format;

use crate::measure::{Measure, Subject};
use crate::payload::{Small, small};

const FORMATS: [(&str, Format); 5] = [
    ("MessagePack", Format::MessagePack),
    ("JSON", Format::Json),
    ("postcard", Format::Postcard),
    ("bitcode", Format::Bitcode),
    ("rkyv", Format::Rkyv),
];

fn encoded(format: Format) -> Vec<u8> {
    format.encode(&*small(1)).expect("it can be encoded")
}

/// The default first: it is the reference.
fn subject(name: &'static str, title: &'static str, operation: impl Fn(Format) + Copy + 'static) -> Subject {
    FORMATS.iter().fold(Subject::new(name, title, Measure::Instructions), |subject, (name, format)| {
        let (format, name) = (*format, format!("{name}, {} B", encoded(*format).len()));
        subject.operation(&name, move |env| env.repeat((), async move |(), _| operation(format)))
    })
}

pub(super) fn encode() -> Subject {
    subject("encode", "Encoding a small value", |format| drop(black_box(encoded(format))))
}

pub(super) fn decode() -> Subject {
    let values = FORMATS.map(|(_, format)| (format.id(), encoded(format)));
    let values: &'static [(u16, Vec<u8>)] = Box::leak(Box::new(values));
    subject("decode", "Decoding a small value", move |format| {
        let bytes = values.iter().find(|(id, _)| *id == format.id()).map(|(_, bytes)| bytes);
        let value: Small = format.decode(bytes.expect("its bytes")).expect("it can be decoded");
        drop(black_box(value));
    })
}
