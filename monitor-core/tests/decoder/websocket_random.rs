//! Random WebSocket conversations: everything is seen however it is cut; damage and loss mislead
//! nobody.

use monitor_core::call::Anomalies;
use monitor_core::connection::WebSocket;
use monitor_core::input::Direction::{self, ToClient, ToServer};
use monitor_core::limits::Limits;
use proptest::prelude::*;

use crate::model::{self, Dice};
use crate::websocket::{Seen, see};
use crate::websocket_frames::{BINARY, Deflater, Frame, PING, TEXT, frame, handshake, noise};
use crate::wire::{Packet, Wire, decoder};

/// What is sent in one message.
#[derive(Clone, Debug)]
enum Sent {
    /// A request and its reply, with so many bytes of filler.
    Exchange(usize),
    /// A push.
    Push(usize),
    /// Bytes of the client.
    Bytes(usize),
    Ping(Direction),
}

#[derive(Clone, Debug)]
struct Talk {
    sent: Vec<Sent>,
    /// Bits and takeover of permessage-deflate.
    deflate: Option<(u8, bool)>,
    /// Bytes in a frame.
    part: usize,
    /// Messages that are compressed, one in so many.
    packed: usize,
}

fn talk() -> impl Strategy<Value = Talk> {
    let size = || prop_oneof![4 => 0_usize..200, 1 => 0_usize..70_000];
    let sent = prop_oneof![
        4 => size().prop_map(Sent::Exchange),
        4 => size().prop_map(Sent::Push),
        1 => size().prop_map(Sent::Bytes),
        1 => any::<bool>().prop_map(|up| Sent::Ping(if up { ToServer } else { ToClient })),
    ];
    let part = prop_oneof![Just(usize::MAX), 1_usize..5000];
    let deflate = prop::option::of((8_u8..=15, any::<bool>()));
    (prop::collection::vec(sent, 1..30), deflate, part, 1_usize..4)
        .prop_map(|(sent, deflate, part, packed)| Talk { sent, deflate, part, packed })
}

/// What must be seen: calls as id and bytes of both halves, messages and bytes of each direction.
#[derive(Debug, Default, PartialEq, Eq)]
struct Truth {
    calls: Vec<(String, u64, Option<u64>)>,
    messages: [u64; 2],
    bytes: [u64; 2],
    pushes: u64,
}

struct Sender<'w> {
    wire: &'w mut Wire,
    deflaters: Option<[Deflater; 2]>,
    part: usize,
    packed: usize,
    count: usize,
}

impl Sender<'_> {
    /// Writes a message in its parts, each behind a ping, as both ends may.
    fn send(&mut self, direction: Direction, opcode: u8, plain: &[u8], truth: &mut Truth) {
        truth.messages[direction as usize] += 1;
        truth.bytes[direction as usize] += plain.len() as u64;
        self.count += 1;
        let mut first = opcode;
        let payload = match &mut self.deflaters {
            Some(deflaters) if self.count.is_multiple_of(self.packed) => {
                first |= 0x40;
                deflaters[direction as usize].message(plain)
            }
            Some(_) | None => plain.to_vec(),
        };
        let part = self.part.min(payload.len()).max(payload.len() / 20).max(1);
        let parts: Vec<&[u8]> = payload.chunks(part).collect();
        let parts = if parts.is_empty() { vec![&[][..]] } else { parts };
        for (at, bytes) in parts.iter().enumerate() {
            let mut frame = Frame::new(direction, 0, bytes);
            let fin = if at + 1 == parts.len() { 0x80 } else { 0 };
            frame.first = fin | if at == 0 { first } else { 0 };
            self.wire.send(direction, &frame.bytes());
            if fin == 0 {
                self.wire.send(direction, &Frame::new(direction, PING, "between").bytes());
            }
        }
    }
}

impl Talk {
    fn play(&self) -> (Wire, Truth) {
        let mut wire = Wire::open(1000, 2000);
        let extensions = match self.deflate {
            None => String::new(),
            Some((bits, takeover)) => format!(
                "permessage-deflate; server_max_window_bits={bits}; client_max_window_bits={bits}{}",
                if takeover {
                    ""
                } else {
                    "; client_no_context_takeover; server_no_context_takeover"
                }
            ),
        };
        handshake(&mut wire, &extensions);
        let mut truth = Truth::default();
        let deflaters = self
            .deflate
            .map(|(bits, takeover)| [Deflater::new(bits, takeover), Deflater::new(bits, takeover)]);
        let mut sender =
            Sender { wire: &mut wire, deflaters, part: self.part, packed: self.packed, count: 0 };
        for (number, sent) in self.sent.iter().enumerate() {
            sender.wire.wait(100);
            match sent {
                Sent::Exchange(bytes) => {
                    let filler: String =
                        (0..*bytes).map(|at| char::from(b'a' + (at * number % 23) as u8)).collect();
                    let ask = format!(r#"{{"id":{number},"method":"m{number}","x":"{filler}"}}"#);
                    let told = format!(r#"{{"id":{number},"result":["{filler}{filler}"]}}"#);
                    sender.send(ToServer, TEXT, ask.as_bytes(), &mut truth);
                    sender.send(ToClient, TEXT, told.as_bytes(), &mut truth);
                    let told = Some(told.len() as u64);
                    truth.calls.push((format!("m{number}"), ask.len() as u64, told));
                }
                Sent::Push(bytes) => {
                    let push = format!(r#"{{"channel":"c","d":"{}"}}"#, "é".repeat(*bytes));
                    sender.send(ToClient, TEXT, push.as_bytes(), &mut truth);
                    truth.pushes += 1;
                }
                Sent::Bytes(bytes) => {
                    sender.send(ToServer, BINARY, &noise(number as u64, *bytes), &mut truth);
                    truth.calls.push(("BINARY".into(), *bytes as u64, None));
                }
                Sent::Ping(direction) => {
                    sender.wire.send(*direction, &frame(*direction, PING, "hi"));
                }
            }
        }
        wire.close();
        (wire, truth)
    }
}

fn truth_of(seen: &Seen) -> Truth {
    let WebSocket { sent, received, channels, .. } = seen.websocket();
    let messages = |it: &monitor_core::connection::Traffic| it.text_messages + it.binary_messages;
    Truth {
        calls: seen
            .messages()
            .into_iter()
            .filter_map(|call| {
                let request = call.request.as_ref()?;
                let told = call.response.as_ref().map(|response| response.body_bytes);
                Some((request.method.to_string(), request.body_bytes, told))
            })
            .collect(),
        messages: [messages(sent), messages(received)],
        bytes: [sent.payload_bytes, received.payload_bytes],
        pushes: channels.iter().map(|channel| channel.pushes).sum(),
    }
}

/// The same wire with other packets.
fn with(wire: &Wire, packets: Vec<Packet>) -> Wire {
    let mut other = Wire::midstream(0, 0);
    other.flow = wire.flow;
    other.packets = packets;
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn everything_is_seen_however_it_is_cut(
        talk in talk(),
        seed: u64,
        piece in prop::sample::select(vec![3_usize, 50, 1400, 20_000]),
    ) {
        let (wire, truth) = talk.play();
        let whole = see(&wire, decoder(Limits::default()));
        prop_assert_eq!(&truth_of(&whole), &truth);
        prop_assert_eq!(whole.websocket().anomalies, Anomalies::empty());
        let packets = model::cut(&wire.packets, piece, &mut Dice(seed));
        let cut = see(&with(&wire, packets), decoder(Limits::default()));
        prop_assert_eq!(&cut.calls, &whole.calls);
        prop_assert_eq!(&cut.connection, &whole.connection);
    }

    #[test]
    fn losses_never_mix_messages(talk in talk(), seed: u64, one_in in 3_usize..40) {
        let (wire, truth) = talk.play();
        let mut dice = Dice(seed);
        let safe = wire.packets.iter().position(|packet| packet.time > 1_000_000);
        let mut packets = wire.packets.clone();
        let mut late = packets.split_off(safe.unwrap_or(0));
        late = model::cut(&late, 400, &mut dice);
        let sent = late.len();
        late.retain(|packet| packet.payload.is_empty() || dice.roll(one_in) > 0);
        let lost = late.len() < sent;
        packets.extend(late);
        let seen = see(&with(&wire, packets), decoder(Limits::default()));
        for call in seen.messages() {
            let Some(request) = &call.request else { continue };
            if request.method.len() < 2 || !request.method.starts_with('m') {
                continue;
            }
            let (_, asked, told) =
                truth.calls.iter().find(|it| it.0 == request.method.as_str()).expect("a message that was sent");
            let response = call.response.as_ref().map(|response| response.body_bytes);
            if call.complete {
                prop_assert_eq!((request.body_bytes, response), (*asked, *told));
            } else {
                prop_assert!(lost);
                // That the last bytes of a direction are missing cannot be told: no reply came.
                prop_assert!(call.response.is_none() || call.anomalies.intersects(
                    Anomalies::GAP | Anomalies::TRUNCATED | Anomalies::CONTENT_UNKNOWN
                ), "{:?}", call);
            }
        }
        if !lost {
            prop_assert_eq!(truth_of(&seen), truth);
        }
    }

    #[test]
    fn damage_is_survived_and_bounded(talk in talk(), seed: u64, one_in in 1_usize..200) {
        let (mut wire, _) = talk.play();
        let mut dice = Dice(seed);
        for packet in wire.packets.iter_mut().filter(|packet| packet.time > 1_000_000) {
            let places = packet.payload.len() / one_in;
            for _ in 0..places.min(200) {
                let at = dice.roll(packet.payload.len());
                packet.payload[at] = dice.roll(256) as u8;
            }
        }
        let limits = Limits {
            message_prefix_bytes: 200,
            message_inflated_bytes_max: 20_000,
            replies_awaited_max: 4,
            channels_max: 4,
            held_bytes_max: 150_000,
            ..Limits::default()
        };
        let mut once = decoder(limits.clone());
        for packet in model::cut(&wire.packets, 900, &mut dice) {
            once.handle_input(packet.input(wire.flow));
            prop_assert!(once.held_bytes() <= limits.held_bytes_max);
        }
        once.finish();
        let calls: Vec<_> = std::iter::from_fn(|| once.poll_call()).collect();
        let again = see(&wire, decoder(limits));
        if again.counters.flows_evicted + again.counters.windows_dropped == 0 {
            prop_assert_eq!(calls, again.calls);
        }
    }
}
