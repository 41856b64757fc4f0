//! `kvorum snapshot save`, as `etcdctl snapshot save`.

use std::io;
use std::path::Path;

use api::etcdserverpb::SnapshotRequest;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::{Request, Status};

use super::connection::Connection;
use super::{EXIT_INTERRUPTED, Failure, Output, print, say};
use crate::snapshot_file::{KeepError, Part};

/// Stores a snapshot of a running member, ours or an etcd, in a file
#[derive(Clone, Debug, clap::Args)]
#[command(override_usage = "kvorum snapshot save <filename> [options]")]
pub(super) struct Arguments {
    /// The file
    #[arg(value_name = "filename")]
    pub(super) words: Vec<String>,
    #[command(flatten)]
    pub(super) output: Output,
    // Last: its heading is that of all that follows.
    #[command(flatten)]
    pub(super) connection: Connection,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let [path] = arguments.words.as_slice() else {
        let text = "snapshot save expects one argument <filename>";
        return Err(Failure::bad_arguments(text));
    };
    // What it says has one form, but etcdctl wants that there be such a form.
    print::is_form(&arguments.output.write_out)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(&error))?;
    let saved = save(&arguments.connection, Path::new(path));
    let saved = async {
        match arguments.connection.command_timeout {
            None => saved.await,
            Some(limit) => tokio::time::timeout(limit, saved)
                .await
                .unwrap_or_else(|_elapsed| Err(interrupted("context deadline exceeded"))),
        }
    };
    let version = runtime.block_on(saved)?;
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

/// Saves a snapshot, checks it, and says which version the server told.
async fn save(connection: &Connection, path: &Path) -> Result<String, Failure> {
    let endpoints = connection.endpoints();
    let [endpoint] = endpoints.as_slice() else {
        let named = endpoints.join(" ");
        let text =
            format!("snapshot must be requested to one selected node, not multiple [{named}]");
        return Err(interrupted(text));
    };
    let channel = connection.channel(endpoint)?;
    let token = connection.token(&channel).await.map_err(of_status)?;
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
        part.write(&piece.blob).map_err(cannot_write)?;
    }
    part.keep(path).map_err(|error| match error {
        KeepError::Write(error) => cannot_write(error),
        KeepError::NotASnapshot(error) => Failure::of(&error),
    })?;
    Ok(version)
}

fn of_status(status: Status) -> Failure {
    interrupted(format!("{}: {}", status.code(), status.message()))
}
