//! What commands print, in etcdutl's forms.

use etcdfile::Status;

use super::{EXIT_BAD_FEATURE, Failure};

/// The status of a snapshot in one of etcdutl's forms.
pub(super) fn status(status: &Status, form: &str) -> Result<String, Failure> {
    let cells = [
        format!("{:x}", status.hash),
        status.revision.to_string(),
        status.total_key.to_string(),
        size(status.total_size),
        status.version.clone(),
    ];
    Ok(match form {
        "simple" => format!("{}\n", cells.join(", ")),
        "json" => json(status),
        "fields" => format!(
            "\"Hash\" : {}\n\"Revision\" : {}\n\"Keys\" : {}\n\"Size\" : {}\n\"Version\" : {}\n",
            status.hash, status.revision, status.total_key, status.total_size, status.version
        ),
        "table" => table(
            &["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"],
            &cells,
        ),
        "protobuf" => return Err(bad_form("protobuf not supported as output format")),
        _ => return Err(bad_form("unsupported output format")),
    })
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).expect("numbers and texts can always be written");
    format!("{text}\n")
}

/// Whether etcd's tools have such a form.
pub(super) fn is_form(form: &str) -> Result<(), Failure> {
    match form {
        "simple" | "json" | "fields" | "table" | "protobuf" => Ok(()),
        _ => Err(bad_form("unsupported output format")),
    }
}

pub(super) fn bad_form(text: &str) -> Failure {
    Failure {
        status: EXIT_BAD_FEATURE,
        text: text.to_owned(),
    }
}

/// A table of one row, as etcdutl draws it.
fn table(heads: &[&str], cells: &[String]) -> String {
    let columns = || heads.iter().zip(cells);
    let width = |head: &str, cell: &str| head.len().max(cell.len());
    let rule: String = columns()
        .map(|(head, cell)| format!("+{}", "-".repeat(width(head, cell) + 2)))
        .collect();
    let centred: String = columns()
        .map(|(head, cell)| {
            let room = width(head, cell) - head.len();
            let left = room / 2;
            format!("| {}{head}{} ", " ".repeat(left), " ".repeat(room - left))
        })
        .collect();
    let row: String = columns()
        .map(|(head, cell)| format!("| {cell:>room$} ", room = width(head, cell)))
        .collect();
    format!("{rule}+\n{centred}|\n{rule}+\n{row}|\n{rule}+\n")
}

/// Bytes for people, as Go's `humanize` writes them.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut whole, mut unit) = (1000_u64, 0);
    while bytes / whole >= 1000 && unit + 1 < UNITS.len() {
        whole *= 1000;
        unit += 1;
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(whole) / 2) / u128::from(whole);
    let unit = UNITS.get(unit).unwrap_or(&"EB");
    match tenths {
        // Half goes to the even number, as in Go's `%.0f`.
        100.. => format!("{} {unit}", (tenths + 4 + tenths / 10 % 2) / 10),
        _ => format!("{}.{} {unit}", tenths / 10, tenths % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_go_writes_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_480, "20 kB"),
            (21_500, "22 kB"),
            (57_344, "57 kB"),
            (1_265_664, "1.3 MB"),
            (9_950, "10 kB"),
            (2_000_000_000, "2.0 GB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn a_table_is_drawn_as_etcdutl_draws_it() {
        let status = Status {
            hash: 0x10,
            revision: 1,
            total_key: 2,
            total_size: 20_480,
            version: "3.6.0".to_owned(),
        };
        let drawn = super::status(&status, "table").unwrap();
        assert_eq!(
            drawn,
            "+------+----------+------------+------------+---------+\n\
             | HASH | REVISION | TOTAL KEYS | TOTAL SIZE | VERSION |\n\
             +------+----------+------------+------------+---------+\n\
             |   10 |        1 |          2 |      20 kB |   3.6.0 |\n\
             +------+----------+------------+------------+---------+\n"
        );
        assert!(super::status(&status, "yaml").is_err());
    }
}
