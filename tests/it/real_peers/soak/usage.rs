//! What a process has of the machine.

use std::fs;

use rustix::process::Pid;

#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    process: i32,
    resident_mib: u64,
    descriptors: usize,
}

impl Sample {
    pub(super) fn of(process: Pid) -> Self {
        let process = process.as_raw_nonzero().get();
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        Self {
            process,
            resident_mib: kib.parse::<u64>().unwrap() / 1024,
            descriptors: fs::read_dir(format!("/proc/{process}/fd")).unwrap().count(),
        }
    }
}

/// No process has more at its end than after its first two rounds, give or take what changes with the
/// load.
pub(super) fn assert_flat(samples: &[Sample]) {
    for of_one in samples.chunk_by(|one, next| one.process == next.process) {
        let (Some(early), Some(last)) = (of_one.get(1), of_one.last()) else {
            continue;
        };
        assert!(
            last.resident_mib <= early.resident_mib * 3 / 2 + 16,
            "{of_one:?}"
        );
        assert!(last.descriptors <= early.descriptors + 64, "{of_one:?}");
    }
}
