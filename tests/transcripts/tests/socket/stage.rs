//! A server behind sockets as the stage of a transcript.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use testkit::transcript::{Event, Stage};

/// How long a line of the server may take; more than the longest delay of a wrong password.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long silence is listened to. Nothing can be awaited that does not come.
const SILENCE: Duration = Duration::from_millis(30);

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

struct Client {
    wire: Option<Wire>,
    unread: Vec<u8>,
    ended: bool,
}

/// The server and who is connected to it.
pub struct Sockets {
    address: SocketAddr,
    implicit_tls: bool,
    tls: Arc<ClientConfig>,
    clients: BTreeMap<usize, Client>,
    /// Connections whose transcript came to a step that a socket cannot give: time, or a node that stops for one
    /// connection only.
    pub cut: BTreeSet<usize>,
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }
    fn into_tls(self, config: Arc<ClientConfig>) -> io::Result<Self> {
        let Self::Plain(mut socket) = self else { return Err(io::Error::other("TLS is on already")) };
        let name = "localhost".try_into().map_err(io::Error::other)?;
        let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }
}

impl Client {
    /// Reads once for at most `patience`; false when nothing came.
    fn hear(&mut self, patience: Duration) -> io::Result<bool> {
        let Some(wire) = self.wire.as_mut().filter(|_| !self.ended) else { return Ok(false) };
        wire.socket().set_read_timeout(Some(patience))?;
        let mut buffer = [0; 8192];
        match wire.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(false),
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => self.ended = true,
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

impl Sockets {
    /// Nobody is connected yet.
    pub fn new(address: SocketAddr, implicit_tls: bool, tls: Arc<ClientConfig>) -> Self {
        Self { address, implicit_tls, tls, clients: BTreeMap::new(), cut: BTreeSet::new() }
    }
    fn client(&mut self, number: usize) -> Result<&mut Client, String> {
        self.clients.get_mut(&number).ok_or_else(|| format!("no connection {number}"))
    }
}

impl Stage for Sockets {
    fn plays(&self, number: usize) -> bool {
        !self.cut.contains(&number)
    }

    fn open(&mut self, number: usize) -> Result<(), String> {
        let socket = TcpStream::connect(self.address).map_err(|e| e.to_string())?;
        socket.set_nodelay(true).and_then(|()| socket.set_write_timeout(Some(PATIENCE))).map_err(|e| e.to_string())?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
        let mut wire = Wire::Plain(socket);
        if self.implicit_tls {
            wire = wire.into_tls(self.tls.clone()).map_err(|e| format!("handshake: {e}"))?;
        }
        self.clients.insert(number, Client { wire: Some(wire), unread: Vec::new(), ended: false });
        Ok(())
    }

    fn send(&mut self, number: usize, bytes: &[u8]) -> Result<(), String> {
        let Some(wire) = &mut self.client(number)?.wire else { return Err("no wire".to_owned()) };
        wire.write(bytes).map_err(|e| format!("send: {e}"))
    }

    fn next_line(&mut self, number: usize) -> Result<String, String> {
        let client = self.client(number)?;
        loop {
            if let Some(end) = client.unread.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = client.unread.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if !client.hear(PATIENCE).map_err(|e| e.to_string())? {
                let why = if client.ended { ", the connection is closed" } else { "" };
                return Err(format!("nothing (more) was said{why}"));
            }
        }
    }

    fn silent(&mut self, number: usize) -> Result<(), String> {
        let Ok(client) = self.client(number) else { return Ok(()) };
        if client.unread.is_empty() {
            client.hear(SILENCE).map_err(|e| e.to_string())?;
        }
        if client.unread.is_empty() {
            return Ok(());
        }
        Err(format!("connection {number} said unexpectedly: {}", String::from_utf8_lossy(&client.unread)))
    }

    fn closed(&mut self, number: usize) -> Result<(), String> {
        let client = self.client(number)?;
        while client.unread.is_empty() && client.hear(PATIENCE).map_err(|e| e.to_string())? {}
        if !client.unread.is_empty() {
            return Err(format!("connection {number} said: {}", String::from_utf8_lossy(&client.unread)));
        }
        if client.ended { Ok(()) } else { Err("the connection is still open".to_owned()) }
    }

    /// Nobody's clock can be moved here: every connection that is open ends its part.
    fn advance(&mut self, _: u64) -> Result<(), String> {
        let open = self.clients.iter().filter(|(_, client)| !client.ended).map(|(number, _)| *number);
        self.cut.extend(open.collect::<Vec<_>>());
        self.clients.retain(|number, _| !self.cut.contains(number));
        Ok(())
    }

    fn event(&mut self, number: usize, event: Event) -> Result<(), String> {
        let tls = self.tls.clone();
        let client = self.client(number)?;
        match event {
            // What changed is told by the accounts themselves.
            Event::Change => {}
            Event::End => {
                let wire = client.wire.as_ref().ok_or("no wire")?;
                wire.socket().shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
            }
            Event::Shutdown => {
                self.clients.remove(&number);
                self.cut.insert(number);
            }
            Event::Tls => {
                self.silent(number)?;
                let client = self.client(number)?;
                let wire = client.wire.take().ok_or("no wire")?;
                wire.socket().set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
                client.wire = Some(wire.into_tls(tls).map_err(|e| format!("handshake: {e}"))?);
            }
        }
        Ok(())
    }
}
