//! Sends both messages of a pair at the same time.

use std::fs::File;
use std::io::{self, Read as _};

use futures_util::future::join;

use super::send::{CanarySender, CanaryTarget};
use crate::addr::Family;
use crate::canary::{
    CanaryAddresses, CanaryDelivery, CanaryDirection, CanaryPair, CanaryToken, PairId, compose,
};
use crate::hmac_key::HmacKey;
use crate::time::Timestamp;

/// What a pair is made of.
#[derive(Clone, Copy, Debug)]
pub struct PairOrder<'a> {
    pub direction: CanaryDirection,
    pub addresses: &'a CanaryAddresses,
    pub key: &'a HmacKey,
    /// Of the recipient's domain, in the order of preference.
    pub ipv4: &'a [CanaryTarget],
    pub ipv6: &'a [CanaryTarget],
}

impl CanarySender {
    /// Returns the pair with its deliveries.
    ///
    /// # Errors
    /// There are no random bytes.
    pub async fn send_pair(&self, order: PairOrder<'_>, now: Timestamp) -> io::Result<CanaryPair> {
        let mut random = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let id = PairId::new(random);
        let sent = Timestamp::from_nanos(now.as_nanos() / 1_000_000_000 * 1_000_000_000);
        let mut pair = CanaryPair::new(id, order.direction, sent);
        let four = self.send_one(order, pair.token(Family::Ipv4), order.ipv4);
        let six = self.send_one(order, pair.token(Family::Ipv6), order.ipv6);
        let (four, six) = join(four, six).await;
        pair.ipv4.delivery = Some(four);
        pair.ipv6.delivery = Some(six);
        Ok(pair)
    }

    async fn send_one(
        &self,
        order: PairOrder<'_>,
        token: CanaryToken,
        servers: &[CanaryTarget],
    ) -> CanaryDelivery {
        let message = compose(&token, order.addresses, &self.hostname, order.key);
        self.send(servers, order.addresses, &message).await
    }
}
