//! What counts as another shape.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Shape;

macro_rules! shape {
    ($($item:item)*) => {{
        #[derive(Deserialize, Serialize)]
        $($item)*
        Shape::of::<Value>().fingerprint
    }};
}

#[test]
fn other_shapes_have_other_fingerprints() {
    let shapes = [
        shape!(
            struct Value {
                a: u32,
                b: u32,
            }
        ),
        shape!(
            struct Value {
                b: u32,
                a: u32,
            }
        ),
        shape!(
            struct Value {
                a: u32,
                b: i64,
            }
        ),
        shape!(
            struct Value {
                a: u32,
                b: Option<u32>,
            }
        ),
        shape!(
            struct Value {
                a: u32,
                b: Vec<u32>,
            }
        ),
        shape!(
            struct Value {
                a: u32,
                b: Vec<Option<u32>>,
            }
        ),
        shape!(
            struct Value {
                a: u32,
                b: u32,
                c: u32,
            }
        ),
        shape!(
            struct Value {
                a: u32,
            }
        ),
        shape!(
            struct Value(u32, u32);
        ),
        shape!(
            struct Value(u32);
        ),
        shape!(
            enum Value {
                A,
                B,
            }
        ),
        shape!(
            enum Value {
                B,
                A,
            }
        ),
        shape!(
            enum Value {
                A,
                B,
                C,
            }
        ),
        shape!(
            enum Value {
                A(u8),
                B,
            }
        ),
        shape!(
            enum Value {
                A(u8),
                B(u8),
            }
        ),
        shape!(
            enum Value {
                A(u8),
                B(u16),
            }
        ),
        shape!(
            enum Value {
                A(u8),
                B { x: u16 },
            }
        ),
        shape!(
            struct Value {
                of: BTreeMap<String, (u8, [u8; 3])>,
            }
        ),
        shape!(
            struct Value {
                of: BTreeMap<String, (u8, [u8; 4])>,
            }
        ),
        shape!(
            struct Value {
                of: BTreeMap<String, (u8, [i8; 3])>,
            }
        ),
        shape!(
            struct Value {
                next: Option<Box<Value>>,
                n: u8,
            }
        ),
        shape!(
            struct Value {
                next: Option<Box<Value>>,
                n: i8,
            }
        ),
        shape!(
            enum Value {
                Add(Box<Value>, Box<Value>),
                One(u8),
            }
        ),
        shape!(
            enum Value {
                Add(Box<Value>, Box<Value>),
                One(i8),
            }
        ),
        shape!(
            enum Value {
                One(u8),
                Add(Box<Value>, Box<Value>),
            }
        ),
        shape!(
            struct Value {
                list: Vec<Value>,
                n: u8,
            }
        ),
        shape!(
            struct Value {
                list: Vec<Value>,
                n: u16,
            }
        ),
    ];
    for (at, shape) in shapes.iter().enumerate() {
        assert!(!shapes[..at].contains(shape), "shape {at} is that of another");
    }
    assert_eq!(
        shapes[0],
        shape!(
            struct Value {
                a: u32,
                b: u32,
            }
        )
    );
}
