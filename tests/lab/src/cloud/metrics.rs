//! CloudWatch: samples taken from the servers, and the calls that read them. One "minute" of CloudWatch is the setting
//! `cloudwatch_period`, so that a 60-second query of a lab with short timings sees a point each second; points become
//! visible `cloudwatch_delay` late. Slot lag, connections, WAL and transaction ids are real; CPU and free space are modelled.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::cloud::errors::{Answer, Refusal};
use crate::faults::Fault;
use crate::fleet::Server;
use crate::mechanics::health;

const NAMESPACE: &str = "AWS/RDS";
/// Points kept of each series.
const KEPT: usize = 4000;

/// Metric name, and what identifies the series: the instance's and the cluster's names at that time, writer or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    metric: &'static str,
    instance: String,
    cluster: String,
    writer: bool,
}

/// All points so far.
#[derive(Debug, Default)]
pub(crate) struct Samples(Mutex<BTreeMap<Series, VecDeque<(Timestamp, f64)>>>);

impl Samples {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Series, VecDeque<(Timestamp, f64)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, series: Series, at: Timestamp, value: f64) {
        let mut all = self.lock();
        let points = all.entry(series).or_default();
        if points.len() == KEPT {
            points.pop_front();
        }
        points.push_back((at, value));
    }
}

/// Takes a point of every metric of every instance, period after period.
pub(crate) async fn sample(cloud: Cloud) {
    loop {
        tokio::time::sleep(cloud.settings().timings.cloudwatch_period).await;
        let targets: Vec<(String, String, bool, Arc<Server>)> = {
            let state = cloud.state();
            state
                .instances
                .values()
                .filter(|i| i.status == "available")
                .filter_map(|i| {
                    let cluster = state.clusters.get(&i.cluster)?;
                    Some((i.identifier.clone(), cluster.identifier.clone(), cluster.writer == i.id, i.server.clone()?))
                })
                .collect()
        };
        let at = cloud.clock().now();
        for (instance, cluster, writer, server) in targets {
            for (metric, value) in readings(&server, writer).await {
                cloud.samples().push(
                    Series { metric, instance: instance.clone(), cluster: cluster.clone(), writer },
                    at,
                    value,
                );
            }
        }
    }
}

/// What one server shows now. A server that does not answer shows nothing.
async fn readings(server: &Server, writer: bool) -> Vec<(&'static str, f64)> {
    let mut all = vec![("CPUUtilization", 10.0), ("FreeLocalStorage", 50e9), ("FreeableMemory", 8e9)];
    let Ok(admin) = server.admin("postgres").await else { return Vec::new() };
    let query = "select (select count(*) from pg_stat_activity where backend_type = 'client backend')::float8, \
                 (select max(age(datfrozenxid)) from pg_database)::float8, \
                 (select coalesce(sum(size), 0) from pg_ls_waldir())::float8, \
                 (select count(*) from pg_stat_activity where state = 'active' and backend_type = 'client backend')::float8";
    if let Ok(row) = admin.query_one(query, &[]).await {
        all.push(("DatabaseConnections", row.get::<_, f64>(0)));
        all.push(("MaximumUsedTransactionIDs", row.get::<_, f64>(1)));
        all.push(("TransactionLogsDiskUsage", row.get::<_, f64>(2)));
        all.push(("DBLoad", row.get::<_, f64>(3)));
    }
    if writer && let Ok(Some(lag)) = health::oldest_slot_lag(server).await {
        all.extend(
            ["OldestReplicationSlotLag", "OldestLogicalReplicationSlotLag", "ReplicationSlotDiskUsage"]
                .map(|m| (m, lag as f64)),
        );
    }
    all
}

/// How many points `GetMetricStatistics` may be asked for.
const STATISTICS_MAX: i64 = 1440;

/// The operations of CloudWatch that are served.
pub(crate) const SERVED: [&str; 3] = ["GetMetricData", "GetMetricStatistics", "ListMetrics"];

/// Carries out a CloudWatch call.
pub(crate) fn call(cloud: &Cloud, operation: &str, input: &Value) -> Answer<Value> {
    match operation {
        "GetMetricData" => metric_data(cloud, input),
        "GetMetricStatistics" => metric_statistics(cloud, input),
        "ListMetrics" => Ok(list(cloud, input)),
        _ => Err(Refusal::new("InvalidAction", 400, format!("{operation} is not supported"))),
    }
}

/// A question for points of one series.
struct Question<'a> {
    namespace: &'a str,
    metric: &'a str,
    dimensions: Vec<(&'a str, &'a str)>,
    period: i64,
    unit: Option<&'a str>,
    from: Timestamp,
    to: Timestamp,
}

fn metric_data(cloud: &Cloud, input: &Value) -> Answer<Value> {
    let (from, to) = (moment(input, "StartTime")?, moment(input, "EndTime")?);
    let queries = input["MetricDataQueries"].as_array().map_or(&[][..], Vec::as_slice);
    if queries.is_empty() || queries.len() > 500 {
        return Err(validation("The collection MetricDataQueries must have between 1 and 500 items."));
    }
    if from >= to {
        return Err(validation("The parameter StartTime must be less than the parameter EndTime."));
    }
    if input["NextToken"].is_string() {
        return Err(Refusal::new("InvalidNextToken", 400, "The next token specified is invalid."));
    }
    let ascending = input["ScanBy"] == "TimestampAscending";
    let mut results = Vec::new();
    for query in queries.iter().filter(|q| q["ReturnData"] != false) {
        let stat = &query["MetricStat"];
        if !stat.is_object() {
            return Err(validation("This lab serves MetricStat queries only."));
        }
        let question = question(&stat["Metric"], stat, from, to)?;
        let name = stat["Stat"].as_str().unwrap_or("Average");
        let mut points: Vec<(i64, f64)> =
            buckets(cloud, &question).into_iter().filter_map(|(at, b)| Some((at, b.stat(name)?))).collect();
        if !ascending {
            points.reverse();
        }
        results.push(json!({
            "Id": query["Id"],
            "Label": query["Label"].as_str().unwrap_or(question.metric),
            "Timestamps": points.iter().map(|(at, _)| seconds(*at)).collect::<Vec<_>>(),
            "Values": points.iter().map(|(_, v)| *v).collect::<Vec<_>>(),
            "StatusCode": "Complete",
        }));
    }
    Ok(json!({ "MetricDataResults": results, "Messages": [] }))
}

fn metric_statistics(cloud: &Cloud, input: &Value) -> Answer<Value> {
    let (from, to) = (moment(input, "StartTime")?, moment(input, "EndTime")?);
    if from >= to {
        return Err(Refusal::value("The parameter StartTime must be less than the parameter EndTime."));
    }
    let question = question(input, input, from, to)?;
    let wanted: Vec<&str> = input["Statistics"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if wanted.is_empty() {
        let text = "At least one of the parameters Statistics and ExtendedStatistics must be specified.";
        return Err(Refusal::new("MissingParameter", 400, text));
    }
    let asked = to.duration_since(from).as_secs() / question.period;
    if asked > STATISTICS_MAX {
        let text = format!("You have requested up to {asked} datapoints, which exceeds the limit of {STATISTICS_MAX}.");
        return Err(Refusal::combination(text));
    }
    let points: Vec<Value> = buckets(cloud, &question)
        .into_iter()
        .map(|(at, bucket)| {
            let mut point = json!({ "Timestamp": seconds(at), "Unit": unit_of(question.metric) });
            for name in &wanted {
                if let Some(value) = bucket.stat(name) {
                    point[*name] = value.into();
                }
            }
            point
        })
        .collect();
    Ok(json!({ "Label": question.metric, "Datapoints": points }))
}

fn list(cloud: &Cloud, input: &Value) -> Value {
    let metric = input["MetricName"].as_str();
    let wanted = dimensions(input);
    let all = cloud.samples().lock();
    let metrics: Vec<Value> = all
        .keys()
        .filter(|s| metric.is_none_or(|m| m == s.metric) && wanted.iter().all(|(name, value)| s.has(name, value)))
        .map(|s| json!({ "Namespace": NAMESPACE, "MetricName": s.metric, "Dimensions": [{ "Name": "DBInstanceIdentifier", "Value": s.instance }] }))
        .collect();
    json!({ "Metrics": metrics })
}

impl Series {
    fn has(&self, dimension: &str, value: &str) -> bool {
        match dimension {
            "DBInstanceIdentifier" => self.instance == value,
            "DBClusterIdentifier" => self.cluster == value,
            "Role" => value == if self.writer { "WRITER" } else { "READER" },
            "EngineName" => value == "aurora-postgresql",
            _ => false,
        }
    }
}

/// The points of one bucket of time.
#[derive(Debug, Default)]
struct Bucket(Vec<f64>);

impl Bucket {
    fn stat(&self, name: &str) -> Option<f64> {
        let count = self.0.len() as f64;
        let sum: f64 = self.0.iter().sum();
        match name {
            "Average" => Some(sum / count),
            "Sum" => Some(sum),
            "SampleCount" => Some(count),
            "Minimum" => self.0.iter().copied().reduce(f64::min),
            "Maximum" => self.0.iter().copied().reduce(f64::max),
            _ => None,
        }
    }
}

/// Visible points by the beginning of their bucket, in milliseconds since 1970.
fn buckets(cloud: &Cloud, question: &Question<'_>) -> BTreeMap<i64, Bucket> {
    let timings = &cloud.settings().timings;
    let delay = SignedDuration::try_from(timings.cloudwatch_delay).unwrap_or(SignedDuration::ZERO);
    let visible = cloud.clock().now().checked_sub(delay).unwrap_or(Timestamp::MIN);
    let minute = i64::try_from(timings.cloudwatch_period.as_millis()).unwrap_or(60_000).max(1);
    let width = (question.period * minute / 60).max(minute);
    let more = cloud.faults().standing(|f| match f {
        Fault::ReportedLag { bytes } if question.metric.ends_with("SlotLag") => Some(*bytes as f64),
        _ => None,
    });
    let mut found: BTreeMap<i64, Bucket> = BTreeMap::new();
    // A wrong unit yields no data rather than an error.
    if question.namespace != NAMESPACE || question.unit.is_some_and(|u| u != unit_of(question.metric)) {
        return found;
    }
    for (series, points) in cloud.samples().lock().iter() {
        let fits = series.metric == question.metric && !question.dimensions.is_empty();
        if !fits || !question.dimensions.iter().all(|(name, value)| series.has(name, value)) {
            continue;
        }
        for (at, value) in points.iter().filter(|(at, _)| *at <= visible && *at >= question.from && *at < question.to) {
            let begin = at.as_millisecond().div_euclid(width) * width;
            found.entry(begin).or_default().0.push(value + more.unwrap_or(0.0));
        }
    }
    found
}

fn question<'a>(metric: &'a Value, stat: &'a Value, from: Timestamp, to: Timestamp) -> Answer<Question<'a>> {
    let text =
        |name: &str| metric[name].as_str().ok_or_else(|| validation(&format!("The parameter {name} is required.")));
    let period = stat["Period"].as_i64().unwrap_or(60);
    if period < 1 || (period >= 60 && period % 60 != 0) || (period < 60 && ![1, 5, 10, 20, 30].contains(&period)) {
        return Err(validation("The parameter Period must be a multiple of 60, or 1, 5, 10, 20 or 30."));
    }
    Ok(Question {
        namespace: text("Namespace")?,
        metric: text("MetricName")?,
        dimensions: dimensions(metric),
        period,
        unit: stat["Unit"].as_str(),
        from,
        to,
    })
}

fn dimensions(input: &Value) -> Vec<(&str, &str)> {
    let all = input["Dimensions"].as_array().into_iter().flatten();
    all.filter_map(|d| Some((d["Name"].as_str()?, d["Value"].as_str()?))).collect()
}

fn moment(input: &Value, name: &str) -> Answer<Timestamp> {
    let found = match &input[name] {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_f64().and_then(|s| Timestamp::from_millisecond((s * 1000.0) as i64).ok()),
        _ => None,
    };
    found.ok_or_else(|| validation(&format!("The parameter {name} is required.")))
}

fn validation(message: &str) -> Refusal {
    Refusal::new("ValidationError", 400, message)
}

fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

fn unit_of(metric: &str) -> &'static str {
    match metric {
        "CPUUtilization" => "Percent",
        "DatabaseConnections" | "MaximumUsedTransactionIDs" => "Count",
        "DBLoad" => "None",
        _ => "Bytes",
    }
}
