//! Where k3s keeps what, below its data directory.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use transport::write_whole;

/// `${data-dir}/server`.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    server: PathBuf,
}

impl Layout {
    /// The name of the file that says the member's.
    pub(crate) const NAME: &str = "name";
    /// The name of the file that says that the member's data were made of another datastore.
    pub(crate) const CONVERTED: &str = "converted";

    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            server: data_dir.join("server"),
        }
    }

    /// Authorities and certificates.
    pub(crate) fn tls(&self) -> PathBuf {
        self.server.join("tls")
    }

    /// A file among them.
    pub(crate) fn tls_file(&self, name: &str) -> PathBuf {
        self.tls().join(name)
    }

    /// Certificates as they were before a reset.
    pub(crate) fn tls_backup(&self, unix_time: u64) -> PathBuf {
        self.server.join(format!("tls-{unix_time}"))
    }

    /// The token by which other servers join.
    pub(crate) fn token(&self) -> PathBuf {
        self.server.join("token")
    }

    /// The same under its older name.
    pub(crate) fn node_token(&self) -> PathBuf {
        self.server.join("node-token")
    }

    /// The member's data.
    pub(crate) fn etcd(&self) -> PathBuf {
        self.db().join("etcd")
    }

    /// The member's name.
    pub(crate) fn name(&self) -> PathBuf {
        self.etcd().join(Self::NAME)
    }

    /// Says that the member was removed from its cluster.
    pub(crate) fn tombstone(&self) -> PathBuf {
        self.etcd().join("tombstone")
    }

    /// Says that the cluster has just been reset.
    pub(crate) fn reset_flag(&self) -> PathBuf {
        self.db().join("reset-flag")
    }

    /// A single server's datastore, before it had a cluster.
    pub(crate) fn sqlite(&self) -> PathBuf {
        self.db().join("state.db")
    }

    /// The same, once a member has what was in it.
    pub(crate) fn sqlite_migrated(&self) -> PathBuf {
        self.db().join("state.db.migrated")
    }

    /// The member's data while they are made of that datastore.
    pub(crate) fn conversion(&self) -> PathBuf {
        self.db().join("etcd-conversion")
    }

    /// Says that the member's data were made of that datastore, and that it is still to be put away.
    pub(crate) fn converted(&self) -> PathBuf {
        self.etcd().join(Self::CONVERTED)
    }

    /// Where snapshots go, unless another directory is given.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.db().join("snapshots")
    }

    /// All databases.
    pub(crate) fn db(&self) -> PathBuf {
        self.server.join("db")
    }

    /// Whether this server has begun or joined a cluster before.
    pub(crate) fn is_initialized(&self) -> bool {
        self.etcd().join("member").is_dir()
    }
}

/// Makes a directory that only its owner looks into.
pub(crate) fn private_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_private(path: &Path, contents: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        private_dir(dir)?;
    }
    write_whole(path, contents, 0o600).with_context(|| format!("cannot write {}", path.display()))
}

/// What a file says, if it is there.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
