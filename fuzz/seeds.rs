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
use hitbox_http::StoredHead;
use http::{HeaderMap, HeaderValue, StatusCode, header};

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

/// A name, a URI, and the fields of a request and of a response: what the target of HTTP reads.
const EXCHANGES: &[(&str, &str, &str, &str)] = &[
    ("plain", "http://a/b?d=1", "accept: */*\n", "cache-control: max-age=60\nage: 5\n"),
    (
        "requests",
        "/b",
        "host: a\ncache-control: max-stale=5, min-fresh=1, max-age=9\npragma: no-cache\n",
        "cache-control: max-age=5\n",
    ),
    (
        "stale",
        "http://a/",
        "cache-control: stale-if-error=9\n",
        "cache-control: s-maxage=1, stale-while-revalidate=30, stale-if-error=60\nexpires: 0\n",
    ),
    (
        "named-fields",
        "http://a/",
        "authorization: x\n",
        "cache-control: private=\"x-a, x-b\", no-cache=\"set-cookie\", must-understand, public\nconnection: x-hop\nx-hop: 1\n",
    ),
    (
        "heuristic",
        "https://A:443/",
        "",
        "date: Tue, 14 Nov 2023 22:13:20 GMT\nlast-modified: Tue Nov 14 20:13:20 2023\nexpires: Tuesday, 14-Nov-23 22:14:20 GMT\n",
    ),
    (
        "targeted",
        "http://a/",
        "",
        "cdn-cache-control: max-age=9;x=1, must-revalidate\nsurrogate-control: max-age=60+30;hitbox, no-store;other\n",
    ),
    (
        "vary",
        "http://a/",
        "accept: a , b\naccept: \"c , d\"\naccept-language: DE, en\ncookie: a=1; c=2\n",
        "vary: Accept , accept-language\nvary: cookie\n",
    ),
    (
        "tags",
        "http://a/",
        "if-none-match: W/\"a\", \"b,c\", *\nif-modified-since: Tue, 14 Nov 2023 22:13:20 GMT\n",
        "etag: W/\"b,c\"\nlast-modified: Tue, 14 Nov 2023 22:13:20 GMT\n",
    ),
    ("range", "http://a/", "range: bytes=2-5\nif-range: \"a\"\n", "etag: \"a\"\n"),
    (
        "range-at-the-end",
        "http://a/",
        "range: bytes=-3\nif-range: Tue, 14 Nov 2023 20:13:20 GMT\n",
        "date: Tue, 14 Nov 2023 22:13:20 GMT\nlast-modified: Tue, 14 Nov 2023 20:13:20 GMT\n",
    ),
    (
        "references",
        "http://a:80/b/c/d;p?q",
        "host: a\n",
        "location: ../x/./y?z#f\ncontent-location: http://A/x\n",
    ),
    (
        "groups",
        "http://a/?d=1&e=2&d=3&f",
        "",
        "cache-groups: \"a\", \"b\";x=1\ncache-group-invalidation: \"c\"\n",
    ),
];

/// Writes what the target of HTTP starts from: exchanges, and a stored head.
fn exchanges(write: impl Fn(&str, &str, &[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    for (name, uri, request, response) in EXCHANGES {
        // A status of 200, some seconds later, of a body of ten bytes.
        let chosen = [200, 0, 7, 0, 0, 10, 0, 0];
        let text = format!("{uri}\n{request}\n{response}");
        write("http", name, &[&chosen[..], text.as_bytes()].concat())?;
    }
    let mut headers = HeaderMap::new();
    headers.append(header::VARY, HeaderValue::from_static("accept"));
    headers.append(header::VARY, HeaderValue::from_static("cookie"));
    headers.append(header::ETAG, HeaderValue::from_static("\"a\""));
    let times = [1_u64, 2].map(|n| Timestamp::from_millis(n << 40));
    write("http", "head", &StoredHead::new(StatusCode::OK, headers, times[0], times[1]).encode())
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
    exchanges(write)?;
    Ok(())
}
