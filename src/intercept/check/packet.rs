//! Hypothetical packets of intercepted mail, as the chains of others see them.

use ipnet::IpNet;

use crate::addr::Family;
use crate::intercept::settings::InterceptSettings;

/// The value of a packet's field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FieldValue {
    /// A number of which the bits in `known` are known.
    Bits {
        value: u64,
        known: u64,
    },
    /// One value in its several spellings.
    Words(&'static [&'static str]),
    Interface(String),
    /// An address of this network.
    Network(IpNet),
    /// The packet lacks it: no condition on it holds.
    Absent,
    /// An address or port of any client.
    Client,
    Unknown,
    Concatenation(Vec<Self>),
}

impl FieldValue {
    pub(super) const fn number(value: u64) -> Self {
        Self::Bits { value, known: u64::MAX }
    }
}

pub(super) const FIN: u64 = 1;
pub(super) const SYN: u64 = 2;
pub(super) const RST: u64 = 4;
pub(super) const ACK: u64 = 16;

#[derive(Clone, Debug)]
pub(super) struct MailPacket {
    pub(super) family: Family,
    pub(super) incoming: FieldValue,
    pub(super) outgoing: FieldValue,
    pub(super) source: FieldValue,
    pub(super) destination: FieldValue,
    pub(super) source_port: FieldValue,
    pub(super) destination_port: FieldValue,
    pub(super) tcp_flags: u64,
    /// Spellings of the state that connection tracking gives it.
    pub(super) state: &'static [&'static str],
    pub(super) mark: FieldValue,
    /// Whether a transparent socket of the gateway takes or sends it.
    pub(super) is_ours: bool,
}

const NEW: &[&str] = &["new"];
const ESTABLISHED: &[&str] = &["established"];

impl MailPacket {
    /// The first packet of a client to one of `destinations`, on its way to the gateway.
    pub(super) fn arriving(
        settings: &InterceptSettings,
        interface: &str,
        destination: IpNet,
        port: u16,
    ) -> Self {
        Self {
            family: Family::of(destination.addr()),
            incoming: FieldValue::Interface(interface.to_owned()),
            outgoing: FieldValue::Interface(String::new()),
            source: FieldValue::Client,
            destination: FieldValue::Network(destination),
            source_port: FieldValue::Client,
            destination_port: FieldValue::number(port.into()),
            tcp_flags: SYN,
            state: NEW,
            mark: FieldValue::Bits { value: settings.mark.into(), known: settings.mask.into() },
            is_ours: true,
        }
    }

    /// The same packet, forwarded as it would be without the gateway.
    pub(super) fn forwarded(
        settings: &InterceptSettings,
        interface: &str,
        destination: IpNet,
        port: u16,
        outgoing: Option<String>,
    ) -> Self {
        Self {
            outgoing: outgoing.map_or(FieldValue::Unknown, FieldValue::Interface),
            mark: FieldValue::Unknown,
            is_ours: false,
            ..Self::arriving(settings, interface, destination, port)
        }
    }

    /// The gateway's connection to a server, in the name of a client.
    pub(super) fn to_server(
        settings: &InterceptSettings,
        server: IpNet,
        port: u16,
        outgoing: Option<String>,
    ) -> Self {
        Self {
            family: Family::of(server.addr()),
            incoming: FieldValue::Interface(String::new()),
            outgoing: outgoing.map_or(FieldValue::Unknown, FieldValue::Interface),
            source: FieldValue::Client,
            destination: FieldValue::Network(server),
            source_port: FieldValue::Client,
            destination_port: FieldValue::number(port.into()),
            tcp_flags: SYN,
            state: NEW,
            mark: FieldValue::Bits {
                value: settings.own_mark().into(),
                known: settings.mask.into(),
            },
            is_ours: true,
        }
    }

    /// The server's answer to it.
    pub(super) fn from_server(
        settings: &InterceptSettings,
        server: IpNet,
        port: u16,
        interface: Option<String>,
    ) -> Self {
        Self {
            family: Family::of(server.addr()),
            incoming: interface.map_or(FieldValue::Unknown, FieldValue::Interface),
            outgoing: FieldValue::Interface(String::new()),
            source: FieldValue::Network(server),
            destination: FieldValue::Client,
            source_port: FieldValue::number(port.into()),
            destination_port: FieldValue::Client,
            tcp_flags: SYN | ACK,
            state: ESTABLISHED,
            mark: FieldValue::Bits { value: settings.mark.into(), known: settings.mask.into() },
            is_ours: true,
        }
    }

    pub(super) fn words_of_family(&self) -> &'static [&'static str] {
        match self.family {
            Family::Ipv4 => &["ipv4", "ip", "2"],
            Family::Ipv6 => &["ipv6", "ip6", "10"],
        }
    }
}
