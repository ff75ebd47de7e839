//! Every kind of event in half a minute: accepted and refused mail over both families, packet loss, a stopped MTA, a closed
//! door, good and bad configurations, and a killed gateway.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime};

use gatepost::time::Timestamp;
use socket2::SockRef;

use super::prometheus::Prometheus;
use super::recorded::Recorded;
use crate::support::world::{ASKED, World, sender_ip};
use crate::support::{Authority, Config, DOMAIN, Family, Gateway, Lab, Mode, Postfix};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// One rule that rejects, one that waits for probes, two in shadow mode.
const POLICIES: &str = r#"
[[policy]]
name = "ipv6 has a reverse name"
when = { family = "ipv6", at = "connect" }
require = ["reverse_name"]
otherwise = "reject"

[[policy]]
name = "senders can be answered"
require = [{ fact = "return_path", level = "smtp", over = "same-family" }]

[[policy]]
name = "confirmed names"
require = ["fcrdns"]
otherwise = "reject"
mode = "shadow"

[[policy]]
name = "names resolve"
require = ["helo_resolves"]
mode = "shadow"
"#;

/// Where Postfix would ask.
const POLICY: &str = "127.0.0.1:10040";

/// Bytes of a message of several segments.
const LONG: usize = 20_000;

pub(super) struct Scenario<'lab> {
    lab: &'lab Lab,
    config: Config,
    gateway: Gateway<'lab>,
    upstream: Postfix<'lab>,
    recorded: Recorded<'lab>,
    /// As Postfix has one.
    policy_client: Option<TcpStream>,
    _world: World<'lab>,
}

impl<'lab> Scenario<'lab> {
    pub(super) fn new(lab: &'lab Lab) -> Self {
        let world = World::new(lab);
        let authority = Authority::new(lab.folder("ca"), "mx.example.org");
        let upstream = Postfix::start(
            lab,
            &lab.server,
            "upstream",
            Some(&authority),
            // Rejects the body of one message.
            "body_checks = inline:{ { unwanted = REJECT not here } }\n",
        );
        let config = Config::new(lab, Mode::Proxy)
            .set("site", "addresses = [\"198.51.100.0/24\", \"2001:db8:2::/64\"]")
            .set("tls", &format!("certificate = {:?}", authority.server_certificate()))
            .set("tls", &format!("key = {:?}", authority.server_key()))
            .set("smtp", "bare_newlines = \"reject\"")
            .set("smtp", "pregreet = \"reject\"")
            .set("limits", "errors = 3")
            .set("limits", "sessions_per_client = 3")
            .set("lookup", &format!("dns = [{ASKED:?}]"))
            .set("lookup", "deadline = \"2s\"")
            .set("lookup", "probe_timeout = \"1500ms\"")
            .set("door.ipv6", "min_hold = \"1s\"")
            .set("postfix", &format!("policy = \"inet:{POLICY}\""))
            .set("watch", "interfaces = [\"client\", \"server\"]")
            .set("outbound", &format!("map = \"unix:{}\"", lab.path("outbound.sock").display()))
            .set("outbound", &format!("mail_log = {:?}", lab.path("outbound.log")))
            .rule("name = \"not from there\"\nnetworks = [\"203.0.113.10\", \"2001:db8:c::a\"]\naction = \"reject\"")
            .policies(POLICIES);
        let gateway = Gateway::start(lab, &config);
        let recorded = Recorded::serve(lab);
        Self { lab, config, gateway, upstream, recorded, policy_client: None, _world: world }
    }

    /// Waits for Prometheus to scrape each temporary state.
    pub(super) fn run(&mut self, prometheus: &Prometheus<'_>) {
        self.gateway.kill_and_start_again();
        self.gateway.wait_for_log("watching client and server");
        prometheus.wait_for("changes(process_start_time_seconds[1m]) > 0 and on (job) up == 1");
        for family in Family::ALL {
            self.accepted(family);
            self.refused(family);
            self.lossy(family);
            self.ask_policy();
            self.delivered(family);
        }
        self.recorded.show_as_receivers();
        self.reloads();
        self.door(prometheus);
        self.upstream_lost(prometheus);
        self.ask_policy();
        self.recorded.show_as_senders();
        // A flow counts once no late segment can belong to it; evidence and caches are counted every few seconds.
        for seen in [
            "gatepost_lookup_cache_entries",
            "gatepost_receive_path_last_accepted_timestamp_seconds",
            "gatepost_return_path_destinations",
            "gatepost_icmp_errors_total{family=\"ipv6\"}",
            "gatepost_outbound_attempts_total",
            "gatepost_tcp_syn_retransmits_total",
            "gatepost_tcp_retransmitted_segments_total",
            "gatepost_tcp_resets_total",
        ] {
            prometheus.wait_for(&format!("sum({seen} and on (job) up{{job=\"gatepost\"}}) > 0"));
        }
        prometheus.wait_for(
            "sum(gatepost_ipv6_fallbacks_total{job=\"recorded\", direction=\"out\"}) > 0",
        );
    }

    /// Only eBPF provides round-trip times.
    pub(super) fn watches_by_ebpf(&self) -> bool {
        self.gateway.log().contains("watching client and server by eBPF")
    }

    /// The log of a Postfix that sends to another site.
    fn delivered(&self, family: Family) {
        let file = self.lab.path("outbound.log");
        let mut log = File::options().create(true).append(true).open(file).unwrap();
        let now = Timestamp::from_system_time(SystemTime::now());
        let (id, address) = match family {
            Family::Ipv6 => ("4dGkX20Zbcz5w1", "2001:db8:c::25"),
            Family::Ipv4 => ("4dGkX30Zbcz5w2", "203.0.113.25"),
        };
        let lines = format!(
            "{now} mx postfix/qmgr[9]: {id}: from=<a@example.org>, size=450, nrcpt=1 (queue active)\n\
             {now} mx postfix/smtp[10]: {id}: to=<b@good.sender.example>, relay=mx.good.sender.example[{address}]:25, \
             delay=0.6, delays=0.08/0.01/0.3/0.2, dsn=2.0.0, status=sent (250 2.0.0 Ok)\n"
        );
        log.write_all(lines.as_bytes()).unwrap();
    }

    /// A question as Postfix has it, on a connection that stays open.
    fn ask_policy(&mut self) {
        let connect = || self.lab.gateway.connect(POLICY.parse().unwrap()).unwrap();
        let stream = self.policy_client.get_or_insert_with(connect);
        let request = "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=2001:db8:c::1\nclient_port=1\n\
            helo_name=good.client.example\nsender=a@good.sender.example\nrecipient=b@example.org\n\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = [0; 512];
        assert!(stream.read(&mut reply).unwrap() > 0);
    }

    fn entrance(&self, family: Family) -> SocketAddr {
        self.lab.entrance(Mode::Proxy, family)
    }

    /// Sends one message and returns the code of the decisive reply.
    fn mail(&self, who: &str, family: Family, domain: &str, body: &str) -> u16 {
        let mut smtp = self.lab.client.smtp_from(sender_ip(who, family), self.entrance(family));
        smtp.dialogue("S: 220");
        smtp.ask(&format!("EHLO {who}.client.example"));
        smtp.ask(&format!("MAIL FROM:<a@{domain}.sender.example>"));
        let reply = smtp.ask(&format!("RCPT TO:<{family}@{DOMAIN}>"));
        let code = match reply.code {
            250 => smtp.data(format!("Subject: {who}\r\n\r\n{body}\r\n").as_bytes()).code,
            refused => refused,
        };
        smtp.dialogue("C: QUIT\n S: 221");
        code
    }

    /// Accepted mail, repeated so that the cache answers, and a session under TLS.
    fn accepted(&self, family: Family) {
        for _ in 0..3 {
            assert_eq!(self.mail("good", family, "good", "hello"), 250);
        }
        assert_eq!(self.mail("good", family, "good", "unwanted"), 550);
        let at = self.entrance(family).to_string();
        let from = sender_ip("good", family).to_string();
        let words =
            ["swaks", "--server", &at, "--local-interface", &from, "--tls", "--quit-after", "EHLO"];
        self.lab.client.run(words);
    }

    /// By rules, by limits, and for protocols other than SMTP.
    fn refused(&self, family: Family) {
        assert_eq!(self.mail("good", family, "refuses", "hello"), 450);
        assert_eq!(self.mail("empty", family, "good", "hello"), 550);
        self.mail("lame", family, "good", "hello");
        self.mail("unconfirmed", family, "good", "hello");

        let at = self.entrance(family);
        let mut smtp = self.lab.client.smtp(at);
        smtp.dialogue("S: 220");
        for _ in 0..4 {
            let _ = smtp.raw(b"WHAT\r\n");
        }
        smtp.replies_until_closed();
        let mut web = self.lab.client.smtp(at);
        web.dialogue("S: 220");
        let _ = web.raw(b"GET / HTTP/1.1\r\n\r\n");
        web.replies_until_closed();
        let mut smuggler = self.lab.client.smtp_from(sender_ip("good", family), at);
        smuggler.begin("a@good.sender.example", &format!("{family}@{DOMAIN}"));
        smuggler.dialogue("C: DATA\n S: 354");
        smuggler.raw(b"Subject: two\r\n\r\none\n.\r\nMAIL FROM:<b@b.example>\r\n.\r\n").unwrap();
        assert_eq!(smuggler.reply().unwrap().code, 550);
        smuggler.dialogue("C: QUIT\n S: 221");
    }

    /// The path loses a SYN and some data, which a filter reports with ICMP; a client resets its connection.
    fn lossy(&self, family: Family) {
        let (ip, icmp) = match family {
            Family::Ipv6 => ("ip6", "icmpv6"),
            Family::Ipv4 => ("ip", "icmp"),
        };
        let slow = sender_ip("slow", family);
        let some_data = format!(
            "{ip} saddr {slow} tcp dport 25 meta length > 600 numgen inc mod 3 == 1 \
             reject with {icmp} type admin-prohibited"
        );
        self.on_the_path(&some_data, || {
            let long = "line of text\r\n".repeat(LONG / 14);
            assert_eq!(self.mail("slow", family, "good", &long), 250);
        });
        let first_syn =
            format!("{ip} saddr {slow} tcp dport 25 tcp flags & (syn | ack) == syn drop");
        thread::scope(|scope| {
            self.on_the_path(&first_syn, || {
                scope.spawn(|| self.mail("slow", family, "good", "late"));
                // The SYN is retransmitted after a second.
                thread::sleep(Duration::from_millis(500));
            });
        });
        let mut hasty = self.lab.client.connect(self.entrance(family)).unwrap();
        let mut greeting = [0; 3];
        hasty.read_exact(&mut greeting).unwrap();
        SockRef::from(&hasty).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn connected_from(&self, who: &str, family: Family) -> std::io::Result<()> {
        let (from, to) = (sender_ip(who, family), self.entrance(family));
        self.lab.client.in_thread(|| {
            let domain = socket2::Domain::for_address(to);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect_timeout(&to.into(), Duration::from_secs(10))
        })
    }

    /// With nftables rules for packets to the gateway's host; the capture sees packets before the rules apply.
    fn on_the_path(&self, rules: &str, work: impl FnOnce()) {
        let table = format!(
            "table inet path {{ chain in {{ type filter hook input priority 0; {rules}\n }}\n }}"
        );
        self.lab.gateway.run(["nft", &table]);
        work();
        self.lab.gateway.run(["nft", "delete table inet path"]);
    }

    /// One valid and one invalid configuration.
    fn reloads(&self) {
        self.gateway.reload(&self.config.clone().set("limits", "commands = 500").toml());
        self.gateway.wait_for_log("configuration reloaded");
        self.gateway.reload("[listen]\nadresses = []\n");
        self.gateway.wait_for_log("configuration not reloaded");
    }

    /// Closed manually, tried by a sender, and opened again.
    fn door(&self, prometheus: &Prometheus<'_>) {
        let socket = self.config.socket().to_str().unwrap();
        let door =
            |what| self.lab.gateway.run([GATEPOST, "door", "ipv6", what, "--socket", socket]);
        door("close");
        assert!(self.connected_from("good", Family::Ipv6).is_err());
        assert_eq!(self.mail("good", Family::Ipv4, "good", "hello"), 250);
        prometheus.wait_for("gatepost_door_state{family=\"ipv6\", state=\"closed\"} == 1");
        prometheus.wait_for("gatepost_door_refused_total{family=\"ipv6\", method=\"syn\"} > 0");
        door("open");
        assert_eq!(self.mail("good", Family::Ipv6, "good", "hello"), 250);
        prometheus.wait_for("gatepost_door_state{family=\"ipv6\", state=\"open\"} == 1");
    }

    /// The MTA stops and starts again.
    fn upstream_lost(&self, prometheus: &Prometheus<'_>) {
        self.upstream.stop();
        for family in Family::ALL {
            self.lab.client.smtp(self.entrance(family)).expect_last_reply("421 4.3.2");
        }
        prometheus.wait_for("gatepost_ready{job=\"gatepost\"} == 0");
        self.upstream.start_again();
        for family in Family::ALL {
            assert_eq!(self.mail("good", family, "good", "hello again"), 250);
        }
        prometheus.wait_for("gatepost_ready{job=\"gatepost\"} == 1");
    }
}
