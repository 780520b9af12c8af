//! Sessions: who asks, what for, and how it ended.

use super::fixture::message;
use crate::call::{Anomalies, ApiCall, Operation, Outcome, Protocol};
use crate::connection::Connection;
use crate::decode::Decoder;
use crate::identity::{Identifier, Secret};
use crate::input::{Endpoint, Input, Segment, TcpFlags};
use crate::limits::Limits;
use crate::time::EventTime;

const CANARY: &str = "c4n4ryS3cr3tV4lu3";

/// A conversation: `>` is the client's, `<` the server's; bytes in pieces of `step`.
fn play(lines: &[(char, Vec<u8>)], step: usize) -> (Vec<ApiCall>, Vec<Connection>) {
    let identifier = Identifier::new(Secret::new([7; 32]));
    let mut decoder = Decoder::new(Limits::default(), identifier, &[]);
    let [client, server] = ["203.0.113.9:51512", "198.51.100.5:9000"]
        .map(|text| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap()));
    let mut seqs = [1000_u32, 5000];
    let mut time = 0;
    let mut segment = |side: usize, flags: TcpFlags, payload: &[u8], decoder: &mut Decoder| {
        let (source, target) = if side == 0 { (client, server) } else { (server, client) };
        time += 1_000_000;
        decoder.handle_input(Input::Segment(Segment {
            time: EventTime(time),
            source,
            target,
            scope: 0,
            seq: seqs[side],
            ack: seqs[1 - side],
            flags,
            payload,
            missing: 0,
        }));
        let syn = u32::from(flags.contains(TcpFlags::SYN));
        seqs[side] = seqs[side].wrapping_add(syn + payload.len() as u32);
    };
    segment(0, TcpFlags::SYN, b"", &mut decoder);
    segment(1, TcpFlags::SYN | TcpFlags::ACK, b"", &mut decoder);
    for (way, bytes) in lines {
        for piece in bytes.chunks(step) {
            segment(usize::from(*way == '<'), TcpFlags::ACK, piece, &mut decoder);
        }
    }
    decoder.finish();
    let calls = std::iter::from_fn(|| decoder.poll_call()).collect();
    (calls, std::iter::from_fn(|| decoder.poll_connection()).collect())
}

fn ask(fields: &str) -> (char, Vec<u8>) {
    ('>', message("FIX.4.4", fields))
}

fn tell(fields: &str) -> (char, Vec<u8>) {
    ('<', message("FIX.4.4", fields))
}

fn session() -> Vec<(char, Vec<u8>)> {
    vec![
        ask(&format!(
            "35=A|34=1|49=DESK|56=SPOT|52=20261123-20:00:00|95=3|96=a|b|98=0|108=30|141=Y|553={CANARY}|554=p{CANARY}|"
        )),
        tell("35=A|34=1|49=SPOT|56=DESK|98=0|108=30|"),
        ask("35=D|34=2|49=DESK|56=SPOT|11=c-1|55=BTCUSDT|54=1|38=0.5|40=2|44=100|1=acc-7|"),
        tell("35=8|34=2|11=c-1|37=991|150=0|39=0|55=BTCUSDT|"),
        tell("35=8|34=3|11=c-1|37=991|150=F|39=2|55=BTCUSDT|"),
        ask("35=0|34=3|"),
        ask("35=F|34=4|11=c-2|41=c-1|55=BTCUSDT|"),
        tell("35=9|34=4|11=c-2|41=c-1|37=991|39=2|102=0|58=Too late to cancel|"),
        ask("35=D|34=5|11=c-3|55=ETHUSDT|38=1|"),
        tell("35=8|34=5|11=c-3|37=992|150=8|39=8|103=99|58=Too many requests|"),
        ask("35=V|34=6|262=md1|263=1|"),
        tell("35=Y|34=6|262=md1|281=0|58=no permission|"),
        ask("35=ZZ|34=7|"),
        tell("35=3|34=7|45=7|373=11|58=Invalid MsgType|"),
        ask("35=5|34=8|"),
        tell("35=5|34=8|"),
    ]
}

#[test]
fn a_session_is_calls() {
    let (calls, connections) = play(&session(), usize::MAX);
    let seen: Vec<_> = calls
        .iter()
        .map(|call| {
            let request = call.request.as_ref().unwrap();
            (request.method.to_string(), call.op, call.outcome, call.object_ids.join(","))
        })
        .collect();
    let row =
        |name: &str, op, outcome, ids: &str| (name.to_owned(), op, Some(outcome), ids.to_owned());
    assert_eq!(
        seen,
        [
            row("Logon", Operation::Auth, Outcome::Ok, ""),
            row("NewOrderSingle", Operation::Trade, Outcome::Ok, "c-1"),
            row("OrderCancelRequest", Operation::Cancel, Outcome::Error, "c-2,c-1"),
            row("NewOrderSingle", Operation::Trade, Outcome::Throttled, "c-3"),
            row("MarketDataRequest", Operation::Read, Outcome::PermissionDenied, ""),
            row("ZZ", Operation::Read, Outcome::Error, ""),
            row("Logout", Operation::Auth, Outcome::Ok, ""),
        ]
    );
    for call in &calls {
        let key = call.key.as_ref().expect("who has logged on");
        assert_eq!((key.profile.as_str(), key.source.as_str()), ("binance", "fix:553"));
        assert_eq!(key.id, calls[0].key.as_ref().unwrap().id);
        assert!(call.complete && call.anomalies.is_empty(), "{call:?}");
        assert_eq!(call.protocol, Protocol::Fix);
    }
    let order = &calls[1];
    assert_eq!(order.symbol.as_deref(), Some("BTCUSDT"));
    let detail = order.detail.as_ref().unwrap();
    assert_eq!((detail.account.as_deref(), detail.amount.as_deref()), (Some("acc-7"), Some("0.5")));
    let fix = connections[0].fix.as_ref().unwrap();
    assert_eq!(fix.version.as_deref(), Some("FIX.4.4"));
    assert_eq!((fix.sent.messages, fix.sent.heartbeats, fix.received.messages), (8, 1, 8));
    assert_eq!((fix.sent.sequence_breaks, fix.received.sequence_breaks), (0, 0));
    let printed = format!("{calls:?}{connections:?}");
    assert!(!printed.contains(CANARY));
}

#[test]
fn it_does_not_matter_how_it_is_cut() {
    let whole = play(&session(), usize::MAX);
    let strip = |(calls, connections): (Vec<ApiCall>, Vec<Connection>)| {
        let mut calls = calls;
        // The pieces came at other times.
        for call in &mut calls {
            (call.time, call.latency_us) = (EventTime(0), None);
        }
        let fix: Vec<_> = connections.into_iter().map(|it| it.fix).collect();
        (calls, fix)
    };
    let whole = strip(whole);
    for step in [1, 2, 5, 33] {
        assert_eq!(strip(play(&session(), step)), whole, "{step}");
    }
}

#[test]
fn a_key_lasts_from_logon_to_logon() {
    let logon =
        |number: u32, user: &str| ask(&format!("35=A|34={number}|49=D|56=X|141=Y|553={user}|"));
    let accept = |number: u32| tell(&format!("35=A|34={number}|"));
    let order = |number: u32, id: &str| ask(&format!("35=D|34={number}|11={id}|55=A|"));
    let done = |number: u32, id: &str| tell(&format!("35=8|34={number}|11={id}|39=0|"));
    let (calls, _) = play(
        &[
            order(1, "a"),
            done(1, "a"),
            logon(2, "one"),
            accept(2),
            order(3, "b"),
            done(3, "b"),
            logon(4, "two"),
            accept(4),
            order(5, "c"),
            done(5, "c"),
            logon(6, "bad"),
            tell("35=5|34=6|1409=5|"),
            order(7, "d"),
            done(7, "d"),
        ],
        usize::MAX,
    );
    let keys: Vec<_> = calls.iter().map(|call| call.key.as_ref().map(|key| key.id)).collect();
    assert_eq!(keys[0], None);
    assert_eq!((keys[1], keys[3]), (keys[2], keys[4]));
    assert_ne!(keys[2], keys[4]);
    assert_eq!(keys[6], keys[4], "a refused logon changes nothing");
    assert_eq!(calls[5].outcome, Some(Outcome::BadKey));
    assert_eq!(calls[1].key.as_ref().unwrap().profile, "fix");
}

#[test]
fn numbers_out_of_order_and_loss_are_named() {
    let (calls, connections) = play(
        &[
            ask("35=D|34=5|11=a|55=A|"),
            ask("35=D|34=7|11=b|55=A|"),
            ask("35=D|34=5|43=Y|11=a|55=A|"),
            tell("35=8|34=1|11=b|39=0|"),
            ask("35=D|34=8|11=c|55=A|"),
        ],
        usize::MAX,
    );
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[0].object_ids, ["b"]);
    assert_eq!(calls[0].anomalies, Anomalies::BAD_SEQUENCE);
    assert_eq!((calls[1].outcome, calls[2].outcome), (None, None));
    assert_eq!(connections[0].fix.as_ref().unwrap().sent.sequence_breaks, 1);
}

#[test]
fn the_tags_of_an_order_are_named_without_those_of_the_session() {
    let mut lines = session();
    lines.push(ask(
        "35=D|49=C|56=S|34=2|52=x|11=o-1|55=BTCUSDT|54=1|78=2|79=a|80=1|79=b|80=2|20001=Y|",
    ));
    let (calls, _) = play(&lines, usize::MAX);
    let order = calls.iter().rfind(|call| call.op == Operation::Trade).expect("an order");
    let fields = order.detail.as_ref().and_then(|detail| detail.fields.as_ref()).expect("tags");
    assert!(fields.names().eq(["11", "55", "54", "78", "79", "80", "20001"]), "{fields:?}");
}
