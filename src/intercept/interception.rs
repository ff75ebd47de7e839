//! The interception of this process: what it wants in the kernel, and the only one to change it.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::error::InterceptError;
use super::nft;
use super::ownership::Ownership;
use super::routing::Routing;
use super::ruleset::Ruleset;
use super::settings::InterceptSettings;
use crate::addr::{Family, Networks};

/// Shared by the gateway, which installs, watches and removes it, and by the doors.
pub type SharedInterception = Arc<Mutex<Interception>>;

/// The only interception of its network namespace. After a drop the rules stay: [`Interception::remove`] removes them.
pub struct Interception {
    wanted: Ruleset,
    is_installed: bool,
    _ownership: Ownership,
}

impl Interception {
    /// Claims the network namespace of this thread. Nothing is installed.
    ///
    /// # Errors
    /// The settings are harmful, or another process intercepts here.
    pub fn claim(settings: InterceptSettings) -> Result<Self, InterceptError> {
        settings.check()?;
        let wanted = Ruleset {
            settings,
            interfaces: Vec::new(),
            translates: false,
            spares_earlier: true,
            closed: [false; 2],
            exempt: Networks::default(),
        };
        Ok(Self { wanted, is_installed: false, _ownership: Ownership::take()? })
    }

    pub fn shared(self) -> SharedInterception {
        Arc::new(Mutex::new(self))
    }

    /// Interfaces on which connections are intercepted; empty before [`Interception::install`].
    pub fn interfaces(&self) -> &[String] {
        &self.wanted.interfaces
    }

    /// Replaces whatever an earlier run left, or adapts to the host; idempotent. Connections that are open already pass by
    /// until [`Interception::spare_no_more`].
    ///
    /// Routing comes first and the table last, so that no packet is marked before it has a route.
    ///
    /// # Errors
    /// The earlier table, if any, stays in force, and routing entries that this call added are removed.
    pub async fn install(&mut self) -> Result<(), InterceptError> {
        let routing = Routing::open()?;
        let settings = &self.wanted.settings;
        self.wanted.interfaces = match settings.interfaces.as_slice() {
            [] => routing.default_interfaces().await?,
            named => named.to_vec(),
        };
        if self.wanted.interfaces.is_empty() {
            return Err(InterceptError::NoDefaultRoute);
        }
        self.wanted.translates = nft::translates().await?;
        let mut added = Vec::new();
        let result = match routing.add(settings, &mut added).await {
            Ok(()) => nft::replace(&self.wanted).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            // The first error is reported.
            for entry in added {
                let _ = routing.delete(entry).await;
            }
            return Err(error);
        }
        for entry in routing.ours().await? {
            if !entry.is_required_by(settings) {
                routing.delete(entry).await?;
            }
        }
        self.is_installed = true;
        Ok(())
    }

    /// Installs other settings; the doors stay as they are.
    ///
    /// # Errors
    /// The earlier settings stay in force.
    pub async fn change(&mut self, settings: InterceptSettings) -> Result<(), InterceptError> {
        settings.check()?;
        let earlier = self.wanted.clone();
        self.wanted.settings = settings;
        let result = self.install().await;
        if result.is_err() {
            self.wanted = earlier;
        }
        result
    }

    /// Opens or closes the door of `family`, for all networks but `exempt`.
    ///
    /// # Errors
    /// The kernel refuses; the door is unchanged.
    pub(super) async fn set_door(
        &mut self,
        family: Family,
        admits: bool,
        exempt: &Networks,
    ) -> Result<(), InterceptError> {
        let earlier = self.wanted.clone();
        self.wanted.closed[family as usize] = !admits;
        self.wanted.exempt = exempt.clone();
        if !self.is_installed {
            return Ok(());
        }
        let result = nft::set_door(&self.wanted, family).await;
        if result.is_err() {
            self.wanted = earlier;
        }
        result
    }

    /// Removes it from the kernel. Another process may claim the network namespace once this is dropped.
    ///
    /// # Errors
    /// The kernel refuses, or `nft` cannot be run.
    pub async fn remove(&mut self) -> Result<(), InterceptError> {
        self.is_installed = false;
        super::remove().await.map(drop)
    }
}
