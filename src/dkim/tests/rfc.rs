//! The examples of RFC 6376 (appendix A) and RFC 8463 (appendix A).

use super::{NOW, read, verify};
use crate::dkim::{Canonicalization, DkimAlgorithm, DkimOutcome, DkimReason};

const RFC_6376: &str = "\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
";

const KEY_OF_RFC_6376: &str = "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQ\
      KBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt\
      IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v\
      /RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi\
      tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB";

const RFC_8463: &str = "\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
";

const KEYS_OF_RFC_8463: [&str; 2] = [
    "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bd\
     OKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+\
     2kryOTIKT+l/K4w3QIDAQAB",
];

fn on_the_wire(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

#[test]
fn the_example_of_rfc_6376_passes() {
    let message = on_the_wire(RFC_6376);
    let result = verify(&message, &[KEY_OF_RFC_6376]);
    assert_eq!((result.outcome, result.reason), (DkimOutcome::Pass, None));
    let read = read(&message);
    let signature = read.signatures[0].signature().unwrap();
    assert_eq!(signature.key_name(), "brisbane._domainkey.example.com");
    assert_eq!(signature.identity, "joe@football.example.com");
    assert_eq!(signature.algorithm, DkimAlgorithm::RsaSha256);
    assert_eq!(signature.header_canonicalization, Canonicalization::Simple);
    assert_eq!(signature.body_canonicalization, Canonicalization::Simple);
    assert_eq!(read.authors.domains, ["football.example.com"]);
}

#[test]
fn changed_examples_fail() {
    for (from, to, reason) in [
        ("dinner", "supper", DkimReason::SignatureMismatch),
        // "simple" keeps white space.
        ("Subject: Is", "Subject:  Is", DkimReason::SignatureMismatch),
        ("hungry", "angry", DkimReason::BodyHashMismatch),
        ("game. Are", "game.  Are", DkimReason::BodyHashMismatch),
    ] {
        let message = on_the_wire(&RFC_6376.replace(from, to));
        let result = verify(&message, &[KEY_OF_RFC_6376]);
        assert_eq!((result.outcome, result.reason), (DkimOutcome::Fail, Some(reason)), "{to}");
    }
}

#[test]
fn both_signatures_of_rfc_8463_pass() {
    // "relaxed" ignores the first change.
    for text in [RFC_8463.to_owned(), RFC_8463.replace("Subject: Is", "SUBJECT :Is\n\t")] {
        let message = read(&on_the_wire(&text));
        assert_eq!(message.signatures.len(), 2);
        for (signature, key) in message.signatures.iter().zip(KEYS_OF_RFC_8463) {
            assert!(signature.body_hash_matches());
            let result = signature.verify(&[key.as_bytes().to_vec()], NOW);
            assert_eq!((result.outcome, result.reason), (DkimOutcome::Pass, None), "{text}");
            let other = KEYS_OF_RFC_8463.iter().find(|other| **other != key).unwrap();
            let result = signature.verify(&[other.as_bytes().to_vec()], NOW);
            assert_eq!(result.reason, Some(DkimReason::KeyTypeMismatch));
        }
    }
}
