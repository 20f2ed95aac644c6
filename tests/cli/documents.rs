//! Help, manual pages, completions and the shipped configuration files.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::server::{Dir, Finished, nzc, run};

/// The commands and, below a role, its subcommands, as the help lists them.
fn commands(of: &[&str]) -> Vec<String> {
    let help = run(&[of, &["--help"]].concat()).out;
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let list = list.split("\n\n").next().unwrap_or_default();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

fn roles() -> Vec<String> {
    let has_config = |role: &String| run(&[role, "--help"]).out.contains("--example-config");
    commands(&[]).into_iter().filter(has_config).collect()
}

/// Compares a generated file with the one that is checked in, or writes it with NZC_BLESS=1.
fn is_current(checked_in: &Path, generated: &str) {
    if std::env::var_os("NZC_BLESS").is_some() {
        fs::create_dir_all(checked_in.parent().unwrap()).unwrap();
        fs::write(checked_in, generated).unwrap();
        return;
    }
    let there = fs::read_to_string(checked_in).unwrap_or_default();
    assert!(
        there == generated,
        "{} is not current; `NZC_BLESS=1 cargo test --test cli documents` writes it again",
        checked_in.display()
    );
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let mut pending: Vec<Vec<String>> = vec![vec![]];
    let mut seen = 0;
    while let Some(path) = pending.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let help = run(&[&words[..], &["--help"]].concat());
        assert_eq!(help.code, 0, "{path:?}");
        let subs = commands(&words);
        // A command that only groups others needs no example of its own.
        if subs.is_empty() || words.len() < 2 && words != ["audit"] {
            assert!(help.out.contains("Example"), "nzc {} has no example:\n{}", path.join(" "), help.out);
        }
        seen += 1;
        pending.extend(subs.into_iter().map(|sub| [path.clone(), vec![sub]].concat()));
    }
    assert!(seen >= 6, "{seen} commands");
}

#[test]
fn the_manual_pages_that_are_checked_in_are_current() {
    let dir = Dir::new();
    let done = run(&["man", dir.path().to_str().unwrap()]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in &names {
        is_current(&Path::new("man").join(name), &fs::read_to_string(dir.path().join(name)).unwrap());
    }
    let mut there: Vec<_> = fs::read_dir("man").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, names, "pages of commands that are gone, or missing ones");
    assert_eq!(run(&["man", "/nonexistent"]).code, 73);
}

#[test]
fn the_configuration_files_that_are_checked_in_explain_every_key_at_its_default() {
    let dir = Dir::new();
    for role in roles() {
        let example = run(&[&role, "--example-config"]).out;
        is_current(&Path::new("configs").join(format!("{role}.yaml")), &example);
        let mut live = String::new();
        for line in example.lines() {
            live.push_str(line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
            live.push('\n');
        }
        let file = dir.file("live.yaml", &live);
        let settings = |args: &[&str]| -> BTreeMap<String, (Value, String)> {
            let Finished { code, out, err } = run(&[&[role.as_str(), "--print-config", "--json"], args].concat());
            assert_eq!(code, 0, "{err}");
            let shown: Value = serde_json::from_str(&out).unwrap();
            let all = shown["settings"].as_array().unwrap().iter();
            all.map(|it| {
                let from = it["origin"]["from"].as_str().unwrap().to_owned();
                (it["key"].as_str().unwrap().to_owned(), (it["value"].clone(), from))
            })
            .collect()
        };
        let (defaults, written) = (settings(&[]), settings(&["--config", &file]));
        assert_eq!(defaults.keys().collect::<Vec<_>>(), written.keys().collect::<Vec<_>>());
        for (key, (value, from)) in &written {
            assert_eq!(value, &defaults[key].0, "{role}: the file sets {key} to something else than its default");
            assert_eq!(from, "file", "{role}: the file does not mention {key}");
        }
    }
}

#[test]
fn completions_exist_for_every_shell_and_bash_can_read_them() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let done = run(&["completions", shell]);
        assert_eq!(done.code, 0);
        assert!(done.out.contains("stun-server"), "{shell}");
    }
    let dir = Dir::new();
    let script = dir.file("nzc.bash", &run(&["completions", "bash"]).out);
    // Where there is no bash, nobody needs its completions.
    if let Ok(status) = Command::new("bash").args(["-n", &script]).status() {
        assert!(status.success());
    }
    assert_eq!(run(&["completions", "cmd.exe"]).code, 64);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = nzc().args(["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut complaints = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
    assert_eq!((child.wait().unwrap().code(), complaints.as_str()), (Some(0), ""));
}

#[test]
fn help_and_version_are_data() {
    let help = run(&["--help"]);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    let version = run(&["--version"]);
    assert_eq!(version.out, concat!("nzc ", env!("CARGO_PKG_VERSION"), "\n"));
}
