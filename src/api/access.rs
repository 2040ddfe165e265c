//! Who may change something: the allowlist, the client's certificate, user name and password, in this order.
//!
//! Asked of unsafe verbs only; reading is free for whoever reaches the port (and passes the handshake, where
//! certificates are required). Pure: names on the list were resolved elsewhere.

use super::wire::Reply;
use crate::config::{Allowed, Credentials, RestApi, VerifyClient};
use axum::http::{HeaderValue, StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// What a caller must show.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Empty, and without `members`: everybody.
    list: Vec<Allowed>,
    /// The members' own addresses are on the list.
    members: bool,
    /// A client certificate is needed.
    certificate: bool,
    credentials: Option<Credentials>,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Its address.
    pub address: IpAddr,
    /// It has shown a certificate that was found good.
    pub certificate: bool,
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
}

/// The addresses of host names, as last found.
pub type Resolved = BTreeMap<String, Vec<IpAddr>>;

impl Access {
    /// What a node file asks for.
    pub fn new(rest: &RestApi) -> Self {
        Self {
            list: rest.allowlist.clone(),
            members: rest.allowlist_include_members,
            certificate: rest.certfile.is_some() && rest.verify_client != VerifyClient::None,
            credentials: rest.authentication.clone(),
        }
    }

    /// A client certificate and nothing else.
    #[cfg(test)]
    pub(super) fn needing_certificate() -> Self {
        Self {
            certificate: true,
            ..Self::default()
        }
    }

    /// Whether there may be names to resolve.
    pub(super) fn has_names(&self) -> bool {
        self.members
            || self
                .list
                .iter()
                .any(|allowed| matches!(allowed, Allowed::Host(_)))
    }

    /// The names that have to be resolved, given the members' hosts.
    pub(super) fn names(&self, members: &[String]) -> BTreeSet<String> {
        let members = members.iter().filter(|_| self.members);
        let members = members.filter_map(|host| match Allowed::parse(host) {
            Ok(Allowed::Host(name)) => Some(name),
            _ => None,
        });
        let listed = self.list.iter().filter_map(|allowed| match allowed {
            Allowed::Host(name) => Some(name.clone()),
            Allowed::Network(_) => None,
        });
        listed.chain(members).collect()
    }

    /// Whether the caller may use an unsafe verb of the endpoint `segment`; otherwise what it is told.
    ///
    /// # Errors
    /// The refusal, ready to be sent.
    pub fn check(
        &self,
        segment: &str,
        caller: &Caller<'_>,
        members: &[String],
        resolved: &Resolved,
    ) -> Result<(), Reply> {
        // Members speak to `/failsafe` for themselves, so their being members is no recommendation there.
        let members = if self.members && segment != "failsafe" {
            Some(members)
        } else {
            None
        };
        let is_limited = !self.list.is_empty() || members.is_some();
        if is_limited
            && !self.lists(
                caller.address.to_canonical(),
                members.unwrap_or_default(),
                resolved,
            )
        {
            return Err(Reply::said(StatusCode::FORBIDDEN, "Access is denied"));
        }
        if self.certificate && !caller.certificate {
            return Err(Reply::said(StatusCode::FORBIDDEN, "client certificate required"));
        }
        match self.doubt(caller.authorization) {
            None => Ok(()),
            Some(doubt) => {
                let mut reply = Reply::said(StatusCode::UNAUTHORIZED, doubt);
                let realm = HeaderValue::from_static("Basic realm=\"Patroni\"");
                reply.header = Some((header::WWW_AUTHENTICATE, realm));
                Err(reply)
            }
        }
    }

    fn lists(&self, address: IpAddr, members: &[String], resolved: &Resolved) -> bool {
        let is_it = |allowed: &Allowed| match allowed {
            Allowed::Network(network) => network.contains(&address),
            Allowed::Host(name) => resolved.get(name).is_some_and(|found| found.contains(&address)),
        };
        self.list.iter().any(is_it)
            || members
                .iter()
                .filter_map(|host| Allowed::parse(host).ok())
                .any(|host| is_it(&host))
    }

    /// What is wrong with the credentials shown.
    fn doubt(&self, authorization: Option<&str>) -> Option<&'static str> {
        let credentials = self.credentials.as_ref()?;
        let Some(shown) = authorization else {
            return Some("no auth header received");
        };
        let known = basic(credentials);
        let is_known = shown
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
            .is_some_and(|(_, shown)| bool::from(shown.trim().as_bytes().ct_eq(known.as_bytes())));
        (!is_known).then_some("not authenticated")
    }
}

/// User name and password as the header carries them behind `Basic `.
pub fn basic(credentials: &Credentials) -> String {
    BASE64_STANDARD.encode(format!(
        "{}:{}",
        credentials.username,
        credentials.password.reveal()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn judged(access: &Access, segment: &str, from: &str, certificate: bool, auth: Option<&str>) -> String {
        let caller = Caller {
            address: from.parse().unwrap(),
            certificate,
            authorization: auth,
        };
        let members = ["10.0.0.11".to_owned(), "node2.herd".to_owned()];
        let resolved = Resolved::from([
            ("node2.herd".to_owned(), vec!["10.0.0.12".parse().unwrap()]),
            (
                "ops.herd".to_owned(),
                vec!["192.0.2.9".parse().unwrap(), "2001:db8::9".parse().unwrap()],
            ),
        ]);
        match access.check(segment, &caller, &members, &resolved) {
            Ok(()) => "welcome".to_owned(),
            Err(reply) => {
                let header = reply
                    .header
                    .map(|(name, value)| format!(" {name}: {}", value.to_str().unwrap()));
                format!(
                    "{} {}{}",
                    reply.status.as_u16(),
                    reply.body,
                    header.unwrap_or_default()
                )
            }
        }
    }

    fn listed(words: &[&str], members: bool) -> Access {
        Access {
            list: words.iter().map(|word| Allowed::parse(word).unwrap()).collect(),
            members,
            ..Access::default()
        }
    }

    #[test]
    fn without_a_word_everybody_may() {
        assert_eq!(
            judged(&Access::default(), "config", "192.0.2.1", false, None),
            "welcome"
        );
    }

    #[test]
    fn the_list_knows_networks_addresses_and_names() {
        const NO: &str = "403 Access is denied";
        let list = listed(
            &[
                "10.1.2.3/16",
                "2001:db8::/64",
                "127.0.0.1",
                "ops.herd",
                "gone.herd",
            ],
            false,
        );
        for (from, told) in [
            ("10.1.255.1", "welcome"),
            ("::ffff:10.1.255.1", "welcome"),
            ("10.2.0.1", NO),
            ("2001:db8::7", "welcome"),
            ("127.0.0.1", "welcome"),
            ("127.0.0.2", NO),
            ("192.0.2.9", "welcome"),
            ("10.0.0.11", NO),
        ] {
            assert_eq!(judged(&list, "config", from, false, None), told, "{from}");
        }
    }

    #[test]
    fn members_are_on_it_when_asked_for() {
        let list = listed(&[], true);
        assert_eq!(judged(&list, "restart", "10.0.0.11", false, None), "welcome");
        assert_eq!(judged(&list, "restart", "10.0.0.12", false, None), "welcome");
        assert_eq!(
            judged(&list, "restart", "10.0.0.13", false, None),
            "403 Access is denied"
        );
        assert_eq!(judged(&list, "failsafe", "10.0.0.13", false, None), "welcome");
        let both = listed(&["192.0.2.1"], true);
        assert_eq!(
            judged(&both, "failsafe", "10.0.0.11", false, None),
            "403 Access is denied"
        );
    }

    #[test]
    fn address_then_certificate_then_password() {
        let access = Access {
            certificate: true,
            credentials: Some(Credentials {
                username: "op".to_owned(),
                password: Secret::new("s:é"),
            }),
            ..listed(&["10.0.0.0/8"], false)
        };
        let right = format!("basic {}", BASE64_STANDARD.encode("op:s:é"));
        let wrong = format!("Basic {}", BASE64_STANDARD.encode("op:s:e"));
        let realm = "www-authenticate: Basic realm=\"Patroni\"";
        let told = |from: &str, certificate: bool, auth: Option<&str>| {
            judged(&access, "config", from, certificate, auth)
        };
        assert_eq!(told("192.0.2.1", false, None), "403 Access is denied");
        assert_eq!(told("10.0.0.1", false, None), "403 client certificate required");
        assert_eq!(
            told("10.0.0.1", true, None),
            format!("401 no auth header received {realm}")
        );
        for auth in [wrong.as_str(), "Basic", "Bearer x", "", &right[6..]] {
            assert_eq!(
                told("10.0.0.1", true, Some(auth)),
                format!("401 not authenticated {realm}"),
                "{auth}"
            );
        }
        assert_eq!(told("10.0.0.1", true, Some(&right)), "welcome");
    }
}
