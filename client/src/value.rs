//! [`Value`]: a metadata value.

use std::collections::BTreeMap;

use crate::Timestamp;
use crate::proto;

/// A metadata value. Unlike JSON it keeps integers and doubles apart and has a type of its own for times.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Present, but without a value.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A 64-bit signed integer.
    Integer(i64),
    /// A double; the server refuses NaN and infinities.
    Double(f64),
    /// A string.
    String(String),
    /// A point in time.
    Timestamp(Timestamp),
    /// Values in order.
    List(Vec<Value>),
    /// Values by key; the server refuses keys that are empty or hold a dot.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The integer, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// The number as a double, if it is an integer or a double; large integers are rounded.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The value at a dotted path below this one: `get("a.b")` looks into the map `a` for `b`.
    pub fn get(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(self, |value, key| match value {
            Self::Map(entries) => entries.get(key),
            _ => None,
        })
    }
}

macro_rules! value_from {
    ($($source:ty => $kind:ident($convert:expr)),+ $(,)?) => {$(
        impl From<$source> for Value {
            fn from(value: $source) -> Self {
                Self::$kind($convert(value))
            }
        }
    )+};
}

value_from! {
    bool => Bool(|value| value),
    i8 => Integer(i64::from),
    i16 => Integer(i64::from),
    i32 => Integer(i64::from),
    i64 => Integer(|value| value),
    u8 => Integer(i64::from),
    u16 => Integer(i64::from),
    u32 => Integer(i64::from),
    f32 => Double(f64::from),
    f64 => Double(|value| value),
    String => String(|value| value),
    &str => String(str::to_owned),
    &String => String(String::clone),
    Timestamp => Timestamp(|value| value),
    std::time::SystemTime => Timestamp(Timestamp::from),
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(values: [T; N]) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<String>, V: Into<Value>> From<BTreeMap<K, V>> for Value {
    fn from(entries: BTreeMap<K, V>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    /// `None` becomes [`Value::Null`].
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<Value> for proto::Value {
    fn from(value: Value) -> Self {
        use proto::value::Kind;
        let kind = match value {
            Value::Null => Kind::NullValue(0),
            Value::Bool(value) => Kind::BoolValue(value),
            Value::Integer(value) => Kind::IntegerValue(value),
            Value::Double(value) => Kind::DoubleValue(value),
            Value::String(value) => Kind::StringValue(value),
            Value::Timestamp(value) => Kind::TimestampValue(value.into()),
            Value::List(values) => Kind::ListValue(list(values)),
            Value::Map(entries) => Kind::MapValue(proto::MapValue { entries: to_proto_entries(entries) }),
        };
        Self { kind: Some(kind) }
    }
}

impl From<proto::Value> for Value {
    /// A value without a kind, or of a kind that this version does not know, becomes [`Value::Null`].
    fn from(value: proto::Value) -> Self {
        use proto::value::Kind;
        match value.kind {
            None | Some(Kind::NullValue(_)) => Self::Null,
            Some(Kind::BoolValue(value)) => Self::Bool(value),
            Some(Kind::IntegerValue(value)) => Self::Integer(value),
            Some(Kind::DoubleValue(value)) => Self::Double(value),
            Some(Kind::StringValue(value)) => Self::String(value),
            Some(Kind::TimestampValue(value)) => Self::Timestamp(value.into()),
            Some(Kind::ListValue(list)) => Self::List(list.values.into_iter().map(Into::into).collect()),
            Some(Kind::MapValue(map)) => Self::Map(from_proto_entries(map.entries)),
        }
    }
}

/// A list in wire form.
pub(crate) fn list(values: Vec<Value>) -> proto::ListValue {
    proto::ListValue { values: values.into_iter().map(Into::into).collect() }
}

/// A map in wire form.
pub(crate) fn to_proto_entries(entries: BTreeMap<String, Value>) -> BTreeMap<String, proto::Value> {
    entries.into_iter().map(|(key, value)| (key, value.into())).collect()
}

/// A map from its wire form.
pub(crate) fn from_proto_entries(entries: BTreeMap<String, proto::Value>) -> BTreeMap<String, Value> {
    entries.into_iter().map(|(key, value)| (key, value.into())).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    /// Any value, up to three levels deep. NaN is left out, since it is not equal to itself.
    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_filter("comparable", |number| !number.is_nan()).prop_map(Value::Double),
            ".{0,12}".prop_map(Value::String),
            any::<i64>().prop_map(|micros| Value::Timestamp(Timestamp::from_micros(micros))),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn every_value_survives_the_wire(value in any_value()) {
            let bytes = proto::Value::from(value.clone()).encode_to_vec();
            let back = Value::from(proto::Value::decode(bytes.as_slice()).unwrap());
            prop_assert_eq!(back, value);
        }
    }

    #[test]
    fn literals_become_values_of_their_type() {
        assert_eq!(Value::from("x"), Value::String("x".to_owned()));
        assert_eq!(Value::from(3_u8), Value::Integer(3));
        assert_eq!(Value::from(0.5_f32), Value::Double(0.5));
        assert_eq!(Value::from(["a", "b"]), Value::List(vec!["a".into(), "b".into()]));
        assert_eq!(Value::from(None::<bool>), Value::Null);
    }

    #[test]
    fn paths_lead_into_maps() {
        let inner = Value::from(BTreeMap::from([("b", 7)]));
        let value = Value::from(BTreeMap::from([("a", inner)]));
        assert_eq!(value.get("a.b").and_then(Value::as_integer), Some(7));
        assert_eq!(value.get("a.c"), None);
        assert_eq!(value.get("a.b.c"), None);
    }
}
