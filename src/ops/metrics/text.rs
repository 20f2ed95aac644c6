//! OpenMetrics to the text format 0.0.4, which older scrapers and lint tools read.
//!
//! The two differ in what a family is called: OpenMetrics names a counter without its `_total` and an info without its
//! `_info`, the older format names the sample itself. Units become part of the name in both.

/// Rewrites the comment lines; samples are the same in both formats.
pub(super) fn from_openmetrics(open: &str) -> String {
    let mut plain = String::with_capacity(open.len());
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            if !line.starts_with("# UNIT ") {
                push(&mut plain, &[line]);
            }
            continue;
        };
        let Some(kind) = lines.peek().and_then(|line| line.strip_prefix("# TYPE ")?.rsplit(' ').next()) else {
            push(&mut plain, &[line]);
            continue;
        };
        let (suffix, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            other => ("", other),
        };
        push(&mut plain, &["# HELP ", name, suffix, " ", help]);
        push(&mut plain, &["# TYPE ", name, suffix, " ", kind]);
        lines.next();
    }
    plain
}

fn push(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
    text.push('\n');
}
