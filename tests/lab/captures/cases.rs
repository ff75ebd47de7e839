//! The cases of `captures/`, each with claims in the form of tshark display filters. A new recording is written only if all
//! its claims hold, and a test checks those in the repository.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/captures");

/// A case, in its folder.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// TCP connections.
    flows: usize,
    claims: &'static [Claim],
}

/// A description, a display filter (without a comma), and the number of packets that match it.
struct Claim(&'static str, &'static str, Count);

#[derive(Clone, Copy)]
enum Count {
    Exactly(usize),
    AtLeast(usize),
}
use Count::{AtLeast, Exactly};

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exactly(count) => write!(f, "{count}"),
            AtLeast(count) => write!(f, "{count} or more"),
        }
    }
}

impl Count {
    fn fits(self, found: usize) -> bool {
        match self {
            Exactly(count) => found == count,
            AtLeast(count) => found >= count,
        }
    }
}

pub(super) fn case(name: &str) -> &'static Case {
    CASES.iter().find(|case| case.name == name).expect("a case of that name in cases.rs")
}

impl Case {
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(CAPTURES).join(self.name)
    }

    /// The claims that a recording does not fulfil, a line each.
    pub(super) fn failed_claims(&self, recording: &Path) -> Vec<String> {
        // tshark numbers TCP connections from 0.
        let (last, more) = (self.flows - 1, self.flows);
        let flows = [
            (format!("connection {more}"), format!("tcp.stream == {last}"), AtLeast(1)),
            ("another connection".to_owned(), format!("tcp.stream == {more}"), Exactly(0)),
        ];
        let claims = EVERYWHERE.iter().chain(self.claims);
        let claims = claims.map(|&Claim(what, filter, count)| (what.into(), filter.into(), count));
        let claims: Vec<(String, String, Count)> = flows.into_iter().chain(claims).collect();

        let filters: Vec<&str> = claims.iter().map(|(_, filter, _)| filter.as_str()).collect();
        let found = counts(recording, &filters);
        let pairs = claims.iter().zip(found);
        let failed = pairs.filter(|((_, _, expected), found)| !expected.fits(*found));
        let lines = failed.map(|((what, filter, expected), found)| {
            format!("{what}: expected {expected}, found {found} of `{filter}`")
        });
        lines.collect()
    }
}

/// The number of packets that match each display filter, in one run of tshark, which is slow to start.
fn counts(recording: &Path, filters: &[&str]) -> Vec<usize> {
    let statistics = format!("io,stat,0,{}", filters.join(","));
    let table = tshark(recording, &["-q", "-z", &statistics]);
    // | 0.000 <> 4.115 | frames | bytes | frames | bytes | ...
    let row = table.lines().find(|line| line.contains(" <> ")).unwrap_or_default();
    let frames = row.split('|').skip(2).step_by(2);
    let counts: Vec<usize> = frames.filter_map(|cell| cell.trim().parse().ok()).collect();
    assert_eq!(counts.len(), filters.len(), "a count for each filter in:\n{table}");
    counts
}

/// The numbers of the packets that match a display filter.
pub(super) fn frames(recording: &Path, filter: &str) -> Vec<String> {
    let listing = tshark(recording, &["-Y", filter, "-T", "fields", "-e", "frame.number"]);
    listing.lines().map(str::to_owned).collect()
}

fn tshark(recording: &Path, arguments: &[&str]) -> String {
    let mut tshark = Command::new("tshark");
    tshark.args(["-o", "tcp.check_checksum:TRUE", "-r"]).arg(recording).args(arguments);
    let output = tshark.output().expect("tshark (Debian: tshark)");
    assert!(output.status.success(), "{tshark:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const EVERYWHERE: &[Claim] = &[
    // ICMP quotes the start of a segment only.
    Claim("wrong checksums", "tcp.checksum.status == 0 && !icmp && !icmpv6", Exactly(0)),
    Claim("right checksums", "tcp.checksum.status == 1", AtLeast(1)),
];

/// In the order of the index.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "plain-ipv6",
        flows: 1,
        claims: &[
            Claim("greeting over IPv6", "ipv6 && smtp.response.code == 220", Exactly(1)),
            Claim("nothing over IPv4", "ip", Exactly(0)),
            Claim("go ahead", "smtp.response.code == 354", Exactly(1)),
            Claim("accepted", "smtp.rsp.parameter contains \"queued as\"", Exactly(1)),
            Claim("goodbye", "smtp.response.code == 221", Exactly(1)),
            Claim("both sides close", "tcp.flags.fin == 1", Exactly(2)),
        ],
    },
    Case {
        name: "plain-ipv4",
        flows: 1,
        claims: &[
            Claim("greeting over IPv4", "ip && smtp.response.code == 220", Exactly(1)),
            Claim("nothing over IPv6", "ipv6", Exactly(0)),
            Claim("go ahead", "smtp.response.code == 354", Exactly(1)),
            Claim("accepted", "smtp.rsp.parameter contains \"queued as\"", Exactly(1)),
            Claim("goodbye", "smtp.response.code == 221", Exactly(1)),
            Claim("both sides close", "tcp.flags.fin == 1", Exactly(2)),
        ],
    },
    Case {
        name: "ipv6-unanswered",
        flows: 2,
        claims: &[
            Claim(
                "IPv6 is tried first, and again",
                "ipv6 && tcp.stream == 0 && tcp.flags.syn == 1",
                AtLeast(2),
            ),
            Claim("no answer", "ipv6 && tcp.srcport == 25", Exactly(0)),
            Claim("no ICMP error", "icmpv6 || icmp", Exactly(0)),
            Claim("IPv4 answers", "ip && tcp.stream == 1 && smtp.response.code == 220", Exactly(1)),
            Claim("accepted", "ip && smtp.rsp.parameter contains \"queued as\"", Exactly(1)),
        ],
    },
    Case {
        name: "ipv6-refused",
        flows: 2,
        claims: &[
            Claim(
                "IPv6 is tried once",
                "ipv6 && tcp.stream == 0 && tcp.flags.syn == 1",
                Exactly(1),
            ),
            Claim("RST", "ipv6 && tcp.srcport == 25 && tcp.flags.reset == 1", Exactly(1)),
            Claim("IPv4 answers", "ip && tcp.stream == 1 && smtp.response.code == 220", Exactly(1)),
            Claim("accepted", "ip && smtp.rsp.parameter contains \"queued as\"", Exactly(1)),
        ],
    },
    Case {
        name: "ipv6-unreachable",
        flows: 2,
        claims: &[
            Claim(
                "IPv6 is tried first",
                "ipv6 && tcp.stream == 0 && tcp.flags.syn == 1 && !icmpv6",
                AtLeast(1),
            ),
            Claim("no route to there", "icmpv6.type == 1 && icmpv6.code == 0", AtLeast(1)),
            Claim("IPv4 answers", "ip && tcp.stream == 1 && smtp.response.code == 220", Exactly(1)),
            Claim("accepted", "ip && smtp.rsp.parameter contains \"queued as\"", Exactly(1)),
        ],
    },
    Case {
        name: "packet-too-big",
        flows: 1,
        claims: &[
            Claim("packet too big, MTU 1280", "icmpv6.type == 2 && icmpv6.mtu == 1280", AtLeast(1)),
            Claim(
                "what was too big",
                "ipv6.plen == 1460 && tcp.dstport == 25 && !icmpv6",
                AtLeast(1),
            ),
            Claim("the sender has learnt", "ipv6.plen == 1240 && tcp.dstport == 25", AtLeast(4)),
            Claim("accepted", "smtp.rsp.parameter contains \"queued as\"", Exactly(1)),
        ],
    },
    Case {
        name: "pmtu-black-hole",
        flows: 2,
        claims: &[
            Claim("IPv6 works at first", "ipv6 && smtp.response.code == 354", Exactly(1)),
            Claim(
                "what was too big",
                "ipv6.plen == 1460 && tcp.analysis.retransmission",
                AtLeast(3),
            ),
            Claim("no ICMPv6 error", "icmpv6", Exactly(0)),
            Claim(
                "nothing is accepted over IPv6",
                "ipv6 && smtp.rsp.parameter contains \"queued as\"",
                Exactly(0),
            ),
            Claim(
                "accepted over IPv4",
                "ip && tcp.stream == 1 && smtp.rsp.parameter contains \"queued as\"",
                Exactly(1),
            ),
        ],
    },
    Case {
        name: "dns",
        flows: 2,
        claims: &[
            Claim("MX", "dns.flags.response == 1 && dns.resp.type == 15", AtLeast(1)),
            Claim("AAAA", "dns.flags.response == 1 && dns.aaaa == 2001:db8:2::25", AtLeast(1)),
            Claim("A", "dns.flags.response == 1 && dns.a == 198.51.100.25", AtLeast(1)),
            Claim(
                "IPv6 is tried first",
                "ipv6 && tcp.stream == 0 && tcp.flags.syn == 1",
                AtLeast(1),
            ),
            Claim("no answer", "ipv6 && tcp.srcport == 25", Exactly(0)),
            Claim("accepted", "ip && smtp.rsp.parameter contains \"queued as\"", Exactly(1)),
        ],
    },
    Case {
        name: "ptr-refused",
        flows: 2,
        claims: &[
            Claim(
                "no reverse name over IPv6",
                "dns.flags.rcode == 3 && dns.qry.type == 12 && dns.qry.name contains \"ip6.arpa\"",
                AtLeast(1),
            ),
            Claim(
                "a reverse name over IPv4",
                "dns.ptr.domain_name == \"mta.sender.example\"",
                AtLeast(1),
            ),
            Claim("which leads back", "dns.flags.response == 1 && dns.a == 192.0.2.10", AtLeast(1)),
            Claim(
                "refused over IPv6",
                "ipv6 && tcp.stream == 0 && smtp.response.code == 550 && smtp.rsp.parameter contains \"5.7.25\"",
                Exactly(1),
            ),
            Claim(
                "accepted over IPv4",
                "ip && tcp.stream == 1 && smtp.rsp.parameter contains \"queued as\"",
                Exactly(1),
            ),
        ],
    },
    Case {
        name: "starttls",
        flows: 1,
        claims: &[
            Claim(
                "query",
                "tcp.dstport == 25 && tcp.payload contains \"STARTTLS\\r\\n\"",
                Exactly(1),
            ),
            Claim(
                "the client's hello names the server",
                "tls.handshake.extensions_server_name == \"mx.receiver.example\"",
                Exactly(1),
            ),
            Claim(
                "TLS 1.3",
                "tls.handshake.type == 2 && tls.handshake.extensions.supported_version == 0x0304",
                Exactly(1),
            ),
            Claim("no envelope in the clear", "frame contains \"alice\"", Exactly(0)),
        ],
    },
    Case {
        name: "bdat",
        flows: 1,
        claims: &[
            Claim("chunks", "tcp.dstport == 25 && tcp.payload contains \"BDAT \"", AtLeast(2)),
            Claim(
                "the last one",
                "tcp.dstport == 25 && tcp.payload contains \" LAST\\r\\n\"",
                Exactly(1),
            ),
            Claim("no DATA", "smtp.req.command == \"DATA\"", Exactly(0)),
            Claim("accepted", "smtp.rsp.parameter contains \"queued as\"", Exactly(1)),
        ],
    },
    Case {
        name: "pipelining",
        flows: 1,
        claims: &[
            Claim(
                "the envelope and DATA in one segment",
                "tcp.payload contains \"MAIL FROM\" && tcp.payload contains \"\\r\\nDATA\\r\\n\"",
                Exactly(1),
            ),
            Claim(
                "one of its replies refuses",
                "tcp.srcport == 25 && tcp.payload contains \"\\r\\n550 5.1.1 \"",
                Exactly(1),
            ),
            Claim("accepted", "smtp.rsp.parameter contains \"queued as\"", Exactly(1)),
        ],
    },
    Case {
        name: "pregreet",
        flows: 2,
        claims: &[
            Claim(
                "EHLO before the greeting",
                "tcp.seq == 1 && tcp.ack == 1 && tcp.payload contains \"EHLO early\"",
                Exactly(2),
            ),
            Claim("refused over IPv6", "ipv6 && smtp.response.code == 503", AtLeast(1)),
            Claim(
                "accepted over IPv4",
                "ip && smtp.rsp.parameter contains \"queued as\"",
                Exactly(1),
            ),
        ],
    },
    Case {
        name: "smuggling",
        flows: 1,
        claims: &[
            Claim("LF.LF", "tcp.dstport == 25 && tcp.payload contains 0a:2e:0a", Exactly(1)),
            Claim(
                "CRLF.CRLF once, at the very end",
                "tcp.payload contains 0d:0a:2e:0d:0a",
                Exactly(1),
            ),
            Claim(
                "the server goes ahead twice",
                "tcp.srcport == 25 && tcp.payload contains \"354 \"",
                Exactly(2),
            ),
            Claim(
                "the server takes messages",
                "tcp.srcport == 25 && tcp.payload contains \"queued as\"",
                AtLeast(1),
            ),
        ],
    },
    Case {
        name: "upstream-lost",
        flows: 1,
        claims: &[
            Claim("go ahead", "smtp.response.code == 354", Exactly(1)),
            Claim(
                "the end of data",
                "tcp.dstport == 25 && tcp.payload contains 0d:0a:2e:0d:0a",
                Exactly(1),
            ),
            Claim(
                "421 4.4.2",
                "smtp.response.code == 421 && smtp.rsp.parameter contains \"4.4.2\"",
                Exactly(1),
            ),
            Claim("nothing is accepted", "smtp.rsp.parameter contains \"queued as\"", Exactly(0)),
        ],
    },
    Case {
        name: "access-rule",
        flows: 2,
        claims: &[
            Claim(
                "accepted over IPv4",
                "ip && tcp.stream == 0 && smtp.rsp.parameter contains \"queued as\"",
                Exactly(1),
            ),
            Claim(
                "refused over IPv6",
                "ipv6 && tcp.stream == 1 && tcp.payload contains \"550 5.7.1 no mail over IPv6 from there\"",
                Exactly(1),
            ),
        ],
    },
    Case {
        name: "holes",
        flows: 2,
        claims: &[
            Claim(
                "content is missing",
                "tcp.stream == 0 && tcp.dstport == 25 && tcp.analysis.lost_segment",
                AtLeast(1),
            ),
            Claim(
                "replies are missing",
                "tcp.stream == 1 && tcp.srcport == 25 && tcp.analysis.lost_segment",
                AtLeast(1),
            ),
            Claim(
                "the first 354 is there",
                "tcp.stream == 0 && tcp.payload contains \"354 \"",
                Exactly(1),
            ),
            Claim(
                "the second 354 is not",
                "tcp.stream == 1 && tcp.payload contains \"354 \"",
                Exactly(0),
            ),
            Claim("both are accepted", "smtp.rsp.parameter contains \"queued as\"", Exactly(2)),
        ],
    },
    Case {
        name: "one-direction",
        flows: 2,
        claims: &[
            Claim("only the client's over IPv6", "ipv6 && tcp.srcport == 25", Exactly(0)),
            Claim("only the server's over IPv4", "ip && tcp.dstport == 25", Exactly(0)),
            Claim(
                "commands over IPv6",
                "ipv6 && tcp.payload contains \"MAIL FROM:<alice@\"",
                Exactly(1),
            ),
            Claim("replies over IPv4", "ip && tcp.payload contains \"queued as\"", Exactly(1)),
        ],
    },
];
