//! Which row format may be written: during a rolling upgrade the lower of what the members read (DESIGN 5). Once all of
//! them were heard to read a newer one it is written for good, and who cannot read it is not taken in.

use mailbox::rows::RowFormat;
use vocab::NodeId;
use wire::link;

use crate::config::Rule;
use crate::{Pending, Replica};

impl Replica {
    /// Format of the rows that are computed here now.
    pub(crate) fn row_format(&self) -> RowFormat {
        let own = if self.keeps(Rule::LowerRows) { self.saved.rows } else { self.config.rows };
        RowFormat::up_to(own)
    }

    /// Takes what a peer says of row formats; false: one of the two cannot read what the other writes, and nothing is
    /// exchanged with it until it runs another program.
    pub(crate) fn take_rows(&mut self, id: NodeId, hello: &link::Hello) -> bool {
        let (reads, writes) = (RowFormat::up_to(hello.reads_rows), hello.writes_rows);
        let fits = reads >= RowFormat::up_to(self.saved.rows) && writes <= self.config.rows;
        if !fits {
            let text = format!(
                "node {} reads rows up to format {} and writes {writes}, this node reads up to {} and has written {}: \
                 it is not taken in before both run programs that read each other's rows",
                id.0, hello.reads_rows, self.config.rows, self.saved.rows
            );
            self.outputs.push_back(crate::Output::Alert(text));
        } else if writes > self.saved.rows {
            // Written before any of its rows are: writes are done in order.
            self.raise_rows(writes);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.reads_rows = hello.reads_rows;
            peer.unreadable = !fits;
        }
        fits
    }

    /// Goes over to a newer format when every data member reads it.
    pub(crate) fn consider_rows(&mut self) {
        let Some(record) = &self.record else { return };
        let others = self.present_members(record).into_iter().filter(|id| *id != self.config.node);
        let reads = |id: NodeId| self.peers.get(&id).map_or(0, |peer| peer.reads_rows);
        let common = others.map(reads).fold(self.config.rows, u32::min);
        if RowFormat::up_to(common) > RowFormat::up_to(self.saved.rows) {
            self.log(format!("every member reads rows of format {common}: they are written from now on"));
            self.raise_rows(common);
        }
    }

    fn raise_rows(&mut self, rows: u32) {
        self.saved.rows = rows;
        let part = self.saved.to_write();
        self.write(vec![part], Pending::Newest);
    }
}
