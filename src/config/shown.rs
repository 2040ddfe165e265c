//! What was written, the environment included, as a document that may be shown: stars stand for what is secret.

use super::value::{Node, Value};
use serde_json::Value as Json;

/// What stands for a secret.
pub const STARS: &str = "********";
/// How keys end whose values are secrets, those of other stores' sections too.
const SECRET_KEYS: [&str; 6] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secret_key",
    "token",
];
/// What a secret follows within a text: connection strings, rules of pg_hba.conf, commands.
const BEFORE_SECRETS: [&str; 4] = ["password=", "passwd=", "secret=", "secrets="];

/// The tree as JSON.
pub(crate) fn shown(node: &Node) -> Json {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .map(|(name, child)| (name.clone(), entry(name, child)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::List(items) => items.iter().map(shown).collect(),
        Value::Scalar { text, .. } if holds_secret(text) => STARS.into(),
        Value::Scalar { .. } | Value::Null => node.json(),
    }
}

fn entry(name: &str, node: &Node) -> Json {
    let name = name.to_ascii_lowercase();
    if SECRET_KEYS.iter().any(|end| name.ends_with(end)) && !node.is_null() {
        STARS.into()
    } else {
        shown(node)
    }
}

fn holds_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    // scheme://user:secret@host
    let in_address = || {
        let authority = text
            .split_once("://")
            .map(|(_, rest)| rest.split('/').next().unwrap_or(rest));
        authority
            .and_then(|authority| authority.rsplit_once('@'))
            .is_some_and(|(user, _)| user.contains(':'))
    };
    BEFORE_SECRETS.iter().any(|before| text.contains(before)) || in_address()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{KEYS, Kind, spelled_out};
    use crate::config::value::Place;

    #[test]
    fn secrets_are_stars_and_the_rest_is_as_it_was() {
        let place = Place {
            source: "test".into(),
            line: None,
        };
        let json = |text: &str| serde_json::from_str::<Json>(text).unwrap();
        let written = json(
            r#"{"name": "a", "consul": {"token": "t", "port": 8500}, "raft": {"password": 7, "keyfile_password": null},
            "postgresql": {"pgpass": "/x", "parameters": {"password_encryption": "md5", "work_mem": 4, "primary_conninfo": "host=a PASSWORD=b"},
            "pg_hba": ["host all all all password", "host all all all ldap ldapbindpasswd=x"],
            "pre_promote": "ask http://u:p@h/x", "before_stop": "ask http://h:1/x?to=a@b"}}"#,
        );
        let expected = json(
            r#"{"name": "a", "consul": {"token": "********", "port": 8500}, "raft": {"password": "********", "keyfile_password": null},
            "postgresql": {"pgpass": "/x", "parameters": {"password_encryption": "md5", "work_mem": 4, "primary_conninfo": "********"},
            "pg_hba": ["host all all all password", "********"],
            "pre_promote": "********", "before_stop": "ask http://h:1/x?to=a@b"}}"#,
        );
        assert_eq!(shown(&Node::from_json(&written, &place)), expected);
        let mut all = Node::empty_map(place.clone());
        let secrets = KEYS.iter().filter(|key| key.kind == Kind::Secret);
        for path in secrets.flat_map(|key| spelled_out(key.path)) {
            all.set(&path, Node::plain("hunter2", place.clone()));
        }
        let text = shown(&all).to_string();
        assert!(text.contains(STARS) && !text.contains("hunter2"), "{text}");
    }
}
