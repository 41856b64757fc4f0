//! The ways of the README to put kvorum in the place of an etcd, run command by command as they are printed.
//!
//! Replaced are: addresses (`10.0.0.N` is one of this machine's own), paths below `/etc`, `/var` and `/usr` (they lie
//! below a directory for each machine), and the machine's own programs, by those in `readme/bin`: they do what `systemctl`,
//! `kubeadm` and `k3s` would do with the files that they are given. The Rust program is a doc test of the crate.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{binaries, eventually};

use crate::site::{Machine, Site, repository};

/// The blocks of commands below a heading.
fn commands(heading: &str) -> Result<Vec<String>> {
    let readme = fs::read_to_string(repository().join("README.md"))?;
    let (_, rest) = readme
        .split_once(&format!("### {heading}\n"))
        .with_context(|| format!("no {heading:?} in the README"))?;
    let section = rest.split("\n#").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    Ok(blocks.map(str::to_owned).collect())
}

/// Machines, and what their stand-ins have started.
struct Guide {
    site: Site,
    programs: PathBuf,
    /// A checkout with the program built.
    checkout: PathBuf,
}

impl Guide {
    fn new() -> Result<Guide> {
        let site = Site::new()?;
        let (programs, checkout) = (site.dir().join("bin"), site.dir().join("checkout"));
        fs::create_dir_all(&programs)?;
        fs::create_dir_all(checkout.join("target/release"))?;
        let stand_ins = repository()
            .canonicalize()?
            .join("tests/tests/deploy/readme/bin");
        for entry in fs::read_dir(stand_ins)? {
            let entry = entry?;
            link(&entry.path(), &programs.join(entry.file_name()))?;
        }
        link(&binaries::etcdctl()?, &programs.join("etcdctl"))?;
        link(&binaries::kvorum()?, &programs.join("kvorum"))?;
        link(
            &binaries::kvorum()?,
            &checkout.join("target/release/kvorum"),
        )?;
        link(
            &repository().canonicalize()?.join("deploy"),
            &checkout.join("deploy"),
        )?;
        fs::write(site.dir().join("pids"), "")?;
        Ok(Guide {
            site,
            programs,
            checkout,
        })
    }

    /// Runs a block on a machine.
    fn run(&self, machine: &Machine, block: &str) -> Result<()> {
        let root = machine.path("/");
        fs::create_dir_all(root.join("etc"))?;
        let mut block = machine.localised(block);
        for top in ["etc", "var", "usr"] {
            let here = format!(" {}/{top}/", root.display()).replace("//", "/");
            block = block.replace(&format!(" /{top}/"), &here);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let network = machine.address();
        let network = network.rsplit_once('.').map_or("", |(network, _)| network);
        let variable = |name: &str, value: String| (name.to_owned(), value);
        let environment = [
            variable("PATH", format!("{}:{path}", self.programs.display())),
            variable(
                "ROOT",
                root.display().to_string().trim_end_matches('/').to_owned(),
            ),
            variable("NETWORK", format!("{network}.")),
            variable("LOCAL_ADDRESS", machine.localised("127.0.0.1")),
            variable("PIDS", self.site.dir().join("pids").display().to_string()),
            variable("KVORUM_BIN", binaries::kvorum()?.display().to_string()),
        ];
        let block = format!("cd {}\n{block}", self.checkout.display());
        let arguments = ["-euo", "pipefail", "-c", &block].map(str::to_owned);
        let shown = self
            .site
            .run(Path::new("/bin/bash"), &arguments, &environment);
        shown.with_context(|| format!("on {}: {block}", machine.name()))?;
        Ok(())
    }
}

impl Drop for Guide {
    fn drop(&mut self) {
        let pids = fs::read_to_string(self.site.dir().join("pids")).unwrap_or_default();
        for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
            // One that has ended by itself has failed the test before.
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

fn link(from: &Path, to: &Path) -> Result<()> {
    std::os::unix::fs::symlink(from, to).with_context(|| format!("linking {}", to.display()))
}

#[tokio::test]
async fn kubeadm_with_a_member_on_the_control_plane() -> Result<()> {
    let guide = Guide::new()?;
    let mut machine = guide.site.machine(1, "cp-1")?;
    let blocks = commands("kubeadm, one etcd per control plane")?;
    ensure!(blocks.len() == 1, "{blocks:?}");
    guide.run(&machine, &blocks[0])?;
    eventually("the static pod is ready", || machine.get(2381, "/readyz")).await?;
    machine.fine();
    Ok(())
}

#[tokio::test]
async fn kubeadm_and_k3s_with_three_machines() -> Result<()> {
    let guide = Guide::new()?;
    let blocks = commands("kubeadm, etcd on machines of its own")?;
    let [certificates, member, control_plane] = blocks.as_slice() else {
        anyhow::bail!("{blocks:?}");
    };
    let mut machines = Vec::new();
    for n in 1..=3 {
        machines.push(guide.site.machine(n, &format!("etcd-{n}"))?);
    }
    guide.run(&machines[0], certificates)?;
    for machine in &machines {
        let n = machine.number();
        let own = member.replace(
            "name=etcd-1 address=10.0.0.11",
            &format!("name=etcd-{n} address=10.0.0.1{n}"),
        );
        ensure!(n == 1 || own != *member, "the first line has changed");
        guide.run(machine, &own)?;
    }
    for machine in &machines {
        eventually("the member is ready", || machine.get(2381, "/readyz")).await?;
    }
    let mut control = guide.site.machine(4, "cp-1")?;
    guide.run(&control, control_plane)?;
    let mut server = guide.site.machine(5, "k3s-1")?;
    for block in commands("k3s")? {
        guide.run(&server, &block)?;
    }
    for machine in machines.iter_mut().chain([&mut control, &mut server]) {
        machine.fine();
    }
    Ok(())
}
