//! How a bucket is spoken to: files of authorities and credentials, and Amazon's variables.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use backup::BucketConfig;

use crate::config::S3Settings;

/// What names of Amazon's variables begin with.
const AMAZON: &str = "AWS_";
/// The part of a file of credentials that counts.
const PROFILE: &str = "default";

/// A bucket cannot be spoken to.
///
/// ```
/// use kvorum::bucket::{BucketError, bucket_config};
/// use kvorum::config::S3Settings;
///
/// let credentials_file = Some("/nowhere/credentials".into());
/// let settings = S3Settings { credentials_file, ..S3Settings::default() };
/// let refused = bucket_config(&settings).expect_err("there is no such file");
/// assert!(matches!(&refused, BucketError::File { flag, .. } if *flag == "backup-s3-credentials-file"));
/// let text = "cannot read /nowhere/credentials, the file of --backup-s3-credentials-file";
/// assert_eq!(refused.to_string(), text);
/// ```
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// A file cannot be read.
    #[error("cannot read {}, the file of --{flag}", path.display())]
    File {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There are no credentials in the file.
    #[error("{} has no {key} in its part [{PROFILE}]", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is missing.
        key: &'static str,
    },
    /// The rest.
    #[error(transparent)]
    Backup(#[from] backup::BackupError),
}

/// What `backup` has to know of a bucket. Reads files and the environment.
///
/// # Errors
/// When a file cannot be read, or has no credentials.
pub fn bucket_config(settings: &S3Settings) -> Result<BucketConfig, BucketError> {
    let mut environment: Vec<(String, String)> = std::env::vars()
        .filter(|(name, _)| name.starts_with(AMAZON))
        .collect();
    if let Some(path) = &settings.credentials_file {
        environment.retain(|(name, _)| !CREDENTIALS.iter().any(|(_, variable)| name == variable));
        environment.extend(credentials(path)?);
    }
    let authorities = match &settings.authorities_file {
        Some(path) => Some(read("backup-s3-endpoint-ca", path)?.into_bytes()),
        None => None,
    };
    Ok(BucketConfig {
        endpoint: settings.endpoint.clone(),
        region: settings.region.clone(),
        authorities,
        environment,
    })
}

/// Keys of a file of credentials, and the variables that mean the same.
const CREDENTIALS: [(&str, &str); 3] = [
    ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
    ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("aws_session_token", "AWS_SESSION_TOKEN"),
];

fn credentials(path: &Path) -> Result<Vec<(String, String)>, BucketError> {
    let text = read("backup-s3-credentials-file", path)?;
    let found = profile(&text);
    for (key, variable) in &CREDENTIALS[..2] {
        if !found.iter().any(|(name, _)| name == variable) {
            let path = path.to_owned();
            return Err(BucketError::Credentials { path, key });
        }
    }
    Ok(found)
}

/// The credentials in the text of such a file.
fn profile(text: &str) -> Vec<(String, String)> {
    let mut is_inside = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            is_inside = name.trim() == PROFILE;
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| is_inside) else {
            continue;
        };
        let known = CREDENTIALS.iter().find(|(name, _)| *name == key.trim());
        found.extend(known.map(|(_, variable)| ((*variable).to_owned(), value.trim().to_owned())));
    }
    found
}

fn read(flag: &'static str, path: &Path) -> Result<String, BucketError> {
    fs::read_to_string(path).map_err(|source| BucketError::File {
        flag,
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_of_the_default_profile() {
        let text = "# mine\n[other]\naws_access_key_id = no\n[default]\n\
                    aws_access_key_id = key\naws_secret_access_key=a=b\nregion = x\n";
        let expected = [
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "a=b"),
        ];
        assert_eq!(
            profile(text),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        fs::write(&path, "[default]\naws_access_key_id = key\n").unwrap();
        let error = credentials(&path).unwrap_err().to_string();
        assert!(error.contains("aws_secret_access_key"), "{error}");
    }
}
