//! SCRAM-SHA-256 verifiers, which PostgreSQL stores instead of passwords.
//!
//! pgherd sends a verifier instead of a password, so that no statement in the server's log contains a password.
//! It compares verifiers, so that a correct password is not set again.
//!
//! Source: RFC 5803, and PostgreSQL's `src/common/scram-common.c`.

use std::num::NonZeroU32;

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{digest, hmac, pbkdf2};

use crate::secret::Secret;

/// PostgreSQL's own number of iterations.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("more than none");
/// PostgreSQL's own length of a salt, in bytes.
const SALT: usize = 16;

/// The verifier of `password`. It is always the same for the same `context`.
///
/// The context names one role of one cluster, so that equal passwords of different roles have different
/// verifiers. The salt contains nothing of the password.
pub fn verifier(password: &Secret, context: &str) -> String {
    let salt = digest::digest(&digest::SHA256, context.as_bytes());
    with_salt(password, &salt.as_ref()[..SALT], ROUNDS)
}

/// Whether `verifier`, as PostgreSQL stores it, belongs to `password`.
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
    // Like PostgreSQL: a text that SASLprep rejects is used unchanged.
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
