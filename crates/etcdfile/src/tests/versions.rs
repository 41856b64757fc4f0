//! The layouts of 3.4 to 3.7, and what is newer: databases written record by record, as those versions
//! leave them.

use std::collections::BTreeMap;

use boltfile::{Value, Writer};

use super::*;
use crate::schema::Downgrade;

/// A database, by buckets.
type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn buckets() -> Buckets {
    let file = open(&snapshot(), HashCheck::Required).unwrap();
    let mut all = Buckets::new();
    for bucket in file.bolt.root().entries() {
        let bucket = bucket.unwrap();
        let Value::Bucket(records) = bucket.value else {
            panic!("a record beside the buckets");
        };
        let into = all.entry(bucket.key.to_vec()).or_default();
        for record in records.entries() {
            let record = record.unwrap();
            let Value::Bytes(value) = record.value else {
                panic!("a bucket in a bucket");
            };
            into.insert(record.key.to_vec(), value.to_vec());
        }
    }
    all
}

fn file(buckets: &Buckets) -> EtcdFile {
    fn put_all<W: Write>(mut writer: Writer<W>, buckets: &Buckets) -> boltfile::Plan {
        for (name, records) in buckets {
            writer.bucket(name).unwrap();
            for (key, value) in records {
                writer.put(key, value).unwrap();
            }
        }
        writer.finish().unwrap()
    }
    let plan = put_all(Writer::measure(), buckets);
    let mut bytes = Vec::new();
    put_all(Writer::new(&mut bytes, plan).unwrap(), buckets);
    open(&bytes, HashCheck::IfThere).unwrap()
}

fn set(buckets: &mut Buckets, bucket: &str, key: &str, value: impl Into<Vec<u8>>) {
    let bucket = buckets.entry(bucket.into()).or_default();
    bucket.insert(key.into(), value.into());
}

/// What there is of every version.
fn check(file: &EtcdFile) -> crate::Contents {
    let contents = file.contents().unwrap();
    assert_eq!(contents.consistent_index, 42);
    let expected = Registers {
        revision: None,
        ..registers()
    };
    assert_eq!(contents.registers, expected);
    let mut import = Import::begin(Backend::in_memory()).unwrap();
    let imported = file.import(&mut import, |_| ()).unwrap();
    assert_eq!(imported.revision, 801);
    contents
}

#[test]
fn a_database_of_3_4_has_no_term_votes_or_version() {
    let mut buckets = buckets();
    let meta = buckets.get_mut("meta".as_bytes()).unwrap();
    for since in ["term", "confState", "storageVersion"] {
        meta.remove(since.as_bytes()).unwrap();
    }
    buckets.remove("cluster".as_bytes()).unwrap();
    let file = file(&buckets);
    let contents = check(&file);
    assert_eq!((contents.term, contents.conf_state), (0, None));
    assert_eq!(contents.storage_version, None);
    assert_eq!(file.status().unwrap().version, "");
}

#[test]
fn databases_of_3_5_to_3_7_are_taken_with_all_that_they_have_more() {
    for version in ["", "3.6.0", "3.7.0"] {
        let mut buckets = buckets();
        set(&mut buckets, "cluster", "clusterVersion", "3.7.0");
        let downgrade = r#"{"target-version":"3.6.0","enabled":true}"#;
        set(&mut buckets, "cluster", "downgrade", downgrade);
        set(&mut buckets, "cluster", "later", "x");
        set(&mut buckets, "meta", "storageVersion", version);
        set(&mut buckets, "meta", "later", [0xff]);
        set(&mut buckets, "auth", "later", [0xff]);
        set(&mut buckets, "later", "x", [0xff]);
        let file = file(&buckets);
        let contents = check(&file);
        assert_eq!(contents.cluster_version.as_deref(), Some("3.7.0"));
        let downgrade = Downgrade {
            target_version: "3.6.0".to_owned(),
            enabled: true,
        };
        assert_eq!(contents.downgrade, Some(downgrade));
        assert_eq!(file.status().unwrap().version, version);
    }
}

#[test]
fn a_database_that_is_newer_is_named_and_refused() {
    for (version, words) in [
        ("3.8.0", "version \"3.8.0\" is not supported"),
        ("4.0.0", "changing major storage version is not supported"),
    ] {
        let mut buckets = buckets();
        set(&mut buckets, "meta", "storageVersion", version);
        let file = file(&buckets);
        assert_eq!(file.contents().unwrap_err().to_string(), words);
        assert_eq!(file.status().unwrap().version, version);
    }
}
