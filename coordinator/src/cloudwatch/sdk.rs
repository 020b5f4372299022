//! The CloudWatch port over the AWS SDK: the only file that names `aws_sdk_cloudwatch`. Reads only, so it retries within the
//! same small budget as the reads of RDS, and shares their time-outs and classes.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::Builder;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDataQuery, MetricDataResult, MetricStat, ScanBy};
use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;

use super::*;
use crate::rds::sdk::Options;
use crate::rds::sdk::calls::Calls;
use crate::rds::sdk::failure::{Effect, failed};
use crate::rds::{Class, Error};

/// The service's name for what every call here does.
const OPERATION: &str = "GetMetricData";
/// Seconds; the finest that RDS publishes without enhanced monitoring.
const PERIOD: i32 = 60;
/// The only query of a request.
const QUERY_ID: &str = "newest";

/// CloudWatch of one account and region.
#[derive(Clone, Debug)]
pub struct Sdk {
    client: Client,
    clock: Clock,
}

impl Sdk {
    /// The clock only says until when to ask; what is fresh, the caller says by `since`.
    pub fn new(config: &SdkConfig, options: &Options, clock: Clock) -> Self {
        let pinned = Builder::from(config).behavior_version(BehaviorVersion::v2026_01_12());
        let pinned = pinned.retry_config(options.read_retries()).timeout_config(options.read_timeouts());
        let calls = Calls { changes: false };
        Self { client: Client::from_conf(pinned.interceptor(calls).build()), clock }
    }

    async fn ask(&self, metric: Metric, instance: &InstanceId, since: Timestamp) -> Result<Option<Point>, Error> {
        let worst = metric.statistic();
        let stat = MetricStat::builder().metric(named(metric, instance)).period(PERIOD).stat(worst).build();
        let query = MetricDataQuery::builder().id(QUERY_ID).metric_stat(stat).return_data(true).build();
        // Points carry the beginning of their minute, and start times are rounded down by AWS: ask for one minute more at both
        // ends and cut here.
        let minute = SignedDuration::from_secs(PERIOD.into());
        let (from, to) = (since.saturating_sub(minute), self.clock.now().saturating_add(minute));
        if from.as_ref().ok() >= to.as_ref().ok() {
            // A point of the future is none; AWS refuses the question.
            return Ok(None);
        }
        let request = self
            .client
            .get_metric_data()
            .metric_data_queries(query)
            .start_time(date(from.unwrap_or(since)))
            .end_time(date(to.unwrap_or(since)))
            .scan_by(ScanBy::TimestampDescending);
        let mut pages = request.into_paginator().send();
        let mut newest: Option<Point> = None;
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| failed(Effect::Reads, "cloudwatch", OPERATION, instance.as_str(), e))?;
            for result in page.metric_data_results.unwrap_or_default() {
                refuse_partial(&result, instance)?;
                let point = points(result).filter(|p| p.at >= since).max_by_key(|p| p.at);
                newest = [newest, point].into_iter().flatten().max_by_key(|p| p.at);
            }
        }
        Ok(newest)
    }
}

impl CloudWatch for Sdk {
    fn newest<'a>(&'a self, metric: Metric, instance: &'a InstanceId, since: Timestamp) -> Answer<'a, Option<Point>> {
        Box::pin(self.ask(metric, instance, since))
    }
}

fn named(metric: Metric, instance: &InstanceId) -> aws_sdk_cloudwatch::types::Metric {
    let dimension = Dimension::builder().name("DBInstanceIdentifier").value(instance.as_str()).build();
    let named = aws_sdk_cloudwatch::types::Metric::builder().namespace("AWS/RDS").metric_name(metric.name());
    named.dimensions(dimension).build()
}

fn date(at: Timestamp) -> DateTime {
    DateTime::from_secs(at.as_second())
}

/// Values and the times they belong to, as far as both are there.
fn points(result: MetricDataResult) -> impl Iterator<Item = Point> {
    let times = result.timestamps.unwrap_or_default();
    let values = result.values.unwrap_or_default();
    times.into_iter().zip(values).filter_map(|(at, value)| {
        let at = Timestamp::new(at.secs(), at.subsec_nanos() as i32).ok()?;
        Some(Point { value, at })
    })
}

/// An answer that AWS itself calls wrong is no answer; a partial one is, for its points are true.
fn refuse_partial(result: &MetricDataResult, instance: &InstanceId) -> Result<(), Error> {
    let (class, code) = match result.status_code.as_ref().map(|c| c.as_str()) {
        Some("Forbidden") => (Class::AccessDenied { action: format!("cloudwatch:{OPERATION}") }, "Forbidden"),
        Some("InternalError") => (Class::Transient, "InternalError"),
        _ => return Ok(()),
    };
    let said: Vec<&str> = result.messages().iter().filter_map(|m| m.value()).collect();
    Err(Error::new(class, OPERATION, instance, code, said.join("; ")))
}
