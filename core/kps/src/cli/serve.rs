//! `kps serve`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use kps_proto::{Error, ErrorKind, Result, history::HistoryRule};

use super::{bytes, duration, interrupt};
use crate::{
    AuditOptions, Server, ServerOptions,
    auth::Token,
    capability::{
        DispatchOptions, Map, Value,
        storage::{Durability, Key, StorageOptions},
    },
    net::identity::TlsIdentity,
    runtime,
};

/// Holds the storage's key.
const KEY: &str = "KPS_STORAGE_KEY";

/// Holds the token of the storage's cloud.
const CLOUD_TOKEN: &str = "KPS_STORAGE_CLOUD_TOKEN";

/// How long the cloud may take to say whether it is there.
const CLOUD: Duration = Duration::from_secs(30);

/// How long closing waits for clients.
const CLOSE: Duration = Duration::from_secs(5);

/// Run a broker until Ctrl-C or SIGTERM.
#[derive(Args)]
#[command(args_override_self = true)]
pub(super) struct Serve {
    /// A TOML file with options by their long names, like listen = "0.0.0.0:9313" or
    /// history = ["orders.>"]; what else the command line says wins
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// host:port to listen on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:9313", value_name = "HOST:PORT")]
    listen: String,
    /// A token that clients must show; may be repeated
    #[arg(long, env = "KPS_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Vec<String>,
    /// A file with one token per line, which keeps them out of the list of processes
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Allow to be reached from other machines without any token
    #[arg(long)]
    insecure: bool,
    /// The certificate chain for TLS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A web origin whose pages may connect, like https://app.example.org; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// A name under which this server is reached; may be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// A server that publish_to_server may reach, besides this machine's; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    server_address: Vec<String>,
    /// Keep the messages of these topics, like 'orders.>' or 'orders.> age=7d bytes=10G'; may be
    /// repeated
    #[arg(long, value_parser = HistoryRule::parse, value_name = "RULE")]
    history: Vec<HistoryRule>,
    /// The folder for what is kept, history and retained messages; without it, in memory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Bytes of keys and values that the storage holds in each namespace
    #[arg(long, value_parser = bytes, value_name = "BYTES")]
    storage_quota: Option<usize>,
    /// Old versions of each key that the storage keeps
    #[arg(long, value_name = "COUNT")]
    storage_versions: Option<u32>,
    /// Compress the storage's values where that helps
    #[arg(long)]
    storage_compress: bool,
    /// When a save is answered: full, once it is on disk, or normal, once the operating system has it
    #[arg(long, value_parser = durability, value_name = "WHEN")]
    storage_durability: Option<Durability>,
    /// Encrypt the storage's values with the key in this file: 64 hexadecimal digits, or a passphrase. It may also be
    /// in the environment variable KPS_STORAGE_KEY
    #[arg(long, value_name = "FILE")]
    storage_key_file: Option<PathBuf>,
    /// The libSQL database that the storage's large values go to: libsql://…, https://… or http://…
    #[arg(long, value_name = "URL")]
    storage_cloud: Option<String>,
    /// A file with that database's token; it may also be in the environment variable KPS_STORAGE_CLOUD_TOKEN
    #[arg(long, requires = "storage_cloud", value_name = "FILE")]
    storage_cloud_token_file: Option<PathBuf>,
    /// Bytes of a value that stays here when there is a cloud
    #[arg(long, value_parser = bytes, requires = "storage_cloud", value_name = "BYTES")]
    storage_max_local_size: Option<usize>,
    #[command(flatten)]
    documents: super::documents::Documents,
    /// Keep an audit log in the folder: changes of state, or 'messages' for these too; with limits,
    /// like 'messages age=7d count=1000000'
    #[arg(long, num_args = 0..=1, default_missing_value = "changes", value_parser = AuditOptions::parse,
        requires = "data", value_name = "WHAT")]
    audit: Option<AuditOptions>,
    /// A message with the id of another one inside this window is not kept again
    #[arg(long, value_parser = duration, default_value = "2m", value_name = "TIME")]
    duplicate_window: Duration,
    /// Refuse subscriptions that would pause their publishers
    #[arg(long)]
    forbid_block: bool,
    /// Connections at the same time
    #[arg(long, default_value_t = 100_000, value_name = "COUNT")]
    max_connections: usize,
    /// Largest payload
    #[arg(long, value_parser = bytes, default_value = "1M", value_name = "BYTES")]
    max_payload: usize,
    /// What one subscription's queue holds
    #[arg(long, value_parser = bytes, default_value = "32M", value_name = "BYTES")]
    queue_bytes: usize,
    /// What all queues hold together
    #[arg(long, value_parser = bytes, default_value = "1G", value_name = "BYTES")]
    server_bytes: usize,
    /// How long a lost connection's session is kept
    #[arg(long, value_parser = duration, default_value = "30s", value_name = "TIME")]
    resume_window: Duration,
    /// A full subscription that takes nothing for so long is closed
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "TIME")]
    stall_timeout: Duration,
    /// Say on standard output what a script wants to know, one JSON object per line
    #[arg(long)]
    json: bool,
    /// Log to standard error; twice: more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Serve {
    pub(super) fn run(self) -> Result<()> {
        self.log();
        raise_file_limit();
        let json = self.json;
        let cloud = self.cloud()?;
        let server = Server::start(self.options()?)?;
        if let Some(cloud) = cloud {
            configure_cloud(&server, cloud)?;
        }
        let (address, url) = (server.address(), server.url());
        if json {
            println!("{}", serde_json::json!({ "listening": address, "url": url }));
        } else {
            println!("kps {} listens on {url}", env!("CARGO_PKG_VERSION"));
        }
        runtime::handle().block_on(interrupt::interrupted());
        runtime::handle().block_on(server.close(CLOSE));
        if json {
            let ledger = server.ledger();
            let (accepted, delivered) = (ledger.accepted, ledger.delivered);
            println!(
                "{}",
                serde_json::json!({ "closed": { "accepted": accepted, "delivered": delivered } })
            );
        }
        // Being told to end is how a server ends.
        interrupt::forget();
        Ok(())
    }

    fn options(self) -> Result<ServerOptions> {
        let (storage, documents) = (self.storage()?, self.documents.options());
        let mut tokens: Vec<String> = self.token;
        if let Some(file) = &self.token_file {
            let text = read(file)?;
            tokens.extend(text.lines().map(str::trim).map(str::to_owned));
        }
        tokens.retain(|token| !token.is_empty());
        let tls = self.tls_cert.zip(self.tls_key);
        let mut options = ServerOptions {
            listen: self.listen,
            tls: tls.map(|(cert, key)| TlsIdentity::from_files(cert, key)).transpose()?,
            tokens: tokens.into_iter().map(Token::new).collect(),
            insecure: self.insecure,
            allowed_origins: self.allow_origin,
            allowed_hosts: self.allow_host,
            server_addresses: self.server_address,
            history: self.history,
            data: self.data,
            storage,
            documents,
            audit: self.audit,
            duplicate_window: self.duplicate_window,
            forbid_block: self.forbid_block,
            max_connections: self.max_connections,
            ..ServerOptions::default()
        };
        options.limits.payload = self.max_payload;
        options.limits.queue_bytes = self.queue_bytes;
        options.limits.server_bytes = self.server_bytes;
        options.timings.resume_window = self.resume_window;
        options.timings.stall_timeout = self.stall_timeout;
        Ok(options)
    }

    /// What `storage.configure_cloud` is given, if there is a cloud.
    fn cloud(&self) -> Result<Option<Value>> {
        let Some(url) = &self.storage_cloud else { return Ok(None) };
        let token = match &self.storage_cloud_token_file {
            Some(file) => Some(read(file)?),
            None => std::env::var(CLOUD_TOKEN).ok(),
        };
        let mut fields = Map::default();
        fields.push("url", &**url);
        fields.push("auth_token", token.map(|token| token.trim().to_owned()));
        fields.push("max_local_size", self.storage_max_local_size);
        Ok(Some(fields.into()))
    }

    /// How the storage is kept, if anything is said of it.
    fn storage(&self) -> Result<Option<StorageOptions>> {
        let key = match &self.storage_key_file {
            Some(file) => Some(Key::parse(&read(file)?).ok_or_else(|| {
                let sentence = format!("there is no key in {}", file.display());
                Error::new(ErrorKind::InvalidArgument, sentence)
            })?),
            None => std::env::var(KEY).ok().as_deref().and_then(Key::parse),
        };
        let usual = StorageOptions::memory();
        let storage = StorageOptions {
            quota: self.storage_quota.map(|bytes| bytes as u64),
            versions: self.storage_versions.unwrap_or(usual.versions),
            compress: self.storage_compress,
            durability: self.storage_durability.unwrap_or(usual.durability),
            key,
            ..usual
        };
        let is_said = self.storage_quota.is_some()
            || self.storage_versions.is_some()
            || self.storage_durability.is_some()
            || storage.compress
            || storage.key.is_some();
        Ok(is_said.then_some(storage))
    }

    fn log(&self) {
        let level = match self.verbose {
            0 => tracing::Level::WARN,
            1 => tracing::Level::INFO,
            _ => tracing::Level::DEBUG,
        };
        let subscriber =
            tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).finish();
        // A host program may have its own already.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
}

/// A cloud that cannot be reached now is asked again by those who need it.
fn configure_cloud(server: &Server, cloud: Value) -> Result<()> {
    let options = DispatchOptions { timeout: CLOUD, ..DispatchOptions::default() };
    let router = server.client()?.capabilities();
    let configured = router.dispatch("storage.configure_cloud", cloud, options);
    let answer = runtime::handle().block_on(configured).unwrap();
    let answer = answer.map_err(|failure| {
        let failure = failure.into_error();
        Error::new(failure.kind(), format!("--storage-cloud: {}", failure.message()))
    })?;
    if answer.get("reachable") == Some(&false.into()) {
        tracing::warn!(
            "the storage's cloud cannot be reached now: large values stay here meanwhile"
        );
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|error| {
        let sentence = format!("cannot read {}: {error}", file.display());
        Error::new(ErrorKind::InvalidArgument, sentence)
    })
}

fn durability(name: &str) -> Result<Durability, String> {
    Durability::from_name(name).ok_or_else(|| "expected full or normal".into())
}

/// Each connection needs a file descriptor, and the usual soft limit of 1024 is for programs that
/// use `select`.
#[cfg(unix)]
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or fill `limit`, which lives as long as they run.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            // If it is refused, the old limit stays, and says so by itself when it is reached.
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

#[cfg(not(unix))]
fn raise_file_limit() {}
