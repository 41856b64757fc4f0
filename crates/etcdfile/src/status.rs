//! What `etcdutl snapshot status` says of a file.

use std::collections::HashSet;

use api::mvccpb;
use boltfile::Value;
use crc32c::crc32c_append;
use prost::Message;
use serde::Serialize;

use crate::error::{FileError, RecordProblem};
use crate::file::EtcdFile;
use crate::schema;
use crate::version;

/// A file in short, with the names and in the order of etcdutl's JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// CRC-32C of everything in it.
    pub hash: u32,
    /// Its revision: that of the last record of history.
    pub revision: i64,
    /// Keys that exist.
    pub total_key: usize,
    /// Bytes of the database.
    pub total_size: u64,
    /// The version of what is in it; empty before 3.6.
    pub version: String,
}

impl EtcdFile {
    /// Reads all of it.
    ///
    /// # Errors
    /// When a record of history is none.
    pub fn status(&self) -> Result<Status, FileError> {
        let mut status = Status {
            total_size: self.bolt.bytes(),
            version: self.storage_version()?,
            ..Status::default()
        };
        let mut keys = Keys::default();
        for bucket in self.bolt.root().entries() {
            let bucket = bucket?;
            let Value::Bucket(records) = bucket.value else {
                return Err(FileError::record(&[], &bucket.key, RecordProblem::Value));
            };
            status.hash = crc32c_append(status.hash, &bucket.key);
            for record in records.entries() {
                let record = record?;
                let Value::Bytes(value) = record.value else {
                    return Err(FileError::record(
                        &bucket.key,
                        &record.key,
                        RecordProblem::Bucket,
                    ));
                };
                status.hash = crc32c_append(crc32c_append(status.hash, &record.key), &value);
                if bucket.key == schema::KEY {
                    status.revision = keys.record(&record.key, &value)?;
                }
            }
        }
        status.total_key = keys.exist.len();
        Ok(status)
    }

    /// The version of what is in it; empty before 3.6.
    fn storage_version(&self) -> Result<String, FileError> {
        let Some(meta) = self.bucket(schema::META)? else {
            return Ok(String::new());
        };
        let version = meta.get(schema::STORAGE_VERSION)?;
        let version = version.and_then(|version| String::from_utf8(version.to_vec()).ok());
        let version = version.filter(|text| version::parse(text).is_some());
        Ok(version.unwrap_or_default())
    }
}

/// The keys that exist, as far as history has been read.
#[derive(Default)]
struct Keys {
    exist: HashSet<Vec<u8>>,
}

impl Keys {
    /// The main revision of a record.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<i64, FileError> {
        let problem = |problem| FileError::record(schema::KEY, key, problem);
        let (revision, is_tombstone) =
            schema::decode_revision(key).ok_or_else(|| problem(RecordProblem::Key))?;
        let kv = mvccpb::KeyValue::decode(value).map_err(|error| problem(error.into()))?;
        if is_tombstone {
            self.exist.remove(&kv.key[..]);
        } else {
            self.exist.insert(kv.key.to_vec());
        }
        Ok(revision.main)
    }
}
