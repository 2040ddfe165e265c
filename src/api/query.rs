//! The query string of a probe, and the amounts of bytes people write into it.

/// Decoded pairs; of repeated keys the first counts, keys without a value do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part of a URL after the question mark.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(k, v)| (decoded(k), decoded(v)))
                .filter(|(_, v)| !v.is_empty())
                .collect(),
        )
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// What is asked of the member's tags: `tag_zone=a` gives `(zone, a)`.
    pub fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .enumerate()
            .filter(|(at, (key, _))| !self.0.iter().take(*at).any(|(earlier, _)| earlier == key))
            .filter_map(|(_, (key, value))| key.strip_prefix("tag_").map(|tag| (tag, value.as_str())))
    }

    /// `lag=` in bytes; what cannot be read limits nothing.
    pub fn lag(&self) -> Option<i64> {
        self.get("lag").and_then(bytes)
    }
}

/// `+` and `%xx` undone; what is not valid stays as it is.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (first, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
                continue;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(*other),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `1048576`, `16kB`, `1.5 GB`, in bytes; units are spelt as PostgreSQL spells them.
fn bytes(text: &str) -> Option<i64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split)?;
    let number: f64 = number.trim().parse().ok()?;
    let factor: f64 = match unit {
        "" | "B" => 1.0,
        "kB" => 1024.0,
        "MB" => 1_048_576.0,
        "GB" => 1_073_741_824.0,
        "TB" => 1_099_511_627_776.0,
        _ => return None,
    };
    // A cast from f64 saturates, which is what an absurdly large limit means.
    Some((number * factor).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_value_counts_and_empty_ones_do_not_exist() {
        let q = Query::parse("lag=&lag=1MB&lag=2MB&tag_a=x%20y&tag_b=1+2&tag_b=3&flag&tag_c=");
        assert_eq!(q.lag(), Some(1_048_576));
        assert_eq!(q.tags().collect::<Vec<_>>(), [("a", "x y"), ("b", "1 2")]);
        assert_eq!(q.get("flag"), None);
    }

    #[test]
    fn amounts() {
        for (text, expected) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("-1", Some(-1)),
            ("16kB", Some(16_384)),
            ("1.5 MB", Some(1_572_864)),
            ("1TB", Some(1_099_511_627_776)),
            ("1mb", None),
            ("junk", None),
            ("inf", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn broken_escapes_stay() {
        assert_eq!(decoded("%zz%4"), "%zz%4");
        assert_eq!(decoded("%41%"), "A%");
        assert_eq!(decoded("%ff"), "\u{fffd}");
    }
}
