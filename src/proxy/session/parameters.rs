//! What the server reported of its settings: the newest ParameterStatus of each name.

/// Names and values, packed: ten thousand sessions have about fourteen each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters(Vec<u8>);

impl Parameters {
    /// All of them, in the order in which they were first reported.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut fields = self.0.split(|byte| *byte == 0);
        std::iter::from_fn(move || {
            let name = fields.next().filter(|name| !name.is_empty())?;
            Some((name, fields.next()?))
        })
    }

    /// The value of a name; upper and lower case are the same, as for PostgreSQL.
    pub(super) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let mut all = self.iter();
        all.find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Takes in the body of a ParameterStatus: two strings, each ended by a zero byte. Nothing if it is none.
    pub(super) fn report(&mut self, body: &[u8]) -> Option<()> {
        let mut fields = body.strip_suffix(&[0])?.split(|byte| *byte == 0);
        let (name, value) = (fields.next()?, fields.next()?);
        if name.is_empty() || fields.next().is_some() {
            return None;
        }
        if self.get(name) == Some(value) {
            return Some(());
        }
        let mut all = Vec::with_capacity(self.0.len() + body.len());
        let mut push = |name: &[u8], value: &[u8]| {
            for part in [name, value] {
                all.extend_from_slice(part);
                all.push(0);
            }
        };
        let mut known = false;
        for (other, old) in self.iter() {
            let this = other == name;
            known |= this;
            push(other, if this { value } else { old });
        }
        if !known {
            push(name, value);
        }
        self.0 = all;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_of_a_name_counts() {
        let mut parameters = Parameters::default();
        for body in [
            &b"TimeZone\0UTC\0"[..],
            b"a\0\0",
            b"TimeZone\0Asia/Tokyo\0",
            b"b\x001\0",
        ] {
            parameters.report(body).unwrap();
        }
        let all: Vec<_> = parameters.iter().collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"TimeZone", b"Asia/Tokyo"), (b"a", b""), (b"b", b"1")];
        assert_eq!(all, expected);
        assert_eq!(parameters.get(b"timezone"), Some(&b"Asia/Tokyo"[..]));
        for body in [&b""[..], b"x", b"x\0", b"\0y\0", b"a\0b\0c\0"] {
            assert_eq!(parameters.report(body), None, "{body:?}");
        }
    }
}
