//! The one warning that says: this commit is here, and perhaps nowhere else.

/// The function of PostgreSQL that gives up waiting for a standby; its name is in no language, unlike the message.
const ROUTINE: &[u8] = b"SyncRepWaitForLSN";

/// Whether the body of a NoticeResponse tells that the wait for a synchronous standby was given up: the transaction is
/// committed on its server, and the client is about to be told that it succeeded.
pub(super) fn gave_up_waiting(body: &[u8]) -> bool {
    field(body, b'R') == Some(ROUTINE)
}

/// A field of a NoticeResponse or ErrorResponse.
pub(super) fn field(body: &[u8], kind: u8) -> Option<&[u8]> {
    let mut fields = body.split(|byte| *byte == 0);
    fields.find_map(|field| match field.split_first() {
        Some((first, rest)) if *first == kind => Some(rest),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_is_known_in_any_language() {
        let body = "SWARNUNG\0VWARNING\0C01000\0Mstorniere Warten auf synchrone Replikation wegen Benutzeraufforderung\0\
                    DDie Transaktion wurde lokal bereits committet.\0Fsyncrep.c\0L305\0RSyncRepWaitForLSN\0\0";
        assert!(gave_up_waiting(body.as_bytes()));
        let body = b"SNOTICE\0VNOTICE\0C00000\0MRSyncRepWaitForLSN\0Fpl_exec.c\0L3906\0Rexec_stmt_raise\0\0";
        assert!(!gave_up_waiting(body));
        assert!(!gave_up_waiting(b""));
    }
}
