//! Snapshots: the whole store as an etcd snapshot file.

use std::io;
use std::path::{Path, PathBuf};

use api::etcdserverpb as pb;
use bytes::Bytes;
use etcdfile::FileError;
use futures_util::StreamExt;
use tonic::Status;

use super::Client;
use crate::snapshot_file::{KeepError, Part};

/// A snapshot could not be saved. Nothing of it is left. [`Client::save_snapshot`] has an example.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The member did not give it.
    #[error("cannot take a snapshot")]
    Taken(#[from] Status),
    /// It could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was taken is not whole.
    #[error("what was taken is no snapshot")]
    NotASnapshot(#[source] FileError),
}

impl Client {
    /// The whole store as an etcd snapshot file, piece by piece; a checksum is its end.
    ///
    /// # Errors
    ///
    /// As etcd's `Snapshot`.
    pub async fn snapshot(
        &self,
    ) -> Result<impl futures_util::Stream<Item = Result<Bytes, Status>> + use<>, Status> {
        let request = pb::SnapshotRequest::default();
        let pieces = self.maintenance_client().snapshot(request).await?;
        Ok(pieces
            .into_inner()
            .map(|piece| piece.map(|piece| Bytes::from(piece.blob))))
    }

    /// Saves the whole store in a file that etcd's tools and [`crate::restore`] read. The file is there
    /// when it is whole, checked and durable.
    ///
    /// # Errors
    ///
    /// When the snapshot cannot be taken, or the file not be written; what was there before stays then.
    ///
    /// ```
    /// use kvorum::client::SaveError;
    /// # use kvorum::{Config, Kvorum};
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let config = Config::builder().data_dir(dir.path().join("data")).any_ports().build()?;
    /// # let member = Kvorum::start(config).await?;
    /// # member.wait_ready().await?;
    /// let file = dir.path().join("snapshot.db");
    /// member.client().save_snapshot(&file).await?;
    /// assert!(file.is_file());
    ///
    /// let nowhere = dir.path().join("not-there/snapshot.db");
    /// let refused = member.client().save_snapshot(&nowhere).await.expect_err("there is no directory");
    /// assert!(matches!(&refused, SaveError::File { path, .. } if *path == nowhere));
    /// assert_eq!(refused.to_string(), format!("cannot write {}", nowhere.display()));
    /// # member.stop().await;
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub async fn save_snapshot(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        let path = path.as_ref();
        let failed = |source| SaveError::File {
            path: path.to_owned(),
            source,
        };
        let mut pieces = self.snapshot().await?;
        let mut part = blocking(path, |path| Part::create(&path))
            .await
            .map_err(failed)?;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            part = blocking(path, move |_path| part.write(&piece).map(|()| part))
                .await
                .map_err(failed)?;
        }
        let kept = blocking(path, move |path| Ok(part.keep(&path))).await;
        kept.map_err(failed)?.map_err(|error| match error {
            KeepError::Write(source) => failed(source),
            KeepError::NotASnapshot(error) => SaveError::NotASnapshot(error),
        })
    }
}

/// Does it on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(path)).await;
    done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}
