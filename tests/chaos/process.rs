//! What the kernel tells of a process.

use std::path::PathBuf;

use anyhow::Context;

use crate::guard::Replica;

/// Kernel ticks a second in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that this runs on.
const TICKS: f64 = 100.0;

async fn read(replica: &Replica, file: &str) -> anyhow::Result<String> {
    let path = PathBuf::from(format!("/proc/{}/{file}", replica.id().await?));
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Processor time that a replica has used so far, in seconds.
pub(crate) async fn processor_seconds(replica: &Replica) -> anyhow::Result<f64> {
    let stat = read(replica, "stat").await?;
    // The name, in parentheses, may hold spaces; utime and stime are the 14th and 15th field of all.
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2);
    let ticks: Vec<f64> = ticks.map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS)
}

/// Memory in MiB: what a replica holds now, and the most that it ever held.
pub(crate) async fn resident_mebibytes(replica: &Replica) -> anyhow::Result<(f64, f64)> {
    let status = read(replica, "status").await?;
    let mebibytes = |field: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        let kibibytes: f64 = kibibytes
            .with_context(|| format!("no {field} in status"))?
            .parse()?;
        Ok(kibibytes / 1024.0)
    };
    Ok((mebibytes("VmRSS:")?, mebibytes("VmHWM:")?))
}
