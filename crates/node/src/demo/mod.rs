//! `twinpost demo`: a pair on this machine, mail for it, a kill, and the proof that nothing was lost.
//!
//! The clients and the pair's processes are used by the e2e tests and the benchmark too.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

use pair::{Pair, PairOptions};

pub mod clients;
pub mod corpus;
mod handle;
pub mod ledger;
pub mod node_process;
pub mod outage;
pub mod pair;
pub mod ports;
pub mod readers;
mod stop;
mod story;
mod timeline;
pub mod verify;
pub mod writers;

/// Accounts when nothing is said.
const ACCOUNTS: usize = 10;
/// Most accounts; they are created one by one.
const ACCOUNTS_MAX: usize = 1000;
/// Name of the file in a folder that the demo made itself and may remove.
const TEMPORARY_MARK: &str = ".temporary";
/// How long all ports of a fresh pair may take to answer.
const PORTS_LIMIT: std::time::Duration = std::time::Duration::from_secs(15);
/// Exit code after Ctrl-C (128 + SIGINT).
const INTERRUPTED: u8 = 130;

/// Options of `twinpost demo`. Test tools rely on them.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave the pair running in the foreground until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Leave the pair running and return when every port answers
    #[arg(long)]
    pub detach: bool,
    /// End a detached pair (in DIR, or the folder named by --dir); returns when all its processes are gone
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    pub stop: Option<Option<PathBuf>>,
    /// Folder of the pair (default: a temporary one)
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write addresses, ports and logins to this file (mode 0600) once every port answers
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Accounts u1 to uN
    #[arg(long, value_name = "N", default_value_t = ACCOUNTS)]
    pub accounts: usize,
    /// One password for all accounts (default: each gets its own)
    #[arg(long, value_name = "P")]
    pub password: Option<String>,
    /// Domain of the accounts
    #[arg(long, value_name = "D", default_value = "demo.test")]
    pub domain: String,
    /// The twinpost binary to run (default: this one)
    #[arg(long, value_name = "PATH")]
    pub bin: Option<PathBuf>,
    /// No mail and no kill: end after writing the JSON, or stay with --keep and --detach
    #[arg(long)]
    pub no_failover: bool,
    /// Allow password logins without TLS, for test tools that know no TLS
    #[arg(long)]
    pub allow_plaintext: bool,
}

/// Runs the demo; everything it started and made is gone afterwards unless it was asked to stay.
///
/// # Errors
/// Something could not be started or read; the text says what.
pub fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(dir) = &args.stop {
        let Some(dir) = dir.as_ref().or(args.dir.as_ref()) else {
            bail!("--stop needs the folder: --stop DIR or --dir DIR")
        };
        return runtime.block_on(stop::stop(dir)).map(|()| ExitCode::SUCCESS);
    }
    runtime.block_on(interruptible(args))
}

async fn interruptible(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // Started by nohup, it is to outlive the terminal.
    let at_terminal = std::io::stdin().is_terminal();
    let folder = Folder::make(args.dir.as_deref())?;
    let mut outcome = {
        let mut pair = None;
        let outcome = tokio::select! {
            outcome = demo(&args, &folder.path, &mut pair) => outcome,
            _ = interrupt.recv() => Ok(ExitCode::from(INTERRUPTED)),
            _ = terminate.recv() => Ok(ExitCode::from(INTERRUPTED)),
            _ = hang_up.recv(), if at_terminal => Ok(ExitCode::from(INTERRUPTED)),
        };
        if let Some(mut pair) = pair {
            if args.detach && matches!(outcome, Ok(code) if code == ExitCode::SUCCESS) {
                pair.leave_running();
                return outcome;
            }
            pair.stop().await;
        }
        outcome
    };
    // Without a temporary folder the logs stay where they are.
    if let Err(fault) = folder.remove() {
        outcome = outcome.and_then(|_| Err(fault));
    }
    outcome
}

async fn demo(args: &DemoArgs, dir: &Path, slot: &mut Option<Pair>) -> anyhow::Result<ExitCode> {
    if args.accounts == 0 || args.accounts > ACCOUNTS_MAX {
        bail!("--accounts: 1 to {ACCOUNTS_MAX}");
    }
    let timeline = timeline::Timeline::default();
    let binary = match &args.bin {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
        None => std::env::current_exe()?,
    };
    let password = args.password.as_deref();
    let address = |number| format!("u{number}@{}", args.domain);
    let options = PairOptions {
        dir: dir.to_owned(),
        binary,
        domain: args.domain.clone(),
        accounts: (1..=args.accounts).map(|number| pair::login(&address(number), password)).collect(),
        allow_plaintext: args.allow_plaintext,
        log: "info,openraft=off".into(),
        more: String::new(),
        keys: <[String; 2]>::default(),
    };
    timeline.say(&format!("starting two nodes in {}", dir.display()));
    let single = Pair::start_single(options).await?;
    let pair = slot.insert(single);
    timeline.say(&format!("{} serves alone; {} joins", pair.node(0)?.name, pair.node(1)?.name));
    pair.join_second().await?;
    pair.create_accounts().await?;
    timeline.say(&format!("both in sync; {} accounts in {}", args.accounts, args.domain));
    pair.await_ports(PORTS_LIMIT).await?;
    handle::write(pair, args.json.as_deref())?;
    let mut code = ExitCode::SUCCESS;
    if !args.no_failover {
        code = story::tell(pair, &timeline).await?;
        // The node that was killed has a new process.
        handle::write(pair, args.json.as_deref())?;
    }
    if args.detach {
        timeline.say(&format!("left running; end it with: twinpost demo --stop {}", dir.display()));
    } else if args.keep {
        timeline.say(&format!("running until Ctrl-C; details in {}", handle::own_file(dir).display()));
        std::future::pending::<()>().await;
    }
    Ok(code)
}

/// The folder of the pair, and whether it goes with it.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn make(asked: Option<&Path>) -> anyhow::Result<Self> {
        let Some(asked) = asked else {
            let path = tempfile::Builder::new().prefix("twinpost-demo-").tempdir()?.keep();
            std::fs::write(path.join(TEMPORARY_MARK), "")?;
            return Ok(Self { path, temporary: true });
        };
        std::fs::create_dir_all(asked).with_context(|| asked.display().to_string())?;
        let path = asked.canonicalize()?;
        if path.join("n1").exists() || path.join("n2").exists() {
            bail!("{} holds an earlier demo; stop it, remove it, or name another folder", path.display());
        }
        Ok(Self { path, temporary: false })
    }

    fn remove(self) -> anyhow::Result<()> {
        if self.temporary {
            std::fs::remove_dir_all(&self.path).with_context(|| self.path.display().to_string())?;
        }
        Ok(())
    }
}
