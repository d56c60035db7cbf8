//! The cluster's certificate authority and its certificates.
//!
//! `ca.key` is as precious as `secrets.yaml`: all that trusts the cluster trusts this key. So
//! nothing here ever replaces an authority; what is broken is an error that says what to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, PublicKeyData, SanType};
use rustls::{
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

pub(super) use self::stored::{ca_path, expiries, remove};
use self::{
    issue::{authority, generate, jiff_plus, leaf, validity},
    lenient::Lenient,
    stored::{START_OVER, paths, read_cert, read_key, stem},
    x509::{Parsed, Purposes, San},
};
pub use self::{
    rotation::AuthorityStage,
    validity::{Lapse, Validity, validities},
    x509::certificates_in_words,
};
use super::files;
use crate::{
    cluster::Certificate,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    secret::Secret,
};

mod issue;
mod lenient;
pub(super) mod rotation;
mod stored;
mod validity;
mod x509;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a certificate lasts; more than 825 days some clients refuse.
const LIFE: Duration = DAY.saturating_mul(825);
/// A certificate with no more than this left is issued anew.
pub const RENEWAL: Duration = DAY.saturating_mul(30);
const CA: &str = "ca";
const OPERATOR: &str = "operator";

/// What one host's certificate must be good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub host: HostName,
    /// `None` while the host has none.
    pub address: Option<Ipv4Addr>,
    /// Further names or addresses, such as those of HAProxy, whose clients see this certificate.
    pub extra: Vec<String>,
    pub usage: Usage,
}

/// What a host may do with its certificate; it is written into it as extended key usage.
///
/// etcd takes every certificate of the cluster's authority that may be a client's, for all of its keys.
/// So only those get one who have business there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Show who it is to those who connect to it, and nothing else.
    Server,
    /// Connect to others by it as well: a member to etcd and to other members' REST interface, etcd to
    /// its own members.
    ServerAndClient,
}

impl Usage {
    /// What a host with these roles needs.
    pub fn of(roles: &[Role]) -> Self {
        if roles.iter().any(|role| role.service().connects) {
            Self::ServerAndClient
        } else {
            Self::Server
        }
    }

    fn purposes(self) -> Vec<ExtendedKeyUsagePurpose> {
        let mut purposes = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if self == Self::ServerAndClient {
            purposes.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        purposes
    }
}

/// Whether a certificate whose time it is becomes another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Where it has ended or is about to, or is not valid yet.
    Due,
    /// Not by its times alone, since this machine's clock may be wrong.
    Never,
}

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// `ca`, `operator`, or a host's name.
    pub name: String,
    pub expires: jiff::Timestamp,
}

/// The authority, ready to issue.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    ca: Parsed,
    issuer: Issuer<'static, KeyPair>,
}

/// Without the keys.
impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki")
            .field("dir", &self.dir)
            .field("expires", &self.ca.not_after)
            .finish_non_exhaustive()
    }
}

impl Pki {
    /// Opens the authority in `dir`, or makes one there.
    pub(super) fn open(dir: &Path, cluster: &str) -> Result<Self> {
        let now = jiff::Timestamp::now();
        let mut pki = Self::open_at(&rotation::issuing_dir(dir)?, &rotation::name(cluster), now)?;
        if rotation::stage(dir)? == Some(AuthorityStage::Issue)
            && let Some(both) = files::read(&paths(dir, CA).0)?
        {
            pki.ca_pem = both;
        }
        Ok(pki)
    }

    /// Opens what is in `dir` itself; an authority that is made gets `name`.
    fn open_at(dir: &Path, name: &str, now: jiff::Timestamp) -> Result<Self> {
        files::private_dir(dir)?;
        let (cert, key) = paths(dir, CA);
        if cert.exists() && !key.exists() {
            return Err(Error::new(
                Code::CertificateUnusable,
                format!("{} is missing", key.display()),
            )
            .cause(
                "the authority's certificate is there, but nothing can be issued without its key",
            )
            .hint("restore the key from a backup")
            .hint(START_OVER));
        }
        // First the key, then the certificate made of it: a run that ended in between, or another
        // at the same time, leaves a key that the next one takes up.
        let key = match read_key(&key)? {
            Some(key) => key,
            None => {
                let made = generate()?;
                files::create(&key, files::PRIVATE, made.serialize_pem().as_bytes())?;
                read_key(&key)?.unwrap_or(made)
            }
        };
        let ca_pem = match files::read(&cert)? {
            Some(pem) => pem,
            None => {
                let made = authority(name, &key, now)?;
                files::create(&cert, files::PUBLIC, made.as_bytes())?;
                files::read(&cert)?.unwrap_or(made)
            }
        };
        let broken = |why: String| {
            Error::new(
                Code::CertificateUnusable,
                format!("{} cannot be used", files::origin(&cert).display()),
            )
            .cause(why)
            .hint("restore ca.crt and ca.key, which belong together, from a backup")
            .hint(START_OVER)
        };
        let ca = Parsed::from_pem(&ca_pem).map_err(broken)?;
        if !ca.is_ca {
            return Err(broken(
                "it is not the certificate of an authority".to_owned(),
            ));
        }
        if ca.public_key != key.subject_public_key_info() {
            return Err(broken("it does not belong to ca.key".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&ca.der, key).map_err(|e| broken(e.to_string()))?;
        Ok(Self {
            dir: dir.to_owned(),
            ca_pem,
            ca,
            issuer,
        })
    }

    /// The certificate of the authority, or of both while it changes, PEM: what all are to trust.
    pub fn ca(&self) -> &str {
        &self.ca_pem
    }

    /// A certificate for each host, issued where there is none that will do.
    ///
    /// It will do if this authority issued it, it is for exactly the wanted names and the wanted usage,
    /// is valid, and more than [`RENEWAL`] is left. A certificate that is issued anew keeps its key, so that certificate and
    /// key fit together at every moment, here and on the hosts.
    pub fn certificates(
        &self,
        requests: &[Request],
        renewal: Renewal,
    ) -> Result<BTreeMap<HostName, Certificate>> {
        let now = jiff::Timestamp::now();
        requests
            .iter()
            .map(|request| {
                let certificate = self
                    .of_host(request, renewal, now)
                    .map_err(|e| e.on(&request.host))?;
                Ok((request.host.clone(), certificate))
            })
            .collect()
    }

    /// Why nothing can be issued at `now` that would be valid; none as long as the authority is.
    pub fn lapse(&self, now: jiff::Timestamp) -> Option<Lapse> {
        self.ca.validity().lapse(now)
    }

    /// TLS as this cluster's operator: trusts its authority alone, and shows a certificate of it.
    pub fn rustls_client_config(&self) -> Result<Arc<rustls::ClientConfig>> {
        self.client_config(false)
    }

    /// The same for what is asked through SSH: it also takes a certificate whose times alone are wrong.
    pub fn lenient_client_config(&self) -> Result<Arc<rustls::ClientConfig>> {
        self.client_config(true)
    }

    fn client_config(&self, lenient: bool) -> Result<Arc<rustls::ClientConfig>> {
        let unusable = |what: &str, e: &dyn std::error::Error| {
            Error::new(
                Code::CertificateUnusable,
                format!("{what} cannot be used for TLS"),
            )
            .cause(e.to_string())
        };
        let own = self.of_operator(jiff::Timestamp::now())?;
        let cert = Parsed::from_pem(&own.cert).map_err(|e| {
            Error::new(
                Code::CertificateUnusable,
                "the operator's certificate is broken",
            )
            .cause(e)
        })?;
        let key = PrivateKeyDer::from_pem_slice(own.key.expose().as_bytes())
            .map_err(|e| unusable("the operator's key", &e))?;
        let mut roots = rustls::RootCertStore::empty();
        for trusted in CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()) {
            let trusted = trusted.map_err(|e| unusable("the authority's certificate", &e))?;
            roots
                .add(trusted)
                .map_err(|e| unusable("the authority's certificate", &e))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable("the operator's certificate", &e))?;
        let builder = if lenient {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|e| unusable("the authority's certificate", &e))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Lenient(verifier)))
        } else {
            builder.with_root_certificates(roots)
        };
        builder
            .with_client_auth_cert(vec![cert.der], key)
            .map(Arc::new)
            .map_err(|e| unusable("the operator's certificate", &e))
    }

    /// The operator's own certificate, by which etcd knows it.
    fn of_operator(&self, now: jiff::Timestamp) -> Result<Certificate> {
        let mut params = leaf("pgherd operator");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.obtain(OPERATOR, params, &BTreeSet::new(), Renewal::Due, now)
    }

    fn of_host(
        &self,
        request: &Request,
        renewal: Renewal,
        now: jiff::Timestamp,
    ) -> Result<Certificate> {
        let name = request.host.as_str();
        let mut sans: BTreeSet<_> = request.extra.iter().map(|text| San::of(text)).collect();
        sans.insert(San::Dns(name.to_ascii_lowercase()));
        match request.address {
            Some(address) => {
                sans.insert(San::Ip(address.into()));
            }
            // A host that is down or cut off has the same address as before for all that is known:
            // no reason for another certificate.
            None => sans.extend(self.stored_addresses(&stem(name))?),
        }
        let mut params = leaf(name);
        params.extended_key_usages = request.usage.purposes();
        params.subject_alt_names = sans
            .iter()
            .map(|san| match san {
                San::Ip(address) => Ok(SanType::IpAddress(*address)),
                San::Dns(name) => match name.as_str().try_into() {
                    Ok(name) => Ok(SanType::DnsName(name)),
                    Err(e) => Err(Error::new(
                        Code::InventoryInvalid,
                        format!("no certificate can be for {name:?}"),
                    )
                    .because(e)),
                },
            })
            .collect::<Result<_>>()?;
        self.obtain(&stem(name), params, &sans, renewal, now)
    }

    /// The addresses in the stored certificate, if there is one.
    fn stored_addresses(&self, stem: &str) -> Result<Vec<San>> {
        let stored = read_cert(&paths(&self.dir, stem).0)?;
        let sans = stored.map(|(_, cert)| cert.sans).unwrap_or_default();
        Ok(sans
            .into_iter()
            .filter(|san| matches!(san, San::Ip(_)))
            .collect())
    }

    /// The stored certificate if it will do, else a new one, stored.
    fn obtain(
        &self,
        stem: &str,
        mut params: CertificateParams,
        sans: &BTreeSet<San>,
        renewal: Renewal,
        now: jiff::Timestamp,
    ) -> Result<Certificate> {
        let (cert_path, key_path) = paths(&self.dir, stem);
        let key = match read_key(&key_path)? {
            Some(key) => key,
            None => {
                let made = generate()?;
                files::create(&key_path, files::PRIVATE, made.serialize_pem().as_bytes())?;
                read_key(&key_path)?.unwrap_or(made)
            }
        };
        let stored = match read_cert(&cert_path)? {
            Some((pem, cert))
                if self.will_do(&cert, &key, sans)
                    && (renewal == Renewal::Never || self.is_timely(&cert, now))
                    && cert.purposes == purposes(&params.extended_key_usages) =>
            {
                pem
            }
            _ => {
                // Of an authority that is not valid no certificate can be: what there is has its times.
                let now = now.clamp(self.ca.not_before, self.ca.not_after);
                let last = jiff_plus(now, LIFE).min(self.ca.not_after);
                validity(&mut params, now, last)?;
                let pem = params
                    .signed_by(&key, &self.issuer)
                    .map_err(|e| {
                        Error::new(Code::CertificateUnusable, "cannot issue a certificate")
                            .because(e)
                    })?
                    .pem();
                files::write(&cert_path, files::PUBLIC, pem.as_bytes())?;
                pem
            }
        };
        Ok(Certificate {
            cert: stored,
            key: Secret::new(key.serialize_pem()),
        })
    }

    /// Whether it is valid and stays so for a while, or another one would be no better.
    fn is_timely(&self, cert: &Parsed, now: jiff::Timestamp) -> bool {
        // None outlives the authority, so near its end a new one would gain nothing; nor would one where
        // the authority itself is not valid.
        let lasts = cert.not_after > jiff_plus(now, RENEWAL) || cert.not_after == self.ca.not_after;
        lasts && cert.not_before <= now || self.lapse(now).is_some()
    }

    fn will_do(&self, cert: &Parsed, key: &KeyPair, sans: &BTreeSet<San>) -> bool {
        cert.sans == *sans
            && cert.public_key == key.subject_public_key_info()
            && cert.is_signed_by(&self.ca)
    }
}

/// What a certificate with these purposes may be used for, as it is read back.
fn purposes(wanted: &[ExtendedKeyUsagePurpose]) -> Purposes {
    Purposes {
        server: wanted.contains(&ExtendedKeyUsagePurpose::ServerAuth),
        client: wanted.contains(&ExtendedKeyUsagePurpose::ClientAuth),
    }
}

/// When a certificate ends, such as one that a server has shown.
pub fn expires(cert_pem: &str) -> Result<jiff::Timestamp> {
    Parsed::from_pem(cert_pem)
        .map(|cert| cert.not_after)
        .map_err(|e| {
            Error::new(
                Code::CertificateUnusable,
                "cannot read when a certificate expires",
            )
            .cause(e)
        })
}

#[cfg(test)]
mod tests;
