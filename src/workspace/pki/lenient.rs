//! Verifies a service's certificate except for its times.
//!
//! A cluster with expired certificates can only be repaired by a program that can still look at it. So requests
//! through a host's SSH connection, whose key is pinned, also accept a certificate of which only the times are
//! wrong: authority, name and key must still be right. Such certificates are reported (`Http::lapsed`), and
//! `verify` fails. PostgreSQL sessions are not verified this way.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::Validity;

#[derive(Debug)]
pub(super) struct Lenient(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = |time| {
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, time)
        };
        match at(now) {
            Err(error) if is_of_time(&error) => match within(end_entity) {
                Some(time) => at(time),
                None => Err(error),
            },
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn is_of_time(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
        )
    )
}

/// A time at which a certificate is valid.
fn within(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let begins = Validity::of(certificate)?.begins.as_second();
    let begins = Duration::from_secs(begins.try_into().ok()?);
    Some(UnixTime::since_unix_epoch(begins))
}
