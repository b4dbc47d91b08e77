//! The key files that a configuration names, readable by their owner alone, as the program wants them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes a file that only its owner may read.
pub fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Writes `fingerprint.key` and `account.key`, of 32 hexadecimal digits each.
pub fn write(folder: &Path, fingerprint: &str, account: &str) {
    private(&folder.join("fingerprint.key"), fingerprint);
    private(&folder.join("account.key"), account);
}
