//! A complete probe of one's own server, for the domain check: times, replies, and the size of packets that pass.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::net::sockopt;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ProtocolVersion};
use sha2::{Digest as _, Sha256};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connect::{ConnectError, connect};
use super::smtp_client::{ProbeError, SmtpClient, TlsProbeError};
use crate::certificate_details::CertificateDetails;
use crate::policy::facts::DomainName;
use crate::readiness::{
    CertificateTrust, ConnectResult, LargeProbe, NetworkPath, PostmasterSurvey, ServerTls, Survey,
    SurveyReply, SurveyResult, TlsAttempt, TlsSurvey,
};
use crate::smtp::Reply;
use crate::smtp_connection::ConnectionTls;
use crate::time::Timestamp;

/// Lines of a reply that are kept.
const MAX_LINES: usize = 64;

#[derive(Clone, Debug)]
pub struct SurveySettings {
    /// Our name in EHLO.
    pub hostname: String,
    pub port: u16,
    /// For each of: the connection, the reply to EHLO, TLS; a greeting has twice as long.
    pub timeout: Duration,
    /// The end of the whole check.
    pub deadline: Instant,
    pub tls: SurveyTls,
}

/// How servers are asked for TLS.
#[derive(Clone, Debug)]
pub struct SurveyTls {
    /// It must accept any certificate, which is judged afterwards. Its ClientHello should fill a segment.
    pub config: Arc<ClientConfig>,
    /// The same with a small ClientHello.
    pub small: Arc<ClientConfig>,
    /// Who judges it, if this host trusts anybody.
    pub verifier: Option<Arc<WebPkiServerVerifier>>,
}

/// Servers delay the greeting to find out which clients do not wait for it: RFC 5321 §4.5.3.2.1 gives them five minutes.
const GREETING: u32 = 2;
/// For the reply to RSET, on which nothing depends.
const RESET: Duration = Duration::from_secs(2);

/// Probes `server`, an exchange of `domain` called `name`, as far as it responds, until the deadline at most.
pub async fn survey(
    server: IpAddr,
    name: &DomainName,
    domain: &DomainName,
    settings: &SurveySettings,
) -> Survey {
    let attempt = |config| Attempt { server, name, domain, settings, config };
    let survey = attempt(&settings.tls.config).run().await;
    let Some(TlsAttempt::TimedOut(after)) = survey.tls.as_ref().map(|tls| tls.handshake.clone())
    else {
        return survey;
    };
    // If a small ClientHello is answered, the size of the large one was the reason.
    let small = attempt(&settings.tls.small).run().await;
    if !matches!(&small.tls, Some(TlsSurvey { handshake: TlsAttempt::Established(_), .. })) {
        return survey;
    }
    let path = survey.path.map(|path| NetworkPath { large: LargeProbe::Stalled(after), ..path });
    Survey { tls: small.tls, path, postmaster: small.postmaster, ..survey }
}

/// Whether `server` accepts connections: the survey of a host that only has to answer. Waits for its greeting, so that the
/// server has a client like others in its log.
pub async fn answers(server: IpAddr, settings: &SurveySettings) -> ConnectResult {
    match begin(server, settings).await {
        Ok((stream, took)) => {
            let mut client = SmtpClient::new(stream, settings.deadline);
            let greeting = exchange(&mut client, None, settings.timeout, settings).await;
            end(client, &greeting, settings).await;
            ConnectResult::Connected(took)
        }
        Err(result) => result,
    }
}

/// The connection and the time it took, or why there is none.
async fn begin(
    server: IpAddr,
    settings: &SurveySettings,
) -> Result<(TcpStream, Duration), ConnectResult> {
    let began = Instant::now();
    let address = SocketAddr::new(server, settings.port);
    let limit = settings.timeout.min(settings.deadline.saturating_duration_since(began));
    match connect(address, None, limit).await {
        Ok(stream) => Ok((stream, began.elapsed())),
        Err(ConnectError::Refused) => Err(ConnectResult::Refused),
        Err(ConnectError::NoResponse) if limit < settings.timeout => Err(ConnectResult::OutOfTime),
        Err(ConnectError::NoResponse) => Err(ConnectResult::NoResponse(began.elapsed())),
        Err(ConnectError::NoRoute | ConnectError::Exhausted) => Err(ConnectResult::NoRoute),
    }
}

/// One connection.
struct Attempt<'a> {
    server: IpAddr,
    name: &'a DomainName,
    domain: &'a DomainName,
    settings: &'a SurveySettings,
    config: &'a Arc<ClientConfig>,
}

impl Attempt<'_> {
    async fn run(&self) -> Survey {
        let settings = self.settings;
        let (stream, took) = match begin(self.server, settings).await {
            Ok(connected) => connected,
            Err(result) => return Survey::only(result),
        };
        let mut survey = Survey::only(ConnectResult::Connected(took));
        survey.from = stream.local_addr().ok().map(|own| own.ip());
        let mut client = SmtpClient::new(stream, settings.deadline);
        let for_greeting = settings.timeout * GREETING;
        survey.greeting = exchange(&mut client, None, for_greeting, settings).await;
        if !is_positive(&survey.greeting) {
            end(client, &survey.greeting, settings).await;
            return survey;
        }
        for command in ["EHLO", "HELO"] {
            let command = format!("{command} {}", settings.hostname);
            survey.ehlo = exchange(&mut client, Some(&command), settings.timeout, settings).await;
            let is_unknown = matches!(
                survey.ehlo,
                SurveyResult::Received(SurveyReply { code: 500 | 502 | 504 | 550, .. })
            );
            if !is_unknown {
                break;
            }
        }
        if !is_positive(&survey.ehlo) {
            end(client, &survey.ehlo, settings).await;
            return survey;
        }
        if offers_starttls(&survey.ehlo) {
            survey.tls = Some(self.tls(&mut client).await);
        }
        survey.path = Some(path(client.stream(), large(survey.tls.as_ref())));
        match &survey.tls {
            Some(tls) if !can_go_on(tls) => end(client, &tls.ehlo, settings).await,
            _ => {
                let asked = self.postmaster(&mut client).await;
                let last = if is_positive(&asked.mail) { &asked.recipient } else { &asked.mail };
                if is_positive(&asked.mail) && matches!(last, SurveyResult::Received(_)) {
                    let limit = settings.timeout.min(RESET);
                    let reset = exchange(&mut client, Some("RSET"), limit, settings).await;
                    end(client, &reset, settings).await;
                } else {
                    end(client, last, settings).await;
                }
                survey.postmaster = Some(asked);
            }
        }
        survey
    }

    /// Asks whether mail from the null sender to the domain's postmaster is accepted. Each command waits for the reply to
    /// the one before it, and no message follows.
    async fn postmaster(&self, client: &mut SmtpClient) -> PostmasterSurvey {
        let settings = self.settings;
        let mail = exchange(client, Some("MAIL FROM:<>"), settings.timeout, settings).await;
        let mut asked = PostmasterSurvey { mail, recipient: SurveyResult::NotRequested };
        if is_positive(&asked.mail) {
            let recipient = format!("RCPT TO:<postmaster@{}>", self.domain);
            asked.recipient = exchange(client, Some(&recipient), settings.timeout, settings).await;
        }
        asked
    }

    /// STARTTLS, the handshake, and EHLO again.
    async fn tls(&self, client: &mut SmtpClient) -> TlsSurvey {
        let settings = self.settings;
        let reply = exchange(client, Some("STARTTLS"), settings.timeout, settings).await;
        let ehlo = SurveyResult::NotRequested;
        let mut survey = TlsSurvey { reply, handshake: TlsAttempt::NotReached, ehlo };
        if !is_positive(&survey.reply) {
            return survey;
        }
        let began = Instant::now();
        let name = self.name.to_string();
        let Ok(server) = ServerName::try_from(name.clone()) else {
            survey.handshake = TlsAttempt::Failed(format!("{name} is no name of a server"));
            return survey;
        };
        client.set_deadline(settings.deadline.min(began + settings.timeout));
        survey.handshake = match client.start_tls(Arc::clone(self.config), server.clone()).await {
            Err(TlsProbeError::TimedOut) if began.elapsed() < settings.timeout => {
                TlsAttempt::OutOfTime
            }
            Err(TlsProbeError::TimedOut) => TlsAttempt::TimedOut(began.elapsed()),
            Err(TlsProbeError::Closed) => TlsAttempt::Closed,
            Err(TlsProbeError::Tls(why)) => TlsAttempt::Failed(why),
            Ok(connection) => {
                match tls_facts(connection, &server, &settings.tls, began.elapsed()) {
                    Ok(facts) => TlsAttempt::Established(facts),
                    Err(why) => TlsAttempt::Failed(why),
                }
            }
        };
        if matches!(survey.handshake, TlsAttempt::Established(_)) {
            let ehlo = format!("EHLO {}", settings.hostname);
            survey.ehlo = exchange(client, Some(&ehlo), settings.timeout, settings).await;
        }
        survey
    }
}

/// Whether the dialogue continues, inside TLS or because the server did not begin with TLS.
fn can_go_on(tls: &TlsSurvey) -> bool {
    match tls.handshake {
        TlsAttempt::Established(_) => is_positive(&tls.ehlo),
        TlsAttempt::NotReached => matches!(tls.reply, SurveyResult::Received(_)),
        _ => false,
    }
}

/// Ends the connection: by QUIT, except when the server owes a reply. It would take QUIT for pipelining, which its log calls
/// improper, and of which others make bans.
async fn end(mut client: SmtpClient, last: &SurveyResult, settings: &SurveySettings) {
    if matches!(last, SurveyResult::Received(_)) {
        client.set_deadline(settings.deadline);
        client.quit().await;
    }
}

/// What a handshake tells of large packets: the ClientHello fills a segment, and mostly what the server sends does.
fn large(tls: Option<&TlsSurvey>) -> LargeProbe {
    match tls.map(|tls| &tls.handshake) {
        Some(TlsAttempt::Established(facts)) => {
            LargeProbe::Answered { sent: facts.client_hello, received: facts.server_octets }
        }
        Some(TlsAttempt::Closed | TlsAttempt::Failed(_)) => LargeProbe::Closed,
        Some(TlsAttempt::OutOfTime) => LargeProbe::OutOfTime,
        Some(TlsAttempt::TimedOut(_) | TlsAttempt::NotReached) | None => LargeProbe::NotTried,
    }
}

/// What a completed handshake shows of the server.
///
/// # Errors
/// The certificate is missing, or cannot be read.
pub(in crate::lookup) fn tls_facts(
    connection: &ConnectionTls,
    server: &ServerName<'_>,
    settings: &SurveyTls,
    took: Duration,
) -> Result<ServerTls, String> {
    let sizes = connection.handshake_sizes();
    let certificates = connection.certificates();
    let (first, others) = certificates.split_first().ok_or("no certificate")?;
    let details = CertificateDetails::parse(first)?;
    let trust = match &settings.verifier {
        None => CertificateTrust::Unknown,
        Some(verifier) => {
            match verifier.verify_server_cert(first, others, server, &[], UnixTime::now()) {
                Ok(_) => CertificateTrust::Trusted,
                Err(rustls::Error::InvalidCertificate(why)) => {
                    CertificateTrust::Distrusted(distrust(&why))
                }
                Err(why) => CertificateTrust::Distrusted(why.to_string()),
            }
        }
    };
    let version = match connection.version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    Ok(ServerTls {
        version: version.to_owned(),
        took,
        names: details.names,
        not_after: details.not_after,
        chain: certificates.iter().map(|certificate| certificate.to_vec()).collect(),
        digest: Sha256::digest(first).into(),
        trust,
        client_hello: sizes.client_hello,
        server_octets: sizes.server,
        at: Timestamp::from_system_time(SystemTime::now()),
    })
}

fn distrust(why: &CertificateError) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "of no authority that this host trusts, or its chain is not sent".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "not for the name of this server".to_owned()
        }
        other => other.to_string(),
    }
}

/// Sends a command, if there is one, and reads a reply within `limit`.
async fn exchange(
    client: &mut SmtpClient,
    command: Option<&str>,
    limit: Duration,
    settings: &SurveySettings,
) -> SurveyResult {
    let began = Instant::now();
    client.set_deadline(settings.deadline.min(began + limit));
    if let Some(command) = command
        && let Err(error) = client.send(format!("{command}\r\n").as_bytes()).await
    {
        return no_reply(error, began, settings);
    }
    let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
    let convert =
        |reply: &Reply<'_>| (reply.code, reply.texts().take(MAX_LINES).map(text).collect());
    match client.read_reply_as(convert).await {
        Ok((code, lines)) => {
            SurveyResult::Received(SurveyReply { code, lines, took: began.elapsed() })
        }
        Err(error) => no_reply(error, began, settings),
    }
}

fn no_reply(error: ProbeError, began: Instant, settings: &SurveySettings) -> SurveyResult {
    match error {
        ProbeError::TimedOut if began.elapsed() < settings.timeout => {
            SurveyResult::OutOfTime(began.elapsed())
        }
        ProbeError::TimedOut => SurveyResult::TimedOut(began.elapsed()),
        ProbeError::Closed => SurveyResult::Closed,
        ProbeError::NotSmtp => SurveyResult::NotSmtp,
    }
}

const fn is_positive(result: &SurveyResult) -> bool {
    matches!(result, SurveyResult::Received(SurveyReply { code: 200..=299, .. }))
}

fn offers_starttls(ehlo: &SurveyResult) -> bool {
    matches!(ehlo, SurveyResult::Received(reply) if reply.offers("STARTTLS"))
}

/// The kernel's knowledge of the path; unavailable values are `None`.
fn path(stream: &TcpStream, large: LargeProbe) -> NetworkPath {
    let peer = stream.peer_addr().ok();
    let mtu = match peer {
        Some(SocketAddr::V6(_)) => sockopt::ipv6_mtu(stream).ok(),
        Some(SocketAddr::V4(_)) => sockopt::ip_mtu(stream).ok(),
        None => None,
    };
    let mss = SockRef::from(stream).tcp_mss().ok();
    NetworkPath { mtu, mss, large }
}
