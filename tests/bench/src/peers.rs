//! Postfix and Dovecot from Debian as a second server on this machine: own configuration, own ports, own folder; the
//! system's services are not touched. Needs root, because both refuse to run without their users.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use node::demo::clients::stream::Trust;
use node::demo::pair::Login;

use crate::target::Target;

/// Where the peers listen.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 13));
/// How long they may take to answer.
const START_LIMIT: Duration = Duration::from_secs(20);
/// SMTP, LMTP between the two, IMAP, IMAP with TLS.
const PORTS: [u16; 4] = [19_025, 19_024, 19_143, 19_993];

/// Both servers, ended when dropped.
pub struct Peers {
    dir: tempfile::TempDir,
    dovecot: Child,
    postfix: Child,
    accounts: Vec<Login>,
}

impl Peers {
    /// Starts both with the given accounts.
    ///
    /// # Errors
    /// One is not installed, or does not answer; its log is in the message.
    pub fn start(accounts: Vec<Login>, domain: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("twinpost-peers-").tempdir()?;
        open_to_all(dir.path())?;
        certificate(dir.path())?;
        let dovecot_file = dovecot_files(dir.path(), &accounts)?;
        let postfix_dir = postfix_files(dir.path(), domain)?;
        let dovecot = spawn(Command::new("dovecot").arg("-F").arg("-c").arg(dovecot_file), dir.path(), "dovecot.out")?;
        let postfix =
            spawn(Command::new("postfix").arg("-c").arg(postfix_dir).arg("start-fg"), dir.path(), "postfix.out");
        let mut peers = match postfix {
            Ok(postfix) => Self { dir, dovecot, postfix, accounts },
            Err(fault) => {
                end(dovecot);
                return Err(fault);
            }
        };
        peers.await_ports()?;
        Ok(peers)
    }

    fn await_ports(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        for port in PORTS {
            while std::net::TcpStream::connect((ADDRESS, port)).is_err() {
                let ended = self.dovecot.try_wait()?.or(self.postfix.try_wait()?);
                if ended.is_some() || start.elapsed() > START_LIMIT {
                    let read = |name: &str| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
                    bail!(
                        "the peers do not answer on {ADDRESS}:{port} ({ended:?}):\n{}{}{}{}",
                        read("dovecot.out"),
                        read("dovecot.log"),
                        read("postfix.out"),
                        read("postfix.log")
                    );
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// How to reach and watch them.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn target(&self) -> anyhow::Result<Target> {
        Ok(Target {
            name: "Postfix + Dovecot".into(),
            smtp: SocketAddr::new(ADDRESS, PORTS[0]),
            imap: SocketAddr::new(ADDRESS, PORTS[2]),
            imaps: SocketAddr::new(ADDRESS, PORTS[3]),
            trust: Trust::from_file(&self.dir.path().join("cert.pem"))?,
            accounts: self.accounts.clone(),
            roots: vec![self.dovecot.id().cast_signed(), self.postfix.id().cast_signed()],
            apis: Vec::new(),
        })
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let config = self.dir.path().join("postfix");
        // Postfix' master answers SIGTERM of its own command only after its children are gone.
        let _ = Command::new("postfix").arg("-c").arg(config).arg("stop").stderr(Stdio::null()).status();
        let _ = self.postfix.wait();
        terminate(&mut self.dovecot);
    }
}

fn end(mut child: Child) {
    terminate(&mut child);
}

fn terminate(child: &mut Child) {
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    let _ = child.wait();
}

fn spawn(command: &mut Command, dir: &Path, out: &str) -> anyhow::Result<Child> {
    let out = std::fs::File::create(dir.join(out))?;
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("{name}: apt-get install postfix dovecot-imapd dovecot-lmtpd"))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn open_to_all(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?)
}

fn certificate(dir: &Path) -> anyhow::Result<()> {
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=peers", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", &format!("subjectAltName=IP:{ADDRESS}")])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem")))
}

/// Maildir, sync as shipped, SHA512-CRYPT passwords; limits raised so that none is met.
fn dovecot_files(dir: &Path, accounts: &[Login]) -> anyhow::Result<PathBuf> {
    let dir_name = dir.display();
    let homes = dir.join("mail");
    std::fs::create_dir_all(&homes)?;
    run(Command::new("chown").arg("mail:mail").arg(&homes))?;
    let mut users = String::new();
    for account in accounts {
        let local = account.address.split('@').next().unwrap_or_default();
        let hash = Command::new("doveadm")
            .args(["-c", "/dev/null", "pw", "-s", "SHA512-CRYPT", "-p", &account.password])
            .output()
            .context("doveadm")?;
        let hash = String::from_utf8_lossy(&hash.stdout).trim().to_owned();
        users.push_str(&format!("{}:{hash}:mail:mail::{dir_name}/mail/{local}::\n", account.address));
    }
    std::fs::write(dir.join("users"), users)?;
    let text = format!(
        "base_dir = {dir_name}/dovecot\nstate_dir = {dir_name}/dovecot\nprotocols = imap lmtp\n\
         log_path = {dir_name}/dovecot.log\nlisten = {ADDRESS}\nmail_location = maildir:~/Maildir\n\
         mail_uid = mail\nmail_gid = mail\nfirst_valid_uid = 1\nfirst_valid_gid = 1\n\
         disable_plaintext_auth = no\nssl = yes\nssl_cert = <{dir_name}/cert.pem\nssl_key = <{dir_name}/key.pem\n\
         mail_max_userip_connections = 100000\n\
         passdb {{\n  driver = passwd-file\n  args = username_format=%u {dir_name}/users\n}}\n\
         userdb {{\n  driver = passwd-file\n  args = username_format=%u {dir_name}/users\n}}\n\
         namespace inbox {{\n  inbox = yes\n}}\n\
         service imap-login {{\n  process_limit = 4096\n\
         \x20 inet_listener imap {{\n    port = {imap}\n  }}\n  inet_listener imaps {{\n    port = {imaps}\n    ssl = yes\n  }}\n}}\n\
         service imap {{\n  process_limit = 4096\n}}\n\
         service anvil {{\n  client_limit = 20000\n}}\nservice auth {{\n  client_limit = 20000\n}}\n\
         service lmtp {{\n  inet_listener lmtp {{\n    address = {ADDRESS}\n    port = {lmtp}\n  }}\n}}\n",
        imap = PORTS[2],
        imaps = PORTS[3],
        lmtp = PORTS[1],
    );
    let file = dir.join("dovecot.conf");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// As shipped, with a virtual domain handed to Dovecot over LMTP.
fn postfix_files(dir: &Path, domain: &str) -> anyhow::Result<PathBuf> {
    let config = dir.join("postfix");
    let (queue, data) = (dir.join("queue"), dir.join("postfix-data"));
    for folder in [&config, &queue, &data] {
        std::fs::create_dir_all(folder)?;
    }
    run(Command::new("chown").arg("postfix:postfix").arg(&data))?;
    let dir_name = dir.display();
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {}\ndata_directory = {}\nmail_owner = postfix\n\
         maillog_file = {dir_name}/postfix.log\nmaillog_file_prefixes = /var, /dev/stdout, {dir_name}\n\
         myhostname = peer.example.org\nmydestination =\ninet_interfaces = loopback-only\ninet_protocols = ipv4\n\
         mynetworks = 127.0.0.0/8\nvirtual_mailbox_domains = {domain}\nvirtual_transport = lmtp:inet:{ADDRESS}:{}\n\
         local_recipient_maps =\nalias_maps =\nsmtpd_recipient_restrictions = permit_mynetworks, reject\n\
         smtpd_client_connection_count_limit = 0\nmessage_size_limit = 67108864\nmailbox_size_limit = 0\n\
         virtual_mailbox_limit = 0\n",
        queue.display(),
        data.display(),
        PORTS[1],
    );
    std::fs::write(config.join("main.cf"), main)?;
    let mut master = format!("{ADDRESS}:{} inet n - n - - smtpd\npostlog unix-dgram n - n - 1 postlogd\n", PORTS[0]);
    for line in [
        "pickup unix n - n 60 1 pickup",
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 300 1 qmgr",
        "tlsmgr unix - - n 1000? 1 tlsmgr",
        "rewrite unix - - n - - trivial-rewrite",
        "bounce unix - - n - 0 bounce",
        "defer unix - - n - 0 bounce",
        "trace unix - - n - 0 bounce",
        "verify unix - - n - 1 verify",
        "flush unix n - n 1000? 0 flush",
        "proxymap unix - - n - - proxymap",
        "smtp unix - - n - - smtp",
        "relay unix - - n - - smtp",
        "showq unix n - n - - showq",
        "error unix - - n - - error",
        "retry unix - - n - - error",
        "discard unix - - n - - discard",
        "local unix - n n - - local",
        "virtual unix - n n - - virtual",
        "lmtp unix - - n - - lmtp",
        "anvil unix - - n - 1 anvil",
        "scache unix - - n - 1 scache",
    ] {
        master.push_str(line);
        master.push('\n');
    }
    std::fs::write(config.join("master.cf"), master)?;
    Ok(config)
}
