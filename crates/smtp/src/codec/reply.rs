//! Replies: written by the server session, read by the client machine (RFC 5321 §4.2, RFC 2034).

use std::borrow::Cow;

use bytes::Bytes;

/// One reply of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Enhanced status (RFC 3463); empty in replies that carry none (greeting, HELO, EHLO, 3yz).
    pub status: &'static str,
    /// Words for people; never names of our insides.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply with fixed words.
    #[must_use]
    pub const fn new(code: u16, status: &'static str, text: &'static str) -> Self {
        Self { code, status, text: Cow::Borrowed(text) }
    }

    /// 5yz or 4yz.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        self.code >= 400
    }

    /// One line with CRLF.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let gap = if self.status.is_empty() { "" } else { " " };
        format!("{} {}{gap}{}\r\n", self.code, self.status, self.text).into()
    }
}

/// Several lines under one code, without enhanced status (EHLO).
#[must_use]
pub fn encode_lines(code: u16, lines: &[String]) -> Bytes {
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        let mark = if index + 1 == lines.len() { ' ' } else { '-' };
        out.push_str(&format!("{code}{mark}{line}\r\n"));
    }
    out.into()
}

/// Longest reply line that is taken (RFC 5321 §4.5.3.1.5 says 512; EHLO of real servers stays below 1000).
pub const REPLY_LINE_BYTES_MAX: usize = 4096;
/// Lines of one reply.
pub const REPLY_LINES_MAX: usize = 200;

/// A reply of a stranger's server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteReply {
    /// Three digits, 200 to 599.
    pub code: u16,
    /// Text of each line, controls replaced.
    pub lines: Vec<String>,
}

impl RemoteReply {
    /// The enhanced status it begins with, if there is one of the same class.
    #[must_use]
    pub fn status(&self) -> Option<String> {
        let word = self.lines.first()?.split(' ').next()?;
        let parts: Vec<&str> = word.split('.').collect();
        let digits = |p: &str| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit());
        let fits = parts.len() == 3 && parts.iter().all(|p| digits(p));
        (fits && parts.first() == Some(&(self.code / 100).to_string().as_str())).then(|| word.to_owned())
    }
    /// Code and all text in one line.
    #[must_use]
    pub fn one_line(&self) -> String {
        format!("{} {}", self.code, self.lines.join(" "))
    }
}

/// Why bytes are no reply: the connection is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the remote host does not speak SMTP")]
pub struct NoReply;

/// Reads replies from a stream.
#[derive(Debug, Default)]
pub struct ReplyReader {
    lines: Vec<String>,
    code: u16,
}

impl ReplyReader {
    /// Reads one line at most; returns the octets used (0: more are needed) and the reply when complete.
    ///
    /// # Errors
    /// [`NoReply`].
    pub fn read(&mut self, input: &[u8]) -> Result<(usize, Option<RemoteReply>), NoReply> {
        let Some(end) = input.iter().take(REPLY_LINE_BYTES_MAX).position(|&b| b == b'\n') else {
            return if input.len() >= REPLY_LINE_BYTES_MAX { Err(NoReply) } else { Ok((0, None)) };
        };
        let line = input.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, more, text) = reply_line(line).ok_or(NoReply)?;
        if self.lines.len() >= REPLY_LINES_MAX || (!self.lines.is_empty() && code != self.code) {
            return Err(NoReply);
        }
        self.code = code;
        self.lines.push(text);
        let reply = (!more).then(|| RemoteReply { code, lines: std::mem::take(&mut self.lines) });
        Ok((end + 1, reply))
    }
}

fn reply_line(line: &[u8]) -> Option<(u16, bool, String)> {
    let (code, rest) = line.split_at_checked(3)?;
    let code: u16 = std::str::from_utf8(code).ok()?.parse().ok().filter(|c| (200..600).contains(c))?;
    let more = match rest.first() {
        None | Some(b' ') => false,
        Some(b'-') => true,
        Some(_) => return None,
    };
    let text = String::from_utf8_lossy(rest.get(1..).unwrap_or_default());
    Some((code, more, text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_written() {
        assert_eq!(&Reply::new(250, "2.1.0", "ok").encode()[..], b"250 2.1.0 ok\r\n");
        assert_eq!(&Reply::new(354, "", "go on").encode()[..], b"354 go on\r\n");
        assert_eq!(&encode_lines(250, &["a".into(), "B".into()])[..], b"250-a\r\n250 B\r\n");
    }

    #[test]
    fn theirs_are_read() {
        let mut reader = ReplyReader::default();
        assert_eq!(reader.read(b"250-a\r"), Ok((0, None)));
        assert_eq!(reader.read(b"250-a\r\n250 SIZE 5\r\n"), Ok((7, None)));
        let reply = RemoteReply { code: 250, lines: vec!["a".into(), "SIZE 5".into()] };
        assert_eq!(reader.read(b"250 SIZE 5\r\n"), Ok((12, Some(reply))));
        for bad in [&b"hello\r\n"[..], b"99 x\r\n", b"2500\r\n", b"999 x\r\n", b"\r\n", &[b'2'; 5000]] {
            assert_eq!(ReplyReader::default().read(bad), Err(NoReply), "{bad:?}");
        }
    }

    #[test]
    fn enhanced_status_must_fit_the_code() {
        let status = |code, line: &str| RemoteReply { code, lines: vec![line.into()] }.status();
        assert_eq!(status(550, "5.1.1 no").as_deref(), Some("5.1.1"));
        assert_eq!(status(450, "5.1.1 no"), None);
        assert_eq!(status(550, "no such user"), None);
        assert_eq!(status(550, "5.1 no"), None);
    }
}
