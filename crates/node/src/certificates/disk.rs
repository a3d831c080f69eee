//! Certificates and keys in the data folder. Certificate and key of one purpose are one file, so that a crash never leaves
//! a pair that does not belong together; the key lies beside it too, for programs before this one.

use anyhow::Context as _;
use topology::ClusterState;
use transport::TlsPems;
use transport::ca::{self, Authority, CertificateFacts, Issued};

use crate::clock::wall_ms;
use crate::config::NodeConfig;
use crate::files::{self, DataDir};
use crate::{cluster_address, init};

const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";

/// Now (Unix seconds).
pub(crate) fn now_s() -> u64 {
    wall_ms() / 1000
}

/// When a certificate made now ends (Unix seconds), if its CA does not end before.
pub(crate) fn ends(config: &NodeConfig) -> u64 {
    now_s().saturating_add(config.certificate_life_s)
}

/// Certificates of this node towards the others.
///
/// # Errors
/// When a file is missing.
pub fn node_tls(data: &DataDir) -> anyhow::Result<TlsPems> {
    let text = files::read_text(&data.node_certificate())?;
    let (certificate, key) = match text.find(KEY_BEGINS) {
        Some(at) => {
            let (certificate, key) = text.split_at(at);
            (certificate.to_owned(), key.to_owned())
        }
        None => (text, files::read_text(&data.node_key())?),
    };
    Ok(TlsPems { ca: files::read_text(&data.ca())?, certificate, key })
}

/// Writes this node's certificate towards the others.
///
/// # Errors
/// With the file's name.
pub(crate) fn write_node(data: &DataDir, certificate: &str, key: &str) -> anyhow::Result<()> {
    files::write_private(&data.node_certificate(), joined(certificate, key).as_bytes())?;
    files::write_private(&data.node_key(), key.as_bytes())
}

/// Writes the certificate for clients.
///
/// # Errors
/// With the file's name.
pub(crate) fn write_service(data: &DataDir, certificate: &str, key: &str) -> anyhow::Result<()> {
    files::write_private(&data.service_certificate(), joined(certificate, key).as_bytes())?;
    files::write_private(&data.service_key(), key.as_bytes())
}

fn joined(certificate: &str, key: &str) -> String {
    format!("{}\n{key}", certificate.trim_end())
}

/// Where the key of the certificate for clients is read: beside the certificate since it is written there.
pub(crate) fn service_key(data: &DataDir) -> std::path::PathBuf {
    let within = files::read_text(&data.service_certificate()).is_ok_and(|text| text.contains(KEY_BEGINS));
    if within { data.service_certificate() } else { data.service_key() }
}

/// The CA that issues here: the trusted one whose key this node has.
///
/// # Errors
/// This node has none, or not of a CA it trusts.
pub(crate) fn authority(config: &NodeConfig, data: &DataDir) -> anyhow::Result<Authority> {
    let (trusted, key) = (files::read_text(&data.ca())?, files::read_text(&data.ca_key())?);
    Ok(Authority::load(&trusted, &key).context("read the cluster's CA")?.until(ends(config)))
}

/// The CA that issues: its certificate alone (PEM). On a witness, which has no key, the one that stands first.
///
/// # Errors
/// The files cannot be read.
pub(crate) fn issuing(data: &DataDir) -> anyhow::Result<String> {
    let trusted = files::read_text(&data.ca())?;
    if data.ca_key().exists() {
        return Ok(Authority::load(&trusted, &files::read_text(&data.ca_key())?)?.certificate().to_owned());
    }
    ca::split(&trusted)?.into_iter().next().context("the file of trusted CAs is empty")
}

/// Makes the certificate for clients of this node anew.
///
/// # Errors
/// The CA cannot be read or a file not written.
pub(crate) fn make_service(config: &NodeConfig, data: &DataDir, state: &ClusterState) -> anyhow::Result<()> {
    let mut all = cluster_address::service_names(state);
    all.extend(init::node_names(&config.name, &config.hostname, &config.address.to_string()));
    let service = authority(config, data)?.issue_service(&init::dedup(all));
    let Issued { certificate, key } = service.context("issue the certificate for clients")?;
    write_service(data, &certificate, &key)
}

/// What the first certificate in a file says.
///
/// # Errors
/// There is none.
pub(crate) fn facts(path: &std::path::Path) -> anyhow::Result<CertificateFacts> {
    CertificateFacts::read(&files::read_text(path)?).with_context(|| format!("understand {}", path.display()))
}

/// Has the keys of exactly these CAs, the one that issues first; `found`: one more key that may be among them. A CA whose
/// key is not here is given back, and nothing was changed.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn arrange_keys<'a>(
    data: &DataDir,
    cas: &[&'a str],
    found: Option<&str>,
) -> anyhow::Result<Option<&'a str>> {
    let (issuing, next) = (data.ca_key(), data.ca_next_key());
    let here: Vec<String> = [&issuing, &next].into_iter().filter_map(|path| files::read_text(path).ok()).collect();
    let known: Vec<&str> = here.iter().map(String::as_str).chain(found).collect();
    let mut keys = Vec::new();
    for ca in cas {
        match known.iter().find(|key| Authority::load(ca, key).is_ok()) {
            Some(key) => keys.push(*key),
            None => return Ok(Some(ca)),
        }
    }
    let mut keys = keys.into_iter();
    // The other one first: whatever happens between, no key that is needed is without a file.
    let (first, second) = (keys.next(), keys.next());
    if let Some(key) = second {
        put(&next, key)?;
    }
    if let Some(key) = first {
        put(&issuing, key)?;
    }
    if second.is_none() && next.exists() {
        std::fs::remove_file(&next).with_context(|| format!("remove {}", next.display()))?;
    }
    Ok(None)
}

/// The key of this CA, if it is here.
pub(crate) fn key_of(data: &DataDir, ca: &str) -> Option<String> {
    let keys = [data.ca_key(), data.ca_next_key()];
    keys.iter().filter_map(|path| files::read_text(path).ok()).find(|key| Authority::load(ca, key).is_ok())
}

/// Writes a file unless it holds this already.
fn put(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    if files::read_text(path).is_ok_and(|old| old == text) {
        Ok(())
    } else {
        files::write_private(path, text.as_bytes())
    }
}

/// Trusts exactly these CAs, in this order.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn arrange_trust(data: &DataDir, cas: &[&str]) -> anyhow::Result<()> {
    let text: String = cas.iter().map(|ca| format!("{}\n", ca.trim_end())).collect();
    put(&data.ca(), &text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::tempdir().expect("folder");
        let data = DataDir(folder.path().join("data"));
        data.create().expect("made");
        (folder, data)
    }

    #[test]
    fn certificate_and_key_are_one_file_and_older_folders_are_read() {
        let (_folder, data) = folder();
        let ca = Authority::create("test", u64::MAX).expect("CA");
        let (one, two) = (ca.issue_node(vocab::NodeId(1), &[]).expect("one"), ca.issue_node(vocab::NodeId(1), &[]));
        let two = two.expect("two");
        arrange_trust(&data, &[ca.certificate()]).expect("written");
        // As an older program wrote it.
        files::write_private(&data.node_certificate(), one.certificate.as_bytes()).expect("written");
        files::write_private(&data.node_key(), one.key.as_bytes()).expect("written");
        assert_eq!(node_tls(&data).expect("read").key, one.key);
        // A crash before the second file leaves a pair that fits.
        write_node(&data, &two.certificate, &two.key).expect("written");
        files::write_private(&data.node_key(), one.key.as_bytes()).expect("written");
        let tls = node_tls(&data).expect("read");
        assert_eq!((tls.key, tls.certificate.trim_end()), (two.key, two.certificate.trim_end()));
        let mode = std::fs::metadata(data.node_certificate()).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn keys_are_arranged_at_every_step_and_a_missing_one_is_named() {
        let (_folder, data) = folder();
        let (old, new) = (Authority::create("test", u64::MAX).expect("CA"), Authority::create("test", u64::MAX));
        let new = new.expect("CA");
        let (old_ca, new_ca) = (old.certificate(), new.certificate());
        files::write_private(&data.ca_key(), old.key().as_bytes()).expect("written");
        let read = |path: std::path::PathBuf| files::read_text(&path).ok();
        let missing = arrange_keys(&data, &[old_ca, new_ca], None).expect("looked");
        assert_eq!((missing, read(data.ca_next_key())), (Some(new_ca), None));
        let given = arrange_keys(&data, &[old_ca, new_ca], Some(new.key())).expect("written");
        assert_eq!((given, read(data.ca_next_key()).as_deref()), (None, Some(new.key())));
        assert_eq!(key_of(&data, new_ca).as_deref(), Some(new.key()));
        // Called off, then not.
        assert_eq!(arrange_keys(&data, &[old_ca], None).expect("arranged"), None);
        assert_eq!((read(data.ca_key()).as_deref(), read(data.ca_next_key())), (Some(old.key()), None));
        arrange_keys(&data, &[old_ca, new_ca], Some(new.key())).expect("written");
        arrange_keys(&data, &[new_ca], None).expect("arranged");
        assert_eq!((read(data.ca_key()).as_deref(), read(data.ca_next_key())), (Some(new.key()), None));
        assert_eq!(key_of(&data, old_ca), None, "the old key is gone");
    }
}
