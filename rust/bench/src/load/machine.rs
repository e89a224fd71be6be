//! What the kernel says about processes and cores: CPU time, memory, pinning.

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time of all threads of process `pid` (`/proc/PID/task/*/schedstat`, nanoseconds, where `/proc/PID/stat` counts in hundredths).
///
/// # Errors
/// When the process is gone.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the look at it.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        total += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory of process `pid` in bytes (`/proc/PID/statm`).
///
/// # Errors
/// When the process is gone.
pub fn resident(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = text.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    // SAFETY: no pointers, no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(pages * page.max(0) as u64)
}

/// Seconds core `core` has been busy with anything (`/proc/stat`).
pub fn core_busy(core: usize) -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{core} ");
    let Some(line) = text.lines().find(|line| line.starts_with(&name)) else { return 0.0 };
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system - - irq softirq steal: all but idle and iowait, guests are within user.
    let busy: u64 =
        fields.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, n)| n).sum();
    // SAFETY: no pointers, no preconditions.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    busy as f64 / hertz.max(1) as f64
}

/// Keeps this process on one core.
///
/// # Errors
/// When there is no such core, or it is not ours to use.
pub fn pin(core: usize) -> io::Result<()> {
    // SAFETY: a plain bit set, for which all zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: `core` is within the set, as was just asked.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set outlives the call and its size is given.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
