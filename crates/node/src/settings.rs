//! `twinpost setting ...`: cluster-wide settings as JSON (`alerts`, `log`, `load`, ...). Values are read from a file or standard
//! input, never from the command line: some hold secrets.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::{Api, say, segment, show_done};
use crate::cli::ServerArgs;
use crate::exit::Exit;

/// Longest value that is read (bytes); the API takes no more.
const VALUE_BYTES_MAX: u64 = 1024 * 1024;

/// `twinpost setting ...`
#[derive(Debug, Subcommand)]
pub enum SettingCommand {
    /// All that are set.
    List,
    /// One, as JSON.
    Show {
        /// Its name.
        name: String,
    },
    /// Set one: JSON from a file or standard input; every fault is said with its place, and then nothing is changed.
    Set {
        /// Its name.
        name: String,
        /// Read the value from this file.
        #[arg(long, short)]
        file: Option<PathBuf>,
    },
    /// Back to what it is when nobody has set it.
    Remove {
        /// Its name.
        name: String,
    },
}

/// Runs `twinpost setting`.
///
/// # Errors
/// When the API cannot be found, or the value cannot be read or is no JSON.
pub fn run(args: &ServerArgs, command: SettingCommand) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let path = |name: &str| format!("settings/{}", segment(name));
    Ok(match command {
        SettingCommand::List => api.run(Method::GET, "settings", None, |value| {
            for setting in value["settings"].as_array().into_iter().flatten() {
                say!("{} = {}", setting["name"].as_str().unwrap_or_default(), setting["value"]);
            }
        }),
        SettingCommand::Show { name } => api.run(Method::GET, &path(&name), None, |setting| {
            say!("{}", serde_json::to_string_pretty(&setting["value"]).unwrap_or_default());
        }),
        SettingCommand::Set { name, file } => {
            let value = read(file.as_deref())?;
            api.run(Method::PUT, &path(&name), Some(&json!({ "value": value })), show_done)
        }
        SettingCommand::Remove { name } => api.run(Method::DELETE, &path(&name), None, show_done),
    })
}

fn read(file: Option<&std::path::Path>) -> anyhow::Result<Value> {
    let (mut text, source) =
        (String::new(), file.map_or("standard input".to_owned(), |file| file.display().to_string()));
    match file {
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(VALUE_BYTES_MAX).read_to_string(&mut text)),
        None => std::io::stdin().take(VALUE_BYTES_MAX).read_to_string(&mut text),
    }
    .with_context(|| format!("read {source}"))?;
    serde_json::from_str(&text).with_context(|| format!("{source} is no JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_from_a_file_and_a_fault_names_its_place() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("value.json");
        std::fs::write(&file, "{\"mail\": [\n  \"a@example.org\",]}").expect("written");
        let fault = format!("{:#}", read(Some(&file)).expect_err("a comma too many"));
        assert!(fault.contains("value.json is no JSON") && fault.contains("line 2"), "{fault}");
        std::fs::write(&file, "{\"mail\": [\"a@example.org\"]}").expect("written");
        assert_eq!(read(Some(&file)).expect("JSON"), json!({ "mail": ["a@example.org"] }));
        assert!(read(Some(&folder.path().join("none"))).is_err());
    }
}
