//! Ingestion: does every controller do what it was told, and can it be asked at all?

use std::convert::Infallible;
use std::time::Duration;

use engine::{Alarm, Monitor, MonitorId};
use proto::ids::AgentId;
use proto::intent::{GateWish, IngestionWish};
use proto::report::{Controller, IngestionState, Report};
use proto::side::Side;

use super::{Context, EVERY, hold, note, tell, unwind};
use crate::{
    codes::INGESTION_OFF,
    link::{Fresh, Wish},
    world::Upgrade,
};

/// An older report says nothing of now; three looks at one would be one look.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct Ingestion;

impl Monitor<Upgrade> for Ingestion {
    const ID: MonitorId = MonitorId("ingestion");

    async fn watch(&self, cx: Context<'_>) -> Infallible {
        let mut off = 0;
        loop {
            // One odd reading is a controller on its way; three in a row are not.
            let found = judge(&cx);
            off = if found.is_some() { off + 1 } else { 0 };
            tell(&cx, found.filter(|_| off >= 3)).await;
            cx.clock().sleep(EVERY).await;
        }
    }
}

fn judge(cx: &Context<'_>) -> Option<Alarm> {
    let wish = cx.world().agents.wish()?;
    let should_run = wish.gate == GateWish::Open && wish.ingestion == IngestionWish::Running;
    let reports = cx.world().agents.reports();
    let settled = cx.world().agents.seen().iter().all(|agent| !agent.in_roster || agent.settled == Some(true));
    // What an agent said before it fell silent is no word on what it settled since.
    let fresh = |report: &&Fresh<Report>| report.age < HEARD_WITHIN;
    let found =
        reports.iter().find_map(|(agent, report)| of_pause(&wish, agent, &report.as_ref().filter(fresh)?.value));
    if settled && found.is_some() {
        return found;
    }
    for (agent, report) in reports {
        let Some(report) = report else { continue };
        for controller in &report.value.ingestion {
            let name = &controller.name;
            match &controller.state {
                IngestionState::Unknown(why) => {
                    return Some(hold(INGESTION_OFF, format!("{agent} cannot ask {name}: {why}")));
                }
                IngestionState::Paused | IngestionState::Mixed if should_run => {
                    return Some(note(INGESTION_OFF, format!("{name} of {agent} does not run as it should")));
                }
                _ => {}
            }
        }
    }
    None
}

/// A long pause: near its cap it is noted; ingestion that runs although it is wished paused has reached the cap, or was resumed by
/// somebody else, and what was to be spared by the pause is not spared any more (field rule 2.5).
fn of_pause(wish: &Wish, agent: &AgentId, report: &Report) -> Option<Alarm> {
    let IngestionWish::Paused { max_pause_ms } = wish.ingestion else { return None };
    let runs = |controller: &&Controller| !controller.holds && controller.state == IngestionState::Running;
    if let Some(controller) = report.ingestion.iter().find(runs) {
        let cap = max_pause_ms / 1000;
        let why = format!(
            "{} of {agent} runs although it is to be paused: its longest pause of {cap} s is over, or somebody resumed it",
            controller.name
        );
        // After the cut it runs where it belongs, only earlier than was wished.
        let graver = if wish.targets.serving == Side::Blue { unwind } else { note };
        return Some(graver(INGESTION_OFF, why));
    }
    let paused_ms = report.ingestion_paused_ms?;
    (paused_ms >= max_pause_ms / 5 * 4).then(|| {
        note(INGESTION_OFF, format!("ingestion has been paused for more than 80 % of {} s", max_pause_ms / 1000))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{
        intent::Targets,
        side::{Endpoint, SideIdentity},
    };

    fn wish(ingestion: IngestionWish, serving: Side) -> Wish {
        let blue =
            SideIdentity { side: Side::Blue, cluster_resource_id: "cluster-1".into(), major: 14, members: Vec::new() };
        let production = Endpoint { host: "orders".into(), port: 5432 };
        let targets = Targets { production, serving, blue, green: None };
        Wish { ingestion, ..Wish::calm(targets) }
    }

    fn check(state: IngestionState, holds: bool, paused_ms: u64, serving: Side) -> Option<Alarm> {
        let controller = Controller {
            name: "loader".into(),
            kind: "http".into(),
            state,
            backlog: None,
            rate: None,
            holds,
            age_ms: 0,
        };
        let report = Report { ingestion: vec![controller], ingestion_paused_ms: Some(paused_ms), ..Report::default() };
        let agent = "agent-1".parse().expect("an agent's name");
        of_pause(&wish(IngestionWish::Paused { max_pause_ms: 10_000 }, serving), &agent, &report)
    }

    #[test]
    fn a_long_pause_is_noted_near_its_cap_and_unwinds_when_it_is_over_before_the_cut() {
        assert_eq!(check(IngestionState::Paused, false, 7_999, Side::Blue), None);
        assert!(matches!(check(IngestionState::Paused, false, 8_000, Side::Blue), Some(Alarm::Note(_))));
        assert!(matches!(check(IngestionState::Running, false, 0, Side::Blue), Some(Alarm::Unwind(_))));
        assert!(matches!(check(IngestionState::Running, false, 0, Side::Green), Some(Alarm::Note(_))));
        assert_eq!(check(IngestionState::Running, true, 0, Side::Blue), None, "a pooler is not paused, only held");
    }
}
