//! The spool through crashes, cut files, a full disk and its own bounds.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use proptest::prelude::*;

use super::lane::SEGMENT_BYTES_MIN;
use super::*;

const ROOMY: Bounds = Bounds { bytes_max: 64 << 20, reserve_bytes: 1 << 20 };

fn open(dir: &Path) -> Spool {
    loop {
        match Spool::open(dir, ROOMY, WhenFull::Drop) {
            // A child that another test is starting holds the lock of a spool that is closed, until it
            // has become another program.
            Err(error) if error.to_string().starts_with("another keywatch") => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

fn head(time: u64) -> Head {
    Head { time, kind: 1 }
}

/// Everything that is handed out now, with its numbers.
fn drain(spool: &Spool, which: Which) -> Vec<(u64, String)> {
    if which == Which::Activity {
        spool.absorb();
    }
    let mut all = Vec::new();
    let mut batch = Batch::default();
    loop {
        spool.take(which, &mut batch).unwrap();
        if batch.len() == 0 {
            return all;
        }
        for place in 0..batch.len() {
            let (number, _, payload) = batch.record(place).unwrap();
            all.push((number, String::from_utf8(payload.to_vec()).unwrap()));
        }
    }
}

fn texts(spool: &Spool, which: Which) -> Vec<String> {
    drain(spool, which).into_iter().map(|(_, text)| text).collect()
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

#[test]
fn open_files_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let large = [0; 1 << 20];
    for _ in 0..300 {
        spool.put_activity(head(1), &large);
        spool.absorb();
    }
    let opened = |fd: &fs::DirEntry| {
        fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(dir.path()))
    };
    let fds = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let count = fds.filter(opened).count();
    // 64 MiB of segments of 4 MiB each, and lock, folders, cursors and reserve.
    assert!(count <= 16 + 8, "{count}");
}

/// As a kill would: nothing is closed.
fn forget(spool: Spool) {
    drop(spool);
}

#[test]
fn what_is_not_confirmed_comes_again_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for text in ["a", "bb", "ccc"] {
        spool.put_alert(head(1), text.as_bytes());
    }
    let sent = drain(&spool, Which::Alerts);
    assert_eq!(sent.len(), 3);
    // The second is confirmed before the first: neither is done until the first is.
    spool.confirm(Which::Alerts, sent[1].0).unwrap();
    spool.rewind(Which::Alerts);
    assert_eq!(texts(&spool, Which::Alerts), ["a", "bb", "ccc"]);
    spool.confirm(Which::Alerts, sent[0].0).unwrap();
    spool.rewind(Which::Alerts);
    assert_eq!(spool.close().unwrap(), (2, 0));
    drop(spool);
    assert_eq!(texts(&open(dir.path()), Which::Alerts), ["bb", "ccc"]);
}

#[test]
fn nothing_is_left_when_all_is_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let spool = open(dir.path());
        for which in [Which::Alerts, Which::Activity] {
            spool.put_alert(head(1), b"one");
            spool.put_activity(head(1), b"two");
            for (number, _) in drain(&spool, which).into_iter().rev() {
                assert!(!spool.is_empty(which), "round {round}");
                spool.confirm(which, number).unwrap();
            }
            assert!(spool.is_empty(which));
        }
        for which in [Which::Alerts, Which::Activity] {
            drain(&spool, which).iter().for_each(|(n, _)| spool.confirm(which, *n).unwrap());
        }
        assert_eq!(spool.close().unwrap(), (0, 0));
        assert_eq!(files(dir.path(), ".seg"), Vec::<PathBuf>::new());
    }
}

#[test]
fn confirmed_records_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let large = "x".repeat(1 << 20);
    spool.put_alert(head(1), large.as_bytes());
    let mut batch = Batch::default();
    for _ in 0..40 {
        // There is always one that is not confirmed.
        spool.put_alert(head(1), large.as_bytes());
        spool.take(Which::Alerts, &mut batch).unwrap();
        for place in 0..batch.len() {
            let (number, ..) = batch.record(place).unwrap();
            spool.confirm(Which::Alerts, number).unwrap();
        }
    }
    let bytes: u64 = files(dir.path(), ".seg").iter().map(|f| f.metadata().unwrap().len()).sum();
    assert!(bytes <= 2 * SEGMENT_BYTES_MIN + (2 << 20), "{bytes}");
    assert_eq!(spool.close().unwrap().0, 1);
}

#[test]
fn a_crash_repeats_little_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for number in 0..10 {
        spool.put_alert(head(1), number.to_string().as_bytes());
    }
    let sent = drain(&spool, Which::Alerts);
    sent[..4].iter().for_each(|(number, _)| spool.confirm(Which::Alerts, *number).unwrap());
    spool.note_progress(Which::Alerts).unwrap();
    forget(spool);
    let spool = open(dir.path());
    assert_eq!(texts(&spool, Which::Alerts), ["4", "5", "6", "7", "8", "9"]);
    let gap = spool.take_gap().unwrap();
    assert_eq!((gap.calls, gap.reason), (0, "the run before was killed"));
    spool.rewind(Which::Alerts);
    spool.close().unwrap();
    drop(spool);
    assert_eq!(open(dir.path()).take_gap(), None, "a good end leaves no gap");
}

#[test]
fn a_cursor_that_cannot_be_read_repeats_everything() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.put_alert(head(1), b"a");
    spool.put_alert(head(1), b"b");
    let sent = drain(&spool, Which::Alerts);
    spool.confirm(Which::Alerts, sent[0].0).unwrap();
    spool.note_progress(Which::Alerts).unwrap();
    forget(spool);
    fs::write(dir.path().join("alerts.cursor"), b"\x07garbage").unwrap();
    assert_eq!(texts(&open(dir.path()), Which::Alerts), ["a", "b"]);
}

#[test]
fn two_programs_do_not_share_a_spool() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let error = Spool::open(dir.path(), ROOMY, WhenFull::Drop).err().unwrap().to_string();
    assert!(error.starts_with("another keywatch uses the spool: "), "{error}");
    drop(first);
    drop(open(dir.path()));
}

#[test]
fn a_newer_version_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.put_alert(head(1), b"of the future");
    spool.close().unwrap();
    drop(spool);
    let file = files(dir.path(), ".seg").remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 9;
    fs::write(&file, &bytes).unwrap();
    let error = Spool::open(dir.path(), ROOMY, WhenFull::Drop).err().unwrap();
    let expected = format!(
        "cannot read the spool: {}: it is of version 9, and this keywatch knows 1: run the \
         keywatch that wrote it, or set sinks.spool.dir; nothing was changed",
        file.display()
    );
    assert_eq!(format!("{error:#}"), expected);
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn activity_gives_way_at_the_bound_and_the_gap_says_how_much() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { bytes_max: 24 << 20, reserve_bytes: 8 << 20 };
    let spool = Spool::open(dir.path(), bounds, WhenFull::Drop).unwrap();
    let call = vec![b'c'; 100_000];
    let count = 400_u64;
    for number in 0..count {
        spool.put_activity(head(1000 + number), &call);
        spool.absorb();
        assert!(lock(&spool.activity).bytes() <= 16 << 20);
    }
    let kept = drain(&spool, Which::Activity);
    let gap = spool.take_gap().unwrap();
    assert_eq!(gap.calls + kept.len() as u64, count);
    assert_eq!(gap.times, Some((1000, 999 + gap.calls)), "the oldest went");
    assert_eq!(gap.reason, "the spool is full");
    assert_eq!(spool.take_gap(), None);
    assert_eq!(spool.dropped(), gap.calls);
    // The order of what is left is kept.
    assert!(kept.is_sorted_by_key(|(number, _)| *number));
}

#[test]
fn alerts_take_the_room_of_activity() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { bytes_max: 24 << 20, reserve_bytes: 4 << 20 };
    let spool = Spool::open(dir.path(), bounds, WhenFull::Drop).unwrap();
    for _ in 0..190 {
        spool.put_activity(head(1), &[b'c'; 100_000]);
        spool.absorb();
    }
    assert_eq!(spool.take_gap(), None);
    let alert = "a".repeat(100_000);
    for _ in 0..200 {
        spool.put_alert(head(2), alert.as_bytes());
    }
    assert_eq!(spool.lost(), 0);
    assert_eq!(texts(&spool, Which::Alerts).len(), 200);
    let gap = spool.take_gap().unwrap();
    assert_eq!(gap.reason, "alerts needed the room");
    assert_eq!(texts(&spool, Which::Activity).len() as u64 + gap.calls, 190);
    assert!(spool.bytes() <= bounds.bytes_max);
}

/// Three times what the spool holds comes in order, and nothing of it is given up.
fn waits_for_room(which: Which, put: fn(&Spool, Head, &[u8])) {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { bytes_max: 12 << 20, reserve_bytes: 4 << 20 };
    let spool = Spool::open(dir.path(), bounds, WhenFull::Wait).unwrap();
    let count = 600;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..count {
                put(&spool, head(1), format!("{number:060000}").as_bytes());
            }
        });
        let mut expected = 0;
        while expected < count {
            for (number, text) in drain(&spool, which) {
                assert_eq!(text.trim_start_matches('0').parse().unwrap_or(0), expected);
                expected += 1;
                spool.confirm(which, number).unwrap();
            }
        }
    });
    assert_eq!((spool.lost(), spool.dropped(), spool.take_gap()), (0, 0, None));
}

#[test]
fn replay_waits_instead_of_dropping() {
    waits_for_room(Which::Activity, Spool::put_activity);
    waits_for_room(Which::Alerts, Spool::put_alert);
}

#[test]
fn on_a_full_disk_alerts_of_a_replay_wait_until_they_are_written() {
    let Some(disk) = Tmpfs::mount(24) else {
        eprintln!("left out: alerts of a replay on a full disk: nothing can be mounted here");
        return;
    };
    let bounds = Bounds { bytes_max: 256 << 20, reserve_bytes: 4 << 20 };
    let dir = disk.0.path().join("spool");
    let spool = Spool::open(&dir, bounds, WhenFull::Wait).unwrap();
    let count = 600;
    let put = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..count {
                spool.put_alert(head(1), format!("{number:060000}").as_bytes());
                put.store(number + 1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        let mut got = 0;
        while got < count {
            for (number, _) in drain(&spool, Which::Alerts) {
                // What counts as kept is in a file, whoever ends the program now.
                let (kept, pending) = {
                    let lane = lock(&spool.alerts);
                    (put.load(std::sync::atomic::Ordering::Relaxed), lane.pending_bytes())
                };
                assert!(pending < 2 * 60_100, "{kept} alerts kept and {pending} bytes in memory");
                got += 1;
                spool.confirm(Which::Alerts, number).unwrap();
            }
        }
    });
    assert_eq!(spool.lost(), 0);
    drop(spool);
}

#[test]
fn a_damaged_record_costs_no_more_than_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let text = |number: usize| format!("{number:060000}");
    for number in 0..150 {
        spool.put_alert(head(1), text(number).as_bytes());
    }
    spool.close().unwrap();
    drop(spool);
    let segments = files(dir.path(), ".seg");
    assert_eq!(segments.len(), 3);
    let mut bytes = fs::read(&segments[0]).unwrap();
    bytes[1_000_000] ^= 1;
    fs::write(&segments[0], &bytes).unwrap();
    let got = texts(&open(dir.path()), Which::Alerts);
    assert_eq!(got[..16], (0..16).map(text).collect::<Vec<_>>());
    assert!(got.len() > 70 && got.ends_with(&[text(149)]), "{}", got.len());
}

/// What power loss leaves of a file: its length from before, zeros at its end, or less than that.
#[derive(Clone, Debug)]
enum Cut {
    Shorter(usize),
    Zeros(usize),
    Noise(usize, u8),
}

fn cuts() -> impl Strategy<Value = Cut> {
    let bytes = 1..3000_usize;
    prop_oneof![
        bytes.clone().prop_map(Cut::Shorter),
        bytes.clone().prop_map(Cut::Zeros),
        (bytes, any::<u8>()).prop_map(|(bytes, byte)| Cut::Noise(bytes, byte)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a power cut does to the end of the last file, everything before it is handed out, in
    /// order, nothing is made up, and the spool goes on.
    #[test]
    fn a_cut_end_costs_only_what_it_held(
        lengths in prop::collection::vec(0..600_usize, 1..40),
        cut in cuts(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        let records: Vec<String> = lengths
            .iter()
            .enumerate()
            .map(|(number, length)| format!("{number} {}", "y".repeat(*length)))
            .collect();
        let mut ends = vec![segment::HEADER_BYTES];
        for record in &records {
            spool.put_alert(head(1), record.as_bytes());
            ends.push(ends[ends.len() - 1] + segment::FRAME_BYTES + record.len());
        }
        forget(spool);
        let file = files(dir.path(), ".seg").remove(0);
        let mut bytes = fs::read(&file).unwrap();
        prop_assert_eq!(Some(&bytes.len()), ends.last());
        let from = match cut {
            Cut::Shorter(count) | Cut::Zeros(count) | Cut::Noise(count, _) => {
                bytes.len().saturating_sub(count)
            }
        };
        match cut {
            Cut::Shorter(_) => bytes.truncate(from),
            Cut::Zeros(_) => bytes[from..].fill(0),
            Cut::Noise(_, byte) => bytes[from..].fill(byte),
        }
        fs::write(&file, &bytes).unwrap();
        let whole = ends.iter().filter(|end| **end <= from).count().saturating_sub(1);
        let spool = open(dir.path());
        let got = texts(&spool, Which::Alerts);
        // Noise may happen to be what was there.
        prop_assert!(got.len() >= whole && records.starts_with(&got), "{} of {whole}", got.len());
        spool.put_alert(head(2), b"after");
        prop_assert_eq!(texts(&spool, Which::Alerts), ["after"]);
        drop(spool);
        let again = texts(&open(dir.path()), Which::Alerts);
        prop_assert_eq!(again.len(), got.len() + 1);
    }

    /// In whatever order records are added, handed out, confirmed and handed out again, and wherever
    /// the program is killed: each is handed out until it is confirmed, first in order.
    #[test]
    fn like_a_queue(steps in prop::collection::vec((0..6_u8, 0..50_usize), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        let mut put = 0;
        let mut sent: Vec<(u64, usize)> = Vec::new();
        let mut confirmed = BTreeSet::new();
        let mut expected = 0;
        for (step, choice) in steps {
            match step {
                0 | 1 => for _ in 0..=choice {
                    spool.put_alert(head(1), put.to_string().as_bytes());
                    put += 1;
                },
                2 => for (number, text) in drain(&spool, Which::Alerts) {
                    let text: usize = text.parse().unwrap();
                    prop_assert_eq!(text, expected);
                    expected += 1;
                    sent.push((number, text));
                },
                3 if !sent.is_empty() => {
                    let (number, text) = sent.remove(choice % sent.len());
                    spool.confirm(Which::Alerts, number).unwrap();
                    confirmed.insert(text);
                }
                4 => {
                    spool.rewind(Which::Alerts);
                    expected = (0..).find(|text| !confirmed.contains(text)).unwrap().min(put);
                    // Those behind come again, and are not confirmed until they are once more.
                    confirmed.retain(|text| *text < expected);
                    sent.clear();
                }
                5 => {
                    spool.note_progress(Which::Alerts).unwrap();
                    forget(spool);
                    spool = open(dir.path());
                    expected = (0..).find(|text| !confirmed.contains(text)).unwrap().min(put);
                    confirmed.retain(|text| *text < expected);
                    sent.clear();
                }
                _ => {}
            }
        }
    }
}

/// A small file system that ends with this.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None` where nothing may be mounted.
    fn mount(mebibytes: u32) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Tmpfs(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn on_a_full_disk_alerts_are_kept() {
    let Some(disk) = Tmpfs::mount(24) else {
        eprintln!("left out: on_a_full_disk_alerts_are_kept: nothing can be mounted here");
        return;
    };
    let bounds = Bounds { bytes_max: 256 << 20, reserve_bytes: 4 << 20 };
    let dir = disk.0.path().join("spool");
    let spool = Spool::open(&dir, bounds, WhenFull::Drop).unwrap();
    let mut calls = 0;
    let mut batch = Batch::default();
    // Activity fills the disk; a part of it is on its way.
    for round in 0..600_u64 {
        spool.put_activity(head(round), &[b'c'; 60_000]);
        spool.absorb();
        calls += 1;
        if round == 10 {
            spool.take(Which::Activity, &mut batch).unwrap();
        }
    }
    let first = spool.take_gap().unwrap();
    assert_eq!(first.reason, "the disk of the spool is full");
    // Then come alerts, until activity has given way, and some of the reserve is taken.
    let alert = |number: usize| format!("{number:060000}");
    let mut alerts = 0;
    while lock(&spool.reserve).is_some() {
        spool.put_alert(head(9), alert(alerts).as_bytes());
        alerts += 1;
    }
    assert!(alerts > 200, "{alerts}");
    let second = spool.take_gap().unwrap();
    assert_eq!(second.reason, "alerts needed the room");
    // When nothing at all is left they stay in memory, and are handed out from there.
    let filler = fs::File::create(disk.0.path().join("filler")).unwrap();
    let mut size = 0;
    while std::os::unix::fs::FileExt::write_all_at(&filler, &[1; 4096], size).is_ok() {
        size += 4096;
    }
    for _ in 0..20 {
        spool.put_alert(head(9), alert(alerts).as_bytes());
        alerts += 1;
    }
    assert!(lock(&spool.alerts).pending_bytes() > 0);
    assert_eq!(spool.lost(), 0);
    let got = drain(&spool, Which::Alerts);
    assert_eq!(got.len(), alerts);
    assert!(got.iter().enumerate().all(|(number, (_, text))| *text == alert(number)));
    spool.rewind(Which::Alerts);
    let kept = drain(&spool, Which::Activity).len() + 11_usize.min(batch.len());
    assert_eq!(kept as u64 + first.calls + second.calls, calls);
    // With room again everything goes to the disk.
    fs::remove_file(disk.0.path().join("filler")).unwrap();
    assert_eq!(spool.close().unwrap().0, alerts as u64);
    drop(spool);
    let spool = Spool::open(&dir, bounds, WhenFull::Drop).unwrap();
    assert_eq!(texts(&spool, Which::Alerts).len(), alerts);
    drop(spool);
}
