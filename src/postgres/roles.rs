//! Creates the roles we use.

use super::session::{bounded, refused};
use super::{Login, Postgres, PostgresError, Session};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::time::Duration;
use tokio_postgres::Client;

/// Bound of the whole.
const DEADLINE: Duration = Duration::from_secs(30);
/// Passwords must not reach the log, and there may be no standby yet that a commit could wait for.
const QUIET: &str = "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_duration = off; \
    SET log_min_error_statement = 'panic'; SET synchronous_commit = 'local'";
/// What pg_rewind calls on its source.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

impl Postgres {
    /// Makes sure that the roles exist and have the rights they need. In a `new` database cluster they also get the
    /// passwords of the node file; in one that was there before, those who log in to it today do so tomorrow.
    pub async fn create_roles(&self, session: &Session, new: bool) -> Result<(), PostgresError> {
        let setup = self.setup();
        let (superuser, replication, rewind) = (&setup.superuser, &setup.replication, &setup.rewind);
        let work = async {
            let live = session.connect().await?;
            let client = &live.client;
            client
                .batch_execute(QUIET)
                .await
                .map_err(refused("keep passwords out of its log"))?;
            ensure(client, superuser, "SUPERUSER LOGIN", new).await?;
            if replication.username != superuser.username {
                ensure(client, replication, "REPLICATION LOGIN", new).await?;
            }
            if rewind.username != superuser.username {
                if rewind.username != replication.username {
                    ensure(client, rewind, "LOGIN", new).await?;
                }
                let role = escape_identifier(&rewind.username);
                for function in REWIND_FUNCTIONS {
                    let grant = format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {role}");
                    client
                        .batch_execute(&grant)
                        .await
                        .map_err(refused("let the rewind role read files"))?;
                }
            }
            Ok(())
        };
        bounded("the creation of roles", DEADLINE, work).await
    }
}

async fn ensure(client: &Client, login: &Login, attributes: &str, update: bool) -> Result<(), PostgresError> {
    let what = "create a role";
    let exists = client
        .query_opt(
            "SELECT FROM pg_catalog.pg_roles WHERE rolname = $1::text::name",
            &[&login.username],
        )
        .await
        .map_err(refused(what))?
        .is_some();
    if exists && !update {
        return Ok(());
    }
    let verb = if exists { "ALTER" } else { "CREATE" };
    let role = escape_identifier(&login.username);
    let password = match &login.password {
        Some(password) => format!(" PASSWORD {}", escape_literal(password)),
        None => String::new(),
    };
    client
        .batch_execute(&format!("{verb} ROLE {role} WITH {attributes}{password}"))
        .await
        .map_err(refused(what))
}
