//! The plain semantics, case by case as the public API words them, and the checks.

use super::*;
use crate::schema::{FieldType, Schema};

fn where_(field: &str, test: Test) -> Filter {
    Filter::Where(Condition { field: Field::from_name(field).unwrap(), test })
}

fn text(value: &str) -> Scalar {
    Scalar::String(value.into())
}

fn document() -> Vec<(Field, Vec<Scalar>)> {
    vec![
        (Field::Namespace, vec![text("a/b/c")]),
        (Field::Importance, vec![Scalar::Double(0.5)]),
        (Field::CreatedAt, vec![Scalar::Timestamp(1_000)]),
        (Field::Metadata("tags".into()), vec![text("red"), text("blue"), Scalar::Integer(7)]),
        (Field::Metadata("done".into()), vec![Scalar::Bool(true)]),
    ]
}

#[test]
fn each_test_means_what_the_api_says() {
    let document = document();
    let cases = [
        (where_("metadata.tags", Test::Eq(text("blue"))), true),
        (where_("metadata.tags", Test::Ne(text("blue"))), false),
        (where_("metadata.tags", Test::Ne(text("green"))), true),
        (where_("metadata.missing", Test::Ne(text("green"))), true),
        (where_("metadata.missing", Test::Nin(vec![text("green")])), true),
        (where_("metadata.missing", Test::Lt(Scalar::Integer(3))), false),
        (where_("metadata.missing", Test::Exists(false)), true),
        (where_("metadata.tags", Test::In(vec![text("green"), Scalar::Double(7.0)])), true),
        (where_("metadata.tags", Test::Gt(Scalar::Integer(6))), true),
        (where_("metadata.tags", Test::Gt(text("red"))), false),
        (where_("metadata.tags", Test::Gte(text("red"))), true),
        (where_("metadata.tags", Test::Contains("lu".into())), true),
        (where_("metadata.tags", Test::Prefix("lu".into())), false),
        (where_("metadata.done", Test::Eq(Scalar::Bool(true))), true),
        (where_("metadata.done", Test::Gt(Scalar::Bool(false))), false),
        (where_("importance", Test::Lte(Scalar::Double(0.5))), true),
        (where_("created_at", Test::Lt(Scalar::Timestamp(1_000))), false),
        (where_("created_at", Test::Eq(Scalar::Integer(1_000))), false),
        (where_("scope.namespace", Test::Within("a/b".into())), true),
        (where_("scope.namespace", Test::Within("a/b/c".into())), true),
        (where_("scope.namespace", Test::Within("a/b/".into())), false),
        (where_("scope.namespace", Test::Within("a/b/c/d".into())), false),
        (Filter::All(vec![]), true),
        (Filter::Any(vec![]), false),
        (Filter::Not(Box::new(Filter::Any(vec![]))), true),
    ];
    for (filter, expected) in cases {
        assert_eq!(filter.matches(document.as_slice()), expected, "{filter:?}");
    }
    assert!(!is_within("a/bc", "a/b"));
}

#[test]
fn a_map_exists_but_equals_nothing() {
    struct OneMap;
    impl FieldSource for OneMap {
        fn any_value(&self, _field: &Field, test: &mut dyn FnMut(ScalarRef<'_>) -> bool) -> bool {
            test(ScalarRef::Map)
        }
    }
    assert!(where_("metadata.a", Test::Exists(true)).matches(&OneMap));
    assert!(where_("metadata.a", Test::Ne(text("x"))).matches(&OneMap));
    assert!(!where_("metadata.a", Test::Contains(String::new())).matches(&OneMap));
}

#[test]
fn operands_are_checked_against_the_schema() {
    let schema = Schema::new([("n".into(), FieldType::Integer), ("b".into(), FieldType::Bool)]).unwrap();
    let refused = [
        (where_("kind", Test::Eq(Scalar::Integer(1))), "where.eq", "`kind` holds strings, not numbers"),
        (where_("importance", Test::Eq(Scalar::Double(f64::NAN))), "where.eq", "not a finite number"),
        (where_("metadata.b", Test::Gt(Scalar::Bool(true))), "where.gt", "booleans have no order"),
        (where_("metadata.n", Test::Prefix("x".into())), "where.prefix", "`metadata.n` holds numbers, not strings"),
        (where_("metadata.n", Test::In(vec![])), "where.in", "0 values, but 1 to 1000 are allowed"),
        (
            Filter::All(vec![
                Filter::everything(),
                Filter::Not(Box::new(where_("kind", Test::Nin(vec![text("a"), Scalar::Timestamp(1)])))),
            ]),
            "all.filters[1].not.where.nin.values[1]",
            "`kind` holds strings, not timestamps",
        ),
    ];
    for (filter, path, reason) in refused {
        assert_eq!(filter.check(&schema), Err(FilterError { path: path.into(), reason: reason.into() }));
    }
    let accepted = [
        where_("metadata.n", Test::Lt(Scalar::Double(0.5))),
        where_("metadata.other", Test::In(vec![text("a"), Scalar::Bool(true), Scalar::Integer(1)])),
        where_("metadata.b", Test::Exists(true)),
    ];
    for filter in accepted {
        assert_eq!(filter.check(&schema), Ok(()));
    }
}

#[test]
fn size_limits_hold() {
    let schema = Schema::default();
    let nested = |depth: usize| (1..depth).fold(Filter::everything(), |inner, _| Filter::Not(Box::new(inner)));
    assert!(nested(MAX_DEPTH).check(&schema).is_ok());
    assert!(nested(MAX_DEPTH + 1).check(&schema).is_err());
    let wide = |count: usize| Filter::Any(vec![where_("kind", Test::Exists(true)); count]);
    assert!(wide(MAX_CONDITIONS).check(&schema).is_ok());
    assert!(wide(MAX_CONDITIONS + 1).check(&schema).is_err());
}

#[test]
fn names_and_fields_go_both_ways() {
    let names = ["scope.agent_id", "scope.namespace", "kind", "expires_at", "importance", "metadata.a.b"];
    for name in names {
        assert_eq!(Field::from_name(name).unwrap().to_string(), name);
    }
    for name in ["", "scope", "content", "metadata", "metadata.", "metadata.a..b", "metadata.a."] {
        assert_eq!(Field::from_name(name), None, "{name}");
    }
}
