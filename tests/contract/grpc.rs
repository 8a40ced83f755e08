//! Calls over gRPC, without generated code.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use cairn_tests::TestCluster;
use http::uri::PathAndQuery;
use prost_reflect::MessageDescriptor;
use serde_json::Value;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::face::{Refusal, decode, encode, method};

/// Larger than any call or answer of the contract.
const MESSAGE_BYTES_MAX: usize = 80 << 20;
/// No call of the contract hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A channel to each node, used in turn.
pub(crate) struct Grpc {
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl Grpc {
    pub(crate) async fn to(cluster: &TestCluster) -> Self {
        let mut channels = Vec::new();
        for node in cluster.nodes() {
            channels.push(Channel::from_shared(node.endpoint()).unwrap().connect().await.unwrap());
        }
        Self { channels, next: AtomicUsize::new(0) }
    }

    pub(crate) async fn call(
        &self,
        rpc: &str,
        requests: Vec<Value>,
        answers_max: usize,
    ) -> Result<Vec<Value>, Refusal> {
        let channel = self.channels[self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len()].clone();
        let method = method(rpc);
        let requests: Vec<Bytes> = match (method.is_client_streaming(), requests.as_slice()) {
            // A stream is a list of requests.
            (true, [Value::Array(stream)]) => stream.iter().map(|one| encode(method.input(), one).into()).collect(),
            (_, all) => all.iter().map(|one| encode(method.input(), one).into()).collect(),
        };
        let path = format!("/cairn.v1.{}", rpc.replace('.', "/"));
        let path = PathAndQuery::try_from(path).unwrap();
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        grpc.ready().await.unwrap();
        let mut request = Request::new(futures::stream::iter(requests));
        request.set_timeout(DEADLINE);
        let answers = grpc.streaming(request, path, Raw).await.map_err(|status| refusal(&status))?;
        take(answers.into_inner(), &method.output(), answers_max).await
    }
}

async fn take(
    mut answers: tonic::Streaming<Bytes>,
    output: &MessageDescriptor,
    answers_max: usize,
) -> Result<Vec<Value>, Refusal> {
    let mut taken = Vec::new();
    while taken.len() < answers_max {
        match answers.message().await {
            Ok(Some(bytes)) => taken.push(decode(output.clone(), &bytes)),
            Ok(None) => break,
            Err(status) => return Err(refusal(&status)),
        }
    }
    Ok(taken)
}

fn refusal(status: &Status) -> Refusal {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    Refusal {
        code: code_name(status.code()).to_owned(),
        reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
        fields: violations.into_iter().map(|violation| violation.field).collect(),
    }
}

/// The name of a code in `google/rpc/code.proto`, for those that the contract meets.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::Aborted => "ABORTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unimplemented => "UNIMPLEMENTED",
        other => panic!("{other:?} is no part of the contract"),
    }
}

/// Messages as their bytes.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
