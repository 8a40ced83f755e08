//! Commands that a hint or a note names, as they can be pasted into a shell: with everything that was said before.

use std::fmt;
use std::time::Duration;

use super::args::{AuthorArgs, ClientOptions, OutputForm, ScopeArgs, TIMEOUT_DEFAULT};

/// A command line of `cairn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NextCommand {
    verb: &'static str,
    words: Vec<String>,
    options: Vec<String>,
}

impl NextCommand {
    /// A verb, asked of the same cluster in the same way.
    pub(crate) fn new(verb: &'static str, client: &ClientOptions) -> Self {
        let output = client.output.map(|form| match form {
            OutputForm::Table => "table",
            OutputForm::Json => "json",
        });
        let timeout = (client.timeout != TIMEOUT_DEFAULT).then(|| in_milliseconds(client.timeout));
        Self { verb, words: Vec::new(), options: Vec::new() }
            .options("--endpoint", &client.endpoints)
            .option("--context", client.context.as_deref())
            .option("--output", output)
            .option("--space", client.space.as_deref())
            .option("--timeout", timeout.as_deref())
    }

    /// What stands without a name, such as an id or a file.
    pub(crate) fn word(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    /// An option with its value, where it has one.
    pub(crate) fn option(mut self, name: &str, value: Option<&str>) -> Self {
        match value {
            // Behind a blank it would be taken for an option.
            Some(value) if value.starts_with('-') => self.options.push(format!("{name}={}", quoted(value))),
            Some(value) => self.options.push(format!("{name} {}", quoted(value))),
            None => {}
        }
        self
    }

    /// An option for each value.
    fn options(self, name: &str, values: &[String]) -> Self {
        values.iter().fold(self, |command, value| command.option(name, Some(value)))
    }

    /// An option without a value.
    pub(crate) fn flag(mut self, name: &str, is_given: bool) -> Self {
        if is_given {
            self.options.push(name.to_owned());
        }
        self
    }

    pub(crate) fn scope(self, scope: &ScopeArgs) -> Self {
        self.option("--agent", scope.agent.as_deref())
            .option("--user", scope.user.as_deref())
            .option("--session", scope.session.as_deref())
            .option("--namespace", scope.namespace.as_deref())
    }

    pub(crate) fn author(self, author: &AuthorArgs) -> Self {
        self.option("--actor", author.actor.as_deref()).option("--reason", author.reason.as_deref())
    }
}

impl fmt::Display for NextCommand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cairn {}", self.verb)?;
        // Only behind `--` is a word with a dash no option; a dash alone is standard input.
        let like_options = self.words.iter().any(|word| word.starts_with('-') && word != "-");
        let words = self.words.iter().map(|word| quoted(word));
        let dashes = like_options.then(|| "--".to_owned());
        let parts: Vec<String> = match like_options {
            true => self.options.iter().cloned().chain(dashes).chain(words).collect(),
            false => words.chain(self.options.iter().cloned()).collect(),
        };
        parts.iter().try_for_each(|part| write!(formatter, " {part}"))
    }
}

fn in_milliseconds(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{}s", time.as_secs()),
        _ => format!("{}ms", time.as_millis()),
    }
}

/// A word as a shell takes it back.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-./:,=@%+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::tests::parsed;

    fn client(list: &[&str]) -> ClientOptions {
        parsed::<ScopeArgs>(list).0
    }

    #[test]
    fn a_command_says_again_what_was_said() {
        let plain = NextCommand::new("watch", &client(&[])).option("--after", Some("AZ-9_"));
        assert_eq!(plain.to_string(), "cairn watch --after AZ-9_");
        let given = ["--endpoint", "http://a:1,http://b:2", "--space", "notes", "-o", "json", "--timeout", "1500ms"];
        let scope = ScopeArgs { user: Some("ada o'neill".to_owned()), ..ScopeArgs::default() };
        let author = AuthorArgs { actor: None, reason: Some("-".to_owned()) };
        let command = NextCommand::new("import", &client(&given)).word("a b.jsonl").scope(&scope).author(&author);
        assert_eq!(
            command.flag("--insert", true).flag("--skip-bad-lines", false).to_string(),
            "cairn import 'a b.jsonl' --endpoint http://a:1 --endpoint http://b:2 --output json --space notes \
             --timeout 1500ms --user 'ada o'\\''neill' --reason=- --insert"
        );
    }

    #[test]
    fn words_that_look_like_options_stand_behind_dashes() {
        let command = NextCommand::new("rm", &client(&["--context", "home"])).word("-x").word("$y").flag("--yes", true);
        assert_eq!(command.to_string(), "cairn rm --context home --yes -- -x '$y'");
        let standard_input = NextCommand::new("import", &client(&[])).word("-").flag("--insert", true);
        assert_eq!(standard_input.to_string(), "cairn import - --insert");
    }
}
