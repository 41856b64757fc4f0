//! Why a member could not be started, or had to stop.

use std::error::Error;
use std::path::PathBuf;

use crate::bucket::BucketError;

/// What to do about a store that is of no use any more.
const WAY_OUT: &str = "restore this member from a snapshot, or remove it from the cluster, delete \
                       its data directory, and let it rejoin";

/// An error with all its causes, as one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors say what their source says.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// `--auth-token` is of no use.
///
/// ```
/// use kvorum::error::AuthTokenError;
/// use kvorum::{Config, Kvorum, StartError};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data_dir = dir.path().join("data");
/// let builder = Config::builder().data_dir(data_dir).any_ports();
/// let config = builder.flag("auth-token", "paper").build()?;
/// let refused = Kvorum::start(config).await.expect_err("there are no such tokens");
/// assert!(matches!(refused, StartError::AuthToken(AuthTokenError::Options { .. })));
/// let text = "invalid auth options: --auth-token=paper: it is neither simple nor jwt";
/// assert_eq!(refused.to_string(), text);
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Debug, thiserror::Error)]
pub enum AuthTokenError {
    /// It is not a kind of token with its options.
    #[error("invalid auth options: --auth-token={given}: {why}")]
    Options {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// Its keys cannot be used.
    #[error("invalid auth options: the keys of --auth-token")]
    Keys(#[from] auth::TokenError),
}

/// A member could not be started. Nothing of it is left running.
///
/// ```
/// use kvorum::{Config, Kvorum, StartError};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let config = Config::builder().data_dir(dir.path().join("data")).any_ports();
/// let member = Kvorum::start(config.clone().build()?).await?;
/// // A data directory has one member.
/// let second = Kvorum::start(config.build()?).await;
/// assert!(matches!(second, Err(StartError::DataDir(_))));
/// # member.stop().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory could not be taken.
    #[error(transparent)]
    DataDir(#[from] backend::DataDirError),
    /// A store could not be opened.
    #[error("cannot open the store {name}")]
    Backend {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<backend::OpenError>,
    },
    /// The state could not be loaded. Its store is there and opens; what it holds is broken.
    #[error("cannot load the state in {}: {WAY_OUT}", path.display())]
    State {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<apply::OpenError>,
    },
    /// The member's identity could not be read.
    #[error("cannot read the identity of this member: {WAY_OUT}")]
    ReadIdentity(#[source] Box<backend::ReadError>),
    /// The member's identity could not be written.
    #[error("cannot store the identity of this member")]
    WriteIdentity(#[source] Box<backend::WriteError>),
    /// The member's identity makes no sense.
    #[error("the stored identity of this member has {len} bytes instead of 16")]
    Identity {
        /// Bytes found.
        len: usize,
    },
    /// The cluster speaks a newer version than this member. etcd's words.
    #[error(
        "invalid downgrade; server version is lower than determined cluster version \
         (current-server-version: {own}, determined-cluster-version: {cluster})"
    )]
    Downgrade {
        /// This member's.
        own: types::Version,
        /// The cluster's.
        cluster: types::Version,
    },
    /// There is a state, and no log that belongs to it.
    #[error("there is a state, and no log of this member in {}: {WAY_OUT}", path.display())]
    NoIdentity {
        /// Where the log should be.
        path: PathBuf,
    },
    /// The initial cluster is not one that this member can begin.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// There can be no tokens for users.
    #[error(transparent)]
    AuthToken(#[from] AuthTokenError),
    /// There can be no backups as they were asked for.
    #[error("backups cannot be taken")]
    Backup(#[from] BucketError),
    /// Raft could not be started.
    #[error("cannot start raft")]
    Raft(#[source] Box<raft::StartError>),
    /// The log's store is there and opens; what it holds is broken.
    #[error("cannot read the log in {}: {WAY_OUT}", path.display())]
    Log {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<raft::StartError>,
    },
    /// An address could not be bound.
    #[error(transparent)]
    Listen(#[from] transport::ListenError),
    /// The TLS identity could not be loaded.
    #[error(transparent)]
    Tls(#[from] transport::TlsError),
    /// Traces cannot be sent.
    #[error("cannot send traces to --distributed-tracing-address={address}: {reason}")]
    Tracing {
        /// Where to.
        address: String,
        /// Why not.
        reason: String,
    },
    /// Something that must not panic has panicked.
    #[error("a part of the member panicked while it was started")]
    Panicked,
}

/// The initial cluster is not one that this member can begin. The texts are etcd's where etcd has
/// the same problem.
///
/// ```
/// use kvorum::error::BootstrapError;
/// use kvorum::{Config, Kvorum, StartError};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data_dir = dir.path().join("data");
/// let builder = Config::builder().data_dir(data_dir).any_ports();
/// let builder = builder.name("b").initial_cluster("a=http://localhost:2380");
/// let refused = Kvorum::start(builder.build()?).await.expect_err("it is not one of them");
/// let StartError::Bootstrap(error) = &refused else { panic!("{refused}") };
/// assert_eq!(*error, BootstrapError::NotAMember { name: "b".to_owned() });
/// let text = "couldn't find local name \"b\" in the initial cluster configuration";
/// assert_eq!(error.to_string(), text);
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// This member is not in it.
    #[error("couldn't find local name {name:?} in the initial cluster configuration")]
    NotAMember {
        /// This member's name.
        name: String,
    },
    /// Its urls are not those that this member advertises.
    #[error(
        "--initial-cluster has {has} but missing from \
         --initial-advertise-peer-urls={advertised} ({reason})"
    )]
    NotAdvertised {
        /// What `--initial-cluster` says.
        has: String,
        /// What this member says.
        advertised: String,
        /// What is the difference.
        reason: String,
    },
    /// This member advertises urls that it has not got there.
    #[error("--initial-advertise-peer-urls has {has} but missing from --initial-cluster={cluster}")]
    NotInCluster {
        /// What this member says.
        has: String,
        /// What `--initial-cluster` says.
        cluster: String,
    },
    /// A name of the two could not be resolved.
    #[error("failed to resolve {advertised} to match --initial-cluster={cluster} ({reason})")]
    Unresolved {
        /// What this member says.
        advertised: String,
        /// The same as `--initial-cluster` would have it.
        cluster: String,
        /// What did not work.
        reason: String,
    },
    /// It could not be found out.
    #[error("error setting up initial cluster: {text}")]
    InitialCluster {
        /// What went wrong.
        text: String,
    },
    /// The members did not find each other.
    #[error("failed to join discovery cluster ({0})")]
    Discovery(DiscoveryError),
    /// Two members that found each other share a url.
    #[error("discovery cluster {cluster} has duplicate url")]
    DiscoveredDuplicate {
        /// The members.
        cluster: String,
    },
    /// Two of its members share a url.
    #[error("initial cluster {cluster} has duplicate url")]
    DuplicateUrl {
        /// What `--initial-cluster` says.
        cluster: String,
    },
    /// A peer knows this member and has seen it run: its data is lost, or is elsewhere.
    #[error(
        "member {member} has already been bootstrapped: its cluster knows it, and this data \
         directory is not the one it had. Remove the member from the cluster, add it again, and \
         start it with --initial-cluster-state=existing"
    )]
    Bootstrapped {
        /// This member.
        member: types::MemberId,
    },
    /// No member of the cluster to be joined answers.
    #[error(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from \
         the given URLs"
    )]
    NobodyAnswers,
    /// The cluster to be joined has other members than `--initial-cluster`.
    #[error("error validating peerURLs {existing}: {reason}")]
    Members {
        /// The cluster as it is.
        existing: String,
        /// What does not fit.
        reason: String,
    },
    /// The cluster to be joined is of another version, or nobody says of which.
    #[error("incompatible with current running cluster")]
    Incompatible,
    /// The cluster to be joined is one of real etcds.
    #[error(
        "the member at {url} is an etcd: kvorum speaks etcd's protocol with clients, and one of \
         its own between members, so it cannot join"
    )]
    Etcd {
        /// Where it was asked.
        url: types::Url,
    },
}

/// The etcd at which the members of a cluster were to meet is of no use.
///
/// ```
/// use kvorum::error::{BootstrapError, DiscoveryError};
/// use kvorum::{Config, Kvorum, StartError};
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let data_dir = dir.path().join("data");
/// let builder = Config::builder().data_dir(data_dir).any_ports();
/// let builder = builder.flag("discovery-token", "3e86b59982e49066");
/// let config = builder.flag("discovery-endpoints", "ftp://10.0.0.9:2379").build()?;
/// let refused = Kvorum::start(config).await.expect_err("etcd does not speak that");
/// let StartError::Bootstrap(BootstrapError::Discovery(error)) = &refused else { panic!("{refused}") };
/// assert!(matches!(error, DiscoveryError::Client { .. }));
/// let text = "URL scheme must be http, https, unix, or unixs: ftp://10.0.0.9:2379";
/// assert_eq!(error.to_string(), text);
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Somebody has registered with urls that are none.
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    /// The size of the cluster is no number, or no good one.
    #[error("discovery: size key is bad")]
    BadSize,
    /// Nobody has said how large the cluster is to be.
    #[error("discovery: size key not found")]
    SizeNotFound,
    /// All members are there, and this is not one of them.
    #[error("discovery: cluster is full")]
    Full,
    /// It cannot be asked.
    #[error("{reason}")]
    Client {
        /// Why not.
        reason: String,
    },
}

/// A member had to stop: its data could not be read or written any more, or a listener broke.
///
/// ```
/// use kvorum::Kvorum;
///
/// /// Runs until the member has to stop; says whether its data may be thrown away.
/// async fn run(member: Kvorum) -> bool {
///     let fatal = member.failed().await;
///     eprintln!("{}", kvorum::error::chain(&*fatal));
///     member.stop().await;
///     fatal.is_removed()
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// Raft, the log, or the state.
    #[error("the member cannot go on")]
    Raft(#[source] Box<raft::Fatal>),
    /// A listener.
    #[error("listener failed")]
    Listener(#[source] std::io::Error),
    /// Its data is not the others'.
    #[error("the initial corruption check failed")]
    Inconsistent(#[source] server::corrupt::Inconsistent),
}

impl Fatal {
    /// Whether the cluster has removed this member: it has done all that it can do, and its data is
    /// of no use any more.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        matches!(self, Self::Raft(reason) if matches!(**reason, raft::Fatal::Removed))
    }
}
