//! Tables: fields as short text, and a comparison that names each row that is wrong.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use hitbox_core::Timestamp;
use hitbox_http::StoredHead;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

/// When responses of the tables come: 14 Nov 2023, 22:13:20 GMT.
pub(crate) const CAME: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// So many seconds.
pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many seconds after responses came, or before if they are negative.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(CAME.as_millis().saturating_add_signed(seconds * 1000))
}

/// The date so many seconds after responses came.
pub(crate) fn date(seconds: i64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(at(seconds).as_millis()))
}

/// Fields from `name: value | name: value`. A value like `@-60` is the date 60 seconds before responses came.
pub(crate) fn fields(text: &str) -> HeaderMap {
    let lines = text.split('|').map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a name and a value");
            let name = HeaderName::from_bytes(name.trim().as_bytes()).expect("a name");
            let value = value.trim();
            let value = match value.strip_prefix('@').map(str::parse) {
                Some(Ok(seconds)) => date(seconds),
                _ => value.to_owned(),
            };
            (name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
        })
        .fold(HeaderMap::new(), |mut fields, (name, value)| {
            fields.append(name, value);
            fields
        })
}

/// Fields as text: one `name: value` each, by name, those of a name in their order.
pub(crate) fn lines(fields: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    let mut lines: Vec<String> = fields.iter().map(line).collect();
    lines.sort_by(|one, other| one.split(':').next().cmp(&other.split(':').next()));
    lines
}

/// A response with these fields that was asked for and came at once.
pub(crate) fn stored(text: &str) -> StoredHead {
    stored_as(200, text)
}

/// The same with another status.
pub(crate) fn stored_as(code: u16, text: &str) -> StoredHead {
    StoredHead::new(status(code), fields(text), CAME, CAME)
}

/// A status.
pub(crate) fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("a status")
}

/// A URI.
pub(crate) fn uri(text: &str) -> Uri {
    text.parse().expect("a URI")
}

/// A value with a change.
pub(crate) fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

/// Compares what came with what was expected, of all rows, and names each that differs.
pub(crate) fn check<N: Debug, T: PartialEq + Debug>(rows: impl IntoIterator<Item = (N, T, T)>) {
    let mut wrong = Vec::new();
    for (name, came, expected) in rows {
        if came != expected {
            wrong.push(format!("{name:?}\n    came     {came:?}\n    expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows are wrong:\n  {}", wrong.len(), wrong.join("\n  "));
}
