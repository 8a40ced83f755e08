//! One way to call any RPC: by its name, with its request as JSON.

use std::sync::LazyLock;

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
pub(crate) enum Face {
    Grpc(Grpc),
    Http(Http),
}

impl Face {
    pub(crate) async fn grpc(cluster: &TestCluster) -> Self {
        Self::Grpc(Grpc::to(cluster).await)
    }

    pub(crate) fn http(cluster: &TestCluster) -> Self {
        Self::Http(Http::to(cluster))
    }

    /// A word to begin names with.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Grpc(_) => "grpc",
            Self::Http(_) => "http",
        }
    }

    /// Calls an RPC such as `MemoryService.AddMemories` with one request. A stream of answers ends after `answers_max`.
    pub(crate) async fn call(&self, rpc: &str, request: Value, answers_max: usize) -> Result<Vec<Value>, Refusal> {
        match self {
            Self::Grpc(grpc) => grpc.call(rpc, vec![request], answers_max).await,
            Self::Http(http) => http.call(rpc, request, answers_max).await,
        }
    }
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
