//! As whom the API server is asked, and where it is: the pod's own service account, or a kubeconfig. Everything is read anew at
//! each request: tokens are rotated under our feet.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use runtime::{clock::Clock, tls};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

/// Where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A file of either, and what a credential command may print.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A credential command, `aws eks get-token` say.
const COMMAND_WITHIN: Duration = Duration::from_secs(10);
/// A token that does not say until when it is good is asked for again after this long.
const TOKEN_GOOD_FOR: Duration = Duration::from_secs(60);

/// Where identities come from.
#[derive(Debug)]
pub enum Source {
    /// The pod's own: the folder of its service account, and the server that its environment names.
    Pod {
        folder: PathBuf,
        server: Result<String, String>,
    },
    Kubeconfig {
        file: PathBuf,
        context: Option<String>,
    },
}

impl Source {
    /// Of the pod that this process runs in.
    pub fn pod() -> Source {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| format!("{name} is not set: this is no pod, name a kubeconfig"))
        };
        let server = variable("KUBERNETES_SERVICE_HOST").and_then(|host| {
            let port = variable("KUBERNETES_SERVICE_PORT")?;
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            Ok(format!("https://{host}:{port}"))
        });
        Source::Pod { folder: SERVICE_ACCOUNT.into(), server }
    }
}

/// Everything that one request needs.
#[derive(Clone)]
pub(super) struct Identity {
    /// Without a slash at its end.
    pub(super) server: String,
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The value of `Authorization`.
    pub(super) authorization: Option<String>,
    pub(super) namespace: String,
}

/// See the module.
pub(super) struct Access {
    source: Source,
    clock: Clock,
    /// What a credential command last printed, and until when it is good.
    token: Mutex<Option<(String, Timestamp)>>,
}

impl Access {
    pub(super) fn new(source: Source, clock: Clock) -> Access {
        Access { source, clock, token: Mutex::default() }
    }

    pub(super) async fn identity(&self) -> Result<Identity, String> {
        match &self.source {
            Source::Pod { folder, server } => {
                let token = text(&folder.join("token")).await?;
                let namespace = text(&folder.join("namespace")).await?.trim().to_owned();
                let trust = tls::trusting(&folder.join("ca.crt")).map_err(|error| format!("its ca.crt: {error}"))?;
                let authorization = Some(format!("Bearer {}", token.trim()));
                Ok(Identity { server: server.clone()?, tls: Some(Arc::new(trust)), authorization, namespace })
            }
            Source::Kubeconfig { file, context } => {
                let whole = text(file).await?;
                let at = |error: String| format!("{}: {error}", file.display());
                let config = Kubeconfig::read(&whole).map_err(at)?;
                let chosen = config.chosen(context.as_deref()).map_err(at)?;
                self.by(chosen, file.parent().unwrap_or(Path::new("."))).await.map_err(at)
            }
        }
    }

    /// The server did not take who we said we are: a credential command is asked again next time.
    pub(super) fn was_refused(&self) {
        *self.token.lock().expect("nobody panics with it") = None;
    }

    async fn by(&self, Chosen { cluster, user, namespace }: Chosen<'_>, folder: &Path) -> Result<Identity, String> {
        let server = cluster.server.trim_end_matches('/').to_owned();
        let nobody = User::default();
        let user = user.unwrap_or(&nobody);
        let (mut certificate, mut key) = (
            pem(user.client_certificate_data.as_deref(), user.client_certificate.as_deref(), folder).await?,
            pem(user.client_key_data.as_deref(), user.client_key.as_deref(), folder).await?,
        );
        let mut authorization = None;
        if let Some(token) = &user.token {
            authorization = Some(format!("Bearer {}", token.trim()));
        } else if let Some(path) = &user.token_file {
            authorization = Some(format!("Bearer {}", text(&folder.join(path)).await?.trim()));
        } else if let (Some(name), Some(password)) = (&user.username, &user.password) {
            authorization = Some(super::super::web::basic(name, password));
        } else if let Some(command) = &user.exec {
            let given = self.command(command).await?;
            authorization = given.token.map(|token| format!("Bearer {token}"));
            certificate = given.client_certificate_data.map(String::into_bytes).or(certificate);
            key = given.client_key_data.map(String::into_bytes).or(key);
        }
        let namespace = namespace.unwrap_or("default").to_owned();
        if !server.starts_with("https://") {
            if authorization.is_some() && !tls::is_loopback_url(&server) {
                return Err(format!("{server} is without TLS, and not an address of this machine"));
            }
            return Ok(Identity { server, tls: None, authorization, namespace });
        }
        let authority =
            pem(cluster.certificate_authority_data.as_deref(), cluster.certificate_authority.as_deref(), folder)
                .await?;
        let tls = client(authority.as_deref(), certificate.zip(key))?;
        Ok(Identity { server, tls: Some(Arc::new(tls)), authorization, namespace })
    }

    /// Runs a credential command, unless what it printed last is still good.
    async fn command(&self, command: &Exec) -> Result<Given, String> {
        let now = self.clock.now();
        if let Some((token, until)) = &*self.token.lock().expect("nobody panics with it")
            && *until > now
        {
            return Ok(Given { token: Some(token.clone()), ..Given::default() });
        }
        let doing = format!("running {}", command.command);
        let run = async {
            let version = command.api_version.as_deref().unwrap_or("client.authentication.k8s.io/v1");
            let asked =
                serde_json::json!({"kind": "ExecCredential", "apiVersion": version, "spec": {"interactive": false}});
            let mut child = tokio::process::Command::new(&command.command)
                .args(command.args.iter().flatten())
                .envs(command.env.iter().flatten().map(|variable| (&variable.name, &variable.value)))
                .env("KUBERNETES_EXEC_INFO", asked.to_string())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| error.to_string())?;
            let mut output = Vec::new();
            if let Some(stdout) = child.stdout.take() {
                stdout.take(FILE_BYTES_MAX).read_to_end(&mut output).await.map_err(|error| error.to_string())?;
            }
            let status = child.wait().await.map_err(|error| error.to_string())?;
            if status.success() { Ok(output) } else { Err(status.to_string()) }
        };
        let output = self.clock.timeout(COMMAND_WITHIN, run).await.map_err(|elapsed| format!("{doing}: {elapsed}"))?;
        let output = output.map_err(|error| format!("{doing}: {error}"))?;
        // What it printed is a secret: the error says where, not what.
        let printed: Printed = serde_json::from_slice(&output)
            .map_err(|error| format!("{doing}: what it printed is no credential (line {})", error.line()))?;
        let given = printed.status;
        if let Some(token) = &given.token {
            let good = given.expiration_timestamp.unwrap_or_else(|| now.saturating_add(TOKEN_GOOD_FOR).unwrap_or(now));
            *self.token.lock().expect("nobody panics with it") = Some((token.clone(), good));
        }
        Ok(given)
    }
}

/// TLS that trusts `authority`, or else the system's, and shows a certificate where there is one.
fn client(authority: Option<&[u8]>, shown: Option<(Vec<u8>, Vec<u8>)>) -> Result<ClientConfig, String> {
    let Some(authority) = authority else {
        return match shown {
            None => tls::trusting_as_the_system(),
            Some(_) => Err("a client certificate needs certificate-authority beside it".to_owned()),
        };
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        let certificate = certificate.map_err(|error| format!("certificate-authority: {error}"))?;
        roots.add(certificate).map_err(|error| format!("certificate-authority: {error}"))?;
    }
    if roots.is_empty() {
        return Err("certificate-authority holds no certificate".to_owned());
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let Some((certificate, key)) = shown else { return Ok(config.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| format!("client-certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| format!("client-key: {error}"))?;
    config.with_client_auth_cert(chain, key).map_err(|error| format!("client-certificate: {error}"))
}

async fn text(path: &Path) -> Result<String, String> {
    let at = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut read = String::new();
    let file = tokio::fs::File::open(path).await.map_err(at)?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut read).await.map_err(at)?;
    Ok(read)
}

/// From the kubeconfig itself, or from a file that it names.
async fn pem(data: Option<&str>, path: Option<&str>, folder: &Path) -> Result<Option<Vec<u8>>, String> {
    match (data, path) {
        (Some(data), _) if !data.is_empty() => {
            // What is not base64 may be a key: it is not shown.
            BASE64_STANDARD.decode(data.trim()).map(Some).map_err(|_| "a -data field is not base64".to_owned())
        }
        (_, Some(path)) if !path.is_empty() => text(&folder.join(path)).await.map(String::into_bytes).map(Some),
        _ => Ok(None),
    }
}

/// The file of kubectl, as far as it is used. Unknown fields are others' business; those that would change whom we trust are not.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: Option<String>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: Option<bool>,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    username: Option<String>,
    password: Option<String>,
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    exec: Option<Exec>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

impl std::fmt::Debug for User {
    /// Everything in it is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("User")
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exec {
    api_version: Option<String>,
    command: String,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
}

#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
    user: Option<String>,
    namespace: Option<String>,
}

/// What a credential command prints.
#[derive(Deserialize)]
struct Printed {
    status: Given,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Given {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<Timestamp>,
}

/// One context of a kubeconfig.
struct Chosen<'a> {
    cluster: &'a Cluster,
    user: Option<&'a User>,
    namespace: Option<&'a str>,
}

impl Kubeconfig {
    fn read(text: &str) -> Result<Kubeconfig, String> {
        // The reader quotes the line that it does not like, which may be a secret.
        serde_saphyr::from_str(text).map_err(|error| match error.location() {
            Some(place) => format!("it is no kubeconfig (line {})", place.line()),
            None => "it is no kubeconfig".to_owned(),
        })
    }

    fn chosen(&self, context: Option<&str>) -> Result<Chosen<'_>, String> {
        let name = context.or(self.current_context.as_deref()).filter(|name| !name.is_empty());
        let name = name.ok_or("it has no current-context, and none is configured")?;
        let context = self.contexts.iter().find(|context| context.name == name);
        let context = &context.ok_or_else(|| format!("it has no context {name:?}"))?.context;
        let cluster = self.clusters.iter().find(|cluster| cluster.name == context.cluster);
        let cluster = &cluster.ok_or_else(|| format!("it has no cluster {:?}", context.cluster))?.cluster;
        for (what, there) in [
            ("insecure-skip-tls-verify", cluster.insecure_skip_tls_verify == Some(true)),
            ("tls-server-name", cluster.tls_server_name.is_some()),
            ("proxy-url", cluster.proxy_url.is_some()),
        ] {
            if there {
                return Err(format!("{what} is not supported"));
            }
        }
        let user = match context.user.as_deref().filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => {
                let user = self.users.iter().find(|user| user.name == name);
                Some(&user.ok_or_else(|| format!("it has no user {name:?}"))?.user)
            }
        };
        if user.is_some_and(|user| user.auth_provider.is_some()) {
            return Err("auth-provider is not supported, as in kubectl since 1.26: use exec".to_owned());
        }
        Ok(Chosen { cluster, user, namespace: context.namespace.as_deref().filter(|name| !name.is_empty()) })
    }
}
