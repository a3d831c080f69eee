//! `twinpost account recover`: what a merge kept restorable, through the HTTP API.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::{Api, Reply, line, say, segment};
use crate::exit::Exit;

/// `twinpost account recover ADDRESS [--list | --all | ID...]`; without a choice it lists.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Address.
    pub address: String,
    /// List what can be restored.
    #[arg(long, conflicts_with_all = ["all", "ids"])]
    pub list: bool,
    /// Restore everything that is listed.
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// Restore these, by the ids of the list.
    pub ids: Vec<String>,
}

pub(crate) fn run(api: &Api, args: &RecoverArgs) -> Exit {
    let path = format!("accounts/{}/recovery", segment(&args.address));
    if args.list || (args.ids.is_empty() && !args.all) {
        return api.run(Method::GET, &path, None, show);
    }
    let ids = match args.all {
        false => args.ids.clone(),
        true => match api.call(Method::GET, &path, None).done() {
            Ok(value) => items(&value).filter_map(|item| item["id"].as_str().map(str::to_owned)).collect(),
            Err(failure) => return api.end(&failure),
        },
    };
    for (done, id) in ids.iter().enumerate() {
        let so_far =
            |text: &str| if done == 0 { text.to_owned() } else { format!("{text}; {done} were restored before") };
        match api.call(Method::POST, &format!("{path}/{}/restore", segment(id)), None) {
            Reply::Done(_) => {}
            Reply::Refused(text) => return api.fail(&so_far(&text), Exit::Refused),
            Reply::Unavailable(text) => return api.fail(&so_far(&text), Exit::Unavailable),
        }
    }
    match api.json {
        true => say!("{}", json!({ "restored": ids })),
        false => say!("restored: {}", ids.len()),
    }
    Exit::Done
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value["recovery"].as_array().into_iter().flatten()
}

fn show(value: &Value) {
    if items(value).next().is_none() {
        say!("nothing to restore");
    }
    for item in items(value) {
        say!("{}", line(item));
    }
}
