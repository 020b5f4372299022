//! The named points of an upgrade: before and after each step, and what people must not miss. A closed set; never renamed.

use std::fmt;

use engine::StepId;
use serde::{Serialize, Serializer};

/// A point. Only [`Point::parse`] and the constants make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point(&'static str);

const ALL: [&str; 18] = [
    "before_prerequisites",
    "after_prerequisites",
    "before_provisioning",
    "after_provisioning",
    "before_post_provisioning",
    "after_post_provisioning",
    "before_replicating_data",
    "after_replicating_data",
    "before_switchover",
    "after_switchover",
    "before_post_switchover",
    "after_post_switchover",
    "before_cleanup",
    "after_cleanup",
    "approval_wanted",
    "alarm",
    "point_of_no_return",
    "finished",
];

impl Point {
    pub const APPROVAL_WANTED: Point = Point("approval_wanted");
    pub const ALARM: Point = Point("alarm");
    pub const POINT_OF_NO_RETURN: Point = Point("point_of_no_return");
    pub const FINISHED: Point = Point("finished");
    /// Production serves from green, and what it needs waits with this one.
    pub const BEFORE_POST_SWITCHOVER: Point = Point("before_post_switchover");

    /// All, in the order in which an upgrade meets them.
    pub fn all() -> impl Iterator<Item = Point> {
        ALL.into_iter().map(Point)
    }

    /// A point by its name.
    pub fn parse(name: &str) -> Option<Point> {
        ALL.into_iter().find(|known| *known == name).map(Point)
    }

    /// The point before a step of the plan.
    pub fn before(step: StepId) -> Option<Point> {
        Point::parse(&format!("before_{step}"))
    }

    /// The point after a step of the plan.
    pub fn after(step: StepId) -> Option<Point> {
        Point::parse(&format!("after_{step}"))
    }

    /// Is it before a step?
    pub fn is_before(self) -> bool {
        self.0.starts_with("before_")
    }

    /// The step that it is before or after.
    pub fn step(self) -> Option<&'static str> {
        self.0.strip_prefix("before_").or_else(|| self.0.strip_prefix("after_"))
    }

    /// As in configuration, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_point_before_and_after_every_step_of_the_plan() {
        let plan = crate::steps::plan(&crate::spec::UpgradeSpec::new("orders", "16"));
        let steps: Vec<StepId> = plan.shape().steps.iter().map(|step| step.id).collect();
        for step in &steps {
            assert_eq!(Point::before(*step).and_then(Point::step), Some(step.as_str()));
            assert_eq!(Point::after(*step).and_then(Point::step), Some(step.as_str()));
        }
        assert_eq!(Point::all().count(), 2 * steps.len() + 4);
        assert_eq!(Point::before(StepId("elsewhere")), None);
    }
}
