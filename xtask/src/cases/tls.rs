//! TLS: sessions between OpenSSL and nginx that were kept for the decoder's tests, with their key logs, and
//! one between two ends of OpenSSL that speak FIX in it.

use monitor_core::input::Direction::{self, ToClient, ToServer};

use super::Case;
use super::conversation::Conversation;

/// One connection, a line for each segment: who sent it, and its bytes in hex.
struct Session {
    flights: &'static str,
    keys: &'static str,
}

macro_rules! session {
    ($name:literal) => {
        Session {
            flights: include_str!(concat!(
                "../../../monitor-core/tests/decoder/sessions/",
                $name,
                ".flights"
            )),
            keys: include_str!(concat!(
                "../../../monitor-core/tests/decoder/sessions/",
                $name,
                ".keys"
            )),
        }
    };
}

const TLS13: Session = session!("tls13-aes-256-gcm");
const TLS12: Session = session!("tls12-chacha20-poly1305");
const TLS13_FIX: Session = session!("tls13-fix");
const TLS13_SEALED: Session = session!("tls13-chacha20-poly1305");
const TLS12_SEALED: Session = session!("tls12-aes-128-gcm");

const CLIENT: &str = "203.0.113.9:51512";
const SERVER: &str = "198.51.100.5:8443";

/// Every case of this kind.
pub(super) fn all() -> Vec<Case> {
    vec![
        Case { keys: Some(TLS13.keys), ..Case::new("tls13", TLS13.talk().packets()) },
        Case { keys: Some(TLS12.keys), ..Case::new("tls12", TLS12.talk().packets()) },
        Case { keys: Some(TLS13_FIX.keys), ..Case::new("tls13-fix", TLS13_FIX.talk().packets()) },
        Case::new("tls13-no-keys", TLS13_SEALED.talk().packets()),
        Case::new("tls12-no-keys", TLS12_SEALED.talk().packets()),
        starttls_midway(),
    ]
}

/// TLS behind STARTTLS, in a capture that begins with that command.
fn starttls_midway() -> Case {
    let mut talk = Conversation::between(CLIENT, SERVER);
    talk.open().answer("220 mx.example.com ESMTP\r\n").ask("EHLO a\r\n");
    talk.answer("250-mx.example.com\r\n250-SIZE\r\n250 STARTTLS\r\n");
    let unseen = talk.packets().len();
    talk.ask("STARTTLS\r\n").answer("220 Go ahead\r\n");
    TLS13.go_on(&mut talk);
    let packets = talk.packets().split_off(unseen);
    Case { keys: Some(TLS13.keys), ..Case::new("tls13-starttls-midway", packets) }
}

impl Session {
    fn talk(&self) -> Conversation {
        let mut talk = Conversation::between(CLIENT, SERVER);
        talk.open();
        self.go_on(&mut talk);
        talk
    }

    /// The session on a connection that is open, and its end.
    fn go_on(&self, talk: &mut Conversation) {
        for (sender, bytes) in self.flights.lines().map(segment) {
            match sender {
                ToServer => talk.ask(bytes),
                ToClient => talk.answer(bytes),
            };
        }
        talk.close();
    }
}

#[expect(clippy::expect_used, reason = "the sessions are part of this program")]
fn segment(line: &str) -> (Direction, Vec<u8>) {
    let (sender, hex) = line.split_once(' ').expect("a sender and its bytes");
    let digit = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes = (0..hex.len()).step_by(2).map(|at| digit(at).expect("bytes in hex")).collect();
    (if sender == ">" { ToServer } else { ToClient }, bytes)
}
