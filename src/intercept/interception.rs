//! The interception of this process: what it wants in the kernel, what is there, and the only one to change it.

use std::fs::read_to_string;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::counters::{CounterTotals, InterceptCounters};
use super::error::InterceptError;
use super::listing::{TableListing, TableShape};
use super::nft;
use super::ownership::Ownership;
use super::routing::{Routing, RoutingEntry};
use super::ruleset::Ruleset;
use super::settings::InterceptSettings;
use crate::addr::{Family, Networks};

/// Shared by the gateway, which installs, watches and removes it, and by the doors.
pub type SharedInterception = Arc<Mutex<Interception>>;

/// The only interception of its network namespace. After a drop the rules stay: [`Interception::remove`] removes them.
pub struct Interception {
    /// As configured.
    configured: InterceptSettings,
    /// With settings for the families that the host has.
    wanted: Ruleset,
    is_installed: bool,
    /// The table after the last change; `None` if it could not be listed then.
    installed: Option<TableShape>,
    counters: CounterTotals,
    /// Whether the table was there when it was listed last.
    has_table: bool,
    /// By family, whether the rule of its closed door was there then.
    refuses: [bool; 2],
    ownership: Ownership,
}

/// What is in the kernel, compared with what was installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// False before [`Interception::install`] and after [`Interception::remove`].
    pub is_installed: bool,
    /// Missing or changed by others, in words.
    pub damage: Vec<String>,
    /// Changes of the host to which the interception has to adapt, in words.
    pub changes: Vec<String>,
    /// By family, whether connections are intercepted; `None` if they are not to be.
    pub intercepts: [Option<bool>; 2],
    pub spares_earlier: bool,
    pub counters: InterceptCounters,
}

impl Interception {
    /// Claims the network namespace of this thread. Nothing is installed.
    ///
    /// # Errors
    /// The settings are harmful, or another process intercepts here.
    pub fn claim(settings: InterceptSettings) -> Result<Self, InterceptError> {
        settings.check()?;
        let wanted = Ruleset {
            settings: settings.clone(),
            interfaces: Vec::new(),
            translates: false,
            spares_earlier: true,
            closed: [false; 2],
            exempt: Networks::default(),
        };
        Ok(Self {
            configured: settings,
            wanted,
            is_installed: false,
            installed: None,
            counters: CounterTotals::default(),
            has_table: false,
            refuses: [false; 2],
            ownership: Ownership::take()?,
        })
    }

    /// Removes the table that a killed gateway left, on this thread. Its rules and a new listener would reset connections that
    /// pass by meanwhile.
    ///
    /// # Errors
    /// The kernel refuses, or `nft` cannot be run.
    pub fn remove_leftover(&self) -> Result<(), InterceptError> {
        nft::delete_blocking().map(drop)
    }

    pub fn shared(self) -> SharedInterception {
        Arc::new(Mutex::new(self))
    }

    /// Replaces whatever an earlier run left; idempotent. Connections that are open already pass by until
    /// [`Interception::spare_no_more`].
    ///
    /// # Errors
    /// The earlier table, if any, stays in force, and routing entries that this call added are removed.
    pub async fn install(&mut self) -> Result<(), InterceptError> {
        self.wanted.settings = self.configured.clone();
        self.put().await
    }

    /// Installs it again, adapted to the host: to its default routes, to its address translation, and without IPv6 while
    /// that is disabled. Doors stay as they are. Connections that passed by meanwhile are spared.
    ///
    /// # Errors
    /// As [`Interception::install`].
    pub async fn repair(&mut self) -> Result<(), InterceptError> {
        self.wanted.spares_earlier = true;
        self.adapt().await
    }

    /// As [`Interception::repair`], for an interception that was in force all the time.
    ///
    /// # Errors
    /// As [`Interception::install`].
    pub async fn adapt(&mut self) -> Result<(), InterceptError> {
        self.wanted.settings = possible(&self.configured)?;
        self.put().await
    }

    /// Packets of connections that are older than the interception are intercepted as well from now on.
    ///
    /// # Errors
    /// As [`Interception::install`].
    pub async fn spare_no_more(&mut self) -> Result<(), InterceptError> {
        self.wanted.spares_earlier = false;
        let result = self.put().await;
        self.wanted.spares_earlier = result.is_err();
        result
    }

    /// Routing comes first and the table last, so that no packet is marked before it has a route.
    async fn put(&mut self) -> Result<(), InterceptError> {
        let routing = Routing::open()?;
        if let Some(interfaces) = self.current_interfaces(&routing).await? {
            self.wanted.interfaces = interfaces;
        }
        if self.wanted.interfaces.is_empty() {
            return Err(InterceptError::NoDefaultRoute);
        }
        self.wanted.translates = nft::translates().await?;
        // The change removes the counters.
        let _unreadable = self.count().await;
        let settings = &self.wanted.settings;
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
        self.is_installed = true;
        self.counters.on_new_table();
        self.note_installed().await;
        for entry in routing.ours().await? {
            if !entry.is_required_by(&self.wanted.settings) {
                routing.delete(entry).await?;
            }
        }
        Ok(())
    }

    /// Those of the settings, or of the default routes; `None` if there are none.
    async fn current_interfaces(
        &self,
        routing: &Routing,
    ) -> Result<Option<Vec<String>>, InterceptError> {
        let interfaces = match self.configured.interfaces.as_slice() {
            [] => routing.default_interfaces().await?,
            named => named.to_vec(),
        };
        Ok(Some(interfaces).filter(|interfaces| !interfaces.is_empty()))
    }

    /// After a change of the table.
    async fn note_installed(&mut self) {
        let listing = nft::list().await.ok().flatten();
        self.installed = listing.as_ref().map(TableListing::shape);
        self.on_listing(listing.as_ref());
    }

    fn on_listing(&mut self, listing: Option<&TableListing>) {
        if let Some(listing) = listing {
            self.counters.on_reading(listing.counters());
        }
        self.has_table = listing.is_some();
        self.refuses = listing.map(TableListing::refuses).unwrap_or_default();
    }

    /// Reads the counters: since the start, over all tables.
    ///
    /// # Errors
    /// `nft` cannot be run, or the kernel refuses.
    pub async fn count(&mut self) -> Result<InterceptCounters, InterceptError> {
        let listing = if self.is_installed { nft::list().await? } else { None };
        self.on_listing(listing.as_ref());
        Ok(self.counters.total())
    }

    /// Number of SYNs that the closed door of `family` refused since the start, as counted last.
    pub(super) const fn refused_syns(&self, family: Family) -> u64 {
        self.counters.total().refused[family as usize]
    }

    /// Whether our table was there when it was listed last.
    pub(super) const fn has_table(&self) -> bool {
        self.has_table
    }

    /// Whether the kernel refuses connections of `family` at a closed door, as seen last.
    pub(super) const fn refuses(&self, family: Family) -> bool {
        self.refuses[family as usize]
    }

    /// From how many sources SYNs of `family` came within `age`.
    ///
    /// # Errors
    /// `nft` cannot be run, or the kernel refuses.
    pub async fn sources(&self, family: Family, age: Duration) -> Result<usize, InterceptError> {
        nft::sources(family, age).await
    }

    /// Compares what is in the kernel with what was installed, and reads the counters.
    ///
    /// # Errors
    /// `nft` cannot be run, or the kernel refuses to list.
    pub async fn inspect(&mut self) -> Result<Inspection, InterceptError> {
        let mut inspection = Inspection {
            is_installed: self.is_installed,
            intercepts: Family::ALL.map(|family| self.configured.listen(family).map(|_| false)),
            spares_earlier: self.is_installed && self.wanted.spares_earlier,
            counters: self.counters.total(),
            ..Inspection::default()
        };
        self.ownership.drain();
        if !self.is_installed {
            return Ok(inspection);
        }
        let listing = nft::list().await?;
        self.on_listing(listing.as_ref());
        inspection.counters = self.counters.total();
        inspection.damage = self.damage_of_table(listing.as_ref());
        let table_is_fine = inspection.damage.is_empty();
        let routing = Routing::open()?;
        let settings = possible(&self.configured).unwrap_or_else(|_| self.wanted.settings.clone());
        let (now, before) = (settings.listen_ipv6, self.wanted.settings.listen_ipv6);
        if now != before {
            let change = if now.is_some() { "enabled again" } else { "disabled" };
            inspection.changes.push(format!("IPv6 was {change} on this host"));
        }
        // Without IPv6 its route cannot be there.
        let missing = routing.missing(&settings).await?;
        for family in
            settings.families().filter(|family| self.wanted.settings.listen(*family).is_some())
        {
            let mut of_family = missing.iter().filter(|entry| entry.family() == family);
            inspection.intercepts[family as usize] =
                Some(table_is_fine && of_family.clone().next().is_none());
            inspection.damage.extend(of_family.by_ref().map(missing_entry));
        }
        inspection.changes.extend(self.changes_of_host(&routing).await?);
        Ok(inspection)
    }

    fn damage_of_table(&self, listing: Option<&TableListing>) -> Vec<String> {
        let table = "the nftables table inet gatepost";
        match (listing, &self.installed) {
            (None, _) => vec![format!("{table} is missing")],
            (Some(_), None) => vec![format!("{table} could not be listed after it was installed")],
            (Some(listing), Some(installed)) => {
                let changes = installed.changes(&listing.shape());
                changes.into_iter().map(|change| format!("{table}: {change}")).collect()
            }
        }
    }

    async fn changes_of_host(&self, routing: &Routing) -> Result<Vec<String>, InterceptError> {
        let mut changes = Vec::new();
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        if let Some(interfaces) = self.current_interfaces(routing).await?
            && sorted(&interfaces) != sorted(&self.wanted.interfaces)
        {
            let (now, before) = (interfaces.join(", "), self.wanted.interfaces.join(", "));
            changes.push(format!("the default routes lead over {now}, earlier over {before}"));
        }
        match (self.wanted.translates, nft::translates().await?) {
            (false, true) => changes.push("this host translates addresses now".to_owned()),
            (true, false) => changes.push("this host no longer translates addresses".to_owned()),
            _ => {}
        }
        Ok(changes)
    }

    /// Installs other settings, or the same again; the doors stay as they are.
    ///
    /// # Errors
    /// The earlier settings stay in force.
    pub async fn change(&mut self, settings: InterceptSettings) -> Result<(), InterceptError> {
        settings.check()?;
        let earlier = (self.configured.clone(), self.wanted.clone());
        self.configured = settings;
        // Mail passed by.
        self.wanted.spares_earlier |= !self.is_installed;
        let result = self.adapt().await;
        if result.is_err() {
            (self.configured, self.wanted) = earlier;
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
        if !self.is_installed || self.wanted.settings.listen(family).is_none() {
            return Ok(());
        }
        let _unreadable = self.count().await;
        let result = nft::set_door(&self.wanted, family).await;
        if result.is_ok() {
            self.counters.on_new_door(family);
            self.note_installed().await;
        } else if !self.has_table {
            // The repair installs the door as well.
            return Ok(());
        } else {
            self.wanted = earlier;
        }
        result
    }

    /// Mail passes uninspected from now on: removes the table, and keeps the routing, which does nothing without it.
    ///
    /// # Errors
    /// The kernel refuses, or `nft` cannot be run.
    pub async fn fail_open(&mut self) -> Result<(), InterceptError> {
        let _unreadable = self.count().await;
        self.is_installed = false;
        self.on_listing(None);
        nft::delete().await.map(drop)
    }

    /// Removes it from the kernel. Another process may claim the network namespace once this is dropped.
    ///
    /// # Errors
    /// The kernel refuses, or `nft` cannot be run.
    pub async fn remove(&mut self) -> Result<(), InterceptError> {
        self.is_installed = false;
        self.on_listing(None);
        super::remove().await.map(drop)
    }
}

fn missing_entry(entry: &RoutingEntry) -> String {
    format!("the {entry} is missing")
}

/// Without IPv6 while it is disabled: its route is one of `lo`.
fn possible(settings: &InterceptSettings) -> Result<InterceptSettings, InterceptError> {
    let disabled = read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
        .is_ok_and(|value| value.trim() != "0");
    let mut settings = settings.clone();
    if disabled && settings.listen_ipv6.take().is_some() && settings.listen_ipv4.is_none() {
        return Err(InterceptError::Ipv6Disabled);
    }
    Ok(settings)
}
