//! A session is followed on one connection and taken to another, by every way of logging in.

use crate::site::{Server, Site, until};
use matriarch::proxy::session::{
    At, Credentials, Fixed, Follower, Landed, Login, LoginError, SECRET, Step, Userlist,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const PASSWORD: &str = "it's \"so\"";
const WAIT: Duration = Duration::from_secs(20);

/// Which rule of `pg_hba.conf` a connection meets is decided by where it comes from.
const TRUST: &str = "127.0.0.1";
const SCRAM: &str = "127.0.0.2";
const MD5: &str = "127.0.0.3";
const CLEAR: &str = "127.0.0.4";
const NOBODY: &str = "127.0.0.5";

async fn connect(from: &str, server: &Server) -> TcpStream {
    let endpoint = server.endpoint();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let to = format!("{}:{}", endpoint.host, endpoint.port).parse().unwrap();
    timeout(WAIT, socket.connect(to)).await.unwrap().unwrap()
}

/// The StartupMessage of protocol 3.0.
fn startup(user: &str) -> Vec<u8> {
    let options = [
        ("user", user),
        ("database", "postgres"),
        ("application_name", "first"),
        ("options", "-c geqo=off"),
    ];
    let mut body = vec![0, 3, 0, 0];
    for (name, value) in options {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

fn message(kind: u8, body: &str) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &length, body.as_bytes()].concat()
}

/// A client and the proxy beside it.
struct Session {
    stream: TcpStream,
    follower: Follower,
}

impl Session {
    async fn open(server: &Server, user: &str) -> Self {
        let mut stream = connect(TRUST, server).await;
        let first = startup(user);
        stream.write_all(&first).await.unwrap();
        let mut follower = Follower::new(&first, [7; SECRET]);
        follower.follow_text();
        let mut session = Self { stream, follower };
        session.answered().await;
        session
    }

    /// What the server says until the session rests.
    async fn answered(&mut self) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 1000];
        while !self.follower.is_idle() {
            let got = timeout(WAIT, self.stream.read(&mut buffer))
                .await
                .unwrap()
                .unwrap();
            assert!(got > 0, "{}", String::from_utf8_lossy(&all));
            let forward = self.follower.backend(&mut buffer[..got]).unwrap();
            assert_eq!(forward.now, got);
            all.extend_from_slice(&buffer[..got]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    async fn say(&mut self, messages: &[(u8, &str)]) -> String {
        let bytes = messages
            .iter()
            .flat_map(|(kind, body)| message(*kind, body))
            .collect::<Vec<_>>();
        self.follower.frontend(&bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
        self.answered().await
    }

    async fn ask(&mut self, sql: &str) -> String {
        self.say(&[(b'Q', &format!("{sql}\0"))]).await
    }

    /// Goes on at this server, on a connection that comes from there.
    async fn take_to(
        &mut self,
        server: &Server,
        from: &str,
        credentials: Credentials,
    ) -> Result<(), LoginError> {
        let replay = self.follower.movable().unwrap();
        let (mut login, first) = Login::new(replay, credentials, At::Primary);
        let mut stream = connect(from, server).await;
        stream.write_all(&first).await.unwrap();
        let landed = log_in(&mut login, &mut stream).await?;
        self.land(stream, landed.expect("no standby"));
        Ok(())
    }

    fn land(&mut self, stream: TcpStream, landed: Landed) {
        let before = self.follower.key().unwrap().clone();
        self.follower.landed(landed);
        assert_ne!(self.follower.key().unwrap(), &before);
        self.stream = stream;
    }
}

/// Until the session is there; nothing if it stands at a standby.
async fn log_in(login: &mut Login, stream: &mut TcpStream) -> Result<Option<Landed>, LoginError> {
    let mut buffer = [0; 100];
    loop {
        let got = timeout(WAIT, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(got > 0, "the server has hung up");
        match login.feed(&buffer[..got])? {
            Step::More => {}
            Step::Send(bytes) => stream.write_all(&bytes).await.unwrap(),
            Step::Standing => return Ok(None),
            Step::Done(landed) => return Ok(Some(landed)),
        }
    }
}

fn secret() -> Credentials {
    let text = "\"a\" \"it's \"\"so\"\"\"\n";
    Userlist::parse(text).unwrap().of("a")
}

/// A primary that lets `scram` and `md5`, whose passwords are stored so, in by every rule.
async fn primary(site: &Site) -> Server {
    let server = site.primary(0).await;
    let quoted = PASSWORD.replace('\'', "''");
    server
        .sql(&format!(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN PASSWORD '{quoted}';
             SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN PASSWORD '{quoted}'"
        ))
        .await;
    let mut conf = server.conf(None);
    let rule = |from: &str, method: &str| format!("host all scram,md5 {from}/32 {method}");
    let rules = [
        rule(TRUST, "trust"),
        rule(SCRAM, "scram-sha-256"),
        rule(MD5, "md5"),
        rule(CLEAR, "password"),
        rule(NOBODY, "reject"),
    ];
    let others = conf.hba.take().unwrap_or_default();
    conf.hba = Some(rules.into_iter().chain(others).collect());
    server.postgres.write_conf(&conf).await.unwrap();
    server.sql("SELECT pg_reload_conf()").await;
    until("the new rules", 20, async || {
        let mut stream = connect(TRUST, &server).await;
        stream.write_all(&startup("scram")).await.unwrap();
        let mut answer = [0; 9];
        stream.read_exact(&mut answer).await.is_ok() && answer == *b"R\0\0\0\x08\0\0\0\0"
    })
    .await;
    server
}

#[tokio::test]
async fn a_session_goes_on_elsewhere_as_it_was() {
    let site = Site::new();
    let server = primary(&site).await;
    let ways = [
        ("scram", TRUST, Credentials::None),
        ("scram", SCRAM, secret()),
        ("scram", MD5, secret()),
        ("md5", MD5, secret()),
        ("scram", CLEAR, secret()),
    ];
    for (user, from, credentials) in ways {
        let mut session = Session::open(&server, user).await;
        session
            .ask("SET TimeZone = 'Asia/Tokyo'; SET application_name = 'it''s \\ me'")
            .await;
        session.ask("SET statement_timeout = '54321ms'").await;
        session.ask("SET app.tenant = 'seven'").await;
        session.ask("SET search_path = pg_catalog").await;
        let parsed = [
            (
                b'P',
                "mine\0SELECT count(*) FROM pg_class WHERE relname = $1\0\0\0",
            ),
            (b'S', ""),
        ];
        session.say(&parsed).await;
        session.take_to(&server, from, credentials).await.unwrap();
        for (setting, expected) in [
            ("TimeZone", "Asia/Tokyo"),
            ("application_name", "it's \\ me"),
            ("statement_timeout", "54321ms"),
            ("app.tenant", "seven"),
            ("search_path", "pg_catalog"),
            ("geqo", "off"),
        ] {
            let shown = session.ask(&format!("SHOW {setting}")).await;
            assert!(
                shown.contains(expected),
                "{user} from {from}: {setting} is {shown:?}"
            );
        }
        let run = [
            (b'B', "\0mine\0\0\0\0\x01\0\0\0\x08pg_class\0\0"),
            (b'E', "\0\0\0\0\0"),
            (b'S', ""),
        ];
        let answer = session.say(&run).await;
        assert!(answer.contains("SELECT 1"), "{user} from {from}: {answer:?}");
        session.follower.movable().unwrap();
        // Once more, from where it is now.
        session.take_to(&server, TRUST, Credentials::None).await.unwrap();
        assert!(session.ask("SHOW app.tenant").await.contains("seven"));
        session.ask("DISCARD ALL").await;
        session.take_to(&server, TRUST, Credentials::None).await.unwrap();
        assert!(!session.ask("SHOW statement_timeout").await.contains("54321"));
    }
}

#[tokio::test]
async fn a_session_that_cannot_be_taken_along_says_why() {
    let site = Site::new();
    let server = primary(&site).await;
    let mut session = Session::open(&server, "scram").await;
    let wrong = Credentials::Password("wrong".to_owned());
    for (from, credentials, expected) in [
        (SCRAM, Credentials::None, "the server wants a SCRAM password"),
        (CLEAR, Credentials::None, "the server wants a password"),
        (SCRAM, wrong.clone(), "(28P01)"),
        (CLEAR, wrong, "(28P01)"),
        (NOBODY, secret(), "(28000)"),
    ] {
        let error = session.take_to(&server, from, credentials).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{from}: {error}");
    }
    // The old connection is none the worse for it.
    assert!(session.ask("SELECT 1").await.contains("SELECT 1"));
    // The same user is not the same there.
    server.sql("ALTER ROLE scram SUPERUSER").await;
    let error = session
        .take_to(&server, TRUST, Credentials::None)
        .await
        .unwrap_err();
    assert_eq!(error, LoginError::Differs("is_superuser".to_owned()));
    session.ask("LISTEN x").await;
    assert_eq!(session.follower.movable(), Err(Fixed::Listens));
}

#[tokio::test]
async fn a_standby_is_no_place_to_go_on() {
    let site = Site::new();
    let server = primary(&site).await;
    let standby = site.standby(1, &server).await;
    let mut session = Session::open(&server, "scram").await;
    let error = session.take_to(&standby, SCRAM, secret()).await.unwrap_err();
    assert_eq!(error, LoginError::Standby);
}

#[tokio::test]
async fn a_session_stands_at_a_standby_until_that_is_the_primary() {
    let site = Site::new();
    let server = primary(&site).await;
    let standby = site.standby(1, &server).await;
    let mut session = Session::open(&server, "scram").await;
    session.ask("SET statement_timeout = '54321ms'").await;
    let parsed = [(b'P', "mine\0SELECT pg_is_in_recovery()\0\0\0"), (b'S', "")];
    session.say(&parsed).await;
    let mut stands = Vec::new();
    for _ in 0..2 {
        let replay = session.follower.movable().unwrap();
        let (mut login, first) = Login::new(replay, secret(), At::Standby);
        let mut stream = connect(SCRAM, &standby).await;
        stream.write_all(&first).await.unwrap();
        assert!(log_in(&mut login, &mut stream).await.unwrap().is_none());
        stands.push((login, stream));
    }
    // Asked too early, it says what it is.
    let (mut login, mut stream) = stands.remove(0);
    stream.write_all(&login.arrive()).await.unwrap();
    let error = log_in(&mut login, &mut stream).await.unwrap_err();
    assert_eq!(error, LoginError::Standby);
    standby.session.promote().await.unwrap();
    standby
        .until("it is promoted", 20, |probe| !probe.in_recovery)
        .await;
    let (mut login, mut stream) = stands.remove(0);
    stream.write_all(&login.arrive()).await.unwrap();
    let landed = log_in(&mut login, &mut stream).await.unwrap();
    session.land(stream, landed.expect("it is the primary"));
    assert!(session.ask("SHOW statement_timeout").await.contains("54321"));
    let run = [(b'B', "\0mine\0\0\0\0\0\0\0"), (b'E', "\0\0\0\0\0"), (b'S', "")];
    assert!(session.say(&run).await.contains("SELECT 1"));
    session.follower.movable().unwrap();
}
