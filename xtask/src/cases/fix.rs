//! FIX sessions: as an exchange speaks it, with another key in the middle, and with faults.

use super::Case;
use super::conversation::Conversation;
use crate::encode::fix::message;

/// Every case of this kind.
pub(super) fn all() -> Vec<Case> {
    vec![session(), key_change(), faults()]
}

/// A logon with key and signature, orders, a cancel that comes too late, a refused order, market data,
/// a message that is not known, and the end.
fn session() -> Case {
    let send = |fields: &str| message("FIX.4.4", fields);
    let mut talk = Conversation::everyday();
    talk.open();
    talk.ask(send(
        "35=A|34=1|49=DESK|56=SPOT|52=20261123-20:00:00.000|95=14|96=made-up-sign=1|98=0|108=30|\
         141=Y|553=made-up-fix-key|25035=1|",
    ));
    talk.answer(send("35=A|34=1|49=SPOT|56=DESK|98=0|108=30|"));
    talk.ask(send("35=D|34=2|49=DESK|56=SPOT|11=c-1|55=BTCUSDT|54=1|38=0.5|40=2|44=100|1=desk-7|"));
    talk.answer(send("35=8|34=2|11=c-1|37=991|150=0|39=0|55=BTCUSDT|"));
    talk.answer(send("35=8|34=3|11=c-1|37=991|150=F|39=2|55=BTCUSDT|"));
    talk.ask(send("35=0|34=3|"));
    talk.ask(send("35=F|34=4|11=c-2|41=c-1|55=BTCUSDT|"));
    talk.answer(send("35=9|34=4|11=c-2|41=c-1|37=991|39=2|434=1|102=0|58=Too late to cancel|"));
    talk.ask(send("35=D|34=5|11=c-3|55=ETHUSDT|38=1|"));
    talk.answer(send("35=8|34=5|11=c-3|37=992|150=8|39=8|103=99|58=Too many requests|"));
    talk.ask(send("35=V|34=6|262=md1|263=1|264=1|"));
    talk.answer(send("35=W|34=6|262=md1|55=BTCUSDT|268=0|"));
    talk.ask(send("35=ZZ|34=7|"));
    talk.answer(send("35=3|34=7|45=7|373=11|58=Invalid MsgType|"));
    talk.ask(send("35=5|34=8|")).answer(send("35=5|34=8|"));
    talk.close();
    Case::new("fix-session", talk.packets())
}

/// FIX 5.0 over FIXT: one logon, an order, another logon, an order, a logon that is refused, an order.
fn key_change() -> Case {
    let send = |fields: &str| message("FIXT.1.1", fields);
    let mut talk = Conversation::everyday();
    talk.open();
    let mut number = 1;
    for (user, reply) in [
        ("made-up-user-1", "35=A|"),
        ("made-up-user-2", "35=A|"),
        ("made-up-user-3", "35=5|1409=5|58=Invalid username|"),
    ] {
        talk.ask(send(&format!("35=A|34={number}|49=D|56=X|553={user}|554=made-up-pass|1137=9|")));
        talk.answer(send(&format!("{reply}34={number}|")));
        number += 1;
        talk.ask(send(&format!("35=D|34={number}|11=o-{number}|55=ETH-USD|38=2|")));
        talk.answer(send(&format!("35=8|34={number}|11=o-{number}|37=7{number}|39=0|")));
        number += 1;
    }
    talk.close();
    Case::new("fix-key-change", talk.packets())
}

/// A wrong checksum, a number that is left out, bytes that are no message, a wrong length, and a
/// message that is cut off.
fn faults() -> Case {
    let send = |fields: &str| message("FIX.4.2", fields);
    let mut talk = Conversation::everyday();
    talk.open();
    let mut bad_sum = send("35=D|34=1|11=a|55=AAPL|38=1|");
    let at = bad_sum.len() - 2;
    bad_sum[at] = if bad_sum[at] == b'9' { b'0' } else { b'9' };
    talk.ask(bad_sum).answer(send("35=3|34=1|45=1|58=bad checksum|"));
    talk.ask(send("35=D|34=3|11=b|55=AAPL|38=1|"));
    talk.answer(send("35=8|34=2|11=b|39=0|"));
    talk.ask([b"no message at all ".as_slice(), &send("35=F|34=4|11=c|41=b|55=AAPL|")].concat());
    talk.answer(send("35=8|34=3|11=c|39=4|"));
    talk.ask(b"8=FIX.4.2\x019=9\x0135=D\x0134=5\x0111=d\x0110=000\x01".as_slice());
    talk.ask(send("35=D|34=6|11=e|55=AAPL|"));
    talk.answer(send("35=8|34=4|11=e|39=0|"));
    let cut = send("35=D|34=7|11=f|55=AAPL|38=100|");
    talk.ask(&cut[..cut.len() - 12]);
    talk.close();
    Case::new("fix-faults", talk.packets())
}
