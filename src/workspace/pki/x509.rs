//! What a certificate contains, as far as it decides whether the certificate can stay.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::Validity;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

/// A name or an address in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum San {
    Dns(String),
    Ip(IpAddr),
}

impl San {
    /// An address if the text is one, otherwise a name; names are compared without case.
    pub(super) fn of(text: &str) -> Self {
        match text.parse() {
            Ok(address) => Self::Ip(address),
            Err(_) => Self::Dns(text.to_ascii_lowercase()),
        }
    }
}

/// The allowed usage of a certificate, by its extended key usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purposes {
    pub(super) server: bool,
    pub(super) client: bool,
}

impl Purposes {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let extension = certificate
            .extended_key_usage()
            .map_err(|e| format!("its usage cannot be read: {e}"))?;
        // Without the extension, every usage is allowed.
        Ok(extension.map_or(
            Self {
                server: true,
                client: true,
            },
            |usage| Self {
                server: usage.value.any || usage.value.server_auth,
                client: usage.value.any || usage.value.client_auth,
            },
        ))
    }

    fn in_words(self) -> &'static str {
        match (self.server, self.client) {
            (true, true) => "server and client",
            (true, false) => "server",
            (false, true) => "client",
            (false, false) => "neither server nor client",
        }
    }
}

/// A parsed certificate.
pub(super) struct Parsed {
    pub(super) der: CertificateDer<'static>,
    pub(super) sans: BTreeSet<San>,
    pub(super) not_before: jiff::Timestamp,
    pub(super) not_after: jiff::Timestamp,
    pub(super) is_ca: bool,
    pub(super) purposes: Purposes,
    /// The public key, as the DER of its `SubjectPublicKeyInfo`.
    pub(super) public_key: Vec<u8>,
}

impl Parsed {
    /// Parses the first certificate of a PEM text.
    pub(super) fn from_pem(pem: &str) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| format!("it is not a certificate in PEM form: {e}"))?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|e| format!("it is not a certificate: {e}"))?;
        let time = |at: x509_parser::time::ASN1Time| {
            jiff::Timestamp::from_second(at.timestamp())
                .map_err(|e| format!("its times are impossible: {e}"))
        };
        let validity = certificate.validity();
        let extension = certificate
            .subject_alternative_name()
            .map_err(|e| format!("its names cannot be read: {e}"))?;
        let names = extension.map_or(&[][..], |e| &e.value.general_names);
        Ok(Self {
            sans: names.iter().map(san).collect::<Result<_, _>>()?,
            not_before: time(validity.not_before)?,
            not_after: time(validity.not_after)?,
            is_ca: certificate.is_ca(),
            purposes: Purposes::of(&certificate)?,
            public_key: certificate.public_key().raw.to_vec(),
            der,
        })
    }

    /// Its period of validity.
    pub(super) fn validity(&self) -> Validity {
        Validity {
            begins: self.not_before,
            ends: self.not_after,
        }
    }

    /// Whether the holder of `authority`'s key made this certificate.
    pub(super) fn is_signed_by(&self, authority: &Self) -> bool {
        let parse = |der| {
            X509Certificate::from_der(der)
                .ok()
                .map(|(_, parsed)| parsed)
        };
        match (parse(&self.der), parse(&authority.der)) {
            (Some(leaf), Some(ca)) => {
                leaf.issuer().as_raw() == ca.subject().as_raw()
                    && leaf.verify_signature(Some(ca.public_key())).is_ok()
            }
            _ => false,
        }
    }
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A text in which every certificate is described in words; everything else is unchanged.
pub fn certificates_in_words(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let Some(length) = rest[start..].find(END) else {
            break;
        };
        let (before, from) = rest.split_at(start);
        let (pem, after) = from.split_at(length + END.len());
        told.push_str(before);
        told.push_str(&in_words(pem).unwrap_or_else(|| pem.to_owned()));
        rest = after;
    }
    told + rest
}

/// One fact on each line, so that a diff shows the one that changes. The serial number is included because two
/// certificates may differ in nothing else. It stands near the top because it always differs, and a diff shows
/// the lines around it.
fn in_words(pem: &str) -> Option<String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let until = certificate.validity().not_after.timestamp();
    let until = jiff::Timestamp::from_second(until).ok()?;
    let kind = if certificate.is_ca() {
        "authority"
    } else {
        "certificate"
    };
    let mut lines = vec![
        format!("{kind}: {}", called(certificate.subject())),
        format!("  serial: {}", certificate.raw_serial_as_string()),
        format!("  issuer: {}", called(certificate.issuer())),
        format!("  valid until: {}", until.strftime("%Y-%m-%d %H:%M UTC")),
    ];
    if !certificate.is_ca() {
        lines.push(format!(
            "  use: {}",
            Purposes::of(&certificate).ok()?.in_words()
        ));
    }
    let names = certificate.subject_alternative_name().ok()?;
    let names = names.map_or(&[][..], |e| &e.value.general_names);
    let sans: BTreeSet<San> = names.iter().filter_map(|name| san(name).ok()).collect();
    lines.extend(sans.iter().map(|san| match san {
        San::Dns(name) => format!("  name: {name}"),
        San::Ip(address) => format!("  address: {address}"),
    }));
    Some(lines.join("\n"))
}

/// The common name, or what there is instead.
fn called(name: &X509Name<'_>) -> String {
    let mut common = name.iter_common_name();
    let common = common.next().and_then(|name| name.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

fn san(name: &GeneralName<'_>) -> Result<San, String> {
    match name {
        GeneralName::DNSName(name) => Ok(San::Dns(name.to_ascii_lowercase())),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|b| IpAddr::from(Ipv4Addr::from(b)));
            let v6 = <[u8; 16]>::try_from(*bytes).map(|b| IpAddr::from(Ipv6Addr::from(b)));
            v4.or(v6)
                .map(San::Ip)
                .map_err(|_| "an address in it is neither IPv4 nor IPv6".to_owned())
        }
        _ => Err("it has a name of a kind that pgherd does not issue".to_owned()),
    }
}
