//! What lies in `deploy/`, run: each machine of a guide is an address of this machine's loopback network
//! and a directory, and every command line, environment and manifest is taken from its file with
//! nothing replaced but those two.

#[path = "deploy/readme.rs"]
mod readme;
#[path = "deploy/site.rs"]
mod site;

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use testkit::eventually;

use site::{Machine, Site, repository};

const MACHINES: [&str; 3] = ["etcd-1", "etcd-2", "etcd-3"];

/// The unit's own environment file and program, on three machines.
#[tokio::test]
async fn three_machines_run_by_their_unit() -> Result<()> {
    let site = Site::new()?;
    let unit = Unit::read("kvorum.service")?;
    ensure!(unit.value("Type")? == "notify");
    ensure!(unit.value("ExecStart")? == "/usr/local/bin/kvorum");
    ensure!(unit.value("EnvironmentFile")? == "/etc/kvorum/kvorum.env");
    let hosts: Vec<String> = (1..)
        .zip(MACHINES)
        .map(|(n, name)| format!("{name}={}", site.address(n)))
        .collect();
    let pki = site.dir().join("pki");
    let mut certs = vec![
        "certs".to_owned(),
        "--out".to_owned(),
        pki.display().to_string(),
    ];
    certs.extend(hosts);
    site.run(&testkit::binaries::kvorum()?, &certs, &[])?;

    let mut machines = Vec::new();
    for (n, name) in (1..).zip(MACHINES) {
        let machine = site.machine(n, name)?;
        machine.install(&pki.join(name), "/etc/kvorum/pki")?;
        for file in ["client.crt", "client.key"] {
            fs::copy(pki.join(file), machine.path("/etc/kvorum/pki").join(file))?;
        }
        machines.push(machine);
    }
    let template = fs::read_to_string(repository().join("deploy/systemd/kvorum.env"))?;
    for machine in &mut machines {
        let environment = environment(&own(&template, machine));
        machine.start(&[], &environment)?;
    }
    let etcdctl_env = fs::read_to_string(repository().join("deploy/systemd/etcdctl.env"))?;
    for machine in &machines {
        let environment = environment(&own(&etcdctl_env, machine));
        eventually("all members are healthy", || async {
            let healthy = machine.etcdctl(&["endpoint", "health", "--cluster"], &environment)?;
            ensure!(healthy.matches("is healthy").count() == 3, "{healthy}");
            Ok(())
        })
        .await?;
        let list = machine.etcdctl(&["member", "list", "--write-out=table"], &environment)?;
        for name in MACHINES {
            ensure!(list.contains(name), "{list}");
        }
    }
    watched_by_prometheus(&machines[0]).await?;
    upgraded(&mut machines, &template, &etcdctl_env).await?;
    machines.iter_mut().for_each(Machine::fine);
    Ok(())
}

/// The guide to a new version, line by line; the new version is the old one.
async fn upgraded(machines: &mut [Machine], kvorum_env: &str, etcdctl_env: &str) -> Result<()> {
    let guide = fs::read_to_string(repository().join("deploy/upgrade.md"))?;
    let lines: Vec<&str> = guide.lines().map(str::trim).collect();
    let [save, status, health, hand_over] = [
        "snapshot save",
        "endpoint status",
        "endpoint health",
        "move-leader",
    ]
    .map(|command| {
        let line = format!("etcdctl {command}");
        let found = lines.iter().find(|it| it.starts_with(&line));
        found.map_or_else(Vec::new, |it| it.split(' ').skip(1).collect())
    });
    let environments: Vec<_> = machines
        .iter()
        .map(|machine| environment(&own(etcdctl_env, machine)))
        .collect();
    machines[0].etcdctl(&save, &environments[0])?;
    let table = machines[0].etcdctl(&status, &environments[0])?;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.contains("https://"))
        .map(|line| line.split(['|', '│']).map(str::trim).collect())
        .collect();
    ensure!(rows.len() == machines.len(), "{table}");
    // "IS LEADER"; nobody is a learner.
    let (leader, followers): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row.contains(&"true"));
    let url = leader.first().context("a leader")?[1];
    let leads = machines
        .iter()
        .position(|machine| url == format!("https://{}:2379", machine.address()));
    let mut order: Vec<usize> = (0..machines.len()).collect();
    order.sort_by_key(|&at| Some(at) == leads);
    let written = |at: usize| format!("written-{at}");
    for &at in &order {
        let (name, number) = (written(at), &environments[at]);
        machines[at].etcdctl(&["put", &name, "before"], number)?;
        if Some(at) == leads {
            let id = followers.first().context("a follower")?[2];
            let line: Vec<&str> = hand_over.iter().take(1).copied().chain([id]).collect();
            let moved = machines[at].etcdctl(&line, &environments[at])?;
            ensure!(moved.starts_with("Leadership transferred"), "{moved}");
        }
        machines[at].stop().await?;
        machines[at].start(&[], &environment(&own(kvorum_env, &machines[at])))?;
        eventually("all members are healthy again", || async {
            let healthy = machines[at].etcdctl(&health, &environments[at])?;
            ensure!(healthy.matches("is healthy").count() == 3, "{healthy}");
            Ok(())
        })
        .await?;
    }
    for &at in &order {
        let kept = machines[0].etcdctl(&["get", &written(at)], &environments[0])?;
        ensure!(kept.ends_with("before\n"), "{kept}");
    }
    Ok(())
}

/// Every metric that an alert or the dashboard asks for is there.
async fn watched_by_prometheus(machine: &Machine) -> Result<()> {
    let rules = fs::read_to_string(repository().join("deploy/prometheus/rules.yaml"))?;
    let dashboard = fs::read_to_string(repository().join("deploy/grafana/kvorum.json"))?;
    serde_json::from_str::<serde_json::Value>(&dashboard)?;
    let wanted: BTreeSet<&str> = [&rules, &dashboard]
        .into_iter()
        .flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| {
            ["etcd_", "grpc_server_", "kvorum_", "process_"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
                && !["grpc_method", "grpc_service"].contains(word)
        })
        .collect();
    ensure!(wanted.len() > 20, "{wanted:?}");
    // What depends on the other members is there when they have been heard.
    eventually("every metric is there", || async {
        let metrics = machine.get(2381, "/metrics").await?;
        let known: BTreeSet<&str> = metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        let missing: Vec<&&str> = wanted
            .iter()
            .filter(|name| !known.contains(*name))
            .collect();
        ensure!(missing.is_empty(), "the member has no {missing:?}");
        Ok(())
    })
    .await
}

/// The static pod that kubeadm writes, with the certificates of the openssl script.
#[tokio::test]
async fn a_static_pod_runs_by_its_manifest() -> Result<()> {
    let site = Site::new()?;
    let mut machine = site.machine(1, "cp-1")?;
    let pki = site.dir().join("pki");
    let script = repository().join("deploy/tls/openssl.sh");
    let arguments = [
        pki.display().to_string(),
        format!("cp-1={}", machine.address()),
    ];
    site.run(&script, &arguments, &[])?;
    machine.install(&pki.join("cp-1"), "/etc/kubernetes/pki/etcd")?;
    let manifest = fs::read_to_string(repository().join("deploy/kubeadm/etcd.yaml"))?;
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "- command:")
        .skip(1);
    ensure!(lines.next() == Some("- etcd"), "the command is not etcd");
    let arguments: Vec<String> = lines
        .map_while(|line| line.strip_prefix("- "))
        .map(|argument| machine.localised(argument))
        .collect();
    ensure!(arguments.len() > 15, "{arguments:?}");
    machine.start(&arguments, &[])?;
    let probes: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("path: "))
        .filter(|path| path.ends_with('z'))
        .collect();
    ensure!(probes.len() == 3, "{probes:?}");
    for path in probes {
        eventually(&format!("{path} is ok"), || machine.get(2381, path)).await?;
    }
    let client = format!("https://{}:2379", machine.address());
    let certificates = [
        ("--cacert", "ca.crt"),
        ("--cert", "apiserver-etcd-client.crt"),
        ("--key", "apiserver-etcd-client.key"),
    ];
    let mut arguments = vec![format!("--endpoints={client}")];
    arguments
        .extend(certificates.map(|(flag, file)| format!("{flag}={}", pki.join(file).display())));
    arguments.extend(["put", "foo", "bar"].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    ensure!(machine.etcdctl(&arguments, &[])?.trim() == "OK");
    machine.fine();
    Ok(())
}

/// The environment file of the first machine, as an administrator changes it for this one.
fn own(template: &str, machine: &Machine) -> String {
    let mut text = String::new();
    for line in template
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let line = match line.split_once('=') {
            Some(("ETCD_NAME", _)) => format!("ETCD_NAME={}", machine.name()),
            Some((variable, value)) if variable != "ETCD_INITIAL_CLUSTER" => {
                format!(
                    "{variable}={}",
                    value.replace("10.0.0.11", &format!("10.0.0.1{}", machine.number()))
                )
            }
            _ => line.to_owned(),
        };
        text.push_str(&machine.localised(&line));
        text.push('\n');
    }
    text
}

fn environment(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(variable, value)| (variable.to_owned(), value.to_owned()))
        .collect()
}

/// A unit file of systemd's.
struct Unit(String);

impl Unit {
    fn read(name: &str) -> Result<Unit> {
        Ok(Unit(fs::read_to_string(
            repository().join("deploy/systemd").join(name),
        )?))
    }

    fn value(&self, key: &str) -> Result<&str> {
        let line = |line: &'_ str| line.split_once('=').is_some_and(|(name, _)| name == key);
        let found = self
            .0
            .lines()
            .find(|text| line(text))
            .with_context(|| format!("no {key}"))?;
        Ok(found.split_once('=').map_or("", |(_, value)| value))
    }
}
