//! How soon messages come: latencies and the longest silence since the last report.
//!
//! A pure value, owned by whoever measures; time comes in as a parameter.

use std::time::Duration;

use serde_json::{Value, json};

/// A bucket of the table of latencies.
const BUCKET: Duration = Duration::from_micros(100);
const BUCKETS: usize = 100_000;

/// Figures that begin anew with each report.
pub struct Figures {
    longest_silence: Duration,
    latencies: Vec<u32>,
    longest_latency: Duration,
    own_stall: Duration,
}

impl Default for Figures {
    fn default() -> Self {
        Figures {
            longest_silence: Duration::ZERO,
            latencies: vec![0; BUCKETS],
            longest_latency: Duration::ZERO,
            own_stall: Duration::ZERO,
        }
    }
}

impl Figures {
    /// A message has come so long after it was sent.
    pub fn took(&mut self, latency: Duration) {
        let bucket = (latency.as_micros() / BUCKET.as_micros()) as usize;
        self.latencies[bucket.min(BUCKETS - 1)] += 1;
        self.longest_latency = self.longest_latency.max(latency);
    }

    /// A browser has heard nothing for so long.
    pub fn silent(&mut self, silence: Duration) {
        self.longest_silence = self.longest_silence.max(silence);
    }

    /// By so much we ourselves came late, which is no fault of the site.
    pub fn stalled(&mut self, stall: Duration) {
        self.own_stall = self.own_stall.max(stall);
    }

    /// Adds them to a report.
    pub fn tell(&self, report: &mut Value) {
        report["longest_silence_ms"] = json!(millis(self.longest_silence));
        report["p50_ms"] = json!(millis(self.percentile(50)));
        report["p99_ms"] = json!(millis(self.percentile(99)));
        report["max_ms"] = json!(millis(self.longest_latency));
        report["own_stall_ms"] = json!(millis(self.own_stall));
    }

    fn percentile(&self, percent: u64) -> Duration {
        let total: u64 = self.latencies.iter().map(|count| u64::from(*count)).sum();
        let mut left = total * percent / 100;
        for (bucket, count) in (0u32..).zip(&self.latencies) {
            if left < u64::from(*count) {
                return BUCKET * bucket;
            }
            left -= u64::from(*count);
        }
        Duration::ZERO
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_maxima_are_those_of_what_was_told() {
        let mut figures = Figures::default();
        assert_eq!(figures.percentile(99), Duration::ZERO);
        for _ in 0..99 {
            figures.took(Duration::from_micros(150));
        }
        figures.took(Duration::from_secs(3600));
        figures.silent(Duration::from_millis(7));
        figures.silent(Duration::from_millis(5));
        let mut report = json!({});
        figures.tell(&mut report);
        assert_eq!(
            report,
            json!({
                "longest_silence_ms": 7.0,
                "p50_ms": 0.1,
                "p99_ms": 9999.9,
                "max_ms": 3_600_000.0,
                "own_stall_ms": 0.0,
            })
        );
    }
}
