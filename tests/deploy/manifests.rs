//! Kubernetes manifests as kubectl's kustomize builds them, to be asked. Nothing is judged here but their schema.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::tools::{kubectl, run, wheel};
use crate::invariants::source::root;

/// The oldest version that has native sidecars without a switch, and one of the newest.
pub(super) const VERSIONS: [&str; 2] = ["1.29", "1.36"];

/// The overlays that there are.
pub(super) const OVERLAYS: [&str; 4] = ["single-sqlite", "ha-postgres", "orders-agent", "orders-sidecar"];

/// All objects of one overlay.
pub(super) struct Built {
    pub(super) name: &'static str,
    objects: Vec<Value>,
    /// What the schemas have against it.
    pub(super) wrong: Vec<String>,
}

impl Built {
    pub(super) fn overlay(name: &'static str) -> Built {
        Built::judged(name, &[])
    }

    /// The same, judged by the schemas of these versions.
    pub(super) fn judged(name: &'static str, versions: &[&str]) -> Built {
        let folder = root().join("deploy/kubernetes/overlays").join(name);
        let text = run(Command::new(kubectl()).arg("kustomize").arg(folder));
        let (objects, wrong) = judged(&text, versions);
        Built { name, objects, wrong }
    }

    pub(super) fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.objects.iter().filter(|object| object["kind"] == kind).collect()
    }

    pub(super) fn all(&self) -> &[Value] {
        &self.objects
    }

    /// Every workload, with the template of its pods.
    pub(super) fn pods(&self) -> Vec<(String, &Value)> {
        let with_pods =
            self.objects.iter().filter(|object| object["spec"]["template"]["spec"]["containers"].is_array());
        with_pods.map(|object| (format!("{}: {}", self.name, named(object)), &object["spec"]["template"])).collect()
    }

    /// The one file of a configuration map.
    pub(super) fn file(&self, start: &str, file: &str) -> String {
        let maps = self.of_kind("ConfigMap");
        let map = maps.iter().find(|map| text(&map["metadata"]["name"]).starts_with(start));
        text(&map.unwrap_or_else(|| panic!("{}: there is no ConfigMap {start}", self.name))["data"][file]).to_owned()
    }
}

/// Objects, and what the schemas have against them.
pub(super) fn judged(yaml: &str, versions: &[&str]) -> (Vec<Value>, Vec<String>) {
    let mut judge = Command::new(wheel("python"));
    judge.arg(root().join("tests/deploy/kubernetes.py")).args(versions);
    let mut judge = judge.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
    judge.stdin.take().expect("its input").write_all(yaml.as_bytes()).expect("it reads");
    let output = judge.wait_with_output().expect("it ends");
    assert!(output.status.success(), "the judge failed");
    let mut said: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let list = |value: Value| value.as_array().cloned().unwrap_or_default();
    let wrong = list(said["wrong"].take()).iter().map(|line| text(line).to_owned()).collect();
    (list(said["objects"].take()), wrong)
}

/// A text, or nothing.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Kind and name.
pub(super) fn named(object: &Value) -> String {
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The containers of a pod, those that come first too.
pub(super) fn containers(template: &Value) -> Vec<&Value> {
    let list = |key: &str| template["spec"][key].as_array().into_iter().flatten();
    list("initContainers").chain(list("containers")).collect()
}

/// Does a selector take these labels?
pub(super) fn takes(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object();
    wanted.into_iter().flatten().all(|(key, value)| labels[key] == *value)
}
