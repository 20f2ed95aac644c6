//! The usual `process_*` metrics, read from `/proc/self` on every scrape.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Clock ticks a second in `/proc`; the kernel fixes this at 100 for everything it shows to programs.
const TICKS: f64 = 100.0;

/// Reads the process it runs in.
#[derive(Debug)]
pub(super) struct Process {
    /// When it was made, in Unix time: the kernel's own record of the start needs `/proc/stat`, which a locked-in service
    /// does not see.
    started: Duration,
}

impl Process {
    /// To be called at the start of the process.
    pub(super) fn starting_now() -> Self {
        Self { started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(stat) = Stat::read() {
            counter(&mut encoder, "process_cpu", "CPU time used by user and system", &Unit::Seconds, stat.cpu_seconds)?;
            gauge(&mut encoder, "process_threads", "Threads", None, stat.threads)?;
        }
        let help = "Unix time the process started at";
        gauge(&mut encoder, "process_start_time", help, Some(&Unit::Seconds), self.started.as_secs_f64())?;
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            for (field, name, help) in [
                ("VmRSS:", "process_resident_memory", "Resident memory"),
                ("VmSize:", "process_virtual_memory", "Virtual memory"),
            ] {
                if let Some(kib) = number_after(&status, field) {
                    gauge(&mut encoder, name, help, Some(&Unit::Bytes), kib * 1024.0)?;
                }
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The directory that is being read is open itself.
            let count = open.count().saturating_sub(1) as f64;
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", None, count)?;
        }
        if let Ok(limits) = fs::read_to_string("/proc/self/limits")
            && let Some(limit) = number_after(&limits, "Max open files")
        {
            gauge(&mut encoder, "process_max_fds", "Most file descriptors that may be open", None, limit)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: &Unit,
    value: f64,
) -> Result<(), std::fmt::Error> {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, Some(unit), counter.metric_type())?)
}

fn number_after(text: &str, field: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

struct Stat {
    cpu_seconds: f64,
    threads: f64,
}

impl Stat {
    /// `/proc/self/stat`, see proc_pid_stat(5). The command name may hold anything, so fields count from its last bracket.
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some(Self { cpu_seconds: (number(14)? + number(15)?) / TICKS, threads: number(20)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_sees_itself() {
        let stat = Stat::read().unwrap();
        assert!(stat.threads >= 1.0 && stat.cpu_seconds >= 0.0);
        assert!(Process::starting_now().started.as_secs() > 1_000_000_000);
        assert_eq!(number_after("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12.0));
    }
}
