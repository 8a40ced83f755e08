//! Expressions: what they mean, that printing and reading agree, and what is said about mistakes.

use cairn_client::{Condition, Filter, Test, Timestamp, Value, field};
use proptest::prelude::*;

use super::{filter_to_text, read_filter};

fn read(text: &str) -> Filter {
    read_filter(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn and_binds_tighter_than_or_and_not_tighter_than_and() {
    let [a, b, c] = ["a", "b", "c"].map(|name| field(name).exists());
    assert_eq!(
        read("a exists or b exists and c exists"),
        Filter::any([a.clone(), Filter::all([b.clone(), c.clone()])])
    );
    assert_eq!(read("(a exists or b exists) and c exists"), Filter::all([Filter::any([a.clone(), b]), c.clone()]));
    assert_eq!(read("not a exists and c exists"), Filter::all([!a, c]));
}

#[test]
fn every_test_can_be_written() {
    let topic = || field("metadata.topic");
    assert_eq!(read(r#"metadata.topic = "tea""#), topic().eq("tea"));
    assert_eq!(read("metadata.topic == 'tea'"), topic().eq("tea"));
    assert_eq!(read(r#"metadata.topic != "tea""#), topic().ne("tea"));
    assert_eq!(read(r#"metadata.topic in ["tea", "coffee"]"#), topic().is_in(["tea", "coffee"]));
    assert_eq!(read(r#"metadata.topic NOT IN ["tea"]"#), topic().not_in(["tea"]));
    assert_eq!(read(r#"metadata.topic contains "e""#), topic().contains("e"));
    assert_eq!(read(r#"metadata.topic prefix "t""#), topic().starts_with("t"));
    assert_eq!(read("metadata.topic exists"), topic().exists());
    assert_eq!(read("metadata.topic not exists"), topic().is_missing());
    assert_eq!(read("importance>=0.5"), field("importance").gte(0.5));
    assert_eq!(read("importance > -1"), field("importance").gt(-1));
    assert_eq!(read("importance < 1e-3"), field("importance").lt(1e-3));
    assert_eq!(read("importance <= 1"), field("importance").lte(1));
    assert_eq!(read("`metadata.strange key` = null"), field("metadata.strange key").eq(Value::Null));
    assert_eq!(read("metadata.done = true"), field("metadata.done").eq(true));
}

#[test]
fn times_are_strings_beside_time_fields_and_marked_elsewhere() {
    let time: Timestamp = "2025-06-01T10:00:00Z".parse().unwrap();
    assert_eq!(read(r#"created_at >= "2025-06-01T10:00:00Z""#), field("created_at").gte(time));
    let marked = r#"metadata.due < timestamp("2025-06-01T10:00:00Z")"#;
    assert_eq!(read(marked), field("metadata.due").lt(time));
    let text = r#"metadata.due < "2025-06-01T10:00:00Z""#;
    assert_eq!(read(text), field("metadata.due").lt("2025-06-01T10:00:00Z"));
}

#[test]
fn of_a_long_filter_only_the_place_is_shown() {
    let long = format!("{}kind = 1 {}", "kind = 'é' and ".repeat(2_000), "and kind = 'b' ".repeat(2_000));
    let error = read_filter(&long.replace("= 1", "= =")).unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines.len() == 3 && lines.iter().all(|line| line.chars().count() < 120), "{error}");
    let place = lines[2].find('^').unwrap();
    assert_eq!(lines[1].chars().skip(place - 2).take(4).collect::<String>(), "= = ", "{error}");
    let deep = read_filter(&"(".repeat(100_000)).unwrap_err();
    assert!(deep.len() < 400 && deep.contains("too deeply"), "{deep}");
}

#[test]
fn json_is_read_too() {
    assert_eq!(read(r#" {"field": "kind", "eq": "fact"}"#), field("kind").eq("fact"));
    let error = read_filter(r#"{"all": [{"field": "kind"}]}"#).unwrap_err();
    assert_eq!(error, "filter: all[0]: must have exactly one test beside `field`");
    assert!(read_filter("{").unwrap_err().starts_with("filter: not JSON"));
}

/// The messages for many mistakes, as people see them.
#[test]
fn mistakes_are_pointed_at() {
    let mistakes = [
        "",
        "kind =",
        "kind = and metadata.topic = \"x\"",
        "kind = fact",
        "kind like \"fact\"",
        "kind = \"fact\" metadata.topic = \"x\"",
        "kind = \"fact",
        "(kind = \"fact\"",
        "kind in \"a\"",
        "kind in [\"a\" \"b\"]",
        "kind in []",
        "kind not \"a\"",
        "created_at > \"yesterday\"",
        "metadata.n > 99999999999999999999",
        "metadata.n > 1e999",
        "metadata.d > 2025-06-01",
        "kind = \"a\" && kind = \"b\"",
        "kind = \"a\" or",
        "metadata.ünïcode ? 3",
        "kind = \"a\\q\"",
        "kind contains 3",
        "\n  kind = \"a\" and\n  topic ~ \"b\"",
    ];
    let report: String = mistakes.iter().map(|text| format!("{}\n\n", read_filter(text).unwrap_err())).collect();
    crate::cli::snapshot::check("filter_mistakes", &report);
}

#[test]
fn depth_is_limited() {
    let deep = format!("{}kind exists{}", "(".repeat(1_000), ")".repeat(1_000));
    assert!(read_filter(&deep).unwrap_err().contains("nested too deeply"));
    let negations = format!("{}kind exists", "not ".repeat(100_000));
    assert!(read_filter(&negations).unwrap_err().contains("nested too deeply"));
}

fn any_operand() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::Double),
        any::<String>().prop_map(Value::String),
        (0..4_000_000_000_000_000_i64).prop_map(|micros| Value::Timestamp(Timestamp::from_micros(micros))),
    ]
}

fn any_test() -> impl Strategy<Value = Test> {
    let many = || prop::collection::vec(any_operand(), 1..4);
    prop_oneof![
        any_operand().prop_map(Test::Eq),
        any_operand().prop_map(Test::Ne),
        many().prop_map(Test::In),
        many().prop_map(Test::Nin),
        any_operand().prop_map(Test::Gt),
        any_operand().prop_map(Test::Gte),
        any_operand().prop_map(Test::Lt),
        any_operand().prop_map(Test::Lte),
        any::<String>().prop_map(Test::Contains),
        any::<String>().prop_map(Test::Prefix),
        any::<bool>().prop_map(Test::Exists),
    ]
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let name = prop_oneof!["kind|importance|not|in|true|all", "metadata\\.[a-z_.-]{1,8}", any::<String>()];
    let leaf = (name, any_test()).prop_map(|(field, test)| Filter::Where(Condition { field, test }));
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::All),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Any),
            inner.prop_map(|filter| !filter),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_printed_filter_is_read_back_as_it_was(filter in any_filter()) {
        let text = filter_to_text(&filter);
        prop_assert_eq!(super::parser::parse(&text), Ok(filter), "{}", text);
    }

    #[test]
    fn no_text_is_too_strange(text in ".{0,60}") {
        let _ = read_filter(&text);
    }

    #[test]
    fn nearly_right_texts_are_no_trouble(text in "(kind|in|not|and|or|=|\\(|\\)|\\[|\\]|,|\"a\"|1|-| ){0,20}") {
        if let Ok(filter) = super::parser::parse(&text) {
            prop_assert_eq!(super::parser::parse(&filter_to_text(&filter)), Ok(filter));
        }
    }
}
