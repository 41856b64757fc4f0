use tempfile::TempDir;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_new_data_directory_is_private() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a").join("default.kvorum");
    let data_dir = DataDir::lock(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("member")), 0o700);
    assert_eq!(mode(&path.join("member").join("FORMAT")), 0o600);
    assert_eq!(data_dir.log_path(), path.join("member").join("log"));
    assert_eq!(data_dir.state_path(), path.join("member").join("state"));
    assert_eq!(data_dir.path(), path);
}

#[test]
fn a_second_holder_is_told_which_directory_is_in_use() {
    let dir = TempDir::new().unwrap();
    let first = DataDir::lock(dir.path()).unwrap();
    let error = DataDir::lock(dir.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "data directory {} is in use by another process",
            dir.path().display()
        )
    );
    drop(first);
    drop(DataDir::lock(dir.path()).unwrap());
}

#[test]
fn the_modes_of_a_directory_that_exists_are_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("data");
    DirBuilder::new().mode(0o755).create(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    drop(DataDir::lock(&path).unwrap());
    assert_eq!(mode(&path), 0o755);
}

#[test]
fn a_data_directory_of_etcd_is_refused_and_untouched() {
    for (made, is_dir) in [("member/wal", true), ("member/snap/db", false)] {
        let dir = TempDir::new().unwrap();
        let made = dir.path().join(made);
        fs::create_dir_all(made.parent().unwrap()).unwrap();
        if is_dir {
            fs::create_dir(&made).unwrap();
        } else {
            fs::write(&made, "bbolt").unwrap();
        }
        let error = DataDir::lock(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Etcd { .. }), "{error:?}");
        assert!(
            error.to_string().contains("choose another --data-dir"),
            "{error}"
        );
        assert_eq!(fs::read_dir(dir.path().join("member")).unwrap().count(), 1);
    }
}

#[test]
fn a_store_without_a_format_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let data_dir = DataDir::lock(dir.path()).unwrap();
    fs::create_dir(data_dir.log_path()).unwrap();
    drop(data_dir);
    drop(DataDir::lock(dir.path()).unwrap());
    fs::remove_file(dir.path().join("member").join("FORMAT")).unwrap();
    let error = DataDir::lock(dir.path()).unwrap_err();
    assert!(matches!(error, DataDirError::Unknown { .. }), "{error:?}");
}

#[test]
fn a_layout_of_a_later_version_or_none_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(DataDir::lock(dir.path()).unwrap());
    let format = dir.path().join("member").join("FORMAT");
    assert_eq!(
        fs::read_to_string(&format).unwrap(),
        "kvorum data directory, layout 1\n"
    );
    fs::write(&format, "kvorum data directory, layout 2\n").unwrap();
    let error = DataDir::lock(dir.path()).unwrap_err();
    assert!(
        matches!(
            error,
            DataDirError::Newer {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error:?}"
    );
    for garbage in ["", "kvorum data directory, layout ", "etcd\n"] {
        fs::write(&format, garbage).unwrap();
        let error = DataDir::lock(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Unknown { .. }), "{error:?}");
    }
}

#[test]
fn a_path_that_is_a_file_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let error = DataDir::lock(&path).unwrap_err();
    assert!(matches!(error, DataDirError::Io { .. }), "{error:?}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}
