//! rkyv archives of any serde value.
//!
//! rkyv archives types of its own derive; values here are only known to be serde types. So the value
//! becomes a tree of CBOR's data model (RFC 8949), which is archived. Archives are validated before they
//! are read, and nesting is bounded.

use std::num::NonZeroUsize;

use ciborium::Value;
use ciborium::value::Integer;
use rkyv::de::Pool;
use rkyv::rancor::{Error, Source};
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;
use rkyv::{Archive, Deserialize, Serialize};
use serde::de::DeserializeOwned;

use super::strict::{NestedOptions, Rules, StrictDeserializer};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Deeper trees are refused, so that no input exhausts the stack.
const MAX_DEPTH: usize = 128;

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: Source))]
#[rkyv(deserialize_bounds(__D::Error: Source))]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: Source)))]
enum Node {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Bytes(Vec<u8>),
    Text(String),
    Array(#[rkyv(omit_bounds)] Vec<Node>),
    Map(#[rkyv(omit_bounds)] Vec<Node>, #[rkyv(omit_bounds)] Vec<Node>),
    Tag(u64, #[rkyv(omit_bounds)] Vec<Node>),
}

pub(super) fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, BoxError> {
    let tree = to_node(Value::serialized(value)?, MAX_DEPTH)?;
    Ok(rkyv::to_bytes::<Error>(&tree)?.into_vec())
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BoxError> {
    let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    let depth = NonZeroUsize::new(4 * MAX_DEPTH);
    let mut validator =
        Validator::new(ArchiveValidator::with_max_depth(&aligned, depth), SharedValidator::new());
    let archived = rkyv::api::access_with_context::<ArchivedNode, _, Error>(&aligned, &mut validator)?;
    let tree = rkyv::api::deserialize_using::<Node, _, Error>(archived, &mut Pool::new())?;
    // A tree that is read directly may have more parts than its type, which nobody would notice.
    let mut flat = Vec::with_capacity(bytes.len());
    ciborium::into_writer(&to_value(tree)?, &mut flat)?;
    let mut rest = &flat[..];
    let Read(value) = ciborium::from_reader(&mut rest)?;
    if rest.is_empty() { Ok(value) } else { Err("the archive has more parts than the type".into()) }
}

struct Read<T>(T);

impl<'de, T: DeserializeOwned> serde::Deserialize<'de> for Read<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let strict = Rules::new(NestedOptions::Refused).reading();
        T::deserialize(StrictDeserializer::new(deserializer, strict)).map(Self)
    }
}

fn to_node(value: Value, depth: usize) -> Result<Node, BoxError> {
    let depth = depth.checked_sub(1).ok_or("the value is nested too deeply")?;
    Ok(match value {
        Value::Null => Node::Null,
        Value::Bool(value) => Node::Bool(value),
        Value::Integer(value) => Node::Integer(value.into()),
        Value::Float(value) => Node::Float(value),
        Value::Bytes(value) => Node::Bytes(value),
        Value::Text(value) => Node::Text(value),
        Value::Array(items) => {
            Node::Array(items.into_iter().map(|v| to_node(v, depth)).collect::<Result<_, _>>()?)
        }
        Value::Map(pairs) => {
            let (keys, values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let nodes =
                |items: Vec<Value>| items.into_iter().map(|v| to_node(v, depth)).collect::<Result<_, _>>();
            Node::Map(nodes(keys)?, nodes(values)?)
        }
        Value::Tag(tag, value) => Node::Tag(tag, vec![to_node(*value, depth)?]),
        _ => return Err("the value has a part that cannot be archived".into()),
    })
}

fn to_value(node: Node) -> Result<Value, BoxError> {
    let values = |nodes: Vec<Node>| nodes.into_iter().map(to_value).collect::<Result<Vec<_>, _>>();
    Ok(match node {
        Node::Null => Value::Null,
        Node::Bool(value) => Value::Bool(value),
        Node::Integer(value) => Value::Integer(Integer::try_from(value)?),
        Node::Float(value) => Value::Float(value),
        Node::Bytes(value) => Value::Bytes(value),
        Node::Text(value) => Value::Text(value),
        Node::Array(items) => Value::Array(values(items)?),
        Node::Map(keys, items) => Value::Map(values(keys)?.into_iter().zip(values(items)?).collect()),
        Node::Tag(tag, mut inner) => {
            let inner = inner.pop().ok_or("a tag without a value")?;
            Value::Tag(tag, Box::new(to_value(inner)?))
        }
    })
}
