//! The resource usage of the process, from Linux' `/proc`.

use std::fs;
use std::time::Duration;

/// The resource usage of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time since the start, in user and kernel mode.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Open files and sockets.
    pub files: usize,
    /// The maximum number of them; `None`: there is none.
    pub max_files: Option<u64>,
}

impl Usage {
    /// The current usage. `None` where there is no `/proc`.
    pub(crate) fn read() -> Option<Self> {
        let ticks = rustix::param::clock_ticks_per_second();
        let page = u64::try_from(rustix::param::page_size()).ok()?;
        Some(Self {
            cpu: cpu(&fs::read_to_string("/proc/self/stat").ok()?, ticks)?,
            memory: resident_pages(&fs::read_to_string("/proc/self/statm").ok()?)?
                .checked_mul(page)?,
            files: open_files()?,
            max_files: max_files(),
        })
    }

    /// Open files and sockets, and their limit. `None` where there is none, or no `/proc`.
    pub(crate) fn files_and_limit() -> Option<(u64, u64)> {
        Some((open_files()? as u64, max_files()?))
    }
}

fn open_files() -> Option<usize> {
    // One of them is the directory itself.
    let all = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(all.saturating_sub(1))
}

/// The maximum number of open files and sockets; `None`: there is none.
pub(crate) fn max_files() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// `utime` and `stime` of proc_pid_stat(5), the 14th and 15th field. The second, the program's
/// name, stands in parentheses and may hold anything.
fn cpu(stat: &str, ticks: u64) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    let spent = times.next()?.ok()?.checked_add(times.next()?.ok()?)?;
    let millis = spent.checked_mul(1000)?.checked_div(ticks)?;
    Some(Duration::from_millis(millis))
}

/// The second field of proc_pid_statm(5).
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_does_not_matter() {
        let stat = "7 (a) R 2 (x) S 1 7 7 0 -1 4194560 2042 0 3 0 250 150 0 0 20 0 9 0 1 2 3 4";
        assert_eq!(cpu(stat, 100), Some(Duration::from_secs(4)));
        assert_eq!(cpu("7 (a) S 1", 100), None);
        assert_eq!(resident_pages("900 120 30 1 0 5 0\n"), Some(120));
    }

    #[test]
    fn this_process_uses_resources() {
        let usage = Usage::read().expect("there is /proc");
        assert!(usage.memory > 1 << 20 && usage.files >= 3, "{usage:?}");
    }
}
