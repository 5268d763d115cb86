//! What targets and seeds have in common.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A type with everything in it that formats differ in.
#[derive(Clone, Serialize, Deserialize)]
pub enum Anything {
    Number(u64),
    Text(String),
    List(Vec<Anything>),
    Map(BTreeMap<String, Option<Anything>>),
}
