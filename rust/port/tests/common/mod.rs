//! Network namespaces for tests, and a slow look at frames.
#![allow(dead_code)] // each test file uses its part

pub mod frames;
pub mod traffic;

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

/// Set in the process that runs inside of its namespaces.
const INSIDE: &str = "SOFTLAN_PORT_TEST_INSIDE";

/// Runs `body` in a process with a network namespace of its own: the test binary starts itself again for the one
/// test `name`. Without root a user namespace lends the privileges. Says so and returns when the kernel refuses.
pub fn in_namespace(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        ip("link set dev lo up");
        return body();
    }
    if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip(name, "there is no `ip` command (iproute2)");
    }
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(enter) };
    match command.output() {
        Err(error) => skip(name, &format!("the kernel gives no network namespace: {error}")),
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            print!("{}", String::from_utf8_lossy(&text));
            assert!(output.status.success(), "{name} failed in its namespace, see above");
        }
    }
}

/// Says why a test did nothing. Panics with SOFTLAN_REQUIRE_ALL=1, as in CI: there a missing tool or right is a failure,
/// as it is for `softlan.lab.testing` on the Python side.
pub fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("SOFTLAN_REQUIRE_ALL").is_none_or(|value| value != "1"), "{name}: {reason}");
    println!("SKIPPED {name}: {reason}");
}

/// Says what of a test was left out, whatever is required: for what a kernel was built without, which no tool and no right brings.
pub fn without(name: &str, reason: &str) {
    println!("WITHOUT {name}: {reason}");
}

/// Unshares the network, in a user namespace unless the process is root's.
fn enter() -> io::Result<()> {
    // SAFETY: these take no pointers.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    if user == 0 && unshare(libc::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)?;
    write(c"/proc/self/setgroups", b"deny")?;
    for (path, id) in [(c"/proc/self/uid_map", user), (c"/proc/self/gid_map", group)] {
        let mut text = [0_u8; 32];
        let mut room = &mut text[..];
        io::Write::write_fmt(&mut room, format_args!("0 {id} 1"))?;
        let len = 32 - room.len();
        write(path, &text[..len])?;
    }
    Ok(())
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes no pointers.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn write(path: &std::ffi::CStr, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: a string that ends in zero, and a buffer with its length; the descriptor is closed once.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let written = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        let error = io::Error::last_os_error();
        libc::close(fd);
        if written == bytes.len() as isize { Ok(()) } else { Err(error) }
    }
}

/// Runs `ip` in the caller's namespace; it must succeed.
pub fn ip(arguments: &str) -> String {
    try_ip(arguments).unwrap_or_else(|error| panic!("ip {arguments}: {error}"))
}

/// Runs `ip` in the caller's namespace, and gives what it complained about if it failed.
pub fn try_ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A further network namespace: a thread that runs what it is given.
pub struct Namespace {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    /// The thread's id, by which `ip link ... netns` finds the namespace.
    pub id: i32,
}

impl Namespace {
    pub fn new() -> Self {
        let (jobs, incoming) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            unshare(libc::CLONE_NEWNET).expect("a further namespace");
            // SAFETY: takes no pointers.
            tell.send(unsafe { libc::gettid() }).expect("listener");
            incoming.into_iter().for_each(|job| job());
        });
        let namespace = Self { jobs, id: told.recv().expect("thread") };
        namespace.ip("link set dev lo up");
        namespace
    }

    /// Runs `job` in the namespace and gives what it returns.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = move || drop(tell.send(job()));
        self.jobs.send(Box::new(job)).expect("thread");
        told.recv().expect("the job in the namespace panicked")
    }

    /// Starts `job` in a thread of its own in the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        // A thread starts in the namespace of the one that made it.
        self.run(|| thread::spawn(job))
    }

    pub fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments))
    }
}
