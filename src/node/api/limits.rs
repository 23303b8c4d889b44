//! How fast bytes may go to other nodes and come from them: set and shown. What waits for that is
//! the transport's matter.

use super::Outcome;
use crate::node::Shared;
use crate::transport::{LEAST_RATE, Rates, TooManyPaced, Totals};
use crate::wire::control::{Limit, Limits, PeerLimits, RateInfo};

/// Why limits were not set. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// One is too low to be kept.
    #[error("a limit below {LEAST_RATE} bytes per second cannot be kept")]
    TooSlow,
    /// No more peers can have limits of their own.
    #[error(transparent)]
    TooMany(#[from] TooManyPaced),
}

impl Shared {
    pub(super) fn limit(&self, limit: &Limit) -> Outcome<Limits> {
        let peer = limit.peer.as_deref().map(|peer| self.the_peer(peer)).transpose()?;
        if limit.up.is_some() || limit.down.is_some() {
            let pace = self.transport().pace();
            let mut rates = pace.rates(peer);
            for (said, rate) in [(limit.up, &mut rates.up), (limit.down, &mut rates.down)] {
                match said {
                    Some(1..LEAST_RATE) => return Err(LimitError::TooSlow.into()),
                    Some(said) => *rate = Some(said).filter(|said| *said > 0),
                    None => {}
                }
            }
            pace.set(peer, rates).map_err(LimitError::from)?;
        }
        Ok(self.limits())
    }

    fn limits(&self) -> Limits {
        let (transport, view) = (self.transport(), self.view());
        let (pace, totals) = (transport.pace(), transport.totals());
        let mut peers: Vec<PeerLimits> = pace
            .paced()
            .into_iter()
            .map(|id| {
                let now = totals.get(&id).copied().unwrap_or_default();
                PeerLimits { name: view.name(&id), id, rates: info(pace.rates(Some(id)), now) }
            })
            .collect();
        peers.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Limits { all: info(pace.rates(None), transport.total()), peers }
    }
}

const fn info(rates: Rates, now: Totals) -> RateInfo {
    RateInfo { up: rates.up, down: rates.down, now_up: now.sending, now_down: now.receiving }
}
