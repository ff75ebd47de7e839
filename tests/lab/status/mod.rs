//! The status page of a running gateway after mail of both families, refusals and a closed door: with curl, and in Chromium
//! with and without JavaScript.

mod browser;

use std::path::Path;

use crate::harness::tests;
use serde_json::json;

use crate::support::sites::{Sender, ZONES, dns_with, receiver};
use crate::support::{Config, Family, Gateway, Lab, METRICS, Mode, Postfix, Process, until};
use browser::{Browser, Page};

tests![
    the_page_shows_sessions_doors_and_refusals,
    addresses_are_shown_if_configured,
    the_page_updates_itself_in_a_browser
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// Another client, which a rule rejects.
const UNWELCOME: &str = "192.0.2.77";
/// A script that must not run in the page.
const HOSTILE: &str =
    "<script>document.title='owned'</script><img/src=x/onerror=document.title='owned'>";

/// A gateway with a sender and a receiver.
struct Setup<'lab> {
    lab: &'lab Lab,
    config: Config,
    gateway: Gateway<'lab>,
    sender: Sender<'lab>,
    receiver: Postfix<'lab>,
    _dns: Process,
}

impl<'lab> Setup<'lab> {
    fn new(lab: &'lab Lab, more: impl FnOnce(Config) -> Config) -> Self {
        // The MX points to the gateway.
        let own = "@ MX 10 mx\nmx A 192.0.2.1\nmx AAAA 2001:db8:1::1\n";
        let [(receiver_zone, _), others @ ..] = ZONES;
        let dns = dns_with(lab, &[&[(receiver_zone, own)][..], &others].concat());
        let receiver = receiver(lab, "");
        let sender = Sender::by_mx(lab, "");
        lab.add_client_ip(UNWELCOME.parse().unwrap());
        let config = Config::new(lab, Mode::Proxy)
            .set("door", "refuse = \"smtp\"")
            .set("lookup", "dns = [\"2001:db8:53::53\"]")
            .rule(&format!(
                "name = \"no <b>guests</b> & co\"\nnetworks = [\"{UNWELCOME}\"]\naction = \"reject\""
            ))
            .policies(
                "[[policy]]\nname = \"a name, please\"\nwhen = { at = \"connect\" }\nrequire = [\"fcrdns\"]\n\
                 mode = \"shadow\"\n",
            );
        let config = more(config);
        let gateway = Gateway::start(lab, &config);
        Self { lab, config, gateway, sender, receiver, _dns: dns }
    }

    /// Sends mail over IPv6, a rejected session, a hostile HELO, and mail over IPv4 after the IPv6 door closed.
    fn send_sessions(&self) {
        self.mail("first");
        let entrance = self.lab.entrance(Mode::Proxy, Family::Ipv4);
        let mut unwelcome = self.lab.client.smtp_from(UNWELCOME.parse().unwrap(), entrance);
        unwelcome.dialogue(
            "S: 220
             C: EHLO guest.example
             S: 250
             C: MAIL FROM:<mallory@guest.example>
             S: 250
             C: RCPT TO:<ann@receiver.example>
             S: 550 5.7.1
             C: QUIT
             S: 221",
        );
        self.hello(HOSTILE);
        self.door("close");
        self.mail("second");
        self.gateway.wait_for_metric("gatepost_messages_total", &["class=\"2xx\""], 2.0);
        self.gateway.wait_for_metric("gatepost_sessions_open", &[], 0.0);
    }

    fn mail(&self, local_part: &str) {
        let recipient = format!("{local_part}@receiver.example");
        self.sender.submit(&[&recipient], 600);
        self.receiver.message_to(&recipient);
    }

    /// A session with EHLO and QUIT, from the address 192.0.2.10.
    fn hello(&self, name: &str) {
        let entrance = self.lab.entrance(Mode::Proxy, Family::Ipv4);
        let mut client = self.lab.client.smtp(entrance);
        client.dialogue(&format!(
            "S: 220
             C: EHLO {name}
             S: 250
             C: MAIL FROM:<secret@[192.0.2.10]>
             S: 250
             C: QUIT
             S: 221"
        ));
    }

    fn door(&self, mode: &str) {
        let socket = self.config.socket().to_str().unwrap();
        self.lab.gateway.run([GATEPOST, "door", "ipv6", mode, "--socket", socket]);
    }

    /// Head and body of the response.
    fn curl(&self, options: &[&str], path: &str) -> (String, String) {
        let url = format!("http://{METRICS}{path}");
        let answer = self.lab.gateway.run([&["curl", "-sSi", &url], options].concat());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    }

    /// Waits until the page contains a text.
    fn page_with(&self, wanted: &str) -> String {
        until(format_args!("{wanted:?} in the page"), || {
            let (_, page) = self.curl(&[], "/");
            page.contains(wanted).then_some(page)
        })
    }
}

fn the_page_shows_sessions_doors_and_refusals() {
    let lab = Lab::new();
    let setup = Setup::new(&lab, |config| config);
    let (head, page) = setup.curl(&[], "/");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    for header in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
         img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ] {
        assert!(head.contains(header), "no {header} in {head}");
    }
    assert!(page.contains("No problems"), "{page}");
    assert!(page.contains("not tried yet"), "{page}");
    setup.send_sessions();
    let page = setup.page_with("The IPv6 door has been closed");
    for shown in [
        "closed by an operator",
        ">closed</span>",
        ", manual",
        "always open",
        "message accepted",
        ">accepted</span>",
        ">rejected</span>",
        "rule “no &lt;b&gt;guests&lt;/b&gt; &amp; co”",
        "shadow rule “a name, please” would have deferred it",
        "&lt;script&gt;document.title='owned'&lt;/script&gt;",
        "guest.example",
        "mta.sender.example",
        "sender.example",
        ">550 5.7.1<",
        "[2001:db8:2::25]:25",
        ">up</span>",
        "host name (PTR)",
        "an IPv6 address",
        "no such name",
        "/gatepost-",
        env!("CARGO_PKG_VERSION"),
    ] {
        assert!(page.contains(shown), "no {shown:?} in {page}");
    }
    let clients =
        ["192.0.2.10", UNWELCOME, "2001:db8:1::10", "10.2.0.192", "secret", "first", "mallory"];
    for hidden in clients.into_iter().chain(["<script>d", "<img", "<b>", "style="]) {
        assert!(!page.contains(hidden), "{hidden:?} in {page}");
    }
    let (head, body) = setup.curl(&["--head"], "/");
    assert!(head.starts_with("http/1.1 200 ") && body.is_empty(), "{head}");
    for method in ["POST", "PUT", "DELETE"] {
        let (head, _) = setup.curl(&["-X", method], "/");
        assert!(head.starts_with("http/1.1 405 "), "{method}: {head}");
    }
    let (head, body) = setup.curl(&[], "/status");
    assert!(head.starts_with("http/1.1 404 "), "{head}");
    assert_eq!(body, "not found; paths: /, /metrics, /probe, /healthz, /readyz\n");
    let (_, ready) = setup.curl(&[], "/readyz");
    assert_eq!(ready, "ready\n");
}

fn addresses_are_shown_if_configured() {
    let lab = Lab::new();
    let setup = Setup::new(&lab, |config| config.set("status", "show_addresses = true"));
    setup.send_sessions();
    let page = setup.page_with("The IPv6 door has been closed");
    for shown in
        ["192.0.2.10", UNWELCOME, "2001:db8:1::10", "secret@[192.0.2.10]", "mallory@guest.example"]
    {
        assert!(page.contains(shown), "no {shown:?} in {page}");
    }
    assert!(!page.contains("<script>d"), "{page}");
}

fn the_page_updates_itself_in_a_browser() {
    let lab = Lab::new();
    let mut setup = Setup::new(&lab, |config| config);
    let url = format!("http://{METRICS}/");
    let mut browser = Browser::start(&lab, &lab.gateway);
    let mut page = browser.page();
    page.screen(1280, "light");
    page.open(&url);
    assert!(headline(&mut page).starts_with("✓\nNo problems"), "{}", headline(&mut page));
    page.value("window.loaded = 'once'; 0");

    // The page updates itself, without a reload.
    setup.send_sessions();
    until("the closed IPv6 door on the page", || {
        headline(&mut page).contains("The IPv6 door has been closed").then_some(())
    });
    let title = page.text("document.title");
    assert!(title.ends_with(": problem"), "{title}");
    setup.hello("latest.example");
    until("the latest session in the page", || {
        let first = page.text("document.querySelector('#sessions tbody tr').innerText");
        first.contains("latest.example").then_some(())
    });
    assert_eq!(page.value("window.loaded"), "once");
    assert_eq!(page.text("document.getElementById('link').innerText"), "live");

    // While hidden it requests nothing; when visible again, it requests data at once.
    let requests = page.value(
        "(() => {
           const [fetch, requests] = [window.fetch, []];
           window.fetch = (...what) => (requests.push(document.hidden), fetch(...what));
           for (const hidden of [true, false]) {
             Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
             document.dispatchEvent(new Event('visibilitychange'));
           }
           window.fetch = fetch;
           return requests;
         })()",
    );
    assert_eq!(requests, json!([false]));

    for width in [1280, 768, 390, 320] {
        for scheme in ["light", "dark"] {
            page.screen(width, scheme);
            assert_eq!(too_wide(&mut page), json!([]), "at {width} px");
            let name = format!("status-{width}-{scheme}.png");
            page.shoot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        }
    }
    let text = page.text("document.querySelector('main').innerText");
    assert_eq!(page.complaints(), Vec::<serde_json::Value>::new());
    let elsewhere = |request: &String| !request.starts_with(&url) && request != "about:blank";
    assert!(!page.requests().iter().any(elsewhere), "{:?}", page.requests());

    // The same without JavaScript, except for ages.
    let mut bare = browser.page();
    bare.ask("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    bare.screen(390, "light");
    bare.open(&url);
    let markup = bare.ask("DOM.getDocument", json!({ "depth": 0 }));
    let node = json!({ "nodeId": markup["root"]["nodeId"] });
    let html = bare.ask("DOM.getOuterHTML", node)["outerHTML"].as_str().unwrap().to_owned();
    for line in text.lines().filter(|line| line.contains(".example") || line.contains("rule")) {
        let line = line.trim().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        assert!(html.contains(&line), "no {line:?} without a script in {html}");
    }
    assert!(
        html.contains("reloads every 30 s") && html.contains("id=\"link\" role=\"status\" hidden")
    );
    assert_eq!(too_wide(&mut bare), json!([]));

    // An outdated page is marked as such.
    let mut page = browser.page();
    page.open(&url);
    setup.gateway.kill();
    until("the page's notice that it is outdated", || {
        let text = page.text("document.getElementById('link').innerText");
        text.contains("not live: the gateway does not respond").then_some(())
    });
}

fn headline(page: &mut Page<'_>) -> String {
    page.text("document.getElementById('headline').innerText")
}

/// Elements that exceed the width of the screen.
fn too_wide(page: &mut Page<'_>) -> serde_json::Value {
    page.value(
        "[...document.querySelectorAll('body, body *')]
           .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5 ||
                          document.documentElement.scrollWidth > innerWidth)
           .map((e) => e.outerHTML.slice(0, 100))",
    )
}
