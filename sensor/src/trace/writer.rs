//! A transaction as a line of text.

use std::fmt::Write as _;

use super::line::{Line, Pairs, Text};

/// Appends `line` and a line feed to `out`, keys in a fixed order, what is absent left out.
pub fn write_line(line: &Line<'_>, out: &mut String) {
    out.push('{');
    let mut first = true;
    let mut key = |name: &str, out: &mut String| {
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(out, "{comma}\"{name}\":");
    };
    if let Some(t) = line.t {
        key("t", out);
        let _ = write!(out, "{t}");
    }
    let texts = [
        ("client", &line.client),
        ("service", &line.service),
        ("method", &line.method),
        ("path", &line.path),
        ("host", &line.host),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            key(name, out);
            string(text, out);
        }
    }
    if let Some(status) = line.status {
        key("status", out);
        let _ = write!(out, "{status}");
    }
    if let Some(bytes) = line.bytes {
        key("bytes", out);
        let _ = write!(out, "{bytes}");
    }
    let shown = &line.credentials;
    if shown.bearer.is_some() || shown.authorization.is_some() || !shown.cookies.is_empty() || !shown.headers.is_empty()
    {
        key("credentials", out);
        out.push('{');
        let mut comma = "";
        for (name, text) in [("bearer", &shown.bearer), ("authorization", &shown.authorization)] {
            if let Some(text) = text {
                let _ = write!(out, "{comma}\"{name}\":");
                string(text, out);
                comma = ",";
            }
        }
        for (name, list) in [("cookies", &shown.cookies), ("headers", &shown.headers)] {
            if !list.is_empty() {
                let _ = write!(out, "{comma}\"{name}\":");
                object(list, out);
                comma = ",";
            }
        }
        out.push('}');
    }
    let bodies = [("request_json", line.request_json), ("response_json", line.response_json)];
    for (name, body) in bodies {
        if let Some(body) = body {
            key(name, out);
            out.push_str(body.get());
        }
    }
    for (name, list) in [("set_cookies", &line.set_cookies), ("response_headers", &line.response_headers)] {
        if !list.is_empty() {
            key(name, out);
            object(list, out);
        }
    }
    let texts =
        [("request_form", &line.request_form), ("content_type", &line.content_type), ("location", &line.location)];
    for (name, text) in texts {
        if let Some(text) = text {
            key(name, out);
            string(text, out);
        }
    }
    out.push_str("}\n");
}

fn object(list: &Pairs<'_>, out: &mut String) {
    out.push('{');
    for (index, (name, value)) in list.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        string(name, out);
        out.push(':');
        match value {
            Some(value) => string(value, out),
            None => out.push_str("null"),
        }
    }
    out.push('}');
}

fn string(text: &Text<'_>, out: &mut String) {
    out.push('"');
    for character in text.0.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if u32::from(control) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
