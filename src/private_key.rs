//! A private key from its PEM file, decrypted where it has a password.

use crate::config::Secret;
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::Document;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::Path;

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const OLD_ENCRYPTION: &str = "Proc-Type: 4,ENCRYPTED";

/// Reads the first private key of a file, which may hold certificates too.
///
/// # Errors
/// What is wrong, in words that show nothing of key or password.
pub(crate) fn private_key(path: &Path, password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    if text.contains(OLD_ENCRYPTION) {
        let mended = "convert it with: openssl pkcs8 -topk8 -v2 aes256 -in OLD -out NEW";
        return Err(format!(
            "it is encrypted in the old way, which is not understood; {mended}"
        ));
    }
    let (begin, end) = (
        format!("-----BEGIN {ENCRYPTED}-----"),
        format!("-----END {ENCRYPTED}-----"),
    );
    let section = text.find(&begin).and_then(|from| {
        let to = text.get(from..)?.find(&end)?;
        text.get(from..from + to + end.len())
    });
    let Some(section) = section else {
        return PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| error.to_string());
    };
    let Some(password) = password else {
        return Err("it is encrypted; set keyfile_password".to_owned());
    };
    let (_, sealed) = Document::from_pem(section).map_err(|error| error.to_string())?;
    let sealed =
        EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).map_err(|error| error.to_string())?;
    let opened = sealed
        .decrypt(password.reveal())
        .map_err(|_| "keyfile_password does not open it, or its encryption is not understood".to_owned())?;
    Ok(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Keys as people make them.
    fn openssl(args: &str) {
        let out = Command::new("openssl").args(args.split(' ')).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    #[test]
    fn a_key_opens_with_its_password_only() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (plain, sealed, old) = (at("plain"), at("sealed"), at("old"));
        openssl(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {}",
            plain.display()
        ));
        openssl(&format!(
            "pkcs8 -topk8 -v2 aes256 -passout pass:pink -in {} -out {}",
            plain.display(),
            sealed.display()
        ));
        openssl(&format!(
            "ec -aes256 -passout pass:pink -in {} -out {}",
            plain.display(),
            old.display()
        ));
        let (pink, grey) = (Secret::new("pink"), Secret::new("grey"));
        let open = private_key(&plain, None).unwrap();
        assert_eq!(
            private_key(&plain, Some(&pink)).unwrap().secret_der(),
            open.secret_der()
        );
        assert!(matches!(
            private_key(&sealed, Some(&pink)),
            Ok(PrivateKeyDer::Pkcs8(_))
        ));
        let told = |path, password| private_key(path, password).unwrap_err();
        assert_eq!(told(&sealed, None), "it is encrypted; set keyfile_password");
        assert!(told(&sealed, Some(&grey)).starts_with("keyfile_password does not open it"));
        assert!(told(&old, Some(&pink)).contains("openssl pkcs8 -topk8"));
        assert!(told(&at("missing"), None).contains("No such file"));
    }
}
