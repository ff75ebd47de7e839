//! The helper and the server over real sockets: the daemon works, hangs, answers late, sends garbage, restarts.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use super::*;
use crate::unix_listener::UnixListenerError;

const IPV6: &str = "dns mx.a.example. 60 IN AAAA 2001:db8::1";
const IPV4: &str = "dns mx.a.example. 60 IN A 192.0.2.1";
const IGNORE: &str = "9:OK IGNORE,";
const NOT_FOUND: &str = "9:NOTFOUND ,";

/// A path for a socket, and its folder; removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let name = format!("gatepost-map-{}-{test}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir(&folder.0).unwrap();
        folder
    }

    fn socket(&self) -> PathBuf {
        self.0.join("outbound.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// Postfix's side of a helper that runs in a thread.
struct Client {
    stream: UnixStream,
}

impl Client {
    fn start(daemon: &Path) -> Self {
        let (stream, other) = UnixStream::pair().unwrap();
        let daemon = daemon.to_owned();
        let output = other.try_clone().unwrap();
        thread::spawn(move || run_helper(other, output, &daemon));
        Self { stream }
    }

    fn ask(&mut self, content: &str) -> String {
        let mut request = Vec::new();
        Netstring::append(&mut request, content.as_bytes());
        self.stream.write_all(&request).unwrap();
        let mut received = Vec::new();
        loop {
            if let Netstring::Complete { length, .. } = Netstring::parse(&received, 100) {
                assert_eq!(length, received.len());
                return String::from_utf8(received).unwrap();
            }
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            received.extend(byte);
        }
    }
}

/// A daemon that serves one connection: reads a question, sends the bytes, and goes on.
fn daemon(listener: &UnixListener, answers: &[&[u8]]) -> thread::JoinHandle<()> {
    let listener = listener.try_clone().unwrap();
    let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        for answer in answers {
            assert!(stream.read(&mut buffer).unwrap() > 0);
            stream.write_all(&answer).unwrap();
        }
    })
}

#[test]
fn without_a_daemon_nothing_is_found() {
    let folder = Folder::new("none");
    let mut client = Client::start(&folder.socket());
    assert_eq!(client.ask(IPV6), NOT_FOUND);
    assert_eq!(client.ask("dns a.example. 60 IN MX 10 mx.a.example."), NOT_FOUND);
    assert_eq!(client.ask("no-key"), NOT_FOUND);
    assert_eq!(client.ask(&format!("dns {}", "x".repeat(50_000))), NOT_FOUND);
}

#[test]
fn only_ignore_passes_and_only_for_ipv6() {
    let folder = Folder::new("pass");
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let server = daemon(&listener, &[IGNORE.as_bytes(), IGNORE.as_bytes(), b"9:OK REJECT,"]);
    let mut client = Client::start(&folder.socket());
    assert_eq!(client.ask(IPV6), IGNORE);
    assert_eq!(client.ask(IPV4), NOT_FOUND);
    assert_eq!(client.ask(IPV6), NOT_FOUND);
    server.join().unwrap();
}

#[test]
fn garbage_is_not_found_and_the_next_question_gets_a_new_connection() {
    let folder = Folder::new("garbage");
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let mut client = Client::start(&folder.socket());
    let garbage: [&[u8]; 6] = [
        b"x",
        b"3:abc,",
        b"9:TEMP down,",
        b"10:PERM gone,,",
        b"9:OK IGNORE,9:OK IGNORE,",
        b"99999:",
    ];
    for bytes in garbage {
        let server = daemon(&listener, &[bytes]);
        assert_eq!(client.ask(IPV6), NOT_FOUND, "{bytes:?}");
        server.join().unwrap();
        let server = daemon(&listener, &[IGNORE.as_bytes()]);
        assert_eq!(client.ask(IPV6), IGNORE, "after {bytes:?}");
        server.join().unwrap();
        let server = daemon(&listener, &[IGNORE.as_bytes()]);
        assert_eq!(client.ask(IPV6), IGNORE, "after a restart");
        server.join().unwrap();
    }
}

/// A daemon that hangs accepts connections, by its backlog, and questions.
#[test]
fn a_daemon_that_hangs_is_not_waited_for_again_and_again() {
    let folder = Folder::new("hangs");
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let mut client = Client::start(&folder.socket());
    assert_eq!(client.ask(IPV6), NOT_FOUND);
    for _ in 0..100 {
        assert_eq!(client.ask(IPV6), NOT_FOUND);
    }
    // One connection was made, with one question; for a while there is none after it.
    listener.set_nonblocking(true).unwrap();
    let (mut first, _) = listener.accept().unwrap();
    let mut questions = Vec::new();
    first.set_nonblocking(false).unwrap();
    first.read_to_end(&mut questions).unwrap();
    let Netstring::Complete { length, .. } = Netstring::parse(&questions, 100) else { panic!() };
    assert_eq!(length, questions.len());
    assert!(listener.accept().is_err());
}

/// The answer to a question that timed out must not be taken for that to the next one.
#[test]
fn a_late_answer_is_dropped() {
    let folder = Folder::new("late");
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let mut client = Client::start(&folder.socket());
    let late = {
        let listener = listener.try_clone().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            assert!(stream.read(&mut buffer).unwrap() > 0);
            // The end of the connection: the helper has given up.
            assert_eq!(stream.read(&mut buffer).unwrap(), 0);
            let _closed = stream.write_all(IGNORE.as_bytes());
        })
    };
    assert_eq!(client.ask(IPV6), NOT_FOUND);
    late.join().unwrap();
    assert_eq!(client.ask(IPV6), NOT_FOUND);
}

#[tokio::test]
async fn the_server_answers_address_records_only() {
    let folder = Folder::new("server");
    let listener = MapListener::bind(&folder.socket()).unwrap();
    let mode = std::fs::metadata(folder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let error = MapListener::bind(&folder.socket()).unwrap_err();
    assert!(matches!(error, UnixListenerError::InUse { .. }), "{error}");
    let serving =
        tokio::spawn(listener.serve(async |record: FilteredRecord| match record.family() {
            crate::addr::Family::Ipv6 => MapAnswer::Ok(MapAnswer::IGNORE.to_owned()),
            crate::addr::Family::Ipv4 => MapAnswer::NotFound,
        }));
    let path = folder.socket();
    let asking = tokio::task::spawn_blocking(move || {
        let mut clients: Vec<Client> = (0..8).map(|_| Client::start(&path)).collect();
        for client in &mut clients {
            assert_eq!(client.ask(IPV4), NOT_FOUND);
            assert_eq!(client.ask(IPV6), IGNORE);
        }
        // Malformed requests end a connection, and no other.
        let mut direct = UnixStream::connect(&path).unwrap();
        direct.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut rest = Vec::new();
        direct.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        // In pieces, several at once.
        let mut direct = UnixStream::connect(&path).unwrap();
        let mut requests = Vec::new();
        for content in [IPV6, "dns a.example. 60 IN MX 10 mx.a.example.", "x", IPV6] {
            Netstring::append(&mut requests, content.as_bytes());
        }
        for piece in requests.chunks(7) {
            direct.write_all(piece).unwrap();
        }
        let mut answers = vec![0; 2 * IGNORE.len() + 2 * NOT_FOUND.len()];
        direct.read_exact(&mut answers).unwrap();
        let expected = format!("{IGNORE}{NOT_FOUND}{NOT_FOUND}{IGNORE}");
        assert_eq!(String::from_utf8(answers).unwrap(), expected);
        for client in &mut clients {
            assert_eq!(client.ask(IPV6), IGNORE);
        }
    });
    asking.await.unwrap();
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    assert!(!folder.socket().exists());
}
