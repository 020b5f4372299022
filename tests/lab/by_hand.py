#!/usr/bin/env python3
"""The whole upgrade by hand, with unmodified boto3, as an operator would type it: parameter groups, reboot, snapshot,
deployment, switchover, clean-up. Reads AWS_ENDPOINT_URL and the like from the environment (`pilot-lab up` prints them).
Every answer, errors too, is also held against botocore's own model (`model.py`): anything that is not as there ends the run.

    python3 by_hand.py --cluster orders --to 16 [--until created|switched|cleaned]

Progress goes to stderr, one JSON object to stdout. Exit 0 when everything was as on AWS.
"""

import argparse
import datetime
import json
import os
import sys
import time

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError

import model
from model import Wrong, expect, plan


def say(text):
    print(f"by hand: {text}", file=sys.stderr, flush=True)


# --- waiting and looking ---------------------------------------------------------------------------------------------

FAST = {"Delay": 1, "MaxAttempts": 600}


def until(what, look, seconds=300):
    """Looks until it is there; says what was last seen when it never is."""
    end = time.monotonic() + seconds
    while True:
        there, seen = look()
        if there:
            return seen
        expect(time.monotonic() < end, f"{what}: not within {seconds} s, last seen {seen}")
        time.sleep(0.2)


def refused(code, call, **parameters):
    try:
        call(**parameters)
    except ClientError as error:
        got = error.response["Error"]["Code"]
        expect(got == code, f"refused with {got}, not {code}: {error}")
        return error.response["Error"]["Message"]
    raise Wrong(f"not refused with {code}")


class ByHand:
    def __init__(self, cluster, to):
        settings = Config(retries={"max_attempts": 3}, read_timeout=60)
        self.rds = boto3.client("rds", config=settings)
        self.cloudwatch = boto3.client("cloudwatch", config=settings)
        for client in (self.rds, self.cloudwatch):
            client.meta.events.register("before-parse", model.check_answer)
        self.name, self.to = cluster, to
        self.report = {}

    def cluster(self, name=None):
        return self.rds.describe_db_clusters(DBClusterIdentifier=name or self.name)["DBClusters"][0]

    def instance(self, name):
        return self.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]

    def deployment(self):
        found = self.rds.describe_blue_green_deployments(BlueGreenDeploymentIdentifier=self.deployment_id)
        return found["BlueGreenDeployments"][0]

    # --- the steps

    def look_around(self):
        cluster = self.cluster()
        version = cluster["EngineVersion"]
        found = self.rds.describe_db_engine_versions(Engine="aurora-postgresql", EngineVersion=version)["DBEngineVersions"]
        targets = [t["EngineVersion"] for t in found[0]["ValidUpgradeTarget"]]
        self.version = next((t for t in targets if t.split(".")[0] == self.to), None)
        expect(self.version, f"{version} cannot go to {self.to}: {targets}")
        writer = next(m["DBInstanceIdentifier"] for m in cluster["DBClusterMembers"] if m["IsClusterWriter"])
        self.writer, self.resource = writer, cluster["DbClusterResourceId"]
        self.members = [m["DBInstanceIdentifier"] for m in cluster["DBClusterMembers"]]
        klass = self.instance(writer)["DBInstanceClass"]
        offers = self.rds.describe_orderable_db_instance_options(
            Engine="aurora-postgresql", EngineVersion=self.version, DBInstanceClass=klass)
        expect(offers["OrderableDBInstanceOptions"], f"{klass} is not offered for {self.version}")
        for call in ("describe_global_clusters", "describe_integrations", "describe_db_proxies",
                     "describe_pending_maintenance_actions"):
            getattr(self.rds, call)()
        self.rds.describe_db_cluster_endpoints(DBClusterIdentifier=self.name)
        self.old_major = version.split(".")[0]
        self.report |= {"from": version, "to": self.version, "members": self.members}
        say(f"{self.name} is {version} and may go to {self.version}")

    def refuse_too_early(self):
        text = refused("SourceClusterNotSupportedFault", self.rds.create_blue_green_deployment,
                       BlueGreenDeploymentName="too-early", Source=self.cluster()["DBClusterArn"],
                       TargetEngineVersion=self.version)
        say(f"as it should be, refused without logical replication: {text}")

    def parameter_groups(self):
        values = {"rds.logical_replication": "1", "max_replication_slots": "25", "max_wal_senders": "25",
                  "max_logical_replication_workers": "12", "max_worker_processes": "24", "log_statement": "ddl"}
        user = self.user_values(self.cluster()["DBClusterParameterGroup"])
        tags = [{"Key": "made-by", "Value": "hand"}]
        for major in (self.old_major, self.to):
            group = f"{self.name}-hand-{major}"
            self.rds.create_db_cluster_parameter_group(
                DBClusterParameterGroupName=group, DBParameterGroupFamily=f"aurora-postgresql{major}",
                Description="made by hand", Tags=tags)
            wanted = list((user | values).items())
            for at in range(0, len(wanted), 20):
                self.rds.modify_db_cluster_parameter_group(
                    DBClusterParameterGroupName=group,
                    Parameters=[{"ParameterName": n, "ParameterValue": v, "ApplyMethod": "pending-reboot"}
                                for n, v in wanted[at:at + 20]])
            arn = f"arn:aws:rds:us-east-1:123456789012:cluster-pg:{group}"
            expect(self.rds.list_tags_for_resource(ResourceName=arn)["TagList"] == tags, "tags are kept")
        refused("InvalidDBParameterGroupState", self.rds.modify_db_cluster_parameter_group,
                DBClusterParameterGroupName=f"default.aurora-postgresql{self.to}",
                Parameters=[{"ParameterName": "work_mem", "ParameterValue": "4096", "ApplyMethod": "immediate"}])
        say("parameter groups made for both families")

    def user_values(self, group):
        pages = self.rds.get_paginator("describe_db_cluster_parameters")
        found = {}
        for page in pages.paginate(DBClusterParameterGroupName=group, Source="user"):
            found |= {p["ParameterName"]: p["ParameterValue"] for p in page["Parameters"]}
        return found

    def reboot(self):
        group = f"{self.name}-hand-{self.old_major}"
        self.rds.modify_db_cluster(DBClusterIdentifier=self.name, DBClusterParameterGroupName=group, ApplyImmediately=True)
        member = self.cluster()["DBClusterMembers"][0]
        expect(member["DBClusterParameterGroupStatus"] == "pending-reboot", f"a swapped group waits for a reboot: {member}")
        for name in [self.writer] + [m for m in self.members if m != self.writer]:
            self.rds.reboot_db_instance(DBInstanceIdentifier=name)
            expect(self.instance(name)["DBInstanceStatus"] == "rebooting", "a reboot shows")
            self.rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier=name, WaiterConfig=FAST)
        members = self.cluster()["DBClusterMembers"]
        expect(all(m["DBClusterParameterGroupStatus"] == "in-sync" for m in members), f"in sync after it: {members}")
        refused("InvalidDBParameterGroupState", self.rds.delete_db_cluster_parameter_group, DBClusterParameterGroupName=group)
        say("rebooted and in sync")

    def snapshot(self):
        name = f"{self.name}-by-hand"
        plan({"kind": "quota", "of": "cluster_snapshots", "at_most": 0})
        refused("SnapshotQuotaExceeded", self.rds.create_db_cluster_snapshot,
                DBClusterSnapshotIdentifier=name, DBClusterIdentifier=self.name)
        self.rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier=name, DBClusterIdentifier=self.name)
        self.rds.get_waiter("db_cluster_snapshot_available").wait(DBClusterSnapshotIdentifier=name, WaiterConfig=FAST)
        refused("DBClusterSnapshotAlreadyExistsFault", self.rds.create_db_cluster_snapshot,
                DBClusterSnapshotIdentifier=name, DBClusterIdentifier=self.name)
        say("snapshot available")

    def create(self):
        arguments = {"BlueGreenDeploymentName": f"{self.name}-by-hand", "Source": self.cluster()["DBClusterArn"],
                     "TargetEngineVersion": self.version,
                     "TargetDBClusterParameterGroupName": f"{self.name}-hand-{self.to}"}
        for quota, most, code in (("clusters", 1, "DBClusterQuotaExceededFault"),
                                  ("instances", len(self.members), "InstanceQuotaExceeded")):
            plan({"kind": "quota", "of": quota, "at_most": most})
            refused(code, self.rds.create_blue_green_deployment, **arguments)
        reply = self.rds.create_blue_green_deployment(**arguments)["BlueGreenDeployment"]
        expect(reply["Status"] == "PROVISIONING" and "Target" not in reply, f"no target at first: {reply}")
        self.deployment_id = reply["BlueGreenDeploymentIdentifier"]
        refused("BlueGreenDeploymentAlreadyExistsFault", self.rds.create_blue_green_deployment, **arguments)
        refused("InvalidDBClusterStateFault", self.rds.create_blue_green_deployment,
                **(arguments | {"BlueGreenDeploymentName": "another"}))
        for call in (self.rds.delete_blue_green_deployment, self.rds.switchover_blue_green_deployment):
            refused("InvalidBlueGreenDeploymentStateFault", call, BlueGreenDeploymentIdentifier=self.deployment_id)
        began = time.monotonic()
        made = lambda: [i["DBInstanceIdentifier"] for i in self.rds.describe_db_instances()["DBInstances"]
                        if i["DBInstanceStatus"] == "creating"]
        early = until("green's first instance", lambda: (bool(seen := made()), seen))[0]
        refused("DBInstanceNotReady", self.rds.describe_db_log_files, DBInstanceIdentifier=early)
        refused("DBInstanceNotReady", self.rds.download_db_log_file_portion, DBInstanceIdentifier=early, LogFileName="x")

        def look():
            found = self.deployment()
            say(f"{found['Status']} {[t['Status'] for t in found['Tasks']]}")
            expect(found["Status"] in ("PROVISIONING", "AVAILABLE"), f"{found['Status']}: {found.get('StatusDetails')}")
            time.sleep(0.8)
            return found["Status"] == "AVAILABLE", found

        found = until("the deployment", look)
        self.report["create_seconds"] = round(time.monotonic() - began, 1)
        expect(all(t["Status"] == "COMPLETED" for t in found["Tasks"]), f"all tasks completed: {found['Tasks']}")
        expect(len(found["SwitchoverDetails"]) == 1 + len(self.members), f"one line a member: {found['SwitchoverDetails']}")
        green = found["Target"].rsplit(":", 1)[-1]
        expect(self.cluster(green)["EngineVersion"] == self.version, "green is upgraded")
        by_name = self.rds.describe_blue_green_deployments(
            Filters=[{"Name": "blue-green-deployment-name", "Values": [f"{self.name}-by-hand"]}])
        expect(len(by_name["BlueGreenDeployments"]) == 1, "found by name")
        self.describe_all(green)
        say(f"green is {green}")

    def describe_all(self, green):
        """Every paginator to its end, and every filter: what it names is found, what it does not name is not."""
        for name in sorted(model.lab("GET", "/_lab/operations")["rds"]):
            method = xform_name(name)
            if self.rds.can_paginate(method):
                needs = {"DBClusterParameterGroupName": f"default.aurora-postgresql{self.to}",
                         "DBParameterGroupName": f"default.aurora-postgresql{self.to}",
                         "DBParameterGroupFamily": f"aurora-postgresql{self.to}", "Engine": "aurora-postgresql",
                         "DBInstanceIdentifier": self.writer, "LogFileName": self.log_file(), "DBProxyName": None}
                shape = self.rds.meta.service_model.operation_model(name).input_shape
                wanted = {key: needs[key] for key in shape.required_members}
                if None in wanted.values():
                    continue
                paginator = self.rds.get_paginator(method)
                size = {"PageSize": 20} if "MaxRecords" in shape.members else {}
                pages = list(paginator.paginate(**wanted, PaginationConfig=size))
                expect(pages, f"{name} has a page")
                for key in paginator.result_keys:
                    found = [key.search(page) for page in pages]
                    items = [item for part in found if isinstance(part, list) for item in part]
                    expect(len(items) == len({json.dumps(i, default=str) for i in items}), f"{name} tells things twice")
        cluster, blue = self.cluster(), self.instance(self.writer)
        for call, key, known in (
            (self.rds.describe_db_clusters, "DBClusters", {
                "clone-group-id": cluster["CloneGroupId"], "db-cluster-id": self.name, "engine": "aurora-postgresql",
                "db-cluster-resource-id": cluster["DbClusterResourceId"], "domain": None}),
            (self.rds.describe_db_instances, "DBInstances", {
                "db-cluster-id": self.name, "db-instance-id": self.writer, "dbi-resource-id": blue["DbiResourceId"],
                "engine": "aurora-postgresql", "domain": None}),
            (self.rds.describe_db_cluster_snapshots, "DBClusterSnapshots", {
                "db-cluster-id": self.name, "db-cluster-snapshot-id": f"{self.name}-by-hand", "snapshot-type": "manual",
                "engine": "aurora-postgresql"}),
            (self.rds.describe_blue_green_deployments, "BlueGreenDeployments", {
                "blue-green-deployment-identifier": self.deployment_id, "source": cluster["DBClusterArn"],
                "blue-green-deployment-name": f"{self.name}-by-hand", "target": self.cluster(green)["DBClusterArn"]}),
            (self.rds.describe_db_cluster_endpoints, "DBClusterEndpoints", {
                "db-cluster-endpoint-type": "writer", "db-cluster-endpoint-status": "available",
                "db-cluster-endpoint-custom-type": None, "db-cluster-endpoint-id": None}),
            (self.rds.describe_db_engine_versions, "DBEngineVersions", {
                "db-parameter-group-family": f"aurora-postgresql{self.to}", "engine": "aurora-postgresql",
                "engine-mode": "provisioned", "engine-version": self.version, "status": "available"}),
            (self.rds.describe_pending_maintenance_actions, "PendingMaintenanceActions", {
                "db-cluster-id": None, "db-instance-id": None}),
        ):
            for name, value in known.items():
                if value is not None:
                    there = call(Filters=[{"Name": name, "Values": [value, "nosuch"]}])[key]
                    expect(there, f"{key} by {name} {value}")
                expect(not call(Filters=[{"Name": name, "Values": ["nosuch"]}])[key], f"no {key} by {name} nosuch")
            refused("InvalidParameterValue", call, Filters=[{"Name": "nosuch", "Values": ["x"]}])
        named = self.rds.describe_db_cluster_parameters(
            DBClusterParameterGroupName=cluster["DBClusterParameterGroup"],
            Filters=[{"Name": "parameter-name", "Values": ["work_mem"]}])["Parameters"]
        expect([p["ParameterName"] for p in named] == ["work_mem"], f"a parameter by its name: {named}")
        say("every paginator and every filter")

    def log_file(self):
        return self.rds.describe_db_log_files(DBInstanceIdentifier=self.writer)["DescribeDBLogFiles"][-1]["LogFileName"]

    def lag(self):
        def look():
            now = datetime.datetime.now(datetime.timezone.utc)
            metric = {"Namespace": "AWS/RDS", "MetricName": "OldestReplicationSlotLag",
                      "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": self.writer}]}
            query = {"Id": "lag", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}
            result = self.cloudwatch.get_metric_data(MetricDataQueries=[query], StartTime=now - datetime.timedelta(minutes=5),
                                                     EndTime=now + datetime.timedelta(seconds=1))["MetricDataResults"][0]
            return bool(result["Values"]), result
        result = until("a point of OldestReplicationSlotLag", look, 200)
        self.cloudwatch.list_metrics(Namespace="AWS/RDS", MetricName="OldestReplicationSlotLag")
        now = datetime.datetime.now(datetime.timezone.utc)
        self.cloudwatch.get_metric_statistics(
            Namespace="AWS/RDS", MetricName="DatabaseConnections", Statistics=["Average", "Maximum"], Period=60,
            Dimensions=[{"Name": "DBInstanceIdentifier", "Value": self.writer}],
            StartTime=now - datetime.timedelta(minutes=5), EndTime=now)
        say(f"lag {result['Values'][0]:.0f} bytes")

    def logs(self):
        files = self.rds.describe_db_log_files(DBInstanceIdentifier=self.writer)["DescribeDBLogFiles"]
        expect(files, "the writer has log files")
        part = self.rds.download_db_log_file_portion(
            DBInstanceIdentifier=self.writer, LogFileName=files[-1]["LogFileName"], Marker="0")
        expect("LOG:" in part["LogFileData"], "the server's own log")

    def switch_over(self):
        green = self.deployment()["Target"].rsplit(":", 1)[-1]
        reply = self.rds.switchover_blue_green_deployment(
            BlueGreenDeploymentIdentifier=self.deployment_id, SwitchoverTimeout=60)["BlueGreenDeployment"]
        expect(reply["Status"] == "SWITCHOVER_IN_PROGRESS", f"in progress: {reply['Status']}")
        expect(all(m["Status"] == "AVAILABLE" for m in reply["SwitchoverDetails"]), "members lag behind the reply")
        for call in (self.rds.delete_blue_green_deployment, self.rds.switchover_blue_green_deployment):
            refused("InvalidBlueGreenDeploymentStateFault", call, BlueGreenDeploymentIdentifier=self.deployment_id)
        refused("InvalidDBClusterStateFault", self.rds.modify_db_cluster, DBClusterIdentifier=green, DeletionProtection=True)

        def look():
            found = self.deployment()
            expect(found["Status"] in ("SWITCHOVER_IN_PROGRESS", "SWITCHOVER_COMPLETED"),
                   f"{found['Status']}: {found.get('StatusDetails')}")
            return found["Status"] == "SWITCHOVER_COMPLETED", found

        found = until("the switchover", look)
        expect(found["Source"].endswith(f":{self.name}-old1"), f"the old side is the source: {found['Source']}")
        expect(found["Target"].endswith(f":cluster:{self.name}"), f"the production name is the target: {found['Target']}")
        new = self.cluster()
        expect(new["EngineVersion"] == self.version, "the production name is upgraded")
        expect(new["DbClusterResourceId"] != self.resource, "the resource id stayed with the old machine")
        old = self.cluster(f"{self.name}-old1")
        expect(old["DbClusterResourceId"] == self.resource, "the old side is the old machine")
        text = refused("InvalidBlueGreenDeploymentStateFault", self.rds.delete_blue_green_deployment,
                       BlueGreenDeploymentIdentifier=self.deployment_id, DeleteTarget=True)
        say(f"switched; as it should be, refused: {text}")

    def clean_up(self):
        old = f"{self.name}-old1"
        refused("InvalidDBClusterStateFault", self.rds.delete_db_cluster, DBClusterIdentifier=old, SkipFinalSnapshot=True)
        members = self.cluster(old)["DBClusterMembers"]
        for member in sorted(members, key=lambda m: m["IsClusterWriter"]):
            name = member["DBInstanceIdentifier"]
            self.rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
            self.rds.get_waiter("db_instance_deleted").wait(DBInstanceIdentifier=name, WaiterConfig=FAST)
        refused("DBClusterSnapshotAlreadyExistsFault", self.rds.delete_db_cluster, DBClusterIdentifier=old,
                FinalDBSnapshotIdentifier=f"{self.name}-by-hand")
        plan({"kind": "quota", "of": "cluster_snapshots", "at_most": 1})
        refused("SnapshotQuotaExceeded", self.rds.delete_db_cluster, DBClusterIdentifier=old,
                FinalDBSnapshotIdentifier=f"{old}-final")
        self.rds.delete_db_cluster(DBClusterIdentifier=old, FinalDBSnapshotIdentifier=f"{old}-final")
        self.rds.get_waiter("db_cluster_deleted").wait(DBClusterIdentifier=old, WaiterConfig=FAST)
        found = self.rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=f"{old}-final")["DBClusterSnapshots"]
        expect(found[0]["Status"] == "available", f"the final snapshot is there: {found[0]['Status']}")
        self.delete_deployment()
        events = self.rds.describe_events(SourceType="blue-green-deployment", SourceIdentifier=self.deployment_id)["Events"]
        self.report["events"] = [e["Message"] for e in events]
        self.rds.delete_db_cluster_parameter_group(DBClusterParameterGroupName=f"{self.name}-hand-{self.old_major}")
        say("the old side is gone")

    def delete_deployment(self, **how):
        self.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=self.deployment_id, **how)

        def look():
            try:
                return False, self.deployment()["Status"]
            except ClientError as error:
                return error.response["Error"]["Code"] == "BlueGreenDeploymentNotFoundFault", str(error)

        until("the deployment's end", look)

    def promote(self):
        """A green that is promoted by hand ends its deployment, which can then only be deleted."""
        reply = self.rds.create_blue_green_deployment(
            BlueGreenDeploymentName=f"{self.name}-promoted", Source=self.cluster()["DBClusterArn"],
            TargetDBClusterParameterGroupName=f"{self.name}-hand-{self.to}")
        self.deployment_id = reply["BlueGreenDeployment"]["BlueGreenDeploymentIdentifier"]
        reached = lambda status: lambda: ((seen := self.deployment())["Status"] == status, seen)
        green = until("the second deployment", reached("AVAILABLE"))["Target"].rsplit(":", 1)[-1]
        members = sorted(self.cluster(green)["DBClusterMembers"], key=lambda m: m["IsClusterWriter"])
        *readers, writer = (m["DBInstanceIdentifier"] for m in members)
        for name in readers:
            self.rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
            self.rds.get_waiter("db_instance_deleted").wait(DBInstanceIdentifier=name, WaiterConfig=FAST)
        refused("InvalidDBClusterStateFault", self.rds.delete_db_instance, DBInstanceIdentifier=writer, SkipFinalSnapshot=True)
        promoted = self.rds.promote_read_replica_db_cluster(DBClusterIdentifier=green)["DBCluster"]
        expect("ReplicationSourceIdentifier" not in promoted, f"{green} follows nobody: {promoted}")
        until("the end of the deployment's use", reached("INVALID_CONFIGURATION"))
        refused("InvalidBlueGreenDeploymentStateFault", self.rds.switchover_blue_green_deployment,
                BlueGreenDeploymentIdentifier=self.deployment_id)
        self.delete_deployment(DeleteTarget=True)
        gone = lambda: ((seen := [c["DBClusterIdentifier"] for c in self.rds.describe_db_clusters()["DBClusters"]])
                        == [self.name], seen)
        until("the promoted green's end", gone)
        say(f"{green} was promoted and is gone")

    def the_rest(self):
        """What an upgrade does not need but the lab answers: held against the model too."""
        self.rds.describe_engine_default_cluster_parameters(DBParameterGroupFamily=f"aurora-postgresql{self.to}")
        group = f"{self.name}-hand-instance"
        self.rds.create_db_parameter_group(DBParameterGroupName=group, DBParameterGroupFamily=f"aurora-postgresql{self.to}",
                                           Description="made by hand")
        statement = {"ParameterName": "log_statement", "ParameterValue": "mod", "ApplyMethod": "immediate"}
        self.rds.modify_db_parameter_group(DBParameterGroupName=group, Parameters=[statement])
        found = self.rds.describe_db_parameters(DBParameterGroupName=group, Source="user")["Parameters"]
        expect([p["ParameterValue"] for p in found] == ["mod"], f"what was set is described: {found}")
        self.rds.modify_db_instance(DBInstanceIdentifier=self.writer, DBParameterGroupName=group)
        groups = self.instance(self.writer)["DBParameterGroups"]
        expect(groups[0]["ParameterApplyStatus"] == "pending-reboot", f"a swapped group waits for a reboot: {groups}")
        refused("InvalidDBParameterGroupState", self.rds.delete_db_parameter_group, DBParameterGroupName=group)
        self.rds.reset_db_parameter_group(DBParameterGroupName=group, ResetAllParameters=True)
        self.rds.describe_db_parameter_groups(DBParameterGroupName=group)
        self.rds.describe_db_cluster_parameter_groups()
        self.rds.reset_db_cluster_parameter_group(DBClusterParameterGroupName=f"{self.name}-hand-{self.to}", Parameters=[
            {"ParameterName": "log_statement", "ApplyMethod": "immediate"}])
        endpoint = {"DBClusterEndpointIdentifier": f"{self.name}-by-hand"}
        self.rds.create_db_cluster_endpoint(DBClusterIdentifier=self.name, EndpointType="ANY", **endpoint)
        available = lambda: ((seen := self.rds.describe_db_cluster_endpoints(**endpoint)["DBClusterEndpoints"][0]["Status"])
                             == "available", seen)
        until("the custom endpoint", available)
        self.rds.modify_db_cluster_endpoint(**endpoint, StaticMembers=[self.writer])
        until("the changed endpoint", available)
        self.rds.delete_db_cluster_endpoint(**endpoint)
        arn = self.cluster()["DBClusterArn"]
        self.rds.add_tags_to_resource(ResourceName=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
        self.rds.remove_tags_from_resource(ResourceName=arn, TagKeys=["a"])
        expect({"Key": "b", "Value": "2"} in self.cluster()["TagList"], "tags are changed")
        for feature in ("managed_secret", "global_database", "zero_etl", "proxy", "activity_stream"):
            plan({"kind": "looks", "cluster": self.name, "feature": feature})
        plan({"kind": "pending_maintenance", "resource_arn": arn, "action": "system-update"})
        expect("MasterUserSecret" in self.cluster(), "a managed secret shows")
        for call, key in (("describe_global_clusters", "GlobalClusters"), ("describe_integrations", "Integrations"),
                          ("describe_db_proxies", "DBProxies"), ("describe_pending_maintenance_actions", "PendingMaintenanceActions")):
            expect(len(getattr(self.rds, call)()[key]) == 1, f"{call} tells of one")
        self.rds.describe_db_proxy_targets(DBProxyName="lab-proxy")
        refused("DBProxyTargetGroupNotFoundFault", self.rds.describe_db_proxy_targets, DBProxyName="lab-proxy", TargetGroupName="nosuch")
        refused("InvalidDBClusterStateFault", self.rds.promote_read_replica_db_cluster, DBClusterIdentifier=self.name)
        if len(self.members) > 1:
            self.rds.failover_db_cluster(DBClusterIdentifier=self.name)
            self.rds.get_waiter("db_cluster_available").wait(DBClusterIdentifier=self.name, WaiterConfig=FAST)
            writer = next(m["DBInstanceIdentifier"] for m in self.cluster()["DBClusterMembers"] if m["IsClusterWriter"])
            expect(writer != self.writer, "a reader took over")
        self.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=f"{self.name}-by-hand")
        self.rds.describe_db_cluster_snapshots()
        say("the rest answers as the model says")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cluster", default="orders")
    parser.add_argument("--to", default="16")
    parser.add_argument("--until", choices=["created", "switched", "cleaned"], default="cleaned")
    options = parser.parse_args()
    expect(os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://127."), "AWS_ENDPOINT_URL must lead to a lab")
    hand = ByHand(options.cluster, options.to)
    steps = [hand.look_around, hand.refuse_too_early, hand.parameter_groups, hand.reboot, hand.snapshot, hand.create]
    if options.until != "created":
        steps += [hand.lag, hand.logs, hand.switch_over]
    if options.until == "cleaned":
        steps += [hand.clean_up, hand.promote, hand.the_rest]
    try:
        for step in steps:
            step()
    except Wrong as wrong:
        say(f"wrong: {wrong}")
        sys.exit(1)
    print(json.dumps(hand.report | {"checked": model.CHECKED, "refused": sorted(model.REFUSED)}))


if __name__ == "__main__":
    main()
