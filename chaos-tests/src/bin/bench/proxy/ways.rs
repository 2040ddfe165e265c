//! The ways to one plain PostgreSQL: directly, and through each program that may stand in between.

use matriarch_chaos::addresses::{Addresses, POSTGRES_PORT};
use matriarch_chaos::companions::{Running, program};
use matriarch_chaos::herd::{give_to_postgres, postgres_ids};
use matriarch_chaos::lone_proxy::{LoneProxy, Orders};
use matriarch_chaos::{crowd, plain, processes};
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The database that pgbench fills.
pub(super) const DATABASE: &str = "bench";
const SCALE: &str = "20";
/// More than the most clients of a load, with what two poolers may still hold of earlier ones.
const CONNECTIONS: u32 = 800;
/// Servers of a pooler.
const POOL: u32 = 220;
/// How long a program may take to listen.
const DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// One way.
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) at: Ipv4Addr,
    pub(super) port: u16,
    /// The process in between.
    pub(super) pid: Option<i32>,
    /// It cannot carry statements that are prepared in one transaction and run in another.
    pub(super) forgets_statements: bool,
    // What is dropped with it.
    _proxy: Option<LoneProxy>,
    _program: Option<Running>,
}

impl Way {
    fn new(name: &'static str, at: Ipv4Addr, port: u16) -> Self {
        Self {
            name,
            at,
            port,
            pid: None,
            forgets_statements: false,
            _proxy: None,
            _program: None,
        }
    }

    fn through_proxy(mut self, proxy: LoneProxy) -> Self {
        self.pid = Some(proxy.pid);
        self._proxy = Some(proxy);
        self
    }

    /// In a session of its own, as a service has it: Linux gives each session its share of a busy machine.
    fn through(mut self, program: &Path, arguments: &[&OsStr]) -> Result<Self, String> {
        let mut command = Command::new("setsid");
        command.arg(program).args(arguments);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.map_err(|error| format!("{}: {error}", self.name))?;
        self.pid = i32::try_from(process.id()).ok();
        self._program = Some(Running(process));
        await_port(self.at, self.port, self.name)?;
        Ok(self)
    }
}

/// A server with everything in front of it.
pub(super) struct Site {
    /// The first is the direct one. Before the rest: fields are dropped in this order.
    pub(super) ways: Vec<Way>,
    _server: Server,
    _dir: tempfile::TempDir,
    _addresses: Addresses,
}

struct Server(std::path::PathBuf);

impl Drop for Server {
    fn drop(&mut self) {
        processes::kill_all_of(&self.0);
    }
}

impl Site {
    /// Starts everything, with a filled database.
    pub(super) fn open() -> Result<Self, String> {
        let addresses = Addresses::take(1);
        let dir = directory()?;
        let at = addresses.ip(0);
        let data = dir.path().join("data");
        plain::initdb(&data);
        let hba = "local all all trust\nhost all all 127.0.0.0/8 trust\n";
        std::fs::write(data.join("pg_hba.conf"), hba).map_err(|error| error.to_string())?;
        let options = format!(
            "-c listen_addresses={at} -p {POSTGRES_PORT} -c unix_socket_directories={} -c shared_buffers=512MB \
             -c max_connections={CONNECTIONS} -c max_wal_size=4GB -c checkpoint_timeout=1h",
            dir.path().display()
        );
        plain::start(&data, &options);
        let server = Server(data);
        let (host, port) = (at.to_string(), POSTGRES_PORT.to_string());
        let to = ["-h", &host, "-p", &port, "-U", "postgres"];
        plain::run("createdb", &[&to[..], &[DATABASE]].concat());
        plain::run(
            "pgbench",
            &[&to[..], &["-i", "-q", "-s", SCALE, DATABASE]].concat(),
        );
        let mut ways = vec![Way::new("direct", at, POSTGRES_PORT)];
        ways.extend(in_between(dir.path(), at, (at, POSTGRES_PORT))?);
        Ok(Self {
            ways,
            _server: server,
            _dir: dir,
            _addresses: addresses,
        })
    }
}

/// A temporary directory that servers of another user may enter.
pub(super) fn directory() -> Result<tempfile::TempDir, String> {
    let dir = tempfile::Builder::new().prefix("ways-").tempdir();
    let dir = dir.map_err(|error| error.to_string())?;
    let open = std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755));
    open.map_err(|error| error.to_string())?;
    give_to_postgres(dir.path());
    Ok(dir)
}

/// Everything that may stand between a client and this server.
pub(super) fn in_between(dir: &Path, at: Ipv4Addr, server: (Ipv4Addr, u16)) -> Result<Vec<Way>, String> {
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok::<_, String>(path)
    };
    let users = file("users.txt", "\"postgres\" \"secret\"\n")?;
    let mut ways = Vec::new();
    for (name, port, auth_file) in [
        ("Matriarch", 5_000, None),
        ("Matriarch, sessions movable", 5_010, Some(&*users)),
    ] {
        let place = dir.join(format!("proxy-{port}"));
        std::fs::create_dir(&place).map_err(|error| error.to_string())?;
        let orders = Orders {
            auth_file,
            ..Orders::new(at, port, server)
        };
        ways.push(Way::new(name, at, port).through_proxy(LoneProxy::start(&place, &orders)));
    }
    let clients = crowd::room(usize::MAX) + 100;
    let haproxy = program("haproxy").ok_or("HAProxy is needed")?;
    let text = format!(
        "global\n  maxconn {clients}\ndefaults\n  mode tcp\n  timeout connect 4s\n  timeout client 60m\n  timeout server 60m\n\
         listen primary\n  bind {at}:5020\n  server node1 {}:{}\n",
        server.0, server.1
    );
    let text = file("haproxy.cfg", &text)?;
    let arguments = [OsStr::new("-db"), OsStr::new("-f"), text.as_os_str()];
    ways.push(Way::new("HAProxy", at, 5_020).through(&haproxy, &arguments)?);
    let pgbouncer = program("pgbouncer").ok_or("pgBouncer is needed")?;
    for (name, mode, port) in [
        ("pgBouncer, session", "session", 5_030),
        ("pgBouncer, transaction", "transaction", 5_040),
    ] {
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = {at}\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = {mode}\nmax_client_conn = {clients}\ndefault_pool_size = {POOL}\n\
             server_idle_timeout = 2\nignore_startup_parameters = extra_float_digits\n",
            server.0,
            server.1,
            users.display(),
        );
        let mut arguments = Vec::new();
        if postgres_ids().is_some() {
            arguments.extend([OsStr::new("-u"), OsStr::new("postgres")]);
        }
        let file = file(&format!("pgbouncer-{mode}.ini"), &text)?;
        arguments.push(file.as_os_str());
        let mut way = Way::new(name, at, port).through(&pgbouncer, &arguments)?;
        way.forgets_statements = mode == "transaction";
        ways.push(way);
    }
    Ok(ways)
}

fn await_port(at: Ipv4Addr, port: u16, name: &str) -> Result<(), String> {
    let mut waited = Duration::ZERO;
    while std::net::TcpStream::connect((at, port)).is_err() {
        if waited > DEADLINE {
            return Err(format!("{name} does not listen on {at}:{port}"));
        }
        std::thread::sleep(POLL);
        waited += POLL;
    }
    Ok(())
}
