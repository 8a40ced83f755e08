//! etcd as a peer: its members as processes on loopback, as much of its gRPC API as a bench needs, and its puts.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::load::Load;
use super::report::{Report, Row};
use super::usage::Usage;
use super::values::{VALUE_BYTES, content};
use super::{ClusterArguments, failed};
use crate::BenchError;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// Puts values of the same size by as many clients.
pub(super) async fn measure(arguments: &ClusterArguments, report: &mut Report) -> Result<(), BenchError> {
    let dir = tempfile::tempdir_in(&arguments.directory)?;
    let etcd = Etcd::start(&arguments.etcd, dir.path(), arguments.nodes).await?;
    for &clients in &arguments.clients {
        let connections = Arc::new(etcd.connections(clients.div_ceil(64)).await?);
        let usage = Usage::of(&etcd.processes());
        let run = Load { clients, seconds: arguments.seconds }.run(move |client, number| {
            let mut connection = connections[client % connections.len()].clone();
            async move { connection.put(&format!("k{client}-{number}"), content(client, number)).await.is_ok() }
        });
        let measured = run.await;
        let accepted_bytes = measured.done * VALUE_BYTES as u64;
        let usage = Usage::of(&etcd.processes()).since(&usage);
        let row = Row::new("etcd", arguments.nodes, "put", clients, measured);
        report.row(&Row { accepted_bytes, usage, ..row })?;
    }
    Ok(())
}

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`; nothing in it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// `etcdserverpb.StatusRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// `etcdserverpb.StatusResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// A running cluster; its processes end with this value.
struct Etcd {
    members: Vec<Member>,
}

struct Member {
    clients: SocketAddr,
    process: Child,
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client of one member.
#[derive(Clone)]
struct EtcdClient(Grpc<Channel>);

impl Etcd {
    /// Starts `count` members of `program` below `directory`, with their defaults but for the size of the database.
    async fn start(program: &Path, directory: &Path, count: u64) -> Result<Self, BenchError> {
        let addresses: Vec<(SocketAddr, SocketAddr)> =
            (0..count).map(|_| Ok((free_address()?, free_address()?))).collect::<std::io::Result<_>>()?;
        let listed = addresses.iter().enumerate().map(|(number, (_, peer))| format!("m{number}=http://{peer}"));
        let listed = listed.collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for (number, (clients, peer)) in addresses.iter().enumerate() {
            let log = std::fs::File::create(directory.join(format!("m{number}.log")))?;
            let process = Command::new(program)
                .args(["--name", &format!("m{number}"), "--initial-cluster", &listed, "--initial-cluster-state", "new"])
                .arg("--data-dir")
                .arg(directory.join(format!("m{number}")))
                .args(["--listen-client-urls", &format!("http://{clients}")])
                .args(["--advertise-client-urls", &format!("http://{clients}")])
                .args(["--listen-peer-urls", &format!("http://{peer}")])
                .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
                .args(["--quota-backend-bytes", "8589934592"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .map_err(|error| failed(format!("{}: {error}", program.display())))?;
            members.push(Member { clients: *clients, process });
        }
        let etcd = Self { members };
        let began = Instant::now();
        while etcd.leader().await.is_none() {
            if began.elapsed() > READY_WITHIN {
                return Err(failed("etcd has no leader"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(etcd)
    }

    /// Its processes.
    fn processes(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.process.id()).collect()
    }

    /// So many connections to the leader.
    async fn connections(&self, count: usize) -> Result<Vec<EtcdClient>, BenchError> {
        let leader = self.leader().await.ok_or_else(|| failed("etcd has no leader"))?;
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(EtcdClient::connect(leader).await.map_err(failed)?);
        }
        Ok(connections)
    }

    async fn leader(&self) -> Option<SocketAddr> {
        for member in &self.members {
            let Ok(mut client) = EtcdClient::connect(member.clients).await else { continue };
            let Ok(status) = client.status().await else { continue };
            let own = status.header.map(|header| header.member_id);
            if status.leader != 0 && own == Some(status.leader) {
                return Some(member.clients);
            }
        }
        None
    }
}

impl EtcdClient {
    async fn connect(address: SocketAddr) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        Ok(Self(Grpc::new(endpoint.connect().await?)))
    }

    /// Puts a value, and returns once it is committed.
    async fn put(&mut self, key: &str, value: String) -> Result<(), tonic::Status> {
        let request = PutRequest { key: key.as_bytes().to_vec(), value: value.into_bytes() };
        self.call::<_, PutResponse>("/etcdserverpb.KV/Put", request).await.map(drop)
    }

    async fn status(&mut self) -> Result<StatusResponse, tonic::Status> {
        self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await
    }

    async fn call<Q, R>(&mut self, path: &'static str, request: Q) -> Result<R, tonic::Status>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.0.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, R>::default();
        Ok(self.0.unary(tonic::Request::new(request), path, codec).await?.into_inner())
    }
}

/// An address that nobody listens on.
pub(super) fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
