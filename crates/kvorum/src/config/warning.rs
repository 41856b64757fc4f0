//! What is odd about a configuration, but no reason not to start; most of it in etcd's words.

use types::Url;

use super::Gate;

/// Something that whoever wrote the flags should know.
///
/// ```
/// use kvorum::Config;
/// use kvorum::config::Warning;
///
/// let config = Config::builder().data_dir("/var/lib/mine").build()?;
/// assert!(config.warnings.contains(&Warning::DefaultName));
/// for warning in &config.warnings {
///     println!("{warning:?}");
/// }
/// # Ok::<(), kvorum::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The name is the one that every member has that is given none.
    DefaultName,
    /// A flag that etcd will not have much longer.
    Deprecated {
        /// etcd's words.
        text: &'static str,
    },
    /// A flag that changes nothing here.
    NoEffect {
        /// Which.
        flag: &'static str,
    },
    /// A time between members that is shorter than it may be.
    Raised {
        /// Which flag gave it.
        flag: &'static str,
    },
    /// A feature gate that was opened and has nothing behind it yet.
    NoFeature {
        /// Which.
        gate: Gate,
    },
    /// Certificates for a url on which no TLS is spoken.
    PlainWithCertificate {
        /// `client` or `peer`.
        whose: &'static str,
        /// Which url.
        url: Url,
    },
    /// Clients' certificates are asked for, but not on this url.
    PlainWithClientAuth {
        /// `client` or `peer`.
        whose: &'static str,
        /// Which url.
        url: Url,
    },
    /// Certificates were given, so that none are made.
    AutoTlsIgnored {
        /// `client` or `peer`.
        whose: &'static str,
    },
    /// No advertised url has an address to dial from.
    NoLocalAddress {
        /// What is advertised.
        urls: String,
    },
    /// Leases are checkpointed, but not over restarts.
    CheckpointsNotPersisted,
}

impl Warning {
    /// Logs it.
    pub(crate) fn log(&self) {
        match self {
            Self::DefaultName => tracing::warn!(
                name = "default",
                "it isn't recommended to use default name, please set a value for --name. Note that \
                 etcd might run into issue when multiple members have the same default name",
            ),
            Self::Deprecated { text } => tracing::warn!("{text}"),
            Self::NoEffect { flag } => {
                tracing::warn!("--{flag} is accepted, but has no effect in kvorum");
            }
            Self::Raised { flag } => {
                tracing::info!("{flag} increased to minimum value: 5s");
            }
            Self::NoFeature { gate } => tracing::warn!(
                "feature-gate" = gate.name(),
                "the feature gate is accepted, but has no effect in this version of kvorum",
            ),
            Self::PlainWithCertificate { whose, url } => tracing::warn!(
                url = %url,
                "scheme is HTTP while key and cert files are present; ignoring key and cert files \
                 for this {whose} URL",
            ),
            Self::PlainWithClientAuth { whose, url } => tracing::warn!(
                url = %url,
                "scheme is HTTP while --{}client-cert-auth is enabled; ignoring client cert auth \
                 for this URL",
                if *whose == "peer" { "peer-" } else { "" },
            ),
            Self::AutoTlsIgnored { whose } => {
                tracing::warn!("ignoring {whose} auto TLS since certs given");
            }
            Self::NoLocalAddress { urls } => tracing::warn!(
                "advertise-peer-urls" = urls,
                "unable to set a member local address due to lack of suitable local addresses",
            ),
            Self::CheckpointsNotPersisted => tracing::warn!(
                "Detected that checkpointing is enabled without persistence. Consider enabling \
                 feature gate LeaseCheckpointPersist",
            ),
        }
    }
}
