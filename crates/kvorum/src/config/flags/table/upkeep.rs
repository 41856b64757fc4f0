//! Flags about what a member does by itself: checks, compaction's steps, backups.

use super::flags;
use crate::config::flags::value::{compression, signed, text, time, truth, unsigned};
use crate::config::flags::{Flag, Kind, Section};

pub(super) static FLAGS: &[Flag] = flags! {
    Features Value "corrupt-check-time" "0s"
        "How often members compare their data (0 is never)."
        => |o, v| time(&mut o.checks.corrupt_check_time, v);
    Features Value "experimental-corrupt-check-time" "0s"
        "The name of --corrupt-check-time before etcd 3.6."
        deprecated "--experimental-corrupt-check-time is deprecated in v3.6 and will be decommissioned in v3.7. Use '--corrupt-check-time' instead."
        => |o, v| time(&mut o.checks.corrupt_check_time, v);
    Features Value "compact-hash-check-time" "1m"
        "How often the leader compares the hashes that compactions leave (with --feature-gates=CompactHashCheck=true)."
        => |o, v| time(&mut o.checks.compact_hash_check_time, v);
    Features Value "experimental-compact-hash-check-time" "1m"
        "The name of --compact-hash-check-time before etcd 3.6."
        deprecated "--experimental-compact-hash-check-time is deprecated in 3.6 and will be decommissioned in 3.7. Use '--compact-hash-check-time' instead."
        => |o, v| time(&mut o.checks.compact_hash_check_time, v);
    Features Switch "corrupt-repair" "true"
        "A member whose data is not that of a majority takes the leader's; otherwise its CORRUPT alarm stops all writes, as in etcd. The same on all members."
        => |o, v| { o.checks.corrupt_repair = truth(v)?; Ok(()) };
    Features Value "downgrade-check-time" "5s"
        "How often it is seen whether a downgrade has ended."
        => |o, v| time(&mut o.checks.downgrade_check_time, v);
    Features Value "experimental-downgrade-check-time" "5s"
        "The name of --downgrade-check-time before etcd 3.6."
        deprecated "--experimental-downgrade-check-time is deprecated in v3.6 and will be decommissioned in v3.7. Use '--downgrade-check-time' instead."
        => |o, v| time(&mut o.checks.downgrade_check_time, v);
    Features Switch "nospace-auto-disarm" "false"
        "Clear this member's NOSPACE alarm once a tenth of its quota is free again."
        => |o, v| { o.checks.nospace_auto_disarm = truth(v)?; Ok(()) };
    Features Value "compaction-batch-limit" "1000"
        "Number of revisions that a step of a compaction removes."
        => |o, v| signed(&mut o.compaction.batch_limit, v);
    Features Value "experimental-compaction-batch-limit" "1000"
        "The name of --compaction-batch-limit before etcd 3.6."
        deprecated "--experimental-compaction-batch-limit is deprecated in v3.6 and will be decommissioned in v3.7. Use '--compaction-batch-limit' instead."
        => |o, v| signed(&mut o.compaction.batch_limit, v);
    Features Value "compaction-sleep-interval" "10ms"
        "How long a compaction rests between two steps."
        => |o, v| time(&mut o.compaction.sleep_interval, v);
    Features Value "experimental-compaction-sleep-interval" "10ms"
        "The name of --compaction-sleep-interval before etcd 3.6."
        deprecated "--experimental-compaction-sleep-interval is deprecated in v3.6 and will be decommissioned in v3.7. Use 'compaction-sleep-interval' instead."
        => |o, v| time(&mut o.compaction.sleep_interval, v);
    Backup Value "backup-schedule" ""
        "When to take a backup: an interval such as 6h, or five fields of cron, in UTC: '0 */12 * * *'. One backup for the whole cluster; give all members the same flags."
        => |o, v| text(&mut o.backup.schedule, v);
    Backup Value "backup-dir" ""
        "Directory for backups: of the member that takes them, a follower if there is one. Or give --backup-s3-bucket."
        => |o, v| text(&mut o.backup.dir, v);
    Backup Value "backup-name" "etcd-snapshot"
        "What the names of backups begin with; the member's name and the time follow."
        => |o, v| text(&mut o.backup.name, v);
    Backup Value "backup-retention" "5"
        "Number of backups that are kept (0 is all)."
        => |o, v| unsigned(&mut o.backup.retention, v);
    Backup Value "backup-compression" "none"
        "'none', 'gzip' or 'zstd'."
        => |o, v| compression(&mut o.backup.compression, v);
    Backup Value "backup-age-max" "0s"
        "The leader complains in its log, at /health and in its metrics when the last good backup is older (0 is never)."
        => |o, v| time(&mut o.backup.age_max, v);
    Backup Value "backup-archive-interval" "0s"
        "How often changes are archived beside the backups, so that 'kvorum snapshot restore' can go to any revision or time in between (0 is never)."
        => |o, v| time(&mut o.backup.archive_interval, v);
    Backup Value "backup-s3-bucket" ""
        "Bucket for backups, of anything that speaks S3. Credentials come from --backup-s3-credentials-file, or from AWS_ACCESS_KEY_ID and Amazon's other variables."
        => |o, v| text(&mut o.backup.s3.bucket, v);
    Backup Value "backup-s3-folder" ""
        "Folder in the bucket."
        => |o, v| text(&mut o.backup.s3.folder, v);
    Backup Value "backup-s3-endpoint" ""
        "Where the bucket is: https://host:port, or http:// (nothing is Amazon)."
        => |o, v| text(&mut o.backup.s3.endpoint, v);
    Backup Value "backup-s3-region" ""
        "Region of the bucket (nothing is AWS_REGION, or us-east-1)."
        => |o, v| text(&mut o.backup.s3.region, v);
    Backup Value "backup-s3-endpoint-ca" ""
        "File of the authorities, in PEM, that the endpoint is trusted by beside the system's."
        => |o, v| text(&mut o.backup.s3.endpoint_ca, v);
    Backup Value "backup-s3-credentials-file" ""
        "File with the credentials, as ~/.aws/credentials: aws_access_key_id and aws_secret_access_key of [default]."
        => |o, v| text(&mut o.backup.s3.credentials_file, v);
};
