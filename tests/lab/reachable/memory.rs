//! Lookup results survive a restart in the cache file, and are shared with other gateways by Redis.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::tests;
use crate::support::world::{ASKED, World, sender_ip};
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Process, until};
use hickory_proto::rr::RecordType;

tests![lookup_results_survive_a_kill, two_gateways_with_one_store_probe_once];

const RETURN_PATH: &str = r#"
[[policy]]
name = "a return path"
require = ["return_path"]
"#;

/// New results are written once a second.
const WRITTEN: Duration = Duration::from_secs(3);

fn lookup_results_survive_a_kill() {
    let lab = Lab::new();
    let world = World::new(&lab);
    let _upstream = Postfix::receiver(&lab);
    let config = gateway_config(&lab)
        .set("lookup", &format!("cache_file = {:?}", lab.path("facts.redb")))
        .policies(RETURN_PATH);
    let mut gateway = Gateway::start(&lab, &config);
    let asked = || {
        let questions = world.resolver.log.by_question.lock().unwrap();
        questions.get(&("second.sender.example.".to_owned(), RecordType::MX)).copied()
    };
    let entrance = lab.entrance(Mode::Proxy, Family::Ipv6);
    assert_eq!(code(&lab, entrance, "u@second.sender.example"), 250);
    assert_eq!(asked(), Some(1));
    thread::sleep(WRITTEN);
    // In the middle of other lookups, and of writing their results.
    thread::scope(|scope| {
        scope.spawn(|| {
            for domain in ["implicit", "null", "only6", "only4", "loopback", "private", "empty"] {
                // Their result does not matter: the gateway is killed meanwhile.
                let Ok(mut stream) = lab.client.connect(entrance) else { continue };
                let commands = format!(
                    "EHLO good.client.example\r\nMAIL FROM:<u@{domain}.sender.example>\r\nRCPT TO:<a@example.org>\r\n"
                );
                let _ = stream.write_all(commands.as_bytes());
                let _ = stream.read(&mut [0; 64]);
            }
        });
        thread::sleep(Duration::from_millis(20));
        gateway.kill_and_start_again();
    });
    assert_eq!(code(&lab, entrance, "u@second.sender.example"), 250);
    assert_eq!(asked(), Some(1), "it was looked up again");
    // Unknown names are still looked up.
    assert_eq!(code(&lab, entrance, "u@nobody.sender.example"), 450);
}

fn two_gateways_with_one_store_probe_once() {
    let lab = Lab::new();
    let _world = World::new(&lab);
    let _upstream = Postfix::receiver(&lab);
    let redis = redis(&lab);
    let at = SocketAddr::new("2001:db8:a::70".parse().unwrap(), 25);
    lab.add_client_ip(at.ip());
    let connections = exchange(&lab, at);
    let probed = r#"
[[policy]]
name = "the sender's server speaks"
require = [{ fact = "return_path", level = "smtp" }]
"#;
    let gateways: Vec<(SocketAddr, Gateway<'_>)> = [2601_u16, 2602]
        .into_iter()
        .map(|port| {
            let listen = SocketAddr::new(lab.gateway_ip(Family::Ipv6), port);
            let config = gateway_config(&lab)
                .listen(&[listen])
                .set("lookup", &format!("redis = {redis:?}"))
                .metrics(&format!("[::1]:{}", port + 1000))
                .policies(probed);
            (listen, Gateway::start(&lab, &config))
        })
        .collect();
    // Its only exchange is at `at`.
    let (sender, lab) = ("u@counted.sender.example".to_owned(), &lab);
    thread::scope(|scope| {
        for (listen, _) in &gateways {
            for _ in 0..5 {
                let (listen, sender) = (*listen, sender.as_str());
                scope.spawn(move || assert_eq!(code(lab, listen, sender), 250));
            }
        }
    });
    assert_eq!(connections.load(Ordering::Relaxed), 1, "probes of one new server by two gateways");
}

fn gateway_config(lab: &Lab) -> Config {
    Config::new(lab, Mode::Proxy).for_crowds().set("lookup", &format!("dns = [\"{ASKED}\"]"))
}

/// The reply to RCPT.
fn code(lab: &Lab, entrance: SocketAddr, sender: &str) -> u16 {
    let mut smtp = lab.client.smtp_from(sender_ip("good", Family::Ipv6), entrance);
    smtp.dialogue(&format!(
        "S: 220\n C: EHLO good.client.example\n S: 250\n C: MAIL FROM:<{sender}>\n S: 250"
    ));
    let code = smtp.ask("RCPT TO:<someone@example.org>").code;
    smtp.dialogue("C: QUIT\n S: 221");
    code
}

/// Redis on the gateway's host; its URL.
fn redis(lab: &Lab) -> String {
    let folder = lab.folder("redis");
    let process: Process = lab.gateway.spawn([
        "redis-server",
        "--port",
        "6379",
        "--bind",
        "::1",
        "--save",
        "",
        "--dir",
        folder.to_str().unwrap(),
    ]);
    until("Redis (Debian: redis-server)", || {
        process.log().contains("Ready to accept connections").then_some(())
    });
    // It stops with the lab.
    std::mem::forget(process);
    "redis://[::1]:6379/".to_owned()
}

/// A slow mail server that counts its connections.
fn exchange(lab: &Lab, at: SocketAddr) -> Arc<AtomicUsize> {
    let listener = lab.client.in_thread(|| TcpListener::bind(at)).unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || serve(stream));
        }
    });
    connections
}

fn serve(mut stream: TcpStream) -> Option<()> {
    thread::sleep(Duration::from_millis(300));
    stream.write_all(b"220 slow.example ESMTP\r\n").ok()?;
    let lines = BufReader::new(stream.try_clone().ok()?).lines();
    for line in lines.map_while(Result::ok) {
        let reply: &[u8] = match line.get(..4) {
            Some("EHLO") => b"250-slow.example\r\n250 PIPELINING\r\n",
            Some("QUIT") => b"221 goodbye\r\n",
            _ => b"250 ok\r\n",
        };
        stream.write_all(reply).ok()?;
    }
    Some(())
}
