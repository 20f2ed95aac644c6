//! How the process ends, in the numbers of sysexits.h.

use std::process::ExitCode;

/// The end of a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// The command line makes no sense.
    Usage,
    /// Data that was handed in is broken.
    Data,
    /// A file that was named cannot be read.
    NoInput,
    /// An address, a port or a server cannot be had.
    Unavailable,
    /// A mistake of this program.
    Internal,
    /// Not enough came back to tell, or what came back contradicts itself.
    Inconclusive,
    /// Interrupted by a signal before there was a result.
    Interrupted,
    /// A file cannot be created.
    CannotCreate,
    /// A privilege is missing.
    Permission,
    /// The configuration makes no sense.
    Config,
}

impl Exit {
    /// The number the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Inconclusive => 10,
            Self::Usage => 64,
            Self::Data => 65,
            Self::NoInput => 66,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::CannotCreate => 73,
            Self::Permission => 77,
            Self::Config => 78,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
