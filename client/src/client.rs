//! [`Client`] and its builder, and the calls that are not about the memories of one space.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::v1::cluster_service_client::ClusterServiceClient;
use cairn_proto::v1::space_service_client::SpaceServiceClient;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::call::{Core, method};
use crate::endpoints::{CallKind, Endpoints};
use crate::error::{Error, Result};
use crate::proto;
use crate::results::{self, AliasSet, Consistency, Deleted, Position, SpaceCreated, SpacePage};
use crate::{NewSpace, RetryPolicy, Space, UpdateSpace};

/// Where a node on this machine takes client calls.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7480";
/// Enough for a failover in the middle of a call.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
/// Answers hold up to 1,000 memories with vectors, far more than gRPC's customary 4 MiB.
const DEFAULT_RESPONSE_BYTES_MAX: usize = 256 << 20;

/// A client of one Cairn cluster. Clones share connections and what is known of the nodes.
#[derive(Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
}

/// Builds a [`Client`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    deadline: Duration,
    retry: RetryPolicy,
    response_bytes_max: usize,
}

impl ClientBuilder {
    /// The nodes to ask, as `http://host:port`; calls begin with the first and move on when a node fails. All nodes of a
    /// cluster should be named, so that calls go on when one is down.
    pub fn endpoints<T: Into<String>>(mut self, endpoints: impl IntoIterator<Item = T>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// How long a call may take, retries and waits included; 10 s where it is not said. Each call can have its own.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// When calls are tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// The largest answer that is taken, in bytes; 256 MiB where it is not said.
    pub fn response_bytes_max(mut self, bytes: usize) -> Self {
        self.response_bytes_max = bytes;
        self
    }

    /// Checks the settings. Connections are made by the first calls.
    ///
    /// # Errors
    /// `Configuration` where there is no endpoint, or one is not an address.
    pub fn build(self) -> Result<Client> {
        let endpoints = Endpoints::new(&self.endpoints)?;
        if self.deadline.is_zero() {
            return Err(Error::configuration("a deadline must be longer than zero"));
        }
        let core =
            Core { endpoints, retry: self.retry, deadline: self.deadline, response_bytes_max: self.response_bytes_max };
        Ok(Client { core: Arc::new(core) })
    }
}

impl Client {
    /// Begins a client for `http://127.0.0.1:7480`.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            endpoints: vec![DEFAULT_ENDPOINT.to_owned()],
            deadline: DEFAULT_DEADLINE,
            retry: RetryPolicy::default(),
            response_bytes_max: DEFAULT_RESPONSE_BYTES_MAX,
        }
    }

    /// A handle to a space, by name or alias; nothing is sent.
    pub fn space(&self, name: impl Into<String>) -> Space {
        Space::new(self.core.clone(), name.into())
    }

    /// Makes a space.
    pub fn create_space(&self, space: NewSpace) -> CreateSpace {
        let request = proto::CreateSpaceRequest { space: Some(space.into()), ..Default::default() };
        CreateSpace { core: self.core.clone(), request, deadline: None }
    }

    /// Changes settings or indexed fields of a space, by name or alias.
    pub fn update_space(&self, name: impl Into<String>) -> UpdateSpace {
        UpdateSpace::new(self.core.clone(), name.into())
    }

    /// Deletes a space, by name, with all its memories.
    pub fn delete_space(&self, name: impl Into<String>) -> DeleteSpace {
        let request = proto::DeleteSpaceRequest { name: name.into(), ..Default::default() };
        DeleteSpace { core: self.core.clone(), request, deadline: None }
    }

    /// Lets an alias mean a space from now on, at once for everyone; it may have meant another one before.
    pub fn set_alias(&self, alias: impl Into<String>, space: impl Into<String>) -> SetAlias {
        let request = proto::SetAliasRequest { alias: alias.into(), space: space.into(), ..Default::default() };
        SetAlias { core: self.core.clone(), request, deadline: None }
    }

    /// Removes an alias; the space that it means stays.
    pub fn remove_alias(&self, alias: impl Into<String>) -> SetAlias {
        self.set_alias(alias, "")
    }

    /// Lists the spaces.
    pub fn spaces(&self) -> ListSpaces {
        ListSpaces { core: self.core.clone(), request: proto::ListSpacesRequest::default(), deadline: None }
    }

    /// Reads the state of the cluster, as one node sees it; answered without a quorum too.
    pub fn status(&self) -> ClusterStatus {
        ClusterStatus { core: self.core.clone(), request: proto::GetClusterStatusRequest::default(), deadline: None }
    }
}

/// Declares a call: a request that is sent by awaiting it, with a deadline of its own.
macro_rules! call_builder {
    ($(#[$doc:meta])* $name:ident($request:ty) -> $answer:ty) => {
        $(#[$doc])*
        #[derive(Clone)]
        #[must_use = "a call is sent by awaiting it"]
        pub struct $name {
            core: Arc<Core>,
            request: $request,
            deadline: Option<Duration>,
        }

        impl $name {
            /// How long this call may take, retries and waits included.
            pub fn deadline(mut self, deadline: Duration) -> Self {
                self.deadline = Some(deadline);
                self
            }
        }

        impl IntoFuture for $name {
            type Output = Result<$answer>;
            type IntoFuture = BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}
pub(crate) use call_builder;

/// Adds what all reads have: how fresh the answer must be.
macro_rules! read_builder {
    ($name:ident) => {
        impl $name {
            /// How fresh the answer must be; linearizable where it is not said.
            pub fn consistency(mut self, consistency: &Consistency) -> Self {
                self.request.consistency = consistency.to_proto();
                self
            }

            /// The answer reflects every write up to this position.
            pub fn at_least(self, position: impl Into<Position>) -> Self {
                self.consistency(&Consistency::AtLeast(position.into()))
            }

            /// The answer may be this old.
            pub fn max_staleness(self, age: Duration) -> Self {
                self.consistency(&Consistency::MaxStaleness(age))
            }
        }
    };
}
pub(crate) use read_builder;

/// Adds what all writes have: the request id.
macro_rules! write_builder {
    ($name:ident) => {
        impl $name {
            /// Names this write, at most 64 bytes: within 24 hours the same call under the same id is applied once. Give
            /// one where the caller itself may repeat the call; the SDK's own retries always carry one.
            pub fn request_id(mut self, id: impl Into<String>) -> Self {
                self.request.request_id = id.into();
                self
            }
        }
    };
}
pub(crate) use write_builder;

/// Adds what all writes that a history tells of have: who, and why.
macro_rules! history_builder {
    ($name:ident, $request:ident) => {
        impl $name {
            /// Who is writing, for the history.
            pub fn actor(mut self, actor: impl Into<String>) -> Self {
                self.$request.actor = actor.into();
                self
            }

            /// Why, for the history.
            pub fn reason(mut self, reason: impl Into<String>) -> Self {
                self.$request.reason = reason.into();
                self
            }
        }
    };
}
pub(crate) use history_builder;

/// Adds what all reads page by page have: how large a page is, where it begins, and all of them as a stream.
macro_rules! paged_builder {
    ($name:ident, $things:literal: $page:ident { $items:ident: $item:ty }) => {
        impl $name {
            #[doc = concat!($things, " a page, 1 to 1,000; 50 where it is not said.")]
            pub fn page_size(mut self, size: u32) -> Self {
                self.request.page_size = i32::try_from(size).unwrap_or(i32::MAX);
                self
            }

            /// Goes on where an earlier page of the same call ended.
            pub fn page_token(mut self, token: impl Into<String>) -> Self {
                self.request.page_token = token.into();
                self
            }

            /// All of them, page by page; the deadline holds for each page. The stream ends after the first error.
            pub fn stream(self) -> BoxStream<'static, Result<$item>> {
                self.pages().map_ok(|page| stream::iter(page.$items.into_iter().map(Ok))).try_flatten().boxed()
            }

            /// All pages. The stream ends after the first error.
            pub fn pages(self) -> BoxStream<'static, Result<$page>> {
                stream::try_unfold(Some(self), |call| async move {
                    let Some(call) = call else { return Ok(None) };
                    let mut next = call.clone();
                    let page = call.send().await?;
                    let next = match &page.next_page_token {
                        // A server that repeats a token would keep its caller for ever.
                        Some(token) if *token == next.request.page_token => {
                            return Err(Error::malformed("a new page token"));
                        }
                        Some(token) => {
                            next.request.page_token.clone_from(token);
                            Some(next)
                        }
                        None => None,
                    };
                    Ok(Some((page, next)))
                })
                .boxed()
            }
        }
    };
}
pub(crate) use paged_builder;

/// Sends a delete, and tells how much it deleted.
macro_rules! delete_call {
    ($name:ident, $service:ident, $method:ident) => {
        write_builder!($name);

        impl $name {
            async fn send(mut self) -> Result<Deleted> {
                request_id_or_new(&mut self.request.request_id);
                let send = method!($service, $method);
                let answer = self.core.call(CallKind::Write, self.deadline, self.request, send).await?;
                Ok(Deleted { count: answer.deleted_count, position: answer.position.into() })
            }
        }
    };
}
pub(crate) use delete_call;

/// Gives a write an id where the caller gave none, so that retries are recognized.
pub(crate) fn request_id_or_new(id: &mut String) {
    if id.is_empty() {
        *id = uuid::Uuid::now_v7().to_string();
    }
}

call_builder! {
    /// Makes a space; await it.
    CreateSpace(proto::CreateSpaceRequest) -> SpaceCreated
}
write_builder!(CreateSpace);

impl CreateSpace {
    async fn send(mut self) -> Result<SpaceCreated> {
        request_id_or_new(&mut self.request.request_id);
        let send = method!(SpaceServiceClient, create_space);
        let answer = self.core.call(CallKind::Write, self.deadline, self.request, send).await?;
        Ok(SpaceCreated {
            space: answer.space.ok_or_else(|| Error::malformed("the space"))?,
            position: answer.position.into(),
        })
    }
}

call_builder! {
    /// Deletes a space; await it.
    DeleteSpace(proto::DeleteSpaceRequest) -> Deleted
}
delete_call!(DeleteSpace, SpaceServiceClient, delete_space);

call_builder! {
    /// Sets or removes an alias; await it.
    SetAlias(proto::SetAliasRequest) -> AliasSet
}
write_builder!(SetAlias);

impl SetAlias {
    async fn send(mut self) -> Result<AliasSet> {
        request_id_or_new(&mut self.request.request_id);
        let send = method!(SpaceServiceClient, set_alias);
        let answer = self.core.call(CallKind::Write, self.deadline, self.request, send).await?;
        let previous_space = (!answer.previous_space.is_empty()).then_some(answer.previous_space);
        Ok(AliasSet { previous_space, position: answer.position.into() })
    }
}

call_builder! {
    /// Lists spaces: await it for one page, or turn it into a [`stream`](ListSpaces::stream) of all.
    ListSpaces(proto::ListSpacesRequest) -> SpacePage
}
read_builder!(ListSpaces);
paged_builder!(ListSpaces, "Spaces": SpacePage { spaces: proto::Space });

impl ListSpaces {
    async fn send(self) -> Result<SpacePage> {
        let send = method!(SpaceServiceClient, list_spaces);
        let answer = self.core.call(CallKind::Read, self.deadline, self.request, send).await?;
        Ok(SpacePage {
            spaces: answer.spaces,
            next_page_token: results::next_page(answer.next_page_token),
            position: answer.position.into(),
        })
    }
}

call_builder! {
    /// A read of the state of the cluster; await it.
    ClusterStatus(proto::GetClusterStatusRequest) -> proto::GetClusterStatusResponse
}

impl ClusterStatus {
    async fn send(self) -> Result<proto::GetClusterStatusResponse> {
        let send = method!(ClusterServiceClient, get_cluster_status);
        self.core.call(CallKind::Read, self.deadline, self.request, send).await
    }
}
