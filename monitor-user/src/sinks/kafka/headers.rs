//! CloudEvents 1.0 in headers: Kafka protocol binding, binary content mode (3.2).

use rdkafka::message::{Header, OwnedHeaders};

use crate::sinks::event::Event;

/// What CloudEvents says about an event.
pub(crate) fn headers(event: &Event, source: &str) -> OwnedHeaders {
    let time = event.time.to_string();
    let all = [
        ("content-type", event.content_type),
        ("ce_specversion", "1.0"),
        ("ce_id", &event.id),
        ("ce_source", source),
        ("ce_type", event.kind_name),
        ("ce_time", &time),
    ];
    let none = OwnedHeaders::new_with_capacity(all.len());
    all.into_iter()
        .fold(none, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers;

    use super::*;
    use crate::sinks::event::Writer;
    use crate::sinks::event::tests::alert;
    use crate::sinks::format::Format;
    use crate::sinks::record::View;

    #[test]
    fn headers_are_those_of_a_cloud_event() {
        let mut event = Event::default();
        let writer = Writer::new(Format::Native, "edge 1");
        writer.write(View::Alert(&alert(0xab)), &mut event);
        let shown: Vec<_> = headers(&event, "/keywatch/edge_1")
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
                (header.key.to_owned(), value)
            })
            .collect();
        let expected = [
            ("content-type", "application/json"),
            ("ce_specversion", "1.0"),
            ("ce_id", "a_00000000000000ab.2"),
            ("ce_source", "/keywatch/edge_1"),
            ("ce_type", "keywatch.alert.v1"),
            ("ce_time", "2026-11-23T20:00:00.000000000Z"),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        assert_eq!(shown, expected);
    }
}
