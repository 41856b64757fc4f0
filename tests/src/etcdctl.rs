//! The same etcdctl commands against kvorum and against a real etcd, their output compared.
//!
//! A [`Pair`] runs a script line by line against both. A line is an etcdctl command, split like a
//! shell does (`"…"` with `\n`, `'…'`), with these additions:
//!
//! - `$name = lease grant …` keeps the lease id that each side answered; `$name` is that id later;
//! - `< "text"` at the end is the command's standard input;
//! - `until "text" command …` waits until the command has printed the text, then kills it.
//!
//! Not compared is what must differ: `normalise` has the list.

mod normalise;
mod split;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use api::etcdserverpb as pb;
use testkit::{Server, Spec, binaries, eventually, process};

use normalise::Names;

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    /// None when it was killed because it had printed what was waited for.
    exit: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

/// One server and what is called differently on it.
struct Side {
    server: Server,
    names: Names,
    leases: BTreeMap<String, String>,
}

/// kvorum and a real etcd beside it.
pub struct Pair {
    sides: [Side; 2],
    differences: Vec<String>,
    commands: usize,
}

/// A command that runs on both sides until it is told to end.
pub struct Running {
    line: String,
    args: Vec<String>,
    children: [Child; 2],
}

struct Child {
    child: std::process::Child,
    /// An interactive command goes on for as long as this is open.
    stdin: Option<std::process::ChildStdin>,
    dir: tempfile::TempDir,
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; nothing is lost either way.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Child {
    /// Waits until it has printed `text`.
    async fn printed(&mut self, text: &str) -> Result<()> {
        let this = RefCell::new(self);
        eventually("etcdctl prints what it should", || async {
            let outcome = this.borrow().outcome(None)?;
            let stdout = String::from_utf8_lossy(&outcome.stdout);
            ensure!(
                stdout.contains(text),
                "no {text:?} in {stdout:?}, {:?}",
                outcome.stderr
            );
            Ok(())
        })
        .await
    }

    async fn ended(&mut self) -> Result<i32> {
        let this = RefCell::new(self);
        let probe = || async {
            this.borrow_mut()
                .child
                .try_wait()?
                .context("etcdctl still runs")
        };
        let status = eventually("etcdctl ends", probe).await?;
        status.code().context("etcdctl was killed")
    }

    fn outcome(&self, exit: Option<i32>) -> Result<Outcome> {
        let stdout = std::fs::read(self.dir.path().join("stdout"))?;
        let stderr = std::fs::read(self.dir.path().join("stderr"))?;
        Ok(Outcome {
            exit,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }
}

impl Pair {
    /// Starts both.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start() -> Result<Pair> {
        let (kvorum, etcd) = tokio::try_join!(Spec::kvorum().start(), Spec::etcd().start())?;
        let sides = [Side::of(kvorum).await?, Side::of(etcd).await?];
        Ok(Pair {
            sides,
            differences: Vec::new(),
            commands: 0,
        })
    }

    /// Runs the script's lines one by one on both sides; differences are kept for
    /// [`Pair::finish`].
    ///
    /// # Errors
    /// When a command cannot be run at all.
    pub async fn script(&mut self, script: &str) -> Result<()> {
        for line in script.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') {
                self.line(line)
                    .await
                    .with_context(|| format!("in the line: {line}"))?;
            }
        }
        Ok(())
    }

    async fn line(&mut self, line: &str) -> Result<()> {
        let step = split::step(line)?;
        let mut outcomes = Vec::new();
        for side in &mut self.sides {
            let args: Vec<_> = step.args.iter().map(|arg| side.expand(arg)).collect();
            let outcome = side.run(&args, &step).await?;
            if let Some(name) = &step.keep_lease {
                side.keep_lease(name, &outcome)?;
            }
            outcomes.push(outcome);
        }
        self.compare(line, &step.args, &outcomes);
        Ok(())
    }

    fn compare(&mut self, line: &str, args: &[String], outcomes: &[Outcome]) {
        self.commands += 1;
        let seen: Vec<_> = outcomes
            .iter()
            .zip(&self.sides)
            .map(|(o, side)| side.names.normalise(args, o))
            .collect();
        if seen[0] != seen[1] {
            let [kvorum, etcd] = [&seen[0], &seen[1]];
            self.differences.push(format!(
                "$ etcdctl {line}\n--- kvorum\n{kvorum}--- etcd\n{etcd}"
            ));
        }
    }

    /// Starts a command that goes on; `stdin` is what it gets at first.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, line: &str) -> Result<Running> {
        let step = split::step(line)?;
        let start = |side: &Side| {
            let args: Vec<_> = step.args.iter().map(|arg| side.expand(arg)).collect();
            side.spawn(&args, step.stdin.as_deref().unwrap_or_default())
        };
        let children = [start(&self.sides[0])?, start(&self.sides[1])?];
        Ok(Running {
            line: line.to_owned(),
            args: step.args,
            children,
        })
    }

    /// Waits until both have printed `text`.
    ///
    /// # Errors
    /// When one does not.
    pub async fn printed(&self, running: &mut Running, text: &str) -> Result<()> {
        for (child, side) in running.children.iter_mut().zip(&self.sides) {
            let who = side.server.program();
            let printed = child.printed(text).await;
            printed.with_context(|| format!("{who:?}: {}", running.line))?;
        }
        Ok(())
    }

    /// Kills the command on both sides and compares what it printed.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn end(&mut self, mut running: Running) -> Result<()> {
        let mut outcomes = Vec::new();
        for child in &mut running.children {
            outcomes.push(child.outcome(None)?);
        }
        self.compare(&running.line, &running.args, &outcomes);
        Ok(())
    }

    /// Compares, and stops both.
    ///
    /// # Errors
    /// When anything was different, or one does not stop.
    pub async fn finish(self) -> Result<()> {
        let Pair {
            sides,
            differences,
            commands,
        } = self;
        let [kvorum, etcd] = sides;
        let stopped = [kvorum.server.stop().await, etcd.server.stop().await];
        ensure!(
            differences.is_empty(),
            "{} of {commands} commands differ:\n\n{}",
            differences.len(),
            differences.join("\n")
        );
        stopped.into_iter().collect()
    }
}

impl Side {
    async fn of(server: Server) -> Result<Side> {
        let client = server.client().await?;
        let mut cluster = client.cluster;
        let list = cluster
            .member_list(pb::MemberListRequest { linearizable: true })
            .await?;
        let header = list
            .into_inner()
            .header
            .context("a response has a header")?;
        let mut names = Names::default();
        names.add(format!(":{}", server.client_port()), ":CLIENT");
        names.add(format!(":{}", server.peer_port()), ":PEER");
        names.add_id(header.member_id, "MEMBER");
        names.add_id(header.cluster_id, "CLUSTER");
        Ok(Side {
            server,
            names,
            leases: BTreeMap::new(),
        })
    }

    /// Puts kept lease ids into an argument.
    fn expand(&self, arg: &str) -> String {
        let fold =
            |arg: String, (name, id): (&String, &String)| arg.replace(&format!("${name}"), id);
        self.leases.iter().fold(arg.to_owned(), fold)
    }

    /// `lease 694d… granted with TTL(100s)`
    fn keep_lease(&mut self, name: &str, outcome: &Outcome) -> Result<()> {
        let stdout = String::from_utf8_lossy(&outcome.stdout).into_owned();
        let id = stdout
            .strip_prefix("lease ")
            .and_then(|rest| rest.split(' ').next());
        let id = id.with_context(|| format!("no lease was granted: {outcome:?}"))?;
        self.names
            .add_id(u64::from_str_radix(id, 16)?, &format!("LEASE-{name}"));
        self.leases.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    async fn run(&self, args: &[String], step: &split::Step) -> Result<Outcome> {
        let mut child = self.spawn(args, step.stdin.as_deref().unwrap_or_default())?;
        let exit = match &step.until {
            Some(text) => {
                let printed = child.printed(text).await;
                printed.with_context(|| format!("{:?}", self.server.program()))?;
                None
            }
            None => {
                child.stdin = None;
                Some(
                    child
                        .ended()
                        .await
                        .with_context(|| format!("{:?}", self.server.program()))?,
                )
            }
        };
        child.outcome(exit)
    }

    fn spawn(&self, args: &[String], stdin: &str) -> Result<Child> {
        use std::io::Write as _;
        let dir = tempfile::tempdir()?;
        let mut command = process::command(&binaries::etcdctl()?);
        command
            .env_clear()
            .arg(format!("--endpoints={}", self.server.client_url()))
            .args(args);
        command.env("PATH", "/usr/bin:/bin").stdin(Stdio::piped());
        command.stdout(std::fs::File::create(dir.path().join("stdout"))?);
        command.stderr(std::fs::File::create(dir.path().join("stderr"))?);
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().context("a piped standard input")?;
        // A command that does not read its input may have ended before this.
        input.write_all(stdin.as_bytes()).ok();
        Ok(Child {
            child,
            stdin: Some(input),
            dir,
        })
    }
}
