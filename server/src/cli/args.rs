//! The arguments of the client verbs, as clap reads them. Nothing here talks to a server.

use std::path::PathBuf;
use std::time::Duration;

use cairn_client::Timestamp;
use clap::{Args, Subcommand, ValueEnum};

use super::input::{parse_clear, parse_duration, parse_meta, parse_timestamp};

/// How long one call may take where it is not said.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Options of every verb that talks to a server; they may stand before or behind the verb.
#[derive(Debug, Clone, Args)]
pub struct ClientOptions {
    /// Address of a node; give it once for each node that may be asked. By default CAIRN_ENDPOINT, then the context's, then
    /// http://127.0.0.1:7480.
    #[arg(
        help_heading = "Client options",
        long = "endpoint",
        value_name = "URL",
        global = true,
        value_delimiter = ','
    )]
    pub endpoints: Vec<String>,

    /// The context to work in; see `cairn context`. By default CAIRN_CONTEXT, then the one in use.
    #[arg(help_heading = "Client options", long, value_name = "NAME", global = true)]
    pub context: Option<String>,

    /// Output form; by default tables on a terminal and tab-separated lines elsewhere.
    #[arg(help_heading = "Client options", short, long, value_enum, value_name = "FORM", global = true)]
    pub output: Option<OutputForm>,

    /// The space to work in, by name or alias. By default CAIRN_SPACE, then the context's, then `default`.
    #[arg(help_heading = "Client options", long, value_name = "NAME", global = true)]
    pub space: Option<String>,

    /// How long one call may take, retries included, such as `500ms`, `10s` or `2m`.
    #[arg(help_heading = "Client options", long, value_name = "TIME", global = true, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// Aligned columns for people.
    Table,
    /// One JSON document a line.
    Json,
}

/// The verbs that talk to a server, and `inspect`, which reads a directory.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write memories: one from text, or many from a JSON Lines file.
    Add(Box<AddArgs>),
    /// Find the memories nearest to a text or a vector.
    Search(SearchArgs),
    /// Show memories by id.
    Get(GetArgs),
    /// List memories, newest first.
    Ls(LsArgs),
    /// Change single fields of a memory.
    Update(Box<UpdateArgs>),
    /// Show the versions of a memory: who changed it, when and why.
    History(HistoryArgs),
    /// Delete memories by id, scope or filter.
    Rm(RmArgs),
    /// Count memories.
    Count(CountArgs),
    /// List the namespaces in use, and how many memories are in each.
    Namespaces(NamespacesArgs),
    /// Write every memory of a JSON Lines file of any size; goes on where it was when the connection breaks.
    Import(Box<ImportArgs>),
    /// Print all memories as JSON Lines, as `cairn import` takes them back.
    Export(ExportArgs),
    /// Follow the changes of a space.
    Watch(WatchArgs),
    /// Make, show, list, change, alias and delete spaces.
    #[command(subcommand)]
    Space(SpaceCommand),
    /// Show the cluster and its members.
    Status(StatusArgs),
    /// Add, promote, remove and drain members.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Look for what makes a cluster or a machine slow or unsafe; exits with 1 where something fails.
    Doctor(DoctorArgs),
    /// Keep the addresses of clusters under names.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Look into the data directory of a node that is not running.
    Inspect(InspectArgs),
}

/// Whose memories a verb is about.
#[derive(Debug, Clone, Default, Args)]
pub struct ScopeArgs {
    /// The agent.
    #[arg(help_heading = "Scope", long, value_name = "ID")]
    pub agent: Option<String>,
    /// The user.
    #[arg(help_heading = "Scope", long, value_name = "ID")]
    pub user: Option<String>,
    /// The session.
    #[arg(help_heading = "Scope", long, value_name = "ID")]
    pub session: Option<String>,
    /// The namespace; when reading, with all namespaces below it.
    #[arg(help_heading = "Scope", long, value_name = "PATH")]
    pub namespace: Option<String>,
}

/// Which memories a verb is about.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectArgs {
    /// Only memories that match, such as `kind = "fact" and metadata.topic in ["a", "b"]`, or a filter as JSON.
    #[arg(long = "filter", visible_alias = "where", value_name = "EXPRESSION")]
    pub filter: Option<String>,
    /// Whose memories.
    #[command(flatten)]
    pub scope: ScopeArgs,
}

/// A dense vector from the command line.
#[derive(Debug, Clone, Default, Args)]
pub struct VectorArgs {
    /// A vector: `[0.1, 0.2]` or `0.1,0.2`.
    #[arg(long, value_name = "NUMBERS", conflicts_with = "vector_file", allow_hyphen_values = true)]
    pub vector: Option<String>,
    /// A file that holds the vector in the same form; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub vector_file: Option<PathBuf>,
}

/// The fields of a memory that are neither its text, its vector nor its scope.
#[derive(Debug, Clone, Default, Args)]
pub struct FieldArgs {
    /// What sort of memory it is, such as `fact`.
    #[arg(long, value_name = "WORD")]
    pub kind: Option<String>,
    /// Metadata: a number, true, false, null or JSON keeps its type, all else is a string; dots in the key nest.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_meta)]
    pub meta: Vec<(String, cairn_client::Value)>,
    /// From 0 to 1.
    #[arg(long, value_name = "NUMBER")]
    pub importance: Option<f32>,
    /// Forget the memory after this time, such as `12h` or `30d`.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "expires_at")]
    pub ttl: Option<Duration>,
    /// Forget the memory at this time, such as `2030-01-31` or `2030-01-31T12:00:00Z`.
    #[arg(long, value_name = "DATE", value_parser = parse_timestamp)]
    pub expires_at: Option<Timestamp>,
    /// When the memory was made, for imports.
    #[arg(long, value_name = "DATE", value_parser = parse_timestamp)]
    pub created_at: Option<Timestamp>,
}

/// Who writes and why.
#[derive(Debug, Clone, Default, Args)]
pub struct AuthorArgs {
    /// Who is writing, for the history.
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Sets who writes and why, in a write that can be told.
macro_rules! set_author {
    ($write:ident, $author:expr) => {
        if let Some(actor) = &$author.actor {
            $write = $write.actor(actor);
        }
        if let Some(reason) = &$author.reason {
            $write = $write.reason(reason);
        }
    };
}
pub(super) use set_author;

/// Arguments of `cairn add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The text to remember; without it, or with `-`, it is read from standard input.
    pub text: Option<String>,

    /// Write every memory of a JSON Lines file, one object a line, in the form that `cairn ls -o json` prints; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "id", "kind", "meta", "importance", "ttl", "expires_at", "created_at", "vector", "vector_file"])]
    pub file: Option<PathBuf>,

    /// The memory's id; by default the server makes one.
    #[arg(long)]
    pub id: Option<String>,
    /// What it is beside its text.
    #[command(flatten)]
    pub fields: FieldArgs,

    /// Fail if the id is there already, instead of replacing the memory.
    #[arg(long)]
    pub insert: bool,
    /// Names this write, so that a repetition within 24 hours is not applied twice.
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    pub request_id: Option<String>,
    /// What the history says of the write.
    #[command(flatten)]
    pub author: AuthorArgs,

    /// The memory's vector.
    #[command(flatten)]
    pub vector: VectorArgs,
    /// Whose memory it is; with `--file`, for the memories that do not say.
    #[command(flatten)]
    pub scope: ScopeArgs,
}

/// Arguments of `cairn update`. What is not named stays as it is.
#[derive(Debug, Args)]
#[command(
    mut_arg("meta", |meta| meta.help("One value of the metadata; dots in the key lead into maps. Other values stay")),
    mut_arg("created_at", |time| time.help("When the memory was made"))
)]
pub struct UpdateArgs {
    /// The memory.
    pub id: String,
    /// Its new text; `-` reads it from standard input. A space without an embedder needs a vector for it, or `--clear vector`.
    pub text: Option<String>,

    /// What it is to be beside its text.
    #[command(flatten)]
    pub fields: FieldArgs,
    /// Take a field away: text, kind, importance, expiry, vector, agent, user, session, namespace, scope, metadata, or
    /// one of its values as metadata.KEY.
    #[arg(long, value_name = "FIELD", value_parser = parse_clear)]
    pub clear: Vec<String>,

    /// Fail unless the memory has this version.
    #[arg(long = "expect", value_name = "VERSION")]
    pub expected_version: Option<u64>,
    /// Names this write, so that a repetition within 24 hours is not applied twice.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// What the history says of the write.
    #[command(flatten)]
    pub author: AuthorArgs,

    /// Its new vector.
    #[command(flatten)]
    pub vector: VectorArgs,
    /// Whose memory it is.
    #[command(flatten)]
    pub scope: ScopeArgs,
}

/// Arguments of `cairn history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The memory.
    pub id: String,
    /// How many versions at most.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50, conflicts_with = "all")]
    pub limit: u64,
    /// Show all of them.
    #[arg(long)]
    pub all: bool,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub freshness: FreshnessArgs,
}

/// Arguments of `cairn namespaces`.
#[derive(Debug, Args)]
pub struct NamespacesArgs {
    /// Only this namespace and those below it, such as `team/x`.
    #[arg(value_name = "PATH")]
    pub below: Option<String>,
    /// How many at most.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50, conflicts_with = "all")]
    pub limit: u64,
    /// List all of them.
    #[arg(long)]
    pub all: bool,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub freshness: FreshnessArgs,
}

/// Arguments of `cairn search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// The text to be near to; `-` reads it from standard input.
    #[arg(conflicts_with_all = ["vector", "vector_file"])]
    pub text: Option<String>,
    /// The vector to be near to.
    #[command(flatten)]
    pub vector: VectorArgs,
    /// Which memories to look at.
    #[command(flatten)]
    pub select: SelectArgs,

    /// How many hits at most, 1 to 1,000.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    pub limit: u32,
    /// Leave out hits with a lower score.
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    pub min_score: Option<f32>,
    /// Compare with every match.
    #[arg(long)]
    pub exact: bool,
    /// How many candidates the index keeps; more finds more, slower.
    #[arg(long, value_name = "COUNT", conflicts_with = "exact")]
    pub effort: Option<u32>,
    /// Say how the search was carried out.
    #[arg(long)]
    pub explain: bool,
    /// Print the vectors too; only with `-o json`.
    #[arg(long)]
    pub include_vectors: bool,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub freshness: FreshnessArgs,
}

/// How fresh the answer of a read must be; by default it reflects every write acknowledged before.
#[derive(Debug, Clone, Default, Args)]
pub struct FreshnessArgs {
    /// Reflect at least the write that returned this position.
    #[arg(help_heading = "Freshness", long, value_name = "POSITION", conflicts_with = "max_staleness")]
    pub at_least: Option<String>,
    /// Accept an answer that is up to this old.
    #[arg(help_heading = "Freshness", long, value_name = "TIME", value_parser = parse_duration)]
    pub max_staleness: Option<Duration>,
}

/// Arguments of `cairn get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The memories.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// Print the vectors too; only with `-o json`.
    #[arg(long)]
    pub include_vectors: bool,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub freshness: FreshnessArgs,
}

/// Arguments of `cairn ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Which memories.
    #[command(flatten)]
    pub select: SelectArgs,
    /// How many at most.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50, conflicts_with = "all")]
    pub limit: u64,
    /// List all of them.
    #[arg(long)]
    pub all: bool,
    /// In which order.
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = SortOrder::Newest)]
    pub order: SortOrder,
    /// Print the vectors too; only with `-o json`.
    #[arg(long)]
    pub include_vectors: bool,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub freshness: FreshnessArgs,
}

/// The orders in which memories are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortOrder {
    /// Made last comes first.
    Newest,
    /// Made first comes first.
    Oldest,
    /// Written last comes first.
    LastUpdated,
    /// Written first comes first.
    FirstUpdated,
}

/// Arguments of `cairn rm`.
#[derive(Debug, Clone, Args)]
pub struct RmArgs {
    /// The memories, by id.
    #[arg(value_name = "ID", conflicts_with_all = ["filter", "agent", "user", "session", "namespace", "all"])]
    pub ids: Vec<String>,
    /// Which memories, where no ids are given.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Every memory of the space.
    #[arg(long, conflicts_with_all = ["filter", "agent", "user", "session", "namespace"])]
    pub all: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Names this delete, so that a repetition goes on where it ended and returns the total.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// Arguments of `cairn count`.
#[derive(Debug, Args)]
pub struct CountArgs {
    /// Which memories.
    #[command(flatten)]
    pub select: SelectArgs,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub freshness: FreshnessArgs,
}

/// Arguments of `cairn import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file, one JSON object a line, in the form that `cairn export` prints; `-` is standard input.
    pub file: PathBuf,
    /// Names the import: begun again under the same name within 24 hours, it writes nothing twice. By default it has a new
    /// name, which is told where it can be gone on with.
    #[arg(long, value_name = "ID")]
    pub import_id: Option<String>,
    /// Leave out lines that are no memory, and name them at the end; by default the first one ends the import.
    #[arg(long)]
    pub skip_bad_lines: bool,
    /// Fail if an id is there already, instead of replacing the memory.
    #[arg(long)]
    pub insert: bool,
    /// What the history says of the write.
    #[command(flatten)]
    pub author: AuthorArgs,
    /// Whose memories they are, for those that do not say.
    #[command(flatten)]
    pub scope: ScopeArgs,
}

/// Arguments of `cairn export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The file to make; by default, and for `-`, standard output.
    pub file: Option<PathBuf>,
    /// Which memories.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Leave out the vectors; an import then makes them anew, where the space has an embedder.
    #[arg(long)]
    pub no_vectors: bool,
}

/// Arguments of `cairn watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Whose memories.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Begin behind this position, which any write, read or event printed; by default now.
    #[arg(long, value_name = "POSITION")]
    pub after: Option<String>,
    /// End after so many changes.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub limit: Option<u64>,
    /// Print the memories too; only with `-o json`.
    #[arg(long)]
    pub include_memory: bool,
}

/// The verbs of `cairn space`.
#[derive(Debug, Subcommand)]
pub enum SpaceCommand {
    /// Make a space.
    Create(SpaceCreateArgs),
    /// Show a space and what is in it.
    Get {
        /// Its name or an alias.
        name: String,
    },
    /// List all spaces.
    Ls,
    /// Change settings or indexed fields of a space.
    Update(Box<SpaceUpdateArgs>),
    /// Let an alias mean a space, or remove the alias.
    Alias(SpaceAliasArgs),
    /// Delete a space with all its memories.
    Rm {
        /// Its name; an alias is refused.
        name: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
}

/// Arguments of `cairn space create`.
#[derive(Debug, Args)]
pub struct SpaceCreateArgs {
    /// 1 to 63 of `a-z 0-9 _ -`, starting with a letter.
    pub name: String,
    /// How many values a vector has, 1 to 4,096.
    #[arg(long, value_name = "COUNT", default_value_t = 384)]
    pub dimension: u32,
    /// How vectors are compared.
    #[arg(long, value_enum, default_value_t = MetricName::Cosine)]
    pub metric: MetricName,
    /// What turns text into vectors: `hash` (lexical only) or one that the server's configuration names; `none`: callers bring vectors.
    #[arg(long, value_name = "NAME", default_value = "none")]
    pub embedder: String,
    /// A label for the model that makes the vectors.
    #[arg(long, value_name = "LABEL", default_value = "")]
    pub model: String,
    /// A metadata field with an index, as PATH:TYPE with keyword, integer, float, bool or datetime.
    #[arg(long = "field", value_name = "PATH:TYPE")]
    pub fields: Vec<String>,
    /// How long memories live that do not say.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub default_ttl: Option<Duration>,
    /// A write whose content is already there in the same scope changes nothing.
    #[arg(long)]
    pub dedup: bool,
    /// How many earlier versions of a memory are kept.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub history: u32,
}

/// Arguments of `cairn space update`.
#[derive(Debug, Args)]
pub struct SpaceUpdateArgs {
    /// Its name or an alias.
    pub name: String,
    /// Index a metadata field, as PATH:TYPE with keyword, integer, float, bool or datetime; built in the background.
    #[arg(long = "add-field", value_name = "PATH:TYPE")]
    pub add_fields: Vec<String>,
    /// Index a metadata field no longer.
    #[arg(long = "remove-field", value_name = "PATH")]
    pub remove_fields: Vec<String>,
    /// How long memories live that do not say, from now on; `none`: for ever.
    #[arg(long, value_name = "TIME", value_parser = parse_duration_or_none)]
    pub default_ttl: Option<OptionalDuration>,
    /// Whether a write whose content is already there in the same scope changes nothing.
    #[arg(long, value_name = "BOOL")]
    pub dedup: Option<bool>,
    /// How many earlier versions of a memory are kept.
    #[arg(long, value_name = "COUNT")]
    pub history: Option<u32>,
    /// What turns text into vectors from now on; `none`: callers bring vectors. Vectors that are there stay as they are.
    #[arg(long, value_name = "NAME")]
    pub embedder: Option<String>,
    /// A label for the model that makes the vectors.
    #[arg(long, value_name = "LABEL")]
    pub model: Option<String>,
    /// Fail if the space has another version.
    #[arg(long, value_name = "NUMBER")]
    pub if_version: Option<u64>,
}

/// A distance in time, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalDuration(pub Option<Duration>);

fn parse_duration_or_none(text: &str) -> Result<OptionalDuration, String> {
    if text == "none" {
        Ok(OptionalDuration(None))
    } else {
        parse_duration(text).map(|time| OptionalDuration(Some(time)))
    }
}

/// Arguments of `cairn space alias`.
#[derive(Debug, Args)]
pub struct SpaceAliasArgs {
    /// The alias, written like a space's name.
    pub alias: String,
    /// The name of the space that it means from now on.
    #[arg(required_unless_present = "remove", conflicts_with = "remove")]
    pub space: Option<String>,
    /// Remove the alias; the space stays.
    #[arg(long)]
    pub remove: bool,
}

/// The metrics by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MetricName {
    /// The angle.
    Cosine,
    /// The inner product.
    Dot,
    /// The squared Euclidean distance.
    L2,
}

/// The verbs of `cairn node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the members.
    Ls,
    /// Make a new node a member: a learner, which follows the log, serves reads and has no vote.
    Add {
        /// Its id, never used in this cluster before.
        id: u64,
        /// Where members reach it: HOST:PORT.
        #[arg(long = "peer", value_name = "ADDRESS")]
        peer_address: String,
        /// Where clients reach it: HOST:PORT.
        #[arg(long = "client", value_name = "ADDRESS")]
        client_address: String,
    },
    /// Give a learner that has caught up a vote.
    Promote {
        /// The learner.
        id: u64,
        /// Wait this long for it to catch up, such as `10m`.
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        wait: Option<Duration>,
    },
    /// Remove a member for good, whether it runs or not: its id and its data directory cannot be used again.
    Remove {
        /// The member.
        id: u64,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Hand leadership to a voter that has caught up.
    TransferLeader {
        /// The voter; by default the one that is furthest.
        id: Option<u64>,
    },
    /// Prepare a member for a stop: it hands over leadership and turns unready.
    Drain {
        /// The member.
        id: u64,
        /// Undo a drain.
        #[arg(long)]
        undo: bool,
    },
}

/// Arguments of `cairn status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show it again and again, every two seconds or as often as is said, such as `500ms`.
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = parse_duration)]
    pub watch: Option<Duration>,
    /// End after showing it so many times.
    #[arg(short = 'n', long, value_name = "COUNT", requires = "watch")]
    pub limit: Option<u64>,
}

/// Arguments of `cairn doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The configuration of the node of this machine: it is checked, and its data directory with it.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The data directory of the node of this machine: its disk is measured.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Look at this machine only.
    #[arg(long)]
    pub offline: bool,
}

/// The verbs of `cairn context`.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Keep the addresses of `--endpoint`, and `--space` where it is given, under a name.
    Add {
        /// The name.
        name: String,
        /// Put it in the place of the one that is there.
        #[arg(long)]
        replace: bool,
    },
    /// Use a context wherever none is named.
    Use {
        /// Its name.
        name: String,
    },
    /// List all contexts.
    Ls,
    /// Forget a context.
    Rm {
        /// Its name.
        name: String,
    },
}

/// Arguments of `cairn inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The data directory.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The file that holds the root key; without it only what is not sealed is shown.
    #[arg(long, value_name = "FILE", env = "CAIRN_ROOT_KEY_FILE")]
    pub root_key: Option<PathBuf>,

    /// Show the rows of the store instead, each as its key and its record.
    #[arg(long, requires = "root_key")]
    pub rows: bool,
    /// Only rows of this kind, such as `memory`; give it once for each kind.
    #[arg(long = "kind", value_name = "KIND", requires = "rows")]
    pub kinds: Vec<String>,
    /// How many rows at most.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100, conflicts_with = "all")]
    pub limit: u64,
    /// Show all of them.
    #[arg(long, requires = "rows")]
    pub all: bool,
}

#[cfg(test)]
pub(super) mod tests {
    use clap::{Args, FromArgMatches};

    use super::ClientOptions;

    /// The client options and those of a verb, as a user gives them.
    pub(in crate::cli) fn parsed<A: Args>(list: &[&str]) -> (ClientOptions, A) {
        let command = A::augment_args(ClientOptions::augment_args(clap::Command::new("cairn")));
        let matches = command.try_get_matches_from([&["cairn"], list].concat()).unwrap();
        (ClientOptions::from_arg_matches(&matches).unwrap(), A::from_arg_matches(&matches).unwrap())
    }
}
