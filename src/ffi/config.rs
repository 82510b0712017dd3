//! The functions of `wsredis_config` and the check of a grant.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::guard::{
    copy_whole, guard, guard_or, object, object_mut, put, room, slice, text, wsredis_status,
};
use crate::config::{Config, keys};
use crate::engine::Refusals;
use crate::error::{Error, Kind, Result};
use crate::grant::Grant;
use crate::ws::origin::Policy;

/// The settings of an engine. Made by `wsredis_config_new`, filled by `wsredis_config_set` and
/// `wsredis_config_load`, freed by `wsredis_config_free`. It may be filled before a fork.
pub struct wsredis_config {
    pub(super) config: Config,
    /// The Origin rule, once it was asked for.
    policy: OnceLock<Policy>,
    /// What the host refuses before an engine hears of it; engines started from here count it.
    pub(super) refusals: Arc<Refusals>,
}

impl wsredis_config {
    pub(super) fn policy(&self) -> Result<&Policy> {
        if self.policy.get().is_none() {
            let policy = Policy::parse(&self.config.allowed_origins, &self.config.trusted_proxies)?;
            let _ = self.policy.set(policy); // Another thread was faster: it has parsed the same.
        }
        Ok(self.policy.get().expect("it was set above"))
    }
}

/// Makes settings with every key at its default.
///
/// *Returns:* `INVALID` if `out_config` is NULL.
///
/// *Ownership:* `*out_config` is the caller's, to be freed by `wsredis_config_free`.
///
/// *Threads:* any.
///
/// # Safety
/// `out_config` is NULL or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_config_new(
    out_config: *mut *mut wsredis_config,
) -> wsredis_status {
    guard(|| {
        room(out_config, "out_config")?;
        let config = wsredis_config {
            config: Config::new(),
            policy: OnceLock::new(),
            refusals: Arc::default(),
        };
        // SAFETY: the caller's promise.
        unsafe { put(out_config, Box::into_raw(Box::new(config)), "out_config") }
    })
}

/// Sets one key, like `max-message-size` to `64k`. Each key can be set once.
///
/// *Returns:* `CONFIG` for an unknown key, a wrong value, or a key that was set before.
///
/// *Ownership:* key and value are copied.
///
/// *Threads:* one at a time for each config.
///
/// # Safety
/// `config` is live; the texts are as long as they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_config_set(
    config: *mut wsredis_config,
    key: *const c_char,
    key_len: usize,
    value: *const c_char,
    value_len: usize,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let (config, key, value) = unsafe {
            (
                object_mut(config, "config")?,
                text(key, key_len, "key")?,
                text(value, value_len, "value")?,
            )
        };
        config.policy = OnceLock::new();
        config.config.set(key, value)
    })
}

/// Reads the `[wsredis]` section of an ini file. On an error nothing has changed.
///
/// *Returns:* `CONFIG`; the text of the error is `file:line: why`.
///
/// *Ownership:* the path is copied.
///
/// *Threads:* one at a time for each config.
///
/// # Safety
/// `config` is live; the path is as long as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_config_load(
    config: *mut wsredis_config,
    path: *const c_char,
    path_len: usize,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let (config, path) =
            unsafe { (object_mut(config, "config")?, text(path, path_len, "path")?) };
        config.policy = OnceLock::new();
        config.config.load_ini(Path::new(path))
    })
}

/// Writes the text of a key to `buf`, NUL-terminated: what it was set to, else its default. It may
/// hold a password.
///
/// *Returns:* `NOT_FOUND` for an unknown key; `LIMIT` if `buf_len` is too small.
///
/// *Ownership:* nothing is kept.
///
/// *Threads:* any.
///
/// # Safety
/// `config` is live; the key is as long as it says; `buf` has `buf_len` bytes; `out_len` has room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_config_get(
    config: *const wsredis_config,
    key: *const c_char,
    key_len: usize,
    buf: *mut c_char,
    buf_len: usize,
    out_len: *mut usize,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let (config, key) = unsafe { (object(config, "config")?, text(key, key_len, "key")?) };
        let value = config.config.text(key);
        let value = value.ok_or_else(|| Error::new(Kind::NotFound, "unknown key"))?;
        // SAFETY: the caller's promise.
        unsafe { copy_whole(value.as_bytes(), buf, buf_len, out_len) }
    })
}

/// Do these settings hold together for a host that will run the engine in so many processes? A host
/// should ask before it forks, where an error can still stop it.
///
/// *Returns:* `CONFIG` if not; the text of the error names the cure.
///
/// *Ownership:* nothing changes hands.
///
/// *Threads:* any.
///
/// # Safety
/// `config` is live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_config_check(
    config: *const wsredis_config,
    processes: u32,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let config = unsafe { object(config, "config")? };
        config.policy()?;
        config.config.check(processes).map(drop)
    })
}

/// The table of keys, to be walked from index 0: a host makes one option of its own from each.
///
/// *Returns:* `NOT_FOUND` behind the last key.
///
/// *Ownership:* the texts are static.
///
/// *Threads:* any.
///
/// # Safety
/// `out_name` and `out_help` have room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_config_key(
    index: usize,
    out_name: *mut *const c_char,
    out_help: *mut *const c_char,
) -> wsredis_status {
    guard(|| {
        let (name, help) = c_keys()
            .get(index)
            .ok_or_else(|| Error::new(Kind::NotFound, "there are no more keys"))?;
        room(out_help, "out_help")?;
        // SAFETY: the caller's promise.
        unsafe {
            put(out_name, name.as_ptr(), "out_name")?;
            put(out_help, help.as_ptr(), "out_help")
        }
    })
}

/// The keys and their help as C texts, made once.
fn c_keys() -> &'static [(CString, CString)] {
    static KEYS: OnceLock<Vec<(CString, CString)>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let c = |text: String| CString::new(text).expect("the table holds no NUL");
        keys()
            .iter()
            .map(|key| {
                let default = if key.default.is_empty() { "empty" } else { key.default };
                (c(key.name.into()), c(format!("{} (default: {default})", key.help)))
            })
            .collect()
    })
}

/// Frees settings. NULL is allowed. Engines that were started from them have a copy.
///
/// *Ownership:* `config` is gone.
///
/// *Threads:* one at a time for each config.
///
/// # Safety
/// `config` is NULL or was made by `wsredis_config_new` and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_config_free(config: *mut wsredis_config) {
    guard_or((), || {
        if !config.is_null() {
            // SAFETY: the caller's promise: it came from `Box::into_raw` and is freed once.
            drop(unsafe { Box::from_raw(config) });
        }
    });
}

/// Is this JSON a grant that `wsredis_engine_adopt` will take?
///
/// *Returns:* `GRANT` if not; the text of the error names the field.
///
/// *Ownership:* nothing changes hands.
///
/// *Threads:* any.
///
/// # Safety
/// `config` is live; the grant is as long as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_grant_check(
    config: *const wsredis_config,
    grant: *const c_char,
    grant_len: usize,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let (config, grant) =
            unsafe { (object(config, "config")?, slice(grant.cast::<u8>(), grant_len, "grant")?) };
        Grant::parse(grant, config.config.max_channels_per_socket).map(drop)
    })
}
