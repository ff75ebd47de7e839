//! Model test: whatever clients of one network do, both doors are in the states in which they would be without them, apart from
//! proof. Other networks send ordinary mail, and a few of their sessions stall, fewer than are needed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::addr::Family;
use crate::time::Timestamp;

const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
/// Seconds.
const END: u64 = 1_200;

fn settings() -> DoorSettings {
    let seconds = Duration::from_secs;
    DoorSettings {
        agreeing_networks: 3,
        stall_threshold: 1,
        stall_duration: seconds(1),
        grace: seconds(0),
        min_hold: seconds(5),
        retry: seconds(20),
        retry_max: seconds(40),
        ..DoorSettings::default()
    }
}

/// A session as its fields, but for client and end.
#[derive(Clone, Debug)]
struct Play {
    family: Family,
    /// Within the network.
    host: u64,
    start: u64,
    lasts: u64,
    content: (bool, bool, u64),
    ended_by: SessionEnd,
    code: Option<Option<u16>>,
    encrypted: Option<EncryptedExchange>,
    has_envelope: bool,
    upstream: UpstreamContact,
    destination: u16,
}

fn exchange() -> impl Strategy<Value = EncryptedExchange> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (0_u64..10_000, 0_u64..10_000, 0_u32..8, flags, 0_u64..400).prop_map(
        |(
            client_bytes,
            server_bytes,
            replies,
            (has_hello, is_complete, client_is_due),
            silence,
        )| {
            EncryptedExchange {
                client_bytes,
                server_bytes,
                replies,
                has_hello,
                is_complete,
                client_is_due,
                silence: Duration::from_secs(silence),
            }
        },
    )
}

fn play() -> impl Strategy<Value = Play> {
    let ends = [SessionEnd::Client, SessionEnd::Upstream, SessionEnd::Timeout, SessionEnd::Other];
    let contacts = [UpstreamContact::Connected, UpstreamContact::Failed, UpstreamContact::Unknown];
    let codes = [None, Some(None), Some(Some(421)), Some(Some(550))];
    (
        prop::sample::select(Family::ALL.to_vec()),
        any::<u64>(),
        (0..END, 0_u64..400),
        (any::<bool>(), any::<bool>(), 0_u64..10_000),
        prop::sample::select(ends.to_vec()),
        prop::sample::select(codes.to_vec()),
        (prop::option::of(exchange()), any::<bool>()),
        prop::sample::select(contacts.to_vec()),
        0_u16..2,
    )
        .prop_map(
            |(
                family,
                host,
                (start, lasts),
                content,
                ended_by,
                code,
                (encrypted, has_envelope),
                upstream,
                destination,
            )| Play {
                family,
                host,
                start,
                lasts,
                content,
                ended_by,
                code,
                encrypted,
                has_envelope,
                upstream,
                destination,
            },
        )
}

impl Play {
    fn session(&self, client: IpAddr) -> InboundSession {
        let at = |seconds| START + Duration::from_secs(seconds);
        let (content_started, content_complete, client_bytes) = self.content;
        InboundSession {
            client,
            destination: (Ipv4Addr::new(203, 0, 113, 25), 25 + self.destination).into(),
            start: at(self.start),
            end: at(self.start + self.lasts),
            accepted: None,
            received: None,
            has_envelope: self.has_envelope,
            content_started,
            content_complete,
            client_bytes,
            ended_by: self.ended_by,
            last_transaction: self.code,
            encrypted: self.encrypted,
            upstream: self.upstream,
        }
    }

    /// From a host of the network `number` of its family.
    fn of_network(&self, number: u8) -> InboundSession {
        self.session(match self.family {
            Family::Ipv4 => Ipv4Addr::new(198, 51, number, (self.host % 256) as u8).into(),
            Family::Ipv6 => {
                let network = u128::from(0x2001_0db8_u32) << 96 | u128::from(number) << 80;
                Ipv6Addr::from(network | u128::from(self.host)).into()
            }
        })
    }
}

/// An accepted message, of any size.
fn mail(family: Family, network: u8, start: u64, bytes: u64) -> InboundSession {
    let play = Play {
        family,
        host: 1,
        start,
        lasts: 1,
        content: (true, true, bytes),
        ended_by: SessionEnd::Other,
        code: Some(Some(250)),
        encrypted: None,
        has_envelope: false,
        upstream: UpstreamContact::Connected,
        destination: 0,
    };
    InboundSession { accepted: Some(bytes), ..play.of_network(network) }
}

/// The states of both doors in each second.
fn states(mut sessions: Vec<InboundSession>) -> Vec<[DoorState; 2]> {
    sessions.sort_by_key(|session| session.end);
    let mut sessions = sessions.into_iter().peekable();
    let mut evidence = InboundEvidence::default();
    let mut doors = Family::ALL.map(|family| Door::new(family, settings(), START));
    (0..END)
        .map(|second| {
            let now = START + Duration::from_secs(second);
            while let Some(session) = sessions.next_if(|session| session.end <= now) {
                evidence.on_session(&session);
            }
            let mut inputs = Family::ALL.map(|family| FamilyInputs {
                signals: evidence.of(family, &settings(), now).into(),
                settings: settings(),
                is_served: true,
                is_closed: !doors[family as usize].admits(),
                mx_has_address: Some(true),
            });
            for family in Family::ALL {
                let door = &mut doors[family as usize];
                let change = door.update(&signals_of(family, &inputs, now), now);
                inputs[family as usize].is_closed = !door.admits();
                if change.is_some_and(|change| change.from.admits() != change.to.admits()) {
                    evidence.clear_stalled(family, now);
                }
            }
            doors.each_ref().map(Door::state)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn one_network_changes_no_door(
        attack in prop::collection::vec(play(), 1..60),
        stalls in prop::collection::vec(play(), 0..6),
        mails in prop::collection::vec((any::<bool>(), 3_u8..200, 0..END, 1_u64..10_000), 0..40),
    ) {
        let mut background: Vec<_> = mails
            .into_iter()
            .map(|(is_v6, network, start, bytes)| {
                mail(if is_v6 { Family::Ipv6 } else { Family::Ipv4 }, network, start, bytes)
            })
            .collect();
        // One other network of each family stalls as well; with the third the doors would close.
        background.extend(stalls.iter().map(|play| play.of_network(2)));
        let is_proof = |session: &InboundSession| {
            // Also bytes that disprove a black hole, and a connection that finds the upstream.
            let is_large = session.encrypted.is_some_and(|exchange| exchange.client_bytes >= 8_192);
            InboundEvidence::default().on_session(session)
                || is_large
                || session.upstream == UpstreamContact::Connected
        };
        let attack = attack.iter().map(|play| play.of_network(1));
        let attack: Vec<_> = attack.filter(|session| !is_proof(session)).collect();
        let without = states(background.clone());
        background.extend(attack);
        prop_assert_eq!(states(background), without);
    }

    /// What the test above would not see if nothing closed a door: three networks do.
    #[test]
    fn three_networks_close_a_door(start in 0_u64..300, hosts in prop::collection::vec(any::<u64>(), 3)) {
        let stall = |network: usize| Play {
            family: Family::Ipv6,
            host: hosts[network],
            start: start + 2 * network as u64,
            lasts: 30,
            content: (true, false, 300),
            ended_by: SessionEnd::Timeout,
            code: Some(Some(421)),
            encrypted: None,
            has_envelope: false,
            upstream: UpstreamContact::Connected,
            destination: 0,
        };
        let mut sessions: Vec<_> =
            (0..3).map(|network| stall(network).of_network(network as u8)).collect();
        sessions.push(mail(Family::Ipv4, 9, start + 20, 100));
        let closed = |states: Vec<[DoorState; 2]>| {
            states.iter().any(|[_, ipv6]| *ipv6 == DoorState::Closed)
        };
        prop_assert!(closed(states(sessions.clone())));
        sessions.remove(0);
        prop_assert!(!closed(states(sessions)));
    }
}
