//! Tells the service manager that the process is ready, or that it ends: systemd's `Type=notify`. Silent where no manager asks.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The process does what it is there for. What waited for it may begin.
pub fn ready() {
    told("READY=1");
}

/// The process has begun to end.
pub fn stopping() {
    told("STOPPING=1");
}

fn told(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = tell(&socket, state) {
        tracing::warn!(state, error = %error, "the service manager could not be told");
    }
}

/// `socket` as systemd names it: a path, or `@` and a name that is in no file system.
fn tell(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sent = UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    if sent == state.len() { Ok(()) } else { Err(io::Error::other("only a part was sent")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_it_by_path_and_by_name() {
        let path = env::temp_dir().join(format!("notify-{}", std::process::id()));
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, listener) in [(path.clone().into_os_string(), by_path), (format!("@{name}").into(), by_name)] {
            tell(&socket, "READY=1").unwrap();
            let mut heard = [0; 32];
            let length = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(tell(path.as_os_str(), "READY=1").is_err());
    }
}
