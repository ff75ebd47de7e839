//! As smtpd(8) asks: connections with one question after the other.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use serde::Serialize;

pub(crate) const CONNECTIONS: usize = 8;
const RECIPIENTS: usize = 10;
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) enum PolicyAddress {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

pub(crate) trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

impl PolicyAddress {
    pub(crate) fn connect(&self) -> io::Result<Box<dyn Connection>> {
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
                Ok(Box::new(stream))
            }
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
                // As Postfix, which writes a request at once.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// As in `[postfix] policy`.
impl fmt::Display for PolicyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "inet:{address}"),
        }
    }
}

/// Of one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// CPU time of the server for a question.
    pub(crate) cpu_us: f64,
}

/// All questions of a round with so many sessions for each connection.
pub(crate) fn questions(sessions: u16) -> usize {
    CONNECTIONS * usize::from(sessions) * RECIPIENTS
}

/// A round; also returns the number of rejected recipients. The CPU time is missing.
pub(crate) fn ask(address: &PolicyAddress, sessions: u16) -> Result<(Figures, usize)> {
    let streams: Vec<_> = (0..CONNECTIONS).map(|_| address.connect()).collect::<io::Result<_>>()?;
    let started = Instant::now();
    let asked = thread::scope(|scope| {
        let asking = |(number, stream)| scope.spawn(move || ask_on(stream, number, sessions));
        let threads: Vec<_> = streams.into_iter().enumerate().map(asking).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_panic| anyhow!("a client thread panicked"))?);
        joined.collect::<Result<Vec<_>>>()
    })?;
    let took = started.elapsed();
    let rejected = asked.iter().map(|(_, rejected)| rejected).sum();
    let mut times: Vec<f64> = asked.into_iter().flat_map(|(times, _)| times).collect();
    times.sort_by(f64::total_cmp);
    let figures = Figures {
        per_second: times.len() as f64 / took.as_secs_f64(),
        p50_us: percentile(&times, 0.50),
        p99_us: percentile(&times, 0.99),
        cpu_us: f64::NAN,
    };
    Ok((figures, rejected))
}

/// The smallest value that at least this share of the sorted values does not exceed.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Sessions one after the other, every second one of a sender that a rule rejects. Returns the times of the answers in
/// microseconds, and the number of rejections.
fn ask_on(
    mut stream: Box<dyn Connection>,
    connection: usize,
    sessions: u16,
) -> Result<(Vec<f64>, usize)> {
    let (mut times, mut rejected) = (Vec::new(), 0);
    let mut reply = Vec::new();
    for session in 0..sessions {
        let domain = if session % 2 == 0 { "mta.good.example" } else { "mta.bad.example" };
        for recipient in 0..RECIPIENTS {
            let request = format!(
                "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nhelo_name=mta.example\n\
                 queue_id=\nsender=a@{domain}\nrecipient=r{recipient}@example.org\nrecipient_count=0\n\
                 client_address=2001:db8::{connection:x}\nclient_name=unknown\nreverse_client_name=unknown\n\
                 instance={connection}.{session}\nsasl_method=\nsasl_username=\nsasl_sender=\nsize=0\n\
                 ccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\n\
                 encryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\n\
                 etrn_domain=\nstress=\nclient_port={}\npolicy_context=\nserver_address=2001:db8::1\n\
                 server_port=25\n\n",
                1024 + session
            );
            let asked = Instant::now();
            stream.write_all(request.as_bytes())?;
            read_reply(stream.as_mut(), &mut reply)?;
            times.push(asked.elapsed().as_secs_f64() * 1e6);
            if reply != b"action=DUNNO\n\n" {
                ensure!(reply.starts_with(b"action=REJECT 5.7.1 "), "{}", reply.escape_ascii());
                rejected += 1;
            }
        }
    }
    Ok((times, rejected))
}

fn read_reply(stream: &mut dyn Connection, reply: &mut Vec<u8>) -> Result<()> {
    reply.clear();
    while !reply.ends_with(b"\n\n") {
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "the server closed the connection");
        reply.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
    Ok(())
}
