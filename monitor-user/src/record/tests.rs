//! What is written is read again: as packets by a parser of others, and as the same inputs.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;

use monitor_core::input::Owner;
use proptest::prelude::*;

use super::*;
use crate::replay::recording::{Aside, Recording};
use crate::replay::{Captures, Recall, Tally};

/// What was recorded, in words: inputs are not comparable.
fn words(input: &Input<'_>) -> String {
    format!("{input:?}")
}

/// Files in order, read as one.
fn read(paths: &[PathBuf]) -> Vec<String> {
    let mut recording = Recording::default();
    let mut events = Vec::new();
    for path in paths {
        read_one(path, &mut recording, &mut events);
    }
    events
}

fn read_one(path: &Path, recording: &mut Recording, events: &mut Vec<String>) {
    let asides = RefCell::new(Vec::new());
    let recall: &mut Recall<'_> = &mut |packet| recording.recall(packet, &mut asides.borrow_mut());
    let mut tally = Tally::default();
    let mut each = |input: Input<'_>| {
        say_asides(&asides, events);
        events.push(words(&input));
        ControlFlow::Continue(())
    };
    let file = std::fs::File::open(path).unwrap();
    Captures::default().read(file, &mut tally, recall, &mut each).unwrap();
    say_asides(&asides, events);
    assert_eq!((tally.malformed, tally.not_tcp), (0, 0));
}

fn say_asides(asides: &RefCell<Vec<Aside>>, events: &mut Vec<String>) {
    for aside in asides.borrow_mut().drain(..) {
        match aside {
            Aside::Impairment(time, what) => events.push(format!("{time} {what:?}")),
            Aside::Ports(ports) => assert_eq!(ports, PORTS),
            Aside::Said(feedback) => events.push(format!("{feedback:?}")),
        }
    }
}

fn ends(v6: bool, number: u16) -> (Endpoint, Endpoint) {
    let ip = |last| -> std::net::IpAddr {
        if v6 {
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()
        } else {
            [192, 0, 2, last as u8].into()
        }
    };
    (Endpoint::new(ip(1), 50_000 + number), Endpoint::new(ip(2), 8080))
}

/// An input with what it borrows.
#[derive(Clone, Debug)]
enum Step {
    Segment {
        v6: bool,
        flow: u16,
        up: bool,
        seq: u32,
        ack: u32,
        flags: u8,
        len: usize,
        missing: u32,
    },
    Open {
        v6: bool,
        flow: u16,
        numbers: [u32; 3],
        midstream: bool,
    },
    Own {
        v6: bool,
        flow: u16,
        pid: u32,
    },
    Lost {
        v6: bool,
        flow: u16,
        up: bool,
        bytes: u64,
    },
    Plain {
        v6: bool,
        flow: u16,
        up: bool,
        before: u64,
        len: usize,
        missing: u32,
        flags: [bool; 2],
    },
    Close {
        v6: bool,
        flow: u16,
    },
    Secrets(Vec<u8>),
    Tick,
    Impaired(u64),
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let flow = || 0_u16..6;
    let missing = || prop_oneof![4 => Just(0), 1 => 1_u32..100_000];
    let step = prop_oneof![
        8 => (any::<bool>(), flow(), any::<bool>(), any::<u32>(), any::<u32>(), any::<u8>(),
            prop_oneof![0_usize..300, 60_000_usize..70_000], missing())
            .prop_map(|(v6, flow, up, seq, ack, flags, len, missing)| Step::Segment {
                v6, flow, up, seq, ack, flags, len, missing
            }),
        3 => (any::<bool>(), flow(), any::<[u32; 3]>(), any::<bool>())
            .prop_map(|(v6, flow, numbers, midstream)| Step::Open { v6, flow, numbers, midstream }),
        2 => (any::<bool>(), flow(), any::<u32>())
            .prop_map(|(v6, flow, pid)| Step::Own { v6, flow, pid }),
        1 => (any::<bool>(), flow(), any::<bool>(), any::<u64>())
            .prop_map(|(v6, flow, up, bytes)| Step::Lost { v6, flow, up, bytes }),
        3 => (any::<bool>(), flow(), any::<bool>(), any::<u64>(),
            prop_oneof![0_usize..300, 60_000_usize..70_000], missing(), any::<[bool; 2]>())
            .prop_map(|(v6, flow, up, before, len, missing, flags)| Step::Plain {
                v6, flow, up, before, len, missing, flags
            }),
        1 => (any::<bool>(), flow()).prop_map(|(v6, flow)| Step::Close { v6, flow }),
        1 => prop::collection::vec(any::<u8>(), 0..50).prop_map(Step::Secrets),
        1 => Just(Step::Tick),
        1 => any::<u64>().prop_map(Step::Impaired),
    ];
    prop::collection::vec((any::<u32>().prop_map(u64::from), step), 0..40)
}

/// Records the steps and gives what was recorded in words.
fn record(recorder: &mut Recorder, steps: &[(u64, Step)]) -> Vec<String> {
    let payload = vec![b'p'; 70_000];
    let mut time = EventTime(1_795_464_000_000_000_000);
    let mut said = Vec::new();
    for (pause, step) in steps {
        time = EventTime(time.0 + pause);
        let key = |v6, number| {
            let (client, server) = ends(v6, number);
            // The scope is that of the family, so that there are several.
            FlowKey { client, server, scope: if v6 { u64::MAX } else { 7 } }
        };
        let input = match step {
            Step::Segment { v6, flow, up, seq, ack, flags, len, missing } => {
                let FlowKey { client, server, scope } = key(*v6, *flow);
                let (source, target) = if *up { (client, server) } else { (server, client) };
                Input::Segment(Segment {
                    time,
                    source,
                    target,
                    scope,
                    seq: *seq,
                    ack: *ack,
                    flags: TcpFlags::from_bits_truncate(*flags),
                    payload: &payload[..*len],
                    missing: *missing,
                })
            }
            Step::Open { v6, flow, numbers: [client_isn, client_next, server_next], midstream } => {
                Input::Open(Open {
                    time,
                    flow: key(*v6, *flow),
                    client_isn: *client_isn,
                    client_next: *client_next,
                    server_next: *server_next,
                    midstream: *midstream,
                })
            }
            Step::Own { v6, flow, pid } => Input::Owner {
                flow: key(*v6, *flow),
                owner: Arc::new(Owner { process: "a server".into(), pid: *pid, container: None }),
            },
            Step::Lost { v6, flow, up, bytes } => Input::Lost {
                time,
                flow: key(*v6, *flow),
                direction: if *up { Direction::ToServer } else { Direction::ToClient },
                bytes: *bytes,
            },
            Step::Plain { v6, flow, up, before, len, missing, flags: [midstream, end] } => {
                Input::Plain(Plain {
                    time,
                    flow: key(*v6, *flow),
                    direction: if *up { Direction::ToServer } else { Direction::ToClient },
                    before: *before,
                    payload: &payload[..*len],
                    missing: *missing,
                    midstream: *midstream,
                    end: *end,
                })
            }
            Step::Close { v6, flow } => Input::Close { time, flow: key(*v6, *flow) },
            Step::Secrets(lines) => Input::Secrets(lines),
            Step::Tick => Input::Tick(time),
            Step::Impaired(bytes) => {
                let what = Impairment::Lost { bytes: *bytes, events: 1 };
                recorder.impairment(time, &what).unwrap();
                said.push(format!("{time} {what:?}"));
                continue;
            }
        };
        recorder.input(&input).unwrap();
        said.push(words(&input));
    }
    recorder.finish().unwrap();
    said
}

fn written(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

const PORTS: [u16; 2] = [80, 8080];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_recorded_is_read(
        steps in steps(),
        zstd: bool,
        bytes in prop::option::of(1_u64..100_000),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcapng");
        let rotation = Rotation { bytes, time: None, keep: None };
        let mut recorder = Recorder::create(&path, rotation, zstd, 9, &PORTS).unwrap();
        let said = record(&mut recorder, &steps);
        let files = written(dir.path());
        prop_assert_eq!(recorder.totals().files, files.len() as u64);
        prop_assert_eq!(read(&files), said);
    }
}

/// A request in two halves, with a new file between them.
fn two_files(dir: &Path) -> (Vec<String>, Vec<PathBuf>) {
    let segment = |up, seq, len| Step::Segment {
        v6: false,
        flow: 1,
        up,
        seq,
        ack: 0,
        flags: TcpFlags::ACK.bits(),
        len,
        missing: 0,
    };
    let open = |flow| Step::Open { v6: false, flow, numbers: [100, 101, 901], midstream: false };
    let steps = [
        (0, open(1)),
        (0, Step::Own { v6: false, flow: 1, pid: 7 }),
        (0, open(2)),
        (1, segment(true, 101, 10)),
        (1, segment(false, 901, 20)),
        (1, open(3)),
        (1, Step::Close { v6: false, flow: 3 }),
        (10_000_000_000, segment(true, 111, 10)),
    ];
    let rotation =
        Rotation { time: Some(std::time::Duration::from_secs(5)), ..Rotation::default() };
    let path = dir.join("a.pcapng");
    let mut recorder = Recorder::create(&path, rotation, false, 9, &PORTS).unwrap();
    let said = record(&mut recorder, &steps);
    (said, written(dir))
}

#[test]
fn a_later_file_announces_what_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let (said, files) = two_files(dir.path());
    assert_eq!(files.len(), 2);
    assert_eq!(read(&files), said);
    let alone = read(&files[1..]);
    // Connections 1 and 2 with the numbers they have come to, the owner, and what followed.
    assert_eq!(alone.len(), 4, "{alone:#?}");
    assert!(
        alone[0].contains("client_isn: 100, client_next: 111, server_next: 921, midstream: true")
    );
    assert!(alone[1].contains("pid: 7"));
    assert!(alone[2].contains("client_next: 101, server_next: 901, midstream: false"));
    assert_eq!(alone[3], said[7]);
    // The wrong way round both announce what they know.
    let reversed = [files[1].clone(), files[0].clone()];
    assert_eq!(read(&reversed).len(), alone.len() + 7);
}

#[test]
fn checksums_and_lengths_are_those_of_the_rfcs() {
    for v6 in [false, true] {
        let (client, server) = ends(v6, 1);
        for payload in [&b""[..], b"x", b"GET / HTTP/1.1\r\n\r\n"] {
            let headers = Headers::new(client, server, 1, 2, TcpFlags::ACK);
            let packet = [headers.bytes(payload, 0).as_slice(), payload].concat();
            let parsed = etherparse::PacketHeaders::from_ip_slice(&packet).unwrap();
            let Some(etherparse::TransportHeader::Tcp(tcp)) = parsed.transport else { panic!() };
            assert_eq!(parsed.payload.slice(), payload);
            let expected = match parsed.net.unwrap() {
                etherparse::NetHeaders::Ipv4(ip, _) => {
                    assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
                    tcp.calc_checksum_ipv4(&ip, payload).unwrap()
                }
                etherparse::NetHeaders::Ipv6(ip, _) => {
                    tcp.calc_checksum_ipv6(&ip, payload).unwrap()
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(tcp.checksum, expected, "{v6} {payload:?}");
        }
    }
}

#[test]
fn many_scopes_begin_a_new_section() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcapng");
    let mut recorder = Recorder::create(&path, Rotation::default(), false, 9, &PORTS).unwrap();
    let mut said = Vec::new();
    for scope in 1..=(SCOPES_MAX as u64 + 10) {
        let (client, server) = ends(false, 1);
        let open = Open {
            time: EventTime(scope),
            flow: FlowKey { client, server, scope },
            client_isn: 1,
            client_next: 2,
            server_next: 2,
            midstream: false,
        };
        for input in [Input::Open(open), Input::Close { time: EventTime(scope), flow: open.flow }] {
            recorder.input(&input).unwrap();
            said.push(words(&input));
        }
    }
    recorder.finish().unwrap();
    assert_eq!(recorder.sections, 2);
    assert_eq!(read(&[path]), said);
}

#[test]
fn a_recording_of_nothing_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcapng");
    let mut recorder = Recorder::create(&path, Rotation::default(), false, 9, &PORTS).unwrap();
    recorder.finish().unwrap();
    assert!(read(&[path]).is_empty());
    assert_eq!(recorder.totals().packets, 1);
}

#[test]
fn a_full_disk_is_told_with_its_name() {
    let mut recorder =
        Recorder::create(Path::new("/dev/full"), Rotation::default(), false, 9, &PORTS).unwrap();
    recorder.input(&Input::Tick(EventTime(1))).unwrap();
    let error = format!("{:#}", recorder.flush().unwrap_err());
    assert_eq!(error, "/dev/full: No space left on device (os error 28)");
}

#[test]
fn what_people_say_has_its_place_in_the_stream() {
    use monitor_core::alert::AlertId;
    use monitor_core::engine::{Feedback, Said};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcapng");
    let mut recorder = Recorder::create(&path, Rotation::default(), false, 9, &PORTS).unwrap();
    let reason = "ours: 100 % sure\n".to_owned();
    let said = Said::Dismiss { alert: AlertId(5), reason };
    let feedback = Feedback { time: EventTime(7), said };
    let tick = |second: u64| Input::Tick(EventTime(second * 1_000_000_000));
    recorder.feedback(&feedback).unwrap();
    recorder.input(&tick(1)).unwrap();
    recorder.feedback(&feedback).unwrap();
    recorder.input(&tick(2)).unwrap();
    recorder.finish().unwrap();
    let mut events = Vec::new();
    read_one(&path, &mut Recording::default(), &mut events);
    let said = format!("{feedback:?}");
    assert_eq!(events, [said.clone(), words(&tick(1)), said, words(&tick(2))]);
}

/// A decoder and an engine that take whatever a file says.
fn decode(bytes: &[u8]) {
    use monitor_core::decode::Decoder;
    use monitor_core::engine::{Engine, Settings};
    use monitor_core::identity::{Identifier, Secret};
    let identifier = Identifier::new(Secret::new([7; 32]));
    let decoder = Decoder::new(monitor_core::limits::Limits::default(), identifier, &[]);
    let sinks = crate::sinks::Sinks::new(Vec::new(), crate::sinks::OnFailure::Stop);
    let engine = Engine::new(Settings::default());
    let driver = RefCell::new(crate::driver::Driver::new(decoder, engine, sinks));
    let mut recording = Recording::default();
    let asides = RefCell::new(Vec::new());
    let tell = || {
        for aside in asides.borrow_mut().drain(..) {
            match aside {
                Aside::Impairment(time, what) => driver.borrow_mut().impairment(time, &what),
                Aside::Ports(ports) => driver.borrow_mut().add_server_ports(&ports),
                Aside::Said(feedback) => driver.borrow_mut().said(&feedback),
            }
        }
    };
    let recall: &mut Recall<'_> = &mut |packet| recording.recall(packet, &mut asides.borrow_mut());
    let mut each = |input: Input<'_>| {
        tell();
        driver.borrow_mut().handle(input)
    };
    // A fault is what damage gives.
    let _ = Captures::default().read(bytes, &mut Tally::default(), recall, &mut each);
    tell();
    driver.borrow_mut().finish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_recording_makes_the_decoder_panic(
        steps in steps(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcapng");
        let rotation = Rotation::default();
        let mut recorder = Recorder::create(&path, rotation, false, 9, &PORTS).unwrap();
        record(&mut recorder, &steps);
        let mut bytes = std::fs::read(&path).unwrap();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] ^= value;
        }
        decode(&bytes);
    }
}
