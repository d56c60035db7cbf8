//! The cluster's certificate authority and its certificates.
//!
//! `ca.key` is as important as `secrets.yaml`: whatever trusts the cluster trusts this key. So nothing here
//! ever replaces an authority; for a damaged one, the error says what to do.
//!
//! The key can be lost while the certificates are there: `recover` reads those back from the hosts. Such an
//! authority is still trusted, and what it issued is used as it is. It issues nothing more, and `rotate certs`
//! replaces it while the cluster runs.

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

pub(super) use self::stored::{ca_path, expiries, key_is_lost, put_back, remove};
use self::{
    issue::{authority, generate, jiff_plus, leaf, validity},
    lenient::Lenient,
    stored::{START_OVER, issued, paths, read_cert, read_key, stem},
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
/// How long a certificate is valid; some clients refuse more than 825 days.
const LIFE: Duration = DAY.saturating_mul(825);
/// A certificate with less time left than this is issued again.
pub const RENEWAL: Duration = DAY.saturating_mul(30);
const CA: &str = "ca";
const OPERATOR: &str = "operator";

/// What one host's certificate must contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub host: HostName,
    /// `None` while the host has no address.
    pub address: Option<Ipv4Addr>,
    /// Other names or addresses, such as HAProxy's, whose clients see this certificate.
    pub extra: Vec<String>,
    /// Whether all of that is known now. What is not is assumed to be unchanged.
    pub whole: bool,
    pub usage: Usage,
}

/// What a host may use its certificate for; written into it as extended key usage.
///
/// etcd accepts every client certificate of the cluster's authority, for all of its keys. So only hosts that
/// need one get a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// As a server only.
    Server,
    /// As a client too: a member for etcd and other members' REST interface, etcd for its own members.
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

/// Whether to renew certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// If it has expired or will expire soon, or is not valid yet.
    Due,
    /// Not because of its times alone, because this machine's clock may be wrong.
    Never,
}

/// When a certificate expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// `ca`, `operator`, or a host's name.
    pub name: String,
    pub expires: jiff::Timestamp,
}

/// The authority, ready to issue unless its key is lost.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    ca: Parsed,
    /// `None` if the key is lost.
    issuer: Option<Issuer<'static, KeyPair>>,
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
    /// Opens the authority in `dir`, or creates one there.
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

    /// Opens the authority in `dir` itself; a new one gets `name`.
    fn open_at(dir: &Path, name: &str, now: jiff::Timestamp) -> Result<Self> {
        files::private_dir(dir)?;
        let (cert, key) = paths(dir, CA);
        if key_is_lost(dir) {
            return Self::without_key(dir, &cert);
        }
        // First the key, then the certificate made from it. A run that ended in between, or another one at the
        // same time, leaves a key that the next one uses.
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
        let broken = |why: String| broken(&cert, why);
        let ca = parsed(&ca_pem, &cert)?;
        if ca.public_key != key.subject_public_key_info() {
            return Err(broken("it does not belong to ca.key".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&ca.der, key).map_err(|e| broken(e.to_string()))?;
        Ok(Self {
            dir: dir.to_owned(),
            ca_pem,
            ca,
            issuer: Some(issuer),
        })
    }

    /// The authority whose key is lost.
    fn without_key(dir: &Path, cert: &Path) -> Result<Self> {
        let ca_pem = files::read(cert)?.unwrap_or_default();
        Ok(Self {
            dir: dir.to_owned(),
            ca: parsed(&ca_pem, cert)?,
            ca_pem,
            issuer: None,
        })
    }

    /// The certificate of the authority, PEM, or of both authorities during a change: what all hosts must
    /// trust.
    pub fn ca(&self) -> &str {
        &self.ca_pem
    }

    /// A certificate for each host; a new one is issued if the present one is not suitable.
    ///
    /// A certificate is suitable if this authority issued it, it is for exactly the needed names and usage, it
    /// is valid, and it has more than [`RENEWAL`] left. A renewed certificate has the same key, so that
    /// certificate and key match at every moment, here and on the hosts.
    ///
    /// If the authority's key is lost, the present certificate stays, whatever it is for.
    ///
    /// # Errors
    /// The authority's key is lost, and a host has no certificate yet.
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

    /// Why no valid certificate can be issued at `now`; `None` if the authority is valid.
    pub fn lapse(&self, now: jiff::Timestamp) -> Option<Lapse> {
        self.ca.validity().lapse(now)
    }

    /// TLS as this cluster's operator: trusts only its authority, and presents a certificate of it.
    pub fn rustls_client_config(&self) -> Result<Arc<rustls::ClientConfig>> {
        self.client_config(false)
    }

    /// The same for requests through SSH: it also accepts a certificate of which only the times are wrong.
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

    /// The operator's own certificate, which etcd accepts.
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
        sans.extend(request.address.map(|address| San::Ip(address.into())));
        // A host that is down or cut off is no reason for another certificate, neither for itself nor for those that
        // its clients see.
        if request.address.is_none() || !request.whole {
            sans.extend(self.stored_names(&stem(name))?);
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

    /// The names and addresses in the stored certificate, if there is one.
    fn stored_names(&self, stem: &str) -> Result<BTreeSet<San>> {
        let stored = read_cert(&paths(&self.dir, stem).0)?;
        Ok(stored.map(|(_, cert)| cert.sans).unwrap_or_default())
    }

    /// The stored certificate if it is suitable; otherwise a new one, which is stored.
    fn obtain(
        &self,
        stem: &str,
        mut params: CertificateParams,
        sans: &BTreeSet<San>,
        renewal: Renewal,
        now: jiff::Timestamp,
    ) -> Result<Certificate> {
        let Some(issuer) = &self.issuer else {
            return issued(&self.dir, stem);
        };
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
                // An authority that is not valid cannot issue a valid certificate, so its times apply to
                // existing ones.
                let now = now.clamp(self.ca.not_before, self.ca.not_after);
                let last = jiff_plus(now, LIFE).min(self.ca.not_after);
                validity(&mut params, now, last)?;
                let pem = params
                    .signed_by(&key, issuer)
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

    /// Whether it is valid and has enough time left, or a new one would be no better.
    fn is_timely(&self, cert: &Parsed, now: jiff::Timestamp) -> bool {
        // A certificate cannot be valid longer than its authority. Near the authority's end, or if the
        // authority is not valid itself, a new one gains nothing.
        let lasts = cert.not_after > jiff_plus(now, RENEWAL) || cert.not_after == self.ca.not_after;
        lasts && cert.not_before <= now || self.lapse(now).is_some()
    }

    fn will_do(&self, cert: &Parsed, key: &KeyPair, sans: &BTreeSet<San>) -> bool {
        cert.sans == *sans
            && cert.public_key == key.subject_public_key_info()
            && cert.is_signed_by(&self.ca)
    }
}

/// The certificate of an authority, from its text.
fn parsed(ca_pem: &str, path: &Path) -> Result<Parsed> {
    let ca = Parsed::from_pem(ca_pem).map_err(|why| broken(path, why))?;
    match ca.is_ca {
        true => Ok(ca),
        false => Err(broken(
            path,
            "it is not the certificate of an authority".to_owned(),
        )),
    }
}

fn broken(path: &Path, why: String) -> Error {
    Error::new(
        Code::CertificateUnusable,
        format!("{} cannot be used", files::origin(path).display()),
    )
    .cause(why)
    .hint("restore ca.crt and ca.key, which belong together, from a backup")
    .hint(START_OVER)
}

/// The usage that a certificate for these purposes has, as it is read back.
fn purposes(wanted: &[ExtendedKeyUsagePurpose]) -> Purposes {
    Purposes {
        server: wanted.contains(&ExtendedKeyUsagePurpose::ServerAuth),
        client: wanted.contains(&ExtendedKeyUsagePurpose::ClientAuth),
    }
}

/// When a certificate expires, such as one that a server has shown.
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
