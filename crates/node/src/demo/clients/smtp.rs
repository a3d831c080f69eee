//! SMTP as a client (RFC 5321), one transaction at a time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::stream::{LineStream, Trust};

/// A reply: code and text of its last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Text of all lines, joined by a line feed.
    pub text: String,
}

impl Reply {
    fn is(&self, class: u16) -> bool {
        self.code / 100 == class
    }
}

/// What is known about a message after a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// 250 after the final dot: the server has it. Text of the reply.
    Accepted(String),
    /// Refused, or never offered completely: the server does not have it.
    Refused(String),
    /// The final dot was sent and no answer came: nobody knows (RFC 5321 §4.5.3.2.6; RFC 1047).
    Unknown(String),
}

/// A session after EHLO.
pub struct SmtpClient {
    stream: LineStream,
    /// What EHLO announced, one line each.
    pub extensions: Vec<String>,
}

impl SmtpClient {
    /// Connects in the clear and says EHLO.
    ///
    /// # Errors
    /// No connection, or a greeting or EHLO answer other than 2xx.
    pub async fn connect(peer: SocketAddr, limit: Duration) -> anyhow::Result<Self> {
        Self::greet(LineStream::connect(peer, limit).await?).await
    }

    /// Connects with implicit TLS (submissions) and says EHLO.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_tls(peer: SocketAddr, trust: &Trust, limit: Duration) -> anyhow::Result<Self> {
        Self::greet(LineStream::connect_tls(peer, trust, limit).await?).await
    }

    async fn greet(stream: LineStream) -> anyhow::Result<Self> {
        let mut client = Self { stream, extensions: Vec::new() };
        let greeting = client.reply().await?;
        if !greeting.is(2) {
            bail!("greeting {} {}", greeting.code, greeting.text);
        }
        client.ehlo().await?;
        Ok(client)
    }

    async fn ehlo(&mut self) -> anyhow::Result<()> {
        let answer = self.command("EHLO client.demo.test").await?;
        if !answer.is(2) {
            bail!("EHLO {} {}", answer.code, answer.text);
        }
        self.extensions = answer.text.lines().skip(1).map(str::to_owned).collect();
        Ok(())
    }

    /// STARTTLS and EHLO again.
    ///
    /// # Errors
    /// Refused, or the handshake failed.
    pub async fn start_tls(&mut self, trust: &Trust) -> anyhow::Result<()> {
        let answer = self.command("STARTTLS").await?;
        if answer.code != 220 {
            bail!("STARTTLS {} {}", answer.code, answer.text);
        }
        self.stream.start_tls(trust).await?;
        self.ehlo().await
    }

    /// AUTH PLAIN with an initial response (RFC 4954).
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn login(&mut self, user: &str, password: &str) -> anyhow::Result<()> {
        let secret = STANDARD.encode(format!("\0{user}\0{password}"));
        let answer = self.command(&format!("AUTH PLAIN {secret}")).await?;
        if answer.code != 235 {
            bail!("AUTH {} {}", answer.code, answer.text);
        }
        Ok(())
    }

    /// One command and its reply, whatever it says.
    ///
    /// # Errors
    /// The connection broke or stands still.
    pub async fn command(&mut self, line: &str) -> anyhow::Result<Reply> {
        self.stream.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Raw bytes, no reply awaited.
    ///
    /// # Errors
    /// The connection broke or stands still.
    pub async fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write(bytes).await
    }

    /// The next reply.
    ///
    /// # Errors
    /// The connection broke, stands still, or what came is no reply.
    pub async fn reply(&mut self) -> anyhow::Result<Reply> {
        let mut text = String::new();
        loop {
            let line = self.stream.read_line().await?;
            let line = String::from_utf8_lossy(&line);
            let code = line.get(..3).and_then(|digits| digits.parse::<u16>().ok());
            let Some(code) = code else { bail!("not a reply: {line:?}") };
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(line.get(4..).unwrap_or_default());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, text });
            }
        }
    }

    /// MAIL, RCPT and DATA; after `Ok(None)` the body may be written, after `Ok(Some(reply))` it was refused.
    ///
    /// # Errors
    /// The connection broke or stands still; nothing was accepted.
    pub async fn open(&mut self, from: &str, to: &[&str]) -> anyhow::Result<Option<Reply>> {
        let mut commands = vec![format!("MAIL FROM:<{from}>")];
        commands.extend(to.iter().map(|path| format!("RCPT TO:<{path}>")));
        let pipelining = self.extensions.iter().any(|word| word.eq_ignore_ascii_case("PIPELINING"));
        let mut refused = None;
        if pipelining {
            commands.push("DATA".into());
            self.stream.write((commands.join("\r\n") + "\r\n").as_bytes()).await?;
            let last = commands.len() - 1;
            let mut data = None;
            for at in 0..commands.len() {
                let answer = self.reply().await?;
                if answer.code == 421 {
                    // The server closes, and answers nothing that is still on its way (RFC 5321 §3.8).
                    return Ok(Some(answer));
                }
                if at == last {
                    data = Some(answer);
                } else if !answer.is(2) {
                    refused = refused.or(Some(answer));
                }
            }
            let started = data.as_ref().is_some_and(|answer| answer.code == 354);
            return match (started, refused) {
                (true, None) => Ok(None),
                (false, refused) => Ok(refused.or(data)),
                // Some recipients were taken: an empty message must not go to them, so the connection is given up.
                (true, Some(refused)) => bail!("some recipients refused: {} {}", refused.code, refused.text),
            };
        }
        commands.push("DATA".into());
        for command in &commands {
            let answer = self.command(command).await?;
            if !answer.is(2) && answer.code != 354 {
                let _ = self.command("RSET").await?;
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// The final dot and its answer; call after [`Self::open`] and the stuffed body.
    pub async fn finish(&mut self) -> Sent {
        if let Err(fault) = self.stream.write(b".\r\n").await {
            return Sent::Unknown(format!("{fault:#}"));
        }
        match self.reply().await {
            Ok(answer) if answer.is(2) => Sent::Accepted(answer.text),
            Ok(answer) => Sent::Refused(format!("{} {}", answer.code, answer.text)),
            Err(fault) => Sent::Unknown(format!("{fault:#}")),
        }
    }

    /// One whole transaction. `message` ends in CRLF and is not dot-stuffed yet.
    pub async fn send(&mut self, from: &str, to: &[&str], message: &[u8]) -> Sent {
        match self.open(from, to).await {
            Ok(None) => {}
            Ok(Some(answer)) => return Sent::Refused(format!("{} {}", answer.code, answer.text)),
            Err(fault) => return Sent::Refused(format!("no answer before the body: {fault:#}")),
        }
        let mut body = stuffed(message);
        body.extend_from_slice(b".\r\n");
        // Everything, the dot included, in one write: from here on no answer means nobody knows.
        if let Err(fault) = self.stream.write(&body).await {
            return Sent::Unknown(format!("{fault:#}"));
        }
        match self.reply().await {
            Ok(answer) if answer.is(2) => Sent::Accepted(answer.text),
            Ok(answer) => Sent::Refused(format!("{} {}", answer.code, answer.text)),
            Err(fault) => Sent::Unknown(format!("{fault:#}")),
        }
    }

    /// QUIT; whatever happens, the connection is over.
    pub async fn quit(mut self) {
        let _ = self.command("QUIT").await;
    }
}

/// Dot-stuffing (RFC 5321 §4.5.2).
#[must_use]
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    let mut line_start = true;
    for &byte in message {
        if line_start && byte == b'.' {
            out.push(b'.');
        }
        line_start = byte == b'\n';
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_at_line_starts_are_doubled() {
        assert_eq!(stuffed(b".a\r\nb.\r\n.\r\n"), b"..a\r\nb.\r\n..\r\n");
    }
}
