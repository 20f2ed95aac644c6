use super::*;

crate::settings! {
    /// Keys for the tests.
    struct Sample {
        /// Where to listen.
        /// Repeatable.
        listen [restart]: Vec<std::net::SocketAddr> = vec![([127, 0, 0, 1], 3478).into()],
        /// How long to wait.
        drain_timeout: Span = Span::from_secs(120),
        /// Which numbers.
        numbers: Vec<u8> = Vec::new(),
        /// How many.
        connections: u16 = 64,
        /// Who signs.
        realm: Option<String> = None,
        /// The password.
        password [secret]: Option<Secret> = None,
    }
}

fn sources(yaml: &str, environment: &[(&str, &str)], flags: Value) -> Sources {
    let Value::Object(flags) = flags else { panic!("flags are a map") };
    Sources {
        prefix: "NZC_SAMPLE_".to_owned(),
        file: Some((PathBuf::from("sample.yaml"), yaml.to_owned())),
        environment: environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        flags,
    }
}

fn read(yaml: &str, environment: &[(&str, &str)], flags: Value) -> Result<Resolved<Sample>, Problems> {
    resolve(&sources(yaml, environment, flags), |_, _| {})
}

fn complaints(yaml: &str) -> Vec<String> {
    read(yaml, &[], serde_json::json!({})).unwrap_err().0.iter().map(Problem::to_string).collect()
}

#[test]
fn flags_beat_environment_beats_file_beats_defaults() {
    let yaml = "connections: 1\ndrain_timeout: 1s\nrealm: file\n";
    let env = [("NZC_SAMPLE_CONNECTIONS", "2"), ("NZC_SAMPLE_DRAIN_TIMEOUT", "2s")];
    let resolved = read(yaml, &env, serde_json::json!({"connections": 3})).unwrap();
    let Sample { connections, drain_timeout, realm, listen, .. } = resolved.settings.clone();
    assert_eq!((connections, drain_timeout, realm.as_deref()), (3, Span::from_secs(2), Some("file")));
    assert_eq!(listen, Sample::default().listen);
    let origins: Vec<_> = resolved.listing.iter().map(|it| it.origin.to_string()).collect();
    assert_eq!(
        origins,
        [
            "default",
            "environment NZC_SAMPLE_DRAIN_TIMEOUT",
            "default",
            "flag --connections",
            "sample.yaml:3:1",
            "default"
        ]
    );
}

#[test]
fn a_value_that_does_not_fit_is_a_problem_even_where_a_flag_overrules_it() {
    let problems = read("connections: many\n", &[], serde_json::json!({"connections": 3})).unwrap_err();
    assert!(problems.0[0].to_string().starts_with("sample.yaml:1:14: `connections`: "), "{problems}");
}

#[test]
fn a_bad_value_names_its_key_its_place_and_the_part_that_is_wrong() {
    let found = complaints("listen:\n  - 127.0.0.1:1\n  - nonsense\n");
    assert_eq!(found, ["sample.yaml:3:5: `listen[1]`: invalid socket address syntax"]);
    assert_eq!(
        complaints("drain_timeout: 5 parsecs\n"),
        [
            "sample.yaml:1:16: `drain_timeout`: `5 parsecs`: expected a whole number with a unit of ms, s, m, h or d, like 30s"
        ]
    );
}

#[test]
fn all_problems_are_reported_at_once_with_suggestions() {
    let found = complaints("lisen: []\nconnections: 1\n\nconnections: 2\n  \nzzzzz: 1\n");
    assert_eq!(
        found,
        [
            "sample.yaml:1:1: unknown key `lisen`, did you mean `listen`?",
            "sample.yaml:4:1: `connections` is set a second time",
            "sample.yaml:6:1: unknown key `zzzzz`",
        ]
    );
}

#[test]
fn a_list_in_a_variable_is_split_at_commas() {
    let resolved = read("", &[("NZC_SAMPLE_LISTEN", "127.0.0.1:1, [::1]:2")], serde_json::json!({})).unwrap();
    assert_eq!(resolved.settings.listen, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
    for numbers in ["1,2", "[1, 2]", "1, 2"] {
        let resolved = read("", &[("NZC_SAMPLE_NUMBERS", numbers)], serde_json::json!({})).unwrap();
        assert_eq!(resolved.settings.numbers, [1, 2], "{numbers}");
    }
}

#[test]
fn a_secret_comes_from_the_file_its_variable_names_and_never_shows() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "hunter2\n").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let path = path.as_str();
    let resolved = read("", &[("NZC_SAMPLE_PASSWORD_FILE", path)], serde_json::json!({})).unwrap();
    assert_eq!(resolved.settings.password.as_ref().map(Secret::expose), Some("hunter2"));
    assert!(!listing(&resolved.listing).contains("hunter2"));
    assert!(listing(&resolved.listing).contains(REDACTED));
    let twice = [("NZC_SAMPLE_PASSWORD", "x"), ("NZC_SAMPLE_PASSWORD_FILE", path)];
    assert!(read("", &twice, serde_json::json!({})).unwrap_err().to_string().contains("is set twice"));
    drop(file);
    let gone = read("", &[("NZC_SAMPLE_PASSWORD_FILE", path)], serde_json::json!({})).unwrap_err();
    assert!(gone.to_string().contains("cannot be read"), "{gone}");
}

#[test]
fn n25_a_secret_of_the_wrong_shape_is_refused_without_being_quoted() {
    for yaml in ["password: [hunter2]\n", "password: { hunter2: 1 }\n"] {
        let found = complaints(yaml);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("sample.yaml:1:") && !found[0].contains("hunter2"), "{found:?}");
    }
}

#[test]
fn a_variable_nobody_knows_is_a_warning_because_service_managers_invent_them() {
    let resolved = read("", &[("NZC_SAMPLE_CONECTIONS", "1")], serde_json::json!({})).unwrap();
    assert_eq!(resolved.warnings.len(), 1);
    assert!(resolved.warnings[0].ends_with("did you mean NZC_SAMPLE_CONNECTIONS?"), "{:?}", resolved.warnings);
}

#[test]
fn a_flag_without_a_key_is_refused() {
    assert!(read("", &[], serde_json::json!({"tpyo": 1})).is_err());
}

#[test]
fn the_example_file_reads_back_as_the_defaults_with_and_without_its_comment_signs() {
    let example = example_yaml("A sample.", &Sample::keys());
    let live: String = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|it| !it.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |mut text, line| {
            text += line;
            text.push('\n');
            text
        });
    for text in [example.as_str(), live.as_str()] {
        assert_eq!(read(text, &[], serde_json::json!({})).unwrap().settings, Sample::default(), "{text}");
    }
    assert_eq!(yaml::keys(&live).unwrap().len(), Sample::keys().len());
}

#[test]
fn the_listing_is_itself_a_configuration() {
    let resolved = read("connections: 9\nrealm: 'yes'\n", &[], serde_json::json!({})).unwrap();
    let again = read(&listing(&resolved.listing), &[], serde_json::json!({})).unwrap();
    assert_eq!(again.settings, resolved.settings);
    assert_eq!(again.digest(), resolved.digest());
    let other = read("connections: 8\n", &[], serde_json::json!({})).unwrap();
    assert_ne!(other.digest(), resolved.digest());
    assert_eq!(other.changes(&resolved).iter().map(|it| it.key).collect::<Vec<_>>(), ["connections", "realm"]);
}

#[test]
fn checks_across_keys_carry_the_origin_of_the_key_they_blame() {
    let sources = sources("\nconnections: 1\n", &[], serde_json::json!({}));
    let problems = resolve::<Sample>(&sources, |_, findings| findings.problem("connections", "too few")).unwrap_err();
    assert_eq!(problems.to_string(), "sample.yaml:2:1: `connections`: too few");
}

/// Threat A4: a mistyped key is never silently ignored.
#[test]
fn a4_two_hundred_mutated_configurations_are_refused_with_a_place_and_mostly_the_right_suggestion() {
    use rand::{RngExt as _, SeedableRng as _};
    let mut rng = rand::rngs::SmallRng::seed_from_u64(4);
    let keys = Sample::keys();
    let mut right = 0;
    for case in 0..200 {
        let victim = rng.random_range(0..keys.len());
        let mut typo = keys[victim].name.to_owned();
        while keys.iter().any(|key| key.name == typo) {
            typo = mistype(keys[victim].name, &mut rng);
        }
        let text: String = keys
            .iter()
            .enumerate()
            .map(|(n, key)| format!("{}: {}\n", if n == victim { &typo } else { key.name }, key.default))
            .collect();
        let problems = read(&text, &[], serde_json::json!({})).unwrap_err();
        let problem = &problems.0[0];
        let place = Origin::File { path: "sample.yaml".into(), line: victim + 1, column: 1 };
        assert_eq!(problem.origin, place, "case {case}: {problem}");
        right += usize::from(problem.suggestion.as_deref() == Some(keys[victim].name));
    }
    assert!(right >= 160, "{right} of 200 suggestions are right");
}

/// A slip of the kind fingers make: one letter lost, doubled, swapped, replaced, or the wrong word separator.
fn mistype(word: &str, rng: &mut impl rand::Rng) -> String {
    use rand::RngExt as _;
    let mut letters: Vec<char> = word.chars().collect();
    let at = rng.random_range(0..letters.len());
    match rng.random_range(0..6) {
        0 => drop(letters.remove(at)),
        1 => letters.insert(at, letters[at]),
        2 => letters.swap(at, (at + 1) % word.len()),
        3 => letters[at] = char::from(rng.random_range(b'a'..=b'z')),
        4 => letters[at] = letters[at].to_ascii_uppercase(),
        _ => return word.replace('_', "-"),
    }
    letters.into_iter().collect()
}
