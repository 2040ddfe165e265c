//! What the proxy itself says to a client: an ErrorResponse in PostgreSQL's protocol, version 3.

/// Why a client is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There was nobody to lead it to in all the time that it may wait.
    NoPrimary,
    /// The same at the port for readers.
    NoReplica,
    /// This node has as many clients as it may have.
    TooMany,
    /// This client's address has as many connections as it may have.
    TooManyOfOne,
    /// Protocol version 2, or one that is not invented yet.
    Version,
    /// Its primary is not the primary any more.
    Deposed,
    /// The proxy ends.
    Stopping,
}

impl Refusal {
    /// SQLSTATE: what drivers judge by.
    fn code(self) -> &'static str {
        match self {
            Self::NoPrimary | Self::NoReplica => "57P03",
            Self::TooMany | Self::TooManyOfOne => "53300",
            Self::Version => "0A000",
            Self::Deposed | Self::Stopping => "57P01",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::NoPrimary => "there is no primary that accepts connections at the moment",
            Self::NoReplica => "there is no server for readers at the moment",
            Self::TooMany => "sorry, too many clients already at this proxy",
            Self::TooManyOfOne => "sorry, too many clients already from this address",
            Self::Version => "unsupported frontend protocol",
            Self::Deposed => "terminating connection because its server is no longer the primary",
            Self::Stopping => "terminating connection because the proxy is shutting down",
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::NoPrimary | Self::NoReplica => Some("Connect again: the cluster may be electing one."),
            Self::Deposed | Self::Stopping => {
                Some("Connect again; a transaction that was open has to be repeated.")
            }
            Self::TooMany => Some("The limit is proxy.max_connections."),
            Self::TooManyOfOne => Some("The limit is proxy.max_connections_per_client."),
            Self::Version => Some("Protocol version 3 is needed."),
        }
    }

    /// The message as it goes over the wire.
    pub(crate) fn spoken(self) -> Vec<u8> {
        error("FATAL", self.code(), self.message(), self.hint())
    }
}

/// An ErrorResponse. The texts must not hold a zero byte.
pub(crate) fn error(severity: &str, code: &str, message: &str, hint: Option<&str>) -> Vec<u8> {
    let mut fields = Vec::with_capacity(64 + message.len());
    let mut field = |kind: u8, text: &str| {
        fields.push(kind);
        fields.extend_from_slice(text.as_bytes());
        fields.push(0);
    };
    field(b'S', severity);
    field(b'V', severity);
    field(b'C', code);
    field(b'M', message);
    if let Some(hint) = hint {
        field(b'H', hint);
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
    let mut spoken = vec![b'E'];
    spoken.extend_from_slice(&length.to_be_bytes());
    spoken.extend_from_slice(&fields);
    spoken
}

/// The SQLSTATE of an ErrorResponse that begins here; `None` if it is another message or not all there.
pub(crate) fn sqlstate(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<5>()?;
    let [b'E', length @ ..] = head else { return None };
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let fields = rest.get(..length.checked_sub(4)?)?;
    let code = fields
        .split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(b"C"));
    code.filter(|code| code.len() == 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_spoken_and_read() {
        let spoken = error("FATAL", "57P03", "no", Some("wait"));
        assert_eq!(spoken, b"E\0\0\0\x24SFATAL\0VFATAL\0C57P03\0Mno\0Hwait\0\0");
        assert_eq!(sqlstate(&spoken), Some(&b"57P03"[..]));
        assert_eq!(sqlstate(spoken.get(..20).unwrap()), None);
        assert_eq!(sqlstate(b"R\0\0\0\x08\0\0\0\0"), None);
    }

    #[test]
    fn every_refusal_has_its_code_and_no_zero_byte() {
        for refusal in [
            Refusal::NoPrimary,
            Refusal::NoReplica,
            Refusal::TooMany,
            Refusal::TooManyOfOne,
            Refusal::Version,
            Refusal::Deposed,
            Refusal::Stopping,
        ] {
            let spoken = refusal.spoken();
            assert_eq!(sqlstate(&spoken), Some(refusal.code().as_bytes()), "{refusal:?}");
        }
    }
}
