//! `kvorum snapshot save`, as `etcdctl snapshot save`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::etcdserverpb::auth_client::AuthClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::{AuthenticateRequest, SnapshotRequest};
use etcdfile::{EtcdFile, HashCheck};
use hyper_util::rt::TokioIo;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use transport::{Dial, Dialer, TlsClient, TlsClientConfig, TlsParameters};
use types::{SystemClock, Url};

use super::arguments::{Arguments, Known};
use super::{EXIT_INTERRUPTED, Failure, say};

const SAVE: Known = Known {
    values: &[
        "endpoints",
        "cacert",
        "cert",
        "key",
        "user",
        "password",
        "write-out",
        "command-timeout",
        "dial-timeout",
    ],
    switches: &["insecure-skip-tls-verify", "insecure-transport"],
};

/// Only its owner reads a snapshot, as in etcd.
const FILE_MODE: u32 = 0o600;

pub(super) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let arguments = Arguments::parse(arguments, SAVE)?;
    let [path] = arguments.words.as_slice() else {
        let text = "snapshot save expects one argument <filename>";
        return Err(Failure::bad_arguments(text));
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(&error))?;
    let version = runtime.block_on(save(&arguments, Path::new(path)))?;
    say(&format!("Snapshot saved at {path}\n"));
    if !version.is_empty() {
        say(&format!("Server version {version}\n"));
    }
    Ok(())
}

fn interrupted(text: impl Into<String>) -> Failure {
    Failure {
        status: EXIT_INTERRUPTED,
        text: text.into(),
    }
}

/// A file that goes unless it is kept.
struct Part {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

impl Part {
    fn create(target: &Path) -> io::Result<Self> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            is_kept: false,
        })
    }

    /// Gives it its name, durably.
    fn keep(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.is_kept = true;
        match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            // It has been said what went wrong.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Saves a snapshot, checks it, and says which version the server told.
async fn save(arguments: &Arguments, path: &Path) -> Result<String, Failure> {
    let channel = channel(arguments)?;
    let token = token(arguments, &channel).await.map_err(of_status)?;
    let mut client = MaintenanceClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut request = Request::new(SnapshotRequest {});
    if let Some(token) = token {
        request.metadata_mut().insert("token", token);
    }
    let cannot_write = |error: io::Error| interrupted(format!("could not write snapshot: {error}"));
    let mut part = Part::create(path).map_err(cannot_write)?;
    let mut pieces = client
        .snapshot(request)
        .await
        .map_err(of_status)?
        .into_inner();
    let mut version = String::new();
    while let Some(piece) = pieces.message().await.map_err(of_status)? {
        version = piece.version;
        part.file.write_all(&piece.blob).map_err(cannot_write)?;
    }
    part.file.sync_all().map_err(cannot_write)?;
    // What cannot be restored is no snapshot.
    EtcdFile::open(&part.path, HashCheck::Required).map_err(|error| Failure::of(&error))?;
    part.keep(path).map_err(cannot_write)?;
    Ok(version)
}

fn of_status(status: Status) -> Failure {
    interrupted(format!("{}: {}", status.code(), status.message()))
}

fn channel(arguments: &Arguments) -> Result<Channel, Failure> {
    let endpoint = arguments.value_or("endpoints", "127.0.0.1:2379");
    if endpoint.contains(',') {
        let text =
            format!("snapshot must be requested to one selected node, not multiple [{endpoint}]");
        return Err(interrupted(text));
    }
    let tls = tls(arguments)?;
    let url = match endpoint.contains("://") {
        true => endpoint.to_owned(),
        false if tls.is_some() => format!("https://{endpoint}"),
        false => format!("http://{endpoint}"),
    };
    let url = Url::parse(&url).map_err(|error| Failure::of(&error))?;
    let dialer = Arc::new(Dialer::new(tls, None));
    // The scheme is the dialer's business.
    let named = Endpoint::from_shared(format!("http://{}", url.authority()));
    let named = named.map_err(|error| Failure::of(&error))?;
    let connect = tower::service_fn(move |_named: Uri| {
        let dialed = dialer.dial(&url);
        async move { dialed.await.map(TokioIo::new) }
    });
    Ok(named.connect_with_connector_lazy(connect))
}

fn tls(arguments: &Arguments) -> Result<Option<TlsClient>, Failure> {
    let (cert, key) = match (arguments.value("cert"), arguments.value("key")) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) if arguments.value("cacert").is_none() => return Ok(None),
        _ => {
            let text = "--cert and --key are needed to speak TLS";
            return Err(Failure::bad_arguments(text));
        }
    };
    let config = TlsClientConfig {
        cert_file: cert.into(),
        key_file: key.into(),
        trusted_ca_file: arguments.value("cacert").map(PathBuf::from),
        insecure_skip_verify: arguments.is_on("insecure-skip-tls-verify")?,
        parameters: TlsParameters::default(),
    };
    let loaded = TlsClient::load(&config, Arc::new(SystemClock));
    loaded.map(Some).map_err(|error| Failure::of(&error))
}

/// A token for whoever is named.
async fn token(
    arguments: &Arguments,
    channel: &Channel,
) -> Result<Option<AsciiMetadataValue>, Status> {
    let Some(user) = arguments.value("user") else {
        return Ok(None);
    };
    let (name, password) = match (user.split_once(':'), arguments.value("password")) {
        (_, Some(password)) => (user, password),
        (Some((name, password)), None) => (name, password),
        (None, None) => (user, ""),
    };
    let request = AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    };
    let answer = AuthClient::new(channel.clone())
        .authenticate(request)
        .await?;
    let token = AsciiMetadataValue::try_from(answer.into_inner().token);
    let token = token.map_err(|_no_text| Status::internal("the server's token is no text"))?;
    Ok(Some(token))
}
