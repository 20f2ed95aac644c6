//! What changed between two reports.

use serde::Serialize;
use serde_json::Value;

use fabric::nat::report::Report;

/// One difference.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Change {
    /// Where in the report, as a JSON pointer.
    pub(crate) at: String,
    /// What it was; null is absent or unknown.
    pub(crate) old: Value,
    /// What it is.
    pub(crate) new: Value,
}

/// Lists what changed and matters. What differs from run to run by nature is left out: times, costs, packets, the
/// evidence, and the port of an address.
pub(crate) fn changes(old: &Report, new: &Report) -> Vec<Change> {
    let (old, new) = (telling(old), telling(new));
    let mut changes = Vec::new();
    walk(String::new(), &old, &new, &mut changes);
    changes
}

/// The lines a person reads.
pub(crate) fn text(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "nothing changed\n".to_owned();
    }
    let word = |value: &Value| match value {
        Value::Null => "unknown".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    changes
        .iter()
        .map(|change| {
            let path = change.at.trim_start_matches('/').replace('/', " ");
            format!("{path}: {} -> {}\n", word(&change.old), word(&change.new))
        })
        .collect()
}

fn telling(report: &Report) -> Value {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        for noise in ["elapsed_ms", "program", "summary"] {
            map.remove(noise);
        }
    }
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for noise in
                ["advice", "because", "core_ms", "cost", "elapsed_ms", "outlook", "packets", "servers", "steps"]
            {
                map.remove(noise);
            }
            for name in ["local", "mapped"] {
                if let Some(Value::String(address)) = map.get_mut(name) {
                    let ip = address.rsplit_once(':').map(|(ip, _)| ip.to_owned());
                    *address = ip.unwrap_or_default();
                }
            }
            map.values_mut().for_each(prune);
        }
        Value::Array(values) => values.iter_mut().for_each(prune),
        _ => {}
    }
}

fn walk(at: String, old: &Value, new: &Value, changes: &mut Vec<Change>) {
    if let (Value::Object(before), Value::Object(after)) = (old, new) {
        let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
            walk(format!("{at}/{key}"), &side(before), &side(after), changes);
        }
    } else if old != new {
        changes.push(Change { at, old: old.clone(), new: new.clone() });
    }
}

#[cfg(test)]
mod tests {
    use fabric::nat::report::{Behaviour, Verdict, finish, unprobed};

    use super::*;

    fn report(mapping: Behaviour, mapped: &str) -> Report {
        let mut report = finish(String::new(), 0.0, unprobed("test"), unprobed("test"), Vec::new());
        assert_eq!(report.verdict, Verdict::Blocked);
        report.ipv4.udp.mapping = mapping;
        report.ipv4.udp.mapped = mapped.parse().ok();
        report
    }

    #[test]
    fn another_port_is_no_change_and_another_address_is_one() {
        let old = report(Behaviour::EndpointIndependent, "11.0.0.1:1000");
        assert!(changes(&old, &report(Behaviour::EndpointIndependent, "11.0.0.1:2000")).is_empty());
        let moved = changes(&old, &report(Behaviour::EndpointIndependent, "11.0.0.2:1000"));
        assert_eq!(moved.len(), 1);
        assert_eq!(moved[0].at, "/ipv4/udp/mapped");
    }

    #[test]
    fn another_behaviour_is_said_in_words() {
        let old = report(Behaviour::EndpointIndependent, "11.0.0.1:1");
        let new = report(Behaviour::Unknown, "11.0.0.1:1");
        assert_eq!(text(&changes(&old, &new)), "ipv4 udp mapping: endpoint-independent -> unknown\n");
        assert_eq!(text(&changes(&old, &old)), "nothing changed\n");
    }
}
