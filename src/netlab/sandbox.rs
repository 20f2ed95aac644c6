//! The re-execution that gives a program a network of its own without privileges.
//!
//! 1. The process replaces itself by `unshare`, which makes user, mount, PID and network namespaces and starts a shell
//!    as their first process.
//! 2. The shell mounts an empty `/run` (named network namespaces live there), starts the same program with the same
//!    arguments and waits for it. The program gets the INT of a terminal; the other two ignore it and end with it.
//! 3. Whichever of the three ends, the kernel ends every process inside: `unshare` takes the shell with it
//!    (`--kill-child`), and the first process of a PID namespace takes everything else.
//!
//! Nothing is left behind, not even after SIGKILL: named namespaces are mounts in a mount namespace that is gone.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use super::LabError;

/// Tells the second life of a program that it is inside. The value is the process ID of the sandbox's shell: 1.
const INSIDE: &str = "NZC_LAB_SANDBOX";

/// What the first process of the sandbox runs. System folders are added for `ip` and `nft`, which a user's PATH lacks.
const FIRST_PROCESS: &str = r#"
PATH="$PATH:/usr/sbin:/sbin"; export PATH
mount -t tmpfs nzc-lab /run && mkdir /run/netns && ip link set lo up || exit 70
"$@"
exit $?
"#;

/// The flags of `unshare`: user, root inside, network, mount, PID, fork.
const FLAGS: [&str; 2] = ["-Urnmpf", "--kill-child"];

/// Whether this process runs in a sandbox already.
#[must_use]
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Says why a sandbox cannot be made here, or nothing where it can.
///
/// # Errors
/// [`LabError::Program`] where a program is missing, [`LabError::NotAllowed`] where the system refuses.
pub fn available() -> Result<(), LabError> {
    for (program, argument) in [("unshare", "--version"), ("nsenter", "--version"), ("ip", "-V"), ("nft", "--version")]
    {
        system_command(program)
            .arg(argument)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|source| LabError::Program { program: program.to_owned(), source })?;
    }
    if inside() {
        return Ok(());
    }
    // Loads the table code of nftables too: some systems allow namespaces and no firewall in them.
    let tried = system_command("unshare")
        .args(FLAGS)
        .args(["sh", "-c", FIRST_PROCESS, "sh", "nft", "add table inet nzc"])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| LabError::Program { program: "unshare".to_owned(), source })?;
    if tried.status.success() {
        Ok(())
    } else {
        Err(LabError::NotAllowed(String::from_utf8_lossy(&tried.stderr).trim().replace('\n', "; ")))
    }
}

/// Continues in a sandbox: returns at once inside one, otherwise replaces the process and never returns on success.
///
/// The program starts over from the beginning of `main`, with the same arguments and environment. Call it before
/// threads, sockets or files exist.
///
/// # Errors
/// As [`available`].
pub fn enter() -> Result<(), LabError> {
    if inside() {
        return Ok(());
    }
    available()?;
    let program =
        std::env::current_exe().map_err(|source| LabError::Program { program: "this program".to_owned(), source })?;
    let source = system_command("unshare")
        .args(FLAGS)
        .args(["sh", "-c", FIRST_PROCESS, "sh"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(LabError::Program { program: "unshare".to_owned(), source })
}

/// A command looked for in PATH and in the system folders.
pub(super) fn system_command(program: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file());
    Command::new(found.unwrap_or_else(|| program.into()))
}
