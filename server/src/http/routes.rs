//! Which request over HTTP is which RPC: the table, and how a request finds its row.
//!
//! A path is a template. `{space}` stands for one segment, which becomes the field `space` of the RPC's request;
//! `{id=memory.id}` is called `id` towards callers and becomes the field `id` of the field `memory`. A field that is a
//! list gets the segment as its only element. Segments are percent-encoded, so that an id may hold any character.

use prost_reflect::{DescriptorPool, MethodDescriptor};

/// Where the fields of a request come from that the path does not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// The query: `page_size=10`, `scope.user_id=ada`; a message as JSON.
    Query,
    /// The body, one JSON object.
    Body,
    /// The query names the import; the body is memories, one JSON object a line.
    Lines,
}

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// The RPC's response.
    Response,
    /// The one memory of a `GetMemoriesResponse`, or 404.
    Memory,
    /// The RPC's responses, one a line, as they come.
    Lines,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// GET, POST, PUT, PATCH or DELETE.
    pub(super) method: &'static str,
    /// The template of the path.
    pub(super) path: &'static str,
    /// Service and method in `cairn.v1`.
    pub(super) rpc: &'static str,
    /// Where the request comes from.
    pub(super) input: Input,
    /// What the answer is.
    pub(super) output: Output,
    /// Fields that this row does not take, since their default is what it is for.
    pub(super) hidden: &'static [&'static str],
    /// Fields that must be there, since their default would mean something else.
    pub(super) required: &'static [&'static str],
}

const fn row(method: &'static str, path: &'static str, rpc: &'static str, input: Input) -> Rule {
    Rule { method, path, rpc, input, output: Output::Response, hidden: &[], required: &[] }
}

use Input::{Body, Lines, Query};

/// Every route below `/v1/`. A test holds that each RPC has one.
pub(super) const RULES: &[Rule] = &[
    row("POST", "/v1/spaces", "SpaceService.CreateSpace", Body),
    row("GET", "/v1/spaces", "SpaceService.ListSpaces", Query),
    row("GET", "/v1/spaces/{space=name}", "SpaceService.GetSpace", Query),
    row("PATCH", "/v1/spaces/{space=space.name}", "SpaceService.UpdateSpace", Body),
    row("DELETE", "/v1/spaces/{space=name}", "SpaceService.DeleteSpace", Query),
    Rule { required: &["space"], ..row("PUT", "/v1/aliases/{alias}", "SpaceService.SetAlias", Body) },
    Rule { hidden: &["space"], ..row("DELETE", "/v1/aliases/{alias}", "SpaceService.SetAlias", Query) },
    row("POST", "/v1/spaces/{space}/memories", "MemoryService.AddMemories", Body),
    row("GET", "/v1/spaces/{space}/memories", "MemoryService.ListMemories", Query),
    row("POST", "/v1/spaces/{space}/memories:list", "MemoryService.ListMemories", Body),
    row("POST", "/v1/spaces/{space}/memories:get", "MemoryService.GetMemories", Body),
    row("POST", "/v1/spaces/{space}/memories:search", "MemoryService.SearchMemories", Body),
    row("GET", "/v1/spaces/{space}/memories:count", "MemoryService.CountMemories", Query),
    row("POST", "/v1/spaces/{space}/memories:count", "MemoryService.CountMemories", Body),
    row("POST", "/v1/spaces/{space}/memories:delete", "MemoryService.DeleteMemories", Body),
    Rule {
        output: Output::Lines,
        ..row("POST", "/v1/spaces/{space}/memories:import", "MemoryService.ImportMemories", Lines)
    },
    Rule {
        output: Output::Lines,
        ..row("GET", "/v1/spaces/{space}/memories:watch", "MemoryService.WatchMemories", Query)
    },
    Rule {
        output: Output::Memory,
        ..row("GET", "/v1/spaces/{space}/memories/{id=ids}", "MemoryService.GetMemories", Query)
    },
    row("PATCH", "/v1/spaces/{space}/memories/{id=memory.id}", "MemoryService.UpdateMemory", Body),
    Rule {
        hidden: &["selection"],
        ..row("DELETE", "/v1/spaces/{space}/memories/{id=ids.ids}", "MemoryService.DeleteMemories", Query)
    },
    row("GET", "/v1/spaces/{space}/memories/{id}/history", "MemoryService.GetMemoryHistory", Query),
    row("GET", "/v1/spaces/{space}/namespaces", "MemoryService.ListNamespaces", Query),
    row("GET", "/v1/cluster", "ClusterService.GetClusterStatus", Query),
    row("POST", "/v1/cluster:transfer_leadership", "ClusterService.TransferLeadership", Body),
    row("POST", "/v1/cluster/members", "ClusterService.AddMember", Body),
    row("DELETE", "/v1/cluster/members/{node_id}", "ClusterService.RemoveMember", Query),
    row("POST", "/v1/cluster/members/{node_id}:promote", "ClusterService.PromoteMember", Body),
    row("POST", "/v1/cluster/members/{node_id}:drain", "ClusterService.DrainNode", Body),
];

/// A segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text.
    Literal(&'static str),
    /// Any text but the empty one, before a fixed end such as `:drain`.
    Variable {
        /// What callers call it.
        name: &'static str,
        /// The dotted path of the request's field that it becomes.
        field: &'static str,
        /// The fixed end, often empty.
        end: &'static str,
    },
}

/// The segments of a template, without the leading slash.
pub(super) fn segments(template: &'static str) -> Vec<Segment> {
    template.trim_start_matches('/').split('/').map(segment).collect()
}

fn segment(text: &'static str) -> Segment {
    let Some((variable, end)) = text.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
        return Segment::Literal(text);
    };
    let (name, field) = variable.split_once('=').unwrap_or((variable, variable));
    Segment::Variable { name, field, end }
}

/// A row with its RPC, ready to be matched.
#[derive(Debug)]
pub(super) struct Route {
    /// The row.
    pub(super) rule: &'static Rule,
    /// The RPC.
    pub(super) rpc: MethodDescriptor,
    segments: Vec<Segment>,
}

/// What the path of a request says: dotted path of the field, and its value.
pub(super) type PathValues = Vec<(&'static str, String)>;

/// What a request's method and path lead to.
#[derive(Debug)]
pub(super) enum Match<'a> {
    /// This row.
    Route(&'a Route, PathValues),
    /// Other methods do exist for this path.
    OtherMethods(Vec<&'static str>),
    /// Nothing has this path.
    Nothing,
}

/// All rows.
#[derive(Debug)]
pub(super) struct Routes(Vec<Route>);

impl Routes {
    /// The table, with the RPCs that this pool knows.
    ///
    /// # Errors
    /// The name of an RPC that the pool does not know.
    pub(super) fn new(pool: &DescriptorPool) -> Result<Self, &'static str> {
        let routes = RULES.iter().map(|rule| {
            let (service, method) = rule.rpc.split_once('.').ok_or(rule.rpc)?;
            let service = pool.get_service_by_name(&format!("cairn.v1.{service}")).ok_or(rule.rpc)?;
            let rpc = service.methods().find(|found| found.name() == method).ok_or(rule.rpc)?;
            Ok(Route { rule, rpc, segments: segments(rule.path) })
        });
        routes.collect::<Result<_, _>>().map(Self)
    }

    /// Every row.
    #[cfg(test)]
    pub(super) fn all(&self) -> &[Route] {
        &self.0
    }

    /// Finds the row of a request. `path` is as it was sent, percent-encoded.
    pub(super) fn find(&self, method: &str, path: &str) -> Match<'_> {
        let given: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut others = Vec::new();
        for route in &self.0 {
            let Some(values) = values(&route.segments, &given) else { continue };
            if route.rule.method == method {
                return Match::Route(route, values);
            }
            others.push(route.rule.method);
        }
        if others.is_empty() { Match::Nothing } else { Match::OtherMethods(others) }
    }
}

fn values(template: &[Segment], given: &[&str]) -> Option<PathValues> {
    if template.len() != given.len() {
        return None;
    }
    let mut values = Vec::new();
    for (segment, given) in template.iter().zip(given) {
        match segment {
            Segment::Literal(text) if text == given => {}
            Segment::Literal(_) => return None,
            Segment::Variable { field, end, .. } => {
                let text = given.strip_suffix(end).filter(|text| !text.is_empty())?;
                let text = percent_encoding::percent_decode_str(text).decode_utf8().ok()?;
                values.push((*field, text.into_owned()));
            }
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(cairn_proto::FILE_DESCRIPTOR_SET).unwrap()
    }

    fn found(method: &str, path: &str) -> String {
        match Routes::new(&pool()).unwrap().find(method, path) {
            Match::Route(route, values) => format!("{} {values:?}", route.rule.rpc),
            Match::OtherMethods(methods) => format!("{methods:?}"),
            Match::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn every_rpc_of_the_public_api_has_a_route() {
        let pool = pool();
        let services = pool.services().filter(|service| service.package_name() == "cairn.v1");
        let rpcs: BTreeSet<_> = services
            .flat_map(|service| {
                service.methods().map(|method| format!("{}.{}", service.name(), method.name())).collect::<Vec<_>>()
            })
            .collect();
        let routed: BTreeSet<_> = RULES.iter().map(|rule| rule.rpc.to_owned()).collect();
        assert_eq!(rpcs, routed);
    }

    #[test]
    fn every_field_that_a_row_names_exists() {
        for route in Routes::new(&pool()).unwrap().0 {
            for segment in &route.segments {
                let Segment::Variable { field, .. } = segment else { continue };
                let mut message = Some(if route.rule.input == Input::Lines {
                    pool().get_message_by_name("cairn.v1.ImportHeader").unwrap()
                } else {
                    route.rpc.input()
                });
                for name in field.split('.') {
                    let found = message.as_ref().and_then(|message| message.get_field_by_name(name));
                    let found = found.unwrap_or_else(|| panic!("{}: {field}", route.rule.path));
                    message = found.kind().as_message().cloned();
                }
            }
            for name in route.rule.hidden.iter().chain(route.rule.required) {
                assert!(route.rpc.input().get_field_by_name(name).is_some(), "{}: {name}", route.rule.path);
            }
        }
    }

    #[test]
    fn paths_find_their_rows() {
        for (method, path, expected) in [
            ("GET", "/v1/spaces", "SpaceService.ListSpaces []"),
            ("GET", "/v1/spaces/notes", r#"SpaceService.GetSpace [("name", "notes")]"#),
            ("POST", "/v1/spaces/notes/memories:search", r#"MemoryService.SearchMemories [("space", "notes")]"#),
            (
                "GET",
                "/v1/spaces/notes/memories/a%2Fb:watch",
                r#"MemoryService.GetMemories [("space", "notes"), ("ids", "a/b:watch")]"#,
            ),
            ("POST", "/v1/cluster/members/7:drain", r#"ClusterService.DrainNode [("node_id", "7")]"#),
            ("DELETE", "/v1/cluster/members/7", r#"ClusterService.RemoveMember [("node_id", "7")]"#),
            ("POST", "/v1/cluster/members/:drain", r#"["DELETE"]"#),
            ("GET", "/v1/spaces/", "nothing"),
            ("GET", "/v1/spaces/notes/", "nothing"),
            ("GET", "/v1/spaces/%ff", "nothing"),
            ("PUT", "/v1/spaces/notes", r#"["GET", "PATCH", "DELETE"]"#),
            ("GET", "/v2/spaces", "nothing"),
        ] {
            assert_eq!(found(method, path), expected, "{method} {path}");
        }
    }
}
