//! Port 7480: the public API. Handlers are thin: who calls, may it come in, until when; then the engine and the node.
//!
//! ```text
//! write: authenticate -> gate -> text to vectors -> engine.prepare (large: worker thread) -> node.propose -> response
//! read:  authenticate -> gate -> node.read_point -> engine read (worker thread) -> response
//! ```
//!
//! | file | what is in it |
//! |---|---|
//! | `mod.rs` | what all calls share, and the server |
//! | `memories.rs`, `spaces.rs`, `cluster.rs` | the three services |
//! | `watch.rs` | the stream of changes |
//! | `import.rs` | the stream of batches |
//! | `outgoing.rs` | what both streams share |
//! | `embedding.rs` | text to vectors |
//! | `fitting.rs` | whether a space and its embedder fit each other |
//! | `admission.rs` | gates and worker threads |
//! | `deadline.rs` | the time that a call has |
//! | `refusals.rs` | messages that tonic refuses |

mod admission;
mod cluster;
mod deadline;
mod embedding;
mod fitting;
mod import;
mod memories;
mod outgoing;
mod refusals;
mod spaces;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Clock};

use cairn_engine::{EMBEDDER_CHANGED, Engine, Position, Principal, ReadPoint, WriteRequest, WriteResponse};
use cairn_proto::storage::Command;
use cairn_proto::v1;
use cairn_raft::{Node, ReadLevel};
use parking_lot::Mutex;
use prost::Message;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use self::admission::Gate;
use self::embedding::Knowledge;
use crate::auth::authenticate;
use crate::config::LimitsSection;
use crate::embed::Embedders;
use crate::error::{LeaderHint, Problem};
use crate::monitor::{Monitor, Picture};
use crate::telemetry::Operation;

pub(crate) use self::admission::Workers;
pub(crate) use self::cluster::Cluster;
pub(crate) use self::memories::Memories;
pub(crate) use self::refusals::rewrite;
pub(crate) use self::spaces::Spaces;

/// The largest message that is read from the network at all.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The largest request, encoded. It leaves room below [`MESSAGE_BYTES_MAX`] for what the log adds.
pub(crate) const REQUEST_BYTES_MAX: usize = 3 << 20;

/// The largest write that is checked and sealed where it came in: that takes some ten microseconds and waits for nothing,
/// less than handing it to a worker thread and back.
const PREPARED_HERE_BYTES_MAX: usize = 16 << 10;

/// How often a write is embedded because the embedder of its space was changed meanwhile.
const EMBED_ATTEMPTS_MAX: usize = 3;

/// Memories that one step of the engine's upkeep looks at.
const UPKEEP_ROWS: usize = 1_000;

/// When the engine's upkeep is tried again after it failed.
const UPKEEP_RETRY: Duration = Duration::from_secs(60);

/// The longest `max_staleness`.
const STALENESS_MAX: Duration = Duration::from_secs(3_600);

/// What all calls of a node share.
pub(crate) struct Service {
    node: Arc<Node>,
    monitor: Arc<Monitor>,
    embedders: Embedders,
    own_address: String,
    limits: LimitsSection,
    write_gate: Gate,
    read_gate: Gate,
    stream_gate: Gate,
    import_gate: Gate,
    /// Whether a thread does the engine's upkeep.
    in_upkeep: AtomicBool,
    observing: Mutex<()>,
    /// Cancelled when the node stops: streams have no end of their own, and the stop waits for what has begun.
    streams_end: CancellationToken,
    prepares: Workers,
    reads: Workers,
}

/// What a handler knows of the call that it serves.
pub(crate) struct Call {
    principal: Principal,
    deadline: Instant,
}

/// What a call does to the state, which decides on its gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Write,
    Read,
    /// Needs no place: it must be answered under overload too.
    Observe,
}

impl Service {
    /// A service in front of a node that has started, whose clients reach it at `own_address`.
    pub(crate) fn new(
        node: Arc<Node>,
        monitor: Arc<Monitor>,
        embedders: Embedders,
        own_address: String,
        limits: LimitsSection,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if limits.read_threads == 0 { cores * 2 } else { limits.read_threads };
        Self {
            node,
            monitor,
            embedders,
            own_address,
            write_gate: Gate::new("write", limits.writes_in_flight),
            read_gate: Gate::new("read", limits.reads_in_flight),
            stream_gate: Gate::new("stream", limits.streams_in_flight),
            import_gate: Gate::new("import", limits.imports_in_flight),
            in_upkeep: AtomicBool::new(false),
            observing: Mutex::new(()),
            streams_end: CancellationToken::new(),
            prepares: Workers::new(threads),
            reads: Workers::new(threads),
            limits,
        }
    }

    /// Brings the monitor up to date with the node. One at a time: the look that begins last is the one that stays.
    pub(crate) fn observe(&self) {
        let _turn = self.observing.lock();
        self.write_gate.report(self.monitor.metrics());
        self.read_gate.report(self.monitor.metrics());
        self.stream_gate.report(self.monitor.metrics());
        self.import_gate.report(self.monitor.metrics());
        self.monitor.observe(Picture::of(&self.node));
    }

    /// Lets the engine do what nobody waits for, on a thread of its own, unless it does so already.
    pub(crate) fn look_after_engine(self: &Arc<Self>) {
        if !self.node.engine().has_upkeep() || self.in_upkeep.swap(true, Ordering::AcqRel) {
            return;
        }
        let service = Arc::clone(self);
        tokio::spawn(async move {
            let working = Arc::clone(&service);
            let worked = tokio::task::spawn_blocking(move || {
                // Each time the engine in use: a snapshot that is installed brings another one.
                while !working.streams_end.is_cancelled() && working.node.engine().advance_upkeep(UPKEEP_ROWS)? {}
                Ok::<_, cairn_engine::Error>(())
            });
            if let Ok(Err(error)) = worked.await {
                // Such as for want of memory, which may be there later; filters are correct meanwhile.
                tracing::warn!(%error, "the upkeep of indexes and storage was put off");
                let _ = tokio::time::timeout(UPKEEP_RETRY, service.streams_end.cancelled()).await;
            }
            service.in_upkeep.store(false, Ordering::Release);
        });
    }

    /// Ends all streams, so that their clients go on at another node.
    pub(crate) fn end_streams(&self) {
        self.streams_end.cancel();
    }

    /// The leader, unless this node leads or knows none.
    fn leader_hint(&self) -> Option<LeaderHint> {
        let client_address = self.node.leader_client_address()?;
        (client_address != self.own_address).then_some(LeaderHint { client_address })
    }

    /// Makes a space unless one of that name is there. Says whether it did.
    pub(crate) async fn ensure_space(&self, space: v1::Space) -> Result<v1::Space, Problem> {
        let principal = authenticate(&MetadataMap::new())?;
        let call = Call { principal, deadline: Instant::now() + self.limits.request_timeout };
        let point = self.read_point(&call, None).await?;
        let get = v1::GetSpaceRequest { name: space.name.clone(), consistency: None };
        let found =
            self.read_at(&call, point, move |engine, principal, point| engine.get_space(principal, &get, point)).await;
        match found {
            Ok(found) => Ok(found.space.unwrap_or_default()),
            Err(problem) if problem.code() == Code::NotFound => {
                let request = v1::CreateSpaceRequest { space: Some(space), request_id: String::new() };
                match self.write(&call, WriteRequest::CreateSpace(request)).await? {
                    WriteResponse::CreateSpace(made) => Ok(made.space.unwrap_or_default()),
                    _ => Err(Problem::mismatch()),
                }
            }
            Err(problem) => Err(problem),
        }
    }

    /// Does what every call needs around its `work`: principal, size, gate, deadline, metrics, status.
    async fn serve<Q, R, F, Fut>(
        &self,
        operation: Operation,
        effect: Effect,
        request: Request<Q>,
        work: F,
    ) -> Result<Response<R>, Status>
    where
        Q: Message,
        F: FnOnce(Call, Q) -> Fut,
        Fut: Future<Output = Result<R, Problem>>,
    {
        let mut record = Record::new(&self.monitor, operation);
        let result = self.admit_and_run(operation, effect, request, work).await;
        record.outcome = result.as_ref().err().map_or("ok", Problem::outcome);
        let hint = self.leader_hint();
        match result {
            Ok(message) => {
                let mut response = Response::new(message);
                if let Some(hint) = hint.filter(|_| effect == Effect::Write) {
                    hint.add_to(response.metadata_mut());
                }
                Ok(response)
            }
            Err(problem) => {
                if problem.is_fault() {
                    tracing::error!(operation = operation.label(), code = problem.outcome(), "a call failed");
                }
                Err(problem.into_status(hint.as_ref()))
            }
        }
    }

    async fn admit_and_run<Q, R, F, Fut>(
        &self,
        operation: Operation,
        effect: Effect,
        request: Request<Q>,
        work: F,
    ) -> Result<R, Problem>
    where
        Q: Message,
        F: FnOnce(Call, Q) -> Fut,
        Fut: Future<Output = Result<R, Problem>>,
    {
        let principal = authenticate(request.metadata())?;
        let deadline = deadline::deadline(request.metadata(), &self.limits);
        let _place = match effect {
            Effect::Write => Some(self.write_gate.enter(self.monitor.metrics())?),
            Effect::Read => Some(self.read_gate.enter(self.monitor.metrics())?),
            Effect::Observe => None,
        };
        let message = request.into_inner();
        let bytes = message.encoded_len();
        if bytes > REQUEST_BYTES_MAX {
            let field = if operation == Operation::AddMemories { "memories" } else { "request" };
            let limit = format!("the call has {bytes} bytes; at most {REQUEST_BYTES_MAX} are allowed");
            return Err(Problem::invalid(field, limit));
        }
        if deadline <= Instant::now() {
            return Err(Problem::deadline());
        }
        match timeout_at(deadline, work(Call { principal, deadline }, message)).await {
            Ok(result) => result,
            Err(_) => Err(Problem::deadline()),
        }
    }

    /// Validates a write, replicates it, and returns once it is durable on a majority and applied.
    /// Vectors for its texts are made first. Should its space be given another embedder between that and the write, the
    /// write is refused without effect, and the vectors are made again.
    async fn write(&self, call: &Call, mut request: WriteRequest) -> Result<WriteResponse, Problem> {
        self.fit(call, &mut request).await?;
        let mut knowledge = Knowledge::Own;
        for _ in 1..EMBED_ATTEMPTS_MAX {
            if request.texts_to_embed().is_none() {
                break;
            }
            let command = self.prepare(call, request.clone(), knowledge).await?;
            match self.carry_out(call, command).await {
                Err(problem) if problem.reason() == EMBEDDER_CHANGED => knowledge = Knowledge::Latest,
                result => return result,
            }
        }
        let command = self.prepare(call, request, knowledge).await?;
        self.carry_out(call, command).await
    }

    /// Makes vectors for the texts of a write, validates it, and makes it ready for the log.
    async fn prepare(&self, call: &Call, request: WriteRequest, knowledge: Knowledge) -> Result<Command, Problem> {
        if !matches!(request, WriteRequest::DeleteMemories(_) | WriteRequest::DeleteSpace(_)) {
            self.node.admit_growth()?;
        }
        let (request, embedded) = self.embed(call, request, knowledge).await?;
        let (engine, principal) = (self.node.engine(), call.principal.clone());
        let is_small = request.encoded_len() <= PREPARED_HERE_BYTES_MAX;
        let prepare = move || {
            Ok(match embedded {
                Some(embedded) => engine.prepare_embedded(&principal, request, embedded)?,
                None => engine.prepare(&principal, request)?,
            })
        };
        if is_small {
            return prepare();
        }
        self.prepares.run(call.deadline, prepare).await
    }

    /// Replicates a write, and returns once it is durable on a majority and applied.
    async fn carry_out(&self, call: &Call, command: Command) -> Result<WriteResponse, Problem> {
        loop {
            let applied = self.node.propose(command.clone(), call.deadline.into_std()).await?;
            match self.node.engine().respond(&applied.outcome, applied.position)? {
                // A delete of many rows goes on where it ended: the outcome's cursor lies in the state, under the request id.
                WriteResponse::Unfinished => {}
                response => return Ok(response),
            }
        }
    }

    /// The state that a read must see.
    async fn read_point(&self, call: &Call, consistency: Option<&v1::Consistency>) -> Result<ReadPoint, Problem> {
        let level = read_level(consistency)?;
        Ok(self.node.read_point(level, call.deadline.into_std()).await?)
    }

    /// Runs a read of the engine at a read point, on a worker thread.
    async fn read_at<R, F>(&self, call: &Call, point: ReadPoint, read: F) -> Result<R, Problem>
    where
        R: Send + 'static,
        F: FnOnce(&Engine, &Principal, &ReadPoint) -> cairn_engine::Result<R> + Send + 'static,
    {
        let (engine, principal) = (self.node.engine(), call.principal.clone());
        self.reads.run(call.deadline, move || Ok(read(&engine, &principal, &point)?)).await
    }

    /// Serves an RPC that is one write of the engine.
    async fn serve_write<Q: Message, R>(
        &self,
        operation: Operation,
        request: Request<Q>,
        wrap: fn(Q) -> WriteRequest,
        unwrap: fn(WriteResponse) -> Option<R>,
    ) -> Result<Response<R>, Status> {
        self.serve(operation, Effect::Write, request, |call, message| async move {
            unwrap(self.write(&call, wrap(message)).await?).ok_or_else(Problem::mismatch)
        })
        .await
    }

    /// Serves an RPC that is one read of the engine.
    async fn serve_read<Q: Message + 'static, R: Send + 'static>(
        &self,
        operation: Operation,
        request: Request<Q>,
        consistency: fn(&Q) -> Option<&v1::Consistency>,
        read: fn(&Engine, &Principal, &Q, &ReadPoint) -> cairn_engine::Result<R>,
    ) -> Result<Response<R>, Status> {
        self.serve(operation, Effect::Read, request, |call, message| async move {
            let point = self.read_point(&call, consistency(&message)).await?;
            self.read_at(&call, point, move |engine, principal, point| read(engine, principal, &message, point)).await
        })
        .await
    }
}

/// Reads what a request says of its freshness.
fn read_level(consistency: Option<&v1::Consistency>) -> Result<ReadLevel, Problem> {
    use v1::consistency::Level;

    match consistency.and_then(|consistency| consistency.level.as_ref()) {
        None | Some(Level::Linearizable(_)) => Ok(ReadLevel::Linearizable),
        Some(Level::AtLeast(token)) => Ok(ReadLevel::AtLeast(Position::decode("consistency.at_least", token)?)),
        Some(Level::MaxStaleness(duration)) => match Duration::try_from(*duration) {
            Ok(staleness) if !staleness.is_zero() && staleness <= STALENESS_MAX => {
                Ok(ReadLevel::MaxStaleness(staleness))
            }
            _ => Err(Problem::invalid("consistency.max_staleness", "must be more than 0 and at most 1 h")),
        },
    }
}

/// Counts a call when it ends, also when the client goes away in its midst.
struct Record<'a> {
    monitor: &'a Monitor,
    operation: Operation,
    began: Clock,
    outcome: &'static str,
}

impl<'a> Record<'a> {
    fn new(monitor: &'a Monitor, operation: Operation) -> Self {
        Self { monitor, operation, began: Clock::now(), outcome: "cancelled" }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.monitor.metrics().record(self.operation, self.outcome, self.began.elapsed());
    }
}
