//! Files with tokens and keys, and tokens that are signed with such a key.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A key of 32 bytes, and another one.
pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";

/// A file that nobody else can read; removed when the test is over.
pub(crate) struct SecretFile(PathBuf);

impl SecretFile {
    pub(crate) fn new(text: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("crieur-secret-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("a new file");
        let file = Self(path);
        file.set_mode(0o600);
        file
    }

    /// What the file has from now on.
    pub(crate) fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("it is ours");
    }

    /// Puts another file in its place, which has `text`: whoever reads it reads all of one.
    pub(crate) fn replace(&self, text: &str) {
        let new = Self(self.0.with_extension("new"));
        new.write(text);
        new.set_mode(0o600);
        fs::rename(new.path(), self.path()).expect("both are ours");
    }

    pub(crate) fn set_mode(&self, mode: u32) {
        fs::set_permissions(&self.0, Permissions::from_mode(mode)).expect("it is ours");
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path of ours is UTF-8")
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Seconds since the epoch.
pub(crate) fn unix_now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("later than 1970").as_secs_f64()
}

/// A JSON Web Token with these claims.
pub(crate) fn sign(key: &str, claims: &str) -> String {
    sign_with_header(key, r#"{"alg":"HS256","typ":"JWT"}"#, claims)
}

/// The same with another header.
pub(crate) fn sign_with_header(key: &str, header: &str, claims: &str) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

/// A token that allows `allow`, a JSON list, for so many seconds.
pub(crate) fn token(allow: &str, seconds: f64) -> String {
    let exp = unix_now() + seconds;
    sign(
        KEY,
        &format!(r#"{{"sub":"bob","exp":{exp},"allow":{allow}}}"#),
    )
}
