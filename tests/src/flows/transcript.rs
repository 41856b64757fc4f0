//! What was seen on one side, with what differs by chance replaced, so that it can be compared with
//! what was seen on the other.

use anyhow::{Context as _, Result, ensure};

use super::Node;

/// Lines that have to be the same on etcd and kvorum.
#[derive(Debug, Default)]
pub struct Transcript {
    /// What stands in a line, and what is written instead.
    names: Vec<(String, String)>,
    lines: Vec<String>,
}

impl Transcript {
    /// One that calls addresses by the machine they are on.
    #[must_use]
    pub fn of(nodes: &[Node]) -> Transcript {
        let mut this = Transcript::default();
        for node in nodes {
            for (port, what) in node.ports() {
                let name = format!("{}:{what}", node.name);
                this.names.push((format!("127.0.0.1:{port}"), name));
            }
        }
        this
    }

    /// From now on this id is called by that name.
    pub fn name(&mut self, id: u64, name: &str) {
        for id in [format!("{id:x}"), id.to_string()] {
            self.names.push((id, format!("<{name}>")));
        }
    }

    /// Notes what was seen.
    pub fn saw(&mut self, line: impl Into<String>) {
        let mut line = line.into();
        for (from, to) in &self.names {
            line = line.replace(from, to);
        }
        self.lines.push(line.trim().to_owned());
    }

    /// Notes how something was refused.
    ///
    /// # Errors
    /// When it was not.
    pub fn saw_refusal<T>(&mut self, what: &str, outcome: Result<T, tonic::Status>) -> Result<()> {
        let refusal = outcome.err();
        let refusal = refusal.with_context(|| format!("not refused: {what}"))?;
        self.saw(format!(
            "{what}: {:?} {}",
            refusal.code(),
            refusal.message()
        ));
        Ok(())
    }

    /// Notes parts whose order means nothing.
    pub fn saw_in_any_order(
        &mut self,
        what: &str,
        parts: impl IntoIterator<Item = impl AsRef<str>>,
    ) {
        let start = self.lines.len();
        for part in parts {
            self.saw(format!("{what}: {}", part.as_ref()));
        }
        self.lines[start..].sort();
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Compares, etcd's first.
    ///
    /// # Errors
    /// The first line that differs.
    pub fn same(&self, kvorum: &Transcript) -> Result<()> {
        for (etcd, kvorum) in self.lines.iter().zip(&kvorum.lines) {
            ensure!(etcd == kvorum, "\n  etcd:   {etcd}\n  kvorum: {kvorum}");
        }
        let (etcd, kvorum) = (self.lines.len(), kvorum.lines.len());
        ensure!(etcd == kvorum, "{etcd} lines, but {kvorum} of kvorum");
        Ok(())
    }
}
