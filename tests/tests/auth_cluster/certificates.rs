//! The common name of a certificate in the place of a token: by gRPC it is a user's name, through the gateway it
//! is nobody's.

use anyhow::{Result, ensure};
use testkit::certs::{Authority, Certs, Identity, Leaf};
use testkit::{Program, Spec};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::CHEAP;
use super::desk::Desk;

/// Asked over HTTP/1.1 or HTTP/2, with a certificate.
async fn post(url: &str, ca: &[u8], pem: &[u8], token: Option<&str>) -> Result<String> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .use_rustls_tls()
        .add_root_certificate(reqwest::Certificate::from_pem(ca)?)
        .identity(reqwest::Identity::from_pem(pem)?)
        .build()?;
    let mut post = client
        .post(format!("{url}/v3/kv/range"))
        .body(r#"{"key":"ay9taW5l"}"#);
    if let Some(token) = token {
        post = post.header("Authorization", token);
    }
    let answer = post.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    // What was found has ids in it; and protobuf-go puts a blank where it likes.
    let text = text.replace(", ", ",");
    let text = if status.is_success() {
        "found"
    } else {
        text.trim()
    };
    Ok(format!("{status}: {text}"))
}

/// What everybody is answered, by their certificates, and by a token of root's beside one.
async fn answers(program: Program) -> Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new("kvorum test CA")?;
    let ca = authority.write(dir.path(), "ca")?.cert;
    let issue = |name: &str, leaf: Leaf| -> Result<Identity> {
        authority.issue(&leaf)?.write(dir.path(), name)
    };
    let server = issue("server", Leaf::named("kvorum"))?;
    let certs = |client: Identity| Certs {
        ca: ca.clone(),
        server: server.clone(),
        client,
    };
    let names = ["alice", "nobody", "root", "stranger", ""];
    let mut clients = Vec::new();
    for (number, name) in names.into_iter().enumerate() {
        let client = issue(&format!("client{number}"), Leaf::client(name))?;
        clients.push((name, certs(client)));
    }
    let running = Spec::of(program)
        .mutual_tls(clients[0].1.clone())
        .arg(CHEAP);
    let running = running.start().await?;
    let mut answers = Vec::new();
    let mut token = String::new();
    for (name, certs) in &clients {
        let channel = channel(&running.client_url(), certs)?;
        let desk = Desk::new(channel);
        if token.is_empty() {
            desk.set_up().await?;
            token = desk.log_in("root", "pass").await?;
        }
        let mut note = |what: &str, answer: String| {
            answers.push(format!("{name:?} {what}: {answer}"));
        };
        for key in super::KEYS {
            note(&format!("gets {key}"), desk.get("", key).await);
            note(&format!("puts {key}"), desk.put("", key).await);
        }
        note("lists users", desk.users("").await);
        note("lists members", desk.members("").await);
        // A token comes first; one that is not valid is not made good by a certificate.
        note("has root's token", desk.get(&token, "other").await);
        note(
            "has a wrong token",
            desk.get("abcdefghijklmnop.1", "k/mine").await,
        );
        let ca = std::fs::read(&certs.ca)?;
        let mut pem = std::fs::read(&certs.client.cert)?;
        pem.extend(std::fs::read(&certs.client.key)?);
        let url = running.client_url();
        note("asks the gateway", post(&url, &ca, &pem, None).await?);
        note(
            "asks it with root's token",
            post(&url, &ca, &pem, Some(&token)).await?,
        );
    }
    running.stop().await?;
    Ok(answers)
}

fn channel(url: &str, certs: &Certs) -> Result<Channel> {
    let identity = tonic::transport::Identity::from_pem(
        std::fs::read(&certs.client.cert)?,
        std::fs::read(&certs.client.key)?,
    );
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(std::fs::read(&certs.ca)?))
        .identity(identity);
    let endpoint = Endpoint::from_shared(url.to_owned())?.tls_config(tls)?;
    Ok(endpoint.connect_lazy())
}

#[tokio::test]
async fn a_certificates_name_is_a_users_as_etcd_has_it() -> Result<()> {
    let (kvorum, etcd) = tokio::try_join!(answers(Program::Kvorum), answers(Program::Etcd))?;
    ensure!(kvorum == etcd, "kvorum {kvorum:#?}\netcd {etcd:#?}");
    let has = |line: &str| kvorum.iter().any(|answer| answer == line);
    ensure!(has("\"alice\" gets k/mine: OK: 1"), "{kvorum:#?}");
    let refused = "\"alice\" gets other: PermissionDenied: etcdserver: permission denied";
    ensure!(has(refused), "{kvorum:#?}");
    Ok(())
}
