//! Admission: does one more socket fit, in the engine, for its user and for its address?
//!
//! Shared by all loops, touched when a socket comes and when it goes, never in between.

use std::collections::HashMap;
use std::os::fd::RawFd;

use parking_lot::Mutex;

use crate::config::Config;
use crate::sys;

/// The counts that say whether one more socket fits.
#[derive(Debug)]
pub struct Admission {
    max_sockets: usize,
    per_user: usize,
    per_address: usize,
    fd_reserve: u64,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    sockets: usize,
    /// Only kept while there is a limit.
    users: HashMap<String, usize>,
    addresses: HashMap<String, usize>,
}

impl Seats {
    fn take(&mut self, user: Option<&str>, address: Option<&str>) {
        self.sockets += 1;
        if let Some(user) = user {
            *self.users.entry(user.into()).or_default() += 1;
        }
        if let Some(address) = address {
            *self.addresses.entry(address.into()).or_default() += 1;
        }
    }
}

/// Why a socket does not fit, for the log.
pub type Reason = &'static str;

impl Admission {
    /// An empty house with the limits of `config`.
    pub fn new(config: &Config) -> Self {
        Admission {
            max_sockets: config.max_sockets,
            per_user: config.max_sockets_per_user,
            per_address: config.max_sockets_per_address,
            fd_reserve: config.fd_reserve as u64,
            seats: Mutex::default(),
        }
    }

    /// Takes a seat. The kernel gives the lowest free descriptor, so the number of `fd` itself says
    /// how many are left: no count of the host's descriptors is needed, and none can be wrong.
    pub fn enter(&self, fd: RawFd, user: Option<&str>, address: &str) -> Result<(), Reason> {
        if fd as u64 + self.fd_reserve >= sys::max_open_files() {
            return Err(
                "descriptors are used up to fd-reserve; raise the limit (ulimit -n, uWSGI: max-fd)",
            );
        }
        let mut seats = self.seats.lock();
        if self.max_sockets > 0 && seats.sockets >= self.max_sockets {
            return Err("max-sockets is reached");
        }
        let (user, address) = self.limited(user, address);
        let full = |map: &HashMap<String, usize>, key: Option<&str>, limit: usize| {
            key.and_then(|key| map.get(key)).is_some_and(|n| *n >= limit)
        };
        if full(&seats.users, user, self.per_user) {
            return Err("max-sockets-per-user is reached");
        }
        if full(&seats.addresses, address, self.per_address) {
            return Err("max-sockets-per-address is reached");
        }
        seats.take(user, address);
        Ok(())
    }

    /// Takes a seat for a socket that has had one in another engine: it stays, whatever the limits.
    pub fn reenter(&self, user: Option<&str>, address: &str) {
        let (user, address) = self.limited(user, address);
        self.seats.lock().take(user, address);
    }

    /// What there is a limit for.
    fn limited<'a>(
        &self,
        user: Option<&'a str>,
        address: &'a str,
    ) -> (Option<&'a str>, Option<&'a str>) {
        let address = Some(address).filter(|a| self.per_address > 0 && !a.is_empty());
        (user.filter(|_| self.per_user > 0), address)
    }

    /// Gives a seat back that was taken for the same user and address.
    pub fn leave(&self, user: Option<&str>, address: &str) {
        let mut seats = self.seats.lock();
        seats.sockets = seats.sockets.saturating_sub(1);
        let Seats { users, addresses, .. } = &mut *seats;
        for (map, key) in [(users, user.unwrap_or_default()), (addresses, address)] {
            if let Some(n) = map.get_mut(key) {
                *n -= 1;
                if *n == 0 {
                    map.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_at_their_edge_and_seats_come_back() {
        let mut config = Config::new();
        config.max_sockets = 3;
        config.max_sockets_per_user = 2;
        config.max_sockets_per_address = 2;
        let admission = Admission::new(&config);
        admission.enter(5, Some("ann"), "10.0.0.1").unwrap();
        admission.enter(6, Some("ann"), "10.0.0.2").unwrap();
        assert!(admission.enter(7, Some("ann"), "10.0.0.3").unwrap_err().contains("per-user"));
        admission.enter(7, Some("bob"), "10.0.0.1").unwrap();
        assert!(admission.enter(8, None, "").unwrap_err().contains("max-sockets"));
        // Who has had a seat elsewhere keeps it.
        admission.reenter(Some("ann"), "10.0.0.1");
        admission.leave(Some("ann"), "10.0.0.1");
        admission.leave(Some("ann"), "10.0.0.2");
        assert!(admission.enter(8, None, "10.0.0.1").unwrap_err().contains("per-address"));
        admission.enter(8, None, "").unwrap();
        for (user, address) in [(Some("ann"), "10.0.0.1"), (Some("bob"), "10.0.0.1"), (None, "")] {
            admission.leave(user, address);
        }
        let seats = admission.seats.lock();
        assert!(seats.sockets == 0 && seats.users.is_empty() && seats.addresses.is_empty());
    }

    #[test]
    fn a_descriptor_within_the_reserve_is_refused() {
        let admission = Admission::new(&Config::new());
        let limit = sys::max_open_files() as RawFd;
        assert!(admission.enter(limit - 64, None, "").unwrap_err().contains("fd-reserve"));
        admission.enter(limit - 65, None, "").unwrap();
    }
}
