//! What `matriarch check` says of the built-in proxy: its ports, and whether it may open as many files as it has clients for.

use crate::config::Proxy;
use nix::sys::resource::{Resource, getrlimit};

/// A client and its server take one each.
const EACH: u64 = 2;
/// Ports, reactors, the daemon's line, questions to other proxies.
const BESIDES: u64 = 64;

/// Where it listens.
pub(super) fn doors(proxy: &Proxy) -> [(&'static str, String); 2] {
    [("proxy.rw", proxy.rw.clone()), ("proxy.ro", proxy.ro.clone())]
}

/// What is wrong with the limit of this process, which a daemon started from here has too.
pub(super) fn limit(proxy: &Proxy) -> Option<String> {
    // The proxy itself raises the soft limit to the hard one.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    short(proxy.max_connections, hard)
}

fn short(most: usize, hard: u64) -> Option<String> {
    let needed = u64::try_from(most)
        .unwrap_or(u64::MAX)
        .saturating_mul(EACH)
        .saturating_add(BESIDES);
    (hard < needed).then(|| {
        let room = hard.saturating_sub(BESIDES) / EACH;
        format!(
            "proxy.max_connections: {most} clients take {needed} file descriptors, and started from here a process may have \
             {hard} (`ulimit -Hn`), enough for {room}; the limit of a service is LimitNOFILE in its unit"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn twice_the_clients_and_some() {
        assert_eq!(short(10_000, 20_064), None);
        let told = short(10_000, 4_096).unwrap();
        assert!(
            told.contains("20064") && told.contains("4096") && told.contains("enough for 2016"),
            "{told}"
        );
    }
}
