//! Answers from a zone file (master file).
//!
//! RFC 1035 §5; wildcards as in RFC 4592 §3.3. The file may hold several zones. It is authoritative at and below the owner of
//! an SOA record, except below a delegation; without an SOA, below its `$ORIGIN`. There, missing names do not exist. It has
//! no answer for other names. TTLs and classes are optional.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::txt::Parser;

use super::cname::{RecordSet, follow};
use super::dns_data::record;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, Reason};

/// Replaces a missing origin; no file can contain it.
const NO_ORIGIN: &str = "no-origin.gatepost.invalid.";
/// The parser needs a TTL; none is used here.
const PREAMBLE: &str = "$TTL 0\n";

/// Why a zone file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneFileError {
    #[error("cannot read the zone file {}: {why}", file.display())]
    Read { file: PathBuf, why: io::Error },
    #[error("{}:{line}: invalid entry: {why}", file.display())]
    Entry { file: PathBuf, line: usize, why: String },
    #[error(
        "{}:{line}: relative name without an origin; add a line `$ORIGIN example.com.` before it, or end the \
         name with a dot", file.display()
    )]
    NoOrigin { file: PathBuf, line: usize },
    #[error(
        "{}:{line}: $ORIGIN must be an absolute name, found {found:?}; end it with a dot", file.display()
    )]
    RelativeOrigin { file: PathBuf, line: usize, found: String },
    #[error("{}: no records; expected a zone file (RFC 1035 section 5)", file.display())]
    Empty { file: PathBuf },
}

/// The zones of a file.
#[derive(Clone, Debug, Default)]
pub struct ZoneFile {
    records: HashMap<(DomainName, RecordType), Vec<DnsRecord>>,
    aliases: HashMap<DomainName, DomainName>,
    /// Owners of records, and the names between them and their apex.
    names: HashSet<DomainName>,
    apexes: HashSet<DomainName>,
    /// Delegations: the file has no answer at and below these names.
    cuts: HashSet<DomainName>,
}

impl ZoneFile {
    /// Reads `file`; `$INCLUDE` is relative to it.
    ///
    /// # Errors
    /// The file cannot be read or parsed; names the line and the reason.
    pub fn open(file: &Path) -> Result<Self, ZoneFileError> {
        let text = std::fs::read_to_string(file)
            .map_err(|why| ZoneFileError::Read { file: file.to_owned(), why })?;
        Self::parse(&text, file)
    }

    /// Parses `text`, the content of `file`.
    ///
    /// # Errors
    /// A syntax error; names the line and the reason.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ZoneFileError> {
        let entries = entries(text);
        let mut origins = Vec::new();
        for entry in &entries {
            let Some(origin) = entry.origin() else {
                continue;
            };
            if !origin.ends_with('.') {
                let (file, found) = (file.to_owned(), origin.to_owned());
                return Err(ZoneFileError::RelativeOrigin { file, line: entry.line, found });
            }
            origins.extend(Name::from_ascii(origin).ok().map(DomainName::from));
        }
        match read(text, file) {
            Ok(zone) => zone
                .with_apexes(origins)
                .ok_or_else(|| ZoneFileError::Empty { file: file.to_owned() }),
            Err(error) => {
                // The parser has no position: find the first entry with which the text up to its end is invalid.
                let good = entries.partition_point(|entry| read(entry.upto, file).is_ok());
                let line = entries.get(good).map_or(1, |entry| entry.line);
                let file = file.to_owned();
                Err(match error {
                    ParseError::NoOrigin => ZoneFileError::NoOrigin { file, line },
                    ParseError::Entry(why) => ZoneFileError::Entry { file, line, why },
                })
            }
        }
    }

    /// Determines the names for which the zone is authoritative; `None` if there are none.
    fn with_apexes(mut self, origins: Vec<DomainName>) -> Option<Self> {
        // A dump of a zone often has `$ORIGIN .` or the parent's; one below an SOA may be a delegation.
        let is_separate = |origin: &DomainName| {
            let related = |apex: &DomainName| apex.is_within(origin) || origin.is_within(apex);
            !origin.is_root() && !self.apexes.iter().any(related)
        };
        let more: Vec<_> = origins.into_iter().filter(is_separate).collect();
        self.apexes.extend(more);
        self.cuts.retain(|cut| !self.apexes.contains(cut));
        let above = |name: &DomainName| {
            std::iter::successors(Some(name.parent()), |up| Some(up.parent()))
                .take_while(|up| !up.is_root())
        };
        let within = |name: &DomainName| self.apexes.iter().any(|apex| name.is_within(apex));
        let between: Vec<_> = self.names.iter().flat_map(above).filter(within).collect();
        self.names.extend(between);
        (!self.names.is_empty()).then_some(self)
    }

    /// [`Reason::NoResolver`] where the file is not authoritative.
    pub fn answer(&self, lookup: &Lookup) -> Answer {
        follow(lookup, |name, kind| self.find(name, kind))
    }

    fn find(&self, name: &DomainName, kind: RecordType) -> RecordSet {
        if let Some(records) = self.records_at(name, kind) {
            return records;
        }
        let no_answer = RecordSet::Unknown(Reason::NoResolver);
        let mut upwards = std::iter::successors(Some(name.clone()), |name| {
            (!name.is_root()).then(|| name.parent())
        });
        let ours = upwards.clone().any(|name| self.apexes.contains(&name));
        if !ours || upwards.clone().any(|name| self.cuts.contains(&name)) {
            return no_answer;
        }
        if self.names.contains(name) {
            return RecordSet::NoData;
        }
        let encloser = upwards.find(|name| self.names.contains(name) || self.apexes.contains(name));
        match encloser.and_then(|encloser| encloser.wildcard()) {
            Some(wildcard) if self.names.contains(&wildcard) => {
                self.records_at(&wildcard, kind).unwrap_or(RecordSet::NoData)
            }
            _ => RecordSet::NxDomain,
        }
    }

    fn records_at(&self, name: &DomainName, kind: RecordType) -> Option<RecordSet> {
        let records = self.records.get(&(name.clone(), kind)).cloned().map(RecordSet::Records);
        records.or_else(|| self.aliases.get(name).cloned().map(RecordSet::Alias))
    }
}

enum ParseError {
    Entry(String),
    NoOrigin,
}

/// The records of `text`; its apexes are the owners of SOA records.
fn read(text: &str, file: &Path) -> Result<ZoneFile, ParseError> {
    let no_origin =
        Name::from_ascii(NO_ORIGIN).map_err(|why| ParseError::Entry(why.to_string()))?;
    let parser =
        Parser::new(format!("{PREAMBLE}{text}\n"), Some(file.to_owned()), Some(no_origin.clone()));
    let (_, sets) = parser.parse().map_err(|why| ParseError::Entry(printable(&why.to_string())))?;
    let no_origin = DomainName::from(no_origin);
    let mut zone = ZoneFile::default();
    for entry in sets.values().flat_map(|set| set.records_without_rrsigs()) {
        let name = DomainName::from(entry.name.clone());
        let used = record(&entry.data);
        let mut named = vec![name.clone()];
        match &entry.data {
            RData::SOA(_) => {
                zone.apexes.insert(name.clone());
            }
            RData::NS(_) => {
                zone.cuts.insert(name.clone());
            }
            RData::CNAME(target) => {
                let target = DomainName::from(target.0.clone());
                named.push(target.clone());
                zone.aliases.insert(name.clone(), target);
            }
            _ => {}
        }
        if let Some(DnsRecord::Name(host) | DnsRecord::Exchange { host, .. }) = &used {
            named.push(host.clone());
        }
        if named.iter().any(|name| name.is_within(&no_origin)) {
            return Err(ParseError::NoOrigin);
        }
        if let Some(used) = used {
            zone.records.entry((name.clone(), entry.record_type())).or_default().push(used);
        }
        zone.names.insert(name);
    }
    Ok(zone)
}

/// Escapes control characters: the parser's messages quote the file.
fn printable(why: &str) -> String {
    let (mut out, mut rest) = (String::new(), why);
    while let Some(at) = rest.find(char::is_control) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let mut chars = from.chars();
        out.extend(chars.next().into_iter().flat_map(char::escape_default));
        rest = chars.as_str();
    }
    out + rest
}

/// A directive or a record; parentheses may extend it over several lines.
struct FileEntry<'a> {
    /// Number of its first line that is not blank, from 1.
    line: usize,
    text: &'a str,
    /// The file's text up to its end.
    upto: &'a str,
}

impl FileEntry<'_> {
    /// The value of a `$ORIGIN` directive.
    fn origin(&self) -> Option<&str> {
        let mut words = self.text.split_ascii_whitespace();
        (words.next() == Some("$ORIGIN")).then(|| words.next().unwrap_or_default())
    }
}

fn entries(text: &str) -> Vec<FileEntry<'_>> {
    let mut found = Vec::new();
    let (mut depth, mut quoted, mut comment, mut escaped) = (0_usize, false, false, false);
    let (mut start, mut line, mut first) = (0, 1, None);
    let ends = text.char_indices().map(|(at, c)| (at + c.len_utf8(), c));
    for (end, c) in ends.chain([(text.len(), '\n')]) {
        match c {
            _ if escaped => escaped = false,
            '\\' if !comment => escaped = true,
            '\n' => comment = false,
            _ if comment => {}
            '"' => quoted = !quoted,
            _ if quoted => {}
            ';' => comment = true,
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !c.is_whitespace() && !comment {
            first.get_or_insert(line);
        }
        let over = c == '\n' && (depth == 0 && !quoted || end == text.len());
        line += usize::from(c == '\n');
        if !over {
            continue;
        }
        let (Some(text_of), Some(upto)) = (text.get(start..end), text.get(..end)) else {
            continue;
        };
        if let Some(line) = first.take() {
            found.push(FileEntry { line, text: text_of, upto });
        }
        start = end;
    }
    found
}
