//! Domains with one fault each, and the findings that do not pass.

/// `zone` has `^` in place of the domain's first label. `options` follow the domain on the command line; without `--from`
/// the senders are good ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) zone: &'static str,
    pub(crate) options: &'static str,
    pub(crate) found: &'static [&'static str],
}

const fn case(
    name: &'static str,
    zone: &'static str,
    options: &'static str,
    found: &'static [&'static str],
) -> Case {
    Case { name, zone, options, found }
}

/// Options of a case whose senders are not given: those of this host are none of the domain.
pub(crate) const HERE: &str = "of this host";

macro_rules! zone {
    (mx $($more:literal)*) => { concat!("^ MX 10 mx\n", $($more, "\n",)*) };
    (spf $($more:literal)*) => {
        concat!("^ TXT \"v=spf1 ip6:2001:db8:2::1 ip4:198.51.100.1 -all\"\n", $($more, "\n",)*)
    };
    (good $($more:literal)*) => {
        concat!(
            "^ MX 10 mx\n^ TXT \"v=spf1 ip6:2001:db8:2::1 ip4:198.51.100.1 -all\"\n",
            $($more, "\n",)*
        )
    };
}

pub(crate) const CASES: &[Case] = &[
    case("good", zone!(good), "--helo out.ready.example", &[]),
    // MX
    case("xn--bcher-kva", zone!(good), "", &[]),
    case("null", zone!(spf "^ MX 0 ."), "", &["warn mx_records"]),
    case("null-and-more", zone!(good "^ MX 0 ."), "", &["fail mx_records"]),
    case("nothing", zone!(spf), "", &["fail mx_records"]),
    case(
        "implicit",
        zone!(spf "^ A 198.51.100.25" "^ AAAA 2001:db8:2::25"),
        "",
        &["warn mx_records"],
    ),
    case("missing", "", "", &["fail mx_records", "fail spf_record"]),
    case("literal", zone!(spf "^ MX 10 198.51.100.25."), "", &["fail mx_name"]),
    case("named-0", zone!(spf "^ MX 0 0."), "", &["fail mx_name"]),
    case("dangling", zone!(good "^ MX 20 gone.^"), "", &["fail mx_name"]),
    case("only-dangling", zone!(spf "^ MX 10 gone.^"), "", &["fail mx_name"]),
    case(
        "parked",
        "^ MX 0 .\n^ TXT \"v=spf1 -all\"\n_dmarc.^ TXT \"v=DMARC1; p=reject\"\n",
        HERE,
        &[],
    ),
    case(
        "parked-half",
        "^ MX 0 .\n^ TXT \"v=spf1 -all\"\n_dmarc.^ TXT \"v=DMARC1; p=none\"\n",
        HERE,
        &["warn dmarc_policy"],
    ),
    case(
        "parked-without-mx",
        "^ TXT \"v=spf1 -all\"\n",
        HERE,
        &["warn dmarc_policy", "warn mx_records"],
    ),
    case("alias-mx", zone!(spf "^ MX 10 alias"), "", &["warn mx_name"]),
    case("no-aaaa", zone!(spf "^ MX 10 only4"), "", &["fail mx_ipv6"]),
    case("one-without", zone!(good "^ MX 20 only4"), "", &["warn mx_ipv6"]),
    case("no-a", zone!(spf "^ MX 10 out6.^" "out6.^ AAAA 2001:db8:2::25"), "", &["warn mx_ipv4"]),
    case("loopback", zone!(spf "^ MX 10 loopback"), "", &["fail mx_address"]),
    case("ula", zone!(spf "^ MX 10 ula"), "", &["fail mx_address"]),
    case("link-local", zone!(spf "^ MX 10 link-local"), "", &["fail mx_address"]),
    case("mapped", zone!(spf "^ MX 10 mapped"), "", &["fail mx_address"]),
    case("broken", "", "", &["unknown dmarc_record", "unknown mx_records", "unknown spf_record"]),
    // Name servers
    case("ns-old", "", "", &["warn name_servers"]),
    case("ns-half", "", "", &["warn name_servers"]),
    case("ns-silent", "", "", &["unknown name_servers"]),
    case("ns-one-silent", "", "", &["warn name_servers"]),
    case("ns-lame", "", "", &["warn name_servers"]),
    case("ns-one-lame", "", "", &["warn name_servers"]),
    // Authorities
    case("caa", zone!(good "^ CAA 0 issue \"ca.example\""), "", &[]),
    case(
        "caa-mx",
        zone!(spf "^ MX 10 caa-named" "caa-named A 198.51.100.25" "caa-named AAAA 2001:db8:2::25"
            "caa-named CAA 0 issue \"ca.example; account=7\""),
        "",
        &[],
    ),
    case(
        "caa-nobody",
        zone!(spf "^ MX 10 caa-none" "caa-none A 198.51.100.25" "caa-none AAAA 2001:db8:2::25"
            "caa-none CAA 0 issue \";\""),
        "",
        &["warn caa"],
    ),
    case(
        "caa-malformed",
        zone!(spf "^ MX 10 caa-odd" "caa-odd A 198.51.100.25" "caa-odd AAAA 2001:db8:2::25"
            "caa-odd CAA 0 issue \"Our Own CA\""),
        "",
        &["warn caa"],
    ),
    case(
        "caa-critical",
        zone!(spf "^ MX 10 caa-tag" "caa-tag A 198.51.100.25" "caa-tag AAAA 2001:db8:2::25"
            "caa-tag CAA 128 isue \"ca.example\""),
        "",
        &["warn caa"],
    ),
    // Port 25
    case(
        "silent6",
        zone!(spf "^ MX 10 silent6"),
        "--control=mx.ready.example",
        &["fail smtp_connect", "fail smtp_families"],
    ),
    case(
        "silent",
        zone!(spf "^ MX 10 silent"),
        "",
        &["unknown smtp_connect", "unknown smtp_connect"],
    ),
    case("refuses", zone!(spf "^ MX 10 refuses"), "", &["fail smtp_connect", "fail smtp_connect"]),
    case(
        "stalls",
        zone!(spf "^ MX 10 stalls"),
        "",
        &["unknown smtp_greeting", "unknown smtp_greeting"],
    ),
    case(
        "stalls6",
        zone!(spf "^ MX 10 stalls6" "stalls6 A 198.51.100.25" "stalls6 AAAA 2001:db8:2::33"),
        "",
        &["fail smtp_families", "fail smtp_greeting"],
    ),
    case(
        "delays",
        zone!(spf "^ MX 10 delays"),
        "--timeout=10s",
        &[
            "unknown path_mtu",
            "warn smtp_greeting",
            "warn smtp_greeting",
            "warn smtp_starttls",
            "warn smtp_starttls",
        ],
    ),
    case(
        "turns-away",
        zone!(spf "^ MX 10 turns-away"),
        "",
        &["fail smtp_greeting", "fail smtp_greeting"],
    ),
    case(
        "later",
        zone!(spf "^ MX 10 later"),
        "",
        &["unknown smtp_greeting", "unknown smtp_greeting"],
    ),
    case(
        "plain",
        zone!(spf "^ MX 10 plain"),
        "",
        &["unknown path_mtu", "warn smtp_starttls", "warn smtp_starttls"],
    ),
    case(
        "half",
        zone!(spf "^ MX 10 half"),
        "",
        &["fail smtp_families", "unknown path_mtu", "warn smtp_starttls"],
    ),
    case(
        "foreign",
        zone!(spf "^ MX 10 foreign"),
        "",
        &["unknown path_mtu", "warn mx_ipv4", "warn smtp_name", "warn smtp_starttls"],
    ),
    // TLS
    case(
        "expired-tls",
        zone!(spf "^ MX 10 expired"),
        "",
        &["warn smtp_certificate", "warn smtp_certificate"],
    ),
    case(
        "ends-soon",
        zone!(spf "^ MX 10 soon"),
        "",
        &["warn smtp_certificate", "warn smtp_certificate"],
    ),
    case(
        "misnamed-tls",
        zone!(spf "^ MX 10 misnamed"),
        "",
        &["warn smtp_certificate", "warn smtp_certificate"],
    ),
    case(
        "untrusted-tls",
        zone!(spf "^ MX 10 untrusted"),
        "",
        &["warn smtp_certificate", "warn smtp_certificate"],
    ),
    case(
        "broken6-tls",
        zone!(spf "^ MX 10 mismatch"),
        "",
        &["fail smtp_families", "unknown path_mtu", "unknown smtp_tls"],
    ),
    case(
        "two-tls",
        zone!(spf "^ MX 10 two"),
        "",
        &["warn smtp_certificate", "warn smtp_certificate"],
    ),
    case(
        "no-cipher-tls",
        zone!(spf "^ MX 10 no-cipher"),
        "",
        &["fail smtp_tls", "fail smtp_tls", "unknown path_mtu"],
    ),
    // Large packets
    case("hole", zone!(spf "^ MX 10 hole"), "", &["fail path_mtu"]),
    // Senders
    case(
        "no-ptr",
        zone!(mx "^ TXT \"v=spf1 ip6:2001:db8:2::/64 -all\""),
        "--from 2001:db8:2::71",
        &["fail sender_ptr"],
    ),
    case(
        "unconfirmed-ptr",
        zone!(mx "^ TXT \"v=spf1 ip6:2001:db8:2::/64 -all\""),
        "--from 2001:db8:2::72",
        &["fail sender_fcrdns"],
    ),
    case(
        "broken-ptr",
        zone!(mx "^ TXT \"v=spf1 ip6:2001:db8:2::/64 -all\""),
        "--from 2001:db8:2::73",
        &["unknown sender_ptr"],
    ),
    case(
        "other-helo",
        zone!(mx "^ TXT \"v=spf1 ip6:2001:db8:2::/64 -all\"" "helo.^ AAAA 2001:db8:2::74"),
        "--from 2001:db8:2::74 --helo helo.other-helo.ready.example",
        &["warn sender_helo"],
    ),
    case(
        "helo4",
        zone!(good),
        "--helo only4.ready.example",
        &["warn sender_helo", "warn sender_helo"],
    ),
    case("only-ipv4", zone!(good), "--from 198.51.100.1", &["warn sender_address"]),
    case("private", zone!(good), "--from fd00::1", &["fail sender_address"]),
    // SPF
    case("no-spf", zone!(mx), "", &["fail spf_record"]),
    case("two-spf", zone!(good "^ TXT \"v=spf1 ~all\""), "", &["fail spf_record"]),
    case("ip4-only", zone!(mx "^ TXT \"v=spf1 ip4:198.51.100.1 -all\""), "", &["fail spf_sender"]),
    case(
        "ip6-syntax",
        zone!(mx "^ TXT \"v=spf1 ip4:198.51.100.1 ip6:2001:db8:2::1/129 -all\""),
        "",
        &["fail spf_syntax"],
    ),
    case(
        "ip6-modifier",
        zone!(mx "^ TXT \"v=spf1 ip4:198.51.100.1 ip6=2001:db8:2::1 -all\""),
        "",
        &["fail spf_sender", "warn spf_syntax"],
    ),
    case("plus-all", zone!(mx "^ TXT \"v=spf1 +all\""), "", &["fail spf_all"]),
    case(
        "strangers",
        zone!(mx "^ TXT \"v=spf1 ip6:2001:db8:2::1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all\""),
        "",
        &["fail spf_all"],
    ),
    case(
        "strangers-by-include",
        zone!(mx "^ TXT \"v=spf1 ip4:198.51.100.1 include:plus-all.ready.example -all\""),
        "",
        &["fail spf_all"],
    ),
    case(
        "redirect-without-all",
        zone!(mx "^ TXT \"v=spf1 redirect=no-all.ready.example\""),
        "",
        &["warn spf_all"],
    ),
    case(
        "loop",
        zone!(mx "^ TXT \"v=spf1 ip6:2001:db8:2::1 ip4:198.51.100.1 include:a.^.ready.example -all\""
            "a.^ TXT \"v=spf1 include:^.ready.example -all\""),
        "",
        &["fail spf_syntax"],
    ),
    case("no-all", zone!(mx "^ TXT \"v=spf1 a:out.ready.example\""), "", &["warn spf_all"]),
    case("ptr", zone!(mx "^ TXT \"v=spf1 ptr:ready.example -all\""), "", &["warn spf_ptr"]),
    case(
        "lookups",
        zone!(mx
            "^ TXT \"v=spf1 include:a.^.ready.example -all\""
            "a.^ TXT \"v=spf1 a:out.ready.example a:mx.ready.example a:silent.ready.example a:half.ready.example include:b.^.ready.example -all\""
            "b.^ TXT \"v=spf1 mx:good.ready.example a:later.ready.example a:plain.ready.example a:hole.ready.example a:stalls.ready.example -all\""),
        "",
        &["fail spf_lookups"],
    ),
    case(
        "voids",
        zone!(mx "^ TXT \"v=spf1 ip4:198.51.100.1 a:only4.ready.example a:x.^.ready.example a:y.^.ready.example ip6:2001:db8:2::1 -all\""),
        "",
        &["fail spf_sender", "fail spf_void_lookups"],
    ),
    case(
        "include-servfail",
        zone!(mx "^ TXT \"v=spf1 ip6:2001:db8:2::1 include:broken.ready.example -all\""),
        "",
        &["unknown spf_lookups", "unknown spf_sender"],
    ),
    case(
        "macros",
        zone!(mx "^ TXT \"v=spf1 exists:%{i}._spf.%{d} -all\"" "198.51.100.1._spf.^ A 127.0.0.2"
            "2.0.0.1.0.d.b.8.0.0.0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1._spf.^ A 127.0.0.2"),
        "",
        &[],
    ),
    case("sender-id", zone!(good "^ TXT \"spf2.0/pra -all\""), "", &["warn sender_id"]),
    // DKIM
    case("keys", zone!(good), "--selector long", &[]),
    case("keys", "", "--selector medium --selector testing", &["warn dkim_key", "warn dkim_key"]),
    case("keys", "", "--selector short --selector gone", &["fail dkim_key", "fail dkim_key"]),
    case(
        "no-keys",
        zone!(good
            "revoked._domainkey.^ TXT \"v=DKIM1; p=\""
            "ed._domainkey.^ TXT \"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\""
            "odd._domainkey.^ TXT \"v=DKIM1; p=?\""),
        "--selector revoked --selector ed --selector odd",
        &["fail dkim_key", "fail dkim_key"],
    ),
    case(
        "other-keys",
        zone!(good
            "sha1._domainkey.^ TXT \"v=DKIM1; k=ed25519; h=sha1; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\""
            "tlsrpt._domainkey.^ TXT \"v=DKIM1; k=ed25519; s=tlsrpt; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\""),
        "--selector sha1 --selector tlsrpt",
        &["fail dkim_key", "fail dkim_key"],
    ),
    // DMARC
    case(
        "dmarc-none",
        zone!(good "_dmarc.^ TXT \"v=DMARC1; p=none\""),
        "",
        &["warn dmarc_policy", "warn dmarc_reports"],
    ),
    case(
        "two-dmarc",
        zone!(good "_dmarc.^ TXT \"v=DMARC1; p=none\"" "_dmarc.^ TXT \"v=DMARC1; p=reject\""),
        "",
        &["fail dmarc_record"],
    ),
    case(
        "odd-dmarc",
        zone!(good "_dmarc.^ TXT \"v=DMARC1; p=no; rua=dmarc@ready.example\""),
        "",
        &["fail dmarc_policy", "fail dmarc_reports"],
    ),
    case(
        "dmarc-test",
        zone!(good "_dmarc.^ TXT \"v=DMARC1; p=reject; t=y; rua=mailto:d@ready.example\""),
        "",
        &["warn dmarc_policy"],
    ),
    case(
        "dmarc-np",
        zone!(good "_dmarc.^ TXT \"v=DMARC1; p=reject; np=none; rua=mailto:d@ready.example\""),
        "",
        &["warn dmarc_policy"],
    ),
    case(
        "dmarc-broken",
        zone!(good "_dmarc.^ TXT \"v=dmarc1; p=reject\""),
        "",
        &["fail dmarc_record"],
    ),
    case(
        "reports-elsewhere",
        zone!(good "_dmarc.^ TXT \"v=DMARC1; p=reject; rua=mailto:d@alone.example\""),
        "",
        &["fail dmarc_reports"],
    ),
    case(
        "reports-taken",
        zone!(good "_dmarc.^ TXT \"v=DMARC1; p=reject; rua=mailto:d@taker.example\""),
        "",
        &[],
    ),
    // What counts
    case("ignored", zone!(spf "^ MX 10 only4"), "--ignore mx_ipv6", &[]),
    // Hostile text
    case(
        "hostile",
        zone!(mx "^ TXT \"v=spf1 \\027[31mred \\226\\128\\174 -all\""),
        "",
        &["fail spf_syntax"; 3],
    ),
];
