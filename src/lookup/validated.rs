//! Answers with the resolver's validation of them, which only the domain check looks up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TLSA;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::time::Instant;

use super::cname::MAX_ALIASES;
use super::dns::Dns;
use super::dns_exchange::{exchange, query};
use crate::policy::facts::{DomainName, Reason};
use crate::readiness::{
    CaaRecord, ExtendedError, TlsaRecord, ValidatedAnswer, ValidatedOutcome, ValidatedRecord,
    ValidatedType, ValidationFailure,
};
use crate::time::Timestamp;

/// EDNS option of RFC 8914.
const EXTENDED_ERROR: u16 = 15;

impl Dns {
    /// The records of `name`, and whether the resolver has verified them. Answers no later than the deadline.
    pub async fn validated(&self, name: &DomainName, kind: ValidatedType) -> ValidatedAnswer {
        let end = Instant::now() + self.deadline();
        let response = match self.ask(name, kind, false, end).await {
            Ok(response) => response,
            Err(reason) => return ValidatedAnswer::failed(name.clone(), reason),
        };
        let mut answer = answer(name, kind, &response);
        if let ValidatedOutcome::Failed(failure) = &mut answer.outcome
            && let Ok(response) = self.ask(name, kind, true, end).await
        {
            let code = response.metadata.response_code;
            failure.answers_unchecked =
                matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
            failure.expired_at = expired_at(&response, SystemTime::now());
        }
        answer
    }

    /// Asks one server after the other.
    async fn ask(
        &self,
        name: &DomainName,
        kind: ValidatedType,
        checking_disabled: bool,
        end: Instant,
    ) -> Result<Message, Reason> {
        let mut query = query(name, record_type(kind));
        query.metadata.recursion_desired = true;
        query.metadata.authentic_data = true;
        query.metadata.checking_disabled = checking_disabled;
        let mut failed = Err(Reason::NoResolver);
        let mut left = u32::try_from(self.servers().len()).unwrap_or(1);
        for server in self.servers() {
            let limit: Duration = end.saturating_duration_since(Instant::now()) / left.max(1);
            left = left.saturating_sub(1);
            match exchange(*server, &query, limit).await {
                Ok(response) if response.metadata.response_code != ResponseCode::Refused => {
                    return Ok(response);
                }
                Ok(_) => failed = Err(Reason::Servfail),
                Err(why) => failed = Err(why.reason()),
            }
        }
        failed
    }
}

const fn record_type(kind: ValidatedType) -> RecordType {
    match kind {
        ValidatedType::Soa => RecordType::SOA,
        ValidatedType::Ns => RecordType::NS,
        ValidatedType::Tlsa => RecordType::TLSA,
        ValidatedType::Caa => RecordType::CAA,
    }
}

fn answer(name: &DomainName, kind: ValidatedType, response: &Message) -> ValidatedAnswer {
    let of_type = response.answers.iter().filter(|one| one.record_type() == record_type(kind));
    let mut of_type = of_type.peekable();
    let outcome = match response.metadata.response_code {
        ResponseCode::NoError if of_type.peek().is_some() => {
            ValidatedOutcome::Records(of_type.filter_map(|one| record(&one.data)).collect())
        }
        ResponseCode::NoError => ValidatedOutcome::NoRecord,
        ResponseCode::NXDomain => ValidatedOutcome::NxDomain,
        _ => {
            let failure = ValidationFailure::new(Reason::Servfail, extended_errors(response));
            ValidatedOutcome::Failed(failure)
        }
    };
    let mut sections = response.answers.iter().chain(&response.authorities);
    let is_signed = sections.clone().any(|one| one.record_type() == RecordType::RRSIG);
    let soa = sections.find(|one| one.record_type() == RecordType::SOA);
    ValidatedAnswer {
        outcome,
        is_authentic: response.metadata.authentic_data,
        is_signed,
        zone: soa.map(|one| one.name.clone().into()),
        canonical: canonical(name, &response.answers),
    }
}

/// Follows the aliases in an answer.
fn canonical(name: &DomainName, answers: &[Record]) -> DomainName {
    let mut name = name.clone();
    for _ in 0..=MAX_ALIASES {
        let target = answers.iter().find_map(|one| match &one.data {
            RData::CNAME(target) if DomainName::from(one.name.clone()) == name => {
                Some(DomainName::from(target.0.clone()))
            }
            _ => None,
        });
        match target {
            Some(target) => name = target,
            None => break,
        }
    }
    name
}

/// The end of the first signature that is over.
fn expired_at(response: &Message, now: SystemTime) -> Option<Timestamp> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut records = response.answers.iter().chain(&response.authorities);
    let end = records.find_map(|one| signature_end(&one.data).filter(|end| *end < now))?;
    Some(Timestamp::from_system_time(UNIX_EPOCH + Duration::from_secs(end)))
}

/// RFC 4034 §3.1: type, algorithm, labels, TTL, then the end in seconds since 1970.
fn signature_end(data: &RData) -> Option<u64> {
    let RData::Unknown { code: RecordType::RRSIG, rdata } = data else { return None };
    let end = rdata.anything.get(8..12)?.try_into().ok()?;
    Some(u32::from_be_bytes(end).into())
}

fn record(data: &RData) -> Option<ValidatedRecord> {
    Some(match data {
        RData::NS(host) => ValidatedRecord::NameServer(host.0.clone().into()),
        RData::TLSA(tlsa) => ValidatedRecord::Tlsa(tlsa_record(tlsa)),
        RData::CAA(caa) => ValidatedRecord::Caa(CaaRecord {
            is_critical: caa.issuer_critical,
            tag: caa.tag.clone(),
            value: caa.value.clone(),
        }),
        _ => return None,
    })
}

fn tlsa_record(tlsa: &TLSA) -> TlsaRecord {
    TlsaRecord {
        usage: tlsa.cert_usage.into(),
        selector: tlsa.selector.into(),
        matching: tlsa.matching.into(),
        data: tlsa.cert_data.clone(),
    }
}

/// RFC 8914 §2: a code of two octets, then text.
fn extended_errors(response: &Message) -> Vec<ExtendedError> {
    let Some(edns) = &response.edns else { return Vec::new() };
    let options = edns.options().get_all(EdnsCode::Unknown(EXTENDED_ERROR));
    let error = |option: &EdnsOption| match option {
        EdnsOption::Unknown(_, octets) => {
            let (code, text) = octets.split_first_chunk::<2>()?;
            let text = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
            Some(ExtendedError { code: u16::from_be_bytes(*code), text })
        }
        _ => None,
    };
    options.into_iter().filter_map(error).collect()
}
