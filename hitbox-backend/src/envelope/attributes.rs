//! The attributes of an entry on the wire: scopes and metadata.

use std::collections::BTreeMap;

use bytes::Bytes;
use hitbox_core::{Details, Epoch, Scope, ScopeKind};

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

pub(super) fn encode(details: &Details) -> Vec<u8> {
    if details.scopes.is_empty() && details.metadata.is_empty() {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(len(details) as usize);
    let put = |out: &mut Vec<u8>, text: &[u8]| {
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text);
    };
    out.extend_from_slice(&(details.scopes.len() as u32).to_le_bytes());
    for scope in &details.scopes {
        out.push(scope_id(scope.kind));
        put(&mut out, scope.name.as_bytes());
        out.extend_from_slice(&scope.epoch.0.to_le_bytes());
    }
    out.extend_from_slice(&(details.metadata.len() as u32).to_le_bytes());
    for (name, value) in &details.metadata {
        put(&mut out, name.as_bytes());
        put(&mut out, value);
    }
    out
}

/// Bytes of an entry's attributes on the wire.
pub(crate) fn len(details: &Details) -> u64 {
    let scopes = details.scopes.iter().map(|scope| 1 + 4 + scope.name.len() + 16);
    let metadata = details.metadata.iter().map(|(name, value)| 8 + name.len() + value.len());
    let items: usize = scopes.chain(metadata).sum();
    if details.scopes.is_empty() && details.metadata.is_empty() { 0 } else { 8 + items as u64 }
}

pub(super) type Attributes = (Vec<Scope>, BTreeMap<String, Bytes>);

/// Items are pushed as they are read: a count that promises more than there is reserves nothing.
pub(super) fn decode(bytes: &[u8]) -> Option<Attributes> {
    let mut attributes = Attributes::default();
    if bytes.is_empty() {
        return Some(attributes);
    }
    let mut rest = Reader(bytes);
    for _ in 0..rest.u32()? {
        let [kind] = rest.array()?;
        let kind = scope_of(kind)?;
        let name = rest.text()?.into();
        let epoch = Epoch(u128::from_le_bytes(rest.array()?));
        attributes.0.push(Scope { kind, name, epoch });
    }
    for _ in 0..rest.u32()? {
        let name = rest.text()?.to_owned();
        attributes.1.insert(name, Bytes::copy_from_slice(rest.bytes()?));
    }
    // Room for others, which a store has left.
    rest.0.iter().all(|byte| *byte == 0).then_some(attributes)
}

const SCOPES: [ScopeKind; 4] =
    [ScopeKind::Everything, ScopeKind::Namespace, ScopeKind::Tag, ScopeKind::Dependency];

fn scope_id(kind: ScopeKind) -> u8 {
    SCOPES.iter().position(|known| *known == kind).unwrap_or(0) as u8
}

fn scope_of(id: u8) -> Option<ScopeKind> {
    SCOPES.get(usize::from(id)).copied()
}
