//! What the system knows of this process, under the names that every Go program has them.
//!
//! Read from `/proc`; what is not there stays 0.

use std::fs;

use prometheus::{Counter, Gauge, IntGauge, Registry};

/// Ticks of the kernel's CPU times in a second: fixed in Linux' interface.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct ProcessMetrics {
    cpu_seconds: Counter,
    resident_memory: IntGauge,
    virtual_memory: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    fd_used: IntGauge,
    fd_limit: IntGauge,
    network_received: Counter,
    network_sent: Counter,
}

impl ProcessMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<Counter> {
            let counter = Counter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let virtual_max = Gauge::new(
            "process_virtual_memory_max_bytes",
            "How much virtual memory there may be.",
        )?;
        registry.register(Box::new(virtual_max.clone()))?;
        virtual_max.set(address_space_max());
        let cpu_seconds = Counter::new("process_cpu_seconds_total", "CPU time, in seconds.")?;
        registry.register(Box::new(cpu_seconds.clone()))?;
        let start = Gauge::new(
            "process_start_time_seconds",
            "When the process began, Unix time.",
        )?;
        registry.register(Box::new(start.clone()))?;
        start.set(start_time_s().unwrap_or_default());
        Ok(Self {
            cpu_seconds,
            resident_memory: gauge("process_resident_memory_bytes", "Resident memory.")?,
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory.")?,
            open_fds: gauge("process_open_fds", "Open file descriptors.")?,
            max_fds: gauge("process_max_fds", "How many may be open.")?,
            fd_used: gauge("os_fd_used", "Open file descriptors.")?,
            fd_limit: gauge("os_fd_limit", "How many may be open.")?,
            network_received: counter(
                "process_network_receive_bytes_total",
                "Bytes received over the network.",
            )?,
            network_sent: counter(
                "process_network_transmit_bytes_total",
                "Bytes sent over the network.",
            )?,
        })
    }

    pub(super) fn read(&self) {
        if let Some(seconds) = cpu_seconds() {
            self.cpu_seconds.reset();
            self.cpu_seconds.inc_by(seconds);
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        self.resident_memory
            .set(kilobytes(&status, "VmRSS:") * 1024);
        self.virtual_memory
            .set(kilobytes(&status, "VmSize:") * 1024);
        let (received, sent) = network_bytes();
        for (counter, bytes) in [
            (&self.network_received, received),
            (&self.network_sent, sent),
        ] {
            counter.reset();
            counter.inc_by(bytes);
        }
        let open = fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count());
        let open = i64::try_from(open).unwrap_or(i64::MAX);
        self.open_fds.set(open);
        self.fd_used.set(open);
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let max = open_files_max(&limits);
        self.max_fds.set(max);
        self.fd_limit.set(max);
    }
}

/// `InOctets` and `OutOctets` of the line `IpExt`: like Go's library, all of the network namespace.
fn network_bytes() -> (f64, f64) {
    let text = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with("IpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return (0.0, 0.0);
    };
    let value = |wanted: &str| {
        let place = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(place)?.parse().ok()
    };
    let of = |name| value(name).unwrap_or_default();
    (of("InOctets"), of("OutOctets"))
}

/// Without a limit it is the largest number, as Go's library shows it.
fn address_space_max() -> f64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max address space"));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .unwrap_or(18_446_744_073_709_551_615.0)
}

/// The fields of `/proc/self/stat` after the name, which may hold anything.
fn stat_fields() -> Option<Vec<String>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// User and system time: fields 14 and 15 of `proc_pid_stat(5)`, of which the first two are cut off.
fn cpu_seconds() -> Option<f64> {
    let fields = stat_fields()?;
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some((ticks(14)? + ticks(15)?) / TICKS_PER_SECOND)
}

/// The boot time and, after it, field 22 of `proc_pid_stat(5)`.
fn start_time_s() -> Option<f64> {
    let after_boot: f64 = stat_fields()?.get(22 - 3)?.parse().ok()?;
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()?;
    Some(boot + after_boot / TICKS_PER_SECOND)
}

fn kilobytes(status: &str, name: &str) -> i64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

fn open_files_max(limits: &str) -> i64 {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found() {
        let registry = Registry::new();
        let metrics = ProcessMetrics::register(&registry).unwrap();
        metrics.read();
        assert!(metrics.resident_memory.get() > 0 && metrics.open_fds.get() > 0);
        assert!(metrics.max_fds.get() > 0);
        assert!(start_time_s().is_some() && cpu_seconds().is_some());
    }
}
