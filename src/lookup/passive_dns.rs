//! What the DNS answered in a capture.
//!
//! RFC 1035 §4.1; RFC 2308 §2 tells NODATA from a referral; RFC 6604 says whose NXDOMAIN it is after CNAMEs. An answer
//! is good from when it was seen until the end of the capture, whatever its TTL: that is what the hosts in it knew. Only the
//! answer section counts, and of that only what belongs to the question. Memory is bounded by [`MAX_BYTES`]; the oldest
//! answers go first.

use std::cell::LazyCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, RecordType};

use super::cname::{Found, MAX_ALIASES, follow};
use super::record;
use crate::analyzer::NameSource;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, Reason};
use crate::time::Timestamp;
use crate::wire::Datagram;

/// Octets that the answers of a capture may hold, about; some 50,000 answers of ordinary size.
pub const MAX_BYTES: usize = 32 * 1024 * 1024;
/// About what an answer costs besides its records, and what a record costs.
const ENTRY: usize = 384;
const RECORD: usize = 256;
/// Names that one address is known by, at most.
const MAX_NAMES: usize = 64;

const PORT: u16 = 53;

type Key = (DomainName, RecordType);

/// One thing that was said about a [`Key`].
#[derive(Debug)]
struct Heard {
    at: Timestamp,
    found: Found,
}

/// The DNS answers of a capture.
#[derive(Debug)]
pub struct PassiveDns {
    /// In the order in which they were heard. NXDOMAIN stands under `ANY`, since it is about every type.
    heard: HashMap<Key, VecDeque<Heard>>,
    /// A key for each entry of `heard`, oldest first.
    order: VecDeque<Key>,
    /// Whose address each is, in the order in which that was heard: one for each record in `heard`.
    owners: HashMap<IpAddr, VecDeque<DomainName>>,
    octets: usize,
    limit: usize,
    dropped: u64,
}

impl Default for PassiveDns {
    fn default() -> Self {
        Self::with_limit(MAX_BYTES)
    }
}

impl PassiveDns {
    /// Holds about `limit` octets.
    pub fn with_limit(limit: usize) -> Self {
        let (heard, order, owners) = Default::default();
        Self { heard, order, owners, octets: 0, limit, dropped: 0 }
    }

    /// Answers that had to go for want of room.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Hears a datagram; what does not come from a DNS server's port is not read.
    pub fn on_datagram(&mut self, datagram: &Datagram<'_>) {
        if datagram.src.port() == PORT {
            self.on_message(datagram.payload, datagram.at);
        }
    }

    /// Hears a DNS message. Queries, truncated responses (the answer then comes by TCP) and what cannot be read say
    /// nothing.
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
                self.answered(name, kind, &message, at);
            }
            _ if is_asked(kind) => {
                self.store((name, kind), Found::Unknown(Reason::Servfail), at);
            }
            _ => {}
        }
    }

    fn answered(
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
            self.store((name, RecordType::CNAME), Found::Alias(target.clone()), at);
            name = target;
            aliases += 1;
        }
        let of_kind =
            |(owner, data): &&(DomainName, &RData)| *owner == name && data.record_type() == kind;
        let mut records: Vec<_> =
            owned.iter().filter(of_kind).filter_map(|(_, data)| record(data)).collect();
        // Servers rotate records: sorted, the same answer is seen to be the same.
        records.sort();
        if !records.is_empty() {
            self.store((name, kind), Found::Records(records), at);
        } else if message.metadata.response_code == ResponseCode::NXDomain {
            self.store((name, RecordType::ANY), Found::NxDomain, at);
        } else if is_asked(kind) && says_no_data(message, aliases) {
            self.store((name, kind), Found::NoData, at);
        }
    }

    fn store(&mut self, key: Key, found: Found, at: Timestamp) {
        let said = self.heard.entry(key.clone()).or_default();
        if said.back().is_some_and(|last| last.found == found && last.at <= at) {
            return;
        }
        self.octets += cost(&found);
        for ip in addresses(&found) {
            self.owners.entry(ip).or_default().push_back(key.0.clone());
        }
        said.push_back(Heard { at, found });
        self.order.push_back(key);
        while self.octets > self.limit {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(key) = self.order.pop_front() else {
            self.octets = 0;
            return;
        };
        let Some(said) = self.heard.get_mut(&key) else {
            return;
        };
        if let Some(oldest) = said.pop_front() {
            self.octets = self.octets.saturating_sub(cost(&oldest.found));
            self.dropped += 1;
            for ip in addresses(&oldest.found) {
                if let Entry::Occupied(mut names) = self.owners.entry(ip) {
                    let at = names.get().iter().position(|name| *name == key.0);
                    at.map(|at| names.get_mut().remove(at));
                    if names.get().is_empty() {
                        names.remove();
                    }
                }
            }
        }
        if said.is_empty() {
            self.heard.remove(&key);
        }
    }

    /// What was known at `at`. A failure does not take back an answer that was there before.
    pub fn answer(&self, lookup: &Lookup, at: Timestamp) -> Answer {
        follow(lookup, |name, kind| {
            [RecordType::ANY, RecordType::CNAME, kind]
                .into_iter()
                .filter_map(|kind| self.heard.get(&(name.clone(), kind)))
                .flatten()
                .filter(|heard| heard.at <= at)
                .max_by_key(|heard| (!matches!(heard.found, Found::Unknown(_)), heard.at))
                .map_or(Found::Unknown(Reason::NoResolver), |heard| heard.found.clone())
        })
    }

    /// The host that has the address `ip`: of several, the one that was heard of first, so that a server keeps its name.
    pub fn host(&self, ip: IpAddr) -> Option<&DomainName> {
        self.owners.get(&ip.to_canonical())?.front()
    }

    /// By which names each address was known, at any time of the capture.
    pub fn server_names(&self) -> ServerNames {
        let mut owners: BTreeMap<IpAddr, BTreeSet<&DomainName>> = BTreeMap::new();
        let mut above: HashMap<&DomainName, BTreeSet<&DomainName>> = HashMap::new();
        for ((name, _), said) in &self.heard {
            for heard in said {
                match &heard.found {
                    Found::Alias(target) => {
                        above.entry(target).or_default().insert(name);
                    }
                    Found::Records(records) => {
                        for record in records {
                            match record {
                                DnsRecord::Address(ip) => {
                                    owners.entry(ip.to_canonical()).or_default().insert(name);
                                }
                                DnsRecord::Exchange { host, .. } => {
                                    above.entry(host).or_default().insert(name);
                                }
                                DnsRecord::Name(_) => {}
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

/// Which names lead to an address: its own, aliases of these, and the mail domains whose exchange it is.
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

fn addresses(found: &Found) -> impl Iterator<Item = IpAddr> {
    let records = match found {
        Found::Records(records) => records.as_slice(),
        _ => &[],
    };
    records.iter().filter_map(|record| match record {
        DnsRecord::Address(ip) => Some(ip.to_canonical()),
        _ => None,
    })
}

fn cost(found: &Found) -> usize {
    match found {
        Found::Records(records) => ENTRY + RECORD * records.len(),
        _ => ENTRY + RECORD,
    }
}

const fn is_asked(kind: RecordType) -> bool {
    matches!(kind, RecordType::A | RecordType::AAAA | RecordType::PTR | RecordType::MX)
}

/// RFC 2308 §2.2: an SOA says that there is no more; name servers without one refer to these. After CNAMEs only an SOA is
/// sure, as the next name may lie in another server's zone.
fn says_no_data(message: &Message, aliases: usize) -> bool {
    let has = |kind| message.authorities.iter().any(|record| record.record_type() == kind);
    has(RecordType::SOA) || (aliases == 0 && !has(RecordType::NS))
}
