//! What is known of processes: the server that is measured, one that is started for it, the load generator
//! itself, and the machine they all share.
//!
//! | file | owns |
//! |---|---|
//! | `watch` | CPU time and memory of a server, by process or by control group |
//! | `started` | a server that the load generator starts and ends itself |
//! | `guard` | the end of such a server when the load generator is killed |
//! | `own` | the load generator's CPU time, cores and descriptors |
//! | `machine` | how busy the whole machine was, so that a report can tell that others were running |
//! | `stat` | `/proc/PID/stat`, for the others here |

mod guard;
mod machine;
mod own;
mod started;
mod stat;
mod watch;

pub use machine::{MachineError, MachineTimes, MachineUse};
pub use own::{
    Cores, CoresError, cores_allowed, descriptors_max, descriptors_open, parse_cores, pin,
    ports_per_address, process_cpu, raise_descriptors_max, thread_cpu,
};
pub use started::{
    LastLines, Output, PATIENCE, ServerCommand, ServerError, StartedServer, Stopped, StoppedBy,
    nobody_accepts,
};
pub use watch::{Usage, Watch, WatchError};
