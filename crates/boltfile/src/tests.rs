//! What is written can be read, and what is damaged is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

use proptest::prelude::*;

use crate::{BoltFile, Error, PAGE_BYTES, Value, WriteError, Writer};

type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn put_all<W: Write>(mut writer: Writer<W>, buckets: &Buckets) -> Result<crate::Plan, WriteError> {
    for (name, entries) in buckets {
        writer.bucket(name)?;
        for (key, value) in entries {
            writer.put(key, value)?;
        }
    }
    writer.finish()
}

fn write(buckets: &Buckets) -> Vec<u8> {
    let plan = put_all(Writer::measure(), buckets).unwrap();
    let mut bytes = Vec::new();
    let written = put_all(Writer::new(&mut bytes, plan).unwrap(), buckets).unwrap();
    assert_eq!(written, plan);
    assert_eq!(bytes.len() as u64, plan.bytes());
    bytes
}

fn open(bytes: &[u8]) -> Result<BoltFile, Error> {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    BoltFile::open(file, bytes.len() as u64)
}

fn read(file: &BoltFile) -> Result<Buckets, Error> {
    let mut buckets = Buckets::new();
    for bucket in file.root().entries() {
        let bucket = bucket?;
        let Value::Bucket(inner) = bucket.value else {
            continue;
        };
        let entries = buckets.entry(bucket.key.to_vec()).or_default();
        for entry in inner.entries() {
            let entry = entry?;
            if let Value::Bytes(value) = entry.value {
                entries.insert(entry.key.to_vec(), value.to_vec());
            }
        }
    }
    Ok(buckets)
}

fn numbered(keys: u32, value_bytes: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entry = |key: u32| (key.to_be_bytes().to_vec(), vec![7; value_bytes]);
    (0..keys).map(entry).collect()
}

#[test]
fn a_tree_of_three_levels_and_large_values_survive_their_file() {
    let buckets = Buckets::from([
        (b"key".to_vec(), numbered(60_000, 30)),
        (b"large".to_vec(), numbered(5, 1_600_000)),
        (b"none".to_vec(), BTreeMap::new()),
    ]);
    let file = open(&write(&buckets)).unwrap();
    assert_eq!(file.check().unwrap().entries, 60_005);
    assert_eq!(read(&file).unwrap(), buckets);
    let key = file.root().bucket(b"key").unwrap().unwrap();
    for number in [0, 1, 4095, 59_999_u32] {
        assert!(key.get(&number.to_be_bytes()).unwrap().is_some());
    }
    assert!(key.get(&60_000_u32.to_be_bytes()).unwrap().is_none());
    assert!(file.root().bucket(b"other").unwrap().is_none());
}

#[test]
fn an_empty_file_has_its_pages_and_no_bucket() {
    let bytes = write(&Buckets::new());
    assert_eq!(bytes.len(), 4 * PAGE_BYTES);
    let file = open(&bytes).unwrap();
    assert_eq!(file.check().unwrap().used, 2);
    assert!(read(&file).unwrap().is_empty());
}

#[test]
fn keys_out_of_order_and_a_second_pass_that_differs_are_refused() {
    let mut writer = Writer::measure();
    writer.bucket(b"b").unwrap();
    writer.put(b"2", b"").unwrap();
    for key in [&b"1"[..], b"2", b"", &[9; 40_000]] {
        assert!(matches!(writer.put(key, b""), Err(WriteError::Key { .. })));
        writer.bucket(b"b2").unwrap();
        writer = Writer::measure();
        writer.bucket(b"b").unwrap();
        writer.put(b"2", b"").unwrap();
    }
    let plan = put_all(Writer::measure(), &Buckets::new()).unwrap();
    let other = Buckets::from([(b"b".to_vec(), numbered(1, 1))]);
    let written = put_all(Writer::new(Vec::new(), plan).unwrap(), &other);
    assert!(matches!(written, Err(WriteError::Plan)));
}

#[test]
fn the_second_meta_page_counts_when_the_first_is_broken() {
    let buckets = Buckets::from([(b"b".to_vec(), numbered(10, 1))]);
    let mut bytes = write(&buckets);
    bytes[20] ^= 1;
    assert_eq!(read(&open(&bytes).unwrap()).unwrap(), buckets);
    bytes[PAGE_BYTES + 20] ^= 1;
    assert!(matches!(open(&bytes), Err(Error::NoMeta { .. })));
}

/// A file whose tree leads back to itself must not be walked for ever.
#[test]
fn a_tree_that_leads_back_to_itself_is_refused() {
    let buckets = Buckets::from([(b"b".to_vec(), numbered(20_000, 30))]);
    let bytes = write(&buckets);
    let branches: Vec<usize> = (3..bytes.len() / PAGE_BYTES)
        .filter(|page| bytes[page * PAGE_BYTES + 8] == 1)
        .collect();
    assert!(branches.len() > 2, "there are branches");
    for from in &branches {
        for to in branches.iter().chain(&[3]) {
            let mut bytes = bytes.clone();
            let child = from * PAGE_BYTES + 16 + 8 + 16;
            let to = (*to as u64).to_le_bytes();
            if bytes[child..child + 8] == to {
                continue;
            }
            bytes[child..child + 8].copy_from_slice(&to);
            let file = open(&bytes).unwrap();
            assert!(file.check().is_err());
            assert!(read(&file).is_err());
        }
    }
}

#[test]
fn a_cut_file_is_refused() {
    let bytes = write(&Buckets::from([(b"b".to_vec(), numbered(300, 30))]));
    for len in [0, 1, 16, 79, 80, 4096, 4175, 8191, bytes.len() - 1] {
        assert!(open(&bytes[..len]).is_err(), "cut at {len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_buckets_survive_their_file(
        buckets in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..20),
            prop::collection::btree_map(
                prop::collection::vec(any::<u8>(), 1..200),
                prop::collection::vec(any::<u8>(), 0..3000),
                0..60,
            ),
            0..8,
        ),
    ) {
        let file = open(&write(&buckets)).unwrap();
        file.check().unwrap();
        prop_assert_eq!(read(&file).unwrap(), buckets);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Any answer is right but a panic, and none at all.
    #[test]
    fn a_damaged_file_is_read_or_refused(
        flips in prop::collection::vec((0..200_000usize, any::<u8>()), 1..20),
        heads in any::<bool>(),
    ) {
        static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
        let whole = WHOLE.get_or_init(|| {
            write(&Buckets::from([
                (b"key".to_vec(), numbered(2_000, 40)),
                (b"large".to_vec(), numbered(2, 9_000)),
            ]))
        });
        let mut bytes = whole.clone();
        for (at, xor) in flips {
            // Half of them where they do harm: in the heads of pages and of their elements.
            let at = if heads { at / 200 * PAGE_BYTES + at % 200 } else { at };
            let len = bytes.len();
            bytes[at % len] ^= xor;
        }
        if let Ok(file) = open(&bytes) {
            let _checked = file.check();
            let _read = read(&file);
        }
    }
}
