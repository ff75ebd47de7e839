//! Recorded dialogues for the observer.

use gatepost::addr::{ClientAddr, OriginalDst, Side};
use gatepost::engine::{
    BareNewlines, Observer, Output, Pregreet, Profile, SessionRecord, TcpFacts,
};

use super::engine::driver::START;
use super::unescaped;

/// A recorded dialogue: the first octet chooses the options, then each line is `C…`, `S…` (sent with CRLF), `c…`, `s…`
/// (without), `g…`, `h…` (a gap of that length on the client's or server's side), `o…`, `p…` (an omission), `m` (the
/// last text a hundred times), `x`, `y` (that side closes).
pub(crate) fn session(input: &[u8]) {
    let Some((&options, script)) = input.split_first() else {
        return;
    };
    let mut profile = Profile::default();
    if options & 1 != 0 {
        profile.smtp.pregreet = Pregreet::Reject;
        profile.smtp.bare_newlines = BareNewlines::Reject;
        (profile.limits.commands, profile.limits.errors) = (10, 3);
    }
    let inputs = parse(script);
    let whole = observe(&profile, options & 2 != 0, &inputs);
    let single: Vec<Input> = inputs.iter().flat_map(Input::bytewise).collect();
    assert_eq!(observe(&profile, options & 2 != 0, &single), whole, "one octet at a time");
}

enum Input {
    Data(Side, Vec<u8>),
    Gap(Side, u64),
    Omitted(Side, u64),
    Closed(Side),
}

impl Input {
    fn bytewise(&self) -> Vec<Self> {
        match self {
            Self::Data(side, octets) => {
                octets.iter().map(|&b| Self::Data(*side, vec![b])).collect()
            }
            Self::Gap(side, length) => vec![Self::Gap(*side, *length)],
            Self::Omitted(side, length) => vec![Self::Omitted(*side, *length)],
            Self::Closed(side) => vec![Self::Closed(*side)],
        }
    }
}

fn parse(script: &[u8]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for line in script.split(|&b| b == b'\n') {
        let Some((&what, text)) = line.split_first() else {
            continue;
        };
        let side = |of_client: u8| if what == of_client { Side::Client } else { Side::Server };
        match what {
            b'C' | b'S' => {
                inputs.push(Input::Data(side(b'C'), [unescaped(text), b"\r\n".into()].concat()))
            }
            b'c' | b's' => inputs.push(Input::Data(side(b'c'), unescaped(text))),
            b'g' | b'h' => {
                let length = std::str::from_utf8(text).ok().and_then(|n| n.parse().ok());
                inputs.push(Input::Gap(side(b'g'), length.unwrap_or(1)));
            }
            b'o' | b'p' => {
                let length = std::str::from_utf8(text).ok().and_then(|n| n.parse().ok());
                inputs.push(Input::Omitted(side(b'o'), length.unwrap_or(1)));
            }
            b'm' => {
                if let Some(Input::Data(side, octets)) = inputs.last()
                    && octets.len() <= 1000
                {
                    inputs.push(Input::Data(*side, octets.repeat(100)));
                }
            }
            b'x' | b'y' => inputs.push(Input::Closed(side(b'x'))),
            _ => {}
        }
    }
    inputs
}

fn observe(profile: &Profile, midstream: bool, inputs: &[Input]) -> SessionRecord {
    let client = ClientAddr::new("[2001:db8::1]:4000".parse().unwrap());
    let server = OriginalDst::new("[2001:db8::2]:25".parse().unwrap());
    let profile = profile.clone().into();
    let mut observer = Observer::new(profile, client, server, START, midstream);
    let mut out = Output::default();
    let mut sent = 0;
    for input in inputs {
        match input {
            Input::Data(side, octets) => {
                sent += octets.len();
                observer.on_data(*side, octets, START, &mut out);
            }
            Input::Gap(side, length) => observer.on_gap(*side, *length, START, &mut out),
            Input::Omitted(side, length) => observer.on_omitted(*side, *length, START, &mut out),
            Input::Closed(side) => observer.on_closed(*side, START, &mut out),
        }
        assert!(out.actions.is_empty(), "an observer emits no actions");
        assert!(observer.held_bytes() <= sent.min(256 << 10), "memory is bounded");
        out.clear();
    }
    let mut record = observer.finish(TcpFacts::default(), START, &mut out);
    record.smtp.anomalies.sort_unstable();
    record
}
