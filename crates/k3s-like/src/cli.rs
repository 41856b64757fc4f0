//! The command line: k3s's flags, of those that matter to a datastore.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::critical::CriticalArgs;
use crate::schedule::Schedule;

/// kvorum inside a server like k3s.
#[derive(Debug, Parser)]
#[command(name = "k3s-like", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server
    Server(Box<ServerArgs>),
    /// Save, list, delete and prune snapshots
    #[command(name = "etcd-snapshot", subcommand)]
    EtcdSnapshot(SnapshotCommand),
    /// Show the cluster's nodes
    #[command(subcommand)]
    Get(GetCommand),
    /// Remove a node, and its member with it
    #[command(subcommand)]
    Delete(DeleteCommand),
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// (data) Folder to hold state
    #[arg(short, long, env = "K3S_DATA_DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// (cluster) Shared secret used to join a server to a cluster
    #[arg(short, long, env = "K3S_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// (cluster) File containing the token
    #[arg(long, env = "K3S_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// (cluster) Server to connect to, used to join a cluster
    #[arg(short, long, env = "K3S_URL", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// (cluster) Initialize a new cluster using embedded Etcd
    #[arg(long, env = "K3S_CLUSTER_INIT")]
    pub(crate) cluster_init: bool,
    /// (cluster) Forget all peers and become sole member of a new cluster
    #[arg(long, env = "K3S_CLUSTER_RESET")]
    pub(crate) cluster_reset: bool,
    /// (db) Path to snapshot file to be restored
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster_reset_restore_path: Option<PathBuf>,
    /// (db) Specify etcd, NATS, MySQL, Postgres, or SQLite datastore
    #[arg(long, env = "K3S_DATASTORE_ENDPOINT", value_name = "URL")]
    pub(crate) datastore_endpoint: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) snapshots: SnapshotArgs,
    /// (flags) Customized flag for etcd process: NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE", value_parser = etcd_arg)]
    pub(crate) etcd_arg: Vec<(String, String)>,
    /// (db) Expose etcd metrics to client interface
    #[arg(long)]
    pub(crate) etcd_expose_metrics: bool,
    #[command(flatten)]
    pub(crate) critical: CriticalArgs,
    #[command(flatten)]
    pub(crate) apiserver: ApiserverArgs,
}

/// Who this server is, and where.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// (agent/node) Node name; the host's if not given
    #[arg(long, env = "K3S_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// (agent/networking) Address to advertise for node
    #[arg(short = 'i', long, value_name = "IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// (listener) bind address
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub(crate) bind_address: IpAddr,
    /// (listener) HTTPS listen port
    #[arg(long, value_name = "PORT", default_value_t = HTTPS_PORT)]
    pub(crate) https_listen_port: u16,
    /// (listener) Add additional hostnames or addresses on the server TLS cert
    #[arg(long, value_name = "HOST")]
    pub(crate) tls_san: Vec<String>,
}

/// When snapshots are taken, and how many stay.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// (db) Disable automatic etcd snapshots
    #[arg(long)]
    pub(crate) etcd_disable_snapshots: bool,
    /// (db) Set the base name of etcd snapshots
    #[arg(long, value_name = "NAME", default_value = "etcd-snapshot")]
    pub(crate) etcd_snapshot_name: String,
    /// (db) Snapshot interval time in cron spec. eg. every 5 hours '0 */5 * * *'
    #[arg(long, value_name = "CRON", default_value = "0 */12 * * *")]
    pub(crate) etcd_snapshot_schedule_cron: Schedule,
    /// (db) Number of snapshots to retain
    #[arg(long, value_name = "COUNT", default_value_t = RETENTION)]
    pub(crate) etcd_snapshot_retention: usize,
    /// (db) Directory to save db snapshots; ${data-dir}/server/db/snapshots if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) etcd_snapshot_dir: Option<PathBuf>,
}

/// The API server that is run on top, if any.
#[derive(Debug, Args)]
pub(crate) struct ApiserverArgs {
    /// A kube-apiserver to run; k3s has its own inside
    #[arg(long, value_name = "FILE")]
    pub(crate) kube_apiserver: Option<PathBuf>,
    /// (flags) Customized flag for kube-apiserver process: NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE", value_parser = etcd_arg)]
    pub(crate) kube_apiserver_arg: Vec<(String, String)>,
    /// The port that it serves on
    #[arg(long, value_name = "PORT", default_value_t = APISERVER_PORT)]
    pub(crate) apiserver_port: u16,
}

/// Which server a command asks.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// (data) Folder to hold state
    #[arg(short, long, env = "K3S_DATA_DIR", default_value = DATA_DIR)]
    pub(crate) data_dir: PathBuf,
    /// (cluster) Server to connect to
    #[arg(
        short,
        long,
        default_value = "https://127.0.0.1:6443",
        value_name = "URL"
    )]
    pub(crate) server: String,
    /// (cluster) Token to use; the one in the data directory if not given
    #[arg(short, long, env = "K3S_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Trigger an immediate etcd snapshot
    Save {
        #[command(flatten)]
        target: TargetArgs,
        /// (db) Set the base name of the etcd on-demand snapshot (appended with UNIX timestamp)
        #[arg(long, default_value = "on-demand")]
        name: String,
    },
    /// List snapshots
    #[command(visible_aliases = ["list", "l"])]
    Ls {
        #[command(flatten)]
        target: TargetArgs,
        /// (db) List format: standard, or json
        #[arg(short, long)]
        output: Option<String>,
    },
    /// Delete given snapshot(s)
    Delete {
        #[command(flatten)]
        target: TargetArgs,
        /// Their names
        #[arg(required = true)]
        snapshots: Vec<String>,
    },
    /// Remove snapshots that match the name prefix that exceed the configured retention count
    Prune {
        #[command(flatten)]
        target: TargetArgs,
        /// (db) The base name
        #[arg(long, default_value = "on-demand")]
        name: String,
        /// (db) Number of snapshots to retain
        #[arg(long, default_value_t = RETENTION)]
        snapshot_retention: usize,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GetCommand {
    /// The servers
    #[command(visible_aliases = ["node", "no"])]
    Nodes {
        #[command(flatten)]
        target: TargetArgs,
        /// wide, or json
        #[arg(short, long)]
        output: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeleteCommand {
    /// A server
    #[command(visible_aliases = ["nodes", "no"])]
    Node {
        #[command(flatten)]
        target: TargetArgs,
        /// Its name
        #[arg(action = ArgAction::Set)]
        name: String,
    },
}

/// Not k3s's own: both may be on one machine.
const DATA_DIR: &str = "/var/lib/rancher/k3s-like";
/// k3s's.
pub(crate) const HTTPS_PORT: u16 = 6443;
const APISERVER_PORT: u16 = 6444;
const RETENTION: usize = 5;

fn etcd_arg(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give a name and a value")?;
    Ok((name.trim_start_matches('-').to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_one() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn etcds_flags_are_read_with_and_without_dashes() {
        let read = ("heartbeat-interval".to_owned(), "100".to_owned());
        assert_eq!(etcd_arg("heartbeat-interval=100"), Ok(read.clone()));
        assert_eq!(etcd_arg("--heartbeat-interval=100"), Ok(read));
        assert!(etcd_arg("heartbeat-interval").is_err());
    }
}
