//! A `kube-apiserver` on top of the datastore, when one is given: started, and started again.
//!
//! What this is not: the rest of Kubernetes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::cli::ServerArgs;
use crate::datastore::Plan;
use crate::pki::SERVICE_KEY;

/// How long to wait before it is started again.
const RESTART_INTERVAL: Duration = Duration::from_secs(1);

/// Runs it until this is dropped, which kills it.
pub(crate) async fn run(plan: &Plan, arguments: &ServerArgs, program: &Path) -> ! {
    let flags = flags(plan, arguments);
    loop {
        tracing::info!("Running kube-apiserver {}", flags.join(" "));
        match start(program, &flags) {
            Ok(mut process) => match process.wait().await {
                Ok(status) => tracing::error!("kube-apiserver exited: {status}"),
                Err(error) => tracing::error!("kube-apiserver cannot be waited for: {error}"),
            },
            Err(error) => tracing::error!("kube-apiserver cannot be started: {error}"),
        }
        tokio::time::sleep(RESTART_INTERVAL).await;
    }
}

fn start(program: &Path, flags: &[String]) -> std::io::Result<Child> {
    Command::new(program)
        .args(flags)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// k3s's flags of those that say where things are; what is given comes last, and counts.
fn flags(plan: &Plan, arguments: &ServerArgs) -> Vec<String> {
    let tls = |file: &str| plan.layout.tls_file(file).display().to_string();
    let issuer = format!(
        "https://kubernetes.default.svc.{}",
        arguments.critical.cluster_domain
    );
    let ours = [
        ("etcd-servers", plan.client_url()),
        ("etcd-cafile", tls("etcd/server-ca.crt")),
        ("etcd-certfile", tls("etcd/client.crt")),
        ("etcd-keyfile", tls("etcd/client.key")),
        ("bind-address", "127.0.0.1".to_owned()),
        (
            "secure-port",
            arguments.apiserver.apiserver_port.to_string(),
        ),
        ("tls-cert-file", tls("serving-kube-apiserver.crt")),
        ("tls-private-key-file", tls("serving-kube-apiserver.key")),
        ("client-ca-file", tls("client-ca.crt")),
        (
            "service-cluster-ip-range",
            arguments.critical.service_cidr.clone(),
        ),
        ("service-account-issuer", issuer),
        ("service-account-key-file", tls(SERVICE_KEY)),
        ("service-account-signing-key-file", tls(SERVICE_KEY)),
        ("authorization-mode", "Node,RBAC".to_owned()),
    ];
    let ours = ours.map(|(name, value)| (name.to_owned(), value));
    let given = &arguments.apiserver.kube_apiserver_arg;
    let is_given = |name: &str| given.iter().any(|(given, _value)| given == name);
    let ours = ours.into_iter().filter(|(name, _value)| !is_given(name));
    let all = ours.chain(given.iter().cloned());
    // `NAME=-` takes a flag away: not every API server knows all of them.
    all.filter(|(_name, value)| value != "-")
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}
