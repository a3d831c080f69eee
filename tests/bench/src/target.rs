//! A server under measurement: where it answers, and which processes it is.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use node::demo::clients::api::Api;
use node::demo::clients::imap::ImapClient;
use node::demo::clients::smtp::SmtpClient;
use node::demo::clients::stream::Trust;
use node::demo::pair::Login;

/// How long a client waits for any answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// A server.
#[derive(Clone)]
pub struct Target {
    /// Name in the table.
    pub name: String,
    /// SMTP without TLS.
    pub smtp: SocketAddr,
    /// IMAP without TLS.
    pub imap: SocketAddr,
    /// IMAP with TLS.
    pub imaps: SocketAddr,
    /// Whom its certificate is signed by.
    pub trust: Trust,
    /// Accounts; the last one is for the large mailbox.
    pub accounts: Vec<Login>,
    /// Processes whose descendants, themselves included, are the server.
    pub roots: Vec<i32>,
    /// APIs of all nodes, for their metrics; empty for others.
    pub apis: Vec<Api>,
}

impl Target {
    /// An SMTP session.
    ///
    /// # Errors
    /// No connection.
    pub async fn smtp(&self) -> anyhow::Result<SmtpClient> {
        SmtpClient::connect(self.smtp, ANSWER_LIMIT).await
    }

    /// An IMAP session without TLS, logged in.
    ///
    /// # Errors
    /// No connection or no login.
    pub async fn imap(&self, account: usize) -> anyhow::Result<ImapClient> {
        let mut client = ImapClient::connect(self.imap, ANSWER_LIMIT).await?;
        self.login(&mut client, account).await?;
        Ok(client)
    }

    /// An IMAP session with TLS, logged in.
    ///
    /// # Errors
    /// No connection or no login.
    pub async fn imaps(&self, account: usize) -> anyhow::Result<ImapClient> {
        let mut client = ImapClient::connect_tls(self.imaps, &self.trust, ANSWER_LIMIT).await?;
        self.login(&mut client, account).await?;
        Ok(client)
    }

    async fn login(&self, client: &mut ImapClient, account: usize) -> anyhow::Result<()> {
        if let Some(login) = self.accounts.get(account) {
            client.login(&login.address, &login.password).await?;
        }
        Ok(())
    }

    /// CPU time of the server so far, children that ended included.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let ticks: u64 = self.processes().iter().map(|&pid| cpu_ticks(pid)).sum();
        // Linux reports in hundredths of a second everywhere (USER_HZ).
        Duration::from_millis(ticks * 10)
    }

    /// Memory of the server (proportional set size, bytes).
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.processes().iter().map(|&pid| proportional_bytes(pid)).sum()
    }

    /// Synced writes of all nodes so far, if the server counts them.
    pub async fn synced_writes(&self) -> Option<u64> {
        let mut sum = 0.0;
        for api in &self.apis {
            let text = api.get("/metrics").await.ok()?;
            let lines = text.lines().filter(|line| line.contains("synced_writes_total") && !line.starts_with('#'));
            sum += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        }
        (!self.apis.is_empty()).then_some(sum as u64)
    }

    fn processes(&self) -> BTreeSet<i32> {
        let mut parents = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse::<i32>().ok()) {
                parents.push((pid, parent));
            }
        }
        let mut tree: BTreeSet<i32> = self.roots.iter().copied().collect();
        loop {
            let before = tree.len();
            for (pid, parent) in &parents {
                if tree.contains(parent) {
                    tree.insert(*pid);
                }
            }
            if tree.len() == before {
                return tree;
            }
        }
    }
}

/// Fields of `/proc/pid/stat` after the name: state, parent, ...
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// utime, stime, and those of ended children.
fn cpu_ticks(pid: i32) -> u64 {
    let Some(fields) = stat(pid) else { return 0 };
    fields.get(11..15).unwrap_or_default().iter().filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn proportional_bytes(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
