use std::fs;

use rand::{RngExt as _, SeedableRng as _};

use super::*;

/// A directory with a log in it, gone when the test is over.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }
}

fn start(path: &Path) -> Audit {
    Audit::start(Some(path), &Metrics::new("test", "0"), &Health::default()).unwrap()
}

/// The writer of an earlier log ends when its last handle is gone, on a thread of its own.
fn start_when_free(path: &Path) -> Audit {
    let (metrics, health) = (Metrics::new("test", "0"), Health::default());
    loop {
        match Audit::start(Some(path), &metrics, &health) {
            Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::yield_now();
            }
            started => return started.unwrap(),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

fn write_log(path: &Path, records: usize) -> Head {
    let audit = start_when_free(path);
    for n in 0..records {
        audit.record("peer-denied", json!({ "peer": format!("192.0.2.{n}"), "why": "policy" }));
    }
    audit.flush(PATIENCE);
    audit.head().unwrap()
}

fn check(path: &Path) -> Result<Sound, Broken> {
    verify(&[path.to_owned()], None)
}

#[test]
fn an_untouched_log_is_sound_and_goes_on_after_a_restart() {
    let dir = Dir::new();
    let head = write_log(&dir.log(), 10);
    assert_eq!(check(&dir.log()).unwrap(), Sound { records: 11, first: 1, head });
    let head = write_log(&dir.log(), 5);
    assert_eq!(check(&dir.log()).unwrap(), Sound { records: 17, first: 1, head });
}

#[test]
fn a5_a_thousand_random_edits_are_all_found_and_never_before_their_line() {
    let dir = Dir::new();
    write_log(&dir.log(), 40);
    let original = fs::read(dir.log()).unwrap();
    let lines: Vec<&[u8]> = original.split_inclusive(|byte| *byte == b'\n').collect();
    let mut rng = rand::rngs::SmallRng::seed_from_u64(5);
    for case in 0..1000 {
        let at = rng.random_range(0..lines.len());
        let mut edited: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
        let what = match case % 7 {
            0 => {
                let byte = rng.random_range(0..edited[at].len());
                edited[at][byte] ^= 1 << rng.random_range(0..8);
                "flip a bit"
            }
            1 => {
                edited.remove(at);
                "delete a line"
            }
            2 => {
                let other = (at + rng.random_range(1..lines.len())) % lines.len();
                edited.swap(at, other);
                "swap two lines"
            }
            3 => {
                edited.insert(at, lines[at].to_vec());
                "repeat a line"
            }
            4 => {
                edited.truncate(at);
                "cut the end"
            }
            5 => {
                edited.drain(..=at);
                "cut the beginning"
            }
            _ => {
                let cut = rng.random_range(0..edited[at].len());
                edited[at].truncate(cut);
                edited.truncate(at + 1);
                "cut in a line"
            }
        };
        fs::write(dir.log(), edited.concat()).unwrap();
        let broken = check(&dir.log()).expect_err(what);
        if what == "flip a bit" || what == "delete a line" {
            assert!((at as u64 + 1..=at as u64 + 2).contains(&broken.line), "{what} in line {}: {broken}", at + 1);
        }
    }
    fs::write(dir.log(), &original).unwrap();
    assert!(check(&dir.log()).is_ok());
}

#[test]
fn a5_an_end_nobody_vouches_for_is_not_accepted() {
    let dir = Dir::new();
    let head = write_log(&dir.log(), 3);
    fs::remove_file(head_path(&dir.log())).unwrap();
    assert!(matches!(check(&dir.log()).unwrap_err().fault, Fault::NoAnchor(_)));
    assert!(verify(&[dir.log()], Some(&head)).is_ok());
    let forged = Head { hash: Head::default().hash, ..head.clone() };
    assert!(matches!(verify(&[dir.log()], Some(&forged)).unwrap_err().fault, Fault::Anchor(4)));
    // Whoever also rewrites the side file is found out by a head that was noted elsewhere.
    let text = fs::read_to_string(dir.log()).unwrap();
    let shorter: String = text.split_inclusive('\n').take(2).collect();
    let last = chain::Record::read(shorter.lines().last().unwrap().as_bytes()).unwrap().head();
    fs::write(dir.log(), shorter).unwrap();
    fs::write(head_path(&dir.log()), last.to_string()).unwrap();
    assert!(check(&dir.log()).is_ok());
    assert!(matches!(verify(&[dir.log()], Some(&head)).unwrap_err().fault, Fault::Cut { expected: 4, found: 2 }));
}

#[test]
fn rotation_closes_the_old_file_and_the_chain_goes_on_in_the_new_one() {
    let dir = Dir::new();
    let old = dir.0.path().join("audit.jsonl.1");
    let audit = start(&dir.log());
    audit.record("session-opened", json!({}));
    audit.reopen();
    audit.flush(PATIENCE);
    assert!(check(&dir.log()).is_ok(), "nothing was moved away, so nothing happens");
    fs::rename(dir.log(), &old).unwrap();
    audit.record("session-closed", json!({}));
    audit.reopen();
    audit.flush(PATIENCE);
    audit.record("session-opened", json!({}));
    audit.flush(PATIENCE);
    assert_eq!(check(&old).unwrap().records, 4);
    assert_eq!(check(&dir.log()).unwrap().first, 5);
    assert_eq!(verify(&[old.clone(), dir.log()], None).unwrap().records, 6);
    let text = fs::read_to_string(&old).unwrap();
    let without_end: String = text.split_inclusive('\n').take(3).collect();
    fs::write(&old, without_end).unwrap();
    assert!(check(&old).is_err());
    assert!(matches!(verify(&[old, dir.log()], None).unwrap_err().fault, Fault::Sequence { expected: 4, found: 5 }));
}

#[test]
fn a_record_torn_by_a_crash_is_cut_off_and_told() {
    let dir = Dir::new();
    write_log(&dir.log(), 2);
    let mut text = fs::read(dir.log()).unwrap();
    text.extend_from_slice(b"{\"seq\":4,\"time\":\"20");
    fs::write(dir.log(), text).unwrap();
    assert!(check(&dir.log()).is_err());
    write_log(&dir.log(), 1);
    assert_eq!(check(&dir.log()).unwrap().records, 5);
    assert!(fs::read_to_string(dir.log()).unwrap().contains("\"cut_bytes\":19"));
}

#[test]
fn a_log_moved_away_between_two_runs_is_continued_in_a_new_file() {
    let dir = Dir::new();
    let old = dir.0.path().join("audit.jsonl.1");
    write_log(&dir.log(), 2);
    fs::rename(dir.log(), &old).unwrap();
    write_log(&dir.log(), 1);
    assert_eq!(check(&dir.log()).unwrap().first, 4);
    assert_eq!(verify(&[old, dir.log()], None).unwrap().records, 5);
}

#[test]
fn two_processes_never_write_one_log() {
    let dir = Dir::new();
    let _first = start(&dir.log());
    let second = Audit::start(Some(&dir.log()), &Metrics::new("test", "0"), &Health::default());
    assert!(second.unwrap_err().to_string().contains("another process writes it"));
}

#[test]
fn a_file_of_another_kind_is_never_appended_to() {
    let dir = Dir::new();
    for content in ["root:x:0:0\n", "no line break", "{}\n"] {
        fs::write(dir.log(), content).unwrap();
        let refused = Audit::start(Some(&dir.log()), &Metrics::new("test", "0"), &Health::default());
        assert!(matches!(refused, Err(OpenError::Foreign(_))), "{content}");
        assert_eq!(fs::read_to_string(dir.log()).unwrap(), content);
    }
}

#[test]
fn f7_a_disk_that_refuses_is_not_ready_and_costs_no_event_once_it_takes_again() {
    let dir = Dir::new();
    let health = Health::default();
    health.set_phase(crate::ops::health::Phase::Serving);
    let audit = Audit::start(Some(&dir.log()), &Metrics::new("test", "0"), &health).unwrap();
    assert!(health.readiness().ok);
    // A directory in the place of the side file makes the anchor fail, as a full disk would.
    let side = head_path(&dir.log());
    fs::remove_file(&side).unwrap();
    fs::create_dir(&side).unwrap();
    audit.record("session-opened", json!({ "n": 1 }));
    audit.flush(PATIENCE);
    assert!(!health.readiness().ok);
    fs::remove_dir(&side).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while !health.readiness().ok {
        assert!(std::time::Instant::now() < deadline, "{:?}", health.readiness());
        std::thread::yield_now();
    }
    audit.record("session-opened", json!({ "n": 2 }));
    audit.flush(PATIENCE);
    let text = fs::read_to_string(dir.log()).unwrap();
    assert_eq!((text.matches("\"n\":1").count(), text.matches("\"n\":2").count()), (1, 1), "{text}");
    assert!(check(&dir.log()).is_ok());
}
