//! Limits and bad input at the doors, over sockets: too many connections and recipients, wrong TLS, wrong passwords.

mod fakes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fakes::House;
use frontend::config::FrontendConfig;
use frontend::{Frontend, FrontendHandle};
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

/// Counters of this thread, by name and labels.
#[derive(Clone, Default)]
struct Counters(Arc<Mutex<BTreeMap<String, u64>>>);

struct One(Counters, String);

impl CounterFn for One {
    fn increment(&self, value: u64) {
        *self.0.0.lock().expect("lock").entry(self.1.clone()).or_default() += value;
    }
    fn absolute(&self, value: u64) {
        self.0.0.lock().expect("lock").insert(self.1.clone(), value);
    }
}

impl Counters {
    fn get(&self, name: &str) -> u64 {
        self.0.lock().expect("lock").get(name).copied().unwrap_or(0)
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels = key.labels().map(|label| format!(" {}", label.value()));
        Counter::from_arc(Arc::new(One(self.clone(), format!("{}{}", key.name(), labels.collect::<String>()))))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

struct Doors {
    handle: FrontendHandle,
    _folder: tempfile::TempDir,
}

fn start(change: impl FnOnce(&mut FrontendConfig)) -> Doors {
    let (house, folder) = (House::new(), tempfile::tempdir().expect("folder"));
    let mut settings = fakes::settings(folder.path());
    change(&mut settings);
    let handle = Frontend::start(settings, house.ports(), house.administration()).expect("start");
    Doors { handle, _folder: folder }
}

struct Client(BufReader<TcpStream>);

impl Doors {
    async fn connect(&self, service: &str) -> Client {
        Client(BufReader::new(TcpStream::connect(self.handle.addresses()[service]).await.expect("connect")))
    }
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).await.expect("send");
    }
    /// The next line, or what there was before the end.
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_until(b'\n', &mut line)).await.expect("in time");
        // A reset is an end too.
        let _ = read;
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }
    async fn expect(&mut self, begin: &str) {
        let line = self.line().await;
        assert!(line.starts_with(begin), "{line:?}, not {begin:?}");
    }
}

#[tokio::test]
async fn too_many_connections_are_told_in_every_protocol() {
    let counters = Counters::default();
    let _recording = metrics::set_default_local_recorder(&counters);
    let doors = start(|settings| settings.limits.connections_max = 1);
    for (service, greeting, full) in [
        ("smtp", "220 ", "421 4.7.0"),
        ("submission", "220 ", "421 4.7.0"),
        ("imap", "* OK", "* BYE [LIMIT]"),
        ("pop3", "+OK", "-ERR [SYS/TEMP]"),
    ] {
        let mut first = doors.connect(service).await;
        first.expect(greeting).await;
        let mut second = doors.connect(service).await;
        second.expect(full).await;
        assert_eq!(second.line().await, "");
        assert_eq!(counters.get(&format!("twinpost_connections_refused_total {service}")), 1);
    }
}

#[tokio::test]
async fn who_speaks_no_tls_is_dropped_and_counted_and_others_go_on() {
    let counters = Counters::default();
    let _recording = metrics::set_default_local_recorder(&counters);
    let doors = start(|_| {});
    for (service, name) in [("submissions", "submission"), ("imaps", "imap"), ("pop3s", "pop3")] {
        for garbage in ["EHLO laptop\r\n", "\u{16}\u{3}\u{1}\u{7f}garbage that is no handshake\r\n"] {
            let mut client = doors.connect(service).await;
            client.send(garbage).await;
            // At most an alert, then the end; never a word of the protocol.
            while !client.line().await.is_empty() {}
        }
        assert_eq!(counters.get(&format!("twinpost_tls_failures_total {name}")), 2, "{name}");
    }
    for (service, begin, name) in [
        ("submission", "EHLO c\r\nSTARTTLS\r\n", "submission"),
        ("imap", "a STARTTLS\r\n", "imap"),
        ("pop3", "STLS\r\n", "pop3"),
    ] {
        let mut client = doors.connect(service).await;
        client.send(begin).await;
        loop {
            let line = client.line().await;
            if line.starts_with("220 2.0.0") || line.starts_with("a OK") || line.starts_with("+OK begin") {
                break;
            }
            assert!(!line.is_empty(), "{service}");
        }
        client.send("in the clear\r\n").await;
        while !client.line().await.is_empty() {}
        assert_eq!(counters.get(&format!("twinpost_tls_failures_total {name}")), 3, "{name}");
        let mut next = doors.connect(service).await;
        assert_ne!(next.line().await, "", "{service} goes on");
    }
}

#[tokio::test]
async fn wrong_passwords_are_delayed_and_counted_in_every_protocol() {
    let counters = Counters::default();
    let _recording = metrics::set_default_local_recorder(&counters);
    for (service, begin, lines, refused) in [
        ("submission", "EHLO c\r\nAUTH PLAIN AHUxAHdyb25n\r\n", 20, "535 5.7.8"),
        ("imap", "a LOGIN u1 wrong\r\n", 2, "a NO [AUTHENTICATIONFAILED]"),
        ("pop3", "USER u1\r\nPASS wrong\r\n", 3, "-ERR [AUTH]"),
    ] {
        let doors = start(|_| {});
        let mut client = doors.connect(service).await;
        let begun = Instant::now();
        client.send(begin).await;
        let mut heard = Vec::new();
        while heard.len() < lines && !heard.last().is_some_and(|line: &String| line.starts_with(refused)) {
            heard.push(client.line().await);
        }
        assert!(heard.last().is_some_and(|line| line.starts_with(refused)), "{heard:?}");
        assert!(begun.elapsed() >= Duration::from_millis(500), "{service} {:?}", begun.elapsed());
        assert_eq!(counters.get(&format!("twinpost_logins_total {service} refused")), 1);
    }
}
