//! What processes use, by `/proc`, and what they say of themselves over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::BenchError;

/// Ticks of the processor time in `/proc` a second; fixed on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// What some processes have used together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    /// Bytes handed to the disk.
    pub(super) written_bytes: u64,
}

impl Usage {
    /// Of these processes since they began; one that has ended counts nothing.
    pub(super) fn of(processes: &[u32]) -> Self {
        let mut usage = Self::default();
        for process in processes {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let io = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
            usage.cpu += Duration::from_millis(ticks(&stat) * 1000 / TICKS_PER_SECOND);
            let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<u64>().ok());
            usage.written_bytes += written.unwrap_or(0);
        }
        usage
    }

    /// What was used since `before`.
    pub(super) fn since(self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// User and system time in ticks: the 14th and 15th field, counted behind the name, which may hold anything.
fn ticks(stat: &str) -> u64 {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    behind_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// A page over HTTP.
pub(super) async fn get(address: SocketAddr, page: &str) -> Result<String, BenchError> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(format!("GET {page} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The value of a metric without labels; 0 where it is not there.
pub(super) fn sample(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    value.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_and_metrics_are_read() {
        assert_eq!(ticks("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0"), 150);
        assert_eq!(ticks(""), 0);
        assert_eq!(sample("a_total 3\nb 4.5\n", "b"), 4.5);
        assert_eq!(sample("b_total 3\n", "b"), 0.0);
        let own = std::process::id();
        assert!(Usage::of(&[own]).since(&Usage::default()).cpu <= Duration::from_secs(3600));
    }
}
