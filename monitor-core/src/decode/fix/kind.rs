//! What the messages of FIX do: types of FIX 4.2 to 5.0 SP2 that trading sessions use.

use crate::call::Operation;

/// What a message of a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A call that is answered by what names the same order or list.
    Order(Operation),
    /// A call that is answered by what names the same request.
    Request(Operation),
    Logon,
    Logout,
    /// Keeps the session alive, or is about its sequence numbers.
    Session,
    /// Not known: a call of which no answer is known but a reject.
    Other,
}

/// Its name in the standard, and what it is.
pub(super) fn of(kind: &[u8]) -> (&'static str, Kind) {
    use Operation::{Auth, Cancel, Read, Trade};
    match kind {
        b"0" => ("Heartbeat", Kind::Session),
        b"1" => ("TestRequest", Kind::Request(Read)),
        b"2" => ("ResendRequest", Kind::Session),
        b"3" => ("Reject", Kind::Session),
        b"4" => ("SequenceReset", Kind::Session),
        b"5" => ("Logout", Kind::Logout),
        b"A" => ("Logon", Kind::Logon),
        b"D" => ("NewOrderSingle", Kind::Order(Trade)),
        b"E" => ("NewOrderList", Kind::Order(Trade)),
        b"AB" => ("NewOrderMultileg", Kind::Order(Trade)),
        b"s" => ("NewOrderCross", Kind::Order(Trade)),
        b"G" => ("OrderCancelReplaceRequest", Kind::Order(Trade)),
        b"AC" => ("MultilegOrderCancelReplace", Kind::Order(Trade)),
        b"F" => ("OrderCancelRequest", Kind::Order(Cancel)),
        b"q" => ("OrderMassCancelRequest", Kind::Order(Cancel)),
        b"XCN" => ("OrderCancelRequestAndNewOrderSingle", Kind::Order(Cancel)),
        b"XAK" => ("OrderAmendKeepPriority", Kind::Order(Trade)),
        b"H" => ("OrderStatusRequest", Kind::Order(Read)),
        b"AF" => ("OrderMassStatusRequest", Kind::Request(Read)),
        b"V" => ("MarketDataRequest", Kind::Request(Read)),
        b"R" => ("QuoteRequest", Kind::Request(Read)),
        b"S" => ("Quote", Kind::Request(Trade)),
        b"i" => ("MassQuote", Kind::Request(Trade)),
        b"Z" => ("QuoteCancel", Kind::Request(Cancel)),
        b"c" => ("SecurityDefinitionRequest", Kind::Request(Read)),
        b"e" => ("SecurityStatusRequest", Kind::Request(Read)),
        b"x" => ("SecurityListRequest", Kind::Request(Read)),
        b"AD" => ("TradeCaptureReportRequest", Kind::Request(Read)),
        b"AN" => ("RequestForPositions", Kind::Request(Read)),
        b"BE" => ("UserRequest", Kind::Request(Auth)),
        b"XLQ" => ("LimitQuery", Kind::Request(Read)),
        _ => ("", Kind::Other),
    }
}

/// What a message of the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Logon,
    Logout,
    /// Of the session, naming the sequence number that it is about.
    Reject,
    /// Of the application, naming the same.
    BusinessReject,
    /// About an order.
    Execution,
    CancelReject,
    /// About a request that it names.
    Answer,
    /// That a request was refused.
    Refusal,
    Session,
    Push,
}

pub(super) fn told(kind: &[u8]) -> Told {
    match kind {
        b"A" => Told::Logon,
        b"5" => Told::Logout,
        b"3" => Told::Reject,
        b"j" => Told::BusinessReject,
        b"8" | b"r" | b"N" => Told::Execution,
        b"9" => Told::CancelReject,
        b"0" | b"W" | b"X" | b"y" | b"d" | b"f" | b"AQ" | b"AE" | b"AO" | b"AP" | b"BF" | b"b"
        | b"XLR" => Told::Answer,
        b"Y" | b"AG" => Told::Refusal,
        b"1" | b"2" | b"4" => Told::Session,
        _ => Told::Push,
    }
}
