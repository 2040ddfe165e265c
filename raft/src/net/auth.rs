//! The handshake: both sides prove that they know the cluster's secret and are who they say.
//!
//! Each proof is an HMAC-SHA256 over the role, the whole hello and the whole welcome, so over both nonces, both names,
//! the cluster, the ids and the lane. The role keeps one side's proof from being played back as the other's. Nothing
//! is answered to a caller that fails; the reason stays in our log.

use std::sync::{Arc, PoisonError, RwLock};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::net::TcpStream;

pub(crate) use crate::net::socket::Frames;
use crate::net::socket::Socket;
use crate::net::tcp::Tcp;
use crate::net::tls::{Tls, names_of, server_name};
use crate::types::{Identity, node_id, random};
use crate::wire::envelope::{Sealed, open, seal};
use crate::wire::message::{Acceptance, Hello, Lane, PROTOCOL, Proof, Verdict, Welcome};

/// Frames before the proof are this small.
const HANDSHAKE_LIMIT: usize = 4 << 10;

/// What this node shows and demands.
pub(crate) struct Credentials {
    pub(crate) cluster: String,
    pub(crate) name: String,
    pub(crate) addr: String,
    pub(crate) password: String,
    /// Certificates may be read again while the group runs.
    pub(crate) tls: RwLock<Option<Tls>>,
}

impl Credentials {
    fn tls(&self) -> Option<Tls> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why a handshake ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it sent something that is not our handshake: {0}")]
    Garbage(String),
    #[error("it belongs to cluster {0:?}")]
    Cluster(String),
    #[error("it speaks protocols {0} to {1}, this program {first} to {last}", first = PROTOCOL.0, last = PROTOCOL.1)]
    Protocol(u16, u16),
    #[error("its id {id} is not the one of {addr}")]
    ForgedId { id: u64, addr: String },
    #[error("it calls itself {name:?} but its certificate is made out to {certified:?}")]
    Name { name: String, certified: Vec<String> },
    #[error("it does not know the password")]
    Password,
    #[error("{0}")]
    Turned(&'static str),
    /// One of the two belongs to a group that was given up.
    #[error(
        "it belongs to foundation {theirs:x} of the cluster, this node to {mine:x}: one of the two was given up"
    )]
    Foreign { mine: u64, theirs: u64 },
}

impl Refusal {
    fn garbage(e: crate::wire::envelope::EnvelopeError) -> Refusal {
        Refusal::Garbage(e.to_string())
    }
}

/// The calling side. Answers the connection and the name and id of who was reached.
pub(crate) async fn call(
    mine: &Arc<Credentials>,
    me: Identity,
    tcp: TcpStream,
    to: u64,
    lane: Lane,
) -> Result<(Frames, Welcome), Refusal> {
    let tcp = Tcp::new(tcp);
    let (socket, certified) = match mine.tls() {
        None => (Socket::Plain(tcp), None),
        Some(tls) => {
            let stream = tls.connector.connect(server_name(), tcp).await?;
            let names = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|c| c.first())
                .map(names_of);
            (
                Socket::Tls(Box::new(stream.into())),
                Some(names.unwrap_or_default()),
            )
        }
    };
    let mut frames = Frames::new(socket, HANDSHAKE_LIMIT);
    let hello = hello(mine, me, to, lane, random()?);
    let hello_bytes = sealed(&hello)?;
    frames.write(&hello_bytes).await?;
    let welcome_bytes = frames.read().await?;
    let welcome: Welcome = open(&welcome_bytes).map_err(Refusal::garbage)?;
    if welcome.cluster != mine.cluster {
        return Err(Refusal::Cluster(welcome.cluster));
    }
    if !(PROTOCOL.0..=PROTOCOL.1).contains(&welcome.protocol) {
        return Err(Refusal::Protocol(welcome.protocol, welcome.protocol));
    }
    check_name(&welcome.name, certified)?;
    let proof = Proof {
        mac: mac(mine, Role::Caller, &hello_bytes, &welcome_bytes)?,
    };
    frames.write(&sealed(&proof)?).await?;
    let verdict: Verdict = open(&frames.read().await?).map_err(Refusal::garbage)?;
    check_mac(mine, Role::Called, &hello_bytes, &welcome_bytes, &verdict.mac)?;
    match verdict.accepted {
        Acceptance::Yes => {}
        Acceptance::OtherId => return Err(Refusal::Turned("another id lives at that address now")),
        Acceptance::Replaced => return Err(Refusal::Turned("this node's id was replaced by a newer one")),
        Acceptance::NotReady => return Err(Refusal::Turned("it has not joined a group yet")),
        Acceptance::Foreign => {
            let (mine, theirs) = (me.foundation, welcome.foundation);
            return Err(Refusal::Foreign { mine, theirs });
        }
    }
    frames.set_limit(lane.frame_limit());
    Ok((frames, welcome))
}

/// What the calling side says first.
pub(crate) fn hello(mine: &Credentials, me: Identity, to: u64, lane: Lane, nonce: [u8; 32]) -> Hello {
    Hello {
        protocol: PROTOCOL,
        cluster: mine.cluster.clone(),
        name: mine.name.clone(),
        addr: mine.addr.clone(),
        id: me.id,
        incarnation: me.incarnation,
        generation: me.generation,
        foundation: me.foundation,
        to,
        lane,
        nonce,
    }
}

/// The called side, up to and including the verdict, which `accept` gives for a proven caller.
pub(crate) async fn answer(
    mine: &Arc<Credentials>,
    me: Identity,
    tcp: TcpStream,
    accept: impl FnOnce(&Hello) -> Acceptance,
) -> Result<(Frames, Hello), Refusal> {
    let tcp = Tcp::new(tcp);
    let (socket, certified) = match mine.tls() {
        None => (Socket::Plain(tcp), None),
        Some(tls) => {
            let stream = tls.acceptor.accept(tcp).await?;
            let names = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|c| c.first())
                .map(names_of);
            (
                Socket::Tls(Box::new(stream.into())),
                Some(names.unwrap_or_default()),
            )
        }
    };
    let mut frames = Frames::new(socket, HANDSHAKE_LIMIT);
    let hello_bytes = frames.read().await?;
    let hello: Hello = open(&hello_bytes).map_err(Refusal::garbage)?;
    let protocol = agree(mine, &hello)?;
    check_name(&hello.name, certified)?;
    let welcome = Welcome {
        protocol,
        cluster: mine.cluster.clone(),
        name: mine.name.clone(),
        id: me.id,
        foundation: me.foundation,
        nonce: random()?,
    };
    let welcome_bytes = sealed(&welcome)?;
    frames.write(&welcome_bytes).await?;
    let proof: Proof = open(&frames.read().await?).map_err(Refusal::garbage)?;
    check_mac(mine, Role::Caller, &hello_bytes, &welcome_bytes, &proof.mac)?;
    let accepted = accept(&hello);
    let mac = mac(mine, Role::Called, &hello_bytes, &welcome_bytes)?;
    frames
        .write(&sealed(&Verdict {
            mac,
            accepted: accepted.clone(),
        })?)
        .await?;
    match accepted {
        Acceptance::Yes => {}
        Acceptance::OtherId => return Err(Refusal::Turned("it asked for an id that does not live here")),
        Acceptance::Replaced => {
            return Err(Refusal::Turned(
                "its id was replaced by a newer one of its address",
            ));
        }
        Acceptance::NotReady => return Err(Refusal::Turned("this node has not joined a group yet")),
        Acceptance::Foreign => {
            let (mine, theirs) = (me.foundation, hello.foundation);
            return Err(Refusal::Foreign { mine, theirs });
        }
    }
    frames.set_limit(hello.lane.frame_limit());
    Ok((frames, hello))
}

/// What can be refused before any proof. Answers the protocol both speak.
fn agree(mine: &Credentials, hello: &Hello) -> Result<u16, Refusal> {
    if hello.cluster != mine.cluster {
        return Err(Refusal::Cluster(hello.cluster.clone()));
    }
    let protocol = hello.protocol.1.min(PROTOCOL.1);
    if protocol < hello.protocol.0.max(PROTOCOL.0) {
        return Err(Refusal::Protocol(hello.protocol.0, hello.protocol.1));
    }
    if hello.id != 0 && hello.id != node_id(&hello.cluster, &hello.addr, hello.incarnation) {
        return Err(Refusal::ForgedId {
            id: hello.id,
            addr: hello.addr.clone(),
        });
    }
    Ok(protocol)
}

fn check_name(name: &str, certified: Option<Vec<String>>) -> Result<(), Refusal> {
    match certified {
        Some(certified) if !certified.iter().any(|c| c == name) => Err(Refusal::Name {
            name: name.to_owned(),
            certified,
        }),
        _ => Ok(()),
    }
}

/// Which side a proof is for.
#[derive(Clone, Copy)]
enum Role {
    Caller,
    Called,
}

fn keyed(mine: &Credentials, role: Role, hello: &[u8], welcome: &[u8]) -> Result<Hmac<Sha256>, Refusal> {
    let mut mac = Hmac::<Sha256>::new_from_slice(mine.password.as_bytes())
        .map_err(|e| Refusal::Garbage(format!("the password cannot be a key: {e}")))?;
    mac.update(match role {
        Role::Caller => b"matriarch caller",
        Role::Called => b"matriarch called",
    });
    for part in [hello, welcome] {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    Ok(mac)
}

fn mac(mine: &Credentials, role: Role, hello: &[u8], welcome: &[u8]) -> Result<[u8; 32], Refusal> {
    Ok(keyed(mine, role, hello, welcome)?.finalize().into_bytes().into())
}

fn check_mac(
    mine: &Credentials,
    role: Role,
    hello: &[u8],
    welcome: &[u8],
    mac: &[u8; 32],
) -> Result<(), Refusal> {
    // Compares in constant time.
    keyed(mine, role, hello, welcome)?
        .verify_slice(mac)
        .map_err(|_| Refusal::Password)
}

fn sealed<T: Sealed>(value: &T) -> Result<Vec<u8>, Refusal> {
    seal(value).map_err(Refusal::garbage)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn credentials(password: &str, name: &str, tls: Option<Tls>) -> Arc<Credentials> {
        let (cluster, addr) = ("demo".to_owned(), format!("{name}:1"));
        Arc::new(Credentials {
            cluster,
            name: name.to_owned(),
            addr,
            password: password.to_owned(),
            tls: RwLock::new(tls),
        })
    }

    fn identity(mine: &Credentials) -> Identity {
        Identity {
            id: node_id(&mine.cluster, &mine.addr, 0),
            ..Identity::default()
        }
    }

    type Outcome<T> = Result<(Frames, T), Refusal>;

    /// Both sides of one handshake.
    async fn shake(
        caller: Arc<Credentials>,
        me: Identity,
        called: Arc<Credentials>,
    ) -> (Outcome<Welcome>, Outcome<Hello>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = listener.accept().await.unwrap().0;
        let answer = async {
            answer(
                &called,
                Identity {
                    id: 42,
                    ..Identity::default()
                },
                accepted,
                |_| Acceptance::Yes,
            )
            .await
        };
        tokio::join!(call(&caller, me, tcp, 42, Lane::Message), answer)
    }

    #[tokio::test]
    async fn both_learn_the_others_name() {
        let (a, b) = (credentials("x", "a", None), credentials("x", "b", None));
        let (called, caller) = shake(a.clone(), identity(&a), b).await;
        assert_eq!(
            called.map(|(_, welcome)| (welcome.name, welcome.id)).unwrap(),
            ("b".to_owned(), 42)
        );
        assert_eq!(caller.map(|(_, hello)| hello.name).unwrap(), "a");
    }

    #[tokio::test]
    async fn neither_side_believes_another_password() {
        let (a, b) = (credentials("x", "a", None), credentials("y", "b", None));
        let (called, caller) = shake(a.clone(), identity(&a), b).await;
        assert!(called.is_err());
        assert!(matches!(caller, Err(Refusal::Password)));
    }

    #[tokio::test]
    async fn an_id_that_is_not_made_from_its_address_is_refused() {
        let (a, b) = (credentials("x", "a", None), credentials("x", "b", None));
        let forged = Identity {
            id: identity(&b).id,
            ..Identity::default()
        };
        let (_, caller) = shake(a, forged, b).await;
        assert!(matches!(caller, Err(Refusal::ForgedId { .. })));
    }

    #[test]
    fn a_proof_played_back_by_the_other_side_is_worth_nothing() {
        let mine = credentials("x", "a", None);
        let proof = mac(&mine, Role::Caller, b"hello", b"welcome").unwrap();
        assert!(check_mac(&mine, Role::Caller, b"hello", b"welcome", &proof).is_ok());
        assert!(check_mac(&mine, Role::Called, b"hello", b"welcome", &proof).is_err());
        assert!(check_mac(&mine, Role::Caller, b"hellow", b"elcome", &proof).is_err());
    }

    #[test]
    fn protocols_meet_in_the_highest_both_speak() {
        let mine = credentials("x", "a", None);
        let hello = |protocol| Hello {
            protocol,
            cluster: "demo".to_owned(),
            name: String::new(),
            addr: String::new(),
            id: 0,
            incarnation: 0,
            generation: 0,
            foundation: 0,
            to: 0,
            lane: Lane::Message,
            nonce: [0; 32],
        };
        assert_eq!(
            agree(&mine, &hello((PROTOCOL.0, PROTOCOL.1 + 3))).unwrap(),
            PROTOCOL.1
        );
        let newer = (PROTOCOL.1 + 1, PROTOCOL.1 + 2);
        assert!(matches!(agree(&mine, &hello(newer)), Err(Refusal::Protocol(..))));
    }

    /// TLS of an authority, made out to `certified`.
    fn tls(issuer: &rcgen::Issuer<'_, rcgen::KeyPair>, authority: &str, certified: &str) -> Tls {
        let dir = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![certified.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap().pem();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let files = crate::settings::TlsFiles {
            certfile: file("crt", &certificate),
            keyfile: file("key", &key.serialize_pem()),
            cafile: file("ca", authority),
        };
        Tls::load(&files, certified).unwrap()
    }

    #[tokio::test]
    async fn a_certificate_speaks_for_its_own_name_only_on_both_sides() {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);
        let member =
            |name: &str, certified: &str| credentials("x", name, Some(tls(&issuer, &authority, certified)));

        let (a, b) = (member("a", "a"), member("b", "b"));
        let (called, caller) = shake(a.clone(), identity(&a), b.clone()).await;
        assert!(called.is_ok() && caller.is_ok());
        let liar = member("a", "somebody");
        let (_, caller) = shake(liar.clone(), identity(&liar), b).await;
        assert!(matches!(caller, Err(Refusal::Name { .. })));
        let (called, _) = shake(a.clone(), identity(&a), member("b", "somebody")).await;
        assert!(matches!(called, Err(Refusal::Name { .. })));
    }
}
