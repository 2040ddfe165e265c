//! Tells the neighbours where the address is now.

use super::Vip;
use super::link::Link;
use crate::sys;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const BROADCAST: [u8; 6] = [0xff; 6];
/// All nodes of the link, as an Ethernet address (RFC 2464 section 7).
const ALL_NODES_HARDWARE: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Discarded by whoever gets it (RFC 863).
const DISCARD_PORT: u16 = 9;

/// Announces the address, with a packet of our own where that is permitted, else, for IPv4, through a question of the
/// kernel's own.
pub async fn announce(vip: &Vip, link: &Link) -> io::Result<()> {
    let Ok(hardware) = <[u8; 6]>::try_from(link.hardware.as_slice()) else {
        // The loopback interface and tunnels have no neighbours to tell.
        return Ok(());
    };
    if hardware == [0; 6] {
        return Ok(());
    }
    let frame = match vip.address {
        IpAddr::V4(address) => gratuitous_arp(hardware, address),
        IpAddr::V6(address) => unsolicited_advertisement(hardware, address),
    };
    match (sys::send_frame(link.index, &frame), vip.address) {
        (Err(error), IpAddr::V4(address)) if error.kind() == io::ErrorKind::PermissionDenied => {
            ask_somebody(address, vip.prefix).await
        }
        // A question reaches only those whom it may concern (RFC 4861 section 7.2.2), so there is no roundabout way.
        (Err(error), IpAddr::V6(_)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(io::Error::other(
                "the right CAP_NET_RAW is needed; without it neighbours find out by themselves after some seconds",
            ))
        }
        (sent, _) => sent,
    }
}

/// An ARP announcement: a request for the address by its own holder (RFC 5227 section 1.1).
pub fn gratuitous_arp(hardware: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend_from_slice(&BROADCAST);
    frame.extend_from_slice(&hardware);
    frame.extend_from_slice(&[0x08, 0x06]);
    // Ethernet, IPv4, 6 and 4 bytes, a request.
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&hardware);
    frame.extend_from_slice(&address.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&address.octets());
    frame
}

/// A neighbour advertisement that nobody asked for, to all nodes, with the override flag (RFC 4861 section 4.4).
pub fn unsolicited_advertisement(hardware: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend_from_slice(&address.octets());
    // Target link-layer address, one unit of eight bytes.
    message.extend_from_slice(&[2, 1]);
    message.extend_from_slice(&hardware);
    let sum = checksum(address, ALL_NODES, &message);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = Vec::with_capacity(86);
    frame.extend_from_slice(&ALL_NODES_HARDWARE);
    frame.extend_from_slice(&hardware);
    frame.extend_from_slice(&[0x86, 0xdd]);
    let length = u16::try_from(message.len()).unwrap_or_default();
    // Version 6, the length, ICMPv6, hop limit 255: a smaller one would be ignored.
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[58, 255]);
    frame.extend_from_slice(&address.octets());
    frame.extend_from_slice(&ALL_NODES.octets());
    frame.extend_from_slice(&message);
    frame
}

/// The checksum of an ICMPv6 message (RFC 4443 section 2.3).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or_default();
    let mut bytes = Vec::with_capacity(message.len().saturating_add(40));
    bytes.extend_from_slice(&from.octets());
    bytes.extend_from_slice(&to.octets());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 58]);
    bytes.extend_from_slice(message);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| {
            u32::from(pair.first().copied().unwrap_or(0)) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// A datagram from the address to a neighbour that nobody has: the kernel has to ask the whole link for it, and whoever
/// hears the question learns where the address is.
async fn ask_somebody(address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let Some(stranger) = stranger(address, prefix) else {
        return Ok(());
    };
    let socket = tokio::net::UdpSocket::bind((address, 0)).await?;
    match socket.send_to(&[], (stranger, DISCARD_PORT)).await {
        // Nobody answers for it, as was hoped.
        Err(error) if error.kind() == io::ErrorKind::HostUnreachable => Ok(()),
        sent => sent.map(drop),
    }
}

/// The last ordinary address of the network, or the one before if that is the address itself.
fn stranger(address: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    let host = u32::MAX.checked_shr(u32::from(prefix))?;
    let last = address.to_bits() | host;
    let mut near = [last.checked_sub(1)?, last.checked_sub(2)?].into_iter();
    let found = near.find(|bits| host > 2 && *bits != address.to_bits());
    found.map(Ipv4Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_arp_announcement_is_what_the_rfc_says() {
        let frame = gratuitous_arp(HARDWARE, Ipv4Addr::new(10, 0, 0, 9));
        let expected = "ffffffffffff020000000007080600010800060400010200000000070a0000090000000000000a000009";
        assert_eq!(hex(&frame), expected);
    }

    #[test]
    fn an_advertisement_sums_up_to_nothing() {
        let address: Ipv6Addr = "fd00::9".parse().unwrap();
        let frame = unsolicited_advertisement(HARDWARE, address);
        assert_eq!(frame.len(), 86);
        // Over a message that carries its checksum the sum is zero.
        assert_eq!(checksum(address, ALL_NODES, &frame[54..]), 0);
    }

    #[test]
    fn the_stranger_is_a_neighbour_and_not_ourselves() {
        let stranger = |address: &str, prefix| {
            super::stranger(address.parse().unwrap(), prefix).map(|found| found.to_string())
        };
        assert_eq!(stranger("10.0.0.9", 24).as_deref(), Some("10.0.0.254"));
        assert_eq!(stranger("10.0.0.254", 24).as_deref(), Some("10.0.0.253"));
        assert_eq!(stranger("10.0.0.9", 32), None);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
