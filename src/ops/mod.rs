//! What every daemon needs to be operated, whatever it serves. It names no domain.
//!
//! - [`config`] resolves flags, environment, file and defaults; [`listen`] opens or inherits the sockets.
//! - [`logging`] and [`metrics`] tell what happens; [`health`] tells whether it is well; [`status`] is the board all of it
//!   is written on; [`admin`] serves it over HTTP.
//! - [`signals`] and [`systemd`] connect the process to its operator and its service manager.

pub mod admin;
pub mod audit;
pub mod config;
pub mod health;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod rfc3339;
pub mod signals;
pub mod status;
pub mod systemd;
