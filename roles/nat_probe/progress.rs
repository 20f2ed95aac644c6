//! The live line on the terminal while packets are on their way.

use std::time::Duration;

use fabric::nat::driver::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// A line on standard error that goes away at the end. Where that is no terminal there is none.
#[derive(Debug)]
pub(super) struct Line {
    bar: ProgressBar,
}

impl Line {
    /// Starts the line.
    pub(super) fn new(wanted: bool) -> Self {
        let bar = if wanted { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>3} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(80));
        Self { bar }
    }

    /// Shows what happens.
    pub(super) fn show(&self, step: Progress) {
        let message = match step {
            Progress::Resolving => "looking up servers".to_owned(),
            Progress::Probing => "asking servers".to_owned(),
            Progress::Core { ipv4, class } => {
                let family = if ipv4 { "IPv4" } else { "IPv6" };
                format!("{family} UDP: {class}; asking for more")
            }
        };
        self.bar.set_message(message);
    }

    /// Takes the line away.
    pub(super) fn clear(self) {
        self.bar.finish_and_clear();
    }
}
