//! SCRAM-SHA-256 verifiers, which PostgreSQL stores instead of passwords.
//!
//! pgherd sends verifiers instead of passwords, so that no password is in a statement that the server
//! might log, and compares them, so that a password which is right already is not set again.
//!
//! Source: RFC 5803, and PostgreSQL's `src/common/scram-common.c`.

use std::num::NonZeroU32;

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{digest, hmac, pbkdf2};

use crate::secret::Secret;

/// PostgreSQL's own number of rounds.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("more than none");
/// PostgreSQL's own length of a salt, in bytes.
const SALT: usize = 16;

/// The verifier of `password`, the same for the same `context`.
///
/// The context tells one role of one cluster from every other, so that equal passwords do not look
/// alike; nothing of the password is in the salt.
pub fn verifier(password: &Secret, context: &str) -> String {
    let salt = digest::digest(&digest::SHA256, context.as_bytes());
    with_salt(password, &salt.as_ref()[..SALT], ROUNDS)
}

/// Whether `verifier`, as PostgreSQL keeps it, is that of `password`.
pub fn is_of(verifier: &str, password: &Secret) -> bool {
    let parts = || {
        let (rounds, salt) = verifier
            .strip_prefix("SCRAM-SHA-256$")?
            .split_once('$')?
            .0
            .split_once(':')?;
        let salt = BASE64_STANDARD.decode(salt).ok()?;
        Some((rounds.parse().ok()?, salt))
    };
    parts().is_some_and(|(rounds, salt)| with_salt(password, &salt, rounds) == verifier)
}

fn with_salt(password: &Secret, salt: &[u8], rounds: NonZeroU32) -> String {
    // As PostgreSQL does: a text that cannot be prepared counts as it is.
    let password = stringprep::saslprep(password.expose()).unwrap_or(password.expose().into());
    let mut salted = [0; digest::SHA256_OUTPUT_LEN];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, rounds, salt, password.as_bytes(), &mut salted);
    let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client_key = hmac::sign(&salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&salted, b"Server Key");
    format!(
        "SCRAM-SHA-256${rounds}:{}${}:{}",
        BASE64_STANDARD.encode(salt),
        BASE64_STANDARD.encode(stored_key),
        BASE64_STANDARD.encode(server_key)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tests of the crate `postgres-protocol`, which took it from PostgreSQL.
    const VERIFIER: &str = "SCRAM-SHA-256$4096:AQIDBAUGBwgJCgsMDQ4PEA==$8rrDg00OqaiWXJ7p+sCgHEIaBSHY89ZJl3mfIsf32oY=:05L1f+yZbiN8O0AnO40Og85NNRhvzTS57naKRWCcsIA=";

    #[test]
    fn a_verifier_is_postgresqls() {
        assert!(is_of(VERIFIER, &Secret::new("secret")));
        assert!(!is_of(VERIFIER, &Secret::new("Secret")));
        for broken in [
            "",
            "md5d41d8cd98f00b204e9800998ecf8427e",
            "SCRAM-SHA-256$0:AQ==$:",
            "foo",
        ] {
            assert!(!is_of(broken, &Secret::new("secret")), "{broken}");
        }
    }

    #[test]
    fn a_verifier_is_that_of_its_password_and_of_no_other_role() {
        let secret = Secret::new("pä\u{a0}ss");
        let one = verifier(&secret, "pg app");
        assert_eq!(one, verifier(&secret, "pg app"));
        assert_ne!(one, verifier(&secret, "pg other"));
        assert!(is_of(&one, &secret));
        assert!(is_of(&one, &Secret::new("pä ss")), "prepared alike");
    }
}
