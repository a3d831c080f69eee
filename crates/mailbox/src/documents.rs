//! Account documents: password hash, scripts, settings.

use bytes::Bytes;
use vocab::Table;

use crate::op::{Change, Outcome, Refusal};
use crate::read;
use crate::rows::{Document, document_key};
use crate::work::{Fail, Work};

pub(crate) fn set(work: &mut Work<'_>, kind: &str, name: &str, body: Option<&Bytes>) -> Result<Outcome, Fail> {
    // The kind ends at the first NUL of the key.
    if kind.is_empty() || kind.contains('\0') {
        return Err(Refusal::BadName.into());
    }
    let now = read::document(&work.rows, kind, name)?.map(|document| document.body);
    if now.as_ref() == body {
        return Ok(Outcome::Done);
    }
    let key = document_key(kind, name);
    match body {
        Some(body) => {
            let document = Document { body: body.clone(), changed: work.stamp.at };
            work.write(Table::DOCUMENTS, key, document.encode())?;
        }
        None => work.delete(Table::DOCUMENTS, key)?,
    }
    work.announce(Change::Document(kind.to_owned()));
    Ok(Outcome::Done)
}
