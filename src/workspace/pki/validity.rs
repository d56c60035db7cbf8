//! When a certificate is valid, and the message if it is not.

use std::fmt;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The period in which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub begins: jiff::Timestamp,
    pub ends: jiff::Timestamp,
}

/// Why a certificate is not valid, by its times only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// It has expired.
    Ended(jiff::Timestamp),
    /// It is not valid yet: a clock was ahead when it was made, or is behind now.
    NotBegun(jiff::Timestamp),
}

impl Validity {
    /// Why it is not valid at `now`; `None` if it is.
    pub fn lapse(&self, now: jiff::Timestamp) -> Option<Lapse> {
        if self.ends <= now {
            Some(Lapse::Ended(self.ends))
        } else if self.begins > now {
            Some(Lapse::NotBegun(self.begins))
        } else {
            None
        }
    }

    /// The period of a certificate that a server has shown.
    pub(crate) fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            begins: jiff::Timestamp::from_second(validity.not_before.timestamp()).ok()?,
            ends: jiff::Timestamp::from_second(validity.not_after.timestamp()).ok()?,
        })
    }
}

impl fmt::Display for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, at) = match self {
            Self::Ended(at) => ("ended on", at),
            Self::NotBegun(at) => ("is not valid before", at),
        };
        write!(f, "{what} {}", at.strftime("%Y-%m-%d %H:%M UTC"))
    }
}

/// The periods of the certificates in a PEM text, in order; anything else is left out.
pub fn validities(pem: &str) -> Vec<Validity> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(|der| Validity::of(&der.ok()?))
        .collect()
}
