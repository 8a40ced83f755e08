//! The metrics of one node. Each node has a registry of its own, so that several can run in one process.

use std::time::{Duration, Instant};

use metrics::{Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use serde_json::{Map, Number, Value};

use super::definitions::{self, Definition, Kind};

/// What callers do, as the label `operation` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    AddMemories,
    ImportMemories,
    GetMemories,
    ListMemories,
    UpdateMemory,
    DeleteMemories,
    SearchMemories,
    CountMemories,
    GetMemoryHistory,
    ListNamespaces,
    WatchMemories,
    CreateSpace,
    GetSpace,
    ListSpaces,
    UpdateSpace,
    DeleteSpace,
    SetAlias,
    GetClusterStatus,
    ChangeCluster,
}

impl Operation {
    /// The label's value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::AddMemories => "add",
            Self::ImportMemories => "import",
            Self::GetMemories => "get",
            Self::ListMemories => "list",
            Self::UpdateMemory => "update",
            Self::DeleteMemories => "delete",
            Self::SearchMemories => "search",
            Self::CountMemories => "count",
            Self::GetMemoryHistory => "history",
            Self::ListNamespaces => "list_namespaces",
            Self::WatchMemories => "watch",
            Self::CreateSpace => "create_space",
            Self::GetSpace => "get_space",
            Self::ListSpaces => "list_spaces",
            Self::UpdateSpace => "update_space",
            Self::DeleteSpace => "delete_space",
            Self::SetAlias => "set_alias",
            Self::GetClusterStatus => "cluster_status",
            Self::ChangeCluster => "change_cluster",
        }
    }
}

/// Bounds of the duration histogram in seconds: from a search of a small space to the longest deadline.
const DURATION_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 300.0];

/// The registry of one node.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    started: Instant,
}

impl Metrics {
    /// A registry that knows every metric and has counted nothing.
    pub(crate) fn new() -> Self {
        let durations = Matcher::Suffix("_duration_seconds".to_owned());
        let recorder = match PrometheusBuilder::new().set_buckets_for_metric(durations, &DURATION_BUCKETS) {
            Ok(builder) => builder.build_recorder(),
            // Only an empty list of buckets is refused.
            Err(_) => PrometheusBuilder::new().build_recorder(),
        };
        for definition in definitions::ALL {
            let (name, help) = (definition.name.into(), definition.help.into());
            match definition.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        let metrics = Self { handle: recorder.handle(), recorder, started: Instant::now() };
        metrics.set(definitions::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
        metrics
    }

    /// Counts one call and its duration. `outcome` is `ok` or a gRPC code in lower case.
    pub(crate) fn record(&self, operation: Operation, outcome: &'static str, duration: Duration) {
        self.add(definitions::OPERATIONS, &[operation.label(), outcome], 1);
        self.observe(definitions::OPERATION_DURATION, &[operation.label()], duration);
    }

    /// Puts a duration into a histogram.
    pub(crate) fn observe(&self, definition: Definition, labels: &[&'static str], duration: Duration) {
        debug_assert_eq!(definition.kind, Kind::Histogram);
        self.recorder.register_histogram(&key(definition, labels), &METADATA).record(duration.as_secs_f64());
    }

    /// Adds to a counter.
    pub(crate) fn add(&self, definition: Definition, labels: &[&'static str], amount: u64) {
        debug_assert_eq!(definition.kind, Kind::Counter);
        self.recorder.register_counter(&key(definition, labels), &METADATA).increment(amount);
    }

    /// Brings a counter up to what something else has counted since the start.
    pub(crate) fn add_up_to(&self, definition: Definition, labels: &[&'static str], total: u64) {
        debug_assert_eq!(definition.kind, Kind::Counter);
        self.recorder.register_counter(&key(definition, labels), &METADATA).absolute(total);
    }

    /// Sets a gauge.
    // A gauge is a double; indexes stay below 2^53 for centuries.
    pub(crate) fn set_count(&self, definition: Definition, labels: &[&'static str], value: u64) {
        self.set(definition, labels, value as f64);
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, definition: Definition, labels: &[&'static str], value: f64) {
        debug_assert_eq!(definition.kind, Kind::Gauge);
        self.recorder.register_gauge(&key(definition, labels), &METADATA).set(value);
    }

    /// Time since the registry was made, which is the start of the node.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// All metrics in the Prometheus text format.
    pub(crate) fn render(&self) -> String {
        self.set(definitions::UPTIME, &[], self.uptime().as_secs_f64());
        self.handle.render()
    }

    /// All metrics as JSON: a list of `{name, labels, value}`, the same samples as in the text format.
    pub(crate) fn render_json(&self) -> Value {
        Value::Array(self.render().lines().filter_map(sample).collect())
    }

    /// Moves recorded durations into their buckets. To be called every few seconds, or unread values pile up.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// What the registry asks for and does not use.
const METADATA: Metadata<'static> = Metadata::new("cairn", Level::INFO, None);

fn key(definition: Definition, values: &[&'static str]) -> Key {
    debug_assert_eq!(definition.labels.len(), values.len(), "labels of {}", definition.name);
    let labels = definition.labels.iter().zip(values);
    Key::from_parts(definition.name, labels.map(|(name, value)| Label::new(*name, *value)).collect::<Vec<_>>())
}

/// Reads one line `name{label="value",...} number` of our own rendering; `None` for comments and blank lines.
/// Label values come from closed sets without quotes, commas and backslashes.
fn sample(line: &str) -> Option<Value> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (series, number) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
    let pairs = labels.split(',').filter_map(|pair| {
        let (label, value) = pair.split_once('=')?;
        Some((label.to_owned(), Value::String(value.trim_matches('"').to_owned())))
    });
    // Counts stay whole numbers; `+Inf` and `NaN` are no JSON and become null.
    let value = match number.parse::<u64>() {
        Ok(whole) => Value::from(whole),
        Err(_) => number.parse().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number),
    };
    let mut object = Map::new();
    object.insert("name".to_owned(), Value::String(name.to_owned()));
    object.insert("labels".to_owned(), Value::Object(pairs.collect()));
    object.insert("value".to_owned(), value);
    Some(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_by_outcome() {
        let metrics = Metrics::new();
        metrics.record(Operation::AddMemories, "ok", Duration::from_millis(3));
        metrics.record(Operation::AddMemories, "ok", Duration::from_millis(3));
        metrics.record(Operation::AddMemories, "invalid_argument", Duration::from_millis(1));
        let text = metrics.render();
        assert!(text.contains("# TYPE memory_operations_total counter"), "{text}");
        assert!(text.contains(r#"memory_operations_total{operation="add",outcome="ok"} 2"#), "{text}");
        assert!(text.contains(r#"memory_operations_total{operation="add",outcome="invalid_argument"} 1"#), "{text}");
        assert!(text.contains("# TYPE memory_operation_duration_seconds histogram"), "{text}");
        assert!(text.contains(r#"memory_operation_duration_seconds_bucket{operation="add",le="0.005"} 3"#), "{text}");
        assert!(text.contains("cairn_build_info{version="), "{text}");
    }

    #[test]
    fn json_holds_the_same_samples() {
        let metrics = Metrics::new();
        metrics.record(Operation::SearchMemories, "ok", Duration::from_millis(3));
        metrics.set(definitions::READY, &[], 1.0);
        let json = metrics.render_json();
        let samples = json.as_array().unwrap();
        let lines = metrics.render().lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert_eq!(samples.len(), lines);
        let found = samples.iter().find(|sample| sample["name"] == "memory_operations_total").unwrap();
        assert_eq!(found["labels"]["operation"], "search");
        assert_eq!(found["labels"]["outcome"], "ok");
        assert_eq!(found["value"], 1);
    }

    #[test]
    fn registries_do_not_share_counts() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.add(definitions::SHED, &["write"], 5);
        assert!(one.render().contains("cairn_requests_shed_total"));
        assert!(!other.render().contains("cairn_requests_shed_total{"));
    }
}
