//! The administrator's API as a client: cluster status, tokens, domains, accounts, health.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// What `GET /api/v1/cluster` says, as far as looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Id of the node that answered.
    pub node: u32,
    /// joined, solo, fenced, syncing, healing, waiting.
    pub mode: String,
    /// Epoch as `number.author`.
    pub epoch: String,
    /// joint, reduced, solo, heal.
    pub epoch_kind: String,
    /// In-sync set.
    pub in_sync: Vec<u32>,
    /// Home.
    pub home: u32,
    /// Who holds the cluster address.
    pub address_holder: Option<u32>,
    /// Archived branches.
    pub branches: Vec<String>,
    /// Things an operator must know.
    pub warnings: Vec<String>,
}

impl Status {
    /// Whether `nodes` nodes are in sync in a joint epoch.
    #[must_use]
    pub fn is_joint(&self, nodes: usize) -> bool {
        self.epoch_kind == "joint" && self.in_sync.len() == nodes
    }
}

/// The API of one node.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// A client for the API at `peer` that trusts `ca_file` only.
    ///
    /// # Errors
    /// The CA file cannot be read.
    pub fn new(peer: SocketAddr, ca_file: &Path, token: &str) -> anyhow::Result<Self> {
        // The process may have a provider already; either is ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pem = std::fs::read(ca_file).with_context(|| ca_file.display().to_string())?;
        let client = reqwest::Client::builder()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?)
            .no_proxy()
            .timeout(REQUEST_LIMIT)
            .build()?;
        Ok(Self { client, base: format!("https://{peer}"), token: token.trim().to_owned() })
    }

    /// GET; `path` from the root.
    ///
    /// # Errors
    /// No answer, or one other than 2xx, with its body.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        text(path, request.send().await?).await
    }

    /// POST of a JSON document.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<String> {
        let request = self.client.post(format!("{}{path}", self.base)).bearer_auth(&self.token).json(body);
        text(path, request.send().await?).await
    }

    /// PUT of a JSON document.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<String> {
        let request = self.client.put(format!("{}{path}", self.base)).bearer_auth(&self.token).json(body);
        text(path, request.send().await?).await
    }

    /// The cluster as this node sees it.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn status(&self) -> anyhow::Result<Status> {
        Ok(serde_json::from_str(&self.get("/api/v1/cluster").await?)?)
    }

    /// Whether the node says it serves clients.
    pub async fn is_ready(&self) -> bool {
        self.get("/health/ready").await.is_ok()
    }

    /// A one-use token to join.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn join_token(&self) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Token {
            token: String,
        }
        let answer = self.post("/api/v1/cluster/tokens", &json!({})).await?;
        Ok(serde_json::from_str::<Token>(&answer)?.token)
    }

    /// Creates the default domain.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn add_domain(&self, name: &str) -> anyhow::Result<()> {
        self.post("/api/v1/domains", &json!({"name": name, "default": true})).await.map(drop)
    }

    /// Creates a local account.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn add_account(&self, address: &str, password: &str) -> anyhow::Result<()> {
        self.post("/api/v1/accounts", &json!({"address": address, "password": password})).await.map(drop)
    }
}

async fn text(path: &str, answer: reqwest::Response) -> anyhow::Result<String> {
    let status = answer.status();
    let body = answer.text().await?;
    if !status.is_success() {
        bail!("{path}: {status}: {body}");
    }
    Ok(body)
}
