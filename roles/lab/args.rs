//! The command line of the lab.

use clap::builder::PossibleValuesParser;
use fabric::netlab::kind::Kind;

/// What `--nat` takes for the list of all kinds.
pub(crate) const LIST: &str = "list";

/// Runs the roles on this machine and checks that they work together
///
/// The lab starts a STUN server on two loopback addresses and ports of its own choosing, asks it over UDP and TCP,
/// takes a NAT diagnosis through it, stops it, and prints what it measured. It needs no privileges, no network and no
/// configuration, takes a few seconds, and leaves nothing behind.
///
/// With --nat the server stands on a small internet of its own and the probe behind a router of the named kind, both in
/// network namespaces that vanish with the command. That needs no privileges either, but a system that lets users make
/// namespaces, and the programs unshare, nsenter, ip and nft.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Prints {"checks":[{"name","ok","value","unit"}]} instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Puts a router of this kind between probe and server; `list` tells what there is
    #[arg(long, value_name = "KIND", value_parser = kinds(), hide_possible_values = true)]
    pub(crate) nat: Option<String>,
}

fn kinds() -> PossibleValuesParser {
    PossibleValuesParser::new(Kind::ALL.iter().map(|kind| kind.name).chain([LIST]))
}

const EXAMPLES: &str = "\
Examples:
  Check that everything works on this machine:
      nzc lab

  The same for a script; exit status 0 only when every check is ok:
      nzc lab --json

  See what the probe says behind a NAT with a new port for each destination:
      nzc lab --nat symmetric

  Which kinds of router there are:
      nzc lab --nat list

Exit status:
  0   every check is ok
  69  a check is not ok, or this system cannot build the network that --nat asks for";
