//! The loop that drives QUIC: one task on the data plane reads the socket, runs every connection of an endpoint, and writes the socket.
//!
//! Everything is done in batches, in one thread: a burst of packets is read and given to its connections; each of them hands its datagrams to
//! its [`Sink`], which puts frames into other connections' cables; then every connection with something to say fills bursts
//! of its own. No frame waits for another task to be woken, and the last moment before a packet is built is when a frame is chosen from
//! the queue.
//!
//! [`Engine`] is what other threads hold of it; [`driver`] is the loop; [`link`] one connection.

mod allowance;
mod arrivals;
mod control_turn;
mod door;
pub(crate) mod driver;
mod intake;
pub(crate) mod link;
mod timers;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{ClientConfig, ConnectError, Connection, ConnectionHandle, ServerConfig, VarInt};
use tokio::sync::Notify;

use door::{Door, DoorCounters};
use link::Link;

use crate::queue::QueueTotal;

/// An endpoint's state, shared between the loop and the control plane.
///
/// Locks are taken in this order: [`Engine::core`], then a link's state. Neither is held across an await.
#[derive(Debug)]
pub(crate) struct Engine {
    core: Mutex<Core>,
    ready: Arc<Ready>,
    /// Raised when the last connection is gone.
    idle: Notify,
    pub(crate) door: DoorCounters,
}

/// The sans-I/O endpoint and its connections, by handle.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) endpoint: quinn_proto::Endpoint,
    links: Vec<Option<Arc<Link>>>,
    open: usize,
    /// No loop runs any more.
    stopped: bool,
}

impl Core {
    pub(crate) fn link(&self, handle: usize) -> Option<&Arc<Link>> {
        self.links.get(handle)?.as_ref()
    }

    /// Makes the loop's half of a connection.
    pub(crate) fn insert(
        &mut self,
        ready: &Arc<Ready>,
        handle: ConnectionHandle,
        proto: Connection,
    ) -> Arc<Link> {
        let link = Link::new(ReadyMark::new(ready, handle.0), proto);
        if self.links.len() <= handle.0 {
            self.links.resize(handle.0 + 1, None);
        }
        self.links[handle.0] = Some(link.clone());
        self.open += 1;
        link
    }

    fn remove(&mut self, handle: usize) {
        if self.links.get_mut(handle).and_then(Option::take).is_some() {
            self.open -= 1;
        }
    }

    /// All connections, ended ones that still drain included.
    fn all(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.iter().flatten()
    }
}

impl Engine {
    pub(crate) fn new(endpoint: quinn_proto::Endpoint) -> Arc<Self> {
        let core = Core { endpoint, links: Vec::new(), open: 0, stopped: false };
        Arc::new(Self {
            core: Mutex::new(core),
            ready: Arc::default(),
            idle: Notify::new(),
            door: DoorCounters::default(),
        })
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        // Every change of it is complete before anything that could panic.
        self.core.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Lets a connection go that QUIC needs no more, or that it is to need no more.
    fn forget(&self, core: &mut Core, door: &mut Door, handle: usize) {
        core.remove(handle);
        door.leave(handle, &self.door);
        if core.open == 0 {
            self.idle.notify_waiters();
        }
    }

    /// Uses another server configuration from now on.
    pub(crate) fn set_server_config(&self, config: ServerConfig) {
        self.core().endpoint.set_server_config(Some(Arc::new(config)));
    }

    /// Begins a handshake.
    pub(crate) fn connect(
        &self,
        config: ClientConfig,
        address: SocketAddr,
        server_name: &str,
    ) -> Result<Arc<Link>, ConnectError> {
        let link = {
            let mut core = self.core();
            if core.stopped {
                return Err(ConnectError::EndpointStopping);
            }
            let (handle, proto) = core.endpoint.connect(Instant::now(), config, address, server_name)?;
            core.insert(&self.ready, handle, proto)
        };
        link.wake();
        Ok(link)
    }

    /// Closes every connection.
    pub(crate) fn close(&self, code: VarInt, reason: &Bytes) {
        let links: Vec<_> = self.core().all().cloned().collect();
        for link in links {
            link.close(code, reason.clone());
        }
    }

    /// Waits until every connection has ended and its peer had time to hear of it.
    pub(crate) async fn wait_idle(&self) {
        loop {
            let changed = self.idle.notified();
            {
                let core = self.core();
                if core.open == 0 || core.stopped {
                    return;
                }
            }
            changed.await;
        }
    }
}

/// Connections that the loop should look at, and what waits to be sent on all of them.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    handles: Mutex<Vec<usize>>,
    wake: Notify,
    queue_total: Arc<QueueTotal>,
}

impl Ready {
    /// Moves the handles to `into`.
    fn take(&self, into: &mut Vec<usize>) {
        into.append(&mut self.handles.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

/// One connection's place in [`Ready`]. Marking it costs an atomic exchange while it is marked already.
#[derive(Debug)]
pub(crate) struct ReadyMark {
    ready: Arc<Ready>,
    handle: usize,
    marked: AtomicBool,
}

impl ReadyMark {
    fn new(ready: &Arc<Ready>, handle: usize) -> Arc<Self> {
        Arc::new(Self { ready: ready.clone(), handle, marked: AtomicBool::new(false) })
    }

    /// What waits in the queues of all connections of the endpoint.
    pub(crate) fn queue_total(&self) -> &Arc<QueueTotal> {
        &self.ready.queue_total
    }

    /// Lets the loop look at the connection soon.
    pub(crate) fn set(&self) {
        if !self.marked.swap(true, Ordering::AcqRel) {
            self.ready.handles.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(self.handle);
            self.ready.wake.notify_one();
        }
    }

    /// The loop looks at it now: what comes from here on needs another look.
    fn clear(&self) {
        self.marked.store(false, Ordering::Release);
    }
}
