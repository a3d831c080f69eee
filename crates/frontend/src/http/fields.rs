//! The fields of a request body, read one by one so that every fault is told, not only the first.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use topology::Fault;

use crate::http::problem::Problem;

/// A JSON object under reading.
pub struct Fields {
    object: Map<String, Value>,
    faults: Vec<Fault>,
}

impl Fields {
    /// The object in these bytes; no bytes are an empty one.
    ///
    /// # Errors
    /// 422: no JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let fault = |what: String| Problem::faults(vec![Fault { place: "body".into(), what }]);
        if body.is_empty() {
            return Ok(Self { object: Map::new(), faults: Vec::new() });
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => Ok(Self { object, faults: Vec::new() }),
            Ok(_) => Err(fault("must be a JSON object".into())),
            Err(error) => Err(fault(error.to_string())),
        }
    }
    /// Notes a fault of a field.
    pub fn fault(&mut self, field: &str, what: impl Into<String>) {
        self.faults.push(Fault { place: format!("body/{field}"), what: what.into() });
    }
    /// The field, if it is there.
    pub fn optional<T: DeserializeOwned>(&mut self, field: &str) -> Option<T> {
        match serde_json::from_value(self.object.remove(field)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(field, error.to_string());
                None
            }
        }
    }
    /// The field, which must be there; the default (with a fault noted) when it is not.
    pub fn required<T: DeserializeOwned + Default>(&mut self, field: &str) -> T {
        if !self.object.contains_key(field) {
            self.fault(field, "is missing");
        }
        self.optional(field).unwrap_or_default()
    }
    /// Ends the reading: what nobody asked for is a fault, too.
    ///
    /// # Errors
    /// 422 with everything noted.
    pub fn finish(mut self) -> Result<(), Problem> {
        let unknown: Vec<String> = self.object.keys().cloned().collect();
        unknown.iter().for_each(|field| self.fault(field, "is not a field of this request"));
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::faults(self.faults)) }
    }
}
