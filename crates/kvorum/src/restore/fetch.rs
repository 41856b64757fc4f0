//! What is to be restored, brought together: a snapshot that may be compressed or in a bucket, and with a
//! revision or a time to go to, the way there through the archive.
//!
//! What this is not: restoring. Everything is fetched and unpacked before anything is made.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use backup::{
    BackupError, BucketConfig, Location, Metadata, PlanError, SegmentName, Store, Target,
};
use tokio::runtime::Handle;

/// What the name of the directory ends with in which everything is unpacked, beside the data directory.
const BESIDE: &str = ".fetch.part";
/// Bytes by which it is seen how a file is compressed.
const HEAD_BYTES: u64 = 8;

/// A snapshot and what comes on top of it, as files of this machine.
///
/// ```
/// use kvorum::bucket::bucket_config;
/// use kvorum::config::S3Settings;
/// use kvorum::restore::{Fetched, Target, fetch};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::io::Write;
/// # let dir = tempfile::tempdir()?;
/// # let (source, data_dir) = (dir.path().join("snapshot.db.gz"), dir.path().join("data"));
/// # let mut packed = flate2::write::GzEncoder::new(std::fs::File::create(&source)?, flate2::Compression::fast());
/// # packed.write_all(b"a snapshot")?;
/// # packed.finish()?;
/// # let source = source.to_string_lossy();
///
/// let bucket = bucket_config(&S3Settings::default())?;
/// let runtime = tokio::runtime::Runtime::new()?;
/// let fetched: Fetched = fetch(&source, Target::Latest, &bucket, &data_dir, runtime.handle())?;
/// assert!(fetched.way.is_none(), "nothing comes on top of the last backup");
/// let unpacked = fetched.snapshot.clone();
/// assert_eq!(std::fs::read(&unpacked)?, b"a snapshot");
/// // Once it is restored.
/// drop(fetched);
/// assert!(!unpacked.exists());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Fetched {
    /// The snapshot, not compressed.
    pub snapshot: PathBuf,
    /// What comes on top, and up to where.
    pub way: Option<Way>,
    /// Goes with what was unpacked.
    _directory: Option<Directory>,
}

/// What comes on top of a backup.
///
/// ```no_run
/// use kvorum::Config;
/// use kvorum::bucket::bucket_config;
/// use kvorum::config::S3Settings;
/// use kvorum::restore::{HashCheck, Restore, Target, Way, fetch, restore};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let config = Config::builder().data_dir("/var/lib/mine").build()?;
/// let bucket = bucket_config(&S3Settings::default())?;
/// let runtime = tokio::runtime::Runtime::new()?;
/// let (source, target) = ("s3://backups/mine", Target::Revision(1200));
/// let fetched = fetch(source, target, &bucket, &config.data_dir, runtime.handle())?;
/// if let Some(Way { base, segments, .. }) = &fetched.way {
///     println!("{} and {} segments of the archive", base.name, segments.len());
/// }
/// let (snapshot, way) = (fetched.snapshot.clone(), fetched.way.clone());
/// restore(&Restore { snapshot, way, hash: HashCheck::Required, bump: None, config }, |_versions| ())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Way {
    /// What is known of the backup.
    pub base: Metadata,
    /// Segments of the archive, in their order.
    pub segments: Vec<(SegmentName, PathBuf)>,
    /// The end.
    pub target: Target,
}

/// It cannot be brought together.
///
/// ```
/// use kvorum::bucket::bucket_config;
/// use kvorum::config::S3Settings;
/// use kvorum::restore::{FetchError, Target, fetch};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let (empty, data_dir) = (dir.path().join("empty"), dir.path().join("data"));
/// # std::fs::create_dir(&empty)?;
/// # let empty = empty.to_string_lossy();
///
/// let bucket = bucket_config(&S3Settings::default())?;
/// let runtime = tokio::runtime::Runtime::new()?;
/// let refused = fetch(&empty, Target::Revision(1200), &bucket, &data_dir, runtime.handle());
/// let refused = refused.expect_err("no backup was ever taken");
/// assert!(matches!(refused, FetchError::Plan(_)));
/// assert_eq!(refused.to_string(), "there is no backup");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file cannot be had.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// There is no way.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file of this machine.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Brings it together: `source` is a file, a directory of backups, or either in a bucket. Blocks, and may not
/// be called on an async thread.
///
/// # Errors
/// When something is missing or damaged. Nothing is left then.
pub fn fetch(
    source: &str,
    target: Target,
    bucket: &BucketConfig,
    data_dir: &Path,
    runtime: &Handle,
) -> Result<Fetched, FetchError> {
    let location = Location::parse(source);
    if let Location::Directory(path) = &location
        && target == Target::Latest
        && !path.is_dir()
        && !is_packed(path)
    {
        return Ok(Fetched {
            snapshot: path.clone(),
            way: None,
            _directory: None,
        });
    }
    let (folder, file) = folder_and_file(&location, bucket, runtime)?;
    let directory = Directory::make(data_dir)?;
    if let (Some(file), Target::Latest) = (&file, target) {
        let snapshot = directory.fetch(&folder, file)?;
        return Ok(Fetched {
            snapshot,
            way: None,
            _directory: Some(directory),
        });
    }
    let plan = backup::plan(&folder, file.as_deref(), target)?;
    let snapshot = directory.fetch(&folder, &plan.base.name)?;
    let mut segments = Vec::new();
    for segment in plan.segments {
        segments.push((segment, directory.fetch(&folder, &segment.to_string())?));
    }
    Ok(Fetched {
        snapshot,
        way: Some(Way {
            base: plan.base,
            segments,
            target,
        }),
        _directory: Some(directory),
    })
}

/// The place of the backups, and the one that was named, if any was.
fn folder_and_file(
    location: &Location,
    bucket: &BucketConfig,
    runtime: &Handle,
) -> Result<(Store, Option<String>), FetchError> {
    let open = |location: &Location| Store::open(location, bucket, runtime.clone());
    if let Location::Directory(path) = location
        && path.is_dir()
    {
        return Ok((open(location)?, None));
    }
    if let Some((parent, name)) = location.split_last() {
        let store = open(&parent)?;
        let is_local = matches!(parent, Location::Directory(_));
        if is_local || store.list()?.contains(&name) {
            return Ok((store, Some(name)));
        }
    }
    Ok((open(location)?, None))
}

/// Whether it is compressed. What is wrong with one that cannot be read, others say.
fn is_packed(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    read.is_ok() && backup::is_packed(&head)
}

/// A directory that goes with everything in it.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn make(data_dir: &Path) -> Result<Self, FetchError> {
        let mut path = data_dir.as_os_str().to_owned();
        path.push(BESIDE);
        let path = PathBuf::from(path);
        let made = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&path),
        };
        match made {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(FetchError::Io {
                operation: "make the directory",
                path,
                source,
            }),
        }
    }

    /// Fetches a file and unpacks it.
    fn fetch(&self, folder: &Store, name: &str) -> Result<PathBuf, FetchError> {
        let (packed, unpacked) = (self.path.join("packed"), self.path.join(name));
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| FetchError::Io {
                operation,
                path,
                source,
            }
        };
        let mut file = File::create(&packed).map_err(failed("create", &packed))?;
        folder.get(name, &mut file)?;
        let file = File::open(&packed).map_err(failed("read", &packed))?;
        let mut out = File::create(&unpacked).map_err(failed("create", &unpacked))?;
        backup::unpack(file, &mut out).map_err(|source| FetchError::Io {
            operation: "unpack",
            path: name.into(),
            source,
        })?;
        Ok(unpacked)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove what was unpacked");
        }
    }
}
