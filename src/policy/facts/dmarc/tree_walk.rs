//! The DNS tree walk (RFC 9989 §4.10): the records of a domain and of those above it.

use std::collections::BTreeSet;

use super::record::{DmarcRecord, PublicSuffix};
use crate::policy::facts::provenance::Provenance;
use crate::policy::facts::{Answers, DomainName, Lookup, Reason};

/// The walk continues with this many labels of a longer name, so that it has at most eight names.
const MAX_LABELS: u8 = 7;

/// The records at one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DmarcRecords {
    None,
    One(DmarcRecord),
    /// So many, which count as none.
    Several(usize),
    /// The lookup failed.
    Unknown(Reason),
}

/// The records of a domain and of the domains above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeWalk {
    /// From the domain itself to its last label.
    steps: Vec<(DomainName, DmarcRecords)>,
    pub(in crate::policy::facts) provenance: Provenance,
}

impl TreeWalk {
    /// Walks from `domain`. All names are looked up together, since most walks end at the last.
    ///
    /// # Errors
    /// The lookups that are missing, at least one.
    pub fn new(domain: &DomainName, known: &Answers) -> Result<Self, BTreeSet<Lookup>> {
        let mut missing = BTreeSet::new();
        let mut provenance = Provenance::START;
        let mut steps = Vec::new();
        for name in names(domain) {
            // A name that is too long for `_dmarc` before it has no record.
            let Some(at) = DomainName::parse(&format!("_dmarc.{name}")) else {
                steps.push((name, DmarcRecords::None));
                continue;
            };
            let lookup = Lookup::Texts(at);
            let Some(result) = known.get(&lookup) else {
                missing.insert(lookup);
                continue;
            };
            provenance = provenance.and(Provenance::of(result));
            let records = match result.answer.texts() {
                Err(reason) => DmarcRecords::Unknown(reason),
                Ok(texts) => {
                    let mut found = texts.filter_map(|text| DmarcRecord::parse(&name, text));
                    match (found.next(), found.count()) {
                        (None, _) => DmarcRecords::None,
                        (Some(one), 0) => DmarcRecords::One(one),
                        (Some(_), more) => DmarcRecords::Several(more + 1),
                    }
                }
            };
            steps.push((name, records));
        }
        if missing.is_empty() { Ok(Self { steps, provenance }) } else { Err(missing) }
    }

    /// The records of the domain itself.
    pub fn own(&self) -> &DmarcRecords {
        self.steps.first().map_or(&DmarcRecords::None, |(_, records)| records)
    }

    /// The organisational domain (§4.10.2): the domain itself if no record determines another.
    ///
    /// # Errors
    /// Why a lookup that matters failed.
    pub fn organizational_domain(&self) -> Result<DomainName, Reason> {
        Ok(self.find()?.organizational)
    }

    /// The record whose policy applies to mail of the domain (§4.10.1): its own, else that of the organisational domain, else
    /// that of the public suffix.
    ///
    /// # Errors
    /// Why a lookup that matters failed.
    pub fn applicable(&self) -> Result<Option<&DmarcRecord>, Reason> {
        match self.own() {
            DmarcRecords::One(record) => return Ok(Some(record)),
            DmarcRecords::Unknown(reason) => return Err(*reason),
            DmarcRecords::None | DmarcRecords::Several(_) => {}
        }
        let Found { organizational, suffix } = self.find()?;
        let record_at = |domain: &DomainName| {
            self.steps.iter().find_map(|(name, records)| match records {
                DmarcRecords::One(record) if name == domain => Some(record),
                _ => None,
            })
        };
        Ok(record_at(&organizational).or_else(|| record_at(suffix?)))
    }

    fn find(&self) -> Result<Found<'_>, Reason> {
        let Some((start, _)) = self.steps.first() else { return Err(Reason::NotADomain) };
        let mut topmost: Option<&DomainName> = None;
        for (name, records) in &self.steps {
            match records {
                DmarcRecords::None | DmarcRecords::Several(_) => {}
                // A record of a top-level domain must have psd=y (§4.7), and then changes nothing for the domain below it.
                DmarcRecords::Unknown(_)
                    if labels(name) == 1 && topmost.is_some_and(|found| labels(found) == 2) => {}
                DmarcRecords::Unknown(reason) => return Err(*reason),
                DmarcRecords::One(record) => match record.public_suffix() {
                    PublicSuffix::No => {
                        return Ok(Found { organizational: name.clone(), suffix: None });
                    }
                    PublicSuffix::Yes if name != start => {
                        let organizational = shortened(start, labels(name).saturating_add(1));
                        return Ok(Found { organizational, suffix: Some(name) });
                    }
                    PublicSuffix::Yes | PublicSuffix::NotStated => topmost = Some(name),
                },
            }
        }
        Ok(Found { organizational: topmost.unwrap_or(start).clone(), suffix: None })
    }
}

/// What a walk leads to.
struct Found<'a> {
    organizational: DomainName,
    /// The public suffix above, if its record says that it is one.
    suffix: Option<&'a DomainName>,
}

fn labels(name: &DomainName) -> u8 {
    name.as_dns().num_labels()
}

/// The last `count` labels of `name`.
fn shortened(name: &DomainName, count: u8) -> DomainName {
    let mut name = name.clone();
    while labels(&name) > count {
        name = name.parent();
    }
    name
}

/// The names of a walk, the longest first.
fn names(domain: &DomainName) -> impl Iterator<Item = DomainName> {
    let above = shortened(&domain.parent(), MAX_LABELS);
    let parents = std::iter::successors(Some(above), |name| Some(name.parent()));
    std::iter::once(domain.clone()).chain(parents.take_while(|name| !name.is_root()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::facts::{Answer, DnsRecord, LookupResult, Source};

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    /// The walk from `domain`, where `records` are `DOMAIN TEXT`, and `DOMAIN servfail`.
    fn walk(domain: &str, records: &[&str]) -> TreeWalk {
        let mut known = Answers::default();
        let missing = TreeWalk::new(&name(domain), &known).unwrap_err();
        assert!(missing.len() <= 8, "{missing:?}");
        for lookup in missing {
            let Lookup::Texts(at) = &lookup else { panic!("{lookup:?}") };
            let texts: Vec<&str> = records
                .iter()
                .filter_map(|record| record.split_once(' '))
                .filter(|(domain, _)| name(&format!("_dmarc.{domain}")) == *at)
                .map(|(_, text)| text)
                .collect();
            let answer = match texts.as_slice() {
                [] => Answer::NxDomain,
                ["servfail"] => Answer::Unknown(Reason::Servfail),
                texts => {
                    let record = |text: &&str| DnsRecord::Text(text.as_bytes().to_vec());
                    Answer::Records(texts.iter().map(record).collect())
                }
            };
            known.insert(lookup, LookupResult { answer, source: Source::Zone, at: None });
        }
        TreeWalk::new(&name(domain), &known).unwrap()
    }

    #[test]
    fn the_names_of_a_walk() {
        let all = |domain: &str| names(&name(domain)).map(|n| n.to_string()).collect::<Vec<_>>();
        // The example of RFC 9989 §4.10.
        assert_eq!(
            all("a.b.c.d.e.f.g.h.i.j.mail.example.com"),
            [
                "a.b.c.d.e.f.g.h.i.j.mail.example.com",
                "g.h.i.j.mail.example.com",
                "h.i.j.mail.example.com",
                "i.j.mail.example.com",
                "j.mail.example.com",
                "mail.example.com",
                "example.com",
                "com"
            ]
            .map(str::to_owned)
            .to_vec()
        );
        assert_eq!(all("com"), ["com"]);
        assert_eq!(all("a.b.c.d.e.f.g.com").len(), 8);
        assert_eq!(all("a.b.c.d.e.f.g.h.com").len(), 8);
    }

    /// Domain, records, organisational domain, domain of the record that applies.
    type Case = (&'static str, &'static [&'static str], &'static str, &'static str);

    #[test]
    fn walks() {
        let cases: &[Case] = &[
            // The examples of RFC 9989 §4.10.2.
            (
                "a.mail.example.com",
                &["mail.example.com v=DMARC1; p=none", "example.com v=DMARC1; p=reject"],
                "example.com",
                "example.com",
            ),
            ("a.mail.example.com", &["com v=DMARC1; p=reject; psd=y"], "example.com", "com"),
            // The own record applies, whatever the organisational domain is.
            (
                "mail.example.com",
                &["mail.example.com v=DMARC1", "example.com v=DMARC1"],
                "example.com",
                "mail.example.com",
            ),
            // psd=n ends the walk, also at the domain itself.
            (
                "a.mail.example.com",
                &["mail.example.com v=DMARC1; psd=n", "example.com v=DMARC1"],
                "mail.example.com",
                "mail.example.com",
            ),
            (
                "mail.example.com",
                &["mail.example.com v=DMARC1; psd=n", "example.com v=DMARC1"],
                "mail.example.com",
                "mail.example.com",
            ),
            // psd=y of the domain itself is about domains below it.
            (
                "gov.example",
                &["gov.example v=DMARC1; psd=y", "example v=DMARC1"],
                "example",
                "gov.example",
            ),
            ("gov.example", &["gov.example v=DMARC1; psd=y"], "gov.example", "gov.example"),
            // The organisational domain is preferred to its public suffix.
            (
                "x.agency.gov.example",
                &["agency.gov.example v=DMARC1", "gov.example v=DMARC1; psd=y"],
                "agency.gov.example",
                "agency.gov.example",
            ),
            (
                "x.y.agency.gov.example",
                &["x.y.agency.gov.example v=DMARC1", "gov.example v=DMARC1; psd=y"],
                "agency.gov.example",
                "x.y.agency.gov.example",
            ),
            // Nothing above the public suffix counts.
            (
                "agency.gov.example",
                &["gov.example v=DMARC1; psd=y", "example v=DMARC1; p=reject"],
                "agency.gov.example",
                "gov.example",
            ),
            // No record at all, and other texts.
            ("a.example.com", &[], "a.example.com", ""),
            ("a.example.com", &["example.com v=spf1 -all"], "a.example.com", ""),
            // Several records count as none.
            (
                "a.example.com",
                &[
                    "a.example.com v=DMARC1",
                    "a.example.com v=DMARC1; p=reject",
                    "example.com v=DMARC1",
                ],
                "example.com",
                "example.com",
            ),
            (
                "a.example.com",
                &["example.com v=DMARC1", "example.com v=DMARC1; p=none"],
                "a.example.com",
                "",
            ),
            // A name with more labels than a walk has names.
            (
                "1.2.3.4.5.6.7.8.9.example.com",
                &["7.8.9.example.com v=DMARC1", "2.3.4.5.6.7.8.9.example.com v=DMARC1; psd=n"],
                "7.8.9.example.com",
                "7.8.9.example.com",
            ),
            (
                "1.2.3.4.5.6.7.8.9.example.com",
                &["5.6.7.8.9.example.com v=DMARC1; psd=y"],
                "4.5.6.7.8.9.example.com",
                "5.6.7.8.9.example.com",
            ),
            // A failed lookup.
            ("a.example.com", &["a.example.com servfail"], "servfail", "servfail"),
            (
                "a.example.com",
                &["a.example.com v=DMARC1", "example.com servfail"],
                "servfail",
                "a.example.com",
            ),
            (
                "a.example.com",
                &["example.com servfail", "com v=DMARC1; psd=y"],
                "servfail",
                "servfail",
            ),
            (
                "a.example.com",
                &["example.com v=DMARC1", "com servfail"],
                "example.com",
                "example.com",
            ),
            (
                "a.example.com",
                &["a.example.com v=DMARC1", "com servfail"],
                "servfail",
                "a.example.com",
            ),
            ("a.example.com", &["com servfail"], "servfail", "servfail"),
            (
                "a.example.com",
                &["a.example.com v=DMARC1; psd=n", "com servfail"],
                "a.example.com",
                "a.example.com",
            ),
        ];
        for (domain, records, organizational, applicable) in cases {
            let walk = walk(domain, records);
            let text =
                |found: Result<String, Reason>| found.unwrap_or_else(|reason| reason.to_string());
            let found = text(walk.organizational_domain().map(|found| found.to_string()));
            assert_eq!(found, *organizational, "{domain} {records:?}");
            let record = walk.applicable();
            let found = text(record.map(|r| r.map(|r| r.domain.to_string()).unwrap_or_default()));
            assert_eq!(found, *applicable, "{domain} {records:?}");
        }
    }
}
