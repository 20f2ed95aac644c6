//! From the command line to settings, for daemons and for commands that run once.

use std::path::PathBuf;

use fabric::ops::config::{self, Findings, Problems, Resolved, Settings, Sources};
use serde::Serialize;
use serde_json::json;

use crate::{exit::Exit, output};

/// The flags that decide where settings come from and whether they are only shown.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct ConfigArgs {
    /// Read this configuration file
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Say whether a start would accept the configuration, and exit
    #[arg(long)]
    check_config: bool,
    /// Print every key with its value and where the value came from, and exit
    #[arg(long, conflicts_with = "check_config")]
    print_config: bool,
    /// Print a configuration file that explains every key at its default, and exit
    #[arg(long, conflicts_with_all = ["check_config", "print_config"])]
    example_config: bool,
    /// Print JSON where text is printed otherwise
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Everything needed to read the settings of a role, now and again on a reload.
#[derive(Debug)]
pub(crate) struct Loader {
    role: &'static str,
    args: ConfigArgs,
    flags: serde_json::Value,
}

impl Loader {
    /// `flags` are structures that serialise to maps from key to value, null or empty where a flag was not given.
    pub(crate) fn new(role: &'static str, args: ConfigArgs, flags: &[&dyn ErasedFlags]) -> Self {
        let maps = flags.iter().filter_map(|flags| flags.to_map());
        Self { role, args, flags: maps.flatten().collect::<serde_json::Map<_, _>>().into() }
    }

    /// Whether JSON was asked for.
    pub(crate) const fn json(&self) -> bool {
        self.args.json
    }

    /// Reads the settings. Every complaint a start would make is made here.
    pub(crate) fn load<S: Settings>(
        &self,
        check: impl FnOnce(&S, &mut Findings),
    ) -> Result<(Sources, Resolved<S>), Problems> {
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let sources = Sources::gather(self.role, self.args.config.as_deref(), environment, &self.flags)?;
        let resolved = config::resolve(&sources, check)?;
        Ok((sources, resolved))
    }

    /// Reads the settings for a start. `Err` says how the command ends instead: the settings are wrong, or were only to be
    /// checked or shown, on the same path.
    pub(crate) fn settle<S: Settings>(
        &self,
        check: impl FnOnce(&S, &mut Findings),
    ) -> Result<(Sources, Resolved<S>), Exit> {
        if self.args.example_config {
            return Err(output::data(&config::example_yaml(&self.title(), &S::keys())));
        }
        let (sources, resolved) = self.load(check).map_err(|problems| self.refuse(&problems))?;
        if self.args.print_config {
            return Err(self.print(&resolved));
        }
        if self.args.check_config {
            return Err(self.approve(&resolved));
        }
        Ok((sources, resolved))
    }

    fn title(&self) -> String {
        let role = self.role;
        format!(
            "Configuration of nzc {role}: nzc {role} --config FILE\n\
             Every key stands here at its default. See nzc.yaml(5)."
        )
    }

    /// Tells what is wrong and how the command ends.
    pub(crate) fn refuse(&self, problems: &Problems) -> Exit {
        if self.args.json && (self.args.check_config || self.args.print_config) {
            output::json(&json!({ "ok": false, "problems": problems.0 }));
        }
        for problem in &problems.0 {
            output::complain(problem);
        }
        // What was typed is a matter of usage; what was written down is a matter of configuration.
        let typed = |problem: &config::Problem| matches!(problem.origin, config::Origin::Flag { .. });
        if problems.0.iter().all(typed) { Exit::Usage } else { Exit::Config }
    }

    fn print<S>(&self, resolved: &Resolved<S>) -> Exit {
        if self.args.json {
            output::json(&json!({ "digest": resolved.digest(), "settings": resolved.listing }))
        } else {
            output::data(&config::listing(&resolved.listing))
        }
    }

    fn approve<S>(&self, resolved: &Resolved<S>) -> Exit {
        for warning in &resolved.warnings {
            output::complain(warning);
        }
        if self.args.json {
            output::json(&json!({ "ok": true, "digest": resolved.digest(), "problems": [] }))
        } else {
            output::data(&format!("the configuration is sound, digest {}\n", resolved.digest()))
        }
    }
}

/// Flags of any shape that serialise to a map.
pub(crate) trait ErasedFlags {
    /// The map, where there is one.
    fn to_map(&self) -> Option<serde_json::Map<String, serde_json::Value>>;
}

impl<T: Serialize> ErasedFlags for T {
    fn to_map(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(map)) => Some(map),
            _ => None,
        }
    }
}
