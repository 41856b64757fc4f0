//! `server`: what happens in which order.
//!
//! Authorities first: its own, the ones it has, or those of the cluster it joins. Then the member, then
//! the supervisor's port, then everything that goes on beside. It ends when it is told to, or when the
//! member does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, bail};
use futures_util::FutureExt as _;
use kvorum::Kvorum;
use tokio::signal::unix::{SignalKind, signal};

use crate::access::Access;
use crate::cli::ServerArgs;
use crate::datastore::{self, Plan};
use crate::layout::{Layout, private_dir, read_if_there, write_private};
use crate::snapshots::Snapshots;
use crate::supervisor::{self, Supervisor};
use crate::token::{self, Token};
use crate::{PROGRAM, apiserver, bootstrap, controllers, nodes, pki};

/// How this server comes to its datastore.
enum Beginning {
    /// It has one.
    Again,
    /// It begins a cluster.
    Init,
    /// It begins one with what is in its SQLite datastore.
    Convert,
    /// It joins the cluster of another server.
    Join(Access),
}

pub(crate) async fn run(arguments: ServerArgs) -> Result<()> {
    tracing::info!("Starting {PROGRAM} v{}", env!("CARGO_PKG_VERSION"));
    let plan = plan(&arguments)?;
    let token = given_token(&arguments)?;
    if arguments.cluster_reset_restore_path.is_some() && !arguments.cluster_reset {
        bail!("invalid flag use; --cluster-reset required with --cluster-reset-restore-path");
    }
    private_dir(&plan.layout.db())?;
    if arguments.cluster_reset {
        return reset(&arguments, &plan, token.as_ref()).await;
    }
    let beginning = begin(&arguments, &plan, token.as_ref()).await?;
    let password = password(&plan, token.as_ref(), &beginning)?;
    pki::check_authorities(&plan.layout)?;
    pki::issue(&plan.layout, &hosts(&arguments, &plan))?;
    write_token(&arguments, &plan, &password)?;
    // Bound first: a port in use is told before the cluster has got another member.
    let address = SocketAddr::new(
        arguments.node.bind_address,
        arguments.node.https_listen_port,
    );
    let listener = supervisor::bind(&plan, address)?;
    let member = match &beginning {
        Beginning::Again => plan.again().await?,
        Beginning::Init => plan.init().await?,
        Beginning::Convert => datastore::convert(&plan).await?,
        Beginning::Join(access) => datastore::join(&plan, access).await?,
    };
    forget_reset(&plan)?;
    let supervisor = Supervisor {
        plan: plan.clone(),
        client: member.client(),
        password,
        critical: arguments.critical.values(),
        snapshots: Snapshots::new(&plan.layout, &plan.node, &arguments.snapshots),
    };
    let running = Running {
        arguments,
        plan,
        member,
    };
    running.until_the_end(supervisor, listener).await
}

fn plan(arguments: &ServerArgs) -> Result<Plan> {
    let node = match &arguments.node.node_name {
        Some(name) => name.clone(),
        None => read_if_there("/proc/sys/kernel/hostname".as_ref())?
            .map(|name| name.trim().to_owned())
            .context("the host has no name: give one with --node-name")?,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if node.is_empty() || !node.bytes().all(is_name) {
        bail!("{node:?} cannot be the name of a node");
    }
    Ok(Plan {
        layout: Layout::new(&arguments.data_dir),
        node,
        address: arguments.node.node_ip.unwrap_or_else(host_address),
        etcd_args: arguments.etcd_arg.clone(),
        expose_metrics: arguments.etcd_expose_metrics,
    })
}

/// The address that this host reaches others from.
fn host_address() -> IpAddr {
    let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
    let found = || {
        // Nothing is sent: the system only looks for the way.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    found().unwrap_or(localhost)
}

fn given_token(arguments: &ServerArgs) -> Result<Option<Token>> {
    let from_file = match &arguments.token_file {
        Some(path) => {
            Some(read_if_there(path)?.with_context(|| format!("there is no {}", path.display()))?)
        }
        None => None,
    };
    let given = arguments.token.clone().or(from_file);
    given.map(|text| Token::parse(&text)).transpose()
}

/// The token that is on the disk, from an earlier start.
fn known_token(layout: &Layout) -> Result<Option<Token>> {
    let known = read_if_there(&layout.token())?;
    known.map(|text| Token::parse(&text)).transpose()
}

async fn reset(arguments: &ServerArgs, plan: &Plan, given: Option<&Token>) -> Result<()> {
    if arguments.server.is_some() {
        bail!(
            "cannot perform cluster-reset while server URL is set - remove server from configuration \
             before resetting"
        );
    }
    let known = known_token(&plan.layout)?;
    let password = match (given, &known) {
        (Some(given), Some(known)) => {
            bootstrap::check_password(&given.password, &known.password)?;
            given.password.clone()
        }
        (Some(token), None) => token.password.clone(),
        (None, Some(known)) => known.password.clone(),
        (None, None) => {
            bail!("K3S_TOKEN is required to reset a cluster that this server does not know")
        }
    };
    let snapshot = arguments.cluster_reset_restore_path.as_deref();
    datastore::reset(plan, &password, snapshot).await?;
    pki::ensure_authorities(&plan.layout)?;
    pki::issue(&plan.layout, &hosts(arguments, plan))?;
    write_token(arguments, plan, &password)
}

/// Finds out how this server comes to its datastore, and gets the authorities for it.
async fn begin(arguments: &ServerArgs, plan: &Plan, token: Option<&Token>) -> Result<Beginning> {
    let layout = &plan.layout;
    let was_removed = plan.leave_grave()?;
    if layout.is_initialized() {
        tracing::info!("Managed etcd cluster bootstrap already complete and initialized");
        datastore::finish_conversion(layout)?;
        if arguments.datastore_endpoint.is_some() || arguments.server.is_some() {
            tracing::info!(
                "a datastore is on the disk in {}: --datastore-endpoint, --cluster-init and --server are \
                 ignored",
                layout.etcd().display()
            );
        }
        return Ok(Beginning::Again);
    }
    if arguments.datastore_endpoint.is_some() {
        bail!("--datastore-endpoint: {PROGRAM} has its own datastore, and uses no other");
    }
    let Some(server) = &arguments.server else {
        if was_removed {
            bail!(
                "this server was removed from its cluster: give --server and --token to rejoin it"
            );
        }
        return alone(arguments, layout);
    };
    if layout.sqlite().exists() {
        tracing::warn!(
            "what is in {} is not taken over: this server gets the data of the cluster that it joins",
            layout.sqlite().display()
        );
    }
    let Some(token) = token else {
        bail!("K3S_TOKEN is required to join a cluster");
    };
    let access = Access::with_token(server, token, &layout.tls_file("join-ca.crt")).await?;
    tracing::info!("Managed etcd cluster not yet initialized");
    compare_config(arguments, &access)
        .await
        .context("failed to validate server configuration")?;
    let data = access.get("/v1-k3s/server-bootstrap").await?;
    bootstrap::write(layout, &data)?;
    Ok(Beginning::Join(access))
}

/// How a server begins that joins nobody.
fn alone(arguments: &ServerArgs, layout: &Layout) -> Result<Beginning> {
    let sqlite = layout.sqlite();
    let beginning = match (arguments.cluster_init, sqlite.exists()) {
        (true, false) => Beginning::Init,
        (true, true) => Beginning::Convert,
        (false, false) => {
            bail!("give --cluster-init to begin a cluster, or --server and --token to join one")
        }
        (false, true) => bail!(
            "{} is the SQLite datastore of a single server, and {PROGRAM} runs on etcd: give \
             --cluster-init to convert it",
            sqlite.display()
        ),
    };
    tracing::info!("Managed etcd cluster initializing");
    pki::ensure_authorities(layout)?;
    Ok(beginning)
}

/// Refuses to join when flags differ that must not.
async fn compare_config(arguments: &ServerArgs, access: &Access) -> Result<()> {
    let theirs = access.get("/v1-k3s/config").await?;
    let theirs = serde_json::from_slice(&theirs).context("the configuration cannot be read")?;
    if let Some(differences) = arguments.critical.values().differences(&theirs) {
        bail!("critical configuration value mismatch between servers: {differences}");
    }
    Ok(())
}

/// The token's password: given, as before, or a new one.
fn password(plan: &Plan, given: Option<&Token>, beginning: &Beginning) -> Result<String> {
    let known = known_token(&plan.layout)?;
    match (given, known, beginning) {
        (Some(given), Some(known), Beginning::Again) => {
            bootstrap::check_password(&given.password, &known.password)?;
            Ok(known.password)
        }
        (Some(given), _, _) => Ok(given.password.clone()),
        (None, Some(known), _) => Ok(known.password),
        (None, None, Beginning::Init | Beginning::Convert) => token::random_password(),
        (None, None, Beginning::Again | Beginning::Join(_)) => {
            bail!(
                "there is no token in {}: give it with --token",
                plan.layout.token().display()
            )
        }
    }
}

/// What this server is reached by.
fn hosts(arguments: &ServerArgs, plan: &Plan) -> Vec<String> {
    let mut hosts: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
    ]
    .map(str::to_owned)
    .into();
    hosts.push(format!(
        "kubernetes.default.svc.{}",
        arguments.critical.cluster_domain
    ));
    hosts.push(plan.node.clone());
    hosts.push(plan.address.to_string());
    hosts.extend(arguments.node.tls_san.iter().cloned());
    // A name with an underline is none that a certificate can be for.
    hosts.retain(|host| !host.contains('_'));
    hosts
}

/// Writes the token for whoever is to join, and says where it is.
fn write_token(arguments: &ServerArgs, plan: &Plan, password: &str) -> Result<()> {
    let layout = &plan.layout;
    let ca = read_if_there(&layout.tls_file("server-ca.crt"))?.context("there is no authority")?;
    let path = layout.token();
    write_private(&path, &format!("{}\n", token::format(password, &ca)))?;
    let link = layout.node_token();
    if link.symlink_metadata().is_err() {
        std::os::unix::fs::symlink(&path, &link)
            .with_context(|| format!("cannot make {}", link.display()))?;
    }
    let address = SocketAddr::new(plan.address, arguments.node.https_listen_port);
    tracing::info!("Server node token is available at {}", path.display());
    tracing::info!(
        "To join server node to cluster: {PROGRAM} server -s https://{address} -t ${{SERVER_NODE_TOKEN}}"
    );
    Ok(())
}

/// A normal start: the next reset is a new one.
fn forget_reset(plan: &Plan) -> Result<()> {
    let flag = plan.layout.reset_flag();
    if flag.exists() {
        std::fs::remove_file(&flag).with_context(|| format!("cannot remove {}", flag.display()))?;
    }
    Ok(())
}

/// A server whose member runs. All that goes on beside is one future: it ends by being dropped.
struct Running {
    arguments: ServerArgs,
    plan: Plan,
    member: Kvorum,
}

impl Running {
    async fn until_the_end(
        self,
        supervisor: Supervisor,
        listener: transport::Listener,
    ) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ended = tokio::select! {
            fatal = self.member.failed() => Err(fatal.into()),
            ended = self.serve(supervisor, listener) => ended,
            _told = terminate.recv() => Ok(()),
            _told = interrupt.recv() => Ok(()),
        };
        let Self { plan, member, .. } = self;
        // A wait for the member ends as it does: the member knows why.
        let failed = member.failed().now_or_never();
        member.stop().await;
        match failed {
            Some(fatal) if fatal.is_removed() => plan.bury(),
            Some(fatal) => Err(fatal.into()),
            None => ended,
        }
    }

    /// Ends only when the server cannot go on.
    async fn serve(&self, supervisor: Supervisor, listener: transport::Listener) -> Result<()> {
        let snapshots = supervisor.snapshots.clone();
        let password = supervisor.password.clone();
        self.member.wait_ready().await?;
        tokio::select! {
            ended = supervisor::serve(supervisor, listener) => ended,
            never = controllers::run(&self.plan, &self.member) => never,
            ended = self.work(&password, &snapshots) => ended,
        }
    }

    /// What a server does once it has a vote.
    async fn work(&self, password: &str, snapshots: &Snapshots) -> Result<()> {
        let client = self.member.client();
        self.plan.test(&self.member).await?;
        tracing::info!("etcd data store connection OK");
        bootstrap::save(&client, password, &self.plan.layout).await?;
        tracing::info!("{PROGRAM} is up and running");
        tokio::select! {
            never = nodes::keep_ready(&self.plan, &client) => never,
            never = snapshots.run(&client) => never,
            ended = self.renew_certificates() => ended,
            never = self.run_apiserver() => never,
        }
    }

    async fn renew_certificates(&self) -> Result<()> {
        loop {
            tokio::time::sleep(pki::RENEWAL_INTERVAL).await;
            pki::issue(&self.plan.layout, &hosts(&self.arguments, &self.plan))?;
        }
    }

    async fn run_apiserver(&self) -> ! {
        match &self.arguments.apiserver.kube_apiserver {
            Some(program) => apiserver::run(&self.plan, &self.arguments, program).await,
            None => std::future::pending().await,
        }
    }
}
