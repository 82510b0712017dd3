//! Admission: does one more socket fit, in the engine, for its user and for its address?
//!
//! Shared by all loops, touched when a socket comes and when it goes, never in between.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cause::Refusal;
use crate::config::Config;
use crate::error::Result;
use crate::rate::Bucket;
use crate::sys;
use crate::ws::origin::Policy;

/// So much of a second's sockets may come at once.
const BURST: Duration = Duration::from_secs(1);

/// The counts that say whether one more socket fits.
#[derive(Debug)]
pub struct Admission {
    max_sockets: usize,
    per_user: usize,
    per_address: usize,
    per_second: usize,
    fd_reserve: u64,
    /// The limit of open descriptors, as it was when one more did not fit last.
    max_files: AtomicU64,
    /// Which addresses are those of proxies. Behind one there may be everybody.
    policy: Policy,
    seats: Mutex<Seats>,
}

#[derive(Debug)]
struct Seats {
    sockets: usize,
    /// How far those who came are ahead of `max-adopt-rate`, at `leaked_at`.
    pace: Bucket,
    leaked_at: Instant,
    /// Only kept while there is a limit.
    users: HashMap<String, usize>,
    addresses: HashMap<String, usize>,
}

impl Seats {
    /// May one more come now, by the pace alone?
    fn keeps_pace(&mut self, per_second: usize, now: Instant) -> bool {
        self.pace.leak(now.saturating_duration_since(self.leaked_at));
        self.leaked_at = now;
        self.pace.take(per_second, BURST)
    }

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

/// Why a socket does not fit, for its browser and for the log.
pub type Reason = (Refusal, &'static str);

impl Admission {
    /// An empty house with the limits of `config`.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(Admission {
            max_sockets: config.max_sockets,
            per_user: config.max_sockets_per_user,
            per_address: config.max_sockets_per_address,
            per_second: config.max_adopt_rate,
            fd_reserve: config.fd_reserve as u64,
            max_files: AtomicU64::new(sys::max_open_files()),
            policy: Policy::parse(&config.allowed_origins, &config.trusted_proxies)?,
            seats: Mutex::new(Seats {
                sockets: 0,
                pace: Bucket::default(),
                leaked_at: Instant::now(),
                users: HashMap::new(),
                addresses: HashMap::new(),
            }),
        })
    }

    /// Takes a seat. The kernel gives the lowest free descriptor, so the number of `fd` itself says
    /// how many are left: no count of the host's descriptors is needed, and none can be wrong.
    pub fn enter(
        &self,
        fd: RawFd,
        user: Option<&str>,
        address: &str,
    ) -> std::result::Result<(), Reason> {
        let full = |why| Err((Refusal::Full, why));
        if !self.is_below_reserve(fd) {
            return full(
                "descriptors are used up to fd-reserve; raise the limit (ulimit -n, uWSGI: max-fd)",
            );
        }
        let mut seats = self.seats.lock();
        if self.max_sockets > 0 && seats.sockets >= self.max_sockets {
            return full("max-sockets is reached");
        }
        let (user, address) = self.limited(user, address);
        let is_full = |map: &HashMap<String, usize>, key: Option<&str>, limit: usize| {
            key.and_then(|key| map.get(key)).is_some_and(|n| *n >= limit)
        };
        if is_full(&seats.users, user, self.per_user) {
            return full("max-sockets-per-user is reached");
        }
        if is_full(&seats.addresses, address, self.per_address) {
            return full("max-sockets-per-address is reached");
        }
        if !seats.keeps_pace(self.per_second, Instant::now()) {
            return Err((Refusal::Pace, "max-adopt-rate is reached"));
        }
        seats.take(user, address);
        Ok(())
    }

    /// Are as many descriptors left as are to be? The limit is asked for again only where the answer
    /// would be no: a host may have raised it.
    fn is_below_reserve(&self, fd: RawFd) -> bool {
        let needed = fd as u64 + self.fd_reserve;
        if needed >= self.max_files.load(Relaxed) {
            self.max_files.store(sys::max_open_files(), Relaxed);
        }
        needed < self.max_files.load(Relaxed)
    }

    /// Takes a seat for a socket that has had one in another engine: it stays, whatever the limits.
    pub fn reenter(&self, user: Option<&str>, address: &str) {
        let (user, address) = self.limited(user, address);
        self.seats.lock().take(user, address);
    }

    /// What is to be known of an address for as long as its socket lives: without a limit, nothing.
    pub fn minded<'a>(&self, address: &'a str) -> &'a str {
        self.limited(None, address).1.unwrap_or_default()
    }

    /// What there is a limit for. A peer by unix socket has no address, and a proxy's is not that of
    /// a browser: one that passes none on would shut everybody out.
    fn limited<'a>(
        &self,
        user: Option<&'a str>,
        address: &'a str,
    ) -> (Option<&'a str>, Option<&'a str>) {
        let is_limited = self.per_address > 0 && !address.is_empty();
        let address = Some(address).filter(|address| is_limited && !self.policy.trusts(address));
        (user.filter(|_| self.per_user > 0), address)
    }

    /// Gives a seat back that was taken for the same user and address, or what is minded of it.
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

    fn why(result: std::result::Result<(), Reason>) -> &'static str {
        let (refusal, why) = result.unwrap_err();
        assert_eq!(refusal, Refusal::Full);
        why
    }

    #[test]
    fn limits_hold_at_their_edge_and_seats_come_back() {
        let mut config = Config::new();
        config.max_sockets = 3;
        config.max_sockets_per_user = 2;
        config.max_sockets_per_address = 2;
        let admission = Admission::new(&config).unwrap();
        admission.enter(5, Some("ann"), "10.0.0.1").unwrap();
        admission.enter(6, Some("ann"), "10.0.0.2").unwrap();
        assert!(why(admission.enter(7, Some("ann"), "10.0.0.3")).contains("per-user"));
        admission.enter(7, Some("bob"), "10.0.0.1").unwrap();
        assert!(why(admission.enter(8, None, "")).contains("max-sockets"));
        // Who has had a seat elsewhere keeps it.
        admission.reenter(Some("ann"), "10.0.0.1");
        admission.leave(Some("ann"), "10.0.0.1");
        admission.leave(Some("ann"), "10.0.0.2");
        assert!(why(admission.enter(8, None, "10.0.0.1")).contains("per-address"));
        admission.enter(8, None, "").unwrap();
        for (user, address) in [(Some("ann"), "10.0.0.1"), (Some("bob"), "10.0.0.1"), (None, "")] {
            admission.leave(user, address);
        }
        let seats = admission.seats.lock();
        assert!(seats.sockets == 0 && seats.users.is_empty() && seats.addresses.is_empty());
    }

    #[test]
    fn a_descriptor_within_the_reserve_is_refused() {
        let admission = Admission::new(&Config::new()).unwrap();
        let limit = sys::max_open_files() as RawFd;
        assert!(why(admission.enter(limit - 64, None, "")).contains("fd-reserve"));
        admission.enter(limit - 65, None, "").unwrap();
        // The limit was lower when it was asked for.
        admission.max_files.store(100, Relaxed);
        admission.enter(limit - 65, None, "").unwrap();
        assert_eq!(admission.max_files.load(Relaxed), limit as u64);
    }

    #[test]
    fn a_trusted_proxy_is_nobody_s_address() {
        let mut config = Config::new();
        config.max_sockets_per_address = 1;
        config.trusted_proxies = "10.0.0.0/8, 2001:db8::1".into();
        let admission = Admission::new(&config).unwrap();
        let proxies = ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "2001:DB8:0::1", ""];
        for address in proxies.repeat(3) {
            admission.enter(5, None, address).unwrap();
        }
        for address in ["11.1.2.3", "::ffff:11.1.2.3", "2001:db8::2", "10.1.2", "unknown"] {
            admission.enter(5, None, address).unwrap();
            assert!(why(admission.enter(5, None, address)).contains("per-address"), "{address}");
            admission.leave(None, address);
            admission.enter(5, None, address).unwrap();
            admission.leave(None, address);
        }
        for address in proxies.repeat(3) {
            admission.leave(None, address);
            assert_eq!(admission.minded(address), "");
        }
        assert_eq!(admission.minded("11.1.2.3"), "11.1.2.3");
        assert_eq!(Admission::new(&Config::new()).unwrap().minded("11.1.2.3"), "");
        let seats = admission.seats.lock();
        assert!(seats.sockets == 0 && seats.addresses.is_empty());
    }

    #[test]
    fn a_pace_is_kept_at_its_edge_and_whom_another_limit_refuses_takes_none_of_it() {
        let mut config = Config::new();
        (config.max_adopt_rate, config.max_sockets) = (3, 4);
        let admission = Admission::new(&config).unwrap();
        let began = Instant::now();
        let mut at = |ms: u64| {
            let mut seats = admission.seats.lock();
            seats.keeps_pace(3, began + Duration::from_millis(ms))
        };
        assert_eq!(
            [0, 0, 0, 0, 333, 334, 334, 667].map(&mut at),
            [true, true, true, false, false, true, false, true]
        );
        assert_eq!([9_000; 4].map(&mut at), [true, true, true, false]);
        // A second of the clock's is as good as one of the test's.
        admission.seats.lock().pace = Bucket::default();
        for _ in 0..3 {
            admission.enter(5, None, "").unwrap();
        }
        assert_eq!(admission.enter(5, None, "").unwrap_err().0, Refusal::Pace);
        admission.seats.lock().pace = Bucket::default();
        admission.enter(5, None, "").unwrap();
        for _ in 0..10 {
            assert!(why(admission.enter(5, None, "")).contains("max-sockets"));
        }
        admission.leave(None, "");
        admission.enter(5, None, "").unwrap();
    }
}
