//! `nzc nat-probe`: a diagnosis of the NAT in front of this host, from a shell.
//!
//! The role reads the keys, shows progress on standard error while the library asks, and prints the report.

pub(crate) mod args;
mod compare;
mod config;
mod guard;
mod helper;
mod progress;
mod table;

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use fabric::nat::driver::{Options, probe};
use fabric::nat::port_map::journal::driver::Journal;
use fabric::nat::report::{Report, Verdict, redact};
use serde_json::json;

use crate::exit::Exit;
use crate::launch::{Loader, VERSION};
use crate::output;
use args::Args;
use config::{Color, Settings};

/// The name on the command line.
const ROLE: &str = "nat-probe";

/// The keys of the role, for the manual.
pub(crate) fn keys() -> Vec<fabric::ops::config::Key> {
    <Settings as fabric::ops::config::Settings>::keys()
}

/// Runs the role.
pub(crate) fn run(args: Args) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(format_args!("the system gives no threads: {error}"));
            return Exit::Internal;
        }
    };
    if args.mapping_guard {
        return runtime.block_on(guard::run());
    }
    let view = View { explain: args.explain, redact: args.redact, json: args.configuration.json };
    let switches = args.flags.switches();
    let loader = Loader::new(ROLE, args.configuration, &[&args.flags, &switches]);
    let settings: Settings = match loader.settle(Settings::check) {
        Ok((_, resolved)) => resolved.settings,
        Err(exit) => return exit,
    };
    if let Some(bind) = settings.bind
        && let Err(error) = std::net::UdpSocket::bind((bind, 0))
    {
        output::complain(format_args!(
            "cannot send from {bind}: {error}; `ip address` lists the addresses of this host"
        ));
        return Exit::Unavailable;
    }
    let old = match args.compare.as_deref().map(read).transpose() {
        Ok(old) => old,
        Err(exit) => return exit,
    };
    let exit = runtime.block_on(async {
        if let Some(listen) = args.listen {
            return helper::serve(listen, view.json).await;
        }
        let journal = if settings.port_map { guard::journal() } else { Journal::forgetful() };
        let exit = tokio::select! {
            exit = diagnose(&settings, view, old, args.watch, &journal) => exit,
            () = interrupted() => {
                output::complain("interrupted before there was a result");
                // A second signal does not wait; the guard goes on in any case.
                tokio::select! {
                    _ = journal.settle() => {}
                    () = interrupted() => {}
                }
                Exit::Interrupted
            }
        };
        journal.close();
        exit
    });
    // A name that is still being looked up must not hold the process.
    runtime.shutdown_background();
    exit
}

/// What is shown, and how.
#[derive(Clone, Copy, Debug)]
struct View {
    explain: bool,
    redact: bool,
    json: bool,
}

/// Diagnoses once, or again and again.
async fn diagnose(settings: &Settings, view: View, old: Option<Report>, watch: Option<u64>, journal: &Journal) -> Exit {
    let options = Options {
        program: format!("nzc {ROLE} {VERSION}"),
        servers: settings.server.iter().filter_map(|server| config::canonical(server).ok()).collect(),
        ipv4: settings.family.wants(true),
        ipv6: settings.family.wants(false),
        bind: settings.bind.into_iter().collect(),
        core_only: false,
        hairpin: settings.hairpin,
        lifetime: settings.lifetime.map(|span| span.0),
        tcp: settings.tcp,
        port_map: settings.port_map.then(|| journal.clone()),
        explain: view.explain,
        timeout: settings.timeout.0,
    };
    let mut last = old;
    loop {
        let line = progress::Line::new(!view.json);
        let report = probe(&options, |step| line.show(step)).await;
        line.clear();
        let verdict = exit_of(&report);
        let printed = match &last {
            Some(old) => show_changes(old, &report, settings.color, view),
            None => show(&report, settings.color, view),
        };
        if printed != Exit::Ok {
            return printed;
        }
        let Some(seconds) = watch else { return verdict };
        last = Some(report);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

const fn exit_of(report: &Report) -> Exit {
    match report.verdict {
        Verdict::Diagnosed => Exit::Ok,
        Verdict::Inconclusive => Exit::Inconclusive,
        Verdict::Blocked => Exit::Unavailable,
    }
}

fn show(report: &Report, color: Color, view: View) -> Exit {
    let names = names(report);
    if view.json {
        return show_json(report, view, &names);
    }
    let style = table::Style { colour: colours(color), explain: view.explain };
    show_text(table::render(report, style), view, &names)
}

fn show_json(value: &impl serde::Serialize, view: View, names: &[String]) -> Exit {
    match serde_json::to_string_pretty(value) {
        Ok(text) => show_text(text + "\n", view, names),
        Err(error) => {
            output::complain(format_args!("the report cannot be written as JSON: {error}"));
            Exit::Internal
        }
    }
}

fn show_text(text: String, view: View, names: &[String]) -> Exit {
    output::data(&if view.redact { redact(&text, names) } else { text })
}

/// The names of the servers, which tell as much as their addresses.
fn names(report: &Report) -> Vec<String> {
    let servers = report.ipv4.servers.iter().chain(&report.ipv6.servers);
    let mut names: Vec<String> = servers.map(|server| server.name.clone()).collect();
    names.dedup();
    names
}

fn show_changes(old: &Report, new: &Report, color: Color, view: View) -> Exit {
    let (changes, names) = (compare::changes(old, new), names(new));
    if view.json {
        return show_json(&json!({ "changes": changes, "report": new }), view, &names);
    }
    let mut text = compare::text(&changes);
    if view.explain && !changes.is_empty() {
        text.push('\n');
        text.push_str(&table::render(new, table::Style { colour: colours(color), explain: true }));
    }
    show_text(text, view, &names)
}

fn colours(color: Color) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()),
    }
}

/// Reads a report that was written with `--json`, also one with changes in it.
fn read(path: &Path) -> Result<Report, Exit> {
    let refuse = |exit, what: &dyn std::fmt::Display| {
        output::complain(format_args!("{}: {what}", path.display()));
        exit
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(Exit::NoInput, &error))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| refuse(Exit::Data, &error))?;
    let value = value.get("report").cloned().unwrap_or(value);
    serde_json::from_value(value)
        .map_err(|error| refuse(Exit::Data, &format_args!("this is no report of nat-probe --json: {error}")))
}

/// Returns on INT or TERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = match signal(SignalKind::terminate()) {
        Ok(term) => term,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}
