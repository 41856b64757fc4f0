//! The cluster's version, and the downgrade that it is in (`server/etcdserver/version`).
//!
//! What this is not: a decision. The leader makes that, by the versions that members announce
//! (`server/version_monitor`); here is what the log says came of it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use backend::schema::meta::{self, MetaKey};
use backend::{Batch, Bucket, Reader};
use bytes::Bytes;
use types::Version;

use crate::OpenError;

/// What the members have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterVersions {
    /// The cluster's version; `None`: not decided yet.
    pub cluster: Option<Version>,
    /// The version that the cluster is to go down to, while a downgrade is enabled.
    pub downgrade: Option<Version>,
}

/// Reads them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Versions {
    published: Arc<ArcSwap<ClusterVersions>>,
}

impl Versions {
    /// As of now.
    #[must_use]
    pub fn get(&self) -> ClusterVersions {
        **self.published.load()
    }
}

/// The versions, and the right to change them.
#[derive(Debug)]
pub(crate) struct VersionStore {
    versions: ClusterVersions,
    published: Arc<ArcSwap<ClusterVersions>>,
    is_published: bool,
    is_staged: bool,
}

impl VersionStore {
    pub(crate) fn open(reader: &Reader) -> Result<Self, OpenError> {
        let versions = ClusterVersions {
            cluster: read(reader, MetaKey::ClusterVersion)?,
            downgrade: read(reader, MetaKey::Downgrade)?,
        };
        Ok(Self {
            versions,
            published: Arc::new(ArcSwap::from_pointee(versions)),
            is_published: true,
            is_staged: true,
        })
    }

    pub(crate) fn view(&self) -> Versions {
        Versions {
            published: Arc::clone(&self.published),
        }
    }

    pub(crate) fn set_cluster(&mut self, version: Version) {
        match self.versions.cluster {
            None => tracing::info!(
                "cluster-version" = version.short(),
                "set initial cluster version"
            ),
            Some(from) => tracing::info!(
                from = from.short(),
                to = version.short(),
                "updated cluster version"
            ),
        }
        self.versions.cluster = Some(version);
        self.note();
    }

    pub(crate) fn set_downgrade(&mut self, target: Option<Version>) {
        self.versions.downgrade = target;
        self.note();
    }

    fn note(&mut self) {
        (self.is_published, self.is_staged) = (false, false);
    }

    /// Shows the versions to readers.
    pub(crate) fn publish(&mut self) {
        if !self.is_published {
            self.published.store(Arc::new(self.versions));
            self.is_published = true;
        }
    }

    /// Other versions take the place of these.
    pub(crate) fn install(&mut self, other: &Self) {
        self.versions = other.versions;
        (self.is_published, self.is_staged) = (false, true);
        self.publish();
    }

    /// They are to be staged, whether or not they have changed.
    pub(crate) fn restage(&mut self) {
        self.is_staged = false;
    }

    /// Adds to `batch` what has changed since the last call.
    pub(crate) fn stage(&mut self, batch: &mut Batch) {
        if std::mem::replace(&mut self.is_staged, true) {
            return;
        }
        let ClusterVersions { cluster, downgrade } = self.versions;
        for (key, version) in [
            (MetaKey::ClusterVersion, cluster),
            (MetaKey::Downgrade, downgrade),
        ] {
            let key = meta::encode(key);
            match version {
                Some(version) => batch.put(Bucket::Meta, key, encode(version)),
                None => batch.delete(Bucket::Meta, key),
            }
        }
    }
}

fn read(reader: &Reader, key: MetaKey) -> Result<Option<Version>, OpenError> {
    match reader.get(Bucket::Meta, meta::encode(key))? {
        Some(value) => decode(&value).map(Some),
        None => Ok(None),
    }
}

pub(crate) fn encode(version: Version) -> Bytes {
    version.to_string().into()
}

pub(crate) fn decode(value: &Bytes) -> Result<Version, OpenError> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(Version::parse)
        .ok_or_else(|| OpenError::Version {
            value: value.clone(),
        })
}
