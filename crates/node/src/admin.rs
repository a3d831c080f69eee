//! The administrator's commands: thin clients of the HTTP API. What they print is for people, `--json` for programs.

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::ServerArgs;
use crate::clock::wall_ms;
use crate::config::NodeConfig;
use crate::exit::Exit;
use crate::files::{self, DataDir};
use crate::servers;

/// `println!` that does not mind when the reader has gone (`twinpost status | head`).
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
pub(crate) use say;

/// `twinpost domain ...`
#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// Take mail for a domain.
    Add {
        /// Domain name.
        name: String,
        /// Its accounts may log in by local part alone.
        #[arg(long)]
        default: bool,
    },
    /// All domains.
    List,
    /// One domain.
    Show {
        /// Domain name.
        name: String,
    },
    /// Change a domain.
    Set {
        /// Domain name.
        name: String,
        /// Its accounts may log in by local part alone.
        #[arg(long)]
        default: bool,
    },
    /// Stop taking mail for it; refused while it has accounts.
    Remove {
        /// Domain name.
        name: String,
    },
}

/// `twinpost account ...`; passwords are asked for or read from standard input, never taken from the command line.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an account.
    Add {
        /// Address.
        address: String,
        /// Name shown to people.
        #[arg(long, default_value = "")]
        name: String,
        /// Bytes it may hold.
        #[arg(long)]
        quota_bytes: Option<u64>,
    },
    /// All accounts.
    List,
    /// One account.
    Show {
        /// Address.
        address: String,
    },
    /// Change an account.
    Set {
        /// Address.
        address: String,
        /// Name shown to people.
        #[arg(long)]
        name: Option<String>,
        /// Whether it may log in and get mail.
        #[arg(long)]
        enabled: Option<bool>,
        /// Bytes it may hold.
        #[arg(long)]
        quota_bytes: Option<u64>,
        /// Ask for a new password.
        #[arg(long)]
        password: bool,
    },
    /// Remove an account and its mail.
    Remove {
        /// Address.
        address: String,
    },
    /// What an expunge on one side of a split won over a change on the other: list it, or put it back.
    Recover(crate::recover::RecoverArgs),
}

/// `twinpost alias ...`
#[derive(Debug, Subcommand)]
pub enum AliasCommand {
    /// Make an alias.
    Add {
        /// Address.
        address: String,
        /// Addresses it stands for.
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// All aliases.
    List,
    /// One alias.
    Show {
        /// Address.
        address: String,
    },
    /// Give it other targets.
    Set {
        /// Address.
        address: String,
        /// Addresses it stands for.
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// Remove it.
    Remove {
        /// Address.
        address: String,
    },
}

/// `twinpost queue ...`
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// What waits to be sent.
    List,
    /// Sends what is left to the other node: only when that node surely sends nothing, or recipients may get mail twice.
    Release,
}

/// An API with its token.
pub(crate) struct Api {
    url: String,
    token: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    pub(crate) json: bool,
}

/// What came back, as the exit code sees it.
pub(crate) enum Reply {
    Done(Value),
    Refused(String),
    Unavailable(String),
}

/// Why there is no answer, and how the command ends for it.
pub(crate) struct Failure {
    pub(crate) text: String,
    exit: Exit,
}

impl Reply {
    /// What came back when it was done.
    pub(crate) fn done(self) -> Result<Value, Failure> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Refused(text) => Err(Failure { text, exit: Exit::Refused }),
            Self::Unavailable(text) => Err(Failure { text, exit: Exit::Unavailable }),
        }
    }
}

impl Api {
    pub(crate) fn open(args: &ServerArgs) -> anyhow::Result<Self> {
        let (url, token, ca) = match &args.server {
            Some(server) => {
                let token =
                    std::env::var("TWINPOST_TOKEN").context("TWINPOST_TOKEN must hold the token for --server")?;
                let ca = args.ca_file.as_deref().map(std::fs::read).transpose().context("read --ca-file")?;
                (server.trim_end_matches('/').to_owned(), token, ca)
            }
            None => {
                let data = DataDir(NodeConfig::load(&args.config)?.data_dir);
                let endpoint: Value = serde_json::from_str(&files::read_text(&data.endpoint())?)?;
                let url = endpoint["url"].as_str().context("endpoint.json names no url")?.to_owned();
                (url, files::read_text(&data.admin_token())?.trim().to_owned(), Some(std::fs::read(data.ca())?))
            }
        };
        let mut builder = reqwest::Client::builder().timeout(std::time::Duration::from_secs(30));
        if let Some(pem) = ca {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { url, token, client: builder.build()?, runtime, json: args.json })
    }

    pub(crate) fn call(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> Reply {
        self.runtime.block_on(async {
            let mut request =
                self.client.request(method, format!("{}/api/v1/{path}", self.url)).bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.json(body);
            }
            match request.send().await {
                Err(error) => Reply::Unavailable(format!("{} cannot be reached: {}", self.url, root_cause(&error))),
                Ok(response) => {
                    let status = response.status();
                    let value: Value = response.json().await.unwrap_or(Value::Null);
                    match status.as_u16() {
                        200..=299 => Reply::Done(value),
                        500.. => Reply::Unavailable(problem(&value, status)),
                        _ => Reply::Refused(problem(&value, status)),
                    }
                }
            }
        })
    }

    /// Calls, shows the answer, gives the exit code.
    pub(crate) fn run(&self, method: reqwest::Method, path: &str, body: Option<&Value>, show: fn(&Value)) -> Exit {
        match self.call(method, path, body) {
            Reply::Done(value) => {
                if self.json {
                    say!("{}", serde_json::to_string_pretty(&value).unwrap_or_default());
                } else {
                    show(&value);
                }
                Exit::Done
            }
            Reply::Refused(text) => self.fail(&text, Exit::Refused),
            Reply::Unavailable(text) => self.fail(&text, Exit::Unavailable),
        }
    }

    /// The bytes of a file.
    pub(crate) fn download(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.runtime.block_on(async {
            let unavailable = |text: String| Failure { text, exit: Exit::Unavailable };
            let request = self.client.get(format!("{}/api/v1/{path}", self.url)).bearer_auth(&self.token);
            let gone = |error: reqwest::Error| unavailable(format!("{}: {}", self.url, root_cause(&error)));
            let response = request.send().await.map_err(gone)?;
            let status = response.status();
            if status.is_success() {
                return response.bytes().await.map(|bytes| bytes.to_vec()).map_err(gone);
            }
            let value: Value = response.json().await.unwrap_or(Value::Null);
            let exit = if status.is_server_error() { Exit::Unavailable } else { Exit::Refused };
            Err(Failure { text: problem(&value, status), exit })
        })
    }

    /// As [`Self::fail`], for what came back instead of an answer.
    pub(crate) fn end(&self, failure: &Failure) -> Exit {
        self.fail(&failure.text, failure.exit)
    }

    pub(crate) fn fail(&self, text: &str, exit: Exit) -> Exit {
        if self.json {
            say!("{}", json!({ "error": text }));
        }
        eprintln!("twinpost: {text}");
        exit
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        last = inner.to_string();
        next = inner.source();
    }
    last
}

fn problem(value: &Value, status: reqwest::StatusCode) -> String {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let mut out = text("detail").or_else(|| text("title")).unwrap_or_else(|| status.to_string());
    for fault in value["faults"].as_array().into_iter().flatten() {
        let part = |key: &str| fault[key].as_str().unwrap_or_default().to_owned();
        out.push_str(&format!("\n  {}: {}", part("place"), part("what")));
    }
    out
}

/// A path segment: everything but letters, digits and `@.-_` percent-encoded.
pub(crate) fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"@.-_".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
        out
    })
}

pub(crate) fn show_done(_: &Value) {
    say!("done");
}

/// Objects as `key: value`, lists of objects as one line each.
fn show_value(value: &Value) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| say!("{}", line(item))),
        Value::Object(map) => match map.values().next() {
            Some(list @ Value::Array(items)) if map.len() == 1 && items.iter().all(Value::is_object) => {
                show_value(list)
            }
            _ => map.iter().for_each(|(key, value)| say!("{key}: {}", line(value))),
        },
        other => say!("{}", line(other)),
    }
}

pub(crate) fn line(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(line).collect::<Vec<_>>().join(", "),
        Value::Object(map) => map
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| format!("{k}={}", line(v)))
            .collect::<Vec<_>>()
            .join("  "),
        other => other.to_string(),
    }
}

fn new_password() -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        return Ok(dialoguer::Password::new()
            .with_prompt("Password")
            .with_confirmation("Again", "They differ.")
            .interact()?);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    anyhow::ensure!(!password.is_empty(), "no password on standard input");
    Ok(password)
}

use reqwest::Method;

/// Runs `twinpost domain`.
///
/// # Errors
/// When the API cannot be found.
pub fn domain(args: &ServerArgs, command: DomainCommand) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    Ok(match command {
        DomainCommand::Add { name, default } => {
            api.run(Method::POST, "domains", Some(&json!({ "name": name, "default": default })), show_done)
        }
        DomainCommand::List => api.run(Method::GET, "domains", None, show_value),
        DomainCommand::Show { name } => api.run(Method::GET, &format!("domains/{}", segment(&name)), None, show_value),
        DomainCommand::Set { name, default } => {
            let path = format!("domains/{}", segment(&name));
            api.run(Method::PATCH, &path, Some(&json!({ "default": default })), show_done)
        }
        DomainCommand::Remove { name } => {
            api.run(Method::DELETE, &format!("domains/{}", segment(&name)), None, show_done)
        }
    })
}

/// Runs `twinpost account`.
///
/// # Errors
/// When the API cannot be found or no password is given.
pub fn account(args: &ServerArgs, command: AccountCommand) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let path = |address: &str| format!("accounts/{}", segment(address));
    Ok(match command {
        AccountCommand::Add { address, name, quota_bytes } => {
            let password = new_password()?;
            let mut body = json!({ "address": address, "name": name, "password": password });
            if let Some(quota) = quota_bytes {
                body["quota_bytes"] = json!(quota);
            }
            api.run(Method::POST, "accounts", Some(&body), show_done)
        }
        AccountCommand::List => api.run(Method::GET, "accounts", None, show_value),
        AccountCommand::Show { address } => api.run(Method::GET, &path(&address), None, show_value),
        AccountCommand::Set { address, name, enabled, quota_bytes, password } => {
            let mut body = json!({});
            if let Some(name) = name {
                body["name"] = json!(name);
            }
            if let Some(enabled) = enabled {
                body["enabled"] = json!(enabled);
            }
            if let Some(quota) = quota_bytes {
                body["quota_bytes"] = json!(quota);
            }
            if password {
                body["password"] = json!(new_password()?);
            }
            api.run(Method::PATCH, &path(&address), Some(&body), show_done)
        }
        AccountCommand::Remove { address } => api.run(Method::DELETE, &path(&address), None, show_done),
        AccountCommand::Recover(args) => crate::recover::run(&api, &args),
    })
}

/// Runs `twinpost alias`.
///
/// # Errors
/// When the API cannot be found.
pub fn alias(args: &ServerArgs, command: AliasCommand) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let path = |address: &str| format!("aliases/{}", segment(address));
    Ok(match command {
        AliasCommand::Add { address, targets } => {
            api.run(Method::POST, "aliases", Some(&json!({ "address": address, "targets": targets })), show_done)
        }
        AliasCommand::List => api.run(Method::GET, "aliases", None, show_value),
        AliasCommand::Show { address } => api.run(Method::GET, &path(&address), None, show_value),
        AliasCommand::Set { address, targets } => {
            api.run(Method::PATCH, &path(&address), Some(&json!({ "targets": targets })), show_done)
        }
        AliasCommand::Remove { address } => api.run(Method::DELETE, &path(&address), None, show_done),
    })
}

/// Runs `twinpost queue`.
///
/// # Errors
/// When the API cannot be found.
pub fn queue(args: &ServerArgs, command: QueueCommand) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    Ok(match command {
        QueueCommand::List => api.run(Method::GET, "queue", None, show_value),
        QueueCommand::Release => api.run(Method::POST, "queue/release", Some(&json!({})), show_done),
    })
}

/// Everything at a glance.
///
/// # Errors
/// When the API cannot be found.
pub fn status(args: &ServerArgs) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let mut status = match api.call(Method::GET, "cluster", None).done() {
        Ok(status) => status,
        Err(failure) => return Ok(api.end(&failure)),
    };
    // A node of an older version does not list servers; what it tells of the cluster is shown.
    if let Ok(found) = api.call(Method::GET, "servers", None).done() {
        status["servers"] = found["servers"].clone();
    }
    if api.json {
        say!("{}", serde_json::to_string_pretty(&status).unwrap_or_default());
    } else {
        show_status(&status);
        servers::show(&status);
    }
    Ok(Exit::Done)
}

fn show_status(value: &Value) {
    let text = |key: &str| line(&value[key]);
    say!("cluster {}, seen from node {}: {}", text("cluster"), text("node"), text("mode"));
    say!("epoch {} ({}), in-sync set {}, home {}", text("epoch"), text("epoch_kind"), text("in_sync"), text("home"));
    match value["cluster_addresses"].as_array().map(Vec::as_slice) {
        None | Some([]) => say!("no cluster address"),
        Some(all) => {
            let all: Vec<String> = all.iter().map(line).collect();
            say!("cluster address {}, held by node {}", all.join(" and "), text("address_holder"));
        }
    }
    say!(
        "{:<5}{:<20}{:<18}{:<13}{:<9}{:<7}{:<7}program",
        "node",
        "name",
        "address",
        "role",
        "in sync",
        "votes",
        "homes"
    );
    for node in value["nodes"].as_array().into_iter().flatten() {
        let cell = |key: &str| line(&node[key]);
        let yes = |key: &str| if node[key].as_bool() == Some(true) { "yes" } else { "no" };
        let (sync, votes) = (yes("in_sync"), yes("votes"));
        let (id, homes, program) = (cell("id"), cell("homes"), node["program"].as_str().unwrap_or("-"));
        say!(
            "{id:<5}{:<20}{:<18}{:<13}{sync:<9}{votes:<7}{homes:<7}{program}",
            cell("name"),
            cell("address"),
            cell("role")
        );
        if let Some(reason) = node["refused"].as_str() {
            say!("     refused: {reason}");
        }
    }
    say!("batches in flight {}, oldest {} ms", text("batches_in_flight"), text("oldest_batch_ms"));
    if value["sync"].is_object() {
        show_sync(&value["sync"]);
    }
    show_proxied(&value["proxied"]);
    show_checks(&value["checks"]);
    show_merges(&value["merges"]);
    for branch in value["branches"].as_array().into_iter().flatten() {
        say!("archived branch: {}", line(branch));
    }
    if let Some(reason) = value["settings_locked"].as_str() {
        say!("settings are locked: {reason}");
    }
    for warning in value["warnings"].as_array().into_iter().flatten() {
        say!("warning: {}", line(warning));
    }
}

/// What is the matter now, and what to do.
///
/// # Errors
/// When the API cannot be found.
pub fn alerts(args: &ServerArgs) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    Ok(api.run(Method::GET, "alerts", None, |value| {
        let all = value["alerts"].as_array().map(Vec::as_slice).unwrap_or_default();
        if all.is_empty() {
            say!("nothing is the matter");
        }
        for alert in all {
            let minutes = (wall_ms() / 1000).saturating_sub(alert["since_ms"].as_u64().unwrap_or(0) / 1000) / 60;
            let text = |name: &str| line(&alert[name]);
            say!("{} for {minutes} min: {}", text("severity"), text("text"));
            say!("  what to do: {}", text("advice"));
        }
    }))
}

fn show_sync(sync: &Value) {
    let count = |key: &str| sync[key].as_u64().unwrap_or(0);
    let time =
        sync["seconds_left"].as_u64().map(|s| format!(", about {} min {} s", s / 60, s % 60)).unwrap_or_default();
    say!(
        "bringing node {} up to date: {} of {} accounts left, {} MB{time}",
        count("node"),
        count("accounts_left"),
        count("accounts"),
        count("bytes_left") / 1_000_000
    );
}

fn show_checks(checks: &Value) {
    let count = |key: &str| checks[key].as_u64().unwrap_or(0);
    let ago = checks["last_pass_ms"].as_u64().map(|at| (wall_ms() / 1000).saturating_sub(at / 1000) / 3600);
    match ago {
        Some(hours) => say!(
            "stored data checked {hours} h ago; damaged since start {}, repaired {}",
            count("damaged"),
            count("repaired")
        ),
        None => say!(
            "stored data: first check under way, {} accounts and {} bodies so far",
            count("accounts"),
            count("bodies")
        ),
    }
}

fn show_merges(merges: &Value) {
    let count = |key: &str| merges[key].as_u64().unwrap_or(0);
    if count("accounts") > 0 {
        say!(
            "accounts merged here since start {}: {} messages under a new UID, {} restorable, {} documents kept twice, {} \
             mailboxes with a new UIDVALIDITY",
            count("accounts"),
            count("renumbered"),
            count("recovered"),
            count("kept_twice"),
            count("raised")
        );
    }
}

fn show_proxied(proxied: &Value) {
    let count = |key: &str| proxied[key].as_u64().unwrap_or(0);
    if count("total") > 0 {
        say!("clients that another node serves for this one: {} now, {} so far", count("open"), count("total"));
    }
    if count("taken_total") > 0 {
        say!("clients of other nodes served here: {} now, {} so far", count("taken_open"), count("taken_total"));
    }
}

/// Asks for the cluster's name, then says that the peer is down.
///
/// # Errors
/// When the API cannot be found or nobody can be asked.
pub fn start_alone(args: &ServerArgs, confirm: Option<String>) -> anyhow::Result<Exit> {
    let api = Api::open(args)?;
    let asked = "This node will go on alone. If the other node still runs somewhere, both will take mail and the two\n\
                 states are put side by side when they meet again. Only go on when the other node is off.";
    match self::confirm(&api, confirm, asked)? {
        Ok(typed) => Ok(api.run(Method::POST, "cluster/start-alone", Some(&json!({ "confirm": typed })), show_done)),
        Err(exit) => Ok(exit),
    }
}

/// The cluster's name as an operator typed it, after being told what will happen; or how the command ends instead.
///
/// # Errors
/// Nobody can be asked.
pub(crate) fn confirm(api: &Api, word: Option<String>, asked: &str) -> anyhow::Result<Result<String, Exit>> {
    let name = match api.call(Method::GET, "cluster", None).done() {
        Ok(value) => value["cluster"].as_str().unwrap_or_default().to_owned(),
        Err(failure) => return Ok(Err(api.end(&failure))),
    };
    let typed = match word {
        Some(typed) => typed,
        None => {
            eprintln!("{asked}");
            anyhow::ensure!(std::io::stdin().is_terminal(), "nobody to ask: say --confirm {name}");
            dialoguer::Input::new().with_prompt(format!("Type the cluster's name ({name})")).interact_text()?
        }
    };
    if typed != name {
        return Ok(Err(api.fail("the name was not typed right; nothing was done", Exit::Refused)));
    }
    Ok(Ok(typed))
}
