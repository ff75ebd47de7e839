//! Zone files, valid and invalid.

use std::path::Path;

use super::super::ZoneFile;
use super::{brief, lookup};

const TWO_ZONES: &str = r#"; names and addresses
$ORIGIN a.example.
$TTL 1h
@       IN SOA ns.a.example. hostmaster ( 1   ; serial
                3600 600
                86400 60 )
        IN NS  ns
        IN MX  10 mx
        MX     20 MX2.A.Example.
ns      A      192.0.2.53
mx      60 IN AAAA 2001:db8::25
mx      A      192.0.2.25
deep.er.than TXT "a ; ( quoted" text
alias   CNAME  mx
outside CNAME  mx.b.example.
loop    CNAME  pool
pool    CNAME  loop
*.dyn   A      192.0.2.99
sub     NS     ns.sub
$ORIGIN sub.a.example.
ns      A      192.0.2.54
$ORIGIN a.example.
null    MX     0 .

$ORIGIN 8.b.d.0.1.0.0.2.ip6.arpa.
@       SOA ns.a.example. hostmaster.a.example. 1 2 3 4 5
5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 PTR mx.a.example.
"#;

fn parsed(text: &str) -> ZoneFile {
    ZoneFile::parse(text, Path::new("zone.txt")).unwrap()
}

#[test]
fn a_file_answers_for_its_zones_only() {
    let zone = parsed(TWO_ZONES);
    for (query, expected) in [
        ("MX a.example", "10 mx.a.example, 20 mx2.a.example"),
        ("MX A.EXAMPLE.", "10 mx.a.example, 20 mx2.a.example"),
        ("AAAA mx.a.example", "2001:db8::25"),
        ("A mx.a.example", "192.0.2.25"),
        ("MX mx.a.example", "nodata"),
        ("A a.example", "nodata"),
        ("MX null.a.example", "0 ."),
        ("A than.a.example", "nodata"),
        ("A er.than.a.example", "nodata"),
        ("A deep.er.than.a.example", "nodata"),
        ("A no.er.than.a.example", "nxdomain"),
        ("A nowhere.a.example", "nxdomain"),
        ("AAAA alias.a.example", "2001:db8::25"),
        ("MX alias.a.example", "nodata"),
        ("A outside.a.example", "unknown no_resolver"),
        ("A loop.a.example", "unknown servfail"),
        ("A h7.dyn.a.example", "192.0.2.99"),
        ("AAAA h7.dyn.a.example", "nodata"),
        ("A dyn.a.example", "nodata"),
        // Delegated: only the glue is here.
        ("A ns.sub.a.example", "192.0.2.54"),
        ("AAAA ns.sub.a.example", "unknown no_resolver"),
        ("A host.sub.a.example", "unknown no_resolver"),
        ("A b.example", "unknown no_resolver"),
        ("PTR 2001:db8::25", "mx.a.example"),
        ("PTR 2001:db8::26", "nxdomain"),
        ("PTR 2001:db9::25", "unknown no_resolver"),
        ("PTR 192.0.2.25", "unknown no_resolver"),
    ] {
        assert_eq!(brief(&zone.answer(&lookup(query))), expected, "{query}");
    }
}

#[test]
fn without_an_soa_its_origins_are_its_zones() {
    let zone = parsed("$ORIGIN a.example.\nmx A 192.0.2.1\nmx.b.example. A 192.0.2.2\n");
    for (query, expected) in [
        ("A mx.a.example", "192.0.2.1"),
        ("A no.a.example", "nxdomain"),
        ("A mx.b.example", "192.0.2.2"),
        ("AAAA mx.b.example", "unknown no_resolver"),
        ("A no.b.example", "unknown no_resolver"),
    ] {
        assert_eq!(brief(&zone.answer(&lookup(query))), expected, "{query}");
    }
    // The usual form of a zone dump.
    let dump = "$ORIGIN .\n$TTL 60\na.example SOA ns.a.example. h.a.example. 1 2 3 4 5\n\
                $ORIGIN example.\nmx.a A 192.0.2.1\n";
    let zone = parsed(dump);
    assert_eq!(brief(&zone.answer(&lookup("A mx.a.example"))), "192.0.2.1");
    assert_eq!(brief(&zone.answer(&lookup("A mx.a.test"))), "unknown no_resolver");
    assert_eq!(brief(&zone.answer(&lookup("A mx.b.example"))), "unknown no_resolver");
}

#[test]
fn errors_name_the_line() {
    for (text, expected) in [
        ("", "zone.txt: no records; expected a zone file (RFC 1035 section 5)"),
        ("; only\n; comments\n", "zone.txt: no records; expected a zone file (RFC 1035 section 5)"),
        (
            "$TTL 60\n@ SOA ns h 1 2 3 4 5\nmx A 192.0.2.1\n",
            "zone.txt:2: relative name without an origin; add a line `$ORIGIN example.com.` before it, or end the \
             name with a dot",
        ),
        (
            "a.example. A 192.0.2.1\n\n; there\na.example. MX 10 mx\n",
            "zone.txt:4: relative name without an origin; add a line `$ORIGIN example.com.` before it, or end the \
             name with a dot",
        ),
        (
            "$ORIGIN a.example\nmx A 192.0.2.1\n",
            "zone.txt:1: $ORIGIN must be an absolute name, found \"a.example\"; end it with a dot",
        ),
        (
            "$ORIGIN a.example.\n@ SOA ns h (\n 1 2 3\n 4 5 )\nmx A 192.0.2.1\nmx A 192.0.2.256\n",
            "zone.txt:6: invalid entry: network address parse error: invalid IPv4 address syntax",
        ),
        (
            "$ORIGIN a.example.\nmx AAAA 192.0.2.1\n",
            "zone.txt:2: invalid entry: network address parse error: invalid IPv6 address syntax",
        ),
        (
            "$ORIGIN a.example.\n\nmx MX mx\n",
            "zone.txt:3: invalid entry: error parsing number: invalid digit found in string",
        ),
        ("$ORIGIN a.example.\nmx MX 10\n", "zone.txt:2: invalid entry: token is missing: exchange"),
        (
            "$ORIGIN a.example.\nmx ADDRESS 1\n",
            "zone.txt:2: invalid entry: proto error: decoding error: record type string unknown: ADDRESS",
        ),
        (
            "$ORIGIN a.example.\nx TXT ( \"a\"\nb\n",
            "zone.txt:2: invalid entry: lexer error: unclosed list, missing ')'",
        ),
        (
            "$ORIGIN a.example.\n$INCLUDE other\n",
            "zone.txt:2: invalid entry: io error: No such file or directory (os error 2)",
        ),
        (
            "\u{0}\u{1}PCAP",
            "zone.txt:1: invalid entry: lexer error: unrecognized character input: \\u{0}",
        ),
    ] {
        let error = ZoneFile::parse(text, Path::new("zone.txt")).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let missing = ZoneFile::open(Path::new("/nowhere/zone.txt")).unwrap_err().to_string();
    let expected =
        "cannot read the zone file /nowhere/zone.txt: No such file or directory (os error 2)";
    assert_eq!(missing, expected);
}
