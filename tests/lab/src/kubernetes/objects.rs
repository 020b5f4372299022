//! The objects, and what their controllers make of them.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::clock::{Clock, Mono};
use serde_json::{Map, Value, json};

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From being wanted to being ready.
    pub start: Duration,
    /// From being told to end to being gone.
    pub end: Duration,
    /// Until a controller has seen a change.
    pub notice: Duration,
}

/// A request that is not done, as the API says it.
#[derive(Debug)]
pub struct Refused {
    pub(super) status: u16,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn missing(what: &str) -> Refused {
        Refused { status: 404, reason: "NotFound", message: format!("{what} not found") }
    }
}

/// Namespace, plural and name.
type Key = (String, String, String);

pub(super) struct Objects {
    pace: Pace,
    version: u64,
    objects: BTreeMap<Key, Value>,
    pods: Vec<Pod>,
    /// When each workload's controller will have seen it.
    due: BTreeMap<Key, Mono>,
    named: u64,
    clock: Clock,
}

struct Pod {
    namespace: String,
    workload: String,
    name: String,
    version: u64,
    ready_at: Mono,
    gone_at: Option<Mono>,
}

/// The version of an object, as a number that only the server may make of it.
pub(super) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn replicas(object: &Value) -> u64 {
    object["spec"]["replicas"].as_u64().unwrap_or(1)
}

/// RFC 7386.
fn merge(into: &mut Value, change: &Value) {
    let Value::Object(changes) = change else {
        *into = change.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    if let Value::Object(target) = into {
        for (name, value) in changes {
            if value.is_null() {
                target.remove(name);
            } else {
                merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

impl Objects {
    pub(super) fn new(pace: Pace, clock: Clock) -> Objects {
        Objects { pace, version: 1, objects: BTreeMap::new(), pods: Vec::new(), due: BTreeMap::new(), named: 0, clock }
    }

    fn put(&mut self, key: &Key, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(key.clone(), object.clone());
        object
    }

    pub(super) fn add_workload(&mut self, namespace: &str, plural: &str, name: &str, replicas: u32) {
        let kind = if plural == "deployments" { "Deployment" } else { "StatefulSet" };
        let labels = json!({"app": name});
        let object = json!({"kind": kind, "apiVersion": "apps/v1",
            "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"), "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"team": "orders"}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "main:1"}]}}},
            "status": {}});
        let key = (namespace.to_owned(), plural.to_owned(), name.to_owned());
        self.put(&key, object);
        let now = self.clock.mono();
        self.due.insert(key.clone(), now);
        self.play();
        for pod in &mut self.pods {
            pod.ready_at = now;
        }
        self.due.insert(key, now);
        self.play();
    }

    pub(super) fn add_scaled_object(&mut self, namespace: &str, name: &str, deployment: &str) {
        let object = json!({"kind": "ScaledObject", "apiVersion": "keda.sh/v1alpha1",
            "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-so-{name}"), "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"scaleTargetRef": {"name": deployment}, "minReplicaCount": 2, "triggers": []},
            "status": {"conditions": [{"type": "Paused", "status": "False"}]}});
        let key = (namespace.to_owned(), "scaledobjects".to_owned(), name.to_owned());
        self.put(&key, object);
    }

    pub(super) fn pods_of(&self, namespace: &str, workload: &str) -> usize {
        self.pods.iter().filter(|pod| pod.namespace == namespace && pod.workload == workload).count()
    }

    fn key(namespace: Option<&str>, plural: &str, name: Option<&str>) -> Result<Key, Refused> {
        match (namespace, name) {
            (Some(namespace), Some(name)) => Ok((namespace.to_owned(), plural.to_owned(), name.to_owned())),
            _ => Err(Refused::missing(plural)),
        }
    }

    fn found(&self, key: &Key) -> Result<&Value, Refused> {
        let group = if key.1 == "scaledobjects" { "keda.sh" } else { "apps" };
        self.objects.get(key).ok_or_else(|| Refused::missing(&format!("{}.{group} \"{}\"", key.1, key.2)))
    }

    pub(super) fn read(
        &self,
        namespace: Option<&str>,
        plural: &str,
        name: Option<&str>,
        sub: Option<&str>,
    ) -> Result<Value, Refused> {
        let key = Self::key(namespace, plural, name)?;
        let object = self.found(&key)?;
        match sub {
            None | Some("status") => Ok(object.clone()),
            Some("scale") if plural != "scaledobjects" => Ok(scale(object)),
            Some(other) => Err(Refused::missing(other)),
        }
    }

    pub(super) fn change(
        &mut self,
        namespace: Option<&str>,
        plural: &str,
        name: Option<&str>,
        sub: Option<&str>,
        change: &Value,
    ) -> Result<Value, Refused> {
        let key = Self::key(namespace, plural, name)?;
        let before = self.found(&key)?.clone();
        let wanted = &change["metadata"]["resourceVersion"];
        if wanted
            .as_str()
            .is_some_and(|wanted| !wanted.is_empty() && Some(wanted) != before["metadata"]["resourceVersion"].as_str())
        {
            let message = format!(
                "Operation cannot be fulfilled on {plural} \"{}\": the object has been modified; please apply your changes to the latest version and try again",
                key.2
            );
            return Err(Refused { status: 409, reason: "Conflict", message });
        }
        let mut object = before.clone();
        match sub {
            None => {
                merge(&mut object, change);
                object["status"] = before["status"].clone();
            }
            Some("scale") => {
                let replicas = change["spec"]["replicas"].as_u64();
                let refused =
                    || Refused { status: 422, reason: "Invalid", message: "spec.replicas must be a number".into() };
                object["spec"]["replicas"] = replicas.ok_or_else(refused)?.into();
            }
            Some(other) => return Err(Refused::missing(other)),
        }
        if object["spec"] != before["spec"] {
            object["metadata"]["generation"] = (before["metadata"]["generation"].as_u64().unwrap_or(0) + 1).into();
        }
        let object = self.put(&key, object);
        self.due.insert(key, self.clock.mono() + self.pace.notice);
        Ok(if sub == Some("scale") { scale(&object) } else { object })
    }

    /// Everything selected, and the version of the list.
    pub(super) fn list(
        &self,
        namespace: Option<&str>,
        plural: &str,
        labels: &str,
        fields: &str,
    ) -> Result<(Vec<Value>, u64), Refused> {
        let fits = |object: &Value| {
            let labels = labels.split(',').filter(|part| !part.is_empty()).all(|part| {
                part.split_once('=').is_some_and(|(key, value)| object["metadata"]["labels"][key] == value)
            });
            let fields = fields.split(',').filter(|part| !part.is_empty()).all(|part| match part.split_once("!=") {
                Some((field, value)) => at(object, field) != value,
                None => part.split_once('=').is_some_and(|(field, value)| at(object, field) == value),
            });
            labels && fields
        };
        let here = |of: &str| namespace.is_none_or(|namespace| namespace == of);
        let items: Vec<Value> = match plural {
            "pods" => self.pods.iter().filter(|pod| here(&pod.namespace)).map(Pod::object).filter(fits).collect(),
            _ => {
                let of_kind = self.objects.iter().filter(|(key, _)| key.1 == plural && here(&key.0));
                of_kind.map(|(_, object)| object.clone()).filter(fits).collect()
            }
        };
        Ok((items, self.version))
    }

    /// Lets the controllers do what is due; says whether anything changed.
    pub(super) fn play(&mut self) -> bool {
        let (now, before) = (self.clock.mono(), self.version);
        let gone = self.pods.len();
        self.pods.retain(|pod| pod.gone_at.is_none_or(|at| at > now));
        if self.pods.len() != gone {
            self.version += 1;
        }
        for key in self.objects.keys().cloned().collect::<Vec<_>>() {
            if key.1 == "scaledobjects" { self.play_keda(&key, now) } else { self.play_workload(&key, now) }
        }
        self.version != before
    }

    fn play_workload(&mut self, key: &Key, now: Mono) {
        let object = self.objects[key].clone();
        let mine = |pod: &&mut Pod| pod.namespace == key.0 && pod.workload == key.2 && pod.gone_at.is_none();
        let mut seen = object["status"]["observedGeneration"].clone();
        if self.due.get(key).is_none_or(|due| *due <= now) {
            seen = object["metadata"]["generation"].clone();
            let wanted = usize::try_from(replicas(&object)).unwrap_or(0);
            let mut there: Vec<&mut Pod> = self.pods.iter_mut().filter(mine).collect();
            let count = there.len();
            for pod in there.iter_mut().skip(wanted) {
                self.version += 1;
                (pod.gone_at, pod.version) = (Some(now + self.pace.end), self.version);
            }
            for _ in count..wanted {
                self.named += 1;
                self.version += 1;
                self.pods.push(Pod {
                    namespace: key.0.clone(),
                    workload: key.2.clone(),
                    name: format!("{}-{}", key.2, self.named),
                    version: self.version,
                    ready_at: now + self.pace.start,
                    gone_at: None,
                });
            }
        }
        // Pods on their way out are counted by nobody.
        let there: Vec<&mut Pod> = self.pods.iter_mut().filter(mine).collect();
        let (count, ready) = (there.len(), there.iter().filter(|pod| pod.ready_at <= now).count());
        let mut status = json!({"observedGeneration": seen});
        if count > 0 {
            status = json!({"observedGeneration": seen, "replicas": count, "updatedReplicas": count, "currentRevision": "1",
                "updateRevision": "1"});
        }
        if ready > 0 {
            status["readyReplicas"] = ready.into();
            status["availableReplicas"] = ready.into();
        }
        if object["status"] != status {
            let mut object = object;
            object["status"] = status;
            self.put(key, object);
        }
    }

    /// KEDA's operator: the annotation wins over everything, and what it scaled comes back when it goes.
    fn play_keda(&mut self, key: &Key, now: Mono) {
        if self.due.get(key).is_some_and(|due| *due > now) {
            return;
        }
        let mut object = self.objects[key].clone();
        let target = object["spec"]["scaleTargetRef"]["name"].as_str().unwrap_or_default().to_owned();
        let target = (key.0.clone(), "deployments".to_owned(), target);
        let Some(mut workload) = self.objects.get(&target).cloned() else { return };
        let held = object["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"]
            .as_str()
            .and_then(|n| n.parse().ok());
        let least = object["spec"]["minReplicaCount"].as_u64().unwrap_or(0);
        let wanted: u64 = held.unwrap_or_else(|| replicas(&workload).max(least));
        let conditions = json!([{"type": "Paused", "status": if held.is_some() { "True" } else { "False" }}]);
        if object["status"]["conditions"] != conditions {
            object["status"]["conditions"] = conditions;
            self.put(key, object);
        }
        if replicas(&workload) != wanted {
            workload["spec"]["replicas"] = wanted.into();
            workload["metadata"]["generation"] = (workload["metadata"]["generation"].as_u64().unwrap_or(0) + 1).into();
            self.put(&target, workload);
            self.due.insert(target, now + self.pace.notice);
        }
    }
}

impl Pod {
    fn object(&self) -> Value {
        json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": {"app": self.workload},
                "resourceVersion": self.version.to_string()},
            "status": {"phase": "Running"}})
    }
}

fn scale(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let labels = &object["spec"]["selector"]["matchLabels"];
    let selector: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"]},
        "spec": {"replicas": replicas(object)},
        "status": {"replicas": object["status"]["replicas"].as_u64().unwrap_or(0), "selector": selector.join(",")}})
}

/// `status.phase` and the like.
fn at(object: &Value, field: &str) -> String {
    let found = field.split('.').fold(object, |value, part| &value[part]);
    found.as_str().unwrap_or_default().to_owned()
}
