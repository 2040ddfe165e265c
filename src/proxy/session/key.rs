//! The key that a cancel request shows, and the disguise in which the client gets it.

use super::frame::Garbled;

/// The secrets of protocol 3.0 and the longest of 3.2.
const SECRETS: std::ops::RangeInclusive<usize> = 4..=256;
/// Bytes of a process id.
const PID: usize = 4;
const CANCEL_REQUEST: u32 = 80_877_102;

/// A process id and a secret, as BackendKeyData tells them and CancelRequest repeats them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendKey {
    pid: u32,
    secret: Box<[u8]>,
}

impl BackendKey {
    /// Reads one: four bytes of process id, the rest is secret.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let (pid, secret) = bytes.split_first_chunk::<PID>()?;
        SECRETS.contains(&secret.len()).then(|| Self {
            pid: u32::from_be_bytes(*pid),
            secret: secret.into(),
        })
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The CancelRequest that shows it.
    pub fn request(&self) -> Vec<u8> {
        self.request_as(CANCEL_REQUEST)
    }

    /// The same with another code.
    pub fn request_as(&self, code: u32) -> Vec<u8> {
        let length = u32::try_from(self.secret.len() + 12).unwrap_or(u32::MAX);
        let mut packet = length.to_be_bytes().to_vec();
        packet.extend_from_slice(&code.to_be_bytes());
        packet.extend_from_slice(&self.pid.to_be_bytes());
        packet.extend_from_slice(&self.secret);
        packet
    }
}

/// What the server said, and what the client was told instead.
///
/// The client keeps its key when its session moves to another server, so it must not be a server's. The process id
/// stays: clients compare it with the one in a notification.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) real: BackendKey,
    pub(super) handed: BackendKey,
}

impl Keys {
    pub(super) fn of(body: &[u8], secret: &[u8]) -> Result<Self, Garbled> {
        let real = BackendKey::of(body).ok_or(Garbled)?;
        let mut handed = real.clone();
        disguise(&mut handed.secret, PID, secret);
        Ok(Self { real, handed })
    }
}

/// Writes the secret over that part of a BackendKeyData's body which begins `from` bytes into it.
pub(super) fn disguise(part: &mut [u8], from: usize, secret: &[u8]) {
    for (at, byte) in part.iter_mut().enumerate() {
        let wanted = (from + at).checked_sub(PID).and_then(|at| secret.get(at));
        if let Some(wanted) = wanted {
            *byte = *wanted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_request_repeats_the_key() {
        let key = BackendKey::of(&[0, 0, 1, 2, 9, 9, 9, 9]).unwrap();
        let request = key.request();
        assert_eq!(request.len(), 16);
        assert_eq!(BackendKey::of(&request[8..]), Some(key));
        assert_eq!(BackendKey::of(&[0, 0, 1, 2, 9]), None);
    }

    #[test]
    fn the_client_gets_another_secret_of_the_same_length_for_the_same_process() {
        for length in [4, 32, 256] {
            let body = [&[0, 0, 1, 2][..], &vec![9; length]].concat();
            let keys = Keys::of(&body, &[7; 32]).unwrap();
            assert_eq!(keys.real.pid(), keys.handed.pid());
            assert_eq!(keys.real.secret.len(), keys.handed.secret.len());
            assert_eq!(keys.handed.secret[..4], [7; 4]);
            let mut passing = body.clone();
            disguise(&mut passing[..5], 0, &[7; 32]);
            disguise(&mut passing[5..], 5, &[7; 32]);
            assert_eq!(BackendKey::of(&passing), Some(keys.handed));
        }
    }
}
