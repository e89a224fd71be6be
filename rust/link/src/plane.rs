//! The data plane's own thread and runtime: one single-threaded tokio runtime that carries every frame of an endpoint.
//!
//! One thread costs the fewest cycles a frame (no cross-core wake-ups, no contended locks), and it never takes Python's GIL.

use std::sync::Mutex;
use std::thread::JoinHandle;
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A running data plane. Dropping it stops the runtime and joins the thread.
#[derive(Debug)]
pub struct DataPlane {
    handle: Handle,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl DataPlane {
    /// Starts the thread and its runtime.
    ///
    /// # Errors
    /// When the operating system gives no thread or no event queue.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // An error means the sender is gone: the same wish to stop.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { handle, running: Mutex::new(Some((stop, thread))) })
    }

    /// The runtime's handle, to spawn on it or to enter its context.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Stops the runtime, drops its tasks and joins the thread. Safe to call more than once.
    pub fn stop(&self) {
        let taken = self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some((stop, thread)) = taken {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop();
    }
}
