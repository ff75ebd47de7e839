//! Passive DNS: answers from the DNS responses of a capture.
//!
//! RFC 1035 §4.1; RFC 2308 §2 distinguishes NODATA from a referral; RFC 6604 defines to which name an NXDOMAIN after CNAMEs
//! applies. An answer is valid from its packet's time to the end of the capture, regardless of its TTL: the hosts in the
//! capture had it. Only records of the answer section that belong to the question are used. Memory is bounded by
//! [`MAX_BYTES`]; the oldest answers are dropped first.

use std::cell::LazyCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, RecordType};

use super::cname::{MAX_ALIASES, RecordSet, follow};
use super::dns_data::record;
use crate::analyzer::NameSource;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, Reason};
use crate::time::Timestamp;
use crate::wire::Datagram;

/// Default limit of the memory for answers, in bytes (an estimate): some 50,000 answers of ordinary size.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Estimated bytes of an answer without its records, and of a record.
const ENTRY: usize = 384;
const RECORD: usize = 256;
/// Names of one address in [`ServerNames`].
const MAX_NAMES: usize = 64;

const PORT: u16 = 53;

type Question = (DomainName, RecordType);

#[derive(Debug)]
struct ObservedAnswer {
    at: Timestamp,
    records: RecordSet,
}

/// The DNS answers of a capture, by question.
#[derive(Debug)]
pub struct PassiveDns {
    /// In capture order. NXDOMAIN is stored under `ANY`, since it applies to all types.
    answers: HashMap<Question, VecDeque<ObservedAnswer>>,
    /// The question of each element of `answers`, oldest first.
    order: VecDeque<Question>,
    /// The owner names of each address, in capture order: one for each address record in `answers`.
    owners: HashMap<IpAddr, VecDeque<DomainName>>,
    bytes: usize,
    limit: usize,
    dropped: u64,
}

impl Default for PassiveDns {
    fn default() -> Self {
        Self::with_limit(MAX_BYTES)
    }
}

impl PassiveDns {
    /// Uses about `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        let (answers, order, owners) = Default::default();
        Self { answers, order, owners, bytes: 0, limit, dropped: 0 }
    }

    /// Number of answers dropped because of the limit.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Ignores datagrams that do not come from port 53.
    pub fn on_datagram(&mut self, datagram: &Datagram<'_>) {
        if datagram.src.port() == PORT {
            self.on_message(datagram.payload, datagram.at);
        }
    }

    /// Ignores queries, truncated responses (the answer follows over TCP) and malformed messages.
    pub fn on_message(&mut self, payload: &[u8], at: Timestamp) {
        let Ok(message) = Message::from_vec(payload) else {
            return;
        };
        let head = &message.metadata;
        let is_answer = head.message_type == MessageType::Response && head.op_code == OpCode::Query;
        let [question] = message.queries.as_slice() else {
            return;
        };
        if !is_answer || head.truncation || question.query_class != DNSClass::IN {
            return;
        }
        let (name, kind) = (DomainName::from(question.name.clone()), question.query_type);
        match head.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {
                self.on_answer(name, kind, &message, at);
            }
            _ if is_lookup_type(kind) => {
                self.insert((name, kind), RecordSet::Unknown(Reason::Servfail), at);
            }
            _ => {}
        }
    }

    fn on_answer(
        &mut self,
        mut name: DomainName,
        kind: RecordType,
        message: &Message,
        at: Timestamp,
    ) {
        let owned: Vec<_> = message
            .answers
            .iter()
            .filter(|record| record.dns_class == DNSClass::IN)
            .map(|record| (DomainName::from(record.name.clone()), &record.data))
            .collect();
        let alias = |name: &DomainName| {
            owned.iter().find_map(|(owner, data)| match data {
                RData::CNAME(target) if owner == name => Some(DomainName::from(target.0.clone())),
                _ => None,
            })
        };
        let mut aliases = 0;
        while let Some(target) = alias(&name).filter(|_| aliases < MAX_ALIASES) {
            self.insert((name, RecordType::CNAME), RecordSet::Alias(target.clone()), at);
            name = target;
            aliases += 1;
        }
        let of_kind =
            |(owner, data): &&(DomainName, &RData)| *owner == name && data.record_type() == kind;
        let mut records: Vec<_> =
            owned.iter().filter(of_kind).filter_map(|(_, data)| record(data)).collect();
        // Servers rotate records; sorted, equal answers compare equal.
        records.sort();
        if !records.is_empty() {
            self.insert((name, kind), RecordSet::Records(records), at);
        } else if message.metadata.response_code == ResponseCode::NXDomain {
            self.insert((name, RecordType::ANY), RecordSet::NxDomain, at);
        } else if is_lookup_type(kind) && is_no_data(message, aliases) {
            self.insert((name, kind), RecordSet::NoData, at);
        }
    }

    fn insert(&mut self, question: Question, records: RecordSet, at: Timestamp) {
        let answers = self.answers.entry(question.clone()).or_default();
        if answers.back().is_some_and(|last| last.records == records && last.at <= at) {
            return;
        }
        self.bytes += size(&records);
        for ip in addresses(&records) {
            self.owners.entry(ip).or_default().push_back(question.0.clone());
        }
        answers.push_back(ObservedAnswer { at, records });
        self.order.push_back(question);
        while self.bytes > self.limit {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(question) = self.order.pop_front() else {
            self.bytes = 0;
            return;
        };
        let Some(answers) = self.answers.get_mut(&question) else {
            return;
        };
        if let Some(oldest) = answers.pop_front() {
            self.bytes = self.bytes.saturating_sub(size(&oldest.records));
            self.dropped += 1;
            for ip in addresses(&oldest.records) {
                if let Entry::Occupied(mut names) = self.owners.entry(ip) {
                    let at = names.get().iter().position(|name| *name == question.0);
                    at.map(|at| names.get_mut().remove(at));
                    if names.get().is_empty() {
                        names.remove();
                    }
                }
            }
        }
        if answers.is_empty() {
            self.answers.remove(&question);
        }
    }

    /// The answer known at `at`. A failure does not revoke an earlier answer.
    pub fn answer(&self, lookup: &Lookup, at: Timestamp) -> Answer {
        follow(lookup, |name, kind| {
            [RecordType::ANY, RecordType::CNAME, kind]
                .into_iter()
                .filter_map(|kind| self.answers.get(&(name.clone(), kind)))
                .flatten()
                .filter(|answer| answer.at <= at)
                .max_by_key(|answer| (!matches!(answer.records, RecordSet::Unknown(_)), answer.at))
                .map_or(RecordSet::Unknown(Reason::NoResolver), |answer| answer.records.clone())
        })
    }

    /// The name of the host with address `ip`: the first in the capture, so that a server keeps its name.
    pub fn host(&self, ip: IpAddr) -> Option<&DomainName> {
        self.owners.get(&ip.to_canonical())?.front()
    }

    /// The names of each address, at any time of the capture.
    pub fn server_names(&self) -> ServerNames {
        let mut owners: BTreeMap<IpAddr, BTreeSet<&DomainName>> = BTreeMap::new();
        let mut above: HashMap<&DomainName, BTreeSet<&DomainName>> = HashMap::new();
        for ((name, _), answers) in &self.answers {
            for answer in answers {
                match &answer.records {
                    RecordSet::Alias(target) => {
                        above.entry(target).or_default().insert(name);
                    }
                    RecordSet::Records(records) => {
                        for record in records {
                            match record {
                                DnsRecord::Address(ip) => {
                                    owners.entry(ip.to_canonical()).or_default().insert(name);
                                }
                                DnsRecord::Exchange { host, .. } => {
                                    above.entry(host).or_default().insert(name);
                                }
                                DnsRecord::Name(_) | DnsRecord::Text(_) => {}
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        let all = owners.into_iter().map(|(ip, names)| (ip, with_names_above(names, &above)));
        ServerNames(all.collect())
    }
}

/// The names that lead to `names` through CNAME and MX, and these themselves; at most [`MAX_NAMES`].
fn with_names_above(
    names: BTreeSet<&DomainName>,
    above: &HashMap<&DomainName, BTreeSet<&DomainName>>,
) -> BTreeSet<DomainName> {
    let mut waiting: VecDeque<&DomainName> = names.into_iter().collect();
    let mut found = BTreeSet::new();
    while let Some(name) = waiting.pop_front() {
        if found.len() < MAX_NAMES && found.insert(name.clone()) {
            waiting.extend(above.get(name).into_iter().flatten());
        }
    }
    found
}

/// The names that lead to each address: its own, their aliases, and the domains whose mail exchange it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNames(BTreeMap<IpAddr, BTreeSet<DomainName>>);

impl ServerNames {
    pub fn of(&self, ip: IpAddr) -> impl Iterator<Item = &DomainName> {
        self.0.get(&ip.to_canonical()).into_iter().flatten()
    }

    /// A name that leads to both: two addresses of one server, or of the servers of one domain.
    pub fn common(&self, one: IpAddr, other: IpAddr) -> Option<&DomainName> {
        let other = self.0.get(&other.to_canonical())?;
        self.of(one).find(|name| other.contains(*name))
    }
}

impl NameSource for PassiveDns {
    fn on_datagram(&mut self, datagram: &Datagram<'_>) {
        Self::on_datagram(self, datagram);
    }

    fn host(&self, ip: IpAddr) -> Option<String> {
        Self::host(self, ip).map(ToString::to_string)
    }

    fn shares_name(&self) -> impl Fn(IpAddr, IpAddr) -> Option<bool> {
        let names = LazyCell::new(|| self.server_names());
        move |one, other| {
            let both_known = names.of(one).next().is_some() && names.of(other).next().is_some();
            both_known.then(|| names.common(one, other).is_some())
        }
    }
}

fn addresses(records: &RecordSet) -> impl Iterator<Item = IpAddr> {
    let records = match records {
        RecordSet::Records(records) => records.as_slice(),
        _ => &[],
    };
    records.iter().filter_map(|record| match record {
        DnsRecord::Address(ip) => Some(ip.to_canonical()),
        _ => None,
    })
}

fn size(records: &RecordSet) -> usize {
    match records {
        RecordSet::Records(records) => {
            let texts = records.iter().filter_map(DnsRecord::text).map(<[u8]>::len);
            ENTRY + RECORD * records.len() + texts.sum::<usize>()
        }
        _ => ENTRY + RECORD,
    }
}

/// Whether a [`Lookup`] queries records of this type.
const fn is_lookup_type(kind: RecordType) -> bool {
    use RecordType::{A, AAAA, MX, PTR, TXT};
    matches!(kind, A | AAAA | PTR | MX | TXT)
}

/// RFC 2308 §2.2: with an SOA it is NODATA; with NS records and no SOA it is a referral. After CNAMEs only an SOA proves it,
/// since the next name may be in another server's zone.
fn is_no_data(message: &Message, aliases: usize) -> bool {
    let has = |kind| message.authorities.iter().any(|record| record.record_type() == kind);
    has(RecordType::SOA) || (aliases == 0 && !has(RecordType::NS))
}
