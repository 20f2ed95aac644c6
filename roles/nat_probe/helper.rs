//! `nzc nat-probe --listen`: the helper of a probe elsewhere.
//!
//! One address is enough. The helper answers over UDP and TCP, and whoever asks over TCP, which proves their address, it
//! calls back from a port they never saw. Only the address that asked is ever called, so the helper is no use against
//! third parties.

use std::net::SocketAddr;

use fabric::ops::health::Health;
use fabric::ops::listen::Listeners;
use fabric::stun::Settings;
use fabric::stun::driver::{Config, Live, Server};
use serde_json::json;

use crate::exit::Exit;
use crate::output;

/// Serves until it is interrupted.
pub(super) async fn serve(listen: SocketAddr, as_json: bool) -> Exit {
    let settings = Settings { dial_back: Some(Settings::DIAL_BACK_RATE), ..Settings::default() };
    let config = Config { listen: vec![listen], live: Live { settings, ..Live::default() }, ..Config::default() };
    let mut listeners = Listeners::default();
    let mut server = match Server::start(config, &mut listeners, &Health::default()) {
        Ok(server) => server,
        Err(error) => {
            output::complain(error);
            return Exit::Unavailable;
        }
    };
    let addresses: Vec<_> = server.listening().iter().map(|it| format!("{}://{}", it.transport, it.address)).collect();
    let printed = if as_json {
        output::data(&format!("{}\n", json!({ "role": "nat-probe", "pid": std::process::id(), "listen": addresses })))
    } else {
        output::data(&format!("helping on {}; Ctrl-C ends it\n", addresses.join(", ")))
    };
    if printed != Exit::Ok {
        return printed;
    }
    let failure = server.failure();
    tokio::select! {
        () = super::interrupted() => {
            server.drain().await;
            Exit::Ok
        }
        thread = failure => {
            output::complain(format_args!("{thread} ended, which it must not"));
            Exit::Internal
        }
    }
}
