//! A PostgreSQL server of its own for the coordinators' store: no managed cluster, and not the lab's cloud.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;
use coordinator::store::{Place, Tls};
use lab::fleet::{Admin, Fleet, Node, Server, Stop};
use lab::install;

/// Name and password of the role that owns the databases of stores.
const ROLE: &str = "pilot";
const PASSWORD: &str = "store-secret";
/// The server's major version.
const MAJOR: u32 = 16;

/// The section of a coordinator's configuration for a store.
#[must_use]
pub fn section(place: &Place) -> String {
    let password = place.password_file.as_deref().map(super::pilot::quoted).unwrap_or_default();
    format!(
        "[store]\nkind = \"postgres\"\nhost = \"{}\"\nport = {}\ndatabase = \"{}\"\nuser = \"{}\"\n\
         password_file = {password}\ntls = \"disable\"\n",
        place.host, place.port, place.database, place.user
    )
}

/// The server; ended with its owner.
pub struct StoreServer {
    server: Arc<Server>,
    password_file: PathBuf,
    folder: PathBuf,
    stores: AtomicU32,
}

impl StoreServer {
    /// Starts a server whose files are under `folder`.
    ///
    /// # Errors
    /// When it cannot be made or started.
    pub async fn start(folder: &Path) -> anyhow::Result<StoreServer> {
        let trees = install::ensure(&[MAJOR], &|_| {}).await?;
        let folder = folder.join("store");
        let fleet = Fleet::open(&folder, trees, false).await?;
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let node = Node {
            name: "store".to_owned(),
            address: Ipv4Addr::LOCALHOST.into(),
            port,
            parameters: BTreeMap::new(),
            identity: Default::default(),
            smallest: true,
        };
        let server = fleet.create(node, MAJOR).await?;
        server.start().await?;
        let admin = server.admin("postgres").await?;
        admin.batch_execute(&format!("create role {ROLE} login password '{PASSWORD}'")).await?;
        let password_file = folder.join("password");
        std::fs::write(&password_file, PASSWORD)?;
        Ok(StoreServer { server, password_file, folder, stores: AtomicU32::new(0) })
    }

    /// An empty database for one store.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn database(&self) -> anyhow::Result<Place> {
        let database = format!("store_{}", self.stores.fetch_add(1, Ordering::Relaxed));
        let admin = self.server.admin("postgres").await?;
        admin.batch_execute(&format!("create database {database} owner {ROLE}")).await?;
        let address: SocketAddr = self.server.address();
        Ok(Place {
            host: address.ip().to_string(),
            port: address.port(),
            database,
            user: ROLE.to_owned(),
            password_file: Some(self.password_file.clone()),
            tls: Tls::Disable,
            tls_ca_file: None,
        })
    }

    /// A session of the server's superuser in a store's database.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn session(&self, database: &str) -> anyhow::Result<Admin> {
        Ok(self.server.admin(database).await?)
    }

    /// Runs SQL in a store's database, as its superuser.
    ///
    /// # Errors
    /// The server's own.
    pub async fn run(&self, place: &Place, sql: &str) -> anyhow::Result<()> {
        let admin = self.server.admin(&place.database).await?;
        admin.batch_execute(sql).await.with_context(|| sql.to_owned())
    }

    /// Asks a store's database, as its superuser, for numbers: the first row.
    ///
    /// # Errors
    /// The server's own, and a row that is none or holds something else.
    pub async fn numbers<const N: usize>(&self, place: &Place, sql: &str) -> anyhow::Result<Option<[f64; N]>> {
        let admin = self.server.admin(&place.database).await?;
        let Some(row) = admin.query_opt(sql, &[]).await.with_context(|| sql.to_owned())? else { return Ok(None) };
        let mut numbers = [0.0; N];
        for (at, number) in numbers.iter_mut().enumerate() {
            let Some(found) = row.try_get(at).with_context(|| sql.to_owned())? else { return Ok(None) };
            *number = found;
        }
        Ok(Some(numbers))
    }

    /// Stops the server at once, as a crash would.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn crash(&self) -> anyhow::Result<()> {
        Ok(self.server.stop(Stop::Immediate).await?)
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn again(&self) -> anyhow::Result<()> {
        Ok(self.server.start().await?)
    }

    /// Ends it and removes its files.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn end(self) -> anyhow::Result<()> {
        self.crash().await?;
        // A folder that cannot be removed is only litter.
        let _ = std::fs::remove_dir_all(&self.folder);
        Ok(())
    }
}
