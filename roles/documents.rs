//! Manual pages and shell completions, both made from the definition of the command line and of the keys.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Arg, Command};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, italic, roman},
};
use fabric::ops::config::Key;

use crate::{exit::Exit, output};

/// The name of a role and its keys.
pub(crate) type RoleKeys = (&'static str, fn() -> Vec<Key>);

/// Print a script that completes commands and flags in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: for this bash, and for every later one\n  \
    source <(nzc completions bash)\n  \
    nzc completions bash > ~/.local/share/bash-completion/completions/nzc")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: read the page of the STUN server\n  \
    nzc man /tmp/nzc-man\n  \
    man /tmp/nzc-man/nzc-stun-server.1")]
pub(crate) struct ManArgs {
    /// The directory, which must exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// When the pages last changed in substance; mandoc(1) wants a date and a build must not invent one.
const DATE: &str = "2026-11-22";
const MANUAL: &str = "nzc manual";

/// Prints the completion script.
pub(crate) fn completions(args: &CompletionsArgs, mut command: Command) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "nzc", &mut script);
    output::data(&String::from_utf8_lossy(&script))
}

/// Writes nzc.1, a page for each command and nzc.yaml.5.
pub(crate) fn man(args: &ManArgs, command: Command, roles: &[RoleKeys]) -> Exit {
    match pages(command, roles).and_then(|pages| write(&args.directory, &pages)) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            output::complain(format_args!("{}: {error}", args.directory.display()));
            Exit::CannotCreate
        }
    }
}

fn write(directory: &Path, pages: &[(String, String)]) -> io::Result<()> {
    pages.iter().try_for_each(|(name, text)| fs::write(directory.join(name), text))
}

fn pages(command: Command, roles: &[RoleKeys]) -> io::Result<Vec<(String, String)>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = vec![("nzc.1".to_owned(), page(&command, &command)?)];
    for sub in command.get_subcommands() {
        pages.push((format!("nzc-{}.1", sub.get_name()), page(sub, &command)?));
    }
    pages.push(("nzc.yaml.5".to_owned(), file_page(roles)));
    Ok(pages)
}

/// One page of section 1. Subcommands of a role have a section on its page instead of pages of their own.
fn page(command: &Command, whole: &Command) -> io::Result<String> {
    let title = if command.get_name() == "nzc" { "nzc".to_owned() } else { format!("nzc-{}", command.get_name()) };
    let named = command.clone().display_name(title.clone());
    let man = Man::new(named).title(title.to_uppercase()).date(DATE).source(source()).manual(MANUAL);
    let mut bytes = Vec::new();
    man.render_title(&mut bytes)?;
    man.render_name_section(&mut bytes)?;
    man.render_synopsis_section(&mut bytes)?;
    man.render_description_section(&mut bytes)?;
    let mut roff = Roff::new();
    sections_of_flags(&mut roff, command);
    let is_top = command.get_name() == whole.get_name();
    if command.has_subcommands() {
        roff.control("SH", ["COMMANDS"]);
        for sub in command.get_subcommands() {
            if is_top {
                roff.control("TP", []).text([bold(format!("nzc-{}", sub.get_name())), roman("(1)")]);
                roff.text([roman(about(sub))]);
            } else {
                subcommand(&mut roff, sub);
            }
        }
    }
    after_help(&mut roff, command);
    roff.control("SH", ["SEE ALSO"]);
    let mut others: Vec<_> = whole.get_subcommands().map(|sub| format!("nzc-{}", sub.get_name())).collect();
    others.insert(0, "nzc".to_owned());
    others.retain(|other| *other != title);
    roff.text(others.iter().flat_map(|other| [bold(other.as_str()), roman("(1), ")]).collect::<Vec<_>>());
    roff.text([bold("nzc.yaml"), roman("(5)")]);
    bytes.extend(roff.render().into_bytes());
    Ok(tidy(&String::from_utf8_lossy(&bytes)))
}

fn source() -> String {
    format!("nzc {}", env!("CARGO_PKG_VERSION"))
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn subcommand(roff: &mut Roff, command: &Command) {
    roff.control("SS", [command.get_name()]);
    roff.text([roman(about(command))]);
    let own = command.get_arguments().filter(|arg| !arg.is_global_set() && !is_help(arg));
    flags(roff, own);
    if let Some(help) = command.get_after_help() {
        verbatim(roff, &help.to_string());
    }
}

fn is_help(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

/// A section for the flags without a heading, and one for each heading.
fn sections_of_flags(roff: &mut Roff, command: &Command) {
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    headings.sort_by_key(Option::is_some);
    for heading in headings {
        roff.control("SH", [heading.unwrap_or("options").to_uppercase().as_str()]);
        flags(roff, command.get_arguments().filter(|arg| arg.get_help_heading() == heading && !arg.is_hide_set()));
    }
}

fn flags<'a>(roff: &mut Roff, args: impl Iterator<Item = &'a Arg>) {
    for arg in args {
        roff.control("TP", []).text(signature(arg));
        let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let mut sentence = help.replace('\n', " ");
        let values: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        if !values.is_empty() && !is_switch(arg) {
            sentence.push_str(&format!("; one of {}", values.join(", ")));
        }
        roff.text([roman(sentence + ".")]);
    }
}

fn is_switch(arg: &Arg) -> bool {
    !arg.get_action().takes_values()
}

fn signature(arg: &Arg) -> Vec<Inline> {
    let mut parts = Vec::new();
    if let Some(short) = arg.get_short() {
        parts.push(bold(format!("-{short}")));
    }
    if let Some(long) = arg.get_long() {
        if !parts.is_empty() {
            parts.push(roman(", "));
        }
        parts.push(bold(format!("--{long}")));
    }
    if !is_switch(arg) {
        let name =
            arg.get_value_names().map(|names| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" "));
        if !parts.is_empty() {
            parts.push(roman(" "));
        }
        parts.push(italic(name.unwrap_or_else(|| arg.get_id().as_str().to_uppercase())));
    }
    parts
}

/// The text after the help: a paragraph that ends in "Examples:" opens the examples, whose indented lines stay as they are.
fn after_help(roff: &mut Roff, command: &Command) {
    let Some(help) = command.get_after_help() else { return };
    roff.control("SH", ["EXAMPLES AND NOTES"]);
    verbatim(roff, &help.to_string());
}

/// Prose is filled, indented lines are not.
fn verbatim(roff: &mut Roff, text: &str) {
    let mut indented = false;
    let mut fresh = true;
    for line in text.lines() {
        let code = line.starts_with("    ") || (line.starts_with("  ") && line.trim_start().starts_with("nzc"));
        if code != indented {
            if code {
                roff.control("RS", ["4"]).control("nf", []);
            } else {
                roff.control("fi", []).control("RE", []);
            }
            indented = code;
        }
        if line.trim().is_empty() {
            fresh = true;
            continue;
        }
        if !code && (fresh || line.starts_with(' ')) {
            roff.control("PP", []);
        }
        fresh = false;
        roff.text([roman(line.trim())]);
    }
    if indented {
        roff.control("fi", []).control("RE", []);
    }
}

/// The page of section 5: the file format and every key of every role.
fn file_page(roles: &[RoleKeys]) -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["NZC.YAML", "5", DATE, &source(), MANUAL]);
    roff.control("SH", ["NAME"]).text([roman("nzc.yaml - configuration of the roles of nzc")]);
    roff.control("SH", ["SYNOPSIS"]).text([
        bold("nzc"),
        roman(" "),
        italic("ROLE"),
        roman(" --config "),
        italic("FILE"),
    ]);
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in [
        "A configuration file is one YAML mapping from keys to values. Each role has a file and keys of its own. Nothing \
         has to be set: a role runs with its defaults.",
        "A value is taken from the strongest place that has it: a flag, then a variable of the environment, then the \
         file, then the default. The key drain_timeout of the role stun-server is the flag --drain-timeout and the \
         variable NZC_STUN_SERVER_DRAIN_TIMEOUT. In a variable, the items of a list are separated by commas. A secret \
         may also be read from a file that a variable with the suffix _FILE names. The file itself may be named by \
         the variable NZC_STUN_SERVER_CONFIG.",
        "Unknown and repeated keys are errors, reported with line and column and with the key that was probably meant. \
         Unknown variables are warnings. Check a file with --check-config, see what is in force and where it came from \
         with --print-config, and print a file to start from with --example-config.",
        "Durations are whole numbers with a unit: ms, s, m, h or d. An IPv6 address with a port must be quoted, because \
         YAML reads a leading bracket as a list: \"[::1]:3478\".",
        "On HUP the file is read again. If anything in it is wrong, the old configuration stays in force, and the status \
         says why. Keys marked below as waiting for the next start are reported by the status until then.",
    ] {
        roff.control("PP", []).text([roman(paragraph)]);
    }
    for (role, keys) in roles {
        roff.control("SH", [format!("KEYS OF {}", role.to_uppercase()).as_str()]);
        for key in keys() {
            let default = serde_json::to_string(&key.default).unwrap_or_default();
            roff.control("TP", []).text([bold(key.name), roman(format!(" (default {default})"))]);
            let doc = key.doc.replace('\n', " ");
            let waits = if key.restart { " A change waits for the next start." } else { "" };
            let secret = if key.secret { " Never shown; may be read from a file." } else { "" };
            roff.text([roman(format!("{doc}{waits}{secret}"))]);
        }
    }
    roff.control("SH", ["EXAMPLES"])
        .text([roman("Serve STUN on one address and keep serving for five seconds on TERM:")]);
    roff.control("PP", []).control("RS", ["4"]).control("nf", []);
    for line in ["listen: [192.0.2.1:3478, \"[2001:db8::1]:3478\"]", "drain_grace: 5s"] {
        roff.text([roman(line)]);
    }
    roff.control("fi", []).control("RE", []);
    roff.control("SH", ["SEE ALSO"]).text([bold("nzc"), roman("(1)")]);
    tidy(&roff.render())
}

/// What mandoc(1) objects to in generated pages: a paragraph right after a heading, spaces at line ends, long lines.
fn tidy(page: &str) -> String {
    let mut tidy = String::with_capacity(page.len());
    let (mut after_heading, mut filled) = (false, true);
    for line in page.lines() {
        if after_heading && line == ".PP" {
            continue;
        }
        after_heading = line.starts_with(".SH") || line.starts_with(".SS");
        filled = (filled || line == ".fi") && line != ".nf";
        if line.starts_with(['.', '\'']) || !filled {
            tidy.push_str(line.trim_end());
            tidy.push('\n');
        } else {
            wrap(&mut tidy, line);
        }
    }
    tidy
}

/// The longest line mandoc(1) finds short enough, in bytes.
const WIDTH: usize = 80;

/// Breaks a filled line at its spaces. A word that roff would take for a request never opens a line.
fn wrap(out: &mut String, line: &str) {
    let mut length = 0;
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        if length > 0 {
            let breaks = length + 1 + word.len() > WIDTH && !word.starts_with(['.', '\'']);
            out.push(if breaks { '\n' } else { ' ' });
            length = if breaks { 0 } else { length + 1 };
        }
        out.push_str(word);
        length += word.len();
    }
    out.push('\n');
}
