//! Makes `openapi.json` from the table of routes and the `.proto` files, comments included, and holds it true.
//!
//! Compiled for tests only: the server serves the file. After a change of the API or of the table:
//! `CAIRN_UPDATE=1 cargo test --release -p cairn-server openapi`.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::lines::NDJSON;
use super::refusal::PROBLEM_JSON;
use super::routes::{Input, Output, Route, Routes, Rule, Segment, segments};

const INTRODUCTION: &str = "The public API of Cairn as JSON. It is the gRPC API of `cairn.v1`, translated: \
the same calls, limits and failures.\n\n\
Requests may spell fields as here or in camel case; answers spell them as here. 64-bit integers are text, and numbers \
are taken too. A field that does not exist, is given twice or has a wrong type is refused by name. \
A call may bring its own deadline in the header `grpc-timeout`, such as `500m` for 500 ms. \
Requests with a body need `content-type: application/json`.";

/// Names of operations whose RPC has an earlier row already.
const OTHER_NAMES: [(&str, &str, &str); 5] = [
    ("DELETE", "/v1/aliases/{alias}", "removeAlias"),
    ("POST", "/v1/spaces/{space}/memories:list", "queryMemories"),
    ("POST", "/v1/spaces/{space}/memories:count", "countMatchingMemories"),
    ("GET", "/v1/spaces/{space}/memories/{id=ids}", "getMemory"),
    ("DELETE", "/v1/spaces/{space}/memories/{id=ids.ids}", "deleteMemory"),
];

struct Document {
    comments: BTreeMap<(String, Vec<i32>), String>,
    schemas: Map<String, Value>,
    /// Messages that callers send; in all others, fields without presence are always there.
    sent: BTreeSet<String>,
}

impl Document {
    fn comment(&self, file: &FileDescriptor, path: &[i32]) -> String {
        self.comments.get(&(file.name().to_owned(), path.to_vec())).cloned().unwrap_or_default()
    }

    fn field_comment(&self, field: &FieldDescriptor) -> String {
        self.comment(&field.parent_message().parent_file(), field.path())
    }

    /// The schema of one value of a field, or of its elements.
    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Double | Kind::Float => json!({"type": "number"}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "format": "int64", "minimum": 0}),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({"type": "string", "format": "int64"}),
            Kind::Uint64 | Kind::Fixed64 => json!({"type": "string", "format": "uint64"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Enum(descriptor) => self.enumeration(descriptor),
            Kind::Message(descriptor) => self.message(descriptor),
        }
    }

    fn reference(name: &str) -> Value {
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor) -> Value {
        let name = descriptor.name();
        if !self.schemas.contains_key(name) {
            let mut description = self.comment(&descriptor.parent_file(), descriptor.path());
            for value in descriptor.values() {
                let comment = self.comment(&descriptor.parent_file(), value.path());
                description.push_str(&format!("\n- `{}`: {comment}", value.name()));
            }
            let names: Vec<_> = descriptor.values().map(|value| value.name().to_owned()).collect();
            self.schemas.insert(name.to_owned(), json!({"type": "string", "description": description, "enum": names}));
        }
        Self::reference(name)
    }

    fn message(&mut self, descriptor: &MessageDescriptor) -> Value {
        match descriptor.full_name() {
            "google.protobuf.Timestamp" => return json!({"type": "string", "format": "date-time"}),
            "google.protobuf.Duration" => {
                return json!({"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$", "examples": ["1.5s"]});
            }
            "google.protobuf.FieldMask" => {
                return json!({"type": ["array", "string"], "items": {"type": "string"}, "examples": [["content", "metadata.topic"], "content,kind"]});
            }
            _ => {}
        }
        let name = descriptor.name();
        if !self.schemas.contains_key(name) {
            // Held first, since messages may contain themselves.
            self.schemas.insert(name.to_owned(), Value::Null);
            let schema = self.object(descriptor, &[]);
            let schema = match name {
                "Value" => {
                    self.shorthand(schema, "ValueMessage", json!({"type": ["string", "number", "boolean", "null"]}))
                }
                "ListValue" => self.shorthand(schema, "ListValueMessage", Value::Null),
                _ => schema,
            };
            self.schemas.insert(name.to_owned(), schema);
        }
        Self::reference(name)
    }

    /// A message that requests may also write as plain JSON.
    fn shorthand(&mut self, message: Value, name: &str, plain: Value) -> Value {
        let description = message["description"].clone();
        self.schemas.insert(name.to_owned(), message);
        let list = json!({"type": "array", "items": Self::reference("Value")});
        let forms: Vec<_> = [Self::reference(name), plain, list].into_iter().filter(|form| !form.is_null()).collect();
        json!({"description": format!("{description}\nRequests may also say plain JSON; answers hold the message.", description = description.as_str().unwrap_or_default()), "anyOf": forms})
    }

    fn object(&mut self, descriptor: &MessageDescriptor, left_out: &[&str]) -> Value {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        let always = !self.sent.contains(descriptor.name());
        for field in descriptor.fields().filter(|field| !left_out.contains(&field.name())) {
            properties.insert(field.name().to_owned(), self.property(&field));
            if always && !field.supports_presence() {
                required.push(field.name().to_owned());
            }
        }
        let description = self.comment(&descriptor.parent_file(), descriptor.path());
        let mut schema = json!({"type": "object", "description": description, "properties": properties});
        if let Some(schema) = schema.as_object_mut() {
            if !required.is_empty() {
                schema.insert("required".to_owned(), json!(required));
            }
            schema.insert("additionalProperties".to_owned(), json!(always));
        }
        schema
    }

    fn property(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                json!({"type": "object", "additionalProperties": self.kind(&entry.map_entry_value_field().kind())})
            }
            kind if field.is_list() => json!({"type": "array", "items": self.kind(&kind)}),
            kind => self.kind(&kind),
        };
        schema["description"] = self.field_comment(field).into();
        schema
    }

    /// The parameters of a query: fields, and fields of plain messages in them.
    fn parameters(&mut self, descriptor: &MessageDescriptor, prefix: &str, taken: &[String], found: &mut Vec<Value>) {
        for field in descriptor.fields() {
            let name = format!("{prefix}{}", field.name());
            if taken.contains(&name) {
                continue;
            }
            let inner = match field.kind() {
                Kind::Message(inner) if inner.full_name().starts_with("cairn.") => Some(inner),
                _ => None,
            };
            let description = self.field_comment(&field);
            match inner {
                Some(inner) if inner.name() == "Filter" => {
                    let content = json!({"application/json": {"schema": self.message(&inner)}});
                    found.push(json!({"name": name, "in": "query", "description": description, "content": content}));
                }
                Some(inner) => self.parameters(&inner, &format!("{name}."), taken, found),
                None => {
                    let mut schema = self.property(&field);
                    if let Some(schema) = schema.as_object_mut() {
                        schema.remove("description");
                    }
                    found.push(json!({"name": name, "in": "query", "description": description, "schema": schema}));
                }
            }
        }
    }

    fn operation(&mut self, route: &Route, first: bool) -> Value {
        let (rule, request) = (route.rule, header_or_request(route));
        let (path_fields, mut parameters) = self.path_parameters(rule, &request);
        let mut operation = json!({
            "operationId": operation_name(rule, first),
            "tags": [route.rpc.parent_service().name()],
            "summary": self.comment(&route.rpc.parent_service().parent_file(), route.rpc.path()),
            "description": format!("`cairn.v1.{}`", rule.rpc),
        });
        let body = match rule.input {
            Input::Body => {
                let left_out: Vec<&str> =
                    path_fields.iter().map(String::as_str).chain(rule.hidden.iter().copied()).collect();
                let mut schema = self.object(&request, &left_out);
                if !rule.required.is_empty() {
                    schema["required"] = json!(rule.required);
                }
                let required = schema["properties"].as_object().is_some_and(|properties| !properties.is_empty());
                Some(json!({"required": required, "content": {"application/json": {"schema": schema}}}))
            }
            Input::Lines => {
                let offset = json!({"type": "string", "format": "uint64"});
                parameters.push(json!({"name": "offset", "in": "query", "schema": offset,
                    "description": "The number of memories of the import before this body: the last acknowledged offset."}));
                let schema = self.message(&route.rpc.parent_pool().get_message_by_name("cairn.v1.Memory").unwrap());
                Some(
                    json!({"required": true, "description": "One memory a line.", "content": {NDJSON: {"schema": schema}}}),
                )
            }
            Input::Query => None,
        };
        if rule.input != Input::Body {
            let taken: Vec<String> =
                path_fields.iter().cloned().chain(rule.hidden.iter().map(|name| (*name).to_owned())).collect();
            self.parameters(&request, "", &taken, &mut parameters);
        }
        operation["responses"] = self.responses(route);
        if !parameters.is_empty() {
            operation["parameters"] = json!(parameters);
        }
        if let Some(body) = body {
            operation["requestBody"] = body;
        }
        operation
    }

    fn path_parameters(&self, rule: &Rule, request: &MessageDescriptor) -> (Vec<String>, Vec<Value>) {
        let (mut fields, mut parameters) = (Vec::new(), Vec::new());
        for segment in segments(rule.path) {
            let Segment::Variable { name, field, .. } = segment else { continue };
            let mut message = request.clone();
            let mut found = None;
            for part in field.split('.') {
                found = message.get_field_by_name(part);
                if let Some(Kind::Message(inner)) = found.as_ref().map(FieldDescriptor::kind) {
                    message = inner;
                }
            }
            let field_found = found.unwrap();
            let description = if name == "id" && field_found.is_list() {
                "The memory's id.".to_owned()
            } else {
                self.field_comment(&field_found)
            };
            parameters.push(json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string"}}));
            fields.push(field.to_owned());
        }
        (fields, parameters)
    }

    fn responses(&mut self, route: &Route) -> Value {
        let (kind, schema, description) = match route.rule.output {
            Output::Response => ("application/json", self.message(&route.rpc.output()), "Done."),
            Output::Memory => {
                let update = route.rpc.parent_pool().get_message_by_name("cairn.v1.Memory").unwrap();
                let schema = json!({
                    "type": "object",
                    "properties": {"memory": self.message(&update), "position": {"type": "string", "description": "The position that was read."}},
                    "required": ["memory", "position"],
                });
                ("application/json", schema, "The memory.")
            }
            Output::Lines => {
                let message = self.message(&route.rpc.output());
                let error = json!({"type": "object", "properties": {"error": Self::reference("Problem")}, "required": ["error"]});
                (
                    NDJSON,
                    json!({"anyOf": [message, error]}),
                    "One object a line, as they come. A line with `error` is the last one.",
                )
            }
        };
        json!({
            "200": {"description": description, "content": {kind: {"schema": schema}}},
            "4XX": {"$ref": "#/components/responses/Problem"},
            "5XX": {"$ref": "#/components/responses/Problem"},
        })
    }
}

/// What the fields of path and query are fields of.
fn header_or_request(route: &Route) -> MessageDescriptor {
    match route.rule.input {
        Input::Lines => route.rpc.parent_pool().get_message_by_name("cairn.v1.ImportHeader").unwrap(),
        _ => route.rpc.input(),
    }
}

fn operation_name(rule: &Rule, first: bool) -> String {
    if let Some((_, _, name)) =
        OTHER_NAMES.iter().find(|(method, path, _)| (*method, *path) == (rule.method, rule.path))
    {
        return (*name).to_owned();
    }
    assert!(first, "{} {} needs a name of its own in OTHER_NAMES", rule.method, rule.path);
    let name = rule.rpc.split_once('.').unwrap().1;
    name[..1].to_lowercase() + &name[1..]
}

fn problem_schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "description": "A failure, after RFC 9457, with the details of the gRPC status.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": text("Always `about:blank`: `reason` tells failures apart."),
            "title": text("The HTTP status in words."),
            "status": {"type": "integer", "description": "The HTTP status."},
            "detail": text("What went wrong, for people."),
            "code": text("The gRPC code, such as `INVALID_ARGUMENT`: what to do."),
            "reason": text("What went wrong, for programs, such as `SPACE_NOT_FOUND`."),
            "domain": text("Whose reasons these are: `cairn.dev`."),
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}, "description": "More on the reason."},
            "violations": {"type": "array", "description": "Fields of the request that break a rule.", "items": {
                "type": "object", "required": ["field", "description"],
                "properties": {"field": text("The field's path."), "description": text("The rule.")},
            }},
            "resource": {"type": "object", "description": "What is not there, or is there already.", "properties": {
                "type": text("Such as `space`."), "name": text("Its name."),
            }},
            "retry_after": text("How long to wait, such as `0.5s`; the header Retry-After says it in whole seconds."),
            "quota": {"type": "array", "description": "What is full.", "items": {
                "type": "object", "properties": {"subject": text("What."), "description": text("Its limit.")},
            }},
        },
    })
}

/// All comments, by file and path.
fn comments(pool: &DescriptorPool) -> BTreeMap<(String, Vec<i32>), String> {
    let mut found = BTreeMap::new();
    for file in pool.files().filter(|file| file.package_name() == "cairn.v1") {
        let locations = file.file_descriptor_proto().source_code_info.clone().unwrap_or_default().location;
        for location in locations {
            let lines: Vec<_> = location.leading_comments().lines().map(str::trim).collect();
            found.insert((file.name().to_owned(), location.path.clone()), lines.join(" ").trim().to_owned());
        }
    }
    found
}

/// The names of all messages that can be in a request.
fn sent(routes: &Routes) -> BTreeSet<String> {
    fn add(message: &MessageDescriptor, names: &mut BTreeSet<String>) {
        if names.insert(message.name().to_owned()) {
            message
                .fields()
                .filter_map(|field| field.kind().as_message().cloned())
                .for_each(|inner| add(&inner, names));
        }
    }
    let mut names = BTreeSet::new();
    routes.all().iter().for_each(|route| add(&route.rpc.input(), &mut names));
    names
}

fn document() -> Value {
    let pool = DescriptorPool::decode(cairn_proto::FILE_DESCRIPTOR_SET).unwrap();
    let routes = Routes::new(&pool).unwrap();
    let mut document = Document { comments: comments(&pool), schemas: Map::new(), sent: sent(&routes) };
    let (mut paths, mut seen, mut tags) = (Map::new(), BTreeSet::new(), Vec::new());
    for route in routes.all() {
        let operation = document.operation(route, seen.insert(route.rule.rpc));
        let path = segments(route.rule.path).into_iter().map(|segment| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::Variable { name, end, .. } => format!("/{{{name}}}{end}"),
        });
        let entry = paths.entry(path.collect::<String>()).or_insert_with(|| json!({}));
        entry[route.rule.method.to_lowercase()] = operation;
        let service = route.rpc.parent_service();
        if !tags.iter().any(|tag: &Value| tag["name"] == service.name()) {
            let description = document.comment(&service.parent_file(), service.path());
            tags.push(json!({"name": service.name(), "description": description}));
        }
    }
    let problem =
        json!({"description": "A failure.", "content": {PROBLEM_JSON: {"schema": Document::reference("Problem")}}});
    document.schemas.insert("Problem".to_owned(), problem_schema());
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Cairn", "version": "1", "summary": "The memory database for AI agents.", "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The node that serves this document."}],
        "security": [],
        "tags": tags,
        "paths": paths,
        "components": {"schemas": document.schemas, "responses": {"Problem": problem}},
    })
}

#[test]
fn the_openapi_document_says_what_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/openapi.json");
    let made = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os("CAIRN_UPDATE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(kept == made, "openapi.json does not fit the API; make it anew with CAIRN_UPDATE=1");
}

#[test]
fn every_name_in_the_document_has_a_description() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        let properties = schema["properties"].as_object().into_iter().flatten();
        for (property, schema) in properties {
            assert!(schema["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}.{property}");
        }
    }
}
