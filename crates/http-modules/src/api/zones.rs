//! Zones of servers and locations in the API.

use serde_json::{Value, json};
use session::status_zone::{self, StatusZone, Subject, Sums};
use std::rc::Rc;
use wire::http1::Method;

use super::answer::{Answer, Fault};
use super::{Question, reads};

/// The resource below `server_zones` or `location_zones`.
pub(super) fn find(ask: &Question, subject: Subject, path: &[&str]) -> Answer {
    let [name, rest @ ..] = path else {
        return reads(ask, || {
            let all = status_zone::zones(subject).into_iter();
            all.map(|zone| (zone.name().to_owned(), value(&zone, subject))).collect()
        });
    };
    if !rest.is_empty() {
        return Err(Fault::new(404, "path not found", "PathNotFound"));
    }
    let zone = status_zone::zones(subject).into_iter().find(|zone| zone.name() == *name);
    let (text, code) = match subject {
        Subject::Location => ("location zone not found", "LocationZoneNotFound"),
        _ => ("server zone not found", "ServerZoneNotFound"),
    };
    let zone = zone.ok_or_else(|| Fault::new(404, text, code))?;
    match ask.method {
        Method::Delete if ask.writable => {
            zone.forget();
            Ok((204, None, None))
        }
        _ => reads(ask, || value(&zone, subject)),
    }
}

fn value(zone: &Rc<StatusZone>, subject: Subject) -> Value {
    let Sums { processing, begun, ended, discarded, received, sent } = zone.sums();
    let total: u64 = ended.iter().sum();
    let [of_1xx, of_2xx, of_3xx, of_4xx, of_5xx] = ended;
    if subject == Subject::StreamServer {
        return json!({
            "processing": processing,
            "connections": begun,
            "sessions": { "2xx": of_2xx, "4xx": of_4xx, "5xx": of_5xx, "total": total },
            "discarded": discarded,
            "received": received,
            "sent": sent,
        });
    }
    let mut value = json!({
        "requests": begun,
        "responses": {
            "1xx": of_1xx,
            "2xx": of_2xx,
            "3xx": of_3xx,
            "4xx": of_4xx,
            "5xx": of_5xx,
            "total": total,
        },
        "discarded": discarded,
        "received": received,
        "sent": sent,
    });
    if let (Subject::Server, Value::Object(map)) = (subject, &mut value) {
        map.insert("processing".to_owned(), processing.into());
    }
    value
}
