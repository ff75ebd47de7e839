//! Sending a canary to servers of each kind.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::canary::{CanaryAddresses, CanaryDelivery, CanaryOutcome, DeliveryStage};
use crate::tls::{UpstreamVerification, upstream_config};

const MESSAGE: &str = "Subject: a\r\n\r\nb\r\n";

/// Serves one connection: each line of the client gets the next reply. Returns what the client sent.
async fn server(replies: &'static [&'static str]) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut received = String::new();
        for reply in replies {
            if stream.get_mut().write_all(format!("{reply}\r\n").as_bytes()).await.is_err() {
                // The client does not wait for the reply to QUIT.
                return received;
            }
            let is_content = reply.starts_with("354");
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return received;
                }
                received.push_str(&line);
                if !is_content || line == ".\r\n" {
                    break;
                }
            }
        }
        received
    });
    (address, serving)
}

async fn send(servers: &[SocketAddr]) -> CanaryDelivery {
    let tls = upstream_config(&UpstreamVerification::None).unwrap();
    let timeout = Duration::from_secs(5);
    let sender = CanarySender { hostname: "v.example".to_owned(), timeout, tls };
    let addresses =
        CanaryAddresses { from: "a@v.example".to_owned(), to: "b@s.example".to_owned() };
    let name = || "mx.s.example".to_owned();
    let servers: Vec<_> =
        servers.iter().map(|address| CanaryTarget { name: name(), address: *address }).collect();
    sender.send(&servers, &addresses, MESSAGE).await
}

#[tokio::test]
async fn an_accepted_message_is_sent_as_a_mail_server_would() {
    let (address, serving) = server(&[
        "220 s",
        "250-s\r\n250 SIZE",
        "250 ok",
        "250 ok",
        "354 go",
        "250 2.0.0 queued",
        "221",
    ])
    .await;
    let delivery = send(&[address]).await;
    assert_eq!((delivery.stage, delivery.code), (DeliveryStage::Content, Some(250)));
    assert_eq!(delivery.text, "2.0.0 queued");
    assert!(delivery.is_accepted() && !delivery.tls);
    assert_eq!(
        serving.await.unwrap(),
        "EHLO v.example\r\nMAIL FROM:<a@v.example>\r\nRCPT TO:<b@s.example>\r\nDATA\r\nSubject: a\r\n\r\nb\r\n.\r\nQUIT\r\n"
    );
}

#[tokio::test]
async fn each_refusal_has_its_stage_and_outcome() {
    for (replies, stage, outcome) in [
        (&["554 no"][..], DeliveryStage::Greeting, CanaryOutcome::Refused),
        (&["220 s", "421 busy"], DeliveryStage::Hello, CanaryOutcome::Deferred),
        (&["220 s", "250 s", "550 no"], DeliveryStage::Sender, CanaryOutcome::Refused),
        (
            &["220 s", "250 s", "250 ok", "450 grey"],
            DeliveryStage::Recipient,
            CanaryOutcome::Deferred,
        ),
        (
            &["220 s", "250 s", "250 ok", "250 ok", "354 go", "554 spam"],
            DeliveryStage::Content,
            CanaryOutcome::Refused,
        ),
        (&["what?"], DeliveryStage::Greeting, CanaryOutcome::Unreachable),
    ] {
        let (address, _serving) = server(replies).await;
        let delivery = send(&[address]).await;
        assert_eq!((delivery.stage, delivery.outcome()), (stage, Some(outcome)), "{replies:?}");
    }
}

#[tokio::test]
async fn the_next_server_is_tried_unless_the_first_took_part() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let (refusing, _one) = server(&["554 no"]).await;
    let (address, _serving) = server(&["220 s", "250 s", "550 no such sender"]).await;
    let (unused, untouched) = server(&["220 s"]).await;
    let delivery = send(&[closed, refusing, address, unused]).await;
    assert_eq!(delivery.text, "no such sender");
    assert!(delivery.server.is_some_and(|server| server.ends_with(&address.to_string())));
    assert!(!untouched.is_finished());
    let delivery = send(&[closed]).await;
    assert_eq!(delivery.outcome(), Some(CanaryOutcome::Unreachable));
    let delivery = send(&[]).await;
    assert_eq!(delivery.outcome(), Some(CanaryOutcome::Unknown));
}

/// A server that offers STARTTLS and cannot do it still gets the message.
#[tokio::test]
async fn tls_is_opportunistic() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_all(b"220 s\r\n250-s\r\n250 STARTTLS\r\n").await.unwrap();
        // As the replies are ahead of the commands, TLS meets plaintext.
        first.write_all(b"220 go\r\nno TLS\r\n").await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        second
            .write_all(
                b"220 s\r\n250-s\r\n250 STARTTLS\r\n250 ok\r\n250 ok\r\n354 go\r\n250 done\r\n",
            )
            .await
            .unwrap();
        let mut lines = BufReader::new(second).lines();
        let mut received = Vec::new();
        while let Ok(Some(line)) = lines.next_line().await {
            received.push(line);
        }
        received
    });
    let delivery = send(&[address]).await;
    assert!(delivery.is_accepted() && !delivery.tls, "{delivery:?}");
    assert!(serving.await.unwrap().iter().all(|line| line != "STARTTLS"));
}
