//! Backups that a member takes by itself: what was asked for, and what comes of it. All of these flags are
//! kvorum's own; their names are close to k3s's.

use std::path::PathBuf;
use std::time::Duration;

use backup::{Compression, Location, Schedule};

use super::duration;
use super::validate::Check;

/// What was asked for.
///
/// ```
/// use kvorum::Options;
/// use kvorum::config::{BackupOptions, S3Options, S3Settings};
///
/// let (bucket, region) = ("mine".to_owned(), "eu-central-1".to_owned());
/// let s3 = S3Options { bucket, region, ..S3Options::default() };
/// let backup = BackupOptions { schedule: "0 */6 * * *".to_owned(), s3, ..BackupOptions::default() };
/// let config = Options { data_dir: "/var/lib/mine".to_owned(), backup, ..Options::default() }.validate()?;
/// let s3: S3Settings = config.backup.expect("there is a schedule").s3;
/// assert_eq!((s3.region.as_deref(), s3.endpoint), (Some("eu-central-1"), None));
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupOptions {
    /// `--backup-schedule`: an interval or five fields of cron; nothing is never.
    pub schedule: String,
    /// `--backup-dir`
    pub dir: String,
    /// `--backup-name`: what names begin with.
    pub name: String,
    /// `--backup-retention`: how many are kept; 0 is all.
    pub retention: u64,
    /// `--backup-compression`
    pub compression: Compression,
    /// `--backup-age-max`: with an older last good one the leader says so; zero is never.
    pub age_max: Duration,
    /// `--backup-archive-interval`: how often changes are archived; zero is never.
    pub archive_interval: Duration,
    /// The bucket.
    pub s3: S3Options,
}

/// A bucket of whatever speaks S3. [`BackupOptions`] has an example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Options {
    /// `--backup-s3-bucket`
    pub bucket: String,
    /// `--backup-s3-folder`
    pub folder: String,
    /// `--backup-s3-endpoint`: with its scheme; nothing is Amazon.
    pub endpoint: String,
    /// `--backup-s3-region`
    pub region: String,
    /// `--backup-s3-endpoint-ca`
    pub endpoint_ca: String,
    /// `--backup-s3-credentials-file`
    pub credentials_file: String,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            schedule: String::new(),
            dir: String::new(),
            name: "etcd-snapshot".to_owned(),
            retention: 5,
            compression: Compression::None,
            age_max: Duration::ZERO,
            archive_interval: Duration::ZERO,
            s3: S3Options::default(),
        }
    }
}

/// The backups that a member takes.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::BackupSettings;
///
/// let builder = Config::builder().data_dir("/var/lib/mine").flag("backup-schedule", "6h");
/// let config = builder.flag("backup-dir", "/var/backups/mine").flag("backup-retention", "20").build()?;
/// let backup: BackupSettings = config.backup.expect("there is a schedule");
/// assert_eq!((backup.name.as_str(), backup.retention), ("etcd-snapshot", 20));
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BackupSettings {
    /// When.
    pub schedule: Schedule,
    /// Where to.
    pub location: Location,
    /// How the bucket is spoken to, if it is one.
    pub s3: S3Settings,
    /// What names begin with.
    pub name: String,
    /// How many are kept; 0 is all.
    pub retention: usize,
    /// How they are compressed.
    pub compression: Compression,
    /// With an older last good one the leader says so.
    pub age_max: Option<Duration>,
    /// How often changes are archived.
    pub archive_interval: Option<Duration>,
}

/// How a bucket is spoken to. [`BackupOptions`] has an example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Settings {
    /// Where; `None`: Amazon.
    pub endpoint: Option<String>,
    /// The region, if it was said.
    pub region: Option<String>,
    /// Authorities beside the system's.
    pub authorities_file: Option<PathBuf>,
    /// A file with credentials.
    pub credentials_file: Option<PathBuf>,
}

/// Nothing, if nothing was said.
fn said(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl Check {
    /// The backups that were asked for, if any were.
    pub(super) fn backups(&mut self, options: &BackupOptions) -> Option<BackupSettings> {
        if *options == BackupOptions::default() {
            return None;
        }
        let schedule = self.backup_schedule(options);
        let location = self.backup_location(options);
        let s3 = self.s3(&options.s3);
        if options.name.is_empty()
            || options.name.contains(['/', '\0'])
            || options.name.starts_with('.')
        {
            let name = &options.name;
            self.problem(format!(
                "--backup-name {name:?} cannot begin the name of a file"
            ));
        }
        Some(BackupSettings {
            schedule: schedule?,
            location: location?,
            s3,
            name: options.name.clone(),
            retention: usize::try_from(options.retention).unwrap_or(usize::MAX),
            compression: options.compression,
            age_max: (!options.age_max.is_zero()).then_some(options.age_max),
            archive_interval: (!options.archive_interval.is_zero())
                .then_some(options.archive_interval),
        })
    }

    fn backup_schedule(&mut self, options: &BackupOptions) -> Option<Schedule> {
        let Some(text) = said(&options.schedule) else {
            self.problem("--backup-schedule is missing: the other --backup flags need one");
            return None;
        };
        let schedule = match duration::parse(text) {
            Ok(interval) => Schedule::every(interval),
            Err(_other) => Schedule::cron(text),
        };
        match schedule {
            Ok(schedule) => Some(schedule),
            Err(error) => {
                self.problem(format!(
                    "--backup-schedule {text:?} cannot be used: {error}"
                ));
                None
            }
        }
    }

    fn backup_location(&mut self, options: &BackupOptions) -> Option<Location> {
        match (said(&options.dir), said(&options.s3.bucket)) {
            (Some(dir), None) => Some(Location::Directory(dir.into())),
            (None, Some(bucket)) => Some(Location::Bucket {
                bucket: bucket.to_owned(),
                folder: options.s3.folder.trim_matches('/').to_owned(),
            }),
            (Some(_), Some(_)) => {
                self.problem("--backup-dir and --backup-s3-bucket exclude each other");
                None
            }
            (None, None) => {
                self.problem("--backup-dir or --backup-s3-bucket is missing");
                None
            }
        }
    }

    fn s3(&mut self, options: &S3Options) -> S3Settings {
        if options.bucket.is_empty() && *options != S3Options::default() {
            self.problem("--backup-s3-bucket is missing: the other --backup-s3 flags need one");
        }
        let endpoint = said(&options.endpoint);
        if let Some(text) = endpoint {
            self.endpoint(text);
        }
        S3Settings {
            endpoint: endpoint.map(str::to_owned),
            region: said(&options.region).map(str::to_owned),
            authorities_file: said(&options.endpoint_ca).map(PathBuf::from),
            credentials_file: said(&options.credentials_file).map(PathBuf::from),
        }
    }

    fn endpoint(&mut self, text: &str) {
        let is_web = text.starts_with("http://") || text.starts_with("https://");
        let host = text.split_once("://").map_or("", |(_scheme, host)| host);
        if !is_web || host.is_empty() || host.trim_end_matches('/').contains('/') {
            self.problem(format!(
                "--backup-s3-endpoint {text:?} is neither http://host:port nor https://host:port"
            ));
        }
    }
}
