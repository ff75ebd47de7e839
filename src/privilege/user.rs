//! Whom a gateway that root started becomes.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;

use nix::unistd::{Gid, Uid, geteuid, initgroups, setresgid, setresuid};
use rustix::thread::set_keep_capabilities;

use super::{PrivilegeError, denied, limit_to_setup};

/// An account of this host, with the groups that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl User {
    /// # Errors
    /// There is none of that name.
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

    /// Makes a directory that this user may write to, if there is nothing of that name: below /run only root makes one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_directory(&self, path: &Path) -> Result<(), PrivilegeError> {
        if path.exists() || geteuid() == self.uid {
            return Ok(());
        }
        let made = DirBuilder::new().mode(0o755).create(path);
        let made =
            made.and_then(|()| chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw())));
        made.map_err(|why| PrivilegeError::Directory {
            path: path.display().to_string(),
            name: self.name.clone(),
            why,
        })
    }

    /// This process becomes that user, in its groups and no others, with the capabilities that gatepost can use while it
    /// sets up. Nothing is done if it is that user already.
    ///
    /// # Errors
    /// It is neither root nor that user, or the kernel does not do it.
    pub fn assume(&self) -> Result<(), PrivilegeError> {
        let now = geteuid();
        if now == self.uid {
            return limit_to_setup();
        }
        if !now.is_root() {
            let (name, uid) = (self.name.clone(), now.as_raw());
            return Err(PrivilegeError::NotRoot { name, uid });
        }
        set_keep_capabilities(true).map_err(denied("keep capabilities for a while"))?;
        let become_it = || -> nix::Result<()> {
            // No name of an account holds a NUL: it was found by this one.
            let name = CString::new(self.name.as_str()).unwrap_or_default();
            initgroups(&name, self.gid)?;
            setresgid(self.gid, self.gid, self.gid)?;
            setresuid(self.uid, self.uid, self.uid)
        };
        let failed = |why| PrivilegeError::Become { name: self.name.clone(), why };
        become_it().map_err(failed)?;
        set_keep_capabilities(false).map_err(denied("stop keeping capabilities"))?;
        limit_to_setup()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_or_said_to_be_missing() {
        assert_eq!(User::by_name("root").unwrap().uid, Uid::from_raw(0));
        let error = User::by_name("no-such-user").unwrap_err().to_string();
        assert!(error.starts_with("there is no user \"no-such-user\" on this host"), "{error}");
    }
}
