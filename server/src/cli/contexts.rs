//! Named contexts: which cluster and which space the verbs talk to, kept in the user's configuration directory.
//!
//! ```text
//! --endpoint  >  --context  >  CAIRN_ENDPOINT  >  CAIRN_CONTEXT  >  `cairn context use`  >  http://127.0.0.1:7480
//! --space     >  CAIRN_SPACE  >  the space of the context  >  default
//! ```
//!
//! The file is `contexts.json` beside the root key of `cairn dev`. It holds no secrets.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::args::ClientOptions;
use super::exit::{Exit, Failure, Result};
use crate::process::user_directory;

/// Where a node of this machine listens.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7480";

/// The space that `cairn dev` makes.
const DEFAULT_SPACE: &str = "default";

/// All contexts of a user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is used where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Entry>,
}

/// One context.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Addresses of nodes.
    pub(crate) endpoints: Vec<String>,
    /// The space to work in; `None`: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) space: Option<String>,
}

/// What a verb talks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) endpoints: Vec<String>,
    pub(crate) space: String,
}

impl Contexts {
    /// The user's file.
    pub(crate) fn path() -> Result<PathBuf> {
        Ok(user_directory().map_err(Failure::usage)?.join("contexts.json"))
    }

    /// Reads a file; one that is not there holds no contexts.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let problem = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("cannot read {}: {error}", path.display()))
                .with_hint("mend the file, or remove it and make contexts anew with `cairn context add`")
        };
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| problem(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(problem(&error)),
        }
    }

    /// Writes a file as a whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let directory = path.parent().unwrap_or(path);
            std::fs::create_dir_all(directory)?;
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|error| Failure::new(Exit::Other, format!("cannot write {}: {error}", path.display())))
    }

    /// The context of this name.
    pub(crate) fn get(&self, name: &str) -> Result<&Entry> {
        self.contexts.get(name).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("there is no context {name}")).with_hint(format!(
                "list them with `cairn context ls`, or make it with `cairn context add {name} --endpoint URL`"
            ))
        })
    }
}

/// What a verb talks to: its options, then the environment, then the contexts.
///
/// # Errors
/// The context that is named does not exist, or the file cannot be read where it is needed.
pub(crate) fn destination(options: &ClientOptions) -> Result<Destination> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    choose(options, set, || Contexts::read(&Contexts::path()?))
}

fn choose(
    options: &ClientOptions,
    environment: impl Fn(&str) -> Option<String>,
    read: impl FnOnce() -> Result<Contexts>,
) -> Result<Destination> {
    let set_endpoints = environment("CAIRN_ENDPOINT").filter(|_| options.context.is_none());
    let named = options.context.clone().or_else(|| environment("CAIRN_CONTEXT"));
    let entry = match named {
        Some(name) => read()?.get(&name)?.clone(),
        // Whoever says where to go needs no file.
        None if !options.endpoints.is_empty() || set_endpoints.is_some() => Entry::default(),
        None => {
            let contexts = read()?;
            contexts.current.as_ref().map(|name| contexts.get(name).cloned()).transpose()?.unwrap_or_default()
        }
    };
    let split = |list: String| list.split(',').map(|part| part.trim().to_owned()).collect();
    let endpoints = [options.endpoints.clone(), set_endpoints.map(split).unwrap_or_default(), entry.endpoints];
    let endpoints = endpoints.into_iter().find(|list: &Vec<String>| !list.is_empty());
    let space = options.space.clone().or_else(|| environment("CAIRN_SPACE")).or(entry.space);
    Ok(Destination {
        endpoints: endpoints.unwrap_or_else(|| vec![DEFAULT_ENDPOINT.to_owned()]),
        space: space.unwrap_or_else(|| DEFAULT_SPACE.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts() -> Contexts {
        let entry = |endpoint: &str, space: Option<&str>| Entry {
            endpoints: vec![endpoint.to_owned()],
            space: space.map(str::to_owned),
        };
        let contexts = [("home", entry("http://home", None)), ("work", entry("http://work", Some("notes")))];
        Contexts {
            current: Some("home".to_owned()),
            contexts: contexts.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect(),
        }
    }

    /// Endpoints and space for these options and variables.
    fn chosen(endpoint: &str, context: &str, space: &str, environment: &[(&str, &str)]) -> Result<String> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let options = ClientOptions {
            endpoints: given(endpoint).into_iter().collect(),
            context: given(context),
            output: None,
            space: given(space),
            timeout: std::time::Duration::from_secs(1),
        };
        let set = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        choose(&options, set, || Ok(contexts())).map(|found| format!("{} {}", found.endpoints.join("+"), found.space))
    }

    #[test]
    fn what_is_said_nearer_wins() {
        let both = [("CAIRN_ENDPOINT", "http://env, http://env2"), ("CAIRN_CONTEXT", "work"), ("CAIRN_SPACE", "env")];
        for (endpoint, context, space, environment, expected) in [
            ("", "", "", &[][..], "http://home default"),
            ("", "work", "", &[], "http://work notes"),
            ("", "work", "mine", &[], "http://work mine"),
            ("http://flag", "", "", &[], "http://flag default"),
            ("http://flag", "work", "", &[], "http://flag notes"),
            ("", "", "", &both, "http://env+http://env2 env"),
            ("", "home", "", &both, "http://home env"),
            ("", "", "", &both[1..2], "http://work notes"),
            ("http://flag", "", "mine", &both, "http://flag mine"),
        ] {
            let found = chosen(endpoint, context, space, environment).unwrap();
            assert_eq!(found, expected, "{endpoint} {context} {space} {environment:?}");
        }
    }

    #[test]
    fn a_context_that_is_not_there_is_named() {
        let failure = chosen("", "play", "", &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.report().contains("no context play") && failure.report().contains("cairn context ls"));
    }

    #[test]
    fn files_are_read_as_written_and_mistakes_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cairn/contexts.json");
        assert_eq!(Contexts::read(&path).unwrap(), Contexts::default());
        contexts().write(&path).unwrap();
        assert_eq!(Contexts::read(&path).unwrap(), contexts());
        std::fs::write(&path, r#"{"contexts": {"a": {"endpoint": "x"}}}"#).unwrap();
        let failure = Contexts::read(&path).unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.message().contains("contexts.json"), "{failure:?}");
    }
}
