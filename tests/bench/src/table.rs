//! The result: one row per measurement, one column per server, the ratio of the first to the last.

use crate::loads::median;

struct Row {
    name: String,
    unit: &'static str,
    values: Vec<Vec<f64>>,
}

/// Rows in the order in which they were first measured.
pub struct Table {
    servers: Vec<String>,
    rows: Vec<Row>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(servers: Vec<String>) -> Self {
        Self { servers, rows: Vec::new() }
    }

    /// One more measurement of a row; the median is shown.
    pub fn add(&mut self, name: &str, unit: &'static str, server: usize, value: f64) {
        eprintln!("{}: {name}: {value:.2} {unit}", self.servers.get(server).map_or("", String::as_str));
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), unit, values: vec![Vec::new(); self.servers.len()] });
            self.rows.len() - 1
        });
        if let Some(values) = self.rows.get_mut(at).and_then(|row| row.values.get_mut(server)) {
            values.push(value);
        }
    }

    /// Prints it as Markdown.
    pub fn print(&self) {
        println!("| what | unit | {} | ratio |", self.servers.join(" | "));
        println!("|---|---|{}---|", "---|".repeat(self.servers.len()));
        for row in &self.rows {
            let middles: Vec<Option<f64>> =
                row.values.iter().map(|values| (!values.is_empty()).then(|| median(values.clone()))).collect();
            let cells: Vec<String> =
                middles.iter().map(|value| value.map_or_else(|| "-".into(), |value| format!("{value:.2}"))).collect();
            let ratio = match middles.as_slice() {
                [Some(ours), Some(theirs)] if *theirs != 0.0 => format!("{:.2}", ours / theirs),
                _ => "-".into(),
            };
            println!("| {} | {} | {} | {ratio} |", row.name, row.unit, cells.join(" | "));
        }
    }
}
