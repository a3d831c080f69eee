//! POP3 as a client (RFC 1939).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::stream::{LineStream, Trust};

/// A session.
pub struct Pop3Client {
    stream: LineStream,
}

impl Pop3Client {
    /// Connects in the clear and reads the greeting.
    ///
    /// # Errors
    /// No connection or no `+OK`.
    pub async fn connect(peer: SocketAddr, limit: Duration) -> anyhow::Result<Self> {
        Self::greet(LineStream::connect(peer, limit).await?).await
    }

    /// Connects with implicit TLS and reads the greeting.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_tls(peer: SocketAddr, trust: &Trust, limit: Duration) -> anyhow::Result<Self> {
        Self::greet(LineStream::connect_tls(peer, trust, limit).await?).await
    }

    async fn greet(stream: LineStream) -> anyhow::Result<Self> {
        let mut client = Self { stream };
        client.positive().await?;
        Ok(client)
    }

    /// USER and PASS.
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn login(&mut self, user: &str, password: &str) -> anyhow::Result<()> {
        self.command(&format!("USER {user}")).await?;
        self.command(&format!("PASS {password}")).await?;
        Ok(())
    }

    /// One command with a one-line answer; returns its text.
    ///
    /// # Errors
    /// `-ERR` or no answer.
    pub async fn command(&mut self, line: &str) -> anyhow::Result<String> {
        self.stream.write(format!("{line}\r\n").as_bytes()).await?;
        self.positive().await
    }

    async fn positive(&mut self) -> anyhow::Result<String> {
        let line = self.stream.read_line().await?;
        let line = String::from_utf8_lossy(&line).into_owned();
        match line.strip_prefix("+OK") {
            Some(rest) => Ok(rest.trim_start().to_owned()),
            None => bail!("{line}"),
        }
    }

    /// One command with a multi-line answer; dots are unstuffed, lines end in CRLF.
    ///
    /// # Errors
    /// `-ERR` or no answer.
    pub async fn lines(&mut self, line: &str) -> anyhow::Result<Vec<u8>> {
        self.command(line).await?;
        let mut out = Vec::new();
        loop {
            let line = self.stream.read_line().await?;
            if line == b"." {
                return Ok(out);
            }
            let line = if line.starts_with(b".") { line.get(1..).unwrap_or_default() } else { &line };
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Number of messages (STAT).
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn count(&mut self) -> anyhow::Result<u32> {
        let text = self.command("STAT").await?;
        text.split(' ').next().and_then(|word| word.parse().ok()).with_context(|| format!("STAT {text}"))
    }

    /// Unique ids in order (UIDL).
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn unique_ids(&mut self) -> anyhow::Result<Vec<String>> {
        let lines = self.lines("UIDL").await?;
        let text = String::from_utf8_lossy(&lines).into_owned();
        Ok(text.lines().filter_map(|line| line.split_once(' ')).map(|(_, id)| id.to_owned()).collect())
    }

    /// QUIT: deletions take effect.
    ///
    /// # Errors
    /// Refused or no answer: nobody knows whether they did.
    pub async fn quit(mut self) -> anyhow::Result<()> {
        self.command("QUIT").await.map(drop)
    }
}
