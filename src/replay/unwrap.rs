//! Audit events out of what log collectors and clouds put around them.

use serde_json::{Map, Value};

use super::source::Form;

/// How deep an envelope may stand in others: Firehose in Loki, a string in a string.
const DEEPEST: usize = 5;

/// Fields under which an event, or a string of one, is found.
const FIELDS: [&str; 14] = [
    "audit",
    "event",
    "jsonPayload",
    "line",
    "log",
    "log_s",
    "message",
    "original",
    "properties",
    "result",
    "textPayload",
    "_raw",
    "_source",
    "payload",
];

/// Gives every audit event in a value to `sink`, with the form in which it stood there; returns how many.
pub(super) fn events(value: Value, sink: &mut dyn FnMut(Map<String, Value>, Form)) -> usize {
    within(value, Form::Events, 0, sink)
}

fn within(value: Value, form: Form, depth: usize, sink: &mut dyn FnMut(Map<String, Value>, Form)) -> usize {
    if depth > DEEPEST {
        return 0;
    }
    match value {
        Value::Array(items) => items
            .into_iter()
            .map(|item| within(item, form, depth + 1, sink))
            .sum(),
        // Only what can hold an event is parsed once more.
        Value::String(text) if text.contains('{') && text.contains("leases") => {
            serde_json::from_str(&text).map_or(0, |value| within(value, form, depth + 1, sink))
        }
        Value::Object(object) if is_event(&object) => {
            sink(object, form);
            1
        }
        Value::Object(mut object) => {
            for (list, form) in [
                ("items", Form::EventList),
                ("events", Form::CloudWatch),
                ("logEvents", Form::CloudWatch),
                ("records", Form::Azure),
            ] {
                if let Some(Value::Array(items)) = object.remove(list) {
                    return within(Value::Array(items), form, depth + 1, sink);
                }
            }
            let inner = if form == Form::Events {
                Form::Collector
            } else {
                form
            };
            FIELDS
                .iter()
                .filter_map(|field| object.remove(*field))
                .map(|value| within(value, inner, depth + 1, sink))
                .sum()
        }
        _ => 0,
    }
}

fn is_event(object: &Map<String, Value>) -> bool {
    object.contains_key("auditID") && object.contains_key("stage") && object.contains_key("verb")
}
