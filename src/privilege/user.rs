//! The user that a gateway started by root switches to.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;

use nix::unistd::{
    Gid, Group, Uid, geteuid, getgroups, initgroups, setgroups, setresgid, setresuid,
};
use rustix::thread::set_keep_capabilities;

use super::capabilities::limit_to_setup;
use super::error::{PrivilegeError, denied};

/// An account of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl User {
    /// # Errors
    /// There is no such user.
    pub fn by_name(name: &str) -> Result<Self, PrivilegeError> {
        let owned = || name.to_owned();
        let found = nix::unistd::User::from_name(name);
        let found = found.map_err(|why| PrivilegeError::Lookup { name: owned(), why })?;
        let user = found.ok_or_else(|| PrivilegeError::NoUser { name: owned() })?;
        Ok(Self { name: owned(), uid: user.uid, gid: user.gid })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user id.
    pub const fn id(&self) -> u32 {
        self.uid.as_raw()
    }

    /// Creates a directory owned by this user if it is missing; below /run only root can.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create_directory(&self, path: &Path) -> Result<(), PrivilegeError> {
        if path.exists() || geteuid() == self.uid {
            return Ok(());
        }
        let created = DirBuilder::new().mode(0o755).create(path);
        let created =
            created.and_then(|()| chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw())));
        created.map_err(|why| PrivilegeError::Directory {
            path: path.display().to_string(),
            name: self.name.clone(),
            why,
        })
    }

    /// Switches the process to this user and its groups, and keeps the capabilities of [`limit_to_setup`]. Only drops
    /// capabilities if it is this user already.
    ///
    /// # Errors
    /// The process is neither root nor this user, or the kernel refuses.
    pub fn assume(&self) -> Result<(), PrivilegeError> {
        let current = geteuid();
        if current == self.uid {
            return limit_to_setup();
        }
        if !current.is_root() {
            let (name, uid) = (self.name.clone(), current.as_raw());
            return Err(PrivilegeError::NotRoot { name, uid });
        }
        set_keep_capabilities(true).map_err(denied("keep capabilities during the switch"))?;
        let switch = || -> nix::Result<()> {
            // The name has no NUL: an account was found by it.
            let name = CString::new(self.name.as_str()).unwrap_or_default();
            initgroups(&name, self.gid)?;
            setresgid(self.gid, self.gid, self.gid)?;
            setresuid(self.uid, self.uid, self.uid)
        };
        let failed = |why| PrivilegeError::Become { name: self.name.clone(), why };
        switch().map_err(failed)?;
        set_keep_capabilities(false).map_err(denied("reset keep_capabilities"))?;
        limit_to_setup()
    }
}

/// Adds a group to those of this process, if it exists. Root without its capabilities is nobody's superuser: what a group may
/// read is closed to it.
///
/// # Errors
/// This process may not change its groups.
pub fn join_group(name: &str) -> Result<(), PrivilegeError> {
    let failed = |why| PrivilegeError::Join { name: name.to_owned(), why };
    let Some(group) = Group::from_name(name).map_err(failed)? else { return Ok(()) };
    let mut groups = getgroups().map_err(failed)?;
    groups.push(group.gid);
    setgroups(&groups).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_an_error() {
        assert_eq!(User::by_name("root").unwrap().uid, Uid::from_raw(0));
        let error = User::by_name("no-such-user").unwrap_err().to_string();
        assert!(
            error.starts_with("the user \"no-such-user\" does not exist on this host"),
            "{error}"
        );
    }
}
