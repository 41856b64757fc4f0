//! Where backups are: a directory, or a folder of a bucket.
//!
//! A file appears whole or not at all: in a directory it is renamed when it is durable, in a bucket an upload
//! counts when it is finished.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::buffered::BufWriter;
use object_store::path::Path as ObjectPath;
use object_store::{Certificate, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

use crate::error::BackupError;

/// What a location in a bucket begins with.
const S3: &str = "s3://";
/// Longer than any piece of a backup takes on a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// A bucket that does not answer the door is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request is sent again so often, and no longer than that.
const RETRIES_MAX: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Where backups are, as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A directory.
    Directory(PathBuf),
    /// `s3://bucket/folder`.
    Bucket {
        /// The bucket.
        bucket: String,
        /// The folder in it; empty: none.
        folder: String,
    },
}

impl Location {
    /// Reads a location.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let Some(rest) = text.strip_prefix(S3) else {
            return Self::Directory(text.into());
        };
        let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
        Self::Bucket {
            bucket: bucket.to_owned(),
            folder: folder.trim_matches('/').to_owned(),
        }
    }

    /// The location that this one is in, and its name there.
    #[must_use]
    pub fn split_last(&self) -> Option<(Self, String)> {
        match self {
            Self::Directory(path) => {
                let name = path.file_name()?.to_string_lossy().into_owned();
                let parent = match path.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    _ => Path::new("."),
                };
                Some((Self::Directory(parent.to_owned()), name))
            }
            Self::Bucket { bucket, folder } => {
                let (folder, name) = folder.rsplit_once('/').unwrap_or(("", folder));
                let parent = Self::Bucket {
                    bucket: bucket.clone(),
                    folder: folder.to_owned(),
                };
                (!name.is_empty()).then(|| (parent, name.to_owned()))
            }
        }
    }
}

/// How a bucket is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketConfig {
    /// The address, with its scheme; `None`: Amazon's.
    pub endpoint: Option<String>,
    /// The region; `None`: as the environment says, or `us-east-1`.
    pub region: Option<String>,
    /// The authorities that the endpoint is trusted by, in PEM; `None`: the system's.
    pub authorities: Option<Vec<u8>>,
    /// What is known of credentials and the rest under the names of Amazon's variables, such as
    /// `AWS_ACCESS_KEY_ID`; what is known under other names is passed over.
    pub environment: Vec<(String, String)>,
}

/// Where backups are. Cheap to clone; everything blocks, and may not be called on an async thread.
#[derive(Clone, Debug)]
pub struct Store {
    at: At,
}

#[derive(Clone, Debug)]
enum At {
    Directory(PathBuf),
    Bucket {
        objects: Arc<dyn ObjectStore>,
        folder: ObjectPath,
        runtime: Handle,
    },
}

impl Store {
    /// Opens a location; a bucket is not spoken to before it is used.
    ///
    /// # Errors
    /// When the configuration of a bucket cannot be.
    pub fn open(
        location: &Location,
        config: &BucketConfig,
        runtime: Handle,
    ) -> Result<Self, BackupError> {
        let at = match location {
            Location::Directory(path) => At::Directory(path.clone()),
            Location::Bucket { bucket, folder } => At::Bucket {
                objects: connect(bucket, config)?,
                folder: ObjectPath::from(folder.as_str()),
                runtime,
            },
        };
        Ok(Self { at })
    }

    /// Where a file is written before it has its name: in the directory itself, or in `beside` for a
    /// bucket.
    pub(crate) fn staging(&self, beside: &Path) -> Result<PathBuf, BackupError> {
        let directory = match &self.at {
            At::Directory(path) => path,
            At::Bucket { .. } => beside,
        };
        fs::create_dir_all(directory).map_err(BackupError::io("create directory", directory))?;
        Ok(directory.to_owned())
    }

    /// The names of the files that are there.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn list(&self) -> Result<Vec<String>, BackupError> {
        match &self.at {
            At::Directory(path) => list_directory(path),
            At::Bucket {
                objects,
                folder,
                runtime,
            } => {
                let failed = |source| bucket_error("list", folder.as_ref(), source);
                let listed: Vec<_> = runtime
                    .block_on(objects.list(Some(folder)).try_collect())
                    .map_err(failed)?;
                let depth = folder.parts().count() + 1;
                let own = listed
                    .into_iter()
                    .filter(|object| object.location.parts().count() == depth);
                let name =
                    |object: object_store::ObjectMeta| Some(object.location.filename()?.to_owned());
                Ok(own.filter_map(name).collect())
            }
        }
    }

    /// Gives a finished, durable file its name; in a bucket it is uploaded, and stays where it is.
    pub(crate) fn put_file(&self, staged: &Path, name: &str) -> Result<(), BackupError> {
        match &self.at {
            At::Directory(directory) => {
                let target = directory.join(name);
                fs::rename(staged, &target).map_err(BackupError::io("rename to", &target))?;
                sync_directory(directory)
            }
            At::Bucket {
                objects,
                folder,
                runtime,
            } => {
                let path = folder.clone().join(name);
                runtime.block_on(upload(Arc::clone(objects), &path, staged))
            }
        }
    }

    /// Writes a small file.
    pub(crate) fn put_bytes(&self, name: &str, bytes: Vec<u8>) -> Result<(), BackupError> {
        match &self.at {
            At::Directory(directory) => {
                let part = directory.join(format!(".{name}.part"));
                fs::write(&part, bytes)
                    .and_then(|()| File::open(&part)?.sync_all())
                    .map_err(BackupError::io("write", &part))?;
                self.put_file(&part, name)
            }
            At::Bucket {
                objects,
                folder,
                runtime,
            } => {
                let path = folder.clone().join(name);
                let put = objects.put(&path, Bytes::from(bytes).into());
                let failed = |source| bucket_error("write", path.as_ref(), source);
                runtime.block_on(put).map(drop).map_err(failed)
            }
        }
    }

    /// Reads a small file.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub fn get_bytes(&self, name: &str) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        self.get(name, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a file into `out`.
    ///
    /// # Errors
    /// When it is not there, or cannot be read.
    pub fn get(&self, name: &str, out: &mut impl io::Write) -> Result<(), BackupError> {
        match &self.at {
            At::Directory(directory) => {
                let path = directory.join(name);
                let copied = File::open(&path).and_then(|mut file| io::copy(&mut file, out));
                match copied {
                    Ok(_bytes) => Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_found(name)),
                    Err(error) => Err(BackupError::io("read", path)(error)),
                }
            }
            At::Bucket {
                objects,
                folder,
                runtime,
            } => {
                let path = folder.clone().join(name);
                runtime.block_on(download(objects, &path, out))
            }
        }
    }

    /// Removes a file; one that is not there is removed already.
    pub(crate) fn delete(&self, name: &str) -> Result<(), BackupError> {
        match &self.at {
            At::Directory(directory) => {
                let path = directory.join(name);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(BackupError::io("remove", path)(error))
                    }
                    _ => Ok(()),
                }
            }
            At::Bucket {
                objects,
                folder,
                runtime,
            } => {
                let path = folder.clone().join(name);
                match runtime.block_on(objects.delete(&path)) {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(source) => Err(bucket_error("remove", path.as_ref(), source)),
                }
            }
        }
    }
}

fn connect(bucket: &str, config: &BucketConfig) -> Result<Arc<dyn ObjectStore>, BackupError> {
    let mut client = ClientOptions::new()
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT);
    if let Some(authorities) = &config.authorities {
        let bundle = Certificate::from_pem_bundle(authorities).map_err(BackupError::Connect)?;
        for authority in bundle {
            client = client.with_root_certificate(authority);
        }
    }
    let mut builder = AmazonS3Builder::new();
    for (name, value) in &config.environment {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = &config.endpoint {
        client = client.with_allow_http(endpoint.starts_with("http://"));
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    let retry = RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    let built = builder
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(retry)
        .build();
    Ok(Arc::new(built.map_err(BackupError::Connect)?))
}

fn list_directory(path: &Path) -> Result<Vec<String>, BackupError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(BackupError::io("read", path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(BackupError::io("read", path))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn sync_directory(directory: &Path) -> Result<(), BackupError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(BackupError::io("make durable", directory))
}

async fn upload(
    objects: Arc<dyn ObjectStore>,
    path: &ObjectPath,
    staged: &Path,
) -> Result<(), BackupError> {
    let mut file = tokio::fs::File::open(staged)
        .await
        .map_err(BackupError::io("read", staged))?;
    let mut writer = BufWriter::new(objects, path.clone());
    let written = match tokio::io::copy(&mut file, &mut writer).await {
        Ok(_bytes) => writer.shutdown().await,
        Err(error) => Err(error),
    };
    let Err(error) = written else {
        return Ok(());
    };
    if let Err(error) = writer.abort().await {
        tracing::debug!(%error, "an upload that was given up cannot be removed");
    }
    let source = object_store::Error::Generic {
        store: "S3",
        source: error.into(),
    };
    Err(bucket_error("write", path.as_ref(), source))
}

async fn download(
    objects: &Arc<dyn ObjectStore>,
    path: &ObjectPath,
    out: &mut impl io::Write,
) -> Result<(), BackupError> {
    let failed = |source| match source {
        object_store::Error::NotFound { .. } => not_found(path.as_ref()),
        source => bucket_error("read", path.as_ref(), source),
    };
    let mut pieces = objects.get(path).await.map_err(failed)?.into_stream();
    while let Some(piece) = pieces.try_next().await.map_err(failed)? {
        out.write_all(&piece)
            .map_err(BackupError::io("write what was read of", path.as_ref()))?;
    }
    Ok(())
}

fn not_found(name: &str) -> BackupError {
    BackupError::NotFound {
        name: name.to_owned(),
    }
}

fn bucket_error(operation: &'static str, name: &str, source: object_store::Error) -> BackupError {
    BackupError::Bucket {
        operation,
        name: name.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_and_taken_apart() {
        let bucket = |folder: &str| Location::Bucket {
            bucket: "b".to_owned(),
            folder: folder.to_owned(),
        };
        assert_eq!(Location::parse("s3://b"), bucket(""));
        assert_eq!(Location::parse("s3://b/x/y/"), bucket("x/y"));
        assert_eq!(Location::parse("/a"), Location::Directory("/a".into()));
        let split = |text: &str| Location::parse(text).split_last();
        assert_eq!(split("s3://b/x/y"), Some((bucket("x"), "y".to_owned())));
        assert_eq!(split("s3://b/y"), Some((bucket(""), "y".to_owned())));
        assert_eq!(split("s3://b"), None);
        let here = Location::Directory(".".into());
        assert_eq!(split("file"), Some((here, "file".to_owned())));
    }
}
