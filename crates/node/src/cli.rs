//! The commands. Words here, deeds in the modules beside; every command ends with an exit code of DESIGN 9.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::exit::Exit;
use crate::{
    admin, branches, certificates, cluster_address, config, demo, discover, events, guard, import, init, join, logs,
    members, owner, seeding, serve, servers, settings, upgrade,
};

/// Twinpost: a highly available mail system for a pair of machines.
#[derive(Debug, Parser)]
#[command(name = "twinpost", version = crate::PROGRAM, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the node file is.
#[derive(Clone, Debug, Args)]
pub struct ConfigArg {
    /// Node file.
    #[arg(long, default_value = config::DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// How an administrator's command finds the API.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Node file of the node on this machine; its data folder holds address and token.
    #[arg(long, default_value = config::DEFAULT_CONFIG, global = true)]
    pub config: PathBuf,
    /// API of another machine, `https://host[:port]`; the token comes from TWINPOST_TOKEN.
    #[arg(long, global = true)]
    pub server: Option<String>,
    /// CA certificate (PEM) to trust with --server; the system's else.
    #[arg(long, global = true)]
    pub ca_file: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the mail system on this node.
    Serve(ConfigArg),
    /// Run `serve` as a child and tell the peer the moment it ends.
    Guard(guard::GuardArgs),
    /// Start a pair on loopback, send mail, kill the primary, count what is lost (nothing).
    Demo(demo::DemoArgs),
    /// The cluster: init, token, join, status and what an operator decides.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Mail domains.
    Domain {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: admin::DomainCommand,
    },
    /// Accounts.
    Account {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: admin::AccountCommand,
    },
    /// Aliases.
    Alias {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: admin::AliasCommand,
    },
    /// Cluster-wide settings: alerts, log, load and others, as JSON.
    Setting {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: settings::SettingCommand,
    },
    /// The outbound queue.
    Queue {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: admin::QueueCommand,
    },
    /// Bring back what a removed node had and the cluster lacks, from that node's data folder. A second run changes nothing.
    Import {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        import: import::ImportArgs,
    },
    /// The mail on this node's disk.
    Store {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// The log: what became of messages, logins, changes and decisions, of all nodes.
    Logs {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        logs: logs::LogsArgs,
    },
    /// Every node: CPU, memory, network and disk, and how each of its functions does.
    Servers {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Help from others.
    Support {
        #[command(flatten)]
        server: ServerArgs,
        #[command(subcommand)]
        command: SupportCommand,
    },
    /// What is the matter now, and what to do.
    Alerts {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Everything at a glance.
    Status {
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Make a consistent copy of this node's mail in a new folder of this machine, whether the node runs or not: for
    /// `twinpost cluster join --seed` on a new machine. It costs little space while it lies on the same file system.
    Checkpoint {
        /// Folder that does not exist yet.
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Make this machine the first node of a new cluster (offline; start the service afterwards).
    Init(init::InitArgs),
    /// Print a one-use join token, valid for one hour.
    Token {
        #[command(flatten)]
        server: ServerArgs,
        /// Only say what it would allow.
        #[arg(long)]
        dry_run: bool,
    },
    /// Make this machine a node of an existing cluster; the token is read from standard input.
    Join(join::JoinArgs),
    /// Nodes that announce themselves on the LAN (`discovery = true` in their node files).
    Discover(discover::DiscoverArgs),
    /// State of the cluster as this node sees it.
    Status {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Say that the other node is down and stays down: this node goes on alone. What was acknowledged only there comes
    /// back when it returns.
    StartAlone {
        #[command(flatten)]
        server: ServerArgs,
        /// Say the cluster's name instead of being asked for it.
        #[arg(long)]
        confirm: Option<String>,
    },
    /// Whether this node may be restarted with this program now: what it has in common with the programs that run, and who
    /// serves meanwhile. Nothing is changed.
    UpgradeCheck {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Make another node the primary; what is in flight is finished first and nothing fails.
    Switchover {
        #[command(flatten)]
        server: ServerArgs,
        /// Id or name of the new primary; without it any other node that is in sync.
        node: Option<String>,
        /// Only say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Which node is preferred as the primary, and whether it gets its place back by itself after it was lost. Without
    /// anything else only shown.
    Primary {
        #[command(flatten)]
        server: ServerArgs,
        /// Id or name of the preferred node, or `none`.
        node: Option<String>,
        /// `manual`: only `switchover` moves the primary; `auto`: the preferred node becomes it again once it has been in sync
        /// for a while.
        #[arg(long, value_enum)]
        failback: Option<members::Failback>,
        /// How long it must have been in sync again before that (seconds, 1 to 3600; 60 unless said).
        #[arg(long, value_name = "SECONDS")]
        settle: Option<u64>,
        /// Only say what would follow.
        #[arg(long)]
        dry_run: bool,
    },
    /// The addresses that clients use and the primary holds. They change while the nodes run: the new one is checked and
    /// added before the old one goes; connections on the old one end. Without anything else only shown.
    Address {
        #[command(flatten)]
        server: ServerArgs,
        /// All of them, as ADDRESS or ADDRESS/PREFIX: one IPv4 and one IPv6 address at most; or `none`.
        addresses: Vec<String>,
        /// Only check, and say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Which node orders the changes of how many shards; `spread` shares them out over all nodes in sync, `together` brings
    /// them back to the primary. They move one by one and nothing fails.
    Homes {
        #[command(flatten)]
        server: ServerArgs,
        /// What to do; without it only shown.
        #[arg(value_enum)]
        how: Option<members::Homes>,
    },
    /// How client connections on the cluster address are shared out.
    Load {
        #[command(flatten)]
        server: ServerArgs,
        /// `spread`: the primary assigns them to all nodes in sync; `together`: it serves all itself. Without it only shown.
        #[arg(value_enum)]
        how: Option<members::Homes>,
        /// Share of a node beside the others, as ID=WEIGHT (100 unless named, 0 = no new connections); once for each node.
        #[arg(long = "weight", value_parser = members::weight)]
        weights: Vec<(u32, u32)>,
    },
    /// This node leaves the cluster for good: it hands over, finishes what is in flight, and ends. Its data stay on its
    /// disk.
    Leave {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        word: members::Word,
    },
    /// Take a node that is lost off the list of members. What was acknowledged only there is lost with it.
    Remove {
        #[command(flatten)]
        server: ServerArgs,
        /// Id or name of the node.
        node: String,
        #[command(flatten)]
        word: members::Word,
    },
    /// Make this node, which serves alone, the only one that votes on settings, so that they can be changed. The others
    /// get their vote back when they return.
    Rescue {
        #[command(flatten)]
        server: ServerArgs,
        /// You made sure that the others are off: wanted when this node went on alone without their guard's word.
        #[arg(long)]
        others_are_down: bool,
        #[command(flatten)]
        word: members::Word,
    },
    /// Certificates of all nodes: who has what until when. New ones by order; the cluster's CA exchanged without downtime.
    Certificates {
        #[command(flatten)]
        server: ServerArgs,
        /// What to do; without it only shown.
        #[command(subcommand)]
        command: Option<certificates::command::CertificatesCommand>,
    },
    /// What this node decided and why: links, evidence, epochs, the cluster address, alerts.
    Events {
        #[command(flatten)]
        server: ServerArgs,
        /// The newest so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Go on with what comes, until Ctrl-C.
        #[arg(long)]
        follow: bool,
    },
    /// Archived branches on this node: what accounts that changed on both sides of a split were on the other side.
    Branches {
        #[command(flatten)]
        server: ServerArgs,
        /// Delete this one before its 30 days are over.
        #[arg(long, value_name = "ID")]
        delete: Option<String>,
    },
}

/// `twinpost support ...`
#[derive(Debug, Subcommand)]
enum SupportCommand {
    /// One file with what a stranger needs to help: versions, status, events, metrics and settings of all nodes that answer;
    /// no mail, no account names, no secrets.
    Bundle {
        /// Where to write it; `twinpost-support-DATE.tar.gz` here unless said. It must not exist.
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
}

/// Parses the command line and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    // One provider for the whole process; an error means it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("twinpost: {error:#}");
            error.downcast_ref::<config::ConfigFault>().map_or(Exit::Refused, |_| Exit::Usage).into()
        }
    }
}

/// The node file of a command that opens the data folder by itself, not through the API.
fn opens_folder(command: &Command) -> Option<&Path> {
    match command {
        Command::Serve(arg) => Some(&arg.config),
        Command::Guard(args) => Some(&args.config),
        Command::Cluster { command: ClusterCommand::Init(args) } => Some(&args.config),
        Command::Cluster { command: ClusterCommand::Join(args) } => Some(&args.config),
        Command::Store { server, .. } if server.server.is_none() => Some(&server.config),
        _ => None,
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    if let Some(path) = opens_folder(&command) {
        owner::work_as_owner(&config::NodeConfig::load(path)?.data_dir)?;
    }
    match command {
        Command::Serve(arg) => serve::run(&config::NodeConfig::load(&arg.config)?),
        Command::Guard(args) => guard::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Cluster { command } => run_cluster(command),
        Command::Domain { server, command } => admin::domain(&server, command).map(Into::into),
        Command::Account { server, command } => admin::account(&server, command).map(Into::into),
        Command::Alias { server, command } => admin::alias(&server, command).map(Into::into),
        Command::Setting { server, command } => settings::run(&server, command).map(Into::into),
        Command::Queue { server, command } => admin::queue(&server, command).map(Into::into),
        Command::Import { server, import } => import::run(&server, &import).map(Into::into),
        Command::Logs { server, logs } => logs::run(&server, &logs).map(Into::into),
        Command::Store { server, command: StoreCommand::Checkpoint { folder } } => {
            seeding::checkpoint(&server, &folder).map(Into::into)
        }
        Command::Servers { server } => servers::run(&server).map(Into::into),
        Command::Support { server, command: SupportCommand::Bundle { output } } => {
            servers::save_bundle(&server, output).map(Into::into)
        }
        Command::Alerts { server } => admin::alerts(&server).map(Into::into),
        Command::Status { server } => admin::status(&server).map(Into::into),
    }
}

fn run_cluster(command: ClusterCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClusterCommand::Init(args) => init::run(&args).map(Into::into),
        ClusterCommand::Token { server, dry_run } => members::token(&server, dry_run).map(Into::into),
        ClusterCommand::Discover(args) => discover::run(&args).map(Into::into),
        ClusterCommand::Join(args) => join::run(&args).map(Into::into),
        ClusterCommand::Status { server } => admin::status(&server).map(Into::into),
        ClusterCommand::StartAlone { server, confirm } => admin::start_alone(&server, confirm).map(Into::into),
        ClusterCommand::UpgradeCheck { server } => upgrade::check(&server).map(Into::into),
        ClusterCommand::Switchover { server, node, dry_run } => {
            members::switch_over(&server, node.as_deref(), dry_run).map(Into::into)
        }
        ClusterCommand::Primary { server, node, failback, settle, dry_run } => {
            members::primary(&server, node.as_deref(), (failback, settle), dry_run).map(Into::into)
        }
        ClusterCommand::Address { server, addresses, dry_run } => {
            cluster_address::run(&server, &addresses, dry_run).map(Into::into)
        }
        ClusterCommand::Homes { server, how } => members::homes(&server, how).map(Into::into),
        ClusterCommand::Load { server, how, weights } => members::load(&server, how, &weights).map(Into::into),
        ClusterCommand::Leave { server, word } => members::leave(&server, word).map(Into::into),
        ClusterCommand::Remove { server, node, word } => members::remove(&server, &node, word).map(Into::into),
        ClusterCommand::Rescue { server, others_are_down, word } => {
            members::rescue(&server, others_are_down, word).map(Into::into)
        }
        ClusterCommand::Certificates { server, command } => {
            certificates::command::run(&server, command.as_ref()).map(Into::into)
        }
        ClusterCommand::Events { server, limit, follow } => events::run(&server, limit, follow).map(Into::into),
        ClusterCommand::Branches { server, delete } => branches::run(&server, delete.as_deref()).map(Into::into),
    }
}
