//! One statement on one member's PostgreSQL, with what libpq's environment says about who asks.

use super::cluster::Member;
use super::pgpass;
use crate::config::Secret;
use serde_json::{Number, Value};
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A server that does not let us in by then is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Login {
    user: String,
    database: String,
    /// The password, if one was asked for or stands in the environment.
    pub(super) password: Option<String>,
    ssl: Ssl,
}

/// How much is demanded of the connection.
#[derive(Clone, Debug)]
enum Ssl {
    Disable,
    Prefer,
    Require,
    /// The server's certificate must be signed by one of these authorities.
    Verify(PathBuf),
}

/// What came back: values by their types.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    /// Names of columns; none where nothing was selected.
    pub(super) columns: Vec<String>,
    /// The values.
    pub(super) rows: Vec<Vec<Value>>,
}

impl Login {
    /// What the arguments leave out is in libpq's variables, or whoever is logged in.
    pub(super) fn from_env(user: Option<String>, database: Option<String>) -> Self {
        let set = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
        let logged_in = || {
            let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective());
            user.ok().flatten().map(|user| user.name)
        };
        let user = user
            .or_else(|| set("PGUSER"))
            .or_else(logged_in)
            .unwrap_or_default();
        let root = set("PGSSLROOTCERT")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(set("HOME")?).join(".postgresql/root.crt")));
        let ssl = match set("PGSSLMODE").as_deref() {
            Some("disable" | "allow") => Ssl::Disable,
            Some("require") => Ssl::Require,
            Some("verify-ca" | "verify-full") => Ssl::Verify(root.unwrap_or_default()),
            _ => Ssl::Prefer,
        };
        Self {
            database: database
                .or_else(|| set("PGDATABASE"))
                .unwrap_or_else(|| user.clone()),
            user,
            password: set("PGPASSWORD"),
            ssl,
        }
    }
}

/// Runs the statements; the rows are those of the last one that has some.
pub(super) async fn run(member: &Member, login: &Login, statement: &str) -> Result<Rows, String> {
    let text = |error: tokio_postgres::Error| describe(&error);
    let client = connect(member, login).await.map_err(|reason| {
        format!(
            "connection to server at \"{}\", port {} failed: {reason}",
            member.host, member.port
        )
    })?;
    // Only a single statement can be prepared; the types of several stay unknown, and their values are texts.
    let types: Vec<Type> = match client.prepare(statement).await {
        Ok(prepared) => prepared
            .columns()
            .iter()
            .map(|column| column.type_().clone())
            .collect(),
        Err(_) => Vec::new(),
    };
    let mut found = Rows::default();
    for message in client.simple_query(statement).await.map_err(text)? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                found = Rows {
                    columns: columns.iter().map(|column| column.name().to_owned()).collect(),
                    rows: Vec::new(),
                };
            }
            SimpleQueryMessage::Row(row) => found.rows.push(
                (0..row.len())
                    .map(|at| value(row.get(at), types.get(at)))
                    .collect(),
            ),
            _ => {}
        }
    }
    Ok(found)
}

/// A value of the type that the server named.
fn value(text: Option<&str>, kind: Option<&Type>) -> Value {
    let Some(text) = text else {
        return Value::Null;
    };
    let typed = match kind {
        Some(&Type::BOOL) => Some(Value::Bool(text == "t")),
        Some(&Type::INT2 | &Type::INT4 | &Type::INT8 | &Type::OID) => {
            text.parse::<i64>().ok().map(Value::from)
        }
        Some(&Type::FLOAT4 | &Type::FLOAT8) => {
            text.parse().ok().and_then(Number::from_f64).map(Value::Number)
        }
        Some(&Type::TIMESTAMPTZ) => Some(Value::from(whole_zone(text))),
        Some(&Type::JSON | &Type::JSONB) => serde_json::from_str(text).ok(),
        _ => None,
    };
    typed.unwrap_or_else(|| Value::from(text))
}

/// Scripts know zones as Python writes them, with minutes: `+00:00`.
fn whole_zone(text: &str) -> String {
    match text.as_bytes() {
        [.., b'+' | b'-', a, b] if a.is_ascii_digit() && b.is_ascii_digit() => format!("{text}:00"),
        _ => text.to_owned(),
    }
}

async fn connect(member: &Member, login: &Login) -> Result<Client, String> {
    let mut config = Config::new();
    config
        .host(&member.host)
        .port(member.port)
        .user(&login.user)
        .dbname(&login.database)
        .application_name("matriarch query")
        .connect_timeout(CONNECT);
    let kept = || {
        let wanted = pgpass::Wanted {
            host: &member.host,
            port: member.port,
            database: &login.database,
            user: &login.user,
        };
        pgpass::find(&wanted)
    };
    if let Some(password) = login.password.clone().map(Secret::new).or_else(kept) {
        config.password(password.reveal());
    }
    let (mode, trust) = match &login.ssl {
        Ssl::Disable => (SslMode::Disable, None),
        Ssl::Prefer => (SslMode::Prefer, None),
        Ssl::Require => (SslMode::Require, None),
        Ssl::Verify(root) => (SslMode::Require, Some(root)),
    };
    config.ssl_mode(mode);
    let tls = crate::tls_client::client_config(trust.is_none(), trust.map(PathBuf::as_path), None)?;
    let reached = config.connect(MakeRustlsConnect::new(tls));
    let (client, connection) = match tokio::time::timeout(CONNECT, reached).await {
        Ok(Ok(pair)) => pair,
        Ok(Err(error)) => return Err(describe(&error)),
        Err(_) => return Err(format!("no answer within {} s", CONNECT.as_secs())),
    };
    // The task ends with the connection, which ends with the client.
    tokio::spawn(connection);
    Ok(client)
}

/// The server's own words where it said something, else the whole chain of causes.
fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} {}: {}", said.code().code(), said.severity(), said.message());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    if text.ends_with("password missing") {
        return "no password supplied: set PGPASSWORD, use a password file, or ask for --password".to_owned();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_types_of_their_columns() {
        for (text, kind, expected) in [
            (Some("t"), Some(Type::BOOL), Value::Bool(true)),
            (Some("42"), Some(Type::INT8), 42.into()),
            (Some("1.5"), Some(Type::FLOAT8), 1.5.into()),
            (Some("NaN"), Some(Type::FLOAT8), "NaN".into()),
            (Some("42"), None, "42".into()),
            (Some("12.50"), Some(Type::NUMERIC), "12.50".into()),
            (
                Some("2026-11-21 11:59:19.16+00"),
                Some(Type::TIMESTAMPTZ),
                "2026-11-21 11:59:19.16+00:00".into(),
            ),
            (None, Some(Type::BOOL), Value::Null),
        ] {
            assert_eq!(value(text, kind.as_ref()), expected, "{text:?}");
        }
    }
}
