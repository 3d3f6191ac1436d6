//! Answers of the API: values, and errors in the form of NGINX Plus.

use http::headers::Field;
use http::{Body, Exchange, Verdict};
use net::{Chunk, Data};
use serde_json::{Value, json};
use wire::http1::Known;

/// A status, what to answer, and where a thing that was made is.
pub(super) type Answer = Result<(u16, Option<Value>, Option<String>), Fault>;

/// An error.
pub(super) struct Fault {
    status: u16,
    text: String,
    code: &'static str,
}

impl Fault {
    pub(super) fn new(status: u16, text: impl Into<String>, code: &'static str) -> Fault {
        Fault { status, text: text.into(), code }
    }

    /// The resource has no such method, or nobody may write.
    pub(super) fn method() -> Fault {
        Fault::new(405, "method disabled", "MethodDisabled")
    }

    /// The body does not say what it should.
    pub(super) fn format(text: impl Into<String>) -> Fault {
        Fault::new(400, text, "UpstreamConfFormatError")
    }

    fn value(&self) -> Value {
        json!({
            "error": { "status": self.status, "text": self.text, "code": self.code },
            "request_id": format!("{:032x}", session::random::u128()),
            "href": "https://nginx.org/en/docs/http/ngx_http_api_module.html",
        })
    }
}

/// Makes it the answer of the request.
pub(super) fn send(x: &mut Exchange, answer: Answer, fields: &Option<Vec<String>>) -> Verdict {
    let (status, value, place) = match answer {
        Ok((status, value, place)) => (status, value.map(|value| only(value, fields)), place),
        Err(fault) => (fault.status, Some(fault.value()), None),
    };
    if let Some(place) = place {
        x.response.location = Some(x.arena.push(place.as_bytes()));
    }
    let no_store = Field {
        known: Known::Other,
        name: x.arena.push(b"Cache-Control"),
        value: x.arena.push(b"no-store"),
    };
    x.response.headers.push(no_store);
    let text = value.map(|value| value.to_string() + "\n").unwrap_or_default();
    if !text.is_empty() {
        x.response.content_type = Some(x.arena.push(b"application/json"));
    }
    x.response.status = status;
    x.response.length = Some(text.len() as u64);
    x.response.body = Body::Whole(Data::Memory(Chunk::copy_of(text.as_bytes())));
    Verdict::Answer
}

/// Leaves only the fields that were asked for: of the object, or of each of a list or map of
/// objects.
fn only(value: Value, fields: &Option<Vec<String>>) -> Value {
    let Some(fields) = fields else { return value };
    let wanted = |name: &str| fields.iter().any(|field| field == name);
    match value {
        Value::Array(list) => list.into_iter().map(|value| only_of(value, &wanted)).collect(),
        Value::Object(map) if !map.is_empty() && map.values().all(Value::is_object) => {
            map.into_iter().map(|(key, value)| (key, only_of(value, &wanted))).collect()
        }
        value => only_of(value, &wanted),
    }
}

fn only_of(value: Value, wanted: &dyn Fn(&str) -> bool) -> Value {
    match value {
        Value::Object(map) => map.into_iter().filter(|(key, _)| wanted(key)).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_left_out_of_objects_lists_and_maps() {
        let check = |value: Value, fields: &str, expected: Value| {
            let fields = Some(fields.split(',').map(str::to_owned).collect());
            assert_eq!(only(value, &fields), expected);
        };
        check(json!({"a": 1, "b": 2}), "a", json!({"a": 1}));
        check(json!([{"a": 1, "b": 2}, {"b": 3}]), "b", json!([{"b": 2}, {"b": 3}]));
        check(json!({"u": {"a": 1, "b": 2}}), "a,c", json!({"u": {"a": 1}}));
        check(json!(["a"]), "b", json!(["a"]));
        assert_eq!(only(json!({"a": 1}), &None), json!({"a": 1}));
    }
}
