//! Whether a server answers at one of the addresses where mail for the sender goes.
//!
//! To be polite, at most [`MAX_PROBED`] addresses are tried for one sender, and no more than one of each family at a time.

use std::net::IpAddr;

use super::basis::Basis;
use super::{Answer, Answers, Detail, DomainName, Fact, Level, Lookup, LookupResult, Reason, Step};
use crate::addr::Family;

/// Addresses that are tried for one sender, those of the preferred exchanges first.
pub const MAX_PROBED: usize = 6;

/// Where mail for the sender goes, as far as the DNS tells.
pub(super) struct Places<'a> {
    /// The exchange, none for an address literal, and its address; each address once, in order of preference.
    found: Vec<(Option<&'a DomainName>, IpAddr)>,
    /// What the DNS was not asked yet. Places before it are certain, those after it are not in [`Self::found`].
    needed: Vec<Lookup>,
    /// An address may be missing because the DNS could not be asked.
    unknown: Option<(Reason, Basis)>,
    /// The first address that is of no use to anybody.
    unfit: Option<(&'a DomainName, IpAddr)>,
    /// What all of this rests on.
    basis: Basis,
}

impl<'a> Places<'a> {
    pub(super) fn literal(address: IpAddr) -> Self {
        Self {
            found: vec![(None, address)],
            needed: Vec::new(),
            unknown: None,
            unfit: None,
            basis: Basis::BEGIN,
        }
    }

    /// The addresses of `exchanges` over `families` that are `fit`. Within one exchange the families take turns, so that
    /// many addresses of one do not keep the other from being tried. `before` is what named the exchanges.
    pub(super) fn of(
        exchanges: &[&'a DomainName],
        families: &[Family],
        fit: impl Fn(IpAddr) -> bool,
        before: Basis,
        known: &Answers,
    ) -> Self {
        let mut places = Self {
            found: Vec::new(),
            needed: Vec::new(),
            unknown: None,
            unfit: None,
            basis: before,
        };
        for &name in exchanges {
            if places.found.len() == MAX_PROBED {
                break;
            }
            let mut columns = Vec::with_capacity(families.len());
            for &family in families {
                let lookup = Lookup::Addresses(name.clone(), family);
                match known.get(&lookup) {
                    Some(answered) => columns.push(places.column(name, answered, &fit)),
                    None => places.needed.push(lookup),
                }
            }
            // What comes after a gap is not certain to be among those that are tried.
            if places.needed.is_empty() {
                places.take_turns(name, columns);
            }
        }
        places
    }

    fn column(
        &mut self,
        name: &'a DomainName,
        answered: &LookupResult,
        fit: impl Fn(IpAddr) -> bool,
    ) -> Vec<IpAddr> {
        self.basis = self.basis.and(Basis::of(answered));
        match answered.answer.addresses() {
            Ok(addresses) => {
                let (mut fits, unfit): (Vec<_>, Vec<_>) = addresses.partition(|ip| fit(*ip));
                if let Some(address) = unfit.first() {
                    self.unfit.get_or_insert((name, *address));
                }
                // Servers rotate what they answer: sorted, the same records give the same fact.
                fits.sort_unstable();
                fits
            }
            Err(reason) => {
                self.unknown.get_or_insert((reason, Basis::of(answered)));
                Vec::new()
            }
        }
    }

    fn take_turns(&mut self, name: &'a DomainName, columns: Vec<Vec<IpAddr>>) {
        let longest = columns.iter().map(Vec::len).max().unwrap_or_default();
        let turns = (0..longest).flat_map(|n| columns.iter().filter_map(move |c| c.get(n)));
        for address in turns {
            if self.found.len() == MAX_PROBED {
                return;
            }
            if self.found.iter().all(|(_, known)| known != address) {
                self.found.push((Some(name), *address));
            }
        }
    }

    /// Whether one of them answers as far as `level`, which is beyond the DNS. One that does is enough; all must fail for
    /// the fact to fail.
    pub(super) fn probed(self, level: Level, sender: &str, known: &Answers) -> Step {
        let tell = |(name, address): (Option<&DomainName>, IpAddr)| match name {
            Some(name) => Detail::host(name, address),
            None => Detail::Address(address),
        };
        let mut ask: Vec<(Family, Lookup)> = Vec::new();
        let mut unknown = self.unknown;
        let mut failed: Option<(Reason, Detail)> = None;
        let mut basis = self.basis;
        for &place in &self.found {
            let lookup = level.lookup(place.1, sender);
            let Some(answered) = known.get(&lookup) else {
                let family = Family::of(place.1);
                if ask.iter().all(|(asked, _)| *asked != family) {
                    ask.push((family, lookup));
                }
                continue;
            };
            match level.told(&answered.answer) {
                Told::Yes => {
                    let basis = self.basis.and(Basis::of(answered));
                    return Step::Fact(Fact::holds(basis, Some(tell(place))));
                }
                Told::No(reason) => {
                    basis = basis.and(Basis::of(answered));
                    failed.get_or_insert_with(|| (reason, tell(place)));
                }
                Told::Unknown(reason) => {
                    unknown.get_or_insert((reason, Basis::of(answered)));
                }
            }
        }
        let need: Vec<_> = ask.into_iter().map(|(_, lookup)| lookup).chain(self.needed).collect();
        if !need.is_empty() {
            return Step::Need(need);
        }
        Step::Fact(match (unknown, failed, self.unfit) {
            (Some((reason, basis)), ..) => Fact::unknown(reason, basis),
            (None, Some((reason, detail)), _) => Fact::fails(reason, basis, Some(detail)),
            (None, None, unfit) => {
                let detail = unfit.map(|(name, address)| Detail::host(name, address));
                Fact::fails(Reason::NoUsableAddress, basis, detail)
            }
        })
    }
}

/// What an answer says of the sender.
enum Told {
    Yes,
    No(Reason),
    Unknown(Reason),
}

impl Level {
    fn lookup(self, address: IpAddr, sender: &str) -> Lookup {
        match self {
            Self::Dns | Self::Tcp => Lookup::Connect(address),
            Self::Smtp => Lookup::Greet(address),
            Self::Rcpt => Lookup::Callout(address, sender.to_owned()),
        }
    }

    /// A callout proves nothing against a mailbox unless the mailbox itself was refused: what comes before that, or does
    /// not come, may be about us.
    fn told(self, answer: &Answer) -> Told {
        match answer {
            Answer::Yes(_) => Told::Yes,
            Answer::No(reason, _) if self != Self::Rcpt || *reason == Reason::NoSuchMailbox => {
                Told::No(*reason)
            }
            Answer::No(reason, _) | Answer::Unknown(reason) => Told::Unknown(*reason),
            // No answer to a question of this kind.
            Answer::Records(_) | Answer::NoData | Answer::NxDomain => {
                Told::Unknown(Reason::NoSource)
            }
        }
    }
}
