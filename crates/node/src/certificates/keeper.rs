//! Does what must be done about this node's certificates, and says what it did and why it could not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use control::Control;
use ports::config::{Config as _, ConfigError};
use ports::journal::{EventKind, Journal};
use topology::{CERTIFICATES_SETTING, CertificatesBody, ConfigOp, DocumentKind, Rotation};
use transport::ca::{self, CertificateFacts, Issued};
use transport::{TlsPems, Transport};
use vocab::NodeId;

use super::peer::{Ask, Described, ask};
use super::{disk, due};
use crate::config::NodeConfig;
use crate::files::{self, DataDir};
use crate::init;

/// How often certificates are looked at; also whenever the settings change.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pause between two steps of an exchange that go on at once.
const STEP_PAUSE: Duration = Duration::from_millis(100);

/// Keeps the certificates of one node.
pub(crate) struct Keeper {
    pub(super) config: NodeConfig,
    pub(super) data: DataDir,
    pub(super) node: NodeId,
    /// Stores mail, so has the CA's key; false: a witness, which asks.
    pub(super) stores_mail: bool,
    pub(super) control: Arc<Control>,
    pub(super) transport: Arc<Transport>,
    pub(super) journal: Option<Arc<dyn Journal>>,
    /// One change of the files at a time.
    turn: tokio::sync::Mutex<()>,
    /// What the transport uses.
    in_use: Mutex<Option<TlsPems>>,
    fault: Mutex<Option<String>>,
}

impl Keeper {
    pub(crate) fn new(
        (config, data): (&NodeConfig, &DataDir),
        (node, stores_mail): (NodeId, bool),
        (control, transport): (&Arc<Control>, &Arc<Transport>),
        journal: Option<Arc<dyn Journal>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            data: data.clone(),
            node,
            stores_mail,
            control: control.clone(),
            transport: transport.clone(),
            journal,
            turn: tokio::sync::Mutex::default(),
            in_use: Mutex::new(disk::node_tls(data).ok()),
            fault: Mutex::default(),
        })
    }

    /// Looks for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut revision = self.control.watch();
        loop {
            let pause = match self.look().await {
                Ok(true) => STEP_PAUSE,
                Ok(false) => LOOK_EVERY,
                Err(error) => {
                    self.set_fault(Some(format!("{error:#}")));
                    LOOK_EVERY
                }
            };
            self.measure();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = revision.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Does what is to be done now. True: the exchange of the CA went a step further here.
    async fn look(&self) -> anyhow::Result<bool> {
        let state = self.control.current();
        if state.cluster_id.is_empty() {
            return Ok(false);
        }
        let (revision, body) = state.certificates();
        let mut moved = false;
        if let Some(rotation) = &body.rotation {
            let turn = self.turn.lock().await;
            self.fulfil(rotation).await.context("the exchange of the CA")?;
            drop(turn);
            if let Some(next) = body.confirm(self.node, &state.members) {
                match self.put(revision, &next).await {
                    Ok(()) => self.note_step(rotation, &next),
                    // Another node confirmed at the same time.
                    Err(ConfigError::Conflict(_)) => {}
                    Err(error) => return Err(error).context("confirm a step of the exchange of the CA"),
                }
                moved = true;
            }
        }
        let turn = self.turn.lock().await;
        self.renew_due().await?;
        drop(turn);
        self.set_fault(None);
        Ok(moved)
    }

    fn note_step(&self, before: &Rotation, after: &CertificatesBody) {
        let done = format!("this node has done the step \"{}\" of the exchange of the CA", before.step);
        match &after.rotation {
            None => self.note(&format!("{done}; with it the exchange is finished")),
            Some(now) if now.step != before.step => self.note(&format!("{done}; the step \"{}\" begins", now.step)),
            Some(_) => self.note(&done),
        }
    }

    /// Keys, trust and certificates as this step wants them; changes nothing that is so already.
    async fn fulfil(&self, rotation: &Rotation) -> anyhow::Result<()> {
        let duty = rotation.duty();
        if self.stores_mail {
            self.have_keys(rotation.by, &duty.keys).await?;
        }
        disk::arrange_trust(&self.data, &duty.trusted)?;
        if duty.reissue {
            let issuing = disk::issuing(&self.data)?;
            let issuer = CertificateFacts::read(&issuing)?;
            if !disk::facts(&self.data.node_certificate())?.names_issuer(&issuer) {
                self.renew_node(&issuing, "the CA is exchanged").await?;
            }
            if self.makes_service() && !disk::facts(&self.data.service_certificate())?.names_issuer(&issuer) {
                self.renew_service("the CA is exchanged")?;
                // The step is done when clients are shown it: the old CA is dropped after that.
                tokio::time::sleep(frontend::tls::RELOADED_WITHIN).await;
            }
        }
        self.use_files()
    }

    /// Whether the certificate for clients is made here.
    fn makes_service(&self) -> bool {
        self.stores_mail && self.config.tls.is_none()
    }

    async fn have_keys(&self, by: NodeId, cas: &[&str]) -> anyhow::Result<()> {
        let mut reasons = Vec::new();
        let Some(missing) = disk::arrange_keys(&self.data, cas, None)? else { return Ok(()) };
        for holder in self.others(by) {
            match ask::<String>(&*self.transport, holder, &Ask::Key { ca: missing.to_owned() }).await {
                Ok(key) if disk::arrange_keys(&self.data, cas, Some(&key))?.is_none() => return Ok(()),
                Ok(_) => reasons.push(format!("node {} gave another key", holder.0)),
                Err(error) => reasons.push(format!("node {}: {error}", holder.0)),
            }
        }
        anyhow::bail!("nobody gives the key of the new CA: {}", reasons.join("; "))
    }

    /// Other members that store mail, this one first.
    fn others(&self, first: NodeId) -> Vec<NodeId> {
        let state = self.control.current();
        let others = state.members.values().filter(|member| member.data && member.id != self.node);
        let mut others: Vec<NodeId> = others.map(|member| member.id).collect();
        others.sort_by_key(|node| (*node != first, *node));
        others
    }

    async fn renew_due(&self) -> anyhow::Result<()> {
        let issuing = disk::issuing(&self.data)?;
        let (now, life) = (disk::now_s(), self.config.certificate_life_s);
        let ca_ends = CertificateFacts::read(&issuing)?.ends;
        let is_due = |ends| due::is_due(now, ends, life, ca_ends);
        let left = |ends: u64| format!("{} s of its life are left", ends.saturating_sub(now));
        let node = disk::facts(&self.data.node_certificate())?.ends;
        if is_due(node) {
            self.renew_node(&issuing, &left(node)).await.context("renew the certificate of this node")?;
        }
        if self.makes_service() {
            let service = disk::facts(&self.data.service_certificate())?.ends;
            if is_due(service) {
                self.renew_service(&left(service)).context("renew the certificate for clients")?;
            }
        }
        self.use_files()
    }

    /// New certificates now, by order.
    ///
    /// # Errors
    /// Why there are none; the old ones stay.
    pub(super) async fn renew(&self, why: &str) -> anyhow::Result<()> {
        let _turn = self.turn.lock().await;
        self.renew_node(&disk::issuing(&self.data)?, why).await?;
        if self.makes_service() {
            self.renew_service(why)?;
        }
        self.use_files()?;
        self.measure();
        Ok(())
    }

    /// A certificate by this CA with a key of its own: made here, or signed by whoever has the CA's key.
    async fn renew_node(&self, issuing: &str, why: &str) -> anyhow::Result<()> {
        let Issued { certificate, key } = match self.stores_mail {
            true => {
                let config = &self.config;
                let names = init::node_names(&config.name, &config.hostname, &config.address.to_string());
                disk::authority(config, &self.data)?.issue_node(self.node, &names)?
            }
            false => self.ask_for_node(issuing).await?,
        };
        let trusted = files::read_text(&self.data.ca())?;
        let pems = TlsPems { ca: trusted, certificate: certificate.clone(), key: key.clone() };
        Transport::check_tls(&pems).context("the new certificate cannot be used")?;
        disk::write_node(&self.data, &certificate, &key)?;
        self.note(&format!("this node has a new certificate: {why}"));
        Ok(())
    }

    async fn ask_for_node(&self, issuing: &str) -> anyhow::Result<Issued> {
        let own = ca::request_node()?;
        let mut reasons = Vec::new();
        for issuer in self.others(self.node) {
            let sign = Ask::Sign { request: own.request.clone(), ca: issuing.to_owned() };
            match ask::<String>(&*self.transport, issuer, &sign).await {
                Ok(certificate) => return Ok(Issued { certificate, key: own.key }),
                Err(error) => reasons.push(format!("node {}: {error}", issuer.0)),
            }
        }
        anyhow::bail!("nobody signs it: {}", reasons.join("; "))
    }

    fn renew_service(&self, why: &str) -> anyhow::Result<()> {
        disk::make_service(&self.config, &self.data, &self.control.current())?;
        self.note(&format!("this node has a new certificate for clients: {why}"));
        Ok(())
    }

    /// The transport uses what lies in the files.
    fn use_files(&self) -> anyhow::Result<()> {
        let pems = disk::node_tls(&self.data)?;
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if in_use.as_ref() != Some(&pems) {
            self.transport.set_tls(pems.clone())?;
            *in_use = Some(pems);
        }
        Ok(())
    }

    /// Writes the setting, if nobody did meanwhile.
    pub(super) async fn put(&self, revision: u64, body: &CertificatesBody) -> Result<(), ConfigError> {
        let body = serde_json::to_value(body).map_err(|error| ConfigError::Unknown(error.to_string()))?;
        let name = CERTIFICATES_SETTING.to_owned();
        let op = ConfigOp::put(DocumentKind::Setting, name, body, Some(revision));
        self.control.propose(op).await.map(drop)
    }

    /// Which certificates this node has.
    pub(super) fn describe(&self) -> Described {
        let hash = |pem: &str| ca::ca_hash(pem).unwrap_or_default();
        let trusted = files::read_text(&self.data.ca()).ok().and_then(|text| ca::split(&text).ok()).unwrap_or_default();
        let node = disk::facts(&self.data.node_certificate()).ok();
        let by = |one: &&String| {
            let facts = CertificateFacts::read(one).ok();
            facts.zip(node.as_ref()).is_some_and(|(ca, node)| node.names_issuer(&ca))
        };
        let clients = match &self.config.tls {
            Some(own) => disk::facts(&own.certificate).ok(),
            None => disk::facts(&self.data.service_certificate()).ok(),
        };
        let ends = |pem: &String| CertificateFacts::read(pem).map_or(0, |facts| facts.ends);
        Described {
            ca: trusted.iter().find(by).map(|ca| hash(ca)).unwrap_or_default(),
            ends: node.as_ref().map_or(0, |facts| facts.ends),
            serial: node.map(|facts| facts.serial).unwrap_or_default(),
            clients_end: clients.filter(|_| self.stores_mail).map(|facts| facts.ends),
            clients_own: self.config.tls.is_some(),
            trusts: trusted.iter().map(|ca| (hash(ca), ends(ca))).collect(),
            fault: self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Ends of certificates as metrics.
    fn measure(&self) {
        let now = self.describe();
        let node = self.node.0.to_string();
        let ends = [("node", Some(now.ends)), ("clients", now.clients_end), ("ca", now.trusts.first().map(|ca| ca.1))];
        for (name, end) in ends.into_iter().filter_map(|(name, end)| Some((name, end?))) {
            let gauge = metrics::gauge!(
                "twinpost_certificate_expiry_timestamp_seconds", "node" => node.clone(), "certificate" => name
            );
            // Exact up to 2^53 seconds.
            #[allow(clippy::cast_precision_loss)]
            gauge.set(end as f64);
        }
    }

    fn set_fault(&self, now: Option<String>) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = now.as_ref().filter(|text| fault.as_ref() != Some(*text)) {
            tracing::warn!(reason = %text, "certificates of this node are not as they must be; it is tried again");
        }
        *fault = now;
    }

    /// For the log and for `twinpost cluster events`.
    pub(super) fn note(&self, text: &str) {
        tracing::info!("{text}");
        if let Some(journal) = &self.journal {
            journal.note(EventKind::Certificate, text);
        }
    }
}
