//! Where the demo stands: its directory, its ports, its three node files.

use super::DemoError;
use super::screen::complain;
use nix::unistd::{Uid, User, chown};
use std::fs::Permissions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Password of the superuser and of replication; everything listens on loopback only.
pub(super) const PASSWORD: &str = "demo";
const NODES: u16 = 3;
const FIRST_REST: u16 = 8008;
const FIRST_POSTGRES: u16 = 5532;
const FIRST_PEER: u16 = 2222;

/// One node's place.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) dir: PathBuf,
    rest: u16,
    pub(super) postgres: u16,
    peer: u16,
}

impl Place {
    pub(super) fn url(&self) -> String {
        format!("http://{}:{}", self.address, self.rest)
    }

    pub(super) fn node_file(&self) -> PathBuf {
        self.dir.join("node.yml")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("matriarch.log")
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }
}

/// The whole ground.
pub(super) struct Ground {
    pub(super) dir: PathBuf,
    pub(super) places: Vec<Place>,
}

impl Ground {
    /// Checks the ports, makes the directory and writes the node files.
    pub(super) fn lay(address: Ipv4Addr) -> Result<Self, DemoError> {
        if !address.is_loopback() {
            return Err(DemoError::Refused(format!(
                "the demo's passwords are public, so it listens on loopback only: {address} is not 127.x.x.x"
            )));
        }
        let dir = std::env::temp_dir().join(format!("matriarch-demo-{}", std::process::id()));
        let places = places(&dir, address);
        let ground = Self { dir, places };
        ground.demand_ports()?;
        let owner = owner_of_data()?;
        ground.write(owner.as_ref()).inspect_err(|_| ground.remove())?;
        Ok(ground)
    }

    /// Removes the directory; whatever cannot be removed is named.
    pub(super) fn remove(&self) {
        crate::postgres::free_memory_below(&self.dir);
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            complain(&format!("{} could not be removed: {error}", self.dir.display()));
        }
    }

    fn demand_ports(&self) -> Result<(), DemoError> {
        let taken: Vec<String> = self
            .places
            .iter()
            .flat_map(|place| [place.rest, place.postgres, place.peer].map(|port| (place.address, port)))
            .filter(|address| TcpListener::bind(address).is_err())
            .map(|(_, port)| port.to_string())
            .collect();
        if taken.is_empty() {
            return Ok(());
        }
        Err(DemoError::Refused(format!(
            "the demo needs the ports 8008-8010, 5532-5534 and 2222-2224; in use: {} \
             (is another demo running?)",
            taken.join(", ")
        )))
    }

    fn write(&self, owner: Option<&User>) -> Result<(), DemoError> {
        make_dir(&self.dir, owner)?;
        for place in &self.places {
            make_dir(&place.dir, owner)?;
            make_dir(&place.dir.join("socket"), owner)?;
            let file = place.node_file();
            std::fs::write(&file, self.node_file(place)).map_err(|error| cannot("write", &file, &error))?;
        }
        Ok(())
    }

    fn node_file(&self, place: &Place) -> String {
        let Place {
            name,
            address,
            dir,
            rest,
            postgres,
            peer,
        } = place;
        let dir = dir.display();
        let partners: Vec<String> = self
            .places
            .iter()
            .filter(|other| other.name != *name)
            .map(|other| format!("'{}:{}'", other.address, other.peer))
            .collect();
        let partners = partners.join(", ");
        format!(
            "scope: demo
name: {name}
restapi:
  listen: {address}:{rest}
  connect_address: {address}:{rest}
raft:
  self_addr: {address}:{peer}
  partner_addrs: [{partners}]
  data_dir: {dir}/raft
  password: {PASSWORD}
bootstrap:
  dcs:
    ttl: 2
    synchronous_mode: quorum
    postgresql:
      use_pg_rewind: true
      use_slots: true
  initdb:
  - encoding: UTF8
  - data-checksums
  pg_hba:
  - local all all trust
  - host all all 127.0.0.0/8 scram-sha-256
  - host replication all 127.0.0.0/8 scram-sha-256
postgresql:
  listen: {address}:{postgres}
  connect_address: {address}:{postgres}
  data_dir: {dir}/data
  pgpass: {dir}/pgpass
  authentication:
    superuser:
      username: postgres
      password: {PASSWORD}
    replication:
      username: replicator
      password: {PASSWORD}
    rewind:
      username: rewinder
      password: {PASSWORD}
  parameters:
    unix_socket_directories: '{dir}/socket'
    password_encryption: scram-sha-256
    shared_buffers: 32MB
"
        )
    }
}

fn places(dir: &Path, address: Ipv4Addr) -> Vec<Place> {
    let place = |i| Place {
        name: format!("node{}", i + 1),
        address,
        dir: dir.join(format!("node{}", i + 1)),
        rest: FIRST_REST + i,
        postgres: FIRST_POSTGRES + i,
        peer: FIRST_PEER + i,
    };
    (0..NODES).map(place).collect()
}

/// As root the data belongs to the user postgres, as whom PostgreSQL's programs then run.
fn owner_of_data() -> Result<Option<User>, DemoError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    match User::from_name("postgres") {
        Ok(Some(user)) => Ok(Some(user)),
        Ok(None) | Err(_) => Err(DemoError::Refused(
            "there is no user postgres: install PostgreSQL first (on Debian and Ubuntu: apt-get install postgresql)"
                .to_owned(),
        )),
    }
}

fn make_dir(dir: &Path, owner: Option<&User>) -> Result<(), DemoError> {
    std::fs::DirBuilder::new()
        .mode(0o755)
        .create(dir)
        .map_err(|error| cannot("create", dir, &error))?;
    // The mode above is cut by the umask, and user postgres must be able to reach its data.
    std::fs::set_permissions(dir, Permissions::from_mode(0o755))
        .map_err(|error| cannot("open", dir, &error))?;
    if let Some(user) = owner {
        chown(dir, Some(user.uid), Some(user.gid))
            .map_err(|error| cannot("give to user postgres", dir, &error.into()))?;
    }
    Ok(())
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> DemoError {
    DemoError::Refused(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_node_files_are_understood_without_a_warning() {
        let dir = tempfile::tempdir().unwrap().keep();
        let ground = Ground {
            places: places(&dir, Ipv4Addr::LOCALHOST),
            dir,
        };
        for place in &ground.places {
            let file = ground.dir.join(&place.name);
            std::fs::write(&file, ground.node_file(place)).unwrap();
            let loaded = crate::config::load(&file, &BTreeMap::new()).expect("a good node file");
            assert_eq!(loaded.warnings, Vec::<String>::new());
        }
        ground.remove();
    }
}
