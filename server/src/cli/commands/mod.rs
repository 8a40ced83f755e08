//! The verbs, one file for each group of them. Each asks through the SDK and prints through [`Output`].

mod add;
mod context;
mod doctor;
mod export;
mod history;
mod import;
mod inspect;
mod lines;
mod namespaces;
mod node;
mod read;
mod remove;
mod search;
mod space;
mod status;
mod update;
mod watch;

use cairn_client::{Client, Consistency, Filter, RetryPolicy, Scope, Space};

use super::args::{ClientOptions, Command, FreshnessArgs, ScopeArgs, SelectArgs, VectorArgs};
use super::contexts::destination;
use super::exit::{Exit, Failure, Result};
use super::expression::read_filter;
use super::input::parse_vector;
use super::next::NextCommand;
use super::output::{Form, Output};

/// What every verb works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) space: Space,
    pub(crate) out: Output,
    /// As they were given, for commands that go on.
    pub(crate) options: ClientOptions,
}

/// Runs a verb to its end.
pub(crate) async fn run(options: &ClientOptions, command: Command) -> Result<()> {
    let form = Form::choose(options.output);
    let command = match command {
        Command::Inspect(args) => return inspect::run(&args, Output::new(form)),
        Command::Doctor(args) => return doctor::run(options, &args, Output::new(form)).await,
        Command::Context(command) => return context::run(options, command, Output::new(form)),
        command => command,
    };
    let destination = destination(options)?;
    // Somebody is waiting: say soon that nobody is there, rather than try until the deadline.
    let retry = RetryPolicy { unreachable_max: 4, ..RetryPolicy::default() };
    let client = Client::builder().endpoints(&destination.endpoints).deadline(options.timeout).retry(retry).build()?;
    let space = client.space(&destination.space);
    let mut context = Context { client, space, out: Output::new(form), options: options.clone() };
    match command {
        Command::Add(args) => add::run(&mut context, *args).await?,
        Command::Search(args) => search::run(&mut context, args).await?,
        Command::Get(args) => read::get(&mut context, args).await?,
        Command::Ls(args) => read::list(&mut context, args).await?,
        Command::Count(args) => read::count(&mut context, args).await?,
        Command::Namespaces(args) => namespaces::run(&mut context, args).await?,
        Command::Update(args) => update::run(&mut context, *args).await?,
        Command::History(args) => history::run(&mut context, args).await?,
        Command::Rm(args) => remove::run(&mut context, args).await?,
        Command::Space(command) => space::run(&mut context, command).await?,
        Command::Node(command) => node::run(&mut context, command).await?,
        Command::Import(args) => import::run(&mut context, *args).await?,
        Command::Export(args) => export::run(&mut context, args).await?,
        Command::Watch(args) => watch::run(&mut context, args).await?,
        Command::Status(args) => status::run(&mut context, args).await?,
        Command::Inspect(_) | Command::Doctor(_) | Command::Context(_) => {}
    }
    Ok(context.out.flush()?)
}

impl From<std::io::Error> for Failure {
    /// Errors of standard output; files are reported with their names where they are read.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::closed_pipe();
        }
        Self::new(Exit::Other, format!("cannot write to standard output: {error}"))
    }
}

impl ScopeArgs {
    fn to_scope(&self) -> Scope {
        Scope {
            agent_id: self.agent.clone(),
            user_id: self.user.clone(),
            session_id: self.session.clone(),
            namespace: self.namespace.clone(),
        }
    }
}

impl SelectArgs {
    fn to_filter(&self) -> Result<Option<Filter>> {
        self.filter.as_deref().map(read_filter).transpose().map_err(Failure::usage)
    }
}

impl FreshnessArgs {
    fn to_consistency(&self) -> Consistency {
        match (&self.at_least, self.max_staleness) {
            (Some(position), _) => Consistency::AtLeast(position.into()),
            (None, Some(age)) => Consistency::MaxStaleness(age),
            (None, None) => Consistency::Linearizable,
        }
    }
}

impl VectorArgs {
    /// The vector, where one was given.
    fn read(&self) -> Result<Option<Vec<f32>>> {
        let text = match (&self.vector, &self.vector_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => read_text(path)?,
            (None, None) => return Ok(None),
        };
        parse_vector(&text).map(Some).map_err(Failure::usage)
    }
}

/// A whole file, or standard input for `-`.
fn read_text(path: &std::path::Path) -> Result<String> {
    let text =
        if path.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    text.map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

/// Vectors have no place in a table.
fn check_include_vectors(include_vectors: bool, form: Form) -> Result<()> {
    if include_vectors && form != Form::Json {
        return Err(Failure::usage("--include-vectors prints JSON only").with_hint("add -o json"));
    }
    Ok(())
}

/// Asks before something is deleted for good.
///
/// # Errors
/// Where the answer is no, and where there is nobody to ask.
fn confirm(out: &mut Output, question: &str, repeat: NextCommand) -> Result<()> {
    match out.ask(question) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(Exit::Other, "nothing was deleted")),
        None => Err(Failure::usage("this deletes for good, and there is no terminal to ask on")
            .with_hint(format!("say so with `{}`", repeat.flag("--yes", true)))),
    }
}
