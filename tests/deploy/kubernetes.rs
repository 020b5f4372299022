//! The manifests keep what their comments and the guide promise.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::manifests::{Built, OVERLAYS, VERSIONS, containers, judged, named, takes, text};
use crate::invariants::source::{files, none, root};

fn all() -> Vec<Built> {
    OVERLAYS.map(Built::overlay).into()
}

#[test]
fn every_overlay_is_built_by_kubectl_and_fits_the_published_schemas() {
    let folders: BTreeSet<String> = files()
        .iter()
        .filter_map(|path| Some(path.strip_prefix("deploy/kubernetes/overlays/")?.split('/').next()?.to_owned()))
        .collect();
    assert_eq!(folders, OVERLAYS.map(str::to_owned).into(), "an overlay that is not looked at");
    for built in OVERLAYS.map(|name| Built::judged(name, &VERSIONS)) {
        none(&format!("the schemas have something against {}", built.name), &built.wrong);
        assert!(built.all().len() > 5, "{}: only {} objects", built.name, built.all().len());
    }
    let (_, wrong) = judged("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {port: 1}}", &VERSIONS);
    assert_eq!(wrong.len(), 2, "the judge takes everything: {wrong:?}");
}

#[test]
fn every_pod_keeps_the_restricted_standard_and_has_a_file_system_that_is_read_only() {
    let mut wrong = Vec::new();
    for built in all() {
        let spaces = built.of_kind("Namespace");
        let enforced =
            |space: &&Value| space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted";
        assert!(!spaces.is_empty() && spaces.iter().all(enforced), "{}: a namespace enforces nothing", built.name);
        for (whose, template) in built.pods() {
            let pod = &template["spec"];
            let mut expect = |good: bool, what: &str| {
                if !good {
                    wrong.push(format!("{whose}: {what}"));
                }
            };
            expect(pod["automountServiceAccountToken"] == false, "a token of the cluster is mounted");
            for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
                expect(pod[forbidden].is_null(), forbidden);
            }
            let mut volumes = pod["volumes"].as_array().into_iter().flatten();
            expect(volumes.all(|volume| volume["hostPath"].is_null()), "a folder of the node");
            for container in containers(template) {
                let (own, of_pod) = (&container["securityContext"], &pod["securityContext"]);
                let either = |key: &str| if own[key].is_null() { of_pod[key].clone() } else { own[key].clone() };
                let name = text(&container["name"]).to_owned();
                expect(either("runAsNonRoot") == true, &format!("{name} may be root"));
                expect(either("runAsUser").as_u64().is_some_and(|user| user > 0), &format!("{name} has no user"));
                expect(either("seccompProfile")["type"] == "RuntimeDefault", &format!("{name} has no seccomp profile"));
                expect(own["allowPrivilegeEscalation"] == false, &format!("{name} may get more privileges"));
                expect(own["capabilities"] == json!({ "drop": ["ALL"] }), &format!("{name} has capabilities"));
                expect(own["readOnlyRootFilesystem"] == true, &format!("{name} may write anywhere"));
                expect(
                    container["resources"]["limits"]["memory"].is_string(),
                    &format!("{name} has no limit of memory"),
                );
                expect(container["resources"]["requests"]["cpu"].is_string(), &format!("{name} asks for no CPU"));
                let image = text(&container["image"]);
                expect(
                    image.contains("/") && image.contains(':') && !image.ends_with(":latest"),
                    "an image without a tag",
                );
            }
        }
    }
    none("not restricted", &wrong);
}

#[test]
fn every_pod_is_under_network_policies_of_both_directions_and_a_coordinators_namespace_denies_the_rest() {
    for built in all() {
        let policies = built.of_kind("NetworkPolicy");
        for (whose, template) in built.pods() {
            let over =
                policies.iter().filter(|policy| takes(&policy["spec"]["podSelector"], &template["metadata"]["labels"]));
            let kinds: BTreeSet<&str> = over
                .flat_map(|policy| policy["spec"]["policyTypes"].as_array().into_iter().flatten())
                .map(text)
                .collect();
            assert_eq!(kinds, BTreeSet::from(["Egress", "Ingress"]), "{whose} is not under policies");
        }
        let denies = |policy: &&&Value| {
            let spec = &policy["spec"];
            spec["podSelector"] == json!({}) && spec["ingress"].is_null() && spec["egress"].is_null()
        };
        let coordinator = built.of_kind("StatefulSet").len();
        assert_eq!(policies.iter().filter(denies).count(), coordinator, "{}: nothing denies the rest", built.name);
    }
}

/// The five arrows: people and agents to the coordinator, the coordinator to its store and to AWS, agents to databases and ingestion.
#[test]
fn policies_open_the_ports_of_the_five_arrows_and_no_other() {
    let ports = |built: &Built, whose: &str, direction: &str| -> BTreeSet<u64> {
        let policies = built.of_kind("NetworkPolicy");
        let own = policies.iter().filter(|policy| text(&policy["metadata"]["name"]).starts_with(whose));
        let rules = own.flat_map(|policy| policy["spec"][direction].as_array().into_iter().flatten());
        let ports = rules.flat_map(|rule| rule["ports"].as_array().into_iter().flatten());
        ports.filter_map(|port| port["port"].as_u64()).collect()
    };
    let set = |ports: &[u64]| ports.iter().copied().collect::<BTreeSet<u64>>();
    let [single, shared, agent, sidecar] = OVERLAYS.map(Built::overlay);
    for built in [&single, &shared] {
        assert_eq!(ports(built, "pilot", "ingress"), set(&[7400, 7401]));
    }
    assert_eq!(ports(&single, "pilot", "egress"), set(&[53, 80, 443]));
    assert_eq!(ports(&shared, "pilot", "egress"), set(&[53, 80, 443, 5432]));
    assert_eq!(ports(&agent, "pilot-agent", "egress"), set(&[53, 5432, 6432, 7400, 8080]));
    assert_eq!(ports(&sidecar, "pilot-agent", "egress"), set(&[53, 5432, 7400]));
    for built in [&agent, &sidecar] {
        assert_eq!(ports(built, "pilot-agent", "ingress"), set(&[7402]), "somebody dials an agent");
    }
}

#[test]
fn no_secret_stands_in_a_manifest() {
    let mut found = Vec::new();
    for built in all() {
        for object in built.all() {
            let whose = format!("{}: {}", built.name, named(object));
            if object["kind"] == "Secret" {
                found.push(whose.clone());
            }
            secrets(object, &mut |what| found.push(format!("{whose}: {what}")));
        }
        // What is mounted as a secret is made by cert-manager or by external-secrets.
        let made: BTreeSet<&str> = built
            .all()
            .iter()
            .filter_map(|object| match text(&object["kind"]) {
                "Certificate" => object["spec"]["secretName"].as_str(),
                "ExternalSecret" => object["spec"]["target"]["name"].as_str(),
                _ => None,
            })
            .collect();
        for (whose, template) in built.pods() {
            let volumes = template["spec"]["volumes"].as_array().into_iter().flatten();
            let mounted = volumes.filter_map(|volume| volume["secret"]["secretName"].as_str());
            found.extend(
                mounted.filter(|name| !made.contains(name)).map(|name| format!("{whose}: nobody makes {name}")),
            );
        }
    }
    none("a secret in plain text, or one that nobody makes", &found);
}

/// Environment variables and texts of configuration that look like secrets.
fn secrets(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(table) => {
            let name = text(&value["name"]).to_ascii_lowercase();
            if ["password", "token", "secret"].iter().any(|word| name.contains(word)) && value["value"].is_string() {
                found(&name);
            }
            table.values().for_each(|value| secrets(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| secrets(value, found)),
        Value::String(text) => {
            let keys = text.lines().filter_map(|line| line.split_once('=')).map(|(key, _)| key.trim());
            keys.filter(|key| key.ends_with("password") || key.ends_with("token")).for_each(&mut *found);
        }
        _ => {}
    }
}

#[test]
fn two_coordinators_share_a_store_stay_apart_and_are_replaced_one_after_the_other() {
    let built = Built::overlay("ha-postgres");
    let set = built.of_kind("StatefulSet")[0];
    assert_eq!(set["spec"]["replicas"], 2);
    // The second is replaced when the first has had time to take over: more than the driver's lease.
    let config = super::loaded("ha", &built.file("pilot-config", "pilot.toml"), super::coordinator_config);
    let ready = set["spec"]["minReadySeconds"].as_u64().unwrap_or_default();
    assert!(ready > config.lease.driver_seconds, "{ready} s");
    assert!(matches!(config.store, coordinator::config::StorePlace::Postgres(_)));
    let apart = &set["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"];
    let apart = &apart["requiredDuringSchedulingIgnoredDuringExecution"][0];
    assert_eq!(apart["topologyKey"], "kubernetes.io/hostname");
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    let budget = built.of_kind("PodDisruptionBudget")[0];
    assert!(takes(&apart["labelSelector"], labels) && takes(&budget["spec"]["selector"], labels));
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    // Agents are given every one by name, those that start and stand by too.
    let service = built.of_kind("Service")[0];
    assert_eq!(
        (&service["spec"]["clusterIP"], &service["spec"]["publishNotReadyAddresses"]),
        (&json!("None"), &json!(true))
    );
    assert_eq!(service["metadata"]["name"], set["spec"]["serviceName"]);
    assert!(takes(&json!({ "matchLabels": service["spec"]["selector"] }), labels));
}

#[test]
fn configurations_in_manifests_are_valid_and_name_only_what_is_mounted() {
    for built in all() {
        let (start, file) = match built.of_kind("StatefulSet").is_empty() {
            false => ("pilot-config", "pilot.toml"),
            true => ("pilot-agent-config", "agent.toml"),
        };
        let config = built.file(start, file);
        let effective = match file {
            "pilot.toml" => json!(super::loaded(built.name, &config, super::coordinator_config)),
            _ => json!(super::loaded(built.name, &config, super::agent_config)),
        };
        let (whose, template) = &built.pods()[0];
        let containers = containers(template);
        let own = containers.iter().find(|container| text(&container["name"]).starts_with("pilot"));
        let own = own.unwrap_or_else(|| panic!("{whose} has no container of ours"));
        let mounts: Vec<&Value> = own["volumeMounts"].as_array().into_iter().flatten().collect();
        let mut paths = Vec::new();
        collect(&effective, &mut paths);
        assert!(paths.len() >= 2, "{whose}: {paths:?}");
        for path in &paths {
            let over = mounts.iter().find(|mount| path.starts_with(text(&mount["mountPath"])));
            let over = over.unwrap_or_else(|| panic!("{whose}: {path} is not mounted"));
            let writes = path.ends_with(".sqlite");
            assert_eq!(over["readOnly"].is_null(), writes, "{whose}: {path} and whether it may be written");
        }
        let told = text(&own["args"][own["args"].as_array().map_or(0, Vec::len) - 1]);
        assert!(mounts.iter().any(|mount| mount["mountPath"] == told), "{whose}: {told} is not mounted");
        // Variables of the pod are for keys that there are, and no service makes others.
        assert_eq!(template["spec"]["enableServiceLinks"], false, "{whose}");
        let names = own["env"].as_array().into_iter().flatten().map(|variable| text(&variable["name"]));
        for key in names.filter_map(|name| name.strip_prefix("PILOT_SERVE_").or(name.strip_prefix("PILOT_AGENT_"))) {
            let reference = std::fs::read_to_string(root().join("deploy/configuration.md")).expect("the reference");
            assert!(reference.contains(&format!("| `{}` |", key.to_lowercase())), "{whose}: no key for {key}");
        }
    }
}

/// Absolute paths of files and folders.
fn collect(value: &Value, paths: &mut Vec<String>) {
    match value {
        Value::String(text) if text.starts_with('/') => paths.push(text.clone()),
        Value::Object(table) => table.values().for_each(|value| collect(value, paths)),
        Value::Array(list) => list.iter().for_each(|value| collect(value, paths)),
        _ => {}
    }
}

#[test]
fn probes_ask_paths_and_ports_that_the_program_serves_and_never_take_an_application_out_of_service() {
    let admin = crate::invariants::source::text("proto/runtime/src/admin.rs");
    for built in all() {
        for (whose, template) in built.pods() {
            for container in
                containers(template).iter().filter(|container| text(&container["name"]).starts_with("pilot"))
            {
                let ports: BTreeSet<&str> =
                    container["ports"].as_array().into_iter().flatten().map(|port| text(&port["name"])).collect();
                let sidecar = container["restartPolicy"] == "Always";
                assert!(container["livenessProbe"].is_object(), "{whose} has no probe");
                assert_eq!(container["readinessProbe"].is_null(), sidecar, "{whose}: an agent decides who is ready");
                for probe in
                    ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe]["httpGet"])
                {
                    if probe.is_null() {
                        continue;
                    }
                    let path = text(&probe["path"]);
                    assert!(admin.contains(&format!(".route(\"{path}\"")), "{whose}: nothing answers {path}");
                    assert!(ports.contains(text(&probe["port"])), "{whose}: {probe}");
                    // The coordinator's page is behind TLS, an agent's metrics are plain.
                    let scheme = if text(&container["name"]) == "pilot" { json!("HTTPS") } else { Value::Null };
                    assert_eq!(probe["scheme"], scheme, "{whose}");
                }
            }
        }
    }
}

#[test]
fn certificates_are_for_the_names_that_are_dialled_and_for_who_shows_them() {
    let [single, shared, agent, sidecar] = OVERLAYS.map(Built::overlay);
    let certificate = |built: &Built, secret: &str| -> Value {
        let all = built.of_kind("Certificate");
        let found = all.iter().find(|one| one["spec"]["secretName"] == secret);
        (*found.unwrap_or_else(|| panic!("{}: no certificate {secret}", built.name))).clone()
    };
    for built in [&single, &shared] {
        let names = certificate(built, "pilot-tls")["spec"]["dnsNames"].clone();
        for number in 0..2 {
            let host = format!("pilot-{number}.pilot.upgrade-pilot.svc");
            let wildcard = host.split_once('.').map(|(_, rest)| format!("*.{rest}")).unwrap_or_default();
            assert!(names.as_array().is_some_and(|names| names.contains(&json!(wildcard))), "{names} has not {host}");
            for agents in [&agent, &sidecar] {
                assert!(agents.file("pilot-agent-config", "agent.toml").contains(&format!("https://{host}:7400")));
            }
        }
        let pods = built.pods();
        let advertised = &containers(pods[0].1)[0]["env"][1]["value"];
        assert_eq!(advertised, "https://$(POD_NAME).pilot.upgrade-pilot.svc:7400");
    }
    for built in [&agent, &sidecar] {
        let config = super::loaded(built.name, &built.file("pilot-agent-config", "agent.toml"), super::agent_config);
        super::guide::reaches(&config);
        let uri = format!("pilot://agent/{}", config.cluster);
        assert_eq!(certificate(built, "pilot-agent-tls")["spec"]["uris"], json!([uri]));
    }
    assert_eq!(
        certificate(&shared, "pilot-prometheus-tls")["spec"]["uris"],
        json!(["pilot://operator/prometheus/view"])
    );
}

#[test]
fn a_sidecar_is_native_and_a_deployments_agent_is_never_there_twice() {
    let sidecar = Built::overlay("orders-sidecar");
    let pods = sidecar.pods();
    let first = &pods[0].1["spec"]["initContainers"][0];
    assert_eq!((text(&first["name"]), text(&first["restartPolicy"])), ("pilot-agent", "Always"));
    assert_eq!(first["env"][0]["name"], "PILOT_AGENT_AGENT_ID");
    let agent = Built::overlay("orders-agent");
    let deployment = agent.of_kind("Deployment")[0];
    assert_eq!(
        (&deployment["spec"]["replicas"], text(&deployment["spec"]["strategy"]["type"])),
        (&json!(1), "Recreate")
    );
    assert_eq!(agent.of_kind("PersistentVolumeClaim").len(), 1, "it forgets over a restart");
}
