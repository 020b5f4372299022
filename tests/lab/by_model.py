#!/usr/bin/env python3
"""What botocore's models promise of failures, asked of a lab that holds the cluster which `by_hand.py` left behind:

- every modelled error of every operation that is served arrives with its code and HTTP status, as the exception that boto3 has
  for it: for real where the lab can come into that state, played by its fault `refuse` where it cannot (the report says which);
- every limit of every input (required, type, least, most, pattern, values) is refused, with client-side validation off;
- so is what the reference says beyond the models.

    python3 by_model.py --cluster orders < REPORT_OF_BY_HAND

The cluster is deleted on the way. Progress goes to stderr, one JSON object to stdout. Exit 0 when everything was as on AWS.
"""

import argparse
import datetime
import json
import os
import re
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import model
from model import Wrong, expect, lab, plan

REFUSALS = ("InvalidParameterValue", "MissingParameter", "ValidationError", "SerializationException")
ARN = "arn:aws:rds:us-east-1:123456789012:"
# A value that fits each pattern which the first letters of the alphabet do not fit.
SAMPLES = {
    "arn:[A-Za-z][0-9A-Za-z-:._]*": ARN + "cluster:abc",
    r"arn:aws[a-z-]*:rds(-[a-z]+)?:[a-z0-9-]*:[0-9]{12}:(cluster|db):[a-zA-Z][a-zA-Z0-9-]{0,62}": ARN + "cluster:abc",
    r"db\.[0-9a-z]{2,6}\.[0-9a-z]{4,9}": "db.r6g.large",
}
# A value that does not fit, by pattern; "!" for the others.
MISFITS = {"[^:].*": ":abc"}


def say(text):
    print(f"by model: {text}", file=sys.stderr, flush=True)


class Asker:
    """Clients without client-side validation, and a way to send a body of one's own."""

    def __init__(self):
        settings = Config(retries={"total_max_attempts": 1}, read_timeout=60, parameter_validation=False)
        self.clients = {name: boto3.client(name, config=settings) for name in ("rds", "cloudwatch")}
        self.body = None
        for client in self.clients.values():
            client.meta.events.register("before-parse", model.check_answer)
            client.meta.events.register("before-call", self.replace)
        self.served = lab("GET", "/_lab/operations")

    def replace(self, model, params, **_):
        if self.body is None:
            return
        if model.service_model.service_name == "rds":
            params["body"] = {"Action": model.name, "Version": "2014-10-31"} | self.body
        else:
            params["body"] = json.dumps(self.body).encode()

    def operations(self):
        for service, names in self.served.items():
            for name in names:
                yield service, self.clients[service].meta.service_model.operation_model(name)

    def call(self, service, name, arguments=None, body=None):
        self.body = body
        try:
            return self.clients[service]._make_api_call(name, arguments or {})
        finally:
            self.body = None

    def refused(self, service, name, code, arguments=None, body=None):
        """The call is refused with one of these codes."""
        codes = (code,) if isinstance(code, str) else code
        try:
            self.call(service, name, arguments, body)
        except ClientError as error:
            got = error.response["Error"]["Code"]
            expect(got in codes, f"{name} {arguments or body}: refused with {got}, not {codes}: {error}")
            return error
        raise Wrong(f"{name} {arguments or body}: not refused with {codes}")


# --- limits ----------------------------------------------------------------------------------------------------------

def sample(shape):
    """A value that is within the limits of a scalar."""
    kind, limits = shape.type_name, shape.metadata
    if kind == "string":
        if getattr(shape, "enum", None):
            return shape.enum[0]
        text = SAMPLES.get(limits.get("pattern"), "abc")
        return text.ljust(limits.get("min", 0), "a")[:limits.get("max", 4096)]
    if kind in ("integer", "long"):
        return limits.get("min", 60)
    return {"boolean": True, "timestamp": 1700000000, "double": 1.5, "float": 1.5}[kind]


class Form:
    """Inputs as flat names, as RDS has them."""

    text = staticmethod(lambda value: str(value).lower() if isinstance(value, bool) else str(value))

    def required(self, shape, at=""):
        found = {}
        for name in shape.required_members:
            found |= self.member(shape.members[name], f"{at}{name}")
        return found

    def member(self, shape, at):
        if shape.type_name == "structure":
            return self.required(shape, at + ".")
        if shape.type_name == "list":
            return self.member(shape.member, self.item(shape, at, 1))
        value = "2026-11-23T00:00:00Z" if shape.type_name == "timestamp" else self.text(sample(shape))
        return {at: value}

    @staticmethod
    def item(shape, at, number):
        return f"{at}.{shape.member.serialization.get('name', 'member')}.{number}"

    def inside(self, shape, at):
        """What comes with a member deep inside: the required ones beside it, by the place of its parent."""
        return self.required(shape, at + "." if at else "")

    def cases(self, shape, at="", seen=()):
        """(what, flat changes to a valid input; None takes a name away) of every limit at and below a member."""
        if shape.type_name == "structure":
            if shape.name in seen:
                return
            beside = self.inside(shape, at)
            for name, member in shape.members.items():
                place = f"{at}.{name}" if at else name
                if name in shape.required_members:
                    gone = {key: None for key in self.member(member, place)}
                    rest = {key: value for key, value in beside.items() if key not in gone}
                    if rest or not at:
                        yield f"{place} required", rest | gone
                for what, change in self.cases(member, place, (*seen, shape.name)):
                    yield what, beside | change
        elif shape.type_name == "list":
            for what, many in list_misfits(shape):
                change = {}
                for number in range(1, many + 1):
                    change |= self.member(shape.member, self.item(shape, at, number))
                yield f"{at} {what}", change or {at: ""}
            yield from self.cases(shape.member, self.item(shape, at, 1), seen)
        else:
            for what, value in misfits(shape):
                yield f"{at} {what}", {at: self.text(value)}


def list_misfits(shape):
    limits = shape.metadata
    if limits.get("min", 0) > 0:
        yield "min", limits["min"] - 1
    if "max" in limits:
        yield "max", limits["max"] + 1


def misfits(shape):
    """(limit, value outside it) of a scalar."""
    kind, limits = shape.type_name, shape.metadata
    if kind == "string":
        if limits.get("min", 0) > 0:
            yield "min", sample(shape)[:limits["min"] - 1]
        if "max" in limits:
            yield "max", sample(shape).ljust(limits["max"] + 1, "a")
        if "pattern" in limits:
            yield "pattern", MISFITS.get(limits["pattern"], "!" * max(limits.get("min", 1), 1))
        if getattr(shape, "enum", None):
            yield "values", "no-such-value"
        return
    yield "type", "perhaps"
    if "min" in limits:
        yield "min", limits["min"] - 1
    if "max" in limits:
        yield "max", limits["max"] + 1
    if kind == "integer":
        yield "range", 2 ** 31


class Tree:
    """Inputs as they are nested, as CloudWatch has them."""

    def value(self, shape):
        if shape.type_name == "structure":
            return {name: self.value(shape.members[name]) for name in shape.required_members}
        if shape.type_name == "list":
            return [self.value(shape.member)]
        return sample(shape)

    def cases(self, shape, seen=()):
        """(what, a whole value outside one limit)."""
        if shape.type_name == "structure":
            if shape.name in seen:
                return
            whole = self.value(shape)
            for name, member in shape.members.items():
                if name in shape.required_members:
                    yield f"{name} required", {key: value for key, value in whole.items() if key != name}
                for what, inner in self.cases(member, (*seen, shape.name)):
                    yield f"{name} {what}", whole | {name: inner}
        elif shape.type_name == "list":
            for what, many in list_misfits(shape):
                yield what, [self.value(shape.member)] * many
            for what, inner in self.cases(shape.member, seen):
                yield what, [inner]
            yield "type", "perhaps"
        else:
            yield from misfits(shape)
            if shape.type_name == "string":
                yield "type", {"no": "text"}


def limits(asker):
    asked = 0
    for service, operation in asker.operations():
        shape = operation.input_shape
        if shape is None:
            continue
        form = Form()
        if service == "rds":
            whole = form.required(shape)
            cases = [(what, {k: v for k, v in (whole | change).items() if v is not None}) for what, change in form.cases(shape)]
        else:
            cases = list(Tree().cases(shape))
        for what, body in cases:
            try:
                error = asker.refused(service, operation.name, REFUSALS, body=body)
                names = re.findall(r"[A-Za-z]\w*", what.rsplit(" ", 1)[0])
                expect(names[-1] in str(error) or names[-2] in str(error), f"refused for something else: {error}")
            except Wrong as wrong:
                raise Wrong(f"limit {what}: {wrong}") from wrong
            asked += 1
    return asked


def beyond_the_models(asker):
    """Limits that only the reference has."""
    tag = {"Key": "k", "Value": "v"}
    group = {"DBParameterGroupFamily": "aurora-postgresql16", "Description": "d"}
    deployment = {"BlueGreenDeploymentIdentifier": "bgd-0123456789abcdef"}
    parameter = {"ParameterName": "work_mem", "ParameterValue": "64", "ApplyMethod": "immediate"}
    cases = [
        ("SwitchoverBlueGreenDeployment", deployment | {"SwitchoverTimeout": 3601}),
        ("DescribeBlueGreenDeployments", {"Filters": [{"Name": "nosuch", "Values": ["x"]}]}),
        ("DescribeBlueGreenDeployments", {"Marker": "nosuch"}),
        ("DescribeOrderableDBInstanceOptions", {"Engine": "aurora-postgresql", "MaxRecords": 1001}),
        ("DescribeEvents", {"Duration": 20161}),
        ("AddTagsToResource", {"ResourceName": ARN + "cluster:x", "Tags": [{"Key": f"k{n}", "Value": "v"} for n in range(51)]}),
        ("AddTagsToResource", {"ResourceName": ARN + "cluster:x", "Tags": [tag | {"Key": "k" * 129}]}),
        ("AddTagsToResource", {"ResourceName": ARN + "cluster:x", "Tags": [tag | {"Value": "v" * 257}]}),
        ("AddTagsToResource", {"ResourceName": ARN + "cluster:x", "Tags": [tag | {"Key": "aws:mine"}]}),
        ("ModifyDBClusterParameterGroup", {"DBClusterParameterGroupName": "x", "Parameters": [parameter] * 21}),
    ]
    for name in ("a--b", "a-", "1a", "a" * 256, "a_b", "ä"):
        cases.append(("CreateDBClusterParameterGroup", group | {"DBClusterParameterGroupName": name}))
        cases.append(("CreateDBClusterSnapshot", {"DBClusterSnapshotIdentifier": name, "DBClusterIdentifier": "x"}))
    paged = [name for name in asker.served["rds"]
             if "MaxRecords" in asker.clients["rds"].meta.service_model.operation_model(name).input_shape.members]
    for name in paged:
        whole = {"DBInstanceIdentifier": "x"} if name == "DescribeDBLogFiles" else {}
        needs_state = name in ("DescribeDBLogFiles", "DescribeDBClusterParameters", "DescribeDBParameters", "DescribeDBProxyTargets")
        if not needs_state and not name.startswith("DescribeEngineDefault") and "Orderable" not in name:
            cases += [(name, whole | {"MaxRecords": size}) for size in (19, 101)]
    for name, arguments in cases:
        asker.refused("rds", name, "InvalidParameterValue", arguments)
    return len(cases)


# --- errors ----------------------------------------------------------------------------------------------------------

KINDS = {
    "db-proxy:x": "DBProxyNotFoundFault", "snapshot-tenant-database:x": "DBSnapshotTenantDatabaseNotFoundFault",
    "integration:x": "IntegrationNotFoundFault", "tenant-database:x": "TenantDatabaseNotFound",
    "deployment:x": "BlueGreenDeploymentNotFoundFault", "snapshot:x": "DBSnapshotNotFound",
    "db-proxy-endpoint:x": "DBProxyEndpointNotFoundFault", "shard-group:x": "DBShardGroupNotFound",
    "cluster:x": "DBClusterNotFoundFault", "db:x": "DBInstanceNotFound", "target-group:x": "DBProxyTargetGroupNotFoundFault",
    "dbcr:x": "DBCapacityReservationNotFound",
}
CLUSTER, INSTANCE = {"DBClusterIdentifier": "nosuch"}, {"DBInstanceIdentifier": "nosuch"}
GROUPS = (("Cluster", "DBClusterParameterGroupName"), ("", "DBParameterGroupName"))


def not_there():
    """(operation, code, arguments) of everything that is not there."""
    yield from [
        ("DescribeDBClusters", "DBClusterNotFoundFault", CLUSTER),
        ("DescribeDBInstances", "DBInstanceNotFound", INSTANCE),
        ("DescribeDBClusterEndpoints", "DBClusterNotFoundFault", CLUSTER),
        ("DescribeGlobalClusters", "GlobalClusterNotFoundFault", {"GlobalClusterIdentifier": "nosuch"}),
        ("DescribeIntegrations", "IntegrationNotFoundFault", {"IntegrationIdentifier": "nosuch"}),
        ("DescribeDBProxies", "DBProxyNotFoundFault", {"DBProxyName": "nosuch"}),
        ("DescribeDBProxyTargets", "DBProxyNotFoundFault", {"DBProxyName": "nosuch"}),
        ("ModifyDBCluster", "DBClusterNotFoundFault", CLUSTER),
        ("FailoverDBCluster", "DBClusterNotFoundFault", CLUSTER),
        ("PromoteReadReplicaDBCluster", "DBClusterNotFoundFault", CLUSTER),
        ("ModifyDBInstance", "DBInstanceNotFound", INSTANCE),
        ("RebootDBInstance", "DBInstanceNotFound", INSTANCE),
        ("DeleteDBInstance", "DBInstanceNotFound", INSTANCE | {"SkipFinalSnapshot": True}),
        ("DeleteDBCluster", "DBClusterNotFoundFault", CLUSTER | {"SkipFinalSnapshot": True}),
        ("CreateDBClusterSnapshot", "DBClusterNotFoundFault", CLUSTER | {"DBClusterSnapshotIdentifier": "x"}),
        ("DescribeDBClusterSnapshots", "DBClusterSnapshotNotFoundFault", {"DBClusterSnapshotIdentifier": "nosuch"}),
        ("DeleteDBClusterSnapshot", "DBClusterSnapshotNotFoundFault", {"DBClusterSnapshotIdentifier": "nosuch"}),
        ("DescribeBlueGreenDeployments", "BlueGreenDeploymentNotFoundFault", {"BlueGreenDeploymentIdentifier": "nosuch"}),
        ("SwitchoverBlueGreenDeployment", "BlueGreenDeploymentNotFoundFault", {"BlueGreenDeploymentIdentifier": "nosuch"}),
        ("DeleteBlueGreenDeployment", "BlueGreenDeploymentNotFoundFault", {"BlueGreenDeploymentIdentifier": "nosuch"}),
        ("DescribeDBLogFiles", "DBInstanceNotFound", INSTANCE),
        ("DownloadDBLogFilePortion", "DBInstanceNotFound", INSTANCE | {"LogFileName": "x"}),
        ("DescribePendingMaintenanceActions", "ResourceNotFoundFault", {"ResourceIdentifier": ARN + "db:nosuch"}),
    ]
    for kind, key in GROUPS:
        named = {key: "nosuch"}
        parameters = {"Parameters": [{"ParameterName": "work_mem", "ParameterValue": "64", "ApplyMethod": "immediate"}]}
        for name, more in ((f"DescribeDB{kind}ParameterGroups", {}), (f"DescribeDB{kind}Parameters", {}),
                           (f"ModifyDB{kind}ParameterGroup", parameters), (f"ResetDB{kind}ParameterGroup", parameters),
                           (f"DeleteDB{kind}ParameterGroup", {})):
            yield name, "DBParameterGroupNotFound", named | more
    for name, more in (("AddTagsToResource", {"Tags": [{"Key": "k", "Value": "v"}]}),
                       ("RemoveTagsFromResource", {"TagKeys": ["k"]}), ("ListTagsForResource", {})):
        for resource, code in KINDS.items():
            yield name, code, {"ResourceName": ARN + resource} | more


def of_deployments(cluster, arn, writer):
    create = {"BlueGreenDeploymentName": "by-model", "Source": arn}
    yield from [
        ("CreateBlueGreenDeployment", "DBClusterNotFoundFault", create | {"Source": ARN + "cluster:nosuch"}),
        ("CreateBlueGreenDeployment", "DBInstanceNotFound", create | {"Source": ARN + "db:nosuch"}),
        ("CreateBlueGreenDeployment", "SourceDatabaseNotSupportedFault", create | {"Source": ARN + "db:" + writer}),
        ("CreateBlueGreenDeployment", "DBClusterParameterGroupNotFound", create | {"TargetDBClusterParameterGroupName": "nosuch"}),
        ("CreateBlueGreenDeployment", "DBParameterGroupNotFound", create | {"TargetDBParameterGroupName": "nosuch"}),
        ("ModifyDBCluster", "DBClusterParameterGroupNotFound", cluster | {"DBClusterParameterGroupName": "nosuch"}),
        ("ModifyDBInstance", "DBParameterGroupNotFound", {"DBInstanceIdentifier": writer, "DBParameterGroupName": "nosuch"}),
        ("FailoverDBCluster", "InvalidDBInstanceState", cluster | {"TargetDBInstanceIdentifier": writer}),
        ("PromoteReadReplicaDBCluster", "InvalidDBClusterStateFault", cluster),
        ("DownloadDBLogFilePortion", "DBLogFileNotFoundFault", {"DBInstanceIdentifier": writer, "LogFileName": "nosuch"}),
        ("DeleteDBCluster", "InvalidDBClusterStateFault", cluster | {"SkipFinalSnapshot": True}),
    ]


def of_changes(cluster, writer, reader):
    """Changes that refer to what the account has not, or to what there is already."""
    of_cluster, of_instance = cluster, {"DBInstanceIdentifier": reader}
    for operation, named in (("ModifyDBCluster", of_cluster), ("ModifyDBInstance", of_instance)):
        yield from [
            (operation, "OptionGroupNotFoundFault", named | {"OptionGroupName": "nosuch"}),
            (operation, "DomainNotFoundFault", named | {"Domain": "d-0123456789"}),
            (operation, "KMSKeyNotAccessibleFault", named | {"PerformanceInsightsKMSKeyId": "nosuch"}),
            (operation, "KMSKeyNotAccessibleFault", named | {"MasterUserSecretKmsKeyId": "nosuch"}),
            (operation, "NetworkTypeNotSupported", named | {"NetworkType": "DUAL"}),
            (operation, "StorageTypeNotSupported", named | {"StorageType": "gp3"}),
        ]
    yield from [
        ("ModifyDBCluster", "DBParameterGroupNotFound", of_cluster | {"DBInstanceParameterGroupName": "nosuch"}),
        ("ModifyDBCluster", "DBClusterAlreadyExistsFault", of_cluster | {"NewDBClusterIdentifier": cluster["DBClusterIdentifier"]}),
        ("ModifyDBInstance", "DBInstanceAlreadyExists", of_instance | {"NewDBInstanceIdentifier": writer}),
        ("ModifyDBInstance", "CertificateNotFound", of_instance | {"CACertificateIdentifier": "nosuch"}),
        ("ModifyDBInstance", "DBCapacityReservationNotFound", of_instance | {"DBCapacityReservationIdentifier": "nosuch"}),
        ("ModifyDBInstance", "DBSecurityGroupNotFound", of_instance | {"DBSecurityGroups": ["nosuch"]}),
        ("ModifyDBInstance", "BackupPolicyNotFoundFault", of_instance | {"AwsBackupRecoveryPointArn": ARN.replace(":rds:", ":backup:") + "recovery-point:nosuch"}),
    ]


def endpoint(number):
    return {"DBClusterEndpointIdentifier": f"by-model-{number}"}


def of_endpoints(asker, cluster):
    """Custom endpoints: what is not there, there already, one too many, or not available. Leaves number 1."""
    create, static = {"EndpointType": "ANY"} | cluster, {"StaticMembers": ["nosuch"]}
    asker.refused("rds", "CreateDBClusterEndpoint", "DBClusterNotFoundFault", create | endpoint(1) | CLUSTER)
    asker.refused("rds", "CreateDBClusterEndpoint", "DBInstanceNotFound", create | endpoint(1) | static)
    asker.refused("rds", "ModifyDBClusterEndpoint", "DBClusterEndpointNotFoundFault", endpoint("nosuch"))
    asker.refused("rds", "DeleteDBClusterEndpoint", "DBClusterEndpointNotFoundFault", endpoint("nosuch"))
    for number in range(1, 6):
        asker.call("rds", "CreateDBClusterEndpoint", create | endpoint(number))
        if number == 1:
            for name in ("ModifyDBClusterEndpoint", "DeleteDBClusterEndpoint"):
                asker.refused("rds", name, "InvalidDBClusterEndpointStateFault", endpoint(1))
    asker.refused("rds", "CreateDBClusterEndpoint", "DBClusterEndpointAlreadyExistsFault", create | endpoint(1))
    asker.refused("rds", "CreateDBClusterEndpoint", "DBClusterEndpointQuotaExceededFault", create | endpoint(6))
    for number in range(1, 6):
        while asker.call("rds", "DescribeDBClusterEndpoints", endpoint(number))["DBClusterEndpoints"][0]["Status"] != "available":
            time.sleep(0.1)
    asker.refused("rds", "ModifyDBClusterEndpoint", "DBInstanceNotFound", endpoint(1) | static)
    for number in range(2, 6):
        asker.call("rds", "DeleteDBClusterEndpoint", endpoint(number))
    of_tags(asker, "cluster-endpoint:by-model-5", "InvalidDBClusterEndpointStateFault")
    # Those that are being deleted count for the quota.
    named = lambda: asker.call("rds", "DescribeDBClusterEndpoints", cluster)["DBClusterEndpoints"]
    while any(found.get("DBClusterEndpointIdentifier", "").startswith("by-model-") and found["Status"] == "deleting" for found in named()):
        time.sleep(0.1)


def of_tags(asker, resource, code):
    """Tags of what is being deleted stay as they are."""
    named = {"ResourceName": ARN + resource}
    asker.refused("rds", "AddTagsToResource", code, named | {"Tags": [{"Key": "k", "Value": "v"}]})
    asker.refused("rds", "RemoveTagsFromResource", code, named | {"TagKeys": ["k"]})


def of_groups(asker):
    """A default group, a name that is taken, and more groups than an account may have."""
    for kind, key in GROUPS:
        default = {key: "default.aurora-postgresql16"}
        parameters = {"Parameters": [{"ParameterName": "work_mem", "ParameterValue": "64", "ApplyMethod": "immediate"}]}
        asker.refused("rds", f"ModifyDB{kind}ParameterGroup", "InvalidDBParameterGroupState", default | parameters)
        asker.refused("rds", f"ResetDB{kind}ParameterGroup", "InvalidDBParameterGroupState", default | parameters)
        create, more = f"CreateDB{kind}ParameterGroup", {"DBParameterGroupFamily": "aurora-postgresql16", "Description": "d"}
        made = []
        try:
            while len(made) < 60:
                asker.call("rds", create, more | {key: f"many-{len(made)}"})
                made.append(f"many-{len(made)}")
        except ClientError as error:
            expect(error.response["Error"]["Code"] == "DBParameterGroupQuotaExceeded", f"too many groups: {error}")
        expect(10 < len(made) < 60, f"{len(made)} groups were made before a quota")
        asker.refused("rds", create, "DBParameterGroupAlreadyExists", more | {key: made[0]})
        for name in made:
            asker.call("rds", f"DeleteDB{kind}ParameterGroup", {key: name})


def of_states(asker, cluster, arn, writer, reader):
    """Calls in a state that does not allow them, each brought about for real."""
    rds, instance = asker.clients["rds"], {"DBInstanceIdentifier": reader}
    create = {"BlueGreenDeploymentName": "by-model", "Source": arn}
    rds.reboot_db_instance(**instance)
    asker.refused("rds", "RebootDBInstance", "InvalidDBInstanceState", instance)
    asker.refused("rds", "ModifyDBInstance", "InvalidDBInstanceState", instance)
    asker.refused("rds", "ModifyDBClusterEndpoint", "InvalidDBInstanceState", endpoint(1) | {"StaticMembers": [reader]})
    asker.refused("rds", "CreateDBClusterEndpoint", "InvalidDBInstanceState",
                  cluster | endpoint(7) | {"EndpointType": "ANY", "StaticMembers": [reader]})
    asker.refused("rds", "CreateBlueGreenDeployment", "InvalidDBInstanceState", create)
    wait(rds, "db_instance_available", instance)
    rds.failover_db_cluster(**cluster)
    taken = {"DBClusterSnapshotIdentifier": "by-model"}
    asker.refused("rds", "FailoverDBCluster", "InvalidDBClusterStateFault", cluster)
    asker.refused("rds", "ModifyDBCluster", "InvalidDBClusterStateFault", cluster)
    asker.refused("rds", "CreateDBClusterEndpoint", "InvalidDBClusterStateFault", cluster | endpoint(7) | {"EndpointType": "ANY"})
    for name in ("ModifyDBClusterEndpoint", "DeleteDBClusterEndpoint"):
        asker.refused("rds", name, "InvalidDBClusterStateFault", endpoint(1))
    asker.refused("rds", "CreateDBClusterSnapshot", "InvalidDBClusterStateFault", cluster | taken)
    asker.refused("rds", "CreateBlueGreenDeployment", "InvalidDBClusterStateFault", create)
    wait(rds, "db_cluster_available", cluster)
    rds.create_db_cluster_snapshot(**cluster, **taken)
    asker.refused("rds", "DeleteDBClusterSnapshot", "InvalidDBClusterSnapshotStateFault", taken)
    asker.refused("rds", "CreateDBClusterSnapshot", "DBClusterSnapshotAlreadyExistsFault", cluster | taken)
    wait(rds, "db_cluster_snapshot_available", taken)
    for name in (writer, reader):
        rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
        asker.refused("rds", "DeleteDBInstance", "InvalidDBInstanceState", {"DBInstanceIdentifier": name, "SkipFinalSnapshot": True})
        of_tags(asker, "db:" + name, "InvalidDBInstanceState")
        wait(rds, "db_instance_deleted", {"DBInstanceIdentifier": name})
    last = {"SkipFinalSnapshot": False, "FinalDBSnapshotIdentifier": "by-model"}
    asker.refused("rds", "DeleteDBCluster", "DBClusterSnapshotAlreadyExistsFault", cluster | last)
    rds.delete_db_cluster(**cluster, SkipFinalSnapshot=True)
    of_tags(asker, "cluster:" + cluster["DBClusterIdentifier"], "InvalidDBClusterStateFault")
    wait(rds, "db_cluster_deleted", cluster)


def wait(client, waiter, arguments):
    client.get_waiter(waiter).wait(**arguments, WaiterConfig={"Delay": 1, "MaxAttempts": 300})


def of_cloudwatch(asker):
    now = datetime.datetime.now(datetime.timezone.utc)
    query = [{"Id": "a", "MetricStat": {"Metric": {"Namespace": "AWS/RDS", "MetricName": "DBLoad"}, "Period": 60, "Stat": "Sum"}}]
    span = {"StartTime": now - datetime.timedelta(days=2), "EndTime": now}
    statistics = {"Namespace": "AWS/RDS", "MetricName": "DBLoad", "Period": 60, "Statistics": ["Sum"]} | span
    yield "GetMetricData", "InvalidNextToken", {"MetricDataQueries": query, "NextToken": "nosuch"} | span
    yield "GetMetricStatistics", "InvalidParameterCombination", statistics
    yield "GetMetricStatistics", "InvalidParameterValue", statistics | {"StartTime": now, "EndTime": now}
    yield "GetMetricStatistics", "MissingParameter", {k: v for k, v in statistics.items() if k != "Statistics"}
    yield "ListMetrics", "InvalidParameterValue", {"Namespace": ":x"}


def errors(asker, name, provoked):
    rds, cluster = asker.clients["rds"], {"DBClusterIdentifier": name}
    found = rds.describe_db_clusters(**cluster)["DBClusters"][0]
    arn, members = found["DBClusterArn"], sorted(found["DBClusterMembers"], key=lambda m: not m["IsClusterWriter"])
    writer, reader = (m["DBInstanceIdentifier"] for m in members)
    for operation, code, arguments in [*not_there(), *of_deployments(cluster, arn, writer), *of_changes(cluster, writer, reader)]:
        asker.refused("rds", operation, code, arguments)
    for operation, code, arguments in of_cloudwatch(asker):
        asker.refused("cloudwatch", operation, code, arguments)
    for operation in ("ListMetrics", "GetMetricStatistics"):
        plan({"kind": "error_before", "action": operation})
        asker.refused("cloudwatch", operation, "InternalServiceError")
    of_endpoints(asker, cluster)
    of_groups(asker)
    of_states(asker, cluster, arn, writer, reader)
    real = set(model.REFUSED) | provoked
    played, count = [], 0
    for service, operation in asker.operations():
        for shape in operation.error_shapes:
            count += 1
            error = shape.metadata.get("error", {})
            code, status = error.get("code", shape.name), error.get("httpStatusCode", 400)
            if (operation.name, code) in real:
                continue
            plan({"kind": "refuse", "action": operation.name, "code": code, "status": status, "message": "played"})
            caught = asker.refused(service, operation.name, code)
            expect(type(caught).__name__ == shape.name, f"boto3 takes {code} of {operation.name} for {type(caught).__name__}")
            played.append(f"{operation.name} {code}")
    return count, played


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cluster", default="orders")
    options = parser.parse_args()
    expect(os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://127."), "AWS_ENDPOINT_URL must lead to a lab")
    before = json.load(sys.stdin)
    lab("DELETE", "/_lab/faults")
    asker, began = Asker(), time.monotonic()
    try:
        asked = limits(asker)
        say(f"{asked} limits of the models are refused")
        asked += beyond_the_models(asker)
        count, played = errors(asker, options.cluster, {tuple(pair) for pair in before["refused"]})
    except Wrong as wrong:
        say(f"wrong: {wrong}")
        sys.exit(1)
    say(f"{count} modelled errors, {len(played)} of them played: {', '.join(played)}")
    print(json.dumps({"limits": asked, "errors": count, "played": played, "checked": model.CHECKED, "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
