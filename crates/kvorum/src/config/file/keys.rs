//! The keys of a configuration file, by the form of their values (the `json` tags of
//! `server/embed/config.go` in etcd 3.5, 3.6 and 3.7).

use super::value::Value;
use crate::config::Options;
use crate::config::flags::ValueError;

/// A mapping in the file.
pub(super) struct Block {
    pub(super) name: &'static str,
    /// Its Go type, as an error names it whose value is no mapping.
    pub(super) place: &'static str,
    /// The Go type of its keys, as an error names it.
    pub(super) path: &'static str,
    forms: &'static [(Form, &'static [&'static str])],
    /// Keys that are not called like their flag.
    others: &'static [Key],
    pub(super) blocks: &'static [Block],
}

impl Block {
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let of_forms = self.forms.iter().flat_map(|(form, names)| {
            names.iter().map(|name| Key {
                name,
                form: *form,
                target: Target::Flag,
            })
        });
        of_forms.chain(self.others.iter().copied())
    }
}

/// A key and what it sets.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) target: Target,
}

/// What a key sets.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// The flag of its name.
    Flag,
    /// Another flag.
    OtherFlag(&'static str),
    /// Something that has no flag.
    Set(fn(&mut Options, &str) -> Result<(), ValueError>),
    /// It is read and has no meaning here.
    Nothing,
}

/// The Go type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Switch,
    Uint,
    Uint32,
    Uint64,
    Int,
    Int64,
    Nanoseconds,
    Texts,
}

impl Form {
    pub(super) const fn go_type(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Switch => "bool",
            Self::Uint => "uint",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Int => "int",
            Self::Int64 => "int64",
            Self::Nanoseconds => "time.Duration",
            Self::Texts => "[]string",
        }
    }

    /// The value as its flag takes it, if it has this form.
    pub(super) fn text_of(self, value: &Value) -> Option<String> {
        match (self, value) {
            (Self::Text, Value::Text(text)) => Some(text.clone()),
            (Self::Switch, Value::Bool(on)) => Some(on.to_string()),
            (Self::Texts, Value::List(items)) => {
                let texts: Option<Vec<String>> =
                    items.iter().map(|item| Self::Text.text_of(item)).collect();
                texts.map(|texts| texts.join(","))
            }
            (form, Value::Integer(number)) => form.number(*number),
            _ => None,
        }
    }

    fn number(self, number: i128) -> Option<String> {
        let fits = match self {
            Self::Uint | Self::Uint64 => u64::try_from(number).is_ok(),
            Self::Uint32 => u32::try_from(number).is_ok(),
            Self::Int | Self::Int64 | Self::Nanoseconds => i64::try_from(number).is_ok(),
            Self::Text | Self::Switch | Self::Texts => false,
        };
        let unit = if self == Self::Nanoseconds { "ns" } else { "" };
        fits.then(|| format!("{number}{unit}"))
    }
}

/// The file.
pub(super) static ROOT: Block = Block {
    name: "",
    place: "value of type embed.configYAML",
    path: "configYAML.Config",
    forms: &[
        (Form::Text, TEXTS),
        (Form::Switch, SWITCHES),
        (Form::Uint, UINTS),
        (Form::Uint32, &["max-concurrent-streams"]),
        (
            Form::Uint64,
            &[
                "snapshot-count",
                "snapshot-catchup-entries",
                "experimental-snapshot-catch-up-entries",
                "experimental-snapshot-catchup-entries",
            ],
        ),
        (Form::Int, INTS),
        (Form::Int64, &["quota-backend-bytes"]),
        (Form::Nanoseconds, DURATIONS),
        (Form::Texts, &["cipher-suites", "log-outputs"]),
    ],
    others: &[],
    blocks: &[CLIENT_SECURITY, PEER_SECURITY, SOCKETS, DISCOVERY],
};

const TEXTS: &[&str] = &[
    "name",
    "data-dir",
    "wal-dir",
    "backend-bbolt-freelist-type",
    "tls-min-version",
    "tls-max-version",
    "listen-peer-urls",
    "listen-client-urls",
    "listen-client-http-urls",
    "listen-metrics-urls",
    "initial-advertise-peer-urls",
    "advertise-client-urls",
    "cors",
    "host-whitelist",
    "initial-cluster",
    "initial-cluster-state",
    "initial-cluster-token",
    "discovery",
    "discovery-proxy",
    "discovery-fallback",
    "discovery-srv",
    "discovery-srv-name",
    "auto-compaction-mode",
    "auto-compaction-retention",
    "auth-token",
    "metrics",
    "distributed-tracing-address",
    "experimental-distributed-tracing-address",
    "distributed-tracing-service-name",
    "experimental-distributed-tracing-service-name",
    "distributed-tracing-instance-id",
    "experimental-distributed-tracing-instance-id",
    "logger",
    "log-level",
    "log-format",
    "log-rotation-config-json",
    "v2-deprecation",
    "experimental-enable-v2v3",
    "proxy",
    "feature-gates",
    "backup-schedule",
    "backup-dir",
    "backup-name",
    "backup-compression",
    "backup-s3-bucket",
    "backup-s3-folder",
    "backup-s3-endpoint",
    "backup-s3-region",
    "backup-s3-endpoint-ca",
    "backup-s3-credentials-file",
];

const SWITCHES: &[&str] = &[
    "initial-election-tick-advance",
    "strict-reconfig-check",
    "pre-vote",
    "force-new-cluster",
    "enable-pprof",
    "enable-grpc-gateway",
    "enable-log-rotation",
    "unsafe-no-fsync",
    "enable-v2",
    "memory-mlock",
    "experimental-memory-mlock",
    "enable-distributed-tracing",
    "experimental-enable-distributed-tracing",
    "experimental-initial-corrupt-check",
    "nospace-auto-disarm",
    "corrupt-repair",
    "experimental-compact-hash-check-enabled",
    "experimental-enable-lease-checkpoint",
    "experimental-enable-lease-checkpoint-persist",
    "experimental-peer-skip-client-san-verification",
    "experimental-txn-mode-write-with-shared-buffer",
    "experimental-stop-grpc-service-on-defrag",
];

const UINTS: &[&str] = &[
    "max-snapshots",
    "max-wals",
    "heartbeat-interval",
    "election-timeout",
    "max-txn-ops",
    "max-request-bytes",
    "self-signed-cert-validity",
    "bcrypt-cost",
    "auth-token-ttl",
    "bootstrap-defrag-threshold-megabytes",
    "experimental-bootstrap-defrag-threshold-megabytes",
    "proxy-failure-wait",
    "proxy-refresh-interval",
    "proxy-dial-timeout",
    "proxy-write-timeout",
    "proxy-read-timeout",
    "backup-retention",
];

const INTS: &[&str] = &[
    "backend-batch-limit",
    "max-learners",
    "experimental-max-learners",
    "compaction-batch-limit",
    "experimental-compaction-batch-limit",
    "distributed-tracing-sampling-rate",
    "experimental-distributed-tracing-sampling-rate",
];

const DURATIONS: &[&str] = &[
    "backend-batch-interval",
    "grpc-keepalive-min-time",
    "grpc-keepalive-interval",
    "grpc-keepalive-timeout",
    "corrupt-check-time",
    "experimental-corrupt-check-time",
    "compact-hash-check-time",
    "experimental-compact-hash-check-time",
    "compaction-sleep-interval",
    "experimental-compaction-sleep-interval",
    "watch-progress-notify-interval",
    "experimental-watch-progress-notify-interval",
    "warning-apply-duration",
    "experimental-warning-apply-duration",
    "warning-unary-request-duration",
    "experimental-warning-unary-request-duration",
    "downgrade-check-time",
    "experimental-downgrade-check-time",
    "backup-age-max",
    "backup-archive-interval",
];

/// A key with another name than its flag.
const fn other(name: &'static str, form: Form, flag: &'static str) -> Key {
    Key {
        name,
        form,
        target: Target::OtherFlag(flag),
    }
}

const CLIENT_SECURITY: Block = Block {
    name: "client-transport-security",
    place: "struct field configYAML.configJSON.client-transport-security of type embed.securityConfig",
    path: "securityConfig.configJSON.client-transport-security",
    forms: &[
        (
            Form::Text,
            &[
                "cert-file",
                "key-file",
                "client-cert-file",
                "client-key-file",
                "trusted-ca-file",
            ],
        ),
        (Form::Switch, &["client-cert-auth", "auto-tls"]),
    ],
    others: &[
        Key {
            name: "allowed-cn",
            form: Form::Texts,
            target: Target::Set(|options, text| {
                options.client_tls.allowed_common_names =
                    text.split(',').map(str::to_owned).collect();
                Ok(())
            }),
        },
        other(
            "allowed-hostname",
            Form::Texts,
            "client-cert-allowed-hostname",
        ),
        Key {
            name: "skip-client-san-verification",
            form: Form::Switch,
            // Clients' addresses are never compared with their certificates.
            target: Target::Nothing,
        },
    ],
    blocks: &[],
};

const PEER_SECURITY: Block = Block {
    name: "peer-transport-security",
    place: "struct field configYAML.configJSON.peer-transport-security of type embed.securityConfig",
    path: "securityConfig.configJSON.peer-transport-security",
    forms: &[],
    others: &[
        other("cert-file", Form::Text, "peer-cert-file"),
        other("key-file", Form::Text, "peer-key-file"),
        other("client-cert-file", Form::Text, "peer-client-cert-file"),
        other("client-key-file", Form::Text, "peer-client-key-file"),
        other("client-cert-auth", Form::Switch, "peer-client-cert-auth"),
        other("trusted-ca-file", Form::Text, "peer-trusted-ca-file"),
        other("auto-tls", Form::Switch, "peer-auto-tls"),
        other("allowed-cn", Form::Texts, "peer-cert-allowed-cn"),
        other(
            "allowed-hostname",
            Form::Texts,
            "peer-cert-allowed-hostname",
        ),
        other(
            "skip-client-san-verification",
            Form::Switch,
            "peer-skip-client-san-verification",
        ),
    ],
    blocks: &[],
};

const SOCKETS: Block = Block {
    name: "socket-options",
    place: "struct field configYAML.Config.socket-options of type transport.SocketOpts",
    path: "SocketOpts.Config.socket-options",
    forms: &[],
    others: &[
        other("reuse-port", Form::Switch, "socket-reuse-port"),
        other("reuse-address", Form::Switch, "socket-reuse-address"),
    ],
    blocks: &[],
};

const DISCOVERY: Block = Block {
    name: "discovery-config",
    place: "struct field configYAML.Config.discovery-config of type v3discovery.DiscoveryConfig",
    path: "DiscoveryConfig.Config.discovery-config",
    forms: &[],
    others: &[other("token", Form::Text, "discovery-token")],
    blocks: &[Block {
        name: "client",
        place: "struct field DiscoveryConfig.Config.discovery-config.client of type clientv3.ConfigSpec",
        path: "ConfigSpec.Config.discovery-config.client",
        forms: &[],
        others: &[
            other("endpoints", Form::Texts, "discovery-endpoints"),
            other("dial-timeout", Form::Nanoseconds, "discovery-dial-timeout"),
            other(
                "request-timeout",
                Form::Nanoseconds,
                "discovery-request-timeout",
            ),
            other(
                "keepalive-time",
                Form::Nanoseconds,
                "discovery-keepalive-time",
            ),
            other(
                "keepalive-timeout",
                Form::Nanoseconds,
                "discovery-keepalive-timeout",
            ),
        ],
        blocks: &[
            Block {
                name: "secure",
                place: "struct field ConfigSpec.Config.discovery-config.client.secure of type clientv3.SecureConfig",
                path: "SecureConfig.Config.discovery-config.client.secure",
                forms: &[],
                others: &[
                    other("cert", Form::Text, "discovery-cert"),
                    other("key", Form::Text, "discovery-key"),
                    other("cacert", Form::Text, "discovery-cacert"),
                    other(
                        "insecure-transport",
                        Form::Switch,
                        "discovery-insecure-transport",
                    ),
                    other(
                        "insecure-skip-tls-verify",
                        Form::Switch,
                        "discovery-insecure-skip-tls-verify",
                    ),
                ],
                blocks: &[],
            },
            Block {
                name: "auth",
                place: "struct field ConfigSpec.Config.discovery-config.client.auth of type clientv3.AuthConfig",
                path: "AuthConfig.Config.discovery-config.client.auth",
                forms: &[],
                others: &[
                    other("username", Form::Text, "discovery-user"),
                    other("password", Form::Text, "discovery-password"),
                ],
                blocks: &[],
            },
        ],
    }],
};
