//! The client against real doors: with and without TLS, past nodes that do not answer.

use super::client::Client;
use super::out::CliError;
use super::target::{ClusterAddress, Trust};
use crate::api::fixtures::facts;
use crate::api::{Access, ApiHandle, ApiOptions, Identity, Operator, TlsOptions, VerifyClient, serve};
use crate::tls_client::ClientIdentity;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

async fn door(tls: Option<TlsOptions>, known: bool) -> ApiHandle {
    let (_, seen) = watch::channel(known.then(|| Arc::new(facts(1))));
    let identity = Identity {
        scope: "demo".into(),
        name: "node1".into(),
    };
    let options = ApiOptions {
        identity,
        listen: "127.0.0.1:0".into(),
        tls,
        access: Access::default(),
        extra_headers: Vec::new(),
        server_tokens: None,
    };
    serve(options, seen, Operator::default(), std::future::pending())
        .await
        .unwrap()
}

fn url(scheme: &str, door: &ApiHandle) -> String {
    format!("{scheme}://{}", door.addresses()[0])
}

fn client(urls: Vec<String>, trust: Trust) -> Client {
    Client::new(&ClusterAddress {
        scope: None,
        urls,
        trust,
    })
}

/// A self-signed certificate for 127.0.0.1 with its key.
fn certificate(dir: &Path) -> TlsOptions {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (certfile, keyfile) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&certfile, made.cert.pem()).unwrap();
    std::fs::write(&keyfile, made.signing_key.serialize_pem()).unwrap();
    TlsOptions {
        keyfile_password: None,
        cafile: Some(certfile.clone()),
        certfile,
        keyfile: Some(keyfile),
        verify_client: VerifyClient::None,
        ciphers: None,
    }
}

#[tokio::test]
async fn the_first_node_that_answers_is_asked_again() {
    let (starting, good) = (door(None, false).await, door(None, true).await);
    // A port that was free a moment ago refuses; nothing else takes it on an address of our own.
    let gone = TcpListener::bind("127.9.8.7:0").await.unwrap();
    let refusing = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let mut client = client(
        vec![refusing.clone(), url("http", &starting), url("http", &good)],
        Trust::default(),
    );
    for _ in 0..2 {
        let answer = client.get("/cluster").await.unwrap();
        assert_eq!(
            (answer.document["scope"].as_str(), answer.url),
            (Some("demo"), url("http", &good))
        );
    }
    drop(good);
    let CliError::Unreachable(all) = client.get("/cluster").await.unwrap_err() else {
        panic!("an answer")
    };
    assert_eq!(all.len(), 3);
    assert!(
        all.iter()
            .any(|line| line.starts_with(&refusing) && line.contains("refused")),
        "{all:?}"
    );
    assert!(
        all.iter().any(|line| line.ends_with("it is still starting")),
        "{all:?}"
    );
}

#[tokio::test]
async fn https_is_believed_only_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let tls = certificate(dir.path());
    let door = door(Some(tls.clone()), true).await;
    let ask = async |trust: Trust| client(vec![url("https", &door)], trust).get("/cluster").await;
    assert!(
        ask(Trust {
            cacert: Some(tls.certfile.clone()),
            ..Trust::default()
        })
        .await
        .is_ok()
    );
    assert!(
        ask(Trust {
            insecure: true,
            ..Trust::default()
        })
        .await
        .is_ok()
    );
    let error = ask(Trust::default()).await.unwrap_err().to_string();
    assert!(error.contains("--cacert"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let stranger = certificate(other.path());
    assert!(
        ask(Trust {
            cacert: Some(stranger.certfile),
            ..Trust::default()
        })
        .await
        .is_err()
    );
    assert!(
        client(vec![url("http", &door)], Trust::default())
            .get("/cluster")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn clients_show_a_certificate_where_one_is_required() {
    let dir = tempfile::tempdir().unwrap();
    let mut tls = certificate(dir.path());
    tls.verify_client = VerifyClient::Required;
    let identity = ClientIdentity {
        certificate: tls.certfile.clone(),
        key: tls.keyfile.clone().unwrap(),
        password: None,
    };
    let door = door(Some(tls.clone()), true).await;
    let trust = Trust {
        cacert: tls.cafile.clone(),
        ..Trust::default()
    };
    let ask = async |trust: Trust| client(vec![url("https", &door)], trust).get("/patroni").await;
    assert!(ask(trust.clone()).await.is_err());
    assert!(
        ask(Trust {
            identity: Some(identity),
            ..trust
        })
        .await
        .is_ok()
    );
}

/// As `openssl req -x509` makes it, which people use on both sides and as the authority.
#[tokio::test]
async fn one_certificate_may_be_everything() {
    let dir = tempfile::tempdir().unwrap();
    let [certfile, keyfile] = ["one.crt", "one.key"].map(|name| dir.path().join(name));
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(&certfile, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&keyfile, key.serialize_pem()).unwrap();
    let tls = TlsOptions {
        certfile: certfile.clone(),
        keyfile: Some(keyfile.clone()),
        keyfile_password: None,
        cafile: Some(certfile.clone()),
        verify_client: VerifyClient::Required,
        ciphers: None,
    };
    let door = door(Some(tls), true).await;
    let trust = Trust {
        cacert: Some(certfile.clone()),
        identity: Some(ClientIdentity {
            certificate: certfile,
            key: keyfile,
            password: None,
        }),
        ..Trust::default()
    };
    let answer = client(vec![url("https", &door)], trust).get("/patroni").await;
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn unusable_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut tls = certificate(dir.path());
    std::fs::write(dir.path().join("key.pem"), "no key").unwrap();
    let (_, seen) = watch::channel(None);
    let options = |tls: &TlsOptions| ApiOptions {
        identity: Identity {
            scope: "demo".into(),
            name: "node1".into(),
        },
        listen: "127.0.0.1:0".into(),
        tls: Some(tls.clone()),
        access: Access::default(),
        extra_headers: Vec::new(),
        server_tokens: None,
    };
    let error = serve(
        options(&tls),
        seen.clone(),
        Operator::default(),
        std::future::pending(),
    )
    .await
    .unwrap_err()
    .to_string();
    assert!(
        error.starts_with("restapi.keyfile: ") && error.contains("key.pem"),
        "{error}"
    );
    tls = certificate(dir.path());
    (tls.verify_client, tls.cafile) = (VerifyClient::Required, None);
    let error = serve(options(&tls), seen, Operator::default(), std::future::pending())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("restapi.cafile"), "{error}");
}
