//! IMAP as a client (RFC 3501, 9051) for what the demo, the tests and the benchmark do.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::stream::{LineStream, Trust};
use value::Value;

mod value;

pub use value::Value as ImapValue;

/// One message of a FETCH answer; what was not asked for is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Sequence number.
    pub seq: u32,
    /// UID, 0 when absent.
    pub uid: u32,
    /// Flags as sent.
    pub flags: Option<Vec<String>>,
    /// MODSEQ, 0 when absent.
    pub modseq: u64,
    /// The first BODY[...] item.
    pub body: Option<Vec<u8>>,
}

/// What SELECT said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Messages.
    pub exists: u32,
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDNEXT.
    pub uid_next: u32,
    /// HIGHESTMODSEQ, 0 without CONDSTORE.
    pub highest_modseq: u64,
}

/// The end of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// OK, NO or BAD.
    pub status: String,
    /// What follows it.
    pub text: String,
    /// Untagged lines, literals included.
    pub untagged: Vec<Vec<u8>>,
}

impl Answer {
    /// This answer if it is OK.
    ///
    /// # Errors
    /// NO or BAD, with the text.
    pub fn ok(self) -> anyhow::Result<Self> {
        if self.status != "OK" {
            bail!("{} {}", self.status, self.text);
        }
        Ok(self)
    }

    /// The FETCH answers among the untagged lines.
    #[must_use]
    pub fn fetched(&self) -> Vec<Fetched> {
        self.untagged.iter().filter_map(|line| fetched(line)).collect()
    }

    fn number(&self, word: &str) -> Option<u64> {
        let mut texts =
            self.untagged.iter().map(|line| String::from_utf8_lossy(line)).chain([self.text.as_str().into()]);
        texts.find_map(|text| {
            let (_, rest) = text.split_once(&format!("[{word} "))?;
            rest.split([']', ' ']).next()?.parse().ok()
        })
    }
}

/// A session.
pub struct ImapClient {
    stream: LineStream,
    tag: u32,
    /// The latest EXISTS of the selected mailbox.
    pub exists: u32,
}

impl ImapClient {
    /// Connects in the clear and reads the greeting.
    ///
    /// # Errors
    /// No connection or no greeting of OK or PREAUTH.
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

    async fn greet(mut stream: LineStream) -> anyhow::Result<Self> {
        let line = stream.read_line().await?;
        if !line.starts_with(b"* OK") && !line.starts_with(b"* PREAUTH") {
            bail!("greeting {:?}", String::from_utf8_lossy(&line));
        }
        Ok(Self { stream, tag: 0, exists: 0 })
    }

    /// Changes the limit of every later wait.
    pub fn set_limit(&mut self, limit: Duration) {
        self.stream.set_limit(limit);
    }

    /// STARTTLS.
    ///
    /// # Errors
    /// Refused, or the handshake failed.
    pub async fn start_tls(&mut self, trust: &Trust) -> anyhow::Result<()> {
        self.command("STARTTLS").await?.ok()?;
        self.stream.start_tls(trust).await
    }

    /// LOGIN.
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn login(&mut self, user: &str, password: &str) -> anyhow::Result<()> {
        self.command(&format!("LOGIN {} {}", quoted(user), quoted(password))).await?.ok()?;
        Ok(())
    }

    /// One command without literals, and everything up to its tagged line.
    ///
    /// # Errors
    /// The connection broke or stands still; NO and BAD are answers.
    pub async fn command(&mut self, line: &str) -> anyhow::Result<Answer> {
        let tag = self.send(line).await?;
        self.answer(&tag).await
    }

    /// Sends a command and does not wait; returns its tag for [`Self::answer`].
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(&mut self, line: &str) -> anyhow::Result<String> {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        self.stream.write(format!("{tag} {line}\r\n").as_bytes()).await?;
        Ok(tag)
    }

    /// Everything up to the tagged line of `tag`.
    ///
    /// # Errors
    /// The connection broke or stands still.
    pub async fn answer(&mut self, tag: &str) -> anyhow::Result<Answer> {
        let mut untagged = Vec::new();
        loop {
            let line = self.line().await?;
            if let Some(rest) = line.strip_prefix(tag.as_bytes()).and_then(|rest| rest.strip_prefix(b" ")) {
                let rest = String::from_utf8_lossy(rest).into_owned();
                let (status, text) = rest.split_once(' ').unwrap_or((&rest, ""));
                return Ok(Answer { status: status.to_ascii_uppercase(), text: text.to_owned(), untagged });
            }
            self.note(&line);
            untagged.push(line);
        }
    }

    /// As [`Self::command`], but throws the untagged answers away; returns how many there were and their bytes.
    ///
    /// # Errors
    /// The connection broke, or the command was not OK.
    pub async fn drain(&mut self, line: &str) -> anyhow::Result<(u64, u64)> {
        let tag = self.send(line).await?;
        let (mut count, mut bytes) = (0, 0);
        loop {
            let line = self.line().await?;
            if let Some(rest) = line.strip_prefix(tag.as_bytes()) {
                if !rest.starts_with(b" OK") {
                    bail!("{}", String::from_utf8_lossy(rest));
                }
                return Ok((count, bytes));
            }
            count += 1;
            bytes += line.len() as u64;
        }
    }

    fn note(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line.get(..line.len().min(40)).unwrap_or_default());
        let mut words = text.split(' ').skip(1);
        if let (Some(number), Some("EXISTS")) = (words.next(), words.next()) {
            self.exists = number.parse().unwrap_or(self.exists);
        }
    }

    /// One response with its literals in place (`{n}`, CRLF, bytes).
    async fn line(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut whole = self.stream.read_line().await?;
        let mut looked = 0;
        while let Some(count) = literal_at_end(whole.get(looked..).unwrap_or_default()) {
            whole.extend_from_slice(b"\r\n");
            whole.extend(self.stream.read_exact(count).await?);
            looked = whole.len();
            whole.extend(self.stream.read_line().await?);
        }
        Ok(whole)
    }

    /// SELECT with CONDSTORE.
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn select(&mut self, mailbox: &str) -> anyhow::Result<Selected> {
        self.exists = 0;
        let answer = self.command(&format!("SELECT {}", quoted(mailbox))).await?.ok()?;
        let small = |word| answer.number(word).and_then(|value| u32::try_from(value).ok());
        Ok(Selected {
            exists: self.exists,
            uid_validity: small("UIDVALIDITY").context("SELECT without UIDVALIDITY")?,
            uid_next: small("UIDNEXT").context("SELECT without UIDNEXT")?,
            highest_modseq: answer.number("HIGHESTMODSEQ").unwrap_or(0),
        })
    }

    /// UID FETCH; `items` as on the wire.
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn uid_fetch(&mut self, set: &str, items: &str) -> anyhow::Result<Vec<Fetched>> {
        Ok(self.command(&format!("UID FETCH {set} {items}")).await?.ok()?.fetched())
    }

    /// Names of all mailboxes.
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn mailboxes(&mut self) -> anyhow::Result<Vec<String>> {
        let answer = self.command("LIST \"\" \"*\"").await?.ok()?;
        Ok(answer
            .untagged
            .iter()
            .filter_map(|line| match Value::parse_all(line.strip_prefix(b"* LIST ")?).as_slice() {
                [Value::List(_), _, name] => name.text(),
                _ => None,
            })
            .collect())
    }

    /// APPEND with a synchronising literal; returns the text of the OK (APPENDUID).
    ///
    /// # Errors
    /// Refused or no answer; when no answer came the message may be there.
    pub async fn append(&mut self, mailbox: &str, message: &[u8]) -> anyhow::Result<String> {
        let tag = self.send(&format!("APPEND {} {{{}}}", quoted(mailbox), message.len())).await?;
        loop {
            let line = self.line().await?;
            if line.starts_with(b"+") {
                break;
            }
            if line.starts_with(tag.as_bytes()) {
                bail!("{}", String::from_utf8_lossy(&line));
            }
            self.note(&line);
        }
        self.stream.write(message).await?;
        self.stream.write(b"\r\n").await?;
        Ok(self.answer(&tag).await?.ok()?.text)
    }

    /// IDLE; returns its tag once the server waits.
    ///
    /// # Errors
    /// Refused or no answer.
    pub async fn idle(&mut self) -> anyhow::Result<String> {
        let tag = self.send("IDLE").await?;
        loop {
            let line = self.line().await?;
            if line.starts_with(b"+") {
                return Ok(tag);
            }
            if line.starts_with(tag.as_bytes()) {
                bail!("{}", String::from_utf8_lossy(&line));
            }
            self.note(&line);
        }
    }

    /// The next untagged line while idling.
    ///
    /// # Errors
    /// The connection broke or stands still.
    pub async fn idle_line(&mut self) -> anyhow::Result<Vec<u8>> {
        let line = self.line().await?;
        self.note(&line);
        Ok(line)
    }

    /// DONE.
    ///
    /// # Errors
    /// The connection broke or the IDLE ended badly.
    pub async fn done(&mut self, tag: &str) -> anyhow::Result<Answer> {
        self.stream.write(b"DONE\r\n").await?;
        self.answer(tag).await?.ok()
    }

    /// LOGOUT; whatever happens, the connection is over.
    pub async fn logout(mut self) {
        let _ = self.command("LOGOUT").await;
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Size of the literal announced at the end of a line.
fn literal_at_end(line: &[u8]) -> Option<usize> {
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|&byte| byte == b'{')?;
    std::str::from_utf8(inner.get(open + 1..)?).ok()?.parse().ok()
}

fn fetched(line: &[u8]) -> Option<Fetched> {
    let rest = line.strip_prefix(b"* ")?;
    let space = rest.iter().position(|&byte| byte == b' ')?;
    let seq = std::str::from_utf8(rest.get(..space)?).ok()?.parse().ok()?;
    let items = rest.get(space + 1..)?.strip_prefix(b"FETCH ")?;
    let values = Value::parse_all(items);
    let [Value::List(items)] = values.as_slice() else { return None };
    let mut out = Fetched { seq, ..Fetched::default() };
    for pair in items.chunks(2) {
        let [Value::Atom(name), value] = pair else { continue };
        match name.to_ascii_uppercase().as_str() {
            "UID" => out.uid = value.number().and_then(|number| u32::try_from(number).ok()).unwrap_or(0),
            "FLAGS" => out.flags = value.list().map(|flags| flags.iter().filter_map(Value::text).collect()),
            "MODSEQ" => {
                out.modseq = value.list().and_then(|list| list.first()).and_then(Value::number).unwrap_or(0);
            }
            name if name.starts_with("BODY[") && out.body.is_none() => out.body = value.bytes(),
            _ => {}
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_with_a_literal_is_taken_apart() {
        let line = b"* 3 FETCH (UID 7 FLAGS (\\Seen $x) MODSEQ (12) BODY[HEADER.FIELDS (A B)] {5}\r\nab)\r\n)";
        let got = fetched(line).expect("a fetch");
        assert_eq!((got.seq, got.uid, got.modseq), (3, 7, 12));
        assert_eq!(got.flags.expect("flags"), ["\\Seen", "$x"]);
        assert_eq!(got.body.expect("body"), b"ab)\r\n");
    }

    #[test]
    fn literals_are_seen_only_at_the_end() {
        assert_eq!(literal_at_end(b"* 1 FETCH (BODY[] {12}"), Some(12));
        assert_eq!(literal_at_end(b"* OK {12} more"), None);
    }
}
