//! The last words to a client whose session cannot go on.

use super::marks::Fixed;

/// A commit that may be on no standby: neither success nor failure can be told.
pub fn unknown_commit() -> Vec<u8> {
    unknown(
        "The wait for a synchronous standby was cancelled, and no standby has confirmed the transaction since.",
    )
}

/// The session ends before the answer of its server could be told.
pub fn unanswered() -> Vec<u8> {
    unknown("The session ended before the primary's answer could be told.")
}

fn unknown(detail: &str) -> Vec<u8> {
    error(
        "40003",
        "terminating connection because it is not known whether the transaction was committed",
        Some(detail),
        "Connect again and look whether the transaction took effect before repeating it.",
    )
}

/// The primary is another server now, and this session cannot be taken there.
pub fn moved_away(why: Fixed) -> Vec<u8> {
    error(
        "57P01",
        "terminating connection because another server becomes the primary",
        Some(&format!("The session could not be taken along: {why}.")),
        "Connect again.",
    )
}

/// A fatal ErrorResponse.
fn error(code: &str, message: &str, detail: Option<&str>, hint: &str) -> Vec<u8> {
    let mut fields = Vec::with_capacity(128 + message.len() + hint.len());
    let parts = [
        (b'S', Some("FATAL")),
        (b'V', Some("FATAL")),
        (b'C', Some(code)),
        (b'M', Some(message)),
        (b'D', detail),
        (b'H', Some(hint)),
    ];
    for (kind, text) in parts {
        if let Some(text) = text {
            fields.push(kind);
            fields.extend_from_slice(text.as_bytes());
            fields.push(0);
        }
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
    [b"E", &length.to_be_bytes()[..], &fields].concat()
}

#[cfg(test)]
mod tests {
    use super::super::notice::field;
    use super::*;

    #[test]
    fn the_last_word_is_a_whole_error_with_its_code() {
        for (spoken, code) in [
            (unknown_commit(), b"40003"),
            (unanswered(), b"40003"),
            (moved_away(Fixed::Listens), b"57P01"),
        ] {
            assert_eq!(
                spoken.len(),
                1 + u32::from_be_bytes(spoken[1..5].try_into().unwrap()) as usize
            );
            assert_eq!(field(&spoken[5..], b'C'), Some(&code[..]));
            assert_eq!(field(&spoken[5..], b'V'), Some(&b"FATAL"[..]));
        }
    }
}
