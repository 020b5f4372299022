#!/usr/bin/env bash
# The whole upgrade with the unmodified AWS CLI, as an operator would type it, and a deployment that is given up before. Reads
# AWS_ENDPOINT_URL and the like from the environment (`pilot-lab up` prints them); needs `aws` on the path.
#
#     by_cli.sh CLUSTER TARGET_VERSION        (orders 16.15)
#
# Progress goes to stderr. Exit 0 when the cluster is upgraded and the old side is gone.
set -euo pipefail

cluster=$1 version=$2 major=${2%%.*}
case ${AWS_ENDPOINT_URL:-} in
http://127.*) ;;
*) echo "AWS_ENDPOINT_URL must lead to a lab" >&2 && exit 1 ;;
esac

say() { echo "by cli: $*" >&2; }
fail() { say "wrong: $*" && exit 1; }
# In us-east-1 the first version of the CLI takes rds elsewhere unless the endpoint is said on the command line.
rds() { aws --endpoint-url "$AWS_ENDPOINT_URL" rds --output json "$@"; }
# The value that a query finds, as text.
value() { aws --endpoint-url "$AWS_ENDPOINT_URL" rds --output text "${@:2}" --query "$1"; }

# Waits until a query finds a word; says what it found last.
until_is() {
    local wanted=$1 query=$2 seen= end=$((SECONDS + 300))
    shift 2
    while seen=$(value "$query" "$@" 2>&1) || true; [[ $seen != *"$wanted"* ]]; do
        ((SECONDS < end)) || fail "$* has never shown $wanted, last: $seen"
        sleep 0.3
    done
}

# A call that has to be refused with this code.
refused() {
    local code=$1 said
    shift
    if said=$(rds "$@" 2>&1); then fail "$* was not refused with $code"; fi
    [[ $said == *"($code)"* ]] || fail "$* was refused otherwise than with $code: $said"
}

writer=$(value "DBClusters[0].DBClusterMembers[?IsClusterWriter].DBInstanceIdentifier" describe-db-clusters --db-cluster-identifier "$cluster")
arn=$(value "DBClusters[0].DBClusterArn" describe-db-clusters --db-cluster-identifier "$cluster")
from=$(value "DBClusters[0].EngineVersion" describe-db-clusters --db-cluster-identifier "$cluster")
say "$cluster is $from, its writer $writer"

for family in "${from%%.*}" "$major"; do
    group="$cluster-cli-$family"
    rds create-db-cluster-parameter-group --db-cluster-parameter-group-name "$group" --description "made by hand" \
        --db-parameter-group-family "aurora-postgresql$family" --tags Key=made-by,Value=hand >/dev/null
    rds modify-db-cluster-parameter-group --db-cluster-parameter-group-name "$group" --parameters \
        ParameterName=rds.logical_replication,ParameterValue=1,ApplyMethod=pending-reboot \
        ParameterName=max_replication_slots,ParameterValue=25,ApplyMethod=pending-reboot \
        ParameterName=max_wal_senders,ParameterValue=25,ApplyMethod=pending-reboot \
        ParameterName=max_logical_replication_workers,ParameterValue=12,ApplyMethod=pending-reboot \
        ParameterName=max_worker_processes,ParameterValue=24,ApplyMethod=pending-reboot >/dev/null
done
rds modify-db-cluster --db-cluster-identifier "$cluster" --db-cluster-parameter-group-name "$cluster-cli-${from%%.*}" \
    --no-deletion-protection --apply-immediately >/dev/null
rds reboot-db-instance --db-instance-identifier "$writer" >/dev/null
until_is available "DBInstances[0].DBInstanceStatus" describe-db-instances --db-instance-identifier "$writer"
until_is in-sync "DBClusters[0].DBClusterMembers[0].DBClusterParameterGroupStatus" describe-db-clusters --db-cluster-identifier "$cluster"
say "rebooted and in sync"

rds create-db-cluster-snapshot --db-cluster-identifier "$cluster" --db-cluster-snapshot-identifier "$cluster-cli" >/dev/null
until_is available "DBClusterSnapshots[0].Status" describe-db-cluster-snapshots --db-cluster-snapshot-identifier "$cluster-cli"
say "snapshot available"

create() {
    value "BlueGreenDeployment.BlueGreenDeploymentIdentifier" create-blue-green-deployment --source "$arn" \
        --blue-green-deployment-name "$1" --target-engine-version "$version" \
        --target-db-cluster-parameter-group-name "$cluster-cli-$major"
}
given_up=$(create given-up)
refused BlueGreenDeploymentAlreadyExistsFault create-blue-green-deployment --source "$arn" --blue-green-deployment-name given-up
refused InvalidBlueGreenDeploymentStateFault delete-blue-green-deployment --blue-green-deployment-identifier "$given_up"
until_is AVAILABLE "BlueGreenDeployments[0].Status" describe-blue-green-deployments --blue-green-deployment-identifier "$given_up"
rds delete-blue-green-deployment --blue-green-deployment-identifier "$given_up" --delete-target >/dev/null
until_is BlueGreenDeploymentNotFoundFault "BlueGreenDeployments[0].Status" describe-blue-green-deployments --blue-green-deployment-identifier "$given_up"
until_is 1 "length(DBClusters)" describe-db-clusters
say "a deployment was given up, and its green is gone"

deployment=$(create by-cli)
until_is AVAILABLE "BlueGreenDeployments[0].Status" describe-blue-green-deployments \
    --filters "Name=blue-green-deployment-name,Values=by-cli"
say "green is $(value "BlueGreenDeployments[0].Target" describe-blue-green-deployments --blue-green-deployment-identifier "$deployment")"
refused InvalidParameterValue switchover-blue-green-deployment --blue-green-deployment-identifier "$deployment" --switchover-timeout 4000
rds switchover-blue-green-deployment --blue-green-deployment-identifier "$deployment" --switchover-timeout 60 >/dev/null
until_is SWITCHOVER_COMPLETED "BlueGreenDeployments[0].Status" describe-blue-green-deployments --blue-green-deployment-identifier "$deployment"
[[ $(value "DBClusters[0].EngineVersion" describe-db-clusters --db-cluster-identifier "$cluster") == "$version" ]] || fail "not upgraded"
aws cloudwatch get-metric-data --output json --start-time "$(date -u -d '-5 minutes' +%FT%TZ)" --end-time "$(date -u +%FT%TZ)" \
    --metric-data-queries '[{"Id":"c","MetricStat":{"Metric":{"Namespace":"AWS/RDS","MetricName":"DatabaseConnections",
    "Dimensions":[{"Name":"DBInstanceIdentifier","Value":"'"$writer"'"}]},"Period":60,"Stat":"Maximum"}}]' >/dev/null
say "switched over"

refused InvalidBlueGreenDeploymentStateFault delete-blue-green-deployment --blue-green-deployment-identifier "$deployment" --delete-target
rds delete-blue-green-deployment --blue-green-deployment-identifier "$deployment" >/dev/null
for member in $(value "DBClusters[0].DBClusterMembers[].DBInstanceIdentifier" describe-db-clusters --db-cluster-identifier "$cluster-old1"); do
    rds delete-db-instance --db-instance-identifier "$member" --skip-final-snapshot >/dev/null
    until_is DBInstanceNotFound "DBInstances[0].DBInstanceStatus" describe-db-instances --db-instance-identifier "$member"
done
rds delete-db-cluster --db-cluster-identifier "$cluster-old1" --final-db-snapshot-identifier "$cluster-cli-final" >/dev/null
until_is DBClusterNotFoundFault "DBClusters[0].Status" describe-db-clusters --db-cluster-identifier "$cluster-old1"
say "the old side is gone"
