//! The kernel's list of an interface's addresses, by netlink (`rtnetlink(7)`).

use super::Vip;
use futures_util::TryStreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use rtnetlink::packet_route::link::LinkAttribute;
use std::net::IpAddr;
use tokio::task::JoinHandle;

/// What cannot be done with an interface.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No netlink socket.
    #[error("vip: netlink: {0}")]
    Socket(std::io::Error),
    /// There is no such interface.
    #[error("vip.interface: there is no interface {0} on this machine")]
    Missing(String),
    /// The kernel refused; without CAP_NET_ADMIN it always does.
    #[error("vip: {interface}: {what}: {reason} (the right CAP_NET_ADMIN is needed)")]
    Refused {
        /// The interface.
        interface: String,
        /// What was asked.
        what: &'static str,
        /// Why not.
        reason: String,
    },
}

/// An interface, and the way to the kernel.
#[derive(Debug)]
pub struct Link {
    handle: Handle,
    connection: JoinHandle<()>,
    name: String,
    /// Its number.
    pub index: u32,
    /// Its hardware address; empty where it has none.
    pub hardware: Vec<u8>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Link {
    /// Finds the interface.
    pub async fn open(name: &str) -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
        let connection = tokio::spawn(connection);
        let found = handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute()
            .try_next()
            .await;
        let Ok(Some(message)) = found else {
            connection.abort();
            return Err(LinkError::Missing(name.to_owned()));
        };
        let hardware = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => Some(bytes.clone()),
            _ => None,
        });
        Ok(Self {
            handle,
            connection,
            name: name.to_owned(),
            index: message.header.index,
            hardware: hardware.unwrap_or_default(),
        })
    }

    fn refused(&self, what: &'static str) -> impl Fn(rtnetlink::Error) -> LinkError {
        let interface = self.name.clone();
        move |error| LinkError::Refused {
            interface: interface.clone(),
            what,
            reason: error.to_string(),
        }
    }

    /// Whether the address is there.
    pub async fn has(&self, vip: &Vip) -> Result<bool, LinkError> {
        Ok(!self.found(vip).await?.is_empty())
    }

    /// Adds the address if it is not there. Returns whether it was not. The kernel removes it by itself after `valid_ms`, which
    /// it counts in whole seconds, one at least; `u64::MAX` is for ever. Where it is there, its time begins anew.
    pub async fn add(&self, vip: &Vip, valid_ms: u64) -> Result<bool, LinkError> {
        let is_there = self.has(vip).await?;
        if is_there && valid_ms == u64::MAX {
            return Ok(false);
        }
        let mut request = self.handle.address().add(self.index, vip.address, vip.prefix);
        if vip.address.is_ipv6() {
            // Whoever held it before is fenced; to ask the network first would only cost a second.
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        if valid_ms != u64::MAX {
            let seconds = u32::try_from((valid_ms / 1_000).max(1)).unwrap_or(u32::MAX);
            let mut validity = CacheInfo::default();
            (validity.ifa_valid, validity.ifa_preferred) = (seconds, seconds);
            let attributes = &mut request.message_mut().attributes;
            attributes.push(AddressAttribute::CacheInfo(validity));
            request = request.replace();
        }
        request
            .execute()
            .await
            .map_err(self.refused("adding the address"))?;
        Ok(!is_there)
    }

    /// Removes the address if it is there, with whatever prefix. Returns whether it was.
    pub async fn remove(&self, vip: &Vip) -> Result<bool, LinkError> {
        let found = self.found(vip).await?;
        let any = !found.is_empty();
        for message in found {
            let removed = self.handle.address().del(message).execute().await;
            removed.map_err(self.refused("removing the address"))?;
        }
        Ok(any)
    }

    async fn found(&self, vip: &Vip) -> Result<Vec<AddressMessage>, LinkError> {
        let mut all = self
            .handle
            .address()
            .get()
            .set_link_index_filter(self.index)
            .execute();
        let mut found = Vec::new();
        let wanted = match vip.address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        while let Some(message) = all
            .try_next()
            .await
            .map_err(self.refused("reading the addresses"))?
        {
            let same = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Address(address) | AddressAttribute::Local(address) if *address == vip.address);
            if message.header.index == self.index
                && message.header.family == wanted
                && message.attributes.iter().any(same)
            {
                found.push(message);
            }
        }
        Ok(found)
    }
}
