//! Listening Unix sockets: of the control socket, and of those for Postfix.
//!
//! Layer 4, below its other modules. A socket file outlives a process that was killed. It is replaced if nobody listens on it, which is found out by connecting; a file that is no socket, or on which
//! another process listens, is an error.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

/// How to create a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixListenerOptions {
    /// Of the socket file, such as `0o600`; in force before anybody can connect, whatever the umask is.
    pub mode: u32,
    /// Connections that wait to be accepted.
    pub backlog: i32,
    /// The key of its path in the configuration, for errors: `[control] socket`.
    pub setting: &'static str,
    /// Create the directory of the socket if it is missing, mode 0755; not those above it.
    pub creates_directory: bool,
}

/// Why there is no socket. The path is that of the socket, but for the directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnixListenerError {
    /// This directory cannot be created.
    #[error("cannot create the directory {}: {why}; create it, or change `{setting}`", path.display())]
    Directory { path: PathBuf, why: io::Error, setting: &'static str },
    /// Something else has the path. It is left alone.
    #[error("{} exists and is not a socket; remove it, or change `{setting}`", path.display())]
    NotASocket { path: PathBuf, setting: &'static str },
    /// Another process listens there. Taking the path from it would cut it off from its clients.
    #[error("another process listens on {}, perhaps a second gateway: `ss -xlp` shows which; stop it, or change `{setting}`", path.display())]
    InUse { path: PathBuf, setting: &'static str },
    #[error("cannot listen on {}: {why}; make its directory writable, or change `{setting}`", path.display())]
    Listen { path: PathBuf, why: io::Error, setting: &'static str },
}

/// A listening socket. Dropping it removes its file, unless the path has become that of another one.
#[derive(Debug)]
pub struct OwnedUnixListener {
    /// Dropped first: while the socket is open, no other file can have its inode.
    _file: SocketFile,
    listener: UnixListener,
}

impl OwnedUnixListener {
    /// Creates the socket, in place of one that a killed process left.
    ///
    /// # Errors
    /// The path cannot be used, or another process uses it.
    pub fn bind(path: &Path, options: UnixListenerOptions) -> Result<Self, UnixListenerError> {
        let setting = options.setting;
        let failed = |why| UnixListenerError::Listen { path: path.to_owned(), why, setting };
        if options.creates_directory {
            create_directory(path, setting)?;
        }
        remove_stale(path, setting)?;
        let (socket, file) = create(path, options.mode).map_err(failed)?;
        socket.listen(options.backlog).map_err(failed)?;
        let listener = OwnedFd::from(socket).into();
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self { _file: file, listener })
    }

    /// # Errors
    /// The process lacks descriptors or memory; the connection waits in the kernel.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: file_id(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if file_id(&self.path).is_ok_and(|id| id == self.id) {
            // Some directories, as Postfix's `private`, are closed to the account to which the gateway changed. The next start
            // replaces the file.
            let _not_permitted = fs::remove_file(&self.path);
        }
    }
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

fn create_directory(socket: &Path, setting: &'static str) -> Result<(), UnixListenerError> {
    let directory = socket.parent().filter(|directory| !directory.as_os_str().is_empty());
    match directory.filter(|directory| !directory.exists()) {
        Some(path) => DirBuilder::new()
            .mode(0o755)
            .create(path)
            .map_err(|why| UnixListenerError::Directory { path: path.to_owned(), why, setting }),
        None => Ok(()),
    }
}

fn remove_stale(path: &Path, setting: &'static str) -> Result<(), UnixListenerError> {
    let failed = |why| UnixListenerError::Listen { path: path.to_owned(), why, setting };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(UnixListenerError::NotASocket { path: path.to_owned(), setting }),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    if has_listener(path).map_err(failed)? {
        return Err(UnixListenerError::InUse { path: path.to_owned(), setting });
    }
    fs::remove_file(path).map_err(failed)
}

/// Whether a process listens on the socket at `path`. Does not wait, as a connection does while the backlog is full.
fn has_listener(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let Err(error) = socket.connect(&SockAddr::unix(path)?) else { return Ok(true) };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => Ok(false),
        // A full backlog, or a listener of another kind (unix(7)).
        Some(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(true),
        _ => Err(error),
    }
}

/// A socket with its file. Nobody can connect before it listens.
fn create(path: &Path, mode: u32) -> io::Result<(Socket, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Linux gives the file the mode of the socket, without the bits of the umask: never more than is wanted.
    let descriptor = File::from(OwnedFd::from(socket));
    descriptor.set_permissions(Permissions::from_mode(mode))?;
    let socket = Socket::from(OwnedFd::from(descriptor));
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok((socket, file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener as StdUnixListener, UnixStream};

    use super::*;

    const OPTIONS: UnixListenerOptions = UnixListenerOptions {
        mode: 0o666,
        backlog: 4,
        setting: "[section] key",
        creates_directory: true,
    };

    /// A folder of its own, removed on drop; the first socket in it creates it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("gatepost-unix-listener-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn socket(&self) -> PathBuf {
            self.0.join("own.sock")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _none = fs::remove_dir_all(&self.0);
        }
    }

    fn in_use(path: &Path) {
        let error = OwnedUnixListener::bind(path, OPTIONS).unwrap_err();
        assert!(
            matches!(&error, UnixListenerError::InUse { path: named, .. } if named == path),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(text.starts_with("another process listens on /"), "{text}");
        assert!(text.ends_with("; stop it, or change `[section] key`"), "{text}");
    }

    #[tokio::test]
    async fn only_a_stale_socket_is_replaced() {
        let folder = Folder::new("stale");
        let path = folder.socket();
        let first = OwnedUnixListener::bind(&path, OPTIONS).unwrap();
        in_use(&path);
        UnixStream::connect(&path).unwrap();
        first.accept().await.unwrap();
        drop(first);
        assert!(!path.exists());
        // As after a kill: the file stays without a listener.
        drop(StdUnixListener::bind(&path).unwrap());
        drop(OwnedUnixListener::bind(&path, OPTIONS).unwrap());

        fs::write(&path, "no socket").unwrap();
        let error = OwnedUnixListener::bind(&path, OPTIONS).unwrap_err();
        assert!(matches!(error, UnixListenerError::NotASocket { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.ends_with("not a socket; remove it, or change `[section] key`"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), b"no socket");
        // A link to a socket belongs to whoever made it.
        let [link, other] = ["link", "other"].map(|name| folder.0.join(name));
        let _other = StdUnixListener::bind(&other).unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let error = OwnedUnixListener::bind(&link, OPTIONS).unwrap_err();
        assert!(matches!(error, UnixListenerError::NotASocket { .. }), "{error:?}");
        let error = OwnedUnixListener::bind(&path.join("inside"), OPTIONS).unwrap_err();
        assert!(matches!(error, UnixListenerError::Listen { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("cannot listen on /"), "{text}");
        assert!(text.ends_with("directory writable, or change `[section] key`"), "{text}");
    }

    #[tokio::test]
    async fn a_busy_socket_and_one_of_another_kind_are_in_use() {
        let folder = Folder::new("busy");
        fs::create_dir(&folder.0).unwrap();
        let path = folder.socket();
        let _owner = OwnedUnixListener::bind(&path, UnixListenerOptions { backlog: 0, ..OPTIONS });
        // It accepts nothing. A second connection would wait.
        let _waiting = UnixStream::connect(&path).unwrap();
        in_use(&path);
        let datagrams = folder.0.join("datagrams");
        let _owner = UnixDatagram::bind(&datagrams).unwrap();
        in_use(&datagrams);
    }

    #[tokio::test]
    async fn only_its_own_file_is_removed() {
        let folder = Folder::new("removed");
        let path = folder.socket();
        let first = OwnedUnixListener::bind(&path, OPTIONS).unwrap();
        fs::remove_file(&path).unwrap();
        let second = StdUnixListener::bind(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        drop(second);
    }

    #[tokio::test]
    async fn the_mode_is_that_of_the_options() {
        let folder = Folder::new("mode");
        let path = folder.socket();
        for mode in [0o600, 0o666] {
            let _socket = OwnedUnixListener::bind(&path, UnixListenerOptions { mode, ..OPTIONS });
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        // Before it listens, with the umask of the process.
        let path = folder.0.join("early");
        let (socket, file) = create(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = UnixStream::connect(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        drop((socket, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn one_missing_directory_is_created() {
        let folder = Folder::new("directory");
        let deep = folder.0.join("missing").join("own.sock");
        let error = OwnedUnixListener::bind(&deep, OPTIONS).unwrap_err();
        let UnixListenerError::Directory { path, .. } = error else { panic!("{error:?}") };
        assert_eq!(Some(&*path), deep.parent());
        let none = UnixListenerOptions { creates_directory: false, ..OPTIONS };
        let error = OwnedUnixListener::bind(&folder.socket(), none).unwrap_err();
        assert!(matches!(error, UnixListenerError::Listen { .. }), "{error:?}");
        assert!(!folder.0.exists());
        drop(OwnedUnixListener::bind(&folder.socket(), OPTIONS).unwrap());
        assert_eq!(fs::metadata(&folder.0).unwrap().permissions().mode() & 0o777, 0o755);
    }
}
