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

/// Makes a member whose log is in a directory of its own.
fn with_log(dir: &Path) -> (PathBuf, PathBuf) {
    let (data, wal) = (dir.join("data"), dir.join("disk").join("wal"));
    let data_dir = DataDir::lock_with(&data, Some(&wal)).unwrap();
    assert_eq!(data_dir.log_path(), wal.join("log"));
    assert_eq!(data_dir.state_path(), data.join("member").join("state"));
    fs::create_dir(data_dir.log_path()).unwrap();
    (data, wal)
}

#[test]
fn a_log_in_a_directory_of_its_own_stays_with_its_data_directory() {
    let dir = TempDir::new().unwrap();
    let (data, wal) = with_log(dir.path());
    assert_eq!(mode(&wal), 0o700);
    let held = DataDir::lock_with(&data, Some(&wal)).unwrap();
    drop(held);
    let error = DataDir::lock(&data).unwrap_err();
    assert!(matches!(error, DataDirError::LogElsewhere { .. }));
    assert!(error.to_string().contains(&wal.display().to_string()));
    // Neither an empty directory nor another member's log will do.
    let other = with_log(&dir.path().join("other")).1;
    for wrong in [dir.path().join("empty"), other] {
        let error = DataDir::lock_with(&data, Some(&wrong)).unwrap_err();
        assert!(matches!(error, DataDirError::WrongLog { .. }), "{error}");
    }
    assert!(!dir.path().join("empty").exists(), "nothing was made");
    // It may be moved.
    let moved = dir.path().join("moved");
    fs::rename(&wal, &moved).unwrap();
    let data_dir = DataDir::lock_with(&data, Some(&moved)).unwrap();
    assert_eq!(data_dir.log_path(), moved.join("log"));
    drop(data_dir);
    let error = DataDir::lock(&data).unwrap_err().to_string();
    assert!(error.contains(&moved.display().to_string()), "{error}");
}

#[test]
fn a_log_within_the_data_directory_is_not_looked_for_elsewhere() {
    let dir = TempDir::new().unwrap();
    let wal = dir.path().join("wal");
    drop(DataDir::lock(&dir.path().join("data")).unwrap());
    let error = DataDir::lock_with(&dir.path().join("data"), Some(&wal)).unwrap_err();
    assert!(matches!(error, DataDirError::LogInside { .. }), "{error}");
    assert!(!wal.exists(), "nothing was made");
}

#[test]
fn a_new_member_does_not_take_a_log_that_is_there() {
    let dir = TempDir::new().unwrap();
    let (data, wal) = with_log(dir.path());
    let new = dir.path().join("new");
    let error = DataDir::lock_with(&new, Some(&wal)).unwrap_err();
    assert!(matches!(error, DataDirError::LogThere { .. }), "{error}");
    drop(DataDir::lock_with(&data, Some(&wal)).unwrap());
    let etcds = dir.path().join("etcds");
    fs::create_dir(&etcds).unwrap();
    fs::write(etcds.join("0000000000000000-0000000000000000.wal"), "").unwrap();
    let error = DataDir::lock_with(&new, Some(&etcds)).unwrap_err();
    assert!(error.to_string().contains("an etcd's"), "{error}");
}

#[test]
fn a_first_start_that_was_broken_off_can_be_made_again() {
    let dir = TempDir::new().unwrap();
    let (data, wal) = (dir.path().join("data"), dir.path().join("wal"));
    // Before the data directory knew of it, and before it was in use.
    for lost in ["WAL_DIR", "FORMAT"] {
        drop(DataDir::lock_with(&data, Some(&wal)).unwrap());
        fs::remove_file(data.join("member").join("FORMAT")).unwrap();
        if lost == "WAL_DIR" {
            fs::remove_file(data.join("member").join(lost)).unwrap();
        }
        drop(DataDir::lock_with(&data, Some(&wal)).unwrap());
    }
    // In the place that etcd has for it.
    let data = dir.path().join("etcds place");
    let wal = data.join("member").join("wal");
    for _start in 0..2 {
        drop(DataDir::lock_with(&data, Some(&wal)).unwrap());
    }
}

#[test]
fn two_copies_of_a_data_directory_do_not_share_a_log() {
    let dir = TempDir::new().unwrap();
    let (data, wal) = with_log(dir.path());
    let copy = dir.path().join("copy");
    fs::create_dir_all(copy.join("member")).unwrap();
    for file in ["FORMAT", "WAL_DIR"] {
        fs::copy(
            data.join("member").join(file),
            copy.join("member").join(file),
        )
        .unwrap();
    }
    let held = DataDir::lock_with(&data, Some(&wal)).unwrap();
    let error = DataDir::lock_with(&copy, Some(&wal)).unwrap_err();
    assert!(matches!(error, DataDirError::LogInUse { .. }), "{error}");
    drop(held);
}
