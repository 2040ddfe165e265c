//! How an answer looks on the wire: its status, kind and text, JSON as people grep it, the HTML error page.

use crate::cluster::Done;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};

/// What the body of a [`Reply`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Status line only.
    Bare,
    /// JSON.
    Json,
    /// Plain text.
    Text,
    /// A sentence.
    Said,
    /// An error page.
    Html,
}

/// One answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// Kind of body.
    pub kind: Kind,
    /// The body.
    pub body: String,
    /// A header of this answer alone.
    pub header: Option<(HeaderName, HeaderValue)>,
}

impl Reply {
    /// A status line without a body.
    pub fn bare(status: StatusCode) -> Self {
        Self {
            status,
            kind: Kind::Bare,
            body: String::new(),
            header: None,
        }
    }

    /// A JSON document that is already text.
    pub fn json(status: StatusCode, body: String) -> Self {
        Self {
            status,
            kind: Kind::Json,
            body,
            header: None,
        }
    }

    /// Plain text.
    pub fn text(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            kind: Kind::Text,
            body,
            header: None,
        }
    }

    /// A sentence without a line's end, as the verbs that change something answer.
    pub fn said(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            kind: Kind::Said,
            body: text.to_owned(),
            header: None,
        }
    }

    /// What became of an order.
    pub fn done(done: Done) -> Self {
        let status = StatusCode::from_u16(done.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match (done.json, status) {
            (true, _) => Self::json(status, spaced(done.text)),
            (false, StatusCode::NOT_IMPLEMENTED) => Self::error(status, &done.text),
            (false, _) => Self::said(status, &done.text),
        }
    }

    /// An error page for people who open it in a browser; programs read the status.
    pub fn error(status: StatusCode, message: &str) -> Self {
        let (message, code) = (escaped(message), status.as_u16());
        let body = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Error response</title></head>\n\
             <body>\n<h1>Error response</h1>\n<p>Error code: {code}</p>\n<p>Message: {message}.</p>\n</body>\n</html>\n"
        );
        Self {
            status,
            kind: Kind::Html,
            body,
            header: None,
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// JSON with a space after every comma and colon and everything beyond ASCII escaped: the form that
/// people's `grep` lines were written against.
pub fn dumps<T: Serialize>(value: &T) -> String {
    let mut bytes = Vec::new();
    match value.serialize(&mut Serializer::with_formatter(&mut bytes, Spaced)) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        // Values here are trees of strings and numbers; only a map with keys that are no strings could fail.
        Err(_) => "null".to_owned(),
    }
}

/// The same JSON with the spaces that people grep for.
fn spaced(text: String) -> String {
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(value) => dumps(&value),
        Err(_) => text,
    }
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut units = [0; 2];
        for c in fragment.chars() {
            if c.is_ascii() {
                write!(out, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut units) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn separators_and_escapes() {
        let value = json!({"a": [1, 2.5, null], "b": {}, "ä": "𝄞\n\"", "c": {"d": true}});
        assert_eq!(
            dumps(&value),
            r#"{"a": [1, 2.5, null], "b": {}, "\u00e4": "\ud834\udd1e\n\"", "c": {"d": true}}"#
        );
    }

    #[test]
    fn an_error_page_cannot_carry_markup() {
        assert!(
            !Reply::error(StatusCode::NOT_IMPLEMENTED, "<script>")
                .body
                .contains("<script>")
        );
    }
}
