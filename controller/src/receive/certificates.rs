//! The certificate that learners know the controller by: made here, kept in a Secret, renewed before it ends.
//!
//! Guarantees:
//! * whoever writes the Secret first decides: every controller serves what is in it, so one authority is enough for all of them;
//! * a renewed certificate is served to the next connection, without a restart and without breaking those that are open;
//! * the authority's certificate, and nothing else, is published in a `ConfigMap` for learners.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig, crypto};

use crate::trouble::{Trouble, chain};

/// Name of the Secret with the keys.
pub const SECRET: &str = "nanoseg-controller-tls";
/// Name of the `ConfigMap` with the authority's certificate.
pub const AUTHORITY: &str = "nanoseg-authority";
/// Key of the authority's certificate in both.
const CA: &str = "ca.crt";
/// Name of the Service that learners connect to.
const SERVICE: &str = "nanoseg-controller";
/// When the certificate is to be renewed, so that nobody has to take it apart.
const RENEW: &str = "nanoseg.io/renew-at";

/// A key that leaks is of use for a month.
const LEAF_FOR: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Ten days to notice that renewing fails.
const RENEW_AFTER: SignedDuration = SignedDuration::from_hours(24 * 20);
const AUTHORITY_FOR: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// Nodes' clocks differ.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// How often the Secret is looked at: one request a minute.
const LOOK: Duration = Duration::from_mins(1);
/// How soon again after a failure.
const AGAIN: Duration = Duration::from_secs(2);
/// Two controllers that start together refuse each other's write once.
const ATTEMPTS: usize = 5;

/// Why there is no certificate to serve.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The API server refused a request or cannot be reached.
    #[error("cannot {verb} {object}; without it learners cannot connect")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On which object.
        object: String,
        /// What the API server said.
        source: Trouble,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate for learners' connections")]
    Make(#[from] rcgen::Error),
    /// What the Secret holds is no certificate with its key.
    #[error(
        "Secret {namespace}/{SECRET} does not hold a certificate with its key ({what}); delete it, and it is made again"
    )]
    Unusable {
        /// The Secret's namespace.
        namespace: String,
        /// Why.
        what: String,
    },
    /// Others wrote the Secret each time.
    #[error("Secret {namespace}/{SECRET} changed each time it was to be written")]
    Contended {
        /// The Secret's namespace.
        namespace: String,
    },
}

/// An authority, and a certificate that it signed.
#[derive(Debug, PartialEq, Eq)]
struct Material {
    ca: String,
    ca_key: String,
    leaf: String,
    leaf_key: String,
    renew_at: Timestamp,
}

fn at(time: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn valid(params: &mut CertificateParams, now: Timestamp, duration: SignedDuration) {
    params.not_before = at(now.saturating_sub(BACKDATED).unwrap_or(now));
    params.not_after = at(now.saturating_add(duration).unwrap_or(Timestamp::MAX));
}

/// The name has to stay as it is: certificates name their issuer by it.
fn authority(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "nanoseg authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, AUTHORITY_FOR);
    params
}

impl Material {
    fn new(namespace: &str, now: Timestamp) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let ca = authority(now).self_signed(&key)?.pem();
        Self::signed(ca, key.serialize_pem(), namespace, now)
    }

    /// A new certificate by the same authority.
    fn signed(ca: String, ca_key: String, namespace: &str, now: Timestamp) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::new(authority(now), KeyPair::from_pem(&ca_key)?);
        let names = [
            SERVICE.to_owned(),
            format!("{SERVICE}.{namespace}"),
            format!("{SERVICE}.{namespace}.svc"),
        ];
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, SERVICE);
        valid(&mut params, now, LEAF_FOR);
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &issuer)?.pem();
        Ok(Self {
            ca,
            ca_key,
            leaf,
            leaf_key: key.serialize_pem(),
            renew_at: now.saturating_add(RENEW_AFTER).unwrap_or(now),
        })
    }

    fn read(secret: &Secret) -> Result<Self, String> {
        let value = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            let text = bytes.and_then(|ByteString(bytes)| String::from_utf8(bytes.clone()).ok());
            text.ok_or_else(|| format!("no {key}"))
        };
        let renew_at = secret.metadata.annotations.as_ref().and_then(|all| all.get(RENEW));
        Ok(Self {
            ca: value(CA)?,
            ca_key: value("ca.key")?,
            leaf: value("tls.crt")?,
            leaf_key: value("tls.key")?,
            // Unreadable: renewed now.
            renew_at: renew_at.and_then(|text| text.parse().ok()).unwrap_or(Timestamp::MIN),
        })
    }

    fn into_secret(self, namespace: &str, resource_version: Option<String>) -> Secret {
        let Self {
            ca,
            ca_key,
            leaf,
            leaf_key,
            renew_at,
        } = self;
        let data = [(CA, ca), ("ca.key", ca_key), ("tls.crt", leaf), ("tls.key", leaf_key)];
        Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                namespace: Some(namespace.to_owned()),
                resource_version,
                annotations: Some([(RENEW.to_owned(), renew_at.to_string())].into()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(
                data.into_iter()
                    .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
                    .collect(),
            ),
            ..Secret::default()
        }
    }

    fn certified(&self) -> Result<CertifiedKey, String> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.leaf.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(self.leaf_key.as_bytes()).map_err(|error| error.to_string())?;
        CertifiedKey::from_der(chain, key, &crypto::ring::default_provider()).map_err(|error| error.to_string())
    }
}

/// What is served now.
#[derive(Debug, Default)]
struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Nothing panics with the lock held, and a replaced value is whole.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The certificate of one installation.
#[derive(Debug)]
pub struct Certificates {
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    namespace: String,
    served: Arc<Served>,
}

impl std::fmt::Display for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret {}/{SECRET}", self.namespace)
    }
}

impl Certificates {
    /// In this namespace. Nothing is served before [`Certificates::keep`] runs.
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            maps: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
            served: Arc::default(),
        }
    }

    /// How connections are to be encrypted.
    pub fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(crypto::ring::default_provider());
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Served>::clone(&self.served);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// Makes, reads and renews for as long as it is polled.
    pub async fn keep(&self) {
        let mut complained = false;
        loop {
            let rest = match self.refresh(Timestamp::now()).await {
                Ok(()) => {
                    complained = false;
                    LOOK
                }
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!("{}", chain(&error));
                    }
                    AGAIN
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    fn api(&self, verb: &'static str, kind: &str, name: &str) -> impl FnOnce(kube::Error) -> CertificateError {
        let object = format!("{kind} {}/{name}", self.namespace);
        move |error| CertificateError::Api {
            verb,
            object,
            source: error.into(),
        }
    }

    async fn refresh(&self, now: Timestamp) -> Result<(), CertificateError> {
        let material = self.current(now).await?;
        let unusable = |what| CertificateError::Unusable {
            namespace: self.namespace.clone(),
            what,
        };
        let certified = material.certified().map_err(unusable)?;
        // Published before it is served: a learner that is turned away once knows whom to trust when it comes again.
        self.publish(&material.ca).await?;
        *self.served.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }

    async fn current(&self, now: Timestamp) -> Result<Material, CertificateError> {
        for _ in 0..ATTEMPTS {
            let found = self
                .secrets
                .get_opt(SECRET)
                .await
                .map_err(self.api("read", "Secret", SECRET))?;
            let written = if let Some(secret) = found {
                let known = Material::read(&secret).map_err(|what| CertificateError::Unusable {
                    namespace: self.namespace.clone(),
                    what,
                })?;
                if known.renew_at > now {
                    return Ok(known);
                }
                let renewed = Material::signed(known.ca, known.ca_key, &self.namespace, now)?;
                let secret = renewed.into_secret(&self.namespace, secret.metadata.resource_version);
                self.secrets.replace(SECRET, &PostParams::default(), &secret).await
            } else {
                let secret = Material::new(&self.namespace, now)?.into_secret(&self.namespace, None);
                self.secrets.create(&PostParams::default(), &secret).await
            };
            match written {
                Ok(_) => tracing::info!(secret = %self, "certificate for learners' connections written"),
                // Another controller was faster, and what it wrote is as good.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(self.api("write", "Secret", SECRET)(error)),
            }
        }
        Err(CertificateError::Contended {
            namespace: self.namespace.clone(),
        })
    }

    async fn publish(&self, ca: &str) -> Result<(), CertificateError> {
        let found = self
            .maps
            .get_opt(AUTHORITY)
            .await
            .map_err(self.api("read", "ConfigMap", AUTHORITY))?;
        let data = BTreeMap::from([(CA.to_owned(), ca.to_owned())]);
        let mut map = found.clone().unwrap_or_default();
        if map.data.as_ref() == Some(&data) {
            return Ok(());
        }
        map.metadata.name = Some(AUTHORITY.to_owned());
        map.data = Some(data);
        let params = PostParams::default();
        let written = match found {
            Some(_) => self.maps.replace(AUTHORITY, &params, &map).await,
            None => self.maps.create(&params, &map).await,
        };
        match written {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(self.api("write", "ConfigMap", AUTHORITY)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn what_a_secret_keeps_is_read_back() {
        let made = Material::new("nanoseg", now()).unwrap();
        let again = Material::read(&Material::new("nanoseg", now()).unwrap().into_secret("nanoseg", None)).unwrap();
        assert_ne!(made, again, "every key is its own");
        let (ca, renew_at) = (made.ca.clone(), made.renew_at);
        let read = Material::read(&made.into_secret("nanoseg", None)).unwrap();
        assert_eq!((&read.ca, read.renew_at), (&ca, renew_at));
        read.certified().unwrap();
        assert!(Material::read(&Secret::default()).is_err());
    }

    #[test]
    fn a_renewed_certificate_has_the_same_authority_and_another_key() {
        let made = Material::new("nanoseg", now()).unwrap();
        let later = made.renew_at;
        let renewed = Material::signed(made.ca.clone(), made.ca_key.clone(), "nanoseg", later).unwrap();
        assert_eq!((&renewed.ca, &renewed.ca_key), (&made.ca, &made.ca_key));
        assert_ne!(renewed.leaf_key, made.leaf_key);
        assert_eq!(renewed.renew_at, later + RENEW_AFTER);
    }
}
