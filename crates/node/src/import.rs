//! `twinpost import DIR`: the mail of a node that was removed, brought back as far as the cluster lacks it. The folder is
//! only read; every message goes to the cluster through the API, under the ids it had, so a second run changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailbox::read;
use mailbox::rows::Placement;
use reqwest::Method;
use serde_json::{Value, json};
use store::Foreign;
use vocab::{AccountId, PlacementId, Rows, Table};

use crate::admin::{Api, Failure, say, segment};
use crate::cli::ServerArgs;
use crate::config::NodeConfig;
use crate::exit::Exit;
use crate::files::{DataDir, Identity};

/// Messages asked about at once.
const ASKED_AT_ONCE: usize = 1_000;
/// Messages between two words about how far it is.
const MESSAGES_PER_WORD: u64 = 500;

/// `twinpost import`
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Data folder of the removed node, or a copy of it; its process must not run.
    pub folder: PathBuf,
    /// Only this account, by address; once for each.
    #[arg(long = "account", value_name = "ADDRESS")]
    pub accounts: Vec<String>,
    /// Into mailboxes below `Imported` instead of those of the same name.
    #[arg(long)]
    pub apart: bool,
    /// Only say what would come back.
    #[arg(long)]
    pub dry_run: bool,
}

/// What became of one account.
#[derive(Debug, Default, serde::Serialize)]
struct Summary {
    account: u64,
    address: Option<String>,
    /// Messages in the folder, each once.
    messages: u64,
    /// The cluster has them, or had and expunged them.
    known: u64,
    /// Brought back; with `--dry-run`: would be.
    imported: u64,
    /// Their bodies are damaged or missing in the folder.
    unreadable: u64,
    /// Why nothing, or not everything, was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

/// One message of the folder.
struct Found {
    mailbox: String,
    role: Option<String>,
    placement: Placement,
}

/// Runs `twinpost import`.
///
/// # Errors
/// The folder is none of a removed node of this cluster, or its process runs.
pub fn run(args: &ServerArgs, import: &ImportArgs) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let data = DataDir(import.folder.clone());
    let identity = Identity::load(&data)?;
    let status = match api.call(Method::GET, "cluster", None).done() {
        Ok(status) => status,
        Err(failure) => return Ok(api.end(&failure)),
    };
    let local = match args.server {
        None => Some(Identity::load(&DataDir(NodeConfig::load(&args.config)?.data_dir))?),
        Some(_) => None,
    };
    if let Some(reason) = not_importable(&status, local.as_ref(), &identity) {
        return Ok(api.fail(&reason, Exit::Refused));
    }
    let source = Foreign::open(&data.mail()).context("the removed node's mail")?;
    let addresses = match api.call(Method::GET, "accounts", None).done() {
        Ok(value) => addresses(&value),
        Err(failure) => return Ok(api.end(&failure)),
    };
    for wanted in &import.accounts {
        if !addresses.values().any(|address| address.eq_ignore_ascii_case(wanted)) {
            return Ok(api.fail(&format!("no account {wanted} in this cluster"), Exit::Refused));
        }
    }
    let mut summaries = Vec::new();
    let (accounts, broken) = source.accounts();
    for (account, _) in accounts.into_iter().filter(|(account, _)| *account != AccountId::QUEUE) {
        let address = addresses.get(&account.0);
        let wanted = |a: &String| import.accounts.iter().any(|w| w.eq_ignore_ascii_case(a));
        if !import.accounts.is_empty() && !address.is_some_and(wanted) {
            continue;
        }
        let mut summary = Summary { account: account.0, address: address.cloned(), ..Summary::default() };
        let done = bring_back(&api, import, (&source, account), &mut summary);
        show(&api, import, &summary);
        summaries.push(summary);
        if let Err(failure) = done {
            show_all(&api, import, &summaries);
            return Ok(api.end(&failure));
        }
    }
    show_all(&api, import, &summaries);
    report_queue(&source);
    if let Some(damaged) = broken {
        return Ok(api.fail(&format!("the list of accounts ends early: {damaged}"), Exit::Refused));
    }
    Ok(Exit::Done)
}

/// `local`: who the node on this machine is; of another machine only the cluster's name is known here.
fn not_importable(status: &Value, local: Option<&Identity>, identity: &Identity) -> Option<String> {
    let same = match local {
        Some(local) => local.cluster_id == identity.cluster_id,
        None => status["cluster"] == identity.cluster_name.as_str(),
    };
    if !same {
        return Some(format!("the folder is of another cluster ({}, node {})", identity.cluster_name, identity.node));
    }
    let member = status["nodes"].as_array().into_iter().flatten().any(|node| node["id"] == identity.node);
    member.then(|| format!("node {} is a member: start it, and its mail is brought together by itself", identity.node))
}

fn addresses(accounts: &Value) -> BTreeMap<u64, String> {
    let each = accounts["accounts"].as_array().into_iter().flatten();
    each.filter_map(|a| Some((a["id"].as_u64()?, a["address"].as_str()?.to_owned()))).collect()
}

/// Every message of the account once: the placement it was born with, else the first of its copies.
fn messages(rows: &dyn Rows) -> Result<Vec<Found>, vocab::Damaged> {
    let mut found: BTreeMap<PlacementId, Found> = BTreeMap::new();
    for mailbox in read::mailboxes(rows)? {
        let role = mailbox.role.map(|role| format!("{role:?}").to_ascii_lowercase());
        for placement in read::placements(rows, mailbox.id, read::all_uids())? {
            let (email, born) = (placement.email, placement.id == placement.email);
            let one = Found { mailbox: mailbox.name.clone(), role: role.clone(), placement };
            if born {
                found.insert(email, one);
            } else {
                found.entry(email).or_insert(one);
            }
        }
    }
    let mut list: Vec<Found> = found.into_values().collect();
    // As they lay in their mailboxes: UIDs are given in this order.
    list.sort_by(|a, b| (&a.mailbox, a.placement.uid).cmp(&(&b.mailbox, b.placement.uid)));
    Ok(list)
}

fn bring_back(
    api: &Api,
    args: &ImportArgs,
    (source, account): (&Foreign, AccountId),
    summary: &mut Summary,
) -> Result<(), Failure> {
    let Some(address) = summary.address.clone() else {
        summary.skipped = Some("the cluster has no such account (any more)".into());
        return Ok(());
    };
    let rows = source.snapshot(account);
    let list = match messages(&*rows) {
        Ok(list) => list,
        Err(damaged) => {
            summary.skipped = Some(format!("cannot be read in the folder: {damaged}"));
            return Ok(());
        }
    };
    summary.messages = list.len() as u64;
    let path = format!("accounts/{}/import", segment(&address));
    for page in list.chunks(ASKED_AT_ONCE) {
        let ids: Vec<Value> = page
            .iter()
            .map(|one| json!({ "id": one.placement.id.to_string(), "email": one.placement.email.to_string() }))
            .collect();
        let asked = json!({ "messages": ids });
        let answer = api.call(Method::POST, &format!("{path}/missing"), Some(&asked)).done()?;
        let missing: BTreeSet<u64> =
            answer["missing"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        summary.known += page.len() as u64 - missing.len() as u64;
        for (_, one) in (0u64..).zip(page).filter(|(at, _)| missing.contains(at)) {
            let Some(message) = message(source, &*rows, one, args.apart) else {
                summary.unreadable += 1;
                continue;
            };
            if args.dry_run {
                summary.imported += 1;
                continue;
            }
            let answer = api.call(Method::POST, &path, Some(&message)).done()?;
            match answer["placed"].as_bool() {
                Some(true) => summary.imported += 1,
                _ => summary.known += 1,
            }
            if summary.imported.is_multiple_of(MESSAGES_PER_WORD) {
                eprintln!("twinpost: {address}: {} messages brought back so far", summary.imported);
            }
        }
    }
    Ok(())
}

/// The request that places it; `None` when the folder has no sound copy of it.
fn message(source: &Foreign, rows: &dyn Rows, one: &Found, apart: bool) -> Option<Value> {
    let placement = &one.placement;
    let body = source.body(placement.blob)?;
    let facts = read::facts(rows, placement.email).ok().flatten()?;
    let mailbox = if apart { format!("Imported/{}", one.mailbox) } else { one.mailbox.clone() };
    Some(json!({
        "id": placement.id.to_string(),
        "email": placement.email.to_string(),
        "mailbox": mailbox,
        "role": one.role.as_ref().filter(|_| !apart),
        "system_flags": placement.flags.system,
        "keywords": placement.flags.keywords.iter().map(vocab::Keyword::as_str).collect::<Vec<_>>(),
        "internal_date_ms": placement.internal_date.0,
        "facts": STANDARD.encode(&facts),
        "prefix": STANDARD.encode(&placement.prefix),
        "body": STANDARD.encode(&body),
    }))
}

fn show(api: &Api, args: &ImportArgs, summary: &Summary) {
    if api.json {
        return;
    }
    let name = summary.address.clone().unwrap_or_else(|| format!("account {}", summary.account));
    if let Some(reason) = &summary.skipped {
        say!("{name}: skipped: {reason}");
        return;
    }
    let verb = if args.dry_run { "would come back" } else { "came back" };
    let Summary { messages, known, imported, unreadable, .. } = summary;
    let damaged = if *unreadable > 0 { format!(", {unreadable} are damaged in the folder") } else { String::new() };
    say!("{name}: {messages} messages, {known} known here, {imported} {verb}{damaged}");
}

fn show_all(api: &Api, args: &ImportArgs, summaries: &[Summary]) {
    if api.json {
        say!("{}", json!({ "dry_run": args.dry_run, "accounts": summaries }));
    }
}

/// What is not brought back is said.
fn report_queue(source: &Foreign) {
    let rows = source.snapshot(AccountId::QUEUE);
    let count = |table: Table| {
        let mut count = 0u64;
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let read = rows.scan(table, all, false, &mut |_, _| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        });
        read.map(|()| count).unwrap_or(0)
    };
    let (items, accepts) = (count(Table::QUEUE), count(Table::ACCEPTS));
    if items + accepts > 0 {
        eprintln!(
            "twinpost: the folder's outbound queue ({items} items, {accepts} messages not placed yet) is not brought back: \
             the cluster may have sent them"
        );
    }
}
