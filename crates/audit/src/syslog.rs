//! Forwarding as syslog: messages of RFC 5424 over TCP (octet counting, RFC 6587) or TLS (RFC 5425). The primary forwards
//! what it has, in the order it came, and remembers how far it is: after a broken connection it goes on there, and what
//! the receiver had not read of the last part comes again.

use std::sync::Arc;
use std::time::Duration;

use ports::log::Line;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use topology::SyslogBody;

use crate::book::Book;
use crate::view;

/// Facilities (RFC 5424 §6.2.1): mail, and for logins and settings authpriv.
const MAIL: u8 = 2;
const AUTHPRIV: u8 = 10;
/// Severities.
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFO: u8 = 6;
/// Private enterprise number under which structured data is named; 32473 is that of examples (RFC 5612), as we have none.
const SD_ID: &str = "twinpost@32473";
/// Records sent before the connection is flushed and the place remembered.
const AT_ONCE: usize = 500;
/// How long a connection, or a flush, may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// One record as a message; `time` is RFC 3339 in UTC, `host` the node's name.
#[must_use]
pub fn message(line: &Line, time: &str, host: &str) -> String {
    let get = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    let kind = get("kind");
    let facility = if matches!(kind, "access" | "admin") { AUTHPRIV } else { MAIL };
    let failed = line.get("success") == Some(&Value::Bool(false)) || matches!(get("event"), "bounce" | "defer");
    let severity = match kind {
        _ if failed => WARNING,
        "security" => WARNING,
        "admin" | "cluster" => NOTICE,
        _ => INFO,
    };
    let mut data = String::new();
    for (name, value) in line.iter().filter(|(name, _)| !matches!(name.as_str(), "at_ms" | "kind")) {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        data.push_str(&format!(" {name}=\"{}\"", escaped(&text)));
    }
    let host: String = host.chars().filter(char::is_ascii_graphic).take(255).collect();
    let host = if host.is_empty() { "-" } else { &host };
    let priority = u32::from(facility) * 8 + u32::from(severity);
    // The text is UTF-8, and says so (§6.4).
    format!("<{priority}>1 {time} {host} twinpost - {kind} [{SD_ID}{data}] \u{feff}{}", view::text(line, time))
}

/// Values of parameters (§6.3.3); control characters are no part of a line.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' | ']' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// RFC 3339 in UTC of Unix milliseconds.
#[must_use]
pub(crate) fn rfc3339(at_ms: u64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    at.ok().and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok()).unwrap_or_default()
}

/// A connection to where records go.
type Connection = Box<dyn AsyncWrite + Send + Unpin>;

fn tls_config(body: &SyslogBody) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    match &body.ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| format!("the CA is no certificate: {error}"))?;
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

async fn connect(body: &SyslogBody) -> Result<Connection, String> {
    let dial = tokio::time::timeout(TIME_MAX, TcpStream::connect(&body.server)).await;
    let stream = dial.map_err(|_| "no connection in time".to_owned())?.map_err(|error| error.to_string())?;
    if !body.tls {
        return Ok(Box::new(stream));
    }
    let host = body.server.rsplit_once(':').map_or(body.server.as_str(), |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config(body)?));
    let stream = tokio::time::timeout(TIME_MAX, connector.connect(name, stream)).await;
    Ok(Box::new(stream.map_err(|_| "no TLS in time".to_owned())?.map_err(|error| error.to_string())?))
}

/// Forwards to one destination, a part at a time.
pub(crate) struct Forwarder {
    body: SyslogBody,
    connection: Option<Connection>,
}

impl Forwarder {
    pub(crate) fn new(body: SyslogBody) -> Self {
        Self { body, connection: None }
    }

    pub(crate) const fn body(&self) -> &SyslogBody {
        &self.body
    }

    fn cursor(&self) -> String {
        format!("syslog/{}", self.body.server)
    }

    /// Sends the next part; true when there is more. It begins with what comes after the destination was first named.
    ///
    /// # Errors
    /// In words; later again.
    pub(crate) async fn forward(&mut self, book: &Arc<Book>, host: impl Fn(u32) -> String) -> Result<bool, String> {
        let (reader, name) = (Arc::clone(book), self.cursor());
        let read = tokio::task::spawn_blocking(move || reader.waiting_for(&name, AT_ONCE));
        let (_, records) = read.await.map_err(|error| error.to_string())??;
        let Some(last) = records.last().map(|record| record.arrival) else { return Ok(false) };
        let mut bytes = Vec::new();
        for line in records.iter().map(view::line).filter(|line| self.goes(line)) {
            let number = |name: &str| line.get(name).and_then(Value::as_u64).unwrap_or_default();
            let node = u32::try_from(number("node")).unwrap_or_default();
            let message = message(&line, &rfc3339(number("at_ms")), &host(node));
            bytes.extend_from_slice(format!("{} {message}", message.len()).as_bytes());
        }
        if !bytes.is_empty() {
            self.send(&bytes).await?;
        }
        let (writer, name) = (Arc::clone(book), self.cursor());
        let written = tokio::task::spawn_blocking(move || writer.set_cursor(&name, Some(last + 1)));
        written.await.map_err(|error| error.to_string())??;
        Ok(true)
    }

    fn goes(&self, line: &Line) -> bool {
        let kind = line.get("kind").and_then(Value::as_str).unwrap_or_default();
        if self.body.kinds.is_empty() { kind != "protocol" } else { self.body.kinds.iter().any(|k| k == kind) }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.connection.is_none() {
            self.connection = Some(connect(&self.body).await?);
        }
        let Some(connection) = &mut self.connection else { return Err("no connection".to_owned()) };
        let sent = tokio::time::timeout(TIME_MAX, async {
            connection.write_all(bytes).await?;
            connection.flush().await
        });
        let result = sent.await.map_err(|_| "not taken in time".to_owned()).and_then(|r| r.map_err(|e| e.to_string()));
        if result.is_err() {
            self.connection = None;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pairs: &[(&str, Value)]) -> Line {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_message_is_one_of_rfc_5424() {
        let record = line(&[
            ("at_ms", 0.into()),
            ("node", 2.into()),
            ("number", 7.into()),
            ("kind", "mail".into()),
            ("event", "accept".into()),
            ("subject", "a \"quoted\" ] \\ \r\n line".into()),
        ]);
        let message = message(&record, "1970-01-01T00:00:00.000Z", "mail 1");
        let (head, text) = message.split_once('\u{feff}').expect("text in UTF-8");
        assert_eq!(
            head,
            "<22>1 1970-01-01T00:00:00.000Z mail1 twinpost - mail [twinpost@32473 event=\"accept\" node=\"2\" number=\"7\" \
             subject=\"a \\\"quoted\\\" \\] \\\\    line\"] "
        );
        assert!(text.starts_with("1970-01-01T00:00:00.000Z node2 mail event=accept"));
        assert!(!message.contains(['\r', '\n']));
    }

    #[test]
    fn what_failed_is_a_warning_and_logins_are_of_authpriv() {
        let priority = |pairs: &[(&str, Value)]| {
            let message = message(&line(pairs), "-", "");
            message.split_once('>').expect("a priority").0.to_owned()
        };
        assert_eq!(priority(&[("kind", "mail".into()), ("event", "bounce".into())]), "<20");
        assert_eq!(priority(&[("kind", "access".into()), ("success", true.into())]), "<86");
        assert_eq!(priority(&[("kind", "access".into()), ("success", false.into())]), "<84");
        assert_eq!(priority(&[("kind", "admin".into())]), "<85");
    }
}
