//! Calls of the gRPC services in this process. What is called is what port 7480 serves, so that limits, deadlines, metrics
//! and authentication are the same ones; only the network between is left out.

use axum::http::HeaderMap;
use bytes::{Buf as _, BufMut as _, Bytes};
use futures::Stream;
use http::uri::PathAndQuery;
use prost_reflect::MethodDescriptor;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Extensions, Request, Response, Status, Streaming};
use tower::util::MapResponse;

use crate::service::rewrite;

/// Headers of a request that are metadata of the call.
const PASSED_ON: [&str; 2] = ["authorization", "grpc-timeout"];

type Rewrite = fn(http::Response<Body>) -> http::Response<Body>;

/// The services, to be called with encoded messages.
#[derive(Clone)]
pub(super) struct Calls(MapResponse<Routes, Rewrite>);

impl Calls {
    /// Calls to these services.
    pub(super) fn new(services: Routes) -> Self {
        Self(MapResponse::new(services, rewrite))
    }

    async fn client(&self) -> Result<Grpc<MapResponse<Routes, Rewrite>>, Status> {
        // What the services send is of their own making; the limit is for peers on a network.
        let mut client = Grpc::new(self.0.clone()).max_decoding_message_size(usize::MAX);
        match client.ready().await {
            Ok(()) => Ok(client),
            Err(impossible) => match impossible {},
        }
    }

    /// An RPC with one request and one response.
    pub(super) async fn unary(
        &self,
        rpc: &MethodDescriptor,
        metadata: MetadataMap,
        message: Bytes,
    ) -> Result<Response<Bytes>, Status> {
        let request = Request::from_parts(metadata, Extensions::default(), message);
        self.client().await?.unary(request, path(rpc)?, Encoded).await
    }

    /// An RPC with a stream of responses, to one request or to a stream of them.
    pub(super) async fn streaming<S>(
        &self,
        rpc: &MethodDescriptor,
        metadata: MetadataMap,
        messages: S,
    ) -> Result<Response<Streaming<Bytes>>, Status>
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        let request = Request::from_parts(metadata, Extensions::default(), messages);
        self.client().await?.streaming(request, path(rpc)?, Encoded).await
    }
}

/// What a call is told of the request that it comes from.
pub(super) fn metadata(headers: &HeaderMap) -> MetadataMap {
    let passed = headers.iter().filter(|(name, _)| PASSED_ON.contains(&name.as_str()));
    MetadataMap::from_headers(passed.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn path(rpc: &MethodDescriptor) -> Result<PathAndQuery, Status> {
    let path = format!("/{}/{}", rpc.parent_service().full_name(), rpc.name());
    PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))
}

/// Messages that are encoded already.
#[derive(Debug, Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
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

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
