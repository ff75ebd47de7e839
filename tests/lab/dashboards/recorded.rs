//! The cases of `captures/`, replayed, as a second target of Prometheus: they contain events that would take minutes on a
//! live path, such as a confirmed fallback.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::support::Lab;

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/captures");

/// On the gateway's host.
pub(super) const RECORDED: &str = "127.0.0.1:9626";

/// Networks of the receivers and of the senders; the local side determines the direction.
const RECEIVERS: [&str; 2] = ["198.51.100.0/24", "2001:db8:2::/64"];
const SENDERS: [&str; 2] = ["192.0.2.0/24", "2001:db8:1::/64"];

/// Serves one page of metrics.
pub(super) struct Recorded<'lab> {
    lab: &'lab Lab,
    page: Arc<Mutex<String>>,
    over: Arc<AtomicBool>,
    server: Option<thread::JoinHandle<()>>,
}

impl<'lab> Recorded<'lab> {
    /// Starts with a case without problems.
    pub(super) fn serve(lab: &'lab Lab) -> Self {
        let listener = lab.gateway.in_thread(|| TcpListener::bind(RECORDED)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (page, over) = (Arc::<Mutex<String>>::default(), Arc::<AtomicBool>::default());
        let (shown, ends) = (Arc::clone(&page), Arc::clone(&over));
        let server = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(10));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let page = shown.lock().unwrap().clone();
                let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{page}");
            }
        });
        let recorded = Self { lab, page, over, server: Some(server) };
        recorded.show(&RECEIVERS, &["plain-ipv6".to_owned()]);
        recorded
    }

    /// All cases from the receivers' side.
    pub(super) fn show_as_receivers(&self) {
        self.show(&RECEIVERS, &cases());
    }

    /// All cases from the senders' side.
    pub(super) fn show_as_senders(&self) {
        self.show(&SENDERS, &cases());
    }

    fn show(&self, local: &[&str], cases: &[String]) {
        let file = self.lab.path("recorded.metrics");
        let mut words = vec![GATEPOST, "replay", "--metrics-out", file.to_str().unwrap()];
        words.extend(local.iter().flat_map(|network| ["--local", network]));
        let inputs: Vec<String> =
            cases.iter().map(|case| format!("{CAPTURES}/{case}/input.pcap")).collect();
        words.extend(inputs.iter().map(String::as_str));
        self.lab.gateway.run(words);
        *self.page.lock().unwrap() = fs::read_to_string(file).unwrap();
    }
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn cases() -> Vec<String> {
    let mut cases: Vec<String> = fs::read_dir(Path::new(CAPTURES))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(CAPTURES).join(name).join("input.pcap").exists())
        .collect();
    cases.sort();
    cases
}
