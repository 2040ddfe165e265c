//! An entry of `restapi.allowlist`: an address, a network, or a host's name.

use ipnet::IpNet;
use std::net::IpAddr;

/// Who may use unsafe verbs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// An address or network; bits beyond the prefix do not count.
    Network(IpNet),
    /// A host, to be resolved.
    Host(String),
}

impl Allowed {
    /// Reads an entry.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(word: &str) -> Result<Self, String> {
        let bare = word.trim_start_matches('[').trim_end_matches(']');
        let address = || bare.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
        if let Ok(network) = bare.parse().or_else(|_| address()) {
            return Ok(Self::Network(network));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        // The last part of a name is never a number: such a word is a mistyped address.
        let last = word.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        if word.chars().all(is_name) && last.contains(|c: char| !c.is_ascii_digit()) {
            return Ok(Self::Host(word.to_owned()));
        }
        Err(format!(
            "\"{word}\" is neither an address, a network nor a host; write it like 10.0.0.11, 10.0.0.0/24 or node1.example.org"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_addresses_are_no_names() {
        for word in [
            "10.0.0.0/33",
            "10.0.0",
            "10.0.0.256",
            "a b",
            "http://x",
            "x/24",
            "",
        ] {
            assert!(Allowed::parse(word).is_err(), "{word}");
        }
        for word in ["node-1", "a.b.example.", "localhost"] {
            assert_eq!(Allowed::parse(word), Ok(Allowed::Host(word.to_owned())));
        }
        for word in ["::1", "[::1]", "10.0.0.1/8"] {
            assert!(matches!(Allowed::parse(word), Ok(Allowed::Network(_))), "{word}");
        }
    }
}
