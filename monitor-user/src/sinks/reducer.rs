//! Fewer records of the same: reads that are alike, within a while, become one record that counts them.
//!
//! The first of its kind in a window goes out at once, by itself; so does everything that is not a plain
//! read that went well. Of the others the reader gets how many there were, from when to when, and the mean
//! of their sizes and latencies (docs/decisions/0034).

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use monitor_core::call::{ApiCall, Detail, KeyId, Operation, Outcome, Request, Response};
use monitor_core::time::EventTime;

use crate::compact::{COUNT_MAX, Summary};

/// See the module.
pub(crate) struct Reducer {
    window_ns: u64,
    /// Number of the running window.
    window: u64,
    groups: HashMap<Alike, usize>,
    /// In the order in which they came to be.
    sums: Vec<Option<Sum>>,
    hasher: RandomState,
}

/// What calls have in common that are alike. The rest of it is hashed with a key that nobody knows.
#[derive(PartialEq, Eq, Hash)]
struct Alike {
    key: Option<KeyId>,
    client: IpAddr,
    rest: u64,
}

/// Calls after the first.
struct Sum {
    call: ApiCall,
    ordinal: u64,
    count: u32,
    last: EventTime,
    latency_us: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

/// What goes out.
pub(crate) enum Out<'a> {
    /// A call as it came.
    Call(&'a ApiCall),
    /// Calls that were alike.
    Summary(&'a Summary),
}

/// More kinds of calls at once go out one by one: some tens of megabytes.
const GROUPS_MAX: usize = 65_536;

impl Reducer {
    /// `window` is how long calls are taken together, by the clock of their times.
    pub(crate) fn new(window: Duration) -> Reducer {
        let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX).max(1);
        Reducer {
            window_ns,
            window: 0,
            groups: HashMap::new(),
            sums: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// Takes a call; `put` gets what goes out, with its ordinal. True when a window ended by it.
    pub(crate) fn take(
        &mut self,
        call: &ApiCall,
        ordinal: u64,
        mut put: impl FnMut(Out<'_>, u64),
    ) -> bool {
        let has_ended = self.advance(call.time, &mut put);
        self.add(call, ordinal, put);
        has_ended
    }

    fn add(&mut self, call: &ApiCall, ordinal: u64, mut put: impl FnMut(Out<'_>, u64)) {
        if !is_plain_read(call) {
            return put(Out::Call(call), ordinal);
        }
        let alike = Alike {
            key: call.key.as_ref().map(|key| key.id),
            client: call.client(),
            rest: self.rest_of(call),
        };
        let Some(place) = self.groups.get(&alike) else {
            if self.sums.len() < GROUPS_MAX {
                self.groups.insert(alike, self.sums.len());
                self.sums.push(None);
            }
            return put(Out::Call(call), ordinal);
        };
        let sum = &mut self.sums[*place];
        match sum {
            Some(sum) => sum.add(call),
            None => *sum = Some(Sum::of(call, ordinal)),
        }
        if let Some(full) = sum.take_if(|sum| sum.count >= COUNT_MAX) {
            full.end(&mut put);
        }
    }

    /// Time has passed; true when the window ended.
    fn advance(&mut self, now: EventTime, put: impl FnMut(Out<'_>, u64)) -> bool {
        let window = now.0 / self.window_ns;
        // A call that is late, or a clock that was set back a little, ends no window.
        let has_ended = window > self.window || window + 2 < self.window;
        if has_ended {
            self.window = window;
            self.finish(put);
        }
        has_ended
    }

    /// Everything that waits goes out.
    pub(crate) fn finish(&mut self, mut put: impl FnMut(Out<'_>, u64)) {
        self.groups.clear();
        self.sums.drain(..).flatten().for_each(|sum| sum.end(&mut put));
    }

    /// A hash of what else has to be the same. Ids of connections, times, sizes, latencies and signatures
    /// are not in it.
    fn rest_of(&self, call: &ApiCall) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        let flow = &*call.flow;
        (flow.server.addr, flow.server.port, flow.tls, &flow.ja4, &flow.container)
            .hash(&mut hasher);
        (call.protocol.as_str(), call.op.as_str(), &call.symbol, &call.object_ids)
            .hash(&mut hasher);
        if let Some(Request {
            method,
            host,
            target: _,
            path,
            user_agent,
            header_order,
            body_bytes: _,
        }) = &call.request
        {
            (method, host, path, user_agent, header_order).hash(&mut hasher);
        }
        if let Some(Response { status, body_bytes: _, quota: _ }) = &call.response {
            status.hash(&mut hasher);
        }
        if let Some(key) = &call.key {
            (&key.source, &key.profile).hash(&mut hasher);
        }
        if let Some(detail) = &call.detail {
            let Detail {
                forwarded_for,
                account,
                amount,
                parts,
                name,
                signed: _,
                payload: _,
                // With the other parameters.
                fields: _,
                // Of no read.
                oauth: _,
            } = &**detail;
            (forwarded_for, account, amount, parts, name).hash(&mut hasher);
        }
        call.parameters().for_each(|name| name.hash(&mut hasher));
        hasher.finish()
    }
}

/// Whether a call may be counted with others: it read something, went well, and nothing is odd about it.
fn is_plain_read(call: &ApiCall) -> bool {
    matches!(call.op, Operation::Read | Operation::Public)
        && call.outcome == Some(Outcome::Ok)
        && call.complete
        && call.anomalies.is_empty()
        && call.grpc.is_none()
        // A token's times are judged with each call.
        && call.token.is_none()
        && call.detail.as_ref().is_none_or(|detail| detail.payload.is_none())
}

impl Sum {
    fn of(call: &ApiCall, ordinal: u64) -> Sum {
        let mut sum = Sum {
            call: call.clone(),
            ordinal,
            count: 0,
            last: call.time,
            latency_us: 0,
            sent_bytes: 0,
            received_bytes: 0,
        };
        sum.add(call);
        sum
    }

    fn add(&mut self, call: &ApiCall) {
        self.count += 1;
        self.call.time = self.call.time.min(call.time);
        self.last = self.last.max(call.time);
        let add = |to: &mut u64, more: Option<u64>| *to = to.saturating_add(more.unwrap_or(0));
        add(&mut self.latency_us, call.latency_us);
        add(&mut self.sent_bytes, call.request.as_ref().map(|it| it.body_bytes));
        add(&mut self.received_bytes, call.response.as_ref().map(|it| it.body_bytes));
        // How much of its limit a key has used: the last word counts.
        if let (Some(kept), Some(response)) = (&mut self.call.response, &call.response) {
            kept.quota.clone_from(&response.quota);
        }
    }

    fn end(self, put: &mut impl FnMut(Out<'_>, u64)) {
        let Sum { mut call, ordinal, count, last, latency_us, sent_bytes, received_bytes } = self;
        if count == 1 {
            return put(Out::Call(&call), ordinal);
        }
        let mean = |sum: u64| sum / u64::from(count);
        call.latency_us = call.latency_us.map(|_| mean(latency_us));
        if let Some(request) = &mut call.request {
            request.body_bytes = mean(sent_bytes);
        }
        if let Some(response) = &mut call.response {
            response.body_bytes = mean(received_bytes);
        }
        // It would be taken for the signature of each.
        if let Some(detail) = &mut call.detail {
            detail.signed = None;
        }
        let span_ns = last.0 - call.time.0;
        put(Out::Summary(&Summary { call, count, span_ns }), ordinal);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use monitor_core::alert::{Entity, Severity};
    use monitor_core::engine::{Engine, Settings};
    use monitor_sim::{Kind, Plan, World};

    use super::*;
    use crate::compact::tests::full;
    use crate::compact::{Packed, decode_packed, encode, encode_summary};

    const WINDOW: Duration = Duration::from_secs(30);
    const SECOND: u64 = 1_000_000_000;

    /// A plain read, so many seconds after the beginning of a window.
    fn read(second: u64) -> ApiCall {
        let mut call = full();
        call.time = EventTime(1_795_464_000 * SECOND + second * SECOND);
        (call.op, call.outcome) = (Operation::Read, Some(Outcome::Ok));
        (call.grpc, call.token, call.detail) = (None, None, None);
        call.anomalies = monitor_core::call::Anomalies::empty();
        call
    }

    /// What goes out, each as its bytes say.
    fn reduced(calls: impl IntoIterator<Item = ApiCall>) -> Vec<Packed> {
        let mut reducer = Reducer::new(WINDOW);
        let mut records = Vec::new();
        let mut put = |out: Out<'_>, _: u64| {
            let mut bytes = Vec::new();
            match out {
                Out::Call(call) => encode(call, &mut bytes),
                Out::Summary(summary) => encode_summary(summary, &mut bytes),
            }
            records.push(decode_packed(&bytes).unwrap());
        };
        for (call, ordinal) in calls.into_iter().zip(0..) {
            reducer.take(&call, ordinal, &mut put);
        }
        reducer.finish(&mut put);
        records
    }

    #[test]
    fn the_first_goes_at_once_and_the_rest_is_counted() {
        let mut calls: Vec<ApiCall> = (0..10).map(read).collect();
        for (call, n) in calls.iter_mut().zip(0..) {
            call.latency_us = Some(100 + n);
            call.response.as_mut().unwrap().body_bytes = 10 * n;
        }
        let records = reduced(calls.clone());
        let [Packed::Call(first), Packed::Summary(rest)] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!(*first, calls[0]);
        assert_eq!((rest.count, rest.span_ns), (9, 8 * SECOND));
        assert_eq!(rest.call.time, calls[1].time);
        assert_eq!(rest.call.latency_us, Some(105));
        assert_eq!(rest.call.response.as_ref().unwrap().body_bytes, 50);
        // The next window begins anew.
        let records = reduced([read(0), read(1), read(31), read(32)]);
        assert!(records.iter().all(|it| matches!(it, Packed::Call(_))), "{records:?}");
        assert_eq!(records.len(), 4);
    }

    #[test]
    fn whatever_is_not_a_plain_read_goes_out_as_it_came() {
        let change: [fn(&mut ApiCall); 8] = [
            |call| call.op = Operation::Withdraw,
            |call| call.op = Operation::Trade,
            |call| call.outcome = Some(Outcome::PermissionDenied),
            |call| call.outcome = None,
            |call| call.complete = false,
            |call| call.token = full().token,
            |call| call.detail = full().detail,
            |call| call.anomalies = full().anomalies,
        ];
        for change in change {
            let mut calls: Vec<ApiCall> = (0..5).map(read).collect();
            calls.iter_mut().for_each(change);
            let expected: Vec<Packed> = calls.iter().cloned().map(Packed::Call).collect();
            assert_eq!(reduced(calls), expected);
        }
    }

    #[test]
    fn what_differs_in_anything_that_counts_is_another() {
        let change: [fn(&mut ApiCall); 6] = [
            |call| call.key.as_mut().unwrap().id.0 += 1,
            |call| call.request.as_mut().unwrap().path = "/else".into(),
            |call| call.request.as_mut().unwrap().user_agent = None,
            |call| call.response.as_mut().unwrap().status = Some(304),
            |call| call.object_ids = vec!["7".into()],
            |call| call.symbol = None,
        ];
        for change in change {
            let mut other = read(1);
            change(&mut other);
            let records = reduced([read(0), other.clone(), read(2), other.clone()]);
            assert_eq!(records.len(), 4, "each is the first, or one alone");
        }
        let mut moved = read(1);
        let mut flow = (*moved.flow).clone();
        flow.client = monitor_core::input::Endpoint::new("192.0.2.1".parse().unwrap(), 1);
        moved.flow = flow.into();
        assert_eq!(reduced([read(0), moved]).len(), 2);
    }

    /// What an Engine alerts on, and how bad it is.
    fn alerts(calls: impl IntoIterator<Item = ApiCall>) -> BTreeSet<(Entity, bool)> {
        let mut engine = Engine::new(Settings { alerts_per_day_max: 1_000, ..Settings::default() });
        let mut alerts = BTreeSet::new();
        for call in calls {
            engine.handle_call(&call);
            while let Some(alert) = engine.poll_alert() {
                alerts.insert((alert.entity, alert.severity >= Severity::High));
            }
        }
        alerts
    }

    #[test]
    fn what_is_bad_is_found_in_summaries_too() {
        let plan = Plan { seed: 6, keys: 40, days: 5, quiet_days: 4, attacks: Kind::ALL.to_vec() };
        let (mut count, mut of_key) = (0_usize, Vec::new());
        let expected = alerts(World::new(&plan).inspect(|_| count += 1));
        let records = reduced(World::new(&plan));
        let sent = records.len();
        let found = alerts(records.into_iter().flat_map(|record| match record {
            Packed::Call(call) => vec![call],
            Packed::Summary(summary) => summary.calls().collect(),
        }));
        for (entity, is_high) in &expected {
            if *is_high && !found.iter().any(|(known, _)| known == entity) {
                of_key.push(*entity);
            }
        }
        let high = expected.iter().filter(|(_, is_high)| *is_high).count();
        assert!(high >= 10, "{high} of {}", expected.len());
        assert_eq!(of_key, [], "of {high} that are high");
        assert!(sent < count, "{sent} records of {count} calls");
    }
}
