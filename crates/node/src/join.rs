//! Joining: the one-use token, `twinpost cluster join` on the new machine, and admission on the old one.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use frontend::TokenPlan;
use ports::Answer;
use ports::config::Config;
use serde_json::json;
use topology::{ConfigOp, Member};
use transport::ca;
use transport::{ExamineReply, ExamineRequest, JoinHandler, JoinReply, JoinRequest, MemberAddress};
use vocab::NodeId;

use crate::admin::say;
use crate::certificates::disk;
use crate::checks::{self, Verdict};
use crate::clock::wall_ms;
use crate::config::{self, NodeConfig};
use crate::examine::{self, Examined, Teller};
use crate::exit::Exit;
use crate::files::{self, DataDir, Identity};
use crate::init;

/// How long a token may be used (seconds).
const TOKEN_SECONDS: u64 = 3600;
/// Bytes of a token's secret: 128 bits.
const SECRET_BYTES: usize = 16;
/// Start of every token, so that a wrong paste is told at once.
const TOKEN_MARK: &str = "tp1.";

/// `twinpost cluster join`
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// Node file.
    #[arg(long, default_value = config::DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Read the token from this file instead of standard input.
    #[arg(long)]
    pub token_file: Option<PathBuf>,
    /// This machine only votes on settings and on who goes on: it stores no mail, serves no clients and gets neither
    /// the CA's key nor the administrator's token.
    #[arg(long)]
    pub witness: bool,
    /// Begin from a copy of another node's mail (`twinpost store checkpoint` there): what is whole of it is not transferred.
    #[arg(long, value_name = "DIR", conflicts_with = "witness")]
    pub seed: Option<PathBuf>,
    /// Ask the node of this name, found on the LAN, instead of the addresses in the token.
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// Only check, and say what would happen; the token stays unused.
    #[arg(long)]
    pub dry_run: bool,
    /// Print checks and outcome as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What a token says.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Token {
    /// Cluster id.
    c: String,
    /// Peer addresses to ask.
    a: Vec<String>,
    /// Secret.
    s: String,
    /// Hash of the CA certificate.
    h: String,
}

impl Token {
    fn encode(&self) -> anyhow::Result<String> {
        Ok(format!("{TOKEN_MARK}{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(self)?)))
    }
    fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim().strip_prefix(TOKEN_MARK)?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Hash under which a token's secret is stored.
fn secret_hash(secret: &[u8]) -> String {
    blake3::hash(secret).to_hex().to_string()
}

/// Makes a token that one machine may use once, within an hour.
///
/// # Errors
/// As the configuration: without quorum nobody can join.
pub async fn make_token(config: &dyn Config, data: &DataDir) -> Result<String, ports::config::ConfigError> {
    if let Some(why) = refuses_joins(&config.current()) {
        return Err(ports::config::ConfigError::Conflict(why.to_owned()));
    }
    let secret = init::secret(SECRET_BYTES);
    let op = ConfigOp::AddToken { hash: secret_hash(secret.as_bytes()), expires: unix_now() + TOKEN_SECONDS };
    config.propose(op).await?;
    let state = config.current();
    let unreadable = |error: &dyn std::fmt::Display| ports::config::ConfigError::Unknown(error.to_string());
    let ca = disk::issuing(data).map_err(|e| unreadable(&e))?;
    let token = Token {
        c: state.cluster_id.clone(),
        a: asked(&state),
        s: secret,
        h: ca::ca_hash(&ca).map_err(|e| unreadable(&e))?,
    };
    token.encode().map_err(|e| unreadable(&e))
}

/// Nobody joins while the CA is exchanged: a token names one CA, and each step waits for every member.
fn refuses_joins(state: &topology::ClusterState) -> Option<&'static str> {
    let (_, body) = state.certificates();
    body.rotation.map(|_| {
        "the cluster's CA is being exchanged, and nobody joins meanwhile: `twinpost cluster certificates` says what it waits \
         for"
    })
}

/// What a token made now would allow.
pub(crate) fn plan_token(config: &dyn Config, settings_locked: Option<String>) -> TokenPlan {
    let state = config.current();
    let (room_mail, room_witness) = topology::room(&state);
    let now = unix_now();
    TokenPlan {
        valid_seconds: TOKEN_SECONDS,
        addresses: asked(&state),
        next_node: state.next_node,
        room_mail,
        room_witness,
        unused: state.tokens.values().filter(|expires| **expires > now).count(),
        settings_locked: settings_locked.or_else(|| refuses_joins(&state).map(str::to_owned)),
    }
}

/// Where a joiner asks.
fn asked(state: &topology::ClusterState) -> Vec<String> {
    state.members.values().filter(|m| m.data).flat_map(Member::peer_addresses).collect()
}

fn unix_now() -> u64 {
    wall_ms() / 1000
}

/// Runs `twinpost cluster join`: offline on this side; start the service afterwards.
///
/// # Errors
/// Says why: bad token, folder in use, refused.
pub fn run(args: &JoinArgs) -> anyhow::Result<Exit> {
    let config = NodeConfig::load(&args.config)?;
    let data = DataDir(config.data_dir.clone());
    init::refuse_second(&data)?;
    let text = match &args.token_file {
        Some(path) => files::read_text(path)?,
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("read the token from standard input")?;
            text
        }
    };
    let mut token = Token::decode(&text).context("this is no join token: `twinpost cluster token` prints one")?;
    if let Some(name) = &args.from {
        token.a = vec![crate::discover::address_of(name, &token.c, &config)?];
    }
    if data.mail().exists() {
        anyhow::bail!(
            "{} holds mail already; a joining node starts with an empty folder, or with a checkpoint of a node of the \
             cluster (--seed)",
            data.0.display()
        );
    }
    if args.seed.is_none() && data.seed().exists() {
        anyhow::bail!("{} holds a seed: say --seed again, or remove its folder `seed`", data.0.display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kind = if args.witness { Kind::Witness } else { Kind::Data };
    runtime.block_on(async {
        let mut examined = match examine::examine(&config, (&token.a, &token.h), &question(&config, &token, kind)).await
        {
            Ok(examined) => examined,
            Err(reasons) => return Ok(fail(args.json, &reasons)),
        };
        let seed = args.seed.as_deref().map(|folder| crate::seeding::look(folder, &token.c));
        let seed = seed.map(|(finding, bytes)| {
            examined.findings.push(finding);
            bytes
        });
        let refused = checks::worst(&examined.findings) == Verdict::Refuse;
        if args.dry_run || refused {
            report(args, (&config, kind, seed), &examined);
            return Ok(if refused { Exit::Refused } else { Exit::Done });
        }
        data.create()?;
        if let Some(folder) = &args.seed {
            let said = crate::seeding::prepare(&data, folder, &token.c)?;
            for line in said {
                if args.json { eprintln!("{line}") } else { say!("{line}") }
            }
        }
        ask((&config, &data), &token, (kind, args.json), &examined).await
    })
}

fn question(config: &NodeConfig, token: &Token, kind: Kind) -> ExamineRequest {
    let own = init::member(config, NodeId(0), kind == Kind::Data);
    ExamineRequest {
        secret: token.s.clone().into_bytes().into(),
        name: own.name,
        peer_address: own.peer_address,
        address: own.address,
        witness: kind == Kind::Witness,
        paths: own.paths,
    }
}

fn fail(json: bool, text: &str) -> Exit {
    if json {
        say!("{}", json!({ "error": text }));
    }
    eprintln!("twinpost: not joined: {text}");
    Exit::Refused
}

/// All checks, and what would happen if none of them refused.
fn report(args: &JoinArgs, (config, kind, seed): (&NodeConfig, Kind, Option<u64>), examined: &Examined) {
    let refused = checks::worst(&examined.findings) == Verdict::Refuse;
    let will = if refused { Vec::new() } else { plan((config, kind, seed), &examined.home) };
    if args.json {
        let shown = json!({ "refused": refused, "checks": examined.findings, "will": will });
        say!("{}", serde_json::to_string_pretty(&shown).unwrap_or_default());
        return;
    }
    examined.findings.iter().for_each(|finding| say!("{}", finding.lines()));
    will.iter().for_each(|line| say!("{line}"));
    if refused {
        eprintln!("twinpost: not joined: a check refuses it; nothing was changed and the token is unused");
    } else {
        say!("nothing was changed and the token is unused");
    }
}

/// What a join would do, one line each; `seed`: bytes of it, if there is one.
fn plan((config, kind, seed): (&NodeConfig, Kind, Option<u64>), home: &ExamineReply) -> Vec<String> {
    let (name, node, folder) = (&config.name, home.next_node, config.data_dir.display());
    let peers = init::peer_addresses(config).join(", ");
    let mut will = Vec::new();
    if kind == Kind::Witness {
        will.push(format!("{name} would be node {node} of the cluster {} and only vote", home.cluster_name));
        will.push(format!("written into {folder}: this node's identity, certificate and key"));
        will.push(format!("the other nodes would find it at {peers}"));
        return will;
    }
    will.push(format!("{name} would be node {node} of the cluster {} and vote", home.cluster_name));
    will.push(format!(
        "written into {folder}: this node's identity, certificates and keys, the CA's key, the administrator's token"
    ));
    will.push(format!(
        "the other nodes would find it at {peers}; clients at {} {}",
        config.address,
        config.ports.services()
    ));
    will.push(forecast(home.data_bytes, seed));
    if !home.cluster_address.is_empty() {
        will.push(format!("in sync, it may hold the cluster address {}", home.cluster_address));
    }
    will
}

/// What the first sync would bring of the home's mail (bytes). What a seed has is counted by its size: which of it still is
/// the home's state, only the sync finds out.
fn forecast(home: u64, seed: Option<u64>) -> String {
    let copied = checks::megabytes(home.saturating_sub(seed.unwrap_or(0)));
    let from = format!(
        "once the service is started, {copied} MB would be copied from the cluster, which serves mail meanwhile"
    );
    let Some(seed) = seed else { return from };
    format!(
        "{from}: {} MB there without the {} MB of the seed; more, the more of the seed is not there any more",
        checks::megabytes(home),
        checks::megabytes(seed)
    )
}

/// What the new node is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Witness,
}

async fn ask(
    (config, data): (&NodeConfig, &DataDir),
    token: &Token,
    (kind, json): (Kind, bool),
    examined: &Examined,
) -> anyhow::Result<Exit> {
    for warning in examined.findings.iter().filter(|finding| finding.verdict == Verdict::Warn) {
        eprintln!("{}", warning.lines());
    }
    let key = ca::request_node().context("make this node's key")?;
    let own = init::member(config, NodeId(0), kind == Kind::Data);
    let request = JoinRequest {
        secret: token.s.clone().into_bytes().into(),
        name: config.name.clone(),
        peer_address: own.peer_address,
        address: own.address,
        request: key.request.clone(),
        witness: kind == Kind::Witness,
        paths: own.paths,
    };
    let mut reasons = Vec::new();
    for address in &token.a {
        match transport::join_call(address, &token.h, request.clone()).await {
            Ok(reply) => {
                finish(data, &key.key, &reply, kind)?;
                let what = if kind == Kind::Witness { "witness, " } else { "" };
                if json {
                    let joined = json!({ "cluster": reply.cluster_name, "node": reply.node });
                    say!("{}", json!({ "refused": false, "checks": examined.findings, "joined": joined }));
                    return Ok(Exit::Done);
                }
                println!("joined cluster {} as {what}node {}; start the service now", reply.cluster_name, reply.node);
                return Ok(Exit::Done);
            }
            Err(reason) => reasons.push(format!("{address}: {reason}")),
        }
    }
    Ok(fail(json, &reasons.join("; ")))
}

fn finish(data: &DataDir, key: &str, reply: &JoinReply, kind: Kind) -> anyhow::Result<()> {
    init::write_certificates(data, &reply.ca_certificate, &reply.ca_key, &reply.certificate, key)?;
    if kind == Kind::Data {
        disk::write_service(data, &reply.service_certificate, &reply.service_key)?;
        files::write_private(&data.admin_token(), format!("{}\n", reply.admin_token).as_bytes())?;
    }
    let identity = Identity {
        cluster_id: reply.cluster_id.clone(),
        cluster_name: reply.cluster_name.clone(),
        node: reply.node,
        peers: reply.members.iter().flat_map(known_paths).collect(),
        witness: kind == Kind::Witness,
        left: false,
        found: None,
    };
    identity.save(data)
}

fn known_paths(member: &MemberAddress) -> impl Iterator<Item = (u32, String)> {
    let addresses = std::iter::once(&member.peer_address).chain(&member.paths);
    addresses.map(|address| (member.node, address.clone()))
}

/// Admission on a node of the cluster.
pub struct Admission {
    /// Node file.
    pub node_file: NodeConfig,
    /// Configuration.
    pub config: Arc<dyn Config>,
    /// Data folder with CA and service certificate.
    pub data: DataDir,
    /// What a joiner is told before.
    pub(crate) teller: Teller,
}

impl JoinHandler for Admission {
    fn join(&self, request: JoinRequest) -> Answer<'_, Result<JoinReply, String>> {
        Box::pin(async move {
            let reply = self.admit(request).await;
            if let Err(reason) = &reply {
                tracing::warn!(reason, "a node was not admitted");
            }
            reply
        })
    }

    fn examine(&self, request: ExamineRequest) -> Answer<'_, Result<ExamineReply, String>> {
        let received_ms = wall_ms();
        Box::pin(async move {
            let state = self.config.current();
            if let Some(why) = refuses_joins(&state) {
                return Err(why.to_owned());
            }
            let token_hash = secret_hash(&request.secret);
            let now = unix_now();
            if state.tokens.get(&token_hash).is_none_or(|expires| *expires <= now) {
                return Err(
                    "the token is unknown, used or expired; make a new one with `twinpost cluster token`".to_owned()
                );
            }
            let member = Member {
                id: NodeId(0),
                name: request.name,
                peer_address: request.peer_address,
                address: request.address,
                data: !request.witness,
                paths: request.paths,
            };
            let locked = !self.config.quorum().borrow().quorum;
            let admit = ConfigOp::Admit { token_hash, now, member };
            self.teller.tell(&state, (&admit, locked), received_ms).await
        })
    }
}

impl Admission {
    async fn admit(&self, request: JoinRequest) -> Result<JoinReply, String> {
        if let Some(why) = refuses_joins(&self.config.current()) {
            return Err(why.to_owned());
        }
        let member = Member {
            id: NodeId(0),
            name: request.name.clone(),
            peer_address: request.peer_address.clone(),
            address: request.address.clone(),
            data: !request.witness,
            paths: request.paths.clone(),
        };
        let op = ConfigOp::Admit { token_hash: secret_hash(&request.secret), now: unix_now(), member };
        let proposed = self.config.propose(op).await.map_err(|e| e.to_string())?;
        let node = proposed.node.ok_or("the configuration gave no node id")?;
        tracing::info!(node = node.0, name = request.name, address = request.address, "node admitted");
        self.reply(node, &request).map_err(|e| format!("{e:#}"))
    }

    fn reply(&self, node: NodeId, request: &JoinRequest) -> anyhow::Result<JoinReply> {
        let data = &self.data;
        let state = self.config.current();
        let ca = disk::authority(&self.node_file, data)?;
        let names = init::node_names(&request.name, &request.name, &request.address);
        let certificate = ca.sign_node(&request.request, node, &names)?;
        let members = state.members.values().map(|m| MemberAddress {
            node: m.id.0,
            peer_address: m.peer_address.clone(),
            paths: m.paths.clone(),
        });
        let reply = JoinReply {
            node: node.0,
            cluster_id: state.cluster_id.clone(),
            cluster_name: state.name.clone(),
            certificate,
            ca_certificate: ca.certificate().to_owned(),
            members: members.collect(),
            ..JoinReply::default()
        };
        if request.witness {
            // What opens the mail, or makes nodes and administrators, stays on the nodes that store it.
            return Ok(reply);
        }
        let service = ca.issue_service(&init::dedup(crate::cluster_address::service_names(&state)))?;
        disk::write_service(data, &service.certificate, &service.key)?;
        Ok(JoinReply {
            ca_key: ca.key().to_owned(),
            service_certificate: service.certificate,
            service_key: service.key,
            admin_token: files::read_text(&data.admin_token())?.trim().to_owned(),
            ..reply
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ha_12_the_forecast_counts_what_a_seed_lacks() {
        let copied = |home, seed| {
            let said = forecast(home, seed);
            let before = said.split_once(" MB would be copied").expect("a size").0;
            before.rsplit(' ').next().expect("a number").to_owned()
        };
        assert_eq!(
            (copied(340_600_000, None), copied(340_600_000, Some(328_500_000))),
            ("340.6".into(), "12.1".into())
        );
        assert_eq!(copied(1_000_000, Some(2_000_000)), "0.0", "a seed may be larger than what is there now");
        assert!(forecast(340_600_000, Some(328_500_000)).contains("340.6 MB there without the 328.5 MB of the seed"));
    }

    #[test]
    fn a_token_survives_its_text() {
        let token = Token { c: "c".into(), a: vec!["127.0.0.1:1".into()], s: "secret".into(), h: "00".into() };
        let text = token.encode().expect("encodes");
        assert_eq!(Token::decode(&format!(" {text}\n")).map(|t| (t.s, t.h)), Some((token.s, token.h)));
        assert!(Token::decode("tp1.nonsense").is_none());
        assert!(Token::decode("hello").is_none());
    }
}
