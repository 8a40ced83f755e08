//! One way to call any RPC: by its name, with its request as JSON.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex};

use cairn_tests::TestCluster;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::Value;

use crate::grpc::Grpc;
use crate::http::Http;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(cairn_proto::FILE_DESCRIPTOR_SET).unwrap());

/// A refusal, as far as all faces tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The code's name, such as `INVALID_ARGUMENT`.
    pub(crate) code: String,
    /// The reason of its ErrorInfo.
    pub(crate) reason: String,
    /// The fields that it names.
    pub(crate) fields: Vec<String>,
}

/// What a call travels over.
enum Way {
    Grpc(Grpc),
    Http(Http),
}

/// One way to call any RPC, and what has been called.
pub(crate) struct Face {
    way: Way,
    /// RPCs that have answered, and those that have refused.
    seen: Mutex<BTreeSet<(String, bool)>>,
}

impl Face {
    pub(crate) async fn grpc(cluster: &TestCluster) -> Self {
        Self::of(Way::Grpc(Grpc::to(cluster).await))
    }

    pub(crate) fn http(cluster: &TestCluster) -> Self {
        Self::of(Way::Http(Http::to(cluster)))
    }

    fn of(way: Way) -> Self {
        Self { way, seen: Mutex::default() }
    }

    /// A word to begin names with.
    pub(crate) fn name(&self) -> &'static str {
        match self.way {
            Way::Grpc(_) => "grpc",
            Way::Http(_) => "http",
        }
    }

    /// Calls an RPC such as `MemoryService.AddMemories` with one request. A stream of answers ends after `answers_max`.
    pub(crate) async fn call(&self, rpc: &str, request: Value, answers_max: usize) -> Result<Vec<Value>, Refusal> {
        let result = match &self.way {
            Way::Grpc(grpc) => grpc.call(rpc, vec![request], answers_max).await,
            Way::Http(http) => http.call(rpc, request, answers_max).await,
        };
        self.seen.lock().unwrap().insert((rpc.to_owned(), result.is_ok()));
        result
    }

    /// What of the API was never called: each RPC must have answered, and each that can refuse must have refused.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let mut left_out = Vec::new();
        for rpc in rpcs() {
            for (answered, wanted) in [(true, "answers"), (false, "refuses")] {
                // A node tells what it knows of the cluster in any state; its request has no field.
                let cannot = !answered && rpc == "ClusterService.GetClusterStatus";
                if !cannot && !seen.contains(&(rpc.clone(), answered)) {
                    left_out.push(format!("{} {rpc} {wanted}", self.name()));
                }
            }
        }
        left_out
    }
}

/// Every RPC of the public API.
fn rpcs() -> Vec<String> {
    let services = POOL.services().filter(|service| service.package_name() == "cairn.v1");
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| format!("{}.{}", method.parent_service().name(), method.name())).collect()
}

/// The RPC of that name.
pub(crate) fn method(rpc: &str) -> MethodDescriptor {
    let (service, method) = rpc.split_once('.').unwrap();
    let service = POOL.get_service_by_name(&format!("cairn.v1.{service}")).unwrap();
    service.methods().find(|found| found.name() == method).unwrap()
}

/// A message as bytes.
pub(crate) fn encode(descriptor: MessageDescriptor, value: &Value) -> Vec<u8> {
    let name = descriptor.full_name().to_owned();
    let mut value = value.clone();
    // ProtoJSON spells the paths of a mask in camel case, whatever the fields are spelled in.
    if let Some(Value::String(mask)) = value.get_mut("update_mask") {
        *mask = mask.replace("_depth", "Depth");
    }
    match DynamicMessage::deserialize(descriptor, &value) {
        Ok(message) => message.encode_to_vec(),
        Err(error) => panic!("{name}: {error}: {value}"),
    }
}

/// Bytes as a message.
pub(crate) fn decode(descriptor: MessageDescriptor, bytes: &[u8]) -> Value {
    let message = DynamicMessage::decode(descriptor, bytes).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}
