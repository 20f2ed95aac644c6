//! However a program in a sandbox ends, nothing of it stays: no process, no namespace.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fabric::netlab::kind::Kind;
use fabric::netlab::sandbox;
use fabric::netlab::world::{Home, Plan, World};
use libtest_mimic::{Failed, Trial};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::foreign::{Needs, trial};

/// Makes this program build a world, start a process in it, say so and wait to be killed.
const HOLD: &str = "NZC_NATLAB_HOLD";

pub(crate) fn trials() -> Vec<Trial> {
    let lab = &[Needs::Namespaces];
    vec![
        trial("a_killed_sandbox_leaves_no_process", lab, || gone_after(|child| kill(child, Signal::SIGKILL))),
        trial("an_interrupted_sandbox_leaves_no_process", lab, || gone_after(|child| killpg(child, Signal::SIGINT))),
        trial("a_terminated_sandbox_leaves_no_process", lab, || gone_after(|child| killpg(child, Signal::SIGTERM))),
        trial("the_exit_status_of_a_sandboxed_program_passes_through", lab, status),
    ]
}

/// The second life of this program in [`gone_after`] and [`status`]; returns where it is not meant.
pub(crate) fn hold() {
    let Some(mark) = std::env::var_os(HOLD) else { return };
    sandbox::enter().expect("the test that started this runs in a sandbox itself");
    if mark == "exit" {
        std::process::exit(23);
    }
    let world = World::build(&Plan::one(Home::of_kind(&Kind::ALL[0]))).expect("a world");
    let mut child = world.public().command("sleep").arg(&mark).spawn().expect("sleep");
    // The reader is the test; a line of a test harness would be in the way.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), b"ready\n");
    let _ = child.wait();
}

fn second_life(mark: &str) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(HOLD, mark).env_remove("NZC_LAB_SANDBOX").stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    command.spawn()
}

fn status() -> Result<(), Failed> {
    assert_eq!(second_life("exit")?.wait()?.code(), Some(23));
    Ok(())
}

/// Killed at the end of a test that failed half-way.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn gone_after(end: impl FnOnce(Pid) -> nix::Result<()>) -> Result<(), Failed> {
    // A duration of sleep that nobody else asks for.
    let mark = format!("{}.{}", 3600, rand::random::<u32>());
    let mut child = Guarded(second_life(&mark)?);
    let child = &mut child.0;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("piped")?).read_line(&mut line)?;
    assert_eq!(line, "ready\n");
    let begin = Instant::now();
    while !sleeper(&mark) {
        assert!(begin.elapsed() < Duration::from_secs(3), "the process inside is seen from here");
        std::thread::sleep(Duration::from_millis(5));
    }
    end(Pid::from_raw(i32::try_from(child.id())?))?;
    let begin = Instant::now();
    child.wait()?;
    while sleeper(&mark) {
        if begin.elapsed() > Duration::from_secs(3) {
            return Err("the process inside is still there".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Whether a process with this argument exists.
fn sleeper(mark: &str) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes()))
    })
}
