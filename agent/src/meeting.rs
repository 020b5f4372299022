//! After the cut names have moved: an agent that was not there before meets the servers of both sides under the names that they
//! have now, as soon as these lead to them. Before it, the link looks names up as an intent comes.

use std::time::Duration;

use proto::{intent::Intent, side::Side};
use runtime::{
    shutdown::Stop,
    supervision::{Ready, Task, TaskError, chain},
};

use crate::state::Shared;

/// A name that leads elsewhere is looked up again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// See the module.
pub struct Meeting {
    pub shared: Shared,
}

impl Meeting {
    /// Were all servers of the intent met?
    async fn met(&self, intent: &Intent, told: &mut bool) -> bool {
        let meetings = intent.targets.sides().map(|side| self.shared.dialer.meet(side));
        let answers = futures_util::future::join_all(meetings).await;
        let errors: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        if !(errors.is_empty() || std::mem::replace(told, true)) {
            let why: Vec<String> = errors.iter().map(|error| chain(error)).collect();
            tracing::warn!(why = why.join("; "), "servers are not found under their names yet");
        }
        errors.is_empty()
    }
}

impl Task for Meeting {
    const NAME: &'static str = "meeting";

    async fn run(&mut self, stop: Stop, ready: Ready) -> Result<(), TaskError> {
        let mut intents = self.shared.intent.subscribe();
        ready.set(true);
        let mut told = false;
        while !stop.is_triggered() {
            let intent = intents.borrow_and_update().clone();
            let due = intent.filter(|intent| intent.targets.serving == Side::Green);
            let met = match &due {
                Some(intent) => stop.unless(self.met(intent, &mut told)).await.unwrap_or(true),
                None => true,
            };
            tokio::select! {
                changed = intents.changed() => {
                    changed?;
                    told = false;
                }
                _ = stop.sleep(&self.shared.clock, AGAIN), if !met => {}
                () = stop.triggered() => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use runtime::played::Said;

    use super::*;
    use crate::{pg::ConnectError, testing::Pair};

    /// A name, not an address: the system resolves it to 127.0.0.1.
    const NAME: &str = "127.1";

    #[tokio::test]
    async fn a_name_that_still_leads_to_the_other_side_is_not_believed_until_it_leads_here() {
        let pair = Pair::start("meeting", |_, _| async { Said::Rows(Vec::new()) }).await;
        let dialer = &pair.shared.dialer;
        let led_to = |server: usize| {
            let mut green = pair.in_window(Side::Green).targets.green.unwrap();
            (green.members[0].host, green.members[0].port) = (NAME.into(), pair.servers[server].port());
            green
        };
        let (stale, moved) = (led_to(0), led_to(1));
        let refused = dialer.meet(&stale).await.expect_err("it is blue that answers");
        assert!(matches!(refused, ConnectError::WrongServer { .. }), "{refused}");
        assert_eq!(dialer.known_address(&stale.members[0]), None);
        dialer.meet(&moved).await.unwrap();
        assert_eq!(dialer.known_address(&moved.members[0]), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
