//! Writes the seeds: what fuzzing starts from, so that it does not have to find the formats by itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hitbox_backend::envelope::{Encodings, Raw};
use hitbox_backend::{Codec, Compressor, Format};
use hitbox_core::{CacheKey, CacheValue, Details, Lifetime, Priority, RecordKind, Scope, Timestamp};
use hitbox_disk::object;
use hitbox_fuzz::Anything;

fn values() -> Vec<Anything> {
    let text = Anything::Text("seed".repeat(30));
    let map = [("a".to_owned(), Some(Anything::Number(7))), ("b".to_owned(), None)];
    vec![
        Anything::Number(1 << 40),
        text.clone(),
        Anything::List(vec![Anything::Number(1), text, Anything::Map(map.into_iter().collect())]),
    ]
}

fn details() -> Details {
    let mut details = Details::default();
    details.idle = Some(Duration::from_secs(9));
    details.load_time = Some(Duration::from_millis(3));
    details.version = Some(5);
    details.touched = Some(Timestamp::from_millis(1_700_000_000_000));
    details.priority = Priority::High;
    details.scopes = vec![Scope::tag("red"), Scope::dependency("row")];
    details.metadata = [("content-type".to_owned(), Bytes::from_static(b"text/plain"))].into_iter().collect();
    details
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let write = |target: &str, name: &str, seed: &[u8]| -> std::io::Result<()> {
        let folder = root.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), seed)
    };
    let key = CacheKey::new("k");
    let formats = [
        ("messagepack", Format::MessagePack),
        ("postcard", Format::Postcard),
        ("json", Format::Json),
        ("bitcode", Format::Bitcode),
    ];
    for (name, format) in formats {
        for (number, value) in values().into_iter().enumerate() {
            for (packed, compressor) in
                [("plain", Compressor::None), ("gzip", Compressor::Gzip(1)), ("zstd", Compressor::Zstd(1))]
            {
                let mut codec = Codec::default();
                (codec.format, codec.compressor) = (format, compressor);
                let entry = CacheValue::new(Raw::live(value.clone()));
                let encoded = entry.data().to_encoded(&codec, None, &Encodings::default(), None)?;
                let mut entry = entry.map(|_| Raw::encoded(encoded, None));
                if number == 1 {
                    let times = [1_u64, 2, 3].map(|n| Some(Timestamp::from_millis(n << 40)));
                    entry = entry
                        .with_lifetime(Lifetime::new(times[0], times[1], times[2]))
                        .with_details(details());
                }
                if number == 2 {
                    let mut details = details();
                    details.kind = RecordKind::Absent;
                    entry = entry.with_details(details);
                }
                let record = Raw::to_record(&key, &entry)?;
                let name = format!("{name}-{packed}-{number}");
                write("wire", &name, &record)?;
                if name.starts_with("messagepack-plain") {
                    write("start", &name, &record)?;
                    write("object", &name, &object::encode(b"k", &record))?;
                }
            }
        }
    }
    for (name, key) in [
        ("plain", CacheKey::builder("user").part("id", 7).build()),
        ("version", CacheKey::builder("user").version(12).part("name", "a:b/c=d%").build()),
        ("namespace", CacheKey::builder("k").part("n", 1).build().in_namespace("a/b").in_namespace("c")),
    ] {
        let mut text = Vec::new();
        key.write_text(&mut text);
        for (form, bytes) in [("text", text), ("binary", key.as_encoded().to_vec())] {
            let pattern = vec![b'*'; bytes.len()];
            write("key", &format!("{name}-{form}"), &[pattern, bytes].concat())?;
        }
    }
    Ok(())
}
