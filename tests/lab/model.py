"""Holds what the lab answers against botocore's own models: every answer against its output shape, every error against the
errors that its operation has. Used by the scripts beside it; it asks for nothing by itself.

Wrong is raised for an element that the model does not know, a value of another type, a member that AWS always sends and that is
not there, and an error with another code or HTTP status than the model's.
"""

import json
import os
import re
import urllib.request
import xml.etree.ElementTree as ElementTree


class Wrong(Exception):
    """Something is not as on AWS."""


def expect(condition, text):
    if not condition:
        raise Wrong(text)


# Answers by operation that were held against the model, and errors by (operation, code).
CHECKED = {}
REFUSED = {}

# Codes that any operation may answer with: the services' page "Common Errors", and what their front ends say.
COMMON = {
    "AccessDenied": 403, "ExpiredToken": 403, "IncompleteSignature": 400, "InternalFailure": 500, "InvalidAction": 400,
    "InvalidClientTokenId": 403, "InvalidParameterCombination": 400, "InvalidParameterValue": 400, "MissingAction": 400,
    "MissingAuthenticationToken": 403, "MissingParameter": 400, "SerializationException": 400, "SignatureDoesNotMatch": 403,
    "Throttling": 400, "ValidationError": 400,
}

# Members that AWS sends with every object of a shape, whatever its state.
ALWAYS = {
    "BlueGreenDeployment": "BlueGreenDeploymentIdentifier BlueGreenDeploymentName Source Status CreateTime Tasks SwitchoverDetails",
    "BlueGreenDeploymentTask": "Name Status",
    "SwitchoverDetail": "SourceMember Status",
    "DBCluster": "DBClusterIdentifier DBClusterArn DbClusterResourceId Status Engine EngineVersion EngineMode Port MasterUsername "
                 "DBClusterParameterGroup DBClusterMembers DeletionProtection IAMDatabaseAuthenticationEnabled StorageEncrypted "
                 "MultiAZ ClusterCreateTime AllocatedStorage BackupRetentionPeriod AvailabilityZones AssociatedRoles "
                 "PreferredBackupWindow PreferredMaintenanceWindow CopyTagsToSnapshot CrossAccountClone HttpEndpointEnabled",
    "DBClusterMember": "DBInstanceIdentifier IsClusterWriter DBClusterParameterGroupStatus PromotionTier",
    "DBInstance": "DBInstanceIdentifier DBInstanceArn DbiResourceId DBInstanceClass DBInstanceStatus Engine EngineVersion "
                  "DBParameterGroups MultiAZ StorageType StorageEncrypted DeletionProtection PubliclyAccessible PromotionTier "
                  "AutoMinorVersionUpgrade PendingModifiedValues PreferredMaintenanceWindow LicenseModel DbInstancePort "
                  "CACertificateIdentifier MonitoringInterval PerformanceInsightsEnabled IAMDatabaseAuthenticationEnabled",
    "DBParameterGroupStatus": "DBParameterGroupName ParameterApplyStatus",
    "Endpoint": "Address Port HostedZoneId",
    "DBClusterEndpoint": "DBClusterIdentifier Endpoint Status EndpointType",
    "DBClusterSnapshot": "DBClusterSnapshotIdentifier DBClusterSnapshotArn DBClusterIdentifier Status SnapshotType Engine "
                         "EngineVersion PercentProgress SnapshotCreateTime StorageEncrypted AllocatedStorage LicenseModel",
    "DBClusterParameterGroup": "DBClusterParameterGroupName DBParameterGroupFamily Description DBClusterParameterGroupArn",
    "DBParameterGroup": "DBParameterGroupName DBParameterGroupFamily Description DBParameterGroupArn",
    "Parameter": "ParameterName Description Source ApplyType DataType IsModifiable ApplyMethod",
    "DBEngineVersion": "Engine EngineVersion DBParameterGroupFamily DBEngineDescription DBEngineVersionDescription Status "
                       "ValidUpgradeTarget SupportsReadReplica SupportsGlobalDatabases",
    "UpgradeTarget": "Engine EngineVersion Description AutoUpgrade IsMajorVersionUpgrade",
    "OrderableDBInstanceOption": "Engine EngineVersion DBInstanceClass LicenseModel AvailabilityZones StorageType Vpc",
    "Event": "SourceIdentifier SourceType Message EventCategories Date SourceArn",
    "DescribeDBLogFilesDetails": "LogFileName LastWritten Size",
    "DownloadDBLogFilePortionDetails": "LogFileData Marker AdditionalDataPending",
    "Tag": "Key Value",
    "ResourcePendingMaintenanceActions": "ResourceIdentifier PendingMaintenanceActionDetails",
    "PendingMaintenanceAction": "Action Description",
    "GlobalCluster": "GlobalClusterIdentifier Status Engine GlobalClusterMembers",
    "GlobalClusterMember": "DBClusterArn IsWriter",
    "Integration": "SourceArn TargetArn IntegrationName IntegrationArn Status",
    "DBProxy": "DBProxyName DBProxyArn Status EngineFamily",
    "DBProxyTarget": "RdsResourceId Type",
    "ClusterMasterUserSecret": "SecretArn SecretStatus",
    "MetricDataResult": "Id Label Timestamps Values StatusCode",
    "Datapoint": "Timestamp Unit",
    "Metric": "Namespace MetricName Dimensions",
    "Dimension": "Name Value",
}

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def local(tag):
    return tag.rsplit("}", 1)[-1]


def always(shape, names, path):
    for name in set(ALWAYS.get(shape.name, "").split()) | set(shape.required_members):
        expect(name in names, f"{path}: {shape.name} always has {name}, and it is not among {sorted(names)}")


def check_xml(node, shape, path):
    if shape.type_name == "structure":
        known = {m.serialization.get("name", name): (name, m) for name, m in shape.members.items()}
        seen = [local(child.tag) for child in node]
        expect(len(seen) == len(set(seen)), f"{path}: a member comes twice: {seen}")
        for child in node:
            name = local(child.tag)
            expect(name in known, f"{path}: the model has no member {name}")
            check_xml(child, known[name][1], f"{path}.{name}")
        always(shape, {known[name][0] for name in seen}, path)
    elif shape.type_name == "list":
        item = shape.member.serialization.get("name", "member")
        expect(not (node.text or "").strip(), f"{path}: a list has no text")
        for child in node:
            expect(local(child.tag) == item, f"{path}: list items are called {item}, not {local(child.tag)}")
            check_xml(child, shape.member, f"{path}[]")
    else:
        expect(len(node) == 0, f"{path}: a {shape.type_name} has no members")
        check_text(node.text or "", shape, path)


def check_text(text, shape, path):
    kind = shape.type_name
    fits = {
        "boolean": lambda: text in ("true", "false"),
        "integer": lambda: re.fullmatch(r"-?\d{1,10}", text),
        "long": lambda: re.fullmatch(r"-?\d{1,19}", text),
        "double": lambda: float(text) is not None,
        "float": lambda: float(text) is not None,
        "timestamp": lambda: ISO.fullmatch(text),
        "string": lambda: not getattr(shape, "enum", None) or text in shape.enum,
    }
    expect(kind in fits, f"{path}: what is a {kind}?")
    try:
        fine = fits[kind]()
    except ValueError:
        fine = False
    expect(fine, f"{path}: {text!r} is no {kind} of {getattr(shape, 'enum', None) or shape.name}")


def check_json(value, shape, path):
    kinds = {"structure": dict, "list": list, "string": str, "boolean": bool, "integer": int, "long": int,
             "double": (int, float), "float": (int, float), "timestamp": (int, float)}
    expect(isinstance(value, kinds[shape.type_name]), f"{path}: {value!r} is no {shape.type_name}")
    if shape.type_name == "structure":
        for name, inner in value.items():
            expect(name in shape.members, f"{path}: the model has no member {name}")
            check_json(inner, shape.members[name], f"{path}.{name}")
        always(shape, set(value), path)
    elif shape.type_name == "list":
        for inner in value:
            check_json(inner, shape.member, f"{path}[]")
    elif shape.type_name == "string" and getattr(shape, "enum", None):
        expect(value in shape.enum, f"{path}: {value!r} is none of {shape.enum}")


def errors_of(operation_model):
    """Code to HTTP status of the errors that the model has for an operation."""
    found = {}
    for shape in operation_model.error_shapes:
        error = shape.metadata.get("error", {})
        found[error.get("code", shape.name)] = error.get("httpStatusCode", 400)
    return found


def check_answer(operation_model, response_dict, **_):
    """A handler of botocore's event `before-parse`."""
    name, body = operation_model.name, response_dict["body"]
    cloudwatch = operation_model.service_model.service_name == "cloudwatch"
    if response_dict["status_code"] >= 300:
        check_error(operation_model, response_dict["status_code"], body, cloudwatch)
        return
    CHECKED[name] = CHECKED.get(name, 0) + 1
    shape = operation_model.output_shape
    if cloudwatch:
        check_json(json.loads(body), shape, name)
        return
    root = ElementTree.fromstring(body)
    expect(root.tag == f"{{http://rds.amazonaws.com/doc/2014-10-31/}}{name}Response", f"{name}: the root is {root.tag}")
    children = {local(child.tag): child for child in root}
    expect("ResponseMetadata" in children, f"{name}: there is no ResponseMetadata")
    if shape is not None:
        wrapper = shape.serialization.get("resultWrapper")
        expect(wrapper in children, f"{name}: there is no {wrapper}")
        check_xml(children[wrapper], shape, name)


def check_error(operation_model, status, body, cloudwatch):
    name = operation_model.name
    if cloudwatch:
        code = json.loads(body)["__type"]
    else:
        root = ElementTree.fromstring(body)
        found = {local(node.tag): node.text for node in root.iter()}
        for needed in ("Type", "Code", "Message", "RequestId"):
            expect(found.get(needed), f"{name}: an error without {needed}: {body}")
        expect(found["Type"] == ("Sender" if status < 500 else "Receiver"), f"{name}: {found['Type']} with {status}")
        code = found["Code"]
    modelled = COMMON | errors_of(operation_model)
    expect(code in modelled, f"{name}: the model knows no error {code}")
    expect(modelled[code] == status, f"{name}: {code} comes with HTTP {modelled[code]}, not {status}")
    REFUSED[name, code] = REFUSED.get((name, code), 0) + 1


def lab(method, path, value=None):
    """Asks the lab's own control path."""
    url = os.environ["AWS_ENDPOINT_URL"] + path
    body = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def plan(fault):
    lab("POST", "/_lab/faults", fault)
