//! What was asked of a gateway and not yet taken back, as lines of text.
//!
//! The same lines go to two readers. A file, synced before the request leaves, is for the next start. A pipe is for the
//! guard: a small process of its own that reads until the pipe closes, which the kernel does whatever killed the writer,
//! and then removes what is left. Reading never fails: a line that does not parse is one the writer never finished.

pub mod driver;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::mapping::{Claim, Record};

/// The longest line looked at, in bytes.
pub const MAX_LINE: usize = 4096;

/// The most mappings kept in mind at once.
pub const MAX_RECORDS: usize = 256;

/// One line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// It is about to be asked for.
    Intent(Record),
    /// It was granted.
    Granted {
        /// The record's ID.
        id: u64,
        /// The outer port.
        external_port: u16,
        /// The lease in seconds; 0 is without end.
        lease: u32,
        /// When, in seconds since 1970.
        at: u64,
        /// The ID of a pinhole.
        pinhole: Option<u16>,
    },
    /// It is gone, or was never made.
    Removed {
        /// The record's ID.
        id: u64,
    },
    /// Where the same lines are kept on disk, so that the guard can tidy the file up.
    File {
        /// The path.
        path: std::path::PathBuf,
    },
}

impl Entry {
    /// The line, with its line feed.
    ///
    /// # Errors
    /// Never in practice: every field has a text form, save a path that is not Unicode.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        Ok(line)
    }
}

/// The records that are outstanding after some lines.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    records: BTreeMap<u64, Record>,
    file: Option<std::path::PathBuf>,
}

impl Ledger {
    /// Reads a whole journal.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut ledger = Self::default();
        for line in text.lines() {
            ledger.line(line);
        }
        ledger
    }

    /// Takes one line. What is not a line of a journal is passed over.
    pub fn line(&mut self, line: &str) {
        if line.len() > MAX_LINE {
            return;
        }
        if let Ok(entry) = serde_json::from_str(line) {
            self.apply(entry);
        }
    }

    /// Takes one entry.
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Intent(record) => {
                if self.records.len() < MAX_RECORDS || self.records.contains_key(&record.id) {
                    self.records.insert(record.id, record);
                }
            }
            Entry::Granted { id, external_port, lease, at, pinhole } => {
                if let Some(record) = self.records.get_mut(&id) {
                    (record.external_port, record.lease, record.asked_at, record.granted) =
                        (external_port, lease, at, true);
                    if let Claim::Pinhole { id, .. } = &mut record.claim {
                        *id = pinhole.or(*id);
                    }
                }
            }
            Entry::Removed { id } => {
                self.records.remove(&id);
            }
            Entry::File { path } => self.file = Some(path),
        }
    }

    /// What is outstanding, by ID.
    pub fn outstanding(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Whether nothing is outstanding.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The file that holds the same lines.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        self.file.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nat::port_map::igd::{Connection, ConnectionKind, Endpoint};
    use crate::nat::port_map::survey::Route;
    use crate::nat::port_map::{Transport, pcp};

    fn record(id: u64, claim: Claim) -> Record {
        Record {
            id,
            claim,
            route: Route { gateway: "fe80::1".parse().unwrap(), scope_id: 3, local: "2a00:11::7".parse().unwrap() },
            transport: Transport::Udp,
            internal_port: 4000,
            external_port: 4000,
            lease: 30,
            asked_at: 1_700_000_000,
            granted: false,
        }
    }

    fn endpoint() -> Endpoint {
        Endpoint { port: 5000, path: "/ctl".to_owned() }
    }

    #[test]
    fn every_kind_of_record_comes_back_from_its_line() {
        let claims = [
            Claim::Pcp { nonce: pcp::Nonce([7; 12]), port: 5351, igd: None },
            Claim::NatPmp { port: 5351 },
            Claim::Igd(Connection { kind: ConnectionKind::Ip2, control: endpoint() }),
            Claim::Pinhole { firewall: endpoint(), id: None },
        ];
        let mut text = String::new();
        for (id, claim) in (0..).zip(claims.clone()) {
            text += &Entry::Intent(record(id, claim)).to_line().unwrap();
        }
        let ledger = Ledger::read(&text);
        assert_eq!(ledger.outstanding().map(|record| record.claim.clone()).collect::<Vec<_>>(), claims);
    }

    #[test]
    fn a_grant_updates_and_a_removal_forgets() {
        let mut ledger = Ledger::default();
        ledger.apply(Entry::Intent(record(1, Claim::Pinhole { firewall: endpoint(), id: None })));
        ledger.apply(Entry::Granted { id: 1, external_port: 4001, lease: 120, at: 5, pinhole: Some(9) });
        ledger.apply(Entry::Granted { id: 2, external_port: 1, lease: 1, at: 1, pinhole: None });
        let found = ledger.outstanding().next().unwrap();
        assert_eq!((found.external_port, found.lease, found.asked_at, found.granted), (4001, 120, 5, true));
        assert_eq!(found.claim, Claim::Pinhole { firewall: endpoint(), id: Some(9) });
        ledger.apply(Entry::Removed { id: 1 });
        assert!(ledger.is_empty());
    }

    #[test]
    fn n17_a_torn_last_line_loses_nothing_that_was_synced() {
        let whole = Entry::Intent(record(1, Claim::NatPmp { port: 5351 })).to_line().unwrap();
        let next = Entry::Removed { id: 1 }.to_line().unwrap();
        for cut in 0..next.len() - 1 {
            let ledger = Ledger::read(&format!("{whole}{}", &next[..cut]));
            assert_eq!(ledger.outstanding().count(), 1, "cut after {cut} bytes");
        }
        assert!(Ledger::read(&format!("{whole}{next}")).is_empty());
    }

    #[test]
    fn the_ledger_is_capped() {
        let mut ledger = Ledger::default();
        for id in 0..1000 {
            ledger.apply(Entry::Intent(record(id, Claim::NatPmp { port: 5351 })));
        }
        assert_eq!(ledger.outstanding().count(), MAX_RECORDS);
    }

    proptest! {
        #[test]
        fn arbitrary_journals_never_panic(text in "\\PC*", lines in proptest::collection::vec("(\\{|\\}|\"|intent|granted|id|:|[0-9]){0,20}", 0..9)) {
            let _ = Ledger::read(&text);
            let _ = Ledger::read(&lines.join("\n"));
        }
    }
}
