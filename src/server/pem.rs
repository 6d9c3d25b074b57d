//! What is wrong with PEM, in words that quote nothing: what was meant to be PEM may be a private key.

use rustls::pki_types::pem;

/// What is wrong, to go on from the name of where the PEM stands. `pem::Error`'s own words hold the bytes that it
/// tripped over, which are the whole key where a key lost its line breaks.
pub(crate) fn mistake(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "is not PEM: a section has no END line of its own",
        pem::Error::IllegalSectionStart { .. } => "is not PEM: a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "is not PEM: a section is not base64",
        pem::Error::NoItemsFound => "holds nothing of what is asked for",
        pem::Error::SectionTooLarge => "is not PEM: a section is too large",
        // Reading from memory does not fail, and whatever is added to the enum may quote as well.
        _ => "is not PEM",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt::Write;

    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    use super::*;

    /// The shapes in which people lose the line breaks of PEM: all of them, and the one after the BEGIN line.
    pub(crate) fn mangled(pem: &str) -> [String; 2] {
        [pem.replace('\n', ""), pem.replacen("-----\n", "-----", 1)]
    }

    /// Fails if `told` holds a part of `pem`, as text or as the numbers of its bytes.
    #[track_caller]
    pub(crate) fn ensure_nothing_is_quoted(told: &str, pem: &str) {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        // Eight characters of base64 are no word of ours.
        for part in body.as_bytes().chunks_exact(8) {
            let text = std::str::from_utf8(part).unwrap();
            assert!(!told.contains(text), "{text}: {told}");
            let mut numbers = String::new();
            for byte in part {
                write!(numbers, "{byte}, ").unwrap();
            }
            assert!(
                !told.contains(numbers.trim_end_matches(", ")),
                "{numbers}: {told}"
            );
        }
        assert!(!told.contains("45, 45, 45"), "{told}");
    }

    #[test]
    fn every_mistake_has_words_that_quote_nothing() {
        let key =
            "-----BEGIN PRIVATE KEY-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=\n-----END PRIVATE KEY-----\n";
        let [one_line, begins_early] = mangled(key);
        let endless = key.replace("-----END PRIVATE KEY-----\n", "");
        let not_base64 = key.replace("QUJD", "####");
        for (pem, said) in [
            (one_line, "is not PEM: a section has no END line of its own"),
            (begins_early, "is not PEM: a BEGIN line is malformed"),
            (endless, "is not PEM: a section has no END line of its own"),
            (not_base64, "is not PEM: a section is not base64"),
        ] {
            let error = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap_err();
            assert_eq!(mistake(&error), said, "{pem}");
        }
        let error = CertificateDer::from_pem_slice(b"").unwrap_err();
        assert_eq!(mistake(&error), "holds nothing of what is asked for");
    }
}
