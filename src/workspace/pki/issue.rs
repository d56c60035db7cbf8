//! The contents of new certificates.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SerialNumber,
};

use super::DAY;
use crate::{
    error::{Code, Error, Result},
    workspace::secrets,
};

/// How long the authority lasts.
const CA_LIFE: Duration = DAY.saturating_mul(3650);
/// How far a host's clock may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

pub(super) fn generate() -> Result<KeyPair> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|e| Error::new(Code::LocalSystemFailed, "cannot make a private key").because(e))
}

/// The authority's own certificate: it can sign hosts' certificates but no other authority.
pub(super) fn authority(name: &str, key: &KeyPair, now: jiff::Timestamp) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, now, jiff_plus(now, CA_LIFE))?;
    params.self_signed(key).map(|cert| cert.pem()).map_err(|e| {
        Error::new(
            Code::LocalSystemFailed,
            "cannot make the cluster's certificate authority",
        )
        .because(e)
    })
}

pub(super) fn leaf(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Python 3.13's strict verification requires it.
    params.use_authority_key_identifier_extension = true;
    params
}

pub(super) fn named(name: &str) -> DistinguishedName {
    // X.520 limits a common name to 64 characters, and some libraries refuse longer ones.
    let name: String = name.chars().take(64).collect();
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Sets the period of validity and a unique serial number: one key may have several certificates.
pub(super) fn validity(
    params: &mut CertificateParams,
    now: jiff::Timestamp,
    last: jiff::Timestamp,
) -> Result<()> {
    let mut serial = secrets::random_bytes::<16>()?;
    // Positive, and never shorter than 16 bytes.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let first = now.saturating_sub(CLOCK_SKEW).unwrap_or(now);
    params.not_before = std::time::SystemTime::from(first).into();
    params.not_after = std::time::SystemTime::from(last).into();
    Ok(())
}

pub(super) fn jiff_plus(time: jiff::Timestamp, duration: Duration) -> jiff::Timestamp {
    time.saturating_add(duration).unwrap_or(time)
}
