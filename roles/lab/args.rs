//! The command line of the lab.

/// Runs the roles on this machine and checks that they work together
///
/// The lab starts a STUN server on two loopback addresses and ports of its own choosing, asks it over UDP and TCP,
/// takes a NAT diagnosis through it, stops it, and prints what it measured. It needs no privileges, no network and no
/// configuration, takes a few seconds, and leaves nothing behind.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Prints {"checks":[{"name","ok","value","unit"}]} instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  Check that everything works on this machine:
      nzc lab

  The same for a script; exit status 0 only when every check is ok:
      nzc lab --json

Exit status:
  0   every check is ok
  69  a check is not ok";
