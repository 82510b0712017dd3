#![allow(missing_docs)]
use super::local::Local;
use crate::cause::Cause;
use crate::error::{Error, Kind, Result};
use crate::hub::ChannelState;
use crate::redis::LinkState;
use crate::socket::SocketState;
use std::os::fd::OwnedFd;
use std::time::Duration;
#[derive(Default)]
pub struct EngineState {
    pub id: u64,
    pub loops: Vec<LoopState>,
}
pub struct LoopState {
    pub sockets: Vec<(OwnedFd, SocketState)>,
    pub channels: Vec<ChannelState>,
    pub subscriber: Option<(OwnedFd, LinkState)>,
}
impl Local {
    pub fn export(&self, _settle: Duration) -> Result<EngineState> {
        Err(Error::new(Kind::Unsupported, "not yet"))
    }
    pub fn import(&self, _state: EngineState, _same: bool) -> Result<()> {
        Ok(())
    }
    pub fn disperse(&self, _c: Cause, _o: Duration) -> Result<()> {
        Ok(())
    }
    pub fn sockets(&self) -> u64 {
        0
    }
    pub fn stop_with(&self, _c: Cause, timeout_ms: u32) -> bool {
        self.stop(timeout_ms)
    }
}
